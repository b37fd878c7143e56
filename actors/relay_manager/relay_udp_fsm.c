#include "actors/relay_manager/relay_udp_fsm.h"

#include "common/macros.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define ANY RELAY_UDP_N_STATES
#define MS  UINT64_C(1000)

#define ASK_MS		100   /* first repetition of a question; doubled each time … */
#define ASK_MAX_MS	800   /* … up to that */
#define ASK_EAGER_MS	400   /* the same after a loss: the relay may be back any moment */
#define N_ASKS		6
#define N_ASKS_RARELY	3 /* once WAIT_MAX_MS is reached: UDP is cut here, most likely for good */
#define N_RARELY	4 /* attempts in vain until then */
#define N_BINDS		4
#define EAGER_MS	60000 /* so long after a loss we go on asking */
#define WAIT_MIN_MS	30000
#define WAIT_MAX_MS	300000
#define WAIT_SILENT_MS	1000  /* bound by nobody: its map may be about to know us; doubled each time */
#define WAIT_REFUSED_MS 200   /* or what the relay says, if that is longer */
#define REPLACED_MS	30000 /* another machine has our key: no sooner than that */
#define POKE_PAUSE_MS	1000  /* what changes without end is followed so often */
#define KEEP_ALIVE_MAX_S 25   /* NATs forget after 30 s */
#define NAT_MIN_MS       5000 /* those that forget sooner are asked for no more often */
#define USED_MS		3000  /* a relay is in use so long after something was sent */
#define PING_USED_MS	1000
#define PING_LEAVING_MS 300
#define PING_AGAIN_MS	150   /* after one that is missing */
#define PING_IDLE_AGAIN_MS 500
#define EXPECT_MS	2000  /* so long after a packet we expect another */
#define SILENT_MS	300   /* sent, and nothing heard */
#define IDLE_MS		2000  /* … or nothing heard for so long before it was sent: a ping at once */
#define N_DEAD		3     /* pings without a sign of life; and two for each that went missing before */
#define N_DEAD_IDLE	3     /* and these, when nobody waits for it */
#define PING_COPIES	3     /* of a ping into silence */
#define N_FINDS		5
#define HISTORY		32    /* bits */
#define MAX_PROVEN_MISSING 1

static const char *const state_names[] = {
	[RELAY_UDP_IDLE] = "idle",	  [RELAY_UDP_ASKING] = "asking",	[RELAY_UDP_BINDING] = "binding",
	[RELAY_UDP_IS_BOUND] = "bound",	  [RELAY_UDP_REBINDING] = "rebinding",	[RELAY_UDP_WAITING] = "waiting",
};
static_assert(ARRAY_LEN(state_names) == RELAY_UDP_N_STATES, "a name for every state");

static const char *const cause_names[] = {
	[RELAY_UDP_ON_NOTHING] = "nothing", [RELAY_UDP_ON_WANTED] = "wanted",	[RELAY_UDP_ON_UNWANTED] = "unwanted",
	[RELAY_UDP_ON_POKED] = "poked",	    [RELAY_UDP_ON_COOKIE] = "cookie",	[RELAY_UDP_ON_BOUND] = "bound",
	[RELAY_UDP_ON_MOVED] = "moved",	    [RELAY_UDP_ON_OLD] = "old",		[RELAY_UDP_ON_REFUSED] = "refused",
	[RELAY_UDP_ON_LEAVING] = "leaving", [RELAY_UDP_ON_SILENT] = "silent",	[RELAY_UDP_ON_DUE] = "due",
};
static_assert(ARRAY_LEN(cause_names) == RELAY_UDP_N_CAUSES, "a name for every cause");

const char *relay_udp_state_name(enum relay_udp_state state)
{
	return state_names[state];
}

const char *relay_udp_cause_name(enum relay_udp_cause cause)
{
	return cause_names[cause];
}

/* ---- small things ---- */

bool relay_udp_fsm_is_bound(const struct relay_udp_fsm *fsm)
{
	return fsm->state == RELAY_UDP_IS_BOUND || fsm->state == RELAY_UDP_REBINDING;
}

struct endpoint relay_udp_fsm_remote(const struct relay_udp_fsm *fsm)
{
	return fsm->config.addresses[fsm->address];
}

bool relay_udp_fsm_owns(const struct relay_udp_fsm *fsm, const struct endpoint *from)
{
	for (uint32_t i = 0; i < fsm->config.n_addresses; i++)
		if (endpoint_equal(&fsm->config.addresses[i], from))
			return true;
	return false;
}

