/*
 * The peer state machine. Read in this order: the drawing in the header, the table below ("one
 * arrow a line"), then the deeds above it. classify() turns an input into exactly one named event,
 * due() does the same for what the clock brings, follow_up() for what happens at once; so that no
 * deed has to ask what happened.
 */
#include "actors/traffic_manager/peer_fsm.h"

#include "common/macros.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MS(n) ((uint64_t)(n) * 1000000u)

/* Establishing */
#define ATTEMPT_NS	 MS(10000) /* "Timeout of 10s" */
#define BURST_ROUNDS	 4	   /* a NAT may open its filter late: two pings are not enough */
#define BURST_MIN_NS	 MS(200)
#define BURST_JITTER_NS	 MS(50)
#define ROUND_NS	 MS(1000)
#define OFFER_MIN_NS	 MS(1000) /* between two rendezvous of ours */
#define OFFER_NEWS_NS	 MS(200)  /* when our endpoints changed in between */
#define OFFER_AGAIN_NS	 MS(3000) /* when nothing of the peer was heard since the last one */
#define PONG_MAX_AGE_US	 5000000u /* an answer that comes later is not worth having */

/* Trying */
#define RETRY_MAX_S	 600
#define RETRY_SOON_NS	 MS(60000) /* new traffic waits at most so long for a retry */
#define PROVEN_NS	 MS(10000) /* a path that lived so long was no failure */

/* Established */
#define SILENCE_NS	 MS(250)  /* data went out and nothing came in: ask */
#define PROBE_WAIT_MIN	 MS(100)  /* for the answer, at least; else one and a half round trips */
#define PROBE_WAIT_MAX	 MS(400)
#define PROBE_NS	 MS(100)  /* between the probes of a suspect path */
#define PROBE_SLOW_NS	 MS(500)  /* and after the first few */
#define FAST_PROBES	 6
#define LOST_PROBES	 5
#define LOST_TRAFFIC_NS	 MS(550)  /* of doubt, with traffic that the relay can carry */
#define LOST_IDLE_NS	 MS(5000) /* of silence, without: "not received in last 5s" */
#define LOST_IDLE_MIN_NS MS(1000)
#define KEEPALIVE_NS	 MS(2000) /* "Send pings every 2s", only without authenticated data */
#define UNUSED_NS	 MS(50000) /* after PEER_IN_IDLE, which comes 10 s after the last packet */
#define TOO_BIG_NS	 MS(60000)
#define SURVEY_EARLY_NS	 MS(1000)
#define SURVEY_EARLY_N	 3
#define SURVEY_NS	 MS(10000)
#define HOPELESS_PINGS	 8	  /* unanswered: no longer part of a survey */
#define CHECK_NS	 MS(500)  /* a pong so old says nothing of what the peer asks now */
#define RECENT_NS	 MS(1000)
#define JUST_NOW_NS	 MS(1000) /* a pong that young needs no second one to be believed */
#define ECHO_NS		 MS(100)  /* between two pings to one address for being pinged from it */

/* Choosing */
#define FRESH_NS	 MS(25000) /* a measurement that old still counts */
#define MIN_PONGS	 3
#define RELAY_COST_US	 15000 /* the relay is the owner's bandwidth and one more hop that can die */
#define BETTER_MIN_US	 3000
#define BETTER_SURVEYS	 2

#define NEVER	   UINT64_MAX
#define RELAY_SLOT 0xff
#define MAX_EVENTS 16 /* in one step; more is a loop of ours */

/* Groups and placeholders of the table. */
#define ANY	     PEER_N_STATES
#define ESTABLISHING (PEER_N_STATES + 1) /* its three states that wait */
#define SAME	     (PEER_N_STATES + 2)

enum event {
	/* from the shell */
	EV_INFO,	  /* the peer's session key is known */
	EV_SAME_INFO,	  /* the map said nothing new */
	EV_NEW_SESSION,	  /* the peer has another session key: it was started anew */
	EV_NEW_ENDPOINTS, /* the map names an address we did not know */
	EV_REMOVED,
	EV_TRAFFIC,
	EV_IDLE,
	EV_PING,	  /* direct, from a known address */
	EV_STRANGE_PING,  /* direct, from an address nobody told us */
	EV_RELAY_PING,
	EV_PONG,	  /* direct, answers a ping of this attempt; from any address */
	EV_RELAY_PONG,
	EV_STALE_PONG,	  /* answers nothing we still care about */
	EV_RENDEZVOUS,
	EV_OUR_ENDPOINTS,
	EV_DATA,	  /* authenticated, direct */
	EV_RELAY_DATA,
	EV_DATA_SENT,
	EV_SEND_FAILED,	  /* on the direct way in use */
	EV_TOO_BIG,	  /* a packet did not fit through it */
	EV_OTHER_FAILED,  /* to another address */
	EV_RELAY_UP,
	EV_RELAY_DOWN,
	EV_ADOPT,
	EV_RESET,
	/* from the clock */
	EV_RETRY_DUE,
	EV_ROUND_DUE,
	EV_TIMED_OUT,
	EV_SILENT,	  /* data goes out, nothing comes back */
	EV_KEEPALIVE_DUE, /* nothing authenticated for a while */
	EV_NO_ANSWER,	  /* the probe was not answered in time */
	EV_PROBE_DUE,	  /* the next one, to a suspect path */
	EV_LOST,	  /* silent too long */
	EV_SURVEY_DUE,
	EV_FITS_AGAIN,	  /* try big packets on the direct way alone again */
	EV_UNUSED,	  /* no traffic for a minute */
	/* at once */
	EV_THEN,	  /* a transient state goes on */
	EV_WANTED,
	EV_UNWANTED,
	N_EVENTS,
	EV_NONE = N_EVENTS,
};

static const char *const state_names[] = {
	[PEER_WAITING_FOR_INFO] = "waiting for info",
	[PEER_INACTIVE] = "inactive",
	[PEER_TRYING] = "trying",
	[PEER_PRE_TRANSMIT] = "pre-transmit",
	[PEER_TRANSMITTING] = "transmitting",
	[PEER_RENDEZVOUS_GOT] = "rendezvous got",
	[PEER_RENDEZVOUS_ACKNOWLEDGED] = "rendezvous acknowledged",
	[PEER_HALF_ESTABLISHING] = "half-establishing",
	[PEER_HALF_ESTABLISHED] = "half-established",
	[PEER_FINALIZING] = "finalizing",
	[PEER_BOOTING] = "booting",
	[PEER_ESTABLISHED] = "established",
	[PEER_TEARDOWN] = "teardown",
};
static_assert(ARRAY_LEN(state_names) == PEER_N_STATES, "a name for every state");

