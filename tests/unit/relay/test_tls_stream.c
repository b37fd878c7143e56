/*
 * Streams of TLS against a client whose bytes the test cuts where it wants:
 *
 *   hand: OpenSSL between two buffers ──── TCP, as much as the test passes on ──── the stream
 *
 * What is looked at is what TLS keeps for a stream: its two buffers of 16 KiB and a bit, which only the streams used
 * last may have, and nobody may lose who still reads into them.
 */
#include "world.h"

#include "common/macros.h"

#include <dlfcn.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_RECORD 16384

/* What OpenSSL allocates, but for the hands. */

struct allocation {
	_Alignas(max_align_t) size_t len;
	bool is_buffer;
};

static bool is_of_a_hand; /* what is allocated now */
static unsigned n_buffers, n_allocated; /* now; ever */

static void *allocate(size_t len, const char *file, int line)
{
	struct allocation *allocation = malloc(sizeof(*allocation) + len);

	(void)file;
	(void)line;
	if (!allocation)
		abort();
	*allocation = (struct allocation){ len, !is_of_a_hand && len > MAX_RECORD && len < 20000 };
	n_buffers += allocation->is_buffer;
	n_allocated += allocation->is_buffer;
	return allocation + 1;
}

static void release(void *memory, const char *file, int line)
{
	struct allocation *allocation = memory;

	(void)file;
	(void)line;
	if (!memory)
		return;
	n_buffers -= (--allocation)->is_buffer;
	free(allocation);
}

static void *reallocate(void *memory, size_t len, const char *file, int line)
{
	const struct allocation *old = memory;

	if (len == 0) {
		release(memory, file, line);
		return NULL;
	}
	void *larger = allocate(len, file, line);
	if (!memory)
		return larger;
	memcpy(larger, memory, old[-1].len < len ? old[-1].len : len);
	release(memory, file, line);
	return larger;
}

/* In front of OpenSSL's: who is asked to give its buffers back. */

static const SSL *watched;
static unsigned n_asked;

int SSL_free_buffers(SSL *ssl)
{
	void *found = dlsym(RTLD_NEXT, "SSL_free_buffers");
	int (*real)(SSL *);

	EXPECT(found != NULL);
	memcpy(&real, &found, sizeof(real));
	n_asked += ssl == watched;
	return real(ssl);
}

/* A stream that answers each record with as many bytes, and its hand. */

struct line {
	struct world *w;
	struct tls_stream stream;
	bool is_ready, is_closed;
	size_t n_got, n_to_say; /* bytes */
	unsigned n_records;
	struct line *then; /* instead of an answer, this one says something at once; or NULL */
	int fd;
	SSL *hand;
};

static void on_ready(void *owner)
{
	((struct line *)owner)->is_ready = true;
}

static void on_received(void *owner, const uint8_t *bytes, size_t len)
{
	struct line *line = owner;

	(void)bytes;
	line->n_got += len;
	line->n_records++;
	if (line->then) {
		line->then->n_to_say++;
		tls_stream_flush(&line->then->stream);
		return;
	}
	line->n_to_say += len;
	tls_stream_wake(&line->stream);
}

static size_t on_produce(void *owner, uint8_t *buf, size_t cap)
{
	struct line *line = owner;
	const size_t n = line->n_to_say < cap ? line->n_to_say : cap;

	memset(buf, 0, n);
	line->n_to_say -= n;
	return n;
}

static void on_ended(void *owner, const struct error *why)
{
	(void)owner;
	fprintf(stderr, "a stream has ended: %s\n", why->message);
	abort();
}

static void on_closed(void *owner)
{
	((struct line *)owner)->is_closed = true;
}

/* The socket of the stream's side; the other one is *ret. */
static int connect_sockets(int *ret)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);
	const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*ret = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	EXPECT(listener >= 0 && *ret >= 0);
	EXPECT(bind(listener, (struct sockaddr *)&at, len) == 0 && listen(listener, 1) == 0);
	EXPECT(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
	EXPECT(connect(*ret, (struct sockaddr *)&at, len) == 0);
	const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	EXPECT(fd >= 0);
	close(listener);
	return fd;
}

