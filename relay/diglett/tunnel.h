/*
 * One connection between a diglett server and an agent, from its socket to its streams' sockets.
 *
 *   socket ══ acts 1 2 3, answer ══► messages (noise_xk) ══► frames (mux_fsm) ══► visitor ══ socket of a visitor,
 *                                                                                            or of the local target
 *
 * Nothing is read from a visitor before it is its turn to be sent, so that nothing waits here; what is for a visitor who
 * does not read waits at its visitor, within the windows. A turn of the loop moves 512 KiB of each tunnel at most.
 *
 * Loop only. Ports are called from the loop, never from inside the functions that the owner calls, but for visitors that
 * are let go.
 */
#pragma once

#include "common/error.h"
#include "relay/diglett/mux_fsm.h"
#include "relay/diglett/noise_xk.h"
#include "relay/diglett/request_wire.h"

#include <uv.h>

#define TUNNEL_HANDSHAKE_MS   10000
#define TUNNEL_DEAD_MS	      45000
#define TUNNEL_IDLE_MS	      (3600 * 1000) /* of a stream, as at the front door */
#define TUNNEL_HALF_CLOSED_MS (120 * 1000) /* nothing moved, not even in the socket's buffer */

struct tunnel;

struct tunnel_ports {
	void *owner;
	/* Server: an agent asks; call tunnel_answer() from inside. */
	void (*asked)(void *owner, const struct diglett_request *request);
	/* Agent: NULL, or puts a badge into its request. 0 or -errno. */
	int (*show_badge)(void *owner, const struct node_badge_binding *binding, struct node_badge *ret,
			  struct error *reterr);
	/* Agent: it was let in, or not: then ended() follows. */
	void (*answered)(void *owner, const struct diglett_answer *answer);
	/* Agent: where visitors of this port go. False: nowhere. */
	bool (*find_target)(void *owner, uint16_t port, struct endpoint *ret);
	uint32_t handshake_ms; /* 0: TUNNEL_HANDSHAKE_MS, of all of it */
	uint32_t dead_ms;      /* 0: TUNNEL_DEAD_MS; nothing was heard for so long, though asked three times */
	uint32_t half_closed_ms; /* 0: TUNNEL_HALF_CLOSED_MS */
	/* The last word; the owner then closes. why->code: -errno, or an enum mux_reason that the other side gave. */
	void (*ended)(void *owner, const struct error *why);
};

struct tunnel_counters {
	uint64_t bytes_in, bytes_out; /* of the streams, from and to the other side */
	struct mux_counters mux;
	uint32_t visitors_now;
};

/* An accepted socket, taken, also on failure. 0 or -ENOMEM. own: borrowed during the call. */
P2P_CHECK int tunnel_serve(uv_loop_t *loop, const struct noise_curve *curve, const struct noise_secret *own, int fd,
			   const struct tunnel_ports *ports, struct tunnel **ret);
/* Connects, and asks. 0 or -errno. */
P2P_CHECK int tunnel_connect(uv_loop_t *loop, const struct noise_curve *curve, const struct noise_secret *own,
			     const struct noise_public *server_key, const struct endpoint *server,
			     const struct diglett_request *request, const struct tunnel_ports *ports, struct tunnel **ret);
/* Not accepted: ended() follows. */
void tunnel_answer(struct tunnel *tunnel, const struct diglett_answer *answer);
/* A visitor who came to a port, taken: reset if there is no place. */
void tunnel_visit(struct tunnel *tunnel, int fd, uint16_t port, const struct endpoint *remote);
/* Tells the other side why, resets all visitors and frees itself from the loop; closed (may be NULL) is called then. */
void tunnel_close(struct tunnel *tunnel, uint8_t reason, void (*closed)(void *owner));
bool tunnel_is_open(const struct tunnel *tunnel); /* let in */
/* The end was that an agent began as one of version 1: its socket, with all that it has said, for who speaks that. -1: not so. */
int tunnel_take_v1(const struct tunnel *tunnel);
/* Who the other side has shown to be: the server knows it when it was asked. Borrowed. */
const struct noise_public *tunnel_remote_key(const struct tunnel *tunnel);
/* To what a badge has to be bound; the server has it when it was asked. */
const struct node_badge_binding *tunnel_binding(const struct tunnel *tunnel);
/* sum may be the counters of several. */
void tunnel_counters_add(struct tunnel_counters *sum, const struct tunnel_counters *counters);
struct tunnel_counters tunnel_counters(const struct tunnel *tunnel);
