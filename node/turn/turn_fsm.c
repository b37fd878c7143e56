#include "node/turn/turn_fsm.h"

#include "common/macros.h"

#include <assert.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)
#define S(n)  MS((uint64_t)(n)*1000u)

#define MAX_LIFETIME_S	 3600
#define MIN_LIFETIME_S	 60
#define PERMISSION_RENEW_NS S(240) /* it holds for 300 s (RFC 8656 section 9) */
#define WANTED_NS	 S(600)
#define CHANNEL_RENEW_NS S(300) /* it holds for 600 s (section 12) */
#define CHANNEL_HOLDS_NS S(600)
#define CHANNEL_IDLE_NS	 S(300)
#define UNANSWERED_NS	 S(5) /* the node has had its time to answer */
#define MAX_OF_ONE_IP	 8    /* channels: many may be behind one carrier's NAT */
#define PAUSE_NS	 S(90) /* who is pinged all the time is told of every minute */
#define KEEP_NS		 S(20) /* many NATs forget a UDP mapping after 30 s */
#define REST_NS		 S(30)
#define MAX_REST_NS	 S(1800)
#define RELEASE_NS	 MS(500)
#define FIRST_CHANNEL	 0x4000
#define N_CHANNEL_NUMBERS 0x1000
#define MAX_CHALLENGED	 2 /* in a row: what was refused then is refused */
#define NEVER		 UINT64_MAX

/* After the beginning of a request; then the end of its patience. */
static const uint64_t sends_ns[] = { 0, MS(500), MS(1500), MS(3500) };
#define SILENT_NS MS(7500)

static struct turn_action *add(struct turn_actions *out, enum turn_action_type type, enum turn_request request,
			       uint32_t index)
{
	assert(out->n < TURN_MAX_ACTIONS);
	struct turn_action *action = &out->all[out->n++];

	*action = (struct turn_action){ .type = type, .request = request, .index = index };
	return action;
}

/* ---- one request ---- */

static void ask(struct turn_asking *asking, enum turn_request request, uint32_t index, uint64_t now_ns,
		struct turn_actions *out)
{
	asking->begun_ns = now_ns;
	asking->n_sent = 1;
	add(out, TURN_DO_ASK, request, index);
}

static void settle(struct turn_asking *asking)
{
	*asking = (struct turn_asking){ 0 };
}

static uint64_t asking_alarm(const struct turn_asking *asking)
{
	if (asking->n_sent == 0)
		return NEVER;
	return asking->begun_ns + (asking->n_sent < ARRAY_LEN(sends_ns) ? sends_ns[asking->n_sent] : SILENT_NS);
}

/* Whether it was asked in vain; repeats once, even when several repetitions are due because we were late. */
static bool is_silent(struct turn_asking *asking, enum turn_request request, uint32_t index, uint64_t now_ns,
		      struct turn_actions *out)
{
	if (asking_alarm(asking) > now_ns)
		return false;
	if (asking->begun_ns + SILENT_NS <= now_ns) {
		settle(asking);
		add(out, TURN_DO_GIVE_UP, request, index);
		return true;
	}
	add(out, TURN_DO_REPEAT, request, index);
	while (asking_alarm(asking) <= now_ns)
		asking->n_sent++;
	return false;
}

/* The server wants the same with (other) credentials: true if it shall have it. */
static bool is_challenge(struct turn_asking *asking, const struct turn_input *in, struct turn_actions *out)
{
	const bool wants = in->code == TURN_UNAUTHORIZED || in->code == TURN_STALE_NONCE;

	if (!wants || asking->n_challenged >= MAX_CHALLENGED)
		return false;
	asking->n_challenged++;
	ask(asking, in->request, in->index, in->now_ns, out);
	return true;
}

/* ---- the address ---- */

static void set_relayed(struct turn_fsm *fsm, const struct endpoint *relayed, struct turn_actions *out)
{
	if (endpoint_equal(&fsm->relayed, relayed))
		return;
	fsm->relayed = *relayed;
	add(out, TURN_DO_RELAYED, TURN_ALLOCATE, 0);
}