static const char *const event_names[] = {
	[EV_INFO] = "info",
	[EV_SAME_INFO] = "same info",
	[EV_NEW_SESSION] = "new session",
	[EV_NEW_ENDPOINTS] = "new endpoints",
	[EV_REMOVED] = "removed",
	[EV_TRAFFIC] = "traffic",
	[EV_IDLE] = "idle",
	[EV_PING] = "ping",
	[EV_STRANGE_PING] = "ping from a stranger",
	[EV_RELAY_PING] = "ping by relay",
	[EV_PONG] = "pong",
	[EV_RELAY_PONG] = "pong by relay",
	[EV_STALE_PONG] = "stale pong",
	[EV_RENDEZVOUS] = "rendezvous",
	[EV_OUR_ENDPOINTS] = "our endpoints",
	[EV_DATA] = "data",
	[EV_RELAY_DATA] = "data by relay",
	[EV_DATA_SENT] = "data sent",
	[EV_SEND_FAILED] = "send failed",
	[EV_TOO_BIG] = "too big",
	[EV_OTHER_FAILED] = "other send failed",
	[EV_RELAY_UP] = "relay up",
	[EV_RELAY_DOWN] = "relay down",
	[EV_ADOPT] = "adopt",
	[EV_RESET] = "reset",
	[EV_RETRY_DUE] = "retry due",
	[EV_ROUND_DUE] = "round due",
	[EV_TIMED_OUT] = "timed out",
	[EV_SILENT] = "silent",
	[EV_KEEPALIVE_DUE] = "keepalive due",
	[EV_NO_ANSWER] = "no answer",
	[EV_PROBE_DUE] = "probe due",
	[EV_LOST] = "lost",
	[EV_SURVEY_DUE] = "survey due",
	[EV_FITS_AGAIN] = "fits again",
	[EV_UNUSED] = "unused",
	[EV_THEN] = "then",
	[EV_WANTED] = "wanted",
	[EV_UNWANTED] = "unwanted",
};
static_assert(ARRAY_LEN(event_names) == N_EVENTS, "a name for every event");

/* ---- small things ---------------------------------------------------------------------------- */

static uint64_t next_random(struct peer_fsm *fsm)
{
	/* splitmix64: jitter and tx ids need to differ, not to be secret (the box hides them) */
	uint64_t z = fsm->random += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static struct peer_action *add(struct peer_actions *out, enum peer_action_type type)
{
	assert(out->n < PEER_MAX_ACTIONS);
	struct peer_action *action = &out->all[out->n++];

	memset(action, 0, sizeof(*action));
	action->type = type;
	return action;
}

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static struct peer_candidate *current(struct peer_fsm *fsm)
{
	return fsm->current >= 0 ? &fsm->candidates.all[fsm->current] : NULL;
}

static bool waits_for_pongs(enum peer_state state)
{
	return state == PEER_TRANSMITTING || state == PEER_RENDEZVOUS_ACKNOWLEDGED ||
	       state == PEER_HALF_ESTABLISHED;
}

/* AKAs live from the first direct sign of the peer until the path is given up. */
static bool may_have_aka(enum peer_state state)
{
	return peer_state_is_establishing(state) || state == PEER_BOOTING || state == PEER_ESTABLISHED ||
	       state == PEER_TEARDOWN;
}

static void add_aka(struct peer_candidate *candidate, struct peer_actions *out)
{
	if (candidate->aka)
		return;
	candidate->aka = true;
	add(out, PEER_DO_ADD_AKA)->to.endpoint = candidate->endpoint;
}

/* Takes back the AKAs of candidates that are gone, or all of them. */
static void remove_akas(struct peer_fsm *fsm, bool all, struct peer_actions *out)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		struct peer_candidate *c = &fsm->candidates.all[i];

		if (!c->aka || (c->origin && !all))
			continue;
		c->aka = false;
		add(out, PEER_DO_REMOVE_AKA)->to.endpoint = c->endpoint;
	}
}

/* ---- tx ids: nonce ‖ slot ‖ generation ‖ number ‖ time sent; so nothing needs to be remembered -- */

static struct peer_tx_id tx_id(const struct peer_fsm *fsm, uint8_t slot, const struct peer_candidate *c,
			       uint64_t now_ns)
{
	struct peer_tx_id id = { 0 };
	struct wire_writer w = wire_writer(id.bytes, sizeof(id.bytes));

	wire_put_u32(&w, fsm->nonce);
	wire_put_u8(&w, slot);
	wire_put_u8(&w, c->generation);
	wire_put_u16(&w, c->n_pings);
	wire_put_u32(&w, (uint32_t)(now_ns / 1000));
	return id;
}

/* The candidate (or the relay) that was pinged with it, or NULL if it is not an id we wait for. */
static struct peer_candidate *pinged(struct peer_fsm *fsm, const struct peer_input *in,
				     uint32_t *ret_round_trip_us)
{
	struct wire_reader r = wire_reader(in->tx_id.bytes, sizeof(in->tx_id.bytes));
	uint32_t nonce = wire_u32(&r);
	uint8_t slot = wire_u8(&r);
	uint8_t generation = wire_u8(&r);
	uint16_t number = wire_u16(&r);
	uint32_t age_us = (uint32_t)(in->now_ns / 1000) - wire_u32(&r);
	struct peer_candidate *c = NULL;

	if (slot == RELAY_SLOT)
		c = &fsm->relay;
	else if (slot < PEER_MAX_CANDIDATES && fsm->candidates.all[slot].origin)
		c = &fsm->candidates.all[slot];
	if (!c || nonce != fsm->nonce || generation != c->generation || age_us > PONG_MAX_AGE_US ||
	    (uint16_t)(c->n_pings - number) > INT16_MAX)
		return NULL;
	*ret_round_trip_us = age_us;
	return c;
}

/* ---- sending --------------------------------------------------------------------------------- */

static void ping(struct peer_fsm *fsm, int i, uint64_t now_ns, struct peer_actions *out)
{
	struct peer_candidate *c = &fsm->candidates.all[i];

	if (c->ping_ns == now_ns && c->n_pings > 0)
		return; /* once a moment is enough */
	candidate_on_ping_sent(c, now_ns);
	struct peer_action *action = add(out, PEER_DO_SEND_PING);
	action->to.endpoint = c->endpoint;
	action->tx_id = tx_id(fsm, (uint8_t)i, c, now_ns);
}

static void ping_by_relay(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	if (!fsm->relay_up || (fsm->relay.ping_ns == now_ns && fsm->relay.n_pings > 0))
		return;
	candidate_on_ping_sent(&fsm->relay, now_ns);
	struct peer_action *action = add(out, PEER_DO_SEND_PING);
	action->to.by_relay = true;
	action->tx_id = tx_id(fsm, RELAY_SLOT, &fsm->relay, now_ns);
}

/* All candidates with one of these origins; the LAN first, because it is the better path. */
static void ping_all(struct peer_fsm *fsm, uint8_t origins, uint64_t now_ns, struct peer_actions *out)
{
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
			const struct peer_candidate *c = &fsm->candidates.all[i];

			if ((c->origin & origins) && endpoint_is_private(&c->endpoint) == (pass == 0))
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
	add(out, PEER_DO_SEND_RENDEZVOUS)->to.by_relay = true;
}

/* ---- deeds: hearing ---------------------------------------------------------------------------- */

