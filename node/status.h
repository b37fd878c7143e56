/*
 * What the node tells of itself: the answer to "node.status", also read by p2pctl.
 *
 * A plain tree of values, filled by the engine. Arrays are on the heap; node_status_deinit() frees
 * them. The same struct is read back from JSON, so both ends agree by construction. Pure.
 *
 * JSON (every member always there; a value that is not known is null):
 *   { "state", "version", "network", "interface", "wireguard", "mtu", "uptime_ms",
 *     "self": {"id", "name", "ip4", "ip6", "node_key"},
 *     "control": {"connected", "address", "since_ms", "last_error", "map_sequence", "map_age_ms"},
 *     "home_relay": {"id", "name", "latency_us", "transport"} or null,
 *     "endpoints": [{"endpoint", "kind"}], "nat": "mapping", "nat_behaviour": {…} (node/status_nat.h),
 *     "peers": [{"id", "name", "ip4", "ip6", "node_key", "state", "path", "endpoint", "by_turn",
 *                "relay", "latency_us", "mtu", "handshake_ms", "packet_ms", "rx_bytes", "tx_bytes", "online"}],
 *     "relays": [{"id", "name", "latency_us", "transport", "udp_latency_us", "tls_latency_us", "connected",
 *                 "home"}],
 *     "offloads": [{"name", "state", "error", "used", "refused", "fell_back"}],
 *     "lanes": [{"role", "tun_packets", "tun_bytes", "udp_datagrams", "udp_bytes", "udp_relayed",
 *                "drops": {…}}],
 *     "drops": {"name": count} }
 * *_ms are ages. Counts of bytes, packets, offloads and drops are decimal strings (64 bits).
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/json.h"
#include "common/key.h"
#include "common/map.h"
#include "node/status_nat.h"
#include "node/status_values.h"

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#define NODE_STATUS_UNKNOWN (-1) /* of an age or a latency */

#define NODE_STATUS_MAX_ENDPOINTS 32
#define NODE_STATUS_MAX_DROPS	  160
#define NODE_STATUS_MAX_OFFLOADS  8
#define NODE_STATUS_MAX_LANES	  16
#define NODE_STATUS_MAX_LANE_DROPS 32
#define NODE_STATUS_TEXT	  200

enum node_state {
	NODE_NOT_JOINED, /* no membership: p2pctl join */
	NODE_JOINING,	 /* a join is on its way */
	NODE_STARTING,	 /* member; no Session yet, or it is in its back-off */
	NODE_RUNNING,	 /* member, Session up (control may be away) */
	NODE_REMOVED,	 /* control said that we are no member any more */
	NODE_N_STATES,
};

enum node_path_kind { NODE_PATH_NONE, NODE_PATH_RELAY, NODE_PATH_DIRECT, NODE_PATH_BOTH, NODE_N_PATHS };

/* How we learned an endpoint of our own. */
enum node_endpoint_kind {
	NODE_ENDPOINT_LOCAL,	 /* an address of an interface */
	NODE_ENDPOINT_STUN,	 /* seen by a STUN server */
	NODE_ENDPOINT_PUBLIC,	 /* told by the configuration */
	NODE_ENDPOINT_PORTMAP,	 /* UPnP, NAT-PMP, PCP */
	NODE_ENDPOINT_TURN,	 /* a TURN server's, which passes on to us */
	NODE_ENDPOINT_PEER,	 /* seen by a peer (pong) */
	NODE_N_ENDPOINT_KINDS,
};

/* What the NAT before us does, as far as it was measured. */
enum node_nat {
	NODE_NAT_UNKNOWN,
	NODE_NAT_NONE,	      /* a local address is the one seen outside */
	NODE_NAT_EASY,	      /* one outside port for all destinations (endpoint-independent mapping) */
	NODE_NAT_HARD,	      /* another outside port for each destination (symmetric) */
	NODE_NAT_UDP_BLOCKED, /* no STUN server answers */
	NODE_N_NATS,
};

struct node_status_endpoint {
	struct endpoint endpoint;
	enum node_endpoint_kind kind;
};

