/*
 * The relay: every accepted connection is a client, which is
 *
 *   shaking hands ──► admitted ──► leaving (a closing frame goes out) ──► gone
 *         └───────────────┴─────────────────────────────────────────────►
 *
 * Each of the first three states is a list; only an admitted client is in the table by its node key.
 */
#include "relay/relay_server.h"

#include "common/certificate.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/rate_limit.h"
#include "common/relay_queue.h"
#include "common/relay_wire.h"
#include "common/tls.h"
#include "relay/key_table.h"
#include "relay/reach_limit.h"
#include "common/source_limit.h"
#include "relay/tcp_listener.h"

#include <assert.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEFAULT_HANDSHAKES 1024
#define DEFAULT_SOURCE	   64
#define DEFAULT_RATE	   200
#define DEFAULT_QUEUE	   (512 * 1024)
#define DEFAULT_QUEUES	   (256u << 20)
#define SMALL_QUEUE	   RELAY_MAX_FRAME
#define DEFAULT_KEEP_ALIVE 30
#define FLUSH_LEN	   (64 * 1024)
#define LEAVE_MS	   1000 /* for the closing frame to go out */
#define UNKNOWN_MS	   1000 /* how long a member of the network may wait to come into our map */
#define RETRY_RESTART_MS   100 /* and a millisecond more for each client: a handshake takes about one */
#define RETRY_REPLACED_MS  5000
#define RETRY_REFUSED_MS   10000
#define RETRY_DRAINED_MS   30000
#define DRAIN_PERIOD_MS	   50
#define NOTE_MS		   1000 /* so often the relay over UDP hears that a client sends here */
#define LONGEST_PERIOD_MS  10000
#define GONE_PER_S	   10 /* peer gone frames to one client */
#define GONE_BURST	   10

enum client_state { SHAKING_HANDS, UNKNOWN, ADMITTED, LEAVING, N_LISTS };

struct client {
	struct relay_server *server;
	struct client *next, *previous;
	enum client_state state;
	struct tls_stream stream;
	struct relay_decoder decoder;
	struct relay_queue queue;
	struct identity identity; /* once admitted */
	struct endpoint remote;
	uint64_t since_ms; /* it is in this state */
	uint64_t heard_ms, pinged_ms;
	uint64_t noted_ms; /* when the relay over UDP was told of it */
	bool is_elsewhere; /* what it sent last it sent over UDP: there it is reached, this connection may be dead */
	uint64_t gone_at_ms; /* the bucket of peer gone frames: when it was last filled */
	uint32_t gone_tokens;
	struct rate_limit rate;
	struct reach_limit reach;
	uint64_t packets_in, bytes_in, packets_out, bytes_out;
};

struct client_list {
	struct client *first, *last;
	uint32_t n;
};

struct relay_server {
	struct relay_server_options options;
	struct tcp_listener listeners[RELAY_SERVER_MAX_ADDRESSES];
	uint32_t n_listeners, n_open; /* n_open: listeners and timers that are not closed */
	uv_timer_t tick, drain_tick;
	struct client_list lists[N_LISTS];
	uint32_t n_streams; /* also of clients that are only waiting for their handles to close */
	struct key_table table;
	struct relay_queue_pool pool; /* of all clients' queues */
	struct source_limit source_limit; /* a handshake costs us a signature */
	struct rate_limit rate;		  /* of all clients */
	uint64_t reach_seed;
	uint32_t longest_ms[2]; /* that a packet waited, in this period and the one before */
	uint64_t period_ms;	/* since when */
	struct relay_server_counters counters;
	struct log_limit log_limit;
	struct {
		bool is_on;
		uint64_t began_ms, spread_ms;
		uint32_t n_clients; /* at the beginning */
	} drain;
	bool is_stopping;
	void (*stopped)(void *owner);
	void *stopped_owner;
};

static void leave(struct client *client, enum relay_closing_reason reason, uint32_t retry_after_ms);

static uint64_t now_ms(const struct relay_server *server)
{
	return uv_now(tls_host_loop(server->options.host));
}

/* lists */

static void list_add(struct client *client, enum client_state state)
{
	struct client_list *list = &client->server->lists[state];

	client->state = state;
	client->since_ms = now_ms(client->server);
	client->next = NULL;
	client->previous = list->last;
	*(list->last ? &list->last->next : &list->first) = client;
	list->last = client;
	list->n++;
}

