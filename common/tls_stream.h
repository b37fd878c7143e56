/*
 * A TLS connection on the libuv loop, server or client.
 *
 * Nothing is written at once: the owner keeps its own queue and says tls_stream_wake(); at the end of
 * the loop turn the stream asks for bytes (produce), each time as many as fit one record, and writes up to
 * 64 KiB of records in one system call, as long as the socket takes all; what it has taken a part of is finished
 * before another record is made. So many small writes become few records, what waits does so in the
 * owner's queue, where it can still be dropped, and a slow reader costs nobody else anything. Nor does a fast
 * sender: of each stream at most 64 KiB are read in a turn of the loop. When turns that bring little follow each
 * other closely, the loop waits a tenth of a millisecond between them, so that more comes at once; not for what is a stream's handshake
 * or among the first that it brings.
 *
 * The program must ignore SIGPIPE: libuv writes to sockets without MSG_NOSIGNAL.
 *
 * One tls_host a loop; it owns the buffers that all its streams share. An idle stream holds no buffer, unless it is one
 * of the 256 used last, is in its handshake, or was sent a part of a record and not yet the rest.
 *
 * Loop only. Callbacks are made from the loop, never from inside the functions called by the owner (but
 * produce by tls_stream_flush(), and what tls_stream_feed() says). In any other callback than produce the owner may close the stream. A
 * stream lives until its closed callback.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define TLS_STREAM_HANDSHAKE_MS 10000
#define TLS_HOST_KEPT		256		/* streams that keep TLS's buffers */
#define TLS_STREAM_BUFFERS	(33 * 1024) /* what these take of one stream, bytes, about */

struct tls_host;

P2P_CHECK int tls_host_new(uv_loop_t *loop, struct tls_host **ret);
/* All its streams must be closed, their callbacks made. Frees itself from the loop, then calls cb (may be NULL). */
void tls_host_close(struct tls_host *host, void (*cb)(void *owner), void *owner);
/* From the next use on only the n (> 0) streams used last keep TLS's buffers; else TLS_HOST_KEPT. */
void tls_host_keep(struct tls_host *host, unsigned n);
uv_loop_t *tls_host_loop(const struct tls_host *host);

struct tls_stream_ports {
	void *owner;
	/* The handshake is done: now the identity of the other side is known, and produce may be called. */
	void (*ready)(void *owner);
	/* Plain bytes, borrowed. */
	void (*received)(void *owner, const uint8_t *bytes, size_t len);
	/* Moves at most cap bytes to be sent as one record into buf and says how many; 0: nothing waits. May not close. */
	size_t (*produce)(void *owner, uint8_t *buf, size_t cap);
	/*
	 * The last word, unless the owner closes first: why->code is 0 after the other side's orderly end,
	 * else -errno (-ETIMEDOUT, -ECONNRESET, -EPROTO with what TLS says …). The owner then closes.
	 */
	void (*ended)(void *owner, const struct error *why);
	/*
	 * The other side's orderly end, which then does not end the stream: ours goes on until tls_stream_shutdown(), and
	 * only what goes wrong is told by ended. NULL: it ends.
	 */
	void (*finished)(void *owner);
	/* All that was produced before tls_stream_shutdown(), or _part(), is the kernel's, or never will be. May be NULL. */
	void (*shut_down)(void *owner);
};

