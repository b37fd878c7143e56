/*
 * The local API: JSON-RPC 2.0, one message a line, on a Unix stream socket.
 *
 *   p2pctl ── connect ──► socket (mode 0600) ── SO_PEERCRED: root or the node's own uid ──► client
 *   line ──► rpc_parse ──► local_api_decode ──► a port of the engine ──► local_api_answer …
 *
 * Methods (parameters are described in local_api_wire.h and in p2pnode(8)):
 *   node.status, node.join, node.leave, node.ping, node.netcheck, node.log_level, relay.status, relay.drain,
 *   relay.undrain, node.expose, node.unexpose, node.exposures, diglett.…
 *
 * A port may answer at once or later. A request is a number, not a pointer: an answer to a client that
 * has gone in the meantime is dropped. Each request must be answered exactly once; a second answer is
 * dropped too.
 *
 * Bounds: LOCAL_API_MAX_CLIENTS clients (the next one is refused), lines of LOCAL_API_MAX_LINE bytes (a
 * longer one ends its client), LOCAL_API_MAX_PENDING requests of one client without an answer (the next
 * one is refused: RPC_BUSY), LOCAL_API_MAX_QUEUE bytes that a client does not read (it is closed).
 * Garbage is answered with a JSON-RPC error and counted; it ends neither the client nor the node.
 *
 * Loop only.
 */
#pragma once

#include "common/error.h"
#include "common/join_link.h"
#include "common/json.h"
#include "common/log.h"
#include "common/rpc.h"
#include "node/local_api_wire.h"
#include "node/relay_status.h"
#include "node/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define LOCAL_API_DEFAULT_PATH "/run/p2pnode/p2pnode.sock"
#define LOCAL_API_MAX_CLIENTS  32
#define LOCAL_API_MAX_PENDING  16
#define LOCAL_API_MAX_QUEUE    (8 * 1024 * 1024)

struct local_api;

/* A request that awaits its answer. Never 0, never reused. */
typedef uint64_t local_api_request;

/* What the engine does for the local API. Every port must be set. Parameters are borrowed until return. */
struct local_api_ports {
	void *owner;
	/* Fills *ret (initialised, freed by the caller) at once. */
	void (*status)(void *owner, struct node_status *ret);
	/* Answer with local_api_done() when the node is a member; RPC_ALREADY when it was one before. */
	void (*join)(void *owner, local_api_request request, const struct join_link *link, const char *name);
	/* local_api_done() when the membership is gone. */
	void (*leave)(void *owner, local_api_request request);
	/* One ping. local_api_answer_ping() with what came back, also when nothing did. */
	void (*ping)(void *owner, local_api_request request, const struct local_api_ping *ping);
	/* Measures relays and endpoints anew, then local_api_answer_netcheck(). */
	void (*netcheck)(void *owner, local_api_request request);
	/* local_api_answer_relay_status(), or a refusal that says what makes a relay of this node. */
	void (*relay_status)(void *owner, local_api_request request, bool with_clients);
	/* Begins to send the relay's clients away, all within that many seconds; local_api_done() at once. */
	void (*relay_drain)(void *owner, local_api_request request, uint32_t deadline_s);
	/* The relay takes clients again: local_api_done(), also when it did before. */
	void (*relay_undrain)(void *owner, local_api_request request);
	/* Each: local_api_answer() with all that is published now, or a refusal that says what stands in the way. */
	void (*expose)(void *owner, local_api_request request, const struct exposure *exposure);
	void (*unexpose)(void *owner, local_api_request request, const struct exposure *host);
	void (*exposures)(void *owner, local_api_request request);
	/* local_api_answer(), or a refusal. */
	void (*diglett)(void *owner, local_api_request request, const struct diglett_order *order);
};

struct local_api_counters {
	uint64_t accepted, refused_uid, refused_limit, requests, bad_lines, long_lines, busy, slow_clients,
		late_answers;
	uint32_t open;
};

/*
 * Binds path (its folder must exist) and listens. A socket left by a node that died is replaced.
 * -EADDRINUSE when another node answers on it; -ENAMETOOLONG, -EACCES …: reterr names the path and
 * the remedy.
 */
P2P_CHECK int local_api_new(uv_loop_t *loop, const char *path, const struct local_api_ports *ports,
			    struct local_api **ret, struct error *reterr);
/* Closes all clients and the socket, removes it, frees itself, then calls cb (may be NULL). */
void local_api_close(struct local_api *api, void (*cb)(void *owner), void *owner);

/* {"done": true} */
void local_api_done(struct local_api *api, local_api_request request);
void local_api_answer(struct local_api *api, local_api_request request, struct json *result_take);
void local_api_answer_ping(struct local_api *api, local_api_request request,
			   const struct node_ping_result *result);
void local_api_answer_netcheck(struct local_api *api, local_api_request request,
			       const struct node_netcheck *netcheck);
void local_api_answer_relay_status(struct local_api *api, local_api_request request,
				   const struct relay_status *status);
/* message: what is wrong and how to mend it; NULL: the code's own text. */
void local_api_refuse(struct local_api *api, local_api_request request, int code, const char *message);

struct local_api_counters local_api_counters(const struct local_api *api);
