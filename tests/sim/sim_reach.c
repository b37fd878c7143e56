/*
 * Reach on virtual time: who can be direct becomes it, most that can be found by a search are, and who cannot goes on talking
 * by the relay.
 *
 *   a ── NAT ──┐                  pairs       each of the 45 pairs of the nine types
 *              ├── the world      one side    each type with a public address
 *   b ── NAT ──┘                  one NAT     both behind one, on one LAN or with isolated hosts; hairpin or not
 *                                 no UDP      one side's NAT carries only TCP
 *                                 two hard    a talks to b and to c; both are to be found by a search
 *                                 two easy    … the same, but it is a whose NAT is hard
 *                                 forgetful   a hard NAT loses all mappings after its node was found
 *
 * A case is one of these; a seed goes to the case seed % N_CASES and chooses the rest: loss up to 30 %,
 * duplicates, jitter, how far everything is, how long filters lag behind mappings, hairpin, one-way traffic.
 * Two nodes start, are idle, find out what their NATs do, and then send. What must hold for every seed:
 *
 *  1. A pair that can be direct is so within 1 s, under loss within 5 s; one that cannot never is.
 *  2. Before, during and after that the traffic has no gap longer than a second.
 *  3. Nothing is sent to the peer while nobody wants it to be reached.
 *  4. Who searches keeps to the budget: one search for each peer, and another one only when a way that was found is lost; one
 *     at a time, 256 sockets, 1024 pings, 500 datagrams in any second. Nobody searches where it is not needed, or cannot
 *     succeed, unless loss made a NAT seem stricter than it is.
 *
 * And over all seeds: without loss, half of the pairs that need no search are direct within 0.5 s of the first traffic, 95 %
 * within 2 s; of those that need one, as many are direct within 5 s as chance allows (see chance_of()).
 *
 * sim_reach [--seeds N] [--from N]      many seeds; the failing one is printed
 * sim_reach --seed N [--trace]          one seed, with everything that happens
 */
#include "common/macros.h"
#include "tests/sim/sim_options.h"
#include "tests/sim/stage_world.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_TYPES	   9
#define N_PAIRS	   (N_TYPES * (N_TYPES + 1) / 2)
#define N_HARD	   4 /* types */
#define N_CASES	   (N_PAIRS + 4 * N_TYPES + 3 * N_HARD)
#define TRAFFIC_AT SECONDS(2)
#define INTERVAL   MS(40)
#define GAP_NS	   SECONDS(1)
#define STEP_NS	   MS(10)
#define RELAY_NS   SECONDS(15) /* a whole attempt that fails, and the start of the next */
#define HIGH_LOSS  0.3
#define P50_NS	   MS(500)
#define P95_NS	   SECONDS(2)
#define KNOWN_NS   SECONDS(300) /* by then a NAT is known, or nothing is searched */
#define SEARCH_NS  SECONDS(5)	/* within which a search is to have found a way */
#define TURNS_NS   SECONDS(9)	/* … and two, of which one waits for the other */
#define LOST_NS	   SECONDS(3)	/* until a path is given up that leads nowhere any more */
#define N_PORTS	   64512.0	/* of a NAT: 1024 … 65535 */
#define MAX_MISSED 512		/* searches that find nothing, of all */
#define CERTAINTY  0.9999

enum shape {
	SHAPE_PAIR,
	SHAPE_ONE_PUBLIC,
	SHAPE_ONE_NAT,
	SHAPE_ONE_LAN,
	SHAPE_NO_UDP,
	SHAPE_TWO_HARD,
	SHAPE_TWO_EASY,
	SHAPE_FORGETFUL,
};

static const char *const shape_names[] = { "pair",   "one side public", "one NAT",  "one LAN",
					   "no UDP", "two hard",	"two easy", "forgetful" };

enum expected { EXPECT_DIRECT, EXPECT_FOUND, EXPECT_RELAY, EXPECT_ANYTHING };