/* One random number of many: the input's is the seed (splitmix64). */
static uint64_t next_random(struct relay_udp_fsm *fsm)
{
	uint64_t z = fsm->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Between three quarters of it and all, so that many clients do not speak in step. */
static uint64_t jittered_us(struct relay_udp_fsm *fsm, uint64_t ms)
{
	return ms * 750 + next_random(fsm) % (ms * 250 + 1);
}

static uint64_t longer(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* How long a ping may take before it counts as missing. */
static uint64_t patience_us(const struct relay_udp_fsm *fsm)
{
	return longer(PING_AGAIN_MS * MS, 2 * (uint64_t)fsm->rtt_us);
}

static void put(struct relay_udp_output *out, const struct endpoint *to, const struct relay_udp_datagram *datagram)
{
	if (out->n_sends == RELAY_UDP_FSM_SENDS)
		return;
	struct relay_udp_send *sent = &out->sends[out->n_sends++];
	sent->to = *to;
	sent->len = relay_udp_encode(sent->bytes, sizeof(sent->bytes), datagram);
}

static struct relay_udp_event *tell(struct relay_udp_output *out, enum relay_udp_event_type type)
{
	assert(out->n_events < RELAY_UDP_FSM_EVENTS);
	struct relay_udp_event *event = &out->events[out->n_events++];

	*event = (struct relay_udp_event){ .type = type };
	return event;
}

/* ---- questions ---- */

static uint64_t ask_interval_ms(const struct relay_udp_fsm *fsm, uint64_t now_us)
{
	const uint64_t most = fsm->eager_until_us > now_us ? ASK_EAGER_MS : ASK_MAX_MS;

	if (fsm->n_failures > N_RARELY)
		return ASK_MAX_MS; /* few are asked: the last answer may still be late */
	const uint64_t ms = (uint64_t)ASK_MS << (fsm->n_tries < 8 ? fsm->n_tries : 8);

	return ms < most ? ms : most;
}

static void send_ask(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	const struct relay_udp_datagram ask = { .type = RELAY_UDP_ASK, .ask = { .number = fsm->question } };

	for (uint32_t i = 0; i < fsm->config.n_addresses; i++)
		put(out, &fsm->config.addresses[i], &ask);
	fsm->retry_us = input->now_us + jittered_us(fsm, ask_interval_ms(fsm, input->now_us));
	fsm->n_tries++;
}

static void send_bind(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	struct relay_udp_datagram bind = {
		.type = RELAY_UDP_BIND,
		.bind = { .version = RELAY_UDP_VERSION, .node_key = fsm->config.node_key, .number = fsm->bind_number },
	};
	const struct endpoint to = relay_udp_fsm_remote(fsm);

	memcpy(bind.bind.cookie, fsm->cookie, sizeof(bind.bind.cookie));
	put(out, &to, &bind);
	struct relay_udp_send *sent = &out->sends[out->n_sends - 1];
	relay_udp_prove(&fsm->config.key, sent->bytes, sent->len);
	fsm->retry_us = input->now_us + longer(jittered_us(fsm, ask_interval_ms(fsm, input->now_us)), patience_us(fsm));
	fsm->n_tries++;
}

static uint64_t ping_interval_us(struct relay_udp_fsm *fsm, uint64_t now_us)
{
	if (fsm->is_leaving)
		return PING_LEAVING_MS * MS;
	if (fsm->is_watched || (fsm->used_us != 0 && now_us - fsm->used_us < USED_MS * MS))
		return jittered_us(fsm, PING_USED_MS);
	/* The longer nothing went or came, the less it matters when we learn that nothing can. */
	const uint64_t pause_ms = (now_us - longer(fsm->used_us, fsm->bound_us)) / 2 / MS;
	const uint32_t most_ms = fsm->nat_ms != 0 && fsm->nat_ms < fsm->keep_alive_ms ? fsm->nat_ms : fsm->keep_alive_ms;
	return jittered_us(fsm, pause_ms < PING_USED_MS ? PING_USED_MS : pause_ms < most_ms ? pause_ms : most_ms);
}

static void send_ping(struct relay_udp_fsm *fsm, uint64_t now_us, uint32_t n_copies, struct relay_udp_output *out)
{
	struct relay_udp_ping_record *record = &fsm->pings[fsm->next_record++ % RELAY_UDP_FSM_PINGS];
	const struct endpoint to = relay_udp_fsm_remote(fsm);

	*record = (struct relay_udp_ping_record){ RELAY_UDP_PING_OUT, next_random(fsm), now_us };
	const struct relay_udp_datagram ping = {
		.type = RELAY_UDP_PING,
		.header = { RELAY_UDP_PING, 0, fsm->slot, fsm->token },
		.ping = { .number = record->number, .challenge = fsm->challenge },
	};
	for (uint32_t i = 0; i < n_copies; i++)
		put(out, &to, &ping);
	fsm->next_ping_us = now_us + ping_interval_us(fsm, now_us);
}

static void send_find(struct relay_udp_fsm *fsm, struct relay_udp_find *find, uint64_t now_us,
		      struct relay_udp_output *out)
{
	const struct endpoint to = relay_udp_fsm_remote(fsm);
	const struct relay_udp_datagram datagram = {
		.type = RELAY_UDP_FIND,
		.header = { RELAY_UDP_FIND, find->slot, fsm->slot, fsm->token },
		.node_key = find->key,
	};

	put(out, &to, &datagram);
	find->next_us = now_us + longer(jittered_us(fsm, (uint64_t)ASK_MS << find->n_tries), 2 * (uint64_t)fsm->rtt_us);
	find->n_tries++;
	/* Somebody waits for the answer, as for one to a packet. */
	fsm->used_us = now_us;
	if (fsm->unanswered_us == 0)
		fsm->unanswered_us = now_us;
}

static void remove_find(struct relay_udp_fsm *fsm, uint32_t i)
{
	fsm->n_finds--;
	memmove(&fsm->finds[i], &fsm->finds[i + 1], (fsm->n_finds - i) * sizeof(*fsm->finds));
}

static void begin_find(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	if (!relay_udp_fsm_is_bound(fsm))
		return;
	for (uint32_t i = 0; i < fsm->n_finds; i++)
		if (fsm->finds[i].slot == input->slot && public_key_equal(&fsm->finds[i].key, &input->key))
			return; /* asked, and asked again */
	if (fsm->n_finds == RELAY_UDP_FSM_FINDS)
		remove_find(fsm, 0);
	struct relay_udp_find *find = &fsm->finds[fsm->n_finds++];
	*find = (struct relay_udp_find){ .key = input->key, .slot = input->slot };
	send_find(fsm, find, input->now_us, out);
}

static void repeat_finds(struct relay_udp_fsm *fsm, uint64_t now_us, struct relay_udp_output *out)
{
	for (uint32_t i = 0; i < fsm->n_finds;) {
		struct relay_udp_find *find = &fsm->finds[i];
		if (now_us >= find->next_us && find->n_tries >= N_FINDS) {
			remove_find(fsm, i);
			continue;
		}
		if (now_us >= find->next_us && out->n_sends < RELAY_UDP_FSM_SENDS)
			send_find(fsm, find, now_us, out);
		i++;
	}
}

/* ---- the deeds of the table ---- */

static void begin_asking(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	fsm->question = next_random(fsm);
	fsm->n_tries = 0;
	fsm->rtt_us = 0;
	send_ask(fsm, input, out);
}

static void begin_binding(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	fsm->bind_number = next_random(fsm);
	fsm->n_tries = 0;
	send_bind(fsm, input, out);
}

/* A cookie that is no good is answered with another one; not for ever, though. */
static void bind_again(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	fsm->bind_number = next_random(fsm);
	send_bind(fsm, input, out);
}

static void forget_slot(struct relay_udp_fsm *fsm)
{
	fsm->slot = fsm->token = fsm->challenge = 0;
	fsm->used_us = fsm->unanswered_us = fsm->received_us = fsm->next_ping_us = 0;
	fsm->is_leaving = false;
	fsm->n_silent = fsm->n_finds = 0;
	memset(fsm->pings, 0, sizeof(fsm->pings));
	fsm->history = fsm->n_history = 0;
}

/* The slot at hand is that of the last bound; what it says has been written there already. */
static void settle(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	fsm->bound_us = fsm->heard_us = input->now_us;
	fsm->unanswered_us = 0;
	fsm->is_leaving = false;
	fsm->n_silent = fsm->n_failures = 0;
	fsm->retry_us = 0;
	fsm->retry_after_ms = 0;
	send_ping(fsm, input->now_us, 1, out);
	/* The pong brings the first challenge; without one returned soon, the slot is not kept. */
	fsm->next_ping_us = input->now_us + jittered_us(fsm, PING_USED_MS);
	for (uint32_t i = 0; i < fsm->n_finds; i++)
		fsm->finds[i].next_us = input->now_us;
	repeat_finds(fsm, input->now_us, out);
}

static void wait_after(struct relay_udp_fsm *fsm, uint64_t now_us, uint64_t ms)
{
	fsm->retry_us = now_us + longer(jittered_us(fsm, ms), fsm->retry_after_ms * MS);
	fsm->retry_after_ms = 0;
}

static void give_up(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	const uint64_t ms = (uint64_t)WAIT_MIN_MS << (fsm->n_failures < N_RARELY ? fsm->n_failures : N_RARELY);

	(void)out;
	fsm->n_failures++;
	wait_after(fsm, input->now_us, ms < WAIT_MAX_MS ? ms : WAIT_MAX_MS);
}

/* A cookie, but no answer to the bind: we are no member yet, or no longer. */
static void give_up_binding(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
			    struct relay_udp_output *out)
{
	const uint64_t ms = (uint64_t)WAIT_SILENT_MS << (fsm->n_failures < 9 ? fsm->n_failures : 9);

	(void)out;
	fsm->n_failures++;
	wait_after(fsm, input->now_us, ms < WAIT_MAX_MS ? ms : WAIT_MAX_MS);
}

static void lose(struct relay_udp_fsm *fsm, const char *why, uint64_t now_us, struct relay_udp_output *out)
{
	fsm->eager_until_us = now_us + EAGER_MS * MS;
	forget_slot(fsm);
	tell(out, RELAY_UDP_EV_LOST)->why = why;
}

static void lose_silent(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	lose(fsm, "no answer over UDP", input->now_us, out);
	begin_asking(fsm, input, out);
}

static void lose_refused(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	lose(fsm, "the relay refused us", input->now_us, out);
	fsm->not_before_us = input->now_us + fsm->retry_after_ms * MS;
	wait_after(fsm, input->now_us, WAIT_REFUSED_MS);
}

static void wait_refused(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	(void)out;
	fsm->not_before_us = input->now_us + fsm->retry_after_ms * MS;
	wait_after(fsm, input->now_us, WAIT_REFUSED_MS);
}

/* The slot lasts as long as the relay does; when it comes back, it answers a ping with a cookie. */
static void prepare_to_leave(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
			     struct relay_udp_output *out)
{
	if (!fsm->is_leaving)
		tell(out, RELAY_UDP_EV_LEAVING);
	fsm->is_leaving = true;
	fsm->next_ping_us = input->now_us + PING_LEAVING_MS * MS;
}

static void forget(struct relay_udp_fsm *fsm, const struct relay_udp_input *input, struct relay_udp_output *out)
{
	if (relay_udp_fsm_is_bound(fsm))
		lose(fsm, "not wanted any more", input->now_us, out);
	fsm->retry_us = fsm->eager_until_us = 0;
	fsm->poked_us = fsm->not_before_us = 0;
	fsm->n_failures = 0;
}

/* The diagram in relay_udp_fsm.h, one arrow a line. */
static const struct relay_udp_arrow arrows[] = {
	/* from                  on                       to                    deed                          */
	{ RELAY_UDP_IDLE,      RELAY_UDP_ON_WANTED,   RELAY_UDP_ASKING,    "ask",          begin_asking     },
	{ RELAY_UDP_ASKING,    RELAY_UDP_ON_COOKIE,   RELAY_UDP_BINDING,   "bind",         begin_binding    },
	{ RELAY_UDP_ASKING,    RELAY_UDP_ON_POKED,    RELAY_UDP_ASKING,    "ask",          begin_asking     },
	{ RELAY_UDP_ASKING,    RELAY_UDP_ON_SILENT,   RELAY_UDP_WAITING,   "give up",      give_up          },
	{ RELAY_UDP_BINDING,   RELAY_UDP_ON_BOUND,    RELAY_UDP_IS_BOUND,  "settle",       settle           },
	{ RELAY_UDP_BINDING,   RELAY_UDP_ON_MOVED,    RELAY_UDP_BINDING,   "bind again",   bind_again       },
	{ RELAY_UDP_BINDING,   RELAY_UDP_ON_OLD,      RELAY_UDP_WAITING,   "wait",         wait_refused     },
	{ RELAY_UDP_BINDING,   RELAY_UDP_ON_POKED,    RELAY_UDP_ASKING,    "ask",          begin_asking     },
	{ RELAY_UDP_BINDING,   RELAY_UDP_ON_REFUSED,  RELAY_UDP_WAITING,   "wait",         wait_refused     },
	{ RELAY_UDP_BINDING,   RELAY_UDP_ON_SILENT,   RELAY_UDP_WAITING,   "give up",      give_up_binding  },
	{ RELAY_UDP_IS_BOUND,  RELAY_UDP_ON_MOVED,    RELAY_UDP_REBINDING, "bind",         begin_binding    },
	{ RELAY_UDP_IS_BOUND,  RELAY_UDP_ON_LEAVING,  RELAY_UDP_IS_BOUND,  "prepare",      prepare_to_leave },
	{ RELAY_UDP_IS_BOUND,  RELAY_UDP_ON_REFUSED,  RELAY_UDP_WAITING,   "lose",         lose_refused     },
	{ RELAY_UDP_IS_BOUND,  RELAY_UDP_ON_SILENT,   RELAY_UDP_ASKING,    "lose, ask",    lose_silent      },
	{ RELAY_UDP_REBINDING, RELAY_UDP_ON_BOUND,    RELAY_UDP_IS_BOUND,  "settle",       settle           },
	{ RELAY_UDP_REBINDING, RELAY_UDP_ON_MOVED,    RELAY_UDP_REBINDING, "bind again",   bind_again       },
	{ RELAY_UDP_REBINDING, RELAY_UDP_ON_REFUSED,  RELAY_UDP_WAITING,   "lose",         lose_refused     },
	{ RELAY_UDP_REBINDING, RELAY_UDP_ON_OLD,      RELAY_UDP_ASKING,    "lose, ask",    lose_silent      },
	{ RELAY_UDP_REBINDING, RELAY_UDP_ON_SILENT,   RELAY_UDP_ASKING,    "lose, ask",    lose_silent      },
	{ RELAY_UDP_WAITING,   RELAY_UDP_ON_DUE,      RELAY_UDP_ASKING,    "ask",          begin_asking     },
	{ RELAY_UDP_WAITING,   RELAY_UDP_ON_POKED,    RELAY_UDP_ASKING,    "ask",          begin_asking     },
	{ ANY,                 RELAY_UDP_ON_UNWANTED, RELAY_UDP_IDLE,      "forget",       forget           },
};

const struct relay_udp_arrow *relay_udp_fsm_arrows(uint32_t *ret_n)
{
	*ret_n = ARRAY_LEN(arrows);
	return arrows;
}

static const struct relay_udp_arrow *find_arrow(enum relay_udp_state from, enum relay_udp_cause on)
{
	for (const struct relay_udp_arrow *a = arrows; a < arrows + ARRAY_LEN(arrows); a++)
		if ((a->from == from || a->from == ANY) && a->on == on)
			return a;
	return NULL;
}

/* ---- datagrams ---- */

/* Somebody sends, or did until now: who only receives would not notice that the relay forgot him, either. */
static bool is_expecting(const struct relay_udp_fsm *fsm)
{
	return fsm->unanswered_us != 0 ||
	       (fsm->received_us != 0 && fsm->heard_us < fsm->received_us + EXPECT_MS * MS);
}

static void note_heard(struct relay_udp_fsm *fsm, uint64_t at_us)
{
	if (at_us <= fsm->heard_us)
		return;
	fsm->heard_us = at_us;
	fsm->n_silent = 0;
	if (fsm->unanswered_us <= at_us)
		fsm->unanswered_us = 0;
}

static void note_received(struct relay_udp_fsm *fsm, uint64_t at_us)
{
	if (fsm->received_us < at_us)
		fsm->received_us = at_us;
	if (fsm->used_us < at_us)
		fsm->used_us = at_us;
	if (fsm->next_ping_us > at_us + PING_USED_MS * MS)
		fsm->next_ping_us = at_us + PING_USED_MS * MS;
}

static enum relay_udp_cause take_cookie(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
					const struct relay_udp_cookie *cookie)
{
	if (fsm->state != RELAY_UDP_ASKING || cookie->number != fsm->question || cookie->version < RELAY_UDP_VERSION)
		return RELAY_UDP_ON_NOTHING;
	for (uint32_t i = 0; i < fsm->config.n_addresses; i++)
		if (endpoint_equal(&fsm->config.addresses[i], input->from))
			fsm->address = i;
	memcpy(fsm->cookie, cookie->cookie, sizeof(fsm->cookie));
	return RELAY_UDP_ON_COOKIE;
}

static bool is_answer_to_bind(const struct relay_udp_fsm *fsm, const struct relay_udp_input *input, uint64_t number)
{
	return fsm->state != RELAY_UDP_IDLE && number == fsm->bind_number &&
	       relay_udp_is_proven(&fsm->config.key, input->bytes, input->len);
}

static enum relay_udp_cause take_bound(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
				       const struct relay_udp_bound *bound, struct relay_udp_output *out)
{
	if ((fsm->state != RELAY_UDP_BINDING && fsm->state != RELAY_UDP_REBINDING) ||
	    !is_answer_to_bind(fsm, input, bound->number))
		return RELAY_UDP_ON_NOTHING;
	struct relay_udp_event *event = tell(out, RELAY_UDP_EV_BOUND);
	event->is_new_epoch = bound->epoch != fsm->epoch;
	if (event->is_new_epoch || bound->token != fsm->token)
		fsm->challenge = 0;
	fsm->slot = bound->slot;
	fsm->token = bound->token;
	fsm->epoch = bound->epoch;
	fsm->keep_alive_ms = (bound->keep_alive_s == 0		     ? 1u :
			      bound->keep_alive_s > KEEP_ALIVE_MAX_S ? KEEP_ALIVE_MAX_S :
								       bound->keep_alive_s) * 1000u;
	return RELAY_UDP_ON_BOUND;
}

static enum relay_udp_cause take_refused(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
					 const struct relay_udp_refused *refused)
{
	if (fsm->state == RELAY_UDP_WAITING || !is_answer_to_bind(fsm, input, refused->number))
		return RELAY_UDP_ON_NOTHING;
	if (refused->reason == RELAY_UDP_OLD && fsm->state == RELAY_UDP_IS_BOUND)
		return RELAY_UDP_ON_NOTHING;
	if (refused->reason == RELAY_UDP_RESTART && fsm->state == RELAY_UDP_IS_BOUND)
		return RELAY_UDP_ON_LEAVING;
	fsm->retry_after_ms = refused->retry_after_ms < WAIT_MAX_MS ? refused->retry_after_ms : WAIT_MAX_MS;
	if (refused->reason == RELAY_UDP_OLD)
		return RELAY_UDP_ON_OLD;
	if ((refused->reason == RELAY_UDP_REPLACED || refused->reason == RELAY_UDP_NOT_ADMITTED) &&
	    fsm->retry_after_ms < REPLACED_MS)
		fsm->retry_after_ms = REPLACED_MS;
	return RELAY_UDP_ON_REFUSED;
}

/* Another address after a pause: unless the network changed, it was the NAT. Once may have been a restart of it. */
static void note_forgotten(struct relay_udp_fsm *fsm, uint64_t now_us)
{
	const uint64_t pause_us = now_us - fsm->heard_us;

	if (pause_us < NAT_MIN_MS * MS || fsm->poked_us > fsm->heard_us)
		return;
	if (fsm->forgotten_us != 0) {
		const uint64_t ms = (pause_us < fsm->forgotten_us ? pause_us : fsm->forgotten_us) / 2 / MS;
		fsm->nat_ms = ms > NAT_MIN_MS ? (uint32_t)ms : NAT_MIN_MS;
	}
	fsm->forgotten_us = pause_us;
}

static enum relay_udp_cause take_moved(struct relay_udp_fsm *fsm, const struct relay_udp_moved *moved, uint64_t now_us)
{
	const bool of_bind = (fsm->state == RELAY_UDP_BINDING || fsm->state == RELAY_UDP_REBINDING) &&
			     moved->what == (uint32_t)fsm->bind_number && fsm->n_tries < N_BINDS;
	const bool of_packet = fsm->state == RELAY_UDP_IS_BOUND && moved->what == fsm->token;

	if (!of_bind && !of_packet)
		return RELAY_UDP_ON_NOTHING;
	memcpy(fsm->cookie, moved->cookie, sizeof(fsm->cookie));
	if (of_packet)
		note_forgotten(fsm, now_us);
	return RELAY_UDP_ON_MOVED;
}

static void remember(struct relay_udp_fsm *fsm, bool is_missing)
{
	fsm->history = fsm->history << 1 | is_missing;
	if (fsm->n_history < HISTORY)
		fsm->n_history++;
}

static void take_pong(struct relay_udp_fsm *fsm, const struct relay_udp_ping *pong, uint64_t now_us)
{
	for (uint32_t i = 0; i < RELAY_UDP_FSM_PINGS; i++) {
		struct relay_udp_ping_record *record = &fsm->pings[i];
		if (record->number != pong->number || record->state == RELAY_UDP_PING_NONE ||
		    record->state == RELAY_UDP_PING_ANSWERED)
			continue;
		if (record->state == RELAY_UDP_PING_OUT)
			remember(fsm, false);
		else
			fsm->history &= fsm->history - 1; /* the last one that is missing: it was late */
		const uint64_t us = now_us - record->sent_us;
		const uint32_t rtt_us = us == 0 ? 1 : us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
		record->state = RELAY_UDP_PING_ANSWERED;
		/* Falls at once, rises slowly: what waits in queues is not distance. */
		if (fsm->rtt_us == 0 || rtt_us < fsm->rtt_us)
			fsm->rtt_us = rtt_us;
		else
			fsm->rtt_us += (rtt_us - fsm->rtt_us) / 4;
		/* At once after bound: the relay keeps a slot for who returns its challenge. */
		if (fsm->challenge == 0)
			fsm->next_ping_us = now_us + PING_AGAIN_MS * MS;
		fsm->challenge = pong->challenge;
	}
}

static void take_found(struct relay_udp_fsm *fsm, const struct relay_udp_datagram *found, struct relay_udp_output *out)
{
	for (uint32_t i = 0; i < fsm->n_finds; i++) {
		const struct relay_udp_find *find = &fsm->finds[i];
		const bool is_of_slot = find->slot != 0 && find->slot == found->header.from;
		if (!is_of_slot && (find->slot != 0 || !public_key_equal(&find->key, &found->node_key)))
			continue;
		struct relay_udp_event *event = tell(out, RELAY_UDP_EV_FOUND);
		event->key = found->node_key;
		event->slot = found->header.from;
		remove_find(fsm, i);
		return;
	}
}

/* From the relay, to our slot, with our token. */
static void take_of_slot(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
			 const struct relay_udp_datagram *datagram, struct relay_udp_output *out)
{
	struct relay_udp_event *event;

	if (datagram->type == RELAY_UDP_PONG && input->now_us - fsm->heard_us >= fsm->forgotten_us)
		fsm->forgotten_us = 0; /* it outlived as much */
	note_heard(fsm, input->now_us);
	switch (datagram->type) {
	case RELAY_UDP_PONG:
		take_pong(fsm, &datagram->ping, input->now_us);
		break;
	case RELAY_UDP_FOUND:
		take_found(fsm, datagram, out);
		break;
	case RELAY_UDP_GONE:
		tell(out, RELAY_UDP_EV_GONE)->slot = datagram->header.from;
		break;
	case RELAY_UDP_DATA:
		event = tell(out, RELAY_UDP_EV_PACKET);
		event->slot = datagram->header.from;
		note_received(fsm, input->now_us);
		event->bytes = datagram->packet.bytes;
		event->len = datagram->packet.len;
		break;
	default: /* what only a client says */
		break;
	}
}

static enum relay_udp_cause take_datagram(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
					  struct relay_udp_output *out)
{
	struct relay_udp_datagram datagram;

	if (!relay_udp_fsm_owns(fsm, input->from) || relay_udp_decode(input->bytes, input->len, &datagram) != 0)
		return RELAY_UDP_ON_NOTHING;
	if (datagram.type == RELAY_UDP_COOKIE)
		return take_cookie(fsm, input, &datagram.cookie);
	/* A relay with several addresses may send what others sent from any of them: the token is our friend. */
	if (datagram.type >= RELAY_UDP_FIND) {
		if (relay_udp_fsm_is_bound(fsm) && datagram.header.to == fsm->slot &&
		    datagram.header.token == fsm->token)
			take_of_slot(fsm, input, &datagram, out);
		return RELAY_UDP_ON_NOTHING;
	}
	if (fsm->state == RELAY_UDP_ASKING || !endpoint_equal(&fsm->config.addresses[fsm->address], input->from))
		return RELAY_UDP_ON_NOTHING;
	switch (datagram.type) {
	case RELAY_UDP_BOUND:
		return take_bound(fsm, input, &datagram.bound, out);
	case RELAY_UDP_REFUSED:
		return take_refused(fsm, input, &datagram.refused);
	case RELAY_UDP_MOVED:
		return take_moved(fsm, &datagram.moved, input->now_us);
	default: /* what only a client says */
		return RELAY_UDP_ON_NOTHING;
	}
}

/* ---- time ---- */

static void judge_pings(struct relay_udp_fsm *fsm, uint64_t now_us)
{
	for (uint32_t i = 0; i < RELAY_UDP_FSM_PINGS; i++)
		if (fsm->pings[i].state == RELAY_UDP_PING_OUT && now_us - fsm->pings[i].sent_us >= patience_us(fsm)) {
			fsm->pings[i].state = RELAY_UDP_PING_MISSED;
			remember(fsm, true);
		}
}

bool relay_udp_fsm_knows_loss(const struct relay_udp_fsm *fsm)
{
	return fsm->n_history == HISTORY;
}

uint32_t relay_udp_fsm_loss(const struct relay_udp_fsm *fsm)
{
	return fsm->n_history < HISTORY ? 0 : (uint32_t)__builtin_popcount(fsm->history) * 100 / HISTORY;
}

uint32_t relay_udp_fsm_missing(const struct relay_udp_fsm *fsm)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < RELAY_UDP_FSM_PINGS; i++)
		n += fsm->pings[i].state == RELAY_UDP_PING_MISSED;
	return n;
}

