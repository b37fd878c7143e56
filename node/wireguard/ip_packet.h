/*
 * As much of an IP packet as a tunnel needs: version, length, addresses, and the ECN bits of its
 * DS field (RFC 6040: what the outer header learns on the way is carried into the inner one).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ip_ecn { IP_ECN_NONE = 0, IP_ECN_ECT1 = 1, IP_ECN_ECT0 = 2, IP_ECN_CE = 3 };

struct ip_packet {
	bool is_v6;
	uint8_t ds;	    /* whole field, ECN in the low two bits */
	uint32_t size;	    /* as the header says; at most the bytes that are there */
	const uint8_t *src; /* 4 or 16 bytes, in the packet */
	const uint8_t *dst;
};

/* False: not a whole IP packet. More bytes than the header says are padding. */
bool ip_packet_parse(const uint8_t *bytes, size_t n, struct ip_packet *ret);
/* Does a whole IP packet hold a TCP segment? One behind IPv6 extension headers is not looked for. */
bool ip_packet_is_tcp(const uint8_t *packet);
/*
 * Carries the outer header's ECN into the packet, IPv4 checksum included. False: the packet must be
 * dropped (congestion was marked, but its sender would not understand).
 */
bool ip_packet_decapsulate_ecn(uint8_t *bytes, const struct ip_packet *packet, uint8_t outer_ds);
