#include "world.h"

#include "common/error.h"
#include "common/relay_wire.h"
#include "common/tls.h"
#include "common/wire.h"

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
	uv_timer_start(&world->alarm, on_alarm, until_ms - now, 0);
	uv_run(&world->loop, UV_RUN_ONCE);
}

void run_for(struct world *world, uint64_t ms)
{
	uint64_t until = uv_hrtime() / 1000000 + ms;

	for (uint64_t now = until - ms; now < until; now = uv_hrtime() / 1000000) {
		uv_timer_start(&world->alarm, on_alarm, until - now, 0);
		uv_run(&world->loop, UV_RUN_ONCE);
	}
}

static struct public_key key_of(uint8_t number)
{
	struct public_key key;

	memset(key.bytes, number, sizeof(key.bytes));
	return key;
}

SSL_CTX *make_context(struct world *world, const char *name, const struct public_key *key, bool is_server)
{
	struct error err = { 0 };
	char *key_pem = NULL, *request = NULL, *certificate = NULL;
	SSL_CTX *context = NULL;

	int r = identity_key_generate(&key_pem, &err);
	if (r == 0)
		r = certificate_request(key_pem, &request, &err);
	if (r == 0)
		r = certificate_issue_node(&world->ca, request, name, key, (int64_t)time(NULL), 3600,
					   &certificate, &err);
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
	struct public_key key = key_of(RELAY_NUMBER);

	*world = (struct world){ 0 };
	EXPECT(sodium_init() >= 0);
	EXPECT(certificate_authority_generate("test", (int64_t)time(NULL), &world->ca_key, &world->ca_pem, NULL) == 0);
	EXPECT(certificate_authority_init(&world->ca, world->ca_key, world->ca_pem, NULL) == 0);
	EXPECT(uv_loop_init(&world->loop) == 0);
	uv_timer_init(&world->loop, &world->alarm);
	EXPECT(tls_host_new(&world->loop, &world->host) == 0);
	world->server_options = (struct relay_server_options){
		.host = world->host,
		.context = make_context(world, "relay", &key, true),
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
	member->context = make_context(world, name, &member->key, false);
}

struct map_relay relay_at(const struct world *world)
{
	return (struct map_relay){ .id = 7,
				   .name = "relay",
				   .node_key = key_of(RELAY_NUMBER),
				   .tls_port = world->port,
				   .n_addresses = 1,
				   .addresses = { endpoint_from_v4(0x7f000001, 0) } };
}

void connect_member(struct member *member)
{
	struct relay_connection_options options = {
		.host = member->world->host,
		.context = member->context,
		.relay = relay_at(member->world),
		.ports = { member, on_ready, on_lost, on_packet, on_gone },
	};

	EXPECT(relay_connection_new(&options, &member->connection) == 0);
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