bool relay_udp_fsm_is_proven(const struct relay_udp_fsm *fsm)
{
	for (uint32_t i = 0; i < RELAY_UDP_FSM_PINGS; i++)
		if (fsm->pings[i].state == RELAY_UDP_PING_NONE)
			return false;
	return fsm->state == RELAY_UDP_IS_BOUND && relay_udp_fsm_missing(fsm) <= MAX_PROVEN_MISSING;
}

/* Pings without a sign of life that make a relay dead: more where some were lost before this silence. */
static uint32_t enough_silence(const struct relay_udp_fsm *fsm)
{
	const uint32_t missing = relay_udp_fsm_missing(fsm);
	const uint32_t before = missing > fsm->n_silent ? missing - fsm->n_silent : 0;

	return N_DEAD + 2 * before + (is_expecting(fsm) ? 0 : N_DEAD_IDLE);
}

/* Since when we have waited for a sign of life. */
static uint64_t silent_since_us(const struct relay_udp_fsm *fsm)
{
	return fsm->unanswered_us != 0 ? fsm->unanswered_us : fsm->heard_us;
}

/* When the next ping is to be sent, and whether into silence. */
static uint64_t ping_due_us(const struct relay_udp_fsm *fsm, bool *ret_into_silence)
{
	const struct relay_udp_ping_record *last = &fsm->pings[(fsm->next_record - 1) % RELAY_UDP_FSM_PINGS];
	const bool is_used = is_expecting(fsm);
	const uint64_t again_us = is_used ? patience_us(fsm) : longer(patience_us(fsm), PING_IDLE_AGAIN_MS * MS);
	uint64_t at = fsm->next_ping_us;

	*ret_into_silence = false;
	if (fsm->n_silent > 0 || last->state == RELAY_UDP_PING_MISSED) {
		at = last->sent_us + again_us < at ? last->sent_us + again_us : at;
		*ret_into_silence = fsm->n_silent > 0;
	}
	if (is_used && fsm->n_silent == 0) {
		/* Is it still there? After a pause nobody knows, and is asked with the first packet. */
		const bool was_idle = fsm->unanswered_us >= fsm->heard_us + IDLE_MS * MS;
		const uint64_t patience = was_idle ? 0 : longer(SILENT_MS * MS, 2 * (uint64_t)fsm->rtt_us);
		const uint64_t silent_us = silent_since_us(fsm) + patience;
		if (silent_us < at) {
			at = silent_us;
			*ret_into_silence = true;
		}
	}
	return at;
}

