/*
 * Clients lie in an array by the low bits of their slot and in a table by their node key. The array grows
 * with them; a place that became free is used again with the next generation.
 */
#include "relay/udp_clients.h"

#include "common/source_limit.h"
#include "relay/key_table.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_BITS	   20
#define INDEX_MASK	   ((1u << INDEX_BITS) - 1)
#define DEFAULT_CLIENTS	   131072
#define DEFAULT_KEEP_ALIVE 20
#define DEFAULT_ANSWERS	   200
#define DEFAULT_PROOFS	   2000
#define SECOND_NS	   UINT64_C(1000000000)
#define SECRET_NS	   (120 * SECOND_NS)
#define GONE_PER_S	   10
#define RETRY_FULL_MS	   10000
#define MIN_PLACES	   64
#define SWEEP_PARTS	   8 /* in each tick so much of the array is looked at */

struct client {
	struct public_key node_key;
	struct relay_udp_key proof;
	struct endpoint remote;
	uint32_t slot, token;
	uint64_t bind_time_ns; /* the client's own clock */
	uint64_t bound_ns, heard_ns;
	uint64_t gone_second;
	uint32_t n_gone; /* told in that second */
	uint64_t packets_in, bytes_in, packets_out, bytes_out;
};

struct place {
	struct client *client; /* NULL: free */
	uint32_t generation;   /* of the next client here, or of this one */
	uint32_t next_free;    /* index, 0: the last */
};

struct udp_clients {
	struct udp_clients_config config;
	struct public_key public;
	struct key_table table;
	struct place *places; /* [0] is not used: slot 0 is the relay */
	uint32_t n_places, first_free, sweep_at;
	uint8_t secrets[2][32]; /* of cookies: now, and before */
	uint64_t secret_ns;	/* since when */
	uint8_t token_key[32];
	uint64_t n_tokens;
	struct source_limit strangers;
	uint64_t proof_second;
	uint32_t n_proofs; /* in that second */
	struct udp_clients_counters counters;
};

/* ---- the array ---- */

static uint32_t index_of(uint32_t slot)
{
	return slot & INDEX_MASK;
}

static struct client *find_slot(const struct udp_clients *clients, uint32_t slot)
{
	const uint32_t i = index_of(slot);
	struct client *client = i < clients->n_places ? clients->places[i].client : NULL;

	return client && client->slot == slot ? client : NULL;
}

static void add_places(struct udp_clients *clients)
{
	const uint32_t before = clients->n_places, n = before ? before * 2 : MIN_PLACES;

	clients->places = realloc(clients->places, n * sizeof(*clients->places));
	if (!clients->places)
		abort();
	memset(clients->places + before, 0, (n - before) * sizeof(*clients->places));
	for (uint32_t i = n - 1; i >= before && i > 0; i--) {
		clients->places[i].next_free = clients->first_free;
		clients->first_free = i;
	}
	clients->n_places = n;
}

static uint32_t new_token(struct udp_clients *clients)
{
	uint64_t number = clients->n_tokens++;
	uint8_t hash[crypto_generichash_BYTES_MIN];
	uint32_t token;

	crypto_generichash(hash, sizeof(hash), (const uint8_t *)&number, sizeof(number), clients->token_key,
			   sizeof(clients->token_key));
	memcpy(&token, hash, sizeof(token));
	return token;
}

static struct client *add_client(struct udp_clients *clients, const struct public_key *node_key,
				 const struct relay_udp_key *proof)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client)
		abort();
	if (clients->first_free == 0)
		add_places(clients);
	const uint32_t i = clients->first_free;
	struct place *place = &clients->places[i];
	clients->first_free = place->next_free;
	place->client = client;
	client->node_key = *node_key;
	client->proof = *proof;
	client->slot = place->generation << INDEX_BITS | i;
	key_table_put(&clients->table, node_key, client);
	clients->counters.clients++;
	return client;
}

static void remove_client(struct udp_clients *clients, struct client *client)
{
	const uint32_t i = index_of(client->slot);
	struct place *place = &clients->places[i];

	key_table_remove(&clients->table, &client->node_key, client);
	place->client = NULL;
	place->generation++;
	place->next_free = clients->first_free;
	clients->first_free = i;
	clients->counters.clients--;
	sodium_memzero(client, sizeof(*client));
	free(client);
}

/* ---- cookies ---- */

