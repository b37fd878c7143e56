/*
 * The peer state machine. Read in this order: the drawing in the header, the table below ("one
 * arrow a line"), then the deeds in peer_deeds.c. classify() turns an input into exactly one named
 * event, due() does the same for what the clock brings, follow_up() for what happens at once; so
 * that no deed has to ask what happened.
 */
#include "actors/traffic_manager/peer_fsm.h"

#include "actors/traffic_manager/peer_deeds.h"
#include "common/macros.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MAX_EVENTS 16 /* in one step; more is a loop of ours */

/* Groups and placeholders of the table. */
#define ANY          PEER_N_STATES
#define ESTABLISHING (PEER_N_STATES + 1) /* its three states that wait */
#define SAME         (PEER_N_STATES + 2)

enum event {
	/* from the shell */
	EV_INFO,          /* the peer's session key is known */
	EV_SAME_INFO,     /* the map said nothing new */
	EV_NEW_SESSION,   /* the peer has another session key: it was started anew */
	EV_NEW_ENDPOINTS, /* the map names an address we did not know */
	EV_REMOVED,
	EV_TRAFFIC,
	EV_IDLE,
	EV_PING,         /* direct, from a known address */
	EV_STRANGE_PING, /* direct, from an address nobody told us */
	EV_RELAY_PING,
	EV_PONG, /* direct, answers a ping of this attempt; from any address */
	EV_RELAY_PONG,
	EV_STALE_PONG, /* answers nothing we still care about */
	EV_RENDEZVOUS,
	EV_OUR_ENDPOINTS,
	EV_DATA, /* authenticated, direct */
	EV_RELAY_DATA,
	EV_DATA_SENT,
	EV_RECEIPT,      /* the peer tells that data arrives by the direct way */
	EV_NO_RECEIPT,   /* it tells that it does not */
	EV_SEND_FAILED,  /* on the direct way in use */
	EV_TOO_BIG,      /* a packet did not fit through it */
	EV_OTHER_FAILED, /* to another address */
	EV_RELAY_UP,
	EV_RELAY_DOWN,
	EV_ADOPT,
	EV_RESET,
	/* from the clock */
	EV_RETRY_DUE,
	EV_ROUND_DUE,
	EV_TIMED_OUT,
	EV_SILENT,        /* data goes out, nothing comes back */
	EV_KEEPALIVE_DUE, /* nothing authenticated for a while */
	EV_NO_ANSWER,     /* the probe was not answered in time */
	EV_PROBE_DUE,     /* the next one, to a suspect path */
	EV_LOST,          /* silent too long */
	EV_OTHER_WORKS,   /* so is this one, but not another way */
	EV_RECEIPT_DUE, /* ask once more whether data arrives */
	EV_UNDELIVERED, /* asked long enough: it does not */
	EV_WATCH_DUE,   /* data flows: how much of it is lost? */
	EV_SURVEY_DUE,
	EV_FITS_AGAIN, /* try big packets on the direct way alone again */
	EV_UNUSED,     /* no traffic for a minute */
	/* at once */
	EV_THEN, /* a transient state goes on */
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
	[EV_RECEIPT] = "receipt",
	[EV_NO_RECEIPT] = "no receipt",
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
	[EV_OTHER_WORKS] = "other works",
	[EV_RECEIPT_DUE] = "receipt due",
	[EV_UNDELIVERED] = "undelivered",
	[EV_WATCH_DUE] = "watch due",
	[EV_SURVEY_DUE] = "survey due",
	[EV_FITS_AGAIN] = "fits again",
	[EV_UNUSED] = "unused",
	[EV_THEN] = "then",
	[EV_WANTED] = "wanted",
	[EV_UNWANTED] = "unwanted",
};
static_assert(ARRAY_LEN(event_names) == N_EVENTS, "a name for every event");

static bool waits_for_pongs(enum peer_state state)
{
	return state == PEER_TRANSMITTING || state == PEER_RENDEZVOUS_ACKNOWLEDGED ||
	       state == PEER_HALF_ESTABLISHED;
}

