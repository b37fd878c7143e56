/* The search: see the drawing in the header and the table below. */
#include "actors/traffic_manager/hard_nat_fsm.h"

#include "common/macros.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)

#define TICK_NS	      MS(20)
#define TICK_SENDS    (HARD_NAT_RATE / 50)
#define SEARCH_NS     MS(5000)
#define MAX_SEARCH_NS (SEARCH_NS + MAX_TELLS * TELL_NS) /* of a hard side that is told again and again */
#define PREPARE_NS    MS(600) /* since the hard side says that it begins: 256 knocks */
#define TELL_NS	      MS(500) /* an easy side, until it is heard */
#define MAX_TELLS     10      /* with 30 % loss each way one in a thousand is not heard */
#define UNHEARD_NS    ((MAX_TELLS - 2) * TELL_NS) /* from the first to the last that is heard of them, one lost */
#define MAX_TRIES     4	      /* to be heard: who never answers does not keep the turn from others */
#define ANSWER_NS     MS(700) /* so long the turn is kept for who was told */
#define LOOK_NS	      MS(200) /* whoever waits for the turn: it may be given back sooner */
#define FRESH_NS      MS(3000) /* who told us so long ago searches, and goes on for a while */
#define FEW_SOCKETS   64
#define STEPS_A_PING  48 /* of the 64 that are open: a few may be others' */
#define FIRST_PORT    1024
#define N_PORTS	      (65536 - FIRST_PORT)
#define BLOCK_SAMPLES 8	   /* that must lie close together before a block is believed in */
#define MAX_BLOCK     6144 /* larger ones are searched as all ports are */
#define NEVER	      UINT64_MAX
#define MAX_EVENTS    8

#define ANY HARD_NAT_N_STATES

enum event {
	EV_OTHER_FACTS,
	EV_BEGIN,
	EV_REFUSED,
	EV_THEY_BEGIN,
	EV_UNHEARD,
	EV_AGAIN,
	EV_TICK,
	EV_PREPARED,
	EV_DIRECT,
	EV_OVER,
	N_EVENTS,
	EV_NONE = N_EVENTS,
};

static const char *const state_names[] = {
	[HARD_NAT_IDLE] = "idle",   [HARD_NAT_PREPARING] = "preparing", [HARD_NAT_SEARCHING] = "searching",
	[HARD_NAT_FOUND] = "found", [HARD_NAT_SPENT] = "spent",
};
static_assert(ARRAY_LEN(state_names) == HARD_NAT_N_STATES, "a name for every state");

static const char *const event_names[] = {
	[EV_OTHER_FACTS] = "other facts", [EV_BEGIN] = "begin",		 [EV_TICK] = "tick",
	[EV_REFUSED] = "refused",	  [EV_AGAIN] = "again",		 [EV_THEY_BEGIN] = "they begin",
	[EV_UNHEARD] = "unheard",	  [EV_PREPARED] = "prepared",	 [EV_DIRECT] = "direct",
	[EV_OVER] = "over",
};
static_assert(ARRAY_LEN(event_names) == N_EVENTS, "a name for every event");