static enum relay_udp_cause watch_slot(struct relay_udp_fsm *fsm, uint64_t now_us, struct relay_udp_output *out)
{
	bool into_silence;

	judge_pings(fsm, now_us);
	if (now_us >= ping_due_us(fsm, &into_silence)) {
		if (fsm->n_silent >= enough_silence(fsm))
			return RELAY_UDP_ON_SILENT;
		send_ping(fsm, now_us, into_silence ? PING_COPIES : 1, out);
		fsm->n_silent++; /* until something is heard */
	}
	repeat_finds(fsm, now_us, out);
	return RELAY_UDP_ON_NOTHING;
}

static enum relay_udp_cause on_retry(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
				     struct relay_udp_output *out)
{
	if (fsm->state == RELAY_UDP_WAITING)
		return RELAY_UDP_ON_DUE;
	if (fsm->state == RELAY_UDP_ASKING) {
		if (fsm->n_tries >= (fsm->n_failures > N_RARELY ? N_ASKS_RARELY : N_ASKS) && input->now_us >= fsm->eager_until_us)
			return RELAY_UDP_ON_SILENT;
		send_ask(fsm, input, out);
		return RELAY_UDP_ON_NOTHING;
	}
	if (fsm->n_tries >= N_BINDS)
		return RELAY_UDP_ON_SILENT;
	send_bind(fsm, input, out);
	return RELAY_UDP_ON_NOTHING;
}

