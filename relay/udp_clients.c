/*
 * A datagram, and where it goes. Most are of the packet path: udp_clients_route() has them at once. What else there is
 * udp_clients_take() tells apart.
 */
#include "relay/udp_clients_internal.h"
#include "relay/udp_limits.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_CLIENTS	   131072
#define DEFAULT_KEEP_ALIVE 20
#define DEFAULT_ANSWERS	   100000
#define DEFAULT_BINDS	   200
#define DEFAULT_PROOFS	   2000
#define DEFAULT_CONTACTS   1024
#define PAIRS_A_CLIENT	   8 /* places in the table of who sent to whom … */
#define MAX_PAIRS	   (1u << 20) /* … which has so many at most */
#define FINDS_PER_S	   1024 /* of nodes that are not here, by one client */
#define GONE_PER_S	   10
#define QUIET_NS	   SECOND_NS /* who sends nothing here for so long, and pings elsewhere, is reached there */

enum udp_clients_verdict udp_clients_answer(struct udp_clients_result *ret, const struct relay_udp_datagram *datagram)
{
	ret->answer_len = relay_udp_encode(ret->answer, sizeof(ret->answer), datagram);
	return UDP_CLIENTS_ANSWER;
}

/* ---- bound ---- */

/* So many a second: *second is the one in which *n were spent. */
static bool spend_of_second(uint32_t *second, uint32_t *n, uint32_t max, uint64_t now_ns)
{
	const uint32_t now = (uint32_t)(now_ns / SECOND_NS);

	if (now != *second)
		*n = 0;
	*second = now;
	if (*n == max)
		return false;
	++*n;
	return true;
}

static bool spend_gone(struct client *client, uint64_t now_ns)
{
	return spend_of_second(&client->gone_second, &client->n_gone, GONE_PER_S, now_ns);
}

/* By key or, when that is all zero, by slot: a client that hears from a slot it does not know asks whose it is. */
static enum udp_clients_verdict answer_find(struct udp_clients *clients, struct client *client,
					    const struct relay_udp_datagram *find, uint64_t now_ns,
					    struct udp_clients_result *ret)
{
	const bool is_by_slot = public_key_is_zero(&find->node_key);
	const struct known *known = is_by_slot ? NULL : key_table_find(&clients->known, &find->node_key);
	const struct client *peer = is_by_slot ? udp_clients_find_slot(clients, find->header.to) :
				    known      ? known->client :
						 NULL;
	const struct relay_udp_datagram found = {
		.type = RELAY_UDP_FOUND,
		.header = { RELAY_UDP_FOUND, client->slot, peer ? peer->slot : 0, client->token },
		.node_key = peer ? peer->known->node_key : find->node_key,
	};

	if (!peer && !spend_of_second(&client->find_second, &client->n_finds, FINDS_PER_S, now_ns)) {
		clients->counters.dropped_contacts++;
		return UDP_CLIENTS_DROP;
	}
	return udp_clients_answer(ret, &found);
}

/* A ping proves that the last pong arrived: data alone could come from whoever had the address before. */
static enum udp_clients_verdict answer_ping(struct udp_clients *clients, struct client *client,
					    const struct relay_udp_ping *ping, uint64_t now_ns,
					    struct udp_clients_result *ret)
{
	const struct relay_udp_datagram pong = {
		.type = RELAY_UDP_PONG,
		.header = { RELAY_UDP_PONG, client->slot, 0, client->token },
		.ping = { .number = ping->number,
			  .challenge = udp_cookies_challenge(&clients->cookies, client->slot, client->token, now_ns) },
	};

	if (!client->is_leaving &&
	    udp_cookies_is_challenge(&clients->cookies, client->slot, client->token, ping->challenge, now_ns))
		client->proven_ns = now_ns;
	if (client->is_handed_over) /* so that it knows that the relay has come back: shorter than a ping */
		return udp_clients_say_moved(clients, &client->way, client->token, now_ns, ret);
	return udp_clients_answer(ret, &pong);
}

