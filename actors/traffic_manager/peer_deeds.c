/*
 * What the peer state machine does on its arrows: pings and answers, attempts, doubt and trust, the
 * choice of the best way. The path itself is not set here: it follows from the state (peer_fsm.c).
 */
#include "actors/traffic_manager/peer_deeds.h"

#include "actors/traffic_manager/peer_choice.h"
#include "common/macros.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

/* ---- small things ---- */

static uint64_t next_random(struct peer_fsm *fsm)
{
	/* splitmix64, of a secret seed: nobody sees its numbers themselves */
	uint64_t z = fsm->random += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

struct peer_action *peer_add_action(struct peer_actions *out, enum peer_action_type type)
{
	assert(out->n < PEER_MAX_ACTIONS);
	struct peer_action *action = &out->all[out->n++];

	memset(action, 0, sizeof(*action));
	action->type = type;
	return action;
}

bool peer_may_have_aka(enum peer_state state)
{
	return peer_state_is_establishing(state) || state == PEER_BOOTING ||
	       state == PEER_ESTABLISHED || state == PEER_TEARDOWN;
}

static void add_aka(struct peer_candidate *candidate, struct peer_actions *out)
{
	if (candidate->aka)
		return;
	candidate->aka = true;
	peer_add_action(out, PEER_DO_ADD_AKA)->to.endpoint = candidate->endpoint;
}

void peer_remove_akas(struct peer_fsm *fsm, bool all, struct peer_actions *out)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		struct peer_candidate *c = &fsm->candidates.all[i];

		if (!c->aka || (c->origin && !all))
			continue;
		c->aka = false;
		peer_add_action(out, PEER_DO_REMOVE_AKA)->to.endpoint = c->endpoint;
	}
}

/* Data goes by this way and by relay, and a little by this way alone, until the peer told of some that came directly. */
static void begin_trial(struct peer_fsm *fsm, uint64_t now_ns)
{
	fsm->undelivered_ns = now_ns;
	fsm->alone_ns = 0;
	fsm->asked_ns = now_ns;
	fsm->n_receipts = 0;
}

static void end_trial(struct peer_fsm *fsm)
{
	fsm->undelivered_ns = 0;
	fsm->alone_ns = 0;
	memset(fsm->looks_ns, 0, sizeof(fsm->looks_ns));
}

static void end_doubt(struct peer_fsm *fsm)
{
	fsm->trust = PEER_TRUSTED;
	fsm->needs_pong = fsm->takes_any = false;
	fsm->n_probes = 0;
}

/* ---- tx ids ---- */

#define TX_ID_UNIT_NS 1000

static void new_key(struct peer_fsm *fsm)
{
	for (size_t i = 0; i < sizeof(fsm->key); i += sizeof(uint64_t)) {
		const uint64_t random = next_random(fsm);

		memcpy(fsm->key + i, &random, sizeof(random));
	}
}

/*
 * check ‖ slot ‖ generation ‖ number ‖ time sent: so nothing needs to be remembered. The check is a keyed hash of the rest: the
 * peer reads the ids of the pings that reach it, and must not make up the one of a ping to somebody else.
 */
static struct peer_tx_id tx_id_of(const struct peer_fsm *fsm, uint8_t slot, uint8_t generation, uint16_t number, uint32_t sent_us)
{
	struct peer_tx_id id = { 0 };
	uint8_t hash[crypto_shorthash_BYTES];
	struct wire_writer w = wire_writer(id.bytes, sizeof(id.bytes));

	static_assert(sizeof(fsm->key) == crypto_shorthash_KEYBYTES, "SipHash");
	wire_put_u32(&w, 0);
	wire_put_u8(&w, slot);
	wire_put_u8(&w, generation);
	wire_put_u16(&w, number);
	wire_put_u32(&w, sent_us);
	crypto_shorthash(hash, id.bytes, sizeof(id.bytes), fsm->key);
	memcpy(id.bytes, hash, 4);
	return id;
}

static struct peer_tx_id tx_id(const struct peer_fsm *fsm, uint8_t slot,
			       const struct peer_candidate *c, uint64_t now_ns)
{
	return tx_id_of(fsm, slot, c->generation, c->n_pings, (uint32_t)(now_ns / TX_ID_UNIT_NS));
}

static uint16_t ping_number(const struct peer_tx_id *id)
{
	return (uint16_t)(id->bytes[6] << 8 | id->bytes[7]);
}

/* The candidate (or the relay) that was pinged with it, or NULL if it is not an id we wait for. */
struct peer_candidate *peer_pinged(struct peer_fsm *fsm, const struct peer_input *in,
				   uint32_t *ret_round_trip_us)
{
	struct wire_reader r = wire_reader(in->tx_id.bytes, sizeof(in->tx_id.bytes));
	struct peer_candidate *c = NULL;

	wire_u32(&r);
	const uint8_t slot = wire_u8(&r);
	const uint8_t generation = wire_u8(&r);
	const uint16_t number = wire_u16(&r);
	const uint32_t sent_us = wire_u32(&r), age_us = (uint32_t)(in->now_ns / TX_ID_UNIT_NS) - sent_us;
	const struct peer_tx_id sent = tx_id_of(fsm, slot, generation, number, sent_us);

	if (slot == RELAY_SLOT)
		c = &fsm->relay;
	else if (slot < PEER_MAX_CANDIDATES && fsm->candidates.all[slot].origin)
		c = &fsm->candidates.all[slot];
	if (!c || memcmp(sent.bytes, in->tx_id.bytes, sizeof(sent.bytes)) != 0 || generation != c->generation ||
	    age_us > PONG_MAX_AGE_US || (uint16_t)(c->n_pings - number) > INT16_MAX)
		return NULL;
	*ret_round_trip_us = age_us;
	return c;
}

