#include "actors/traffic_manager/peer_hard_nat.h"

#include "common/log.h"
#include "common/random_seed.h"

#include <string.h>

#define TELL_NS	 1000000000u
#define MAX_TOLD 5

static struct hard_nat_facts facts_of(const struct session_nat *nat)
{
	return (struct hard_nat_facts){ .mapping = (enum nat_dependence)nat->mapping,
					.filtering = (enum nat_dependence)nat->filtering,
					.ports = (enum nat_ports_kind)nat->ports,
					.step = nat->step,
					.low_port = nat->low_port,
					.high_port = nat->high_port,
					.last_port = nat->last_port,
					.n_ports = nat->n_ports,
					.outside = nat->outside };
}

/* ---- what is sent ---- */

static void seal(const struct peer_hard_nat *hard_nat, const struct via *via, const struct session_message *session)
{
	struct message message = { .type = MESSAGE_SEAL,
				   .peer_id = hard_nat->peer_id,
				   .via = { .by_relay = via->by_relay, .endpoint = via->endpoint },
				   .session = *session };

	stage_post(hard_nat->stage, ACTOR_TRAFFIC_MANAGER, ACTOR_SESSION_MANAGER, &message);
}

static void tell(struct peer_hard_nat *hard_nat, bool has_begun)
{
	const struct session_message message = { .type = has_begun ? SESSION_SEARCH : SESSION_NAT,
						 .nat = hard_nat->ours };

	hard_nat->told_ns = stage_now_ns(hard_nat->stage);
	seal(hard_nat, &(struct via){ .by_relay = true }, &message);
}

/* Nobody waits for its pong: who gets it asks back. */
static void send_ping(struct peer_hard_nat *hard_nat, const struct endpoint *to)
{
	struct session_message ping = { .type = SESSION_PING, .n_padding = SESSION_PING_PADDING };

	randombytes_buf(ping.tx_id, sizeof(ping.tx_id));
	seal(hard_nat, &(struct via){ .endpoint = *to }, &ping);
}

/* ---- what the machine decides ---- */

static void carry_out(struct peer_hard_nat *hard_nat, const struct hard_nat_action *action)
{
	const struct hard_nat_ports *ports = hard_nat->ports;
	int r;

	switch (action->type) {
	case HARD_NAT_DO_TELL:
		tell(hard_nat, true);
		break;
	case HARD_NAT_DO_OPEN:
		r = ports->open ? ports->open(ports->owner, hard_nat->peer_id, action->n, &hard_nat->fsm.theirs.outside) :
				  -1;
		if (r != 0)
			log_debug("traffic", "peer=%u: no sockets to search its way through our NAT (%d)",
				  hard_nat->peer_id, r);
		hard_nat->is_refused = r != 0;
		hard_nat->n_told = r == 0 ? 0 : hard_nat->n_told;
		break;
	case HARD_NAT_DO_KNOCK:
		if (ports->knock)
			ports->knock(ports->owner, hard_nat->peer_id, action->n, &action->to);
		break;
	case HARD_NAT_DO_PING:
		send_ping(hard_nat, &action->to);
		break;
	case HARD_NAT_DO_CLOSE:
		if (ports->close)
			ports->close(ports->owner, hard_nat->peer_id);
		break;
	}
}

static uint64_t later(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns > b_ns ? a_ns : b_ns;
}

/* A second apart, and five times; ten minutes later again. */
static void plan_telling(struct peer_hard_nat *hard_nat)
{
	const uint64_t now_ns = stage_now_ns(hard_nat->stage);
	uint64_t at_ns = hard_nat_fsm_tell_at(&hard_nat->fsm, now_ns);

	if (at_ns == UINT64_MAX)
		return;
	if (hard_nat->told_ns != 0)
		at_ns = later(at_ns, hard_nat->told_ns + (hard_nat->n_told < MAX_TOLD ? TELL_NS : HARD_NAT_RENEWED_NS));
	if (at_ns <= now_ns) {
		hard_nat->n_told = hard_nat->n_told < MAX_TOLD ? hard_nat->n_told + 1 : 1;
		tell(hard_nat, false);
		hard_nat_fsm_told(&hard_nat->fsm, now_ns);
		at_ns = now_ns + TELL_NS;
	}
	if (hard_nat->deadline_ns == 0 || at_ns < hard_nat->deadline_ns)
		hard_nat->deadline_ns = at_ns;
}

