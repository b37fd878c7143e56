/*
 * Random loss, for an hour of virtual time: a path is not left and taken again all the while.
 *
 * Two nodes with a direct path and a relay, at 5 % or 15 % of loss each way; the relay suffers it, too, or not; it
 * is as near as the peer, or far; traffic is dense, thin or one way. What is counted for each node: how often
 * packets take another way (another address, or direct for relay and back), from a minute after the start on; and
 * which way it is in the end.
 *
 * And the same where the path was found by a search (a hard NAT and a strict one), with a near relay that loses nothing:
 * that it is better is no reason to search again, as long as the path so found is there.
 *
 * And what is the other side of that: a path with dense traffic and a near relay begins to lose a quarter each way. How
 * long is it kept?
 *
 * sim_flapping [--seeds N] [--from N]     each seed is one hour of each case
 * sim_flapping --seed N --case N --trace  one of them, with everything that happens
 */
#include "tests/sim/sim_options.h"
#include "tests/sim/stage_world.h"

#include "common/macros.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define TRAFFIC_AT SECONDS(2)
#define SETTLED_AT SECONDS(62)
#define LIMIT      1
#define ONSET_LOSS 0.25
#define ONSET_P95  SECONDS(20)
#define ONSET_MAX  SECONDS(60)
#define MAX_ONSETS 400
#define KNOWN_NS   SECONDS(300) /* by then both NATs are known */

static const double losses[] = { 0.05, 0.15 };
static const char *const relay_names[] = { "near, lossy", "far, lossy", "near, lossless", "far, lossless" };
static const struct {
	const char *name;
	uint64_t interval_ns;
	bool one_way;
} traffics[] = { { "dense", MS(60), false }, { "thin", MS(700), false }, { "one way", MS(60), true } };

#define N_OPEN	 (ARRAY_LEN(losses) * ARRAY_LEN(relay_names) * ARRAY_LEN(traffics)) /* cases without NATs */
#define N_CASES	 (N_OPEN + ARRAY_LEN(losses) * ARRAY_LEN(traffics))
#define LOSSLESS 2 /* and near */

static bool is_searched(uint32_t c)
{
	return c >= N_OPEN;
}

static uint32_t case_loss(uint32_t c)
{
	return c % ARRAY_LEN(losses);
}

static uint32_t case_relay(uint32_t c)
{
	return is_searched(c) ? LOSSLESS : (uint32_t)(c / ARRAY_LEN(losses) % ARRAY_LEN(relay_names));
}

static uint32_t case_traffic(uint32_t c)
{
	return (uint32_t)(is_searched(c) ? (c - N_OPEN) / ARRAY_LEN(losses)
					 : c / ARRAY_LEN(losses) / ARRAY_LEN(relay_names));
}

/* Of all hours of one case. */
struct tally {
	uint32_t most, n_hours, n_by_relay;
	uint64_t n_ways, n_doubts, most_seed;
	uint64_t gap_ns;
	uint32_t n_found, n_lost, n_searches; /* of those searched for; the most searches of a node */
};

/* Behind a NAT of its own: APDM-APDF, and EIM-APDF, which only a search brings together. */
static void hide(struct stage_world *w, uint32_t i)
{
	struct nat_config *config = &w->nats[i].nat.config;
	struct nat_rules *rules = &config->rules[NAT_UDP];

	rules->mapping = i == 0 ? NAT_ADDRESS_AND_PORT : NAT_INDEPENDENT;
	rules->filtering = NAT_ADDRESS_AND_PORT;
	config->ports = i == 0 ? NAT_PORTS_RANDOM : NAT_PORTS_PRESERVE;
	w->nodes[i].nat = (int)i;
	w->nodes[i].local = endpoint_from_v4(0x0a000002u + (i << 8), 7000);
	world_widen_nat(w, i);
}