struct scenario {
	struct stage_world world;
	enum shape shape;
	enum expected expected;
	bool one_way;
	uint64_t bound_ns, traffic_ns;
};

/* Searches of one kind. So far missed[k] is the probability that chance alone makes k of them fail. */
struct searches {
	uint32_t n, n_found;
	double missed[MAX_MISSED];
};

static struct {
	uint64_t *direct_ns; /* of pairs without loss */
	size_t n_direct;
	uint64_t slowest_ns, slowest_seed, gap_ns;
	uint64_t n_possible, n_relayed, n_unknown;
	struct searches without_loss, with_loss, relay_loss;
	struct searches two_hard, two_easy, again; /* without loss */
	uint64_t found_ns, both_ns; /* the slowest of those without loss, of one and of two */
	uint32_t n_most_pings;	/* of one node */
} all;

static bool failed(const struct scenario *s, const char *what, double value)
{
	const struct stage_world *w = &s->world;

	fprintf(stderr,
		"seed %llu: %s: %s of %s and %s, loss %.1f %%: %g at %.3f s\n"
		"replay: sim_reach --seed %llu --trace\n",
		(unsigned long long)w->seed, what, shape_names[s->shape], nat_name(world_nat_of(w, 0)),
		nat_name(world_nat_of(w, 1)), w->loss * 100, value, (double)w->now_ns / 1e9,
		(unsigned long long)w->seed);
	return false;
}

/* ---- the case of a seed ---- */

static void set_type(struct stage_world *w, uint32_t nat, uint32_t type)
{
	struct nat_config *config = &w->nats[nat].nat.config;
	struct nat_rules *rules = &config->rules[NAT_UDP];

	rules->mapping = (enum nat_behaviour)(type / 3);
	rules->filtering = (enum nat_behaviour)(type % 3);
	config->ports = rules->mapping == NAT_INDEPENDENT ? NAT_PORTS_PRESERVE : NAT_PORTS_RANDOM;
}

static void place(struct stage_world *w, uint32_t node, int nat)
{
	w->nodes[node].nat = nat;
	w->nodes[node].local = nat < 0 ? endpoint_from_v4(0xc6336480u + node, 7000)
				       : endpoint_from_v4(0x0a000002u + ((uint32_t)nat << 8) + node, 7000);
}

static void choose_pair(struct scenario *s, uint32_t number)
{
	uint32_t left = 0;

	while (number >= N_TYPES - left)
		number -= N_TYPES - left++;
	set_type(&s->world, 0, left);
	set_type(&s->world, 1, left + number);
}

static void choose_search(struct scenario *s, uint32_t number)
{
	static const uint32_t hard_types[N_HARD] = { 4, 5, 7, 8 }, easy_type = 2;
	const uint32_t hard_type = hard_types[number % N_HARD];
	const enum shape shape = (enum shape)(SHAPE_TWO_HARD + number / N_HARD);
	const uint32_t n = shape == SHAPE_FORGETFUL ? 2 : 3;

	s->shape = shape;
	s->world.n_nodes = n;
	for (uint32_t i = 0; i < n; i++) {
		place(&s->world, i, (int)i);
		set_type(&s->world, i, (shape == SHAPE_TWO_HARD) == (i == 0) ? easy_type : hard_type);
	}
}

static void choose_case(struct scenario *s, uint32_t number)
{
	struct stage_world *w = &s->world;

	place(w, 0, 0);
	place(w, 1, 1);
	if (number < N_PAIRS) {
		choose_pair(s, number);
		return;
	}
	if (number >= N_PAIRS + 4 * N_TYPES) {
		choose_search(s, number - N_PAIRS - 4 * N_TYPES);
		return;
	}
	s->shape = (enum shape)(SHAPE_ONE_PUBLIC + (number - N_PAIRS) / N_TYPES);
	set_type(w, 0, (number - N_PAIRS) % N_TYPES);
	if (s->shape == SHAPE_ONE_PUBLIC)
		place(w, 1, -1);
	if (s->shape == SHAPE_ONE_NAT || s->shape == SHAPE_ONE_LAN)
		place(w, 1, 0);
	w->isolated = s->shape == SHAPE_ONE_NAT;
	w->nats[0].udp_cut = s->shape == SHAPE_NO_UDP;
}

