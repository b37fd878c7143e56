/*
 * Target: udp_clients_take: any sequence of datagrams gets no answer longer than its question, and nothing
 * is forwarded but what a bound client sends, to where its receiver is: here, or over TLS ("elsewhere"), of which both
 * sides think the same. Input: pieces of 1 byte what, 1 byte length, the datagram; the highest lengths are an enum deed,
 * without a datagram.
 */
#include "relay/udp_clients.h"
#include "relay/udp_clients_saved.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

enum deed {
	COME_ELSEWHERE = 0xf8,
	LEAVE_ELSEWHERE,
	PING_ELSEWHERE,
	SEND_ELSEWHERE, /* to the other */
	TELL_GONE,
	END_ROUND,
	DRAIN,
	HAND_OVER, /* to the relay that runs next, which nobody has come to over TLS */
};

struct node {
	struct secret_key secret;
	struct public_key public;
	struct relay_udp_key proof;
	struct endpoint at;
	struct relay_udp_header header; /* once bound */
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	uint32_t challenge;
	bool is_bound, is_elsewhere;
	bool is_told_here; /* as those elsewhere were told */
};

static struct public_key relay;
static struct secret_key relay_secret;
static struct node nodes[2];

static void make_keys(void)
{
	expect(sodium_init() >= 0);
	memset(&relay_secret, 1, sizeof(relay_secret));
	secret_key_public(&relay_secret, &relay);
	for (int i = 0; i < 2; i++) {
		memset(&nodes[i], 0, sizeof(nodes[i]));
		memset(&nodes[i].secret, 2 + i, sizeof(nodes[i].secret));
		secret_key_public(&nodes[i].secret, &nodes[i].public);
		expect(relay_udp_key(&nodes[i].secret, &nodes[i].public, &relay, false, &nodes[i].proof) == 0);
		nodes[i].at = endpoint_from_v4(0x0a000001 + (uint32_t)i, 4000);
	}
}

/* What a real client would put there, so that the fuzzer gets beyond cookies and proofs. */
static void help(const struct node *node, unsigned what, uint8_t *bytes, size_t len)
{
	const enum relay_udp_type type = relay_udp_type(bytes, len);

	if (what & 2 && type >= RELAY_UDP_FIND) {
		struct relay_udp_header header = node->header;
		header.type = type;
		memcpy(&header.to, bytes + 4, sizeof(header.to));
		if (what & 4)
			header.to = nodes[0].header.from;
		relay_udp_header_encode(bytes, &header);
		if (type == RELAY_UDP_PING)
			memcpy(bytes + RELAY_UDP_HEADER_LEN + 8, (const uint8_t[]){ (uint8_t)(node->challenge >> 24),
				(uint8_t)(node->challenge >> 16), (uint8_t)(node->challenge >> 8), (uint8_t)node->challenge }, 4);
	}
	if (what & 2 && type == RELAY_UDP_BIND) {
		bytes[4] = RELAY_UDP_VERSION;
		memcpy(bytes + 8, node->cookie, RELAY_UDP_COOKIE_LEN);
		memcpy(bytes + 8 + RELAY_UDP_COOKIE_LEN, node->public.bytes, KEY_LEN);
		relay_udp_prove(&node->proof, bytes, len);
	}
}

static void take_answer(struct node *node, const struct udp_clients_result *result, size_t len)
{
	struct relay_udp_datagram answer;

	expect(result->answer_len > 0 && result->answer_len + result->notice_len <= len);
	expect(relay_udp_decode(result->answer, result->answer_len, &answer) == 0);
	if (answer.type == RELAY_UDP_COOKIE)
		memcpy(node->cookie, answer.cookie.cookie, sizeof(node->cookie));
	if (answer.type == RELAY_UDP_MOVED)
		memcpy(node->cookie, answer.moved.cookie, sizeof(node->cookie));
	if (answer.type == RELAY_UDP_PONG)
		node->challenge = answer.ping.challenge;
	if (answer.type == RELAY_UDP_BOUND) {
		expect(relay_udp_is_proven(&node->proof, result->answer, result->answer_len));
		node->header.from = answer.bound.slot;
		node->header.token = answer.bound.token;
		node->is_bound = true;
	}
}

static bool is_nodes(const struct udp_way *way)
{
	return way && (endpoint_equal(&way->remote, &nodes[0].at) || endpoint_equal(&way->remote, &nodes[1].at));
}

static struct node *node_of(const struct public_key *key)
{
	expect(public_key_equal(key, &nodes[0].public) || public_key_equal(key, &nodes[1].public));
	return public_key_equal(key, &nodes[0].public) ? &nodes[0] : &nodes[1];
}

static bool is_right(const struct node *from, const struct udp_clients_route *route)
{
	if (route->is_dropped)
		return true;
	return node_of(route->from) == from && (route->way ? is_nodes(route->way) : node_of(route->to)->is_elsewhere);
}

/* As two datagrams that came at once. */
static bool was_routed(struct udp_clients *clients, const struct node *node, uint8_t *bytes, size_t len,
		       uint64_t now_ns)
{
	const struct udp_way from = { .remote = node->at };
	struct udp_clients_route route;
	const size_t size = (len + 1) / 2;
	if (len >= 2 * RELAY_UDP_HEADER_LEN)
		memcpy(bytes + size, bytes, len - size < RELAY_UDP_HEADER_LEN ? len - size : RELAY_UDP_HEADER_LEN);
	const uint32_t n = udp_clients_route(clients, &from, bytes, len, size, now_ns, &route);

	if (n > 0)
		expect(node->is_bound && is_right(node, &route) && n <= 2 && relay_udp_type(bytes, size) == RELAY_UDP_DATA);
	return n > 0;
}

