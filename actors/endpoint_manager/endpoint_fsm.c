/*
 * Our endpoints: see the drawing in the header and the table below. A round asks every server at
 * once; what changed is published as soon as it is useful (the first mapped address) and once more
 * when the round is over, so that a NAT with many mappings does not cause many publications.
 */
#include "actors/endpoint_manager/endpoint_fsm.h"

#include "common/macros.h"
#include "common/wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)

#define ROUND_NS          MS(1600)  /* twice the last retransmission */
#define REFRESH_NS        MS(20000) /* many NATs forget a UDP mapping after 30 s: 20 … 24 s */
#define KEEP_MIN_NS       MS(5000)
#define JITTER_PART       5 /* of the pause */
#define ENOUGH_FORGOTTEN  2 /* in a row; one may be a restart of the NAT */
#define KEPT_NS           MS(240000) /* … while another keep-alive goes out: 4 … 5 min */
#define KEPT_JITTER_NS    MS(60000)
#define PUBLISH_MIN_NS    MS(300)
#define JUST_ASKED_NS     MS(10)
#define MAX_MISSED        3 /* rounds without an answer until a mapped address is no longer believed */
#define MAX_DOUBLINGS     4 /* of the pause while nobody answers: 40, 80, 160 s, then as if kept */
#define NEVER             UINT64_MAX
#define MAX_EVENTS        8

#define ANY ENDPOINT_N_STATES

/* After the start of a round; the last one is waited for as long again. */
static const uint64_t sends_ns[] = { 0, MS(200), MS(400), MS(800) };

enum event {
	EV_NEWS,   /* another server, address or link: what we know may be wrong */
	EV_NO_WAY, /* no server to ask, or no address to ask from */
	EV_ANSWER, /* of a server, to the request of its last round */
	EV_STALE_ANSWER,
	EV_RETRANSMIT_DUE,
	EV_ROUND_OVER,
	EV_REFRESH_DUE,
	EV_ALL_ANSWERED,
	N_EVENTS,
	EV_NONE = N_EVENTS,
};

static const char *const state_names[] = {
	[ENDPOINT_OFFLINE] = "offline",
	[ENDPOINT_ASKING] = "asking",
	[ENDPOINT_SETTLED] = "settled",
};
static_assert(ARRAY_LEN(state_names) == ENDPOINT_N_STATES, "a name for every state");

static const char *const event_names[] = {
	[EV_NEWS] = "news",
	[EV_NO_WAY] = "no way out",
	[EV_ANSWER] = "answer",
	[EV_STALE_ANSWER] = "stale answer",
	[EV_RETRANSMIT_DUE] = "retransmit due",
	[EV_ROUND_OVER] = "round over",
	[EV_REFRESH_DUE] = "refresh due",
	[EV_ALL_ANSWERED] = "all answered",
};
static_assert(ARRAY_LEN(event_names) == N_EVENTS, "a name for every event");

static const char *const mapping_names[] = {
	[ENDPOINT_MAPPING_UNKNOWN] = "unknown",
	[ENDPOINT_MAPPING_NONE] = "none",
	[ENDPOINT_MAPPING_INDEPENDENT] = "endpoint-independent",
	[ENDPOINT_MAPPING_ADDRESS] = "address-dependent",
	[ENDPOINT_MAPPING_DEPENDENT] = "address-and-port-dependent",
};
static_assert(ARRAY_LEN(mapping_names) == ENDPOINT_N_MAPPINGS, "a name for every mapping");

