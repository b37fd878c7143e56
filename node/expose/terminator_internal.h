/*
 * What the parts of the terminator share. Not for others.
 *
 *   terminator.c         the thread; places, who takes one, and who was too slow
 *   terminator_visit.c   one visit, from state to state
 *   terminator_way.c     its bytes: read, kept, written, one way at a time
 *
 *   take ─┬─ https ─► SHAKING ─┬─► CONNECTING ─► OPEN ─ both ways are done ─┐
 *         └─ http ──► ASKING ──┤                                            ├─► GONE: freed at the end of the turn
 *                              └─ ASKING, a challenge ─► ANSWERING ─────────┤
 *   SHAKING, a challenge; too slow; broken; a stranger ─────────────────────┘
 */
#pragma once

#include "common/log.h"
#include "node/expose/terminator.h"
#include "relay/frontdoor/link.h"

#include <openssl/ssl.h>
#include <pthread.h>
#include <sodium.h>
#include <stddef.h>
#include <sys/types.h>

#define PIECE	    16384 /* a record of TLS: what is asked for is never less, so that none is left in TLS unread */
#define SOURCES	    65536
#define N_OF(field) (offsetof(struct terminated_counters, field) / sizeof(uint64_t))

enum visit_state { SHAKING, ASKING, CONNECTING, OPEN, ANSWERING, GONE };

/* A socket of a visit, as epoll knows it. */
struct side {
	struct visit *visit;
	int fd; /* -1: none */
	uint32_t watched;
	bool is_watched;
	bool waits_to_read, waits_to_write; /* it said so when it was tried */
	bool is_broken;			    /* likewise: no end of it is an end */
};

/* One way: what was read and not yet taken. */
struct way {
	uint8_t *bytes; /* NULL: nothing waits */
	size_t at, n;
	bool has_ended; /* nothing more comes … */
	bool is_done;	/* … and that was passed on */
};

struct visit {
	struct link place; /* of its state, by since when; or among those that are gone */
	struct terminator *terminator;
	struct terminated *host; /* the gate holds it */
	struct door_gate *gate;	 /* held */
	SSL *ssl;		 /* NULL: it came by HTTP */
	struct side near, far;
	struct way up, down;
	struct door_guest guest;
	bool is_blind;	  /* among those */
	bool is_stranger; /* the gate's list does not have it: it came for a challenge, or for nothing */
	uint64_t since_ms;
	uint16_t source;
	uint8_t state;
	struct visit *next; /* while it comes */
};

struct terminator {
	struct terminator_options options;
	pthread_t thread;
	int wake_fd;
	_Atomic bool is_stopping;
	pthread_mutex_t lock;
	struct visit *coming; /* under lock; the last that came first */

	/* In all three threads: places that are taken. */
	_Atomic uint32_t n_visits, n_shaking;
	_Atomic uint16_t n_of_source[SOURCES]; /* that shake hands */
	uint8_t seed[crypto_shorthash_KEYBYTES];

	/* Of the thread. */
	int epoll_fd;
	uint64_t now_ms;
	struct link early, connecting, open, blind, gone; /* blind: open as well, see look_after() */
	struct log_limit log_limit;
	uint8_t scratch[PIECE];
};

static inline void terminated_count(struct terminated *host, size_t which)
{
	atomic_fetch_add_explicit(&host->counters[which], 1, memory_order_relaxed);
}

/* ---- terminator_visit.c: the thread alone ---- */

/* Its state from now on, and the ring in which it waits, the latest last. */
void visit_place(struct visit *visit, enum visit_state state, struct link *ring);
/* side, events: what happened; NULL: it comes. As far as it goes now. */
void visit_step(struct visit *visit, const struct side *side, uint32_t events);
/* It was too slow. */
void visit_expire(struct visit *visit);
/* broken: the server is reset, not ended. Freed at the end of the turn. */
void visit_end(struct visit *visit, bool broken);

/* ---- terminator_way.c ---- */

/* All of these: > 0 so many; 0 the end; -EAGAIN, and the side says what it waits for; else it broke. */

ssize_t visit_near_read(struct visit *visit, uint8_t *buf, size_t size);
/* Of what SSL_…() returned. */
ssize_t visit_tls_result(struct visit *visit, int r);

struct way_calls {
	ssize_t (*read)(struct visit *visit, uint8_t *buf, size_t size);
	ssize_t (*write)(struct visit *visit, const uint8_t *bytes, size_t n);
	int (*end)(struct visit *visit);
};

extern const struct way_calls way_upward, way_downward;

/* Waits, until it is written; nothing waited before. */
void way_keep(struct way *way, const uint8_t *bytes, size_t n);
void way_drop(struct way *way);
/* As far as it goes, and not for too long. -EAGAIN: it waits; 0: it is done; 1: there may be more; else it broke. */
ssize_t way_move(struct visit *visit, struct way *way, const struct way_calls *calls);