static void list_remove(struct client *client)
{
	struct client_list *list = &client->server->lists[client->state];

	*(client->previous ? &client->previous->next : &list->first) = client->next;
	*(client->next ? &client->next->previous : &list->last) = client->previous;
	list->n--;
}

/* the end of a client, and of the server */

static void on_handle_closed(struct relay_server *server)
{
	if (!server->is_stopping || server->n_open > 0 || server->n_streams > 0)
		return;
	void (*stopped)(void *owner) = server->stopped;
	void *owner = server->stopped_owner;

	key_table_deinit(&server->table);
	relay_queue_pool_deinit(&server->pool);
	SSL_CTX_free(server->options.context);
	free(server);
	if (stopped)
		stopped(owner);
}

static void on_tick_closed(uv_handle_t *handle)
{
	struct relay_server *server = container_of((uv_timer_t *)handle, struct relay_server, tick);

	server->n_open--;
	on_handle_closed(server);
}

static void on_drain_tick_closed(uv_handle_t *handle)
{
	struct relay_server *server = container_of((uv_timer_t *)handle, struct relay_server, drain_tick);

	server->n_open--;
	on_handle_closed(server);
}

static void finish_stop_if_empty(struct relay_server *server)
{
	if (!server->is_stopping || uv_is_closing((uv_handle_t *)&server->tick))
		return;
	for (int i = 0; i < N_LISTS; i++)
		if (server->lists[i].n > 0)
			return;
	uv_close((uv_handle_t *)&server->tick, on_tick_closed);
	uv_close((uv_handle_t *)&server->drain_tick, on_drain_tick_closed);
}

static void on_stream_closed(void *owner)
{
	struct client *client = owner;
	struct relay_server *server = client->server;

	free(client);
	server->n_streams--;
	on_handle_closed(server);
}

static void unregister(struct client *client)
{
	struct relay_server *server = client->server;

	key_table_remove(&server->table, &client->identity.node_key, client);
	if (server->options.note_client && !key_table_find(&server->table, &client->identity.node_key))
		server->options.note_client(server->options.owner, &client->identity.node_key, false);
	reach_limit_deinit(&client->reach);
	server->counters.queued_bytes -= client->queue.n_bytes;
	relay_queue_drop_packets(&client->queue);
	server->counters.dropped_queue += client->queue.n_dropped;
	relay_decoder_deinit(&client->decoder);
}

static void drop(struct client *client)
{
	struct relay_server *server = client->server;

	if (client->state == ADMITTED)
		unregister(client);
	relay_queue_deinit(&client->queue);
	relay_decoder_deinit(&client->decoder);
	list_remove(client);
	tls_stream_close(&client->stream, on_stream_closed);
	finish_stop_if_empty(server);
}

/* A client that has finished its handshake is told why, and has LEAVE_MS to hear it. */
static void leave(struct client *client, enum relay_closing_reason reason, uint32_t retry_after_ms)
{
	if (client->state == LEAVING)
		return;
	log_debug("relay", "closing client=%s name=%s: reason=%d",
		  public_key_short(&client->identity.node_key).s, client->identity.name, (int)reason);
	if (client->state == ADMITTED)
		unregister(client);
	list_remove(client);
	list_add(client, LEAVING);
	relay_queue_frame(&client->queue,
			  &(struct relay_frame){ .type = RELAY_CLOSING,
						 .closing = { reason, retry_after_ms } });
	tls_stream_shutdown(&client->stream);
}

/* admission */

static bool has_expired(const struct client *client)
{
	return client->identity.not_after_s < (int64_t)time(NULL);
}

static bool is_member(const struct relay_server *server, const struct public_key *node_key)
{
	return !server->options.is_member || server->options.is_member(server->options.owner, node_key);
}

/* To the other relay, over UDP: this client was heard from over TLS just now. */
static void note_here(struct client *client)
{
	struct relay_server *server = client->server;

	client->noted_ms = now_ms(server);
	client->is_elsewhere = false;
	if (server->options.note_client)
		server->options.note_client(server->options.owner, &client->identity.node_key, true);
}