static void step(struct peer_hard_nat *hard_nat, struct hard_nat_input input)
{
	struct hard_nat_actions actions;

	input.now_ns = stage_now_ns(hard_nat->stage);
	hard_nat_fsm_step(&hard_nat->fsm, &input, &actions);
	for (uint32_t i = 0; i < actions.n; i++)
		carry_out(hard_nat, &actions.all[i]);
	if (hard_nat->is_refused) {
		hard_nat->is_refused = false;
		hard_nat_fsm_step(&hard_nat->fsm,
				  &(struct hard_nat_input){ .type = HARD_NAT_IN_REFUSED, .now_ns = input.now_ns }, &actions);
	}
	hard_nat->deadline_ns = hard_nat->fsm.deadline_ns;
	plan_telling(hard_nat);
}

/* ---- what happens ---- */

void peer_hard_nat_init(struct peer_hard_nat *hard_nat, struct stage *stage, const struct hard_nat_ports *ports,
			struct hard_nat_turn *turn, uint32_t peer_id)
{
	hard_nat_fsm_init(&hard_nat->fsm, turn, random_seed());
	hard_nat->stage = stage;
	hard_nat->ports = ports;
	hard_nat->peer_id = peer_id;
}

void peer_hard_nat_end(struct peer_hard_nat *hard_nat)
{
	if (hard_nat->ports->end)
		hard_nat->ports->end(hard_nat->ports->owner, hard_nat->peer_id);
}

void peer_hard_nat_follow(struct peer_hard_nat *hard_nat, bool has_traffic, bool is_direct)
{
	const bool is_wanted = has_traffic && !is_direct;

	if (is_wanted == hard_nat->is_wanted && is_direct == hard_nat->is_direct)
		return;
	hard_nat->is_wanted = is_wanted;
	hard_nat->is_direct = is_direct;
	if (is_direct)
		step(hard_nat, (struct hard_nat_input){ .type = HARD_NAT_IN_DIRECT });
	else
		step(hard_nat, (struct hard_nat_input){ .type = HARD_NAT_IN_WANTED, .flag = is_wanted });
}

void peer_hard_nat_on_ours(struct peer_hard_nat *hard_nat, const struct session_nat *nat)
{
	const struct endpoint *before = &hard_nat->fsm.our_network; /* as last known: in between it may not have been */
	const bool is_elsewhere = !endpoint_is_none(before) && !endpoint_is_none(&nat->outside) &&
				  memcmp(before->ip, nat->outside.ip, sizeof(before->ip)) != 0;

	if (is_elsewhere)
		peer_hard_nat_end(hard_nat); /* its sockets have an address that is gone */
	hard_nat->ours = *nat;
	hard_nat->n_told = 0;
	step(hard_nat, (struct hard_nat_input){ .type = HARD_NAT_IN_OURS, .facts = facts_of(nat) });
}

/*
 * Who tells is hard, and is to know that there is nothing to search; else we have begun, which says all. An easy side's
 * words are answers themselves; and so may be another hard side's, to which only so many are made.
 */
static bool is_answer_due(const struct peer_hard_nat *hard_nat)
{
	const struct hard_nat_fsm *fsm = &hard_nat->fsm;

	if (hard_nat->ours.mapping == 0 ||
	    (hard_nat->told_ns != 0 && stage_now_ns(hard_nat->stage) - hard_nat->told_ns < TELL_NS))
		return false;
	if (hard_nat_is_hard(&fsm->ours) && (!hard_nat_is_hard(&fsm->theirs) || hard_nat->n_told >= MAX_TOLD))
		return false;
	return hard_nat_plan(&fsm->ours, &fsm->theirs, 0).role == HARD_NAT_NOTHING;
}

void peer_hard_nat_on_theirs(struct peer_hard_nat *hard_nat, const struct session_nat *nat, bool has_begun)
{
	step(hard_nat,
	     (struct hard_nat_input){ .type = HARD_NAT_IN_THEIRS, .facts = facts_of(nat), .flag = has_begun });
	if (!is_answer_due(hard_nat))
		return;
	hard_nat->n_told += hard_nat_is_hard(&hard_nat->fsm.ours);
	tell(hard_nat, false);
}

void peer_hard_nat_on_session(struct peer_hard_nat *hard_nat, uint64_t session)
{
	if (session == hard_nat->session)
		return;
	hard_nat->session = session;
	hard_nat->n_told = 0;
	step(hard_nat, (struct hard_nat_input){ .type = HARD_NAT_IN_SESSION });
}

void peer_hard_nat_on_deadline(struct peer_hard_nat *hard_nat)
{
	if (hard_nat->deadline_ns != 0 && hard_nat->deadline_ns <= stage_now_ns(hard_nat->stage))
		step(hard_nat, (struct hard_nat_input){ .type = HARD_NAT_IN_DEADLINE });
}