static enum udp_clients_verdict answer_gone(struct udp_clients *clients, struct client *client, uint32_t slot,
					    uint64_t now_ns, struct udp_clients_result *ret)
{
	const struct relay_udp_datagram gone = {
		.type = RELAY_UDP_GONE,
		.header = { RELAY_UDP_GONE, client->slot, slot, client->token },
	};

	clients->counters.dropped_unknown++;
	return spend_gone(client, now_ns) ? udp_clients_answer(ret, &gone) : UDP_CLIENTS_DROP;
}

static void count_forwarded(struct udp_clients *clients, struct client *client, struct client *to, uint32_t n,
			    size_t bytes)
{
	client->packets_in += n;
	client->bytes_in += bytes;
	to->packets_out += n;
	to->bytes_out += bytes;
	clients->counters.packets += n;
	clients->counters.bytes += bytes;
}

/* ---- forwarding ---- */

static struct udp_clients_route route_to(const struct client *client, struct client *to)
{
	return (struct udp_clients_route){ .way = udp_clients_is_reached_here(to) ? &to->way : NULL,
					   .from = &client->known->node_key,
					   .to = &to->known->node_key };
}

static struct relay_udp_header rewritten_header(const struct client *client, const struct client *to)
{
	return (struct relay_udp_header){ RELAY_UDP_DATA, to->slot, client->slot, to->token };
}

/* How many datagrams from the first on begin with the same bytes, and have a packet. *ret_bytes: of these. */
static uint32_t length_of_run(const uint8_t *bytes, size_t len, size_t size, size_t *ret_bytes)
{
	uint32_t n = 1;
	size_t at = size;

	while (at < len && len - at > RELAY_UDP_HEADER_LEN && memcmp(bytes + at, bytes, RELAY_UDP_HEADER_LEN) == 0) {
		at += size;
		n++;
	}
	*ret_bytes = at < len ? at : len;
	return n;
}

/* A bound client's datagram: slot, token and address belong together. */
static bool is_of(const struct client *client, const struct relay_udp_header *header, const struct udp_way *from)
{
	return client && client->is_bound && client->token == header->token &&
	       endpoint_equal(&client->way.remote, &from->remote);
}

static uint32_t drop_run(struct udp_clients_route *ret, uint64_t *counter, uint32_t n)
{
	*counter += n;
	ret->is_dropped = true;
	return n;
}

static void rewrite_run(uint8_t *bytes, size_t size, uint32_t n, const struct relay_udp_header *header)
{
	uint8_t rewritten[RELAY_UDP_HEADER_LEN];

	relay_udp_header_encode(rewritten, header);
	for (uint32_t i = 0; i < n; i++)
		memcpy(bytes + i * size, rewritten, sizeof(rewritten));
}

uint32_t udp_clients_route(struct udp_clients *clients, const struct udp_way *from, uint8_t *bytes, size_t len,
			   size_t size, uint64_t now_ns, struct udp_clients_route *ret)
{
	struct relay_udp_header header;
	size_t n_bytes;

	if (!relay_udp_header_decode(bytes, size < len ? size : len, &header))
		return 0;
	struct client *client = udp_clients_find_slot(clients, header.from);
	struct client *to = udp_clients_find_slot(clients, header.to);
	if (!to || !is_of(client, &header, from))
		return 0;
	uint32_t n = length_of_run(bytes, len, size, &n_bytes);
	udp_clients_hear(clients, client, now_ns);
	*ret = route_to(client, to);
	if (!udp_limits_is_fair(clients, client, n))
		return drop_run(ret, &clients->counters.dropped_unfair, n);
	if (!udp_limits_may_contact(clients, client, to, now_ns))
		return drop_run(ret, &clients->counters.dropped_contacts, n);
	const uint32_t passes = udp_limits_may_pass(clients, client, n, size, n_bytes, now_ns);
	if (passes == 0)
		return drop_run(ret, &clients->counters.dropped_rate, n);
	if (passes < n) { /* the rest comes again, as a run of its own */
		udp_limits_uncount(clients, client, n - passes);
		n = passes;
		n_bytes = n * size;
	}
	count_forwarded(clients, client, to, n, n_bytes - n * (size_t)RELAY_UDP_HEADER_LEN);
	header = rewritten_header(client, to);
	if (ret->way)
		rewrite_run(bytes, size, n, &header);
	return n;
}

