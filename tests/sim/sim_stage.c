/*
 * The stage in a world of NATs, losses and faults: what must hold for every seed.
 *
 * A seed chooses two or three nodes, their NATs, distances, loss, and one fault. Then: traffic
 * starts at 2 s, the fault comes at 14 s, ends some seconds later, and the run ends at 45 s or so.
 *
 *  1. Under traffic no flow has a gap of more than a second while the receiver's relay works.
 *  2. Pairs whose NATs allow it are direct a few seconds after the first packet, and again after
 *     the fault; with the others packets keep going by relay, without flapping.
 *     A pair that fills the queue before its own direct path keeps the path all the while.
 *  3. No storm: session messages of a pair are bounded in every second, few in the steady state,
 *     none when idle.
 *  4. The machines' own invariants (asserted in them).
 *
 * sim_stage [--seeds N] [--from N]      many seeds; the failing one is printed
 * sim_stage --seed N [--trace]          one seed, with everything that happens
 */
#include "tests/sim/sim_options.h"
#include "tests/sim/stage_world.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define GAP_NS     SECONDS(1)
#define STORM      240 /* messages of one node to one peer in one second: a path of several addresses is lost, 20 probes a second */
#define STEADY     100 /* in a second without a fault: a survey, pings of one-way traffic, retries, a closer look at loss, a doubt */
#define DIRECT_NS  SECONDS(5)
#define TRAFFIC_AT SECONDS(2)
#define FAULT_AT   SECONDS(14)

enum fault {
	FAULT_NONE,
	FAULT_UDP_CUT,      /* one NAT lets no UDP pass for a while */
	FAULT_NAT_RESTART,  /* forgets all mappings */
	FAULT_NODE_RESTART, /* kill -9, then a new Session with a new key */
	FAULT_RELAY_RESTART,
	FAULT_CONTROL_AWAY,
	FAULT_MOVE,  /* another network, another NAT */
	FAULT_DEAF,  /* the victim's datagrams no longer reach one peer, all others pass */
	FAULT_LOSSY, /* the victim loses a third of what comes and goes */
	FAULT_PAUSE, /* no traffic for two minutes, then again */
	FAULT_DATA_CUT, /* the victim's data does not reach one peer directly; pings do */
	FAULT_LOAD,  /* the victim sends one peer more than its link takes; the relay is idle */
	N_FAULTS,
};

static const char *const fault_names[] = { "none",         "udp cut",       "nat restart",
					   "node restart", "relay restart", "control away",
					   "move",         "deaf",          "lossy",
					   "pause",        "data cut",      "load" };

struct scenario {
	struct stage_world world;
	enum fault fault;
	uint32_t victim; /* node, or relay */
	bool one_way, same_lan;
	uint64_t fault_ns; /* how long */
};

/* The worst of what was allowed, over all seeds. */
static struct {
	uint64_t gap_ns, gap_seed;
	uint64_t direct_ns, direct_seed; /* from the first packet to the direct path alone */
	uint32_t messages;
	uint64_t n_pairs, n_direct;
} worst;

static bool failed(const struct scenario *s, const char *what, uint32_t a, uint32_t b, double value)
{
	const struct stage_world *w = &s->world;

	fprintf(stderr,
		"seed %llu: %s: %u (%s) > %u (%s): %g; fault %s of %u, loss %.1f %%, at %.3f s\n"
		"replay: sim_stage --seed %llu --trace\n",
		(unsigned long long)w->seed, what, a, nat_name(world_nat_of(w, a)), b,
		nat_name(world_nat_of(w, b)), value, fault_names[s->fault], s->victim,
		w->loss * 100, (double)w->now_ns / 1e9, (unsigned long long)w->seed);
	return false;
}

/* ---- the scenario of a seed ---- */

static void choose_topology(struct scenario *s)
{
	struct stage_world *w = &s->world;

	w->n_nodes = world_random(w, 3) == 0 ? 3 : 2;
	s->same_lan = world_random(w, 8) == 0;
	if (!s->same_lan)
		return;
	w->isolated = world_random(w, 2) == 1;
	for (uint32_t i = 0; i < 2; i++) {
		w->nodes[i].nat = 0;
		w->nodes[i].local = endpoint_from_v4(0x0a000002u + i, 7000);
	}
}

