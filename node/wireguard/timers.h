/*
 * When a peer must do something by itself. Others report what happened; only timers.c decides what
 * that means.
 *
 *   reported                        effect
 *   ──────────────────────────────  ───────────────────────────────────────────────────────────
 *   data sent                       new-handshake in 15 s, if not running
 *   data received                   keepalive in 10 s, if not running; else one more after it
 *   anything authenticated sent     stop keepalive
 *   anything authenticated received stop new-handshake
 *   either of them                  persistent keepalive from now
 *   initiation sent                 retransmit in 5 s
 *   handshake complete              stop retransmit, attempts = 0
 *   session derived                 wipe keys in 540 s
 *
 *   expired                         to do
 *   ──────────────────────────────  ───────────────────────────────────────────────────────────
 *   retransmit                      RETRY; after 20 sends GIVE_UP, and wipe keys in 540 s
 *   new-handshake                   INITIATE, by a fresh source address
 *   keepalive                       ANSWER_KEEPALIVE, then perhaps one more in 10 s
 *   persistent keepalive            KEEPALIVE
 *   wipe keys                       WIPE_KEYS
 *
 * Pure: a struct of deadlines. Times are wg_time.ns; 0 means "not running" or "never".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WG_SECOND_NS		 UINT64_C(1000000000)
#define WG_REKEY_AFTER_TIME_NS	 (120 * WG_SECOND_NS)
#define WG_REJECT_AFTER_TIME_NS	 (180 * WG_SECOND_NS)
#define WG_REKEY_TIMEOUT_NS	 (5 * WG_SECOND_NS)
#define WG_KEEPALIVE_TIMEOUT_NS	 (10 * WG_SECOND_NS)
#define WG_JITTER_NS		 (333 * WG_SECOND_NS / 1000)
#define WG_REKEY_AFTER_MESSAGES	 (UINT64_C(1) << 60)
#define WG_MAX_ATTEMPTS		 18 /* 90 s (REKEY_ATTEMPT_TIME) / 5 s */

enum wg_todo {
	WG_TODO_INITIATE = 1 << 0,
	WG_TODO_RETRY = 1 << 1,
	WG_TODO_ANSWER_KEEPALIVE = 1 << 2, /* then wg_timers_on_answer_keepalive_sent() */
	WG_TODO_KEEPALIVE = 1 << 3,
	WG_TODO_GIVE_UP = 1 << 4,
	WG_TODO_WIPE_KEYS = 1 << 5,
};

/* All zero is a start, but for the random state. */
struct wg_timers {
	uint64_t retransmit_ns, new_handshake_ns, keepalive_ns, persistent_ns, wipe_keys_ns;
	uint64_t last_handshake_sent_ns; /* initiation or response */
	uint64_t persistent_interval_ns; /* 0: off */
	uint32_t attempts;
	bool is_eager; /* the first retries come sooner than the protocol's 5 s; see wg_timers_set_eager() */
	bool need_another_keepalive;
	bool sent_last_minute; /* the rekey just before a session ends was begun */
	uint32_t random;       /* for jitter; not secret */
};

void wg_timers_init(struct wg_timers *timers, uint32_t random);

/*
 * For peers that are ours as well: the first retries of a handshake come after 250, 500, 1000 and 2000 ms,
 * since a relay or a path may be coming up; then every 5 s as the protocol says. A peer accepts one
 * initiation per 20 ms.
 */
void wg_timers_set_eager(struct wg_timers *timers, bool eager);

void wg_timers_on_data_sent(struct wg_timers *timers, uint64_t now_ns);
void wg_timers_on_data_received(struct wg_timers *timers, uint64_t now_ns);
void wg_timers_on_any_sent(struct wg_timers *timers, uint64_t now_ns);
void wg_timers_on_any_received(struct wg_timers *timers, uint64_t now_ns);
void wg_timers_on_answer_keepalive_sent(struct wg_timers *timers, uint64_t now_ns);
void wg_timers_on_initiation_sent(struct wg_timers *timers, uint64_t now_ns);
void wg_timers_on_response_sent(struct wg_timers *timers, uint64_t now_ns);
void wg_timers_on_handshake_complete(struct wg_timers *timers);
void wg_timers_on_session_derived(struct wg_timers *timers, uint64_t now_ns);

/*
 * True when an initiation may be sent: none in the last 5 s (eager: since the last retry was due). Not a
 * retry: the count of attempts begins anew, for somebody wants to talk (eager: unless one is pending).
 */
bool wg_timers_may_initiate(struct wg_timers *timers, bool is_retry, uint64_t now_ns);
/*
 * The initiator's last chance to rekey when it only receives: true once per session, 15 s before it
 * ends.
 */
bool wg_timers_take_last_minute(struct wg_timers *timers, uint64_t session_birth_ns, uint64_t now_ns);
/* The next initiation need not wait for the 5 s: the last could not reach anybody. */
void wg_timers_forget_last_handshake(struct wg_timers *timers);
void wg_timers_set_persistent(struct wg_timers *timers, uint64_t interval_ns, uint64_t now_ns);
/* Nothing runs any more; settings stay. */
void wg_timers_stop(struct wg_timers *timers);

/* The earliest deadline; UINT64_MAX: none. */
uint64_t wg_timers_next(const struct wg_timers *timers);
/* Bits of enum wg_todo for what has expired, which then no longer runs. */
unsigned wg_timers_expire(struct wg_timers *timers, uint64_t now_ns);

/*
 * False also for since_ns 0: what never happened is not recent. What another thread has just done may be
 * later than now_ns, which a burst of packets reads once.
 */
static inline bool wg_is_recent(uint64_t since_ns, uint64_t period_ns, uint64_t now_ns)
{
	return since_ns != 0 && (since_ns >= now_ns || now_ns - since_ns < period_ns);
}
