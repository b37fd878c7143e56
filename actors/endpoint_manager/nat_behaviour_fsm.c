/*
 * What the NAT does: see the drawing in the header and the table below. All questions of a run are kept until its
 * end, in the order in which they were first sent, for only that order tells how ports follow each other.
 */
#include "actors/endpoint_manager/nat_behaviour_fsm.h"

#include "common/macros.h"
#include "common/wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)
#define S(n)  MS((n)*1000u)

#define STAGE_NS  MS(1600) /* twice the last retransmission */
#define SETTLE_NS MS(300)  /* news come in groups */
#define AGAIN_NS  S(10)	   /* between two runs that nobody wanted */
#define REST_NS	  S(12 * 3600)
#define MAX_VAGUE 12 /* AGAIN_NS, so often doubled, is about REST_NS */
#define NEVER	  UINT64_MAX
#define MAX_STEP  64 /* a NAT whose ports follow each other so closely does not draw lots */
#define MAX_EVENTS 8

#define FILTERED 0 /* the socket that A alone was asked by */
#define OPEN	 1

/* After the first of a state; the last is waited for as long again. */
static const uint64_t sends_ns[] = { 0, MS(200), MS(400), MS(800) };

enum event {
	EV_NEWS,
	EV_NO_WAY, /* no server, or no address */
	EV_DUE,
	EV_OPENED,
	EV_NOT_OPENED,
	EV_SEND_DUE,
	EV_OVER, /* of this state: all heard, or time over */
	EV_SILENCE, /* as over, but nobody answered */
	N_EVENTS,
	EV_NONE = N_EVENTS,
};

static const char *const state_names[] = {
	[NAT_BEHAVIOUR_RESTING] = "resting",   [NAT_BEHAVIOUR_OPENING] = "opening",
	[NAT_BEHAVIOUR_FINDING] = "finding",   [NAT_BEHAVIOUR_MAPPING] = "mapping",
	[NAT_BEHAVIOUR_KNOCKING] = "knocking", [NAT_BEHAVIOUR_COUNTING] = "counting",
};
static_assert(ARRAY_LEN(state_names) == NAT_BEHAVIOUR_N_STATES, "a name for every state");

static const char *const event_names[] = {
	[EV_NEWS] = "news",	      [EV_NO_WAY] = "no way out",     [EV_DUE] = "due",
	[EV_OPENED] = "opened",	      [EV_NOT_OPENED] = "not opened", [EV_SEND_DUE] = "send due",
	[EV_OVER] = "over",	      [EV_SILENCE] = "silence",
};
static_assert(ARRAY_LEN(event_names) == N_EVENTS, "a name for every event");

