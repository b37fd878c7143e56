/*
 * TLS over a libuv TCP handle, without a buffer of its own: TLS reads straight from the piece that libuv
 * has just read (into a buffer all streams share), always to its end; what TLS writes gathers in another
 * shared buffer and leaves in one system call. Only what the socket does not take is copied and waits in
 * libuv, and until it has gone the owner is not asked for more. TLS's own buffers are kept for the streams used last.
 */
#include "common/tls_stream.h"

#include "common/macros.h"
#include "common/tls.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define PIECE_LEN	 65536
#define RECORD_LEN	 16384
#define RECORD_HEAD	 5 /* bytes; the last two are the length of the rest */
#define GATHER_LEN	 (4 * RECORD_LEN) /* what goes out in one system call, about */
#define TURN_LEN	 65536		  /* what one stream may bring in a turn of the loop, about */
#define MAX_WAITING	 (1024 * 1024) /* bytes in libuv: more are only made by a peer that abuses key updates */
#define USER_TIMEOUT_MS	 15000
#define BUSY_TURN_NS	 200000 /* turns that follow so soon … */
#define LITTLE_BYTES	 16384	/* … and bring no more than this are too many */
#define NAP_NS		 50000	/* and the kernel's slack of about as much */
#define YOUNG_READS	 32	/* of a stream, and its handshake: nobody naps for these, somebody waits for each */
#define NOTSENT_LOWAT	 131072 /* what waits should do so in the owner's queue, not in the kernel's */

struct tls_host {
	uv_loop_t *loop;
	uv_prepare_t prepare;
	uv_check_t check;
	BIO_METHOD *bio_method;
	struct tls_stream *dirty;
	struct tls_stream *warm, *coolest; /* whose TLS keeps its buffers, the last used first */
	unsigned n_warm, max_warm;
	uint64_t turn; /* of the loop */
	uint64_t turn_ns;  /* when the last one ended */
	size_t turn_bytes; /* that this one brought */
	uint8_t *piece, *plain;
	uint8_t *cipher; /* what TLS has written, not yet handed to the kernel */
	size_t n_cipher, cipher_cap;
	unsigned n_streams, n_open;
	void (*closed)(void *owner);
	void *owner;
};

struct waiting_write {
	uv_write_t request;
	uint8_t bytes[];
};

static void pump(struct tls_stream *stream);
static void write_out(struct tls_stream *stream);

/* What an earlier call left would be taken for the next one's. To look costs less than to clear, for each record. */
static void forget_errors(void)
{
	if (ERR_peek_error() != 0)
		ERR_clear_error();
}

static bool is_closing(const struct tls_stream *stream)
{
	return stream->ssl == NULL;
}

/* TLS's buffers: to get and free one for each record costs more than what is in it, when that is a single packet */

static void cool(struct tls_stream *stream)
{
	struct tls_host *host = stream->host;

	if (!stream->is_warm)
		return;
	*(stream->warmer ? &stream->warmer->cooler : &host->warm) = stream->cooler;
	*(stream->cooler ? &stream->cooler->warmer : &host->coolest) = stream->warmer;
	stream->is_warm = false;
	host->n_warm--;
}

/*
 * What has a part of a record keeps its buffers until it is used again: OpenSSL before its fix of CVE-2024-4741 frees
 * them even when the rest is still to be read into them.
 */
static void give_back(struct tls_stream *stream)
{
	if (stream->n_head == 0 && !SSL_has_pending(stream->ssl))
		(void)SSL_free_buffers(stream->ssl);
}

/* It has just been used; of too many the one that was so longest ago gives its buffers back. */
static void warm(struct tls_stream *stream)
{
	struct tls_host *host = stream->host;

	if (host->warm == stream)
		return;
	cool(stream);
	while (host->n_warm > 0 && host->n_warm >= host->max_warm) {
		struct tls_stream *coolest = host->coolest;
		cool(coolest);
		give_back(coolest);
	}
	stream->warmer = NULL;
	stream->cooler = host->warm;
	*(host->warm ? &host->warm->warmer : &host->coolest) = stream;
	host->warm = stream;
	stream->is_warm = true;
	host->n_warm++;
}