/* The candidate a direct message came from; learned if need be. -1: the table has no room for it. */
static int hear_from(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	int i = candidates_learn(&fsm->candidates, &in->from.endpoint, fsm->current);

	remove_akas(fsm, false, out);
	if (i < 0)
		return -1;
	fsm->candidates.all[i].heard_ns = in->now_ns;
	if (may_have_aka(fsm->state))
		add_aka(&fsm->candidates.all[i], out);
	return i;
}

/* Asked once a moment, so that two strangers do not storm. */
static bool may_echo(const struct peer_candidate *c, uint64_t now_ns)
{
	return c->n_pings == 0 || now_ns - c->ping_ns >= ECHO_NS;
}

static void pong(const struct peer_input *in, struct peer_actions *out)
{
	struct peer_action *action = add(out, PEER_DO_SEND_PONG);

	action->to = in->from;
	action->tx_id = in->tx_id;
}

/* "Ping>Pong". A ping from elsewhere while our own path is in doubt may show the new one. */
static void answer(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	pong(in, out);
	int i = hear_from(fsm, in, out);

	if (i >= 0 && i != fsm->current && fsm->state == PEER_ESTABLISHED && fsm->trust == PEER_SUSPECT &&
	    may_echo(&fsm->candidates.all[i], in->now_ns))
		ping(fsm, i, in->now_ns, out);
}

static void answer_by_relay(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	pong(in, out);
	fsm->relay.heard_ns = in->now_ns;
}

/* Does it work in our direction as well? */
static void answer_and_ping(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	pong(in, out);
	int i = hear_from(fsm, in, out);

	if (i >= 0 && may_echo(&fsm->candidates.all[i], in->now_ns))
		ping(fsm, i, in->now_ns, out);
}

static void measure_relay(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	uint32_t round_trip_us;
	struct peer_candidate *c = pinged(fsm, in, &round_trip_us);

	if (c == &fsm->relay)
		candidate_on_pong(c, round_trip_us, in->now_ns);
}

/* ---- deeds: inactive and trying ------------------------------------------------------------------ */

static void rest(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
}

static void forget(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	remove_akas(fsm, true, out);
	memset(&fsm->candidates, 0, sizeof(fsm->candidates));
	memset(&fsm->relay, 0, sizeof(fsm->relay));
	fsm->session = 0;
	fsm->current = -1;
	fsm->trust = PEER_TRUSTED;
	fsm->n_failures = 0;
	fsm->retry_ns = 0;
}

/* Something is new: what failed before may work now. */
static void forgive(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->n_failures = 0;
}

static bool is_anywhere_to_ping(const struct peer_fsm *fsm)
{
	return fsm->n_ours > 0 || !candidates_is_empty(&fsm->candidates);
}

/* "Connection Active, (re)try immediately"; after a failure a little later, see RETRY_SOON_NS. */
static void try_soon(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	if (fsm->n_failures == 0)
		fsm->retry_ns = in->now_ns;
	else
		fsm->retry_ns = later(in->now_ns, sooner(fsm->retry_ns, fsm->give_up_ns + RETRY_SOON_NS));
	if (!is_anywhere_to_ping(fsm))
		fsm->retry_ns = 0;
}

static void try_now(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	forgive(fsm, in, out);
	fsm->retry_ns = is_anywhere_to_ping(fsm) ? in->now_ns : 0;
}

static void retry_later(struct peer_fsm *fsm, uint64_t now_ns)
{
	uint32_t doublings = fsm->n_failures < 10 ? fsm->n_failures : 10;
	uint64_t seconds = sooner(1u << doublings, RETRY_MAX_S);

	fsm->n_failures++;
	fsm->give_up_ns = now_ns;
	fsm->retry_ns = now_ns + MS(seconds * 800) + next_random(fsm) % MS(seconds * 400);
}

static void fail(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	candidates_drop_learned(&fsm->candidates, -1);
	remove_akas(fsm, true, out);
	fsm->current = -1;
	retry_later(fsm, in->now_ns);
}

/* ---- deeds: establishing ------------------------------------------------------------------------- */

static void begin(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	remove_akas(fsm, true, out);
	fsm->current = -1;
	fsm->nonce = (uint32_t)next_random(fsm);
	fsm->attempt_ns = in->now_ns;
	fsm->give_up_ns = in->now_ns + ATTEMPT_NS;
	fsm->round_ns = in->now_ns;
	fsm->n_rounds = 0;
	fsm->extended = false;
	fsm->rendezvous_ns = 0;
	fsm->owes_offer = false;
}

static void send_pings_and_rendezvous(struct peer_fsm *fsm, const struct peer_input *in,
				      struct peer_actions *out)
{
	ping_all(fsm, UINT8_MAX, in->now_ns, out);
	ping_by_relay(fsm, in->now_ns, out);
	offer(fsm, OFFER_MIN_NS, in->now_ns, out);
	next_round(fsm, in->now_ns);
}

static void take_endpoints(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	candidates_replace(&fsm->candidates, PEER_FROM_RENDEZVOUS, in->endpoints, in->n_endpoints,
			   fsm->current);
	remove_akas(fsm, false, out);
	fsm->relay.heard_ns = in->now_ns;
}

static void begin_by_rendezvous(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	begin(fsm, in, out);
	take_endpoints(fsm, in, out);
}

/* The peer pings us from now on: our time starts again, once. */
static void take_rendezvous(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	take_endpoints(fsm, in, out);
	if (fsm->extended)
		return;
	fsm->extended = true;
	fsm->give_up_ns = in->now_ns + ATTEMPT_NS;
	fsm->n_rounds = 0;
}

/* "Send Pings (to Rendezvous endpoints)"; and tell ours, if the peer cannot have them yet. */
static void send_pings_to_rendezvous(struct peer_fsm *fsm, const struct peer_input *in,
				     struct peer_actions *out)
{
	ping_all(fsm, PEER_FROM_RENDEZVOUS, in->now_ns, out);
	offer(fsm, OFFER_AGAIN_NS, in->now_ns, out);
	next_round(fsm, in->now_ns);
}

static void take_rendezvous_and_ping(struct peer_fsm *fsm, const struct peer_input *in,
				     struct peer_actions *out)
{
	take_rendezvous(fsm, in, out);
	send_pings_to_rendezvous(fsm, in, out);
}

/* A direct sign of the peer while we tried nothing, or waited to try again. */
static void begin_by_ping(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	begin(fsm, in, out);
	next_round(fsm, in->now_ns);
}

/* "Send Pong + Ping". From here on packets go that way too, next to the relay: it may work. */
static void send_pong_and_ping(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	if (in->type == PEER_IN_PING)
		pong(in, out);
	fsm->current = hear_from(fsm, in, out);
	if (fsm->current >= 0)
		ping(fsm, fsm->current, in->now_ns, out);
}

static void hear(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	hear_from(fsm, in, out);
}