static void choose(struct scenario *s, uint64_t seed, bool trace)
{
	struct stage_world *w = &s->world;

	memset(s, 0, sizeof(*s));
	world_init(w, seed, trace);
	choose_topology(s);
	w->loss = world_random(w, 2) ? 0 : (double)world_random(w, 50) / 1000;
	w->duplicates = (double)world_random(w, 2) / 100;
	w->jitter_ns = world_random(w, 3) * MS(5);
	s->fault = (enum fault)world_random(w, N_FAULTS);
	s->victim = (uint32_t)world_random(w, s->fault == FAULT_RELAY_RESTART ? MAX_RELAYS
									      : w->n_nodes);
	s->one_way = world_random(w, 4) == 0;
	s->fault_ns = SECONDS(3) + world_random(w, SECONDS(7));
	world_log(w, "seed %llu: %u nodes, fault %s of %u, loss %.1f %%, %s%s%s",
		  (unsigned long long)seed, w->n_nodes, fault_names[s->fault], s->victim,
		  w->loss * 100, s->one_way ? "one way" : "both ways",
		  s->same_lan ? ", one LAN" : "", w->isolated ? " with isolation" : "");
}

static void set_traffic(struct scenario *s, uint64_t interval_ns)
{
	for (uint32_t i = 0; i < s->world.n_nodes; i++)
		for (uint32_t k = 0; k < s->world.n_nodes; k++)
			if (i < k || (i > k && !s->one_way))
				world_set_flow(&s->world, i, k, interval_ns);
}

/* ---- what must hold ---- */

static bool can_be_direct(const struct scenario *s, uint32_t a, uint32_t b)
{
	const struct nat_rules *nat_a = world_nat_of(&s->world, a), *nat_b = world_nat_of(&s->world, b);

	if (nat_a && nat_a == nat_b)
		return !s->world.isolated;
	return nat_pair_can_be_direct(nat_a, nat_b);
}

/* Behind one NAT with isolation only hairpinning helps, and that depends: either is right. */
static bool may_be_either(const struct scenario *s, uint32_t a, uint32_t b)
{
	const struct nat_rules *nat = world_nat_of(&s->world, a);

	return nat && nat == world_nat_of(&s->world, b) && s->world.isolated;
}

static bool gaps_are_short(const struct scenario *s, const char *when)
{
	for (uint32_t i = 0; i < s->world.n_nodes; i++) {
		for (uint32_t k = 0; k < s->world.n_nodes; k++) {
			const struct flow *flow = &s->world.flows[i][k];

			if (flow->longest_gap_ns > worst.gap_ns) {
				worst.gap_ns = flow->longest_gap_ns;
				worst.gap_seed = s->world.seed;
			}
			if (flow->longest_gap_ns > GAP_NS) {
				fprintf(stderr, "gap since %.3f s, %s\n",
					(double)flow->longest_gap_at_ns / 1e9, when);
				return failed(s, "gap in seconds", i, k,
					      (double)flow->longest_gap_ns / 1e9);
			}
		}
	}
	return true;
}

static bool paths_are_right(const struct scenario *s, const char *when)
{
	const struct stage_world *w = &s->world;

	for (uint32_t i = 0; i < w->n_nodes; i++) {
		for (uint32_t k = 0; k < w->n_nodes; k++) {
			bool direct = w->nodes[i].views[k].fsm.state == PEER_ESTABLISHED;

			if (i == k || may_be_either(s, i, k) || direct == can_be_direct(s, i, k))
				continue;
			return failed(s, direct ? "direct though impossible" : when, i, k, 0);
		}
	}
	return true;
}

static bool there_is_no_storm(const struct scenario *s, uint32_t limit)
{
	const struct stage_world *w = &s->world;

	for (uint32_t i = 0; i < w->n_nodes; i++) {
		for (uint32_t k = 0; k < w->n_nodes; k++) {
			uint32_t n = w->nodes[i].views[k].most_messages;

			if (n > worst.messages)
				worst.messages = n;
			if (n > limit)
				return failed(s, "messages in a second", i, k, n);
		}
	}
	return true;
}

static void note_direct(const struct scenario *s)
{
	for (uint32_t i = 0; i < s->world.n_nodes; i++) {
		for (uint32_t k = 0; k < s->world.n_nodes; k++) {
			const struct peer_fsm *fsm = &s->world.nodes[i].views[k].fsm;

			worst.n_pairs += i != k;
			if (i == k || fsm->state != PEER_ESTABLISHED)
				continue;
			worst.n_direct++;
			if (fsm->established_ns - TRAFFIC_AT <= worst.direct_ns)
				continue;
			worst.direct_ns = fsm->established_ns - TRAFFIC_AT;
			worst.direct_seed = s->world.seed;
		}
	}
}