/* the BIO: TLS's view of the socket */

/* Where in a record TLS is, by what it has taken of the stream. */
static void follow_records(struct tls_stream *stream, const uint8_t *bytes, size_t n)
{
	for (size_t at = 0; at < n;) {
		if (stream->n_head < RECORD_HEAD) {
			stream->n_body = (uint16_t)(stream->n_body << 8 | bytes[at++]); /* the last two of them stay */
			stream->n_head++;
		} else {
			size_t part = n - at < stream->n_body ? n - at : stream->n_body;
			stream->n_body = (uint16_t)(stream->n_body - part);
			at += part;
		}
		if (stream->n_head == RECORD_HEAD && stream->n_body == 0)
			stream->n_head = 0;
	}
}

static int bio_read(BIO *bio, char *buf, int len)
{
	struct tls_stream *stream = BIO_get_data(bio);
	size_t n = stream->n_in < (size_t)len ? stream->n_in : (size_t)len;

	BIO_clear_retry_flags(bio);
	if (n == 0) {
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(buf, stream->in, n);
	follow_records(stream, stream->in, n);
	stream->in += n;
	stream->n_in -= n;
	return (int)n;
}

static int bio_write(BIO *bio, const char *buf, int len)
{
	struct tls_stream *stream = BIO_get_data(bio);
	struct tls_host *host = stream->host;
	size_t need = host->n_cipher + (size_t)len;

	BIO_clear_retry_flags(bio);
	if (need > host->cipher_cap) {
		size_t cap = need * 2;
		uint8_t *cipher = realloc(host->cipher, cap);
		if (!cipher)
			return -1;
		host->cipher = cipher;
		host->cipher_cap = cap;
	}
	memcpy(host->cipher + host->n_cipher, buf, (size_t)len);
	host->n_cipher = need;
	return len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH;
}

static int bio_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

static BIO_METHOD *make_bio_method(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "p2p stream");

	if (method) {
		BIO_meth_set_read(method, bio_read);
		BIO_meth_set_write(method, bio_write);
		BIO_meth_set_ctrl(method, bio_ctrl);
		BIO_meth_set_create(method, bio_create);
	}
	return method;
}

/* ends */

static void end(struct tls_stream *stream, const struct error *why)
{
	assert(!is_closing(stream));
	if (stream->is_failed)
		return;
	stream->is_failed = true;
	uv_timer_stop(&stream->deadline);
	uv_read_stop((uv_stream_t *)&stream->tcp);
	stream->ports.ended(stream->ports.owner, why); /* stream may be closing now */
}

static void fail(struct tls_stream *stream, int code, const char *what)
{
	struct error why;

	error_set(&why, code, "%s: %s", what, uv_strerror(code));
	end(stream, &why);
}

/* What TLS says is wrong. */
static void fail_tls(struct tls_stream *stream)
{
	long verify = SSL_get_verify_result(stream->ssl);
	struct tls_error_text text = tls_take_error();
	const char *doing = stream->is_ready ? "TLS" : "TLS handshake";
	struct error why;

	if (verify != X509_V_OK)
		error_set(&why, -EPROTO, "%s: certificate refused: %s", doing,
			  X509_verify_cert_error_string(verify));
	else
		error_set(&why, -EPROTO, "%s: %s", doing, text.s[0] ? text.s : "broken off");
	end(stream, &why);
}

/* writing */

static void on_written(uv_write_t *request, int status)
{
	struct tls_stream *stream = request->data;

	free(container_of(request, struct waiting_write, request));
	stream->n_writing--;
	if (is_closing(stream) || stream->is_failed)
		return;
	if (status < 0)
		fail(stream, status, "write");
	else
		write_out(stream);
}

static int wait_for_socket(struct tls_stream *stream, const uint8_t *bytes, size_t len)
{
	struct waiting_write *waiting;

	if (uv_stream_get_write_queue_size((uv_stream_t *)&stream->tcp) + len > MAX_WAITING)
		return -ENOBUFS;
	waiting = malloc(sizeof(*waiting) + len);
	if (!waiting)
		return -ENOMEM;
	memcpy(waiting->bytes, bytes, len);
	waiting->request.data = stream;

	uv_buf_t buf = uv_buf_init((char *)waiting->bytes, (unsigned)len);
	int r = uv_write(&waiting->request, (uv_stream_t *)&stream->tcp, &buf, 1, on_written);
	if (r < 0) {
		free(waiting);
		return r;
	}
	stream->n_writing++;
	return 0;
}

