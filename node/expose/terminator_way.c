/*
 * To the visitor by TLS or in plain, to the server in plain. What one side does not take at once is kept, and no more is
 * read of the other.
 */
#include "node/expose/terminator_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PIECES_A_STEP 8 /* then others have their turn */

/* ---- both sides ---- */

ssize_t visit_tls_result(struct visit *visit, int r)
{
	switch (SSL_get_error(visit->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		visit->near.waits_to_read = true;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		visit->near.waits_to_write = true;
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	default:
		visit->near.is_broken = true;
		return -EPROTO;
	}
}

static ssize_t socket_result(struct side *side, ssize_t n, bool to_write)
{
	if (n >= 0)
		return n;
	if (errno != EAGAIN && errno != EINTR) {
		side->is_broken = true;
		return -errno;
	}
	if (to_write)
		side->waits_to_write = true;
	else
		side->waits_to_read = true;
	return -EAGAIN;
}

static int socket_error(struct side *side)
{
	side->is_broken = true;
	return -errno;
}

ssize_t visit_near_read(struct visit *visit, uint8_t *buf, size_t size)
{
	if (!visit->ssl)
		return socket_result(&visit->near, recv(visit->near.fd, buf, size, MSG_DONTWAIT), false);
	ERR_clear_error();
	const int n = SSL_read(visit->ssl, buf, (int)size);
	return n > 0 ? n : visit_tls_result(visit, n);
}

static ssize_t near_write(struct visit *visit, const uint8_t *bytes, size_t n)
{
	if (!visit->ssl)
		return socket_result(&visit->near, send(visit->near.fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT), true);
	ERR_clear_error();
	const int sent = SSL_write(visit->ssl, bytes, (int)n);
	const ssize_t r = sent > 0 ? sent : visit_tls_result(visit, sent);
	return r == 0 ? -EPIPE : r;
}

static ssize_t far_read(struct visit *visit, uint8_t *buf, size_t size)
{
	return socket_result(&visit->far, recv(visit->far.fd, buf, size, MSG_DONTWAIT), false);
}

static ssize_t far_write(struct visit *visit, const uint8_t *bytes, size_t n)
{
	return socket_result(&visit->far, send(visit->far.fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT), true);
}

/* 0, -EAGAIN or another -errno. */
static int far_end(struct visit *visit)
{
	return shutdown(visit->far.fd, SHUT_WR) < 0 ? socket_error(&visit->far) : 0;
}

/* A writer that was told of the server's reset has taken the error: it reads as an end now, and is none. */
static int near_end(struct visit *visit)
{
	if (visit->far.is_broken)
		return -ECONNRESET;
	if (visit->ssl) {
		ERR_clear_error();
		const int r = SSL_shutdown(visit->ssl);
		if (r < 0 && visit_tls_result(visit, r) == -EAGAIN && visit->near.waits_to_write)
			return -EAGAIN;
	}
	return shutdown(visit->near.fd, SHUT_WR) < 0 ? -errno : 0;
}

const struct way_calls way_upward = { visit_near_read, far_write, far_end };
const struct way_calls way_downward = { far_read, near_write, near_end };

/* ---- one way ---- */

void way_keep(struct way *way, const uint8_t *bytes, size_t n)
{
	if (n == 0)
		return;
	way->bytes = malloc(n);
	if (!way->bytes)
		abort();
	memcpy(way->bytes, bytes, n);
	way->at = 0;
	way->n = n;
}

void way_drop(struct way *way)
{
	free(way->bytes);
	*way = (struct way){ .bytes = NULL };
}

/* What waits. 1: all is gone; -EAGAIN; else it broke. */
static ssize_t flush(struct visit *visit, struct way *way, const struct way_calls *calls)
{
	while (way->bytes) {
		const ssize_t n = calls->write(visit, way->bytes + way->at, way->n - way->at);
		if (n <= 0)
			return n == 0 ? -EAGAIN : n;
		way->at += (size_t)n;
		if (way->at < way->n)
			continue;
		free(way->bytes);
		way->bytes = NULL;
	}
	return 1;
}

/* A piece goes on. The same; 0: its end has come. */
static ssize_t pass(struct visit *visit, struct way *way, const struct way_calls *calls)
{
	uint8_t *scratch = visit->terminator->scratch;
	const ssize_t n = calls->read(visit, scratch, PIECE);

	if (n <= 0)
		return n;
	const ssize_t sent = calls->write(visit, scratch, (size_t)n);
	if (sent < 0 && sent != -EAGAIN)
		return sent;
	const size_t gone = sent > 0 ? (size_t)sent : 0;
	way_keep(way, scratch + gone, (size_t)n - gone);
	return 1;
}

ssize_t way_move(struct visit *visit, struct way *way, const struct way_calls *calls)
{
	ssize_t r = 1;

	for (int i = 0; i < PIECES_A_STEP && !way->is_done && r > 0; i++) {
		r = flush(visit, way, calls);
		if (r > 0 && !way->has_ended) {
			r = pass(visit, way, calls);
			way->has_ended = r == 0;
		}
		if (r >= 0 && way->has_ended && !way->bytes) {
			r = calls->end(visit);
			way->is_done = r == 0;
		}
	}
	return way->is_done ? 0 : r;
}
