/* Clients of the relay over UDP, on virtual time: every line of a test is a datagram and what comes of it. */
#include "relay/udp_clients_saved.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_NODES	  4
#define SECOND	 UINT64_C(1000000000)
#define MAX_SENT  16

struct node {
	struct secret_key secret;
	struct public_key public;
	struct relay_udp_key proof;
	struct endpoint at;
	uint32_t slot, token;
	uint64_t number; /* of its last bind */
	uint32_t epoch, challenge;
	bool is_member;
};

struct world {
	struct udp_clients *clients;
	struct udp_clients_config config;
	struct public_key relay;
	struct node nodes[N_NODES];
	uint64_t now_ns;
	struct udp_clients_result result;
	struct relay_udp_datagram answer;
	struct {
		struct udp_way to;
		uint8_t bytes[RELAY_UDP_MAX_LEN];
		size_t len;
	} sent[MAX_SENT];
	unsigned n_sent;
	/* What was said elsewhere of a node. */
	unsigned n_reached, n_unreached;
	struct public_key last_told;
};

static struct endpoint address(unsigned a, uint16_t port)
{
	return endpoint_from_v4(0x0a000000 | a << 16 | 1, port);
}

/* Each remote comes by an address of ours of its own, so that it shows which of them a datagram goes by. */
static struct udp_way way_of(const struct endpoint *remote)
{
	return (struct udp_way){ .remote = *remote, .local_ip = { 9, remote->ip[13] }, .socket = remote->port };
}

static bool is_way_of(const struct udp_way *way, const struct endpoint *remote)
{
	const struct udp_way expected = way_of(remote);

	return endpoint_equal(&way->remote, remote) && memcmp(way->local_ip, expected.local_ip, 16) == 0 &&
	       way->socket == expected.socket;
}

static bool is_member(void *owner, const struct public_key *node_key)
{
	const struct world *w = owner;

	for (unsigned i = 0; i < N_NODES; i++)
		if (public_key_equal(&w->nodes[i].public, node_key))
			return w->nodes[i].is_member;
	return false;
}

static void tell_reached(void *owner, const struct public_key *node_key, bool is_here)
{
	struct world *w = owner;

	*(is_here ? &w->n_reached : &w->n_unreached) += 1;
	w->last_told = *node_key;
}

static void begin_with(struct world *w, struct udp_clients_config config)
{
	memset(w, 0, sizeof(*w));
	w->now_ns = 1000 * SECOND;
	secret_key_generate(&config.node_key);
	secret_key_public(&config.node_key, &w->relay);
	config.owner = w;
	config.is_member = is_member;
	config.tell_reached = tell_reached;
	w->config = config;
	assert(udp_clients_new(&config, &w->clients) == 0);
	for (unsigned i = 0; i < N_NODES; i++) {
		struct node *node = &w->nodes[i];
		secret_key_generate(&node->secret);
		secret_key_public(&node->secret, &node->public);
		assert(relay_udp_key(&node->secret, &node->public, &w->relay, false, &node->proof) == 0);
		node->at = address(i + 1, 4000);
		node->is_member = true;
		node->number = 77 + 1000 * i;
	}
}

static void begin(struct world *w)
{
	begin_with(w, (struct udp_clients_config){ 0 });
}

static void end(struct world *w)
{
	w->clients = udp_clients_free(w->clients);
}

static struct udp_clients_counters counters(const struct world *w)
{
	return udp_clients_counters(w->clients);
}

/* ---- datagrams ---- */

static enum udp_clients_verdict take(struct world *w, const struct endpoint *from, void *bytes, size_t len)
{
	const struct udp_way way = way_of(from);
	enum udp_clients_verdict verdict = udp_clients_take(w->clients, &way, bytes, len, w->now_ns, &w->result);

	if (verdict == UDP_CLIENTS_ANSWER) {
		assert(w->result.answer_len > 0 && w->result.answer_len + w->result.notice_len <= len); /* whatever was asked */
		assert(relay_udp_decode(w->result.answer, w->result.answer_len, &w->answer) == 0);
	}
	return verdict;
}

static enum udp_clients_verdict say(struct world *w, const struct endpoint *from,
				    const struct relay_udp_datagram *datagram)
{
	uint8_t bytes[RELAY_UDP_MAX_LEN];

	return take(w, from, bytes, relay_udp_encode(bytes, sizeof(bytes), datagram));
}

static bool is_answered(struct world *w, const struct endpoint *from, const struct relay_udp_datagram *datagram,
			enum relay_udp_type with)
{
	return say(w, from, datagram) == UDP_CLIENTS_ANSWER && w->answer.type == with;
}

static void ask(struct world *w, const struct endpoint *from, uint8_t ret_cookie[RELAY_UDP_COOKIE_LEN])
{
	const struct relay_udp_datagram question = { .type = RELAY_UDP_ASK, .ask = { 42 } };

	assert(is_answered(w, from, &question, RELAY_UDP_COOKIE) && w->answer.cookie.number == 42 &&
	       w->answer.cookie.version == RELAY_UDP_VERSION);
	memcpy(ret_cookie, w->answer.cookie.cookie, RELAY_UDP_COOKIE_LEN);
}

static enum udp_clients_verdict bind_with(struct world *w, const struct node *node, const struct relay_udp_key *key,
					  const uint8_t cookie[RELAY_UDP_COOKIE_LEN])
{
	struct relay_udp_datagram bind = {
		.type = RELAY_UDP_BIND,
		.bind = { .version = RELAY_UDP_VERSION, .node_key = node->public, .number = node->number },
	};
	uint8_t bytes[RELAY_UDP_MAX_LEN];

	memcpy(bind.bind.cookie, cookie, RELAY_UDP_COOKIE_LEN);
	const size_t len = relay_udp_encode(bytes, sizeof(bytes), &bind);
	relay_udp_prove(key, bytes, len);
	return take(w, &node->at, bytes, len);
}

static bool answer_is_of(const struct world *w, const struct node *node)
{
	return relay_udp_is_proven(&node->proof, w->result.answer, w->result.answer_len);
}

/* Asks and binds; the answer is in w->answer. */
static enum udp_clients_verdict try_to_bind(struct world *w, struct node *node)
{
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];

	w->now_ns += SECOND / 1000; /* binds are told apart by when their cookies were made */
	ask(w, &node->at, cookie);
	node->number++;
	return bind_with(w, node, &node->proof, cookie);
}

static void take_bound(struct world *w, struct node *node)
{
	assert(w->answer.type == RELAY_UDP_BOUND && answer_is_of(w, node));
	assert(w->answer.bound.number == node->number && w->answer.bound.keep_alive_s == 20);
	node->epoch = w->answer.bound.epoch;
	node->slot = w->answer.bound.slot;
	node->token = w->answer.bound.token;
}

static struct node *bound(struct world *w, unsigned i)
{
	struct node *node = &w->nodes[i];

	assert(try_to_bind(w, node) == UDP_CLIENTS_ANSWER);
	take_bound(w, node);
	return node;
}

static struct relay_udp_datagram from_node(const struct node *node, enum relay_udp_type type, uint32_t to)
{
	struct relay_udp_datagram d = { .type = type, .header = { type, to, node->slot, node->token } };

	if (type == RELAY_UDP_DATA) {
		d.packet.bytes = (const uint8_t *)"sealed";
		d.packet.len = 6;
	}
	return d;
}

/* With the challenge of the last pong. */
static bool ping_works(struct world *w, struct node *node)
{
	struct relay_udp_datagram ping = from_node(node, RELAY_UDP_PING, 0);

	ping.ping = (struct relay_udp_ping){ .number = 4711, .challenge = node->challenge };
	if (!is_answered(w, &node->at, &ping, RELAY_UDP_PONG) || w->answer.header.token != node->token)
		return false;
	assert(w->answer.ping.number == 4711);
	node->challenge = w->answer.ping.challenge;
	return true;
}

/* Does a packet of a's arrive at b as from a? */
static bool reaches(struct world *w, const struct node *a, const struct node *b)
{
	const struct relay_udp_datagram data = from_node(a, RELAY_UDP_DATA, b->slot);
	uint8_t bytes[RELAY_UDP_MAX_LEN];
	const size_t len = relay_udp_encode(bytes, sizeof(bytes), &data);
	struct relay_udp_datagram arrived;

	if (take(w, &a->at, bytes, len) != UDP_CLIENTS_FORWARD)
		return false;
	assert(relay_udp_decode(bytes, len, &arrived) == 0 && arrived.type == RELAY_UDP_DATA);
	assert(arrived.header.from == a->slot && arrived.header.to == b->slot && arrived.header.token == b->token);
	assert(arrived.packet.len == 6 && memcmp(arrived.packet.bytes, "sealed", 6) == 0);
	return w->result.route.way && is_way_of(w->result.route.way, &b->at);
}

