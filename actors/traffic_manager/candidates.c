#include "actors/traffic_manager/candidates.h"

#include "common/macros.h"

#include <string.h>

/* A lost packet costs about a retransmission timeout: 10 % loss weighs as much as 40 ms. */
#define LOSS_COST_US   400
/* Of two ways equally fast the one that does not leave the LAN. */
#define PUBLIC_COST_US 5000
/* A TURN server's bandwidth, and one more hop that can die: less than our own relay, which is for all. */
#define TURN_COST_US   10000

#define ON_THE_WAY 2 /* pings come that fast where they do not wait for each other's answers */

/* For an answer: one and a half round trips and a little, at least. */
#define WAIT_EXTRA_NS 30000000u
#define WAIT_MIN_NS   100000000u

/* Where pings pass and data does not, data is tried again after so long; twice as long each time. */
#define CLOSED_MIN_NS 10000000000u
#define CLOSED_MAX_NS 600000000000u

bool candidate_is_sane(const struct endpoint *endpoint)
{
	static const uint8_t v4_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
	static const uint8_t unspecified[16];

	if (endpoint->port == 0)
		return false;
	if (memcmp(endpoint->ip, v4_prefix, sizeof(v4_prefix)) == 0)
		return endpoint->ip[12] != 0 && endpoint->ip[12] < 224;
	return endpoint->ip[0] != 0xff && memcmp(endpoint->ip, unspecified, 16) != 0;
}

int candidates_find(const struct peer_candidates *set, const struct endpoint *endpoint)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		if (set->all[i].origin && endpoint_equal(&set->all[i].endpoint, endpoint))
			return i;
	return -1;
}

bool candidates_is_empty(const struct peer_candidates *set)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		if (set->all[i].origin)
			return false;
	return true;
}

/* A slot is free when nobody names it and its AKA has been taken back. */
static int add(struct peer_candidates *set, const struct endpoint *endpoint,
	       enum peer_origin origin)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		struct peer_candidate *c = &set->all[i];

		if (c->origin || c->aka)
			continue;
		*c = (struct peer_candidate){ .endpoint = *endpoint,
					      .origin = (uint8_t)origin,
					      .generation = (uint8_t)(c->generation + 1) };
		return i;
	}
	return -1;
}

/* Keeps the number of learned ones within its bound: the one silent longest goes. */
static void make_room(struct peer_candidates *set, int keep)
{
	int n = 0, oldest = -1;

	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		const struct peer_candidate *c = &set->all[i];

		if (!(c->origin & PEER_LEARNED))
			continue;
		n++;
		if (i != keep && (oldest < 0 || c->heard_ns < set->all[oldest].heard_ns))
			oldest = i;
	}
	if (n >= PEER_MAX_LEARNED && oldest >= 0)
		set->all[oldest].origin &= (uint8_t)~PEER_LEARNED;
}

int candidates_learn(struct peer_candidates *set, const struct endpoint *endpoint, int keep)
{
	int i = candidates_find(set, endpoint);

	if (i >= 0 || !candidate_is_sane(endpoint))
		return i;
	make_room(set, keep);
	return add(set, endpoint, PEER_LEARNED);
}

uint32_t candidates_replace(struct peer_candidates *set, enum peer_origin origin,
			    const struct endpoint *endpoints, uint32_t n, int keep)
{
	uint32_t limit =
		origin == PEER_FROM_MAP ? PEER_MAX_MAP_ENDPOINTS : PEER_MAX_RENDEZVOUS_ENDPOINTS;
	bool named[PEER_MAX_CANDIDATES] = { false };
	uint32_t n_new = 0;

	/* First who stays, then who goes, then who comes: the table never holds more than its
	 * bounds. */
	for (uint32_t e = 0; e < n && e < limit; e++) {
		int i = candidates_find(set, &endpoints[e]);

		if (i >= 0)
			named[i] = true;
	}
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		struct peer_candidate *c = &set->all[i];

		if (named[i]) {
			c->origin |= (uint8_t)origin;
			continue;
		}
		if (c->origin == (uint8_t)origin && i == keep) {
			make_room(set, keep);
			c->origin = PEER_LEARNED;
		}
		c->origin &= (uint8_t)~origin;
	}
	for (uint32_t e = 0; e < n && e < limit; e++) {
		/* What is told of the loopback would be our own; who was heard there comes by p2pturn. */
		if (!candidate_is_sane(&endpoints[e]) || endpoint_is_loopback(&endpoints[e]) ||
		    candidates_find(set, &endpoints[e]) >= 0)
			continue;
		if (add(set, &endpoints[e], origin) >= 0)
			n_new++;
	}
	return n_new;
}

void candidates_drop_learned(struct peer_candidates *set, int keep)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		if (i != keep)
			set->all[i].origin &= (uint8_t)~PEER_LEARNED;
}

uint64_t candidate_wait_ns(const struct peer_candidate *candidate)
{
	uint64_t wait_ns = (uint64_t)candidate->latency_us * 1500 + WAIT_EXTRA_NS;

	return wait_ns > WAIT_MIN_NS ? wait_ns : WAIT_MIN_NS;
}

/* Those that may still be answered say nothing yet. */
static uint32_t n_known(const struct peer_candidate *candidate)
{
	return (uint32_t)__builtin_popcountll(candidate->counted >> ON_THE_WAY);
}

static uint32_t n_lost(const struct peer_candidate *candidate)
{
	return (uint32_t)__builtin_popcountll((candidate->counted & ~candidate->answered) >> ON_THE_WAY);
}

