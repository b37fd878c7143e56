/*
 * One relay connection: up to four attempts race, one of them becomes the link, and when that is lost it
 * begins again after a while. One timer; what it is for follows from the state (see next_deadline()).
 */
#include "actors/relay_manager/relay_connection.h"

#include "actors/relay_manager/uplink_watch.h"
#include "common/certificate.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/relay_queue.h"
#include "common/tls.h"

#include <assert.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_QUEUE	 (512 * 1024)
#define FLUSH_LEN	 (64 * 1024)
#define STAGGER_MS	 200   /* between two addresses */
#define CONNECT_MS	 5000  /* for TCP and TLS to one address */
#define HELLO_MS	 5000  /* for the relay's hello, after TLS */
#define BACK_OFF_MIN_MS	 200
#define BACK_OFF_MAX_MS	 30000
#define STEADY_MS	 5000  /* ready for so long: the next back-off begins anew */
#define PROBE_MS	 300   /* we sent, and heard nothing for so long: ping */
#define EXPECT_MS	 2000  /* so long after a packet came we expect another */
#define SILENT_MS	 400   /* after a ping, and twice the usual round trip */
#define GIVE_UP_MS	 3000  /* after a ping */
#define GIVE_UP_HARD_MS	 10000 /* also if the other side's kernel still acknowledges */
#define ACK_FRESH_MS	 1500
#define IDLE_PING_MS	 30000
#define FINISH_MS	 2000  /* for the relay to end, too */
#define POKE_AGE_MS	 1000  /* younger attempts are not begun again by a poke */

enum attempt_role { RACING, LINK, DISCARDED };

struct attempt {
	struct relay_connection *connection;
	struct attempt *next;
	enum attempt_role role;
	struct tls_stream stream;
	struct endpoint remote;
};

struct relay_connection {
	struct relay_connection_options options;
	enum relay_connection_state state;
	struct attempt *attempts; /* also those that are only waiting for their handles to close */
	struct attempt *link;	  /* HANDSHAKING and READY */
	uint32_t n_racing, n_open; /* n_open: attempts in the list and the timer */
	uint32_t next_address;
	struct relay_decoder decoder;
	struct relay_queue queue;
	uv_timer_t timer;
	uint64_t since_ms; /* in this state */
	uint64_t retry_ms; /* end of BACKING_OFF */
	uint64_t not_before_ms; /* the relay said so: it sends its clients away one after another */
	bool is_finishing, is_silent;
	uint32_t back_off_ms, retry_after_ms;
	uint64_t heard_ms, unanswered_ms; /* unanswered_ms: first sent after heard_ms; 0: none */
	uint64_t received_ms;		  /* the last packet; 0: none */
	uint64_t ping_ms;		  /* when the outstanding ping was sent; 0: none */
	uint64_t ping_ns, ping_value;
	struct uplink_watch watch; /* of that ping */
	bool is_ping_queued;	   /* it waits in queue */
	uint32_t rtt_us;
	char why[256]; /* the last attempt failed, or the relay's reason to close */
	struct relay_connection_counters counters;
	void (*closed)(void *owner);
	void *closed_owner;
};

static void on_timer(uv_timer_t *timer);
static void rearm(struct relay_connection *connection);

static const char *const state_names[] = {
	[RELAY_CONNECTION_CONNECTING] = "connecting", [RELAY_CONNECTION_HANDSHAKING] = "handshaking",
	[RELAY_CONNECTION_READY] = "ready",	      [RELAY_CONNECTION_BACKING_OFF] = "backing off",
	[RELAY_CONNECTION_CLOSED] = "closed",
};
static_assert(ARRAY_LEN(state_names) == RELAY_CONNECTION_N_STATES, "a name for every state");

const char *relay_connection_state_name(enum relay_connection_state state)
{
	return state_names[state];
}

static uint64_t now_ms(const struct relay_connection *connection)
{
	return uv_now(connection->timer.loop);
}

static void enter(struct relay_connection *connection, enum relay_connection_state state)
{
	log_debug("relay", "relay=%s: %s -> %s", connection->options.relay.name, state_names[connection->state],
		  state_names[state]);
	connection->state = state;
	connection->since_ms = now_ms(connection);
}

/* ends */