/* It pings at once, as a client does, and then every 20 s. */
static void pass(struct world *w, unsigned seconds, struct node *who_pings)
{
	for (unsigned s = 0; s < seconds; s++) {
		if (who_pings && s % 20 == 0)
			assert(ping_works(w, who_pings));
		w->now_ns += SECOND;
		udp_clients_tick(w->clients, w->now_ns);
	}
}

static void send_to(void *owner, const struct udp_way *to, const uint8_t *bytes, size_t len)
{
	struct world *w = owner;

	assert(w->n_sent < MAX_SENT && len <= RELAY_UDP_MAX_LEN);
	w->sent[w->n_sent].to = *to;
	w->sent[w->n_sent].len = len;
	memcpy(w->sent[w->n_sent++].bytes, bytes, len);
}

/* Was the node told this, so that it can believe it? */
static bool was_told(const struct world *w, const struct node *node, enum relay_udp_reason reason)
{
	for (unsigned i = 0; i < w->n_sent; i++) {
		struct relay_udp_datagram told;
		if (is_way_of(&w->sent[i].to, &node->at) &&
		    relay_udp_decode(w->sent[i].bytes, w->sent[i].len, &told) == 0 &&
		    told.type == RELAY_UDP_REFUSED && told.refused.reason == reason &&
		    told.refused.number == node->number &&
		    relay_udp_is_proven(&node->proof, w->sent[i].bytes, w->sent[i].len))
			return true;
	}
	return false;
}

/* ---- binding ---- */

static void test_a_member_that_proves_address_and_key_is_bound(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0);

	assert(a->slot != 0 && ping_works(&w, a) && counters(&w).clients == 1 && counters(&w).bound == 1);
	end(&w);
}

static void test_a_cookie_is_good_for_its_address_only(void)
{
	struct world w;
	begin(&w);
	struct node *a = &w.nodes[0];
	const struct endpoint others[] = { address(1, 4001), address(2, 4000) };
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	ask(&w, &a->at, cookie);

	for (size_t i = 0; i < ARRAY_LEN(others); i++) {
		a->at = others[i];
		assert(bind_with(&w, a, &a->proof, cookie) == UDP_CLIENTS_ANSWER &&
		       w.answer.type == RELAY_UDP_MOVED);
	}
	assert(counters(&w).clients == 0 && counters(&w).refused_cookie == 2);
	/* … with which it can be bound at once. */
	assert(bind_with(&w, a, &a->proof, w.answer.moved.cookie) == UDP_CLIENTS_ANSWER);
	assert(w.answer.type == RELAY_UDP_BOUND);
	end(&w);
}

static void test_a_cookie_is_good_for_30_seconds(void)
{
	static const struct {
		int seconds;
		bool is_good;
	} cases[] = { { 0, true }, { 1, true }, { 30, true }, { 31, false }, { 600, false }, { -1, false } };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct world w;
		begin(&w);
		struct node *a = &w.nodes[0];
		uint8_t cookie[RELAY_UDP_COOKIE_LEN];
		ask(&w, &a->at, cookie);

		w.now_ns += (uint64_t)(cases[i].seconds * (int64_t)SECOND);
		assert(bind_with(&w, a, &a->proof, cookie) == UDP_CLIENTS_ANSWER);
		assert((w.answer.type == RELAY_UDP_BOUND) == cases[i].is_good);
		end(&w);
	}
}

static void test_who_is_no_member_gets_no_answer(void)
{
	struct world w;
	begin(&w);
	w.nodes[0].is_member = false;

	assert(try_to_bind(&w, &w.nodes[0]) == UDP_CLIENTS_DROP);
	assert(counters(&w).refused_not_member == 1 && counters(&w).clients == 0);
	end(&w);
}

static void test_a_member_cannot_be_impersonated(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0);
	struct node mallory = w.nodes[1];
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	ask(&w, &mallory.at, cookie);

	mallory.public = a->public; /* his own proof, another's key: bound already, or not yet */
	assert(bind_with(&w, &mallory, &mallory.proof, cookie) == UDP_CLIENTS_DROP);
	mallory.public = w.nodes[2].public;
	assert(bind_with(&w, &mallory, &mallory.proof, cookie) == UDP_CLIENTS_DROP);
	assert(counters(&w).refused_proof == 2 && counters(&w).clients == 1 && ping_works(&w, a));
	end(&w);
}

static void test_binds_are_ordered_by_their_cookies_not_by_their_clocks(void)
{
	struct world w;
	begin(&w);
	struct node *a = &w.nodes[0];
	uint8_t early[RELAY_UDP_COOKIE_LEN];
	ask(&w, &a->at, early);
	bound(&w, 0);
	a->number += 1000;

	assert(bind_with(&w, a, &a->proof, early) == UDP_CLIENTS_ANSWER);
	assert(w.answer.type == RELAY_UDP_REFUSED && w.answer.refused.reason == RELAY_UDP_OLD &&
	       w.answer.refused.number == a->number && answer_is_of(&w, a) && counters(&w).refused_old == 1);
	assert(ping_works(&w, a));
	a->number = 0; /* whatever it is */
	assert(ping_works(&w, bound(&w, 0)));
	end(&w);
}

/* Who records a bind can only repeat it from the same address, and that changes nothing. */
static void test_a_client_that_stays_for_a_month_can_still_bind_anew(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0);

	for (int day = 0; day < 30; day++)
		for (int i = 0; i < 24 * 3600 / 20; i++) {
			w.now_ns += 20 * SECOND;
			assert(ping_works(&w, a));
		}
	a->at.port++; /* milliseconds in 32 bits have wrapped half way meanwhile */
	assert(try_to_bind(&w, a) == UDP_CLIENTS_ANSWER);
	take_bound(&w, a);
	assert(ping_works(&w, a));
	end(&w);
}

static void test_a_recorded_bind_is_worth_nothing(void)
{
	struct world w;
	begin(&w);
	struct node *a = &w.nodes[0];
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	ask(&w, &a->at, cookie);
	assert(bind_with(&w, a, &a->proof, cookie) == UDP_CLIENTS_ANSWER);
	take_bound(&w, a);
	struct node recorded = *a;
	a->at = address(9, 9);
	bound(&w, 0);

	assert(bind_with(&w, &recorded, &recorded.proof, cookie) == UDP_CLIENTS_ANSWER);
	assert(w.answer.type == RELAY_UDP_REFUSED && ping_works(&w, a));
	for (unsigned s = 0; s < 70; s++) { /* not even kept alive */
		w.now_ns += SECOND;
		udp_clients_tick(w.clients, w.now_ns);
		(void)bind_with(&w, &recorded, &recorded.proof, cookie);
	}
	assert(counters(&w).clients == 0);
	end(&w);
}

/* Who was sent away is not brought back by whoever recorded how it came. */
static void test_a_recorded_bind_is_worth_nothing_when_its_client_has_left(void)
{
	struct world w;
	begin(&w);
	struct node *a = &w.nodes[0];
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	ask(&w, &a->at, cookie);
	assert(bind_with(&w, a, &a->proof, cookie) == UDP_CLIENTS_ANSWER);
	take_bound(&w, a);

	udp_clients_set_draining(w.clients, true);
	udp_clients_send_away(w.clients, 1, 0, w.now_ns, send_to);
	pass(&w, 10, NULL);
	udp_clients_set_draining(w.clients, false);
	assert(counters(&w).clients == 0);
	assert(bind_with(&w, a, &a->proof, cookie) == UDP_CLIENTS_ANSWER && w.answer.type == RELAY_UDP_REFUSED &&
	       w.answer.refused.reason == RELAY_UDP_OLD && counters(&w).clients == 0);
	assert(ping_works(&w, bound(&w, 0))); /* it may come back itself */
	end(&w);
}

static void test_a_bind_whose_answer_was_lost_is_answered_the_same(void)
{
	struct world w;
	begin(&w);
	struct node *a = &w.nodes[0];
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	ask(&w, &a->at, cookie);

	assert(bind_with(&w, a, &a->proof, cookie) == UDP_CLIENTS_ANSWER);
	take_bound(&w, a);
	const uint32_t token = a->token;
	assert(bind_with(&w, a, &a->proof, cookie) == UDP_CLIENTS_ANSWER);
	take_bound(&w, a);
	assert(a->token == token && counters(&w).bound == 1 && counters(&w).moved == 0);
	end(&w);
}

static void test_a_full_relay_says_so_but_keeps_whom_it_has(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_clients = 1 });
	bound(&w, 0);

	assert(try_to_bind(&w, &w.nodes[1]) == UDP_CLIENTS_ANSWER);
	assert(w.answer.type == RELAY_UDP_REFUSED && w.answer.refused.reason == RELAY_UDP_FULL &&
	       w.answer.refused.retry_after_ms > 0 && answer_is_of(&w, &w.nodes[1]));
	assert(ping_works(&w, bound(&w, 0)));
	end(&w);
}