static enum udp_clients_verdict take_of_client(struct udp_clients *clients, const struct udp_way *from,
					       const struct relay_udp_datagram *datagram, size_t len,
					       uint64_t now_ns, struct udp_clients_result *ret)
{
	struct client *client = udp_clients_find_slot(clients, datagram->header.from);

	if (!is_of(client, &datagram->header, from)) {
		clients->counters.dropped_stranger++;
		return udp_clients_answer_moved(clients, from, datagram->header.token, len, now_ns, ret);
	}
	switch (datagram->type) {
	case RELAY_UDP_FIND:
		return answer_find(clients, client, datagram, now_ns, ret);
	case RELAY_UDP_PING:
		return answer_ping(clients, client, &datagram->ping, now_ns, ret);
	default: /* a receiver that is here was routed to */
		udp_clients_hear(clients, client, now_ns);
		client->packets_in++;
		client->bytes_in += len - RELAY_UDP_HEADER_LEN;
		return answer_gone(clients, client, datagram->header.to, now_ns, ret);
	}
}

enum udp_clients_verdict udp_clients_take(struct udp_clients *clients, const struct udp_way *from, void *bytes,
					  size_t len, uint64_t now_ns, struct udp_clients_result *ret)
{
	struct relay_udp_datagram datagram;

	ret->answer_len = ret->notice_len = 0;
	if (udp_clients_route(clients, from, bytes, len, len, now_ns, &ret->route) > 0)
		return ret->route.is_dropped ? UDP_CLIENTS_DROP : UDP_CLIENTS_FORWARD;
	if (relay_udp_decode(bytes, len, &datagram) != 0)
		datagram.type = 0;
	switch (datagram.type) {
	case RELAY_UDP_ASK:
		return udp_clients_answer_ask(clients, from, &datagram.ask, now_ns, ret);
	case RELAY_UDP_BIND:
		return udp_clients_take_bind(clients, from, &datagram.bind, bytes, len, now_ns, ret);
	case RELAY_UDP_FIND:
	case RELAY_UDP_PING:
	case RELAY_UDP_DATA:
		return take_of_client(clients, from, &datagram, len, now_ns, ret);
	default: /* garbage, or what only a relay says: two relays must not talk to each other for ever */
		clients->counters.malformed++;
		return UDP_CLIENTS_DROP;
	}
}

/* ---- elsewhere ---- */

static void hear_elsewhere(const struct udp_clients *clients, struct client *client, uint64_t now_ns)
{
	client->heard_elsewhere_ns = now_ns;
	udp_clients_tell_reached(clients, client, false);
}

void udp_clients_add_elsewhere(struct udp_clients *clients, const struct public_key *node_key, uint64_t now_ns)
{
	struct known *known = udp_clients_get_known(clients, node_key);
	struct client *client = known->client ? known->client : udp_clients_add_client(clients, known);

	client->is_elsewhere = true;
	hear_elsewhere(clients, client, now_ns);
}

void udp_clients_ping_elsewhere(struct udp_clients *clients, const struct public_key *node_key, uint64_t now_ns)
{
	const struct known *known = key_table_find(&clients->known, node_key);
	struct client *client = known ? known->client : NULL;

	if (client && client->is_elsewhere && now_ns - client->heard_ns >= QUIET_NS)
		hear_elsewhere(clients, client, now_ns);
}

void udp_clients_remove_elsewhere(struct udp_clients *clients, const struct public_key *node_key)
{
	const struct known *known = key_table_find(&clients->known, node_key);

	if (!known || !known->client || !known->client->is_elsewhere)
		return;
	known->client->is_elsewhere = false;
	if (!known->client->is_bound)
		udp_clients_remove_client(clients, known->client);
}

bool udp_clients_may_tell_gone(struct udp_clients *clients, const struct public_key *node_key, uint64_t now_ns)
{
	const struct known *known = key_table_find(&clients->known, node_key);

	return known && known->client && spend_gone(known->client, now_ns);
}

