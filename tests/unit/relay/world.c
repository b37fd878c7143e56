#include "world.h"

#include "common/error.h"
#include "common/relay_wire.h"
#include "common/tls.h"
#include "common/wire.h"

#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RELAY_NUMBER 200 /* of the relay's own node key */

void expect(bool holds, const char *what, const char *file, int line)
{
	if (holds)
		return;
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
	abort();
}

static void on_alarm(uv_timer_t *timer)
{
	(void)timer; /* ends a turn of the loop */
}

void turn(struct world *world, uint64_t until_ms, const char *what, const char *file, int line)
{
	uint64_t now = uv_hrtime() / 1000000;

	if (now >= until_ms) {
		fprintf(stderr, "%s:%d: waited in vain for: %s\n", file, line, what);
		abort();
	}
	/* Again and again: it may be due before the loop waits. */
	uv_timer_start(&world->alarm, on_alarm, until_ms - now, until_ms - now);
	uv_run(&world->loop, UV_RUN_ONCE);
}

void run_for(struct world *world, uint64_t ms)
{
	uint64_t until = uv_hrtime() / 1000000 + ms;

	for (uint64_t now = until - ms; now < until; now = uv_hrtime() / 1000000) {
		uv_timer_start(&world->alarm, on_alarm, until - now, until - now);
		uv_run(&world->loop, UV_RUN_ONCE);
	}
}

static struct public_key key_of(uint8_t number)
{
	struct public_key key;

	memset(key.bytes, number, sizeof(key.bytes));
	return key;
}

struct public_key relay_key(void)
{
	return key_of(RELAY_NUMBER);
}

SSL_CTX *make_context(struct world *world, const struct certificate_authority *issuer, const char *name,
		      const struct public_key *key, bool is_server, int64_t life_s)
{
	struct error err = { 0 };
	char *key_pem = NULL, *request = NULL, *certificate = NULL;
	SSL_CTX *context = NULL;

	int r = identity_key_generate(&key_pem, &err);
	if (r == 0)
		r = certificate_request(key_pem, &request, &err);
	if (r == 0)
		r = certificate_issue_node(issuer ? issuer : &world->ca, request, name, key, (int64_t)time(NULL),
					   life_s, &certificate, &err);
	struct tls_options options = { .is_server = is_server,
				       .trust = TLS_TRUST_CA,
				       .ca_pem = world->ca_pem,
				       .certificate_pem = certificate,
				       .key_pem = key_pem,
				       .alpn = RELAY_ALPN };
	if (r == 0)
		r = tls_context_new(&options, &context, &err);
	if (r != 0) {
		fprintf(stderr, "no certificate: %s\n", err.message);
		abort();
	}
	certificate_free_secret(key_pem);
	free(request);
	free(certificate);
	return context;
}

static bool is_member(void *owner, const struct public_key *node_key)
{
	struct world *world = owner;

	return !public_key_equal(node_key, &world->removed);
}

void world_begin(struct world *world)
{
	struct public_key key = relay_key();

	*world = (struct world){ 0 };
	signal(SIGPIPE, SIG_IGN); /* as every program that uses libuv must */
	EXPECT(sodium_init() >= 0);
	EXPECT(certificate_authority_generate("test", (int64_t)time(NULL), &world->ca_key, &world->ca_pem, NULL) == 0);
	EXPECT(certificate_authority_init(&world->ca, world->ca_key, world->ca_pem, NULL) == 0);
	EXPECT(uv_loop_init(&world->loop) == 0);
	uv_timer_init(&world->loop, &world->alarm);
	EXPECT(tls_host_new(&world->loop, &world->host) == 0);
	world->server_options = (struct relay_server_options){
		.host = world->host,
		.context = make_context(world, NULL, "relay", &key, true, 3600),
		.n_listen = 1,
		.listen = { endpoint_from_v4(0x7f000001, 0) },
		.owner = world,
		.is_member = is_member,
	};
}

void start_server(struct world *world)
{
	struct error err;

	world->server_options.listen[0].port = world->port; /* a restarted one takes the same */
	if (relay_server_start(&world->server_options, &world->server, &err) != 0) {
		fprintf(stderr, "no server: %s\n", err.message);
		abort();
	}
	world->port = relay_server_port(world->server);
}

