/*
 * One peer's search through a hard NAT: hard_nat_fsm, with what it needs of the stage.
 *
 *   traffic without a direct path ──► peer_hard_nat ── nat, ping ──► SessionManager
 *   nat (opened, of the peer) ──────►   │   ▲
 *   EndpointManager ── our NAT ────►    ▼   │ heard: carried on to the socket that carries packets, see below
 *                                  sockets beside (the session's)
 *
 * What comes to a socket beside from the peer is carried to our own UDP socket, and back, from and to an address of
 * this machine. So the peer is reached at that address: all else, the machine of its paths and the lanes, take it
 * for an endpoint of the peer like any other, find it by the pings that come from there, and give it up when it is
 * silent.
 *
 * A part of TrafficManager; nobody else includes this.
 */
#pragma once

#include "actors/stage.h"
#include "actors/traffic_manager/hard_nat_fsm.h"

/* Sockets beside, of one peer at a time. All NULL: there are none. */
struct hard_nat_ports {
	void *owner;
	/* n sockets that hear `from` alone; 0, -EBUSY while another peer has them, or another -errno. */
	int (*open)(void *owner, uint32_t peer_id, uint32_t n, const struct endpoint *from);
	void (*knock)(void *owner, uint32_t peer_id, uint32_t number, const struct endpoint *to);
	/* All but those that carry. */
	void (*close)(void *owner, uint32_t peer_id);
	/* Those, too. */
	void (*end)(void *owner, uint32_t peer_id);
};

struct peer_hard_nat {
	struct hard_nat_fsm fsm;
	const struct hard_nat_ports *ports;
	struct stage *stage;
	uint32_t peer_id;
	uint64_t deadline_ns; /* call peer_hard_nat_on_deadline() then; 0: none */
	uint64_t told_ns;     /* when the peer was told what our NAT does, 0: never */
	uint32_t n_told;      /* without a search */
	bool is_wanted, is_direct, is_refused;
	uint64_t session; /* the peer's, as TrafficManager counts them */
	struct session_nat ours;
};

/* All zero before; ports and turn (all peers' one) are borrowed. */
void peer_hard_nat_init(struct peer_hard_nat *hard_nat, struct stage *stage, const struct hard_nat_ports *ports,
			struct hard_nat_turn *turn, uint32_t peer_id);
void peer_hard_nat_end(struct peer_hard_nat *hard_nat);
/* Cheap when nothing changed. */
void peer_hard_nat_follow(struct peer_hard_nat *hard_nat, bool has_traffic, bool is_direct);
void peer_hard_nat_on_ours(struct peer_hard_nat *hard_nat, const struct session_nat *nat);
/* has_begun: it searches. */
void peer_hard_nat_on_theirs(struct peer_hard_nat *hard_nat, const struct session_nat *nat, bool has_begun);
/* Its session key: when that is another one the peer was restarted, and knows nothing of us. */
void peer_hard_nat_on_session(struct peer_hard_nat *hard_nat, uint64_t session);
void peer_hard_nat_on_deadline(struct peer_hard_nat *hard_nat);
