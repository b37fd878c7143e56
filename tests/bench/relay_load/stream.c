/*
 * A connection for each client, with many frames in one write: our relay protocol over TLS, DERP over TLS, and
 * DERP over plain TCP, as derper speaks it where something else does its TLS. Frames alone over plain TCP: the floor.
 */
#include "tests/bench/relay_load/load.h"

#include "common/certificate.h"
#include "common/file.h"
#include "common/relay_wire.h"
#include "common/tls.h"
#include "common/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define OUT_LEN	   (128u << 10)
#define IN_LEN	   (256u << 10)
#define EVENTS	   128
#define MAX_FILE   65536
#define SETUP_S	   10

/* How frames look: one byte of type, then the length of the body in so many bytes. */
struct framing {
	size_t len_bytes;
	uint8_t send, receive; /* types; both bodies begin with a key */
};

static const struct framing ours = { 3, RELAY_SEND, RELAY_RECV }, derp = { 4, 0x04, 0x05 },
			    bare = { 3, RELAY_SEND, RELAY_SEND };

struct connection {
	int fd;
	SSL *ssl; /* NULL: plain */
	uint8_t *out, *in;
	size_t n_out, out_at, n_in;
};

static struct {
	const struct framing *framing;
	int epoll_fd;
	struct connection connections[LOAD_MAX_CLIENTS];
	struct public_key keys[LOAD_MAX_CLIENTS];
} stream;

static const uint8_t zeros[1500];

/* ---- bytes ---- */

/* -1: not now. */
static ssize_t put_some(struct connection *c, const uint8_t *bytes, size_t len)
{
	if (!c->ssl) {
		ssize_t n = write(c->fd, bytes, len);
		if (n < 0 && errno != EAGAIN)
			load_fail("write: %s", strerror(errno));
		return n;
	}
	int n = SSL_write(c->ssl, bytes, (int)len);
	if (n <= 0 && SSL_get_error(c->ssl, n) != SSL_ERROR_WANT_WRITE)
		load_fail("TLS write: %s", tls_take_error().s);
	return n > 0 ? n : -1;
}

static ssize_t get_some(struct connection *c, uint8_t *bytes, size_t room)
{
	if (!c->ssl) {
		ssize_t n = read(c->fd, bytes, room);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			load_fail("read: %s", n == 0 ? "the relay has closed" : strerror(errno));
		return n;
	}
	int n = SSL_read(c->ssl, bytes, (int)room);
	if (n <= 0 && SSL_get_error(c->ssl, n) != SSL_ERROR_WANT_READ)
		load_fail("TLS read: closed, or %s", tls_take_error().s);
	return n > 0 ? n : -1;
}

/* False when something still waits. */
static bool put_waiting(struct connection *c)
{
	while (c->out_at < c->n_out) {
		ssize_t n = put_some(c, c->out + c->out_at, c->n_out - c->out_at);
		if (n < 0)
			return false;
		c->out_at += (size_t)n;
	}
	c->n_out = c->out_at = 0;
	return true;
}

/* ---- frames ---- */

static size_t put_head(uint8_t *at, uint8_t type, size_t body_len)
{
	const size_t len_bytes = stream.framing->len_bytes;

	at[0] = type;
	for (size_t i = 0; i < len_bytes; i++)
		at[1 + i] = (uint8_t)(body_len >> 8 * (len_bytes - 1 - i));
	return 1 + len_bytes;
}

static size_t body_len_of(const uint8_t *head)
{
	size_t len = 0;

	for (size_t i = 0; i < stream.framing->len_bytes; i++)
		len = len << 8 | head[1 + i];
	return len;
}