static enum relay_udp_cause on_deadline(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
					struct relay_udp_output *out)
{
	if (fsm->state == RELAY_UDP_IS_BOUND)
		return watch_slot(fsm, input->now_us, out);
	if (fsm->retry_us != 0 && input->now_us >= fsm->retry_us)
		return on_retry(fsm, input, out);
	return RELAY_UDP_ON_NOTHING;
}

static enum relay_udp_cause verify(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
				   struct relay_udp_output *out)
{
	if (fsm->state != RELAY_UDP_IS_BOUND)
		return RELAY_UDP_ON_NOTHING;
	/* Somebody waits: what is being found out already is so no longer at leisure. */
	if (fsm->unanswered_us == 0)
		fsm->unanswered_us = input->now_us;
	if (fsm->n_silent == 0) {
		send_ping(fsm, input->now_us, 1, out);
		fsm->n_silent++;
	}
	return RELAY_UDP_ON_NOTHING;
}

/*
 * Bound: is it still there, and are we still where it thinks? The answer says so. Who was told when to come back
 * waits until then, whatever happens here.
 */
static enum relay_udp_cause on_poke(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
				    struct relay_udp_output *out)
{
	if ((fsm->poked_us != 0 && input->now_us - fsm->poked_us < POKE_PAUSE_MS * MS) ||
	    (fsm->state == RELAY_UDP_WAITING && input->now_us < fsm->not_before_us))
		return RELAY_UDP_ON_NOTHING;
	fsm->poked_us = input->now_us;
	fsm->n_failures = 0;
	fsm->nat_ms = 0; /* perhaps another NAT */
	fsm->forgotten_us = 0;
	if (fsm->state == RELAY_UDP_IS_BOUND)
		return verify(fsm, input, out);
	return fsm->state == RELAY_UDP_REBINDING ? RELAY_UDP_ON_NOTHING : RELAY_UDP_ON_POKED;
}