static void send_round(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
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
static void send_offer(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->owes_offer = true;
	offer(fsm, OFFER_NEWS_NS, in->now_ns, out);
}

static void ping_the_new(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		if (fsm->candidates.all[i].origin && fsm->candidates.all[i].n_pings == 0)
			ping(fsm, i, in->now_ns, out);
	fsm->n_rounds = 0;
	next_round(fsm, in->now_ns);
}

/* ---- deeds: established ---------------------------------------------------------------------------- */

static void trust(struct peer_fsm *fsm, uint64_t now_ns)
{
	fsm->trust = PEER_TRUSTED;
	fsm->needs_pong = false;
	fsm->n_probes = 0;
	fsm->alive_ns = now_ns;
	fsm->unanswered_ns = 0;
}

static void send_probe(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	if (fsm->n_probes++ == 0)
		fsm->doubt_ns = now_ns;
	fsm->probe_ns = now_ns;
	ping(fsm, fsm->current, now_ns, out);
}

/* "Got Pong": whoever answered is the path, advertised or not. */
static void finalize(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	uint32_t round_trip_us;

	pinged(fsm, in, &round_trip_us);
	int i = hear_from(fsm, in, out);

	if (i >= 0)
		candidate_on_pong(&fsm->candidates.all[i], round_trip_us, in->now_ns);
	fsm->current = i;
}

/* "Send addrpair to outconn, register addrpair aka to dman"; the path itself is set by route(). */
static void boot(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	add_aka(current(fsm), out);
	fsm->established_ns = in->now_ns;
	fsm->idle_ns = fsm->active ? 0 : in->now_ns;
	fsm->survey_ns = in->now_ns + SURVEY_EARLY_NS;
	fsm->n_surveys = 0;
	fsm->n_better = 0;
	fsm->round_ns = 0;
	fsm->too_big_ns = 0;
	fsm->prefers_relay = false;
	fsm->relay_data_ns = in->now_ns;
	fsm->data_ns = 0;
	trust(fsm, in->now_ns);
	if (in->type != PEER_IN_ADOPT)
		return;
	fsm->trust = PEER_SUSPECT;
	fsm->needs_pong = true;
	send_probe(fsm, in->now_ns, out);
}

static void adopt(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	begin(fsm, in, out);
	fsm->current = candidates_learn(&fsm->candidates, &in->from.endpoint, -1);
}

static void probe(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->trust = PEER_PROBED;
	send_probe(fsm, in->now_ns, out);
}

/* Does our own direction still work? Only a pong tells. */
static void check(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->needs_pong = true;
	probe(fsm, in, out);
}

/* The peer asks whether we are there; data that comes from it does not say that it hears us. */
static void answer_and_check(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	answer(fsm, in, out);
	if (fsm->trust == PEER_TRUSTED && fsm->path.direct &&
	    in->now_ns - current(fsm)->pong_ns >= CHECK_NS)
		check(fsm, in, out);
}

/* From here on packets go both ways. Another way that works may show itself as well. */
static void doubt(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	if (fsm->trust == PEER_SUSPECT)
		return;
	fsm->trust = PEER_SUSPECT;
	send_probe(fsm, in->now_ns, out);
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		if (fsm->candidates.all[i].origin && fsm->candidates.all[i].pong_ns)
			ping(fsm, i, in->now_ns, out);
}

static void probe_again(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	send_probe(fsm, in->now_ns, out);
}

/* Something changed at one of the two ends: does our direction still work? */
static void question(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->needs_pong = true;
	doubt(fsm, in, out);
}

static void question_and_offer(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	question(fsm, in, out);
	if (fsm->active)
		offer(fsm, OFFER_MIN_NS, in->now_ns, out);
}

/*
 * Data by relay although we would send directly: the peer may not hear us. If it used the direct way
 * until just now it has lost something: both ways at once. If it always comes so, ask now and then.
 */
static void wonder(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	bool is_onset = in->now_ns - fsm->relay_data_ns > RECENT_NS && in->now_ns - fsm->data_ns < RECENT_NS;

	fsm->relay.heard_ns = in->now_ns;
	fsm->relay_data_ns = in->now_ns;
	if (fsm->trust != PEER_TRUSTED || !fsm->path.direct ||
	    in->now_ns - current(fsm)->pong_ns < SILENCE_NS)
		return;
	if (is_onset)
		question(fsm, in, out);
	else
		check(fsm, in, out);
}

static void watch(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	if (fsm->path.direct && fsm->unanswered_ns == 0)
		fsm->unanswered_ns = in->now_ns;
}

/* "Authenticated data is liveness": on the way we use. On another it is a hint to look there. */
static void hear_data(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	bool known = candidates_find(&fsm->candidates, &in->from.endpoint) >= 0;
	int i = hear_from(fsm, in, out);

	if (i < 0)
		return;
	if (i == fsm->current)
		fsm->data_ns = in->now_ns;
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
	add_aka(current(fsm), out);
	trust(fsm, now_ns);
}

/*
 * A pong proves the way its ping took, and that the peer's answers reach us. An address that
 * answered for another one (a NAT in between) is pinged itself before it may carry packets.
 */
static void confirm(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	uint32_t round_trip_us;
	struct peer_candidate *c = pinged(fsm, in, &round_trip_us);
	int asked = (int)(c - fsm->candidates.all);
	int answered;

	candidate_on_pong(c, round_trip_us, in->now_ns);
	answered = hear_from(fsm, in, out);
	if (answered >= 0 && answered != asked && fsm->candidates.all[answered].n_pings == 0)
		ping(fsm, answered, in->now_ns, out);
	if (asked == fsm->current)
		trust(fsm, in->now_ns);
	else if (fsm->trust == PEER_SUSPECT && c->origin)
		use(fsm, asked, in->now_ns, out);
}

/* The peer starts anew: it may have lost what we still trust. */
static void hurry(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	take_endpoints(fsm, in, out);
	if (in->now_ns - current(fsm)->pong_ns >= JUST_NOW_NS)
		question(fsm, in, out);
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++)
		fsm->candidates.all[i].n_unanswered = 0;
	offer(fsm, OFFER_AGAIN_NS, in->now_ns, out);
	ping_others(fsm, in->now_ns, out);
	fsm->n_rounds = 0;
	next_round(fsm, in->now_ns);
}

static void ping_others_round(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	ping_others(fsm, in->now_ns, out);
	next_round(fsm, in->now_ns);
	if (fsm->n_rounds >= BURST_ROUNDS)
		fsm->round_ns = 0;
}

static void lose_relay(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->prefers_relay = false;
	fsm->relay.latency_us = 0;
	fsm->relay.n_pongs = 0;
	fsm->relay.loss_permille = 0;
	fsm->relay.n_unanswered = 0;
	fsm->relay.generation++;
}

static void carry_big_by_relay(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->too_big_ns = in->now_ns + TOO_BIG_NS;
}

static void carry_big_directly(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	fsm->too_big_ns = 0;
}

static void give_up(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	bool was_proven = in->now_ns - fsm->established_ns >= PROVEN_NS;

	remove_akas(fsm, true, out);
	fsm->current = -1;
	fsm->trust = PEER_TRUSTED;
	if (was_proven)
		fsm->n_failures = 0;
	else
		retry_later(fsm, in->now_ns); /* a path that comes and goes must not flap */
}

/* The last ping keeps the NATs open a little longer: whoever comes back soon finds them so. */
static void retire(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	ping(fsm, fsm->current, in->now_ns, out);
	remove_akas(fsm, true, out);
	fsm->current = -1;
	fsm->trust = PEER_TRUSTED;
	fsm->n_failures = 0;
}

