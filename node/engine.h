/*
 * What the node's own programs may ask of the Engine beyond its public header: plain structs instead
 * of JSON, and the ping. Loop only.
 */
#pragma once

#include "common/error.h"
#include "common/join_link.h"
#include "common/macros.h"
#include "node/exposure.h"
#include "node/local_api_wire.h"
#include "node/relay_status.h"
#include "node/status.h"
#include "p2pnode/engine.h"

/* Fills an initialised status. */
void engine_fill_status(const struct p2p_engine *engine, struct node_status *status);

/*
 * Fills an initialised status, on request with the list of clients. 0, RPC_NOT_FOUND (the configuration makes no public node of it), or
 * RPC_UNAVAILABLE (it serves nothing, because it is no member).
 */
P2P_CHECK int engine_fill_relay_status(const struct p2p_engine *engine, bool with_clients,
				       struct relay_status *status);

/*
 * The relay takes no clients any more and sends away those it has, all of them within deadline_s; until undrain, or
 * the end of this membership or program. 0, or as engine_fill_relay_status().
 */
P2P_CHECK int engine_drain_relay(struct p2p_engine *engine, uint32_t deadline_s);
P2P_CHECK int engine_undrain_relay(struct p2p_engine *engine);

/* Says by .listening which sockets a restart is to keep, or that there are none any more; again, if it was said before. */
void engine_tell_listening(const struct p2p_engine *engine);

/*
 * Calls changed() from the loop whenever the map is another one, or there is none any more. Of the map: borrowed, NULL: none.
 */
void engine_watch_map(struct p2p_engine *engine, void (*changed)(void *owner), void *owner);
const struct map *engine_map(const struct p2p_engine *engine);
const struct membership *engine_membership(const struct p2p_engine *engine);

struct diglett_metrics;
struct webgw_agent_counters;

/* The figures of a public node for Prometheus, on the heap; there are some also while it serves nothing. */
char *engine_metrics(struct p2p_engine *engine, const struct diglett_metrics *diglett,
		     const struct webgw_agent_counters *webgw_agent /* NULL: there is none */);
/* NULL: relay and STUN are served; else why not. */
const char *engine_health(const struct p2p_engine *engine);

/* As p2p_engine_join(), with a parsed link (copied) and the codes of the local API (enum rpc_code). */
void engine_join(struct p2p_engine *engine, const struct join_link *link, const char *name,
		 p2p_engine_done done, void *owner);

/*
 * One ICMP echo to the peer's overlay address. cb comes exactly once: code 0 (result->answered tells
 * whether it was), RPC_UNAVAILABLE (no Session), RPC_NOT_FOUND (no such peer), or -errno.
 */
typedef void (*engine_ping_cb)(void *owner, int code, const struct node_ping_result *result);
void engine_ping(struct p2p_engine *engine, const struct local_api_ping *ping, engine_ping_cb cb, void *owner);

/*
 * Publishes, or publishes no more; kept in the state folder when it returns 0, and control is told at once. Else a code
 * of the local API, and in reterr what to do: RPC_ALREADY (something stands in the way), RPC_BUSY (too many),
 * RPC_NOT_FOUND, RPC_UNAVAILABLE (no member), RPC_INTERNAL_ERROR (it could not be kept).
 */
P2P_CHECK int engine_expose(struct p2p_engine *engine, const struct exposure *exposure, struct error *reterr);
P2P_CHECK int engine_unexpose(struct p2p_engine *engine, const struct exposure *host, struct error *reterr);

/* What has come of an exposure: the first that holds. */
enum exposure_state {
	EXPOSURE_NOT_JOINED,
	EXPOSURE_NOT_OPEN,    /* the acceptor: nobody can come in here */
	EXPOSURE_ASKING,      /* control has not answered yet, or not to where it is open now */
	EXPOSURE_CONTROL_OLD, /* it knows nothing of exposures */
	EXPOSURE_NOT_GRANTED, /* by an admin */
	EXPOSURE_NO_DOOR,     /* granted; visitors have nowhere to come to */
	EXPOSURE_PORT_NOT_OPENED, /* a port: no front door opens it */
	EXPOSURE_PORT_TAKEN,	  /* a port: the front door that would cannot */
	EXPOSURE_TRYING,      /* the target has not answered yet */
	EXPOSURE_NO_CERTIFICATE, /* TLS ends here, and there is nothing to show */
	EXPOSURE_TARGET_DOWN,
	EXPOSURE_LIVE,
};
const char *exposure_state_name(enum exposure_state state);
/* The answer to node.exposures. */
struct json *engine_exposures_json(const struct p2p_engine *engine);

/*
 * The acceptor takes visitors at this TCP port of our overlay address from now on; 0: it does not. Told to control, and
 * by it to the front doors.
 */
void engine_set_acceptor_port(struct p2p_engine *engine, uint16_t port);

/* Looks at endpoints and relays anew; cb when the answers are in, or after 3 s. */
void engine_netcheck(struct p2p_engine *engine, void (*cb)(void *owner), void *owner);
