/*
 * Accepts TCP connections on one address, and goes on doing so when the process is out of descriptors:
 * a spare one is kept to accept and close with, so that the loop neither spins nor stalls.
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "relay/listen_sockets.h"

#include <stdint.h>
#include <uv.h>

struct tcp_listener_ports {
	void *owner;
	/* fd is the owner's now, non-blocking. The owner may not close the listener here. */
	void (*accepted)(void *owner, int fd, const struct endpoint *remote);
};

/* Owned by the caller until closed; the fields but n_refused are the listener's. */
struct tcp_listener {
	struct tcp_listener_ports ports;
	uv_poll_t poll;
	uv_timer_t retry;
	int fd, spare;
	uint64_t n_refused; /* for want of descriptors */
	uint8_t n_open;
	void (*closed)(void *owner);
};

/*
 * A socket that listens there, non-blocking: one of sockets, if it has the address (may be NULL), else a new one.
 * 0, or -errno with address and remedy in reterr.
 */
P2P_CHECK int tcp_listen(const struct endpoint *address, const struct listen_sockets *sockets, int *ret,
			 struct error *reterr);
/* "::" takes both families. sockets: taken instead of a new one, if it has the address; may be NULL. 0, or -errno with the address in reterr and nothing to close. */
P2P_CHECK int tcp_listener_open(struct tcp_listener *listener, uv_loop_t *loop, const struct endpoint *address,
				const struct listen_sockets *sockets, const struct tcp_listener_ports *ports,
				struct error *reterr);
/* Of a socket that listens already, of whatever family; closed also on failure. 0 or -errno. */
P2P_CHECK int tcp_listener_adopt(struct tcp_listener *listener, uv_loop_t *loop, int fd_take,
				 const struct tcp_listener_ports *ports);
uint16_t tcp_listener_port(const struct tcp_listener *listener);
void tcp_listener_close(struct tcp_listener *listener, void (*closed)(void *owner));