/* ---- sending ---- */

static void ping(struct peer_fsm *fsm, int i, uint64_t now_ns, struct peer_actions *out)
{
	struct peer_candidate *c = &fsm->candidates.all[i];

	if (c->ping_ns == now_ns)
		return; /* once a moment is enough */
	candidate_on_ping_sent(c, peer_was_loaded(fsm, now_ns), now_ns);
	struct peer_action *action = peer_add_action(out, PEER_DO_SEND_PING);
	action->to.endpoint = c->endpoint;
	action->tx_id = tx_id(fsm, (uint8_t)i, c, now_ns);
}

static void ping_by_relay(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	if (!fsm->relay_up || fsm->relay.ping_ns == now_ns)
		return;
	candidate_on_ping_sent(&fsm->relay, peer_was_loaded(fsm, now_ns), now_ns);
	struct peer_action *action = peer_add_action(out, PEER_DO_SEND_PING);
	action->to.by_relay = true;
	action->tx_id = tx_id(fsm, RELAY_SLOT, &fsm->relay, now_ns);
}

/* All candidates with one of these origins; the LAN first, because it is the better path. */
static void ping_all(struct peer_fsm *fsm, uint8_t origins, uint64_t now_ns,
		     struct peer_actions *out)
{
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
			const struct peer_candidate *c = &fsm->candidates.all[i];

			if ((c->origin & origins) &&
			    endpoint_is_private(&c->endpoint) == (pass == 0))
				ping(fsm, i, now_ns, out);
		}
	}
}

/* While ESTABLISHED: the ways we do not use, as long as there is hope that they answer. */
static void ping_others(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		const struct peer_candidate *c = &fsm->candidates.all[i];

		if (c->origin && i != fsm->current && c->n_unanswered < HOPELESS_PINGS)
			ping(fsm, i, now_ns, out);
	}
}

static void next_round(struct peer_fsm *fsm, uint64_t now_ns)
{
	fsm->n_rounds++;
	if (fsm->n_rounds < BURST_ROUNDS)
		fsm->round_ns = now_ns + BURST_MIN_NS + next_random(fsm) % BURST_JITTER_NS;
	else
		fsm->round_ns = now_ns + ROUND_NS;
}

/* A rendezvous of ours, unless there was one a moment ago. */
static void offer(struct peer_fsm *fsm, uint64_t min_ns, uint64_t now_ns, struct peer_actions *out)
{
	if (!fsm->relay_up || (fsm->rendezvous_ns && now_ns - fsm->rendezvous_ns < min_ns))
		return;
	fsm->rendezvous_ns = now_ns;
	fsm->owes_offer = false;
	peer_add_action(out, PEER_DO_SEND_RENDEZVOUS)->to.by_relay = true;
}

/* ---- deeds: hearing ---- */

static void measure(struct peer_fsm *fsm, struct peer_candidate *c, const struct peer_input *in,
		    uint32_t round_trip_us)
{
	uint64_t now_ns = in->now_ns;
	uint32_t asked_us; /* who answers for another address was not the one that was pinged */
	bool was_asked = peer_pinged(fsm, in, &asked_us) == c;
	uint32_t n_since = was_asked ? (uint16_t)(c->n_pings - ping_number(&in->tx_id)) : UINT32_MAX;
	uint64_t sent_ns = now_ns - peer_sooner((uint64_t)round_trip_us * 1000, now_ns);

	candidate_on_pong(c, n_since, round_trip_us, peer_was_loaded(fsm, sent_ns), now_ns);
	if (was_asked && sent_ns > c->works_ns)
		c->works_ns = sent_ns;
	c->by_turn = in->by_turn;
}

/* The candidate a direct message came from; learned if need be. -1: the table has no room for it.
 */
static int hear_from(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	int i = candidates_learn(&fsm->candidates, &in->from.endpoint, fsm->current);

	peer_remove_akas(fsm, false, out);
	if (i < 0)
		return -1;
	fsm->candidates.all[i].heard_ns = in->now_ns;
	if (peer_may_have_aka(fsm->state))
		add_aka(&fsm->candidates.all[i], out);
	return i;
}

/* Asked once a moment, so that two strangers do not storm. */
static bool may_echo(const struct peer_candidate *c, uint64_t now_ns)
{
	return c->n_pings == 0 || now_ns - c->ping_ns >= ECHO_NS;
}