static void free_if_closed(struct relay_connection *connection)
{
	if (connection->state != RELAY_CONNECTION_CLOSED || connection->n_open > 0)
		return;
	void (*closed)(void *owner) = connection->closed;
	void *owner = connection->closed_owner;

	SSL_CTX_free(connection->options.context);
	free(connection);
	if (closed)
		closed(owner);
}

static void on_stream_closed(void *owner)
{
	struct attempt *attempt = owner;
	struct relay_connection *connection = attempt->connection;
	struct attempt **at = &connection->attempts;

	while (*at != attempt)
		at = &(*at)->next;
	*at = attempt->next;
	free(attempt);
	connection->n_open--;
	free_if_closed(connection);
}

static void discard(struct attempt *attempt)
{
	if (attempt->role == DISCARDED)
		return;
	if (attempt->role == RACING)
		attempt->connection->n_racing--;
	attempt->role = DISCARDED;
	tls_stream_close(&attempt->stream, on_stream_closed);
}

static void discard_all_but(struct relay_connection *connection, const struct attempt *keep)
{
	for (struct attempt *a = connection->attempts; a; a = a->next)
		if (a != keep)
			discard(a);
}

static void forget_link(struct relay_connection *connection)
{
	discard_all_but(connection, NULL);
	connection->link = NULL;
	connection->is_silent = false;
	connection->received_ms = 0;
	connection->counters.dropped_queue += connection->queue.n_dropped + connection->queue.n_packets;
	relay_queue_deinit(&connection->queue);
	relay_queue_init(&connection->queue, connection->options.max_queue);
	relay_decoder_deinit(&connection->decoder);
}

/* The next wait: doubled each time, half of it random so that clients do not come back in step. */
static uint32_t next_back_off(struct relay_connection *connection)
{
	uint32_t wait_ms = connection->back_off_ms;

	connection->back_off_ms = wait_ms >= BACK_OFF_MAX_MS / 2 ? BACK_OFF_MAX_MS : wait_ms * 2;
	wait_ms = wait_ms / 2 + randombytes_uniform(wait_ms / 2 + 1);
	if (connection->retry_after_ms > wait_ms)
		wait_ms = connection->retry_after_ms + randombytes_uniform(connection->retry_after_ms / 2 + 1);
	return wait_ms;
}

static void end(struct relay_connection *connection);

static void lose(struct relay_connection *connection, const char *why)
{
	struct relay_connection_ports *ports = &connection->options.ports;
	uint64_t now = now_ms(connection);
	char text[sizeof(connection->why)];

	if (connection->is_finishing) {
		end(connection);
		return;
	}

	if (connection->state == RELAY_CONNECTION_READY) {
		connection->counters.lost++;
		if (now - connection->since_ms >= STEADY_MS)
			connection->back_off_ms = BACK_OFF_MIN_MS;
	}
	snprintf(text, sizeof(text), "%s", why);
	forget_link(connection);
	connection->retry_ms = now + next_back_off(connection);
	connection->retry_after_ms = 0;
	connection->why[0] = '\0';
	enter(connection, RELAY_CONNECTION_BACKING_OFF);
	rearm(connection);
	ports->lost(ports->owner, connection->options.relay.id, text);
}

/* liveness */

static void send_ping(struct relay_connection *connection)
{
	connection->ping_ms = now_ms(connection);
	connection->is_ping_queued = true;
	uplink_watch_ask(&connection->watch, connection->ping_ms, connection->link->stream.bytes_out,
			 tls_stream_acked(&connection->link->stream));
	connection->ping_ns = uv_hrtime();
	randombytes_buf(&connection->ping_value, sizeof(connection->ping_value));
	relay_queue_frame(&connection->queue,
			  &(struct relay_frame){ .type = RELAY_PING, .ping = connection->ping_value });
	tls_stream_wake(&connection->link->stream);
}

static void on_pong(struct relay_connection *connection, uint64_t value)
{
	if (value != connection->ping_value || connection->ping_ns == 0)
		return;
	uint64_t us = (uv_hrtime() - connection->ping_ns) / 1000;
	uint32_t rtt_us = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;

	connection->ping_ns = 0;
	if (rtt_us == 0)
		rtt_us = 1;
	/* Falls at once, rises slowly: what waits in queues is not distance. */
	if (connection->rtt_us == 0 || rtt_us < connection->rtt_us)
		connection->rtt_us = rtt_us;
	else
		connection->rtt_us += (rtt_us - connection->rtt_us) / 4;
}

