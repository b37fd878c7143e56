/*
 * What the front door's thread and the loop say to each other of visitors for whom an agent has to dial back.
 *
 *   door's thread                                            loop
 *     a visitor waits ──── dial_wanted {ticket, secret, …} ──►  picks an agent, answers, tells it
 *     knows whose it is ◄─ dial_answer {ticket, subscription} ─    0: nobody is there
 *     it waits no longer ─ dial_over {subscription, end} ─────►  one less waits for that agent
 *
 * The loop hands callers over as well, with their secret: those that came within TLS.
 *
 * The door's thread says no more than DIAL_EXCHANGE_MAX times "wanted" without an end known here, so that both rings have
 * room for all that follows: nothing of it is lost.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"
#include "common/ring.h"
#include "relay/frontdoor/host_name.h"
#include "relay/webgw/subscriptions.h"

#include <stdbool.h>
#include <stdint.h>

#define DIAL_EXCHANGE_MAX 2048
#define DIAL_WANTED_FIRST 4096 /* WEBGW_FIRST_MAX */

struct dial_wanted {
	uint64_t ticket;
	uint8_t secret[WEBGW_EPHEMERAL_LEN];
	uint16_t port; /* 80 or 443 */
	struct host_name host;
	struct webgw_visitor visitor;
	uint32_t n_first; /* of what the visitor sent first, at most DIAL_WANTED_FIRST: for a connection that is there already */
	uint8_t *first;	  /* of malloc(); freed by who takes it; NULL: none */
};

struct dial_over {
	int64_t subscription;
	enum subscriptions_end end;
};

struct dial_answer {
	uint64_t ticket;
	int64_t subscription; /* 0: nobody is there */
	struct agent_tally *tally; /* of its agent's visitors; borrowed to the end of the door */
};

#define DIAL_EXCHANGE_CALLERS 1024

/* Who dialled back, and was heard by the loop. */
struct dial_caller {
	int fd; /* -1: it was there, and there are no descriptors for it: its visitor need not wait for it */
	struct endpoint remote;
	uint8_t secret[WEBGW_EPHEMERAL_LEN];
	uint32_t n_sent; /* of what the visitor sent first it has so much already */
	bool is_raw;	 /* the socket is the agent's own: for visitors that speak TLS, who alone go without any other */
	uint32_t n_answer; /* what came of it already, for the visitor */
	uint8_t *answer;   /* of malloc(); freed by who takes it; NULL: none */
};

struct dial_exchange {
	struct ring wanted, over, answers, callers;
	uint32_t n_owed; /* of the door's thread: those wanted of which it has not said that they are over */
	void (*wake_loop)(void *owner);
	void *owner;
};

void dial_exchange_init(struct dial_exchange *exchange, void (*wake_loop)(void *owner), void *owner);
/* Closes callers that were not taken, frees their answers, and frees what was wanted. */
void dial_exchange_deinit(struct dial_exchange *exchange);

/* ---- the door's thread ---- */

/* False: too many are under way; then wanted->first stays the caller's. */
bool dial_exchange_want(struct dial_exchange *exchange, const struct dial_wanted *wanted);
/* subscription: as answered for one that is wanted; once for each, also for 0, which is nobody's. */
void dial_exchange_end(struct dial_exchange *exchange, int64_t subscription, enum subscriptions_end end);
/* False: there is none. */
bool dial_exchange_take_answer(struct dial_exchange *exchange, struct dial_answer *ret);
/* The same. The socket is the caller's, who wipes the secret and frees the answer. */
bool dial_exchange_take_caller(struct dial_exchange *exchange, struct dial_caller *ret);

/* ---- the loop ---- */

/* False: there is none. Has a secret in it: wiped by the caller, who frees its first. */
bool dial_exchange_take_wanted(struct dial_exchange *exchange, struct dial_wanted *ret);
bool dial_exchange_take_over(struct dial_exchange *exchange, struct dial_over *ret);
/* Once for each that is wanted. The door's thread is woken by the caller. */
void dial_exchange_answer(struct dial_exchange *exchange, const struct dial_answer *answer);
/* False: too many have not been taken; its socket and answer stay the caller's. */
P2P_CHECK bool dial_exchange_give(struct dial_exchange *exchange, const struct dial_caller *caller);
