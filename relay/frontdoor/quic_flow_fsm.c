#include "relay/frontdoor/quic_flow_fsm.h"

void quic_flow_begin(struct quic_flow_fsm *flow, enum quic_flow_state state, uint64_t now_ms)
{
	flow->state = (uint8_t)state;
	flow->since_ms = now_ms;
}

static enum quic_flow_state next_state(enum quic_flow_state state, enum quic_flow_event event)
{
	if (state == QUIC_FLOW_SNIFFING && event == QUIC_FLOW_LED)
		return QUIC_FLOW_ASKED;
	if (state == QUIC_FLOW_ASKED && event == QUIC_FLOW_FROM_TARGET)
		return QUIC_FLOW_ANSWERED;
	if (state == QUIC_FLOW_ANSWERED && event == QUIC_FLOW_PROOF)
		return QUIC_FLOW_PROVEN;
	if (state == QUIC_FLOW_PROVEN && event == QUIC_FLOW_OVERTAKEN)
		return QUIC_FLOW_ANSWERED;
	return state;
}

void quic_flow_take(struct quic_flow_fsm *flow, enum quic_flow_event event, uint64_t now_ms)
{
	const enum quic_flow_state before = flow->state;

	flow->state = (uint8_t)next_state(before, event);
	if (flow->state != before || flow->state >= QUIC_FLOW_ANSWERED)
		flow->since_ms = now_ms;
}

uint64_t quic_flow_due_ms(const struct quic_flow_fsm *flow, const struct quic_flow_times *times)
{
	switch ((enum quic_flow_state)flow->state) {
	case QUIC_FLOW_SNIFFING:
		return flow->since_ms + times->sniff_ms;
	case QUIC_FLOW_ASKED:
		return flow->since_ms + times->asked_ms;
	case QUIC_FLOW_ANSWERED:
		return flow->since_ms + times->answered_ms;
	case QUIC_FLOW_PROVEN:
	case QUIC_FLOW_N_STATES:
		break;
	}
	return flow->since_ms + times->idle_ms;
}

bool quic_flow_makes_room(const struct quic_flow_fsm *flow, const struct quic_flow_times *times, uint64_t now_ms)
{
	return flow->state != QUIC_FLOW_PROVEN || now_ms >= flow->since_ms + times->spare_ms;
}