enum udp_clients_place udp_clients_route_from_elsewhere(struct udp_clients *clients, const struct public_key *from,
							const struct public_key *to, size_t len, uint64_t now_ns,
							struct udp_way **ret_way, struct relay_udp_header *ret)
{
	const struct known *sender = key_table_find(&clients->known, from);
	const struct known *receiver = key_table_find(&clients->known, to);
	struct client *client = sender ? sender->client : NULL, *peer = receiver ? receiver->client : NULL;

	if (!client || !client->is_elsewhere)
		return UDP_CLIENTS_NOWHERE;
	client->heard_elsewhere_ns = now_ns; /* as who carried it knows */
	if (!peer)
		return UDP_CLIENTS_NOWHERE;
	if (!udp_clients_is_reached_here(peer))
		return UDP_CLIENTS_ELSEWHERE;
	peer->packets_out++;
	peer->bytes_out += len;
	*ret = rewritten_header(client, peer);
	*ret_way = &peer->way;
	return UDP_CLIENTS_HERE;
}

/* ---- beginning and end ---- */

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
	return value ? value : otherwise;
}

static void set_config(struct udp_clients *clients, const struct udp_clients_config *given)
{
	struct udp_clients_config *config = &clients->config;

	*config = *given;
	config->keep_alive_s = (uint8_t)or_default(given->keep_alive_s, DEFAULT_KEEP_ALIVE);
	config->max_clients = or_default(given->max_clients, DEFAULT_CLIENTS);
	if (config->max_clients > UDP_CLIENTS_MAX - 1)
		config->max_clients = UDP_CLIENTS_MAX - 1;
	config->max_answers = or_default(given->max_answers, DEFAULT_ANSWERS);
	config->max_binds_source = or_default(given->max_binds_source, DEFAULT_BINDS);
	config->max_proofs = or_default(given->max_proofs, DEFAULT_PROOFS);
	config->max_contacts = or_default(given->max_contacts, DEFAULT_CONTACTS);
}

static int make_pairs(struct udp_clients *clients)
{
	clients->n_pairs = 1;
	while (clients->n_pairs < MAX_PAIRS &&
	       clients->n_pairs < (uint64_t)clients->config.max_clients * PAIRS_A_CLIENT)
		clients->n_pairs *= 2;
	clients->pairs = calloc(clients->n_pairs, sizeof(*clients->pairs));
	return clients->pairs ? 0 : -ENOMEM;
}

int udp_clients_new(const struct udp_clients_config *config, struct udp_clients **ret)
{
	struct udp_clients *clients = calloc(1, sizeof(*clients));

	if (!clients)
		return -ENOMEM;
	set_config(clients, config);
	secret_key_public(&config->node_key, &clients->public);
	key_table_init(&clients->known);
	source_limit_init(&clients->binds, clients->config.max_binds_source, clients->config.max_binds_source * 2);
	rate_limit_init(&clients->rate, config->max_rate, 0);
	clients->round.number = 1; /* what a client never was in */
	clients->round.fair = UINT32_MAX;
	udp_cookies_init(&clients->cookies);
	clients->epoch = udp_cookies_random(&clients->cookies);
	if (make_pairs(clients) < 0) {
		udp_clients_free(clients);
		return -ENOMEM;
	}
	*ret = clients;
	return 0;
}

struct udp_clients *udp_clients_free(struct udp_clients *clients)
{
	if (!clients)
		return NULL;
	for (uint32_t i = 0; i < clients->n_places; i++)
		if (clients->places[i].client)
			udp_clients_remove_client(clients, clients->places[i].client);
	while (clients->first_known)
		udp_clients_forget_known(clients, &clients->first_known);
	free(clients->places);
	free(clients->pairs);
	key_table_deinit(&clients->known);
	sodium_memzero(clients, sizeof(*clients));
	free(clients);
	return NULL;
}

struct udp_clients_counters udp_clients_counters(const struct udp_clients *clients)
{
	return clients->counters;
}