static void on_stopped(void *owner)
{
	((struct world *)owner)->server_stopped = true;
}

void stop_server(struct world *world)
{
	world->server_stopped = false;
	relay_server_stop(world->server, on_stopped, world);
	AWAIT(world, world->server_stopped);
	world->server = NULL;
}

static void on_host_closed(void *owner)
{
	((struct world *)owner)->host_closed = true;
}

void world_end(struct world *world)
{
	if (world->server)
		stop_server(world);
	tls_host_close(world->host, on_host_closed, world);
	AWAIT(world, world->host_closed);
	uv_close((uv_handle_t *)&world->alarm, NULL);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	EXPECT(uv_loop_close(&world->loop) == 0);
	SSL_CTX_free(world->server_options.context);
	certificate_authority_deinit(&world->ca);
	certificate_free_secret(world->ca_key);
	free(world->ca_pem);
}

/* ports of a member */

static void on_ready(void *owner, uint32_t relay_id)
{
	struct member *member = owner;

	EXPECT(relay_id == 7);
	member->n_ready++;
}

static void on_lost(void *owner, uint32_t relay_id, const char *why)
{
	struct member *member = owner;

	(void)relay_id;
	member->n_lost++;
	snprintf(member->why, sizeof(member->why), "%s", why);
}

static void on_packet(void *owner, uint32_t relay_id, const struct public_key *from, const uint8_t *bytes,
		      size_t len)
{
	struct member *member = owner;
	struct wire_reader r = wire_reader(bytes, len);
	uint64_t number = wire_u64(&r);

	(void)relay_id;
	member->n_packets++;
	member->n_misordered += !r.failed && number <= member->last_number;
	member->last_number = number;
	member->last_from = *from;
	member->last_len = len < sizeof(member->last) ? len : sizeof(member->last);
	memcpy(member->last, bytes, member->last_len);
}

static void on_silent(void *owner, uint32_t relay_id, bool is_silent)
{
	((struct member *)owner)->is_silent = is_silent;
}

static void on_gone(void *owner, uint32_t relay_id, const struct public_key *peer)
{
	struct member *member = owner;

	(void)relay_id;
	member->n_gone++;
	member->last_gone = *peer;
}

void make_member(struct member *member, struct world *world, const char *name, uint8_t number)
{
	*member = (struct member){ .world = world, .name = name, .key = key_of(number) };
	member->context = make_context(world, NULL, name, &member->key, false, 3600);
}

struct map_relay relay_at(const struct world *world)
{
	return (struct map_relay){ .id = 7,
				   .name = "relay",
				   .node_key = relay_key(),
				   .tls_port = world->port,
				   .n_addresses = 1,
				   .addresses = { endpoint_from_v4(0x7f000001, 0) } };
}

void connect_member(struct member *member)
{
	member->options = (struct relay_connection_options){
		.host = member->world->host,
		.context = member->context,
		.relay = relay_at(member->world),
		.ports = { .owner = member,
			   .ready = on_ready,
			   .lost = on_lost,
			   .packet = on_packet,
			   .peer_gone = on_gone,
			   .silent = on_silent },
	};

	EXPECT(relay_connection_new(&member->options, &member->connection) == 0);
}

void connect_and_await(struct member *member)
{
	connect_member(member);
	AWAIT(member->world, member->n_ready == 1);
}

static void on_closed(void *owner)
{
	((struct member *)owner)->closed = true;
}

void close_member(struct member *member)
{
	if (member->connection) {
		relay_connection_close(member->connection, on_closed, member);
		AWAIT(member->world, member->closed);
	}
	SSL_CTX_free(member->context);
}

int send_text(struct member *from, const struct member *to, const char *text)
{
	return relay_connection_send(from->connection, &to->key, (const uint8_t *)text, strlen(text));
}