static void reset_counts(struct scenario *s)
{
	for (uint32_t i = 0; i < s->world.n_nodes; i++) {
		for (uint32_t k = 0; k < s->world.n_nodes; k++) {
			struct view *view = &s->world.nodes[i].views[k];

			view->most_messages = view->n_messages = view->n_messages_ever = 0;
			view->n_falls = view->n_path_changes = 0;
		}
	}
}

static bool nothing_flaps(const struct scenario *s)
{
	const struct stage_world *w = &s->world;

	for (uint32_t i = 0; i < w->n_nodes; i++)
		for (uint32_t k = 0; k < w->n_nodes; k++)
			if (w->nodes[i].views[k].n_falls > 0)
				return failed(s, "falls from direct to relay", i, k,
					      w->nodes[i].views[k].n_falls);
	return true;
}

static bool load_is_no_reason_to_leave(const struct scenario *s)
{
	uint32_t a = s->victim, b = (s->victim + 1) % s->world.n_nodes;

	if (!can_be_direct(s, a, b) || may_be_either(s, a, b))
		return true;
	for (int i = 0; i < 2; i++) {
		const struct view *view = i ? &s->world.nodes[b].views[a] : &s->world.nodes[a].views[b];

		if (view->n_falls > 0 || view->direct_ns == 0)
			return failed(s, "left for the relay under load", i ? b : a, i ? a : b,
				      view->n_falls);
	}
	return true;
}

/* ---- the run ---- */

static bool run_quiet_part(struct scenario *s)
{
	struct stage_world *w = &s->world;

	for (uint32_t i = 0; i < w->n_nodes; i++) {
		world_run_until(w, MS(1) + i * world_random(w, MS(400)));
		world_start_node(w, i);
	}
	world_run_until(w, TRAFFIC_AT);
	if (!there_is_no_storm(s, 0)) /* nobody wants anything yet */
		return false;
	set_traffic(s, MS(40));
	world_run_until(w, TRAFFIC_AT + DIRECT_NS);
	if (!gaps_are_short(s, "at the start") || !paths_are_right(s, "not direct after the start"))
		return false;
	note_direct(s);
	reset_counts(s);
	world_run_until(w, FAULT_AT);
	return gaps_are_short(s, "before the fault") && there_is_no_storm(s, STEADY) &&
	       nothing_flaps(s);
}

/* An eighth more than the link takes: the queue fills, and drops. */
static void load(struct scenario *s)
{
	struct stage_world *w = &s->world;
	uint32_t peer = (s->victim + 1) % w->n_nodes;

	s->fault_ns = SECONDS(25); /* two surveys and more */
	reset_counts(s);
	world_set_link(w, s->victim, 2000, MS(50) + world_random(w, MS(200)));
	world_set_flow(w, s->victim, peer, MS(5) / 2);
	w->flows[s->victim][peer].packet_bytes = 1400;
	world_log(w, "node %u fills its link", s->victim);
}

/* The fault begins. Returns the time until which gaps are forgiven, as the fault itself makes them.
 */
static uint64_t begin_fault(struct scenario *s)
{
	struct stage_world *w = &s->world;
	struct sim_node *node = &w->nodes[s->victim % w->n_nodes];

	switch (s->fault) {
	case FAULT_UDP_CUT:
		if (node->nat >= 0)
			w->nats[node->nat].udp_cut = true;
		world_log(w, "udp is cut at node %u", s->victim);
		return 0;
	case FAULT_NAT_RESTART:
		if (node->nat >= 0)
			nat_forget(&w->nats[node->nat].nat);
		world_log(w, "the nat of node %u forgets", s->victim);
		return 0;
	case FAULT_NODE_RESTART:
		world_stop_node(w, s->victim);
		s->fault_ns = MS(200) + world_random(w, MS(800));
		return s->fault_ns + MS(400); /* until it is connected to its relays */
	case FAULT_RELAY_RESTART:
		world_set_relay(w, s->victim, false);
		return s->fault_ns + MS(300);
	case FAULT_CONTROL_AWAY:
		world_set_control(w, false);
		return 0;
	case FAULT_MOVE:
		world_move_node(w, s->victim, MAX_NATS - 1);
		return MS(600); /* it notices, and is connected to its relays again */
	case FAULT_DEAF:
		w->loss_from[s->victim][(s->victim + 1) % w->n_nodes] = 1;
		return 0;
	case FAULT_DATA_CUT:
		w->data_cut[s->victim][(s->victim + 1) % w->n_nodes] = true;
		return 0;
	case FAULT_LOSSY:
		for (uint32_t i = 0; i < w->n_nodes; i++)
			w->loss_from[s->victim][i] = w->loss_from[i][s->victim] = 0.33;
		return 0;
	case FAULT_PAUSE:
		set_traffic(s, 0);
		s->fault_ns = SECONDS(120);
		return 0;
	case FAULT_LOAD:
		load(s);
		return 0;
	case FAULT_NONE:
	case N_FAULTS:
		break;
	}
	return 0;
}

