#include "actors/lan_discovery/lan_discovery_fsm.h"

#include "common/macros.h"

#include <string.h>

#define MS		 1000000ull
#define ANSWER_NS	 (900 * MS) /* between two answers to one peer */
#define BURST_NS	 (5000 * MS) /* between the beginnings of two bursts; longer than one */
#define FRESH_NS	 (3000 * MS) /* what is answered later is of nobody on a link */
#define AWAY_MS		 1000	   /* control may come in a moment */
#define LINK_MS		 100	   /* an address is not usable at once */
#define SEARCH_MIN_MS	 1000
#define SEARCH_DOUBLINGS 6 /* up to 64 s */

/* After each call of a burst. */
static const uint32_t pauses_ms[] = { 1000, 3000 };

static uint64_t next_random(struct lan_discovery_fsm *fsm)
{
	uint64_t z = fsm->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* ± a fifth: those who were started together do not call together for ever. */
static uint64_t jittered_ns(struct lan_discovery_fsm *fsm, uint64_t ms)
{
	return ms * MS * (80 + next_random(fsm) % 41) / 100;
}

/* ---- calls ---- */

/* Whatever else changes until then, it is not put off; and however often that is, bursts are BURST_NS apart. */
static void plan_burst(struct lan_discovery_fsm *fsm, uint64_t now_ns, uint64_t after_ms)
{
	uint64_t at_ns = now_ns + jittered_ns(fsm, after_ms);

	if (fsm->is_connected)
		return;
	if (fsm->began_ns != 0 && at_ns < fsm->began_ns + BURST_NS)
		at_ns = fsm->began_ns + BURST_NS;
	if (fsm->plan_ns == 0 || at_ns < fsm->plan_ns)
		fsm->plan_ns = at_ns;
}

static void follow_control(struct lan_discovery_fsm *fsm, const struct lan_input *input)
{
	fsm->is_connected = input->is_connected;
	if (input->is_connected)
		fsm->n_left = 0, fsm->plan_ns = 0;
	plan_burst(fsm, input->now_ns, AWAY_MS);
}

static void follow_missing(struct lan_discovery_fsm *fsm, const struct lan_input *input)
{
	if (input->n_missing > 0 && !fsm->is_searching) {
		fsm->n_searched = 0;
		fsm->search_ns = input->now_ns;
	}
	fsm->is_searching = input->n_missing > 0;
}

static bool burst_is_due(struct lan_discovery_fsm *fsm, uint64_t now_ns)
{
	if (fsm->plan_ns != 0 && now_ns >= fsm->plan_ns) {
		fsm->plan_ns = 0;
		fsm->began_ns = now_ns;
		fsm->n_left = ARRAY_LEN(pauses_ms) + 1;
	} else if (fsm->n_left == 0 || now_ns < fsm->burst_ns) {
		return false;
	}
	if (--fsm->n_left > 0)
		fsm->burst_ns = now_ns + jittered_ns(fsm, pauses_ms[ARRAY_LEN(pauses_ms) - fsm->n_left]);
	return true;
}

static bool search_is_due(struct lan_discovery_fsm *fsm, uint64_t now_ns)
{
	if (!fsm->is_searching || now_ns < fsm->search_ns)
		return false;
	fsm->search_ns = now_ns + jittered_ns(fsm, (uint64_t)SEARCH_MIN_MS << fsm->n_searched);
	if (fsm->n_searched < SEARCH_DOUBLINGS)
		fsm->n_searched++;
	return true;
}

static void set_deadline(struct lan_discovery_fsm *fsm)
{
	fsm->deadline_ns = fsm->n_left > 0 ? fsm->burst_ns : 0;
	if (fsm->plan_ns != 0 && (fsm->deadline_ns == 0 || fsm->plan_ns < fsm->deadline_ns))
		fsm->deadline_ns = fsm->plan_ns;
	if (fsm->is_searching && (fsm->deadline_ns == 0 || fsm->search_ns < fsm->deadline_ns))
		fsm->deadline_ns = fsm->search_ns;
}

static void begin_call(struct lan_discovery_fsm *fsm, uint64_t now_ns)
{
	fsm->calls[1] = fsm->calls[0];
	fsm->calls[0] = (struct lan_call){ .first = fsm->sequence + 1, .last = fsm->sequence, .at_ns = now_ns };
	fsm->n_calls++;
}

uint64_t lan_discovery_fsm_call_number(struct lan_discovery_fsm *fsm)
{
	return fsm->calls[0].last = ++fsm->sequence;
}

/* ---- who is known ---- */

/* The record of this peer; a new one takes the place of the one that was silent longest. */
static struct lan_known *record_of(struct lan_discovery_fsm *fsm, uint32_t peer_id)
{
	struct lan_known *oldest = &fsm->known[0];

	for (uint32_t i = 0; i < LAN_MAX_KNOWN; i++) {
		if (fsm->known[i].peer_id == peer_id)
			return &fsm->known[i];
		if (fsm->known[i].heard_ns < oldest->heard_ns)
			oldest = &fsm->known[i];
	}
	*oldest = (struct lan_known){ .peer_id = peer_id };
	return oldest;
}

static bool may_answer(const struct lan_known *known, uint64_t now_ns)
{
	return known->answered_ns == 0 || now_ns - known->answered_ns >= ANSWER_NS;
}

static bool is_proven(const struct lan_known *known, const struct lan_input *input)
{
	return public_key_equal(&known->session, &input->session) &&
	       endpoint_equal(&known->endpoints[endpoint_is_v4(&input->from)], &input->from);
}

static void note_answer(struct lan_discovery_fsm *fsm, struct lan_known *known, uint64_t now_ns, struct lan_output *ret)
{
	ret->answer = may_answer(known, now_ns);
	if (!ret->answer)
		return;
	ret->sequence = known->asked = ++fsm->sequence;
	known->answered_ns = now_ns;
}

static void take_call(struct lan_discovery_fsm *fsm, const struct lan_input *input, struct lan_output *ret)
{
	struct lan_known *known = record_of(fsm, input->peer_id);
	uint64_t *highest = &known->called_sequences[endpoint_is_v4(&input->from)];

	if (!public_key_equal(&known->called, &input->session))
		memset(known->called_sequences, 0, sizeof(known->called_sequences));
	known->called = input->session;
	if (input->sequence <= *highest) {
		fsm->n_repetitions++;
		return;
	}
	*highest = input->sequence;
	known->heard_ns = input->now_ns;
	note_answer(fsm, known, input->now_ns, ret);
}

static bool is_fresh(uint64_t at_ns, uint64_t now_ns)
{
	return at_ns != 0 && now_ns - at_ns <= FRESH_NS;
}

static bool is_of_call(const struct lan_discovery_fsm *fsm, uint64_t answered, uint64_t now_ns)
{
	for (uint32_t i = 0; i < ARRAY_LEN(fsm->calls); i++)
		if (is_fresh(fsm->calls[i].at_ns, now_ns) && answered >= fsm->calls[i].first &&
		    answered <= fsm->calls[i].last)
			return true;
	return false;
}

static bool is_of_answer(const struct lan_known *known, uint64_t answered, uint64_t now_ns)
{
	return known->asked == answered && is_fresh(known->answered_ns, now_ns);
}

bool lan_discovery_fsm_is_expected(const struct lan_discovery_fsm *fsm, uint64_t answered, uint64_t now_ns)
{
	bool ok = is_of_call(fsm, answered, now_ns);

	for (uint32_t i = 0; i < LAN_MAX_KNOWN && !ok; i++)
		ok = is_of_answer(&fsm->known[i], answered, now_ns);
	return ok;
}

static void take_answer(struct lan_discovery_fsm *fsm, const struct lan_input *input, struct lan_output *ret)
{
	struct lan_known *known = record_of(fsm, input->peer_id);

	if (input->answered <= known->proven_by || (!is_of_call(fsm, input->answered, input->now_ns) &&
						    !is_of_answer(known, input->answered, input->now_ns))) {
		fsm->n_repetitions++;
		return;
	}
	ret->found = !is_proven(known, input);
	if (!public_key_equal(&known->session, &input->session))
		memset(known->endpoints, 0, sizeof(known->endpoints));
	known->session = input->session;
	known->proven_by = input->answered;
	known->endpoints[endpoint_is_v4(&input->from)] = input->from;
	known->heard_ns = input->now_ns;
	fsm->n_found += ret->found;
	note_answer(fsm, known, input->now_ns, ret);
}

/* Which answers it has given stays known: an old one is not new again. */
static void forget(struct lan_discovery_fsm *fsm, uint32_t peer_id)
{
	for (uint32_t i = 0; i < LAN_MAX_KNOWN; i++) {
		struct lan_known *known = &fsm->known[i];
		if (known->peer_id != peer_id)
			continue;
		memset(&known->session, 0, sizeof(known->session));
		memset(known->endpoints, 0, sizeof(known->endpoints));
	}
}

/* ---- the machine ---- */

void lan_discovery_fsm_init(struct lan_discovery_fsm *fsm, uint64_t seed)
{
	*fsm = (struct lan_discovery_fsm){ .random = seed };
}

void lan_discovery_fsm_step(struct lan_discovery_fsm *fsm, const struct lan_input *input, struct lan_output *ret)
{
	bool burst, search;

	*ret = (struct lan_output){ 0 };
	switch (input->type) {
	case LAN_IN_LINK:
		plan_burst(fsm, input->now_ns, LINK_MS);
		break;
	case LAN_IN_CONTROL:
		follow_control(fsm, input);
		break;
	case LAN_IN_MISSING:
		follow_missing(fsm, input);
		break;
	case LAN_IN_CALL:
		take_call(fsm, input, ret);
		break;
	case LAN_IN_ANSWER:
		take_answer(fsm, input, ret);
		break;
	case LAN_IN_FORGET:
		forget(fsm, input->peer_id);
		break;
	case LAN_IN_DEADLINE:
		break;
	}
	burst = burst_is_due(fsm, input->now_ns);
	search = search_is_due(fsm, input->now_ns);
	ret->call = burst || search;
	if (ret->call)
		begin_call(fsm, input->now_ns);
	set_deadline(fsm);
}
