/*
 * MACs and cookies: how a device under load makes strangers prove their address first.
 *
 *   sender                                   receiver under load
 *   initiation, mac1 ──────────────────────► mac1 right, no mac2
 *              ◄────────────── cookie reply  sealed so that only the sender of mac1 can read it
 *   initiation, mac1, mac2 = MAC(cookie) ──► mac2 right: the source address is real
 *
 * mac1 proves that the sender knows our public key; mac2 that it gets mail at its address.
 */
#pragma once

#include "common/key.h"
#include "node/wireguard/crypto.h"
#include "node/wireguard/message_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WG_COOKIE_LIFE_NS    (UINT64_C(120) * 1000000000)
#define WG_COOKIE_LATENCY_NS (UINT64_C(5) * 1000000000) /* a received one is used so much shorter */
#define WG_SOURCE_LEN	     19 /* kind; address and port, or relay and peer */

enum wg_mac_state {
	WG_MAC_INVALID,	    /* mac1 is wrong */
	WG_MAC_VALID,	    /* mac1 is right */
	WG_MAC_WITH_COOKIE, /* mac2 too */
};

/* Of the device: judges what comes in. */
struct wg_cookie_checker {
	uint8_t mac1_key[WG_HASH_LEN], cookie_key[WG_HASH_LEN];
	uint8_t secret[KEY_LEN];
	uint64_t secret_birth_ns; /* 0: no secret yet */
};

/* Of a peer: the cookie that it gave us. */
struct wg_cookie {
	uint8_t mac1_key[WG_HASH_LEN], cookie_key[WG_HASH_LEN];
	uint8_t cookie[WG_MAC_LEN];
	uint64_t birth_ns; /* 0: none */
	uint8_t last_mac1[WG_MAC_LEN];
	bool has_last_mac1; /* a message of ours may be answered with a cookie */
};

void wg_cookie_checker_set_key(struct wg_cookie_checker *checker, const struct wg_crypto *crypto,
			       const struct public_key *own);
/* message: a whole initiation or response. */
bool wg_cookie_check_mac1(const struct wg_cookie_checker *checker, const struct wg_crypto *crypto,
			  const uint8_t *message, size_t len);
/* Whether the secret must be replaced before mac2 is judged or a cookie made. */
bool wg_cookie_secret_is_old(const struct wg_cookie_checker *checker, uint64_t now_ns);
void wg_cookie_set_secret(struct wg_cookie_checker *checker, const uint8_t secret[KEY_LEN],
			  uint64_t now_ns);
bool wg_cookie_check_mac2(const struct wg_cookie_checker *checker, const struct wg_crypto *crypto,
			  const uint8_t *message, size_t len, const uint8_t source[WG_SOURCE_LEN]);
/* ret->nonce is given by the caller (random); receiver and sealed are filled. */
void wg_cookie_make_reply(const struct wg_cookie_checker *checker, const struct wg_crypto *crypto,
			  const uint8_t *message, size_t len, const uint8_t source[WG_SOURCE_LEN],
			  struct wg_cookie_reply *ret);

void wg_cookie_init(struct wg_cookie *cookie, const struct wg_crypto *crypto,
		    const struct public_key *peer);
/* Fills mac1 and, with a fresh cookie, mac2 of an encoded message whose macs are zero. */
void wg_cookie_add_macs(struct wg_cookie *cookie, const struct wg_crypto *crypto, uint8_t *message,
			size_t len, uint64_t now_ns);
/* False: not an answer to our last message. */
bool wg_cookie_consume(struct wg_cookie *cookie, const struct wg_cookie_reply *reply, uint64_t now_ns);