/* ---- choosing: the best way by latency and loss, with hysteresis ----------------------------------- */

static bool is_measured(const struct peer_candidate *c, uint64_t now_ns)
{
	return c->n_pongs >= MIN_PONGS && now_ns - c->pong_ns < FRESH_NS && c->n_unanswered < 3;
}

static uint32_t relay_cost_us(const struct peer_fsm *fsm)
{
	return candidate_cost_us(&fsm->relay) + RELAY_COST_US;
}

static uint32_t cost_now_us(struct peer_fsm *fsm)
{
	return fsm->prefers_relay ? relay_cost_us(fsm) : candidate_cost_us(current(fsm));
}

/* The cheapest way we know, other than the one in use: an index, RELAY_SLOT, or -1. */
static int best_other(struct peer_fsm *fsm, uint64_t now_ns, uint32_t *ret_cost_us)
{
	int best = -1;

	*ret_cost_us = UINT32_MAX;
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		const struct peer_candidate *c = &fsm->candidates.all[i];

		if (!c->origin || !is_measured(c, now_ns) || (i == fsm->current && !fsm->prefers_relay) ||
		    candidate_cost_us(c) >= *ret_cost_us)
			continue;
		best = i;
		*ret_cost_us = candidate_cost_us(c);
	}
	if (!fsm->prefers_relay && fsm->relay_up && is_measured(&fsm->relay, now_ns) &&
	    relay_cost_us(fsm) < *ret_cost_us) {
		best = RELAY_SLOT;
		*ret_cost_us = relay_cost_us(fsm);
	}
	return best;
}

static void choose(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	uint32_t cost, now = cost_now_us(fsm);
	int best = best_other(fsm, now_ns, &cost);
	uint32_t margin = now / 5 > BETTER_MIN_US ? now / 5 : BETTER_MIN_US;

	if (best < 0 || fsm->trust != PEER_TRUSTED || cost + margin >= now) {
		fsm->n_better = 0;
		return;
	}
	if (++fsm->n_better < BETTER_SURVEYS)
		return;
	fsm->prefers_relay = best == RELAY_SLOT;
	if (best != RELAY_SLOT)
		use(fsm, best, now_ns, out);
	fsm->n_better = 0;
}

/* Early surveys find out which of the answers that raced is best, late ones what changed since. */
static void survey(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	choose(fsm, in->now_ns, out);
	fsm->n_surveys++;
	fsm->survey_ns = in->now_ns + (fsm->n_surveys < SURVEY_EARLY_N ? SURVEY_EARLY_NS : SURVEY_NS);
	if (!fsm->active && fsm->n_surveys > SURVEY_EARLY_N)
		return;
	if (in->now_ns - fsm->alive_ns < SILENCE_NS) /* data got through without pings to count it */
		current(fsm)->loss_permille /= 2;
	ping_others(fsm, in->now_ns, out);
	ping(fsm, fsm->current, in->now_ns, out);
	ping_by_relay(fsm, in->now_ns, out);
}

/* ---- the table -------------------------------------------------------------------------------------- */

typedef void (*deed)(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out);