static void make_cookie(const uint8_t secret[32], const struct endpoint *from, uint8_t ret[RELAY_UDP_COOKIE_LEN])
{
	uint8_t address[sizeof(from->ip) + sizeof(from->port)];

	memcpy(address, from->ip, sizeof(from->ip));
	memcpy(address + sizeof(from->ip), &from->port, sizeof(from->port));
	crypto_generichash(ret, RELAY_UDP_COOKIE_LEN, address, sizeof(address), secret, 32);
}

static bool is_cookie(const struct udp_clients *clients, const struct endpoint *from,
		      const uint8_t cookie[RELAY_UDP_COOKIE_LEN])
{
	uint8_t right[RELAY_UDP_COOKIE_LEN];

	for (int i = 0; i < 2; i++) {
		make_cookie(clients->secrets[i], from, right);
		if (sodium_memcmp(right, cookie, sizeof(right)) == 0)
			return true;
	}
	return false;
}

/* ---- answers ---- */

static enum udp_clients_verdict answer(struct udp_clients_result *ret, const struct relay_udp_datagram *datagram)
{
	ret->answer_len = relay_udp_encode(ret->answer, sizeof(ret->answer), datagram);
	return UDP_CLIENTS_ANSWER;
}

static enum udp_clients_verdict answer_proven(struct udp_clients_result *ret, const struct relay_udp_key *key,
					      const struct relay_udp_datagram *datagram)
{
	answer(ret, datagram);
	relay_udp_prove(key, ret->answer, ret->answer_len);
	return UDP_CLIENTS_ANSWER;
}

static bool may_answer_stranger(struct udp_clients *clients, const struct endpoint *from, uint64_t now_ns)
{
	if (source_limit_take(&clients->strangers, from, now_ns / 1000000))
		return true;
	clients->counters.dropped_limited++;
	return false;
}

/* A cookie for who comes from an unknown address; len: of what is answered, which moved may not exceed. */
static enum udp_clients_verdict answer_moved(struct udp_clients *clients, const struct endpoint *from, size_t len,
					     uint64_t now_ns, struct udp_clients_result *ret)
{
	struct relay_udp_datagram moved = { .type = RELAY_UDP_MOVED };

	if (!may_answer_stranger(clients, from, now_ns))
		return UDP_CLIENTS_DROP;
	make_cookie(clients->secrets[0], from, moved.moved.cookie);
	answer(ret, &moved);
	return ret->answer_len <= len ? UDP_CLIENTS_ANSWER : UDP_CLIENTS_DROP;
}

static enum udp_clients_verdict answer_ask(struct udp_clients *clients, const struct endpoint *from,
					   const struct relay_udp_ask *ask, uint64_t now_ns,
					   struct udp_clients_result *ret)
{
	struct relay_udp_datagram cookie = { .type = RELAY_UDP_COOKIE, .cookie = { .number = ask->number } };

	if (!may_answer_stranger(clients, from, now_ns))
		return UDP_CLIENTS_DROP;
	make_cookie(clients->secrets[0], from, cookie.cookie.cookie);
	clients->counters.cookies++;
	return answer(ret, &cookie);
}

static struct relay_udp_datagram refusal(enum relay_udp_reason reason, uint32_t retry_after_ms, uint64_t time_ns)
{
	return (struct relay_udp_datagram){
		.type = RELAY_UDP_REFUSED,
		.refused = { .reason = reason, .retry_after_ms = retry_after_ms, .time_ns = time_ns },
	};
}

/* ---- binding ---- */

static bool is_member(const struct udp_clients *clients, const struct public_key *node_key)
{
	return !clients->config.is_member || clients->config.is_member(clients->config.owner, node_key);
}

static bool may_compute_proof(struct udp_clients *clients, uint64_t now_ns)
{
	const uint64_t second = now_ns / SECOND_NS;

	if (second != clients->proof_second)
		clients->n_proofs = 0;
	clients->proof_second = second;
	if (clients->n_proofs >= clients->config.max_proofs)
		return false;
	clients->n_proofs++;
	return true;
}

/*
 * False, and counted: no key that the mac could be of. Members' node keys are no secret, and a cookie is good
 * for many binds: who computes with them is limited by source, too.
 */
static bool find_proof(struct udp_clients *clients, const struct client *client, const struct endpoint *from,
		       const struct public_key *node_key, uint64_t now_ns, struct relay_udp_key *ret)
{
	if (!is_member(clients, node_key)) {
		clients->counters.refused_not_member++;
		return false;
	}
	if (client) {
		*ret = client->proof;
		return true;
	}
	if (!may_answer_stranger(clients, from, now_ns) || !may_compute_proof(clients, now_ns)) {
		clients->counters.refused_busy++;
		return false;
	}
	if (relay_udp_key(&clients->config.node_key, &clients->public, node_key, true, ret) == 0)
		return true;
	clients->counters.refused_proof++;
	return false;
}

