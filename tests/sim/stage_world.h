/*
 * Two or three nodes, their NATs, relays and control on virtual time: the pure parts of the stage
 * (peer_fsm, session_box, endpoint_fsm) as they are, and models of everything around them.
 *
 *   node ── NAT ──┐                ┌── NAT ── node        UDP: latency, loss, reordering, duplicates
 *                 ├── the world ───┤                      relay: TLS, ordered, can die and come back
 *   node ─────────┘  STUN, relays, └── NAT ── node        control: pushes the map with delay, or is away
 *                    control
 *
 * The stand-in for WireGuard: numbered packets, authenticated by definition, sent on the path that
 * the machine set, taken once; what arrives and what goes out is told every 50 ms, as a shell does.
 * Deterministic: the same seed and configuration give the same run.
 *
 * If the world searches, its nodes find out what their NATs do (nat_behaviour_fsm asks the STUN servers) and look for a way
 * through hard ones (hard_nat_fsm, with sockets beside: side_model.h); see world_search.c. Else they know nothing of that.
 */
#pragma once

#include "actors/endpoint_manager/endpoint_fsm.h"
#include "actors/endpoint_manager/nat_behaviour_fsm.h"
#include "actors/session_manager/session_box.h"
#include "actors/traffic_manager/peer_fsm.h"
#include "actors/traffic_manager/peer_hard_nat.h"
#include "tests/lib/nat/nat.h"
#include "tests/sim/side_model.h"

#include <stdbool.h>
#include <stdint.h>

#define MS(n)	    ((uint64_t)(n) * 1000000u)
#define SECONDS(n)  MS((n) * 1000u)
#define MAX_NODES   3
#define MAX_NATS    (MAX_NODES + 1) /* one to move to */
#define MAX_RELAYS  2

/* From one node to another: is there a gap in what arrives? */
struct flow {
	uint64_t interval_ns;	/* 0: silent */
	uint32_t packet_bytes;
	uint64_t number;	/* of the next packet */
	uint64_t highest;	/* arrived */
	uint64_t good_ns;	/* until here nothing is missing: when the last one that arrived was sent */
	uint64_t longest_gap_ns;
	uint64_t longest_gap_at_ns;
	uint64_t n_sent, n_arrived, n_direct;
};

/* One node's view of another. */
struct view {
	struct peer_fsm fsm;
	/* from the map, as far as pushed */
	struct public_key session_key;
	struct endpoint endpoints[ENDPOINT_MAX_OURS];
	uint32_t n_endpoints;
	/* since the last telling */
	bool sent, heard_by_relay, was_active;
	uint64_t sent_bytes, heard_bytes;
	struct endpoint heard[4];
	uint32_t n_heard;
	uint64_t activity_ns;
	/* counted */
	uint32_t n_messages;	    /* session messages sent in this second */
	uint32_t most_messages;	    /* in any second */
	uint32_t n_messages_ever;
	uint32_t n_path_changes;    /* SET_PATH */
	uint32_t n_ways;	    /* of them, to another address or between direct and relay */
	uint32_t n_falls;	    /* a direct path was lost; a relay that is better is no such thing */
	uint64_t direct_ns;	    /* since when direct without relay, 0: not */
	/* of worlds that search */
	struct peer_hard_nat hard_nat;
	uint64_t nat_ns; /* up to when the peer's share of telling is used up */
};

/* The stage below peer_hard_nat. */
struct stage {
	struct stage_world *world;
	uint32_t node;
};

/* What a node sent to search: pings and knocks. */
struct search_count {
	uint32_t n_pings, n_datagrams;
	bool is_too_fast;		 /* in some second, more than may be */
	uint64_t sent_ns[HARD_NAT_RATE]; /* the last ones */
};