#define ROW(from, on, to, act) { from, on, to, act, #act }
static const struct arrow {
	int from;
	enum event on;
	int to;
	deed act;
	const char *act_name;
} arrows[] = {
	/*  from                          on                 to                            act */
	ROW(ANY,                          EV_REMOVED,        PEER_WAITING_FOR_INFO,        forget),
	ROW(ANY,                          EV_RESET,          PEER_WAITING_FOR_INFO,        forget),

	ROW(PEER_WAITING_FOR_INFO,        EV_INFO,           PEER_INACTIVE,                rest),

	ROW(PEER_INACTIVE,                EV_TRAFFIC,        PEER_TRYING,                  try_soon),
	ROW(PEER_INACTIVE,                EV_RENDEZVOUS,     PEER_RENDEZVOUS_GOT,          begin_by_rendezvous),
	ROW(PEER_INACTIVE,                EV_PING,           PEER_INACTIVE,                answer),
	ROW(PEER_INACTIVE,                EV_STRANGE_PING,   PEER_INACTIVE,                answer),
	ROW(PEER_INACTIVE,                EV_RELAY_PING,     PEER_INACTIVE,                answer_by_relay),
	ROW(PEER_INACTIVE,                EV_DATA,           PEER_INACTIVE,                hear),
	ROW(PEER_INACTIVE,                EV_NEW_SESSION,    PEER_INACTIVE,                forgive),
	ROW(PEER_INACTIVE,                EV_NEW_ENDPOINTS,  PEER_INACTIVE,                forgive),
	ROW(PEER_INACTIVE,                EV_OUR_ENDPOINTS,  PEER_INACTIVE,                forgive),
	ROW(PEER_INACTIVE,                EV_ADOPT,          PEER_BOOTING,                 adopt),

	ROW(PEER_TRYING,                  EV_RETRY_DUE,      PEER_PRE_TRANSMIT,            begin),
	ROW(PEER_TRYING,                  EV_RENDEZVOUS,     PEER_RENDEZVOUS_GOT,          begin_by_rendezvous),
	ROW(PEER_TRYING,                  EV_RELAY_PING,     PEER_TRYING,                  answer_by_relay),
	ROW(PEER_TRYING,                  EV_PING,           PEER_HALF_ESTABLISHING,       begin_by_ping),
	ROW(PEER_TRYING,                  EV_STRANGE_PING,   PEER_HALF_ESTABLISHING,       begin_by_ping),
	ROW(PEER_TRYING,                  EV_DATA,           PEER_HALF_ESTABLISHING,       begin_by_ping),
	ROW(PEER_TRYING,                  EV_NEW_SESSION,    PEER_TRYING,                  try_now),
	ROW(PEER_TRYING,                  EV_NEW_ENDPOINTS,  PEER_TRYING,                  try_now),
	ROW(PEER_TRYING,                  EV_OUR_ENDPOINTS,  PEER_TRYING,                  try_now),
	ROW(PEER_TRYING,                  EV_RELAY_UP,       PEER_TRYING,                  try_now),
	ROW(PEER_TRYING,                  EV_ADOPT,          PEER_BOOTING,                 adopt),
	ROW(PEER_TRYING,                  EV_IDLE,           PEER_INACTIVE,                rest),

	ROW(PEER_PRE_TRANSMIT,            EV_THEN,           PEER_TRANSMITTING,            send_pings_and_rendezvous),
	ROW(PEER_TRANSMITTING,            EV_RENDEZVOUS,     PEER_RENDEZVOUS_GOT,          take_rendezvous),
	ROW(PEER_TRANSMITTING,            EV_PING,           PEER_HALF_ESTABLISHING,       rest),
	ROW(PEER_TRANSMITTING,            EV_STRANGE_PING,   PEER_HALF_ESTABLISHING,       rest),
	ROW(PEER_TRANSMITTING,            EV_DATA,           PEER_HALF_ESTABLISHING,       rest),
	ROW(PEER_RENDEZVOUS_GOT,          EV_THEN,           PEER_RENDEZVOUS_ACKNOWLEDGED, send_pings_to_rendezvous),
	ROW(PEER_RENDEZVOUS_ACKNOWLEDGED, EV_RENDEZVOUS,     PEER_RENDEZVOUS_GOT,          take_rendezvous),
	ROW(PEER_RENDEZVOUS_ACKNOWLEDGED, EV_PING,           PEER_HALF_ESTABLISHING,       rest),
	ROW(PEER_RENDEZVOUS_ACKNOWLEDGED, EV_STRANGE_PING,   PEER_HALF_ESTABLISHING,       rest),
	ROW(PEER_RENDEZVOUS_ACKNOWLEDGED, EV_DATA,           PEER_HALF_ESTABLISHING,       rest),
	ROW(PEER_HALF_ESTABLISHING,       EV_THEN,           PEER_HALF_ESTABLISHED,        send_pong_and_ping),
	ROW(PEER_HALF_ESTABLISHED,        EV_RENDEZVOUS,     PEER_HALF_ESTABLISHED,        take_rendezvous_and_ping),
	ROW(PEER_HALF_ESTABLISHED,        EV_PING,           PEER_HALF_ESTABLISHED,        answer_and_ping),
	ROW(PEER_HALF_ESTABLISHED,        EV_STRANGE_PING,   PEER_HALF_ESTABLISHED,        answer_and_ping),
	ROW(PEER_HALF_ESTABLISHED,        EV_DATA,           PEER_HALF_ESTABLISHED,        hear),
	ROW(ESTABLISHING,                 EV_PONG,           PEER_FINALIZING,              finalize),
	ROW(ESTABLISHING,                 EV_RELAY_PING,     SAME,                         answer_by_relay),
	ROW(ESTABLISHING,                 EV_RELAY_PONG,     SAME,                         measure_relay),
	ROW(ESTABLISHING,                 EV_ROUND_DUE,      SAME,                         send_round),
	ROW(ESTABLISHING,                 EV_NEW_ENDPOINTS,  SAME,                         ping_the_new),
	ROW(ESTABLISHING,                 EV_OUR_ENDPOINTS,  SAME,                         send_offer),
	ROW(ESTABLISHING,                 EV_RELAY_UP,       SAME,                         send_offer),
	ROW(ESTABLISHING,                 EV_NEW_SESSION,    PEER_PRE_TRANSMIT,            begin),
	ROW(ESTABLISHING,                 EV_TIMED_OUT,      PEER_TRYING,                  fail),
	ROW(PEER_FINALIZING,              EV_THEN,           PEER_BOOTING,                 rest),
	ROW(PEER_BOOTING,                 EV_THEN,           PEER_ESTABLISHED,             boot),

	ROW(PEER_ESTABLISHED,             EV_PING,           PEER_ESTABLISHED,             answer_and_check),
	ROW(PEER_ESTABLISHED,             EV_STRANGE_PING,   PEER_ESTABLISHED,             answer_and_ping),
	ROW(PEER_ESTABLISHED,             EV_RELAY_PING,     PEER_ESTABLISHED,             answer_by_relay),
	ROW(PEER_ESTABLISHED,             EV_PONG,           PEER_ESTABLISHED,             confirm),
	ROW(PEER_ESTABLISHED,             EV_RELAY_PONG,     PEER_ESTABLISHED,             measure_relay),
	ROW(PEER_ESTABLISHED,             EV_DATA,           PEER_ESTABLISHED,             hear_data),
	ROW(PEER_ESTABLISHED,             EV_RELAY_DATA,     PEER_ESTABLISHED,             wonder),
	ROW(PEER_ESTABLISHED,             EV_DATA_SENT,      PEER_ESTABLISHED,             watch),
	ROW(PEER_ESTABLISHED,             EV_RENDEZVOUS,     PEER_ESTABLISHED,             hurry),
	ROW(PEER_ESTABLISHED,             EV_NEW_ENDPOINTS,  PEER_ESTABLISHED,             ping_the_new),
	ROW(PEER_ESTABLISHED,             EV_NEW_SESSION,    PEER_ESTABLISHED,             question),
	ROW(PEER_ESTABLISHED,             EV_OUR_ENDPOINTS,  PEER_ESTABLISHED,             question_and_offer),
	ROW(PEER_ESTABLISHED,             EV_SEND_FAILED,    PEER_ESTABLISHED,             doubt),
	ROW(PEER_ESTABLISHED,             EV_TOO_BIG,        PEER_ESTABLISHED,             carry_big_by_relay),
	ROW(PEER_ESTABLISHED,             EV_FITS_AGAIN,     PEER_ESTABLISHED,             carry_big_directly),
	ROW(PEER_ESTABLISHED,             EV_RELAY_DOWN,     PEER_ESTABLISHED,             lose_relay),
	ROW(PEER_ESTABLISHED,             EV_SILENT,         PEER_ESTABLISHED,             probe),
	ROW(PEER_ESTABLISHED,             EV_KEEPALIVE_DUE,  PEER_ESTABLISHED,             probe),
	ROW(PEER_ESTABLISHED,             EV_NO_ANSWER,      PEER_ESTABLISHED,             doubt),
	ROW(PEER_ESTABLISHED,             EV_PROBE_DUE,      PEER_ESTABLISHED,             probe_again),
	ROW(PEER_ESTABLISHED,             EV_ROUND_DUE,      PEER_ESTABLISHED,             ping_others_round),
	ROW(PEER_ESTABLISHED,             EV_SURVEY_DUE,     PEER_ESTABLISHED,             survey),
	ROW(PEER_ESTABLISHED,             EV_LOST,           PEER_TEARDOWN,                give_up),
	ROW(PEER_ESTABLISHED,             EV_UNUSED,         PEER_TEARDOWN,                retire),
	ROW(PEER_TEARDOWN,                EV_WANTED,         PEER_TRYING,                  try_soon),
	ROW(PEER_TEARDOWN,                EV_UNWANTED,       PEER_INACTIVE,                rest),
};

static const struct arrow *find_arrow(enum peer_state state, enum event on)
{
	for (const struct arrow *a = arrows; a < arrows + ARRAY_LEN(arrows); a++)
		if (a->on == on && (a->from == (int)state || a->from == ANY ||
				    (a->from == ESTABLISHING && waits_for_pongs(state))))
			return a;
	return NULL;
}

/* ---- classify: an input becomes one named event, and the facts are noted ---------------------------- */

static enum event classify_info(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	uint64_t before = fsm->session;
	uint32_t n_new;

	if (in->session == 0)
		return EV_REMOVED;
	n_new = candidates_replace(&fsm->candidates, PEER_FROM_MAP, in->endpoints, in->n_endpoints,
				   fsm->current);
	remove_akas(fsm, false, out);
	fsm->session = in->session;
	if (before == 0)
		return EV_INFO;
	if (before != in->session)
		return EV_NEW_SESSION;
	return n_new > 0 ? EV_NEW_ENDPOINTS : EV_SAME_INFO;
}

