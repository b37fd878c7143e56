/*
 * One peer's MTU: path_mtu_fsm for the path in use, with what it needs of the stage.
 *
 *   peer_fsm: path, activity ──► peer_mtu ── probe ──► SessionManager ──► Direct- or RelayManager (whole or not at all)
 *   probe, passed (opened) ────►   │   ◄── refused ──────────────────────────────┘
 *                                  └── MTU inside ──► data plane
 *
 * A path through a relay has two legs, and a probe goes by both: the relay, too, sends it on whole or not at all. Over
 * TLS a leg takes every size; but whether the peer's leg is one over TLS only the relay knows, so that is asked as well:
 * where both are, the first answer is the last one.
 *
 * A part of TrafficManager; nobody else includes this.
 */
#pragma once

#include "actors/data_plane.h"
#include "actors/message.h"
#include "actors/path.h"
#include "actors/stage.h"
#include "actors/traffic_manager/path_mtu_fsm.h"
#include "common/token_bucket.h"

struct peer_mtu {
	struct path_mtu_fsm fsm;
	uint32_t peer_id;
	struct stage *stage;
	struct data_plane *data_plane;
	struct endpoint endpoint; /* of the path; none: not direct */
	struct relay_way relay;	  /* of the path; none: not by relay, or not known by which */
	uint64_t nonce;		  /* in our probes: of this path */
	uint32_t rtt_us;	  /* as said last */
	struct token_bucket answers;
	uint64_t n_answers_dropped;
};

/* All zero before. seed: different for each peer and start. */
void peer_mtu_init(struct peer_mtu *mtu, struct stage *stage, struct data_plane *data_plane, uint32_t peer_id,
		   uint64_t seed);
/* The path as it is now, whether data flows, and its round trip (0: not known); cheap when nothing changed. */
void peer_mtu_follow(struct peer_mtu *mtu, const struct peer_path *path, bool active, uint32_t rtt_us);
/* Data was carried on the path: out, or in. */
void peer_mtu_sent(struct peer_mtu *mtu);
void peer_mtu_received(struct peer_mtu *mtu, const struct via *from);
/* The peer asks (via: back the same way), the peer answers, the kernel refuses a probe so long (without a relay's header). */
void peer_mtu_on_probe(struct peer_mtu *mtu, const struct via *via, const struct session_message *probe);
void peer_mtu_on_passed(struct peer_mtu *mtu, const struct session_message *passed);
void peer_mtu_on_refused(struct peer_mtu *mtu, const struct via *to, uint32_t len);
void peer_mtu_on_deadline(struct peer_mtu *mtu);