/* Hands over what TLS has written. 0 or -errno. */
static int send_cipher(struct tls_stream *stream)
{
	struct tls_host *host = stream->host;
	size_t len = host->n_cipher, done = 0;

	host->n_cipher = 0;
	if (len == 0)
		return 0;
	if (stream->has_parted)
		return -EPROTO; /* what is behind the goodbye is not TLS's */
	stream->bytes_out += len;
	if (stream->n_writing == 0) {
		uv_buf_t buf = uv_buf_init((char *)host->cipher, (unsigned)len);
		int n = uv_try_write((uv_stream_t *)&stream->tcp, &buf, 1);
		if (n < 0 && n != UV_EAGAIN)
			return n;
		done = n > 0 ? (size_t)n : 0;
	}
	return done == len ? 0 : wait_for_socket(stream, host->cipher + done, len - done);
}

static void on_shut_down(uv_shutdown_t *request, int status)
{
	struct tls_stream *stream = container_of(request, struct tls_stream, shutdown);

	(void)status; /* what is wrong with the connection, reading tells */
	if (!is_closing(stream) && !stream->is_failed && stream->ports.shut_down)
		stream->ports.shut_down(stream->ports.owner);
}

static int finish(struct tls_stream *stream)
{
	stream->is_shut_down = true;
	SSL_shutdown(stream->ssl);
	int r = send_cipher(stream);
	stream->has_parted = stream->parts;
	return r < 0 || stream->parts ? r : uv_shutdown(&stream->shutdown, (uv_stream_t *)&stream->tcp, on_shut_down);
}

/*
 * What the owner has, a record each time it is asked, until there is enough for one system call. How much it was:
 * 0 when nothing waits. TLS has no reason to refuse: our BIO takes everything.
 */
static int gather(struct tls_stream *stream)
{
	struct tls_host *host = stream->host;
	size_t sum = 0;

	warm(stream);
	forget_errors();
	while (sum < GATHER_LEN) {
		size_t n = stream->ports.produce(stream->ports.owner, host->plain, RECORD_LEN);
		if (n == 0)
			break;
		if (SSL_write(stream->ssl, host->plain, (int)n) != (int)n) {
			host->n_cipher = 0;
			return -EPROTO;
		}
		sum += n;
	}
	return (int)sum;
}

/* As much as the socket takes of what the owner has. 0 or -errno. */
static int write_some(struct tls_stream *stream)
{
	if (!stream->is_ready || stream->is_failed || stream->is_shut_down || stream->early_error < 0)
		return 0;
	while (stream->n_writing == 0) {
		int n = gather(stream);
		if (n == 0)
			return stream->is_shutting_down ? finish(stream) : 0;
		int r = n > 0 ? send_cipher(stream) : n;
		if (r < 0)
			return r;
	}
	return 0;
}

static void tell_if_parted(struct tls_stream *stream)
{
	if (!stream->has_parted || stream->n_writing > 0 || stream->is_told || stream->is_failed)
		return;
	stream->is_told = true;
	if (stream->ports.shut_down)
		stream->ports.shut_down(stream->ports.owner); /* stream may be closing now */
}

static void write_out(struct tls_stream *stream)
{
	int r = write_some(stream);

	if (r == -EPROTO)
		fail_tls(stream);
	else if (r < 0)
		fail(stream, r, "write");
	else
		tell_if_parted(stream);
}

static void unlink_dirty(struct tls_stream *stream)
{
	struct tls_stream **at = &stream->host->dirty;

	if (!stream->is_dirty)
		return;
	while (*at != stream)
		at = &(*at)->next_dirty;
	*at = stream->next_dirty;
	stream->is_dirty = false;
}

