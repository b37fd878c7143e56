/*
 * Which way to a peer is best, by latency and loss, and when is another one so much better that it is worth a change?
 * Only the judgement: what follows from it is done in peer_deeds.c.
 */
#include "actors/traffic_manager/peer_choice.h"

#define MIN_PONGS      3
#define MIN_CALM       3     /* round trips without load, to say that a direct way is slow */
#define RELAY_COST_US  15000 /* the relay is the owner's bandwidth and one more hop that can die */
#define BETTER_MIN_US  3000
#define LOSSY_PERMILLE 20
/* Loss is an estimate, with an error: so many standard deviations for the way in use, and for one that shall replace it. */
#define SURE_OF_NOW    5
#define SURE_OF_OTHER  2

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

static uint32_t base_us(const struct peer_fsm *fsm, const struct peer_candidate *c)
{
	return candidate_base_us(c) + (c == &fsm->relay ? RELAY_COST_US : 0);
}

/*
 * So much is lost at least on the way in use. Much of it is certain after few pings, a little after many; and those may be of
 * long ago, so they say no more than what is still lost.
 */
static uint32_t least_loss(const struct peer_candidate *c)
{
	const uint32_t lately = candidate_loss_bound(c, PEER_N_LATE_PINGS, -SURE_OF_NOW);
	const uint32_t ever = candidate_loss_bound(c, PEER_N_PINGS, -SURE_OF_NOW);
	const uint32_t still = ever < c->loss_permille ? ever : c->loss_permille;

	return lately > still ? lately : still;
}

/* And at most so much on another one: perhaps it was asked a few times only. */
static uint32_t most_loss(const struct peer_candidate *c)
{
	const uint32_t ever = candidate_loss_bound(c, PEER_N_PINGS, SURE_OF_OTHER);

	return ever > c->loss_permille ? ever : c->loss_permille;
}

static uint32_t most_cost_us(const struct peer_fsm *fsm, const struct peer_candidate *c)
{
	return base_us(fsm, c) + most_loss(c) * PEER_LOSS_COST_US;
}

static bool is_lossier(const struct peer_candidate *c, const struct peer_candidate *than)
{
	return candidate_loss_bound(c, PEER_N_LATE_PINGS, -1) > candidate_loss_bound(than, PEER_N_LATE_PINGS, 1) ||
	       candidate_loss_bound(c, PEER_N_PINGS, -1) > candidate_loss_bound(than, PEER_N_PINGS, 1);
}

/* Only where the direct way was slow or lossy without load: else it may be we who make it so. */
static bool may_prefer_relay(struct peer_fsm *fsm, uint64_t now_ns)
{
	return !fsm->prefers_relay && fsm->relay_up && is_measured(&fsm->relay, now_ns) &&
	       peer_current(fsm)->n_calm >= MIN_CALM;
}

/* How much better another way must be. Back from a relay, ours or TURN's, we go as soon as direct is as good. */
static uint32_t margin_us(struct peer_fsm *fsm, const struct peer_candidate *other, uint32_t now_us)
{
	if (fsm->prefers_relay)
		return 0;
	if (other != &fsm->relay && candidate_is_by_turn(peer_current(fsm)) && !candidate_is_by_turn(other))
		return 0;
	return now_us / 5 > BETTER_MIN_US ? now_us / 5 : BETTER_MIN_US;
}

static bool is_nearer(struct peer_fsm *fsm, const struct peer_candidate *other)
{
	const uint32_t now_us = base_us(fsm, way_in_use(fsm));

	return base_us(fsm, other) + margin_us(fsm, other, now_us) < now_us;
}

static bool is_cheaper(struct peer_fsm *fsm, const struct peer_candidate *other)
{
	const uint32_t now_us = base_us(fsm, way_in_use(fsm)) + least_loss(way_in_use(fsm)) * PEER_LOSS_COST_US;

	return most_cost_us(fsm, other) + margin_us(fsm, other, now_us) < now_us;
}

/* Nearer, and as far as we know no worse; or surely better. Back to what lost much only if that, by whatever address: it may be the same line. */
static bool is_better(struct peer_fsm *fsm, const struct peer_candidate *other)
{
	const bool is_return = fsm->prefers_relay && fsm->was_lossy;

	return (!is_return && is_nearer(fsm, other) && !is_lossier(other, way_in_use(fsm))) || is_cheaper(fsm, other);
}

int peer_best_other(struct peer_fsm *fsm, bool must_be_better, uint64_t now_ns)
{
	const struct peer_candidate *best = NULL;

	for (int i = 0; i < PEER_MAX_CANDIDATES + 1; i++) {
		const bool is_relay = i == PEER_MAX_CANDIDATES;
		const struct peer_candidate *c = is_relay ? &fsm->relay : &fsm->candidates.all[i];

		if (is_relay ? !may_prefer_relay(fsm, now_ns)
			     : !c->origin || !is_measured(c, now_ns) || candidate_is_closed(c, now_ns))
			continue;
		if (c == way_in_use(fsm) || (must_be_better && !is_better(fsm, c)))
			continue;
		if (!best || most_cost_us(fsm, c) < most_cost_us(fsm, best))
			best = c;
	}
	return !best ? -1 : best == &fsm->relay ? RELAY_SLOT : (int)(best - fsm->candidates.all);
}
