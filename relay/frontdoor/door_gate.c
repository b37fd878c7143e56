#include "relay/frontdoor/door_gate.h"

#include <stdlib.h>

#define BURST_S 2 /* so many seconds' worth may come at once */

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void door_gate_init(struct door_gate *gate)
{
	gate->milli_tokens = (uint64_t)gate->rate * BURST_S * 1000;
	if (gate->rate_source != 0) {
		gate->of_source = malloc(sizeof(*gate->of_source));
		if (!gate->of_source)
			abort();
		source_limit_init(gate->of_source, gate->rate_source, gate->rate_source * BURST_S);
		gate->of_source->is_each_v4 = true;
	}
	atomic_store(&gate->n_holders, 1);
}

struct door_gate *door_gate_hold(struct door_gate *gate)
{
	if (gate)
		atomic_fetch_add_explicit(&gate->n_holders, 1, memory_order_relaxed);
	return gate;
}

void door_gate_let_go(struct door_gate *gate)
{
	if (!gate || atomic_fetch_sub_explicit(&gate->n_holders, 1, memory_order_acq_rel) > 1)
		return;
	free(gate->of_source);
	gate->free(gate);
}

static bool take_token(struct door_gate *gate, uint64_t now_ms)
{
	const uint64_t full = (uint64_t)gate->rate * BURST_S * 1000;
	uint64_t passed_ms = now_ms > gate->filled_ms ? now_ms - gate->filled_ms : 0;

	if (passed_ms > BURST_S * 1000)
		passed_ms = BURST_S * 1000;
	gate->milli_tokens += passed_ms * gate->rate;
	if (gate->milli_tokens > full)
		gate->milli_tokens = full;
	gate->filled_ms = now_ms;
	if (gate->milli_tokens < 1000)
		return false;
	gate->milli_tokens -= 1000;
	return true;
}

void door_gate_shut(struct door_gate *gate)
{
	atomic_store_explicit(&gate->is_shut, true, memory_order_release);
}

bool door_gate_is_shut(const struct door_gate *gate)
{
	return atomic_load_explicit(&gate->is_shut, memory_order_acquire);
}

/* Of one source first: who asks too often takes nothing from the others. */
static enum door_gate_answer judge(struct door_gate *gate, const struct endpoint *visitor, bool any, uint64_t now_ms)
{
	if (door_gate_is_shut(gate))
		return DOOR_GATE_NOT_ALLOWED;
	if (!any && !door_gate_allows(gate, visitor))
		return DOOR_GATE_NOT_ALLOWED;
	if (gate->of_source && !source_limit_take(gate->of_source, visitor, now_ms))
		return DOOR_GATE_OVER_SOURCE_RATE;
	if (gate->rate != 0 && !take_token(gate, now_ms))
		return DOOR_GATE_OVER_RATE;
	return DOOR_GATE_OPEN;
}

bool door_gate_allows(const struct door_gate *gate, const struct endpoint *visitor)
{
	return !gate->allows || gate->allows(gate, visitor);
}

void door_gate_not_allowed(struct door_gate *gate)
{
	add(&gate->refused[DOOR_GATE_NOT_ALLOWED], 1);
}

enum door_gate_answer door_gate_ask(struct door_gate *gate, const struct endpoint *visitor, bool any, uint64_t now_ms)
{
	const enum door_gate_answer answer = judge(gate, visitor, any, now_ms);

	if (answer != DOOR_GATE_OPEN)
		add(&gate->refused[answer], 1);
	return answer;
}

void door_gate_enter(struct door_gate *gate)
{
	add(&gate->visitors, 1);
	add(&gate->visitors_now, 1);
}

void door_gate_leave(struct door_gate *gate)
{
	atomic_fetch_sub_explicit(&gate->visitors_now, 1, memory_order_relaxed);
}

void door_gate_moved(struct door_gate *gate, uint64_t bytes_in, uint64_t bytes_out)
{
	add(&gate->bytes_in, bytes_in);
	add(&gate->bytes_out, bytes_out);
}

void door_gate_set_state(struct door_gate *gate, enum door_target_state state)
{
	atomic_store_explicit(&gate->state, (uint32_t)state, memory_order_relaxed);
}

void door_gate_reached(struct door_gate *gate)
{
	door_gate_set_state(gate, DOOR_TARGET_UP);
}

void door_gate_not_reached(struct door_gate *gate)
{
	add(&gate->unreachable, 1);
	door_gate_set_state(gate, DOOR_TARGET_DOWN);
}

struct door_gate_counters door_gate_counters(const struct door_gate *gate)
{
	struct door_gate_counters counters = {
		.visitors = get(&gate->visitors),
		.visitors_now = get(&gate->visitors_now),
		.unreachable = get(&gate->unreachable),
		.bytes_in = get(&gate->bytes_in),
		.bytes_out = get(&gate->bytes_out),
		.state = (enum door_target_state)atomic_load_explicit(&gate->state, memory_order_relaxed),
	};

	for (int i = 0; i < DOOR_GATE_N_ANSWERS; i++)
		counters.refused[i] = get(&gate->refused[i]);
	return counters;
}

const char *door_gate_answer_name(enum door_gate_answer answer)
{
	static const char *const names[DOOR_GATE_N_ANSWERS] = {
		[DOOR_GATE_OPEN] = "open",
		[DOOR_GATE_NOT_ALLOWED] = "not allowed",
		[DOOR_GATE_OVER_RATE] = "over rate",
		[DOOR_GATE_OVER_SOURCE_RATE] = "over rate of source",
	};

	return names[answer];
}

const char *door_target_state_name(enum door_target_state state)
{
	static const char *const names[] = { [DOOR_TARGET_UNKNOWN] = "unknown", [DOOR_TARGET_UP] = "up",
					     [DOOR_TARGET_DOWN] = "down" };

	return names[state];
}
