/*
 * The stage: messages are handled in the order posted, never from inside another handler; an actor
 * hears only what its accept table lists; a failing actor fails the stage, once; what strangers can
 * cause is dropped when too much waits, a decision never is.
 */
#include "actors/stage.h"

#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MS 1000000ull

struct world {
	uv_loop_t loop;
	struct stage *stage;
	struct actor manager, router, conn1, conn2;
	char trace[4096];
	uint32_t n_handled;
	int in_handler;
	bool closed;
};

static struct world w;

/* Time that the machine has slept: CLOCK_BOOTTIME counts it, the loop's clock does not. */
static time_t slept_s;

int clock_gettime(clockid_t clock, struct timespec *ret)
{
	int r = (int)syscall(SYS_clock_gettime, clock, ret);

	if (clock == CLOCK_BOOTTIME)
		ret->tv_sec += slept_s;
	return r;
}

static void note(const char *text, uint32_t id)
{
	size_t used = strlen(w.trace);

	snprintf(w.trace + used, sizeof(w.trace) - used, "%s %u\n", text, id);
}

static int handle_datagram(struct actor *actor, struct message *message)
{
	assert(w.in_handler++ == 0); /* never re-entered */
	note("router", message->via.relay_id);
	if (message->via.relay_id == 1) {
		struct message answer = { .type = MESSAGE_DATAGRAM, .peer_id = 7 };
		stage_post(actor->stage, ACTOR_DIRECT_ROUTER, ACTOR_IN_CONN, &answer);
	}
	for (int i = 0; message->via.relay_id == 4 && i < 3; i++) {
		struct message decision = { .type = MESSAGE_SET_AKA };
		stage_post(actor->stage, ACTOR_TRAFFIC_MANAGER, ACTOR_DIRECT_ROUTER, &decision);
	}
	w.n_handled++;
	w.in_handler--;
	return message->via.relay_id == 666 ? -EIO : 0;
}

static int handle_conn(struct actor *actor, struct message *message)
{
	note("conn", actor->peer_id);
	return 0;
}

static int on_deadline(struct actor *actor, uint64_t now_ns)
{
	note("deadline", actor->peer_id);
	return 0;
}

static const struct actor_accepts router_accepts[] = {
	{ MESSAGE_DATAGRAM, ACTOR_DIRECT_MANAGER, handle_datagram },
	{ MESSAGE_SET_AKA, ACTOR_TRAFFIC_MANAGER, handle_datagram },
};
static const struct actor_accepts conn_accepts[] = {
	{ MESSAGE_DATAGRAM, ACTOR_DIRECT_ROUTER, handle_conn },
	{ MESSAGE_CARRIED, ACTOR_NONE, handle_conn },
};
static const struct actor_class router_class = { .kind = ACTOR_DIRECT_ROUTER,
						 .accepts = router_accepts,
						 .n_accepts = 2 };
static const struct actor_class conn_class = { .kind = ACTOR_IN_CONN,
					       .on_deadline = on_deadline,
					       .accepts = conn_accepts,
					       .n_accepts = 2 };

static void failed(void *owner, enum actor_kind who, int error)
{
	assert(w.in_handler == 0);
	note(actor_kind_name(who), (uint32_t)-error);
}

static void begin(void)
{
	memset(&w, 0, sizeof(w));
	uv_loop_init(&w.loop);
	assert(stage_new(&w.loop, &(struct stage_ports){ .failed = failed }, &w.stage) == 0);
	stage_add(w.stage, &w.router, &router_class, 0);
	stage_add(w.stage, &w.conn1, &conn_class, 7);
	stage_add(w.stage, &w.conn2, &conn_class, 8);
}

static void on_closed(void *owner)
{
	w.closed = true;
}

static void end(void)
{
	stage_close(w.stage, on_closed);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert(w.closed);
	assert(uv_loop_close(&w.loop) == 0);
}

static void datagram(uint32_t id)
{
	struct message message = { .type = MESSAGE_DATAGRAM,
				   .via = { .relay_id = id },
				   .bytes = buffer_new("x", 1) };

	stage_post(w.stage, ACTOR_DIRECT_MANAGER, ACTOR_DIRECT_ROUTER, &message);
	assert(!message.bytes); /* taken */
}

static void expect_trace(const char *expected)
{
	if (strcmp(w.trace, expected) != 0) {
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, w.trace);
		abort();
	}
	w.trace[0] = '\0';
}

static void test_messages_are_handled_in_order_and_what_a_handler_posts_comes_after(void)
{
	begin();
	datagram(1);
	datagram(2);
	expect_trace(""); /* nothing happens before the loop turns */
	uv_run(&w.loop, UV_RUN_DEFAULT);
	expect_trace("router 1\nrouter 2\nconn 7\n");
	end();
}

static void test_a_message_nobody_listed_fails_the_stage(void)
{
	struct message message = { .type = MESSAGE_STUN };

	begin();
	stage_post(w.stage, ACTOR_DIRECT_MANAGER, ACTOR_DIRECT_ROUTER, &message);
	datagram(2);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	expect_trace("DirectRouter 71\n"); /* EPROTO, and nothing after it */
	end();
}

static void test_a_failing_handler_fails_the_stage_once(void)
{
	begin();
	datagram(666);
	datagram(2);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	datagram(3);
	stage_fail(w.stage, ACTOR_IN_CONN, -EINVAL);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	expect_trace("router 666\nDirectRouter 5\n");
	end();
}

