/*
 * How a stranger becomes a client: each of these steps costs us little until it has shown that it is where it says,
 * and whose key it has.
 *
 *   ask ──► cookie            nothing is kept
 *   bind ─► is the cookie ours, and good? ─► a member? ─► its proof (a Diffie-Hellman, once) ─┬─► new: bound, or refused
 *              └─ no: moved, with one that is                                                 └─► here: again, or moved
 */
#include "relay/udp_clients_internal.h"

#include <sodium.h>

#define RETRY_FULL_MS	  10000
#define RETRY_REPLACED_MS 5000
#define RETRY_DRAINED_MS  30000

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

/* ---- cookies ---- */

static bool may_answer_stranger(struct udp_clients *clients, uint64_t now_ns)
{
	if (spend(&clients->answers, clients->config.max_answers, now_ns))
		return true;
	clients->counters.dropped_limited++;
	return false;
}

enum udp_clients_verdict udp_clients_say_moved(const struct udp_clients *clients, const struct udp_way *to, uint32_t what,
					       uint64_t now_ns, struct udp_clients_result *ret)
{
	struct relay_udp_datagram moved = { .type = RELAY_UDP_MOVED, .moved = { .what = what } };

	udp_cookies_make(&clients->cookies, &to->remote, now_ns, moved.moved.cookie);
	return udp_clients_answer(ret, &moved);
}

enum udp_clients_verdict udp_clients_answer_moved(struct udp_clients *clients, const struct udp_way *from,
						  uint32_t what, size_t len, uint64_t now_ns,
						  struct udp_clients_result *ret)
{
	udp_clients_say_moved(clients, from, what, now_ns, ret);
	if (ret->answer_len > len || !may_answer_stranger(clients, now_ns))
		return UDP_CLIENTS_DROP;
	return UDP_CLIENTS_ANSWER;
}

enum udp_clients_verdict udp_clients_answer_ask(struct udp_clients *clients, const struct udp_way *from,
						const struct relay_udp_ask *ask, uint64_t now_ns,
						struct udp_clients_result *ret)
{
	struct relay_udp_datagram cookie = { .type = RELAY_UDP_COOKIE,
					     .cookie = { .number = ask->number, .version = RELAY_UDP_VERSION } };

	if (!may_answer_stranger(clients, now_ns))
		return UDP_CLIENTS_DROP;
	udp_cookies_make(&clients->cookies, &from->remote, now_ns, cookie.cookie.cookie);
	clients->counters.cookies++;
	return udp_clients_answer(ret, &cookie);
}

/* ---- binding ---- */

enum udp_clients_verdict udp_clients_answer_proven(struct udp_clients_result *ret, const struct relay_udp_key *key,
						   const struct relay_udp_datagram *datagram)
{
	udp_clients_answer(ret, datagram);
	relay_udp_prove(key, ret->answer, ret->answer_len);
	return UDP_CLIENTS_ANSWER;
}

struct relay_udp_datagram udp_clients_refusal(enum relay_udp_reason reason, uint32_t retry_after_ms, uint64_t number)
{
	return (struct relay_udp_datagram){
		.type = RELAY_UDP_REFUSED,
		.refused = { .reason = reason, .retry_after_ms = retry_after_ms, .number = number },
	};
}

bool udp_clients_is_member(const struct udp_clients *clients, const struct public_key *node_key)
{
	return !clients->config.is_member || clients->config.is_member(clients->config.owner, node_key);
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

	if (!udp_clients_is_member(clients, node_key)) {
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

	return udp_clients_answer_proven(ret, &client->known->proof, &bound);
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
	const struct relay_udp_datagram refused = udp_clients_refusal(reason, retry_after_ms, number);

	return udp_clients_answer_proven(ret, &known->proof, &refused);
}

/*
 * A cookie that is still good was made after any bind of longer ago: the times need not be compared, and wrap. Who left
 * the relay that ran before may have been bound there as late as at its end.
 */
static bool is_older(const struct udp_clients *clients, const struct known *known, uint32_t cookie_ms, uint64_t now_ns)
{
	const bool is_of_before = known->bound_ns == 0;
	const uint64_t bound_ns = is_of_before ? clients->saved_ns : known->bound_ns;
	const uint32_t bound_with_ms = is_of_before ? udp_cookies_ms(clients->saved_ns) : known->cookie_ms;

	return bound_ns != 0 && now_ns - bound_ns <= UDP_COOKIES_MS * MILLISECOND_NS &&
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
	struct client *client = known->client ? known->client : udp_clients_add_client(clients, known);
	clients->counters.bound++;
	clients->counters.clients++;
	client->is_bound = true;
	client->token = udp_cookies_random(&clients->cookies);
	client->n_contacts = clients->config.max_contacts;
	client->contact_second = (uint32_t)(now_ns / SECOND_NS);
	rate_limit_init(&client->rate, clients->config.max_rate_client, now_ns / MILLISECOND_NS);
	return bind_client(clients, client, from, bind, cookie_ms, now_ns, ret);
}

/* Two machines with one key would take the slot from each other without a word. */
static void tell_replaced(const struct client *client, struct udp_clients_result *ret)
{
	const struct relay_udp_datagram replaced =
		udp_clients_refusal(RELAY_UDP_REPLACED, RETRY_REPLACED_MS, client->bind_number);

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
		udp_clients_hear(clients, client, now_ns); /* its connection over TLS is perhaps of its old address */
		tell_replaced(client, ret);
		/* What the old address knows is worth nothing any more. */
		client->token = udp_cookies_random(&clients->cookies);
		clients->counters.moved++;
	}
	return bind_client(clients, client, from, bind, cookie_ms, now_ns, ret);
}

enum udp_clients_verdict udp_clients_take_bind(struct udp_clients *clients, const struct udp_way *from,
					       const struct relay_udp_bind *bind, const void *bytes, size_t len,
					       uint64_t now_ns, struct udp_clients_result *ret)
{
	uint32_t cookie_ms;

	if (!udp_cookies_is_good(&clients->cookies, &from->remote, bind->cookie, now_ns, &cookie_ms)) {
		clients->counters.refused_cookie++;
		return udp_clients_answer_moved(clients, from, (uint32_t)bind->number, len, now_ns, ret);
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
