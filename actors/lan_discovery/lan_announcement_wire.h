/*
 * What a node says to its link when control is away: docs/PROTOCOL-lan.md.
 *
 *    magic 4 ‖ kind 1 ‖ n 1 ‖ port 2 ‖ sequence 8 ‖ session key 32 ‖ answered 8 ‖ n × tag 16
 *
 * A tag is for one peer: keyed with what only the two node keys give, over all that the announcement says and
 * the address it comes from; that of an answer also over what only the two session keys give, so it proves that
 * the sender has the session it brings. To everybody else it is random. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"

#include <stddef.h>
#include <stdint.h>

#define LAN_MAX_TAGS	   64
#define LAN_TAG_LEN	   16
#define LAN_HEADER_LEN	   56
#define LAN_MAX_LEN	   (LAN_HEADER_LEN + LAN_MAX_TAGS * LAN_TAG_LEN)

enum lan_kind {
	LAN_CALL = 1, /* who is here? a tag for each that is meant, and random ones */
	LAN_ANSWER,   /* to one announcement of one peer, so it cannot be older than that one */
};

struct lan_announcement {
	enum lan_kind kind;
	uint16_t port; /* of session messages and packets, at the address it comes from; not 0 */
	uint64_t sequence; /* larger than in any before with this session key; not 0 */
	struct public_key session_key; /* of the sender; not zero */
	uint64_t answered; /* the sequence that is answered; not 0 in an answer, 0 in a call */
	uint32_t n_tags; /* 1 … LAN_MAX_TAGS */
	uint8_t tags[LAN_MAX_TAGS][LAN_TAG_LEN];
};

/* 0, or -EBADMSG when it is none, to the last byte; writes *ret only on success. */
P2P_CHECK int lan_announcement_decode(const uint8_t *bytes, size_t len, struct lan_announcement *ret);
/* How many bytes; 0: they do not fit. */
size_t lan_announcement_encode(const struct lan_announcement *announcement, uint8_t *ret, size_t cap);

/* Of a pair of nodes; secrets, wiped by their owner. */
struct lan_keys {
	uint8_t to_peer[KEY_LEN], from_peer[KEY_LEN];
};

/* 0, or -EINVAL: nobody has such a node key. */
P2P_CHECK int lan_keys_derive(const struct secret_key *node_key, const struct public_key *peer, struct lan_keys *ret);

/* For whom an answer is. A secret, wiped by its owner. */
struct lan_answered {
	struct public_key session_key;
	uint8_t shared[KEY_LEN]; /* by the sessions of both */
};

/* What two sessions share: by one's secret and the other's key. 0, or -EINVAL: nobody has such a session key. */
P2P_CHECK int lan_sessions_shared(const struct secret_key *session_secret, const struct public_key *other,
				  uint8_t ret[KEY_LEN]);
/*
 * The tag for the peer with this key, of an announcement that leaves from, or came from, source (its port does not
 * matter). answered: of an answer; not read of a call.
 */
void lan_tag(const uint8_t key[KEY_LEN], const struct lan_announcement *announcement, const struct endpoint *source,
	     const struct lan_answered *answered, uint8_t ret[LAN_TAG_LEN]);
