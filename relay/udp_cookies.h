/*
 * What a relay over UDP gives to clients and knows again without keeping it: nobody else can compute it.
 *
 *   cookie ("you are where you say"):      when it was made, and a hash of that and of the address. Good for 30 s.
 *   challenge ("my last pong arrived"):    a hash of slot, token, and the half minute. Good for a minute and a half.
 *   random numbers (tokens, generations):  hashes of a counter, so that a relay that follows goes on with them.
 *
 * Pure; times are of one monotonic clock. The secret is the owner's to make, to save (udp_clients_saved.h), and to wipe.
 */
#pragma once

#include "common/endpoint.h"
#include "common/relay_udp_wire.h"

#include <stdbool.h>
#include <stdint.h>

#define UDP_COOKIES_MS 30000 /* shorter than a silent client is kept: a recorded bind revives nobody */

struct udp_cookies {
	uint8_t secret[32];
	uint64_t n_random;
};

void udp_cookies_init(struct udp_cookies *cookies);

uint32_t udp_cookies_random(struct udp_cookies *cookies);

/* The time that a cookie has in it; wraps. */
uint32_t udp_cookies_ms(uint64_t now_ns);
void udp_cookies_make(const struct udp_cookies *cookies, const struct endpoint *from, uint64_t now_ns,
		      uint8_t ret[RELAY_UDP_COOKIE_LEN]);
/* Ours, of that address, and not too old. *ret_made_ms: when it says it was made, even if it is not good. */
bool udp_cookies_is_good(const struct udp_cookies *cookies, const struct endpoint *from,
			 const uint8_t cookie[RELAY_UDP_COOKIE_LEN], uint64_t now_ns, uint32_t *ret_made_ms);

uint32_t udp_cookies_challenge(const struct udp_cookies *cookies, uint32_t slot, uint32_t token, uint64_t now_ns);
bool udp_cookies_is_challenge(const struct udp_cookies *cookies, uint32_t slot, uint32_t token, uint32_t challenge,
			      uint64_t now_ns);