/* How old the peer's data is that came directly last: it cannot know otherwise that any does. */
static void receipt(const struct peer_fsm *fsm, const struct endpoint *to, uint64_t now_ns,
		    struct peer_actions *out)
{
	uint64_t age_ns = fsm->received_ns ? now_ns - fsm->received_ns : NEVER;

	if (fsm->state != PEER_ESTABLISHED || !fsm->active)
		return;
	struct peer_action *action = peer_add_action(out, PEER_DO_SEND_RECEIPT);
	action->to.endpoint = *to;
	action->age_ms = age_ns > RECEIPT_MAX_NS ? PEER_NO_RECEIPT : (uint32_t)(age_ns / MS(1));
}

/* Is it there that the peer is? Pong and receipt are longer than the ping, and its source may be forged. */
static bool has_answered(const struct peer_fsm *fsm, const struct endpoint *endpoint, uint64_t now_ns)
{
	int i = candidates_find(&fsm->candidates, endpoint);

	return i >= 0 && fsm->candidates.all[i].pong_ns && now_ns - fsm->candidates.all[i].pong_ns < FRESH_NS;
}

static void pong(const struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	struct peer_action *action = peer_add_action(out, PEER_DO_SEND_PONG);

	action->to = in->from;
	action->tx_id = in->tx_id;
	if (!in->from.by_relay && has_answered(fsm, &in->from.endpoint, in->now_ns))
		receipt(fsm, &in->from.endpoint, in->now_ns, out);
}

/* It answered a ping that was sent since then. */
static bool works_since_doubt(const struct peer_fsm *fsm, const struct peer_candidate *c)
{
	return c->works_ns > 0 && c->works_ns + TX_ID_UNIT_NS > fsm->doubt_ns;
}

int peer_answered_since_doubt(const struct peer_fsm *fsm, uint64_t now_ns)
{
	const struct peer_candidate *all = fsm->candidates.all;
	int best = -1, closed = -1;

	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		int *which = candidate_is_closed(&all[i], now_ns) ? &closed : &best;

		if (!all[i].origin || i == fsm->current || !works_since_doubt(fsm, &all[i]))
			continue;
		if (*which < 0 || candidate_cost_us(&all[i]) < candidate_cost_us(&all[*which]))
			*which = i;
	}
	return best >= 0 ? best : closed;
}

/* "Ping>Pong". A ping from elsewhere while our own path is in doubt may show the new one. */
void deed_answer(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	pong(fsm, in, out);
	int i = hear_from(fsm, in, out);

	if (i >= 0 && i != fsm->current && fsm->state == PEER_ESTABLISHED &&
	    fsm->trust == PEER_SUSPECT && may_echo(&fsm->candidates.all[i], in->now_ns))
		ping(fsm, i, in->now_ns, out);
}

void deed_answer_by_relay(struct peer_fsm *fsm, const struct peer_input *in,
			  struct peer_actions *out)
{
	pong(fsm, in, out);
	fsm->relay.heard_ns = in->now_ns;
}

/* Does it work in our direction as well? */
void deed_answer_and_ping(struct peer_fsm *fsm, const struct peer_input *in,
			  struct peer_actions *out)
{
	pong(fsm, in, out);
	int i = hear_from(fsm, in, out);

	if (i >= 0 && may_echo(&fsm->candidates.all[i], in->now_ns))
		ping(fsm, i, in->now_ns, out);
}

void deed_measure_relay(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	uint32_t round_trip_us;
	struct peer_candidate *c = peer_pinged(fsm, in, &round_trip_us);

	if (c == &fsm->relay)
		measure(fsm, c, in, round_trip_us);
}

/* ---- deeds: inactive and trying ---- */

void deed_rest(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
}

void deed_forget(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	peer_remove_akas(fsm, true, out);
	memset(&fsm->candidates, 0, sizeof(fsm->candidates));
	memset(&fsm->relay, 0, sizeof(fsm->relay));
	fsm->session = 0;
	fsm->current = -1;
	end_doubt(fsm);
	end_trial(fsm);
	fsm->received_ns = 0;
	fsm->n_failures = 0;
	fsm->retry_ns = 0;
}

/* Something is new: what failed before may work now. */
void deed_forgive(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->n_failures = 0;
}

static bool is_anywhere_to_ping(const struct peer_fsm *fsm)
{
	return fsm->n_ours > 0 || !candidates_is_empty(&fsm->candidates);
}

/* "Connection Active, (re)try immediately"; after a failure a little later, see RETRY_SOON_NS. */
void deed_try_soon(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	if (fsm->n_failures == 0)
		fsm->retry_ns = in->now_ns;
	else
		fsm->retry_ns = peer_later(
			in->now_ns, peer_sooner(fsm->retry_ns, fsm->give_up_ns + RETRY_SOON_NS));
	if (!is_anywhere_to_ping(fsm))
		fsm->retry_ns = 0;
}

void deed_try_now(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	deed_forgive(fsm, in, out);
	fsm->retry_ns = is_anywhere_to_ping(fsm) ? in->now_ns : 0;
}

