/*
 * The thread: waits for its sockets and for the loop's word, takes batch after batch, and looks around for the
 * silent now and then.
 */
#include "relay/udp_server.h"

#include "common/clock.h"
#include "common/gathering.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/relay_wire.h"
#include "common/token_bucket.h"
#include "relay/udp_bridge.h"
#include "relay/udp_clients_saved.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define MAX_SOCKETS	 (STUN_SERVER_MAX_ADDRESSES * STUN_SERVER_MAX_PORTS)
#define TURN_DATAGRAMS	 2048 /* so many of one socket, and a batch, before the others have theirs */
#define TICK_MS		 250
#define PATIENCE	 16    /* turns, one right after the other: then the next ones are let come together … */
#define LITTLE_BYTES	 70000 /* … when the last brought no more, a train */
#define TIMER_SLACK_NS	 1000
#define RETRY_RESTART_MS 500
#define RETRY_DRAINED_MS 30000
#define NO_DRAIN	 UINT64_MAX
#define ROUND_NS	 (4 * MILLISECOND_NS) /* when there was always more to receive for so long, it piles up */
#define STAGED_BYTES	 (256u << 10)
#define MAX_CARRIED	 1024 /* packets of the bridge to UDP in one turn */
#define MAX_DELIVERED	 2048 /* of that to TLS */
#define PROBES_BURST	 512 /* of one client at once … */
#define PROBES_EACH_MS	 2   /* … and one in so many ms */
#define PROBES_BURST_ALL 16384 /* of all clients at once … */
#define PROBES_ALL_A_MS	 5     /* … and so many in a ms: a fortieth of a core */
#define PROBERS		 1024  /* clients whose slots are equal modulo that share what one may */
#define SECOND_NS	 UINT64_C(1000000000)
#define MILLISECOND_NS	 UINT64_C(1000000)
#define N_COUNTERS	 (sizeof(struct udp_server_counters) / sizeof(uint64_t))

_Static_assert(sizeof(struct udp_server_counters) % sizeof(uint64_t) == 0, "published by words");

struct udp_server {
	/* of the loop's thread */
	uv_async_t word; /* from the thread */
	pthread_t thread;
	void (*stopped)(void *owner);
	void *owner;
	struct udp_clients_busiest *busiest; /* the last that was taken; NULL: none */
	struct udp_server_options options;
	uint64_t dropped_to_udp;

	/* between both */
	_Atomic bool is_stopping, has_ended;
	_Atomic bool is_told; /* the thread was woken and has not yet looked */
	_Atomic uint64_t new_drain; /* spread in ms; NO_DRAIN */
	struct udp_bridge bridge;
	struct key_table *_Atomic new_members; /* NULL: none; whoever takes it out owns it */
	struct udp_clients_busiest *_Atomic new_busiest; /* the same, the other way */
	_Atomic uint64_t published[N_COUNTERS];
	int wake_fd;

	/* of the thread, once it runs */
	/* To wait for: word of the loop, then each socket. Not epoll: it would be told of each datagram that is freed. */
	struct pollfd waits[1 + MAX_SOCKETS];
	uint32_t n_sockets, n_ports;
	struct relay_socket sockets[MAX_SOCKETS]; /* number: address * n_ports + port */
	struct relay_outbox *outboxes[MAX_SOCKETS];
	struct relay_inbox *inbox;
	struct refused_paths refused;
	struct relay_outbox_counters out;
	struct udp_clients *clients; /* NULL: STUN alone */
	struct key_table *members;   /* NULL: none */
	struct stun_server stun;
	uint64_t now_ns, tick_ns;
	struct gathering gathering;
	struct gathering_turn turn; /* the last one, or this; of messages those that were sent */
	uint64_t busiest_round; /* told */
	uint64_t idle_ns, round_ns; /* when all that had come was received; when the round began */
	struct {
		uint64_t spread_ms; /* NO_DRAIN: all stay */
		uint64_t began_ns;
		uint32_t n_clients, n_told;
	} drain;
	struct token_bucket probes, probes_of[PROBERS];
	uint64_t dropped_to_tls;
	bool has_put; /* into the bridge, without a word yet */
	uint8_t *staged; /* datagrams of clients over TLS, until they are sent */
	size_t n_staged;
	uint8_t *saved; /* at the end */
	size_t saved_len;
};