static uint32_t stream_send(struct load *load, uint32_t pair, uint32_t n)
{
	struct connection *c = &stream.connections[load_sender(pair)];
	const size_t frame_len = 1 + stream.framing->len_bytes + KEY_LEN + load->size;

	if (!put_waiting(c))
		return 0;
	if (n > OUT_LEN / frame_len)
		n = (uint32_t)(OUT_LEN / frame_len);
	for (uint32_t i = 0; i < n; i++) {
		const struct load_packet packet = load_next(load, pair);
		uint8_t *at = c->out + c->n_out;
		at += put_head(at, stream.framing->send, KEY_LEN + load->size);
		memcpy(at, stream.keys[load_receiver(pair)].bytes, KEY_LEN);
		memcpy(at + KEY_LEN, &packet, sizeof(packet));
		memcpy(at + KEY_LEN + sizeof(packet), zeros, load->size - sizeof(packet));
		c->n_out += frame_len;
	}
	(void)put_waiting(c);
	return n;
}

static void stream_flush(struct load *load)
{
	for (uint32_t pair = 0; pair < load->n_pairs; pair++)
		if (stream.connections[load_sender(pair)].n_out > 0)
			(void)put_waiting(&stream.connections[load_sender(pair)]);
}

/* Frames that are whole; what is left moves to the front. */
static void take_frames(struct load *load, struct connection *c)
{
	const size_t head_len = 1 + stream.framing->len_bytes;
	size_t at = 0;

	while (c->n_in - at >= head_len) {
		const size_t len = body_len_of(c->in + at);
		if (head_len + len > IN_LEN)
			load_fail("a frame of %zu bytes", len);
		if (c->n_in - at < head_len + len)
			break;
		if (c->in[at] == stream.framing->receive && len > KEY_LEN)
			load_received(load, c->in + at + head_len + KEY_LEN, len - KEY_LEN);
		at += head_len + len;
	}
	memmove(c->in, c->in + at, c->n_in - at);
	c->n_in -= at;
}

static void receive_from(struct load *load, struct connection *c)
{
	ssize_t n;

	do {
		n = get_some(c, c->in + c->n_in, IN_LEN - c->n_in);
		if (n > 0)
			c->n_in += (size_t)n;
		take_frames(load, c);
	} while (n > 0 && c->ssl && SSL_has_pending(c->ssl));
}

static void stream_receive(struct load *load)
{
	struct epoll_event events[EVENTS];
	int n = epoll_wait(stream.epoll_fd, events, EVENTS, 0);

	for (int i = 0; i < n; i++)
		receive_from(load, events[i].data.ptr);
}

/* ---- connecting ---- */

static int connect_socket(const struct load *load, uint32_t client)
{
	const struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(load_address(load, client)) };
	const struct timeval patience = { .tv_sec = SETUP_S };
	const int one = 1;
	struct sockaddr_storage relay;
	const socklen_t len = endpoint_to_sockaddr(&load->relay, &relay);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (const void *)&own, sizeof(own)) != 0 || connect(fd, (const void *)&relay, len) != 0)
		load_fail("client %u: %s", client, strerror(errno));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

static struct connection *open_connection(const struct load *load, uint32_t client)
{
	struct connection *c = &stream.connections[client];
	struct secret_key secret;

	load_keys(client, &secret, &stream.keys[client]);
	c->fd = connect_socket(load, client);
	c->out = malloc(OUT_LEN);
	c->in = malloc(IN_LEN);
	if (!c->out || !c->in)
		abort();
	return c;
}

/* The connection is set up: from now on it is not waited for. */
static void watch(struct connection *c)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };

	if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0 || epoll_ctl(stream.epoll_fd, EPOLL_CTL_ADD, c->fd, &event) != 0)
		load_fail("epoll: %s", strerror(errno));
}

/* Until the first frame is whole: its type; the frame stays. */
static uint8_t await_frame(struct connection *c, size_t *ret_len)
{
	const size_t head_len = 1 + stream.framing->len_bytes;

	while (c->n_in < head_len || c->n_in < head_len + body_len_of(c->in)) {
		ssize_t n = get_some(c, c->in + c->n_in, IN_LEN - c->n_in);
		if (n <= 0)
			load_fail("the relay says nothing");
		c->n_in += (size_t)n;
	}
	*ret_len = head_len + body_len_of(c->in);
	return c->in[0];
}

static void drop_bytes(struct connection *c, size_t len)
{
	memmove(c->in, c->in + len, c->n_in - len);
	c->n_in -= len;
}

/* ---- ours ---- */