static uint64_t silent_deadline(const struct relay_connection *connection)
{
	return connection->watch.since_ms + SILENT_MS + connection->rtt_us / 500;
}

/* Who only receives would not notice that nothing comes any more. */
static bool is_expecting(const struct relay_connection *connection)
{
	return connection->received_ms != 0 && connection->heard_ms < connection->received_ms + EXPECT_MS;
}

/* When the state of a ready link must be looked at next. */
static uint64_t liveness_deadline(const struct relay_connection *connection)
{
	if (connection->ping_ms != 0) {
		const uint64_t at = connection->is_silent ? connection->watch.since_ms + GIVE_UP_MS
							  : silent_deadline(connection);
		const uint64_t look = now_ms(connection) + UPLINK_LOOK_MS;
		return connection->watch.is_queued && look < at ? look : at;
	}
	if (connection->unanswered_ms != 0)
		return connection->unanswered_ms + PROBE_MS;
	if (is_expecting(connection))
		return connection->heard_ms + PROBE_MS;
	return connection->heard_ms + IDLE_PING_MS;
}

static void tell_silent(struct relay_connection *connection, bool is_silent)
{
	struct relay_connection_ports *ports = &connection->options.ports;

	connection->is_silent = is_silent;
	if (ports->silent && !connection->is_finishing)
		ports->silent(ports->owner, connection->options.relay.id, is_silent);
}

/* A ping that waits behind our own full uplink is not the sign of a dead one: acknowledgements come in. */
static bool is_still_acknowledged(const struct relay_connection *connection, uint64_t now)
{
	return now - connection->watch.since_ms < GIVE_UP_HARD_MS &&
	       tls_stream_last_ack_ms(&connection->link->stream) < ACK_FRESH_MS;
}

static void look_at_uplink(struct relay_connection *connection, uint64_t now)
{
	uplink_watch_look(&connection->watch, now, tls_stream_acked(&connection->link->stream));
	if (connection->is_silent && now < silent_deadline(connection))
		tell_silent(connection, false); /* it moves again */
}

static void watch_link(struct relay_connection *connection, uint64_t now)
{
	char why[64];

	if (connection->ping_ms != 0)
		look_at_uplink(connection, now);
	uint64_t deadline = liveness_deadline(connection);

	if (now < deadline) {
		rearm(connection);
		return;
	}
	if (connection->ping_ms == 0) {
		send_ping(connection);
		rearm(connection);
	} else if (!connection->is_silent) {
		connection->is_silent = true;
		rearm(connection);
		tell_silent(connection, true);
	} else if (is_still_acknowledged(connection, now)) {
		uv_timer_start(&connection->timer, on_timer, PROBE_MS, 0);
	} else {
		snprintf(why, sizeof(why), "no answer to a ping for %llu ms",
			 (unsigned long long)(now - connection->watch.since_ms));
		lose(connection, why);
	}
}

static void heard(struct relay_connection *connection)
{
	connection->heard_ms = now_ms(connection);
	connection->unanswered_ms = 0;
	connection->ping_ms = 0;
	if (connection->is_silent)
		tell_silent(connection, false);
}

static void note_received(struct relay_connection *connection)
{
	const bool is_first = connection->received_ms == 0 ||
			      now_ms(connection) >= connection->received_ms + EXPECT_MS;

	connection->received_ms = now_ms(connection);
	if (is_first && !connection->is_finishing)
		rearm(connection); /* it is looked at sooner than was planned */
}

/* frames */

static void become_ready(struct relay_connection *connection)
{
	struct relay_connection_ports *ports = &connection->options.ports;

	connection->counters.connected++;
	enter(connection, RELAY_CONNECTION_READY);
	send_ping(connection);
	rearm(connection);
	log_debug("relay", "relay=%s address=%s: ready", connection->options.relay.name,
		  endpoint_text(&connection->link->remote).s);
	ports->ready(ports->owner, connection->options.relay.id);
}

static void on_closing(struct relay_connection *connection, const struct relay_frame *frame)
{
	connection->retry_after_ms = frame->closing.retry_after_ms < BACK_OFF_MAX_MS
					     ? frame->closing.retry_after_ms
					     : BACK_OFF_MAX_MS;
	connection->not_before_ms = now_ms(connection) + connection->retry_after_ms;
	lose(connection, relay_closing_reason_text(frame->closing.reason));
}

