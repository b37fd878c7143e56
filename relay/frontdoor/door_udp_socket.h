/*
 * Datagrams in trains, from where they came to where they go, as the kernel takes them: many of one size at once
 * (UDP_SEGMENT) if the way can, else one by one. QUIC's are not cut into pieces (RFC 9000, section 14): what is too large for the
 * first link is dropped, as its sender wants to know; ICMP is not listened to. Through the overlay short ones may be.
 *
 * One thread.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"
#include "relay/udp_socket.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Datagrams that were not taken, by cause. */
struct door_udp_losses {
	uint64_t full, too_big, failed;
};

/* Where visitors come. 0 or -errno. */
P2P_CHECK int door_udp_listen(const struct endpoint *address, uint16_t number, struct relay_socket *ret);
/* The interface that has the address; 0: none. */
uint32_t door_udp_interface_of(const struct endpoint *address);
/* Connected, non-blocking, no address of others is heard. 0 or -errno. */
P2P_CHECK int door_udp_connect(const struct endpoint *target, struct relay_socket *ret);
/*
 * Datagrams of `size` bytes, the last perhaps shorter. to: NULL for a connected socket. *has_no_trains: is set when the way
 * does not take them, and then none are tried.
 */
void door_udp_send(const struct relay_socket *sock, const struct udp_way *to, const uint8_t *bytes, size_t len,
		   size_t size, bool *has_no_trains, struct door_udp_losses *losses);
/* The same on a connected socket, one by one, each behind these header_len bytes; size 0: nothing but them. */
void door_udp_send_behind(const struct relay_socket *sock, const uint8_t *header, size_t header_len, const uint8_t *bytes,
			  size_t len, size_t size, struct door_udp_losses *losses);
/*
 * Of QUIC that goes through the overlay: what is no longer than everybody's first datagrams may be cut into pieces on the way, as a
 * header is in front of it; what is longer may not, so who sends finds out how long they may be. *is_whole: as the socket was set last.
 */
void door_udp_set_whole_for(const struct relay_socket *sock, size_t size, bool *is_whole);
