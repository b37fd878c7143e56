#include "relay/frontdoor/pump_fsm.h"

enum pump_deed pump_next(const struct pump_flow *flow, const struct pump_end *from, const struct pump_end *to,
			 size_t budget)
{
	if (flow->is_done)
		return PUMP_REST;
	if (to->is_broken)
		return PUMP_DISCARD;
	if (flow->waiting > 0)
		return to->is_writable ? PUMP_DRAIN : PUMP_REST;
	if (flow->has_ended)
		return flow->is_cut_off ? PUMP_RESET : PUMP_FINISH;
	if (!from->is_readable || !to->is_writable)
		return PUMP_REST;
	return budget == 0 ? PUMP_YIELD : PUMP_FILL;
}

void pump_edge(struct pump_end *end, bool readable, bool writable, bool has_failed)
{
	end->is_broken = end->is_broken || has_failed;
	end->is_readable = end->is_readable || readable || has_failed;
	end->is_writable = end->is_writable || writable;
}
