/*
 * What a NAT reads and changes in an IPv4 packet. Total: whatever the bytes are, nothing outside them is
 * touched. Checksums are corrected by what has changed, so a packet that was damaged stays damaged.
 *
 *    UDP, TCP     source and destination with their ports
 *    ICMP echo    who asks has the identifier as port, who is asked 0
 *    ICMP error   source and destination of the packet that the error is about: it carries its beginning
 */
#pragma once

#include "tests/lib/nat/nat.h"

#include <stddef.h>

#define NAT_PACKET_MAX 65535

struct nat_header {
	uint8_t *ip, *transport;
	size_t transport_len; /* what is there of it */
	enum nat_protocol protocol;
	struct endpoint source, destination;
};

struct nat_packet {
	struct nat_header outer; /* of an error: without ports */
	struct nat_header inner; /* of an error: what it is about */
	size_t len;
	bool is_error;
};

/*
 * False: not IPv4 with one of these protocols, not whole, or a later fragment. The first fragment is a packet
 * like any other. Points into bytes.
 */
P2P_CHECK bool nat_packet_read(uint8_t *bytes, size_t len, struct nat_packet *ret);
void nat_packet_set_source(struct nat_packet *packet, const struct endpoint *source);
void nat_packet_set_destination(struct nat_packet *packet, const struct endpoint *destination);
/* An error goes in: its packet was sent by inside, as it knows itself. */
void nat_packet_set_inner_source(struct nat_packet *packet, const struct endpoint *inside);
/* An error goes out: its packet was sent to outside, as its sender knows it. */
void nat_packet_set_inner_destination(struct nat_packet *packet, const struct endpoint *outside);

/* Later fragments go where the first one went: which packet it is of, and its addresses. */
struct nat_fragment {
	struct endpoint source, destination; /* without ports */
	uint16_t id;
	uint8_t protocol;
	bool is_first, is_last;
};

/* False: not IPv4, not whole, or no fragment. */
P2P_CHECK bool nat_fragment_read(const uint8_t *bytes, size_t len, struct nat_fragment *ret);
bool nat_fragment_is_of(const struct nat_fragment *a, const struct nat_fragment *b);
/* Of one that was read. */
void nat_fragment_readdress(uint8_t *bytes, const struct nat_fragment *fragment);