/* True: a ping is due sooner than was planned. */
static bool hasten(struct relay_udp_fsm *fsm)
{
	bool into_silence;
	const uint64_t due_us = ping_due_us(fsm, &into_silence);

	if (fsm->deadline_us <= due_us)
		return false;
	fsm->deadline_us = due_us;
	return true;
}

bool relay_udp_fsm_sent(struct relay_udp_fsm *fsm, uint64_t now_us)
{
	fsm->used_us = now_us;
	if (fsm->unanswered_us != 0 || fsm->state != RELAY_UDP_IS_BOUND)
		return false;
	fsm->unanswered_us = now_us;
	if (fsm->next_ping_us > now_us + PING_USED_MS * MS)
		fsm->next_ping_us = now_us + PING_USED_MS * MS;
	return hasten(fsm);
}

bool relay_udp_fsm_received(struct relay_udp_fsm *fsm, uint64_t at_us)
{
	if (fsm->state != RELAY_UDP_IS_BOUND || at_us < fsm->bound_us)
		return false;
	note_heard(fsm, at_us);
	note_received(fsm, at_us);
	return hasten(fsm);
}

bool relay_udp_fsm_watch(struct relay_udp_fsm *fsm, bool watch, uint64_t now_us)
{
	fsm->is_watched = watch;
	if (!watch || fsm->state != RELAY_UDP_IS_BOUND)
		return false;
	if (fsm->next_ping_us > now_us + PING_USED_MS * MS)
		fsm->next_ping_us = now_us + PING_USED_MS * MS;
	return hasten(fsm);
}