/* Only what was dirty at the beginning: who wakes itself in produce waits for the next time. */
static void flush_dirty(struct tls_host *host)
{
	unsigned n = 0;

	for (struct tls_stream *s = host->dirty; s; s = s->next_dirty)
		n++;
	for (; n > 0 && host->dirty; n--) {
		struct tls_stream *stream = host->dirty;
		host->dirty = stream->next_dirty;
		stream->is_dirty = false;
		write_out(stream);
	}
}

/*
 * Single packets that come fast would each cost a turn of the loop and its system calls: after a turn that follows
 * close on another and brought little, more of them is awaited for a moment.
 */
static void gather_more(struct tls_host *host)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	uint64_t now_ns = uv_hrtime();
	bool is_busy = now_ns - host->turn_ns < BUSY_TURN_NS;

	host->turn_ns = now_ns;
	if (is_busy && host->turn_bytes > 0 && host->turn_bytes < LITTLE_BYTES) {
		nanosleep(&nap, NULL);
		host->turn_ns = now_ns + NAP_NS;
	}
	host->turn_bytes = 0;
}

static void on_prepare(uv_prepare_t *prepare)
{
	struct tls_host *host = container_of(prepare, struct tls_host, prepare);

	flush_dirty(host);
	gather_more(host);
}

static void on_check(uv_check_t *check)
{
	struct tls_host *host = container_of(check, struct tls_host, check);

	host->turn++;
	flush_dirty(host);
}

/* reading */

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct tls_stream *stream = handle->data;

	(void)suggested;
	if (stream->turn != stream->host->turn) {
		stream->turn = stream->host->turn;
		stream->n_turn = 0;
	}
	/* No room: libuv, which would read on as long as there is more, turns to the others first. */
	*ret = uv_buf_init((char *)stream->host->piece, stream->n_turn < TURN_LEN ? PIECE_LEN : 0);
}

static void on_read(uv_stream_t *handle, ssize_t n, const uv_buf_t *buf)
{
	struct tls_stream *stream = handle->data;
	struct error why;

	if (n == UV_EOF && stream->is_finished)
		return;
	if (n == UV_EOF) {
		error_set(&why, -ECONNRESET, "closed by the other side%s",
			  stream->is_ready ? " without a TLS goodbye" : " during the TLS handshake");
		end(stream, &why);
		return;
	}
	if (n == UV_ENOBUFS)
		return; /* see on_allocate() */
	if (n < 0) {
		fail(stream, (int)n, "read");
		return;
	}
	stream->n_turn += (uint32_t)n;
	if (stream->n_reads < YOUNG_READS)
		stream->n_reads++;
	else
		stream->host->turn_bytes += (size_t)n;
	stream->bytes_in += (uint64_t)n;
	stream->in = (const uint8_t *)buf->base;
	stream->n_in = (size_t)n;
	pump(stream);
}

/* True when the handshake is over, well. */
static bool shake_hands(struct tls_stream *stream)
{
	forget_errors();
	int r = SSL_do_handshake(stream->ssl);
	int why = r == 1 ? SSL_ERROR_NONE : SSL_get_error(stream->ssl, r);
	if (r == 1 && stream->is_server)
		tls_give_ticket(stream->ssl);
	int sent = send_cipher(stream); /* also the alert that says why we fail */

	if (why != SSL_ERROR_NONE && why != SSL_ERROR_WANT_READ)
		fail_tls(stream);
	else if (sent < 0)
		fail(stream, sent, "write");
	if (why != SSL_ERROR_NONE || sent < 0)
		return false;
	stream->is_ready = true;
	uv_timer_stop(&stream->deadline);
	tls_stream_wake(stream);
	stream->ports.ready(stream->ports.owner);
	return !is_closing(stream) && !stream->is_failed;
}

