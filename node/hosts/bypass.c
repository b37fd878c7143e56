#include "node/hosts/bypass.h"

#include <string.h>

#define TRY_NS	      500000000ull
#define SILENT_NS     2500000000ull
#define NUDGE_NS      1000000000ull
#define AGAIN_NS      3000000000ull /* longer than a doubt of the peer lasts */
#define BACK_OFF_NS   10000000000ull
#define ALONE_NS      10000000000ull
#define MAX_DOUBLINGS 6

static bool same_ip(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

static enum bypass_deed fail(struct bypass *bypass, uint64_t now_ns)
{
	uint32_t doublings = bypass->n_failed < MAX_DOUBLINGS ? bypass->n_failed : MAX_DOUBLINGS;

	bypass->state = BYPASS_OFF;
	bypass->n_failed++;
	bypass->retry_ns = now_ns + (BACK_OFF_NS << doublings);
	return BYPASS_TO_LOOPBACK;
}

static enum bypass_deed begin(struct bypass *bypass, const struct bypass_look *look)
{
	bypass->state = BYPASS_TRYING;
	bypass->since_ns = look->now_ns;
	return BYPASS_TO_PEER;
}

static bool may_try(const struct bypass *bypass, const struct bypass_look *look)
{
	return look->now_ns >= bypass->retry_ns && !endpoint_is_none(&bypass->target) &&
	       same_ip(&bypass->target, &look->path);
}

static enum bypass_deed step_off(struct bypass *bypass, const struct bypass_look *look)
{
	if (look->is_loopback)
		return may_try(bypass, look) ? begin(bypass, look) : BYPASS_NOTHING;
	if (!same_ip(&look->endpoint, &look->path) || look->now_ns < bypass->alone_ns)
		return BYPASS_TO_LOOPBACK;
	/* The peer was faster: its packet came past us. */
	bypass->state = BYPASS_ON;
	bypass->heard_ns = bypass->sent_ns = look->now_ns;
	return BYPASS_NUDGE;
}

/* Somebody carried an authentic packet to WireGuard's port, and took it along. */
static bool is_elsewhere(const struct bypass_look *look)
{
	return !look->is_loopback && !same_ip(&look->endpoint, &look->path);
}

static enum bypass_deed leave(struct bypass *bypass, const struct bypass_look *look)
{
	bypass->state = BYPASS_OFF;
	bypass->retry_ns = look->now_ns + AGAIN_NS;
	return BYPASS_TO_LOOPBACK;
}

static enum bypass_deed step_trying(struct bypass *bypass, const struct bypass_look *look)
{
	if (is_elsewhere(look))
		return leave(bypass, look);
	if (!look->is_loopback && look->has_heard) {
		bypass->state = BYPASS_ON;
		bypass->n_failed = 0;
		bypass->heard_ns = bypass->sent_ns = look->now_ns;
		return BYPASS_NOTHING;
	}
	if (look->now_ns - bypass->since_ns >= TRY_NS)
		return fail(bypass, look->now_ns);
	/* What was still on its way to the loopback socket has taken WireGuard back. */
	return look->is_loopback ? BYPASS_TO_PEER : BYPASS_NOTHING;
}

static enum bypass_deed step_on(struct bypass *bypass, const struct bypass_look *look)
{
	if (look->has_heard)
		bypass->heard_ns = look->now_ns;
	if (look->has_sent)
		bypass->sent_ns = look->now_ns;
	if (look->is_loopback) { /* perhaps by relay, because this way is cut */
		(void)leave(bypass, look);
		return BYPASS_NOTHING;
	}
	if (is_elsewhere(look))
		return leave(bypass, look);
	if (look->now_ns - bypass->heard_ns >= SILENT_NS)
		return fail(bypass, look->now_ns);
	if (look->now_ns - bypass->sent_ns < NUDGE_NS)
		return BYPASS_NOTHING;
	bypass->sent_ns = look->now_ns;
	return BYPASS_NUDGE;
}

enum bypass_deed bypass_step(struct bypass *bypass, const struct bypass_look *look)
{
	if (!look->is_direct)
		return bypass_end(bypass, look->now_ns) || !look->is_loopback ? BYPASS_TO_LOOPBACK : BYPASS_NOTHING;
	switch (bypass->state) {
	case BYPASS_OFF:
		return step_off(bypass, look);
	case BYPASS_TRYING:
		return step_trying(bypass, look);
	case BYPASS_ON:
		return step_on(bypass, look);
	}
	return BYPASS_NOTHING;
}

bool bypass_end(struct bypass *bypass, uint64_t now_ns)
{
	if (bypass->state == BYPASS_OFF)
		return false;
	(void)fail(bypass, now_ns);
	bypass->alone_ns = now_ns + ALONE_NS;
	return true;
}