static uint64_t next_random(struct endpoint_fsm *fsm)
{
	uint64_t z = fsm->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static struct endpoint_action *add(struct endpoint_actions *out, enum endpoint_action_type type)
{
	assert(out->n < ENDPOINT_MAX_ACTIONS);
	struct endpoint_action *action = &out->all[out->n++];

	*action = (struct endpoint_action){ .type = type };
	return action;
}

static bool contains(const struct endpoint *set, uint32_t n, const struct endpoint *endpoint)
{
	for (uint32_t i = 0; i < n; i++)
		if (endpoint_equal(&set[i], endpoint))
			return true;
	return false;
}

static bool is_same_list(const struct endpoint *a, uint32_t n_a, const struct endpoint *b,
			 uint32_t n_b)
{
	for (uint32_t i = 0; i < n_a && i < n_b; i++)
		if (!endpoint_equal(&a[i], &b[i]))
			return false;
	return n_a == n_b;
}

static bool same_ip(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

/* ---- asking ---- */

static void ask(struct endpoint_asked *asked, struct endpoint_actions *out)
{
	struct endpoint_action *action = add(out, ENDPOINT_DO_ASK);

	asked->n_sent++;
	action->server = asked->server.endpoint;
	memcpy(action->tx_id, asked->tx_id, sizeof(action->tx_id));
}

static void new_tx_id(struct endpoint_fsm *fsm, uint8_t ret[ENDPOINT_TX_ID_LEN])
{
	struct wire_writer w = wire_writer(ret, ENDPOINT_TX_ID_LEN);

	wire_put_u64(&w, next_random(fsm));
	wire_put_u32(&w, (uint32_t)next_random(fsm));
}

static void begin_round(struct endpoint_fsm *fsm, const struct endpoint_input *in,
			struct endpoint_actions *out)
{
	fsm->round_ns = in->now_ns;
	fsm->is_test = fsm->has_forgotten = false;
	for (uint32_t i = 0; i < fsm->n_servers; i++) {
		struct endpoint_asked *asked = &fsm->servers[i];

		if (asked->n_sent > 0 && !asked->answered &&
		    in->now_ns - asked->first_ns < JUST_ASKED_NS)
			continue; /* news often come in pairs */
		new_tx_id(fsm, asked->tx_id);
		asked->answered = false;
		asked->n_sent = 0;
		asked->first_ns = in->now_ns;
		ask(asked, out);
	}
}

/* Nothing has happened, but time. */
static void refresh(struct endpoint_fsm *fsm, const struct endpoint_input *in, struct endpoint_actions *out)
{
	const bool is_test = fsm->is_test;

	begin_round(fsm, in, out);
	fsm->is_test = is_test;
}

/* Rounds in a row without an answer of anybody, beyond those that may be chance: UDP is cut here. */
static uint32_t n_deaf_rounds(const struct endpoint_fsm *fsm)
{
	uint32_t n = UINT32_MAX;

	for (uint32_t i = 0; i < fsm->n_servers; i++)
		if (fsm->servers[i].n_missed < n)
			n = fsm->servers[i].n_missed;
	return fsm->n_servers > 0 && n >= MAX_MISSED ? n - MAX_MISSED + 1 : 0;
}

/* Requests to one server in a round. Who has been deaf for minutes need not be told fast that he no longer is. */
static uint32_t max_sends(const struct endpoint_fsm *fsm)
{
	return n_deaf_rounds(fsm) > MAX_DOUBLINGS ? 1 : ARRAY_LEN(sends_ns);
}

static uint32_t n_sent(const struct endpoint_fsm *fsm)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < fsm->n_servers; i++)
		if (!fsm->servers[i].answered)
			n = fsm->servers[i].n_sent;
	return n;
}

/* Once, even when several are due because we were late. */
static void retransmit(struct endpoint_fsm *fsm, const struct endpoint_input *in,
		       struct endpoint_actions *out)
{
	uint32_t n_due = 0;

	while (n_due < max_sends(fsm) && fsm->round_ns + sends_ns[n_due] <= in->now_ns)
		n_due++;
	for (uint32_t i = 0; i < fsm->n_servers; i++) {
		if (fsm->servers[i].answered)
			continue;
		ask(&fsm->servers[i], out);
		fsm->servers[i].n_sent = n_due;
	}
}

/* One that has not repeated it is asked again soon. Without a mapping over IPv4 there is none that IPv6 does not keep. */
static bool is_kept(const struct endpoint_fsm *fsm, const struct endpoint *keeper)
{
	const bool keeps_v4 = endpoint_is_v4(keeper);

	for (uint32_t i = 0; i < fsm->n_servers; i++) {
		const struct endpoint_asked *asked = &fsm->servers[i];

		if (endpoint_is_none(&asked->mapped))
			continue;
		if (asked->n_missed > 0 || (endpoint_is_v4(&asked->mapped) && !keeps_v4))
			return false;
	}
	return !endpoint_is_none(keeper);
}

static uint64_t pause_ns(struct endpoint_fsm *fsm, const struct endpoint *keeper)
{
	const uint32_t n_deaf = n_deaf_rounds(fsm);

	if (is_kept(fsm, keeper) || n_deaf >= MAX_DOUBLINGS)
		return KEPT_NS + next_random(fsm) % KEPT_JITTER_NS;
	fsm->is_test = n_deaf == 0;
	return (fsm->keep_ns + next_random(fsm) % (fsm->keep_ns / JITTER_PART)) << n_deaf;
}