static void admit(struct client *client)
{
	struct relay_server *server = client->server;

	list_remove(client);
	list_add(client, ADMITTED);
	client->heard_ms = client->pinged_ms = client->since_ms;
	client->gone_tokens = GONE_BURST;
	rate_limit_init(&client->rate, server->options.max_rate_client, now_ms(server));
	client->reach.seed = server->reach_seed;
	server->counters.admitted++;

	struct client *older = key_table_put(&server->table, &client->identity.node_key, client);
	note_here(client); /* also when it was here: from now on it is reached by this */
	if (older) {
		server->counters.closed_replaced++;
		leave(older, RELAY_CLOSING_REPLACED, RETRY_REPLACED_MS);
	}
	relay_queue_frame(&client->queue,
			  &(struct relay_frame){ .type = RELAY_HELLO,
						 .hello = { RELAY_VERSION,
							    (uint8_t)server->options.keep_alive_s } });
	tls_stream_wake(&client->stream);
	log_debug("relay", "admitted client=%s name=%s from=%s", public_key_short(&client->identity.node_key).s,
		  client->identity.name, endpoint_text(&client->remote).s);
}

static void admit_if_room(struct client *client)
{
	struct relay_server *server = client->server;

	if (server->drain.is_on) {
		server->counters.refused_draining++;
		leave(client, RELAY_CLOSING_RESTART, RETRY_DRAINED_MS);
	} else if (server->lists[ADMITTED].n >= server->options.max_clients &&
	    !key_table_find(&server->table, &client->identity.node_key)) {
		server->counters.refused_full++;
		leave(client, RELAY_CLOSING_FULL, RETRY_REFUSED_MS);
	} else {
		admit(client);
	}
}

static void refuse_unknown(struct client *client)
{
	client->server->counters.refused_not_member++;
	leave(client, RELAY_CLOSING_NOT_ADMITTED, 0);
}

/* Control has told a new member of us, but not yet us of it. A refusal would cost us its choice as home. */
static void wait_for_map(struct client *client)
{
	struct relay_server *server = client->server;

	list_remove(client);
	list_add(client, UNKNOWN);
	if (server->lists[UNKNOWN].n > server->options.max_handshakes)
		refuse_unknown(server->lists[UNKNOWN].first);
}

static void on_ready(void *owner)
{
	struct client *client = owner;
	struct relay_server *server = client->server;

	if (tls_peer_identity(client->stream.ssl, &client->identity) != 0 ||
	    public_key_is_zero(&client->identity.node_key) || !tls_stream_alpn_is(&client->stream, RELAY_ALPN)) {
		server->counters.refused_tls++;
		leave(client, RELAY_CLOSING_NOT_ADMITTED, RETRY_REFUSED_MS);
	} else if (!is_member(server, &client->identity.node_key)) {
		wait_for_map(client);
	} else {
		admit_if_room(client);
	}
}

/* frames */

static void tell_gone(struct client *client, const struct public_key *peer)
{
	uint64_t now = now_ms(client->server);
	uint64_t earned = (now - client->gone_at_ms) * GONE_PER_S / 1000;

	if (earned > 0) {
		client->gone_at_ms = now;
		client->gone_tokens = earned >= GONE_BURST - client->gone_tokens
					      ? GONE_BURST
					      : client->gone_tokens + (uint32_t)earned;
	}
	if (client->gone_tokens == 0)
		return;
	client->gone_tokens--;
	relay_queue_frame(&client->queue,
			  &(struct relay_frame){ .type = RELAY_PEER_GONE,
						 .peer_gone = { *peer, RELAY_GONE_NOT_HERE } });
	tls_stream_wake(&client->stream);
}

static void deliver(struct client *to, const struct public_key *from, const uint8_t *bytes, size_t len)
{
	struct relay_server *server = to->server;
	size_t before = to->queue.n_bytes;
	bool is_crowded = server->counters.queued_bytes > server->options.max_queues;

	to->queue.max_bytes = is_crowded && SMALL_QUEUE < server->options.max_queue ? SMALL_QUEUE
										     : server->options.max_queue;
	to->queue.now_ms = now_ms(server);
	reach_limit_hear(&to->reach, from, to->queue.now_ms / 1000);
	relay_queue_packet(&to->queue, RELAY_RECV, &(struct relay_packet){ *from, bytes, len });
	server->counters.queued_bytes += to->queue.n_bytes - before; /* modulo 2^64: it may be fewer */
	if (to->queue.n_bytes >= FLUSH_LEN)
		tls_stream_flush(&to->stream); /* much comes at once: do not overflow for want of a loop turn */
	else
		tls_stream_wake(&to->stream);
}

