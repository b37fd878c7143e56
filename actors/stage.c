/*
 * The stage's queue: a ring that grows to STAGE_MAX_PENDING, drained by an idle handle that runs
 * only while something is pending. Actors are found by kind and peer id in a small hash table.
 */
#include "actors/stage.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/macros.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS		1024 /* of the actor table; power of two */
#define TURN_BUDGET	1024 /* messages a loop turn, so that timers and sockets get their turn */
#define FIRST_CAPACITY	64
#define MAX_NAP_MS	2000 /* libuv's clock stands still while the machine sleeps, ours does not */

struct envelope {
	enum actor_kind to;
	struct message message;
};

struct stage {
	uv_idle_t drain; /* active while the queue is not empty */
	uv_timer_t timer; /* the earliest deadline */
	struct stage_ports ports;
	struct deadline_heap deadlines;
	uint64_t now_ns;
	struct actor *slots[SLOTS];
	struct envelope *ring;
	uint32_t capacity, head, n; /* capacity: power of two */
	struct stage_counters counters;
	enum actor_kind failed_who;
	int failed_error; /* 0: running */
	bool failure_told;
	int n_open_handles;
	void (*closed_cb)(void *owner); /* set: closing */
};

static void release(struct message *message)
{
	buffer_free(message->bytes);
	map_unref(message->map);
	message->bytes = NULL;
	message->map = NULL;
}

/* How full the queue may be for one more of these; STAGE_MAX_PENDING: it must not be lost. */
static uint32_t room_for(enum message_type type)
{
	switch (type) {
	case MESSAGE_DATAGRAM:
	case MESSAGE_FRAME:
	case MESSAGE_SEALED:
	case MESSAGE_STUN:
		return STAGE_MAX_STRANGE;
	case MESSAGE_WRITE_DATAGRAM:
	case MESSAGE_WRITE_FRAME:
	case MESSAGE_OPENED:
	case MESSAGE_SEAL:
	case MESSAGE_CARRIED:
	case MESSAGE_RELAY_LEAVING:
	case MESSAGE_RELAY_USED:
		return STAGE_MAX_LOSSY;
	default:
		return STAGE_MAX_PENDING;
	}
}

/* the table of actors */

static struct actor **slot_of(struct stage *stage, enum actor_kind kind, uint32_t peer_id)
{
	return &stage->slots[(peer_id * ACTOR_N_KINDS + (uint32_t)kind) & (SLOTS - 1)];
}

static struct actor *find_actor(struct stage *stage, enum actor_kind kind, uint32_t peer_id)
{
	bool is_conn = kind == ACTOR_IN_CONN || kind == ACTOR_OUT_CONN;
	uint32_t id = is_conn ? peer_id : 0;

	for (struct actor *actor = *slot_of(stage, kind, id); actor; actor = actor->next_of_slot)
		if (actor->class->kind == kind && actor->peer_id == id)
			return actor;
	return NULL;
}

void stage_add(struct stage *stage, struct actor *actor, const struct actor_class *class, uint32_t peer_id)
{
	struct actor **slot = slot_of(stage, class->kind, peer_id);

	assert(!find_actor(stage, class->kind, peer_id));
	*actor = (struct actor){ .class = class, .stage = stage, .peer_id = peer_id, .next_of_slot = *slot };
	*slot = actor;
}

void stage_remove(struct stage *stage, struct actor *actor)
{
	if (!actor->class)
		return;
	for (struct actor **at = slot_of(stage, actor->class->kind, actor->peer_id); *at;
	     at = &(*at)->next_of_slot) {
		if (*at == actor) {
			*at = actor->next_of_slot;
			break;
		}
	}
	deadline_heap_set(&stage->deadlines, &actor->deadline, 0);
	actor->class = NULL;
}

/* time */

static void read_clock(struct stage *stage)
{
	stage->now_ns = clock_now_ns();
}

static void rearm(struct stage *stage);