void send_number(struct member *from, const struct member *to, uint64_t number, size_t len)
{
	uint8_t packet[65536] = { 0 };
	struct wire_writer w = wire_writer(packet, sizeof(packet));

	wire_put_u64(&w, number);
	EXPECT(relay_connection_send(from->connection, &to->key, packet, len) == 0);
}

bool got_text(const struct member *member, const char *text)
{
	return member->last_len == strlen(text) && memcmp(member->last, text, member->last_len) == 0;
}

/* raw connections */

static void on_raw_ready(void *owner)
{
	((struct raw *)owner)->is_ready = true;
}

static void on_raw_frame(struct raw *raw, const struct relay_frame *frame)
{
	struct wire_reader r;

	switch (frame->type) {
	case RELAY_HELLO:
		raw->n_hello++;
		break;
	case RELAY_SEND:
	case RELAY_RECV:
		r = wire_reader(frame->packet.bytes, frame->packet.len);
		uint64_t number = wire_u64(&r);
		raw->n_packets++;
		raw->n_misordered += number <= raw->last_number;
		raw->last_number = number;
		break;
	case RELAY_PING:
		raw->n_pings++;
		break;
	case RELAY_PONG:
		raw->n_pongs++;
		break;
	case RELAY_CLOSING:
		raw->closing = frame->closing.reason;
		break;
	case RELAY_PEER_GONE:
		break;
	}
}

static void on_raw_received(void *owner, const uint8_t *bytes, size_t len)
{
	struct raw *raw = owner;
	struct relay_frame frame;

	relay_decoder_feed(&raw->decoder, bytes, len);
	while (relay_decoder_next(&raw->decoder, &frame) == 0)
		on_raw_frame(raw, &frame);
}

static size_t on_raw_produce(void *owner, uint8_t *buf, size_t cap)
{
	struct raw *raw = owner;
	size_t n = raw->n_out;

	EXPECT(n <= cap);
	memcpy(buf, raw->out, n);
	raw->n_out = 0;
	return n;
}

static void on_raw_ended(void *owner, const struct error *why)
{
	struct raw *raw = owner;

	raw->is_ended = true;
	snprintf(raw->why, sizeof(raw->why), "%.250s", why->message);
}

void raw_connect(struct raw *raw, struct world *world, SSL_CTX *context)
{
	const struct tls_stream_ports ports = { .owner = raw, .ready = on_raw_ready, .received = on_raw_received, .produce = on_raw_produce, .ended = on_raw_ended };
	struct endpoint server = endpoint_from_v4(0x7f000001, world->port);

	*raw = (struct raw){ .world = world };
	EXPECT(tls_stream_open_client(&raw->stream, world->host, context, &server, "relay", 0, &ports) == 0);
}

void raw_accept(struct raw *raw, struct world *world, SSL_CTX *context, int fd)
{
	const struct tls_stream_ports ports = { .owner = raw, .ready = on_raw_ready, .received = on_raw_received, .produce = on_raw_produce, .ended = on_raw_ended };

	*raw = (struct raw){ .world = world };
	EXPECT(tls_stream_open_server(&raw->stream, world->host, context, fd, 0, &ports) == 0);
}

void raw_say(struct raw *raw, const void *bytes, size_t len)
{
	EXPECT(raw->n_out + len <= sizeof(raw->out));
	memcpy(raw->out + raw->n_out, bytes, len);
	raw->n_out += len;
	tls_stream_wake(&raw->stream);
}

void raw_say_frame(struct raw *raw, const struct relay_frame *frame)
{
	uint8_t buf[2048];

	raw_say(raw, buf, relay_encode(buf, sizeof(buf), frame));
}

static void on_raw_closed(void *owner)
{
	((struct raw *)owner)->is_closed = true;
}

void raw_close(struct raw *raw)
{
	tls_stream_close(&raw->stream, on_raw_closed);
	AWAIT(raw->world, raw->is_closed);
	relay_decoder_deinit(&raw->decoder);
}

int plain_connect(const struct world *world)
{
	struct endpoint server = endpoint_from_v4(0x7f000001, world->port);
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(&server, &address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	EXPECT(fd >= 0 && connect(fd, (struct sockaddr *)&address, len) == 0);
	return fd;
}
