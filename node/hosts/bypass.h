/*
 * When WireGuard outside of this process may send straight to the peer's WireGuard, past the loopback
 * socket. Pure.
 *
 *            allowed: TO_PEER                heard from there
 *    OFF ───────────────────► TRYING ─────────────────────────► ON
 *     ▲                         │ 500 ms: TO_LOOPBACK, back-off  │ silent for 2.5 s: the same
 *     └─────────────────────────┴────────────────────────────────┘
 *
 * Allowed is it while the path is direct and nothing else. Tried is it when the peer has told at which
 * port its WireGuard is reached at the path's address. WireGuard itself follows a peer to where its last
 * authentic packet came from: so the first packet that gets through takes the other side along (from OFF
 * to ON), and a peer that goes back to its loopback socket takes us back. A peer with WireGuard in its
 * node's process tells no port and begins by itself (follow.h). Each look is at what happened since the
 * last one.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stdint.h>

enum bypass_state { BYPASS_OFF, BYPASS_TRYING, BYPASS_ON };

/* What the owner shall do. */
enum bypass_deed {
	BYPASS_NOTHING,
	BYPASS_TO_PEER,	    /* set the endpoint to .target, and send something */
	BYPASS_TO_LOOPBACK, /* set it to the loopback socket, and send something */
	BYPASS_NUDGE,	    /* send something, so that the peer hears us */
};

/* Of one peer. Zeroed at first. */
struct bypass {
	enum bypass_state state;
	struct endpoint target; /* the peer's WireGuard, as it told; none: it has not */
	uint64_t since_ns;	/* TRYING */
	uint64_t heard_ns, sent_ns;
	uint64_t retry_ns;
	uint64_t alone_ns; /* until then no peer takes us along */
	uint32_t n_failed;
};

struct bypass_look {
	uint64_t now_ns;
	bool is_direct;		  /* the path, and nothing else */
	struct endpoint path;	  /* if so */
	struct endpoint endpoint; /* where WireGuard sends to now */
	bool is_loopback;	  /* that is the loopback socket */
	bool has_heard;		  /* authentic bytes that the loopback socket did not bring */
	bool has_sent;		  /* anything */
};

enum bypass_deed bypass_step(struct bypass *bypass, const struct bypass_look *look);
/*
 * The path is no more direct alone: true when the endpoint is to be set to the loopback socket now. That may be because
 * what went past us was lost; so for a while nothing does, and the direct path by the nodes is judged on its own.
 */
bool bypass_end(struct bypass *bypass, uint64_t now_ns);