/* ---- the table ---- */

/* clang-format off */
#define ROW(from, on, to, act) { from, on, to, deed_##act, #act }
static const struct arrow {
	int from;
	enum event on;
	int to;
	peer_deed *act;
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
	ROW(PEER_ESTABLISHED,             EV_RECEIPT,        PEER_ESTABLISHED,             believe_receipt),
	ROW(PEER_ESTABLISHED,             EV_NO_RECEIPT,     PEER_ESTABLISHED,             doubt_delivery),
	ROW(PEER_ESTABLISHED,             EV_RECEIPT_DUE,    PEER_ESTABLISHED,             ask_for_receipt),
	ROW(PEER_ESTABLISHED,             EV_UNDELIVERED,    PEER_ESTABLISHED,             close),
	ROW(PEER_ESTABLISHED,             EV_RENDEZVOUS,     PEER_ESTABLISHED,             hurry),
	ROW(PEER_ESTABLISHED,             EV_NEW_ENDPOINTS,  PEER_ESTABLISHED,             ping_the_new),
	ROW(PEER_ESTABLISHED,             EV_NEW_SESSION,    PEER_ESTABLISHED,             question),
	ROW(PEER_ESTABLISHED,             EV_OUR_ENDPOINTS,  PEER_ESTABLISHED,             question_and_offer),
	ROW(PEER_ESTABLISHED,             EV_SEND_FAILED,    PEER_ESTABLISHED,             doubt_sending),
	ROW(PEER_ESTABLISHED,             EV_TOO_BIG,        PEER_ESTABLISHED,             carry_big_by_relay),
	ROW(PEER_ESTABLISHED,             EV_FITS_AGAIN,     PEER_ESTABLISHED,             carry_big_directly),
	ROW(PEER_ESTABLISHED,             EV_RELAY_DOWN,     PEER_ESTABLISHED,             lose_relay),
	ROW(PEER_ESTABLISHED,             EV_SILENT,         PEER_ESTABLISHED,             probe),
	ROW(PEER_ESTABLISHED,             EV_KEEPALIVE_DUE,  PEER_ESTABLISHED,             probe),
	ROW(PEER_ESTABLISHED,             EV_NO_ANSWER,      PEER_ESTABLISHED,             doubt),
	ROW(PEER_ESTABLISHED,             EV_PROBE_DUE,      PEER_ESTABLISHED,             probe_again),
	ROW(PEER_ESTABLISHED,             EV_ROUND_DUE,      PEER_ESTABLISHED,             ping_others_round),
	ROW(PEER_ESTABLISHED,             EV_WATCH_DUE,      PEER_ESTABLISHED,             watch_loss),
	ROW(PEER_ESTABLISHED,             EV_SURVEY_DUE,     PEER_ESTABLISHED,             survey),
	ROW(PEER_ESTABLISHED,             EV_OTHER_WORKS,    PEER_ESTABLISHED,             use_other),
	ROW(PEER_ESTABLISHED,             EV_LOST,           PEER_TEARDOWN,                give_up),
	ROW(PEER_ESTABLISHED,             EV_UNUSED,         PEER_TEARDOWN,                retire),
	ROW(PEER_TEARDOWN,                EV_WANTED,         PEER_TRYING,                  try_soon),
	ROW(PEER_TEARDOWN,                EV_UNWANTED,       PEER_INACTIVE,                rest),
};
/* clang-format on */

static const struct arrow *find_arrow(enum peer_state state, enum event on)
{
	for (const struct arrow *a = arrows; a < arrows + ARRAY_LEN(arrows); a++)
		if (a->on == on && (a->from == (int)state || a->from == ANY ||
				    (a->from == ESTABLISHING && waits_for_pongs(state))))
			return a;
	return NULL;
}

/* ---- classify: an input becomes one named event, and the facts are noted ---- */

static enum event classify_info(struct peer_fsm *fsm, const struct peer_input *in,
				struct peer_actions *out)
{
	uint64_t before = fsm->session;
	uint32_t n_new;