/* Takes in one record or less. False when there is no more, or the stream has ended. */
static bool read_record(struct tls_stream *stream)
{
	uint8_t plain[RECORD_LEN];

	forget_errors();
	int n = SSL_read(stream->ssl, plain, sizeof(plain));
	int why = n > 0 ? SSL_ERROR_NONE : SSL_get_error(stream->ssl, n);
	int sent = send_cipher(stream); /* key updates, alerts */

	if (why == SSL_ERROR_ZERO_RETURN && stream->ports.finished) {
		if (!stream->is_finished) {
			stream->is_finished = true;
			stream->ports.finished(stream->ports.owner);
		}
		return false;
	}
	if (why == SSL_ERROR_ZERO_RETURN) {
		struct error goodbye;
		error_set(&goodbye, 0, "closed by the other side");
		end(stream, &goodbye);
		return false;
	}
	if (why != SSL_ERROR_NONE && why != SSL_ERROR_WANT_READ) {
		fail_tls(stream);
		return false;
	}
	if (sent < 0) {
		fail(stream, sent, "write");
		return false;
	}
	if (n <= 0)
		return false;
	stream->ports.received(stream->ports.owner, plain, (size_t)n);
	if (is_closing(stream) || stream->is_failed)
		return false;
	return stream->n_in > 0 || SSL_has_pending(stream->ssl); /* else there is no more: TLS need not be asked */
}

static void pump(struct tls_stream *stream)
{
	if (!stream->is_ready && !shake_hands(stream))
		return;
	warm(stream);
	while (read_record(stream))
		;
	if (!is_closing(stream))
		warm(stream); /* others were used meanwhile: what it has given back it has got again */
}

/* opening */

static void on_deadline(uv_timer_t *timer)
{
	struct tls_stream *stream = container_of(timer, struct tls_stream, deadline);

	if (stream->early_error < 0)
		fail(stream, stream->early_error, stream->is_server ? "socket" : "connect");
	else
		fail(stream, -ETIMEDOUT, stream->is_connected ? "TLS handshake" : "connect");
}

/* From the loop, as every other bad news. */
static void fail_soon(struct tls_stream *stream, int code)
{
	stream->early_error = code;
	int r = uv_timer_start(&stream->deadline, on_deadline, 0, 0);
	assert(r == 0);
	(void)r;
}

static void begin_tls(struct tls_stream *stream)
{
	int one = 1, user_timeout = USER_TIMEOUT_MS, lowat = NOTSENT_LOWAT;
	uv_os_fd_t fd;

	stream->is_connected = true;
	if (uv_fileno((uv_handle_t *)&stream->tcp, &fd) == 0) {
		/* Improvements, none is needed to work. */
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	}
	int r = uv_read_start((uv_stream_t *)&stream->tcp, on_allocate, on_read);
	if (r < 0)
		fail_soon(stream, r);
	else if (!stream->is_server)
		shake_hands(stream);
}

static void on_connected(uv_connect_t *request, int status)
{
	struct tls_stream *stream = container_of(request, struct tls_stream, connect);

	if (is_closing(stream) || stream->is_failed)
		return;
	if (status < 0)
		fail(stream, status, "connect");
	else
		begin_tls(stream);
}

static int open_ssl(struct tls_stream *stream, SSL_CTX *context)
{
	BIO *bio = BIO_new(stream->host->bio_method);

	stream->ssl = SSL_new(context);
	if (!stream->ssl || !bio) {
		SSL_free(stream->ssl);
		BIO_free(bio);
		stream->ssl = NULL;
		return -ENOMEM;
	}
	BIO_set_data(bio, stream);
	SSL_set_bio(stream->ssl, bio, bio);
	/* See warm(). Now: from the first key on OpenSSL 3.2 would not learn of it. */
	SSL_clear_mode(stream->ssl, SSL_MODE_RELEASE_BUFFERS);
	if (stream->is_server) {
		SSL_set_accept_state(stream->ssl);
		return 0;
	}
	SSL_set_connect_state(stream->ssl);
	tls_take_ticket(stream->ssl);
	return 0;
}

static int open_handles(struct tls_stream *stream, SSL_CTX *context, uint64_t timeout_ms)
{
	struct tls_host *host = stream->host;
	int r = open_ssl(stream, context);

	if (r < 0)
		return r;
	r = uv_tcp_init(host->loop, &stream->tcp);
	assert(r == 0); /* without flags it makes no socket */
	r = uv_timer_init(host->loop, &stream->deadline);
	assert(r == 0);
	stream->tcp.data = stream;
	stream->n_open = 2;
	host->n_streams++;
	r = uv_timer_start(&stream->deadline, on_deadline, timeout_ms ? timeout_ms : TLS_STREAM_HANDSHAKE_MS, 0);
	assert(r == 0);
	return 0;
}