static void handle_frame(struct relay_connection *connection, const struct relay_frame *frame)
{
	struct relay_connection_ports *ports = &connection->options.ports;
	uint32_t id = connection->options.relay.id;
	bool is_ready = connection->state == RELAY_CONNECTION_READY;

	switch (frame->type) {
	case RELAY_HELLO:
		if (!is_ready)
			become_ready(connection);
		break;
	case RELAY_RECV:
		if (!is_ready)
			break;
		note_received(connection);
		connection->counters.packets_in++;
		connection->counters.bytes_in += frame->packet.len;
		ports->packet(ports->owner, id, &frame->packet.key, frame->packet.bytes, frame->packet.len);
		break;
	case RELAY_PEER_GONE:
		if (is_ready && !connection->is_finishing)
			ports->peer_gone(ports->owner, id, &frame->peer_gone.key);
		break;
	case RELAY_PING:
		relay_queue_frame(&connection->queue,
				  &(struct relay_frame){ .type = RELAY_PONG, .ping = frame->ping });
		tls_stream_wake(&connection->link->stream);
		break;
	case RELAY_PONG:
		on_pong(connection, frame->ping);
		break;
	case RELAY_CLOSING:
		on_closing(connection, frame);
		break;
	case RELAY_SEND:
		connection->counters.malformed++;
		break;
	}
}

/* stream callbacks */

static void on_received(void *owner, const uint8_t *bytes, size_t len)
{
	struct attempt *attempt = owner;
	struct relay_connection *connection = attempt->connection;
	struct relay_frame frame;

	heard(connection);
	relay_decoder_feed(&connection->decoder, bytes, len);
	for (;;) {
		int r = relay_decoder_next(&connection->decoder, &frame);
		if (r == RELAY_WIRE_MORE)
			return;
		if (r == RELAY_WIRE_TOO_LONG) {
			lose(connection, "the relay sent a frame that is too long");
			return;
		}
		if (r == RELAY_WIRE_MALFORMED)
			connection->counters.malformed++;
		else if (r == 0)
			handle_frame(connection, &frame);
		if (attempt->role == DISCARDED)
			return;
	}
}

static size_t on_produce(void *owner, uint8_t *buf, size_t cap)
{
	struct attempt *attempt = owner;

	struct relay_connection *connection = attempt->connection;

	if (attempt->role != LINK)
		return 0;
	const size_t n = relay_queue_take(&connection->queue, buf, cap);
	if (n > 0 && connection->is_ping_queued) { /* it goes before packets: in this record */
		connection->is_ping_queued = false;
		uplink_watch_sent(&connection->watch, attempt->stream.bytes_out + n);
	}
	return n;
}

static void try_next_address(struct relay_connection *connection);

/* One attempt has failed; the connection only when it was the last. */
static void fail_attempt(struct attempt *attempt, const char *why)
{
	struct relay_connection *connection = attempt->connection;

	snprintf(connection->why, sizeof(connection->why), "%s: %s", endpoint_text(&attempt->remote).s, why);
	discard(attempt);
	if (connection->next_address < connection->options.relay.n_addresses)
		try_next_address(connection);
	if (connection->n_racing == 0)
		lose(connection, connection->why);
	else
		rearm(connection);
}

static void on_ready(void *owner)
{
	struct attempt *attempt = owner;
	struct relay_connection *connection = attempt->connection;
	struct identity identity;

	if (!tls_stream_alpn_is(&attempt->stream, RELAY_ALPN)) {
		fail_attempt(attempt, "the other side is not a relay");
		return;
	}
	if (tls_peer_identity(attempt->stream.ssl, &identity) != 0 ||
	    !public_key_equal(&identity.node_key, &connection->options.relay.node_key)) {
		fail_attempt(attempt, "the other side is a member, but not this relay");
		return;
	}
	attempt->role = LINK;
	connection->n_racing--;
	connection->link = attempt;
	discard_all_but(connection, attempt);
	heard(connection);
	enter(connection, RELAY_CONNECTION_HANDSHAKING);
	rearm(connection);
}

static void on_ended(void *owner, const struct error *why)
{
	struct attempt *attempt = owner;

	if (attempt->role == RACING)
		fail_attempt(attempt, why->message);
	else
		lose(attempt->connection, why->message);
}