static void retry_later(struct peer_fsm *fsm, uint64_t now_ns)
{
	uint32_t doublings = fsm->n_failures < 10 ? fsm->n_failures : 10;
	uint64_t seconds = peer_sooner(1u << doublings, RETRY_MAX_S);

	fsm->n_failures++;
	fsm->give_up_ns = now_ns;
	fsm->retry_ns = now_ns + MS(seconds * 800) + next_random(fsm) % MS(seconds * 400);
}

void deed_fail(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	candidates_drop_learned(&fsm->candidates, -1);
	peer_remove_akas(fsm, true, out);
	fsm->current = -1;
	retry_later(fsm, in->now_ns);
}

/* ---- deeds: establishing ---- */

void deed_begin(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	peer_remove_akas(fsm, true, out);
	fsm->current = -1;
	new_key(fsm);
	fsm->attempt_ns = in->now_ns;
	fsm->give_up_ns = in->now_ns + ATTEMPT_NS;
	fsm->round_ns = in->now_ns;
	fsm->n_rounds = 0;
	fsm->extended = false;
	fsm->rendezvous_ns = 0;
	fsm->owes_offer = false;
}

void deed_send_pings_and_rendezvous(struct peer_fsm *fsm, const struct peer_input *in,
				    struct peer_actions *out)
{
	ping_all(fsm, UINT8_MAX, in->now_ns, out);
	ping_by_relay(fsm, in->now_ns, out);
	offer(fsm, OFFER_MIN_NS, in->now_ns, out);
	next_round(fsm, in->now_ns);
}

static void take_endpoints(struct peer_fsm *fsm, const struct peer_input *in,
			   struct peer_actions *out)
{
	candidates_replace(&fsm->candidates, PEER_FROM_RENDEZVOUS, in->endpoints, in->n_endpoints,
			   fsm->current);
	peer_remove_akas(fsm, false, out);
	fsm->relay.heard_ns = in->now_ns;
}

void deed_begin_by_rendezvous(struct peer_fsm *fsm, const struct peer_input *in,
			      struct peer_actions *out)
{
	deed_begin(fsm, in, out);
	take_endpoints(fsm, in, out);
}

/* The peer pings us from now on: our time starts again, once. */
void deed_take_rendezvous(struct peer_fsm *fsm, const struct peer_input *in,
			  struct peer_actions *out)
{
	take_endpoints(fsm, in, out);
	if (fsm->extended)
		return;
	fsm->extended = true;
	fsm->give_up_ns = in->now_ns + ATTEMPT_NS;
	fsm->n_rounds = 0;
}

/* "Send Pings (to Rendezvous endpoints)"; and tell ours, if the peer cannot have them yet. */
void deed_send_pings_to_rendezvous(struct peer_fsm *fsm, const struct peer_input *in,
				   struct peer_actions *out)
{
	ping_all(fsm, PEER_FROM_RENDEZVOUS, in->now_ns, out);
	offer(fsm, OFFER_AGAIN_NS, in->now_ns, out);
	next_round(fsm, in->now_ns);
}

void deed_take_rendezvous_and_ping(struct peer_fsm *fsm, const struct peer_input *in,
				   struct peer_actions *out)
{
	deed_take_rendezvous(fsm, in, out);
	deed_send_pings_to_rendezvous(fsm, in, out);
}

/* A direct sign of the peer while we tried nothing, or waited to try again. */
void deed_begin_by_ping(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	deed_begin(fsm, in, out);
	next_round(fsm, in->now_ns);
}

/* "Send Pong + Ping". From here on packets go that way too, next to the relay: it may work. */
void deed_send_pong_and_ping(struct peer_fsm *fsm, const struct peer_input *in,
			     struct peer_actions *out)
{
	if (in->type == PEER_IN_PING)
		pong(fsm, in, out);
	fsm->current = hear_from(fsm, in, out);
	if (fsm->current >= 0)
		ping(fsm, fsm->current, in->now_ns, out);
}

void deed_hear(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	hear_from(fsm, in, out);
}

void deed_send_round(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	ping_all(fsm, UINT8_MAX, in->now_ns, out);
	if (fsm->relay.n_pongs == 0)
		ping_by_relay(fsm, in->now_ns, out);
	if (fsm->owes_offer)
		offer(fsm, OFFER_NEWS_NS, in->now_ns, out);
	if (fsm->relay.heard_ns < fsm->attempt_ns)
		offer(fsm, OFFER_AGAIN_NS, in->now_ns, out);
	next_round(fsm, in->now_ns);
}

/* Our endpoints changed, or the relay is back: now if it may be, else with the next round. */
void deed_send_offer(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->owes_offer = true;
	offer(fsm, OFFER_NEWS_NS, in->now_ns, out);
}

void deed_ping_the_new(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		if (fsm->candidates.all[i].origin && fsm->candidates.all[i].n_pings == 0)
			ping(fsm, i, in->now_ns, out);
	fsm->n_rounds = 0;
	next_round(fsm, in->now_ns);
}

/* ---- deeds: established ---- */

static void trust(struct peer_fsm *fsm, uint64_t now_ns)
{
	end_doubt(fsm);
	fsm->alive_ns = now_ns;
	fsm->unanswered_ns = 0;
}

