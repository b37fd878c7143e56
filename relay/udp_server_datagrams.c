/*
 * What came by the sockets: STUN's questions are answered, clients' packets go on, and what else a client says is
 * answered by udp_clients.
 *
 *   message ──► is it the relay's? ─┬─ no ──► stun_server ──────────────────────────► outbox (STUN)
 *                                   └─ yes ─► udp_clients_route ─┬─ a run to UDP ───► outbox (data, probes)
 *                                                                ├─ a run to TLS ───► udp_server_carry()
 *                                                                └─ none: the first ► udp_clients_take ─► outbox (answer)
 */
#include "common/relay_wire.h"
#include "relay/udp_server_internal.h"

#include <assert.h>
#include <string.h>

#define TURN_DATAGRAMS	 2048 /* so many of one socket, and a batch, before the others have theirs */
#define PROBES_BURST	 512 /* of one client at once … */
#define PROBES_EACH_MS	 2   /* … and one in so many ms */
#define PROBES_BURST_ALL 16384 /* of all clients at once … */
#define PROBES_ALL_A_MS	 5     /* … and so many in a ms: a fortieth of a core */

static void take_question(struct udp_server *server, const struct relay_message *message, uint8_t *bytes,
			  size_t len)
{
	const uint32_t number = message->from.socket;
	const struct stun_server_question question = { .address = number / server->n_ports,
						       .port = number % server->n_ports,
						       .source = message->from.remote,
						       .asked = message->asked,
						       .now_ms = server->now_ns / MILLISECOND_NS };
	struct stun_server_answer answer;

	if (!stun_server_answer(&server->stun, &question, bytes, len, &answer))
		return;
	struct udp_way way = message->from;
	way.remote = answer.to;
	way.socket = (uint16_t)(answer.address * server->n_ports + answer.port);
	relay_outbox_add(server->outboxes[way.socket], RELAY_OUTBOX_STUN, &way, bytes, answer.len);
}

static bool is_probe(const uint8_t *bytes, size_t len)
{
	return len > RELAY_UDP_HEADER_LEN &&
	       relay_packet_is_probe(bytes + RELAY_UDP_HEADER_LEN, len - RELAY_UDP_HEADER_LEN);
}

/* A client that sends too many is held to its own share first: others lose none by it. */
static bool may_probe(struct udp_server *server, uint32_t sender)
{
	struct token_bucket *own = &server->probes_of[sender % PROBERS];

	return token_bucket_take(own, server->now_ns / MILLISECOND_NS, PROBES_BURST, PROBES_EACH_MS) &&
	       token_bucket_take(&server->probes, server->now_ns / (MILLISECOND_NS / PROBES_ALL_A_MS), PROBES_BURST_ALL,
				 1);
}

/* Each is a message of its own, and some system calls more: members ask a few times a minute. */
static void send_probe(struct udp_server *server, const struct udp_way *way, const uint8_t *bytes, size_t len)
{
	struct relay_udp_header header;

	if (relay_udp_header_decode(bytes, len, &header) && may_probe(server, header.from))
		relay_outbox_send_whole(server->outboxes[way->socket], way, bytes, len);
	else
		server->out.full[RELAY_OUTBOX_PROBE]++;
}

void udp_server_forward_run(struct udp_server *server, struct udp_way *way, const uint8_t *bytes, size_t len,
			    size_t size, uint32_t n)
{
	const bool may_probe = size >= RELAY_UDP_HEADER_LEN + RELAY_PROBE_MIN_LEN;
	size_t from = 0;

	for (size_t at = 0; at < len && may_probe; at += size) {
		const size_t left = len - at, one = left < size ? left : size;
		if (!is_probe(bytes + at, one))
			continue;
		if (at > from)
			relay_outbox_add_run(server->outboxes[way->socket], way, bytes + from, at - from, size,
					     (uint32_t)((at - from) / size));
		send_probe(server, way, bytes + at, one);
		from = at + one;
	}
	if (from == 0)
		relay_outbox_add_run(server->outboxes[way->socket], way, bytes, len, size, n);
	else if (from < len)
		relay_outbox_add_run(server->outboxes[way->socket], way, bytes + from, len - from, size,
				     (uint32_t)((len - from + size - 1) / size));
}

