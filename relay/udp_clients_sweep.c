/*
 * What goes over all clients: who was silent, who carries most, who is no longer a member, whom to send elsewhere.
 *
 *   tick ──► a part of the array ─┬─ silent: forgotten
 *                                 └─ else: ranked among the busiest, which are told when all were looked at
 */
#include "relay/udp_clients_internal.h"

#include <sodium.h>

#define LEAVE_NS    (5 * SECOND_NS) /* for packets that are on their way to one that was sent away */
#define SWEEP_PARTS 8 /* in each tick so much of the array is looked at … */
#define SWEEP_MIN   4096 /* … or so many places */

static uint64_t silence_ns(const struct udp_clients *clients)
{
	return (2 * (uint64_t)clients->config.keep_alive_s + 5) * SECOND_NS;
}

static bool is_silent(const struct udp_clients *clients, const struct client *client, uint64_t now_ns)
{
	return now_ns > client->proven_ns + silence_ns(clients);
}

static struct udp_clients_client tell_client(const struct client *client)
{
	return (struct udp_clients_client){
		.node_key = client->known->node_key,
		.way = client->way,
		.slot = client->slot,
		.bound_ns = client->known->bound_ns,
		.proven_ns = client->proven_ns,
		.packets_in = client->packets_in,
		.bytes_in = client->bytes_in,
		.packets_out = client->packets_out,
		.bytes_out = client->bytes_out,
	};
}

/* Most of many are less busy than the last of the list: they cost one comparison. */
static void rank(struct busiest *busiest, const struct client *client)
{
	uint32_t at = busiest->list.n;

	if (at == UDP_CLIENTS_BUSIEST && busiest->recent[--at] >= client->recent)
		return;
	for (; at > 0 && busiest->recent[at - 1] < client->recent; at--) {
		busiest->recent[at] = busiest->recent[at - 1];
		busiest->list.clients[at] = busiest->list.clients[at - 1];
	}
	busiest->recent[at] = client->recent;
	busiest->list.clients[at] = tell_client(client);
	if (busiest->list.n < UDP_CLIENTS_BUSIEST)
		busiest->list.n++;
}

static void sweep(struct udp_clients *clients, struct client *client, uint64_t now_ns)
{
	const uint64_t bytes = client->bytes_in + client->bytes_out;

	if (!client->is_bound)
		return;
	if (is_silent(clients, client, now_ns)) {
		*(client->is_leaving ? &clients->counters.closed_drained : &clients->counters.closed_silent) += 1;
		udp_clients_unbind(clients, client);
		return;
	}
	client->recent = client->recent / 2 + bytes - client->swept_bytes;
	client->swept_bytes = bytes;
	rank(&clients->next_busiest, client);
}

static void end_round(struct udp_clients *clients)
{
	const uint64_t round = clients->busiest.list.round + 1;

	clients->busiest = clients->next_busiest;
	clients->busiest.list.round = round;
	clients->next_busiest.list.n = 0;
	clients->sweep_at = 0;
}

void udp_clients_tick(struct udp_clients *clients, uint64_t now_ns)
{
	const uint32_t part = clients->n_places / SWEEP_PARTS, n = part > SWEEP_MIN ? part : SWEEP_MIN;

	for (uint32_t i = 0; i < n && clients->sweep_at < clients->n_places; i++) {
		struct client *client = clients->places[clients->sweep_at++].client;
		if (client)
			sweep(clients, client, now_ns);
	}
	if (clients->sweep_at >= clients->n_places)
		end_round(clients);
}

static void say_refused(const struct udp_clients *clients, const struct client *client,
			enum relay_udp_reason reason, uint32_t retry_after_ms, udp_clients_send *send)
{
	const struct relay_udp_datagram refused = udp_clients_refusal(reason, retry_after_ms, client->bind_number);
	struct udp_clients_result result;
	struct relay_udp_key proof = client->known->proof;

	if (!client->known->has_proof && /* handed over */
	    relay_udp_key(&clients->config.node_key, &clients->public, &client->known->node_key, true, &proof) != 0)
		return;
	udp_clients_answer_proven(&result, &proof, &refused);
	sodium_memzero(&proof, sizeof(proof));
	send(clients->config.owner, &client->way, result.answer, result.answer_len);
}

void udp_clients_recheck_members(struct udp_clients *clients, udp_clients_send *send)
{
	for (uint32_t i = 0; i < clients->n_places; i++) {
		struct client *client = clients->places[i].client;
		if (!client || !client->is_bound || udp_clients_is_member(clients, &client->known->node_key))
			continue;
		say_refused(clients, client, RELAY_UDP_NOT_ADMITTED, 0, send);
		clients->counters.closed_removed++;
		udp_clients_unbind(clients, client);
	}
	for (struct known **at = &clients->first_known; *at;) {
		if ((*at)->client || udp_clients_is_member(clients, &(*at)->node_key))
			at = &(*at)->next;
		else
			udp_clients_forget_known(clients, at);
	}
}

void udp_clients_set_draining(struct udp_clients *clients, bool is_draining)
{
	clients->is_draining = is_draining;
	clients->drain_at = 0;
}

void udp_clients_send_away(struct udp_clients *clients, uint32_t n, uint32_t retry_after_ms, uint64_t now_ns,
			   udp_clients_send *send)
{
	for (; n > 0 && clients->drain_at < clients->n_places; clients->drain_at++) {
		struct client *client = clients->places[clients->drain_at].client;
		if (!client || !client->is_bound || client->is_leaving)
			continue;
		say_refused(clients, client, RELAY_UDP_RESTART, retry_after_ms, send);
		client->is_leaving = true;
		client->proven_ns = now_ns - silence_ns(clients) + LEAVE_NS;
		n--;
	}
}

void udp_clients_say_restart(struct udp_clients *clients, uint32_t retry_after_ms, udp_clients_send *send)
{
	for (uint32_t i = 0; i < clients->n_places; i++)
		if (clients->places[i].client && clients->places[i].client->is_bound)
			say_refused(clients, clients->places[i].client, RELAY_UDP_RESTART, retry_after_ms, send);
}

void udp_clients_each(const struct udp_clients *clients,
		      void (*each)(void *owner, const struct udp_clients_client *client), void *owner)
{
	for (uint32_t i = 0; i < clients->n_places; i++) {
		const struct client *client = clients->places[i].client;
		if (!client || !client->is_bound)
			continue;
		const struct udp_clients_client told = tell_client(client);
		each(owner, &told);
	}
}

const struct udp_clients_busiest *udp_clients_busiest(const struct udp_clients *clients)
{
	return &clients->busiest.list;
}