static void send_probe(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	if (fsm->n_probes++ == 0) {
		fsm->doubt_ns = now_ns;
		fsm->usual_loss_permille = (uint16_t)candidate_loss_bound(peer_current(fsm), PEER_N_PINGS, 0);
	}
	fsm->probe_ns = now_ns;
	ping(fsm, fsm->current, now_ns, out);
	receipt(fsm, &peer_current(fsm)->endpoint, now_ns, out);
}

/* A way that was closed to data is on trial. */
static void try_data(struct peer_fsm *fsm, uint64_t now_ns)
{
	if (peer_current(fsm)->n_closed > 0)
		begin_trial(fsm, now_ns);
	else
		end_trial(fsm);
}

/* "Got Pong": whoever answered is the path, advertised or not. */
void deed_finalize(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	uint32_t round_trip_us;

	peer_pinged(fsm, in, &round_trip_us);
	int i = hear_from(fsm, in, out);

	if (i >= 0)
		measure(fsm, &fsm->candidates.all[i], in, round_trip_us);
	fsm->current = i;
}

/* "Send addrpair to outconn, register addrpair aka to dman"; the path itself is set by route(). */
void deed_boot(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	add_aka(peer_current(fsm), out);
	fsm->established_ns = in->now_ns;
	fsm->idle_ns = fsm->active ? 0 : in->now_ns;
	fsm->survey_ns = in->now_ns + SURVEY_EARLY_NS;
	fsm->n_surveys = 0;
	fsm->n_better = 0;
	fsm->round_ns = 0;
	fsm->too_big_ns = 0;
	fsm->prefers_relay = fsm->relay_up && candidate_is_closed(peer_current(fsm), in->now_ns);
	fsm->was_lossy = false;
	fsm->relay_data_ns = in->now_ns;
	fsm->data_ns = 0;
	fsm->watch_ns = fsm->closer_ns = 0;
	fsm->n_closer = fsm->n_closer_looks = 0;
	trust(fsm, in->now_ns);
	if (!fsm->prefers_relay)
		try_data(fsm, in->now_ns);
	if (in->type != PEER_IN_ADOPT)
		return;
	fsm->trust = PEER_SUSPECT;
	fsm->needs_pong = fsm->takes_any = true;
	send_probe(fsm, in->now_ns, out);
}

void deed_adopt(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	deed_begin(fsm, in, out);
	fsm->current = candidates_learn(&fsm->candidates, &in->from.endpoint, -1);
}

void deed_probe(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->trust = PEER_PROBED;
	send_probe(fsm, in->now_ns, out);
}

/* Does our own direction still work? Only a pong tells. */
static void check(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->needs_pong = true;
	deed_probe(fsm, in, out);
}

/* The peer asks whether we are there; data that comes from it does not say that it hears us. */
void deed_answer_and_check(struct peer_fsm *fsm, const struct peer_input *in,
			   struct peer_actions *out)
{
	deed_answer(fsm, in, out);
	if (fsm->trust == PEER_TRUSTED && fsm->path.direct &&
	    in->now_ns - peer_current(fsm)->pong_ns >= CHECK_NS)
		check(fsm, in, out);
}

/* From here on packets go both ways. Another way that works may show itself as well. */
void deed_doubt(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	if (fsm->trust == PEER_SUSPECT)
		return;
	fsm->trust = PEER_SUSPECT;
	send_probe(fsm, in->now_ns, out);
	/* All that ever answered: what is silent now may have been silent for long. */
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		if (fsm->candidates.all[i].origin && fsm->candidates.all[i].pong_ns)
			ping(fsm, i, in->now_ns, out);
}

void deed_probe_again(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	const bool is_urgent = !fsm->relay_up; /* nothing else carries what flows */

	send_probe(fsm, in->now_ns, out);
	if ((!is_urgent && fsm->trust != PEER_SUSPECT) || peer_answered_since_doubt(fsm, in->now_ns) >= 0)
		return;
	if (fsm->n_probes % OTHERS_EACH == 0 || (is_urgent && fsm->n_probes > INSTEAD_PROBES))
		ping_others(fsm, in->now_ns, out);
}

/* Does our direction still work? What was closed may be open. */
static void ask_for_pong(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		fsm->candidates.all[i].closed_until_ns = 0;
	fsm->needs_pong = true;
	deed_doubt(fsm, in, out);
}

/* Whatever answers first from now on is the way; what it answered before may be over. */
static void take_any(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	fsm->takes_any = true;
	fsm->doubt_ns = now_ns;
	ping_others(fsm, now_ns, out);
}

/* Something changed at one of the two ends. */
void deed_question(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	ask_for_pong(fsm, in, out);
	take_any(fsm, in->now_ns, out);
}

/* It cannot even be sent there. */
void deed_doubt_sending(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	deed_doubt(fsm, in, out);
	take_any(fsm, in->now_ns, out);
}

void deed_question_and_offer(struct peer_fsm *fsm, const struct peer_input *in,
			     struct peer_actions *out)
{
	deed_question(fsm, in, out);
	if (fsm->active)
		offer(fsm, OFFER_MIN_NS, in->now_ns, out);
}

