/*
 * What an agent asks for, in act 3 of the handshake, and what it is told, in the first message that it gets.
 * docs/PROTOCOL-diglett.md has them byte by byte.
 *
 *   agent ── layout, streams at once, names, token, extra, badge ──► server
 *   agent ◄── the names, whole; or why not ────────────────── server
 *
 * A name is of letters, digits, hyphens and dots: it goes to a script. Without a dot it is one below the server's
 * domain. Pure.
 */
#pragma once

#include "common/wire.h"
#include "relay/diglett/mux_wire.h"
#include "relay/diglett/node_badge.h"
#include "relay/frontdoor/host_name.h"

#define DIGLETT_PROLOGUE    "diglett/2"
#define DIGLETT_MAX_PORTS   8
#define DIGLETT_MAX_TOKEN   128
#define DIGLETT_MAX_EXTRA   512
#define DIGLETT_MAX_REQUEST 4096 /* also with a badge */
#define DIGLETT_MAX_ANSWER  4096

struct diglett_request {
	uint16_t max_streams; /* that the agent serves at once, 1 … MUX_MAX_STREAMS */
	uint8_t n_ports;
	struct host_name names[DIGLETT_MAX_PORTS]; /* different ones */
	char token[DIGLETT_MAX_TOKEN + 1];	   /* printable ASCII without spaces; wiped by its owner */
	char extra[DIGLETT_MAX_EXTRA + 1];	   /* for the gateway's script: printable ASCII */
	struct node_badge badge;		   /* instead of a token, or none */
};

struct diglett_answer {
	bool is_accepted;
	uint8_t n_ports;
	struct host_name names[DIGLETT_MAX_PORTS]; /* as they are reached */
	uint8_t reason;				   /* enum mux_reason, if not accepted … */
	char text[MUX_MAX_TEXT + 1];		   /* … and for people */
};

/* A host's name that is of letters, digits and hyphens only. 0 or -EINVAL. */
P2P_CHECK int diglett_name_parse(const char *text, size_t len, struct host_name *ret);
/* Bytes written, <= DIGLETT_MAX_REQUEST. */
size_t diglett_request_write(const struct diglett_request *request, uint8_t ret[DIGLETT_MAX_REQUEST]);
/* False: it is none, and *ret is zeroed. */
P2P_CHECK bool diglett_request_read(const uint8_t *bytes, size_t len, struct diglett_request *ret);
void diglett_request_wipe(struct diglett_request *request);
size_t diglett_answer_write(const struct diglett_answer *answer, uint8_t ret[DIGLETT_MAX_ANSWER]);
P2P_CHECK bool diglett_answer_read(const uint8_t *bytes, size_t len, struct diglett_answer *ret);
