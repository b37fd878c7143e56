/*
 * A peer machine on virtual time, for tests: things happen, the machine leaves a trace.
 *
 * happens_*() feed one input now; after_ms() lets time pass and rings every deadline on the way.
 * Sent messages are kept, so that a test can answer them.
 */
#pragma once

#include "actors/traffic_manager/peer_fsm.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS(n) ((uint64_t)(n)*1000000u)

struct world {
	struct peer_fsm peer;
	struct peer_actions last;
	uint64_t now_ns;
	uint64_t seed;
	/* the last direct one of each kind, and how many */
	struct peer_action ping, relay_ping, pong, receipt;
	struct peer_action pings[16]; /* the last direct ones: the i-th of all at i % 16 */
	uint32_t n_answered;	      /* so many of them were, the last ones among them */
	bool by_turn; /* what is asked now reaches the peer by its TURN server */
	uint32_t n_receipts, n_pings, n_relay_pings, n_pongs, n_rendezvous, n_paths;
	char trace[16384];
};

/* What does not fit is cut off: a test that reads its trace has a short one. */
static inline void keep(void *arg, const char *line)
{
	struct world *w = arg;
	size_t used = strlen(w->trace);

	snprintf(w->trace + used, sizeof(w->trace) - used, "%s\n", line);
}

static inline void note(struct world *w, const struct peer_action *action)
{
	switch (action->type) {
	case PEER_DO_SEND_PING:
		if (action->to.by_relay) {
			w->relay_ping = *action;
			w->n_relay_pings++;
			break;
		}
		w->ping = w->pings[w->n_pings % 16] = *action;
		w->n_pings++;
		break;
	case PEER_DO_SEND_PONG:
		w->pong = *action;
		w->n_pongs++;
		break;
	case PEER_DO_SEND_RECEIPT:
		w->receipt = *action;
		w->n_receipts++;
		break;
	case PEER_DO_SEND_RENDEZVOUS:
		w->n_rendezvous++;
		break;
	case PEER_DO_SET_PATH:
		w->n_paths++;
		break;
	case PEER_DO_ADD_AKA:
	case PEER_DO_REMOVE_AKA:
		break;
	}
}

static inline void happens(struct world *w, struct peer_input input)
{
	input.now_ns = w->now_ns;
	peer_fsm_step(&w->peer, &input, &w->last);
	for (uint32_t i = 0; i < w->last.n; i++)
		note(w, &w->last.all[i]);
}

static inline void begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->seed = 1;
	w->now_ns = 1; /* the clock is never 0 */
	peer_fsm_init(&w->peer, w->seed);
	w->peer.trace = keep;
	w->peer.trace_arg = w;
}

static inline void after_ms(struct world *w, uint64_t ms)
{
	uint64_t until_ns = w->now_ns + MS(ms);

	while (w->peer.deadline_ns && w->peer.deadline_ns <= until_ns) {
		w->now_ns = w->peer.deadline_ns;
		happens(w, (struct peer_input){ .type = PEER_IN_DEADLINE });
	}
	w->now_ns = until_ns;
}

static inline struct endpoint at(const char *text)
{
	struct endpoint endpoint;
	int r = endpoint_parse(text, &endpoint);

	assert(r == 0);
	return endpoint;
}

static inline void happens_info(struct world *w, uint64_t session, const char *endpoint)
{
	struct endpoint e = endpoint ? at(endpoint) : (struct endpoint){ 0 };

	happens(w, (struct peer_input){ .type = PEER_IN_INFO,
					.session = session,
					.endpoints = &e,
					.n_endpoints = endpoint ? 1 : 0 });
}

static inline void happens_rendezvous(struct world *w, const char *endpoint)
{
	struct endpoint e = at(endpoint);

	happens(w, (struct peer_input){
			   .type = PEER_IN_RENDEZVOUS, .endpoints = &e, .n_endpoints = 1 });
}

/* from: an endpoint, or NULL for the relay. */
static inline void happens_from(struct world *w, enum peer_input_type type, const char *from)
{
	struct peer_input input = { .type = type, .from = { .by_relay = !from } };

	if (from)
		input.from.endpoint = at(from);
	memset(input.tx_id.bytes, 'p', sizeof(input.tx_id.bytes));
	happens(w, input);
}

/* The last ping is answered, from that address (NULL: the last one by relay, by relay). */
static inline void happens_pong(struct world *w, const char *from)
{
	struct peer_input input = { .type = PEER_IN_PONG, .from = { .by_relay = !from } };

	input.tx_id = from ? w->ping.tx_id : w->relay_ping.tx_id;
	input.by_turn = w->by_turn;
	if (from)
		input.from.endpoint = at(from);
	happens(w, input);
}

/* All direct ones since there were so many, of 16 at most. */
static inline void pings_are_answered(struct world *w, uint32_t n_before, const char *from)
{
	struct peer_input input = { .type = PEER_IN_PONG, .from = { .endpoint = at(from) }, .by_turn = w->by_turn };
	const uint32_t n = w->n_pings;

	for (uint32_t i = n_before; i != n; i++) {
		input.tx_id = w->pings[i % 16].tx_id;
		happens(w, input);
	}
	w->n_answered = n;
}

/* To the last ping that went there. */
static inline void happens_pong_of(struct world *w, const char *address)
{
	const struct endpoint there = at(address);

	for (uint32_t i = w->n_pings; i > 0 && w->n_pings - i < 16; i--) {
		const struct peer_action *ping = &w->pings[(i - 1) % 16];

		if (!endpoint_equal(&ping->to.endpoint, &there))
			continue;
		happens(w, (struct peer_input){ .type = PEER_IN_PONG, .tx_id = ping->tx_id, .from.endpoint = there });
		return;
	}
}

static inline void happens_plain(struct world *w, enum peer_input_type type)
{
	happens(w, (struct peer_input){ .type = type });
}

static inline void happens_relay(struct world *w, bool up)
{
	happens(w, (struct peer_input){ .type = PEER_IN_RELAY, .relay_up = up });
}

static inline void happens_ours(struct world *w, uint32_t n)
{
	happens(w, (struct peer_input){ .type = PEER_IN_OUR_ENDPOINTS, .n_endpoints = n });
}

static inline bool sent_to(const struct world *w, enum peer_action_type type, const char *to)
{
	for (uint32_t i = 0; i < w->last.n; i++) {
		const struct peer_action *a = &w->last.all[i];
		struct endpoint e = to ? at(to) : (struct endpoint){ 0 };

		if (a->type == type && a->to.by_relay == !to &&
		    (!to || endpoint_equal(&a->to.endpoint, &e)))
			return true;
	}
	return false;
}

static inline void expect_trace(struct world *w, const char *expected)
{
	if (strcmp(w->trace, expected) != 0) {
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, w->trace);
		abort();
	}
	w->trace[0] = '\0';
}

static inline void expect_path(const struct world *w, const char *direct, bool relay)
{
	const struct peer_path *path = &w->peer.path;
	struct endpoint e = direct ? at(direct) : (struct endpoint){ 0 };

	if (path->direct != (direct != NULL) || path->relay != relay ||
	    (direct && !endpoint_equal(&path->endpoint, &e))) {
		fprintf(stderr, "expected path %s relay=%d, got %s relay=%d\n%s",
			direct ? direct : "-", relay,
			path->direct ? endpoint_text(&path->endpoint).s : "-", path->relay,
			w->trace);
		abort();
	}
}

static inline void forget_trace(struct world *w)
{
	w->trace[0] = '\0';
}