/*
 * Data by relay although we would send directly: the peer may not hear us. If it used the direct
 * way until just now it has lost something: both ways at once, all the more when our own probe is
 * not answered so far. If it always comes so, ask now and then.
 */
void deed_wonder(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	const bool was_direct = in->now_ns - fsm->data_ns < RECENT_NS;
	const bool is_onset = was_direct && in->now_ns - fsm->relay_data_ns > RECENT_NS;
	const bool is_gone = was_direct && in->now_ns - fsm->data_ns >= SILENCE_NS && !peer_was_loaded(fsm, in->now_ns);

	fsm->relay.heard_ns = in->now_ns;
	fsm->relay_data_ns = in->now_ns;
	if (fsm->trust == PEER_SUSPECT || !fsm->path.direct || in->now_ns - peer_current(fsm)->pong_ns < SILENCE_NS)
		return;
	if (fsm->trust == PEER_PROBED ? is_gone : is_onset)
		ask_for_pong(fsm, in, out);
	else if (fsm->trust == PEER_TRUSTED)
		check(fsm, in, out);
}

/* Does what we see going out now go by the direct way alone, with no copy by relay about where it arrives? */
static bool is_alone(const struct peer_fsm *fsm, uint64_t now_ns)
{
	uint32_t direct_us = fsm->candidates.all[fsm->current].latency_us, relay_us = fsm->relay.latency_us;
	uint64_t later_us = relay_us > direct_us ? (relay_us - direct_us) / 2 : 0;

	return fsm->alone_ns && now_ns - fsm->alone_ns >= ALONE_NS + peer_sooner(later_us * 1000, ALONE_MAX_NS);
}

/* So soon that of all pings no more than two are on the way: those that are count as lost. */
static uint64_t closer_interval_ns(const struct peer_fsm *fsm)
{
	const uint64_t wait_ns = peer_later(candidate_wait_ns(&fsm->candidates.all[fsm->current]),
					    candidate_wait_ns(&fsm->relay));

	return peer_later(CLOSER_NS, wait_ns / 2);
}

/* What is left of a closer look that a pause or load has cut short is for when data flows again. */
static uint64_t watch_interval_ns(const struct peer_fsm *fsm)
{
	return fsm->n_closer > 0 ? closer_interval_ns(fsm) : WATCH_NS;
}

void deed_watch(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	if (!fsm->path.direct)
		return;
	fsm->sent_ns = in->now_ns;
	if (fsm->watch_ns == 0)
		fsm->watch_ns = in->now_ns + watch_interval_ns(fsm);
	if (fsm->unanswered_ns == 0)
		fsm->unanswered_ns = in->now_ns;
	if (fsm->path.relay || (fsm->undelivered_ns && !is_alone(fsm, in->now_ns)))
		return; /* of two copies the peer notices the first, and that one may have come by relay */
	fsm->looks_ns[fsm->next_look] = in->now_ns;
	fsm->next_look = (uint8_t)((fsm->next_look + 1) % PEER_N_LOOKS);
}

/*
 * So many looks with data that are not told of are not chance. In a trial there is a suspicion already; but where some is lost
 * anyway, so may be the one packet that goes alone.
 */
static int enough_looks(const struct peer_fsm *fsm)
{
	const int loss_permille = fsm->candidates.all[fsm->current].loss_permille;
	int enough = fsm->undelivered_ns ? 1 + (loss_permille > 0) + (loss_permille + 50) / 70 : MISSING_LOOKS + loss_permille / 70;

	return enough < MISSING_LOOKS_MAX ? enough : MISSING_LOOKS_MAX;
}

int peer_judge_receipt(const struct peer_fsm *fsm, const struct peer_input *in)
{
	uint64_t heard_ns = in->age_ms > in->now_ns / MS(1) ? 0 : in->now_ns - MS(in->age_ms);
	int n_missing = 0;

	if (fsm->state != PEER_ESTABLISHED || !fsm->path.direct || in->from.by_relay)
		return 0;
	uint64_t wait_ns = peer_sooner(PROBE_WAIT_MAX, candidate_wait_ns(&fsm->candidates.all[fsm->current]));
	/*
	 * A look is noted up to 50 ms after its packet went. Those of a trial are so late in it (ALONE_NS) that a peer
	 * that tells of the packet has passed it here, whether it did so before or after the look.
	 */
	if (fsm->undelivered_ns && heard_ns >= fsm->undelivered_ns + wait_ns)
		return 1;
	for (int i = 0; i < PEER_N_LOOKS; i++)
		n_missing += fsm->looks_ns[i] > peer_later(heard_ns, fsm->undelivered_ns) &&
			     fsm->looks_ns[i] + wait_ns <= in->now_ns;
	return n_missing >= enough_looks(fsm) ? -1 : 0;
}

void deed_doubt_delivery(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	if (fsm->undelivered_ns) {
		fsm->n_receipts = (uint8_t)peer_sooner(fsm->n_receipts + 1u, UINT8_MAX);
		return;
	}
	begin_trial(fsm, in->now_ns);
	ping(fsm, fsm->current, in->now_ns, out);
}

void deed_believe_receipt(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	end_trial(fsm);
	candidate_open(peer_current(fsm));
}