static void choose(struct stage_world *w, uint64_t seed, uint32_t c, bool trace)
{
	bool is_far = case_relay(c) & 1, is_lossless = case_relay(c) & 2;

	world_init(w, seed, trace);
	w->n_nodes = 2;
	for (uint32_t i = 0; i < w->n_nodes; i++) {
		w->nodes[i].nat = -1; /* the pair is direct for sure; NATs lose nothing */
		w->nodes[i].local = endpoint_from_v4(0xc6336480u + i, 7000);
		w->nodes[i].distance_ns = MS(2) + world_random(w, MS(15));
		if (is_searched(c))
			hide(w, i);
	}
	w->searches = is_searched(c);
	for (uint32_t i = 0; i < MAX_RELAYS; i++)
		w->relays[i].distance_ns = is_far ? MS(30) : MS(1);
	w->loss = losses[case_loss(c)];
	w->relay_loss = is_lossless ? 0 : w->loss;
	w->jitter_ns = world_random(w, 2) * MS(5);
}

static bool is_direct(const struct stage_world *w)
{
	return peer_fsm_has_direct(&w->nodes[0].views[1].fsm) && peer_fsm_has_direct(&w->nodes[1].views[0].fsm);
}

/* Chance may find nothing; what is then counted is the relay's hour. */
static void note_search(const struct stage_world *w, bool was_found, struct tally *tally)
{
	tally->n_found += was_found;
	for (uint32_t i = 0; i < 2; i++) {
		const struct view *view = &w->nodes[i].views[1 - i];

		tally->n_lost += view->n_falls;
		if (view->hard_nat.fsm.n_begun > tally->n_searches)
			tally->n_searches = view->hard_nat.fsm.n_begun;
	}
}

static void run(struct stage_world *w, uint64_t seed, uint32_t c, bool trace, struct tally *tally)
{
	uint32_t t = case_traffic(c);
	uint64_t settled_ns = SETTLED_AT;
	bool was_found;

	choose(w, seed, c, trace);
	for (uint32_t i = 0; i < 2; i++)
		world_start_node(w, i);
	world_run_until(w, TRAFFIC_AT);
	while (is_searched(c) && w->now_ns < KNOWN_NS && !(world_knows_nat(w, 0) && world_knows_nat(w, 1)))
		world_run_until(w, w->now_ns + MS(500));
	settled_ns = w->now_ns + SETTLED_AT - TRAFFIC_AT;
	world_set_flow(w, 0, 1, traffics[t].interval_ns);
	if (!traffics[t].one_way)
		world_set_flow(w, 1, 0, traffics[t].interval_ns + MS(1));
	world_run_until(w, settled_ns);
	was_found = is_direct(w);
	for (uint32_t i = 0; i < 2; i++)
		w->nodes[i].views[1 - i].n_ways = w->nodes[i].views[1 - i].n_path_changes = 0;
	world_reset_gaps(w);
	world_run_until(w, settled_ns + SECONDS(3600));
	if (is_searched(c))
		note_search(w, was_found, tally);
	for (uint32_t i = 0; i < 2; i++) {
		const struct view *view = &w->nodes[i].views[1 - i];

		tally->n_hours++;
		tally->n_by_relay += !view->fsm.path.direct;
		tally->n_ways += view->n_ways;
		tally->n_doubts += view->n_path_changes - view->n_ways;
		if (view->n_ways > tally->most || tally->n_hours == 1) {
			tally->most = view->n_ways;
			tally->most_seed = seed;
		}
		if (w->flows[i][1 - i].longest_gap_ns > tally->gap_ns)
			tally->gap_ns = w->flows[i][1 - i].longest_gap_ns;
	}
	world_deinit(w);
}

/* The relay wins over a direct path that loses much where it loses nothing and is near, and never where it loses as much. */
static bool is_best_way(uint32_t c, const struct tally *tally)
{
	bool is_far = case_relay(c) & 1, is_lossless = case_relay(c) & 2;

	if (!is_lossless)
		return tally->n_by_relay == 0;
	return is_far || losses[case_loss(c)] < 0.1 || tally->n_by_relay == tally->n_hours;
}

/* One search for each change of network, whatever is better than what it found. Some find nothing, by chance. */
static bool is_one_search(uint32_t c, const struct tally *tally)
{
	return !is_searched(c) || (tally->n_searches == 1 && tally->n_found > 0);
}