static void forward(struct client *client, const struct relay_packet *packet)
{
	struct relay_server *server = client->server;
	uint64_t now = now_ms(server);

	if (!rate_limit_take_both(&client->rate, &server->rate, packet->len, now)) {
		server->counters.dropped_rate++;
		return;
	}
	if (!reach_limit_send(&client->reach, &packet->key, now / 1000)) {
		server->counters.dropped_unanswered++;
		return;
	}
	if (client->is_elsewhere || now - client->noted_ms >= NOTE_MS)
		note_here(client);
	struct client *to = key_table_find(&server->table, &packet->key);
	server->counters.packets++;
	server->counters.bytes += packet->len;
	client->packets_in++;
	client->bytes_in += packet->len;
	if (to && !to->is_elsewhere) {
		deliver(to, &client->identity.node_key, packet->bytes, packet->len);
	} else if (server->options.forward) {
		server->options.forward(server->options.owner, &client->identity.node_key, &packet->key, packet->bytes,
					packet->len);
	} else {
		server->counters.dropped_unknown++;
		tell_gone(client, &packet->key);
	}
}

void relay_server_deliver(struct relay_server *server, const struct public_key *from, const struct public_key *to,
			  const uint8_t *bytes, size_t len)
{
	struct client *client = key_table_find(&server->table, to);

	if (client)
		deliver(client, from, bytes, len);
	else
		server->counters.dropped_unknown++;
}

void relay_server_tell_gone(struct relay_server *server, const struct public_key *client_key,
			    const struct public_key *node_key)
{
	struct client *client = key_table_find(&server->table, client_key);

	server->counters.dropped_unknown++;
	if (client && !key_table_find(&server->table, node_key)) /* it may have come meanwhile */
		tell_gone(client, node_key);
}

void relay_server_tell_reached(struct relay_server *server, const struct public_key *client_key, bool is_elsewhere)
{
	struct client *client = key_table_find(&server->table, client_key);

	if (client)
		client->is_elsewhere = is_elsewhere;
}

/* Whether it is reached here again is for them to say who heard it last. */
static void note_ping(struct client *client)
{
	struct relay_server *server = client->server;

	if (!client->is_elsewhere || now_ms(server) - client->noted_ms < NOTE_MS)
		return;
	client->noted_ms = now_ms(server);
	server->options.note_ping(server->options.owner, &client->identity.node_key);
}

static void handle_frame(struct client *client, const struct relay_frame *frame)
{
	switch (frame->type) {
	case RELAY_SEND:
		forward(client, &frame->packet);
		break;
	case RELAY_PING:
		note_ping(client);
		relay_queue_frame(&client->queue,
				  &(struct relay_frame){ .type = RELAY_PONG, .ping = frame->ping });
		tls_stream_wake(&client->stream);
		break;
	case RELAY_PONG:
		break; /* that we heard it is all that counts */
	case RELAY_HELLO:
	case RELAY_RECV:
	case RELAY_PEER_GONE:
	case RELAY_CLOSING:
		client->server->counters.malformed++;
		break;
	}
}

static void on_received(void *owner, const uint8_t *bytes, size_t len)
{
	struct client *client = owner;
	struct relay_server *server = client->server;
	struct relay_frame frame;

	if (client->state != ADMITTED)
		return;
	client->heard_ms = now_ms(server);
	relay_decoder_feed(&client->decoder, bytes, len);
	for (;;) {
		int r = relay_decoder_next(&client->decoder, &frame);
		if (r == RELAY_WIRE_MORE)
			return;
		if (r == RELAY_WIRE_TOO_LONG) {
			server->counters.closed_protocol++;
			leave(client, RELAY_CLOSING_PROTOCOL, RETRY_REFUSED_MS);
			return;
		}
		if (r == RELAY_WIRE_MALFORMED)
			server->counters.malformed++;
		else if (r == 0)
			handle_frame(client, &frame);
	}
}