static void close_channel(struct turn_fsm *fsm, uint32_t i, struct turn_actions *out)
{
	fsm->channels[i] = (struct turn_channel){ 0 };
	add(out, TURN_DO_CLOSE, TURN_BIND, i);
}

/* With the address goes all that belongs to it; whom we want to let in is known on. */
static void lose(struct turn_fsm *fsm, struct turn_actions *out)
{
	const struct endpoint none = { 0 };

	set_relayed(fsm, &none, out);
	for (uint32_t i = 0; i < TURN_MAX_CHANNELS; i++)
		if (!endpoint_is_none(&fsm->channels[i].peer))
			close_channel(fsm, i, out);
	for (uint32_t i = 0; i < TURN_MAX_PERMISSIONS; i++) {
		settle(&fsm->permissions[i].asking);
		fsm->permissions[i].holds = false;
		fsm->permissions[i].renew_ns = 0;
	}
	settle(&fsm->asking);
}

static void allocate(struct turn_fsm *fsm, uint64_t now_ns, struct turn_actions *out)
{
	lose(fsm, out);
	fsm->state = TURN_ASKING;
	fsm->refreshes = false;
	add(out, TURN_DO_CONNECT, TURN_ALLOCATE, 0);
	ask(&fsm->asking, TURN_ALLOCATE, 0, now_ns, out);
}

static void rest(struct turn_fsm *fsm, uint64_t now_ns, struct turn_actions *out)
{
	uint64_t rest_ns = REST_NS;

	for (uint32_t i = 0; i < fsm->n_rests && rest_ns < MAX_REST_NS; i++)
		rest_ns *= 2;
	fsm->n_rests++;
	lose(fsm, out);
	fsm->state = TURN_RESTING;
	fsm->rest_ns = now_ns + (rest_ns < MAX_REST_NS ? rest_ns : MAX_REST_NS);
}

static void keep(struct turn_fsm *fsm, uint32_t lifetime_s, uint64_t now_ns)
{
	if (lifetime_s > MAX_LIFETIME_S)
		lifetime_s = MAX_LIFETIME_S;
	fsm->state = TURN_ALLOCATED;
	fsm->n_rests = 0;
	fsm->expiry_ns = now_ns + S(lifetime_s);
	fsm->renew_ns = now_ns + S(lifetime_s) / 2;
}

static void take_allocated(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *out)
{
	if (in->code == 0 && in->lifetime_s >= MIN_LIFETIME_S && in->endpoint.port != 0 &&
	    !endpoint_is_loopback(&in->endpoint)) {
		settle(&fsm->asking);
		keep(fsm, in->lifetime_s, in->now_ns);
		set_relayed(fsm, &in->endpoint, out);
		return;
	}
	if (!is_challenge(&fsm->asking, in, out))
		rest(fsm, in->now_ns, out);
}

static void take_refreshed(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *out)
{
	if (in->code == 0 && in->lifetime_s >= MIN_LIFETIME_S) {
		settle(&fsm->asking);
		keep(fsm, in->lifetime_s, in->now_ns);
	} else if (!is_challenge(&fsm->asking, in, out)) {
		allocate(fsm, in->now_ns, out);
	}
}

static void take_released(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *out)
{
	if (in->code != 0 && is_challenge(&fsm->asking, in, out))
		return;
	fsm->state = TURN_ENDED;
	add(out, TURN_DO_ENDED, TURN_REFRESH, 0);
}

static void release(struct turn_fsm *fsm, uint64_t now_ns, struct turn_actions *out)
{
	const bool has = !endpoint_is_none(&fsm->relayed);

	lose(fsm, out);
	fsm->state = has ? TURN_RELEASING : TURN_ENDED;
	fsm->release_ns = now_ns + RELEASE_NS;
	fsm->refreshes = true;
	if (has)
		ask(&fsm->asking, TURN_REFRESH, 0, now_ns, out);
	else
		add(out, TURN_DO_ENDED, TURN_REFRESH, 0);
}