static void judge_keeping(struct endpoint_fsm *fsm)
{
	fsm->n_forgotten = fsm->has_forgotten ? fsm->n_forgotten + 1 : 0;
	if (fsm->n_forgotten < ENOUGH_FORGOTTEN)
		return;
	fsm->n_forgotten = 0;
	fsm->keep_ns = fsm->keep_ns / 2 > KEEP_MIN_NS ? fsm->keep_ns / 2 : KEEP_MIN_NS;
}

static void settle(struct endpoint_fsm *fsm, const struct endpoint_input *in,
		   struct endpoint_actions *out)
{
	for (uint32_t i = 0; i < fsm->n_servers; i++) {
		struct endpoint_asked *asked = &fsm->servers[i];

		if (asked->answered)
			continue;
		if (++asked->n_missed >= MAX_MISSED) {
			asked->mapped = (struct endpoint){ 0 };
			asked->latency_us = 0;
		}
	}
	if (fsm->is_test)
		judge_keeping(fsm);
	fsm->is_test = false;
	fsm->refresh_ns = in->now_ns + pause_ns(fsm, &in->keeper);
}

/* Whoever kept the mapping when the round was put off may do so no more. */
static void hasten(struct endpoint_fsm *fsm, const struct endpoint_input *in)
{
	if (fsm->refresh_ns > in->now_ns + fsm->keep_ns + fsm->keep_ns / JITTER_PART && n_deaf_rounds(fsm) == 0 &&
	    !is_kept(fsm, &in->keeper))
		fsm->refresh_ns = in->now_ns + fsm->keep_ns;
}

static void go_offline(struct endpoint_fsm *fsm, const struct endpoint_input *in,
		       struct endpoint_actions *out)
{
	for (uint32_t i = 0; i < fsm->n_servers; i++) {
		fsm->servers[i].mapped = (struct endpoint){ 0 };
		fsm->servers[i].answered = false;
	}
}

/* ---- answers ---- */

static struct endpoint_asked *asked_with(struct endpoint_fsm *fsm, const struct endpoint_input *in)
{
	for (uint32_t i = 0; i < fsm->n_servers; i++) {
		struct endpoint_asked *asked = &fsm->servers[i];

		if (asked->n_sent > 0 && !asked->answered &&
		    endpoint_equal(&asked->server.endpoint, &in->from) &&
		    memcmp(asked->tx_id, in->tx_id, sizeof(in->tx_id)) == 0)
			return asked;
	}
	return NULL;
}

/* After a retransmission nobody knows which request was answered: then only a plausible time
 * counts. */
static void measure(struct endpoint_asked *asked, uint64_t now_ns)
{
	uint64_t sample_us = (now_ns - asked->first_ns) / 1000;

	if (asked->n_sent > 1 && asked->latency_us > 0 &&
	    sample_us > 2u * (uint64_t)asked->latency_us)
		return;
	/* Falls at once, rises slowly: what waits in queues, or for an ARP answer, is not distance. */
	if (asked->latency_us > 0 && sample_us > asked->latency_us)
		sample_us = ((uint64_t)asked->latency_us * 3 + sample_us) / 4;
	asked->latency_us = sample_us > 0 ? (uint32_t)sample_us : 1;
}

static void take_answer(struct endpoint_fsm *fsm, const struct endpoint_input *in,
			struct endpoint_actions *out)
{
	struct endpoint_asked *asked = asked_with(fsm, in);

	asked->answered = true;
	asked->answer_ns = in->now_ns;
	asked->n_missed = 0;
	fsm->has_forgotten |= !endpoint_is_none(&asked->mapped) && !endpoint_equal(&asked->mapped, &in->mapped);
	asked->mapped = in->mapped;
	measure(asked, in->now_ns);
}

/* ---- what the answers mean ---- */

static bool counts_for_mapping(const struct endpoint_asked *asked)
{
	return asked->n_missed == 0 && asked->answer_ns && endpoint_is_v4(&asked->mapped);
}

static enum endpoint_mapping mapping_of(const struct endpoint_fsm *fsm)
{
	bool two_addresses = false, differ = false, ports_agree = false, ports_differ = false,
	     is_local = false;