static void end_fault(struct scenario *s)
{
	struct stage_world *w = &s->world;
	struct sim_node *node = &w->nodes[s->victim % w->n_nodes];

	if (s->fault == FAULT_UDP_CUT && node->nat >= 0)
		w->nats[node->nat].udp_cut = false;
	if (s->fault == FAULT_NODE_RESTART)
		world_start_node(w, s->victim);
	if (s->fault == FAULT_RELAY_RESTART)
		world_set_relay(w, s->victim, true);
	if (s->fault == FAULT_CONTROL_AWAY)
		world_set_control(w, true);
	memset(w->loss_from, 0, sizeof(w->loss_from));
	memset(w->data_cut, 0, sizeof(w->data_cut));
	if (s->fault == FAULT_LOAD)
		world_set_link(w, s->victim, 0, 0);
	if (s->fault == FAULT_PAUSE || s->fault == FAULT_LOAD)
		set_traffic(s, MS(40));
	world_log(w, "the fault is over");
}

/* While nobody sends, nothing is sent, once the paths have been let go. */
static bool pause_is_silent(struct scenario *s)
{
	world_run_until(&s->world, FAULT_AT + SECONDS(75));
	reset_counts(s);
	world_run_until(&s->world, FAULT_AT + s->fault_ns);
	return there_is_no_storm(s, 0);
}

static bool run_fault_part(struct scenario *s)
{
	struct stage_world *w = &s->world;
	uint64_t forgiven_ns = begin_fault(s);
	uint64_t over_ns = FAULT_AT + s->fault_ns;

	if (s->fault == FAULT_PAUSE && !pause_is_silent(s))
		return false;
	if (forgiven_ns <= s->fault_ns) {
		world_run_until(w, FAULT_AT + forgiven_ns);
		if (forgiven_ns > 0)
			world_reset_gaps(w);
		world_run_until(w, over_ns);
		if (s->fault == FAULT_LOAD && !load_is_no_reason_to_leave(s))
			return false;
		end_fault(s);
	} else {
		world_run_until(w, over_ns);
		end_fault(s);
		world_run_until(w, FAULT_AT + forgiven_ns);
		world_reset_gaps(w);
	}
	world_run_until(w, over_ns + SECONDS(3));
	if (!gaps_are_short(s, "in or after the fault"))
		return false;
	world_run_until(w, over_ns + SECONDS(20));
	return gaps_are_short(s, "after the fault") && paths_are_right(s, "not direct again") &&
	       there_is_no_storm(s, STORM);
}

static bool run(uint64_t seed, bool trace, struct scenario *s)
{
	bool ok;

	choose(s, seed, trace);
	ok = run_quiet_part(s) && run_fault_part(s);
	world_deinit(&s->world);
	return ok;
}

int main(int argc, char *argv[])
{
	static struct scenario scenario;
	struct sim_options options;
	uint64_t n_failed = 0;

	if (!sim_options_take(argc, argv, 1000, false, &options))
		return 2;
	if (sodium_init() < 0)
		return 1;
	for (uint64_t i = 0; i < options.n && (options.keeps_going || n_failed == 0); i++)
		n_failed += !run(options.from + i, options.trace, &scenario);
	if (n_failed == 0)
		printf("%llu seeds ok: longest gap %.2f s (seed %llu), slowest direct %.2f s (seed %llu), "
		       "%llu of %llu pairs direct, most messages in a second %u\n",
		       (unsigned long long)options.n, (double)worst.gap_ns / 1e9,
		       (unsigned long long)worst.gap_seed, (double)worst.direct_ns / 1e9,
		       (unsigned long long)worst.direct_seed, (unsigned long long)worst.n_direct,
		       (unsigned long long)worst.n_pairs, worst.messages);
	return n_failed > 0;
}