static void test_another_version_is_not_bound(void)
{
	struct world w;
	begin(&w);
	struct node *a = &w.nodes[0];
	struct relay_udp_datagram bind = { .type = RELAY_UDP_BIND,
					   .bind = { .version = 2, .node_key = a->public, .number = 99 } };
	uint8_t bytes[RELAY_UDP_MAX_LEN];
	ask(&w, &a->at, bind.bind.cookie);

	const size_t len = relay_udp_encode(bytes, sizeof(bytes), &bind);
	relay_udp_prove(&a->proof, bytes, len);
	assert(take(&w, &a->at, bytes, len) == UDP_CLIENTS_DROP && counters(&w).clients == 0);
	end(&w);
}

/* ---- moving ---- */

static void test_a_client_at_a_new_address_is_back_after_one_round_trip(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	const struct endpoint before = a->at;
	a->at = address(9, 555);

	w.now_ns += SECOND / 1000;
	assert(!ping_works(&w, a) && w.answer.type == RELAY_UDP_MOVED && w.answer.moved.what == a->token);
	a->number++;
	assert(bind_with(&w, a, &a->proof, w.answer.moved.cookie) == UDP_CLIENTS_ANSWER);
	take_bound(&w, a);
	assert(reaches(&w, a, b) && reaches(&w, b, a) && counters(&w).moved == 1);
	a->at = before; /* and the old one is nobody's */
	assert(!ping_works(&w, a));
	end(&w);
}

static void test_two_machines_with_one_key_learn_of_each_other(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0);
	const struct node first = *a;
	struct relay_udp_datagram notice;
	a->at = address(9, 555);

	assert(try_to_bind(&w, a) == UDP_CLIENTS_ANSWER && w.answer.type == RELAY_UDP_BOUND);
	assert(w.result.notice_len > 0 && is_way_of(&w.result.notice_to, &first.at));
	assert(relay_udp_decode(w.result.notice, w.result.notice_len, &notice) == 0);
	assert(notice.type == RELAY_UDP_REFUSED && notice.refused.reason == RELAY_UDP_REPLACED &&
	       notice.refused.number == first.number && notice.refused.retry_after_ms > 0);
	assert(relay_udp_is_proven(&first.proof, w.result.notice, w.result.notice_len));
	/* Both together are no longer than the bind. */
	assert(w.result.answer_len + w.result.notice_len <= 80);
	end(&w);
}

static void test_a_bind_from_the_same_address_keeps_slot_and_token(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0);
	const struct node before = *a;

	bound(&w, 0);
	assert(a->slot == before.slot && a->token == before.token && w.result.notice_len == 0);
	end(&w);
}

static void test_nobody_sends_in_anothers_name(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);

	struct node forged = *a;
	forged.at = b->at; /* right slot and token, another's address */
	assert(!reaches(&w, &forged, b));
	forged = *a;
	forged.token++;
	assert(!reaches(&w, &forged, b));
	forged = *a;
	forged.slot = b->slot; /* another's slot */
	assert(!reaches(&w, &forged, b));
	assert(counters(&w).dropped_stranger == 3 && counters(&w).packets == 0 && reaches(&w, a, b));
	end(&w);
}

/* ---- bound ---- */

static void test_a_peer_is_found_by_its_key_and_reached_by_its_slot(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	struct relay_udp_datagram find = from_node(a, RELAY_UDP_FIND, 0);

	find.node_key = b->public;
	assert(is_answered(&w, &a->at, &find, RELAY_UDP_FOUND) && w.answer.header.from == b->slot);
	assert(w.answer.header.token == a->token && public_key_equal(&w.answer.node_key, &b->public));
	find.node_key = w.nodes[2].public;
	assert(is_answered(&w, &a->at, &find, RELAY_UDP_FOUND) && w.answer.header.from == 0);
	assert(reaches(&w, a, b) && reaches(&w, b, a) && reaches(&w, a, a));
	assert(counters(&w).packets == 3 && counters(&w).bytes == 18);
	end(&w);
}

static void test_a_slot_that_is_not_known_is_found_by_its_number(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	struct relay_udp_datagram find = from_node(a, RELAY_UDP_FIND, b->slot);

	assert(is_answered(&w, &a->at, &find, RELAY_UDP_FOUND) && w.answer.header.from == b->slot);
	assert(w.answer.header.to == a->slot && public_key_equal(&w.answer.node_key, &b->public));
	find.header.to = b->slot + (1u << 20); /* the next one in b's place */
	assert(is_answered(&w, &a->at, &find, RELAY_UDP_FOUND) && w.answer.header.from == 0);
	assert(public_key_is_zero(&w.answer.node_key));
	find.header.to = 0; /* the relay */
	assert(is_answered(&w, &a->at, &find, RELAY_UDP_FOUND) && w.answer.header.from == 0);
	end(&w);
}

/* ---- trains ---- */

#define TRAIN_SIZE 30

/* n datagrams of TRAIN_SIZE bytes from a to the slot; the last has last_len. Returns the length. */
static size_t make_train(uint8_t *bytes, const struct node *a, uint32_t slot, unsigned n, size_t last_len)
{
	const struct relay_udp_header header = { RELAY_UDP_DATA, slot, a->slot, a->token };

	for (unsigned i = 0; i < n; i++) {
		relay_udp_header_encode(bytes + i * TRAIN_SIZE, &header);
		memset(bytes + i * TRAIN_SIZE + RELAY_UDP_HEADER_LEN, (int)i, TRAIN_SIZE - RELAY_UDP_HEADER_LEN);
	}
	return (n - 1) * TRAIN_SIZE + last_len;
}

static uint32_t route(struct world *w, const struct endpoint *from, uint8_t *bytes, size_t len,
		      struct udp_way **ret)
{
	const struct udp_way way = way_of(from);
	struct udp_clients_route route = { 0 };
	const uint32_t n = udp_clients_route(w->clients, &way, bytes, len, TRAIN_SIZE, w->now_ns, &route);

	*ret = route.is_dropped ? NULL : route.way;
	return n;
}

static bool is_rewritten(const uint8_t *datagram, const struct node *a, const struct node *b, int what)
{
	struct relay_udp_header header;

	return relay_udp_header_decode(datagram, TRAIN_SIZE, &header) && header.to == b->slot &&
	       header.from == a->slot && header.token == b->token && datagram[RELAY_UDP_HEADER_LEN] == what;
}

static void test_a_train_to_one_peer_is_routed_at_once(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	struct udp_way *to;
	uint8_t bytes[8 * TRAIN_SIZE];

	for (unsigned n = 1; n <= 8; n++) {
		const uint64_t before = counters(&w).packets;
		assert(route(&w, &a->at, bytes, make_train(bytes, a, b->slot, n, 20), &to) == n);
		assert(is_way_of(to, &b->at) && counters(&w).packets == before + n);
		for (unsigned i = 0; i < n; i++)
			assert(is_rewritten(bytes + i * TRAIN_SIZE, a, b, (int)i));
	}
	assert(counters(&w).bytes == 28 * 14 + 8 * 4);
	end(&w);
}

static void test_a_train_is_cut_where_its_header_changes(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1), *c = bound(&w, 2);
	struct udp_way *to;
	uint8_t bytes[5 * TRAIN_SIZE], untouched[3 * TRAIN_SIZE];
	size_t len = make_train(bytes, a, b->slot, 2, TRAIN_SIZE);
	len += make_train(bytes + len, a, c->slot, 3, TRAIN_SIZE);
	memcpy(untouched, bytes + 2 * TRAIN_SIZE, sizeof(untouched));

	assert(route(&w, &a->at, bytes, len, &to) == 2 && is_way_of(to, &b->at));
	assert(memcmp(bytes + 2 * TRAIN_SIZE, untouched, sizeof(untouched)) == 0);
	assert(route(&w, &a->at, bytes + 2 * TRAIN_SIZE, len - 2 * TRAIN_SIZE, &to) == 3 && is_way_of(to, &c->at));
	/* A last one without a packet is no data. */
	assert(route(&w, &a->at, bytes, make_train(bytes, a, b->slot, 3, RELAY_UDP_HEADER_LEN), &to) == 2);
	end(&w);
}

/* Whatever may be answered or counted is left to udp_clients_take(). */
static void test_what_cannot_be_forwarded_is_not_routed(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	struct node forged = *a;
	struct udp_way *to;
	uint8_t bytes[2 * TRAIN_SIZE];

	assert(route(&w, &b->at, bytes, make_train(bytes, a, b->slot, 2, 20), &to) == 0); /* another's address */
	forged.token++;
	assert(route(&w, &a->at, bytes, make_train(bytes, &forged, b->slot, 2, 20), &to) == 0);
	assert(route(&w, &a->at, bytes, make_train(bytes, a, 0, 2, 20), &to) == 0);
	assert(route(&w, &a->at, bytes, make_train(bytes, a, b->slot, 1, RELAY_UDP_HEADER_LEN), &to) == 0);
	assert(route(&w, &a->at, bytes, 0, &to) == 0);
	make_train(bytes, a, b->slot, 2, 20);
	bytes[3] = RELAY_UDP_PING;
	assert(route(&w, &a->at, bytes, 50, &to) == 0 && counters(&w).packets == 0);
	end(&w);
}