static enum event classify_ping(const struct peer_fsm *fsm, const struct peer_input *in)
{
	if (in->from.by_relay)
		return EV_RELAY_PING;
	return candidates_find(&fsm->candidates, &in->from.endpoint) >= 0 ? EV_PING : EV_STRANGE_PING;
}

static enum event classify_pong(struct peer_fsm *fsm, const struct peer_input *in)
{
	uint32_t round_trip_us;
	const struct peer_candidate *c = pinged(fsm, in, &round_trip_us);

	if (!c || (c == &fsm->relay) != in->from.by_relay)
		return EV_STALE_PONG;
	/* Nobody but the relay can answer for the relay; anybody else must be an address to send to. */
	if (!in->from.by_relay && !candidate_is_sane(&in->from.endpoint))
		return EV_STALE_PONG;
	return in->from.by_relay ? EV_RELAY_PONG : EV_PONG;
}

static enum event classify_failure(struct peer_fsm *fsm, const struct peer_input *in)
{
	const struct peer_candidate *c = current(fsm);

	if (fsm->state != PEER_ESTABLISHED || !endpoint_equal(&c->endpoint, &in->from.endpoint))
		return EV_OTHER_FAILED;
	return in->too_big ? EV_TOO_BIG : EV_SEND_FAILED;
}

static enum event classify_activity(struct peer_fsm *fsm, bool active, uint64_t now_ns)
{
	if (fsm->active == active)
		return EV_NONE;
	fsm->active = active;
	fsm->idle_ns = active ? 0 : now_ns;
	return active ? EV_TRAFFIC : EV_IDLE;
}

static enum event classify_relay(struct peer_fsm *fsm, bool up)
{
	if (fsm->relay_up == up)
		return EV_NONE;
	fsm->relay_up = up;
	return up ? EV_RELAY_UP : EV_RELAY_DOWN;
}

static enum event due(const struct peer_fsm *fsm, uint64_t now_ns);

static enum event classify(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out)
{
	switch (in->type) {
	case PEER_IN_INFO:
		return classify_info(fsm, in, out);
	case PEER_IN_REMOVED:
		return EV_REMOVED;
	case PEER_IN_TRAFFIC:
		return classify_activity(fsm, true, in->now_ns);
	case PEER_IN_IDLE:
		return classify_activity(fsm, false, in->now_ns);
	case PEER_IN_PING:
		return classify_ping(fsm, in);
	case PEER_IN_PONG:
		return classify_pong(fsm, in);
	case PEER_IN_RENDEZVOUS:
		return EV_RENDEZVOUS;
	case PEER_IN_OUR_ENDPOINTS:
		fsm->n_ours = in->n_endpoints;
		return EV_OUR_ENDPOINTS;
	case PEER_IN_DATA_RECEIVED:
		return in->from.by_relay ? EV_RELAY_DATA : EV_DATA;
	case PEER_IN_DATA_SENT:
		return EV_DATA_SENT;
	case PEER_IN_SEND_FAILED:
		return classify_failure(fsm, in);
	case PEER_IN_RELAY:
		return classify_relay(fsm, in->relay_up);
	case PEER_IN_ADOPT:
		return candidate_is_sane(&in->from.endpoint) ? EV_ADOPT : EV_NONE;
	case PEER_IN_RESET:
		return EV_RESET;
	case PEER_IN_DEADLINE:
	case PEER_N_INPUTS:
		break;
	}
	return due(fsm, in->now_ns);
}

/* ---- the clock ------------------------------------------------------------------------------------------ */

struct alarm {
	uint64_t at_ns;
	enum event event;
};

static void consider(struct alarm *first, uint64_t at_ns, enum event event)
{
	if (at_ns < first->at_ns)
		*first = (struct alarm){ at_ns, event };
}

static uint64_t probe_wait_ns(const struct peer_fsm *fsm)
{
	uint64_t round_trip_ns = (uint64_t)fsm->candidates.all[fsm->current].latency_us * 1000;

	return sooner(PROBE_WAIT_MAX, later(PROBE_WAIT_MIN, round_trip_ns * 3 / 2 + MS(30)));
}

/* When to let go of a suspect path: soon, if the relay can carry what flows; else patiently. */
static uint64_t lost_at_ns(const struct peer_fsm *fsm)
{
	bool carrying = fsm->relay_up && (fsm->unanswered_ns || (fsm->needs_pong && fsm->active));

	if (!carrying)
		return later(fsm->alive_ns + LOST_IDLE_NS, fsm->doubt_ns + LOST_IDLE_MIN_NS);
	if (fsm->n_probes < LOST_PROBES)
		return NEVER;
	return later(fsm->doubt_ns + LOST_TRAFFIC_NS, fsm->probe_ns + probe_wait_ns(fsm));
}

static void consider_trust(const struct peer_fsm *fsm, struct alarm *first)
{
	switch (fsm->trust) {
	case PEER_TRUSTED:
		if (fsm->unanswered_ns)
			consider(first, later(fsm->unanswered_ns, fsm->alive_ns) + SILENCE_NS, EV_SILENT);
		consider(first, fsm->alive_ns + KEEPALIVE_NS, EV_KEEPALIVE_DUE);
		break;
	case PEER_PROBED:
		consider(first, fsm->probe_ns + probe_wait_ns(fsm), EV_NO_ANSWER);
		break;
	case PEER_SUSPECT:
		consider(first, lost_at_ns(fsm), EV_LOST);
		consider(first, fsm->probe_ns + (fsm->n_probes < FAST_PROBES ? PROBE_NS : PROBE_SLOW_NS),
			 EV_PROBE_DUE);
		break;
	}
}

static struct alarm next_alarm(const struct peer_fsm *fsm)
{
	struct alarm first = { NEVER, EV_NONE };

	if (fsm->state == PEER_TRYING && fsm->retry_ns)
		consider(&first, fsm->retry_ns, EV_RETRY_DUE);
	if (waits_for_pongs(fsm->state)) {
		consider(&first, fsm->give_up_ns, EV_TIMED_OUT);
		consider(&first, fsm->round_ns, EV_ROUND_DUE);
	}
	if (fsm->state == PEER_ESTABLISHED) {
		if (fsm->idle_ns)
			consider(&first, fsm->idle_ns + UNUSED_NS, EV_UNUSED);
		consider_trust(fsm, &first);
		consider(&first, fsm->survey_ns, EV_SURVEY_DUE);
		if (fsm->round_ns)
			consider(&first, fsm->round_ns, EV_ROUND_DUE);
		if (fsm->too_big_ns)
			consider(&first, fsm->too_big_ns, EV_FITS_AGAIN);
	}
	return first;
}

static enum event due(const struct peer_fsm *fsm, uint64_t now_ns)
{
	struct alarm alarm = next_alarm(fsm);

	return alarm.at_ns <= now_ns ? alarm.event : EV_NONE;
}

/* What happens next without anybody telling: transient states go on, facts meet states, alarms ring. */
static enum event follow_up(const struct peer_fsm *fsm, uint64_t now_ns)
{
	if (fsm->state == PEER_TEARDOWN)
		return fsm->active ? EV_WANTED : EV_UNWANTED;
	if (peer_state_is_transient(fsm->state))
		return EV_THEN;
	if (fsm->state == PEER_INACTIVE && fsm->active)
		return EV_TRAFFIC;
	if (fsm->state == PEER_TRYING && !fsm->active)
		return EV_IDLE;
	return due(fsm, now_ns);
}