static void take_one(struct udp_clients *clients, unsigned what, const uint8_t *data, size_t len, uint64_t now_ns)
{
	struct node *node = &nodes[what & 1];
	struct udp_clients_result result;
	uint8_t *bytes = malloc(len ? len : 1);

	expect(bytes);
	if (len > 0)
		memcpy(bytes, data, len);
	help(node, what, bytes, len);
	const struct udp_way from = { .remote = node->at };
	if (len % 2 == 1 && was_routed(clients, node, bytes, len, now_ns)) {
		free(bytes);
		return;
	}
	switch (udp_clients_take(clients, &from, bytes, len, now_ns, &result)) {
	case UDP_CLIENTS_ANSWER:
		take_answer(node, &result, len);
		break;
	case UDP_CLIENTS_FORWARD:
		expect(node->is_bound && relay_udp_type(bytes, len) == RELAY_UDP_DATA);
		expect(is_right(node, &result.route));
		break;
	case UDP_CLIENTS_DROP:
		break;
	}
	free(bytes);
}

/* News only, and of who is there. */
static void tell_reached(void *owner, const struct public_key *node_key, bool is_here)
{
	struct node *node = node_of(node_key);

	(void)owner;
	expect(node->is_told_here != is_here && (!is_here || (node->is_elsewhere && node->is_bound)));
	node->is_told_here = is_here;
}

static void send_elsewhere(struct udp_clients *clients, struct node *from, struct node *to, uint64_t now_ns)
{
	struct relay_udp_header header;
	struct udp_way *way;

	switch (udp_clients_route_from_elsewhere(clients, &from->public, &to->public, 100, now_ns, &way, &header)) {
	case UDP_CLIENTS_HERE:
		expect(from->is_elsewhere && to->is_bound && endpoint_equal(&way->remote, &to->at));
		expect(header.type == RELAY_UDP_DATA && header.to == to->header.from && header.token == to->header.token);
		expect(!to->is_elsewhere || to->is_told_here);
		break;
	case UDP_CLIENTS_ELSEWHERE:
		expect(from->is_elsewhere && to->is_elsewhere);
		break;
	case UDP_CLIENTS_NOWHERE:
		expect(!from->is_elsewhere || !to->is_elsewhere);
		break;
	}
}

static void send_nothing(void *owner, const struct udp_way *to, const uint8_t *bytes, size_t len)
{
	(void)owner;
	expect(is_nodes(to) && len > 0 && bytes);
}

static struct udp_clients *hand_over(struct udp_clients *clients, const struct udp_clients_config *config,
				     uint64_t now_ns)
{
	struct udp_clients *next;
	uint8_t *saved = NULL;
	size_t len = 0;

	udp_clients_save(clients, now_ns, &saved, &len);
	udp_clients_free(clients);
	expect(saved && udp_clients_new_from(config, saved, len, 1, now_ns, &next) == 0);
	free(saved);
	for (int i = 0; i < 2; i++)
		nodes[i].is_elsewhere = nodes[i].is_told_here = false;
	return next;
}

static void drain(struct udp_clients *clients, bool begin, uint64_t now_ns)
{
	udp_clients_set_draining(clients, begin);
	if (begin)
		udp_clients_send_away(clients, 1, 1000, now_ns, send_nothing);
}

static struct udp_clients *do_deed(struct udp_clients *clients, const struct udp_clients_config *config, unsigned what,
				   enum deed deed, uint64_t now_ns)
{
	struct node *node = &nodes[what & 1], *other = &nodes[~what & 1];

	switch (deed) {
	case COME_ELSEWHERE:
		node->is_elsewhere = true;
		udp_clients_add_elsewhere(clients, &node->public, now_ns);
		break;
	case LEAVE_ELSEWHERE:
		udp_clients_remove_elsewhere(clients, &node->public);
		node->is_elsewhere = node->is_told_here = false;
		break;
	case PING_ELSEWHERE:
		udp_clients_ping_elsewhere(clients, &node->public, now_ns);
		break;
	case SEND_ELSEWHERE:
		send_elsewhere(clients, node, other, now_ns);
		break;
	case TELL_GONE:
		(void)udp_clients_may_tell_gone(clients, &node->public, now_ns);
		break;
	case END_ROUND:
		udp_clients_end_round(clients, what & 2);
		break;
	case DRAIN:
		drain(clients, what & 2, now_ns);
		break;
	case HAND_OVER:
		return hand_over(clients, config, now_ns);
	}
	return clients;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct udp_clients_config config = { .max_clients = 2, .tell_reached = tell_reached };
	struct udp_clients *clients;
	uint64_t now_ns = UINT64_C(86400000000000); /* the clock begins a day after zero */

	make_keys();
	config.node_key = relay_secret;
	expect(udp_clients_new(&config, &clients) == 0);
	while (size >= 2) {
		const unsigned what = data[0];
		size_t len = data[1] < size - 2 ? data[1] : size - 2;
		if (data[1] >= COME_ELSEWHERE) {
			len = 0;
			clients = do_deed(clients, &config, what, data[1], now_ns);
		} else {
			take_one(clients, what, data + 2, len, now_ns);
		}
		data += 2 + len;
		size -= 2 + len;
		now_ns += (uint64_t)(what >> 3) * 1000000000;
		udp_clients_tick(clients, now_ns);
		expect(udp_clients_counters(clients).clients <= 2);
	}
	udp_clients_free(clients);
	return 0;
}