static uint64_t next_random(struct nat_behaviour_fsm *fsm)
{
	uint64_t z = fsm->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static struct nat_behaviour_action *add(struct nat_behaviour_actions *out, enum nat_behaviour_action_type type)
{
	assert(out->n < NAT_BEHAVIOUR_MAX_ACTIONS);
	struct nat_behaviour_action *action = &out->all[out->n++];

	*action = (struct nat_behaviour_action){ .type = type };
	return action;
}

static bool same_ip(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

static bool contains_ip(const struct endpoint *set, uint32_t n, const struct endpoint *endpoint)
{
	for (uint32_t i = 0; i < n; i++)
		if (same_ip(&set[i], endpoint))
			return true;
	return false;
}

/* ---- questions ---- */

static void put(const struct nat_question *question, struct nat_behaviour_actions *out)
{
	struct nat_behaviour_action *action = add(out, NAT_BEHAVIOUR_DO_ASK);

	action->kind = question->kind;
	action->socket = question->asker;
	action->port = question->port;
	action->to = question->to;
	memcpy(action->tx_id, question->tx_id, sizeof(action->tx_id));
}

/* Its number. */
static int ask(struct nat_behaviour_fsm *fsm, struct nat_question question, struct nat_behaviour_actions *out)
{
	assert(fsm->n_questions < NAT_BEHAVIOUR_MAX_QUESTIONS);
	struct nat_question *kept = &fsm->questions[fsm->n_questions];
	struct wire_writer w = wire_writer(kept->tx_id, sizeof(kept->tx_id));

	*kept = question;
	wire_put_u64(&w, next_random(fsm));
	wire_put_u32(&w, (uint32_t)next_random(fsm));
	put(kept, out);
	return (int)fsm->n_questions++;
}

static int ask_plainly(struct nat_behaviour_fsm *fsm, uint32_t socket, const struct endpoint *server,
		       struct nat_behaviour_actions *out)
{
	return ask(fsm,
		   (struct nat_question){
			   .kind = NAT_ASK_PLAIN, .asker = socket, .hearer = socket, .to = *server, .from = *server },
		   out);
}

static const struct nat_question *question_of(const struct nat_behaviour_fsm *fsm, int number)
{
	return number >= 0 ? &fsm->questions[number] : NULL;
}

/* NULL: not asked, or no answer. */
static const struct nat_question *heard(const struct nat_behaviour_fsm *fsm, int number)
{
	const struct nat_question *question = question_of(fsm, number);

	return question && question->is_heard ? question : NULL;
}

static void begin_stage(struct nat_behaviour_fsm *fsm, uint64_t now_ns)
{
	fsm->first_open = fsm->n_questions;
	fsm->stage_ns = now_ns;
	fsm->n_sent = 1;
}

/* ---- the states' deeds ---- */

static void forget_run(struct nat_behaviour_fsm *fsm)
{
	fsm->n_questions = fsm->first_open = fsm->n_sent = 0;
	fsm->of_a = fsm->of_a2 = fsm->of_b = fsm->of_0 = fsm->by_port = fsm->by_address = fsm->hairpin = -1;
	fsm->n_hairpin = 0;
}

static void close_sockets(struct nat_behaviour_fsm *fsm, struct nat_behaviour_actions *out)
{
	if (fsm->state > NAT_BEHAVIOUR_OPENING)
		add(out, NAT_BEHAVIOUR_DO_CLOSE);
}

static void know_nothing(struct nat_behaviour_fsm *fsm, enum nat_unknown why, struct nat_behaviour_actions *out)
{
	const bool was_known = fsm->findings.at_ns != 0;

	fsm->findings = (struct nat_findings){
		.mapping_unknown = why, .filtering_unknown = why, .hairpin_unknown = why, .ports_unknown = why
	};
	if (was_known)
		add(out, NAT_BEHAVIOUR_DO_TELL);
}

/* What is known is of another network, maybe. */
static void plan(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		 struct nat_behaviour_actions *out)
{
	const uint64_t soon_ns = in->now_ns + SETTLE_NS;
	const uint64_t again_ns = fsm->begun_ns != 0 ? fsm->begun_ns + AGAIN_NS : 0;

	close_sockets(fsm, out);
	forget_run(fsm);
	know_nothing(fsm, NAT_UNKNOWN_NOT_YET, out);
	fsm->n_vague = 0;
	fsm->due_ns = soon_ns > again_ns ? soon_ns : again_ns;
}

static void go_offline(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		       struct nat_behaviour_actions *out)
{
	close_sockets(fsm, out);
	forget_run(fsm);
	know_nothing(fsm, NAT_UNKNOWN_NO_SERVER, out);
	fsm->due_ns = 0;
}

static void open_sockets(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
			 struct nat_behaviour_actions *out)
{
	forget_run(fsm);
	fsm->begun_ns = in->now_ns;
	add(out, NAT_BEHAVIOUR_DO_OPEN);
}

/* What was not told, by servers that were away or by packets that were lost, is asked for again: ever more seldom. */
static void rest(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in)
{
	const bool is_known = fsm->findings.mapping != NAT_DEPENDS_UNKNOWN && fsm->findings.filtering != NAT_DEPENDS_UNKNOWN;
	uint64_t rest_ns = REST_NS;

	fsm->n_vague = is_known ? 0 : fsm->n_vague + 1;
	if (fsm->n_vague > 0 && fsm->n_vague <= MAX_VAGUE)
		rest_ns = AGAIN_NS << (fsm->n_vague - 1);
	fsm->due_ns = in->now_ns + rest_ns + next_random(fsm) % (rest_ns / 4);
}

static void give_up(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		    struct nat_behaviour_actions *out)
{
	know_nothing(fsm, NAT_UNKNOWN_NO_SOCKET, out);
	rest(fsm, in);
}

static void find(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		 struct nat_behaviour_actions *out)
{
	const uint32_t first = (uint32_t)(next_random(fsm) % fsm->n_servers);

	begin_stage(fsm, in->now_ns);
	for (uint32_t i = 0; i < fsm->n_servers && i < NAT_BEHAVIOUR_MAX_ASKED; i++)
		ask_plainly(fsm, OPEN, &fsm->servers[(first + i) % fsm->n_servers], out);
}

static bool has_other_port(const struct nat_question *question)
{
	return question->other.port != 0 && question->other.port != question->to.port;
}

/* A: with a second port, if one has it. B: at another address. */
static void choose_servers(struct nat_behaviour_fsm *fsm)
{
	for (uint32_t i = 0; i < fsm->n_questions; i++) {
		if (!fsm->questions[i].is_heard)
			continue;
		if (fsm->of_a < 0 || (has_other_port(&fsm->questions[i]) && !has_other_port(&fsm->questions[fsm->of_a])))
			fsm->of_a = (int)i;
	}
	for (uint32_t i = 0; i < fsm->n_questions && fsm->of_b < 0; i++)
		if (fsm->questions[i].is_heard && !same_ip(&fsm->questions[i].to, &fsm->questions[fsm->of_a].to))
			fsm->of_b = (int)i;
}

/* A server behind a NAT of its own tells an address of its inside: only its port counts. */
static struct endpoint second_port(const struct nat_behaviour_fsm *fsm)
{
	const struct nat_question *a = question_of(fsm, fsm->of_a);
	struct endpoint endpoint = a->to;

	endpoint.port = a->other.port;
	return endpoint;
}

static void map(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		struct nat_behaviour_actions *out)
{
	choose_servers(fsm);
	begin_stage(fsm, in->now_ns);
	fsm->of_0 = ask_plainly(fsm, FILTERED, &question_of(fsm, fsm->of_a)->to, out);
	if (has_other_port(question_of(fsm, fsm->of_a))) {
		const struct endpoint other = second_port(fsm);
		fsm->of_a2 = ask_plainly(fsm, OPEN, &other, out);
	}
}

/* Both ends send to both: where its filter wants to see a packet the other way first, one of these is it. */
static void ask_ourselves(struct nat_behaviour_fsm *fsm, struct nat_behaviour_actions *out)
{
	const struct endpoint ours[] = { [FILTERED] = question_of(fsm, fsm->of_0)->mapped,
					 [OPEN] = question_of(fsm, fsm->of_a)->mapped };
	static const uint32_t ways[][2] = { { FILTERED, FILTERED }, { FILTERED, OPEN }, { OPEN, FILTERED } };

	fsm->hairpin = (int)fsm->n_questions;
	for (size_t i = 0; i < ARRAY_LEN(ways); i++, fsm->n_hairpin++)
		ask(fsm,
		    (struct nat_question){ .kind = NAT_ASK_OURSELVES,
					   .asker = ways[i][0],
					   .hearer = ways[i][1],
					   .to = ours[ways[i][1]] },
		    out);
}

static void knock(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		  struct nat_behaviour_actions *out)
{
	const struct nat_question *a = question_of(fsm, fsm->of_a), *b = question_of(fsm, fsm->of_b);
	const uint16_t port = question_of(fsm, fsm->of_0)->mapped.port;

	begin_stage(fsm, in->now_ns);
	if (fsm->of_a2 >= 0)
		fsm->by_port = ask(fsm,
				   (struct nat_question){ .kind = NAT_ASK_OTHER_PORT,
							  .asker = FILTERED,
							  .hearer = FILTERED,
							  .to = a->to,
							  .from = second_port(fsm) },
				   out);
	if (b)
		fsm->by_address = ask(fsm,
				      (struct nat_question){ .kind = NAT_ASK_TO_PORT,
							     .asker = OPEN,
							     .hearer = FILTERED,
							     .port = port,
							     .to = b->to,
							     .from = b->to },
				      out);
	ask_ourselves(fsm, out);
}

static bool is_without_nat(const struct nat_behaviour_fsm *fsm, const struct nat_question *question)
{
	return question->mapped.port == fsm->ports[question->asker] &&
	       contains_ip(fsm->local, fsm->n_local, &question->mapped);
}

static enum nat_dependence mapping_of(const struct nat_behaviour_fsm *fsm, enum nat_unknown *ret)
{
	const struct nat_question *a = heard(fsm, fsm->of_a), *a2 = heard(fsm, fsm->of_a2), *b = heard(fsm, fsm->of_b);

	*ret = NAT_UNKNOWN_NOT;
	if (is_without_nat(fsm, a))
		return NAT_DEPENDS_NO_NAT;
	if (a2 && !endpoint_equal(&a->mapped, &a2->mapped))
		return NAT_DEPENDS_PORT;
	if (b && endpoint_equal(&a->mapped, &b->mapped))
		return NAT_DEPENDS_NOT;
	if (b && a2)
		return NAT_DEPENDS_ADDRESS;
	*ret = !b ? NAT_UNKNOWN_ONE_ADDRESS : NAT_UNKNOWN_ONE_PORT;
	return NAT_DEPENDS_UNKNOWN;
}

static void count(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		  struct nat_behaviour_actions *out)
{
	const struct nat_question *others[] = { heard(fsm, fsm->of_a2), heard(fsm, fsm->of_b) };
	enum nat_unknown why;
	const enum nat_dependence mapping = mapping_of(fsm, &why);

	begin_stage(fsm, in->now_ns);
	for (uint32_t socket = 2; socket < NAT_BEHAVIOUR_SOCKETS; socket++) {
		ask_plainly(fsm, socket, &question_of(fsm, fsm->of_a)->to, out);
		for (size_t i = 0; i < ARRAY_LEN(others); i++)
			if (others[i] && mapping != NAT_DEPENDS_NO_NAT && mapping != NAT_DEPENDS_NOT)
				ask_plainly(fsm, socket, &others[i]->to, out);
	}
}

static void send_again(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		       struct nat_behaviour_actions *out)
{
	for (uint32_t i = fsm->first_open; i < fsm->n_questions; i++)
		if (!fsm->questions[i].is_heard && !fsm->questions[i].is_refused)
			put(&fsm->questions[i], out);
	/* Once, even when several are due because we were late. */
	while (fsm->n_sent < ARRAY_LEN(sends_ns) && fsm->stage_ns + sends_ns[fsm->n_sent] <= in->now_ns)
		fsm->n_sent++;
}

/* ---- what it means ---- */

/* Nothing came that way; it says something if the server answers when it is asked plainly. */
static bool is_kept_out(const struct nat_behaviour_fsm *fsm, int knocked, int plain)
{
	const struct nat_question *question = question_of(fsm, knocked);

	return question && !question->is_heard && !question->is_refused && heard(fsm, plain);
}

static enum nat_dependence filtering_of(const struct nat_behaviour_fsm *fsm, enum nat_unknown *ret)
{
	const bool is_pool = !same_ip(&heard(fsm, fsm->of_0)->mapped, &heard(fsm, fsm->of_a)->mapped);
	const bool has_no_stranger = !is_pool && is_kept_out(fsm, fsm->by_address, fsm->of_b);

	*ret = NAT_UNKNOWN_NOT;
	if (heard(fsm, fsm->by_address))
		return NAT_DEPENDS_NOT;
	if (is_kept_out(fsm, fsm->by_port, fsm->of_a2))
		return NAT_DEPENDS_PORT;
	if (heard(fsm, fsm->by_port) && has_no_stranger)
		return NAT_DEPENDS_ADDRESS;
	if (!heard(fsm, fsm->by_port))
		*ret = NAT_UNKNOWN_ONE_PORT;
	else
		*ret = is_pool ? NAT_UNKNOWN_POOL : NAT_UNKNOWN_ONE_ADDRESS;
	return NAT_DEPENDS_UNKNOWN;
}

static void find_hairpin(const struct nat_behaviour_fsm *fsm, struct nat_findings *findings)
{
	for (int i = fsm->hairpin; i < fsm->hairpin + fsm->n_hairpin; i++)
		findings->hairpin |= fsm->questions[i].is_heard;
	findings->hairpin_unknown = NAT_UNKNOWN_NOT;
	if (findings->mapping == NAT_DEPENDS_NO_NAT) {
		findings->hairpin = false;
		findings->hairpin_unknown = NAT_UNKNOWN_NO_NAT;
	} else if (!findings->hairpin && findings->mapping != NAT_DEPENDS_NOT && findings->filtering != NAT_DEPENDS_NOT) {
		/* What comes back is from a port that nobody could have sent to. */
		findings->hairpin_unknown = NAT_UNKNOWN_HIDDEN;
	}
}

/* A new port outside: the first that was seen of a socket, or another than all before. */
static bool is_new_port(const struct nat_behaviour_fsm *fsm, uint32_t number, bool *ret_is_first)
{
	const struct nat_question *question = &fsm->questions[number];

	*ret_is_first = true;
	if (question->kind != NAT_ASK_PLAIN || !question->is_heard)
		return false;
	for (uint32_t i = 0; i < number; i++) {
		const struct nat_question *before = &fsm->questions[i];
		if (before->kind != NAT_ASK_PLAIN || !before->is_heard || before->asker != question->asker)
			continue;
		*ret_is_first = false;
		if (endpoint_equal(&before->mapped, &question->mapped))
			return false;
	}
	return true;
}

/* The step that most have, if it is no accident; 0: there is none. */
static int32_t step_of(const uint16_t *ports, uint32_t n)
{
	int32_t steps[NAT_BEHAVIOUR_MAX_QUESTIONS], best = 0, least = INT32_MAX;
	uint32_t n_best = 0;
	bool is_near = true;

	for (uint32_t i = 0; i + 1 < n; i++) {
		steps[i] = (int16_t)(uint16_t)(ports[i + 1] - ports[i]);
		is_near &= steps[i] > 0 && steps[i] <= MAX_STEP;
		least = steps[i] < least ? steps[i] : least;
	}
	for (uint32_t i = 0; i + 1 < n; i++) {
		uint32_t n_same = 0;
		for (uint32_t j = 0; j + 1 < n; j++)
			n_same += steps[j] == steps[i];
		if (n_same > n_best) {
			n_best = n_same;
			best = steps[i];
		}
	}
	if (n >= 3 && n_best >= 2 && 2 * n_best >= n - 1)
		return best;
	return n >= 3 && is_near ? least : 0;
}

static void find_ports(const struct nat_behaviour_fsm *fsm, struct nat_findings *findings)
{
	uint16_t ports[NAT_BEHAVIOUR_MAX_QUESTIONS];
	uint32_t n = 0, n_first = 0, n_preserved = 0;

	for (uint32_t i = 0; i < fsm->n_questions; i++) {
		const struct nat_question *question = &fsm->questions[i];
		bool is_first;
		if (!is_new_port(fsm, i, &is_first))
			continue;
		const bool is_same = question->mapped.port == fsm->ports[question->asker];
		n_first += is_first;
		n_preserved += is_first && is_same;
		if (is_same)
			continue;
		ports[n++] = question->mapped.port;
		if (n == 1 || question->mapped.port < findings->low_port)
			findings->low_port = question->mapped.port;
		if (question->mapped.port > findings->high_port)
			findings->high_port = question->mapped.port;
	}
	findings->n_ports = n;
	findings->last_port = n > 0 ? ports[n - 1] : 0;
	findings->preserves_port = 2 * n_preserved > n_first;
	findings->step = step_of(ports, n);
	findings->ports_unknown = NAT_UNKNOWN_NOT;
	if (findings->step != 0)
		findings->ports = NAT_PORTS_IN_STEPS;
	else if (n >= 3)
		findings->ports = NAT_PORTS_ANY;
	else if (findings->preserves_port)
		findings->ports = NAT_PORTS_SAME;
	else
		findings->ports_unknown = NAT_UNKNOWN_NO_ANSWER;
}

static void tell(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		 struct nat_behaviour_actions *out)
{
	struct nat_findings findings = { .at_ns = in->now_ns };

	findings.mapping = mapping_of(fsm, &findings.mapping_unknown);
	findings.filtering = filtering_of(fsm, &findings.filtering_unknown);
	find_hairpin(fsm, &findings);
	find_ports(fsm, &findings);
	findings.outside = heard(fsm, fsm->of_0)->mapped;
	findings.outside.port = 0;
	fsm->findings = findings;
	close_sockets(fsm, out);
	add(out, NAT_BEHAVIOUR_DO_TELL);
	rest(fsm, in);
}

static void hear_nothing(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
			 struct nat_behaviour_actions *out)
{
	close_sockets(fsm, out);
	know_nothing(fsm, NAT_UNKNOWN_NO_ANSWER, out);
	rest(fsm, in);
}

/* ---- the table ---- */

typedef void deed(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
		  struct nat_behaviour_actions *out);

#define ANY NAT_BEHAVIOUR_N_STATES

static const struct arrow {
	int from;
	enum event on;
	enum nat_behaviour_state to;
	deed *act;
} arrows[] = {
	/* clang-format off */
	/* from                    on             to                       act          */
	{ NAT_BEHAVIOUR_RESTING,   EV_DUE,        NAT_BEHAVIOUR_OPENING,   open_sockets },
	{ NAT_BEHAVIOUR_OPENING,   EV_OPENED,     NAT_BEHAVIOUR_FINDING,   find         },
	{ NAT_BEHAVIOUR_OPENING,   EV_NOT_OPENED, NAT_BEHAVIOUR_RESTING,   give_up      },
	{ NAT_BEHAVIOUR_FINDING,   EV_OVER,       NAT_BEHAVIOUR_MAPPING,   map          },
	{ NAT_BEHAVIOUR_MAPPING,   EV_OVER,       NAT_BEHAVIOUR_KNOCKING,  knock        },
	{ NAT_BEHAVIOUR_KNOCKING,  EV_OVER,       NAT_BEHAVIOUR_COUNTING,  count        },
	{ NAT_BEHAVIOUR_COUNTING,  EV_OVER,       NAT_BEHAVIOUR_RESTING,   tell         },
	{ NAT_BEHAVIOUR_FINDING,   EV_SILENCE,    NAT_BEHAVIOUR_RESTING,   hear_nothing },
	{ NAT_BEHAVIOUR_MAPPING,   EV_SILENCE,    NAT_BEHAVIOUR_RESTING,   hear_nothing },
	{ ANY,                     EV_SEND_DUE,   ANY,                     send_again   },
	{ ANY,                     EV_NEWS,       NAT_BEHAVIOUR_RESTING,   plan         },
	{ ANY,                     EV_NO_WAY,     NAT_BEHAVIOUR_RESTING,   go_offline   },
	/* clang-format on */
};

/* ---- classify ---- */

static enum event news(const struct nat_behaviour_fsm *fsm)
{
	return fsm->n_servers > 0 && fsm->n_local > 0 ? EV_NEWS : EV_NO_WAY;
}

/* One a address, IPv4 only; news if they are others. */
static enum event take_set(const struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
			   struct endpoint *set, uint32_t *n)
{
	struct endpoint before[NAT_BEHAVIOUR_MAX_ADDRESSES];
	const uint32_t n_before = *n;
	bool differs = false;

	static_assert(NAT_BEHAVIOUR_MAX_ADDRESSES == NAT_BEHAVIOUR_MAX_SERVERS, "one limit");
	memcpy(before, set, n_before * sizeof(*set));
	*n = 0;
	for (uint32_t i = 0; i < in->n && *n < NAT_BEHAVIOUR_MAX_ADDRESSES; i++) {
		if (!endpoint_is_v4(&in->endpoints[i]) || contains_ip(set, *n, &in->endpoints[i]))
			continue;
		differs |= !contains_ip(before, n_before, &in->endpoints[i]);
		set[(*n)++] = in->endpoints[i];
	}
	return differs || *n != n_before ? news(fsm) : EV_NONE;
}

static enum event take_wish(const struct nat_behaviour_fsm *fsm)
{
	return fsm->state == NAT_BEHAVIOUR_RESTING && news(fsm) == EV_NEWS ? EV_DUE : EV_NONE;
}

static enum event take_opened(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in)
{
	if (fsm->state != NAT_BEHAVIOUR_OPENING)
		return EV_NONE;
	memcpy(fsm->ports, in->ports, sizeof(fsm->ports));
	return in->n > 0 ? EV_OPENED : EV_NOT_OPENED;
}

/* The open question that this belongs to; NULL: none, whoever sent it. */
static struct nat_question *find_question(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in)
{
	for (uint32_t i = fsm->first_open; i < fsm->n_questions; i++) {
		struct nat_question *question = &fsm->questions[i];
		const uint32_t socket = in->type == NAT_BEHAVIOUR_IN_REFUSAL ? question->asker : question->hearer;
		const struct endpoint *from = in->type == NAT_BEHAVIOUR_IN_REFUSAL ? &question->to : &question->from;

		if (memcmp(question->tx_id, in->tx_id, sizeof(in->tx_id)) == 0 && socket == in->socket &&
		    !question->is_heard && (question->kind == NAT_ASK_OURSELVES || endpoint_equal(from, &in->from)) &&
		    (question->kind == NAT_ASK_OURSELVES) == (in->type == NAT_BEHAVIOUR_IN_QUESTION))
			return question;
	}
	return NULL;
}

static void take_packet(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in)
{
	struct nat_question *question = find_question(fsm, in);

	if (fsm->state <= NAT_BEHAVIOUR_OPENING || !question || (in->type == NAT_BEHAVIOUR_IN_ANSWER && !endpoint_is_v4(&in->mapped)))
		return;
	question->is_heard = in->type != NAT_BEHAVIOUR_IN_REFUSAL;
	question->is_refused = !question->is_heard;
	question->mapped = in->mapped;
	question->other = in->other;
}

static enum event classify(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in)
{
	switch (in->type) {
	case NAT_BEHAVIOUR_IN_SERVERS:
		return take_set(fsm, in, fsm->servers, &fsm->n_servers);
	case NAT_BEHAVIOUR_IN_LOCAL:
		return take_set(fsm, in, fsm->local, &fsm->n_local);
	case NAT_BEHAVIOUR_IN_SEEN:
		return take_set(fsm, in, fsm->seen, &fsm->n_seen);
	case NAT_BEHAVIOUR_IN_WANTED:
		return take_wish(fsm);
	case NAT_BEHAVIOUR_IN_OPENED:
		return take_opened(fsm, in);
	case NAT_BEHAVIOUR_IN_ANSWER:
	case NAT_BEHAVIOUR_IN_REFUSAL:
	case NAT_BEHAVIOUR_IN_QUESTION:
		take_packet(fsm, in);
		break;
	case NAT_BEHAVIOUR_IN_DEADLINE:
	case NAT_BEHAVIOUR_N_INPUTS:
		break;
	}
	return EV_NONE;
}

/* ---- what comes next, and when ---- */

static bool all_are_heard(const struct nat_behaviour_fsm *fsm)
{
	for (uint32_t i = fsm->first_open; i < fsm->n_questions; i++)
		if (!fsm->questions[i].is_heard && !fsm->questions[i].is_refused)
			return false;
	return true;
}

/* Without it the next state has nothing to ask. */
static bool is_silent(const struct nat_behaviour_fsm *fsm)
{
	if (fsm->state == NAT_BEHAVIOUR_MAPPING)
		return !heard(fsm, fsm->of_0);
	for (uint32_t i = 0; i < fsm->n_questions; i++)
		if (fsm->questions[i].is_heard)
			return false;
	return true;
}

static uint64_t next_alarm(const struct nat_behaviour_fsm *fsm, uint64_t now_ns, enum event *ret)
{
	*ret = EV_DUE;
	if (fsm->state == NAT_BEHAVIOUR_RESTING)
		return fsm->due_ns != 0 ? fsm->due_ns : NEVER;
	if (fsm->state == NAT_BEHAVIOUR_OPENING)
		return NEVER;
	*ret = is_silent(fsm) ? EV_SILENCE : EV_OVER;
	if (all_are_heard(fsm))
		return now_ns;
	if (fsm->n_sent >= ARRAY_LEN(sends_ns) || fsm->stage_ns + STAGE_NS <= now_ns)
		return fsm->stage_ns + STAGE_NS;
	*ret = EV_SEND_DUE;
	return fsm->stage_ns + sends_ns[fsm->n_sent];
}

/* ---- the engine ---- */

static void trace(const struct nat_behaviour_fsm *fsm, uint64_t now_ns, enum event event, const char *to)
{
	char line[120];

	if (!fsm->trace)
		return;
	snprintf(line, sizeof(line), "[%5llu] nat: %s: %s -> %s", (unsigned long long)(now_ns / 1000000),
		 state_names[fsm->state], event_names[event], to);
	fsm->trace(fsm->trace_arg, line);
}

static void take(struct nat_behaviour_fsm *fsm, enum event event, const struct nat_behaviour_input *in,
		 struct nat_behaviour_actions *out)
{
	for (const struct arrow *a = arrows; a < arrows + ARRAY_LEN(arrows); a++) {
		if ((a->from != (int)fsm->state && a->from != ANY) || a->on != event)
			continue;
		const enum nat_behaviour_state to = a->to == ANY ? fsm->state : a->to;
		trace(fsm, in->now_ns, event, state_names[to]);
		a->act(fsm, in, out);
		fsm->state = to;
		return;
	}
	trace(fsm, in->now_ns, event, "(ignored)");
}

static bool invariant_holds(const struct nat_behaviour_fsm *fsm, uint64_t now_ns)
{
	return (fsm->deadline_ns == 0 || fsm->deadline_ns > now_ns) && fsm->first_open <= fsm->n_questions &&
	       (fsm->state <= NAT_BEHAVIOUR_OPENING || fsm->n_questions > fsm->first_open);
}

void nat_behaviour_fsm_init(struct nat_behaviour_fsm *fsm, uint64_t seed)
{
	*fsm = (struct nat_behaviour_fsm){ .state = NAT_BEHAVIOUR_RESTING, .random = seed };
	forget_run(fsm);
	know_nothing(fsm, NAT_UNKNOWN_NO_SERVER, &(struct nat_behaviour_actions){ 0 });
}

void nat_behaviour_fsm_step(struct nat_behaviour_fsm *fsm, const struct nat_behaviour_input *in,
			    struct nat_behaviour_actions *ret)
{
	enum event event = classify(fsm, in);
	uint64_t alarm_ns;

	ret->n = 0;
	if (event != EV_NONE)
		take(fsm, event, in, ret);
	for (int n = 0; next_alarm(fsm, in->now_ns, &event) <= in->now_ns; n++) {
		assert(n < MAX_EVENTS);
		take(fsm, event, in, ret);
	}
	alarm_ns = next_alarm(fsm, in->now_ns, &event);
	fsm->deadline_ns = alarm_ns == NEVER ? 0 : alarm_ns;
	assert(invariant_holds(fsm, in->now_ns));
}

bool nat_behaviour_fsm_is_busy(const struct nat_behaviour_fsm *fsm)
{
	return fsm->state != NAT_BEHAVIOUR_RESTING || fsm->findings.mapping_unknown == NAT_UNKNOWN_NOT_YET;
}

const char *nat_behaviour_state_name(enum nat_behaviour_state state)
{
	return state_names[state];
}