	if (in->session == 0)
		return EV_REMOVED;
	n_new = candidates_replace(&fsm->candidates, PEER_FROM_MAP, in->endpoints, in->n_endpoints,
				   fsm->current);
	peer_remove_akas(fsm, false, out);
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
	return candidates_find(&fsm->candidates, &in->from.endpoint) >= 0 ? EV_PING
									  : EV_STRANGE_PING;
}

static enum event classify_pong(struct peer_fsm *fsm, const struct peer_input *in)
{
	uint32_t round_trip_us;
	const struct peer_candidate *c = peer_pinged(fsm, in, &round_trip_us);

	if (!c || (c == &fsm->relay) != in->from.by_relay)
		return EV_STALE_PONG;
	/* Nobody but the relay can answer for the relay; anybody else must be an address to send
	 * to. */
	if (!in->from.by_relay && !candidate_is_sane(&in->from.endpoint))
		return EV_STALE_PONG;
	return in->from.by_relay ? EV_RELAY_PONG : EV_PONG;
}

static enum event classify_failure(struct peer_fsm *fsm, const struct peer_input *in)
{
	const struct peer_candidate *c = peer_current(fsm);

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

static enum event classify_receipt(const struct peer_fsm *fsm, const struct peer_input *in)
{
	int judgement = peer_judge_receipt(fsm, in);

	return judgement > 0 ? EV_RECEIPT : judgement < 0 ? EV_NO_RECEIPT : EV_NONE;
}

static enum event classify_data(struct peer_fsm *fsm, const struct peer_input *in, enum event event)
{
	if (event == EV_DATA)
		fsm->received_ns = in->now_ns;
	if (in->n_bytes >= BULK_BYTES)
		fsm->loaded_ns = in->now_ns;
	return event;
}

static enum event due(const struct peer_fsm *fsm, uint64_t now_ns);

static enum event classify(struct peer_fsm *fsm, const struct peer_input *in,
			   struct peer_actions *out)
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
		return classify_data(fsm, in, in->from.by_relay ? EV_RELAY_DATA : EV_DATA);
	case PEER_IN_DATA_SENT:
		return classify_data(fsm, in, EV_DATA_SENT);
	case PEER_IN_RECEIPT:
		return classify_receipt(fsm, in);
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

/* ---- the clock ---- */

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
	return peer_sooner(PROBE_WAIT_MAX, candidate_wait_ns(&fsm->candidates.all[fsm->current]));
}

/* A probe was not answered in time; behind our own packets it may be late, and others lost. */
static uint64_t no_answer_at_ns(const struct peer_fsm *fsm)
{
	const uint32_t n_before = peer_probes_before_doubt(fsm);

	if (!peer_was_loaded(fsm, fsm->probe_ns))
		return fsm->n_probes < n_before ? NEVER : fsm->doubt_ns + (n_before - 1) * LOSS_PROBE_NS + probe_wait_ns(fsm);
	return peer_later(fsm->doubt_ns + LOADED_WAIT_NS,
			  peer_sooner(fsm->data_ns + SILENCE_NS, fsm->doubt_ns + LOADED_PATIENT_NS));
}

static bool is_copied(const struct peer_fsm *fsm)
{
	return fsm->relay_up && (fsm->unanswered_ns || (fsm->needs_pong && fsm->active));
}

/* So many probes in a row are not lost by chance, also where the usual loss is measured at half of what it is. */
static uint32_t lost_probes(const struct peer_fsm *fsm)
{
	const uint32_t usually = (uint32_t)peer_sooner(fsm->usual_loss_permille, 400) / 20u;

	return usually + (is_copied(fsm) ? LOST_PROBES : INSTEAD_PROBES);
}

/* When the last probe went that is needed for that: without a relay they are as fast as that from the first on. */
static uint64_t last_needed_ns(const struct peer_fsm *fsm)
{
	const uint32_t n_before = peer_probes_before_doubt(fsm), n = lost_probes(fsm);

	if (fsm->relay_up || !fsm->unanswered_ns || n <= n_before)
		return fsm->probe_ns;
	return peer_sooner(fsm->probe_ns, fsm->doubt_ns + (n_before - 1) * LOSS_PROBE_NS + (n - n_before) * PROBE_NS);
}

