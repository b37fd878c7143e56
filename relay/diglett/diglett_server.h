/*
 * The diglett server: lets agents in by their token, opens a port on the loopback for each of theirs, and carries who
 * comes there to the agent.
 *
 *   gateway ──► 127.0.0.1:random ──► server ══ tunnel ══ agent ──► local target
 *      ▲                               │
 *      └── script: add, remove ◄───────┤        GET /info ──► version, public key
 *                                      │
 *   tokens (token_store.h: a file, and those of p2pctl): who may have which names
 *   members (diglett_members.h): nodes show their certificates instead, and may have what an admin has granted to them
 *
 * A name belongs to one agent. Who comes with the same token (or as the same node) takes its place; somebody else is refused. A
 * token that is taken from the file, or a grant that is taken back, ends the agents that came by it, within two seconds. When an agent has gone, its names and ports are
 * held until the gateway was told so: nobody else gets them while visitors may still be led there, and these are reset.
 *
 * Who has not shown a token yet has ten seconds, and gives way to newcomers (handshake_places.h); a source that comes too
 * often is closed at once. A token has its part of agents and of held ports, so that one keeps no other's agents out.
 *
 * With allow_v1 who begins as an agent of version 1 is handed from tunnel.h to v1_tunnel.h, and is judged alike, by its token.
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "relay/diglett/diglett_members.h"
#include "relay/diglett/gateway_script.h"
#include "relay/diglett/noise_xk.h"
#include "relay/diglett/token_store.h"
#include "relay/diglett/tunnel.h"
#include "relay/frontdoor/host_name.h"

#include <uv.h>

#define DIGLETT_MAX_AGENTS	    256
#define DIGLETT_MAX_AGENTS_OF_TOKEN 32
#define DIGLETT_MAX_HELD_OF_TOKEN   64 /* ports of agents that have gone; then its next one is refused */
#define DIGLETT_SOURCE_PER_S	    10 /* connections of one source (source_limit.h) */
#define DIGLETT_SOURCE_BURST	    100

struct diglett_server;

/* Strings are borrowed until it is stopped. */
struct diglett_server_options {
	struct endpoint listen, info; /* port 0: any; info none: /info is not served */
	const char *domain;	      /* of names without a dot; "": such are refused */
	const char *key_file;	      /* made when it is not there */
	const char *tokens_file, *own_tokens_file;     /* by hand, and by p2pctl; "" or NULL: none */
	const char *script, *notes_file;	       /* script "": none */
	bool allow_v1; /* agents of version 1 are let in, too: v1_wire.h tells why that is unsafe */
	uint32_t handshake_ms, dead_ms, half_closed_ms, v1_stalled_ms, script_limit_ms, script_retry_ms; /* 0: as elsewhere; for tests */
};

enum diglett_refusal {
	DIGLETT_REFUSED_TOKEN,	   /* it is not valid, or not for that name */
	DIGLETT_REFUSED_NODE,	   /* its badge is not valid */
	DIGLETT_REFUSED_NAME_HELD, /* by another agent, or for the gateway's sake */
	DIGLETT_REFUSED_NAMES,	   /* the same twice; or one without dots, and no domain */
	DIGLETT_REFUSED_TOO_MANY,
	DIGLETT_REFUSED_GATEWAY, /* it has to be told too much before */
	DIGLETT_REFUSED_NO_PORT,
	DIGLETT_N_REFUSALS,
};

struct diglett_server_counters {
	uint32_t agents_now;
	uint64_t accepted, refused[DIGLETT_N_REFUSALS];
	uint64_t failed;      /* their handshake */
	uint64_t crowded_out; /* of it, by newcomers */
	uint64_t too_often;   /* their source came */
	uint64_t replaced, revoked, gone, ended;
	uint64_t of_v1; /* of those accepted */
	struct tunnel_counters streams; /* of all agents */
	struct gateway_counters gateway;
};

enum diglett_script_state {
	DIGLETT_SCRIPT_NONE, /* there is no script */
	DIGLETT_SCRIPT_TELLS,
	DIGLETT_SCRIPT_HAS_TOLD,
	DIGLETT_SCRIPT_HAS_FAILED, /* and is run again */
};

/* One that is let in. Borrowed until the loop runs again. */
struct diglett_agent_view {
	struct endpoint remote;
	const struct noise_public *key;
	int64_t since_s; /* of the wall clock */
	struct token_id token;
	const char *label; /* of the token; "": none */
	const char *node;  /* that came by its certificate; "": by a token */
	uint8_t version;   /* of the protocol */
	struct tunnel_counters streams;
	uint8_t n_ports;
	struct diglett_port_view {
		const struct host_name *name;
		uint16_t port;
		enum diglett_script_state script;
	} ports[DIGLETT_MAX_PORTS];
};

/* 0 or -errno with what to do in reterr. */
P2P_CHECK int diglett_server_start(uv_loop_t *loop, const struct diglett_server_options *options,
				   struct diglett_server **ret, struct error *reterr);
/* Ends all agents and takes their names back from the gateway, frees itself, then calls stopped (may be NULL). */
void diglett_server_stop(struct diglett_server *server, void (*stopped)(void *owner), void *owner);
/* The i-th of those that are let in, the newest first; false: there are no more. */
bool diglett_server_agent_at(const struct diglett_server *server, uint32_t i, struct diglett_agent_view *ret);
/* Ends the agent that has this name; it may come again. 0 or -ENOENT. */
P2P_CHECK int diglett_server_end_agent(struct diglett_server *server, const struct host_name *name);
/* To list them. */
const struct token_store *diglett_server_tokens(const struct diglett_server *server);
/* As token_store.h has them; names without a dot are completed. When one was revoked, its agents end. */
P2P_CHECK int diglett_server_create_token(struct diglett_server *server, struct token_entry *entry,
					  struct token_secret *ret,
					  void (*changed)(void *owner, int r, const struct error *error), void *owner,
					  struct error *reterr);
P2P_CHECK int diglett_server_revoke_token(struct diglett_server *server, const char *id,
					  void (*changed)(void *owner, int r, const struct error *error), void *owner,
					  struct error *reterr);
/* Takes them; NULL: there are none. Agents whose names are not granted to them any more are ended. */
void diglett_server_set_members(struct diglett_server *server, struct diglett_members *members_take);
const struct noise_public *diglett_server_key(const struct diglett_server *server);
struct endpoint diglett_server_listens(const struct diglett_server *server);
const char *diglett_server_domain(const struct diglett_server *server);
uint16_t diglett_server_port(const struct diglett_server *server);
struct diglett_server_counters diglett_server_counters(const struct diglett_server *server);