static void on_timer(uv_timer_t *timer)
{
	struct stage *stage = container_of(timer, struct stage, timer);
	struct deadline *first;

	read_clock(stage);
	while (stage->failed_error == 0 && (first = deadline_heap_first(&stage->deadlines)) != NULL &&
	       first->at_ns <= stage->now_ns) {
		struct actor *actor = container_of(first, struct actor, deadline);

		deadline_heap_set(&stage->deadlines, first, 0);
		int r = actor->class->on_deadline(actor, stage->now_ns);
		if (r < 0)
			stage_fail(stage, actor->class->kind, r);
	}
	rearm(stage);
}

static void rearm(struct stage *stage)
{
	struct deadline *first = deadline_heap_first(&stage->deadlines);

	if (!first || stage->closed_cb) {
		uv_timer_stop(&stage->timer);
		return;
	}
	read_clock(stage);
	uv_update_time(stage->timer.loop);
	uint64_t left_ns = first->at_ns > stage->now_ns ? first->at_ns - stage->now_ns : 0;
	uint64_t left_ms = (left_ns + 999999) / 1000000;
	uv_timer_start(&stage->timer, on_timer, left_ms < MAX_NAP_MS ? left_ms : MAX_NAP_MS, 0);
}

uint64_t stage_now_ns(const struct stage *stage)
{
	return stage->now_ns;
}

void stage_set_deadline(struct actor *actor, uint64_t at_ns)
{
	struct stage *stage = actor->stage;
	struct deadline *before = deadline_heap_first(&stage->deadlines);
	uint64_t before_ns = before ? before->at_ns : 0;

	if (at_ns != 0 && at_ns <= stage->now_ns)
		at_ns = stage->now_ns + 1; /* a deadline in the past must not spin the loop */
	if (actor->deadline.at_ns == at_ns)
		return;
	deadline_heap_set(&stage->deadlines, &actor->deadline, at_ns);
	struct deadline *after = deadline_heap_first(&stage->deadlines);
	if ((after ? after->at_ns : 0) != before_ns)
		rearm(stage);
}

/* delivery */

static void on_drain(uv_idle_t *idle);

static const struct actor_accepts *find_accept(const struct actor_class *class, enum message_type type,
					       enum actor_kind from)
{
	for (size_t i = 0; i < class->n_accepts; i++)
		if (class->accepts[i].type == type && class->accepts[i].from == from)
			return &class->accepts[i];
	return NULL;
}

void stage_fail(struct stage *stage, enum actor_kind who, int error)
{
	if (stage->failed_error != 0 || stage->closed_cb)
		return;
	stage->failed_who = who;
	stage->failed_error = error;
	uv_idle_start(&stage->drain, on_drain); /* which tells the owner */
}

static void deliver(struct stage *stage, struct envelope *envelope)
{
	struct actor *actor = find_actor(stage, envelope->to, envelope->message.peer_id);

	if (!actor) {
		stage->counters.dropped_no_actor++;
		release(&envelope->message);
		return;
	}
	const struct actor_accepts *accept =
		find_accept(actor->class, envelope->message.type, envelope->message.from);
	if (!accept) {
		log_error("stage", "%s does not accept '%s' from %s", actor_kind_name(envelope->to),
			  message_type_name(envelope->message.type), actor_kind_name(envelope->message.from));
		stage_fail(stage, envelope->to, -EPROTO);
	} else {
		stage->counters.delivered++;
		int r = accept->handle(actor, &envelope->message);
		if (r < 0)
			stage_fail(stage, envelope->to, r);
	}
	release(&envelope->message);
}

static void on_drain(uv_idle_t *idle)
{
	struct stage *stage = container_of(idle, struct stage, drain);

	read_clock(stage);
	for (uint32_t i = 0; i < TURN_BUDGET && stage->n > 0 && stage->failed_error == 0; i++) {
		struct envelope envelope = stage->ring[stage->head];

		stage->head = (stage->head + 1) & (stage->capacity - 1);
		stage->n--;
		deliver(stage, &envelope);
	}
	if (stage->n == 0 || stage->failed_error != 0)
		uv_idle_stop(&stage->drain);
	if (stage->failed_error != 0 && !stage->failure_told) {
		stage->failure_told = true;
		/* Last statement: the owner closes the stage. */
		stage->ports.failed(stage->ports.owner, stage->failed_who, stage->failed_error);
	}
}