static uint64_t probe_again_ns(const struct peer_fsm *fsm)
{
	return peer_was_loaded(fsm, fsm->probe_ns) ? LOADED_PROBE_NS : fsm->n_probes <= lost_probes(fsm) ? PROBE_NS : PROBE_SLOW_NS;
}

/* When to let go of a suspect path: soon, if the relay or another way can carry what flows; else patiently. */
static uint64_t lost_at_ns(const struct peer_fsm *fsm, bool is_other_there)
{
	if (!is_copied(fsm) && !is_other_there)
		return peer_later(fsm->alive_ns + LOST_IDLE_NS, fsm->doubt_ns + LOST_IDLE_MIN_NS);
	if (fsm->n_probes < lost_probes(fsm))
		return NEVER;
	if (peer_was_loaded(fsm, fsm->probe_ns)) /* what fills the queue would delay the other way's answers, too */
		return fsm->doubt_ns + (is_other_there ? LOST_TRAFFIC_NS : LOST_LOADED_NS);
	return peer_later(fsm->doubt_ns + LOST_TRAFFIC_NS, last_needed_ns(fsm) + probe_wait_ns(fsm));
}

static void consider_suspicion(const struct peer_fsm *fsm, uint64_t now_ns, struct alarm *first)
{
	const bool is_other_there = peer_answered_since_doubt(fsm, now_ns) >= 0;

	consider(first, lost_at_ns(fsm, is_other_there), is_other_there ? EV_OTHER_WORKS : EV_LOST);
	consider(first, fsm->probe_ns + probe_again_ns(fsm), EV_PROBE_DUE);
}

static void consider_delivery(const struct peer_fsm *fsm, struct alarm *first)
{
	if (fsm->undelivered_ns == 0)
		return;
	if (fsm->n_receipts > 0)
		consider(first, fsm->undelivered_ns + CLOSE_NS, EV_UNDELIVERED);
	consider(first, fsm->asked_ns + ASK_NS, EV_RECEIPT_DUE);
}

static void consider_trust(const struct peer_fsm *fsm, uint64_t now_ns, struct alarm *first)
{
	switch (fsm->trust) {
	case PEER_TRUSTED:
		if (fsm->unanswered_ns)
			consider(first, peer_later(fsm->unanswered_ns, fsm->alive_ns) + SILENCE_NS,
				 EV_SILENT);
		consider(first, fsm->alive_ns + KEEPALIVE_NS, EV_KEEPALIVE_DUE);
		break;
	case PEER_PROBED:
		consider(first, no_answer_at_ns(fsm), EV_NO_ANSWER);
		if (peer_was_loaded(fsm, fsm->probe_ns))
			consider(first, fsm->probe_ns + LOADED_PROBE_NS, EV_PROBE_DUE);
		else if (fsm->n_probes < peer_probes_before_doubt(fsm))
			consider(first, fsm->probe_ns + LOSS_PROBE_NS, EV_PROBE_DUE);
		else if (!fsm->relay_up && fsm->unanswered_ns && fsm->n_probes < lost_probes(fsm))
			consider(first, fsm->probe_ns + PROBE_NS, EV_PROBE_DUE); /* nothing else carries what flows */
		break;
	case PEER_SUSPECT:
		consider_suspicion(fsm, now_ns, first);
		break;
	}
}

static struct alarm next_alarm(const struct peer_fsm *fsm, uint64_t now_ns)
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
		consider_trust(fsm, now_ns, &first);
		consider_delivery(fsm, &first);
		consider(&first, fsm->survey_ns, EV_SURVEY_DUE);
		if (fsm->watch_ns)
			consider(&first, fsm->watch_ns, EV_WATCH_DUE);
		if (fsm->round_ns)
			consider(&first, fsm->round_ns, EV_ROUND_DUE);
		if (fsm->too_big_ns)
			consider(&first, fsm->too_big_ns, EV_FITS_AGAIN);
	}
	return first;
}