int tls_stream_open_server(struct tls_stream *stream, struct tls_host *host, SSL_CTX *context, int fd,
			   uint64_t timeout_ms, const struct tls_stream_ports *ports)
{
	*stream = (struct tls_stream){ .ports = *ports, .host = host, .is_server = true };
	int r = open_handles(stream, context, timeout_ms);
	if (r < 0) {
		close(fd);
		return r;
	}
	r = uv_tcp_open(&stream->tcp, fd);
	if (r < 0) {
		close(fd);
		fail_soon(stream, r);
		return 0;
	}
	begin_tls(stream);
	return 0;
}

void tls_stream_feed(struct tls_stream *stream, const uint8_t *bytes, size_t n)
{
	if (stream->early_error < 0 || n == 0)
		return; /* of an error the loop tells */
	stream->bytes_in += n;
	stream->in = bytes;
	stream->n_in = n;
	pump(stream);
}

int tls_stream_open_client(struct tls_stream *stream, struct tls_host *host, SSL_CTX *context,
			   const struct endpoint *remote, const char *server_name, uint64_t timeout_ms,
			   const struct tls_stream_ports *ports)
{
	struct sockaddr_storage address;

	*stream = (struct tls_stream){ .ports = *ports, .host = host };
	int r = open_handles(stream, context, timeout_ms);
	if (r < 0)
		return r;
	endpoint_to_sockaddr(remote, &address);
	if (server_name && SSL_set_tlsext_host_name(stream->ssl, server_name) != 1)
		r = -EINVAL;
	else
		r = uv_tcp_connect(&stream->connect, &stream->tcp, (struct sockaddr *)&address, on_connected);
	if (r < 0)
		fail_soon(stream, r);
	return 0;
}

/* public */

void tls_stream_wake(struct tls_stream *stream)
{
	if (stream->is_dirty || is_closing(stream) || stream->is_failed)
		return;
	stream->is_dirty = true;
	stream->next_dirty = stream->host->dirty;
	stream->host->dirty = stream;
}

void tls_stream_flush(struct tls_stream *stream)
{
	if (is_closing(stream))
		return;
	int r = write_some(stream);
	if (r < 0)
		fail_soon(stream, r);
}

void tls_stream_pause(struct tls_stream *stream, bool pause)
{
	if (is_closing(stream) || stream->is_failed || !stream->is_connected)
		return;
	if (pause)
		uv_read_stop((uv_stream_t *)&stream->tcp);
	else
		(void)uv_read_start((uv_stream_t *)&stream->tcp, on_allocate, on_read); /* or it already reads */
}

void tls_stream_shutdown(struct tls_stream *stream)
{
	stream->is_shutting_down = true;
	tls_stream_wake(stream);
}

void tls_stream_part(struct tls_stream *stream)
{
	stream->parts = true;
	tls_stream_shutdown(stream);
}

const uint8_t *tls_stream_rest(const struct tls_stream *stream, size_t *ret_n)
{
	assert(stream->is_finished);
	*ret_n = stream->n_in;
	return stream->in;
}

int tls_stream_release(struct tls_stream *stream)
{
	const int none = 0;
	uv_os_fd_t fd;

	assert(stream->has_parted && stream->is_finished && stream->n_writing == 0);
	if (SSL_has_pending(stream->ssl))
		return -EPROTO; /* TLS has taken of what is not its own */
	if (uv_fileno((uv_handle_t *)&stream->tcp, &fd) < 0)
		return -EBADF;
	const int released = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (released < 0)
		return -errno;
	/* What begin_tls() has set for TLS. */
	(void)setsockopt(released, IPPROTO_TCP, TCP_USER_TIMEOUT, &none, sizeof(none));
	(void)setsockopt(released, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &none, sizeof(none));
	return released;
}

static void on_closed(uv_handle_t *handle)
{
	struct tls_stream *stream = handle->data;

	if (--stream->n_open > 0)
		return;
	stream->host->n_streams--;
	if (stream->closed)
		stream->closed(stream->ports.owner); /* stream may be gone now */
}

