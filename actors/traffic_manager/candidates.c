#include "actors/traffic_manager/candidates.h"

#include "common/macros.h"

#include <stdlib.h>
#include <string.h>

/* Of two ways equally fast the one that does not leave the LAN. */
#define PUBLIC_COST_US 5000
/* A TURN server's bandwidth, and one more hop that can die: less than our own relay, which is for all. */
#define TURN_COST_US   10000

/* Pings closer than that are lost together: a short silence must not look like much loss. */
#define APART_NS 75000000u

/* So many in a row are not lost by chance. */
#define AWAY_PINGS 10

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

struct loss {
	int n, n_lost;
};

/* Of the last n that count. Those that may still be answered say nothing yet. */
static struct loss loss_of(const struct peer_candidate *candidate, uint32_t n)
{
	struct loss loss = { 0 };

	for (int i = 0; i < PEER_PING_WORDS && loss.n < (int)n; i++) {
		uint64_t counted = candidate->counted[i] & (i == 0 ? UINT64_MAX << ON_THE_WAY : UINT64_MAX);

		while (loss.n + __builtin_popcountll(counted) > (int)n)
			counted &= ~(1ull << (63 - __builtin_clzll(counted))); /* the oldest */
		loss.n += __builtin_popcountll(counted);
		loss.n_lost += __builtin_popcountll(counted & ~candidate->answered[i]);
	}
	return loss;
}

uint32_t candidate_n_lost_of(const struct peer_candidate *candidate, uint32_t n)
{
	return (uint32_t)loss_of(candidate, n).n_lost;
}

static void take_loss(struct peer_candidate *candidate)
{
	const struct loss loss = loss_of(candidate, PEER_N_LATE_PINGS);

	candidate->loss_permille = (uint16_t)(loss.n > 0 ? loss.n_lost * 1000 / loss.n : 0);
}

/* It was away since its last answer, which says nothing of what it loses. */
static void forget_silence(struct peer_candidate *candidate)
{
	uint32_t n = candidate->n_unanswered;

	for (int i = 0; i < PEER_PING_WORDS; i++) {
		candidate->counted[i] &= n < 64 ? UINT64_MAX << n : 0;
		n -= n < 64 ? n : 64;
	}
	take_loss(candidate);
}

void candidate_hope(struct peer_candidate *candidate)
{
	if (candidate->n_unanswered >= HOPELESS_PINGS)
		forget_silence(candidate);
	candidate->n_unanswered = 0;
}

static void note_answered(struct peer_candidate *candidate, uint32_t n_since)
{
	if (n_since >= 64)
		return;
	candidate->answered[0] |= 1ull << n_since;
	if (candidate->n_pongs == 0) { /* what was lost before the hole was open says nothing of the way */
		candidate->counted[0] &= (2ull << n_since) - 1;
		memset(&candidate->counted[1], 0, sizeof(candidate->counted) - sizeof(candidate->counted[0]));
	}
	take_loss(candidate);
}

static void shift_in(uint64_t words[PEER_PING_WORDS], bool bit)
{
	for (int i = PEER_PING_WORDS - 1; i > 0; i--)
		words[i] = words[i] << 1 | words[i - 1] >> 63;
	words[0] = words[0] << 1 | bit;
}

void candidate_on_ping_sent(struct peer_candidate *candidate, bool loaded, uint64_t now_ns)
{
	const bool counts = !loaded && now_ns - candidate->counted_ns >= APART_NS;

	shift_in(candidate->counted, counts);
	if (counts)
		candidate->counted_ns = now_ns;
	shift_in(candidate->answered, false);
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
	memset(candidate->counted, 0, sizeof(candidate->counted));
	memset(candidate->answered, 0, sizeof(candidate->answered));
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
	if (candidate->n_unanswered > AWAY_PINGS) /* this one was answered */
		forget_silence(candidate);
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

uint32_t candidate_base_us(const struct peer_candidate *candidate)
{
	uint32_t base = candidate_floor_us(candidate);

	if (candidate_is_by_turn(candidate))
		base += TURN_COST_US;
	return base + (endpoint_is_private(&candidate->endpoint) ? 0 : PUBLIC_COST_US);
}

uint32_t candidate_cost_us(const struct peer_candidate *candidate)
{
	return candidate_base_us(candidate) + candidate->loss_permille * PEER_LOSS_COST_US;
}

/* Rounded down. */
static uint32_t square_root(uint64_t n)
{
	uint64_t root = 0;

	for (uint64_t bit = 1u << 31; bit > 0; bit >>= 1)
		if ((root | bit) * (root | bit) <= n)
			root |= bit;
	return (uint32_t)root;
}

/*
 * Of n pings k were lost: Wilson's score interval, (k + z²/2 ± z √(k (n - k) / n + z²/4)) / (n + z²). Unlike k/n ± z σ it
 * holds for few pings, and where few are lost.
 */
uint32_t candidate_loss_bound(const struct peer_candidate *candidate, uint32_t n_last, int deviations)
{
	const struct loss seen = loss_of(candidate, n_last);
	const uint64_t n = (uint64_t)seen.n, k = (uint64_t)seen.n_lost, z = (uint64_t)abs(deviations);

	if (n == 0)
		return deviations > 0 ? 1000 : 0;
	const uint64_t middle = 1000 * (2 * k + z * z);
	const uint64_t root = z * square_root(1000000 * (4 * k * (n - k) / n + z * z));
	return (uint32_t)((deviations < 0 ? middle - root : middle + root) / (2 * (n + z * z)));
}
