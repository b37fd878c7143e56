#include "actors/relay_manager/home_fsm.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/macros.h"

#define ANY	 HOME_N_STATES
#define NO_RELAY UINT32_MAX /* as an index */

static const char *const state_names[] = {
	[HOME_NONE] = "none",	      [HOME_CHOOSING] = "choosing", [HOME_SETTLED] = "settled",
	[HOME_COMPARING] = "comparing", [HOME_STRANDED] = "stranded",
};
static_assert(ARRAY_LEN(state_names) == HOME_N_STATES, "a name for every state");

static const char *const event_names[] = {
	[HOME_EV_NOTHING] = "nothing", [HOME_EV_RELAYS] = "relays", [HOME_EV_SOLE] = "sole",
	[HOME_EV_ANSWER] = "answer",   [HOME_EV_BETTER] = "better", [HOME_EV_PROVEN] = "proven",
	[HOME_EV_EQUAL] = "equal",     [HOME_EV_LOST] = "lost",	    [HOME_EV_STRANDED] = "stranded",
	[HOME_EV_UP] = "up",	       [HOME_EV_NO_RELAYS] = "no relays",
};
static_assert(ARRAY_LEN(event_names) == HOME_EV_N_TYPES, "a name for every event");

const char *home_state_name(enum home_state state)
{
	return state_names[state];
}

const char *home_event_name(enum home_event event)
{
	return event_names[event];
}

/* what is known of the relays */

static struct home_relay *find(const struct home_fsm *fsm, uint32_t id)
{
	for (uint32_t i = 0; i < fsm->n_relays; i++)
		if (fsm->relays[i].id == id)
			return (struct home_relay *)&fsm->relays[i];
	return NULL;
}

static uint32_t best_of_window(const struct home_relay *relay)
{
	uint32_t best = 0;

	for (int i = 0; i < HOME_WINDOW; i++)
		if (relay->best_us[i] != 0 && (best == 0 || relay->best_us[i] < best))
			best = relay->best_us[i];
	return best;
}

static bool is_down(const struct home_relay *relay, uint64_t now_ms)
{
	return relay->down_until_ms > now_ms;
}

/* Alive before down, measured before not, near before far, connected before not, then by id. */
static bool is_nearer(const struct home_relay *a, const struct home_relay *b, uint64_t now_ms)
{
	uint32_t a_us = best_of_window(a), b_us = best_of_window(b);

	if (is_down(a, now_ms) != is_down(b, now_ms))
		return is_down(b, now_ms);
	if (a_us != b_us)
		return a_us != 0 && (b_us == 0 || a_us < b_us);
	if (a->is_up != b->is_up)
		return a->is_up;
	return a->id < b->id;
}

/* The nearest that is not the one given (0: of all); NULL if there is none. */
static struct home_relay *nearest_but(const struct home_fsm *fsm, uint32_t id, uint64_t now_ms)
{
	const struct home_relay *nearest = NULL;

	for (const struct home_relay *r = fsm->relays; r < fsm->relays + fsm->n_relays; r++)
		if (r->id != id && (!nearest || is_nearer(r, nearest, now_ms)))
			nearest = r;
	return (struct home_relay *)nearest;
}

static bool is_clearly_nearer(const struct home_relay *relay, const struct home_relay *than)
{
	uint64_t us = best_of_window(relay), than_us = best_of_window(than);

	return us != 0 && than_us != 0 && us + HOME_BETTER_US <= than_us &&
	       us * 100 <= than_us * HOME_BETTER_RATIO;
}

/* orders */

static void order(struct home_actions *out, uint32_t relay_id, bool hold)
{
	assert(out->n_orders < HOME_MAX_ORDERS);
	out->orders[out->n_orders++] = (struct home_order){ relay_id, hold };
}

static void drop(struct home_relay *relay, struct home_actions *out)
{
	relay->is_held = relay->is_up = false;
	order(out, relay->id, false);
}

/* The one unused for longest gives way when there are too many; one in use would only be wanted again at once. */
static void make_room(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	struct home_relay *oldest = NULL;
	uint32_t n_held = 0;

	for (struct home_relay *r = fsm->relays; r < fsm->relays + fsm->n_relays; r++) {
		n_held += r->is_held;
		if (r->is_held && r->id != fsm->home && (!oldest || r->used_ms < oldest->used_ms))
			oldest = r;
	}
	if (n_held >= HOME_MAX_HELD && oldest && now_ms - oldest->used_ms >= HOME_BUSY_MS)
		drop(oldest, out);
}

static void hold(struct home_fsm *fsm, struct home_relay *relay, uint64_t now_ms, struct home_actions *out)
{
	relay->used_ms = now_ms;
	if (relay->is_held)
		return;
	make_room(fsm, now_ms, out);
	relay->is_held = true;
	order(out, relay->id, true);
}

