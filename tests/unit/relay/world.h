/*
 * A small world for tests of the relay: a loop, a CA, members with certificates, relay connections that
 * write down what they hear. Everything runs on loopback; nothing sleeps, conditions are awaited.
 */
#pragma once

#include "actors/relay_manager/relay_connection.h"
#include "common/certificate.h"
#include "common/relay_wire.h"
#include "common/tls_stream.h"
#include "relay/relay_server.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <uv.h>

#define AWAIT_MS 10000

/* assert() that says where, also in a release build. */
#define EXPECT(condition) expect(condition, #condition, __FILE__, __LINE__)
/* Runs the loop until the condition holds; fails the test after AWAIT_MS. */
#define AWAIT(w, condition)                                                                                 \
	do {                                                                                                \
		uint64_t await_until_ = uv_hrtime() / 1000000 + AWAIT_MS;                                   \
		while (!(condition))                                                                        \
			turn((w), await_until_, #condition, __FILE__, __LINE__);                            \
	} while (0)

/* The same for what another thread brings about, without a word to the loop. */
#define AWAIT_OTHERS(w, condition)                                                                          \
	do {                                                                                                \
		uint64_t until_ = uv_hrtime() / 1000000 + AWAIT_MS;                                         \
		while (!(condition)) {                                                                      \
			expect(uv_hrtime() / 1000000 < until_, #condition, __FILE__, __LINE__);             \
			run_for((w), 1);                                                                    \
		}                                                                                           \
	} while (0)

struct world {
	uv_loop_t loop;
	uv_timer_t alarm; /* wakes AWAIT */
	struct tls_host *host;
	char *ca_key, *ca_pem;
	struct certificate_authority ca;
	struct relay_server *server;
	struct relay_server_options server_options;
	uint16_t port;
	bool server_stopped, host_closed;
	struct public_key removed; /* is no member; zero: all are */
};

struct member {
	struct world *world;
	const char *name;
	struct public_key key;
	SSL_CTX *context;
	struct relay_connection *connection;
	struct relay_connection_options options;
	uint32_t n_ready, n_lost, n_packets, n_gone, n_misordered;
	bool is_silent;
	uint64_t last_number; /* packets of tests carry a number that only grows */
	struct public_key last_from, last_gone;
	uint8_t last[2048];
	size_t last_len;
	char why[256];
	bool closed;
};

void expect(bool holds, const char *what, const char *file, int line);
void turn(struct world *world, uint64_t until_ms, const char *what, const char *file, int line);
/* Runs the loop for that long: only to show that something does not happen. */
void run_for(struct world *world, uint64_t ms);

void world_begin(struct world *world);
/* Also stops the server if it runs, and checks that the loop is empty. */
void world_end(struct world *world);
void start_server(struct world *world); /* with world->server_options, on loopback */
void stop_server(struct world *world);
/* A certificate by issuer (NULL: the world's CA), good for life_s; trusts the world's CA. */
SSL_CTX *make_context(struct world *world, const struct certificate_authority *issuer, const char *name,
		      const struct public_key *key, bool is_server, int64_t life_s);

/* A member with a certificate of the world's CA, whose key is all `number`; not connected. */
void make_member(struct member *member, struct world *world, const char *name, uint8_t number);
void connect_member(struct member *member);
void connect_and_await(struct member *member);
void close_member(struct member *member); /* and awaits it */
int send_text(struct member *from, const struct member *to, const char *text);
/* A packet of len bytes that begins with the number. */
void send_number(struct member *from, const struct member *to, uint64_t number, size_t len);
bool got_text(const struct member *member, const char *text);
struct map_relay relay_at(const struct world *world);
struct public_key relay_key(void);

/* A TLS connection that says what it is told, and writes down the frames it hears; not always a fair one. */
struct raw {
	struct world *world;
	struct tls_stream stream;
	struct relay_decoder decoder;
	bool is_ready, is_ended, is_closed, is_paused;
	uint8_t out[4096];
	size_t n_out;
	uint32_t n_hello, n_packets, n_pings, n_pongs, n_misordered;
	uint64_t last_number;
	enum relay_closing_reason closing; /* 0: none heard */
	char why[256];
};

void raw_connect(struct raw *raw, struct world *world, SSL_CTX *context); /* to the server */
void raw_accept(struct raw *raw, struct world *world, SSL_CTX *context, int fd);
void raw_say(struct raw *raw, const void *bytes, size_t len);
void raw_say_frame(struct raw *raw, const struct relay_frame *frame);
void raw_close(struct raw *raw); /* and awaits it */

/* A plain TCP socket, connected to the server. */
int plain_connect(const struct world *world);