/* ---- limits ---- */

static void test_a_client_sends_no_faster_than_its_rate(void)
{
	struct world w;
	/* 1 Mb/s: 64 KiB at once, the room that any packet needs, and 125 bytes a millisecond. */
	begin_with(&w, (struct udp_clients_config){ .max_rate_client = 1000000 });
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	struct udp_way *to;
	uint8_t bytes[8 * TRAIN_SIZE];
	uint32_t n = 0;

	for (int i = 0; i < 1000; i++)
		n += route(&w, &a->at, bytes, make_train(bytes, a, b->slot, 8, TRAIN_SIZE), &to) * (to != NULL);
	assert(n == 65536 / TRAIN_SIZE && counters(&w).packets == n && counters(&w).dropped_rate > 5000);
	assert(ping_works(&w, a) && reaches(&w, b, a)); /* another's is its own */
	w.now_ns += SECOND / 1000;
	assert(route(&w, &a->at, bytes, make_train(bytes, a, b->slot, 8, TRAIN_SIZE), &to) == 4); /* cut */
	assert(route(&w, &a->at, bytes, make_train(bytes, a, b->slot, 8, TRAIN_SIZE), &to) == 8 && !to);
	end(&w);
}

static void test_all_together_send_no_faster_than_the_relays_rate(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_rate = 1000000 });
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	unsigned n = 0;

	for (int i = 0; i < 2000; i++)
		n += reaches(&w, a, b) + reaches(&w, b, a);
	assert(n == 65536 / 22 && counters(&w).dropped_rate == 4000 - n);
	end(&w);
}

static void test_what_the_relays_rate_refuses_is_not_charged_to_its_sender(void)
{
	struct world w;
	/* Room for 64 KiB each; in 400 ms a third of a train comes back to a client, and three trains to the relay. */
	begin_with(&w, (struct udp_clients_config){ .max_rate_client = 100000, .max_rate = 1000000 });
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	struct udp_way *to;
	uint8_t bytes[600 * TRAIN_SIZE];

	for (int i = 0; i < 5; i++)
		assert(route(&w, &b->at, bytes, make_train(bytes, b, a->slot, 600, TRAIN_SIZE), &to) > 0);
	assert(!to && counters(&w).packets == 65536 / TRAIN_SIZE); /* all is spent */
	for (int i = 0; i < 5; i++)
		assert(route(&w, &a->at, bytes, make_train(bytes, a, b->slot, 500, TRAIN_SIZE), &to) == 500 && !to);
	w.now_ns += 400 * (SECOND / 1000);
	assert(route(&w, &a->at, bytes, make_train(bytes, a, b->slot, 500, TRAIN_SIZE), &to) == 500 && to);
	end(&w);
}

/* Sends n packets in this round; how many pass. */
static unsigned n_that_pass(struct world *w, const struct node *from, const struct node *to, unsigned n)
{
	unsigned passed = 0;

	for (unsigned i = 0; i < n; i++)
		passed += reaches(w, from, to);
	return passed;
}

static void test_when_too_much_comes_in_those_that_send_most_lose(void)
{
	struct world w;
	begin(&w);
	struct node *fast = bound(&w, 0), *a = bound(&w, 1), *b = bound(&w, 2), *c = bound(&w, 3);
	unsigned before = 3001;

	for (int round = 0; round < 4; round++) { /* each carries less of the fast one, and all of the others */
		const unsigned n = n_that_pass(&w, fast, a, 3000);
		assert(round == 0 ? n == 3000 : n < before && n >= 1000);
		assert(n_that_pass(&w, a, b, 10) == 10 && n_that_pass(&w, b, c, 10) == 10 &&
		       n_that_pass(&w, c, a, 10) == 10);
		udp_clients_end_round(w.clients, true);
		before = n;
	}
	assert(counters(&w).dropped_unfair > 1000);
	for (int round = 0; round < 100; round++)
		udp_clients_end_round(w.clients, false);
	assert(n_that_pass(&w, fast, a, 3000) == 3000);
	end(&w);
}

static void test_of_a_train_that_passes_in_part_each_packet_counts_once(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_rate_client = 1000000 }); /* 64 KiB at once: 2184 packets */
	struct node *fast = bound(&w, 0), *a = bound(&w, 1), *b = bound(&w, 2), *c = bound(&w, 3);
	struct udp_way *to;
	uint8_t bytes[1000 * TRAIN_SIZE];

	for (int i = 0; i < 2; i++)
		assert(route(&w, &fast->at, bytes, make_train(bytes, fast, a->slot, 1000, TRAIN_SIZE), &to) == 1000 && to);
	assert(route(&w, &fast->at, bytes, make_train(bytes, fast, a->slot, 1000, TRAIN_SIZE), &to) == 184 && to);
	assert(route(&w, &fast->at, bytes, make_train(bytes, fast, a->slot, 816, TRAIN_SIZE), &to) == 816 && !to);
	assert(n_that_pass(&w, a, b, 10) == 10 && n_that_pass(&w, b, c, 10) == 10 && n_that_pass(&w, c, a, 10) == 10);
	udp_clients_end_round(w.clients, true); /* a quarter less than 3000 */
	n_that_pass(&w, fast, a, 2300);
	assert(counters(&w).dropped_unfair == 2300 - 2250);
	end(&w);
}

static void test_one_who_sends_alone_loses_nothing(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);

	for (int round = 0; round < 10; round++) {
		assert(n_that_pass(&w, a, b, 1000) == 1000 && (round % 2 || n_that_pass(&w, b, a, 900) == 900));
		udp_clients_end_round(w.clients, true);
	}
	end(&w);
}

/* Nodes that never answer: only so many, and others are not concerned. */
static void test_a_client_cannot_send_to_everybody(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_contacts = 2 });
	struct node *a = bound(&w, 0), *b = bound(&w, 1), *c = bound(&w, 2), *d = bound(&w, 3);

	assert(reaches(&w, a, b) && reaches(&w, a, c) && reaches(&w, a, b));
	assert(!reaches(&w, a, d) && counters(&w).dropped_contacts == 1);
	assert(reaches(&w, a, b) && reaches(&w, a, c)); /* those it knows */
	assert(reaches(&w, c, a)); /* an answer makes room for another */
	assert(reaches(&w, a, d) && reaches(&w, d, a) && reaches(&w, a, d));
	end(&w);
}

static void test_whoever_was_written_to_may_answer(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_contacts = 1 });
	struct node *a = bound(&w, 0), *b = bound(&w, 1), *c = bound(&w, 2), *d = bound(&w, 3);

	assert(reaches(&w, b, a) && reaches(&w, c, a) && reaches(&w, d, a));
	assert(reaches(&w, a, b) && reaches(&w, a, c) && reaches(&w, a, d));
	end(&w);
}

static void test_asking_for_nodes_that_are_not_here_is_limited(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_contacts = 16 });
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	struct relay_udp_datagram find = from_node(a, RELAY_UDP_FIND, 0);
	unsigned n = 0;

	for (uint32_t i = 1; i <= 1100; i++) {
		find.node_key = (struct public_key){ { (uint8_t)i, (uint8_t)(i >> 8), 1 } };
		n += say(&w, &a->at, &find) == UDP_CLIENTS_ANSWER;
	}
	assert(n == 1024 && counters(&w).dropped_contacts == 1100 - 1024);
	assert(reaches(&w, a, b)); /* that is another matter */
	find.node_key = b->public; /* those that are, never */
	assert(is_answered(&w, &a->at, &find, RELAY_UDP_FOUND));
	w.now_ns += SECOND;
	find.node_key.bytes[0]++;
	assert(is_answered(&w, &a->at, &find, RELAY_UDP_FOUND) && w.answer.header.from == 0);
	end(&w);
}

static void test_a_slot_comes_back_only_after_all_others_that_are_free(void)
{
	struct world w;
	uint32_t seen[40];
	begin(&w);

	for (int i = 0; i < 40; i++) { /* of 63 at first */
		seen[i] = bound(&w, 0)->slot & 0xfffff;
		for (int j = 0; j < i; j++)
			assert(seen[j] != seen[i]);
		w.nodes[0].is_member = false;
		udp_clients_recheck_members(w.clients, send_to);
		w.nodes[0].is_member = true;
		w.n_sent = 0;
	}
	end(&w);
}