static void drop_idle(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	for (struct home_relay *r = fsm->relays; r < fsm->relays + fsm->n_relays; r++)
		if (r->is_held && r->id != fsm->home && now_ms - r->used_ms >= HOME_IDLE_MS)
			drop(r, out);
}

/* The home that was stays for a while: others still send to us through it. */
static void settle_on(struct home_fsm *fsm, struct home_relay *relay, uint64_t now_ms, struct home_actions *out)
{
	struct home_relay *former = find(fsm, fsm->home);

	if (former)
		former->used_ms = now_ms;
	fsm->home = relay->id;
	fsm->choose_ms = 0;
	hold(fsm, relay, now_ms, out);
	out->home_changed = true;
}

/* the deeds of the table */

static void wait_for_answer(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	(void)out;
	fsm->choose_ms = now_ms + HOME_CHOOSE_MS;
}

static void choose(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	struct home_relay *nearest = nearest_but(fsm, 0, now_ms);

	fsm->is_guess = best_of_window(nearest) == 0;
	settle_on(fsm, nearest, now_ms, out);
}

/* It is connected to, since that it answers STUN does not tell that it takes clients. */
static void doubt(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	struct home_relay *nearest = nearest_but(fsm, fsm->home, now_ms);

	hold(fsm, nearest, now_ms, out);
	fsm->n_better = fsm->challenger == nearest->id ? fsm->n_better + 1 : 1;
	fsm->challenger = nearest->id;
}

static void stay(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	(void)now_ms;
	(void)out;
	fsm->challenger = fsm->n_better = 0;
}

static void move(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	stay(fsm, now_ms, out);
	fsm->has_moved = true;
	fsm->moved_ms = now_ms;
	choose(fsm, now_ms, out);
}

static void flee(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	stay(fsm, now_ms, out);
	settle_on(fsm, nearest_but(fsm, fsm->home, now_ms), now_ms, out);
}

static void come_back(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	struct home_relay *nearest = nearest_but(fsm, 0, now_ms);

	if (nearest->id != fsm->home)
		settle_on(fsm, nearest, now_ms, out);
}

static void forget(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	stay(fsm, now_ms, out);
	out->home_changed = fsm->home != 0;
	fsm->home = 0;
	fsm->choose_ms = fsm->round_ms = 0;
	fsm->has_moved = fsm->is_guess = false;
}

/* The diagram in home_fsm.h, one arrow a line. */
static const struct home_arrow arrows[] = {
	/* from           on                 to               deed                    */
	{ HOME_NONE,      HOME_EV_RELAYS,    HOME_CHOOSING,   "wait",      wait_for_answer },
	{ HOME_NONE,      HOME_EV_SOLE,      HOME_SETTLED,    "choose",    choose          },
	{ HOME_CHOOSING,  HOME_EV_ANSWER,    HOME_SETTLED,    "choose",    choose          },
	{ HOME_CHOOSING,  HOME_EV_UP,        HOME_SETTLED,    "choose",    choose          },
	{ HOME_CHOOSING,  HOME_EV_SOLE,      HOME_SETTLED,    "choose",    choose          },
	{ HOME_SETTLED,   HOME_EV_ANSWER,    HOME_SETTLED,    "choose",    choose          },
	{ HOME_SETTLED,   HOME_EV_BETTER,    HOME_COMPARING,  "doubt",     doubt           },
	{ HOME_SETTLED,   HOME_EV_LOST,      HOME_SETTLED,    "flee",      flee            },
	{ HOME_SETTLED,   HOME_EV_STRANDED,  HOME_STRANDED,   "stay",      stay            },
	{ HOME_COMPARING, HOME_EV_BETTER,    HOME_COMPARING,  "doubt",     doubt           },
	{ HOME_COMPARING, HOME_EV_EQUAL,     HOME_SETTLED,    "stay",      stay            },
	{ HOME_COMPARING, HOME_EV_PROVEN,    HOME_SETTLED,    "move",      move            },
	{ HOME_COMPARING, HOME_EV_LOST,      HOME_SETTLED,    "flee",      flee            },
	{ HOME_COMPARING, HOME_EV_STRANDED,  HOME_STRANDED,   "stay",      stay            },
	{ HOME_STRANDED,  HOME_EV_UP,        HOME_SETTLED,    "come back", come_back       },
	{ HOME_STRANDED,  HOME_EV_LOST,      HOME_SETTLED,    "flee",      flee            },
	{ ANY,            HOME_EV_NO_RELAYS, HOME_NONE,       "forget",    forget          },
};

const struct home_arrow *home_fsm_arrows(uint32_t *ret_n)
{
	*ret_n = ARRAY_LEN(arrows);
	return arrows;
}