static void move(struct turn_fsm *fsm, uint64_t now_ns, struct turn_actions *out)
{
	fsm->n_rests = 0;
	allocate(fsm, now_ns, out);
}

/* Behind another NAT we are another to the server, which then says so. One that rests may be reached again. */
static void check(struct turn_fsm *fsm, uint64_t now_ns, struct turn_actions *out)
{
	if (fsm->state == TURN_RESTING)
		move(fsm, now_ns, out);
	else if (fsm->state == TURN_ALLOCATED && fsm->asking.n_sent == 0)
		fsm->renew_ns = now_ns;
}

/* ---- whom the server lets in ---- */

static bool is_wanted(const struct turn_permission *p, uint64_t now_ns)
{
	return !endpoint_is_none(&p->ip) && now_ns < p->wanted_ns + WANTED_NS;
}

/* Who is wanted now comes before who was wanted longest ago. */
static void want(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *out)
{
	struct turn_permission *oldest = &fsm->permissions[0];
	struct endpoint ip = in->endpoint;

	ip.port = 0;
	for (uint32_t i = 0; i < TURN_MAX_PERMISSIONS; i++) {
		struct turn_permission *p = &fsm->permissions[i];
		if (endpoint_equal(&p->ip, &ip)) {
			if (in->now_ns - p->wanted_ns >= PAUSE_NS)
				p->renew_ns = 0; /* does it hold still? */
			p->wanted_ns = in->now_ns;
			return;
		}
		if (p->wanted_ns < oldest->wanted_ns)
			oldest = p;
	}
	if (oldest->asking.n_sent > 0)
		add(out, TURN_DO_GIVE_UP, TURN_PERMIT, (uint32_t)(oldest - fsm->permissions));
	fsm->n_refused += is_wanted(oldest, in->now_ns);
	*oldest = (struct turn_permission){ .ip = ip, .wanted_ns = in->now_ns };
}

static void take_permitted(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *out)
{
	struct turn_permission *p = &fsm->permissions[in->index];

	if (in->code != 0 && is_challenge(&p->asking, in, out))
		return;
	settle(&p->asking);
	p->holds = in->code == 0;
	p->renew_ns = in->now_ns + PERMISSION_RENEW_NS; /* also when refused: then it is asked for again */
	if (in->code == TURN_MISMATCH)
		allocate(fsm, in->now_ns, out);
}

static uint64_t permission_alarm(const struct turn_permission *p)
{
	if (endpoint_is_none(&p->ip))
		return NEVER;
	return p->asking.n_sent > 0 ? asking_alarm(&p->asking) : p->renew_ns;
}

static void tend_permission(struct turn_fsm *fsm, uint32_t i, uint64_t now_ns, struct turn_actions *out)
{
	struct turn_permission *p = &fsm->permissions[i];

	if (permission_alarm(p) > now_ns)
		return;
	if (p->asking.n_sent > 0) {
		if (is_silent(&p->asking, TURN_PERMIT, i, now_ns, out))
			p->renew_ns = now_ns + REST_NS;
	} else if (is_wanted(p, now_ns)) {
		ask(&p->asking, TURN_PERMIT, i, now_ns, out);
	} else {
		*p = (struct turn_permission){ 0 };
	}
}

bool turn_can_reach(const struct endpoint *server, const struct endpoint *peer)
{
	return endpoint_is_v4(peer) && !endpoint_is_loopback(peer) &&
	       (endpoint_is_private(server) || !endpoint_is_private(peer));
}

/* ---- who talks through the server ---- */

int turn_fsm_find_channel(const struct turn_fsm *fsm, const struct endpoint *peer)
{
	for (int i = 0; i < TURN_MAX_CHANNELS; i++)
		if (endpoint_equal(&fsm->channels[i].peer, peer))
			return i;
	return -1;
}

static bool is_of_ip(const struct turn_channel *c, const struct endpoint *peer)
{
	return memcmp(c->peer.ip, peer->ip, sizeof(peer->ip)) == 0;
}

