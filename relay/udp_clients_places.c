/*
 * Clients lie in an array by the low bits of their slot. The array grows with them; a place that became free is
 * used again with the next generation. Whose key was seen to be a member's is known, by that key, and has its client.
 *
 *   table ──► known ◄──► client ◄── places
 */
#include "relay/udp_clients_internal.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MIN_PLACES 64

/* Behind all that are free: a slot comes back as late as can be, for peers may still know whose it was. */
void udp_clients_free_place(struct udp_clients *clients, uint32_t i)
{
	clients->places[i].next_free = 0;
	if (clients->first_free == 0)
		clients->first_free = i;
	else
		clients->places[clients->last_free].next_free = i;
	clients->last_free = i;
}

void udp_clients_add_places(struct udp_clients *clients)
{
	const uint32_t before = clients->n_places, n = before ? before * 2 : MIN_PLACES;

	clients->places = realloc(clients->places, n * sizeof(*clients->places));
	if (!clients->places)
		abort();
	memset(clients->places + before, 0, (n - before) * sizeof(*clients->places));
	for (uint32_t i = before > 0 ? before : 1; i < n; i++) {
		clients->places[i].generation = udp_cookies_random(&clients->cookies);
		udp_clients_free_place(clients, i);
	}
	clients->n_places = n;
}

struct client *udp_clients_add_client(struct udp_clients *clients, struct known *known)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client)
		abort();
	if (clients->first_free == 0)
		udp_clients_add_places(clients);
	const uint32_t i = clients->first_free;
	struct place *place = &clients->places[i];
	clients->first_free = place->next_free;
	place->client = client;
	client->known = known;
	known->client = client;
	client->slot = place->generation << INDEX_BITS | i;
	return client;
}

void udp_clients_remove_client(struct udp_clients *clients, struct client *client)
{
	const uint32_t i = udp_clients_index_of(client->slot);
	struct place *place = &clients->places[i];

	client->known->client = NULL;
	place->client = NULL;
	place->generation++;
	udp_clients_free_place(clients, i);
	free(client);
}

void udp_clients_tell_reached(const struct udp_clients *clients, struct client *client, bool is_here)
{
	if (client->is_told_here == is_here)
		return;
	client->is_told_here = is_here;
	if (clients->config.tell_reached)
		clients->config.tell_reached(clients->config.owner, &client->known->node_key, is_here);
}

void udp_clients_hear(const struct udp_clients *clients, struct client *client, uint64_t now_ns)
{
	client->heard_ns = now_ns;
	if (client->is_elsewhere && udp_clients_is_reached_here(client))
		udp_clients_tell_reached(clients, client, true);
}

void udp_clients_unbind(struct udp_clients *clients, struct client *client)
{
	udp_clients_tell_reached(clients, client, false);
	client->is_bound = false;
	client->heard_ns = 0; /* bound again, it is reached elsewhere until it sends something here */
	clients->counters.clients--;
	if (!client->is_elsewhere)
		udp_clients_remove_client(clients, client);
}

struct known *udp_clients_get_known(struct udp_clients *clients, const struct public_key *node_key)
{
	struct known *known = key_table_find(&clients->known, node_key);

	if (known)
		return known;
	known = calloc(1, sizeof(*known));
	if (!known)
		abort();
	known->node_key = *node_key;
	known->next = clients->first_known;
	clients->first_known = known;
	key_table_put(&clients->known, node_key, known);
	return known;
}

void udp_clients_forget_known(struct udp_clients *clients, struct known **at)
{
	struct known *known = *at;

	*at = known->next;
	key_table_remove(&clients->known, &known->node_key, known);
	sodium_memzero(known, sizeof(*known));
	free(known);
}