static bool can_be_direct(const struct scenario *s)
{
	const struct nat_rules *a = world_nat_of(&s->world, 0), *b = world_nat_of(&s->world, 1);

	switch (s->shape) {
	case SHAPE_ONE_LAN:
		return true;
	case SHAPE_NO_UDP:
		return false;
	case SHAPE_ONE_NAT: /* it is then as if there were two */
		return s->world.nats[0].nat.config.hairpin != NAT_HAIRPIN_OFF && nat_pair_can_be_direct(a, b);
	case SHAPE_PAIR:
	case SHAPE_ONE_PUBLIC:
	case SHAPE_TWO_HARD:
	case SHAPE_TWO_EASY:
	case SHAPE_FORGETFUL:
		break;
	}
	return nat_pair_can_be_direct(a, b);
}

/* Each has a NAT of its own. */
static bool is_by_nats(const struct scenario *s)
{
	return s->shape == SHAPE_PAIR || s->shape >= SHAPE_TWO_HARD;
}

static bool is_hard(const struct nat_rules *nat)
{
	return nat->mapping != NAT_INDEPENDENT && nat->filtering != NAT_INDEPENDENT;
}

static bool is_easy_and_strict(const struct nat_rules *nat)
{
	return nat->mapping == NAT_INDEPENDENT && nat->filtering == NAT_ADDRESS_AND_PORT;
}

/* As tests/net/reach.py expects it. */
static enum expected expectation(const struct scenario *s)
{
	const struct nat_rules *a = world_nat_of(&s->world, 0), *b = world_nat_of(&s->world, 1);

	if (can_be_direct(s))
		return EXPECT_DIRECT;
	if (is_by_nats(s) && ((is_hard(a) && is_easy_and_strict(b)) || (is_hard(b) && is_easy_and_strict(a))))
		return EXPECT_FOUND;
	return EXPECT_RELAY;
}

/*
 * Each side needs a ping and its pong through, and who sends first to a filter needs another round: without loss
 * that is the second one. With loss p a round succeeds in (1 - p)^2, thus half of them at the worst; there are four
 * in the first second and one in each other.
 */
static uint64_t bound_of(double loss)
{
	return loss == 0 ? SECONDS(1) : SECONDS(5);
}

static void choose(struct scenario *s, uint64_t seed, bool trace)
{
	struct stage_world *w = &s->world;

	memset(s, 0, sizeof(*s));
	world_init(w, seed, trace);
	w->n_nodes = 2; /* or more, see choose_search() */
	choose_case(s, (uint32_t)(seed % N_CASES));
	w->loss = world_random(w, 2) ? 0 : world_chance(w) * HIGH_LOSS;
	w->duplicates = (double)world_random(w, 2) / 100;
	w->jitter_ns = world_random(w, 3) * MS(5);
	s->one_way = world_random(w, 4) == 0;
	s->bound_ns = bound_of(w->loss);
	s->expected = expectation(s);
	w->searches = true;
	if (s->expected == EXPECT_FOUND && seed / N_CASES % 2 == 0)
		w->relay_loss = w->loss; /* it is reached by UDP */
	for (uint32_t i = 0; i < w->n_nodes && s->expected == EXPECT_FOUND; i++)
		world_widen_nat(w, i);
	world_log(w, "seed %llu: %s of %s and %s, loss %.1f %%, %s", (unsigned long long)seed,
		  shape_names[s->shape], nat_name(world_nat_of(w, 0)), nat_name(world_nat_of(w, 1)),
		  w->loss * 100, s->one_way ? "one way" : "both ways");
}

/* ---- what must hold ---- */