static bool is_told_gone(struct world *w, const struct node *a, uint32_t slot)
{
	const struct relay_udp_datagram data = from_node(a, RELAY_UDP_DATA, slot);

	return is_answered(w, &a->at, &data, RELAY_UDP_GONE) && w->answer.header.from == slot &&
	       w->answer.header.to == a->slot && w->answer.header.token == a->token;
}

/* ---- clients elsewhere ---- */

static void arrive_elsewhere(struct world *w, const struct node *node)
{
	udp_clients_add_elsewhere(w->clients, &node->public, w->now_ns);
}

/* The slot by which a knows b; 0: b is not here. */
static uint32_t slot_of(struct world *w, const struct node *a, const struct node *b)
{
	struct relay_udp_datagram find = from_node(a, RELAY_UDP_FIND, 0);

	find.node_key = b->public;
	assert(is_answered(w, &a->at, &find, RELAY_UDP_FOUND));
	return w->answer.header.from;
}

/* Does a train of a's to the slot go elsewhere, to b, untouched? */
static bool is_carried(struct world *w, const struct node *a, uint32_t slot, const struct node *b)
{
	const struct udp_way from = way_of(&a->at);
	uint8_t bytes[3 * TRAIN_SIZE], untouched[sizeof(bytes)];
	const size_t len = make_train(bytes, a, slot, 3, 20);
	struct udp_clients_route route;

	memcpy(untouched, bytes, len);
	if (udp_clients_route(w->clients, &from, bytes, len, TRAIN_SIZE, w->now_ns, &route) != 3 || route.way)
		return false;
	assert(public_key_equal(route.from, &a->public) && public_key_equal(route.to, &b->public));
	return memcmp(bytes, untouched, len) == 0;
}

/* Does a packet of a's, who is elsewhere, go to b over UDP, with both slots in its header? */
static bool comes_from_elsewhere(struct world *w, const struct node *a, uint32_t slot, const struct node *b)
{
	struct relay_udp_header header;
	struct udp_way *way;

	if (udp_clients_route_from_elsewhere(w->clients, &a->public, &b->public, 99, w->now_ns, &way, &header) !=
	    UDP_CLIENTS_HERE)
		return false;
	assert(header.type == RELAY_UDP_DATA && header.from == slot && header.to == b->slot &&
	       header.token == b->token);
	return is_way_of(way, &b->at);
}

/* Does it go back there, because b is reached there, too? */
static bool stays_elsewhere(struct world *w, const struct node *a, const struct node *b)
{
	struct relay_udp_header header;
	struct udp_way *way;

	return udp_clients_route_from_elsewhere(w->clients, &a->public, &b->public, 99, w->now_ns, &way, &header) ==
	       UDP_CLIENTS_ELSEWHERE;
}

/* Since the last question, was it said so often that the node is reached here, and not any more? */
static bool were_told(struct world *w, const struct node *node, unsigned n_reached, unsigned n_unreached)
{
	const bool is_so = w->n_reached == n_reached && w->n_unreached == n_unreached &&
			   (n_reached + n_unreached == 0 || public_key_equal(&w->last_told, &node->public));

	w->n_reached = w->n_unreached = 0;
	return is_so;
}

static void test_clients_elsewhere_are_found_and_reached(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = &w.nodes[1], *c = &w.nodes[2];
	assert(slot_of(&w, a, b) == 0 && !comes_from_elsewhere(&w, b, 0, a));

	arrive_elsewhere(&w, b);
	arrive_elsewhere(&w, c);
	const uint32_t slot = slot_of(&w, a, b);
	assert(slot != 0 && slot != slot_of(&w, a, c) && counters(&w).clients == 1);
	assert(is_carried(&w, a, slot, b) && comes_from_elsewhere(&w, b, slot, a));
	assert(stays_elsewhere(&w, b, c)); /* both are elsewhere: nothing for us */
	udp_clients_remove_elsewhere(w.clients, &b->public);
	assert(slot_of(&w, a, b) == 0 && !is_carried(&w, a, slot, b) && !comes_from_elsewhere(&w, b, slot, a));
	end(&w);
}

static void test_nobody_speaks_over_udp_for_a_client_elsewhere(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = &w.nodes[1];
	arrive_elsewhere(&w, b);

	b->slot = slot_of(&w, a, b); /* it has no token, and no address: not even those that are all zero */
	b->token = 0;
	const struct relay_udp_datagram ping = from_node(b, RELAY_UDP_PING, 0);
	const struct endpoint nowhere = { 0 };
	assert(is_answered(&w, &b->at, &ping, RELAY_UDP_MOVED) && is_answered(&w, &nowhere, &ping, RELAY_UDP_MOVED));
	udp_clients_say_restart(w.clients, 1, send_to);
	assert(w.n_sent == 1 && was_told(&w, a, RELAY_UDP_RESTART));
	end(&w);
}

static void test_a_node_keeps_its_slot_when_it_changes_between_udp_and_tls(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	const uint32_t slot = b->slot;

	arrive_elsewhere(&w, b);
	pass(&w, 60, a); /* b has lost UDP */
	assert(counters(&w).clients == 1 && slot_of(&w, a, b) == slot && is_carried(&w, a, slot, b));
	bound(&w, 1);
	assert(b->slot == slot && is_carried(&w, a, slot, b) && reaches(&w, b, a) && reaches(&w, a, b));
	udp_clients_remove_elsewhere(w.clients, &b->public);
	assert(slot_of(&w, a, b) == slot && reaches(&w, a, b));
	end(&w);
}

static void test_who_is_here_and_elsewhere_is_reached_the_way_its_last_packet_came(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);

	w.now_ns += SECOND;
	arrive_elsewhere(&w, b);
	assert(is_carried(&w, a, b->slot, b));
	w.now_ns += SECOND;
	assert(ping_works(&w, b) && is_carried(&w, a, b->slot, b));
	bound(&w, 1);
	assert(is_carried(&w, a, b->slot, b));
	w.now_ns += SECOND;
	assert(reaches(&w, b, a) && reaches(&w, a, b));
	w.now_ns += SECOND;
	assert(comes_from_elsewhere(&w, b, b->slot, a) && is_carried(&w, a, b->slot, b));
	end(&w);
}

static void test_it_is_said_elsewhere_once_who_is_reached_here_and_taken_back(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	assert(reaches(&w, b, a) && were_told(&w, b, 0, 0)); /* it is nowhere else */

	arrive_elsewhere(&w, b);
	w.now_ns += SECOND;
	assert(is_carried(&w, a, b->slot, b) && were_told(&w, b, 0, 0));
	assert(reaches(&w, b, a) && reaches(&w, b, a) && were_told(&w, b, 1, 0));
	w.now_ns += SECOND;
	arrive_elsewhere(&w, b); /* also if that it was reached here is heard there only after it came */
	assert(were_told(&w, b, 0, 1));
	arrive_elsewhere(&w, b);
	assert(were_told(&w, b, 0, 0));
	w.now_ns += SECOND;
	assert(is_told_gone(&w, b, 0xabcde) && were_told(&w, b, 1, 0)); /* any packet of it counts */
	end(&w);
}

static void test_who_moves_while_it_is_elsewhere_is_reached_here(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	arrive_elsewhere(&w, b);

	b->at = address(9, 555);
	bound(&w, 1);
	assert(were_told(&w, b, 1, 0) && reaches(&w, a, b));
	end(&w);
}

static void test_who_is_lost_here_is_reached_elsewhere_at_once(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	arrive_elsewhere(&w, b);
	arrive_elsewhere(&w, a);
	w.now_ns += SECOND;
	assert(is_carried(&w, b, a->slot, a) && were_told(&w, b, 1, 0) && !stays_elsewhere(&w, a, b));

	b->is_member = false;
	udp_clients_recheck_members(w.clients, send_to);
	b->is_member = true;
	assert(were_told(&w, b, 0, 1) && stays_elsewhere(&w, a, b)); /* what is on its way from there, too */
	bound(&w, 1);
	assert(were_told(&w, b, 0, 0) && stays_elsewhere(&w, a, b)); /* it has sent nothing here yet */
	w.now_ns += SECOND;
	assert(is_carried(&w, b, a->slot, a) && were_told(&w, b, 1, 0));
	udp_clients_remove_elsewhere(w.clients, &b->public); /* and may come back there before it hears of this */
	w.now_ns += 46 * SECOND;
	udp_clients_tick(w.clients, w.now_ns);
	assert(were_told(&w, b, 0, 1));
	end(&w);
}

