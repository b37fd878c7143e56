/* Visitors and the gates of their hosts: who is let through, and how much is carried for them. */
#include "relay/frontdoor/door_thread_internal.h"

#define TALLY_MS 1000

bool visitor_pass_gate(struct visitor *visitor, const struct door_route *route)
{
	struct door_thread *door = visitor->door;

	if (!route->gate)
		return true;
	const bool sink_judges = route->sink && route->sink->judges && route->sink->judges(route->sink);
	const enum door_gate_answer answer = door_gate_ask(route->gate, &visitor->remote, sink_judges, door->now_ms);
	if (answer != DOOR_GATE_OPEN) {
		door->counters.not_allowed += answer == DOOR_GATE_NOT_ALLOWED;
		door->counters.over_rate += answer != DOOR_GATE_NOT_ALLOWED;
		log_limited(&door->log_limit, LOG_LEVEL_INFO, "frontdoor", "%s to %s: %s: refused",
			    endpoint_ip_text(&visitor->remote).s, route->entry.pattern.name.text,
			    door_gate_answer_name(answer));
		return false;
	}
	visitor_hold_gate(visitor, route->gate);
	return true;
}

void visitor_hold_gate(struct visitor *visitor, struct door_gate *gate)
{
	visitor->gate = door_gate_hold(gate);
	door_gate_enter(visitor->gate);
	visitor->door->n_gated++;
}

static void tally(struct visitor *visitor)
{
	const uint64_t in = visitor->pair.flows[0].n_bytes, out = visitor->pair.flows[1].n_bytes;

	if (in == visitor->told_in && out == visitor->told_out)
		return;
	visitor_judge_agent(visitor);
	door_gate_moved(visitor->gate, in - visitor->told_in, out - visitor->told_out);
	visitor->told_in = in;
	visitor->told_out = out;
}

void visitor_leave_gate(struct visitor *visitor)
{
	if (!visitor->gate)
		return;
	tally(visitor);
	door_gate_leave(visitor->gate);
	door_gate_let_go(visitor->gate);
	visitor->gate = NULL;
	visitor->door->n_gated--;
}

void door_cut_shut(struct door_thread *door)
{
	struct link *at = door->all.after, *next;

	for (; door->n_gated > 0 && at != &door->all; at = next) {
		struct visitor *visitor = container_of(at, struct visitor, among_all);
		next = at->after;
		if (!visitor->gate || !door_gate_is_shut(visitor->gate))
			continue;
		door->counters.cut++;
		visitor_cut(visitor);
	}
}

uint64_t door_tally_gates(struct door_thread *door)
{
	const struct splice_pump_counters pump = splice_pump_counters(door->pump);
	const uint64_t moved = pump.bytes[0] + pump.bytes[1];
	struct link *at = &door->all;

	if (door->n_gated == 0 || moved == door->tallied_bytes)
		return UINT64_MAX;
	if (door->now_ms < door->tallied_ms + TALLY_MS)
		return door->tallied_ms + TALLY_MS;
	door->tallied_bytes = moved;
	door->tallied_ms = door->now_ms;
	while ((at = at->after) != &door->all) {
		struct visitor *visitor = container_of(at, struct visitor, among_all);
		if (visitor->gate)
			tally(visitor);
	}
	return UINT64_MAX;
}
