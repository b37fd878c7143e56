/* Pairs are a table of hashes that forgets; rounds and rates are counts. */
#include "relay/udp_limits.h"

#define CONTACTS_PARTS	   16 /* of a client's contacts so much comes back a second */
#define FAIR_MIN	   512 /* packets of one client in a round */
#define FAIR_MAX	   (1u << 20)

/* A hash of both, and not of the other way round; never 0. */
static uint64_t pair_of(const struct client *from, const struct client *to)
{
	uint64_t x = (uint64_t)from->slot << 32 | to->slot;

	x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
	x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return (x ^ x >> 32) | 1;
}

static uint64_t *place_of(struct udp_clients *clients, uint64_t pair)
{
	return &clients->pairs[(pair >> 1) % clients->n_pairs];
}

static bool spend_contact(const struct udp_clients *clients, struct client *client, uint64_t now_ns)
{
	const uint32_t max = clients->config.max_contacts, second = (uint32_t)(now_ns / SECOND_NS);
	const uint64_t earned = (uint64_t)(second - client->contact_second) * (max / CONTACTS_PARTS + 1);

	client->n_contacts = earned + client->n_contacts < max ? (uint32_t)earned + client->n_contacts : max;
	client->contact_second = second;
	if (client->n_contacts == 0)
		return false;
	client->n_contacts--;
	return true;
}

/*
 * May it send there? Whoever it sent to before, and whoever has sent to it, yes; others only so many. What is
 * answered is given back. The table is small, and may forget: then a contact is counted twice.
 */
bool udp_limits_may_contact(struct udp_clients *clients, struct client *client, struct client *to, uint64_t now_ns)
{
	const uint64_t pair = pair_of(client, to);
	uint64_t *place = place_of(clients, pair);

	/* Written anew each time: another may have taken its place, and the receiver's answers look for it. */
	if (*place != pair && client->last_to != to->slot) {
		const uint64_t back = pair_of(to, client);
		if (*place_of(clients, back) == back)
			to->n_contacts++;
		else if (!spend_contact(clients, client, now_ns))
			return false;
	}
	*place = pair;
	client->last_to = to->slot;
	return true;
}

/* Counts n packets more of this round. */
bool udp_limits_is_fair(struct udp_clients *clients, struct client *client, uint32_t n)
{
	if (client->round != clients->round.number) {
		client->round = clients->round.number;
		client->n_round = 0;
		clients->round.n_senders++;
	}
	client->n_round += n;
	clients->round.n_packets += n;
	if (client->n_round > clients->round.n_most)
		clients->round.n_most = client->n_round;
	return client->n_round <= clients->round.fair;
}

void udp_limits_uncount(struct udp_clients *clients, struct client *client, uint32_t n)
{
	client->n_round -= n;
	clients->round.n_packets -= n;
}

static uint32_t fair_of(const struct udp_clients *clients, bool is_overloaded)
{
	const uint32_t fair = clients->round.fair, most = clients->round.n_most;
	const uint32_t least = clients->round.n_senders > 0 ? 2 * (clients->round.n_packets / clients->round.n_senders) : 0;
	uint32_t less = (fair < most ? fair : most) / 4 * 3;

	if (!is_overloaded)
		return fair < FAIR_MAX ? fair + fair / 8 : UINT32_MAX;
	less = less < least ? least : less;
	return less < FAIR_MIN ? FAIR_MIN : less;
}

void udp_clients_end_round(struct udp_clients *clients, bool is_overloaded)
{
	clients->round.fair = fair_of(clients, is_overloaded);
	clients->round.n_packets = clients->round.n_senders = clients->round.n_most = 0;
	clients->round.number++;
}

static bool takes_rate(struct udp_clients *clients, struct client *client, size_t bytes, uint64_t now_ms)
{
	return rate_limit_take_both(&client->rate, &clients->rate, bytes, now_ms);
}

/* How many of n datagrams may pass, of `size` bytes each but the last, n_bytes in all. */
uint32_t udp_limits_may_pass(struct udp_clients *clients, struct client *client, uint32_t n, size_t size, size_t n_bytes,
			     uint64_t now_ns)
{
	const uint64_t now_ms = now_ns / MILLISECOND_NS;
	uint32_t i = 0;

	if (n == 1)
		size = n_bytes;
	else if (takes_rate(clients, client, n_bytes, now_ms))
		return n;
	while (i < n && takes_rate(clients, client, size, now_ms))
		i++;
	return i;
}