/* ---- the thread: datagrams ---- */

static uint32_t now_s(const struct udp_server *server)
{
	return (uint32_t)(server->now_ns / SECOND_NS);
}

static void read_clock(struct udp_server *server)
{
	server->now_ns = clock_now_ns();
}

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

/* To a client over TLS: the whole run, with its headers. */
static void carry(struct udp_server *server, const struct udp_clients_route *route, const uint8_t *bytes, size_t len,
		  size_t size, uint32_t n)
{
	const struct udp_bridge_run run = {
		.from = *route->from, .to = *route->to, .size = (uint32_t)size, .len = (uint32_t)len,
		.head = RELAY_UDP_HEADER_LEN,
	};

	/* The longest datagrams of IPv6 have no room in a frame. */
	if (size - RELAY_UDP_HEADER_LEN > RELAY_MAX_PACKET)
		server->dropped_to_tls += n;
	else if (udp_bridge_put(&server->bridge.to_tls, &run, bytes))
		server->has_put = true;
	else
		server->dropped_to_tls += n;
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
	       token_bucket_take(&server->probes, server->now_ns / (MILLISECOND_NS / PROBES_ALL_A_MS), PROBES_BURST_ALL, 1);
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

/* By UDP. Probes are rare, and most runs have none; one may end with a shorter one. */
static void forward_run(struct udp_server *server, struct udp_way *way, const uint8_t *bytes, size_t len, size_t size,
			uint32_t n)
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
		forward_run(server, route->way, bytes, len, size, n);
	else
		carry(server, route, bytes, len, size, n);
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

static void take_message(struct udp_server *server, const struct relay_message *message)
{
	const struct udp_way *from = &message->from;
	struct udp_clients_route route;
	uint8_t *bytes = message->bytes;
	size_t left = message->len;

	do {
		size_t len = left < message->size ? left : message->size;
		if (!is_relays(server, bytes, len)) {
			take_question(server, message, bytes, len);
		} else {
			const uint32_t n = udp_clients_route(server->clients, from, bytes, left, message->size,
							     server->now_ns, &route);
			if (n > 0) {
				len = n * message->size < left ? n * message->size : left;
				forward(server, &route, bytes, len, message->size, n);
			} else {
				take_one(server, from, bytes, len);
			}
		}
		bytes += len;
		left -= len;
	} while (left > 0);
}

static void flush(struct udp_server *server)
{
	for (uint32_t i = 0; i < server->n_sockets; i++)
		relay_outbox_flush(server->outboxes[i], now_s(server));
	server->n_staged = 0;
}

/* Sockets that were full have room again, perhaps, also while more and more comes in. */
static void resume(struct udp_server *server)
{
	for (uint32_t i = 0; i < server->n_sockets; i++)
		if (relay_outbox_is_waiting(server->outboxes[i]))
			relay_outbox_resume(server->outboxes[i], now_s(server));
}

/* True when more waits. What waits to be sent leaves before what comes now, so that it does not pile up for a whole turn. */
static bool serve(struct udp_server *server, const struct relay_socket *sock)
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
		flush(server);
	}
	return is_full;
}

/* ---- the thread: everything else ---- */

/* What is said by itself is said at once: its bytes do not stay. */
static void send_now(void *owner, const struct udp_way *to, const uint8_t *bytes, size_t len)
{
	struct udp_server *server = owner;
	struct relay_outbox *outbox = server->outboxes[to->socket];

	relay_outbox_add(outbox, RELAY_OUTBOX_ANSWER, to, bytes, len);
	relay_outbox_flush(outbox, now_s(server));
}

static bool is_member(void *owner, const struct public_key *node_key)
{
	const struct udp_server *server = owner;

	return server->members && key_table_find(server->members, node_key) != NULL;
}

static void free_members(struct key_table *members)
{
	if (!members)
		return;
	key_table_deinit(members);
	free(members);
}

