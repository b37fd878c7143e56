/* "Destination unreachable" and "too big", for a packet that cannot go: its sender learns it at once. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* RFC 1812: as much of the packet as fits into 576 bytes; RFC 4443: into the minimum MTU. */
#define ICMP4_MAX_LEN 576
#define ICMP6_MAX_LEN 1280

/*
 * Writes the answer to an IP packet, as if from its destination: ICMP host unreachable (type 3,
 * code 1) or ICMPv6 address unreachable (type 1, code 3). Its length; 0 when RFC 1122 and RFC 4443
 * forbid an answer (to ICMP errors, multicast, fragments but the first), or the packet is no whole one.
 */
size_t icmp_unreachable(const uint8_t *packet, size_t len, uint8_t ret[ICMP6_MAX_LEN]);
/* The same, but ICMP fragmentation needed (type 3, code 4) or ICMPv6 packet too big (type 2), with that MTU. */
size_t icmp_too_big(const uint8_t *packet, size_t len, uint32_t mtu, uint8_t ret[ICMP6_MAX_LEN]);
