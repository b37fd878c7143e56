/*
 * What the parts of the world know of each other: stage_world.c (packets, relays, the map, the machines of paths and addresses)
 * and world_search.c (what a NAT does, and the way through a hard one).
 */
#pragma once

#include "tests/sim/stage_world.h"

enum packet_kind { PACKET_SESSION, PACKET_DATA, PACKET_STUN_REQUEST, PACKET_STUN_ANSWER, PACKET_STUN_REFUSAL, PACKET_KNOCK };

struct packet {
	enum packet_kind kind;
	uint32_t from; /* node: for data the peer whose key authenticates it */
	uint64_t number, sent_ns;
	uint32_t size; /* of data */
	uint8_t tx_id[ENDPOINT_TX_ID_LEN];
	enum nat_question_kind question; /* of a request */
	uint16_t port;			 /* … and where the answer is wanted */
	struct endpoint mapped, other;
	size_t len;
	uint8_t bytes[SESSION_MAX_LEN - 600]; /* the longest message in use: a rendezvous */
};

/* ---- stage_world.c ---- */

/* From this port of the node's. */
void world_send_from(struct stage_world *w, uint32_t node, uint16_t port, const struct endpoint *to, const struct packet *packet);
void world_seal_and_send(struct stage_world *w, uint32_t from, uint32_t to, const struct peer_source *way,
			 const struct session_message *message);
void world_receive(struct stage_world *w, uint32_t node, const struct packet *packet, const struct peer_source *source);

/* ---- world_search.c; each does nothing in a world whose nodes do not search ---- */

void search_init(struct stage_world *w, uint32_t node);
void search_take_servers(struct stage_world *w, uint32_t node, const struct endpoint_server *servers, uint32_t n);
void search_take_local(struct stage_world *w, uint32_t node);
void search_take_seen(struct stage_world *w, uint32_t node);
/* After anything that may have changed who talks to whom, and how. */
void search_follow(struct stage_world *w, uint32_t node, uint32_t peer);
void search_take_session(struct stage_world *w, uint32_t node, uint32_t peer, uint64_t session);
void search_take_nat(struct stage_world *w, uint32_t node, uint32_t peer, const struct session_nat *nat, bool has_begun);
void search_receive(struct stage_world *w, uint32_t node, uint16_t port, const struct packet *packet,
		    const struct endpoint *source);
void search_on_nat_deadline(struct stage_world *w, uint32_t node);
void search_on_deadline(struct stage_world *w, uint32_t node, uint32_t peer);
