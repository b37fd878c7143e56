/*
 * Reach on virtual time: who can be direct becomes it, and who cannot goes on talking by the relay.
 *
 *   a ── NAT ──┐                  pairs       each of the 45 pairs of the nine types
 *              ├── the world      one side    each type with a public address
 *   b ── NAT ──┘                  one NAT     both behind one, on one LAN or with isolated hosts; hairpin or not
 *                                 no UDP      one side's NAT carries only TCP
 *
 * A case is one of these; a seed goes to the case seed % N_CASES and chooses the rest: loss up to 30 %,
 * duplicates, jitter, how far everything is, how long filters lag behind mappings, hairpin, one-way traffic.
 * Two nodes start, are idle, and then send. What must hold for every seed:
 *
 *  1. A pair that can be direct is so within 1 s, under loss within 5 s; one that cannot never is.
 *  2. Before, during and after that the traffic has no gap longer than a second.
 *  3. Nothing is sent to the peer while nobody wants it to be reached.
 *
 * And over all seeds without loss: half of the pairs are direct within 0.5 s of the first traffic, 95 % within 2 s.
 *
 * sim_reach [--seeds N] [--from N]      many seeds; the failing one is printed
 * sim_reach --seed N [--trace]          one seed, with everything that happens
 */
#include "common/macros.h"
#include "tests/sim/stage_world.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_TYPES	   9
#define N_PAIRS	   (N_TYPES * (N_TYPES + 1) / 2)
#define N_CASES	   (N_PAIRS + 4 * N_TYPES)
#define TRAFFIC_AT SECONDS(2)
#define INTERVAL   MS(40)
#define GAP_NS	   SECONDS(1)
#define STEP_NS	   MS(10)
#define RELAY_NS   SECONDS(15) /* a whole attempt that fails, and the start of the next */
#define HIGH_LOSS  0.3
#define P50_NS	   MS(500)
#define P95_NS	   SECONDS(2)

enum shape { SHAPE_PAIR, SHAPE_ONE_PUBLIC, SHAPE_ONE_NAT, SHAPE_ONE_LAN, SHAPE_NO_UDP };

static const char *const shape_names[] = { "pair", "one side public", "one NAT", "one LAN", "no UDP" };

struct scenario {
	struct stage_world world;
	enum shape shape;
	bool one_way;
	uint64_t bound_ns;
};

static struct {
	uint64_t *direct_ns; /* of pairs without loss */
	size_t n_direct;
	uint64_t slowest_ns, slowest_seed, gap_ns;
	uint64_t n_possible, n_relayed;
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

static void choose_case(struct scenario *s, uint32_t number)
{
	struct stage_world *w = &s->world;

	place(w, 0, 0);
	place(w, 1, 1);
	if (number < N_PAIRS) {
		choose_pair(s, number);
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
		break;
	}
	return nat_pair_can_be_direct(a, b);
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
	w->n_nodes = 2;
	choose_case(s, (uint32_t)(seed % N_CASES));
	w->loss = world_random(w, 2) ? 0 : world_chance(w) * HIGH_LOSS;
	w->duplicates = (double)world_random(w, 2) / 100;
	w->jitter_ns = world_random(w, 3) * MS(5);
	s->one_way = world_random(w, 4) == 0;
	s->bound_ns = bound_of(w->loss);
	world_log(w, "seed %llu: %s of %s and %s, loss %.1f %%, %s", (unsigned long long)seed,
		  shape_names[s->shape], nat_name(world_nat_of(w, 0)), nat_name(world_nat_of(w, 1)),
		  w->loss * 100, s->one_way ? "one way" : "both ways");
}

/* ---- what must hold ---- */

static bool is_direct(const struct scenario *s)
{
	return s->world.nodes[0].views[1].fsm.state == PEER_ESTABLISHED &&
	       s->world.nodes[1].views[0].fsm.state == PEER_ESTABLISHED;
}

static bool is_silent(const struct scenario *s)
{
	return s->world.nodes[0].views[1].n_messages_ever == 0 && s->world.nodes[1].views[0].n_messages_ever == 0;
}

static bool gaps_are_short(const struct scenario *s)
{
	for (uint32_t i = 0; i < 2; i++) {
		const struct flow *flow = &s->world.flows[i][!i];

		if (flow->longest_gap_ns > all.gap_ns)
			all.gap_ns = flow->longest_gap_ns;
		if (flow->longest_gap_ns > GAP_NS)
			return failed(s, "gap in seconds", (double)flow->longest_gap_ns / 1e9);
	}
	return true;
}

static void note_direct(const struct scenario *s)
{
	uint64_t ns = s->world.now_ns - TRAFFIC_AT;

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
	while (!is_direct(s) && w->now_ns < TRAFFIC_AT + s->bound_ns)
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
	while (w->now_ns < TRAFFIC_AT + RELAY_NS) {
		world_run_until(w, w->now_ns + MS(100));
		for (uint32_t i = 0; i < 2; i++)
			if (w->nodes[i].views[!i].fsm.state == PEER_ESTABLISHED)
				return failed(s, "direct though impossible", i);
	}
	return gaps_are_short(s);
}

static bool run(uint64_t seed, bool trace, struct scenario *s)
{
	struct stage_world *w = &s->world;
	bool ok;

	choose(s, seed, trace);
	for (uint32_t i = 0; i < w->n_nodes; i++) {
		world_run_until(w, MS(1) + i * world_random(w, MS(400)));
		world_start_node(w, i);
	}
	world_run_until(w, TRAFFIC_AT);
	ok = is_silent(s) || failed(s, "messages though nobody sends", 0);
	world_set_flow(w, 0, 1, INTERVAL);
	if (!s->one_way)
		world_set_flow(w, 1, 0, INTERVAL);
	ok = ok && (can_be_direct(s) ? becomes_direct(s) : stays_with_the_relay(s));
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

int main(int argc, char *argv[])
{
	static struct scenario scenario;
	uint64_t n = 1000, from = 1, n_failed = 0;
	bool trace = false, more = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--trace") == 0)
			trace = true;
		else if (strcmp(argv[i], "--keep-going") == 0)
			more = true;
		else if (i + 1 < argc && strcmp(argv[i], "--seeds") == 0)
			n = strtoull(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--from") == 0)
			from = strtoull(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0)
			from = strtoull(argv[++i], NULL, 10), n = 1;
		else
			return fprintf(stderr, "usage: %s [--seeds N] [--from N] | --seed N [--trace]\n", argv[0]),
			       2;
	}
	all.direct_ns = calloc(n + 1, sizeof(*all.direct_ns));
	if (sodium_init() < 0 || !all.direct_ns)
		return 1;
	for (uint64_t seed = from; seed < from + n && (more || n_failed == 0); seed++)
		n_failed += !run(seed, trace, &scenario);
	if (n_failed == 0 && !is_fast(n))
		n_failed = 1;
	free(all.direct_ns);
	return n_failed > 0;
}