struct node_status_peer {
	uint32_t id;
	char name[MAP_NAME_LEN + 1];
	struct public_key node_key;
	struct in_addr ip4; /* network order; 0: none */
	struct in6_addr ip6;
	char state[32]; /* peer_state_name() */
	enum node_path_kind path;
	struct endpoint endpoint;	  /* when direct or both; else none */
	bool by_turn;			  /* "direct" is by a TURN server, the peer's or ours */
	char relay[MAP_NAME_LEN + 1];	  /* name of the relay when relay or both; else "" */
	int64_t latency_us;		  /* of the path taken now, or NODE_STATUS_UNKNOWN */
	uint32_t mtu;			  /* inside, of the direct path; 0: not known */
	int64_t handshake_ms, packet_ms;  /* ages: last handshake, last authenticated packet received */
	uint64_t rx_bytes, tx_bytes;
	bool online; /* control's hint */
};

struct node_status_relay {
	uint32_t id;
	char name[MAP_NAME_LEN + 1];
	int64_t latency_us; /* by STUN or relay ping, or NODE_STATUS_UNKNOWN */
	char transport[8];  /* what packets go by now: "udp", "tls"; "" when not connected */
	int64_t udp_latency_us, tls_latency_us; /* of the pings of each, or NODE_STATUS_UNKNOWN */
	bool connected, home;
};

/* One of the ways to move many packets at once; see node/wireguard/offload_switches.h. */
struct node_status_offload {
	char name[24];
	char state[16]; /* "on", "off" (by configuration), "refused" (by the kernel) */
	char error[24]; /* "EINVAL" … when refused; "" */
	uint64_t used, refused, fell_back;
};

struct node_status_drop {
	char name[48];
	uint64_t n;
};

/* One of the threads that move packets; see node/wireguard/lanes.h. Only what was dropped is in drops. */
struct node_status_lane {
	char role[8]; /* "seals", "opens", "both" */
	uint64_t tun_packets, tun_bytes;     /* from the interface */
	uint64_t udp_datagrams, udp_bytes; /* from the network */
	uint64_t udp_relayed;		   /* … of these: data that a relay brought, taken by the lane itself */
	uint32_t n_drops;
	struct node_status_drop drops[NODE_STATUS_MAX_LANE_DROPS];
};

#define NODE_STATUS_MAX_WEBGW_HOSTS 16
#define NODE_STATUS_WEBGW_WHY	    160

struct node_status_webgw_host {
	char host[256]; /* "*.example.org" */
	char target[192]; /* or two: "http://127.0.0.1:80 https://127.0.0.1:443 proxy=v2" */
	char state[12]; /* "subscribed", "refused", "asking", "target down" */
	char why[NODE_STATUS_WEBGW_WHY]; /* it is refused, or was when it was asked for last */
	uint32_t warm, visitors_now;
};

/* The agent that [webgw-agent] makes of this node: node/status_webgw.c. */
struct node_status_webgw_agent {
	bool is_there, is_connected;
	char server[264]; /* host:port */
	char why[NODE_STATUS_WEBGW_WHY]; /* it is not connected; "" when not known */
	uint32_t n_hosts;
	struct node_status_webgw_host hosts[NODE_STATUS_MAX_WEBGW_HOSTS];
};

/* Of one that is there. */
struct json *node_status_webgw_to_json(const struct node_status_webgw_agent *agent);
P2P_CHECK int node_status_webgw_from_json(const struct json *json, struct node_status_webgw_agent *ret, struct error *reterr);

struct node_status {
	enum node_state state;
	char version[24];
	char network[MAP_NAME_LEN + 1];
	char interface[IF_NAMESIZE];
	char wireguard[16]; /* wireguard_kind_name(); "" from an older node */
	uint32_t mtu;
	uint64_t uptime_ms;
	struct {
		uint32_t id; /* 0: not joined */
		char name[MAP_NAME_LEN + 1];
		struct in_addr ip4;
		struct in6_addr ip6;
		struct public_key node_key;
		bool is_public; /* offers to be a relay; is one when it is among the relays */
	} self;
	struct {
		bool connected;
		char address[264];		   /* host:port; "" when not joined */
		int64_t since_ms;		   /* how long connected, or how long away; or UNKNOWN */
		char last_error[NODE_STATUS_TEXT]; /* "" when none */
		uint64_t map_sequence;
		int64_t map_age_ms; /* since control last said something about the map; or UNKNOWN */
	} control;
	struct {
		uint32_t id; /* 0: none */
		char name[MAP_NAME_LEN + 1];
		int64_t latency_us;
		char transport[8]; /* "udp", "tls"; "" when not connected */
	} home_relay;
	uint32_t n_endpoints;
	struct node_status_endpoint endpoints[NODE_STATUS_MAX_ENDPOINTS];
	enum node_nat nat;
	struct {
		char state[16]; /* port_mapping_state_name(); "" when the router is not to be asked */
		char way[8];	/* "PCP", "NAT-PMP", "UPnP": by which we have .external; "" when we have none */
		struct endpoint router, external; /* none: there is none */
		enum node_known pcp, natpmp, upnp; /* does the router speak it? As far as it was asked */
	} port_mapping;
	struct node_nat_behaviour nat_behaviour;
	uint32_t n_peers;
	struct node_status_peer *peers; /* sorted by name for people; by id from the engine */
	uint32_t n_relays;
	struct node_status_relay *relays;
	uint32_t n_offloads;
	struct node_status_offload offloads[NODE_STATUS_MAX_OFFLOADS];
	uint32_t n_lanes;
	struct node_status_lane lanes[NODE_STATUS_MAX_LANES];
	uint32_t n_drops;
	struct node_status_drop drops[NODE_STATUS_MAX_DROPS];
	struct node_status_webgw_agent webgw_agent;
};

