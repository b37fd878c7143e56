/*
 * Clients lie in an array by the low bits of their slot. The array grows with them; a place that became free is
 * used again with the next generation. Whose key was seen to be a member's is known, by that key, and has its client.
 *
 *   table ──► known ◄──► client ◄── places
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
#define COOKIE_MS	   30000 /* shorter than a silent client is kept: a recorded bind revives nobody */
#define CHALLENGE_NS	   (32 * SECOND_NS)
#define CHALLENGES	   3 /* now and before */
#define GONE_PER_S	   10
#define RETRY_FULL_MS	   10000
#define RETRY_REPLACED_MS  5000
#define RETRY_DRAINED_MS   30000
#define LEAVE_NS	   (5 * SECOND_NS) /* for packets that are on their way to one that was sent away */
#define QUIET_NS	   SECOND_NS /* who sends nothing here for so long, and pings elsewhere, is reached there */
#define MIN_PLACES	   64
#define SWEEP_PARTS	   8 /* in each tick so much of the array is looked at … */
#define SWEEP_MIN	   4096 /* … or so many places */

static bool spend(struct budget *budget, uint32_t max, uint64_t now_ns)
{
	const uint64_t second = now_ns / SECOND_NS;

	if (second != budget->second)
		budget->n = 0;
	budget->second = second;
	if (budget->n >= max)
		return false;
	budget->n++;
	return true;
}

/* Nobody else can compute these. */
enum hash_use { HASH_COOKIE, HASH_CHALLENGE, HASH_RANDOM };

static void hash(const struct udp_clients *clients, enum hash_use use, const void *bytes, size_t len,
		 uint8_t ret[crypto_generichash_BYTES_MIN])
{
	const uint8_t label = (uint8_t)use;
	crypto_generichash_state state;

	crypto_generichash_init(&state, clients->secret, sizeof(clients->secret), crypto_generichash_BYTES_MIN);
	crypto_generichash_update(&state, &label, sizeof(label));
	crypto_generichash_update(&state, bytes, len);
	crypto_generichash_final(&state, ret, crypto_generichash_BYTES_MIN);
}

static uint32_t new_random(struct udp_clients *clients)
{
	const uint64_t number = clients->n_random++;
	uint8_t bytes[crypto_generichash_BYTES_MIN];
	uint32_t ret;

	hash(clients, HASH_RANDOM, &number, sizeof(number), bytes);
	memcpy(&ret, bytes, sizeof(ret));
	return ret;
}

/* ---- the array ---- */

static struct client *find_slot(const struct udp_clients *clients, uint32_t slot)
{
	const uint32_t i = udp_clients_index_of(slot);
	struct client *client = i < clients->n_places ? clients->places[i].client : NULL;

	return client && client->slot == slot ? client : NULL;
}

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
		clients->places[i].generation = new_random(clients);
		udp_clients_free_place(clients, i);
	}
	clients->n_places = n;
}

static struct client *add_client(struct udp_clients *clients, struct known *known)
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

static void remove_client(struct udp_clients *clients, struct client *client)
{
	const uint32_t i = udp_clients_index_of(client->slot);
	struct place *place = &clients->places[i];

	client->known->client = NULL;
	place->client = NULL;
	place->generation++;
	udp_clients_free_place(clients, i);
	free(client);
}

/*
 * A node that has lost UDP, or loses too much there, comes by TLS, and goes on pinging here: what counts is by which
 * way it sends.
 */
static bool is_reached_here(const struct client *to)
{
	return to->is_bound && (!to->is_elsewhere || to->heard_ns > to->heard_elsewhere_ns);
}

/*
 * Elsewhere counts what was said last. So "here" is taken back whenever it comes there, or is lost here: it may be heard
 * only after that.
 */
static void tell_reached(const struct udp_clients *clients, struct client *client, bool is_here)
{
	if (client->is_told_here == is_here)
		return;
	client->is_told_here = is_here;
	if (clients->config.tell_reached)
		clients->config.tell_reached(clients->config.owner, &client->known->node_key, is_here);
}