/* connecting */

static int start_attempt(struct relay_connection *connection, const struct endpoint *remote)
{
	struct attempt *attempt = calloc(1, sizeof(*attempt));

	if (!attempt)
		return -ENOMEM;
	attempt->connection = connection;
	attempt->remote = *remote;
	const struct tls_stream_ports ports = { .owner = attempt, .ready = on_ready, .received = on_received, .produce = on_produce, .ended = on_ended };
	int r = tls_stream_open_client(&attempt->stream, connection->options.host, connection->options.context,
				       remote, connection->options.relay.name, CONNECT_MS, &ports);
	if (r < 0) {
		free(attempt);
		return r;
	}
	attempt->next = connection->attempts;
	connection->attempts = attempt;
	connection->n_racing++;
	connection->n_open++;
	return 0;
}

static void try_next_address(struct relay_connection *connection)
{
	const struct map_relay *relay = &connection->options.relay;
	struct endpoint remote = relay->addresses[connection->next_address++];

	remote.port = relay->tls_port;
	if (start_attempt(connection, &remote) < 0)
		snprintf(connection->why, sizeof(connection->why), "%s: out of memory", endpoint_text(&remote).s);
}

static void begin(struct relay_connection *connection)
{
	discard_all_but(connection, NULL);
	connection->counters.attempts++;
	connection->next_address = 0;
	snprintf(connection->why, sizeof(connection->why), "the relay has no address");
	enter(connection, RELAY_CONNECTION_CONNECTING);
	if (connection->options.relay.n_addresses > 0)
		try_next_address(connection);
	if (connection->n_racing == 0)
		lose(connection, connection->why);
	else
		rearm(connection);
}

/* the timer */

static uint64_t next_deadline(const struct relay_connection *connection)
{
	switch (connection->state) {
	case RELAY_CONNECTION_CONNECTING:
		return connection->next_address < connection->options.relay.n_addresses
			       ? connection->since_ms + STAGGER_MS * connection->next_address
			       : 0; /* the attempts have deadlines of their own */
	case RELAY_CONNECTION_HANDSHAKING:
		return connection->since_ms + HELLO_MS;
	case RELAY_CONNECTION_READY:
		return liveness_deadline(connection);
	case RELAY_CONNECTION_BACKING_OFF:
		return connection->retry_ms;
	case RELAY_CONNECTION_CLOSED:
	case RELAY_CONNECTION_N_STATES:
		break;
	}
	return 0;
}

static void on_timer(uv_timer_t *timer)
{
	struct relay_connection *connection = container_of(timer, struct relay_connection, timer);

	if (connection->is_finishing) {
		end(connection);
		return;
	}
	switch (connection->state) {
	case RELAY_CONNECTION_CONNECTING:
		if (connection->next_address < connection->options.relay.n_addresses)
			try_next_address(connection);
		rearm(connection);
		break;
	case RELAY_CONNECTION_HANDSHAKING:
		lose(connection, "the relay says nothing");
		break;
	case RELAY_CONNECTION_READY:
		watch_link(connection, now_ms(connection));
		break;
	case RELAY_CONNECTION_BACKING_OFF:
		begin(connection);
		break;
	case RELAY_CONNECTION_CLOSED:
	case RELAY_CONNECTION_N_STATES:
		break;
	}
}

static void rearm(struct relay_connection *connection)
{
	uint64_t now = now_ms(connection), at = next_deadline(connection);

	if (at == 0)
		uv_timer_stop(&connection->timer);
	else
		uv_timer_start(&connection->timer, on_timer, at > now ? at - now : 0, 0);
}

/* public */

int relay_connection_new(const struct relay_connection_options *options, struct relay_connection **ret)
{
	struct relay_connection *connection = calloc(1, sizeof(*connection));

	if (!connection)
		return -ENOMEM;
	connection->options = *options;
	if (connection->options.max_queue == 0)
		connection->options.max_queue = DEFAULT_QUEUE;
	SSL_CTX_up_ref(options->context);
	relay_queue_init(&connection->queue, connection->options.max_queue);
	connection->back_off_ms = BACK_OFF_MIN_MS;
	uv_timer_init(tls_host_loop(options->host), &connection->timer);
	connection->n_open = 1;
	connection->state = RELAY_CONNECTION_BACKING_OFF;
	connection->retry_ms = now_ms(connection);
	rearm(connection);
	*ret = connection;
	return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct relay_connection *connection = container_of((uv_timer_t *)handle, struct relay_connection, timer);

	connection->n_open--;
	free_if_closed(connection);
}

