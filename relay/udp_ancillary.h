/*
 * What goes along with a UDP message that is sent: by which address of ours, and how long each datagram of a train is.
 * For msghdr.msg_control; the caller's struct udp_ancillary holds it until the message is sent. Pure.
 */
#pragma once

#include "relay/udp_socket.h"

/* Room for one source and one length of segments; zeroed before. */
struct udp_ancillary {
	_Alignas(struct cmsghdr) uint8_t
		bytes[CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t))];
};

/* It leaves by the address of ours that was asked; nothing is put where that is not known, or the socket has but one. */
void udp_ancillary_put_source(struct msghdr *header, const struct relay_socket *sock, const struct udp_way *to);
/* The bytes are datagrams of that size, but the last, which may be shorter. */
void udp_ancillary_put_segment(struct msghdr *header, uint16_t size);