/* ---- the engine ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
	if (a == 0 || b == 0)
		return a + b;
	return a < b ? a : b;
}

static uint64_t next_deadline(const struct relay_udp_fsm *fsm)
{
	bool into_silence;

	if (fsm->state != RELAY_UDP_IS_BOUND)
		return fsm->state == RELAY_UDP_IDLE ? 0 : fsm->retry_us;
	uint64_t at = ping_due_us(fsm, &into_silence);
	for (uint32_t i = 0; i < RELAY_UDP_FSM_PINGS; i++)
		if (fsm->pings[i].state == RELAY_UDP_PING_OUT)
			at = earlier(at, fsm->pings[i].sent_us + patience_us(fsm));
	for (uint32_t i = 0; i < fsm->n_finds; i++)
		at = earlier(at, fsm->finds[i].next_us);
	return at;
}

static enum relay_udp_cause take_in(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
				    struct relay_udp_output *out)
{
	switch (input->type) {
	case RELAY_UDP_IN_START:
		return RELAY_UDP_ON_WANTED;
	case RELAY_UDP_IN_STOP:
		return RELAY_UDP_ON_UNWANTED;
	case RELAY_UDP_IN_POKE:
		return on_poke(fsm, input, out);
	case RELAY_UDP_IN_VERIFY:
		return verify(fsm, input, out);
	case RELAY_UDP_IN_DATAGRAM:
		return take_datagram(fsm, input, out);
	case RELAY_UDP_IN_DEADLINE:
		return on_deadline(fsm, input, out);
	case RELAY_UDP_IN_FIND:
		begin_find(fsm, input, out);
		break;
	}
	return RELAY_UDP_ON_NOTHING;
}

static void trace(const struct relay_udp_fsm *fsm, uint64_t now_us, enum relay_udp_cause cause, const char *to)
{
	char line[96];

	if (!fsm->trace)
		return;
	snprintf(line, sizeof(line), "[%6llu] %s: %s -> %s", (unsigned long long)(now_us / MS),
		 state_names[fsm->state], cause_names[cause], to);
	fsm->trace(fsm->trace_arg, line);
}

static bool invariant_holds(const struct relay_udp_fsm *fsm)
{
	if (relay_udp_fsm_is_bound(fsm) != (fsm->slot != 0))
		return false;
	return fsm->n_finds <= RELAY_UDP_FSM_FINDS && (fsm->state == RELAY_UDP_IDLE) == (fsm->deadline_us == 0);
}

void relay_udp_fsm_step(struct relay_udp_fsm *fsm, const struct relay_udp_input *input,
			struct relay_udp_output *out)
{
	out->n_sends = out->n_events = 0;
	fsm->random = input->random;

	enum relay_udp_cause cause = take_in(fsm, input, out);
	const struct relay_udp_arrow *arrow = find_arrow(fsm->state, cause);
	if (arrow) {
		trace(fsm, input->now_us, cause, state_names[arrow->to]);
		arrow->act(fsm, input, out);
		fsm->state = arrow->to;
	} else if (cause != RELAY_UDP_ON_NOTHING) {
		trace(fsm, input->now_us, cause, "(ignored)");
	}
	fsm->deadline_us = next_deadline(fsm);
	assert(invariant_holds(fsm));
}

void relay_udp_fsm_header(const struct relay_udp_fsm *fsm, uint32_t slot, uint8_t ret[RELAY_UDP_HEADER_LEN])
{
	const struct relay_udp_header header = { RELAY_UDP_DATA, slot, fsm->slot, fsm->token };

	relay_udp_header_encode(ret, &header);
}

void relay_udp_fsm_init(struct relay_udp_fsm *fsm, const struct relay_udp_config *config)
{
	*fsm = (struct relay_udp_fsm){ .config = *config, .state = RELAY_UDP_IDLE };
}

void relay_udp_fsm_deinit(struct relay_udp_fsm *fsm)
{
	sodium_memzero(fsm, sizeof(*fsm));
}