static bool report(uint32_t c, const struct tally *tally)
{
	bool ok = tally->most <= LIMIT && is_best_way(c, tally) && is_one_search(c, tally);

	printf("%2.0f %% loss, relay %-14s, %-7s: %.2f changes of the way an hour, at most %u (seed %llu); "
	       "%.1f times both ways; longest gap %.2f s; "
	       "by relay %u of %u%s\n",
	       losses[case_loss(c)] * 100, relay_names[case_relay(c)], traffics[case_traffic(c)].name,
	       (double)tally->n_ways / tally->n_hours, tally->most, (unsigned long long)tally->most_seed,
	       (double)tally->n_doubts / 2 / tally->n_hours, (double)tally->gap_ns / 1e9,
	       tally->n_by_relay, tally->n_hours, ok ? "" : "  FAILED");
	if (is_searched(c))
		printf("     found by a search in %u of %u hours, lost %u times, at most %u searches\n",
		       tally->n_found, tally->n_hours / 2, tally->n_lost, tally->n_searches);
	return ok;
}

/* ---- a path that begins to be bad ---- */

static uint64_t left_after(struct stage_world *w, uint64_t seed)
{
	const uint32_t near_lossless = LOSSLESS * ARRAY_LEN(losses);
	const struct peer_path *paths[] = { &w->nodes[0].views[1].fsm.path, &w->nodes[1].views[0].fsm.path };
	uint64_t taken_ns;

	choose(w, seed, near_lossless, false);
	w->loss = 0;
	for (uint32_t i = 0; i < 2; i++)
		world_start_node(w, i);
	world_run_until(w, TRAFFIC_AT);
	for (uint32_t i = 0; i < 2; i++)
		world_set_flow(w, i, 1 - i, MS(10 + i));
	world_run_until(w, SETTLED_AT + world_random(w, SECONDS(10)));
	assert(paths[0]->direct && paths[1]->direct);
	w->loss = ONSET_LOSS;
	taken_ns = w->now_ns;
	while ((paths[0]->direct || paths[1]->direct) && w->now_ns - taken_ns < 2 * ONSET_MAX)
		world_run_until(w, w->now_ns + MS(100));
	taken_ns = w->now_ns - taken_ns;
	world_deinit(w);
	return taken_ns;
}

static int compare(const void *a, const void *b)
{
	const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static bool is_left_soon(struct stage_world *w, uint64_t from, uint64_t n_seeds)
{
	static uint64_t times_ns[MAX_ONSETS];
	const uint64_t n = n_seeds * 20 < MAX_ONSETS ? n_seeds * 20 : MAX_ONSETS;

	if (n == 0)
		return true;
	for (uint64_t i = 0; i < n; i++)
		times_ns[i] = left_after(w, from + i);
	qsort(times_ns, n, sizeof(*times_ns), compare);
	const uint64_t p95_ns = times_ns[n * 95 / 100], most_ns = times_ns[n - 1];
	const bool ok = p95_ns <= ONSET_P95 && most_ns <= ONSET_MAX;
	printf("%.0f %% begin to be lost: both by relay after p50 %.1f s, p95 %.1f s, at most %.1f s, of %llu%s\n",
	       ONSET_LOSS * 100, (double)times_ns[n / 2] / 1e9, (double)p95_ns / 1e9, (double)most_ns / 1e9,
	       (unsigned long long)n, ok ? "" : "  FAILED");
	return ok;
}

int main(int argc, char *argv[])
{
	static struct stage_world world;
	struct sim_options options;
	bool ok = true;

	if (!sim_options_take(argc, argv, 4, true, &options))
		return 2;
	if (sodium_init() < 0)
		return 1;
	for (uint32_t c = 0; c < N_CASES; c++) {
		struct tally tally = { 0 };

		if (options.only != SIM_ALL_CASES && options.only != c)
			continue;
		for (uint64_t i = 0; i < options.n; i++)
			run(&world, options.from + i, c, options.trace, &tally);
		ok &= report(c, &tally);
	}
	if (options.only == SIM_ALL_CASES)
		ok &= is_left_soon(&world, options.from, options.n);
	return ok ? 0 : 1;
}