/* It had UDP and TLS, and turns to TLS, but has nothing to say. */
static void test_who_only_pings_elsewhere_is_reached_there_when_it_was_silent_here_for_a_second(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	arrive_elsewhere(&w, b);
	w.now_ns += SECOND;
	assert(reaches(&w, b, a) && were_told(&w, b, 1, 0));

	w.now_ns += SECOND - 1;
	udp_clients_ping_elsewhere(w.clients, &b->public, w.now_ns);
	assert(were_told(&w, b, 0, 0) && reaches(&w, a, b));
	w.now_ns++;
	udp_clients_ping_elsewhere(w.clients, &b->public, w.now_ns);
	assert(were_told(&w, b, 0, 1) && is_carried(&w, a, b->slot, b));
	udp_clients_ping_elsewhere(w.clients, &w.nodes[2].public, w.now_ns); /* of whom we know nothing */
	udp_clients_ping_elsewhere(w.clients, &a->public, w.now_ns);	     /* is here only */
	assert(were_told(&w, b, 0, 0) && counters(&w).clients == 2);
	end(&w);
}

static void test_a_removed_member_that_is_elsewhere_loses_udp(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	arrive_elsewhere(&w, b);

	b->is_member = false;
	udp_clients_recheck_members(w.clients, send_to);
	assert(was_told(&w, b, RELAY_UDP_NOT_ADMITTED) && counters(&w).clients == 1);
	assert(slot_of(&w, a, b) != 0); /* until TLS has thrown it out as well */
	udp_clients_remove_elsewhere(w.clients, &b->public);
	assert(slot_of(&w, a, b) == 0);
	udp_clients_recheck_members(w.clients, send_to);
	end(&w);
}

/* ---- who has gone ---- */

static void test_what_is_meant_for_who_has_gone_does_not_reach_the_next(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	w.nodes[1].is_member = false;
	udp_clients_recheck_members(w.clients, send_to);
	const struct node *c = bound(&w, 2);

	for (int i = 0; (c->slot & 0xfffff) != (b->slot & 0xfffff); i++) { /* until it has that one's place */
		assert(i < 63);
		w.nodes[2].is_member = false;
		udp_clients_recheck_members(w.clients, send_to);
		w.nodes[2].is_member = true;
		w.n_sent = 0;
		c = bound(&w, 2);
	}
	assert(c->slot != b->slot);
	assert(is_told_gone(&w, a, b->slot) && reaches(&w, a, c));
	assert(is_told_gone(&w, a, 0) && is_told_gone(&w, a, UINT32_MAX));
	assert(counters(&w).dropped_unknown == 3);
	end(&w);
}

static void test_gone_is_said_ten_times_a_second(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0);
	unsigned n = 0;

	for (int i = 0; i < 100; i++)
		n += is_told_gone(&w, a, 4711);
	assert(n == 10 && counters(&w).dropped_unknown == 100);
	w.now_ns += SECOND;
	assert(is_told_gone(&w, a, 4711));
	end(&w);
}

/* ---- leaving ---- */

static void test_a_removed_member_is_told_and_loses_the_relay_at_once(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	w.nodes[0].is_member = false;

	udp_clients_recheck_members(w.clients, send_to);
	assert(w.n_sent == 1 && was_told(&w, a, RELAY_UDP_NOT_ADMITTED));
	assert(!ping_works(&w, a) && ping_works(&w, b) && !reaches(&w, a, b));
	assert(counters(&w).closed_removed == 1 && counters(&w).clients == 1);
	assert(try_to_bind(&w, &w.nodes[0]) == UDP_CLIENTS_DROP);
	end(&w);
}

static void test_the_silent_are_forgotten_after_45_seconds(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);

	pass(&w, 45, a);
	assert(counters(&w).clients == 2 && reaches(&w, a, b));
	pass(&w, 10, a); /* the array is looked at in parts */
	assert(counters(&w).clients == 1 && counters(&w).closed_silent == 1 && ping_works(&w, a));
	assert(!ping_works(&w, b) && w.answer.type == RELAY_UDP_MOVED);
	pass(&w, 1000, a);
	assert(ping_works(&w, a) && ping_works(&w, bound(&w, 1)));
	end(&w);
}

/* Who had the address knows slot and token, but not what the relay says to its new owner. */
static void test_a_client_stays_only_while_it_hears_the_relay(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	assert(ping_works(&w, a));
	const uint32_t last_heard = a->challenge;

	for (unsigned s = 0; s < 200; s++) {
		w.now_ns += SECOND;
		udp_clients_tick(w.clients, w.now_ns);
		a->challenge = last_heard;
		(void)ping_works(&w, a);
		(void)reaches(&w, a, b);
	}
	assert(counters(&w).clients == 0);
	end(&w);
}

static void test_a_clock_that_goes_back_forgets_nobody(void)
{
	struct world w;
	begin(&w);
	bound(&w, 0);

	for (int i = 0; i < 16; i++)
		udp_clients_tick(w.clients, w.now_ns - SECOND);
	assert(counters(&w).clients == 1);
	end(&w);
}

static void test_a_relay_that_drains_sends_its_clients_away_and_takes_none(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	bound(&w, 2);

	udp_clients_set_draining(w.clients, true);
	udp_clients_send_away(w.clients, 2, 99, w.now_ns, send_to);
	assert(w.n_sent == 2 && reaches(&w, a, b)); /* what is on its way still arrives */
	udp_clients_send_away(w.clients, 2, 99, w.now_ns, send_to);
	assert(w.n_sent == 3);
	for (unsigned i = 0; i < 3; i++)
		assert(was_told(&w, &w.nodes[i], RELAY_UDP_RESTART));
	assert(try_to_bind(&w, &w.nodes[3]) == UDP_CLIENTS_ANSWER && w.answer.type == RELAY_UDP_REFUSED);
	assert(w.answer.refused.reason == RELAY_UDP_RESTART && w.answer.refused.retry_after_ms > 0);
	b->at.port++; /* nor does a new address let one stay */
	assert(try_to_bind(&w, b) == UDP_CLIENTS_ANSWER && w.answer.type == RELAY_UDP_REFUSED);
	pass(&w, 4, a);
	assert(counters(&w).clients == 3 && ping_works(&w, a));
	pass(&w, 2, a);
	assert(counters(&w).clients == 0 && counters(&w).closed_drained == 3 && counters(&w).refused_draining == 2);
	udp_clients_set_draining(w.clients, false);
	assert(ping_works(&w, bound(&w, 0)));
	pass(&w, 60, a);
	assert(counters(&w).clients == 1);
	end(&w);
}

static void test_all_are_told_that_the_relay_restarts(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);

	udp_clients_say_restart(w.clients, 500, send_to);
	assert(w.n_sent == 2 && was_told(&w, a, RELAY_UDP_RESTART) && was_told(&w, b, RELAY_UDP_RESTART));
	end(&w);
}

/* ---- strangers ---- */

static void test_who_has_proven_nothing_gets_so_many_answers_a_second(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_answers = 50 });
	const struct relay_udp_datagram question = { .type = RELAY_UDP_ASK };
	const struct relay_udp_datagram ping = from_node(&w.nodes[0], RELAY_UDP_PING, 0);
	struct node *a = bound(&w, 1), *b = bound(&w, 2);
	struct endpoint from = address(7, 1);
	unsigned n = 2;

	for (from.port = 1; from.port < 1000; from.port++) {
		n += say(&w, &from, &question) == UDP_CLIENTS_ANSWER;
		n += say(&w, &from, &ping) == UDP_CLIENTS_ANSWER;
	}
	assert(n == 50 && counters(&w).dropped_limited == 999 * 2 - 48);
	assert(ping_works(&w, a) && reaches(&w, a, b)); /* who is bound needs none of these */
	w.now_ns += SECOND;
	assert(ping_works(&w, bound(&w, 3)));
	end(&w);
}

static void test_what_is_too_short_for_an_answer_costs_nobody_one(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_answers = 1 });
	struct relay_udp_datagram data = from_node(&w.nodes[0], RELAY_UDP_DATA, 1);
	const struct endpoint from = address(7, 1);
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];

	for (data.packet.len = 1; data.packet.len < 8; data.packet.len++) {
		data.packet.bytes = (const uint8_t *)"1234567";
		assert(say(&w, &from, &data) == UDP_CLIENTS_DROP);
	}
	ask(&w, &from, cookie);
	end(&w);
}

static void test_a_proof_is_computed_once_for_each_member(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_proofs = 2 });
	bound(&w, 0);
	bound(&w, 1);

	/* Forged binds of known members cost no computation … */
	struct node forged = w.nodes[3];
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	ask(&w, &forged.at, cookie);
	forged.public = w.nodes[0].public;
	for (int i = 0; i < 100; i++)
		assert(bind_with(&w, &forged, &forged.proof, cookie) == UDP_CLIENTS_DROP);
	assert(counters(&w).refused_proof == 100 && counters(&w).refused_busy == 0);
	/* … and two a second are computed at most. */
	assert(try_to_bind(&w, &w.nodes[2]) == UDP_CLIENTS_DROP && counters(&w).refused_busy == 1);
	pass(&w, 100, NULL);
	assert(counters(&w).clients == 0 && ping_works(&w, bound(&w, 0))); /* forgotten, but known */
	assert(ping_works(&w, bound(&w, 1)) && ping_works(&w, bound(&w, 2)) && ping_works(&w, bound(&w, 3)));
	end(&w);
}

