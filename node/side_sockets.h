/*
 * UDP sockets beside the one that carries packets: to be somebody whom the NAT does not know yet. IPv4, any port.
 *
 *   open n ──► each has a port of its own; send from one, hear on all ──► close all at once
 *
 * Loop only; nothing blocks. Not to be copied.
 */
#pragma once

#include "common/endpoint.h"

#include <stdint.h>
#include <uv.h>

#define SIDE_SOCKETS_MAX     256
#define SIDE_SOCKETS_MAX_LEN 1500 /* of a datagram that is taken; longer ones are dropped */

struct side_sockets;

struct side_sockets_options {
	uint32_t n; /* 1 … SIDE_SOCKETS_MAX */
	void *owner;
	/* Borrowed for the call; in it everything is allowed, also to close. */
	void (*received)(void *owner, uint32_t index, const struct endpoint *from, const uint8_t *bytes, size_t len);
	/* The descriptors of a set that was opened, and then closed, are gone. NULL: nobody waits for that. */
	void (*closed)(void *owner);
};

/* Writes the n ports they have. 0 or -errno; then none is open. */
P2P_CHECK int side_sockets_open(uv_loop_t *loop, const struct side_sockets_options *options, uint16_t *ret_ports,
				struct side_sockets **ret);
/* The socket itself, the caller's from now on: nothing of it is heard here any more. Once. A descriptor or -errno. */
P2P_CHECK int side_sockets_take(struct side_sockets *sockets, uint32_t index);
/* Nothing is received any more. Frees itself from the loop. NULL: nothing. */
void side_sockets_close(struct side_sockets *sockets);
/* 0 or -errno as sendto(2) gives it. */
int side_sockets_send(struct side_sockets *sockets, uint32_t index, const struct endpoint *to, const uint8_t *bytes,
		      size_t len);
