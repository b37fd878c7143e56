/*
 * What actors say to each other.
 *
 *             datagrams, frames                    sealed                    opened
 *   Direct/RelayManager ──► Direct/RelayRouter ──► SessionManager ──► TrafficManager
 *          ▲                   │ STUN                 │ sealed            │ path      │ AKA
 *          │                   ▼                      ▼                   ▼           ▼
 *          └─────────── EndpointManager        Direct/RelayManager     OutConn   DirectRouter
 *
 * A message is a value. Between actors go ids, never pointers to each other's state: an answer for
 * a peer that is gone is dropped. The two borrowed pointers, the map and the bytes, are owned by
 * the message (a reference, a buffer) and released by the runtime after the handler returned.
 */
#pragma once

#include "actors/buffer.h"
#include "actors/path.h"
#include "actors/session_manager/session_wire.h"
#include "common/endpoint.h"
#include "common/map.h"

#include <stdbool.h>
#include <stdint.h>

enum actor_kind {
	ACTOR_NONE, /* the world outside the stage: data plane, session */
	ACTOR_DIRECT_MANAGER,
	ACTOR_DIRECT_ROUTER,
	ACTOR_RELAY_MANAGER,
	ACTOR_RELAY_ROUTER,
	ACTOR_IN_CONN,	/* one per peer */
	ACTOR_OUT_CONN, /* one per peer */
	ACTOR_TRAFFIC_MANAGER,
	ACTOR_ENDPOINT_MANAGER,
	ACTOR_SESSION_MANAGER,
	ACTOR_N_KINDS,
};

const char *actor_kind_name(enum actor_kind kind);

/* By which way something came or shall go: from/to an endpoint, or over a relay. */
struct via {
	bool by_relay;
	uint32_t relay_id;	  /* if by relay; 0: the one that goes to the peer */
	struct endpoint endpoint; /* if not */
};

enum message_type {
	MESSAGE_DATAGRAM,	/* raw, not WireGuard: DirectManager → DirectRouter */
	MESSAGE_WRITE_DATAGRAM, /* → DirectManager */
	MESSAGE_FRAME,		/* raw, not WireGuard: RelayManager → RelayRouter */
	MESSAGE_WRITE_FRAME,	/* → RelayManager; by the peer's home relay */
	MESSAGE_STUN,		/* DirectRouter → EndpointManager; from the world: to a socket beside, .side */
	MESSAGE_SEALED,		/* a session message: routers → SessionManager */
	MESSAGE_OPENED,		/* SessionManager → TrafficManager */
	MESSAGE_SEAL,		/* TrafficManager → SessionManager: seal this and send it */
	MESSAGE_ACTIVITY,	/* InConn, OutConn → TrafficManager */
	MESSAGE_CARRIED,	/* what the data plane carried for a peer → its InConn and OutConn */
	MESSAGE_SET_PATH,	/* TrafficManager → OutConn */
	MESSAGE_SET_AKA,	/* TrafficManager → DirectRouter */
	MESSAGE_MAP,		/* the session → all managers */
	MESSAGE_LINK_CHANGED,	/* addresses or routes of the machine changed → EndpointManager */
	MESSAGE_KEEPER_CHANGED, /* home was bound by UDP, anew, or lost, or is another; or control was reached → EndpointManager */
	MESSAGE_TURNED,		/* our address at a TURN server, or none any more → EndpointManager */
	MESSAGE_FORWARDED,	/* a port that the router forwards to us, or none any more → EndpointManager */
	MESSAGE_NAT,		/* what our NAT does: EndpointManager → TrafficManager; .nat */
	MESSAGE_MEASURE_NAT,	/* somebody wants to know → EndpointManager */
	MESSAGE_OUR_ENDPOINTS,	/* EndpointManager → TrafficManager; the session tells control */
	MESSAGE_RELAY_STATE,	/* the data plane → RelayManager → TrafficManager */
	MESSAGE_RELAY_LEAVING,	/* the data plane → RelayManager: it will stop */
	MESSAGE_RELAY_USED,	/* the data plane → RelayManager */
	MESSAGE_LATENCY,	/* of a relay's STUN server: EndpointManager → RelayManager */
	MESSAGE_SEND_FAILED,	/* the kernel refused a datagram: DirectManager, of probes RelayManager → TrafficManager */
	MESSAGE_N_TYPES,
};

const char *message_type_name(enum message_type type);

/* A counted reference to one immutable map. */
struct map_ref;
struct map_ref *map_ref_new(const struct map *map); /* copies */
struct map_ref *map_ref(struct map_ref *ref);
void map_unref(struct map_ref *ref);
const struct map *map_ref_get(const struct map_ref *ref);

#define MESSAGE_MAX_ENDPOINTS 32

struct message {
	enum message_type type;
	enum actor_kind from; /* filled by the runtime */
	uint32_t peer_id;     /* whom it is about; addresses the conns; 0 where it does not apply */
	struct via via;
	struct buffer *bytes; /* owned, or NULL */
	struct map_ref *map;  /* owned, or NULL */
	union {
		struct session_message session; /* OPENED, SEAL */
		struct {
			bool out;    /* else in */
			bool packet; /* one or more were carried just now, in: by `via` */
			bool active; /* data in this direction within the activity window */
			uint64_t n_bytes; /* in this direction since the last look */
		} activity;
		struct {
			/* common/clock.h, 0: never. Of any authenticated packet … */
			uint64_t rx_direct_ns, rx_relay_ns;
			struct endpoint rx_endpoint;
			/* … and of data, without keepalives and handshakes. */
			uint64_t rx_data_ns, tx_data_ns;
			uint64_t rx_bytes, tx_bytes; /* since the last look */
		} carried;
		struct peer_path path;
		struct {
			bool known; /* else forgotten */
		} aka;
		struct {
			uint32_t n;
			struct endpoint endpoints[MESSAGE_MAX_ENDPOINTS];
		} our_endpoints;
		struct {
			bool up; /* via.relay_id */
		} relay_state;
		struct {
			uint32_t rtt_us;
		} latency;
		struct {
			bool whole; /* not in fragments */
		} write;	    /* WRITE_DATAGRAM, WRITE_FRAME */
		struct {
			int error;	    /* -errno */
			uint32_t probe_len; /* of the probe that was refused; 0: it was none */
		} send_failed;
		struct {
			uint32_t socket;
		} side;
		struct session_nat nat;
	};
};