/* A step of the hand's part; true when that is done. */
static bool has_shaken_hands(struct line *line)
{
	char bytes[4096];
	int n;
	ssize_t got;

	is_of_a_hand = true;
	while ((got = recv(line->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		EXPECT(BIO_write(SSL_get_rbio(line->hand), bytes, (int)got) == (int)got);
	const bool is_done = SSL_do_handshake(line->hand) == 1;
	while ((n = BIO_read(SSL_get_wbio(line->hand), bytes, sizeof(bytes))) > 0)
		EXPECT(send(line->fd, bytes, (size_t)n, 0) == n);
	is_of_a_hand = false;
	return is_done;
}

static void open_line(struct line *line, struct world *w, SSL_CTX *context)
{
	const struct tls_stream_ports ports = { .owner = line, .ready = on_ready, .received = on_received, .produce = on_produce, .ended = on_ended };

	*line = (struct line){ .w = w };
	const int fd = connect_sockets(&line->fd);
	EXPECT(tls_stream_open_server(&line->stream, w->host, w->server_options.context, fd, 0, &ports) == 0);
	is_of_a_hand = true;
	line->hand = SSL_new(context);
	EXPECT(line->hand != NULL);
	SSL_set_bio(line->hand, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(line->hand);
	is_of_a_hand = false;
	AWAIT_OTHERS(w, has_shaken_hands(line) && line->is_ready);
}

static void close_line(struct line *line)
{
	tls_stream_close(&line->stream, on_closed);
	AWAIT(line->w, line->is_closed);
	is_of_a_hand = true;
	SSL_free(line->hand);
	is_of_a_hand = false;
	close(line->fd);
}

/* len bytes in a record, or as many as it takes; the records, not sent. */
static size_t seal(struct line *line, size_t len, uint8_t *ret, size_t cap)
{
	static const uint8_t zeros[3 * MAX_RECORD];

	is_of_a_hand = true;
	EXPECT(len <= sizeof(zeros));
	for (size_t done = 0; done < len;) {
		const int n = SSL_write(line->hand, zeros, (int)(len - done));
		EXPECT(n > 0);
		done += (size_t)n;
	}
	const int n = BIO_read(SSL_get_wbio(line->hand), ret, (int)cap);
	is_of_a_hand = false;
	EXPECT(n > 0 && BIO_pending(SSL_get_wbio(line->hand)) == 0);
	return (size_t)n;
}

/* The stream has read them. */
static void pass(struct line *line, const uint8_t *bytes, size_t len)
{
	const uint64_t before = line->stream.bytes_in;

	EXPECT(send(line->fd, bytes, len, 0) == (ssize_t)len);
	AWAIT(line->w, line->stream.bytes_in == before + len);
}

/* A record comes, and one goes. */
static void use(struct line *line)
{
	uint8_t record[256];
	const size_t before = line->n_got;

	pass(line, record, seal(line, 3, record, sizeof(record)));
	AWAIT(line->w, line->n_got == before + 3 && line->n_to_say == 0);
}

struct lines {
	struct world w;
	struct member member; /* whose certificate all hands show */
	struct line at[5];
};

static void begin(struct lines *l)
{
	world_begin(&l->w);
	make_member(&l->member, &l->w, "hand", 1);
	for (size_t i = 0; i < ARRAY_LEN(l->at); i++)
		open_line(&l->at[i], &l->w, l->member.context);
}

static void finish(struct lines *l)
{
	for (size_t i = 0; i < ARRAY_LEN(l->at); i++)
		close_line(&l->at[i]);
	close_member(&l->member);
	world_end(&l->w);
	EXPECT(n_buffers == 0);
}

static void test_a_part_of_a_record_keeps_what_it_is_read_into_wherever_it_is_cut(void)
{
	struct lines l;
	struct line *cut = &l.at[0], *other = &l.at[1];
	uint8_t record[256];
	begin(&l);
	tls_host_keep(l.w.host, 1);
	watched = cut->stream.ssl;

	for (size_t at = 1, len = 2; at < len; at++) {
		const size_t before = cut->n_got;
		use(cut);
		len = seal(cut, 6, record, sizeof(record));
		pass(cut, record, at);
		n_asked = 0;
		use(other);
		EXPECT(n_asked == 0);
		pass(cut, record + at, len - at);
		AWAIT(&l.w, cut->n_got == before + 9 && cut->n_to_say == 0);
		use(other); /* whole again it gives them back */
		EXPECT(n_asked == 1 && n_buffers <= 2);
	}
	watched = NULL;
	finish(&l);
}

static void test_only_the_streams_used_last_keep_buffers(void)
{
	struct lines l;
	begin(&l);
	tls_host_keep(l.w.host, 2);

	for (unsigned round = 0; round < 3; round++) {
		for (size_t i = 0; i < ARRAY_LEN(l.at); i++) {
			use(&l.at[i]);
			EXPECT(n_buffers > 0 && n_buffers <= 2 * 2);
		}
	}
	finish(&l);
}

static void test_what_is_kept_is_not_got_anew_for_each_record(void)
{
	struct lines l;
	begin(&l);

	for (size_t i = 0; i < ARRAY_LEN(l.at); i++)
		use(&l.at[i]);
	const unsigned before = n_allocated;
	for (unsigned round = 0; round < 20; round++)
		for (size_t i = 0; i < ARRAY_LEN(l.at); i++)
			use(&l.at[i]);
	EXPECT(n_allocated == before && n_buffers <= 2 * ARRAY_LEN(l.at));
	finish(&l);
}

/* OpenSSL 3.2 and later keep to what was said before the first key. */
static void test_that_buffers_are_kept_is_said_before_the_handshake(void)
{
	struct lines l;
	struct tls_stream *stream = &l.at[0].stream;
	begin(&l);
	const struct tls_stream_ports ports = stream->ports;
	close_line(&l.at[0]);

	int other, fd = connect_sockets(&other);
	EXPECT(tls_stream_open_server(stream, l.w.host, l.w.server_options.context, fd, 0, &ports) == 0);
	EXPECT(!(SSL_get_mode(stream->ssl) & SSL_MODE_RELEASE_BUFFERS));
	l.at[0].is_closed = false;
	tls_stream_close(stream, on_closed);
	AWAIT(&l.w, l.at[0].is_closed);
	close(other);
	open_line(&l.at[0], &l.w, l.member.context);
	finish(&l);
}

static void test_who_reads_on_after_others_were_used_gives_its_buffers_back_too(void)
{
	struct lines l;
	struct line *reader = &l.at[0], *other = &l.at[1];
	uint8_t records[256];
	begin(&l);
	tls_host_keep(l.w.host, 1);
	use(other);
	reader->then = other;

	const size_t n = seal(reader, 3, records, sizeof(records));
	pass(reader, records, n + seal(reader, 3, records + n, sizeof(records) - n)); /* in one piece */
	AWAIT(&l.w, reader->n_records == 2);
	use(other);
	EXPECT(n_buffers <= 2);
	finish(&l);
}

static void test_all_records_of_a_piece_are_read_at_once(void)
{
	struct lines l;
	static uint8_t records[3 * MAX_RECORD];
	begin(&l);

	pass(&l.at[0], records, seal(&l.at[0], 2 * MAX_RECORD + 1, records, sizeof(records)));
	AWAIT(&l.w, l.at[0].n_got == 2 * MAX_RECORD + 1);
	EXPECT(l.at[0].n_records == 3);
	finish(&l);
}

static void test_our_clients_and_relays_agree_on_the_cheapest_cipher(void)
{
	struct lines l;
	begin(&l);

	EXPECT(strcmp(SSL_get_version(l.at[0].stream.ssl), "TLSv1.3") == 0);
	EXPECT(strcmp(SSL_get_cipher_name(l.at[0].stream.ssl), "TLS_AES_128_GCM_SHA256") == 0);
	finish(&l);
}

int main(void)
{
	EXPECT(CRYPTO_set_mem_functions(allocate, reallocate, release) == 1);
	test_a_part_of_a_record_keeps_what_it_is_read_into_wherever_it_is_cut();
	test_only_the_streams_used_last_keep_buffers();
	test_what_is_kept_is_not_got_anew_for_each_record();
	test_that_buffers_are_kept_is_said_before_the_handshake();
	test_who_reads_on_after_others_were_used_gives_its_buffers_back_too();
	test_all_records_of_a_piece_are_read_at_once();
	test_our_clients_and_relays_agree_on_the_cheapest_cipher();
	return 0;
}