/* The pairs that talk are 0 with each other node. */
static bool is_direct_with(const struct scenario *s, uint32_t other)
{
	return s->world.nodes[0].views[other].fsm.state == PEER_ESTABLISHED &&
	       s->world.nodes[other].views[0].fsm.state == PEER_ESTABLISHED;
}

static bool is_direct(const struct scenario *s)
{
	for (uint32_t i = 1; i < s->world.n_nodes; i++)
		if (!is_direct_with(s, i))
			return false;
	return true;
}

static bool is_silent(const struct scenario *s)
{
	for (uint32_t i = 1; i < s->world.n_nodes; i++)
		if (s->world.nodes[0].views[i].n_messages_ever > 0 || s->world.nodes[i].views[0].n_messages_ever > 0)
			return false;
	return true;
}

static bool gaps_are_short(const struct scenario *s)
{
	for (uint32_t i = 0; i < MAX_NODES * MAX_NODES; i++) {
		const struct flow *flow = &s->world.flows[i / MAX_NODES][i % MAX_NODES];

		if (flow->longest_gap_ns > all.gap_ns)
			all.gap_ns = flow->longest_gap_ns;
		if (flow->longest_gap_ns > GAP_NS)
			return failed(s, "gap in seconds", (double)flow->longest_gap_ns / 1e9);
	}
	return true;
}

static void note_direct(const struct scenario *s)
{
	uint64_t ns = s->world.now_ns - s->traffic_ns;

	if (s->world.loss == 0)
		all.direct_ns[all.n_direct++] = ns;
	if (ns > all.slowest_ns) {
		all.slowest_ns = ns;
		all.slowest_seed = s->world.seed;
	}
}

static bool becomes_direct(struct scenario *s)
{
	struct stage_world *w = &s->world;

	all.n_possible++;
	while (!is_direct(s) && w->now_ns < s->traffic_ns + s->bound_ns)
		world_run_until(w, w->now_ns + STEP_NS);
	if (!is_direct(s))
		return failed(s, "not direct after so many seconds", (double)s->bound_ns / 1e9);
	note_direct(s);
	world_run_until(w, w->now_ns + SECONDS(2));
	return gaps_are_short(s);
}

static bool stays_with_the_relay(struct scenario *s)
{
	struct stage_world *w = &s->world;

	all.n_relayed++;
	while (w->now_ns < s->traffic_ns + RELAY_NS) {
		world_run_until(w, w->now_ns + MS(100));
		for (uint32_t i = 0; i < 2; i++)
			if (w->nodes[i].views[!i].fsm.state == PEER_ESTABLISHED)
				return failed(s, "direct though impossible", i);
	}
	return gaps_are_short(s);
}

/* ---- the search ---- */

/* Those that it began; a hard side begins as well when it is told. */
static uint32_t n_begun(const struct stage_world *w, uint32_t node)
{
	uint32_t n = 0;

	for (uint32_t p = 0; p < w->n_nodes; p++)
		n += w->nodes[node].views[p].hard_nat.fsm.n_begun;
	return n;
}

/* Under loss, an answer that the NAT let in may be lost each time: then it seems stricter than it is. */
static bool is_mistaken(const struct scenario *s, uint32_t node)
{
	const struct nat_findings *findings = &s->world.nodes[node].behaviour.findings;
	const struct nat_rules *rules = world_nat_of(&s->world, node);

	static_assert((int)NAT_DEPENDS_NOT + (int)NAT_ADDRESS_AND_PORT == (int)NAT_DEPENDS_PORT, "the same order");
	return rules && world_knows_nat(&s->world, node) &&
	       ((int)findings->mapping != (int)NAT_DEPENDS_NOT + (int)rules->mapping ||
		(int)findings->filtering != (int)NAT_DEPENDS_NOT + (int)rules->filtering);
}

static bool may_search(const struct scenario *s)
{
	return s->expected == EXPECT_FOUND || s->expected == EXPECT_ANYTHING ||
	       (s->world.loss > 0 && (is_mistaken(s, 0) || is_mistaken(s, 1)));
}