struct sim_node {
	bool up;
	int nat;		    /* -1: a public address */
	uint32_t home;		    /* relay */
	struct endpoint local;
	struct endpoint second; /* another address of a public node, as IPv6 is beside IPv4; port 0: there is none */
	struct secret_key secret;
	struct session_box *box;
	struct endpoint_fsm endpoints;
	struct view views[MAX_NODES];
	bool connected[MAX_RELAYS]; /* as the node sees it */
	uint32_t life;		    /* counts restarts: an event for a former life is dropped */
	uint64_t distance_ns;	    /* to the middle of the world */
	/* what its UDP leaves by: a queue that its own packets fill; the relay has a link of its own */
	uint64_t byte_ns;	    /* 0: no limit */
	uint64_t queue_ns;	    /* a packet that would wait longer is lost */
	uint64_t link_free_ns;
	/* of worlds that search */
	struct nat_behaviour_fsm behaviour;
	uint16_t first_asker; /* port of the first socket that asks what the NAT does; 0: none is open */
	uint32_t n_asked;     /* runs */
	struct side_model side;
	struct hard_nat_ports hard_nat_ports;
	struct hard_nat_turn turn;
	struct stage stage;
	struct search_count count;
};

#define NAT_MAPPINGS 96
#define NAT_SESSIONS 512
#define NAT_BUCKETS  64

/* A router: its NAT, and whether it carries nothing but TCP. */
struct sim_nat {
	struct nat nat;
	bool udp_cut;
	struct wide_tables *wide; /* instead of these; NULL: none */
	struct nat_mapping mappings[NAT_MAPPINGS];
	struct nat_session sessions[NAT_SESSIONS];
	struct nat_link buckets[3 * NAT_BUCKETS];
};

struct relay {
	bool up;
	uint64_t distance_ns;
	uint64_t last_ns[MAX_NODES][MAX_NODES]; /* ordered: arrivals never overtake */
};

/* What control knows and will push when it is there. */
struct record {
	struct public_key session_key;
	struct endpoint endpoints[ENDPOINT_MAX_OURS];
	uint32_t n_endpoints;
};

struct event;

struct stage_world {
	uint64_t now_ns, random, seed;
	bool trace;
	bool searches; /* set before the first node starts */
	uint32_t n_nodes;
	struct sim_node nodes[MAX_NODES];
	struct sim_nat nats[MAX_NATS];
	struct relay relays[MAX_RELAYS];
	struct flow flows[MAX_NODES][MAX_NODES];
	double loss, duplicates;
	double relay_loss; /* by relay, each way; as over UDP */
	double loss_from[MAX_NODES][MAX_NODES]; /* and what this node's datagrams to that one suffer */
	bool data_cut[MAX_NODES][MAX_NODES]; /* this node's data does not reach that one directly; all else does */
	uint64_t jitter_ns;
	bool isolated; /* hosts behind one NAT do not see each other */
	bool control_up;
	struct record records[MAX_NODES];
	struct event **heap;
	uint32_t n_heap, heap_cap;
	struct event *spare[256]; /* not in the heap */
	uint32_t n_spare;
	uint64_t n_events;
};

void world_init(struct stage_world *w, uint64_t seed, bool trace);
void world_deinit(struct stage_world *w);
uint64_t world_random(struct stage_world *w, uint64_t below);
double world_chance(struct stage_world *w); /* 0 … 1 */
void world_log(struct stage_world *w, const char *format, ...) P2P_PRINTF(2, 3);

/* Everything up to then happens. */
void world_run_until(struct stage_world *w, uint64_t ns);

void world_start_node(struct stage_world *w, uint32_t node);
void world_stop_node(struct stage_world *w, uint32_t node); /* killed: nobody is told */
void world_set_flow(struct stage_world *w, uint32_t from, uint32_t to, uint64_t interval_ns);
/* The node's UDP is as slow as that, with so long a queue. 0: no longer. */
void world_set_link(struct stage_world *w, uint32_t node, uint64_t byte_ns, uint64_t queue_ns);
void world_set_relay(struct stage_world *w, uint32_t relay, bool up);
void world_set_control(struct stage_world *w, bool up);
/* The node gets another address behind another NAT; it notices a little later. */
void world_move_node(struct stage_world *w, uint32_t node, int nat);
/* Forgive what did not arrive until now. */
void world_reset_gaps(struct stage_world *w);

/* Of a world that searches. */
bool world_knows_nat(const struct stage_world *w, uint32_t node); /* … what its NAT does */
uint32_t world_n_searching(const struct stage_world *w, uint32_t node);
/* The NAT has room for a search, and has forgotten all. */
void world_widen_nat(struct stage_world *w, uint32_t nat);

const struct nat_rules *world_nat_of(const struct stage_world *w, uint32_t node);