	for (uint32_t i = 0; i < fsm->n_servers; i++) {
		const struct endpoint_asked *a = &fsm->servers[i];

		if (!counts_for_mapping(a))
			continue;
		is_local |= contains(fsm->local, fsm->n_local, &a->mapped);
		for (uint32_t k = 0; k < i; k++) {
			const struct endpoint_asked *b = &fsm->servers[k];
			bool equal = endpoint_equal(&a->mapped, &b->mapped);

			if (!counts_for_mapping(b))
				continue;
			differ |= !equal;
			if (same_ip(&a->server.endpoint, &b->server.endpoint))
				*(equal ? &ports_agree : &ports_differ) = true;
			else
				two_addresses = true;
		}
	}
	if (differ)
		return ports_agree && !ports_differ ? ENDPOINT_MAPPING_ADDRESS
						    : ENDPOINT_MAPPING_DEPENDENT;
	if (is_local)
		return ENDPOINT_MAPPING_NONE;
	return two_addresses ? ENDPOINT_MAPPING_INDEPENDENT : ENDPOINT_MAPPING_UNKNOWN;
}

static void append(struct endpoint *set, uint32_t *n, const struct endpoint *endpoint)
{
	if (*n < ENDPOINT_MAX_OURS && endpoint->port != 0 && !contains(set, *n, endpoint))
		set[(*n)++] = *endpoint;
}

static bool knows_mapped(const struct endpoint_fsm *fsm)
{
	for (uint32_t i = 0; i < fsm->n_servers; i++)
		if (contains(fsm->ours, fsm->n_ours, &fsm->servers[i].mapped))
			return true;
	return false;
}

/* Publishes what we have if it differs from what we said, unless we just said something. */
static void publish(struct endpoint_fsm *fsm, uint64_t now_ns, struct endpoint_actions *out)
{
	struct endpoint ours[ENDPOINT_MAX_OURS];
	uint32_t n = 0;
	char line[96];

	for (uint32_t i = 0; i < fsm->n_local; i++)
		append(ours, &n, &fsm->local[i]);
	for (uint32_t i = 0; i < fsm->n_servers; i++)
		append(ours, &n, &fsm->servers[i].mapped);
	for (uint32_t i = 0; i < fsm->n_extra; i++)
		append(ours, &n, &fsm->extra[i]);

	fsm->mapping = mapping_of(fsm);
	if (is_same_list(ours, n, fsm->ours, fsm->n_ours))
		return;
	if (fsm->state == ENDPOINT_ASKING && knows_mapped(fsm) &&
	    now_ns - fsm->publish_ns < PUBLISH_MIN_NS)
		return; /* the round is over soon */
	memcpy(fsm->ours, ours, n * sizeof(*ours));
	fsm->n_ours = n;
	fsm->publish_ns = now_ns;
	add(out, ENDPOINT_DO_PUBLISH);
	if (!fsm->trace)
		return;
	snprintf(line, sizeof(line), "[%5llu]   ours: %u, mapping %s",
		 (unsigned long long)(now_ns / 1000000), n, mapping_names[fsm->mapping]);
	fsm->trace(fsm->trace_arg, line);
}

/* ---- the table ---- */

static void rest(struct endpoint_fsm *fsm, const struct endpoint_input *in,
		 struct endpoint_actions *out)
{
}

static const struct arrow {
	int from;
	enum event on;
	enum endpoint_state to;
	void (*act)(struct endpoint_fsm *fsm, const struct endpoint_input *in,
		    struct endpoint_actions *out);
} arrows[] = {
	/* clang-format off */
	/* from              on                  to                 act         */
	{ ENDPOINT_OFFLINE,  EV_NEWS,            ENDPOINT_ASKING,   begin_round },
	{ ENDPOINT_ASKING,   EV_NEWS,            ENDPOINT_ASKING,   begin_round },
	{ ENDPOINT_ASKING,   EV_ANSWER,          ENDPOINT_ASKING,   take_answer },
	{ ENDPOINT_ASKING,   EV_RETRANSMIT_DUE,  ENDPOINT_ASKING,   retransmit  },
	{ ENDPOINT_ASKING,   EV_ALL_ANSWERED,    ENDPOINT_SETTLED,  settle      },
	{ ENDPOINT_ASKING,   EV_ROUND_OVER,      ENDPOINT_SETTLED,  settle      },
	{ ENDPOINT_SETTLED,  EV_NEWS,            ENDPOINT_ASKING,   begin_round },
	{ ENDPOINT_SETTLED,  EV_REFRESH_DUE,     ENDPOINT_ASKING,   refresh     },
	{ ENDPOINT_SETTLED,  EV_ANSWER,          ENDPOINT_SETTLED,  take_answer },
	{ ENDPOINT_OFFLINE,  EV_NO_WAY,          ENDPOINT_OFFLINE,  rest        },
	{ ANY,               EV_NO_WAY,          ENDPOINT_OFFLINE,  go_offline  },
	/* clang-format on */
};