static const struct home_arrow *find_arrow(enum home_state from, enum home_event on)
{
	for (const struct home_arrow *a = arrows; a < arrows + ARRAY_LEN(arrows); a++)
		if ((a->from == from || a->from == ANY) && a->on == on)
			return a;
	return NULL;
}

/* inputs, and what they mean for home */

/* Is any relay but home alive, as far as we know? */
static bool has_refuge(const struct home_fsm *fsm, uint64_t now_ms)
{
	const struct home_relay *other = nearest_but(fsm, fsm->home, now_ms);

	return other && !is_down(other, now_ms);
}

static void keep_known(struct home_fsm *fsm, const struct home_input *input, struct home_actions *out)
{
	struct home_relay relays[MAP_MAX_RELAYS];
	uint32_t n = 0;

	for (uint32_t i = 0; i < input->relays.n && n < MAP_MAX_RELAYS; i++) {
		struct home_relay *known = find(fsm, input->relays.ids[i]);
		relays[n++] = known ? *known : (struct home_relay){ .id = input->relays.ids[i] };
	}
	for (uint32_t i = 0; i < fsm->n_relays; i++) {
		bool stays = false;
		for (uint32_t j = 0; j < n; j++)
			stays = stays || relays[j].id == fsm->relays[i].id;
		if (!stays && fsm->relays[i].is_held)
			drop(&fsm->relays[i], out);
	}
	memcpy(fsm->relays, relays, n * sizeof(*relays));
	fsm->n_relays = n;
}

static enum home_event on_relays(struct home_fsm *fsm, const struct home_input *input, struct home_actions *out)
{
	keep_known(fsm, input, out);
	if (fsm->n_relays == 0)
		return HOME_EV_NO_RELAYS;
	if (fsm->round_ms == 0)
		fsm->round_ms = input->now_ms + HOME_ROUND_MS;
	if (fsm->home == 0)
		return fsm->n_relays == 1 ? HOME_EV_SOLE : HOME_EV_RELAYS;
	if (!find(fsm, fsm->home))
		return HOME_EV_LOST;
	return fsm->state == HOME_STRANDED && has_refuge(fsm, input->now_ms) ? HOME_EV_LOST : HOME_EV_NOTHING;
}

static enum home_event on_latency(const struct home_fsm *fsm, struct home_relay *relay,
				  const struct home_input *input)
{
	uint32_t *best = &relay->best_us[0];

	if (input->rtt_us != 0 && (*best == 0 || input->rtt_us < *best))
		*best = input->rtt_us;
	if (fsm->home == 0)
		return HOME_EV_ANSWER;
	const struct home_relay *home = find(fsm, fsm->home);
	const struct home_relay *nearest = nearest_but(fsm, 0, input->now_ms);
	return fsm->is_guess && is_clearly_nearer(nearest, home) ? HOME_EV_ANSWER : HOME_EV_NOTHING;
}

static enum home_event on_down(struct home_fsm *fsm, struct home_relay *relay, uint64_t now_ms)
{
	relay->is_up = false;
	relay->down_until_ms = now_ms + HOME_DOWN_MS;
	if (relay->id != fsm->home)
		return HOME_EV_NOTHING;
	return has_refuge(fsm, now_ms) ? HOME_EV_LOST : HOME_EV_STRANDED;
}

static enum home_event on_up(struct home_fsm *fsm, struct home_relay *relay, uint64_t now_ms,
			     struct home_actions *out)
{
	if (!relay->is_held) {
		make_room(fsm, now_ms, out);
		relay->is_held = true;
		relay->used_ms = now_ms;
	}
	relay->is_up = true;
	relay->down_until_ms = 0;
	return HOME_EV_UP;
}

static void begin_round(struct home_fsm *fsm, uint64_t now_ms)
{
	fsm->round_ms = now_ms + HOME_ROUND_MS;
	fsm->is_guess = false;
	for (struct home_relay *r = fsm->relays; r < fsm->relays + fsm->n_relays; r++) {
		memmove(&r->best_us[1], &r->best_us[0], (HOME_WINDOW - 1) * sizeof(r->best_us[0]));
		r->best_us[0] = 0;
	}
}

static enum home_event judge_round(const struct home_fsm *fsm, uint64_t now_ms)
{
	const struct home_relay *home = find(fsm, fsm->home);
	const struct home_relay *other = nearest_but(fsm, fsm->home, now_ms);

	if (fsm->state == HOME_STRANDED)
		return has_refuge(fsm, now_ms) ? HOME_EV_LOST : HOME_EV_NOTHING;
	if (!home || !other || is_down(other, now_ms) || !is_clearly_nearer(other, home))
		return fsm->challenger == 0 ? HOME_EV_NOTHING : HOME_EV_EQUAL;
	if (fsm->challenger == other->id && other->is_up && fsm->n_better + 1 >= HOME_N_ROUNDS &&
	    (!fsm->has_moved || now_ms - fsm->moved_ms >= HOME_KEEP_MS))
		return HOME_EV_PROVEN;
	return HOME_EV_BETTER;
}