static size_t on_produce(void *owner, uint8_t *buf, size_t cap)
{
	struct client *client = owner;
	struct relay_server *server = client->server;
	struct relay_queue *queue = &client->queue;
	uint64_t before_ms = queue->waited_ms;
	size_t before_bytes = queue->n_bytes;
	uint32_t before = queue->n_packets;

	queue->now_ms = now_ms(server);
	queue->longest_ms = 0;
	size_t n = relay_queue_take(queue, buf, cap);
	uint32_t sent = before - queue->n_packets;
	client->packets_out += sent;
	client->bytes_out += n;
	server->counters.packets_out += sent;
	server->counters.bytes_out += n;
	server->counters.queued_bytes -= before_bytes - queue->n_bytes;
	server->counters.waited_ms += queue->waited_ms - before_ms;
	if (queue->longest_ms > server->longest_ms[0])
		server->longest_ms[0] = queue->longest_ms;
	return n;
}

static void on_ended(void *owner, const struct error *why)
{
	struct client *client = owner;
	struct relay_server *server = client->server;

	if (client->state == SHAKING_HANDS) {
		*(why->code == -ETIMEDOUT ? &server->counters.refused_timeout : &server->counters.refused_tls) += 1;
		log_limited(&server->log_limit, LOG_LEVEL_DEBUG, "relay", "refused from=%s: %s",
			    endpoint_text(&client->remote).s, why->message);
	} else {
		log_debug("relay", "client=%s name=%s has left: %s",
			  public_key_short(&client->identity.node_key).s, client->identity.name, why->message);
	}
	drop(client);
}

/* accepting */

static bool source_is_full(const struct relay_server *server, const struct endpoint *remote)
{
	uint32_t n = 0;

	for (struct client *c = server->lists[SHAKING_HANDS].first; c; c = c->next)
		n += endpoint_is_same_source(&c->remote, remote) ? 1 : 0;
	return n >= server->options.max_handshakes_source;
}

/* NULL: it was refused, and is closed. */
static struct client *take_in(struct relay_server *server, int fd, const struct endpoint *remote)
{
	struct client_list *shaking = &server->lists[SHAKING_HANDS];

	server->counters.accepted++;
	if (!source_limit_take(&server->source_limit, remote, now_ms(server))) {
		server->counters.refused_rate++;
		close(fd);
		return NULL;
	}
	if (source_is_full(server, remote)) {
		server->counters.refused_handshakes++;
		close(fd);
		return NULL;
	}
	/* The oldest gives way: it had the most time, and a flood cannot lock members out for long. */
	if (shaking->n >= server->options.max_handshakes) {
		server->counters.refused_handshakes++;
		drop(shaking->first);
	}
	struct client *client = calloc(1, sizeof(*client));
	if (!client) {
		close(fd);
		return NULL;
	}
	client->server = server;
	client->remote = *remote;
	relay_queue_init(&client->queue, server->options.max_queue);
	client->queue.pool = &server->pool;
	const struct tls_stream_ports ports = { .owner = client, .ready = on_ready, .received = on_received, .produce = on_produce, .ended = on_ended };
	if (tls_stream_open_server(&client->stream, server->options.host, server->options.context, fd,
				   server->options.handshake_ms, &ports) < 0) {
		free(client);
		return NULL;
	}
	server->n_streams++;
	list_add(client, SHAKING_HANDS);
	return client;
}

static void on_accepted(void *owner, int fd, const struct endpoint *remote)
{
	(void)take_in(owner, fd, remote);
}

void relay_server_take(struct relay_server *server, int fd, const struct endpoint *remote, const uint8_t *bytes,
		       size_t n)
{
	struct client *client = take_in(server, fd, remote);

	if (client)
		tls_stream_feed(&client->stream, bytes, n); /* it may be gone now */
}

/* time */