/* May somebody else have it? Who sends to nobody's answer for long keeps nothing. */
static bool is_free(const struct turn_channel *c, uint64_t now_ns)
{
	return endpoint_is_none(&c->peer) || !c->open || (!c->answered && c->used_ns + UNANSWERED_NS <= now_ns);
}

/* One of nobody's, or the one of least use; of the same IP where that has enough. -1: none. */
static int find_place(const struct turn_fsm *fsm, const struct endpoint *peer, uint64_t now_ns)
{
	uint32_t n_of_ip = 0;
	int best = -1;

	for (int i = 0; i < TURN_MAX_CHANNELS; i++)
		n_of_ip += is_of_ip(&fsm->channels[i], peer);
	for (int i = 0; i < TURN_MAX_CHANNELS; i++) {
		const struct turn_channel *c = &fsm->channels[i];
		if (!is_free(c, now_ns) || (n_of_ip >= MAX_OF_ONE_IP && !is_of_ip(c, peer)))
			continue;
		if (best < 0 || c->used_ns < fsm->channels[best].used_ns)
			best = i;
	}
	return best;
}

static void open_channel(struct turn_fsm *fsm, uint32_t i, uint64_t now_ns, struct turn_actions *out)
{
	struct turn_channel *c = &fsm->channels[i];

	c->open = true;
	c->answered = false;
	c->used_ns = now_ns;
	add(out, TURN_DO_OPEN, TURN_BIND, i)->endpoint = c->peer;
	ask(&c->asking, TURN_BIND, i, now_ns, out);
}

static void take_data(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *out)
{
	int i = turn_fsm_find_channel(fsm, &in->endpoint);

	if (i < 0 && in->endpoint.port != 0) {
		i = find_place(fsm, &in->endpoint, in->now_ns);
		if (i >= 0 && !endpoint_is_none(&fsm->channels[i].peer))
			close_channel(fsm, (uint32_t)i, out);
		if (i >= 0) {
			fsm->channels[i].peer = in->endpoint;
			fsm->channels[i].number = (uint16_t)(FIRST_CHANNEL + fsm->n_numbers++ % N_CHANNEL_NUMBERS);
		}
	}
	if (i < 0 || in->endpoint.port == 0)
		fsm->n_refused++;
	else if (!fsm->channels[i].open)
		open_channel(fsm, (uint32_t)i, in->now_ns, out);
}

static void take_bound(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *out)
{
	struct turn_channel *c = &fsm->channels[in->index];

	if (in->code != 0 && is_challenge(&c->asking, in, out))
		return;
	settle(&c->asking);
	c->bound = in->code == 0;
	if (c->bound)
		c->bound_ns = in->now_ns;
	c->renew_ns = in->now_ns + (c->bound ? CHANNEL_RENEW_NS : REST_NS);
	if (in->code == TURN_MISMATCH)
		allocate(fsm, in->now_ns, out);
}

static uint64_t channel_alarm(const struct turn_channel *c)
{
	if (endpoint_is_none(&c->peer))
		return NEVER;
	return c->asking.n_sent > 0 ? asking_alarm(&c->asking) : c->renew_ns;
}

/* As long as the server knows the number, so do we: who comes back comes by it, and can have no other. */
static void rest_channel(struct turn_fsm *fsm, uint32_t i, uint64_t now_ns, struct turn_actions *out)
{
	const struct turn_channel before = fsm->channels[i];

	close_channel(fsm, i, out);
	if (before.bound_ns == 0 || before.bound_ns + CHANNEL_HOLDS_NS <= now_ns)
		return;
	fsm->channels[i] = (struct turn_channel){ .peer = before.peer,
						  .number = before.number,
						  .used_ns = before.used_ns,
						  .bound_ns = before.bound_ns,
						  .bound = before.bound,
						  .renew_ns = before.bound_ns + CHANNEL_HOLDS_NS };
}