static char *read_file(const char *folder, const char *name)
{
	struct error error;
	char path[4096], *text;
	size_t len;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (file_read(path, MAX_FILE, &text, &len, &error) != 0)
		load_fail("%s", error.message);
	return text;
}

/* The same for all relays: the generator shall cost the same beside each. */
static void tune(SSL_CTX *context)
{
	SSL_CTX_set_read_ahead(context, 1);
	SSL_CTX_set_default_read_buffer_len(context, 65536);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_clear_mode(context, SSL_MODE_RELEASE_BUFFERS); /* which ours comes with */
}

/* What was agreed on, for whoever compares; the same for all clients. */
static void note_cipher(struct load *load, const SSL *ssl)
{
	if (load->tls_cipher && (strcmp(load->tls_cipher, SSL_get_cipher_name(ssl)) != 0 ||
				 strcmp(load->tls_version, SSL_get_version(ssl)) != 0))
		load_fail("TLS: clients have different ciphers");
	load->tls_version = SSL_get_version(ssl); /* static texts */
	load->tls_cipher = SSL_get_cipher_name(ssl);
}

static void connect_ssl(struct load *load, struct connection *c, uint32_t client, SSL_CTX *context,
			const char *server_name)
{
	c->ssl = SSL_new(context);
	if (!c->ssl || (server_name && SSL_set_tlsext_host_name(c->ssl, server_name) != 1) ||
	    SSL_set_fd(c->ssl, c->fd) != 1 || SSL_connect(c->ssl) != 1)
		load_fail("client %u: TLS: %s", client, tls_take_error().s);
	note_cipher(load, c->ssl);
}

static SSL_CTX *make_context(const struct certificate_authority *ca, const char *ca_pem, uint32_t client)
{
	char *key = NULL, *request = NULL, *certificate = NULL, name[32];
	SSL_CTX *context = NULL;
	struct error error;

	snprintf(name, sizeof(name), "client-%u", client);
	if (identity_key_generate(&key, &error) != 0 || certificate_request(key, &request, &error) != 0 ||
	    certificate_issue_node(ca, request, name, &stream.keys[client], (int64_t)time(NULL), 3600, &certificate,
				   &error) != 0)
		load_fail("%s", error.message);
	const struct tls_options options = { .trust = TLS_TRUST_CA,
					     .ca_pem = ca_pem,
					     .certificate_pem = certificate,
					     .key_pem = key,
					     .alpn = RELAY_ALPN };
	if (tls_context_new(&options, &context, &error) != 0)
		load_fail("%s", error.message);
	tune(context);
	certificate_free_secret(key);
	free(request);
	free(certificate);
	return context;
}

static void connect_tls_client(struct load *load, const struct certificate_authority *ca, const char *ca_pem,
			       uint32_t client)
{
	struct connection *c = open_connection(load, client);
	SSL_CTX *context = make_context(ca, ca_pem, client);
	size_t len;

	connect_ssl(load, c, client, context, NULL);
	SSL_CTX_free(context);
	if (await_frame(c, &len) != RELAY_HELLO)
		load_fail("client %u: no hello", client);
	drop_bytes(c, len);
	watch(c);
}

static void connect_tls(struct load *load)
{
	struct certificate_authority ca = { 0 };
	struct error error;

	if (!load->control_folder)
		load_fail("tls needs folder=");
	char *key = read_file(load->control_folder, "ca.key"), *pem = read_file(load->control_folder, "ca.crt");
	if (certificate_authority_init(&ca, key, pem, &error) != 0)
		load_fail("%s", error.message);
	stream.framing = &ours;
	stream.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (uint32_t client = 0; client < 2 * load->n_pairs; client++)
		connect_tls_client(load, &ca, pem, client);
	certificate_authority_deinit(&ca);
	certificate_free_secret(key);
	free(pem);
}

/* ---- DERP ---- */

#define DERP_SERVER_KEY	 0x01
#define DERP_CLIENT_INFO 0x02
#define DERP_SERVER_INFO 0x03
#define DERP_MAGIC_LEN	 8
#define DERP_NAME	 "derp.test" /* in its certificate: tests/bench/relaying.py */