/* Of one peer: at most one, and once more when a way so found was lost. */
static uint32_t n_searches_allowed(const struct scenario *s, const struct view *view)
{
	const bool may_lose_it = s->world.loss > 0 || s->shape == SHAPE_FORGETFUL;

	return !may_search(s) ? 0u : may_lose_it && view->n_falls > 0 ? 2u : 1u;
}

static bool is_polite(const struct scenario *s)
{
	const struct stage_world *w = &s->world;

	for (uint32_t i = 0; i < w->n_nodes; i++) {
		const struct sim_node *node = &w->nodes[i];
		const uint32_t n = n_begun(w, i);

		if (node->count.n_pings > all.n_most_pings)
			all.n_most_pings = node->count.n_pings;
		if (node->side.most_sockets > HARD_NAT_MAX_SOCKETS)
			return failed(s, "sockets", node->side.most_sockets);
		if (node->count.n_pings > n * HARD_NAT_MAX_PINGS)
			return failed(s, "pings of a search", node->count.n_pings);
		if (node->side.n_searches > n || node->side.n_knocks > n * HARD_NAT_MAX_SOCKETS)
			return failed(s, "knocks of a search", node->side.n_knocks);
		if (node->count.is_too_fast)
			return failed(s, "more datagrams in a second than", HARD_NAT_RATE);
		for (uint32_t p = 0; p < w->n_nodes; p++)
			if (node->views[p].hard_nat.fsm.n_begun > n_searches_allowed(s, &node->views[p]))
				return failed(s, "searches", node->views[p].hard_nat.fsm.n_begun);
	}
	return true;
}

/*
 * 256 ports are open among 64,512, and 1024 others' are pinged: each of the open ones is among these with 1024 / 64512, so that
 * chance alone finds one with 1 - (1 - 1024 / 64512)^256 = 98.3 %. With loss p a ping arrives with 1 - p; then the side that
 * it came to knows the way, and goes on to ping by it until it is answered. (A knock opens the port even if it is lost
 * later.) What is lost by relay costs time alone: the easy side sends no ping before it is heard.
 */
static double chance_of(const struct scenario *s)
{
	double miss = 1;

	for (int i = 0; i < HARD_NAT_MAX_SOCKETS; i++)
		miss *= 1 - (1 - s->world.loss) * HARD_NAT_MAX_PINGS / N_PORTS;
	return 1 - miss;
}

/* Who is not heard says it again, each 0.5 s, or a second. */
static uint64_t search_bound_of(const struct scenario *s, bool has_turns)
{
	return (has_turns ? TURNS_NS : SEARCH_NS) * (s->world.relay_loss > 0 ? 2 : 1);
}

static void note_search(struct searches *searches, double chance, bool is_found)
{
	if (searches->n++ == 0)
		searches->missed[0] = 1;
	searches->n_found += is_found;
	for (int k = MAX_MISSED - 1; k >= 0; k--)
		searches->missed[k] = searches->missed[k] * chance + (k > 0 ? searches->missed[k - 1] * (1 - chance) : 0);
}

/* Up to then, or until all are direct. */
static bool search_until(struct scenario *s, uint64_t until_ns)
{
	struct stage_world *w = &s->world;

	while (!is_direct(s) && w->now_ns < until_ns) {
		world_run_until(w, w->now_ns + STEP_NS);
		for (uint32_t i = 0; i < w->n_nodes; i++)
			if (world_n_searching(w, i) > 1)
				return failed(s, "searches at a time", world_n_searching(w, i));
	}
	return true;
}

static void note_searches(struct scenario *s, struct searches *searches)
{
	for (uint32_t i = 1; i < s->world.n_nodes; i++) {
		world_log(&s->world, "%u and 0: %s", i, is_direct_with(s, i) ? "found" : "NOT FOUND");
		note_search(s->world.relay_loss > 0 ? &all.relay_loss : s->world.loss > 0 ? &all.with_loss : searches, chance_of(s), is_direct_with(s, i));
	}
}

