/*
 * The node's way round by a TURN server: p2pturn (programs/p2pturn.c) as a child of ours.
 *
 *   engine ── pinged: who may want to reach us ──► turn_helper ══ standard input, output ══► p2pturn ──► TURN server
 *   engine ◄── changed: where we are reached ──────                                             │
 *   data plane ◄────────────────── datagrams, from 127.0.0.1:q ─────────────────────────────────┘
 *
 * One that ends is started again: after a second, then twice as long each time, five minutes at most. Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"

#include <uv.h>

#define TURN_USER_LEN 128
#define TURN_PATH_LEN 256

struct turn_helper;

/* As configured. The password stands in a file that only p2pturn reads. */
struct turn_settings {
	struct endpoint server; /* none: no TURN */
	char user[TURN_USER_LEN + 1];
	char password_file[TURN_PATH_LEN + 1];
};

struct turn_helper_options {
	uv_loop_t *loop;
	const struct turn_settings *settings; /* borrowed, as long as the helper lives */
	uint16_t port;			      /* of the data plane */
	void (*changed)(void *owner, const struct endpoint *relayed); /* none: nowhere any more. Borrowed */
	void *owner;
};

struct turn_helper *turn_helper_new(const struct turn_helper_options *options);
/* Who is at this address may send to us through the server, for some minutes from now. */
void turn_helper_pinged(struct turn_helper *helper, const struct endpoint *peer);
/* Addresses or routes of this machine changed. */
void turn_helper_link_changed(struct turn_helper *helper);
/* Where we are reached by TURN; none: nowhere. */
struct endpoint turn_helper_relayed(const struct turn_helper *helper);
/* Ends p2pturn, which gives its address back: a second at most. Accepts NULL. */
void turn_helper_close(struct turn_helper *helper, void (*closed)(void *owner), void *owner);