static enum udp_clients_verdict answer_bound(const struct udp_clients *clients, const struct client *client,
					     struct udp_clients_result *ret)
{
	const struct relay_udp_datagram bound = {
		.type = RELAY_UDP_BOUND,
		.bound = { .slot = client->slot,
			   .token = client->token,
			   .keep_alive_s = clients->config.keep_alive_s,
			   .time_ns = client->bind_time_ns },
	};

	return answer_proven(ret, &client->proof, &bound);
}

/* It is who it says, and there: the bind is new, or its answer was lost. */
static enum udp_clients_verdict bind_client(struct udp_clients *clients, struct client *client,
					    const struct endpoint *from, const struct relay_udp_bind *bind,
					    uint64_t now_ns, struct udp_clients_result *ret)
{
	const bool is_again = bind->time_ns == client->bind_time_ns && endpoint_equal(from, &client->remote);

	if (!is_again) {
		client->token = new_token(clients);
		client->bind_time_ns = bind->time_ns;
		client->remote = *from;
		client->bound_ns = now_ns;
	}
	client->heard_ns = now_ns;
	return answer_bound(clients, client, ret);
}

static enum udp_clients_verdict bind_new(struct udp_clients *clients, const struct endpoint *from,
					 const struct relay_udp_bind *bind, const struct relay_udp_key *proof,
					 uint64_t now_ns, struct udp_clients_result *ret)
{
	if (clients->counters.clients >= clients->config.max_clients) {
		const struct relay_udp_datagram full = refusal(RELAY_UDP_FULL, RETRY_FULL_MS, bind->time_ns);
		clients->counters.refused_full++;
		return answer_proven(ret, proof, &full);
	}
	clients->counters.bound++;
	return bind_client(clients, add_client(clients, &bind->node_key, proof), from, bind, now_ns, ret);
}

static enum udp_clients_verdict bind_again(struct udp_clients *clients, struct client *client,
					   const struct endpoint *from, const struct relay_udp_bind *bind,
					   uint64_t now_ns, struct udp_clients_result *ret)
{
	const bool is_same = bind->time_ns == client->bind_time_ns && endpoint_equal(from, &client->remote);

	if (bind->time_ns <= client->bind_time_ns && !is_same) {
		const struct relay_udp_datagram old = refusal(RELAY_UDP_OLD, 0, bind->time_ns);
		clients->counters.refused_old++;
		return answer_proven(ret, &client->proof, &old);
	}
	if (!is_same)
		clients->counters.moved++;
	return bind_client(clients, client, from, bind, now_ns, ret);
}

static enum udp_clients_verdict take_bind(struct udp_clients *clients, const struct endpoint *from,
					  const struct relay_udp_bind *bind, const void *bytes, size_t len,
					  uint64_t now_ns, struct udp_clients_result *ret)
{
	struct relay_udp_key proof;

	if (!is_cookie(clients, from, bind->cookie)) {
		clients->counters.refused_cookie++;
		return answer_moved(clients, from, len, now_ns, ret);
	}
	if (bind->version != RELAY_UDP_VERSION) {
		clients->counters.malformed++;
		return UDP_CLIENTS_DROP;
	}
	struct client *client = key_table_find(&clients->table, &bind->node_key);
	if (!find_proof(clients, client, from, &bind->node_key, now_ns, &proof))
		return UDP_CLIENTS_DROP;
	enum udp_clients_verdict verdict = UDP_CLIENTS_DROP;
	if (!relay_udp_is_proven(&proof, bytes, len))
		clients->counters.refused_proof++;
	else if (client)
		verdict = bind_again(clients, client, from, bind, now_ns, ret);
	else
		verdict = bind_new(clients, from, bind, &proof, now_ns, ret);
	sodium_memzero(&proof, sizeof(proof));
	return verdict;
}

/* ---- bound ---- */

static enum udp_clients_verdict answer_find(const struct udp_clients *clients, const struct client *client,
					    const struct public_key *node_key, struct udp_clients_result *ret)
{
	const struct client *peer = key_table_find(&clients->table, node_key);
	const struct relay_udp_datagram found = {
		.type = RELAY_UDP_FOUND,
		.header = { RELAY_UDP_FOUND, client->slot, peer ? peer->slot : 0, client->token },
		.node_key = *node_key,
	};

	return answer(ret, &found);
}