/* A packet of it came, or it has moved. */
static void hear(const struct udp_clients *clients, struct client *client, uint64_t now_ns)
{
	client->heard_ns = now_ns;
	if (client->is_elsewhere && is_reached_here(client))
		tell_reached(clients, client, true);
}

static void unbind(struct udp_clients *clients, struct client *client)
{
	tell_reached(clients, client, false);
	client->is_bound = false;
	client->heard_ns = 0; /* bound again, it is reached elsewhere until it sends something here */
	clients->counters.clients--;
	if (!client->is_elsewhere)
		remove_client(clients, client);
}

/* ---- cookies and challenges ---- */

static uint32_t ms_of(uint64_t now_ns)
{
	return (uint32_t)(now_ns / MILLISECOND_NS);
}

/* When it was made, and a hash of that and of whom it was made for. */
static void make_cookie(const struct udp_clients *clients, const struct endpoint *from, uint32_t made_ms,
			uint8_t ret[RELAY_UDP_COOKIE_LEN])
{
	uint8_t input[sizeof(from->ip) + sizeof(from->port) + sizeof(made_ms)];
	uint8_t bytes[crypto_generichash_BYTES_MIN];

	memcpy(input, from->ip, sizeof(from->ip));
	memcpy(input + sizeof(from->ip), &from->port, sizeof(from->port));
	memcpy(input + sizeof(from->ip) + sizeof(from->port), &made_ms, sizeof(made_ms));
	hash(clients, HASH_COOKIE, input, sizeof(input), bytes);
	memcpy(ret, &made_ms, sizeof(made_ms));
	memcpy(ret + sizeof(made_ms), bytes, RELAY_UDP_COOKIE_LEN - sizeof(made_ms));
}

static bool is_cookie(const struct udp_clients *clients, const struct endpoint *from,
		      const uint8_t cookie[RELAY_UDP_COOKIE_LEN], uint64_t now_ns, uint32_t *ret_made_ms)
{
	uint8_t right[RELAY_UDP_COOKIE_LEN];

	memcpy(ret_made_ms, cookie, sizeof(*ret_made_ms));
	if (ms_of(now_ns) - *ret_made_ms > COOKIE_MS) /* one of the future, too */
		return false;
	make_cookie(clients, from, *ret_made_ms, right);
	return sodium_memcmp(right, cookie, sizeof(right)) == 0;
}

static uint32_t challenge_of(const struct udp_clients *clients, const struct client *client, uint64_t period)
{
	const struct {
		uint64_t period;
		uint32_t slot, token;
	} input = { period, client->slot, client->token };
	uint8_t bytes[crypto_generichash_BYTES_MIN];
	uint32_t ret;

	hash(clients, HASH_CHALLENGE, &input, sizeof(input), bytes);
	memcpy(&ret, bytes, sizeof(ret));
	return ret;
}