static void end(struct relay_connection *connection)
{
	forget_link(connection);
	relay_queue_deinit(&connection->queue);
	enter(connection, RELAY_CONNECTION_CLOSED);
	uv_close((uv_handle_t *)&connection->timer, on_timer_closed);
}

void relay_connection_close(struct relay_connection *connection, void (*cb)(void *owner), void *owner)
{
	assert(connection->state != RELAY_CONNECTION_CLOSED || connection->is_finishing);
	connection->closed = cb;
	connection->closed_owner = owner;
	if (connection->state != RELAY_CONNECTION_CLOSED)
		end(connection);
}

void relay_connection_finish(struct relay_connection *connection, void (*cb)(void *owner), void *owner)
{
	if (connection->state != RELAY_CONNECTION_READY) {
		connection->is_finishing = true;
		relay_connection_close(connection, cb, owner);
		return;
	}
	connection->is_finishing = true;
	connection->closed = cb;
	connection->closed_owner = owner;
	tls_stream_shutdown(&connection->link->stream);
	uv_timer_start(&connection->timer, on_timer, FINISH_MS, 0);
}

int relay_connection_send(struct relay_connection *connection, const struct public_key *to, const uint8_t *bytes,
			  size_t len)
{
	if (len == 0 || len > RELAY_MAX_PACKET)
		return -EMSGSIZE;
	if (connection->state != RELAY_CONNECTION_READY) {
		connection->counters.dropped_not_ready++;
		return -ENOTCONN;
	}
	connection->counters.packets_out++;
	connection->counters.bytes_out += len;
	relay_queue_packet(&connection->queue, RELAY_SEND, &(struct relay_packet){ *to, bytes, len });
	if (connection->queue.n_bytes >= FLUSH_LEN)
		tls_stream_flush(&connection->link->stream);
	else
		tls_stream_wake(&connection->link->stream);
	if (connection->unanswered_ms == 0) {
		connection->unanswered_ms = now_ms(connection);
		if (connection->ping_ms == 0)
			rearm(connection);
	}
	return 0;
}

void relay_connection_poke(struct relay_connection *connection)
{
	uint64_t now = now_ms(connection);

	switch (connection->state) {
	case RELAY_CONNECTION_BACKING_OFF:
		connection->back_off_ms = BACK_OFF_MIN_MS;
		connection->retry_ms = now > connection->not_before_ms ? now : connection->not_before_ms;
		rearm(connection);
		break;
	case RELAY_CONNECTION_CONNECTING:
		if (now - connection->since_ms < POKE_AGE_MS)
			break;
		discard_all_but(connection, NULL);
		connection->retry_ms = now;
		enter(connection, RELAY_CONNECTION_BACKING_OFF);
		rearm(connection);
		break;
	case RELAY_CONNECTION_READY:
		if (connection->ping_ms == 0) {
			send_ping(connection);
			rearm(connection);
		}
		break;
	case RELAY_CONNECTION_HANDSHAKING:
	case RELAY_CONNECTION_CLOSED:
	case RELAY_CONNECTION_N_STATES:
		break;
	}
}

void relay_connection_set_context(struct relay_connection *connection, SSL_CTX *context)
{
	SSL_CTX_up_ref(context);
	SSL_CTX_free(connection->options.context);
	connection->options.context = context;
}

enum relay_connection_state relay_connection_state(const struct relay_connection *connection)
{
	return connection->state;
}

const struct map_relay *relay_connection_relay(const struct relay_connection *connection)
{
	return &connection->options.relay;
}

uint32_t relay_connection_rtt_us(const struct relay_connection *connection)
{
	return connection->rtt_us;
}

struct endpoint relay_connection_remote(const struct relay_connection *connection)
{
	return connection->state == RELAY_CONNECTION_READY ? connection->link->remote : (struct endpoint){ 0 };
}

struct relay_connection_counters relay_connection_counters(const struct relay_connection *connection)
{
	struct relay_connection_counters counters = connection->counters;

	counters.dropped_queue += connection->queue.n_dropped;
	return counters;
}