/* Owned by the caller; the fields are the stream's. */
struct tls_stream {
	struct tls_stream_ports ports;
	struct tls_host *host;
	SSL *ssl; /* NULL: closing */
	uv_tcp_t tcp;
	uv_timer_t deadline; /* of connect and handshake together */
	uv_connect_t connect;
	uv_shutdown_t shutdown;
	const uint8_t *in; /* borrowed while reading: what TLS has not yet taken */
	size_t n_in;
	struct tls_stream *next_dirty;
	struct tls_stream *warmer, *cooler; /* in the list of those used last */
	uint64_t turn;	 /* of the loop, when it last read … */
	uint32_t n_turn; /* … so many bytes */
	uint8_t n_reads; /* of the first */
	uint16_t n_body; /* bytes to come of the record that TLS reads … */
	uint8_t n_head;	 /* … and how many of its head have; 0: none is begun */
	bool is_server, is_connected, is_ready, is_dirty, is_warm;
	bool is_failed; /* ended was called */
	bool is_shutting_down, is_shut_down;
	bool parts, has_parted; /* without an end of the connection */
	bool is_told;		/* that it has */
	bool is_finished; /* the other side's direction */
	uint8_t n_open;	    /* libuv handles */
	uint32_t n_writing; /* writes that wait in libuv */
	int early_error;    /* to be told from the loop */
	void (*closed)(void *owner);
	uint64_t bytes_in, bytes_out; /* on the wire */
};

/*
 * The server side of an accepted socket; takes fd, also on failure. context is referenced. timeout_ms of
 * the handshake, 0: TLS_STREAM_HANDSHAKE_MS. 0 or -ENOMEM, when nothing has to be closed; all else that
 * goes wrong is told by ended.
 */
P2P_CHECK int tls_stream_open_server(struct tls_stream *stream, struct tls_host *host, SSL_CTX *context, int fd,
				     uint64_t timeout_ms, const struct tls_stream_ports *ports);
/*
 * Of a server's, once it is open and before anything else: bytes that were read of the socket before, borrowed. All but
 * produce may be called from inside, also closed by the owner.
 */
void tls_stream_feed(struct tls_stream *stream, const uint8_t *bytes, size_t n);
/* Connects, with server_name as SNI (NULL: none). Errors as above. */
P2P_CHECK int tls_stream_open_client(struct tls_stream *stream, struct tls_host *host, SSL_CTX *context,
				     const struct endpoint *remote, const char *server_name, uint64_t timeout_ms,
				     const struct tls_stream_ports *ports);

/* There is something to send: produce will be called this loop turn. */
void tls_stream_wake(struct tls_stream *stream);
/* … now, from inside: for an owner whose queue grows large before the loop turn ends. No other port is called. */
void tls_stream_flush(struct tls_stream *stream);
/* Stops and resumes reading; after a pause at most 64 KiB still arrive. */
void tls_stream_pause(struct tls_stream *stream, bool pause);
/* Ends our direction once produce has nothing more; the other side may still send. */
void tls_stream_shutdown(struct tls_stream *stream);
/*
 * Ends TLS in our direction alone, with its goodbye, and not the connection: behind it the owner may write to the socket
 * itself (RFC 8446, 6.1). shut_down is called when the goodbye is the kernel's; nothing of TLS goes out any more.
 */
void tls_stream_part(struct tls_stream *stream);
/* From inside finished: what came behind the other side's goodbye and is not TLS's any more; borrowed. */
const uint8_t *tls_stream_rest(const struct tls_stream *stream, size_t *ret_n);
/*
 * The socket of one that has parted, and is finished and paused: another descriptor of it, which the caller owns; the stream is
 * then closed as ever, and the connection stays. -errno: none.
 */
P2P_CHECK int tls_stream_release(struct tls_stream *stream);
/* Drops everything at once; closed(ports.owner) follows from the loop (may be NULL). Call it once. */
void tls_stream_close(struct tls_stream *stream, void (*closed)(void *owner));

/* Is it this protocol that both sides agreed on? "": none. Only when ready. */
bool tls_stream_alpn_is(const struct tls_stream *stream, const char *protocol);
/* By a ticket of an earlier one: without a signature. False as long as it is not known. */
bool tls_stream_was_resumed(const struct tls_stream *stream);
struct endpoint tls_stream_remote(const struct tls_stream *stream);
/* Milliseconds since the other side's kernel last acknowledged anything; UINT32_MAX when unknown. */
uint32_t tls_stream_last_ack_ms(const struct tls_stream *stream);
/* How many of bytes_out it has acknowledged; 0 when unknown. */
uint64_t tls_stream_acked(const struct tls_stream *stream);