static void test_a_message_for_a_conn_that_is_gone_is_dropped_and_counted(void)
{
	struct message message = { .type = MESSAGE_DATAGRAM, .peer_id = 9, .bytes = buffer_new("x", 1) };

	begin();
	stage_post(w.stage, ACTOR_DIRECT_ROUTER, ACTOR_IN_CONN, &message);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert(stage_counters(w.stage)->dropped_no_actor == 1);
	expect_trace("");
	end();
}

static void decide(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		struct message decision = { .type = MESSAGE_SET_AKA, .via = { .relay_id = 3 } };
		stage_post(w.stage, ACTOR_TRAFFIC_MANAGER, ACTOR_DIRECT_ROUTER, &decision);
	}
}

static void test_a_flood_of_datagrams_leaves_room_for_decisions(void)
{
	begin();
	for (uint32_t i = 0; i < STAGE_MAX_PENDING; i++)
		datagram(2);
	assert(stage_counters(w.stage)->dropped_full == STAGE_MAX_PENDING - STAGE_MAX_STRANGE);
	decide(STAGE_MAX_PENDING - STAGE_MAX_STRANGE);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert(w.n_handled == STAGE_MAX_PENDING);
	assert(strstr(w.trace, "105") == NULL);
	end();
}

/* As a member that pings from ever new addresses does. */
static void test_what_a_flood_of_datagrams_causes_finds_room(void)
{
	begin();
	for (uint32_t i = 0; i < STAGE_MAX_PENDING; i++)
		datagram(4);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert(w.n_handled == STAGE_MAX_STRANGE * 4);
	end();
}

static void test_a_full_queue_fails_on_a_lost_decision(void)
{
	begin();
	decide(STAGE_MAX_PENDING + 1);
	uv_run(&w.loop, UV_RUN_DEFAULT);
	expect_trace("DirectRouter 105\n"); /* ENOBUFS */
	end();
}

static void test_a_broadcast_reaches_each_actor_that_accepts_it(void)
{
	begin();
	stage_broadcast(w.stage, ACTOR_NONE, &(struct message){ .type = MESSAGE_CARRIED });
	uv_run(&w.loop, UV_RUN_DEFAULT);
	assert(strlen(w.trace) == strlen("conn 7\nconn 8\n"));
	end();
}

static void test_each_actor_has_one_deadline_and_they_fire_in_order(void)
{
	begin();
	uint64_t now = stage_now_ns(w.stage);
	stage_set_deadline(&w.conn1, now + 5 * MS);
	stage_set_deadline(&w.conn2, now + 20 * MS);
	stage_set_deadline(&w.conn1, now + 30 * MS); /* replaced */
	uv_run(&w.loop, UV_RUN_DEFAULT);
	expect_trace("deadline 8\ndeadline 7\n");
	stage_set_deadline(&w.conn1, stage_now_ns(w.stage) + 5 * MS);
	stage_remove(w.stage, &w.conn1); /* a removed actor is not woken */
	uv_run(&w.loop, UV_RUN_DEFAULT);
	expect_trace("");
	end();
}

static void test_closing_with_messages_queued_frees_them(void)
{
	begin();
	datagram(1);
	datagram(2);
	end();
	expect_trace("");
}

static void test_the_heap_gives_deadlines_in_order_whatever_the_order_of_changes(void)
{
	struct deadline_heap heap = { 0 };
	struct deadline deadlines[200] = { 0 };
	uint32_t seed = 12345;

	for (int i = 0; i < 5000; i++) {
		seed = seed * 1664525 + 1013904223;
		deadline_heap_set(&heap, &deadlines[(seed >> 8) % 200], (seed >> 16) % 1000);
		const struct deadline *first = deadline_heap_first(&heap);
		for (int j = 0; j < 200; j++)
			assert(deadlines[j].at_ns == 0 || first->at_ns <= deadlines[j].at_ns);
	}
	for (uint64_t last = 0; heap.n > 0; ) {
		struct deadline *first = deadline_heap_first(&heap);
		assert(first->at_ns >= last);
		last = first->at_ns;
		deadline_heap_set(&heap, first, 0);
	}
	deadline_heap_deinit(&heap);
}

static void test_a_deadline_that_passed_while_the_machine_slept_is_noticed(void)
{
	begin();
	stage_set_deadline(&w.conn1, stage_now_ns(w.stage) + 600000 * MS);
	uv_run(&w.loop, UV_RUN_NOWAIT);
	slept_s = 601;
	while (w.trace[0] == '\0')
		uv_run(&w.loop, UV_RUN_ONCE);
	expect_trace("deadline 7\n");
	slept_s = 0;
	end();
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	test_messages_are_handled_in_order_and_what_a_handler_posts_comes_after();
	test_a_message_nobody_listed_fails_the_stage();
	test_a_failing_handler_fails_the_stage_once();
	test_a_message_for_a_conn_that_is_gone_is_dropped_and_counted();
	test_a_flood_of_datagrams_leaves_room_for_decisions();
	test_what_a_flood_of_datagrams_causes_finds_room();
	test_a_full_queue_fails_on_a_lost_decision();
	test_a_broadcast_reaches_each_actor_that_accepts_it();
	test_each_actor_has_one_deadline_and_they_fire_in_order();
	test_closing_with_messages_queued_frees_them();
	test_the_heap_gives_deadlines_in_order_whatever_the_order_of_changes();
	test_a_deadline_that_passed_while_the_machine_slept_is_noticed();
	puts("ok");
}