static bool grow(struct stage *stage)
{
	uint32_t capacity = stage->capacity ? stage->capacity * 2 : FIRST_CAPACITY;

	if (capacity > STAGE_MAX_PENDING)
		return false;
	struct envelope *ring = malloc(capacity * sizeof(*ring));
	if (!ring)
		abort();
	for (uint32_t i = 0; i < stage->n; i++)
		ring[i] = stage->ring[(stage->head + i) & (stage->capacity - 1)];
	free(stage->ring);
	stage->ring = ring;
	stage->capacity = capacity;
	stage->head = 0;
	return true;
}

void stage_post(struct stage *stage, enum actor_kind from, enum actor_kind to, struct message *message_take)
{
	if (stage->closed_cb || stage->failed_error != 0) {
		release(message_take);
		return;
	}
	uint32_t room = room_for(message_take->type);
	if (stage->n >= room || (stage->n == stage->capacity && !grow(stage))) {
		stage->counters.dropped_full++;
		if (room == STAGE_MAX_PENDING)
			stage_fail(stage, to, -ENOBUFS);
		release(message_take);
		uv_idle_start(&stage->drain, on_drain);
		return;
	}
	message_take->from = from;
	stage->ring[(stage->head + stage->n) & (stage->capacity - 1)] =
		(struct envelope){ .to = to, .message = *message_take };
	stage->n++;
	message_take->bytes = NULL;
	message_take->map = NULL;
	uv_idle_start(&stage->drain, on_drain);
}

void stage_broadcast(struct stage *stage, enum actor_kind from, const struct message *message)
{
	for (uint32_t i = 0; i < SLOTS; i++) {
		for (struct actor *actor = stage->slots[i]; actor; actor = actor->next_of_slot) {
			if (!find_accept(actor->class, message->type, from))
				continue;
			struct message copy = *message;
			if (actor->peer_id != 0)
				copy.peer_id = actor->peer_id;
			copy.bytes = message->bytes ? buffer_new(message->bytes->bytes, message->bytes->len) : NULL;
			if (copy.map)
				map_ref(copy.map);
			stage_post(stage, from, actor->class->kind, &copy);
		}
	}
}

/* life */

int stage_new(uv_loop_t *loop, const struct stage_ports *ports, struct stage **ret)
{
	struct stage *stage = calloc(1, sizeof(*stage));

	if (!stage)
		return -ENOMEM;
	stage->ports = *ports;
	uv_idle_init(loop, &stage->drain); /* both cannot fail */
	uv_timer_init(loop, &stage->timer);
	read_clock(stage);
	*ret = stage;
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct stage *stage = handle->data;
	void (*closed_cb)(void *owner) = stage->closed_cb;
	void *owner = stage->ports.owner;

	if (--stage->n_open_handles > 0)
		return;
	deadline_heap_deinit(&stage->deadlines);

	free(stage->ring);
	free(stage);
	closed_cb(owner);
}

void stage_close(struct stage *stage, void (*closed_cb)(void *owner))
{
	assert(!stage->closed_cb);
	stage->closed_cb = closed_cb;
	for (; stage->n > 0; stage->n--) {
		release(&stage->ring[stage->head].message);
		stage->head = (stage->head + 1) & (stage->capacity - 1);
	}
	stage->n_open_handles = 2;
	stage->drain.data = stage;
	stage->timer.data = stage;
	uv_close((uv_handle_t *)&stage->drain, on_closed);
	uv_close((uv_handle_t *)&stage->timer, on_closed);
}

uv_loop_t *stage_loop(const struct stage *stage)
{
	return stage->drain.loop;
}

const struct stage_counters *stage_counters(const struct stage *stage)
{
	return &stage->counters;
}