static void take_members(struct udp_server *server)
{
	struct key_table *members = atomic_exchange(&server->new_members, NULL);

	if (!members)
		return;
	free_members(server->members);
	server->members = members;
	if (server->clients)
		udp_clients_recheck_members(server->clients, send_now);
}

/* As many as are due by now. */
static void send_some_away(struct udp_server *server)
{
	const uint64_t passed_ms = (server->now_ns - server->drain.began_ns) / MILLISECOND_NS;
	const uint64_t spread_ms = server->drain.spread_ms, all = server->drain.n_clients;

	if (spread_ms == NO_DRAIN)
		return;
	const uint32_t due = (uint32_t)(passed_ms < spread_ms ? all * passed_ms / spread_ms : all);
	udp_clients_send_away(server->clients, due - server->drain.n_told, RETRY_DRAINED_MS, server->now_ns, send_now);
	server->drain.n_told = due;
}

static void take_drain(struct udp_server *server)
{
	const uint64_t spread_ms = atomic_load(&server->new_drain);

	if (spread_ms == server->drain.spread_ms)
		return;
	server->drain.spread_ms = spread_ms;
	server->drain.began_ns = server->now_ns;
	server->drain.n_clients = udp_clients_counters(server->clients).clients;
	server->drain.n_told = 0;
	udp_clients_set_draining(server->clients, spread_ms != NO_DRAIN);
	send_some_away(server);
}

static void take_note(struct udp_server *server, const struct udp_bridge_note *note)
{
	switch (note->news) {
	case UDP_BRIDGE_CAME:
		udp_clients_add_elsewhere(server->clients, &note->node_key, server->now_ns);
		break;
	case UDP_BRIDGE_LEFT:
		udp_clients_remove_elsewhere(server->clients, &note->node_key);
		break;
	case UDP_BRIDGE_PINGED:
		udp_clients_ping_elsewhere(server->clients, &note->node_key, server->now_ns);
		break;
	case UDP_BRIDGE_REACHED:
	case UDP_BRIDGE_UNREACHED:
		break; /* that is for us to say */
	}
}

static void take_notes(struct udp_server *server)
{
	struct udp_bridge_notes notes;

	if (!udp_bridge_take(&server->bridge.notes_to_udp, &notes))
		return;
	for (size_t i = 0; i < notes.n; i++)
		take_note(server, &notes.items[i]);
	free(notes.items);
}

static void tell_reached(void *owner, const struct public_key *node_key, bool is_here)
{
	struct udp_server *server = owner;

	udp_bridge_note(&server->bridge.notes_to_tls, node_key, is_here ? UDP_BRIDGE_REACHED : UDP_BRIDGE_UNREACHED);
	server->has_put = true;
}

/* Where a packet from TLS goes. The note that its sender is there may have come after we looked for notes. */
static enum udp_clients_place route_carried(struct udp_server *server, const struct udp_bridge_run *run,
					    struct udp_way **ret_way, struct relay_udp_header *ret)
{
	const enum udp_clients_place place = udp_clients_route_from_elsewhere(
		server->clients, &run->from, &run->to, run->len, server->now_ns, ret_way, ret);

	if (place != UDP_CLIENTS_NOWHERE || !atomic_load(&server->bridge.notes_to_udp.has_notes))
		return place;
	take_notes(server);
	return udp_clients_route_from_elsewhere(server->clients, &run->from, &run->to, run->len, server->now_ns,
						ret_way, ret);
}

/* A ring has one record at a time, and an outbox wants all to stay: so it is copied once more. */
static void send_carried(struct udp_server *server, struct udp_way *way, const struct relay_udp_header *header,
			 const uint8_t *bytes, size_t len)
{
	const size_t whole = RELAY_UDP_HEADER_LEN + len;

	if (server->n_staged + whole > STAGED_BYTES)
		flush(server);
	uint8_t *at = server->staged + server->n_staged;
	relay_udp_header_encode(at, header);
	memcpy(at + RELAY_UDP_HEADER_LEN, bytes, len);
	server->n_staged += whole;
	forward_run(server, way, at, whole, whole, 1);
}