static enum udp_clients_verdict answer_ping(const struct client *client, const uint8_t ping[8],
					    struct udp_clients_result *ret)
{
	struct relay_udp_datagram pong = {
		.type = RELAY_UDP_PONG,
		.header = { RELAY_UDP_PONG, client->slot, 0, client->token },
	};

	memcpy(pong.ping, ping, sizeof(pong.ping));
	return answer(ret, &pong);
}

static enum udp_clients_verdict answer_gone(struct udp_clients *clients, struct client *client, uint32_t slot,
					    uint64_t now_ns, struct udp_clients_result *ret)
{
	const struct relay_udp_datagram gone = {
		.type = RELAY_UDP_GONE,
		.header = { RELAY_UDP_GONE, client->slot, slot, client->token },
	};
	const uint64_t second = now_ns / SECOND_NS;

	clients->counters.dropped_unknown++;
	if (second != client->gone_second)
		client->n_gone = 0;
	client->gone_second = second;
	if (client->n_gone == GONE_PER_S)
		return UDP_CLIENTS_DROP;
	client->n_gone++;
	return answer(ret, &gone);
}

static enum udp_clients_verdict forward(struct udp_clients *clients, struct client *client,
					const struct relay_udp_header *header, void *bytes, size_t len,
					uint64_t now_ns, struct udp_clients_result *ret)
{
	const size_t n = len - RELAY_UDP_HEADER_LEN;
	struct client *to = find_slot(clients, header->to);

	client->packets_in++;
	client->bytes_in += n;
	if (!to)
		return answer_gone(clients, client, header->to, now_ns, ret);
	to->packets_out++;
	to->bytes_out += n;
	clients->counters.packets++;
	clients->counters.bytes += n;
	const struct relay_udp_header rewritten = { RELAY_UDP_DATA, to->slot, client->slot, to->token };
	relay_udp_header_encode(bytes, &rewritten);
	ret->to = to->remote;
	return UDP_CLIENTS_FORWARD;
}

static enum udp_clients_verdict take_of_client(struct udp_clients *clients, const struct endpoint *from,
					       const struct relay_udp_datagram *datagram, void *bytes, size_t len,
					       uint64_t now_ns, struct udp_clients_result *ret)
{
	struct client *client = find_slot(clients, datagram->header.from);

	if (!client || client->token != datagram->header.token || !endpoint_equal(&client->remote, from)) {
		clients->counters.dropped_stranger++;
		return answer_moved(clients, from, len, now_ns, ret);
	}
	client->heard_ns = now_ns;
	switch (datagram->type) {
	case RELAY_UDP_FIND:
		return answer_find(clients, client, &datagram->node_key, ret);
	case RELAY_UDP_PING:
		return answer_ping(client, datagram->ping, ret);
	default:
		return forward(clients, client, &datagram->header, bytes, len, now_ns, ret);
	}
}

enum udp_clients_verdict udp_clients_take(struct udp_clients *clients, const struct endpoint *from, void *bytes,
					  size_t len, uint64_t now_ns, struct udp_clients_result *ret)
{
	struct relay_udp_datagram datagram;

	if (relay_udp_decode(bytes, len, &datagram) != 0)
		datagram.type = 0;
	switch (datagram.type) {
	case RELAY_UDP_ASK:
		return answer_ask(clients, from, &datagram.ask, now_ns, ret);
	case RELAY_UDP_BIND:
		return take_bind(clients, from, &datagram.bind, bytes, len, now_ns, ret);
	case RELAY_UDP_FIND:
	case RELAY_UDP_PING:
	case RELAY_UDP_DATA:
		return take_of_client(clients, from, &datagram, bytes, len, now_ns, ret);
	default: /* garbage, or what only a relay says: two relays must not talk to each other for ever */
		clients->counters.malformed++;
		return UDP_CLIENTS_DROP;
	}
}

/* ---- time, membership, end ---- */

static void renew_secret(struct udp_clients *clients, uint64_t now_ns)
{
	memcpy(clients->secrets[1], clients->secrets[0], sizeof(clients->secrets[0]));
	randombytes_buf(clients->secrets[0], sizeof(clients->secrets[0]));
	clients->secret_ns = now_ns;
}