static enum home_event on_deadline(struct home_fsm *fsm, uint64_t now_ms, struct home_actions *out)
{
	drop_idle(fsm, now_ms, out);
	if (fsm->choose_ms != 0 && now_ms >= fsm->choose_ms)
		return HOME_EV_ANSWER;
	if (fsm->round_ms == 0 || now_ms < fsm->round_ms)
		return HOME_EV_NOTHING;
	enum home_event event = judge_round(fsm, now_ms);
	begin_round(fsm, now_ms);
	return event;
}

static enum home_event take_in(struct home_fsm *fsm, const struct home_input *input, struct home_actions *out)
{
	struct home_relay *relay = find(fsm, input->relay_id);

	if (input->type == HOME_IN_RELAYS)
		return on_relays(fsm, input, out);
	if (input->type == HOME_IN_DEADLINE)
		return on_deadline(fsm, input->now_ms, out);
	if (!relay)
		return HOME_EV_NOTHING;
	switch (input->type) {
	case HOME_IN_LATENCY:
		return on_latency(fsm, relay, input);
	case HOME_IN_UP:
		return on_up(fsm, relay, input->now_ms, out);
	case HOME_IN_DOWN:
		return on_down(fsm, relay, input->now_ms);
	case HOME_IN_USED:
		hold(fsm, relay, input->now_ms, out);
		break;
	case HOME_IN_RELAYS:
	case HOME_IN_DEADLINE:
		break;
	}
	return HOME_EV_NOTHING;
}

/* the engine */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	if (a == 0 || b == 0)
		return a + b;
	return a < b ? a : b;
}

static uint64_t next_deadline(const struct home_fsm *fsm)
{
	uint64_t at = earlier(fsm->choose_ms, fsm->round_ms);

	for (const struct home_relay *r = fsm->relays; r < fsm->relays + fsm->n_relays; r++)
		if (r->is_held && r->id != fsm->home)
			at = earlier(at, r->used_ms + HOME_IDLE_MS);
	return at;
}

static void trace(const struct home_fsm *fsm, uint64_t now_ms, enum home_event event, const char *to)
{
	char line[96];

	if (!fsm->trace)
		return;
	snprintf(line, sizeof(line), "[%6llu] %s: %s -> %s", (unsigned long long)now_ms, state_names[fsm->state],
		 event_names[event], to);
	fsm->trace(fsm->trace_arg, line);
}

static bool invariant_holds(const struct home_fsm *fsm)
{
	const struct home_relay *home = find(fsm, fsm->home);
	bool has_home = fsm->state == HOME_SETTLED || fsm->state == HOME_COMPARING || fsm->state == HOME_STRANDED;

	if (has_home ? !home || !home->is_held : fsm->home != 0)
		return false;
	return (fsm->state == HOME_CHOOSING) == (fsm->choose_ms != 0) &&
	       (fsm->state == HOME_COMPARING) == (fsm->challenger != 0) &&
	       (fsm->state == HOME_NONE) == (fsm->n_relays == 0);
}

void home_fsm_init(struct home_fsm *fsm)
{
	*fsm = (struct home_fsm){ .state = HOME_NONE };
}

void home_fsm_step(struct home_fsm *fsm, const struct home_input *input, struct home_actions *out)
{
	*out = (struct home_actions){ 0 };

	enum home_event event = take_in(fsm, input, out);
	const struct home_arrow *arrow = find_arrow(fsm->state, event);
	if (arrow) {
		trace(fsm, input->now_ms, event, state_names[arrow->to]);
		arrow->act(fsm, input->now_ms, out);
		fsm->state = arrow->to;
	} else if (event != HOME_EV_NOTHING) {
		trace(fsm, input->now_ms, event, "(ignored)");
	}
	out->home = fsm->home;
	fsm->deadline_ms = next_deadline(fsm);
	assert(invariant_holds(fsm));
}

uint32_t home_fsm_latency_us(const struct home_fsm *fsm, uint32_t relay_id)
{
	const struct home_relay *relay = find(fsm, relay_id);

	return relay ? best_of_window(relay) : 0;
}

uint32_t home_fsm_rank(const struct home_fsm *fsm, uint64_t now_ms, uint32_t *ret)
{
	for (uint32_t i = 0; i < fsm->n_relays; i++) {
		uint32_t at = i;
		for (; at > 0 && is_nearer(&fsm->relays[i], find(fsm, ret[at - 1]), now_ms); at--)
			ret[at] = ret[at - 1];
		ret[at] = fsm->relays[i].id;
	}
	return fsm->n_relays;
}