static void test_first_binds_of_one_prefix_are_limited_apart_from_others(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_binds_source = 1 });
	w.nodes[1].at = address(1, 1);
	w.nodes[2].at = address(1, 2);

	bound(&w, 0);
	bound(&w, 1); /* twice the rate at once */
	assert(try_to_bind(&w, &w.nodes[2]) == UDP_CLIENTS_DROP && counters(&w).refused_busy == 1);
	assert(ping_works(&w, bound(&w, 3)) && ping_works(&w, bound(&w, 0)));
	end(&w);
}

/* A restart: slots that were found before are nobody's, and that shows. */
static void test_another_run_of_the_relay_has_another_epoch(void)
{
	struct world w, again;
	begin(&w);
	begin(&again);

	const struct node *a = bound(&w, 0), *b = bound(&again, 0);
	assert(a->epoch != b->epoch);
	end(&w);
	end(&again);
}

static void test_nothing_is_said_to_what_only_a_relay_says(void)
{
	static const enum relay_udp_type types[] = { RELAY_UDP_COOKIE,  RELAY_UDP_BOUND, RELAY_UDP_REFUSED, RELAY_UDP_MOVED,
						     RELAY_UDP_FOUND, RELAY_UDP_PONG,	 RELAY_UDP_GONE };
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0);

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct relay_udp_datagram d = from_node(a, types[i], 0);
		if (types[i] == RELAY_UDP_BOUND)
			d.bound.slot = 1;
		assert(say(&w, &a->at, &d) == UDP_CLIENTS_DROP);
	}
	uint8_t garbage[64] = { 0 };
	for (size_t len = 0; len <= sizeof(garbage); len++)
		assert(take(&w, &a->at, garbage, len) == UDP_CLIENTS_DROP);
	assert(counters(&w).malformed == ARRAY_LEN(types) + sizeof(garbage) + 1);
	end(&w);
}

/* ---- handing over ---- */

#define N_SOCKETS 5000 /* their numbers are ports here */

static int hand_over(struct world *w, uint64_t pause_ns)
{
	struct udp_clients_config config = w->config;
	uint8_t *saved;
	size_t len;

	udp_clients_save(w->clients, w->now_ns, &saved, &len);
	udp_clients_free(w->clients);
	w->now_ns += pause_ns;
	const int r = udp_clients_new_from(&config, saved, len, N_SOCKETS, w->now_ns, &w->clients);
	free(saved);
	if (r != 0)
		assert(udp_clients_new(&config, &w->clients) == 0);
	return r;
}

static void test_nobody_notices_that_another_relay_runs(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	bound(&w, 2);

	assert(hand_over(&w, SECOND) == 0 && counters(&w).clients == 3);
	assert(reaches(&w, a, b) && reaches(&w, b, a) && reaches(&w, &w.nodes[2], a));
	/* A ping is answered with a cookie, and bound it is anew, with the same slot and token. */
	const struct node before = *a;
	assert(!ping_works(&w, a) && w.answer.type == RELAY_UDP_MOVED && w.answer.moved.what == a->token);
	a->number++;
	assert(bind_with(&w, a, &a->proof, w.answer.moved.cookie) == UDP_CLIENTS_ANSWER);
	take_bound(&w, a);
	assert(a->slot == before.slot && a->token == before.token && a->epoch == before.epoch);
	assert(ping_works(&w, a) && reaches(&w, a, b));
	/* Others find places that are free. */
	const struct node *d = bound(&w, 3);
	assert(d->slot != a->slot && d->slot != b->slot && reaches(&w, d, b) && reaches(&w, b, d));
	end(&w);
}

static uint32_t generation_of(uint32_t slot)
{
	return slot >> 20;
}

static void test_generations_go_on_when_another_relay_runs(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	const uint32_t of_one_who_left = a->slot, of_one_handed_over = b->slot;

	pass(&w, 46, b);
	assert(counters(&w).clients == 1 && hand_over(&w, SECOND) == 0);
	const struct node *c = bound(&w, 2);
	assert((c->slot & 0xfffff) == (of_one_who_left & 0xfffff)); /* the first free place */
	assert(generation_of(c->slot) == ((generation_of(of_one_who_left) + 1) & 0xfff));

	pass(&w, 46, &w.nodes[2]);
	assert(counters(&w).clients == 1 && hand_over(&w, SECOND) == 0);
	const struct node *d = bound(&w, 3);
	assert((d->slot & 0xfffff) == (of_one_handed_over & 0xfffff));
	assert(generation_of(d->slot) == ((generation_of(of_one_handed_over) + 1) & 0xfff));
	end(&w);
}

/* Its slot was a client's of the relay before, to which nobody's packets must go. */
static void test_the_slot_of_who_was_elsewhere_is_not_used_again_at_once(void)
{
	struct world w;
	begin(&w);
	struct node *a = bound(&w, 0), *b = &w.nodes[1];
	arrive_elsewhere(&w, b);
	const uint32_t slot = slot_of(&w, a, b);

	assert(hand_over(&w, SECOND) == 0 && is_told_gone(&w, a, slot));
	bound(&w, 2); /* in the first free place */
	assert((w.nodes[2].slot & 0xfffff) == (slot & 0xfffff));
	assert(generation_of(w.nodes[2].slot) == ((generation_of(slot) + 1) & 0xfff));
	end(&w);
}

static void test_a_bind_recorded_before_another_relay_runs_is_worth_nothing(void)
{
	struct world w;
	begin(&w);
	struct node *a = &w.nodes[0];
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	bound(&w, 1);
	ask(&w, &a->at, cookie);
	assert(bind_with(&w, a, &a->proof, cookie) == UDP_CLIENTS_ANSWER);
	take_bound(&w, a);

	udp_clients_send_away(w.clients, N_NODES, 0, w.now_ns, send_to);
	pass(&w, 10, NULL);
	assert(counters(&w).clients == 0 && hand_over(&w, SECOND) == 0);
	assert(bind_with(&w, a, &a->proof, cookie) == UDP_CLIENTS_ANSWER && w.answer.type == RELAY_UDP_REFUSED &&
	       w.answer.refused.reason == RELAY_UDP_OLD && counters(&w).clients == 0);
	bound(&w, 0); /* itself it may */
	end(&w);
}

static void test_who_was_handed_over_hears_so_however_many_strangers_ask(void)
{
	struct world w;
	begin_with(&w, (struct udp_clients_config){ .max_answers = 2 });
	struct node *a = bound(&w, 0), *b = bound(&w, 1);
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
	const struct endpoint stranger = address(7, 1);
	const struct relay_udp_datagram question = { .type = RELAY_UDP_ASK };

	assert(hand_over(&w, SECOND) == 0);
	ask(&w, &stranger, cookie);
	ask(&w, &stranger, cookie);
	assert(say(&w, &stranger, &question) == UDP_CLIENTS_DROP);
	assert(!ping_works(&w, a) && w.answer.type == RELAY_UDP_MOVED && w.answer.moved.what == a->token);
	w.answer.type = 0;
	assert(!ping_works(&w, b) && w.answer.type == RELAY_UDP_MOVED && w.answer.moved.what == b->token);
	end(&w);
}

static void test_who_was_handed_over_is_forgotten_like_others(void)
{
	struct world w;
	begin(&w);
	bound(&w, 0);
	struct node *b = bound(&w, 1);

	assert(hand_over(&w, SECOND) == 0);
	b->is_member = false;
	udp_clients_recheck_members(w.clients, send_to);
	assert(was_told(&w, b, RELAY_UDP_NOT_ADMITTED) && counters(&w).clients == 1);
	pass(&w, 50, NULL);
	assert(counters(&w).clients == 0 && counters(&w).closed_silent == 1);
	end(&w);
}

static void test_what_was_saved_too_long_ago_is_not_taken(void)
{
	struct world w;
	begin(&w);
	bound(&w, 0);
	assert(hand_over(&w, 61 * SECOND) == UDP_CLIENTS_E_SAVED && counters(&w).clients == 0);
	bound(&w, 0);
	assert(hand_over(&w, -SECOND) == UDP_CLIENTS_E_SAVED); /* the machine was started anew */
	end(&w);
}

