#include "actors/relay_manager/relay_choice.h"

void relay_choice_init(struct relay_choice *choice, uint64_t now_ms)
{
	*choice = (struct relay_choice){ .without_ms = now_ms };
}

static void judge_without(struct relay_choice *choice, const struct relay_choice_view *view)
{
	if (choice->without_ms == 0)
		choice->without_ms = view->now_ms;
	choice->good_ms = 0;
	choice->doubts_udp = choice->was_bound; /* it may be lost again soon */
	const uint64_t patience = choice->was_bound || view->is_blocked ? 0 : RELAY_CHOICE_PATIENCE_MS;
	if (view->now_ms >= choice->without_ms + patience)
		choice->wants_tls = true;
	else
		choice->deadline_ms = choice->without_ms + patience;
}

static void judge_bound(struct relay_choice *choice, const struct relay_choice_view *view)
{
	choice->without_ms = 0;
	choice->was_bound = true;
	if (view->missing >= RELAY_CHOICE_LOSSY || view->n_silent >= RELAY_CHOICE_SILENT) {
		choice->wants_tls = choice->doubts_udp = true;
		choice->good_ms = 0; /* however long it was: silence comes before the pings are missing */
		return;
	}
	if (!view->is_proven)
		choice->good_ms = 0;
	else if (choice->good_ms == 0)
		choice->good_ms = view->now_ms;
	if (!choice->wants_tls || choice->good_ms == 0)
		return;
	const uint64_t good_for = view->now_ms - choice->good_ms;
	if (good_for >= RELAY_CHOICE_GOOD_MS)
		choice->doubts_udp = false;
	if (good_for >= RELAY_CHOICE_CLOSE_MS)
		choice->wants_tls = false;
	else
		choice->deadline_ms =
			choice->good_ms + (choice->doubts_udp ? RELAY_CHOICE_GOOD_MS : RELAY_CHOICE_CLOSE_MS);
}

void relay_choice_step(struct relay_choice *choice, const struct relay_choice_view *view)
{
	choice->deadline_ms = 0;
	if (view->is_bound)
		judge_bound(choice, view);
	else
		judge_without(choice, view);
}