/*
 * The relay's copy may always come first, and the peer then notices nothing of the direct one: in each trial some
 * looks with data go by the direct way alone, as few as tell.
 */
static void send_some_alone(struct peer_fsm *fsm, uint64_t now_ns)
{
	int n_seen = 0;

	for (int i = 0; i < PEER_N_LOOKS; i++)
		n_seen += fsm->looks_ns[i] > fsm->undelivered_ns;
	if (n_seen >= enough_looks(fsm))
		fsm->alone_ns = 0;
	else if (!fsm->alone_ns && now_ns - fsm->undelivered_ns >= BOTH_NS)
		fsm->alone_ns = now_ns;
}

void deed_ask_for_receipt(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->asked_ns = in->now_ns;
	uint64_t newest_ns = fsm->looks_ns[(fsm->next_look + PEER_N_LOOKS - 1) % PEER_N_LOOKS];
	bool has_data = in->now_ns - peer_later(newest_ns, fsm->undelivered_ns) < ASK_QUIET_NS;

	if (!has_data || in->now_ns - fsm->undelivered_ns >= ASK_MAX_NS) {
		end_trial(fsm); /* no data to tell of, or nobody who tells */
		return;
	}
	send_some_alone(fsm, in->now_ns);
	ping(fsm, fsm->current, in->now_ns, out);
}

/* "Authenticated data is liveness": on the way we use. On another it is a hint to look there. */
void deed_hear_data(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	bool known = candidates_find(&fsm->candidates, &in->from.endpoint) >= 0;
	int i = hear_from(fsm, in, out);

	if (i < 0)
		return;
	if (i == fsm->current)
		fsm->data_ns = in->now_ns;
	/* Nobody told us of that address, and what we use is in doubt: the peer's NAT has another mapping, probably. */
	if (i != fsm->current && fsm->trust == PEER_SUSPECT && fsm->candidates.all[i].origin == PEER_LEARNED)
		fsm->takes_any = true;
	if (i == fsm->current && !fsm->needs_pong)
		trust(fsm, in->now_ns);
	else if (i != fsm->current && (!known || fsm->trust == PEER_SUSPECT) &&
		 may_echo(&fsm->candidates.all[i], in->now_ns))
		ping(fsm, i, in->now_ns, out);
}

static void use(struct peer_fsm *fsm, int i, uint64_t now_ns, struct peer_actions *out)
{
	fsm->current = i;
	fsm->n_better = 0;
	fsm->closer_ns = 0; /* what was looked at was another way */
	fsm->n_closer = fsm->n_closer_looks = 0;
	add_aka(peer_current(fsm), out);
	trust(fsm, now_ns);
	try_data(fsm, now_ns);
}

/*
 * A pong proves the way its ping took, and that the peer's answers reach us. An address that
 * answered for another one (a NAT in between) is pinged itself before it may carry packets.
 */
void deed_confirm(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	uint32_t round_trip_us;
	struct peer_candidate *c = peer_pinged(fsm, in, &round_trip_us);
	int asked = (int)(c - fsm->candidates.all);
	int answered;

	measure(fsm, c, in, round_trip_us);
	answered = hear_from(fsm, in, out);
	if (answered >= 0 && answered != asked && fsm->candidates.all[answered].n_pings == 0)
		ping(fsm, answered, in->now_ns, out);
	if (asked == fsm->current)
		trust(fsm, in->now_ns);
	else if (fsm->trust == PEER_SUSPECT && fsm->takes_any && c->origin && works_since_doubt(fsm, c))
		use(fsm, asked, in->now_ns, out);
}

/* The path answers no more, and another way did since it was doubted. */
void deed_use_other(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	use(fsm, peer_answered_since_doubt(fsm, in->now_ns), in->now_ns, out);
}

/* The peer starts anew: it may have lost what we still trust. */
void deed_hurry(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	take_endpoints(fsm, in, out);
	if (in->now_ns - peer_current(fsm)->pong_ns >= JUST_NOW_NS)
		deed_question(fsm, in, out);
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		candidate_hope(&fsm->candidates.all[i]);
	offer(fsm, OFFER_AGAIN_NS, in->now_ns, out);
	ping_others(fsm, in->now_ns, out);
	fsm->n_rounds = 0;
	next_round(fsm, in->now_ns);
}

void deed_ping_others_round(struct peer_fsm *fsm, const struct peer_input *in,
			    struct peer_actions *out)
{
	ping_others(fsm, in->now_ns, out);
	next_round(fsm, in->now_ns);
	if (fsm->n_rounds >= BURST_ROUNDS)
		fsm->round_ns = 0;
}

void deed_lose_relay(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->prefers_relay = false;
	candidate_forget_measures(&fsm->relay);
	fsm->relay.generation++;
}

void deed_carry_big_by_relay(struct peer_fsm *fsm, const struct peer_input *in,
			     struct peer_actions *out)
{
	fsm->too_big_ns = in->now_ns + TOO_BIG_NS;
}

void deed_carry_big_directly(struct peer_fsm *fsm, const struct peer_input *in,
			     struct peer_actions *out)
{
	fsm->too_big_ns = 0;
}