void tls_stream_close(struct tls_stream *stream, void (*closed)(void *owner))
{
	assert(!is_closing(stream));
	cool(stream);
	unlink_dirty(stream);
	SSL_free(stream->ssl);
	stream->ssl = NULL;
	stream->closed = closed;
	stream->deadline.data = stream;
	uv_close((uv_handle_t *)&stream->tcp, on_closed);
	uv_close((uv_handle_t *)&stream->deadline, on_closed);
}

bool tls_stream_was_resumed(const struct tls_stream *stream)
{
	return stream->ssl && SSL_session_reused(stream->ssl) == 1;
}

bool tls_stream_alpn_is(const struct tls_stream *stream, const char *protocol)
{
	const unsigned char *selected = NULL;
	unsigned len = 0;

	SSL_get0_alpn_selected(stream->ssl, &selected, &len);
	return len == strlen(protocol) && (len == 0 || memcmp(selected, protocol, len) == 0);
}

struct endpoint tls_stream_remote(const struct tls_stream *stream)
{
	struct sockaddr_storage address = { 0 };
	int len = sizeof(address);

	if (uv_tcp_getpeername(&stream->tcp, (struct sockaddr *)&address, &len) < 0)
		return (struct endpoint){ 0 };
	return endpoint_from_sockaddr((struct sockaddr *)&address);
}

uint32_t tls_stream_last_ack_ms(const struct tls_stream *stream)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	uv_os_fd_t fd;

	if (uv_fileno((const uv_handle_t *)&stream->tcp, &fd) < 0 ||
	    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return UINT32_MAX;
	return info.tcpi_last_ack_recv;
}

uint64_t tls_stream_acked(const struct tls_stream *stream)
{
	const uint64_t waiting = uv_stream_get_write_queue_size((const uv_stream_t *)&stream->tcp);
	uv_os_fd_t fd;
	int unacked;

	if (uv_fileno((const uv_handle_t *)&stream->tcp, &fd) < 0 || ioctl(fd, SIOCOUTQ, &unacked) < 0)
		return 0;
	return stream->bytes_out - waiting - (uint64_t)unacked;
}

/* the host */

static void host_free(struct tls_host *host)
{
	BIO_meth_free(host->bio_method);
	free(host->piece);
	free(host->plain);
	free(host->cipher);
	free(host);
}

int tls_host_new(uv_loop_t *loop, struct tls_host **ret)
{
	struct tls_host *host = calloc(1, sizeof(*host));

	if (!host)
		return -ENOMEM;
	host->loop = loop;
	host->max_warm = TLS_HOST_KEPT;
	host->bio_method = make_bio_method();
	host->piece = malloc(PIECE_LEN);
	host->plain = malloc(RECORD_LEN);
	if (!host->bio_method || !host->piece || !host->plain) {
		host_free(host);
		return -ENOMEM;
	}
	host->n_open = 2;
	uv_prepare_init(loop, &host->prepare);
	uv_check_init(loop, &host->check);
	uv_prepare_start(&host->prepare, on_prepare);
	uv_check_start(&host->check, on_check);
	uv_unref((uv_handle_t *)&host->prepare);
	uv_unref((uv_handle_t *)&host->check);
	host->prepare.data = host->check.data = host;
	*ret = host;
	return 0;
}

static void on_host_closed(uv_handle_t *handle)
{
	struct tls_host *host = handle->data;
	void (*closed)(void *owner) = host->closed;
	void *owner = host->owner;

	if (--host->n_open > 0)
		return;
	host_free(host);
	if (closed)
		closed(owner);
}

void tls_host_close(struct tls_host *host, void (*cb)(void *owner), void *owner)
{
	assert(host->n_streams == 0);
	host->closed = cb;
	host->owner = owner;
	uv_close((uv_handle_t *)&host->prepare, on_host_closed);
	uv_close((uv_handle_t *)&host->check, on_host_closed);
}

void tls_host_keep(struct tls_host *host, unsigned n)
{
	assert(n > 0);
	host->max_warm = n;
}

uv_loop_t *tls_host_loop(const struct tls_host *host)
{
	return host->loop;
}