/* ---- the engine ----------------------------------------------------------------------------------------- */

static void trace(const struct peer_fsm *fsm, uint64_t now_ns, enum event event, const char *to)
{
	char line[128];

	if (!fsm->trace)
		return;
	snprintf(line, sizeof(line), "[%5llu] %s: %s -> %s", (unsigned long long)(now_ns / 1000000),
		 state_names[fsm->state], event_names[event], to);
	fsm->trace(fsm->trace_arg, line);
}

/* Data is no news, and there is a lot of it. */
static bool is_quiet(const struct peer_fsm *fsm, enum event event, const struct arrow *arrow)
{
	bool is_data = event == EV_DATA || event == EV_RELAY_DATA || event == EV_DATA_SENT;

	return is_data && (!arrow || arrow->to == (int)fsm->state);
}

static void take(struct peer_fsm *fsm, enum event event, const struct peer_input *in,
		 struct peer_actions *out)
{
	const struct arrow *arrow = find_arrow(fsm->state, event);
	enum peer_state to = fsm->state;

	if (arrow && arrow->to != SAME)
		to = (enum peer_state)arrow->to;
	if (!is_quiet(fsm, event, arrow))
		trace(fsm, in->now_ns, event, arrow ? state_names[to] : "(ignored)");
	if (!arrow)
		return;
	arrow->act(fsm, in, out);
	fsm->state = to;
}

/* The path follows from the state: there is no other place that decides it. */
static struct peer_path wanted_path(struct peer_fsm *fsm)
{
	struct peer_path path = { .relay = true };
	const struct peer_candidate *c = current(fsm);

	if (fsm->state == PEER_HALF_ESTABLISHED && c) {
		path.direct = true;
	} else if (fsm->state == PEER_ESTABLISHED && !fsm->prefers_relay) {
		path.direct = true;
		path.relay = fsm->trust == PEER_SUSPECT || fsm->too_big_ns;
	}
	if (path.direct)
		path.endpoint = c->endpoint;
	return path;
}

static bool path_equal(const struct peer_path *a, const struct peer_path *b)
{
	return a->direct == b->direct && a->relay == b->relay && endpoint_equal(&a->endpoint, &b->endpoint);
}

static void route(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	struct peer_path path = wanted_path(fsm);
	char line[128];

	if (path_equal(&path, &fsm->path))
		return;
	if (path.direct != fsm->path.direct || !endpoint_equal(&path.endpoint, &fsm->path.endpoint))
		fsm->unanswered_ns = 0;
	fsm->path = path;
	add(out, PEER_DO_SET_PATH)->path = path;
	if (!fsm->trace)
		return;
	snprintf(line, sizeof(line), "[%5llu]   path: %s%s%s", (unsigned long long)(now_ns / 1000000),
		 path.direct ? endpoint_text(&path.endpoint).s : "", path.direct && path.relay ? " and " : "",
		 path.relay ? "relay" : "");
	fsm->trace(fsm->trace_arg, line);
}

static bool akas_are_right(const struct peer_fsm *fsm)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		const struct peer_candidate *c = &fsm->candidates.all[i];

		if (c->aka && (!c->origin || !may_have_aka(fsm->state)))
			return false;
	}
	return true;
}

static bool invariant_holds(struct peer_fsm *fsm, uint64_t now_ns)
{
	struct peer_path path = wanted_path(fsm);
	const struct peer_candidate *c = current(fsm);

	return !peer_state_is_transient(fsm->state) &&
	       (fsm->session == 0) == (fsm->state == PEER_WAITING_FOR_INFO) &&
	       (fsm->state != PEER_INACTIVE || !fsm->active) &&
	       (fsm->state != PEER_TRYING || fsm->active) &&
	       (fsm->state != PEER_ESTABLISHED || (c && c->origin && c->aka)) &&
	       (fsm->state == PEER_ESTABLISHED || fsm->trust == PEER_TRUSTED) &&
	       (fsm->state == PEER_ESTABLISHED || fsm->state == PEER_HALF_ESTABLISHED || !c) &&
	       (fsm->path.direct || fsm->path.relay) && path_equal(&path, &fsm->path) &&
	       (fsm->deadline_ns == 0 || fsm->deadline_ns > now_ns) && akas_are_right(fsm);
}

void peer_fsm_init(struct peer_fsm *fsm, uint64_t seed)
{
	*fsm = (struct peer_fsm){ .state = PEER_WAITING_FOR_INFO,
				  .path = { .relay = true },
				  .current = -1,
				  .random = seed };
}

void peer_fsm_step(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *ret)
{
	uint64_t deadline_ns;

	ret->n = 0;
	enum event event = classify(fsm, in, ret);
	if (event != EV_NONE)
		take(fsm, event, in, ret);
	for (int n = 0; (event = follow_up(fsm, in->now_ns)) != EV_NONE; n++) {
		assert(n < MAX_EVENTS);
		take(fsm, event, in, ret);
	}
	route(fsm, in->now_ns, ret);
	deadline_ns = next_alarm(fsm).at_ns;
	fsm->deadline_ns = deadline_ns == NEVER ? 0 : deadline_ns;
	assert(invariant_holds(fsm, in->now_ns));
}

const char *peer_state_name(enum peer_state state)
{
	return state_names[state];
}

bool peer_state_is_transient(enum peer_state state)
{
	return state == PEER_PRE_TRANSMIT || state == PEER_RENDEZVOUS_GOT ||
	       state == PEER_HALF_ESTABLISHING || state == PEER_FINALIZING || state == PEER_BOOTING ||
	       state == PEER_TEARDOWN;
}

bool peer_state_is_establishing(enum peer_state state)
{
	return state >= PEER_PRE_TRANSMIT && state <= PEER_FINALIZING;
}

uint32_t peer_fsm_latency_us(const struct peer_fsm *fsm)
{
	if (fsm->path.direct && fsm->current >= 0)
		return fsm->candidates.all[fsm->current].latency_us;
	return fsm->relay.latency_us;
}

static const char *place_name(int place)
{
	if (place == ANY)
		return "*";
	if (place == ESTABLISHING || place == SAME)
		return "establishing";
	return state_names[place];
}

size_t peer_fsm_n_arrows(void)
{
	return ARRAY_LEN(arrows);
}

struct peer_arrow_text peer_fsm_arrow(size_t i)
{
	const struct arrow *a = &arrows[i];

	return (struct peer_arrow_text){ place_name(a->from), event_names[a->on], place_name(a->to),
					 a->act_name };
}

size_t peer_fsm_n_events(void)
{
	return N_EVENTS;
}

const char *peer_fsm_event_name(size_t event)
{
	return event_names[event];
}

int peer_fsm_next(enum peer_state state, size_t event)
{
	const struct arrow *arrow = find_arrow(state, (enum event)event);

	if (!arrow)
		return -1;
	return arrow->to == SAME ? (int)state : arrow->to;
}