void deed_give_up(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	bool was_proven = in->now_ns - fsm->established_ns >= PROVEN_NS;

	peer_remove_akas(fsm, true, out);
	fsm->current = -1;
	end_doubt(fsm);
	end_trial(fsm);
	if (was_proven)
		fsm->n_failures = 0;
	else
		retry_later(fsm, in->now_ns); /* a path that comes and goes must not flap */
}

/* The last ping keeps the NATs open a little longer: whoever comes back soon finds them so. */
void deed_retire(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	ping(fsm, fsm->current, in->now_ns, out);
	peer_remove_akas(fsm, true, out);
	fsm->current = -1;
	end_doubt(fsm);
	end_trial(fsm);
	fsm->n_failures = 0;
}

/* ---- choosing: see peer_choice.c ---- */

static void choose(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	const int best = peer_best_other(fsm, true, now_ns);
	const bool is_suspect = fsm->trust == PEER_SUSPECT;

	if (is_suspect && best >= 0 && best != RELAY_SLOT && !works_since_doubt(fsm, &fsm->candidates.all[best]))
		return; /* what silenced the one may have silenced the other */
	if (best < 0) {
		fsm->n_better = 0;
		return;
	}
	if (best != fsm->better)
		fsm->n_better = 0;
	fsm->better = best;
	if (++fsm->n_better < BETTER_SURVEYS)
		return;
	fsm->prefers_relay = best == RELAY_SLOT;
	fsm->was_lossy = fsm->prefers_relay && peer_is_lossy(peer_current(fsm));
	if (best != RELAY_SLOT)
		use(fsm, best, now_ns, out);
	fsm->n_better = 0;
}

/* Pings pass, data does not: another way carries it, and this one is kept warm until it is tried again. */
void deed_close(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	candidate_close(peer_current(fsm), in->now_ns);
	end_trial(fsm);
	fsm->n_better = 0;
	const int best = peer_best_other(fsm, false, in->now_ns);
	if (best < 0 || best == RELAY_SLOT) {
		fsm->prefers_relay = fsm->relay_up;
		fsm->was_lossy = false;
		return;
	}
	use(fsm, best, in->now_ns, out);
	begin_trial(fsm, in->now_ns); /* it may be the same router that closes both */
}

static uint64_t survey_interval_ns(struct peer_fsm *fsm)
{
	const bool is_closer = fsm->n_closer > 0 && fsm->watch_ns != 0;

	if (fsm->n_surveys < SURVEY_EARLY_N || is_closer || (fsm->prefers_relay && fsm->was_lossy))
		return SURVEY_EARLY_NS;
	if (fsm->prefers_relay || candidate_is_by_turn(peer_current(fsm)) || peer_is_lossy(peer_current(fsm)))
		return SURVEY_SOON_NS;
	return SURVEY_NS;
}

/* Early surveys find out which of the answers that raced is best, late ones what changed since. */
void deed_survey(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	choose(fsm, in->now_ns, out);
	fsm->n_surveys++;
	fsm->survey_ns = in->now_ns + survey_interval_ns(fsm);
	if (!fsm->active && fsm->n_surveys > SURVEY_EARLY_N)
		return;
	ping_others(fsm, in->now_ns, out);
	ping(fsm, fsm->current, in->now_ns, out);
	ping_by_relay(fsm, in->now_ns, out);
}

/* ---- loss under traffic ---- */

static void look_closer(struct peer_fsm *fsm, uint64_t now_ns)
{
	const struct peer_candidate *c = peer_current(fsm);

	if (!peer_is_lossy(c))
		fsm->n_closer_looks = 0;
	if (now_ns < fsm->closer_ns || candidate_n_lost_of(c, CLOSER_OF) < CLOSER_LOST)
		return;
	fsm->n_closer = CLOSER_PINGS;
	fsm->closer_ns = now_ns + peer_sooner(CLOSER_AGAIN_NS << fsm->n_closer_looks, CLOSER_AGAIN_MAX);
	if (fsm->n_closer_looks < 8)
		fsm->n_closer_looks++;
	fsm->survey_ns = peer_sooner(fsm->survey_ns, now_ns + SURVEY_EARLY_NS);
}

void deed_watch_loss(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	const uint64_t now_ns = in->now_ns;

	fsm->watch_ns = 0;
	if (!fsm->path.direct || now_ns - fsm->sent_ns >= PAUSE_NS || peer_was_loaded(fsm, now_ns))
		return;
	if (fsm->trust == PEER_SUSPECT)
		return; /* its probes come faster */
	ping(fsm, fsm->current, now_ns, out);
	receipt(fsm, &peer_current(fsm)->endpoint, now_ns, out); /* its answer is a reason not to ask: see EV_SILENT */
	if (fsm->n_closer > 0) {
		fsm->n_closer--;
		fsm->survey_ns = peer_sooner(fsm->survey_ns, now_ns + SURVEY_EARLY_NS);
		ping_by_relay(fsm, now_ns, out);
	} else {
		look_closer(fsm, now_ns);
	}
	fsm->watch_ns = now_ns + watch_interval_ns(fsm);
}