static bool is_challenge(const struct udp_clients *clients, const struct client *client, uint32_t challenge,
			 uint64_t now_ns)
{
	const uint64_t period = now_ns / CHALLENGE_NS;

	for (uint64_t i = 0; i < CHALLENGES && i <= period; i++)
		if (challenge_of(clients, client, period - i) == challenge)
			return true;
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

static bool may_answer_stranger(struct udp_clients *clients, uint64_t now_ns)
{
	if (spend(&clients->answers, clients->config.max_answers, now_ns))
		return true;
	clients->counters.dropped_limited++;
	return false;
}

static enum udp_clients_verdict say_moved(const struct udp_clients *clients, const struct udp_way *to, uint32_t what,
					  uint64_t now_ns, struct udp_clients_result *ret)
{
	struct relay_udp_datagram moved = { .type = RELAY_UDP_MOVED, .moved = { .what = what } };

	make_cookie(clients, &to->remote, ms_of(now_ns), moved.moved.cookie);
	return answer(ret, &moved);
}

/* A cookie for who comes from an unknown address; len: of what is answered, which moved may not exceed. */
static enum udp_clients_verdict answer_moved(struct udp_clients *clients, const struct udp_way *from,
					     uint32_t what, size_t len, uint64_t now_ns,
					     struct udp_clients_result *ret)
{
	say_moved(clients, from, what, now_ns, ret);
	if (ret->answer_len > len || !may_answer_stranger(clients, now_ns))
		return UDP_CLIENTS_DROP;
	return UDP_CLIENTS_ANSWER;
}

static enum udp_clients_verdict answer_ask(struct udp_clients *clients, const struct udp_way *from,
					   const struct relay_udp_ask *ask, uint64_t now_ns,
					   struct udp_clients_result *ret)
{
	struct relay_udp_datagram cookie = { .type = RELAY_UDP_COOKIE,
					     .cookie = { .number = ask->number, .version = RELAY_UDP_VERSION } };

	if (!may_answer_stranger(clients, now_ns))
		return UDP_CLIENTS_DROP;
	make_cookie(clients, &from->remote, ms_of(now_ns), cookie.cookie.cookie);
	clients->counters.cookies++;
	return answer(ret, &cookie);
}

static struct relay_udp_datagram refusal(enum relay_udp_reason reason, uint32_t retry_after_ms, uint64_t number)
{
	return (struct relay_udp_datagram){
		.type = RELAY_UDP_REFUSED,
		.refused = { .reason = reason, .retry_after_ms = retry_after_ms, .number = number },
	};
}

/* ---- binding ---- */

static bool is_member(const struct udp_clients *clients, const struct public_key *node_key)
{
	return !clients->config.is_member || clients->config.is_member(clients->config.owner, node_key);
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

/*
 * NULL, and counted: there is no key that the mac could be of. Node keys are no secret, and a cookie is good
 * for many binds: what makes us compute is limited by source and in all, and is done once for each member.
 */
static struct known *find_known(struct udp_clients *clients, const struct endpoint *from,
				const struct public_key *node_key, uint64_t now_ns)
{
	struct relay_udp_key proof;
	struct known *known = key_table_find(&clients->known, node_key);

	if (!is_member(clients, node_key)) {
		clients->counters.refused_not_member++;
		return NULL;
	}
	if (known && known->has_proof)
		return known;
	if (!source_limit_take(&clients->binds, from, now_ns / MILLISECOND_NS) ||
	    !spend(&clients->proofs, clients->config.max_proofs, now_ns)) {
		clients->counters.refused_busy++;
		return NULL;
	}
	if (relay_udp_key(&clients->config.node_key, &clients->public, node_key, true, &proof) != 0) {
		clients->counters.refused_proof++;
		return NULL;
	}
	known = udp_clients_get_known(clients, node_key);
	known->proof = proof;
	known->has_proof = true;
	sodium_memzero(&proof, sizeof(proof));
	return known;
}

static void forget_known(struct udp_clients *clients, struct known **at)
{
	struct known *known = *at;

	*at = known->next;
	key_table_remove(&clients->known, &known->node_key, known);
	sodium_memzero(known, sizeof(*known));
	free(known);
}

static enum udp_clients_verdict answer_bound(const struct udp_clients *clients, const struct client *client,
					     struct udp_clients_result *ret)
{
	const struct relay_udp_datagram bound = {
		.type = RELAY_UDP_BOUND,
		.bound = { .slot = client->slot,
			   .token = client->token,
			   .epoch = clients->epoch,
			   .keep_alive_s = clients->config.keep_alive_s,
			   .number = client->bind_number },
	};

	return answer_proven(ret, &client->known->proof, &bound);
}

static enum udp_clients_verdict bind_client(const struct udp_clients *clients, struct client *client,
					    const struct udp_way *from, const struct relay_udp_bind *bind,
					    uint32_t cookie_ms, uint64_t now_ns, struct udp_clients_result *ret)
{
	client->bind_number = bind->number;
	client->known->cookie_ms = cookie_ms;
	client->way = *from;
	client->is_leaving = client->is_handed_over = false;
	client->known->bound_ns = client->proven_ns = now_ns;
	return answer_bound(clients, client, ret);
}

static enum udp_clients_verdict refuse_bind(const struct known *known, enum relay_udp_reason reason,
					    uint32_t retry_after_ms, uint64_t number, struct udp_clients_result *ret)
{
	const struct relay_udp_datagram refused = refusal(reason, retry_after_ms, number);

	return answer_proven(ret, &known->proof, &refused);
}

/*
 * A cookie that is still good was made after any bind of longer ago: the times need not be compared, and wrap. Who left
 * the relay that ran before may have been bound there as late as at its end.
 */
static bool is_older(const struct udp_clients *clients, const struct known *known, uint32_t cookie_ms, uint64_t now_ns)
{
	const bool is_of_before = known->bound_ns == 0;
	const uint64_t bound_ns = is_of_before ? clients->saved_ns : known->bound_ns;
	const uint32_t bound_with_ms = is_of_before ? ms_of(clients->saved_ns) : known->cookie_ms;

	return bound_ns != 0 && now_ns - bound_ns <= COOKIE_MS * MILLISECOND_NS &&
	       (int32_t)(cookie_ms - bound_with_ms) <= 0;
}

static enum udp_clients_verdict refuse_older(struct udp_clients *clients, const struct known *known, uint64_t number,
					     struct udp_clients_result *ret)
{
	clients->counters.refused_old++;
	return refuse_bind(known, RELAY_UDP_OLD, 0, number, ret);
}

static enum udp_clients_verdict bind_new(struct udp_clients *clients, struct known *known,
					 const struct udp_way *from, const struct relay_udp_bind *bind,
					 uint32_t cookie_ms, uint64_t now_ns, struct udp_clients_result *ret)
{
	if (is_older(clients, known, cookie_ms, now_ns)) /* recorded, and its client has left meanwhile */
		return refuse_older(clients, known, bind->number, ret);
	if (clients->is_draining) {
		clients->counters.refused_draining++;
		return refuse_bind(known, RELAY_UDP_RESTART, RETRY_DRAINED_MS, bind->number, ret);
	}
	if (clients->counters.clients >= clients->config.max_clients) {
		clients->counters.refused_full++;
		return refuse_bind(known, RELAY_UDP_FULL, RETRY_FULL_MS, bind->number, ret);
	}
	struct client *client = known->client ? known->client : add_client(clients, known);
	clients->counters.bound++;
	clients->counters.clients++;
	client->is_bound = true;
	client->token = new_random(clients);
	client->n_contacts = clients->config.max_contacts;
	client->contact_second = (uint32_t)(now_ns / SECOND_NS);
	rate_limit_init(&client->rate, clients->config.max_rate_client, now_ns / MILLISECOND_NS);
	return bind_client(clients, client, from, bind, cookie_ms, now_ns, ret);
}

/* Two machines with one key would take the slot from each other without a word. */
static void tell_replaced(const struct client *client, struct udp_clients_result *ret)
{
	const struct relay_udp_datagram replaced = refusal(RELAY_UDP_REPLACED, RETRY_REPLACED_MS, client->bind_number);

	ret->notice_len = relay_udp_encode(ret->notice, sizeof(ret->notice), &replaced);
	relay_udp_prove(&client->known->proof, ret->notice, ret->notice_len);
	ret->notice_to = client->way;
}

static enum udp_clients_verdict bind_again(struct udp_clients *clients, struct client *client,
					   const struct udp_way *from, const struct relay_udp_bind *bind,
					   uint32_t cookie_ms, uint64_t now_ns, struct udp_clients_result *ret)
{
	const bool is_here = endpoint_equal(&from->remote, &client->way.remote);

	if (is_here && bind->number == client->bind_number)
		return answer_bound(clients, client, ret); /* the answer was lost; it proves nothing new */
	if (is_older(clients, client->known, cookie_ms, now_ns))
		return refuse_older(clients, client->known, bind->number, ret);
	if (clients->is_draining && client->is_leaving) { /* it was told, and would stay for ever */
		clients->counters.refused_draining++;
		return refuse_bind(client->known, RELAY_UDP_RESTART, RETRY_DRAINED_MS, bind->number, ret);
	}
	if (!is_here) {
		hear(clients, client, now_ns); /* its connection over TLS is perhaps of its old address */
		tell_replaced(client, ret);
		client->token = new_random(clients); /* what the old address knows is worth nothing any more */
		clients->counters.moved++;
	}
	return bind_client(clients, client, from, bind, cookie_ms, now_ns, ret);
}

static enum udp_clients_verdict take_bind(struct udp_clients *clients, const struct udp_way *from,
					  const struct relay_udp_bind *bind, const void *bytes, size_t len,
					  uint64_t now_ns, struct udp_clients_result *ret)
{
	uint32_t cookie_ms;

	if (!is_cookie(clients, &from->remote, bind->cookie, now_ns, &cookie_ms)) {
		clients->counters.refused_cookie++;
		return answer_moved(clients, from, (uint32_t)bind->number, len, now_ns, ret);
	}
	if (bind->version != RELAY_UDP_VERSION) {
		clients->counters.malformed++;
		return UDP_CLIENTS_DROP;
	}
	struct known *known = find_known(clients, &from->remote, &bind->node_key, now_ns);
	if (!known)
		return UDP_CLIENTS_DROP;
	if (!relay_udp_is_proven(&known->proof, bytes, len)) {
		clients->counters.refused_proof++;
		return UDP_CLIENTS_DROP;
	}
	if (known->client && known->client->is_bound)
		return bind_again(clients, known->client, from, bind, cookie_ms, now_ns, ret);
	return bind_new(clients, known, from, bind, cookie_ms, now_ns, ret);
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
	const struct client *peer = is_by_slot ? find_slot(clients, find->header.to) : known ? known->client : NULL;
	const struct relay_udp_datagram found = {
		.type = RELAY_UDP_FOUND,
		.header = { RELAY_UDP_FOUND, client->slot, peer ? peer->slot : 0, client->token },
		.node_key = peer ? peer->known->node_key : find->node_key,
	};

	if (!peer && !spend_of_second(&client->find_second, &client->n_finds, FINDS_PER_S, now_ns)) {
		clients->counters.dropped_contacts++;
		return UDP_CLIENTS_DROP;
	}
	return answer(ret, &found);
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
			  .challenge = challenge_of(clients, client, now_ns / CHALLENGE_NS) },
	};

	if (!client->is_leaving && is_challenge(clients, client, ping->challenge, now_ns))
		client->proven_ns = now_ns;
	if (client->is_handed_over) /* so that it knows that the relay has come back: shorter than a ping */
		return say_moved(clients, &client->way, client->token, now_ns, ret);
	return answer(ret, &pong);
}

