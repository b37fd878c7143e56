/*
 * Random loss, for an hour of virtual time: a path is not left and taken again all the while.
 *
 * Two nodes with a direct path and a relay, at 1 %, 5 % or 15 % of loss each way; the relay suffers it, too, or not; it
 * is as near as the peer, or far; traffic is dense, thin or one way. What is counted for each node: how often
 * packets take another way (another address, or direct for relay and back), from a minute after the start on; and
 * which way it is in the end.
 *
 * And the same where the path was found by a search (a hard NAT and a strict one), with a near relay that loses nothing:
 * that it is better is no reason to search again, as long as the path so found is there.
 *
 * And the same where each has two addresses that are as good as each other: none is left for the other.
 *
 * And what is the other side of that: a path with dense traffic and a near relay begins to lose a quarter each way. How
 * long is it kept? And when is it taken again, after that?
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
#define RETURN_P95 SECONDS(360)
#define RETURN_MAX SECONDS(600)
#define MAX_ONSETS 400
#define KNOWN_NS   SECONDS(300) /* by then both NATs are known */

static const double losses[] = { 0.01, 0.05, 0.15 };
static const char *const relay_names[] = { "near, lossy", "far, lossy", "near, lossless", "far, lossless" };
static const struct {
	const char *name;
	uint64_t interval_ns;
	bool one_way;
} traffics[] = { { "dense", MS(60), false }, { "thin", MS(700), false }, { "one way", MS(60), true } };

enum relay_kind {
	NEAR_LOSSY,
	FAR_LOSSY,
	NEAR_LOSSLESS,
	FAR_LOSSLESS,
};

/* Which way is there, other than the relay? */
enum layout {
	ONE_ADDRESS,
	SEARCHED,
	TWO_ADDRESSES,
	N_LAYOUTS,
};
static const struct {
	const char *name;
	uint32_t n_relays;
	enum relay_kind relays[ARRAY_LEN(relay_names)];
} layouts[N_LAYOUTS] = {
	[ONE_ADDRESS] = { "", 4, { NEAR_LOSSY, FAR_LOSSY, NEAR_LOSSLESS, FAR_LOSSLESS } },
	[SEARCHED] = { ", found by a search", 1, { NEAR_LOSSLESS } },
	[TWO_ADDRESSES] = { ", two addresses", 2, { NEAR_LOSSY, FAR_LOSSLESS } },
};

struct hour {
	double loss;
	enum relay_kind relay;
	uint32_t traffic;
	enum layout layout;
};

/* The case of that number; false: there is none. */
static bool find_case(uint32_t number, struct hour *ret)
{
	for (int l = 0; l < N_LAYOUTS; l++) {
		const uint32_t n_losses = ARRAY_LEN(losses), n_relays = layouts[l].n_relays;
		const uint32_t n = n_losses * n_relays * (uint32_t)ARRAY_LEN(traffics);

		if (number >= n) {
			number -= n;
			continue;
		}
		*ret = (struct hour){ .loss = losses[number % n_losses],
				      .relay = layouts[l].relays[number / n_losses % n_relays],
				      .traffic = number / n_losses / n_relays,
				      .layout = (enum layout)l };
		return true;
	}
	return false;
}

static bool is_far(enum relay_kind relay)
{
	return relay == FAR_LOSSY || relay == FAR_LOSSLESS;
}