/* ---- classify ---- */

static enum event news(const struct endpoint_fsm *fsm)
{
	return fsm->n_servers > 0 && fsm->n_local > 0 ? EV_NEWS : EV_NO_WAY;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Servers we keep asking keep what we know of them. */
static enum event classify_servers(struct endpoint_fsm *fsm, const struct endpoint_input *in)
{
	struct endpoint_asked before[ENDPOINT_MAX_SERVERS];
	uint32_t n_before = fsm->n_servers, n_kept = 0;

	memcpy(before, fsm->servers, sizeof(before));
	fsm->n_servers = smaller(in->n, ENDPOINT_MAX_SERVERS);
	for (uint32_t i = 0; i < fsm->n_servers; i++) {
		fsm->servers[i] = (struct endpoint_asked){ .server = in->servers[i] };
		for (uint32_t k = 0; k < n_before; k++) {
			if (before[k].server.relay_id != in->servers[i].relay_id ||
			    !endpoint_equal(&before[k].server.endpoint, &in->servers[i].endpoint))
				continue;
			fsm->servers[i] = before[k];
			n_kept++;
			break;
		}
	}
	if (n_kept == fsm->n_servers && n_kept == n_before)
		return EV_NONE;
	return news(fsm);
}

static enum event classify_local(struct endpoint_fsm *fsm, const struct endpoint_input *in)
{
	uint32_t n = smaller(in->n, ENDPOINT_MAX_LOCAL);

	if (is_same_list(in->endpoints, n, fsm->local, fsm->n_local))
		return EV_NONE;
	if (n > 0)
		memcpy(fsm->local, in->endpoints, n * sizeof(*fsm->local));
	fsm->n_local = n;
	return news(fsm);
}

static enum event classify_extra(struct endpoint_fsm *fsm, const struct endpoint_input *in)
{
	fsm->n_extra = smaller(in->n, ENDPOINT_MAX_EXTRA);
	if (fsm->n_extra > 0)
		memcpy(fsm->extra, in->endpoints, fsm->n_extra * sizeof(*fsm->extra));
	return EV_NONE;
}

/* What was learned on the old link is believed only if this round repeats it. */
static enum event classify_link(struct endpoint_fsm *fsm)
{
	for (uint32_t i = 0; i < fsm->n_servers; i++)
		fsm->servers[i].n_missed = MAX_MISSED - 1;
	fsm->keep_ns = REFRESH_NS; /* perhaps another NAT */
	fsm->n_forgotten = 0;
	return news(fsm);
}

/* What the deaf may hear now, they ask for with all care. */
static enum event classify_keeper(struct endpoint_fsm *fsm)
{
	for (uint32_t i = 0; i < fsm->n_servers; i++)
		fsm->servers[i].n_missed = smaller(fsm->servers[i].n_missed, MAX_MISSED);
	return news(fsm);
}

/* A retransmission, the end of the round, or the next round: which is due? */
static uint64_t next_alarm(const struct endpoint_fsm *fsm, enum event *ret)
{
	uint32_t n;

	switch (fsm->state) {
	case ENDPOINT_ASKING:
		n = n_sent(fsm);
		*ret = n < max_sends(fsm) ? EV_RETRANSMIT_DUE : EV_ROUND_OVER;
		return fsm->round_ns + (n < max_sends(fsm) ? sends_ns[n] : ROUND_NS);
	case ENDPOINT_SETTLED:
		*ret = EV_REFRESH_DUE;
		return fsm->refresh_ns;
	case ENDPOINT_OFFLINE:
	case ENDPOINT_N_STATES:
		break;
	}
	*ret = EV_NONE;
	return NEVER;
}

static enum event classify(struct endpoint_fsm *fsm, const struct endpoint_input *in)
{
	switch (in->type) {
	case ENDPOINT_IN_SERVERS:
		return classify_servers(fsm, in);
	case ENDPOINT_IN_LOCAL:
		return classify_local(fsm, in);
	case ENDPOINT_IN_EXTRA:
		return classify_extra(fsm, in);
	case ENDPOINT_IN_LINK:
		return classify_link(fsm);
	case ENDPOINT_IN_KEEPER:
		return classify_keeper(fsm);
	case ENDPOINT_IN_ANSWER:
		return asked_with(fsm, in) ? EV_ANSWER : EV_STALE_ANSWER;
	case ENDPOINT_IN_DEADLINE:
	case ENDPOINT_N_INPUTS:
		break;
	}
	return EV_NONE;
}

static enum event follow_up(const struct endpoint_fsm *fsm, uint64_t now_ns)
{
	enum event event;

