#include "node/wireguard/timers.h"

#include <stddef.h>

/* xorshift: spreads peers in time, nothing more. */
static uint64_t jitter(struct wg_timers *timers)
{
	timers->random ^= timers->random << 13;
	timers->random ^= timers->random >> 17;
	timers->random ^= timers->random << 5;
	return timers->random % (WG_JITTER_NS / 1000000) * 1000000;
}

void wg_timers_init(struct wg_timers *timers, uint32_t random)
{
	*timers = (struct wg_timers){ .random = random | 1 };
}

/* From one initiation to the next, when so many retries have been sent. */
static uint64_t retry_after(const struct wg_timers *timers, uint32_t attempts)
{
	static const uint64_t eager_ms[] = { 250, 500, 1000, 2000 };

	if (timers->is_eager && attempts < sizeof(eager_ms) / sizeof(*eager_ms))
		return eager_ms[attempts] * 1000000;
	return WG_REKEY_TIMEOUT_NS;
}

void wg_timers_set_eager(struct wg_timers *timers, bool eager)
{
	timers->is_eager = eager;
}

static void restart_persistent(struct wg_timers *timers, uint64_t now_ns)
{
	if (timers->persistent_interval_ns != 0)
		timers->persistent_ns = now_ns + timers->persistent_interval_ns;
}

void wg_timers_on_data_sent(struct wg_timers *timers, uint64_t now_ns)
{
	if (timers->new_handshake_ns == 0)
		timers->new_handshake_ns =
			now_ns + WG_KEEPALIVE_TIMEOUT_NS + WG_REKEY_TIMEOUT_NS + jitter(timers);
}

void wg_timers_on_data_received(struct wg_timers *timers, uint64_t now_ns)
{
	if (timers->keepalive_ns == 0)
		timers->keepalive_ns = now_ns + WG_KEEPALIVE_TIMEOUT_NS;
	else
		timers->need_another_keepalive = true;
}

void wg_timers_on_any_sent(struct wg_timers *timers, uint64_t now_ns)
{
	timers->keepalive_ns = 0;
	restart_persistent(timers, now_ns);
}

void wg_timers_on_any_received(struct wg_timers *timers, uint64_t now_ns)
{
	timers->new_handshake_ns = 0;
	restart_persistent(timers, now_ns);
}

/* After on_any_sent() for the same packet, which stopped the timer. */
void wg_timers_on_answer_keepalive_sent(struct wg_timers *timers, uint64_t now_ns)
{
	if (!timers->need_another_keepalive)
		return;
	timers->need_another_keepalive = false;
	timers->keepalive_ns = now_ns + WG_KEEPALIVE_TIMEOUT_NS;
}

void wg_timers_on_initiation_sent(struct wg_timers *timers, uint64_t now_ns)
{
	uint64_t after_ns = retry_after(timers, timers->attempts);

	timers->last_handshake_sent_ns = now_ns;
	timers->retransmit_ns = now_ns + after_ns;
	if (after_ns == WG_REKEY_TIMEOUT_NS)
		timers->retransmit_ns += jitter(timers);
}

void wg_timers_on_response_sent(struct wg_timers *timers, uint64_t now_ns)
{
	timers->last_handshake_sent_ns = now_ns;
}

void wg_timers_on_handshake_complete(struct wg_timers *timers)
{
	timers->retransmit_ns = 0;
	timers->attempts = 0;
	timers->sent_last_minute = false;
}

void wg_timers_on_session_derived(struct wg_timers *timers, uint64_t now_ns)
{
	timers->wipe_keys_ns = now_ns + 3 * WG_REJECT_AFTER_TIME_NS;
}

bool wg_timers_may_initiate(struct wg_timers *timers, bool is_retry, uint64_t now_ns)
{
	if (!is_retry && !(timers->is_eager && timers->retransmit_ns != 0))
		timers->attempts = 0;
	/* A retry has been counted already: what it had to wait for is that of the attempt before. */
	uint32_t before = is_retry && timers->attempts > 0 ? timers->attempts - 1 : timers->attempts;
	return !wg_is_recent(timers->last_handshake_sent_ns, retry_after(timers, before), now_ns);
}

bool wg_timers_take_last_minute(struct wg_timers *timers, uint64_t session_birth_ns,
				uint64_t now_ns)
{
	const uint64_t age =
		WG_REJECT_AFTER_TIME_NS - WG_KEEPALIVE_TIMEOUT_NS - WG_REKEY_TIMEOUT_NS;

	if (timers->sent_last_minute || wg_is_recent(session_birth_ns, age, now_ns))
		return false;
	timers->sent_last_minute = true;
	return true;
}

void wg_timers_forget_last_handshake(struct wg_timers *timers)
{
	timers->last_handshake_sent_ns = 0;
}

void wg_timers_set_persistent(struct wg_timers *timers, uint64_t interval_ns, uint64_t now_ns)
{
	timers->persistent_interval_ns = interval_ns;
	timers->persistent_ns = 0;
	restart_persistent(timers, now_ns);
}

void wg_timers_stop(struct wg_timers *timers)
{
	*timers = (struct wg_timers){
		.last_handshake_sent_ns = timers->last_handshake_sent_ns,
		.persistent_interval_ns = timers->persistent_interval_ns,
		.is_eager = timers->is_eager,
		.random = timers->random,
	};
}

uint64_t wg_timers_next(const struct wg_timers *timers)
{
	const uint64_t deadlines[] = { timers->retransmit_ns, timers->new_handshake_ns,
				       timers->keepalive_ns, timers->persistent_ns,
				       timers->wipe_keys_ns };
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; i < sizeof(deadlines) / sizeof(*deadlines); i++)
		if (deadlines[i] != 0 && deadlines[i] < next)
			next = deadlines[i];
	return next;
}

static bool take_expired(uint64_t *deadline_ns, uint64_t now_ns)
{
	if (*deadline_ns == 0 || *deadline_ns > now_ns)
		return false;
	*deadline_ns = 0;
	return true;
}

static unsigned expire_retransmit(struct wg_timers *timers, uint64_t now_ns)
{
	if (timers->attempts <= WG_MAX_ATTEMPTS) {
		timers->attempts++;
		return WG_TODO_RETRY;
	}
	timers->keepalive_ns = 0;
	if (timers->wipe_keys_ns == 0)
		timers->wipe_keys_ns = now_ns + 3 * WG_REJECT_AFTER_TIME_NS;
	return WG_TODO_GIVE_UP;
}

unsigned wg_timers_expire(struct wg_timers *timers, uint64_t now_ns)
{
	unsigned todo = 0;

	if (take_expired(&timers->retransmit_ns, now_ns))
		todo |= expire_retransmit(timers, now_ns);
	if (take_expired(&timers->new_handshake_ns, now_ns))
		todo |= WG_TODO_INITIATE;
	if (take_expired(&timers->keepalive_ns, now_ns))
		todo |= WG_TODO_ANSWER_KEEPALIVE;
	if (take_expired(&timers->persistent_ns, now_ns)) {
		todo |= WG_TODO_KEEPALIVE;
		restart_persistent(timers, now_ns);
	}
	if (take_expired(&timers->wipe_keys_ns, now_ns))
		todo |= WG_TODO_WIPE_KEYS;
	return todo;
}