static bool is_found_again(struct scenario *s)
{
	struct stage_world *w = &s->world;
	const uint64_t begin_ns = w->now_ns;

	world_log(w, "the NAT of node 0 forgets");
	nat_forget(&w->nats[0].nat);
	while (is_direct(s) && w->now_ns < begin_ns + LOST_NS)
		world_run_until(w, w->now_ns + STEP_NS);
	if (is_direct(s)) /* its socket got another port, and by chance one that the other side had asked */
		return true;
	if (!search_until(s, begin_ns + LOST_NS + search_bound_of(s, false)))
		return false;
	note_searches(s, &all.again);
	return true;
}

static struct searches *searches_of(enum shape shape)
{
	if (shape == SHAPE_TWO_HARD)
		return &all.two_hard;
	return shape == SHAPE_TWO_EASY ? &all.two_easy : &all.without_loss;
}

static void note_slowest(uint64_t *slowest_ns, uint64_t ns)
{
	if (ns > *slowest_ns)
		*slowest_ns = ns;
}

static bool is_searched_for(struct scenario *s)
{
	struct stage_world *w = &s->world;
	const bool has_turns = s->shape == SHAPE_TWO_HARD || s->shape == SHAPE_TWO_EASY;
	bool is_found;

	if (!search_until(s, s->traffic_ns + search_bound_of(s, has_turns)))
		return false;
	is_found = is_direct(s);
	if (is_found && w->loss == 0)
		note_slowest(has_turns ? &all.both_ns : &all.found_ns, w->now_ns - s->traffic_ns);
	note_searches(s, searches_of(s->shape));
	world_run_until(w, w->now_ns + (is_found ? SECONDS(2) : RELAY_NS - SEARCH_NS));
	if (is_found && s->shape == SHAPE_FORGETFUL && !is_found_again(s))
		return false;
	return gaps_are_short(s);
}

/* ---- one seed ---- */

static bool all_know_their_nats(const struct stage_world *w)
{
	for (uint32_t i = 0; i < w->n_nodes; i++)
		if (!world_knows_nat(w, i))
			return false;
	return true;
}

static void start(struct scenario *s)
{
	struct stage_world *w = &s->world;

	for (uint32_t i = 0; i < w->n_nodes; i++) {
		world_run_until(w, MS(1) + i * world_random(w, MS(400)));
		world_start_node(w, i);
	}
	world_run_until(w, TRAFFIC_AT);
	while (is_by_nats(s) && w->now_ns < KNOWN_NS && !all_know_their_nats(w))
		world_run_until(w, w->now_ns + MS(500));
	if (s->expected == EXPECT_FOUND && w->now_ns >= KNOWN_NS) {
		/* Nobody can know that a search would succeed; of three, two may. */
		s->expected = w->n_nodes == 2 ? EXPECT_RELAY : EXPECT_ANYTHING;
		all.n_unknown++;
	}
	s->traffic_ns = w->now_ns;
}

static bool becomes_what_it_should(struct scenario *s)
{
	switch (s->expected) {
	case EXPECT_DIRECT:
		return becomes_direct(s);
	case EXPECT_FOUND:
		return is_searched_for(s);
	case EXPECT_ANYTHING:
		world_run_until(&s->world, s->traffic_ns + RELAY_NS);
		return gaps_are_short(s);
	case EXPECT_RELAY:
		break;
	}
	return stays_with_the_relay(s);
}

static bool run(uint64_t seed, bool trace, struct scenario *s)
{
	struct stage_world *w = &s->world;
	bool ok;

	choose(s, seed, trace);
	start(s);
	ok = is_silent(s) || failed(s, "messages though nobody sends", 0);
	for (uint32_t i = 1; i < w->n_nodes; i++) {
		world_set_flow(w, 0, i, INTERVAL);
		if (!s->one_way)
			world_set_flow(w, i, 0, INTERVAL);
	}
	ok = ok && becomes_what_it_should(s) && is_polite(s);
	world_deinit(w);
	return ok;
}