static void put_all(struct connection *c, const void *bytes, size_t len)
{
	if (put_some(c, bytes, len) != (ssize_t)len)
		load_fail("write: not all was taken");
}

static void upgrade(struct connection *c)
{
	static const char request[] = "GET /derp HTTP/1.1\r\nHost: derp\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n";
	const uint8_t *end = NULL;

	put_all(c, request, sizeof(request) - 1);
	while (!end) {
		ssize_t n = get_some(c, c->in + c->n_in, IN_LEN - c->n_in);
		if (n <= 0)
			load_fail("derper does not answer");
		c->n_in += (size_t)n;
		end = memmem(c->in, c->n_in, "\r\n\r\n", 4);
	}
	if (c->n_in < 12 || memcmp(c->in + 9, "101", 3) != 0)
		load_fail("derper: no upgrade");
	drop_bytes(c, (size_t)(end + 4 - c->in));
}

static void say_who(struct connection *c, uint32_t client, const uint8_t server_key[KEY_LEN])
{
	static const char info[] = "{\"version\":2}";
	uint8_t frame[5 + KEY_LEN + crypto_box_NONCEBYTES + crypto_box_MACBYTES + sizeof(info)], *at = frame;
	const size_t len = KEY_LEN + crypto_box_NONCEBYTES + crypto_box_MACBYTES + sizeof(info) - 1;
	struct secret_key secret;
	struct public_key public;

	load_keys(client, &secret, &public);
	at += put_head(at, DERP_CLIENT_INFO, len);
	memcpy(at, public.bytes, KEY_LEN);
	randombytes_buf(at + KEY_LEN, crypto_box_NONCEBYTES);
	if (crypto_box_easy(at + KEY_LEN + crypto_box_NONCEBYTES, (const uint8_t *)info, sizeof(info) - 1, at + KEY_LEN,
			    server_key, secret.bytes) != 0)
		load_fail("derper's key is none");
	put_all(c, frame, 5 + len);
}

/* context: NULL without TLS. */
static void connect_derp_client(struct load *load, uint32_t client, SSL_CTX *context)
{
	struct connection *c = open_connection(load, client);
	size_t len;

	if (context)
		connect_ssl(load, c, client, context, DERP_NAME);
	upgrade(c);
	if (await_frame(c, &len) != DERP_SERVER_KEY || len < 5 + DERP_MAGIC_LEN + KEY_LEN)
		load_fail("derper says no key");
	say_who(c, client, c->in + 5 + DERP_MAGIC_LEN);
	drop_bytes(c, len);
	if (await_frame(c, &len) != DERP_SERVER_INFO)
		load_fail("derper says nothing about itself");
	drop_bytes(c, len);
	watch(c);
}

static void connect_derp_clients(struct load *load, SSL_CTX *context)
{
	stream.framing = &derp;
	stream.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (uint32_t client = 0; client < 2 * load->n_pairs; client++)
		connect_derp_client(load, client, context);
}

static void connect_derp(struct load *load)
{
	connect_derp_clients(load, NULL);
}

/* Whose certificate it is does not matter here. */
static void connect_derp_tls(struct load *load)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());

	if (!context || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1)
		load_fail("TLS: %s", tls_take_error().s);
	tune(context);
	connect_derp_clients(load, context);
	SSL_CTX_free(context);
}

/* ---- nothing but TCP: bench_relay_floor ---- */

static void connect_tcp(struct load *load)
{
	stream.framing = &bare;
	stream.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	for (uint32_t client = 0; client < 2 * load->n_pairs; client++)
		watch(open_connection(load, client));
}

const struct load_transport load_tcp = { "tcp", connect_tcp, stream_send, stream_flush, stream_receive };
const struct load_transport load_tls = { "tls", connect_tls, stream_send, stream_flush, stream_receive };
const struct load_transport load_derp = { "derp", connect_derp, stream_send, stream_flush, stream_receive };
const struct load_transport load_derp_tls = { "derp-tls", connect_derp_tls, stream_send, stream_flush, stream_receive };