static bool is_silent(const struct udp_clients *clients, const struct client *client, uint64_t now_ns)
{
	return now_ns - client->heard_ns > (2 * (uint64_t)clients->config.keep_alive_s + 5) * SECOND_NS;
}

void udp_clients_tick(struct udp_clients *clients, uint64_t now_ns)
{
	const uint32_t n = clients->n_places / SWEEP_PARTS;

	if (now_ns - clients->secret_ns >= SECRET_NS)
		renew_secret(clients, now_ns);
	for (uint32_t i = 0; i < n; i++) {
		struct client *client = clients->places[clients->sweep_at].client;
		clients->sweep_at = (clients->sweep_at + 1) % clients->n_places;
		if (client && is_silent(clients, client, now_ns)) {
			clients->counters.closed_silent++;
			remove_client(clients, client);
		}
	}
}

static void say_refused(const struct udp_clients *clients, const struct client *client,
			enum relay_udp_reason reason, uint32_t retry_after_ms, udp_clients_send *send)
{
	const struct relay_udp_datagram refused = refusal(reason, retry_after_ms, client->bind_time_ns);
	struct udp_clients_result result;

	answer_proven(&result, &client->proof, &refused);
	send(clients->config.owner, &client->remote, result.answer, result.answer_len);
}

void udp_clients_recheck_members(struct udp_clients *clients, udp_clients_send *send)
{
	for (uint32_t i = 0; i < clients->n_places; i++) {
		struct client *client = clients->places[i].client;
		if (!client || is_member(clients, &client->node_key))
			continue;
		say_refused(clients, client, RELAY_UDP_NOT_ADMITTED, 0, send);
		clients->counters.closed_removed++;
		remove_client(clients, client);
	}
}

void udp_clients_say_restart(struct udp_clients *clients, uint32_t retry_after_ms, udp_clients_send *send)
{
	for (uint32_t i = 0; i < clients->n_places; i++)
		if (clients->places[i].client)
			say_refused(clients, clients->places[i].client, RELAY_UDP_RESTART, retry_after_ms, send);
}

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
	return value ? value : otherwise;
}

int udp_clients_new(const struct udp_clients_config *config, uint64_t now_ns, struct udp_clients **ret)
{
	struct udp_clients *clients = calloc(1, sizeof(*clients));

	if (!clients)
		return -ENOMEM;
	clients->config = *config;
	clients->config.keep_alive_s = (uint8_t)or_default(config->keep_alive_s, DEFAULT_KEEP_ALIVE);
	clients->config.max_proofs = or_default(config->max_proofs, DEFAULT_PROOFS);
	clients->config.max_clients = or_default(config->max_clients, DEFAULT_CLIENTS);
	if (clients->config.max_clients > UDP_CLIENTS_MAX - 1)
		clients->config.max_clients = UDP_CLIENTS_MAX - 1;
	secret_key_public(&config->node_key, &clients->public);
	key_table_init(&clients->table);
	const uint32_t rate = or_default(config->max_answers_source, DEFAULT_ANSWERS);
	source_limit_init(&clients->strangers, rate, rate * 2);
	randombytes_buf(clients->secrets, sizeof(clients->secrets));
	randombytes_buf(clients->token_key, sizeof(clients->token_key));
	clients->secret_ns = now_ns;
	*ret = clients;
	return 0;
}

struct udp_clients *udp_clients_free(struct udp_clients *clients)
{
	if (!clients)
		return NULL;
	for (uint32_t i = 0; i < clients->n_places; i++)
		if (clients->places[i].client)
			remove_client(clients, clients->places[i].client);
	free(clients->places);
	key_table_deinit(&clients->table);
	sodium_memzero(clients, sizeof(*clients));
	free(clients);
	return NULL;
}

struct udp_clients_counters udp_clients_counters(const struct udp_clients *clients)
{
	return clients->counters;
}

void udp_clients_each(const struct udp_clients *clients,
		      void (*each)(void *owner, const struct udp_clients_client *client), void *owner)
{
	for (uint32_t i = 0; i < clients->n_places; i++) {
		const struct client *client = clients->places[i].client;
		if (!client)
			continue;
		const struct udp_clients_client told = {
			.node_key = client->node_key,
			.remote = client->remote,
			.slot = client->slot,
			.bound_ns = client->bound_ns,
			.heard_ns = client->heard_ns,
			.packets_in = client->packets_in,
			.bytes_in = client->bytes_in,
			.packets_out = client->packets_out,
			.bytes_out = client->bytes_out,
		};
		each(owner, &told);
	}
}
