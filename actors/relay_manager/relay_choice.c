#include "actors/relay_manager/relay_choice.h"

void relay_choice_init(struct relay_choice *choice, uint64_t now_ms)
{
	*choice = (struct relay_choice){ .without_ms = now_ms };
}

/* How long UDP must be good until it is believed. */
static uint64_t good_enough_ms(const struct relay_choice *choice)
{
	uint64_t ms = RELAY_CHOICE_GOOD_MS;

	for (uint32_t i = 1; i < choice->n_left && ms < RELAY_CHOICE_MOST_MS; i++)
		ms *= 8;
	return ms < RELAY_CHOICE_MOST_MS ? ms : RELAY_CHOICE_MOST_MS;
}

static void doubt_udp(struct relay_choice *choice)
{
	choice->good_ms = 0;
	if (choice->doubts_udp)
		return;
	choice->doubts_udp = true;
	choice->n_left++;
}

static void judge_without(struct relay_choice *choice, const struct relay_choice_view *view)
{
	if (choice->without_ms == 0)
		choice->without_ms = view->now_ms;
	choice->good_ms = 0;
	if (choice->was_bound)
		doubt_udp(choice); /* it may be lost again soon */
	const uint64_t patience = choice->was_bound || view->is_blocked ? 0 : RELAY_CHOICE_PATIENCE_MS;
	if (view->now_ms >= choice->without_ms + patience)
		choice->wants_tls = true;
	else
		choice->deadline_ms = choice->without_ms + patience;
}

static bool is_lossy(const struct relay_choice *choice, const struct relay_choice_view *view)
{
	if (choice->n_left <= choice->doubts_udp)
		return view->missing >= RELAY_CHOICE_LOSSY;
	/* Of the last 32 some may be from before it was believed again. */
	if (!choice->doubts_udp && view->now_ms - choice->trusted_ms < RELAY_CHOICE_NEW_MS)
		return view->missing >= 2 * RELAY_CHOICE_LOSSY;
	return view->loss >= RELAY_CHOICE_LOSSY_PERCENT;
}

static bool is_good(const struct relay_choice *choice, const struct relay_choice_view *view)
{
	return choice->n_left <= 1 ? view->is_proven : view->loss < RELAY_CHOICE_GOOD_PERCENT;
}

static void judge_bound(struct relay_choice *choice, const struct relay_choice_view *view)
{
	choice->without_ms = 0;
	if (!choice->was_bound)
		choice->trusted_ms = view->now_ms;
	choice->was_bound = true;
	if (is_lossy(choice, view) || view->n_silent >= RELAY_CHOICE_SILENT) {
		choice->wants_tls = true;
		doubt_udp(choice); /* however long it was good: silence comes before the pings are missing */
		return;
	}
	if (!is_good(choice, view))
		choice->good_ms = 0;
	else if (choice->good_ms == 0)
		choice->good_ms = view->now_ms;
	if (!choice->wants_tls || choice->good_ms == 0)
		return;
	const uint64_t good_for = view->now_ms - choice->good_ms, enough_ms = good_enough_ms(choice);
	const uint64_t close_ms = enough_ms + RELAY_CHOICE_CLOSE_MS - RELAY_CHOICE_GOOD_MS;
	if (choice->doubts_udp && good_for >= enough_ms) {
		choice->doubts_udp = false;
		choice->trusted_ms = view->now_ms;
	}
	if (good_for >= close_ms)
		choice->wants_tls = false;
	else
		choice->deadline_ms = choice->good_ms + (choice->doubts_udp ? enough_ms : close_ms);
}

void relay_choice_forgive(struct relay_choice *choice)
{
	choice->n_left = choice->doubts_udp ? 1 : 0;
}

bool relay_choice_is_watching(const struct relay_choice *choice, bool is_used)
{
	return choice->wants_tls && (is_used || choice->n_left <= 1);
}

void relay_choice_step(struct relay_choice *choice, const struct relay_choice_view *view)
{
	choice->deadline_ms = 0;
	if (!choice->doubts_udp && choice->was_bound && view->now_ms - choice->trusted_ms >= RELAY_CHOICE_FORGET_MS)
		choice->n_left = 0;
	if (view->is_bound)
		judge_bound(choice, view);
	else
		judge_without(choice, view);
}