static uint64_t next_random(struct hard_nat_fsm *fsm)
{
	uint64_t z = fsm->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static struct hard_nat_action *add(struct hard_nat_actions *out, enum hard_nat_action_type type)
{
	assert(out->n < HARD_NAT_MAX_ACTIONS);
	struct hard_nat_action *action = &out->all[out->n++];

	*action = (struct hard_nat_action){ .type = type };
	return action;
}

/* ---- the plan ---- */

/*
 * Whose filter is open is reached without; whose address nobody may be sent to is not searched, nor are ports of
 * well-known services: a peer says what it likes.
 */
static bool is_strict(const struct hard_nat_facts *facts)
{
	return facts->filtering == NAT_DEPENDS_ADDRESS || facts->filtering == NAT_DEPENDS_PORT;
}

static bool has_public_address(const struct hard_nat_facts *facts)
{
	return endpoint_is_v4(&facts->outside) && facts->outside.port >= FIRST_PORT && facts->outside.ip[12] != 0 &&
	       facts->outside.ip[12] < 224 && !endpoint_is_private(&facts->outside) &&
	       !endpoint_is_loopback(&facts->outside);
}

bool hard_nat_is_hard(const struct hard_nat_facts *facts)
{
	return (facts->mapping == NAT_DEPENDS_ADDRESS || facts->mapping == NAT_DEPENDS_PORT) && is_strict(facts);
}

static bool is_easy_and_strict(const struct hard_nat_facts *facts)
{
	return (facts->mapping == NAT_DEPENDS_NOT || facts->mapping == NAT_DEPENDS_NO_NAT) &&
	       facts->filtering == NAT_DEPENDS_PORT;
}

/* A run of steps beginning with the last port that was seen. */
static void plan_steps(const struct hard_nat_facts *hard, struct hard_nat_plan *plan)
{
	const uint32_t step = (uint32_t)(hard->step < 0 ? -hard->step : hard->step);
	const uint32_t last = hard->last_port > FIRST_PORT ? (uint32_t)(hard->last_port - FIRST_PORT) : 0u;
	const uint32_t stride = step * STEPS_A_PING;

	plan->n_sockets = FEW_SOCKETS;
	plan->low_port = FIRST_PORT;
	plan->n_range = N_PORTS;
	plan->n_pings = N_PORTS / stride + 2 < HARD_NAT_MAX_PINGS ? N_PORTS / stride + 2 : HARD_NAT_MAX_PINGS;
	/* By the first one less than a stride was used since: it lies in the run. */
	plan->first = hard->step > 0 ? (last + stride) % N_PORTS : (last + N_PORTS - stride % N_PORTS) % N_PORTS;
	plan->stride = hard->step > 0 ? stride % N_PORTS : N_PORTS - stride % N_PORTS;
}

/* All that is seen of a block lies in it; its ends are beyond that by about one gap between two samples. */
static bool plan_block(const struct hard_nat_facts *hard, struct hard_nat_plan *plan)
{
	const uint32_t seen = (uint32_t)(hard->high_port - hard->low_port) + 1, margin = seen / 4 + 16;
	uint32_t low = hard->low_port, high = hard->high_port;

	if (hard->n_ports < BLOCK_SAMPLES || hard->high_port < hard->low_port || seen + 2 * margin > MAX_BLOCK)
		return false;
	low = low > FIRST_PORT + margin ? low - margin : FIRST_PORT;
	high = high + margin < 65535 ? high + margin : 65535;
	if (high <= low)
		return false; /* all of it is below the ports that are searched */
	plan->n_sockets = FEW_SOCKETS;
	plan->low_port = (uint16_t)low;
	plan->n_range = high - low + 1;
	plan->n_pings = plan->n_range < HARD_NAT_MAX_PINGS / 2 ? plan->n_range : HARD_NAT_MAX_PINGS / 2;
	return true;
}

static uint32_t greatest_divisor(uint32_t a, uint32_t b)
{
	while (b != 0) {
		const uint32_t rest = a % b;
		a = b;
		b = rest;
	}
	return a;
}

/* Any distinct ports are as good as others: steps of a random size that come by all of the range. */
static void scatter(struct hard_nat_plan *plan, uint64_t random)
{
	plan->first = (uint32_t)(random % plan->n_range);
	plan->stride = (uint32_t)((random >> 32) % plan->n_range);
	while (plan->n_range > 1 && (plan->stride == 0 || greatest_divisor(plan->n_range, plan->stride) != 1))
		plan->stride = (plan->stride + 1) % plan->n_range;
}

struct hard_nat_plan hard_nat_plan(const struct hard_nat_facts *ours, const struct hard_nat_facts *theirs,
				   uint64_t random)
{
	struct hard_nat_plan plan = { .role = HARD_NAT_NOTHING };
	const struct hard_nat_facts *hard = hard_nat_is_hard(ours) ? ours : theirs;

	if (!has_public_address(ours) || !has_public_address(theirs) ||
	    memcmp(ours->outside.ip, theirs->outside.ip, sizeof(ours->outside.ip)) == 0)
		return plan;
	if (hard_nat_is_hard(ours) && is_easy_and_strict(theirs))
		plan.role = HARD_NAT_HARD_SIDE;
	else if (hard_nat_is_hard(theirs) && is_easy_and_strict(ours))
		plan.role = HARD_NAT_EASY_SIDE;
	else
		return plan;
	if (hard->ports == NAT_PORTS_IN_STEPS && hard->last_port != 0 && hard->step != 0) {
		plan_steps(hard, &plan);
		return plan;
	}
	if (!plan_block(hard, &plan)) {
		plan.n_sockets = HARD_NAT_MAX_SOCKETS;
		plan.n_pings = HARD_NAT_MAX_PINGS;
		plan.low_port = FIRST_PORT;
		plan.n_range = N_PORTS;
	}
	scatter(&plan, random);
	return plan;
}

uint16_t hard_nat_port(const struct hard_nat_plan *plan, uint32_t i)
{
	return (uint16_t)(plan->low_port + (plan->first + (uint64_t)i * plan->stride) % plan->n_range);
}

/* ---- deeds ---- */

static void take_turn(struct hard_nat_fsm *fsm, uint64_t until_ns)
{
	fsm->turn_ns = until_ns;
	*fsm->turn = (struct hard_nat_turn){ .until_ns = until_ns };
}

/* Unless it was over, and is another's by now. */
static void end_turn(struct hard_nat_fsm *fsm, uint64_t now_ns)
{
	if (!fsm->turn->who && fsm->turn->until_ns == fsm->turn_ns)
		fsm->turn->until_ns = now_ns;
}

/* From now on it counts: sockets are opened, or pings sent. */
static void spend(struct hard_nat_fsm *fsm, const struct hard_nat_input *in)
{
	fsm->is_spent = true;
	fsm->n_begun++;
	fsm->end_ns = in->now_ns + SEARCH_NS;
	take_turn(fsm, fsm->end_ns);
}

static void tell(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	add(out, HARD_NAT_DO_TELL);
	fsm->n_tells++;
	fsm->next_ns = in->now_ns + TELL_NS;
}

static void begin(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	fsm->n_sent = fsm->n_tells = 0;
	fsm->is_heard = false;
	fsm->begun_ns = in->now_ns;
	if (fsm->plan.role == HARD_NAT_EASY_SIDE) {
		fsm->n_tried++;
		take_turn(fsm, in->now_ns + MAX_TELLS * TELL_NS);
		tell(fsm, in, out);
		return;
	}
	spend(fsm, in);
	add(out, HARD_NAT_DO_OPEN)->n = fsm->plan.n_sockets;
	fsm->next_ns = in->now_ns + TICK_NS;
}

/* The easy side: it was heard, and ports are being opened. The hard side: it was not; and its peer's pings come later. */
static void take_word(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	if (fsm->plan.role == HARD_NAT_EASY_SIDE) {
		fsm->is_heard = true;
		fsm->next_ns = in->now_ns + PREPARE_NS;
		spend(fsm, in);
		return;
	}
	add(out, HARD_NAT_DO_TELL);
	fsm->end_ns = in->now_ns + SEARCH_NS;
	if (fsm->end_ns > fsm->begun_ns + MAX_SEARCH_NS)
		fsm->end_ns = fsm->begun_ns + MAX_SEARCH_NS;
	take_turn(fsm, fsm->end_ns);
}

static void knock(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	if (fsm->n_sent == 0)
		add(out, HARD_NAT_DO_TELL); /* not before: there might have been no sockets */
	for (uint32_t i = 0; i < TICK_SENDS && fsm->n_sent < fsm->plan.n_sockets; i++) {
		struct hard_nat_action *action = add(out, HARD_NAT_DO_KNOCK);
		action->n = fsm->n_sent++;
		action->to = fsm->theirs.outside;
	}
	fsm->next_ns = in->now_ns + TICK_NS;
}

static void ping(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	for (uint32_t i = 0; i < TICK_SENDS && fsm->n_sent < fsm->plan.n_pings; i++) {
		struct hard_nat_action *action = add(out, HARD_NAT_DO_PING);
		action->to = fsm->theirs.outside;
		action->to.port = hard_nat_port(&fsm->plan, fsm->n_sent++);
	}
	fsm->next_ns = in->now_ns + TICK_NS;
}

static void prepare(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	if (fsm->plan.role == HARD_NAT_EASY_SIDE)
		tell(fsm, in, out);
	else
		knock(fsm, in, out);
}

static void search(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	if (fsm->plan.role == HARD_NAT_EASY_SIDE)
		ping(fsm, in, out);
}

static void end(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	end_turn(fsm, in->now_ns);
	if (fsm->plan.role == HARD_NAT_HARD_SIDE)
		add(out, HARD_NAT_DO_CLOSE);
}

/* It does not count: nothing was sent but words. It begins again when it is told. */
static void take_back(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	end_turn(fsm, in->now_ns);
	if (fsm->plan.role == HARD_NAT_HARD_SIDE) {
		fsm->n_begun--;
		fsm->is_spent = false;
	}
	fsm->theirs_ns = fsm->they_begin_ns = 0;
	fsm->plan.role = HARD_NAT_NOTHING;
}

/* Ports were open and the peer never heard of it, so it has pinged none: it is told what our NAT does once more. */
static void wait_again(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	end(fsm, in, out);
	fsm->is_spent = false;
	fsm->they_begin_ns = 0;
	fsm->plan.role = HARD_NAT_NOTHING;
}

/* A way that led through is gone: one of the NATs has forgotten it. */
static void renew(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	fsm->is_spent = false;
}

static void forget(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out)
{
	const bool is_open = fsm->state == HARD_NAT_PREPARING || fsm->state == HARD_NAT_SEARCHING;

	/* The turn is not given back: else who alternates what it says would have us begin all the time. */
	if (is_open && fsm->plan.role == HARD_NAT_HARD_SIDE)
		add(out, HARD_NAT_DO_CLOSE);
	if (fsm->state == HARD_NAT_FOUND)
		fsm->is_spent = false; /* as when it is lost: nothing will say so any more */
	fsm->plan = (struct hard_nat_plan){ .role = HARD_NAT_NOTHING };
}

/* ---- the table ---- */

static const struct arrow {
	int from;
	enum event on;
	enum hard_nat_state to;
	void (*act)(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *out);
} arrows[] = {
	/* clang-format off */
	/* from               on              to                   act    */
	{ HARD_NAT_IDLE,      EV_BEGIN,       HARD_NAT_PREPARING,  begin  },
	{ HARD_NAT_PREPARING, EV_TICK,        HARD_NAT_PREPARING,  prepare },
	{ HARD_NAT_PREPARING, EV_THEY_BEGIN,  HARD_NAT_PREPARING,  take_word },
	{ HARD_NAT_PREPARING, EV_PREPARED,    HARD_NAT_SEARCHING,  search },
	{ HARD_NAT_PREPARING, EV_REFUSED,     HARD_NAT_IDLE,       take_back },
	{ HARD_NAT_PREPARING, EV_UNHEARD,     HARD_NAT_IDLE,       take_back },
	{ HARD_NAT_SEARCHING, EV_TICK,        HARD_NAT_SEARCHING,  ping   },
	{ HARD_NAT_SEARCHING, EV_THEY_BEGIN,  HARD_NAT_SEARCHING,  take_word },
	{ HARD_NAT_PREPARING, EV_DIRECT,      HARD_NAT_FOUND,      end    },
	{ HARD_NAT_SEARCHING, EV_DIRECT,      HARD_NAT_FOUND,      end    },
	{ HARD_NAT_SEARCHING, EV_OVER,        HARD_NAT_SPENT,      end    },
	{ HARD_NAT_SEARCHING, EV_UNHEARD,     HARD_NAT_IDLE,       wait_again },
	{ HARD_NAT_FOUND,     EV_AGAIN,       HARD_NAT_IDLE,       renew  },
	{ ANY,                EV_OTHER_FACTS, HARD_NAT_IDLE,       forget },
	/* clang-format on */
};

/* ---- classify ---- */

static bool same_address(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0; /* another port is no other network */
}

/* Not known for a while is no other network, either. */
static bool is_elsewhere(struct endpoint *network, const struct hard_nat_facts *facts)
{
	if (endpoint_is_none(&facts->outside) || same_address(network, &facts->outside))
		return false;
	*network = facts->outside;
	return true;
}

/* Nor is another port; but a search that began with a port that may be sent to ends when it is one that may not. */
static enum event take_facts(struct hard_nat_facts *kept, const struct hard_nat_facts *facts)
{
	const bool is_same = same_address(&kept->outside, &facts->outside) &&
			     (facts->outside.port >= FIRST_PORT || kept->outside.port < FIRST_PORT);

	*kept = *facts;
	return is_same ? EV_NONE : EV_OTHER_FACTS;
}

static enum event take_theirs(struct hard_nat_fsm *fsm, const struct hard_nat_input *in)
{
	const bool is_underway = fsm->state == HARD_NAT_PREPARING || fsm->state == HARD_NAT_SEARCHING;

	if (is_elsewhere(&fsm->their_network, &in->facts))
		fsm->is_spent = false;
	fsm->theirs_ns = in->now_ns;
	if (in->flag)
		fsm->they_begin_ns = in->now_ns;
	if (take_facts(&fsm->theirs, &in->facts) == EV_OTHER_FACTS)
		return EV_OTHER_FACTS;
	return is_underway && in->flag && !fsm->is_heard ? EV_THEY_BEGIN : EV_NONE;
}

/* What is known of our NAT; the searches that others made us do are forgiven in another network. */
static enum event take_ours(struct hard_nat_fsm *fsm, const struct hard_nat_input *in)
{
	if (is_elsewhere(&fsm->our_network, &in->facts)) {
		fsm->is_spent = false;
		fsm->n_begun = fsm->n_tried = 0;
	}
	return take_facts(&fsm->ours, &in->facts);
}

static enum event classify(struct hard_nat_fsm *fsm, const struct hard_nat_input *in)
{
	switch (in->type) {
	case HARD_NAT_IN_OURS:
		return take_ours(fsm, in);
	case HARD_NAT_IN_THEIRS:
		return take_theirs(fsm, in);
	case HARD_NAT_IN_WANTED:
		fsm->is_wanted = in->flag;
		break;
	case HARD_NAT_IN_DIRECT:
		fsm->is_wanted = false;
		return fsm->state == HARD_NAT_PREPARING || fsm->state == HARD_NAT_SEARCHING ? EV_DIRECT : EV_NONE;
	case HARD_NAT_IN_SESSION:
		fsm->theirs = (struct hard_nat_facts){ 0 };
		fsm->theirs_ns = fsm->they_begin_ns = 0;
		fsm->is_spent = false;
		return EV_OTHER_FACTS;
	case HARD_NAT_IN_REFUSED:
		return fsm->plan.role == HARD_NAT_HARD_SIDE && fsm->n_sent == 0 ? EV_REFUSED : EV_NONE;
	case HARD_NAT_IN_DEADLINE:
	case HARD_NAT_N_INPUTS:
		break;
	}
	return EV_NONE;
}

/* When the next search of this peer may begin, as far as is known now. */
static uint64_t free_at(const struct hard_nat_fsm *fsm, uint64_t now_ns)
{
	const bool is_renewed = fsm->n_begun < HARD_NAT_CHANGES && fsm->n_tried < MAX_TRIES;
	const uint64_t renewed_ns = is_renewed ? 0 : fsm->begun_ns + HARD_NAT_RENEWED_NS;
	uint64_t turn_ns = fsm->turn->who == fsm ? 0 : fsm->turn->until_ns;

	if (turn_ns > now_ns + LOOK_NS)
		turn_ns = now_ns + LOOK_NS;
	return renewed_ns > turn_ns ? renewed_ns : turn_ns;
}

/* What it waited for has come, and is none; or is needed no more. */
static void give_back(struct hard_nat_fsm *fsm, const struct hard_nat_input *in)
{
	const bool is_answered = in->type == HARD_NAT_IN_THEIRS && fsm->plan.role == HARD_NAT_NOTHING;

	if (fsm->turn->who == fsm && (is_answered || !fsm->is_wanted))
		*fsm->turn = (struct hard_nat_turn){ .until_ns = in->now_ns };
}

/* The hard side: nobody pings the sockets of one whose peer does not begin. */
static bool is_told(const struct hard_nat_fsm *fsm, uint64_t now_ns)
{
	if (fsm->plan.role == HARD_NAT_EASY_SIDE)
		return fsm->theirs_ns != 0;
	return fsm->they_begin_ns != 0 && now_ns - fsm->they_begin_ns < FRESH_NS;
}

static bool may_begin(struct hard_nat_fsm *fsm, uint64_t now_ns)
{
	if (fsm->state != HARD_NAT_IDLE)
		return false;
	if (fsm->begun_ns + HARD_NAT_RENEWED_NS <= now_ns)
		fsm->n_begun = fsm->n_tried = 0;
	fsm->plan = (struct hard_nat_plan){ .role = HARD_NAT_NOTHING };
	if (fsm->is_wanted && !fsm->is_spent)
		fsm->plan = hard_nat_plan(&fsm->ours, &fsm->theirs, next_random(fsm));
	if (!is_told(fsm, now_ns))
		fsm->plan.role = HARD_NAT_NOTHING;
	return fsm->plan.role != HARD_NAT_NOTHING && free_at(fsm, now_ns) <= now_ns;
}

static uint64_t preparing_until(const struct hard_nat_fsm *fsm, enum event *ret)
{
	if (fsm->plan.role == HARD_NAT_HARD_SIDE)
		*ret = fsm->n_sent == fsm->plan.n_sockets ? EV_PREPARED : EV_TICK;
	else
		*ret = fsm->is_heard ? EV_PREPARED : fsm->n_tells < MAX_TELLS ? EV_TICK : EV_UNHEARD;
	return fsm->next_ns;
}

/* The hard side: the easy one said that it begins as often as it does when it is not heard, and then no more. */
static bool was_unheard(const struct hard_nat_fsm *fsm)
{
	return fsm->plan.role == HARD_NAT_HARD_SIDE && fsm->they_begin_ns >= fsm->begun_ns + UNHEARD_NS &&
	       fsm->they_begin_ns + FRESH_NS <= fsm->end_ns;
}

static uint64_t next_alarm(const struct hard_nat_fsm *fsm, uint64_t now_ns, enum event *ret)
{
	const bool is_easy = fsm->plan.role == HARD_NAT_EASY_SIDE;

	*ret = EV_NONE;
	if (fsm->state == HARD_NAT_PREPARING)
		return preparing_until(fsm, ret);
	if (fsm->state == HARD_NAT_IDLE && fsm->plan.role != HARD_NAT_NOTHING)
		return free_at(fsm, now_ns); /* later than now: else it would have begun */
	if (fsm->state != HARD_NAT_SEARCHING)
		return NEVER;
	*ret = EV_TICK;
	if (is_easy && fsm->n_sent < fsm->plan.n_pings && fsm->next_ns < fsm->end_ns)
		return fsm->next_ns;
	*ret = was_unheard(fsm) ? EV_UNHEARD : EV_OVER;
	return fsm->end_ns;
}

/* ---- the engine ---- */

static void take(struct hard_nat_fsm *fsm, enum event event, const struct hard_nat_input *in,
		 struct hard_nat_actions *out)
{
	char line[120];

	for (const struct arrow *a = arrows; a < arrows + ARRAY_LEN(arrows); a++) {
		if ((a->from != (int)fsm->state && a->from != ANY) || a->on != event)
			continue;
		if (fsm->trace && a->to != fsm->state) {
			snprintf(line, sizeof(line), "hard NAT: %s: %s -> %s", state_names[fsm->state],
				 event_names[event], state_names[a->to]);
			fsm->trace(fsm->trace_arg, line);
		}
		a->act(fsm, in, out);
		fsm->state = a->to;
		return;
	}
}

void hard_nat_fsm_init(struct hard_nat_fsm *fsm, struct hard_nat_turn *turn, uint64_t seed)
{
	*fsm = (struct hard_nat_fsm){ .state = HARD_NAT_IDLE, .turn = turn, .random = seed };
}

void hard_nat_fsm_step(struct hard_nat_fsm *fsm, const struct hard_nat_input *in, struct hard_nat_actions *ret)
{
	enum event event = classify(fsm, in);
	uint64_t alarm_ns;

	ret->n = 0;
	if (event != EV_NONE)
		take(fsm, event, in, ret);
	if (fsm->state == HARD_NAT_FOUND && fsm->is_wanted)
		take(fsm, EV_AGAIN, in, ret);
	if (may_begin(fsm, in->now_ns))
		take(fsm, EV_BEGIN, in, ret);
	give_back(fsm, in);
	for (int n = 0; next_alarm(fsm, in->now_ns, &event) <= in->now_ns; n++) {
		assert(n < MAX_EVENTS);
		take(fsm, event, in, ret);
	}
	alarm_ns = next_alarm(fsm, in->now_ns, &event);
	fsm->deadline_ns = alarm_ns == NEVER ? 0 : alarm_ns;
	assert(fsm->deadline_ns == 0 || fsm->deadline_ns > in->now_ns);
}

uint64_t hard_nat_fsm_tell_at(const struct hard_nat_fsm *fsm, uint64_t now_ns)
{
	const bool is_known = fsm->theirs.mapping != NAT_DEPENDS_UNKNOWN;

	if (fsm->state != HARD_NAT_IDLE || !fsm->is_wanted || fsm->is_spent || !hard_nat_is_hard(&fsm->ours) ||
	    (is_known && hard_nat_plan(&fsm->ours, &fsm->theirs, 0).role != HARD_NAT_HARD_SIDE))
		return NEVER;
	return free_at(fsm, now_ns);
}

void hard_nat_fsm_told(struct hard_nat_fsm *fsm, uint64_t now_ns)
{
	*fsm->turn = (struct hard_nat_turn){ .until_ns = now_ns + ANSWER_NS, .who = fsm };
}

const char *hard_nat_state_name(enum hard_nat_state state)
{
	return state_names[state];
}
