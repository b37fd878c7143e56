/*
 * How large may packets to a peer be by one path? Packetization layer path MTU discovery (RFC 8899).
 *
 *                       path                       base passed
 *   [*] ──► DISABLED ──────────► BASE ─────────────────────────────► SEARCHING ◄─────────┐
 *              ▲                │ ▲ │ base is lost 3 times,             │              │
 *              │ no path        │ │ │ a small one passed                │ nothing is   │ raise (600 s),
 *          (any state)          │ │ ▼                                   │ left to try  │ an answer that
 *                               │ │ ERROR ── again (60 s) ──► BASE      ▼              │ came late
 *                    nothing is │ │                                 SEARCH COMPLETE ───┘
 *                      answered │ └───────────────────────────────────┘
 *                               ▼         what passed is lost 3 times (black hole)
 *                             SILENT ── again (60 s, then 600 s) ──► BASE
 *
 * All sizes are of packets *inside*, as the interface sees them; the shell adds what stands around them. A
 * probe is a message as long as a data packet of that size, and cannot be fragmented. What is said is the MTU
 * inside, at least 1280: where less fits (ERROR), the datagrams around the packets are fragmented.
 *
 *   BASE             Probed at once: the most that the first link takes, what fits into 1500, 1280 and a
 *                    small one. Until something is known the most is said: what is too large for the path is
 *                    fragmented for a moment, which is better than a size that connections keep. By relay it is
 *                    what fits into 1500 bytes: connections often begin there, and pieces are often lost.
 *   SEARCHING        Between the largest that passed and the smallest that did not; what passed is said.
 *   SEARCH COMPLETE  What passed is asked again every 10 s, and soon when packets go and nothing comes.
 *   SILENT           The peer does not know probes, or all were lost: 1280 is said, which passes everywhere.
 *
 * That a probe is lost does not mean that it is too large: three in a row do, and an answer that comes late is
 * taken at its word. That what passed before is lost means a black hole only when a small one is answered. What routers say (ICMP) is not listened to; that the first link refuses a size is told
 * by the kernel, and nobody else can say it. Without traffic nothing is sent.
 *
 * One machine a path in use. Pure: no I/O, no clock, no allocation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PATH_MTU_MIN	     1280
#define PATH_MTU_SMALL	     128 /* asks whether the peer answers at all */
#define PATH_MTU_STEP	     16  /* WireGuard pads to that: what lies between gains nothing */
#define PATH_MTU_MAX_ACTIONS 8
#define PATH_MTU_MAX_SIZES   4 /* probed at once */

enum path_mtu_state {
	PATH_MTU_DISABLED,
	PATH_MTU_BASE,
	PATH_MTU_SEARCHING,
	PATH_MTU_COMPLETE,
	PATH_MTU_ERROR,
	PATH_MTU_SILENT,
	PATH_MTU_N_STATES,
};

enum path_mtu_input_type {
	PATH_MTU_IN_PATH,     /* packets go by another path from now on: .max, .common; what was known is forgotten */
	PATH_MTU_IN_NO_PATH,
	PATH_MTU_IN_TRAFFIC,  /* data flows */
	PATH_MTU_IN_IDLE,     /* no longer */
	PATH_MTU_IN_PASSED,   /* a probe was answered: .size, of one that was sent */
	PATH_MTU_IN_REFUSED,  /* the first link does not take a probe of .size */
	PATH_MTU_IN_SENT,     /* data was sent by the path since the last look … */
	PATH_MTU_IN_RECEIVED, /* … or authenticated data received */
	PATH_MTU_IN_DEADLINE, /* deadline_ns has passed (earlier is harmless) */
};

/* Only the members named at the type are read. */
struct path_mtu_input {
	enum path_mtu_input_type type;
	uint64_t now_ns;    /* common/clock.h; never 0, never goes back */
	uint32_t max;	    /* PATH: the interface's MTU, or what the first link takes if that is less; ≥ 1280 */
	uint32_t common;    /* PATH: what fits into 1500 bytes outside */
	uint32_t until_known; /* PATH: said as long as nothing is known; 0: max */
	uint32_t size;	    /* PASSED, REFUSED */
	uint32_t rtt_us;    /* any: the round trip, 0: not known */
};

enum path_mtu_action_type {
	PATH_MTU_DO_PROBE, /* .size */
	PATH_MTU_DO_SAY,   /* .size: the MTU inside from now on; 0: nothing is known */
};

struct path_mtu_action {
	enum path_mtu_action_type type;
	uint32_t size;
};

struct path_mtu_actions {
	uint32_t n;
	struct path_mtu_action all[PATH_MTU_MAX_ACTIONS];
};

/* A plain value, owned by the caller; zeroed: DISABLED. Read it, change it only by path_mtu_fsm_step(). */
struct path_mtu_fsm {
	enum path_mtu_state state;
	uint64_t deadline_ns; /* step with PATH_MTU_IN_DEADLINE then; 0: none */
	uint32_t said;	      /* the MTU inside, 0: not known */
	uint32_t until_known; /* of the path: what passes there for sure, in pieces if need be; 0: nothing is known to */

	bool active;	 /* data flows */
	bool is_known;	 /* to answer probes, on whatever path */
	bool was_silent; /* once, at least */
	uint32_t max, common;
	uint32_t passed; /* the largest, 0: none */
	uint32_t failed; /* the smallest that did not; max + 1: none */
	uint32_t largest_sent;

	/* what is asked now */
	uint32_t sizes[PATH_MTU_MAX_SIZES], n_sizes;
	uint32_t n_rounds;
	uint64_t round_ns; /* the next, or the end of the last; 0: nothing is asked */

	/* search complete */
	bool confirms;		 /* what is asked is what passed, and a small one */
	bool small_passes;	 /* that, or another below what passed, was answered */
	bool has_received;	 /* since that began */
	uint64_t confirm_ns;	 /* next time */
	uint64_t again_ns;	 /* a larger size, the base, or whether it answers now */
	uint64_t unanswered_ns;	 /* first data sent after the last that was received, 0: none */
	uint64_t suspected_ns;	 /* last that this was a reason to ask */

	void (*trace)(void *arg, const char *line); /* may be NULL; a decision a line */
	void *trace_arg;
};

void path_mtu_fsm_step(struct path_mtu_fsm *fsm, const struct path_mtu_input *input, struct path_mtu_actions *ret);
const char *path_mtu_state_name(enum path_mtu_state state);
