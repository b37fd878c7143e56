/*
 * The sockets beside of one node (node/side_paths.h), as a model: who has which port, and where what comes to one of them goes.
 *
 *   open n ──► ports first … first + n - 1 hear `from` ──► what comes makes a pair: the peer is near, at our own address and a
 *   port of the pair ──► close: all but the pairs ──► end: the peer's pairs as well
 *
 * Plain values; no world, no clock. Ports are never those of an earlier search, so that no NAT remembers them.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"

#include <stdbool.h>
#include <stdint.h>

#define SIDE_MODEL_MAX_SOCKETS 256
#define SIDE_MODEL_MAX_PEER    2 /* pairs */
#define SIDE_MODEL_MAX	       8

struct side_pair {
	uint32_t peer;
	uint16_t near_port, far_port;
	struct endpoint to; /* the peer */
};

struct side_model {
	bool is_open;
	uint32_t peer; /* searched for */
	uint32_t n;
	uint16_t first_port;
	struct endpoint from;
	uint64_t closed_ns; /* a moment later all descriptors are gone */
	uint32_t n_pairs;
	struct side_pair pairs[SIDE_MODEL_MAX];
	uint16_t next_port, next_near; /* 0: the first */
	/* counted */
	uint32_t n_searches, n_knocks, most_sockets;
};

/* 0 or -EBUSY. */
P2P_CHECK int side_model_open(struct side_model *side, uint64_t now_ns, uint32_t peer, uint32_t n, const struct endpoint *from);
/* The port that this socket knocks from; 0: it is not this peer's search. */
uint16_t side_model_knock(struct side_model *side, uint32_t peer, uint32_t number);
void side_model_close(struct side_model *side, uint64_t now_ns, uint32_t peer);
void side_model_end(struct side_model *side, uint64_t now_ns, uint32_t peer);
/* Something came to this port: the pair by which the node hears it. NULL: nobody does. */
const struct side_pair *side_model_hear(struct side_model *side, uint16_t port, const struct endpoint *from);
/* By which pair it leaves what is sent to this port of our own address. NULL: none. */
const struct side_pair *side_model_by_near(const struct side_model *side, uint16_t port);