static void forward(struct udp_server *server, const struct udp_clients_route *route, const uint8_t *bytes,
		    size_t len, size_t size, uint32_t n)
{
	if (route->is_dropped)
		return;
	if (route->way)
		udp_server_forward_run(server, route->way, bytes, len, size, n);
	else
		udp_server_carry(server, route, bytes, len, size, n);
}

/* Answers lie where the question was: they are never longer. */
static void take_one(struct udp_server *server, const struct udp_way *from, uint8_t *bytes, size_t len)
{
	struct udp_clients_result result;

	switch (udp_clients_take(server->clients, from, bytes, len, server->now_ns, &result)) {
	case UDP_CLIENTS_DROP:
		break;
	case UDP_CLIENTS_FORWARD:
		forward(server, &result.route, bytes, len, len, 1);
		break;
	case UDP_CLIENTS_ANSWER:
		assert(result.answer_len + result.notice_len <= len);
		memcpy(bytes, result.answer, result.answer_len);
		relay_outbox_add(server->outboxes[from->socket], RELAY_OUTBOX_ANSWER, from, bytes,
				 result.answer_len);
		if (result.notice_len == 0)
			break;
		bytes += result.answer_len;
		memcpy(bytes, result.notice, result.notice_len);
		relay_outbox_add(server->outboxes[result.notice_to.socket], RELAY_OUTBOX_ANSWER, &result.notice_to,
				 bytes, result.notice_len);
		break;
	}
}

static bool is_relays(const struct udp_server *server, const uint8_t *bytes, size_t len)
{
	static const uint8_t magic[] = { RELAY_UDP_MAGIC >> 24, RELAY_UDP_MAGIC >> 16 & 0xff,
					 RELAY_UDP_MAGIC >> 8 & 0xff };

	return server->clients && len >= sizeof(magic) && memcmp(bytes, magic, sizeof(magic)) == 0;
}

/* As many of a client at once as go to one other, or the first alone. Returns how many bytes these were. */
static size_t take_of_client(struct udp_server *server, const struct relay_message *message, uint8_t *bytes, size_t left)
{
	const size_t one = left < message->size ? left : message->size;
	struct udp_clients_route route;
	const uint32_t n = udp_clients_route(server->clients, &message->from, bytes, left, message->size,
					     server->now_ns, &route);

	if (n == 0) {
		take_one(server, &message->from, bytes, one);
		return one;
	}
	const size_t len = n * message->size < left ? n * message->size : left;
	forward(server, &route, bytes, len, message->size, n);
	return len;
}

static void take_message(struct udp_server *server, const struct relay_message *message)
{
	uint8_t *bytes = message->bytes;
	size_t left = message->len;

	do {
		size_t len = left < message->size ? left : message->size;
		if (is_relays(server, bytes, len))
			len = take_of_client(server, message, bytes, left);
		else
			take_question(server, message, bytes, len);
		bytes += len;
		left -= len;
	} while (left > 0);
}

void udp_server_flush(struct udp_server *server)
{
	for (uint32_t i = 0; i < server->n_sockets; i++)
		relay_outbox_flush(server->outboxes[i], udp_server_now_s(server));
	server->n_staged = 0;
}

/* Sockets that were full have room again, perhaps, also while more and more comes in. */
static void resume(struct udp_server *server)
{
	for (uint32_t i = 0; i < server->n_sockets; i++)
		if (relay_outbox_is_waiting(server->outboxes[i]))
			relay_outbox_resume(server->outboxes[i], udp_server_now_s(server));
}

bool udp_server_serve(struct udp_server *server, const struct relay_socket *sock)
{
	size_t n_datagrams = 0;
	bool is_full = true;

	while (is_full && n_datagrams < TURN_DATAGRAMS) {
		const uint32_t n = relay_inbox_receive(server->inbox, sock, &is_full);
		if (n_datagrams > 0)
			resume(server);
		for (uint32_t m = 0; m < n; m++) {
			const struct relay_message *message = relay_inbox_message(server->inbox, m);
			server->turn.bytes += message->len;
			n_datagrams += message->len > message->size ? (message->len - 1) / message->size + 1 : 1;
			take_message(server, message);
		}
		udp_server_flush(server);
	}
	return is_full;
}