static void tend_channel(struct turn_fsm *fsm, uint32_t i, uint64_t now_ns, struct turn_actions *out)
{
	struct turn_channel *c = &fsm->channels[i];

	if (channel_alarm(c) > now_ns)
		return;
	if (!c->open) {
		*c = (struct turn_channel){ 0 };
	} else if (c->asking.n_sent > 0) {
		if (is_silent(&c->asking, TURN_BIND, i, now_ns, out))
			c->renew_ns = now_ns + REST_NS;
	} else if (c->used_ns + CHANNEL_IDLE_NS > now_ns) {
		ask(&c->asking, TURN_BIND, i, now_ns, out);
	} else {
		rest_channel(fsm, i, now_ns, out);
	}
}

/* ---- the whole ---- */

static bool sends(const struct turn_actions *out)
{
	for (uint32_t i = 0; i < out->n; i++)
		if (out->all[i].type == TURN_DO_ASK || out->all[i].type == TURN_DO_REPEAT ||
		    out->all[i].type == TURN_DO_KEEP)
			return true;
	return false;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t next_alarm(const struct turn_fsm *fsm)
{
	uint64_t at_ns = asking_alarm(&fsm->asking);

	switch (fsm->state) {
	case TURN_ASKING:
		return at_ns;
	case TURN_RESTING:
		return fsm->rest_ns;
	case TURN_RELEASING:
		return earlier(at_ns, fsm->release_ns);
	case TURN_ENDED:
	case TURN_N_STATES:
		return NEVER;
	case TURN_ALLOCATED:
		break;
	}
	at_ns = earlier(earlier(at_ns, fsm->expiry_ns), fsm->asking.n_sent > 0 ? NEVER : fsm->renew_ns);
	at_ns = earlier(at_ns, fsm->sent_ns + KEEP_NS);
	for (uint32_t i = 0; i < TURN_MAX_PERMISSIONS; i++)
		at_ns = earlier(at_ns, permission_alarm(&fsm->permissions[i]));
	for (uint32_t i = 0; i < TURN_MAX_CHANNELS; i++)
		at_ns = earlier(at_ns, channel_alarm(&fsm->channels[i]));
	return at_ns;
}

static void tend_allocation(struct turn_fsm *fsm, uint64_t now_ns, struct turn_actions *out)
{
	if (fsm->expiry_ns <= now_ns) {
		allocate(fsm, now_ns, out);
		return;
	}
	if (fsm->asking.n_sent == 0 && fsm->renew_ns <= now_ns) {
		fsm->refreshes = true;
		ask(&fsm->asking, TURN_REFRESH, 0, now_ns, out);
	} else if (is_silent(&fsm->asking, TURN_REFRESH, 0, now_ns, out)) {
		fsm->renew_ns = now_ns + (fsm->expiry_ns - now_ns) / 2 + S(1);
	}
	for (uint32_t i = 0; i < TURN_MAX_PERMISSIONS; i++)
		tend_permission(fsm, i, now_ns, out);
	for (uint32_t i = 0; i < TURN_MAX_CHANNELS; i++)
		tend_channel(fsm, i, now_ns, out);
	if (fsm->sent_ns + KEEP_NS <= now_ns && !sends(out))
		add(out, TURN_DO_KEEP, TURN_REFRESH, 0);
}

static void tend(struct turn_fsm *fsm, uint64_t now_ns, struct turn_actions *out)
{
	switch (fsm->state) {
	case TURN_ASKING:
		if (is_silent(&fsm->asking, TURN_ALLOCATE, 0, now_ns, out))
			rest(fsm, now_ns, out);
		return;
	case TURN_ALLOCATED:
		tend_allocation(fsm, now_ns, out);
		return;
	case TURN_RESTING:
		if (fsm->rest_ns <= now_ns)
			allocate(fsm, now_ns, out);
		return;
	case TURN_RELEASING:
		if (fsm->release_ns > now_ns && !is_silent(&fsm->asking, TURN_REFRESH, 0, now_ns, out))
			return;
		fsm->state = TURN_ENDED;
		add(out, TURN_DO_ENDED, TURN_REFRESH, 0);
		return;
	case TURN_ENDED:
	case TURN_N_STATES:
		return;
	}
}

/* An answer to what is not under way (any more) is nothing. */
static struct turn_asking *asking_of(struct turn_fsm *fsm, const struct turn_input *in)
{
	switch (in->request) {
	case TURN_ALLOCATE:
		return fsm->state == TURN_ASKING ? &fsm->asking : NULL;
	case TURN_REFRESH:
		return (fsm->state == TURN_ALLOCATED && fsm->refreshes) || fsm->state == TURN_RELEASING ?
			       &fsm->asking :
			       NULL;
	case TURN_PERMIT:
		return in->index < TURN_MAX_PERMISSIONS ? &fsm->permissions[in->index].asking : NULL;
	case TURN_BIND:
		return in->index < TURN_MAX_CHANNELS ? &fsm->channels[in->index].asking : NULL;
	case TURN_N_REQUESTS:
		break;
	}
	return NULL;
}

static void take_answer(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *out)
{
	const struct turn_asking *asking = asking_of(fsm, in);

	if (!asking || asking->n_sent == 0)
		return;
	switch (in->request) {
	case TURN_ALLOCATE:
		take_allocated(fsm, in, out);
		return;
	case TURN_REFRESH:
		if (fsm->state == TURN_RELEASING)
			take_released(fsm, in, out);
		else
			take_refreshed(fsm, in, out);
		return;
	case TURN_PERMIT:
		take_permitted(fsm, in, out);
		return;
	case TURN_BIND:
		take_bound(fsm, in, out);
		return;
	case TURN_N_REQUESTS:
		return;
	}
}

/* Begun and not stopped. */
static bool is_alive(const struct turn_fsm *fsm)
{
	return fsm->state == TURN_ASKING || fsm->state == TURN_ALLOCATED ||
	       (fsm->state == TURN_RESTING && fsm->rest_ns != 0);
}

static void take(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *out)
{
	switch (in->type) {
	case TURN_IN_START:
		if (fsm->state == TURN_RESTING && fsm->rest_ns == 0)
			allocate(fsm, in->now_ns, out);
		return;
	case TURN_IN_ANSWER:
		take_answer(fsm, in, out);
		return;
	case TURN_IN_WANTED:
		want(fsm, in, out);
		return;
	case TURN_IN_DATA:
		if (fsm->state == TURN_ALLOCATED)
			take_data(fsm, in, out);
		return;
	case TURN_IN_USED:
		if (in->index < TURN_MAX_CHANNELS && fsm->channels[in->index].open) {
			fsm->channels[in->index].used_ns = fsm->sent_ns = in->now_ns;
			fsm->channels[in->index].answered = true;
		}
		return;
	case TURN_IN_MOVED:
		if (is_alive(fsm))
			move(fsm, in->now_ns, out);
		return;
	case TURN_IN_CHECK:
		if (is_alive(fsm))
			check(fsm, in->now_ns, out);
		return;
	case TURN_IN_STOP:
		if (fsm->state != TURN_RELEASING && fsm->state != TURN_ENDED)
			release(fsm, in->now_ns, out);
		return;
	case TURN_IN_DEADLINE:
	case TURN_N_INPUTS:
		return;
	}
}

void turn_fsm_init(struct turn_fsm *fsm)
{
	*fsm = (struct turn_fsm){ .state = TURN_RESTING };
}

void turn_fsm_step(struct turn_fsm *fsm, const struct turn_input *in, struct turn_actions *ret)
{
	ret->n = 0;
	take(fsm, in, ret);
	if (fsm->state != TURN_RESTING || fsm->rest_ns != 0)
		tend(fsm, in->now_ns, ret);
	if (sends(ret))
		fsm->sent_ns = in->now_ns;
	const uint64_t alarm_ns = next_alarm(fsm);
	fsm->deadline_ns = alarm_ns == NEVER || (fsm->state == TURN_RESTING && fsm->rest_ns == 0) ? 0 : alarm_ns;
	assert((fsm->state == TURN_ALLOCATED) == !endpoint_is_none(&fsm->relayed));
}