uint32_t candidate_n_lost_of(const struct peer_candidate *candidate, uint32_t n)
{
	uint64_t lost = (candidate->counted & ~candidate->answered) >> ON_THE_WAY;

	return (uint32_t)__builtin_popcountll(n < 64 ? lost & ((1ull << n) - 1) : lost);
}

static void take_loss(struct peer_candidate *candidate)
{
	uint32_t n = n_known(candidate);

	candidate->loss_permille = (uint16_t)(n > 0 ? n_lost(candidate) * 1000 / n : 0);
}

static void note_answered(struct peer_candidate *candidate, uint32_t n_since)
{
	if (n_since >= 64)
		return;
	candidate->answered |= 1ull << n_since;
	if (candidate->n_pongs == 0) /* what was lost before the hole was open says nothing of the way */
		candidate->counted &= (2ull << n_since) - 1;
	take_loss(candidate);
}

void candidate_on_ping_sent(struct peer_candidate *candidate, bool loaded, uint64_t now_ns)
{
	candidate->counted = candidate->counted << 1 | !loaded;
	candidate->answered <<= 1;
	take_loss(candidate);
	if (candidate->n_unanswered < UINT8_MAX)
		candidate->n_unanswered++;
	candidate->n_pings++;
	candidate->ping_ns = now_ns;
}

uint32_t candidate_floor_us(const struct peer_candidate *candidate)
{
	uint32_t floor_us = 0;

	for (int i = 0; i < PEER_N_ROUND_TRIPS; i++) {
		uint32_t us = candidate->round_trips_us[i];

		if (us > 0 && (floor_us == 0 || us < floor_us))
			floor_us = us;
	}
	return floor_us;
}

void candidate_forget_measures(struct peer_candidate *candidate)
{
	candidate->latency_us = 0;
	candidate->by_turn = false;
	memset(candidate->round_trips_us, 0, sizeof(candidate->round_trips_us));
	candidate->n_calm = 0;
	candidate->n_pongs = 0;
	candidate->counted = candidate->answered = 0;
	candidate->loss_permille = 0;
	candidate->n_unanswered = 0;
}

void candidate_close(struct peer_candidate *candidate, uint64_t now_ns)
{
	uint64_t wait_ns = CLOSED_MIN_NS << (candidate->n_closed < 6 ? candidate->n_closed : 6);

	candidate->closed_until_ns = now_ns + (wait_ns < CLOSED_MAX_NS ? wait_ns : CLOSED_MAX_NS);
	if (candidate->n_closed < UINT8_MAX)
		candidate->n_closed++;
}

void candidate_open(struct peer_candidate *candidate)
{
	candidate->closed_until_ns = 0;
	candidate->n_closed = 0;
}

bool candidate_is_closed(const struct peer_candidate *candidate, uint64_t now_ns)
{
	return candidate->closed_until_ns > now_ns;
}

static void note_round_trip(struct peer_candidate *candidate, uint32_t round_trip_us, bool loaded)
{
	uint32_t floor_us = candidate_floor_us(candidate);

	if (loaded && floor_us > 0 && round_trip_us >= floor_us)
		return;
	candidate->round_trips_us[candidate->next_round_trip] = round_trip_us > 0 ? round_trip_us : 1;
	candidate->next_round_trip =
		(uint8_t)((candidate->next_round_trip + 1) % PEER_N_ROUND_TRIPS);
}

void candidate_on_pong(struct peer_candidate *candidate, uint32_t n_since, uint32_t round_trip_us, bool loaded,
		       uint64_t now_ns)
{
	uint64_t smoothed = ((uint64_t)candidate->latency_us * 7 + round_trip_us) / 8;

	if (candidate->latency_us == 0)
		smoothed = round_trip_us;
	candidate->latency_us = smoothed > 0 ? (uint32_t)smoothed : 1;
	note_round_trip(candidate, round_trip_us, loaded);
	if (!loaded && candidate->n_calm < UINT8_MAX)
		candidate->n_calm++;
	note_answered(candidate, n_since);
	if (candidate->n_pongs < UINT16_MAX)
		candidate->n_pongs++;
	candidate->n_unanswered = 0;
	candidate->pong_ns = now_ns;
	candidate->heard_ns = now_ns;
}

bool candidate_is_by_turn(const struct peer_candidate *candidate)
{
	return candidate->by_turn || endpoint_is_loopback(&candidate->endpoint);
}

static uint32_t cost_us(const struct peer_candidate *candidate, uint32_t loss_permille)
{
	uint32_t cost = candidate_floor_us(candidate) + loss_permille * LOSS_COST_US;

	if (candidate_is_by_turn(candidate))
		cost += TURN_COST_US;
	return cost + (endpoint_is_private(&candidate->endpoint) ? 0 : PUBLIC_COST_US);
}

uint32_t candidate_cost_us(const struct peer_candidate *candidate)
{
	return cost_us(candidate, candidate->loss_permille);
}

static int square_root(int n)
{
	int root = 0;

	while ((root + 1) * (root + 1) <= n)
		root++;
	return root;
}

uint32_t candidate_cost_deviated_us(const struct peer_candidate *candidate, int deviations)
{
	/* As if one more had been lost and one answered: a few answers do not say that nothing is lost. */
	int n = (int)n_known(candidate) + 2;
	int loss = (int)(n_lost(candidate) + 1) * 1000 / n;

	loss += deviations * square_root(loss * (1000 - loss) / n);
	return cost_us(candidate, loss < 0 ? 0 : loss > 1000 ? 1000 : (uint32_t)loss);
}