/* Everything empty or unknown. */
void node_status_init(struct node_status *status);
void node_status_deinit(struct node_status *status);
/* A new, empty entry at the end; valid until the next call. Out of memory aborts. */
struct node_status_peer *node_status_add_peer(struct node_status *status);
struct node_status_relay *node_status_add_relay(struct node_status *status);
/* Does nothing when the list is full. */
void node_status_add_endpoint(struct node_status *status, const struct endpoint *endpoint,
			      enum node_endpoint_kind kind);
/* A new, empty entry at the end; NULL when the list is full. */
struct node_status_offload *node_status_add_offload(struct node_status *status);
/* NULL: there are NODE_STATUS_MAX_LANES. */
struct node_status_lane *node_status_add_lane(struct node_status *status);
/* Nothing is added for n 0. */
void node_status_add_lane_drop(struct node_status_lane *lane, const char *name, uint64_t n);
void node_status_add_drop(struct node_status *status, const char *name, uint64_t n);

/* Joined, or about to be. */
bool node_status_is_member(const struct node_status *status);

struct json *node_status_to_json(const struct node_status *status);
/* 0 or -EINVAL with the member in reterr. Members that are not known are ignored (a newer node). */
P2P_CHECK int node_status_from_json(const struct json *json, struct node_status *ret, struct error *reterr);

const char *node_state_name(enum node_state state);	    /* "not joined" … */
const char *node_path_name(enum node_path_kind path);	    /* "none", "relay", "direct", "both" */
/* One that we do not know (a newer node) is "none". */
int node_path_get(const struct json *object, const char *key, enum node_path_kind *ret, struct error *reterr);
const char *node_endpoint_kind_name(enum node_endpoint_kind kind);
const char *node_nat_name(enum node_nat nat);		    /* "unknown", "none", "easy", "hard", "udp blocked" */

/* ---- answers to node.ping and node.netcheck -------------------------------------------------- */

/*
 * JSON: {"answered", "peer", "ip", "path", "endpoint", "relay", "latency_us"}; path is the one the
 * answer came by.
 */
struct node_ping_result {
	bool answered;
	char peer[MAP_NAME_LEN + 1];
	struct endpoint ip; /* overlay address, port 0 */
	enum node_path_kind path;
	struct endpoint endpoint;
	char relay[MAP_NAME_LEN + 1];
	int64_t latency_us;
};

struct json *node_ping_result_to_json(const struct node_ping_result *result);
P2P_CHECK int node_ping_result_from_json(const struct json *json, struct node_ping_result *ret,
					 struct error *reterr);

/*
 * netcheck is the status with a fresh look at relays and endpoints, and what only that look can tell.
 * JSON: {"udp_works", "control_reachable", "status": {…}}.
 */
struct node_netcheck {
	bool udp_works;		/* some STUN server answered */
	bool control_reachable; /* connected now */
	struct node_status status;
};

void node_netcheck_init(struct node_netcheck *netcheck);
void node_netcheck_deinit(struct node_netcheck *netcheck);
struct json *node_netcheck_to_json(const struct node_netcheck *netcheck);
P2P_CHECK int node_netcheck_from_json(const struct json *json, struct node_netcheck *ret, struct error *reterr);