/* ---- over all seeds ---- */

static int compare(const void *a, const void *b)
{
	const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static bool is_fast(uint64_t n_seeds)
{
	uint64_t p50, p95;

	if (all.n_direct == 0)
		return true;
	qsort(all.direct_ns, all.n_direct, sizeof(*all.direct_ns), compare);
	p50 = all.direct_ns[all.n_direct / 2];
	p95 = all.direct_ns[all.n_direct * 95 / 100];
	printf("%llu seeds ok: %llu became direct, without loss p50 %.2f s, p95 %.2f s, with loss to 30 %% all within "
	       "%.2f s (seed %llu); %llu stayed with the relay; longest gap %.2f s\n",
	       (unsigned long long)n_seeds, (unsigned long long)all.n_possible, (double)p50 / 1e9,
	       (double)p95 / 1e9, (double)all.slowest_ns / 1e9, (unsigned long long)all.slowest_seed,
	       (unsigned long long)all.n_relayed, (double)all.gap_ns / 1e9);
	return n_seeds < N_CASES || (p50 <= P50_NS && p95 <= P95_NS);
}

/* So many of them may have found nothing by chance, with CERTAINTY. */
static uint32_t n_may_miss(const struct searches *searches)
{
	double sum = searches->missed[0];
	uint32_t k = 0;

	while (sum < CERTAINTY && k + 1 < MAX_MISSED)
		sum += searches->missed[++k];
	return k;
}

/* Of a thousand seeds there are some of each kind. */
static bool are_found(const struct searches *searches, const char *what, uint64_t n_seeds)
{
	const uint32_t n_missed = searches->n - searches->n_found, n_may = n_may_miss(searches);

	if (searches->n == 0 && n_seeds >= 1000)
		printf("%s: no search at all\n", what);
	if (searches->n == 0)
		return n_seeds < 1000;
	printf("%s: %u of %u searches found a way (%.1f %%); %u may miss it\n", what, searches->n_found, searches->n,
	       100.0 * searches->n_found / searches->n, n_may);
	return n_missed <= n_may;
}

static bool all_is_well(uint64_t n_seeds)
{
	bool ok = is_fast(n_seeds);

	ok &= are_found(&all.without_loss, "without loss", n_seeds);
	ok &= are_found(&all.with_loss, "with loss", n_seeds);
	ok &= are_found(&all.relay_loss, "with loss by relay as well", n_seeds);
	ok &= are_found(&all.two_hard, "two hard peers at once", n_seeds);
	ok &= are_found(&all.two_easy, "two easy peers at once", n_seeds);
	ok &= are_found(&all.again, "after the NAT forgot", n_seeds);
	printf("without loss the slowest was found after %.2f s, of two the second after %.2f s; most pings of a node %u; NAT "
	       "not known in %llu\n", (double)all.found_ns / 1e9, (double)all.both_ns / 1e9, all.n_most_pings, (unsigned long long)all.n_unknown);
	return ok && all.n_unknown * 1000 <= n_seeds; /* else nothing would be searched, and all be well */
}

int main(int argc, char *argv[])
{
	static struct scenario scenario;
	struct sim_options options;
	uint64_t n_failed = 0;

	if (!sim_options_take(argc, argv, 1000, false, &options))
		return 2;
	all.direct_ns = calloc(options.n + 1, sizeof(*all.direct_ns));
	if (sodium_init() < 0 || !all.direct_ns)
		return 1;
	for (uint64_t i = 0; i < options.n && (options.keeps_going || n_failed == 0); i++)
		n_failed += !run(options.from + i, options.trace, &scenario);
	if (n_failed == 0 && !all_is_well(options.n))
		n_failed = 1;
	free(all.direct_ns);
	return n_failed > 0;
}