/* False when the client is closed. */
static void keep_alive(struct client *client, uint64_t now)
{
	struct relay_server *server = client->server;
	uint64_t idle_ms = server->options.keep_alive_s * 1000ull;

	if (now - client->heard_ms > server->options.dead_ms) {
		server->counters.closed_silent++;
		drop(client);
	} else if (has_expired(client)) {
		server->counters.closed_expired++;
		leave(client, RELAY_CLOSING_EXPIRED, 0);
	} else if (now - client->heard_ms >= idle_ms && now - client->pinged_ms >= idle_ms) {
		client->pinged_ms = now;
		relay_queue_frame(&client->queue, &(struct relay_frame){ .type = RELAY_PING, .ping = now });
		tls_stream_wake(&client->stream);
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct relay_server *server = container_of(timer, struct relay_server, tick);
	uint64_t now = now_ms(server);
	struct client *next;

	if (now - server->period_ms >= LONGEST_PERIOD_MS) {
		server->period_ms = now;
		server->longest_ms[1] = server->longest_ms[0];
		server->longest_ms[0] = 0;
	}
	for (struct client *c = server->lists[ADMITTED].first; c; c = next) {
		next = c->next;
		keep_alive(c, now);
	}
	for (struct client *c = server->lists[UNKNOWN].first; c; c = next) {
		next = c->next;
		if (now - c->since_ms >= UNKNOWN_MS)
			refuse_unknown(c);
	}
	for (struct client *c = server->lists[LEAVING].first; c; c = next) {
		next = c->next;
		if (now - c->since_ms >= LEAVE_MS)
			drop(c);
	}
}

/* draining */

/* As many as should have gone by now; who has left by itself is one of them. */
static void send_some_away(struct relay_server *server)
{
	uint64_t passed_ms = now_ms(server) - server->drain.began_ms, all = server->drain.n_clients;
	uint64_t due = passed_ms < server->drain.spread_ms ? all * passed_ms / server->drain.spread_ms : all;
	uint32_t left = (uint32_t)(all - due);

	while (server->lists[ADMITTED].n > left) {
		server->counters.closed_drained++;
		leave(server->lists[ADMITTED].first, RELAY_CLOSING_RESTART, RETRY_DRAINED_MS);
	}
	if (server->lists[ADMITTED].n == 0)
		uv_timer_stop(&server->drain_tick);
}

static void on_drain_tick(uv_timer_t *timer)
{
	send_some_away(container_of(timer, struct relay_server, drain_tick));
}

void relay_server_drain(struct relay_server *server, uint32_t spread_ms)
{
	server->drain.is_on = true;
	server->drain.began_ms = now_ms(server);
	server->drain.spread_ms = spread_ms;
	server->drain.n_clients = server->lists[ADMITTED].n;
	uv_timer_start(&server->drain_tick, on_drain_tick, DRAIN_PERIOD_MS, DRAIN_PERIOD_MS);
	send_some_away(server);
}

void relay_server_undrain(struct relay_server *server)
{
	server->drain.is_on = false;
	uv_timer_stop(&server->drain_tick);
}

/* public */

static void set_defaults(struct relay_server_options *options)
{
	if (options->max_clients == 0)
		options->max_clients = RELAY_SERVER_CLIENTS;
	if (options->max_handshakes == 0)
		options->max_handshakes = DEFAULT_HANDSHAKES;
	if (options->max_handshakes_source == 0)
		options->max_handshakes_source = DEFAULT_SOURCE;
	if (options->max_rate_source == 0)
		options->max_rate_source = DEFAULT_RATE;
	if (options->max_queue == 0)
		options->max_queue = DEFAULT_QUEUE;
	if (options->max_queues == 0)
		options->max_queues = DEFAULT_QUEUES;
	if (options->keep_alive_s == 0)
		options->keep_alive_s = DEFAULT_KEEP_ALIVE;
	if (options->dead_ms == 0)
		options->dead_ms = 2000 * options->keep_alive_s + 5000;
}

static int open_listeners(struct relay_server *server, struct error *reterr)
{
	const struct relay_server_options *options = &server->options;
	const struct tcp_listener_ports ports = { server, on_accepted };

	for (uint32_t i = 0; i < options->n_listen; i++) {
		struct endpoint address = options->listen[i];
		if (address.port == 0 && i > 0)
			address.port = relay_server_port(server);
		int r = tcp_listener_open(&server->listeners[i], tls_host_loop(options->host), &address,
					  options->sockets, &ports, reterr);
		if (r < 0)
			return r;
		server->n_listeners++;
		server->n_open++;
	}
	return 0;
}

int relay_server_start(const struct relay_server_options *options, struct relay_server **ret, struct error *reterr)
{
	if (options->n_listen > RELAY_SERVER_MAX_ADDRESSES)
		return error_set(reterr, -EINVAL, "a relay listens on %d addresses at most, not %u",
				 RELAY_SERVER_MAX_ADDRESSES, options->n_listen);
	struct relay_server *server = calloc(1, sizeof(*server));
	if (!server)
		return error_set(reterr, -ENOMEM, "out of memory");
	server->options = *options;
	set_defaults(&server->options);
	SSL_CTX_up_ref(server->options.context);
	key_table_init(&server->table);
	source_limit_init(&server->source_limit, server->options.max_rate_source,
			  2 * server->options.max_rate_source);
	rate_limit_init(&server->rate, server->options.max_rate, now_ms(server));
	randombytes_buf(&server->reach_seed, sizeof(server->reach_seed));
	uv_timer_init(tls_host_loop(options->host), &server->tick);
	uv_timer_init(tls_host_loop(options->host), &server->drain_tick);
	server->n_open = 2;

	int r = open_listeners(server, reterr);
	if (r < 0) {
		relay_server_stop(server, NULL, NULL);
		return r;
	}
	uint64_t period_ms = server->options.keep_alive_s >= 8 ? 1000 : 125;
	uv_timer_start(&server->tick, on_tick, period_ms, period_ms);
	server->options.sockets = NULL;
	*ret = server;
	return 0;
}

static void on_listener_closed(void *owner)
{
	struct relay_server *server = owner;

	server->n_open--;
	on_handle_closed(server);
}

void relay_server_stop(struct relay_server *server, void (*cb)(void *owner), void *owner)
{
	assert(!server->is_stopping);
	server->is_stopping = true;
	server->stopped = cb;
	server->stopped_owner = owner;
	for (uint32_t i = 0; i < server->n_listeners; i++)
		tcp_listener_close(&server->listeners[i], on_listener_closed);
	while (server->lists[SHAKING_HANDS].first)
		drop(server->lists[SHAKING_HANDS].first);
	while (server->lists[UNKNOWN].first)
		drop(server->lists[UNKNOWN].first);
	for (uint32_t i = 0; server->lists[ADMITTED].first; i++)
		leave(server->lists[ADMITTED].first, RELAY_CLOSING_RESTART, RETRY_RESTART_MS + i);
	finish_stop_if_empty(server);
}

uint32_t relay_server_sockets(const struct relay_server *server, int *ret)
{
	for (uint32_t i = 0; i < server->n_listeners; i++)
		ret[i] = server->listeners[i].fd;
	return server->n_listeners;
}

uint16_t relay_server_port(const struct relay_server *server)
{
	return server->n_listeners > 0 ? tcp_listener_port(&server->listeners[0]) : 0;
}

void relay_server_recheck_members(struct relay_server *server)
{
	struct client *next;

	for (struct client *c = server->lists[UNKNOWN].first; c; c = next) {
		next = c->next;
		if (is_member(server, &c->identity.node_key))
			admit_if_room(c);
	}
	for (struct client *c = server->lists[ADMITTED].first; c; c = next) {
		next = c->next;
		if (is_member(server, &c->identity.node_key))
			continue;
		server->counters.closed_removed++;
		leave(c, RELAY_CLOSING_NOT_ADMITTED, RETRY_REFUSED_MS);
	}
}

struct relay_server_counters relay_server_counters(const struct relay_server *server)
{
	struct relay_server_counters counters = server->counters;

	counters.clients = server->lists[ADMITTED].n;
	counters.handshakes = server->lists[SHAKING_HANDS].n;
	counters.longest_ms = server->longest_ms[server->longest_ms[1] > server->longest_ms[0]];
	for (uint32_t i = 0; i < server->n_listeners; i++)
		counters.refused_descriptors += server->listeners[i].n_refused;
	for (struct client *c = server->lists[ADMITTED].first; c; c = c->next)
		counters.dropped_queue += c->queue.n_dropped;
	return counters;
}

void relay_server_each_client(const struct relay_server *server,
			      void (*each)(void *owner, const struct relay_server_client *client), void *owner)
{
	for (const struct client *c = server->lists[ADMITTED].first; c; c = c->next) {
		struct relay_server_client client = {
			.node_key = c->identity.node_key,
			.remote = c->remote,
			.connected_ms = c->since_ms,
			.packets_in = c->packets_in,
			.bytes_in = c->bytes_in,
			.packets_out = c->packets_out,
			.bytes_out = c->bytes_out,
			.dropped_queue = c->queue.n_dropped,
		};
		memcpy(client.name, c->identity.name, sizeof(client.name));
		each(owner, &client);
	}
}
