#include "actors/relay_manager/relay_choice.h"

void relay_choice_init(struct relay_choice *choice, uint64_t now_ms)
{
	*choice = (struct relay_choice){ .without_ms = now_ms };
}

/* The first time so long, then eight times as long each time. */
static uint64_t longer_each_time(uint64_t ms, uint32_t n)
{
	for (uint32_t i = 1; i < n && ms < RELAY_CHOICE_MOST_MS; i++)
		ms *= 8;
	return ms < RELAY_CHOICE_MOST_MS ? ms : RELAY_CHOICE_MOST_MS;
}

/* How long UDP must be good until it is believed. */
static uint64_t good_enough_ms(const struct relay_choice *choice)
{
	return longer_each_time(RELAY_CHOICE_GOOD_MS, choice->n_left);
}

/* How long this doubt lasts without another. */
static uint64_t doubt_ms(const struct relay_choice *choice)
{
	return choice->doubt == RELAY_CHOICE_LATE ? RELAY_CHOICE_GOOD_MS : good_enough_ms(choice);
}

static void set_doubt(struct relay_choice *choice, enum relay_choice_doubt doubt)
{
	choice->doubt = doubt;
	choice->doubts_udp = doubt != RELAY_CHOICE_TRUSTED;
}

/* UDP fails while the relay is there, as far as we know: that counts, once until it is believed again. */
static void leave_udp(struct relay_choice *choice, enum relay_choice_doubt why)
{
	choice->wants_tls = true;
	choice->good_ms = 0;
	choice->n_opened = 0; /* the last was not for nothing */
	if (choice->doubt < RELAY_CHOICE_SILENCE)
		choice->n_left++;
	if (choice->doubt < why)
		set_doubt(choice, why);
}

/* A connection costs as much as hours of pings: those that turned out to be for nothing make the next rarer. */
static bool may_open_for_late(struct relay_choice *choice, uint64_t now_ms)
{
	if (choice->n_opened > 0 && now_ms - choice->opened_ms >= RELAY_CHOICE_FORGET_MS)
		choice->n_opened = 0;
	if (choice->n_opened > 0 &&
	    now_ms - choice->opened_ms < longer_each_time(RELAY_CHOICE_LATE_MS, choice->n_opened))
		return false;
	choice->opened_ms = now_ms;
	choice->n_opened += choice->n_opened < UINT32_MAX;
	return true;
}

/* One ping is late, which any loss makes: packets go by TLS for seconds, but not each time. */
static void take_late(struct relay_choice *choice, uint64_t now_ms)
{
	if (!choice->wants_tls && !may_open_for_late(choice, now_ms))
		return;
	choice->wants_tls = true;
	if (!choice->doubts_udp || choice->doubt == RELAY_CHOICE_LATE || choice->n_left <= 1)
		choice->good_ms = 0;
	if (choice->doubts_udp || (choice->late_ms != 0 && now_ms - choice->late_ms < RELAY_CHOICE_FORGET_MS))
		return;
	choice->late_ms = now_ms;
	set_doubt(choice, RELAY_CHOICE_LATE);
}

/* It may be lost again soon; but a relay that restarts, or a machine that slept, says nothing against UDP. */
static void lose_slot(struct relay_choice *choice)
{
	if (choice->doubt == RELAY_CHOICE_SILENCE)
		choice->n_left--;
	if (choice->doubt <= RELAY_CHOICE_SILENCE)
		set_doubt(choice, RELAY_CHOICE_LOST);
}

static void judge_without(struct relay_choice *choice, const struct relay_choice_view *view)
{
	if (choice->without_ms == 0)
		choice->without_ms = view->now_ms;
	choice->good_ms = 0;
	choice->n_opened = 0;
	if (choice->was_bound)
		lose_slot(choice);
	const uint64_t patience = choice->was_bound || view->is_blocked ? 0 : RELAY_CHOICE_PATIENCE_MS;
	if (view->now_ms >= choice->without_ms + patience)
		choice->wants_tls = true;
	else
		choice->deadline_ms = choice->without_ms + patience;
}

/* Was it left before this doubt? */
static bool was_left(const struct relay_choice *choice)
{
	return choice->n_left > (choice->doubt >= RELAY_CHOICE_SILENCE);
}

static bool is_lossy(const struct relay_choice *choice, const struct relay_choice_view *view)
{
	if (!was_left(choice))
		return view->missing >= RELAY_CHOICE_LOSSY;
	/* Of the last 32 some may be from before it was believed again; or they are not so many yet. */
	if (!view->knows_loss || (!choice->doubts_udp && view->now_ms - choice->trusted_ms < RELAY_CHOICE_NEW_MS))
		return view->missing >= 2 * RELAY_CHOICE_LOSSY;
	return view->loss >= RELAY_CHOICE_LOSSY_PERCENT;
}

static bool is_good(const struct relay_choice *choice, const struct relay_choice_view *view)
{
	return choice->n_left <= 1 || !view->knows_loss ? view->is_proven : view->loss < RELAY_CHOICE_GOOD_PERCENT;
}

/* Returns true if UDP is bad right now. */
static bool is_left(struct relay_choice *choice, const struct relay_choice_view *view)
{
	if (is_lossy(choice, view))
		leave_udp(choice, RELAY_CHOICE_LEFT);
	else if (view->n_silent > RELAY_CHOICE_SILENT)
		leave_udp(choice, RELAY_CHOICE_SILENCE);
	else if (view->n_silent == RELAY_CHOICE_SILENT)
		take_late(choice, view->now_ms);
	else
		return false;
	return true;
}

static void trust_again(struct relay_choice *choice, uint64_t now_ms)
{
	if (choice->doubt != RELAY_CHOICE_LATE)
		choice->trusted_ms = now_ms;
	set_doubt(choice, RELAY_CHOICE_TRUSTED);
}

static uint64_t close_at_ms(const struct relay_choice *choice)
{
	const uint64_t good = choice->good_ms + RELAY_CHOICE_CLOSE_MS;
	const uint64_t trusted = choice->trusted_ms + RELAY_CHOICE_CLOSE_MS - RELAY_CHOICE_GOOD_MS;

	return good > trusted ? good : trusted;
}

static void judge_bound(struct relay_choice *choice, const struct relay_choice_view *view)
{
	choice->without_ms = 0;
	if (!choice->was_bound)
		choice->trusted_ms = view->now_ms;
	choice->was_bound = true;
	if (is_left(choice, view))
		return; /* however long it was good: silence comes before the pings are missing */
	if (choice->doubt == RELAY_CHOICE_SILENCE)
		choice->doubt = RELAY_CHOICE_LEFT; /* heard in the same slot: the relay was there all the time */
	if (!is_good(choice, view))
		choice->good_ms = 0;
	else if (choice->good_ms == 0)
		choice->good_ms = view->now_ms;
	if (!choice->wants_tls || choice->good_ms == 0)
		return;
	if (choice->doubts_udp && view->now_ms - choice->good_ms >= doubt_ms(choice))
		trust_again(choice, view->now_ms);
	if (choice->doubts_udp)
		choice->deadline_ms = choice->good_ms + doubt_ms(choice);
	else if (view->now_ms >= close_at_ms(choice))
		choice->wants_tls = false;
	else
		choice->deadline_ms = close_at_ms(choice);
}

void relay_choice_forgive(struct relay_choice *choice)
{
	choice->n_left = choice->doubt >= RELAY_CHOICE_SILENCE;
	choice->late_ms = 0;
	choice->n_opened = 0;
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