static bool is_lossless(enum relay_kind relay)
{
	return relay == NEAR_LOSSLESS || relay == FAR_LOSSLESS;
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

static void choose(struct stage_world *w, uint64_t seed, const struct hour *hour, bool trace)
{
	world_init(w, seed, trace);
	w->n_nodes = 2;
	for (uint32_t i = 0; i < w->n_nodes; i++) {
		w->nodes[i].nat = -1; /* the pair is direct for sure; NATs lose nothing */
		w->nodes[i].local = endpoint_from_v4(0xc6336480u + i, 7000);
		w->nodes[i].distance_ns = MS(2) + world_random(w, MS(15));
		if (hour->layout == SEARCHED)
			hide(w, i);
		if (hour->layout == TWO_ADDRESSES)
			w->nodes[i].second = endpoint_from_v4(0xc0000280u + i, 7000);
	}
	w->searches = hour->layout == SEARCHED;
	for (uint32_t i = 0; i < MAX_RELAYS; i++)
		w->relays[i].distance_ns = is_far(hour->relay) ? MS(30) : MS(1);
	w->loss = hour->loss;
	w->relay_loss = is_lossless(hour->relay) ? 0 : w->loss;
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

static void run(struct stage_world *w, uint64_t seed, const struct hour *hour, bool trace, struct tally *tally)
{
	const uint32_t t = hour->traffic;
	uint64_t settled_ns = SETTLED_AT;
	bool was_found;

	choose(w, seed, hour, trace);
	for (uint32_t i = 0; i < 2; i++)
		world_start_node(w, i);
	world_run_until(w, TRAFFIC_AT);
	while (w->searches && w->now_ns < KNOWN_NS && !(world_knows_nat(w, 0) && world_knows_nat(w, 1)))
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
	if (w->searches)
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
static bool is_best_way(const struct hour *hour, const struct tally *tally)
{
	if (!is_lossless(hour->relay))
		return tally->n_by_relay == 0;
	return is_far(hour->relay) || hour->loss < 0.1 || tally->n_by_relay == tally->n_hours;
}

/* One search for each change of network, whatever is better than what it found. Some find nothing, by chance. */
static bool is_one_search(const struct hour *hour, const struct tally *tally)
{
	return hour->layout != SEARCHED || (tally->n_searches == 1 && tally->n_found > 0);
}

static bool report(const struct hour *hour, const struct tally *tally)
{
	bool ok = tally->most <= LIMIT && is_best_way(hour, tally) && is_one_search(hour, tally);

	printf("%2.0f %% loss, relay %-14s, %-7s%s: %.3f changes of the way an hour, at most %u (seed %llu); "
	       "%.1f times both ways; longest gap %.2f s; "
	       "by relay %u of %u%s\n",
	       hour->loss * 100, relay_names[hour->relay], traffics[hour->traffic].name, layouts[hour->layout].name,
	       (double)tally->n_ways / tally->n_hours, tally->most, (unsigned long long)tally->most_seed,
	       (double)tally->n_doubts / 2 / tally->n_hours, (double)tally->gap_ns / 1e9,
	       tally->n_by_relay, tally->n_hours, ok ? "" : "  FAILED");
	if (hour->layout == SEARCHED)
		printf("     found by a search in %u of %u hours, lost %u times, at most %u searches\n",
		       tally->n_found, tally->n_hours / 2, tally->n_lost, tally->n_searches);
	return ok;
}

/* ---- a path that begins to be bad ---- */

struct bad_time {
	uint64_t left_ns;  /* from its begin until both are gone */
	uint64_t taken_ns; /* from its end until both are back */
};

/* How long until that holds for both paths? */
static uint64_t until(struct stage_world *w, const struct peer_path *const paths[2], bool direct, uint64_t at_most_ns)
{
	const uint64_t begin_ns = w->now_ns;

	while ((paths[0]->direct != direct || paths[1]->direct != direct) && w->now_ns - begin_ns < at_most_ns)
		world_run_until(w, w->now_ns + MS(100));
	return w->now_ns - begin_ns;
}

static struct bad_time suffer(struct stage_world *w, uint64_t seed)
{
	const struct hour hour = { .relay = NEAR_LOSSLESS };
	const struct peer_path *const paths[] = { &w->nodes[0].views[1].fsm.path, &w->nodes[1].views[0].fsm.path };
	struct bad_time time;

	choose(w, seed, &hour, false);
	for (uint32_t i = 0; i < 2; i++)
		world_start_node(w, i);
	world_run_until(w, TRAFFIC_AT);
	for (uint32_t i = 0; i < 2; i++)
		world_set_flow(w, i, 1 - i, MS(10 + i));
	world_run_until(w, SETTLED_AT + world_random(w, SECONDS(10)));
	assert(paths[0]->direct && paths[1]->direct);
	w->loss = ONSET_LOSS;
	time.left_ns = until(w, paths, false, 2 * ONSET_MAX);
	w->loss = 0;
	time.taken_ns = until(w, paths, true, 2 * RETURN_MAX);
	world_deinit(w);
	return time;
}

static int compare(const void *a, const void *b)
{
	const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

/* Sorts the times. */
static bool is_soon(const char *what, uint64_t *times_ns, uint64_t n, uint64_t p95_ns, uint64_t most_ns)
{
	qsort(times_ns, n, sizeof(*times_ns), compare);
	const bool ok = times_ns[n * 95 / 100] <= p95_ns && times_ns[n - 1] <= most_ns;
	printf("%s after p50 %.1f s, p95 %.1f s, at most %.1f s, of %llu%s\n", what, (double)times_ns[n / 2] / 1e9,
	       (double)times_ns[n * 95 / 100] / 1e9, (double)times_ns[n - 1] / 1e9, (unsigned long long)n, ok ? "" : "  FAILED");
	return ok;
}

static bool is_left_soon_and_taken_again(struct stage_world *w, uint64_t from, uint64_t n_seeds)
{
	static uint64_t left_ns[MAX_ONSETS], taken_ns[MAX_ONSETS];
	const uint64_t n = n_seeds * 20 < MAX_ONSETS ? n_seeds * 20 : MAX_ONSETS;

	for (uint64_t i = 0; i < n; i++) {
		const struct bad_time time = suffer(w, from + i);

		left_ns[i] = time.left_ns;
		taken_ns[i] = time.taken_ns;
	}
	if (n == 0)
		return true;
	bool ok = is_soon("a quarter begins to be lost: both by relay", left_ns, n, ONSET_P95, ONSET_MAX);
	return is_soon("no more is lost: both direct again", taken_ns, n, RETURN_P95, RETURN_MAX) && ok;
}

int main(int argc, char *argv[])
{
	static struct stage_world world;
	struct sim_options options;
	struct hour hour;
	bool ok = true;

	if (!sim_options_take(argc, argv, 4, true, &options))
		return 2;
	if (sodium_init() < 0)
		return 1;
	uint32_t c;
	for (c = 0; find_case(c, &hour); c++) {
		struct tally tally = { 0 };

		if (options.only != SIM_ALL_CASES && options.only != c)
			continue;
		for (uint64_t i = 0; i < options.n; i++)
			run(&world, options.from + i, &hour, options.trace, &tally);
		ok &= report(&hour, &tally);
		fflush(stdout);
	}
	if (options.only == SIM_ALL_CASES || options.only == c)
		ok &= is_left_soon_and_taken_again(&world, options.from, options.n);
	return ok ? 0 : 1;
}