static enum udp_clients_verdict answer_gone(struct udp_clients *clients, struct client *client, uint32_t slot,
					    uint64_t now_ns, struct udp_clients_result *ret)
{
	const struct relay_udp_datagram gone = {
		.type = RELAY_UDP_GONE,
		.header = { RELAY_UDP_GONE, client->slot, slot, client->token },
	};

	clients->counters.dropped_unknown++;
	return spend_gone(client, now_ns) ? answer(ret, &gone) : UDP_CLIENTS_DROP;
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
	return (struct udp_clients_route){ .way = is_reached_here(to) ? &to->way : NULL,
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
	struct client *client = find_slot(clients, header.from), *to = find_slot(clients, header.to);
	if (!to || !is_of(client, &header, from))
		return 0;
	uint32_t n = length_of_run(bytes, len, size, &n_bytes);
	hear(clients, client, now_ns);
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
	struct client *client = find_slot(clients, datagram->header.from);

	if (!is_of(client, &datagram->header, from)) {
		clients->counters.dropped_stranger++;
		return answer_moved(clients, from, datagram->header.token, len, now_ns, ret);
	}
	switch (datagram->type) {
	case RELAY_UDP_FIND:
		return answer_find(clients, client, datagram, now_ns, ret);
	case RELAY_UDP_PING:
		return answer_ping(clients, client, &datagram->ping, now_ns, ret);
	default: /* a receiver that is here was routed to */
		hear(clients, client, now_ns);
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
		return answer_ask(clients, from, &datagram.ask, now_ns, ret);
	case RELAY_UDP_BIND:
		return take_bind(clients, from, &datagram.bind, bytes, len, now_ns, ret);
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
	tell_reached(clients, client, false);
}

void udp_clients_add_elsewhere(struct udp_clients *clients, const struct public_key *node_key, uint64_t now_ns)
{
	struct known *known = udp_clients_get_known(clients, node_key);
	struct client *client = known->client ? known->client : add_client(clients, known);

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
		remove_client(clients, known->client);
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
	if (!is_reached_here(peer))
		return UDP_CLIENTS_ELSEWHERE;
	peer->packets_out++;
	peer->bytes_out += len;
	*ret = rewritten_header(client, peer);
	*ret_way = &peer->way;
	return UDP_CLIENTS_HERE;
}

/* ---- time, membership, end ---- */

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
		unbind(clients, client);
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
	const struct relay_udp_datagram refused = refusal(reason, retry_after_ms, client->bind_number);
	struct udp_clients_result result;
	struct relay_udp_key proof = client->known->proof;

	if (!client->known->has_proof && /* handed over */
	    relay_udp_key(&clients->config.node_key, &clients->public, &client->known->node_key, true, &proof) != 0)
		return;
	answer_proven(&result, &proof, &refused);
	sodium_memzero(&proof, sizeof(proof));
	send(clients->config.owner, &client->way, result.answer, result.answer_len);
}

void udp_clients_recheck_members(struct udp_clients *clients, udp_clients_send *send)
{
	for (uint32_t i = 0; i < clients->n_places; i++) {
		struct client *client = clients->places[i].client;
		if (!client || !client->is_bound || is_member(clients, &client->known->node_key))
			continue;
		say_refused(clients, client, RELAY_UDP_NOT_ADMITTED, 0, send);
		clients->counters.closed_removed++;
		unbind(clients, client);
	}
	for (struct known **at = &clients->first_known; *at;) {
		if ((*at)->client || is_member(clients, &(*at)->node_key))
			at = &(*at)->next;
		else
			forget_known(clients, at);
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

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
	return value ? value : otherwise;
}

int udp_clients_new(const struct udp_clients_config *config, struct udp_clients **ret)
{
	struct udp_clients *clients = calloc(1, sizeof(*clients));

	if (!clients)
		return -ENOMEM;
	clients->n_pairs = 1;
	while (clients->n_pairs < MAX_PAIRS &&
	       clients->n_pairs < (uint64_t)or_default(config->max_clients, DEFAULT_CLIENTS) * PAIRS_A_CLIENT)
		clients->n_pairs *= 2;
	clients->pairs = calloc(clients->n_pairs, sizeof(*clients->pairs));
	if (!clients->pairs) {
		free(clients);
		return -ENOMEM;
	}
	clients->config = *config;
	clients->config.keep_alive_s = (uint8_t)or_default(config->keep_alive_s, DEFAULT_KEEP_ALIVE);
	clients->config.max_proofs = or_default(config->max_proofs, DEFAULT_PROOFS);
	clients->config.max_clients = or_default(config->max_clients, DEFAULT_CLIENTS);
	if (clients->config.max_clients > UDP_CLIENTS_MAX - 1)
		clients->config.max_clients = UDP_CLIENTS_MAX - 1;
	secret_key_public(&config->node_key, &clients->public);
	key_table_init(&clients->known);
	const uint32_t binds = or_default(config->max_binds_source, DEFAULT_BINDS);
	source_limit_init(&clients->binds, binds, binds * 2);
	clients->round.number = 1; /* what a client never was in */
	clients->round.fair = UINT32_MAX;
	clients->config.max_contacts = or_default(config->max_contacts, DEFAULT_CONTACTS);
	rate_limit_init(&clients->rate, config->max_rate, 0);
	clients->config.max_answers = or_default(config->max_answers, DEFAULT_ANSWERS);
	randombytes_buf(clients->secret, sizeof(clients->secret));
	clients->epoch = new_random(clients);
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
	while (clients->first_known)
		forget_known(clients, &clients->first_known);
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