	if (fsm->state == ENDPOINT_ASKING && n_sent(fsm) == 0)
		return EV_ALL_ANSWERED;
	return next_alarm(fsm, &event) <= now_ns ? event : EV_NONE;
}

/* ---- the engine ---- */

static void trace(const struct endpoint_fsm *fsm, uint64_t now_ns, enum event event, const char *to)
{
	char line[96];

	if (!fsm->trace)
		return;
	snprintf(line, sizeof(line), "[%5llu] %s: %s -> %s", (unsigned long long)(now_ns / 1000000),
		 state_names[fsm->state], event_names[event], to);
	fsm->trace(fsm->trace_arg, line);
}

static void take(struct endpoint_fsm *fsm, enum event event, const struct endpoint_input *in,
		 struct endpoint_actions *out)
{
	for (const struct arrow *a = arrows; a < arrows + ARRAY_LEN(arrows); a++) {
		if ((a->from != (int)fsm->state && a->from != ANY) || a->on != event)
			continue;
		trace(fsm, in->now_ns, event, state_names[a->to]);
		a->act(fsm, in, out);
		fsm->state = a->to;
		return;
	}
	trace(fsm, in->now_ns, event, "(ignored)");
}

static bool invariant_holds(const struct endpoint_fsm *fsm, uint64_t now_ns)
{
	return (fsm->state == ENDPOINT_OFFLINE) == (fsm->deadline_ns == 0) &&
	       (fsm->deadline_ns == 0 || fsm->deadline_ns > now_ns) &&
	       fsm->n_ours <= ENDPOINT_MAX_OURS && fsm->n_servers <= ENDPOINT_MAX_SERVERS;
}

void endpoint_fsm_init(struct endpoint_fsm *fsm, uint64_t seed)
{
	*fsm = (struct endpoint_fsm){ .state = ENDPOINT_OFFLINE, .random = seed, .keep_ns = REFRESH_NS };
}

void endpoint_fsm_step(struct endpoint_fsm *fsm, const struct endpoint_input *in,
		       struct endpoint_actions *ret)
{
	enum event event = classify(fsm, in);
	uint64_t alarm_ns;

	ret->n = 0;
	if (event != EV_NONE)
		take(fsm, event, in, ret);
	for (int n = 0; (event = follow_up(fsm, in->now_ns)) != EV_NONE; n++) {
		assert(n < MAX_EVENTS);
		take(fsm, event, in, ret);
	}
	publish(fsm, in->now_ns, ret);
	hasten(fsm, in);
	alarm_ns = next_alarm(fsm, &event);
	fsm->deadline_ns = alarm_ns == NEVER ? 0 : alarm_ns;
	assert(invariant_holds(fsm, in->now_ns));
}

const char *endpoint_state_name(enum endpoint_state state)
{
	return state_names[state];
}

const char *endpoint_mapping_name(enum endpoint_mapping mapping)
{
	return mapping_names[mapping];
}

uint32_t endpoint_fsm_latency_us(const struct endpoint_fsm *fsm, uint32_t relay_id)
{
	uint32_t best = 0;

	for (uint32_t i = 0; i < fsm->n_servers; i++) {
		const struct endpoint_asked *asked = &fsm->servers[i];

		if (asked->server.relay_id == relay_id && asked->latency_us > 0 &&
		    (best == 0 || asked->latency_us < best))
			best = asked->latency_us;
	}
	return best;
}