static void test_what_was_saved_is_taken_whole_or_not_at_all(void)
{
	struct world w;
	begin(&w);
	bound(&w, 0);
	bound(&w, 1);
	struct udp_clients_config config = w.config, others = w.config;
	struct udp_clients *clients;
	uint8_t *saved;
	size_t len;

	udp_clients_save(w.clients, w.now_ns, &saved, &len);
	for (size_t i = 0; i < len; i++) {
		assert(udp_clients_new_from(&config, saved, i, N_SOCKETS, w.now_ns, &clients) == UDP_CLIENTS_E_SAVED);
		saved[i] ^= 1;
		assert(udp_clients_new_from(&config, saved, len, N_SOCKETS, w.now_ns, &clients) == UDP_CLIENTS_E_SAVED);
		saved[i] ^= 1;
	}
	secret_key_generate(&others.node_key);
	struct udp_clients_config elsewhere = config;
	elsewhere.saved_for[0] = 1;
	assert(udp_clients_new_from(&elsewhere, saved, len, N_SOCKETS, w.now_ns, &clients) == UDP_CLIENTS_E_SAVED);
	assert(udp_clients_new_from(&others, saved, len, N_SOCKETS, w.now_ns, &clients) == UDP_CLIENTS_E_SAVED);
	assert(udp_clients_new_from(&config, saved, len, 100, w.now_ns, &clients) == UDP_CLIENTS_E_SAVED);
	config.max_clients = 1;
	assert(udp_clients_new_from(&config, saved, len, N_SOCKETS, w.now_ns, &clients) == UDP_CLIENTS_E_SAVED);
	free(saved);
	end(&w);
}

/* ---- many ---- */

static bool is_anybody(void *owner, const struct public_key *node_key)
{
	return ((const bool *)owner)[node_key->bytes[31] & 1];
}

static void count(void *owner, const struct udp_clients_client *client)
{
	uint8_t *seen = owner;
	const uint32_t i = client->slot & 0xfffff;

	assert(i > 0 && i < 4096 && !seen[i]++);
}

static uint64_t bytes_of(const struct udp_clients_client *client)
{
	return client->bytes_in + client->bytes_out;
}

/* Node i sends n packets to itself: n × 12 bytes in and out. */
static void make_busy(struct world *w, unsigned i, unsigned n)
{
	for (unsigned j = 0; j < n; j++)
		assert(reaches(w, &w->nodes[i], &w->nodes[i]));
}

static void test_the_busiest_come_first_and_who_was_busy_once_sinks(void)
{
	struct world w;
	begin(&w);
	for (unsigned i = 0; i < N_NODES; i++)
		bound(&w, i);
	assert(udp_clients_busiest(w.clients)->round == 0);

	make_busy(&w, 2, 1000);
	make_busy(&w, 1, 10);
	udp_clients_tick(w.clients, w.now_ns);
	const struct udp_clients_busiest *list = udp_clients_busiest(w.clients);
	assert(list->round == 1 && list->n == N_NODES && list->clients[0].slot == w.nodes[2].slot);
	assert(list->clients[1].slot == w.nodes[1].slot && bytes_of(&list->clients[1]) == 120);
	assert(public_key_equal(&list->clients[0].node_key, &w.nodes[2].public));
	for (unsigned i = 0; i < 20; i++) {
		make_busy(&w, 3, 5);
		udp_clients_tick(w.clients, w.now_ns);
	}
	assert(list->round == 21 && list->clients[0].slot == w.nodes[3].slot);
	assert(bytes_of(&list->clients[0]) < 12000); /* less than the other in all */
	end(&w);
}

static void ignore(void *owner, const struct udp_way *to, const uint8_t *bytes, size_t len)
{
}

/* Half of them go and as many come, again and again: places are used anew, none twice. */
static void test_thousands_come_and_go(void)
{
	struct udp_clients_config config = { .max_proofs = UINT32_MAX, .max_binds_source = 1000000 };
	static uint8_t seen[4096];
	bool admitted[2];
	struct world w = { .now_ns = SECOND };
	secret_key_generate(&config.node_key);
	secret_key_public(&config.node_key, &w.relay);
	config.owner = admitted;
	config.is_member = is_anybody;
	assert(udp_clients_new(&config, &w.clients) == 0);

	for (unsigned round = 0; round < 4; round++) {
		admitted[0] = admitted[1] = true;
		for (unsigned i = 0; i < 500; i++) {
			struct node node = { .at = address(i % 200, (uint16_t)(i + 1)) };
			secret_key_generate(&node.secret);
			secret_key_public(&node.secret, &node.public);
			assert(relay_udp_key(&node.secret, &node.public, &w.relay, false, &node.proof) == 0);
			assert(try_to_bind(&w, &node) == UDP_CLIENTS_ANSWER);
			take_bound(&w, &node);
			assert(ping_works(&w, &node));
		}
		const uint32_t n = counters(&w).clients;
		udp_clients_tick(w.clients, w.now_ns);
		assert(n > UDP_CLIENTS_BUSIEST && udp_clients_busiest(w.clients)->n == UDP_CLIENTS_BUSIEST);
		memset(seen, 0, sizeof(seen));
		udp_clients_each(w.clients, count, seen);
		admitted[round % 2] = false;
		udp_clients_recheck_members(w.clients, ignore);
		assert(counters(&w).clients < n && counters(&w).clients > 0);
	}
	end(&w);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_a_member_that_proves_address_and_key_is_bound();
	test_a_cookie_is_good_for_its_address_only();
	test_a_cookie_is_good_for_30_seconds();
	test_who_is_no_member_gets_no_answer();
	test_a_member_cannot_be_impersonated();
	test_binds_are_ordered_by_their_cookies_not_by_their_clocks();
	test_a_client_that_stays_for_a_month_can_still_bind_anew();
	test_a_recorded_bind_is_worth_nothing();
	test_a_recorded_bind_is_worth_nothing_when_its_client_has_left();
	test_a_bind_whose_answer_was_lost_is_answered_the_same();
	test_a_full_relay_says_so_but_keeps_whom_it_has();
	test_another_version_is_not_bound();
	test_a_client_at_a_new_address_is_back_after_one_round_trip();
	test_two_machines_with_one_key_learn_of_each_other();
	test_a_bind_from_the_same_address_keeps_slot_and_token();
	test_nobody_sends_in_anothers_name();
	test_a_peer_is_found_by_its_key_and_reached_by_its_slot();
	test_a_slot_that_is_not_known_is_found_by_its_number();
	test_a_train_to_one_peer_is_routed_at_once();
	test_a_train_is_cut_where_its_header_changes();
	test_what_cannot_be_forwarded_is_not_routed();
	test_a_client_sends_no_faster_than_its_rate();
	test_all_together_send_no_faster_than_the_relays_rate();
	test_what_the_relays_rate_refuses_is_not_charged_to_its_sender();
	test_when_too_much_comes_in_those_that_send_most_lose();
	test_of_a_train_that_passes_in_part_each_packet_counts_once();
	test_one_who_sends_alone_loses_nothing();
	test_a_client_cannot_send_to_everybody();
	test_whoever_was_written_to_may_answer();
	test_asking_for_nodes_that_are_not_here_is_limited();
	test_a_slot_comes_back_only_after_all_others_that_are_free();
	test_clients_elsewhere_are_found_and_reached();
	test_nobody_speaks_over_udp_for_a_client_elsewhere();
	test_a_node_keeps_its_slot_when_it_changes_between_udp_and_tls();
	test_who_is_here_and_elsewhere_is_reached_the_way_its_last_packet_came();
	test_it_is_said_elsewhere_once_who_is_reached_here_and_taken_back();
	test_who_moves_while_it_is_elsewhere_is_reached_here();
	test_who_is_lost_here_is_reached_elsewhere_at_once();
	test_who_only_pings_elsewhere_is_reached_there_when_it_was_silent_here_for_a_second();
	test_a_removed_member_that_is_elsewhere_loses_udp();
	test_what_is_meant_for_who_has_gone_does_not_reach_the_next();
	test_gone_is_said_ten_times_a_second();
	test_a_removed_member_is_told_and_loses_the_relay_at_once();
	test_the_silent_are_forgotten_after_45_seconds();
	test_a_client_stays_only_while_it_hears_the_relay();
	test_a_clock_that_goes_back_forgets_nobody();
	test_a_relay_that_drains_sends_its_clients_away_and_takes_none();
	test_all_are_told_that_the_relay_restarts();
	test_who_has_proven_nothing_gets_so_many_answers_a_second();
	test_what_is_too_short_for_an_answer_costs_nobody_one();
	test_a_proof_is_computed_once_for_each_member();
	test_first_binds_of_one_prefix_are_limited_apart_from_others();
	test_another_run_of_the_relay_has_another_epoch();
	test_nothing_is_said_to_what_only_a_relay_says();
	test_the_busiest_come_first_and_who_was_busy_once_sinks();
	test_nobody_notices_that_another_relay_runs();
	test_generations_go_on_when_another_relay_runs();
	test_the_slot_of_who_was_elsewhere_is_not_used_again_at_once();
	test_a_bind_recorded_before_another_relay_runs_is_worth_nothing();
	test_who_was_handed_over_hears_so_however_many_strangers_ask();
	test_who_was_handed_over_is_forgotten_like_others();
	test_what_was_saved_too_long_ago_is_not_taken();
	test_what_was_saved_is_taken_whole_or_not_at_all();
	test_thousands_come_and_go();
	puts("ok");
}
