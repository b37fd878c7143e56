/*
 * The stage: the actors of one session and the one queue through which they talk.
 *
 *   post() ──► queue (FIFO, bounded) ──► once per loop turn: accept table ──► handler
 *
 * A handler runs to completion and is never re-entered: what it posts is handled after it has
 * returned. An actor receives only what its accept table lists, from whom it lists; anything else
 * is a bug and fails the stage. A handler that returns < 0 fails the stage, too: the owner is told
 * once, after the current handler, and tears the stage down. Loop thread only.
 */
#pragma once

#include "actors/deadline_heap.h"
#include "actors/message.h"

#include <stdint.h>
#include <uv.h>

#define STAGE_MAX_PENDING 8192 /* messages */
/* So many may be ones that may be lost (see stage_post()): no flood takes the room of a decision. */
#define STAGE_MAX_LOSSY	  (STAGE_MAX_PENDING / 4 * 3)
/* So many may come from the network: each may cause three decisions (AKAs, a path), which find room. */
#define STAGE_MAX_STRANGE (STAGE_MAX_PENDING / 4)

struct stage;
struct actor;

/* One line of an accept table. */
struct actor_accepts {
	enum message_type type;
	enum actor_kind from;
	int (*handle)(struct actor *actor, struct message *message); /* 0, or -errno: the stage fails */
};

struct actor_class {
	enum actor_kind kind;
	/* The deadline asked for by stage_set_deadline() has passed. 0 or -errno; may be NULL. */
	int (*on_deadline)(struct actor *actor, uint64_t now_ns);
	const struct actor_accepts *accepts;
	size_t n_accepts;
};

/* Embedded first in each actor's own struct, which lives until the actor is removed. */
struct actor {
	const struct actor_class *class;
	struct stage *stage;
	uint32_t peer_id;	    /* of a conn, else 0 */
	struct deadline deadline;   /* the runtime's, as is the next */
	struct actor *next_of_slot;
};

struct stage_ports {
	void *owner;
	/* Called once, from the loop, never from inside a handler. */
	void (*failed)(void *owner, enum actor_kind who, int error);
};

struct stage_counters {
	uint64_t delivered;
	uint64_t dropped_full;	   /* the queue was full, or its part for what may be lost */
	uint64_t dropped_no_actor; /* the conn was gone */
};

/* 0 or -errno. The caller frees nothing: stage_close() does. */
int stage_new(uv_loop_t *loop, const struct stage_ports *ports, struct stage **ret);
/*
 * Drops what is queued and frees the stage; closed_cb(owner) when libuv let go of it. The actors
 * must have been removed or be owned by someone who outlives the call.
 */
void stage_close(struct stage *stage, void (*closed_cb)(void *owner));
uv_loop_t *stage_loop(const struct stage *stage);

/* The actor is borrowed until stage_remove(). At most one per kind and peer id. */
void stage_add(struct stage *stage, struct actor *actor, const struct actor_class *class, uint32_t peer_id);
void stage_remove(struct stage *stage, struct actor *actor);

/* common/clock.h in ns, read once per event. */
uint64_t stage_now_ns(const struct stage *stage);
/* One deadline per actor: a later call replaces it, 0 clears it. */
void stage_set_deadline(struct actor *actor, uint64_t at_ns);

/*
 * Queues a message for an actor (peer_id of the message addresses the conns). Takes message->bytes
 * and message->map. What stands for something that may get lost on the way as well (a datagram, a
 * frame, a sealed message or what becomes one, a note of what was carried) is dropped and counted
 * when too much waits, first of all what comes from the network. A full queue fails the stage for
 * the rest: a lost decision would never be repeated.
 */
void stage_post(struct stage *stage, enum actor_kind from, enum actor_kind to, struct message *message_take);
/* The same to every conn of that kind and to every other actor that accepts it from `from`. */
void stage_broadcast(struct stage *stage, enum actor_kind from, const struct message *message);
/* For a failure outside a handler (a timer's callback). */
void stage_fail(struct stage *stage, enum actor_kind who, int error);
const struct stage_counters *stage_counters(const struct stage *stage);
