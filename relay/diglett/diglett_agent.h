/*
 * A diglett agent: keeps a tunnel to a server, and carries its visitors to local targets.
 *
 *   connecting ──► let in ──► … ──┐
 *       ▲                         │ ended, refused, cannot connect
 *       └── 1 s, 2 s … 60 s ◄─────┘     back to 1 s by who was let in for a minute
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "relay/diglett/noise_xk.h"
#include "relay/diglett/request_wire.h"
#include "relay/diglett/tunnel.h"

#include <uv.h>

struct diglett_agent;

struct diglett_agent_options {
	const char *host; /* of the server: a name or a numeric address; copied */
	uint16_t port;
	struct noise_public server_key;
	const char *token_file; /* its first line is the token, read at each connect; copied. "": a badge is shown */
	void *owner;
	/* From the loop, at each connect. */
	int (*show_badge)(void *owner, const struct node_badge_binding *binding, struct node_badge *ret,
			  struct error *reterr);
	const char *extra;	/* for the gateway's script; copied */
	uint8_t n_ports;
	struct host_name names[DIGLETT_MAX_PORTS];
	struct endpoint targets[DIGLETT_MAX_PORTS];
	uint32_t half_closed_ms; /* 0: as elsewhere; for tests */
};

struct diglett_agent_counters {
	bool is_let_in;
	uint64_t let_in; /* so often */
	struct tunnel_counters streams;
};

/* Borrowed until the loop runs again. */
struct diglett_agent_status {
	const char *host;
	uint16_t port;
	bool is_let_in;
	int64_t since_s;      /* let in, of the wall clock */
	const char *why;      /* what went wrong last; "": nothing, or not yet */
	uint32_t again_in_ms; /* while it waits; 0: it tries now */
	uint8_t n_ports;
	const struct host_name *names; /* as they are reached, once it was let in */
	const struct endpoint *targets;
	struct tunnel_counters streams;
};

P2P_CHECK int diglett_agent_start(uv_loop_t *loop, const struct diglett_agent_options *options,
				  struct diglett_agent **ret, struct error *reterr);
/* Frees itself from the loop, then calls stopped (may be NULL). */
void diglett_agent_stop(struct diglett_agent *agent, void (*stopped)(void *owner), void *owner);
struct diglett_agent_status diglett_agent_status(const struct diglett_agent *agent);
struct diglett_agent_counters diglett_agent_counters(const struct diglett_agent *agent);