/* One system call, until the thread has looked. */
static void wake(struct udp_server *server)
{
	const uint64_t one = 1;

	if (atomic_exchange(&server->is_told, true))
		return;
	if (write(server->wake_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN); /* it is awake */
}

static void put_to_tls(struct udp_server *server, const struct udp_bridge_run *run, const uint8_t *bytes)
{
	if (udp_bridge_put(&server->bridge.to_tls, run, bytes))
		server->has_put = true;
	else
		server->dropped_to_tls++;
}

static void take_run(struct udp_server *server, const struct udp_bridge_run *run, const uint8_t *bytes)
{
	const struct udp_bridge_run gone = { .from = run->to, .to = run->from, .is_gone = true };
	struct relay_udp_header header;
	struct udp_way *way;

	server->turn.bytes += run->len;
	switch (route_carried(server, run, &way, &header)) {
	case UDP_CLIENTS_HERE:
		send_carried(server, way, &header, bytes, run->len);
		break;
	case UDP_CLIENTS_ELSEWHERE:
		put_to_tls(server, run, bytes);
		break;
	case UDP_CLIENTS_NOWHERE:
		if (udp_clients_may_tell_gone(server->clients, &run->from, server->now_ns))
			put_to_tls(server, &gone, NULL);
		break;
	}
}

static void take_carried(struct udp_server *server)
{
	struct ring *ring = &server->bridge.to_udp;
	const uint64_t end = ring_mark(ring); /* what comes meanwhile is for the next turn */
	const struct udp_bridge_run *run;
	const uint8_t *bytes;

	for (int n = 0; !ring_is_taken(ring, end) && (run = udp_bridge_peek(ring, &bytes)); n++) {
		if (n == MAX_CARRIED) { /* the sockets have their turn, and then the rest */
			wake(server);
			break;
		}
		take_run(server, run, bytes);
		ring_release(ring);
	}
	flush(server);
}

static void take_word(struct udp_server *server)
{
	uint64_t n;

	/*
	 * The word is taken in first: read after is_told was cleared, it could be the next one, of which nobody
	 * would hear. Then an exchange, which sees what was put before the words that it swallows.
	 */
	if (read(server->wake_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		log_error("relay", "UDP: eventfd: %s", strerror(errno)); /* cannot be: it is there and whole */
	(void)atomic_exchange(&server->is_told, false);
	take_members(server);
	if (!server->clients)
		return;
	take_drain(server);
	take_notes(server);
	take_carried(server);
}

static struct udp_server_counters counters_now(const struct udp_server *server)
{
	struct udp_server_counters counters = { .stun = server->stun.counters,
						.out = server->out,
						.dropped_bridge = server->dropped_to_tls };

	if (server->clients)
		counters.clients = udp_clients_counters(server->clients);
	counters.stun.answered = server->out.sent[RELAY_OUTBOX_STUN];
	counters.stun.send_failed = server->out.failed[RELAY_OUTBOX_STUN] + server->out.full[RELAY_OUTBOX_STUN];
	return counters;
}

static void publish(struct udp_server *server)
{
	const struct udp_server_counters counters = counters_now(server);
	uint64_t words[N_COUNTERS];

	memcpy(words, &counters, sizeof(words));
	for (size_t i = 0; i < N_COUNTERS; i++)
		atomic_store_explicit(&server->published[i], words[i], memory_order_relaxed);
}

/* Into a list that nobody has looked at, or a new one. */
static void publish_busiest(struct udp_server *server)
{
	const struct udp_clients_busiest *busiest = udp_clients_busiest(server->clients);

	if (busiest->round == server->busiest_round)
		return;
	struct udp_clients_busiest *list = atomic_exchange(&server->new_busiest, NULL);
	if (!list)
		list = malloc(sizeof(*list));
	if (!list)
		return;
	server->busiest_round = busiest->round;
	*list = *busiest;
	atomic_store(&server->new_busiest, list);
}

static void tick(struct udp_server *server)
{
	if (server->now_ns < server->tick_ns)
		return;
	server->tick_ns = server->now_ns + TICK_MS * MILLISECOND_NS;
	if (!server->clients)
		return;
	udp_clients_tick(server->clients, server->now_ns);
	send_some_away(server);
	publish_busiest(server);
}

/* What leaves from one client to another leaves as a train, the more there is of it in a turn. */
static void let_come_together(struct udp_server *server)
{
	const uint64_t pause_ns = gathering_pause_ns(&server->gathering, &server->turn);
	const struct timespec pause = { .tv_nsec = (long)pause_ns };

	if (pause_ns > 0)
		nanosleep(&pause, NULL);
}

static int await(struct udp_server *server)
{
	const uint64_t before_ns = clock_now_ns();
	const int n = poll(server->waits, 1 + server->n_sockets, TICK_MS);

	read_clock(server);
	server->turn = (struct gathering_turn){ .idle_ns = server->now_ns - before_ns };
	return n;
}

static uint64_t n_sent(const struct udp_server *server)
{
	return server->out.sent[RELAY_OUTBOX_DATA] + server->out.sent[RELAY_OUTBOX_STUN];
}

/* What waits for a socket goes before what is new. True when there may be more to receive. */
static bool attend(struct udp_server *server, uint32_t i)
{
	const struct pollfd *wait = &server->waits[1 + i];

	if (wait->revents & POLLOUT)
		relay_outbox_resume(server->outboxes[i], now_s(server));
	return wait->revents & ~POLLOUT ? serve(server, &server->sockets[i]) : false;
}

static void end_round(struct udp_server *server)
{
	if (!server->turn.has_more)
		server->idle_ns = server->now_ns;
	if (!server->clients || server->now_ns - server->round_ns < ROUND_NS)
		return;
	udp_clients_end_round(server->clients, server->idle_ns < server->round_ns);
	server->round_ns = server->now_ns;
}

static void turn(struct udp_server *server)
{
	for (uint32_t i = 0; i < server->n_sockets; i++)
		server->waits[1 + i].events = relay_outbox_is_waiting(server->outboxes[i]) ? POLLIN | POLLOUT : POLLIN;
	const int n = await(server);
	const uint64_t n_packets = n_sent(server), n_messages = server->out.messages;

	if (n > 0 && server->waits[0].revents)
		take_word(server);
	for (uint32_t i = 0; n > 0 && i < server->n_sockets; i++)
		server->turn.has_more |= attend(server, i);
	end_round(server);
	tick(server);
	if (server->has_put)
		uv_async_send(&server->word);
	server->has_put = false;
	publish(server);
	server->turn.n_packets = n_sent(server) - n_packets;
	server->turn.n_messages = server->out.messages - n_messages;
	server->turn.took_ns = clock_now_ns() - server->now_ns;
	let_come_together(server);
}

static void *run(void *owner)
{
	struct udp_server *server = owner;

	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* by default it doubles a short sleep */
	read_clock(server);
	server->gathering = (struct gathering){ .patience = PATIENCE, .little_bytes = LITTLE_BYTES };
	while (!atomic_load(&server->is_stopping))
		turn(server);
	if (server->clients)
		udp_clients_say_restart(server->clients, RETRY_RESTART_MS, send_now);
	if (server->clients && server->options.save)
		udp_clients_save(server->clients, server->now_ns, &server->saved, &server->saved_len);
	atomic_store(&server->has_ended, true);
	uv_async_send(&server->word);
	return NULL;
}

/* ---- beginning and end ---- */

static void close_sockets(struct udp_server *server)
{
	for (uint32_t i = 0; i < MAX_SOCKETS; i++) {
		relay_outbox_free(server->outboxes[i]);
		server->outboxes[i] = NULL;
		relay_socket_close(&server->sockets[i]);
	}
	server->n_sockets = 0;
}

static void free_server(struct udp_server *server)
{
	close_sockets(server);
	relay_inbox_free(server->inbox);
	udp_clients_free(server->clients);
	free_members(server->members);
	free_members(atomic_load(&server->new_members));
	free(atomic_load(&server->new_busiest));
	free(server->busiest);
	free(server->staged);
	free(server->saved);
	udp_bridge_deinit(&server->bridge);
	if (server->wake_fd >= 0)
		close(server->wake_fd);
	free(server);
}

static int open_socket(struct udp_server *server, const struct endpoint *address,
		       const struct listen_sockets *sockets, struct error *reterr)
{
	const uint32_t i = server->n_sockets;
	struct relay_socket *sock = &server->sockets[i];
	int fd = listen_sockets_take(sockets, SOCK_DGRAM, address);
	int r = fd >= 0 ? relay_socket_adopt(fd, (uint16_t)i, sock) : relay_socket_open(address, (uint16_t)i, sock);

	if (r == 0 && !(server->outboxes[i] = relay_outbox_new(sock, &server->refused, &server->out)))
		r = -ENOMEM;
	if (r < 0)
		return error_set(reterr, r, "cannot serve relay and STUN on UDP %s: %s", endpoint_text(address).s,
				 strerror(-r));
	server->waits[1 + i] = (struct pollfd){ .fd = sock->fd, .events = POLLIN };
	server->stun.local[i / server->n_ports][i % server->n_ports] = sock->local;
	server->n_sockets++;
	return 0;
}

static int open_ports(struct udp_server *server, const struct udp_server_options *options, uint32_t n_ports,
		      struct error *reterr)
{
	server->n_ports = server->stun.n_ports = n_ports;
	server->stun.n_addresses = options->n_listen;
	for (uint32_t i = 0; i < options->n_listen; i++) {
		for (uint32_t j = 0; j < n_ports; j++) {
			struct endpoint address = options->listen[i];
			if (j == 1)
				address.port = options->other_port;
			else if (address.port == 0 && i > 0)
				address.port = udp_server_port(server);
			int r = open_socket(server, &address, options->sockets, reterr);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

/* The second port serves to find out about NATs, no more: without it all else works. */
static int open_all(struct udp_server *server, const struct udp_server_options *options, struct error *reterr)
{
	struct error why;

	if (options->other_port == 0)
		return open_ports(server, options, 1, reterr);
	if (open_ports(server, options, 2, &why) == 0)
		return 0;
	close_sockets(server);
	int r = open_ports(server, options, 1, reterr);
	if (r == 0)
		log_warning("relay", "%s; nodes cannot find out all about their NAT with this one alone", why.message);
	return r;
}

/* Whose clients they could be: those of the same sockets, in the same order, since the machine was started. */
static void hash_place(const struct udp_server *server, const struct udp_server_options *options,
		       uint8_t ret[crypto_generichash_BYTES])
{
	const uint16_t other_port = server->n_ports == 2 ? options->other_port : 0;
	crypto_generichash_state state;
	char boot_id[64] = { 0 };
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, boot_id, sizeof(boot_id) - 1) < 0)
		boot_id[0] = '\0'; /* then the clock alone must tell */
	if (fd >= 0)
		close(fd);
	crypto_generichash_init(&state, NULL, 0, crypto_generichash_BYTES);
	crypto_generichash_update(&state, (const uint8_t *)boot_id, sizeof(boot_id));
	for (uint32_t i = 0; i < options->n_listen; i++)
		crypto_generichash_update(&state, options->listen[i].ip, sizeof(options->listen[i].ip));
	crypto_generichash_update(&state, (const uint8_t *)&other_port, sizeof(other_port));
	crypto_generichash_final(&state, ret, crypto_generichash_BYTES);
}

static int make_clients(struct udp_server *server, const struct udp_server_options *options)
{
	struct udp_clients_config config = { .owner = server,
					     .is_member = is_member,
					     .tell_reached = tell_reached,
					     .max_clients = options->max_clients,
					     .max_proofs = options->max_proofs,
					     .max_binds_source = options->max_binds_source,
					     .max_rate_client = options->max_rate_client,
					     .max_rate = options->max_rate };

	if (!options->node_key)
		return 0;
	config.node_key = *options->node_key;
	hash_place(server, options, config.saved_for);
	int r = UDP_CLIENTS_E_SAVED;
	read_clock(server);
	if (options->saved)
		r = udp_clients_new_from(&config, options->saved, options->saved_len,
					 server->n_sockets, server->now_ns, &server->clients);
	if (options->saved)
		log_info("relay", "UDP: clients of the relay that ran before: %u",
			 r == 0 ? udp_clients_counters(server->clients).clients : 0);
	if (r == UDP_CLIENTS_E_SAVED)
		r = udp_clients_new(&config, &server->clients);
	secret_key_wipe(&config.node_key);
	return r;
}

static int prepare(struct udp_server *server, const struct udp_server_options *options, struct error *reterr)
{
	server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int r = server->wake_fd < 0 ? -errno : 0;
	server->waits[0] = (struct pollfd){ .fd = server->wake_fd, .events = POLLIN };
	server->inbox = relay_inbox_new();
	server->staged = malloc(STAGED_BYTES);
	if (r == 0 && (!server->inbox || !server->staged))
		r = -ENOMEM;
	if (r < 0)
		return error_set(reterr, r, "cannot serve relay and STUN on UDP: %s", strerror(-r));
	r = open_all(server, options, reterr);
	if (r < 0)
		return r;
	r = make_clients(server, options);
	return r < 0 ? error_set(reterr, r, "cannot serve relay and STUN on UDP: %s", strerror(-r)) : 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct udp_server *server = container_of((uv_async_t *)handle, struct udp_server, word);
	void (*stopped)(void *owner) = server->stopped;
	void *owner = server->owner;

	if (server->saved)
		server->options.save(server->options.owner, server->saved, server->saved_len);
	free_server(server);
	if (stopped)
		stopped(owner);
}

static void deliver(const struct udp_server *server, const struct udp_bridge_run *run, const uint8_t *bytes)
{
	const struct udp_server_options *options = &server->options;

	if (run->is_gone && options->tell_gone)
		options->tell_gone(options->owner, &run->to, &run->from);
	for (uint32_t at = 0; at < run->len; at += run->size) {
		const uint32_t left = run->len - at, len = left < run->size ? left : run->size;
		if (options->deliver)
			options->deliver(options->owner, &run->from, &run->to, bytes + at + run->head,
					 len - run->head);
	}
}

static void deliver_notes(struct udp_server *server)
{
	const struct udp_server_options *options = &server->options;
	struct udp_bridge_notes notes;

	if (!udp_bridge_take(&server->bridge.notes_to_tls, &notes))
		return;
	for (size_t i = 0; options->tell_reached && i < notes.n; i++)
		options->tell_reached(options->owner, &notes.items[i].node_key,
				      notes.items[i].news == UDP_BRIDGE_REACHED);
	free(notes.items);
}

static void on_word(uv_async_t *word)
{
	struct udp_server *server = container_of(word, struct udp_server, word);
	struct ring *ring = &server->bridge.to_tls;
	const uint64_t end = ring_mark(ring); /* what comes meanwhile comes with a word of its own */
	const struct udp_bridge_run *run;
	const uint8_t *bytes;

	if (atomic_load(&server->has_ended)) {
		pthread_join(server->thread, NULL);
		uv_close((uv_handle_t *)word, on_closed);
		return;
	}
	if (atomic_load(&server->is_stopping))
		return; /* whom it would be delivered to may be gone */
	deliver_notes(server);
	for (uint32_t n = 0; !ring_is_taken(ring, end) && (run = udp_bridge_peek(ring, &bytes));) {
		if (n >= MAX_DELIVERED) { /* the others of the loop have their turn, and then the rest */
			uv_async_send(word);
			break;
		}
		n += run->size ? run->len / run->size + 1 : 1;
		deliver(server, run, bytes);
		ring_release(ring);
	}
}

/* The program's signals are the loop's. */
static int start_thread(struct udp_server *server)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int r = -pthread_create(&server->thread, NULL, run, server);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

static struct udp_server *new_server(const struct udp_server_options *options)
{
	struct udp_server *server = aligned_alloc(_Alignof(struct udp_server), sizeof(*server));

	if (!server)
		return NULL;
	memset(server, 0, sizeof(*server));
	server->wake_fd = -1;
	for (uint32_t i = 0; i < MAX_SOCKETS; i++)
		server->sockets[i].fd = -1;
	atomic_store(&server->new_drain, NO_DRAIN);
	server->drain.spread_ms = NO_DRAIN;
	server->options = *options;
	server->options.node_key = NULL; /* it is the caller's, and so is that: */
	server->options.saved = NULL;
	udp_bridge_init(&server->bridge);
	stun_server_init(&server->stun, options->stun_rate_per_s, options->stun_burst);
	return server;
}

int udp_server_start(uv_loop_t *loop, const struct udp_server_options *options, struct udp_server **ret,
		     struct error *reterr)
{
	if (options->n_listen == 0 || options->n_listen > STUN_SERVER_MAX_ADDRESSES)
		return error_set(reterr, -EINVAL, "relay and STUN listen on 1 to %d UDP addresses, not %u",
				 STUN_SERVER_MAX_ADDRESSES, options->n_listen);
	struct udp_server *server = new_server(options);
	if (!server)
		return error_set(reterr, -ENOMEM, "out of memory");
	int r = prepare(server, options, reterr);
	if (r == 0 && (r = uv_async_init(loop, &server->word, on_word)) < 0)
		error_set(reterr, r, "%s", uv_strerror(r));
	if (r < 0) {
		free_server(server);
		return r;
	}
	r = start_thread(server);
	if (r < 0) {
		uv_close((uv_handle_t *)&server->word, on_closed);
		return error_set(reterr, r, "cannot start a thread: %s", strerror(-r));
	}
	*ret = server;
	return 0;
}

void udp_server_stop(struct udp_server *server, void (*cb)(void *owner), void *owner)
{
	server->stopped = cb;
	server->owner = owner;
	atomic_store(&server->is_stopping, true);
	wake(server);
}

uint32_t udp_server_sockets(const struct udp_server *server, int *ret)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < server->n_sockets; i += server->n_ports)
		ret[n++] = server->sockets[i].fd;
	return n;
}

void udp_server_drain(struct udp_server *server, uint32_t spread_ms)
{
	atomic_store(&server->new_drain, spread_ms);
	wake(server);
}

void udp_server_undrain(struct udp_server *server)
{
	atomic_store(&server->new_drain, NO_DRAIN);
	wake(server);
}

uint16_t udp_server_port(const struct udp_server *server)
{
	return server->sockets[0].local.port;
}

void udp_server_set_members(struct udp_server *server, struct key_table *members)
{
	free_members(atomic_exchange(&server->new_members, members));
	wake(server);
}

struct udp_server_counters udp_server_counters(const struct udp_server *server)
{
	struct udp_server_counters counters;
	uint64_t words[N_COUNTERS];

	for (size_t i = 0; i < N_COUNTERS; i++)
		words[i] = atomic_load_explicit(&server->published[i], memory_order_relaxed);
	memcpy(&counters, words, sizeof(counters));
	counters.dropped_bridge += server->dropped_to_udp;
	return counters;
}

const struct udp_clients_busiest *udp_server_busiest(struct udp_server *server)
{
	struct udp_clients_busiest *list = atomic_exchange(&server->new_busiest, NULL);

	if (list) {
		free(server->busiest);
		server->busiest = list;
	}
	return server->busiest;
}

void udp_server_note_elsewhere(struct udp_server *server, const struct public_key *node_key, bool is_there)
{
	udp_bridge_note(&server->bridge.notes_to_udp, node_key, is_there ? UDP_BRIDGE_CAME : UDP_BRIDGE_LEFT);
	wake(server);
}

void udp_server_note_ping(struct udp_server *server, const struct public_key *node_key)
{
	udp_bridge_note(&server->bridge.notes_to_udp, node_key, UDP_BRIDGE_PINGED);
	wake(server);
}

void udp_server_forward(struct udp_server *server, const struct public_key *from, const struct public_key *to,
			const uint8_t *bytes, size_t len)
{
	const struct udp_bridge_run run = { .from = *from, .to = *to, .size = (uint32_t)len, .len = (uint32_t)len };

	if (len > RELAY_OUTBOX_MAX_LEN - RELAY_UDP_HEADER_LEN ||
	    !udp_bridge_put(&server->bridge.to_udp, &run, bytes))
		server->dropped_to_udp++;
	wake(server);
}
