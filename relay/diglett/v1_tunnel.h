/*
 * One connection of an agent of version 1 (v1_wire.h), from its socket to its visitors' sockets; the server's side only.
 *
 *   socket ══ hello, hello ══► ChaCha20 ══► frames ──► v1_fsm: login, name ──► asked()
 *                                             ├──► Payload, Close ──► visitor ──► its socket
 *                                             └◄── Payload, Close ◄── visitors, a frame each in turn
 *
 * What this version has no word for stays as it was: an end is of both ways at once; the agent cannot be told to wait for one
 * visitor. So who reads slowly slows the others: when too much is held, nothing more is read from the agent, and who then
 * takes nothing for 10 s is closed. What it lets be mended is:
 *
 *   the server's key is another one for each connection, so that no keystream comes twice;
 *   each visitor is told of at once, by an empty Payload, so that targets that speak first are heard;
 *   a visitor's number is its port, but none comes twice while others are left, so that nothing late meets another visitor;
 *   a Close is answered by a Close: a Payload that crossed it has opened the target's connection again.
 *
 * Loop only. Ports are called from the loop, never from inside the functions that the owner calls.
 */
#pragma once

#include "relay/diglett/tunnel.h"

#define V1_MAX_VISITORS	   256
#define V1_HELD_OF_VISITOR (256 * 1024) /* then nothing is read from the agent … */
#define V1_HELD		   (4 * 1024 * 1024) /* … as when so much is held for all; and a frame more may come each time */
#define V1_STALLED_MS	   10000

struct v1_tunnel;

struct v1_tunnel_ports {
	void *owner;
	/* An agent asks for one name, without a badge; call v1_tunnel_answer() from inside. */
	void (*asked)(void *owner, const struct diglett_request *request);
	/* The last word; the owner then closes. */
	void (*ended)(void *owner, const struct error *why);
	uint32_t handshake_ms; /* 0: TUNNEL_HANDSHAKE_MS, from here to the agent's last word of it */
	uint32_t stalled_ms;   /* 0: V1_STALLED_MS */
};

/* fd is taken, also on failure. 0 or -ENOMEM. */
P2P_CHECK int v1_tunnel_serve(uv_loop_t *loop, const struct noise_curve *curve, int fd, const struct v1_tunnel_ports *ports,
			      struct v1_tunnel **ret);
/* Not accepted: ended() follows. */
void v1_tunnel_answer(struct v1_tunnel *tunnel, const struct diglett_answer *answer);
/* Taken: reset if there is no place. */
void v1_tunnel_visit(struct v1_tunnel *tunnel, int fd, const struct endpoint *remote);
/* Resets all visitors and frees itself from the loop; closed (may be NULL) is called then. */
void v1_tunnel_close(struct v1_tunnel *tunnel, void (*closed)(void *owner));
/* Which the agent has said to have. Borrowed. */
const struct noise_public *v1_tunnel_remote_key(const struct v1_tunnel *tunnel);
/* Of what mux counts, opened, refused, stalled and idle. */
struct tunnel_counters v1_tunnel_counters(const struct v1_tunnel *tunnel);
