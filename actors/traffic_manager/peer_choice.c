/*
 * Which way to a peer is best, by latency and loss, and when is another one so much better that it is worth a change?
 * Only the judgement: what follows from it is done in peer_deeds.c.
 */
#include "actors/traffic_manager/peer_choice.h"

#include "actors/traffic_manager/peer_deeds.h"

#define MIN_PONGS      3
#define MIN_CALM       3     /* round trips without load, to say that a direct way is slow */
#define RELAY_COST_US  15000 /* the relay is the owner's bandwidth and one more hop that can die */
#define BETTER_MIN_US  3000
#define LOSSY_PERMILLE 20 /* above it loss is an estimate, with an error: */
#define SURE_OF_NOW    3  /* standard deviations for the way in use … */
#define SURE_OF_OTHER  1  /* … and for one that shall replace it */

static bool is_measured(const struct peer_candidate *c, uint64_t now_ns)
{
	return c->n_pongs >= MIN_PONGS && now_ns - c->pong_ns < FRESH_NS && c->n_unanswered < 3;
}

static const struct peer_candidate *way_in_use(struct peer_fsm *fsm)
{
	return fsm->prefers_relay ? &fsm->relay : peer_current(fsm);
}

bool peer_is_lossy(const struct peer_candidate *c)
{
	return c->loss_permille > LOSSY_PERMILLE;
}

/* At least so much the way in use costs: who leaves it must be sure of its loss. */
static uint32_t cost_now_us(struct peer_fsm *fsm)
{
	const struct peer_candidate *c = way_in_use(fsm);
	uint32_t cost = peer_is_lossy(c) ? candidate_cost_deviated_us(c, -SURE_OF_NOW) : candidate_cost_us(c);

	return cost + (fsm->prefers_relay ? RELAY_COST_US : 0);
}

/* And at most so much another one. */
static uint32_t cost_other_us(struct peer_fsm *fsm, const struct peer_candidate *c)
{
	bool is_return = fsm->prefers_relay && c->loss_permille > 0; /* to what it was left for, perhaps */
	bool is_exact = !is_return && !peer_is_lossy(c) && !peer_is_lossy(way_in_use(fsm));
	uint32_t cost = is_exact ? candidate_cost_us(c) : candidate_cost_deviated_us(c, SURE_OF_OTHER);

	return cost + (c == &fsm->relay ? RELAY_COST_US : 0);
}

/* Only where the direct way was slow or lossy without load: else it may be we who make it so. */
static bool may_prefer_relay(struct peer_fsm *fsm, uint64_t now_ns)
{
	return !fsm->prefers_relay && fsm->relay_up && is_measured(&fsm->relay, now_ns) &&
	       peer_current(fsm)->n_calm >= MIN_CALM;
}

int peer_best_other(struct peer_fsm *fsm, uint64_t now_ns, uint32_t *ret_cost_us)
{
	int best = -1;

	*ret_cost_us = UINT32_MAX;
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		const struct peer_candidate *c = &fsm->candidates.all[i];

		if (!c->origin || !is_measured(c, now_ns) || candidate_is_closed(c, now_ns) ||
		    (i == fsm->current && !fsm->prefers_relay) ||
		    cost_other_us(fsm, c) >= *ret_cost_us)
			continue;
		best = i;
		*ret_cost_us = cost_other_us(fsm, c);
	}
	if (may_prefer_relay(fsm, now_ns) && cost_other_us(fsm, &fsm->relay) < *ret_cost_us) {
		best = RELAY_SLOT;
		*ret_cost_us = cost_other_us(fsm, &fsm->relay);
	}
	return best;
}

/* How much better another way must be. Back from a relay, ours or TURN's, we go as soon as direct is as good. */
static uint32_t margin_us(const struct peer_fsm *fsm, int other, uint32_t now_us)
{
	const struct peer_candidate *all = fsm->candidates.all;

	if (fsm->prefers_relay)
		return 0;
	if (other != RELAY_SLOT && candidate_is_by_turn(&all[fsm->current]) && !candidate_is_by_turn(&all[other]))
		return 0;
	return now_us / 5 > BETTER_MIN_US ? now_us / 5 : BETTER_MIN_US;
}

bool peer_is_better(struct peer_fsm *fsm, int other, uint32_t cost_us)
{
	const uint32_t now_us = cost_now_us(fsm);

	return other >= 0 && cost_us + margin_us(fsm, other, now_us) < now_us;
}