static enum event due(const struct peer_fsm *fsm, uint64_t now_ns)
{
	struct alarm alarm = next_alarm(fsm, now_ns);

	return alarm.at_ns <= now_ns ? alarm.event : EV_NONE;
}

/* What happens next without anybody telling: transient states go on, facts meet states, alarms
 * ring. */
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

/* ---- the engine ---- */

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
	const struct peer_candidate *c = peer_current(fsm);

	if (fsm->state == PEER_HALF_ESTABLISHED && c) {
		path.direct = true;
	} else if (fsm->state == PEER_ESTABLISHED && !fsm->prefers_relay) {
		path.direct = true;
		path.relay = fsm->trust == PEER_SUSPECT || (fsm->undelivered_ns && !fsm->alone_ns) || fsm->too_big_ns;
	}
	if (path.direct)
		path.endpoint = c->endpoint;
	return path;
}

static bool path_equal(const struct peer_path *a, const struct peer_path *b)
{
	return a->direct == b->direct && a->relay == b->relay &&
	       endpoint_equal(&a->endpoint, &b->endpoint);
}

static void route(struct peer_fsm *fsm, uint64_t now_ns, struct peer_actions *out)
{
	struct peer_path path = wanted_path(fsm);
	char line[128];

	if (path_equal(&path, &fsm->path))
		return;
	if (path.direct != fsm->path.direct || !endpoint_equal(&path.endpoint, &fsm->path.endpoint))
		fsm->unanswered_ns = 0;
	if (!path.direct || !endpoint_equal(&path.endpoint, &fsm->path.endpoint))
		memset(fsm->looks_ns, 0, sizeof(fsm->looks_ns));
	fsm->path = path;
	peer_add_action(out, PEER_DO_SET_PATH)->path = path;
	if (!fsm->trace)
		return;
	snprintf(line, sizeof(line), "[%5llu]   path: %s%s%s",
		 (unsigned long long)(now_ns / 1000000),
		 path.direct ? endpoint_text(&path.endpoint).s : "",
		 path.direct && path.relay ? " and " : "", path.relay ? "relay" : "");
	fsm->trace(fsm->trace_arg, line);
}

static bool akas_are_right(const struct peer_fsm *fsm)
{
	for (int i = 0; i < PEER_MAX_CANDIDATES; i++) {
		const struct peer_candidate *c = &fsm->candidates.all[i];

		if (c->aka && (!c->origin || !peer_may_have_aka(fsm->state)))
			return false;
	}
	return true;
}

static bool invariant_holds(struct peer_fsm *fsm, uint64_t now_ns)
{
	struct peer_path path = wanted_path(fsm);
	const struct peer_candidate *c = peer_current(fsm);

	return !peer_state_is_transient(fsm->state) &&
	       (fsm->session == 0) == (fsm->state == PEER_WAITING_FOR_INFO) &&
	       (fsm->state != PEER_INACTIVE || !fsm->active) &&
	       (fsm->state != PEER_TRYING || fsm->active) &&
	       (fsm->state != PEER_ESTABLISHED || (c && c->origin && c->aka)) &&
	       (fsm->state == PEER_ESTABLISHED || fsm->trust == PEER_TRUSTED) &&
	       (!fsm->takes_any || fsm->trust == PEER_SUSPECT) &&
	       (fsm->state == PEER_ESTABLISHED || fsm->undelivered_ns == 0) &&
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
	deadline_ns = next_alarm(fsm, in->now_ns).at_ns;
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
	       state == PEER_HALF_ESTABLISHING || state == PEER_FINALIZING ||
	       state == PEER_BOOTING || state == PEER_TEARDOWN;
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

bool peer_fsm_has_direct(const struct peer_fsm *fsm)
{
	return fsm->path.direct || fsm->state == PEER_ESTABLISHED;
}

bool peer_fsm_is_by_turn(const struct peer_fsm *fsm)
{
	return fsm->path.direct && fsm->current >= 0 && candidate_is_by_turn(&fsm->candidates.all[fsm->current]);
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
