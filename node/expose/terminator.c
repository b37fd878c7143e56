#include "node/expose/terminator.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/macros.h"
#include "relay/frontdoor/link.h"
#include "relay/frontdoor/proxy_header_wire.h"
#include "relay/frontdoor/splice_pump.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_A_TURN  64
#define PIECE	       16384 /* a record of TLS: what is asked for is never less, so that none is left in TLS unread */
#define PIECES_A_STEP  8     /* then others have their turn */
#define MAX_HEADER     384   /* PROXY: addresses, host, scheme, doors, ALPN */
#define MAX_REQUEST    4096  /* of http-01, up to the end of its first line */
#define SOURCES	       65536
#define MAX_VISITS     16384
#define MAX_HANDSHAKES 1024
#define MAX_OF_SOURCE  64
#define HANDSHAKE_MS   10000
#define CONNECT_MS     5000
#define HALF_CLOSED_MS 120000 /* as the door has it */
#define N_OF(field)    (offsetof(struct terminated_counters, field) / sizeof(uint64_t))

enum visit_state { SHAKING, ASKING, CONNECTING, OPEN, ANSWERING, GONE };

/* A socket of a visit, as epoll knows it. */
struct side {
	struct visit *visit;
	int fd; /* -1: none */
	uint32_t watched;
	bool is_watched;
	bool waits_to_read, waits_to_write; /* it said so when it was tried */
	bool is_broken;			    /* likewise: no end of it is an end */
};

/* One way: what was read and not yet taken. */
struct way {
	uint8_t *bytes; /* NULL: nothing waits */
	size_t at, n;
	bool has_ended; /* nothing more comes … */
	bool is_done;	/* … and that was passed on */
};

struct visit {
	struct link place; /* of its state, by since when; or among those that are gone */
	struct terminator *terminator;
	struct terminated *host; /* the gate holds it */
	struct door_gate *gate;	 /* held */
	SSL *ssl;		 /* NULL: it came by HTTP */
	struct side near, far;
	struct way up, down;
	struct door_guest guest;
	bool is_blind;	  /* among those */
	bool is_stranger; /* the gate's list does not have it: it came for a challenge, or for nothing */
	uint64_t since_ms;
	uint16_t source;
	uint8_t state;
	struct visit *next; /* while it comes */
};

struct terminator {
	struct terminator_options options;
	pthread_t thread;
	int wake_fd;
	_Atomic bool is_stopping;
	pthread_mutex_t lock;
	struct visit *coming; /* under lock; the last that came first */

	/* In all three threads: places that are taken. */
	_Atomic uint32_t n_visits, n_shaking;
	_Atomic uint16_t n_of_source[SOURCES]; /* that shake hands */
	uint8_t seed[crypto_shorthash_KEYBYTES];

	/* Of the thread. */
	int epoll_fd;
	uint64_t now_ms;
	struct link early, connecting, open, blind, gone; /* blind: open as well, see look_after() */
	struct log_limit log_limit;
	uint8_t scratch[PIECE];
};

static void count(struct terminated *host, size_t which)
{
	atomic_fetch_add_explicit(&host->counters[which], 1, memory_order_relaxed);
}

/* ---- places ---- */

static uint16_t source_of(const struct terminator *terminator, const struct endpoint *remote)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint16_t index;

	crypto_shorthash(hash, remote->ip, endpoint_is_v4(remote) ? 16 : 7, terminator->seed);
	memcpy(&index, hash, sizeof(index));
	return index;
}

static bool take_place(struct terminator *terminator, uint16_t source)
{
	const uint32_t n_visits = atomic_fetch_add(&terminator->n_visits, 1);
	const uint32_t n_shaking = atomic_fetch_add(&terminator->n_shaking, 1);
	const uint16_t n_of_source = atomic_fetch_add(&terminator->n_of_source[source], 1);

	if (n_visits < terminator->options.max_visits && n_shaking < terminator->options.max_handshakes &&
	    n_of_source < terminator->options.max_of_source)
		return true;
	atomic_fetch_sub(&terminator->n_visits, 1);
	atomic_fetch_sub(&terminator->n_shaking, 1);
	atomic_fetch_sub(&terminator->n_of_source[source], 1);
	return false;
}

/* It has said who it is, or goes. */
static void leave_early(struct visit *visit)
{
	atomic_fetch_sub(&visit->terminator->n_shaking, 1);
	atomic_fetch_sub(&visit->terminator->n_of_source[visit->source], 1);
}

static bool is_early(const struct visit *visit)
{
	return visit->state == SHAKING || visit->state == ASKING;
}

static void place(struct visit *visit, enum visit_state state, struct link *ring)
{
	if (is_early(visit) && state != SHAKING && state != ASKING)
		leave_early(visit);
	visit->state = (uint8_t)state;
	visit->since_ms = visit->terminator->now_ms;
	link_put_last(ring, &visit->place);
}

/* ---- in the door's thread ---- */

static void wake(struct terminator *terminator)
{
	const uint64_t one = 1;

	if (write(terminator->wake_fd, &one, sizeof(one)) < 0)
		return; /* EAGAIN: it is awake */
}

/* An ACME server comes from wherever it likes. Who is let in so does not come further than here: lead_on(). */
static bool judges(struct door_sink *sink)
{
	return tls_site_has_challenge(&container_of(sink, struct terminated, sink)->site);
}

static bool take(struct door_sink *sink, int fd, const struct door_guest *guest)
{
	struct terminated *host = container_of(sink, struct terminated, sink);
	struct terminator *terminator = host->terminator;
	const uint16_t source = source_of(terminator, &guest->source);
	struct visit *visit = take_place(terminator, source) ? calloc(1, sizeof(*visit)) : NULL;

	if (!visit) {
		count(host, N_OF(over_limit));
		close(fd);
		return false;
	}
	visit->terminator = terminator;
	visit->host = host;
	visit->guest = *guest;
	visit->guest.gate = visit->gate = door_gate_hold(guest->gate);
	visit->is_stranger = !door_gate_allows(visit->gate, &guest->source);
	visit->source = source;
	visit->state = guest->is_https ? SHAKING : ASKING;
	visit->near = (struct side){ .visit = visit, .fd = fd };
	visit->far = (struct side){ .visit = visit, .fd = -1 };
	pthread_mutex_lock(&terminator->lock);
	visit->next = terminator->coming;
	terminator->coming = visit;
	pthread_mutex_unlock(&terminator->lock);
	wake(terminator);
	return true;
}

/* ---- how they go ---- */

static void drop(struct way *way)
{
	free(way->bytes);
	*way = (struct way){ .bytes = NULL };
}

/* By hand: a child that is being started elsewhere has copies of the sockets, and closing would leave them in epoll. */
static void unwatch(const struct terminator *terminator, struct side *side)
{
	if (side->is_watched)
		(void)epoll_ctl(terminator->epoll_fd, EPOLL_CTL_DEL, side->fd, NULL);
	side->is_watched = false;
}

/* broken: the server is reset, not ended. Freed at the end of the turn. */
static void end(struct visit *visit, bool broken)
{
	struct terminator *terminator = visit->terminator;

	if (visit->state == GONE)
		return;
	place(visit, GONE, &terminator->gone);
	SSL_free(visit->ssl);
	visit->ssl = NULL;
	unwatch(terminator, &visit->near);
	unwatch(terminator, &visit->far);
	if (visit->near.fd >= 0)
		close(visit->near.fd);
	if (visit->far.fd >= 0 && broken)
		splice_close_with_reset(visit->far.fd);
	else if (visit->far.fd >= 0)
		close(visit->far.fd);
	visit->near.fd = visit->far.fd = -1;
	drop(&visit->up);
	drop(&visit->down);
}

static void free_gone(struct terminator *terminator)
{
	struct link *first;

	while ((first = link_first(&terminator->gone))) {
		struct visit *visit = container_of(first, struct visit, place);
		link_remove(first);
		door_gate_let_go(visit->gate);
		atomic_fetch_sub(&terminator->n_visits, 1);
		free(visit);
	}
}

/* ---- epoll ---- */

/*
 * Also a side that waits for nothing is watched, for it may break. Not so one that was given its end: when its own end has
 * come it would be told again and again that it has hung up, and what it said before may be unread.
 */
static void watch_side(struct visit *visit, struct side *side, bool was_given_end)
{
	const uint32_t events = (side->waits_to_read ? (uint32_t)EPOLLIN : 0) | (side->waits_to_write ? (uint32_t)EPOLLOUT : 0);
	struct epoll_event event = { .events = events, .data.ptr = side };
	const bool is_wanted = events != 0 || !was_given_end;

	if (side->fd < 0 || (side->is_watched == is_wanted && (!is_wanted || side->watched == events)))
		return;
	const int what = !is_wanted ? EPOLL_CTL_DEL : !side->is_watched ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	side->is_watched = is_wanted;
	side->watched = events;
	if (epoll_ctl(visit->terminator->epoll_fd, what, side->fd, &event) < 0)
		end(visit, true);
}

static void forget_waits(struct visit *visit)
{
	visit->near.waits_to_read = visit->near.waits_to_write = false;
	visit->far.waits_to_read = visit->far.waits_to_write = false;
}

/* ---- bytes: > 0 so many; 0 the end; -EAGAIN, and the side says what it waits for; else it broke ---- */

static ssize_t tls_result(struct visit *visit, int r)
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

static ssize_t near_read(struct visit *visit, uint8_t *buf, size_t size)
{
	if (!visit->ssl)
		return socket_result(&visit->near, recv(visit->near.fd, buf, size, MSG_DONTWAIT), false);
	ERR_clear_error();
	const int n = SSL_read(visit->ssl, buf, (int)size);
	return n > 0 ? n : tls_result(visit, n);
}

static ssize_t near_write(struct visit *visit, const uint8_t *bytes, size_t n)
{
	if (!visit->ssl)
		return socket_result(&visit->near, send(visit->near.fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT), true);
	ERR_clear_error();
	const int sent = SSL_write(visit->ssl, bytes, (int)n);
	const ssize_t r = sent > 0 ? sent : tls_result(visit, sent);
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
		if (r < 0 && tls_result(visit, r) == -EAGAIN && visit->near.waits_to_write)
			return -EAGAIN;
	}
	return shutdown(visit->near.fd, SHUT_WR) < 0 ? -errno : 0;
}

/* ---- one way ---- */

static void keep(struct way *way, const uint8_t *bytes, size_t n)
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

struct way_calls {
	ssize_t (*read)(struct visit *visit, uint8_t *buf, size_t size);
	ssize_t (*write)(struct visit *visit, const uint8_t *bytes, size_t n);
	int (*end)(struct visit *visit);
};

static const struct way_calls upward = { near_read, far_write, far_end }, downward = { far_read, near_write, near_end };

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
	keep(way, scratch + gone, (size_t)n - gone);
	return 1;
}

/* As far as it goes, and not for too long. -EAGAIN: it waits; 0: it is done; 1: there may be more; else it broke. */
static ssize_t move(struct visit *visit, struct way *way, const struct way_calls *calls)
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

/* ---- OPEN ---- */

static bool is_broken(ssize_t r)
{
	return r < 0 && r != -EAGAIN;
}

/* Level-triggered: who has more is asked again at once. */
static void ask_again(struct side *from, bool has_more)
{
	from->waits_to_read = from->waits_to_read || has_more;
}

/* A server that takes no more may have said why: that is still the visitor's. */
static ssize_t move_up(struct visit *visit)
{
	const ssize_t r = move(visit, &visit->up, &upward);

	if (!is_broken(r) || !visit->far.is_broken)
		return r;
	drop(&visit->up);
	visit->up.has_ended = visit->up.is_done = true;
	return 0;
}

static void step_open(struct visit *visit)
{
	const ssize_t up = move_up(visit), down = is_broken(up) ? 0 : move(visit, &visit->down, &downward);

	if (is_broken(up) || is_broken(down)) {
		if (visit->ssl && is_broken(up) && !visit->down.is_done)
			count(visit->host, N_OF(truncated));
		end(visit, true);
		return;
	}
	if (visit->up.is_done && visit->down.is_done) {
		end(visit, visit->far.is_broken);
		return;
	}
	ask_again(&visit->near, up > 0);
	ask_again(&visit->far, down > 0);
	/* The last piece of a step may have gone in part, without an EAGAIN that said so. */
	visit->far.waits_to_write = visit->far.waits_to_write || visit->up.bytes;
	visit->near.waits_to_write = visit->near.waits_to_write || visit->down.bytes;
}

/* ---- CONNECTING ---- */

/* The header is the first that the server gets, before what is kept for it. */
static void put_header_first(struct visit *visit)
{
	const struct door_guest *guest = &visit->guest;
	struct proxy_header header = {
		.has_addresses = true,
		.source = guest->source,
		.destination = guest->destination,
		.authority = { .at = (const uint8_t *)guest->host.text, .len = guest->host.len },
		.scheme = guest->is_https ? PROXY_HTTPS : PROXY_HTTP,
		.n_doors = guest->n_doors,
	};
	uint8_t bytes[MAX_HEADER];
	unsigned alpn_len = 0;

	if (visit->host->proxy == EXPOSURE_PROXY_NONE)
		return;
	if (visit->ssl)
		SSL_get0_alpn_selected(visit->ssl, &header.alpn.at, &alpn_len);
	header.alpn.len = alpn_len;
	const size_t n = visit->host->proxy == EXPOSURE_PROXY_V1 ? proxy_v1_encode(&header, bytes, sizeof(bytes))
								  : proxy_v2_encode(&header, bytes, sizeof(bytes));
	struct way *up = &visit->up;
	const size_t rest = up->bytes ? up->n - up->at : 0;
	uint8_t *all = malloc(n + rest + 1);
	if (!all)
		abort();
	memcpy(all, bytes, n);
	if (rest > 0)
		memcpy(all + n, up->bytes + up->at, rest);
	free(up->bytes);
	up->bytes = all;
	up->at = 0;
	up->n = n + rest;
}

static void not_reached(struct visit *visit, int error)
{
	door_gate_not_reached(visit->gate);
	log_limited(&visit->terminator->log_limit, LOG_LEVEL_WARNING, "expose", "%s: server not reached: %s",
		    visit->guest.host.text, strerror(error));
	end(visit, true);
}

static void refuse_stranger(struct visit *visit)
{
	door_gate_not_allowed(visit->gate);
	log_limited(&visit->terminator->log_limit, LOG_LEVEL_INFO, "expose", "%s from %s: not allowed: refused",
		    visit->guest.host.text, endpoint_ip_text(&visit->guest.source).s);
	end(visit, true);
}

/* Of this machine: memory, ports to that server. It tells nothing of the server. */
static bool is_want(int error)
{
	return error == ENOSPC || error == ENOBUFS || error == ENOMEM || error == EADDRNOTAVAIL;
}

static void connect_far(struct visit *visit)
{
	struct sockaddr_storage address;
	const socklen_t len = endpoint_to_sockaddr(&visit->host->target, &address);
	const int one = 1, fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	place(visit, CONNECTING, &visit->terminator->connecting);
	visit->far.fd = fd;
	if (fd < 0) {
		end(visit, true); /* for want of descriptors: it tells nothing of the server */
		return;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	const int error = connect(fd, (const struct sockaddr *)&address, len) < 0 ? errno : EINPROGRESS;
	if (error == EINPROGRESS)
		visit->far.waits_to_write = true;
	else if (is_want(error))
		end(visit, true);
	else
		not_reached(visit, error);
}

/* It is known what it came for. */
static void lead_on(struct visit *visit)
{
	if (visit->is_stranger)
		refuse_stranger(visit);
	else
		connect_far(visit);
}

static void step_connecting(struct visit *visit, uint32_t far_events)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if ((far_events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) {
		visit->far.waits_to_write = true;
		return;
	}
	(void)getsockopt(visit->far.fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error != 0) {
		not_reached(visit, error);
		return;
	}
	door_gate_reached(visit->gate);
	put_header_first(visit);
	place(visit, OPEN, &visit->terminator->open);
	step_open(visit);
}

/* ---- SHAKING ---- */

static void shake_failed(struct visit *visit)
{
	const unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	count(visit->host, N_OF(failed));
	log_limited(&visit->terminator->log_limit, LOG_LEVEL_INFO, "expose", "%s from %s: TLS: %s", visit->guest.host.text,
		    endpoint_ip_text(&visit->guest.source).s, reason ? reason : "broken off");
	end(visit, true);
}

static bool begin_tls(struct visit *visit)
{
	visit->ssl = tls_site_accept(&visit->host->site, &visit->guest.host);
	if (visit->ssl && SSL_set_fd(visit->ssl, visit->near.fd) == 1)
		return true;
	count(visit->host, N_OF(no_certificate));
	log_limited(&visit->terminator->log_limit, LOG_LEVEL_INFO, "expose", "%s: refused: it has no certificate yet",
		    visit->guest.host.text);
	end(visit, true);
	return false;
}

static void step_shaking(struct visit *visit)
{
	if (!visit->ssl && !begin_tls(visit))
		return;
	ERR_clear_error();
	const int r = SSL_accept(visit->ssl);
	if (r != 1) {
		if (tls_result(visit, r) != -EAGAIN)
			shake_failed(visit);
		return;
	}
	count(visit->host, N_OF(handshakes));
	if (SSL_session_reused(visit->ssl) == 1)
		count(visit->host, N_OF(resumed));
	if (!tls_site_was_challenge(visit->ssl)) {
		lead_on(visit);
		return;
	}
	count(visit->host, N_OF(challenges));
	(void)SSL_shutdown(visit->ssl);
	end(visit, false);
}

/* ---- ASKING: by HTTP, and perhaps for a challenge ---- */

/* The path of "GET path HTTP/1.1", in the first line that is whole. False: it has none. */
static bool find_path(const uint8_t *bytes, size_t n, const char **ret, size_t *ret_len)
{
	const char *line = (const char *)bytes, *space;

	if (n < 4 || memcmp(line, "GET ", 4) != 0)
		return false;
	space = memchr(line + 4, ' ', n - 4);
	*ret = line + 4;
	*ret_len = space ? (size_t)(space - *ret) : 0;
	return space != NULL;
}

static void answer(struct visit *visit, const char *text)
{
	char bytes[512];
	const int n = snprintf(bytes, sizeof(bytes),
			       "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %zu\r\n"
			       "Cache-Control: no-store\r\nConnection: close\r\n\r\n%s", strlen(text), text);

	count(visit->host, N_OF(challenges));
	drop(&visit->up);
	keep(&visit->down, (const uint8_t *)bytes, (size_t)n);
	visit->down.has_ended = true;
	place(visit, ANSWERING, &visit->terminator->connecting);
}

/* What came is all of it, and the next that comes is not read before the server is there. */
static void ask(struct visit *visit, bool is_whole)
{
	char text[TLS_SITE_ANSWER_LEN + 1];
	const char *path;
	size_t len;

	if (find_path(visit->up.bytes, visit->up.n, &path, &len) &&
	    tls_site_answers(&visit->host->site, path, len, text))
		answer(visit, text);
	else if (is_whole)
		lead_on(visit);
}

static void step_asking(struct visit *visit)
{
	struct way *up = &visit->up;
	uint8_t *bytes = visit->terminator->scratch;
	const size_t before = up->bytes ? up->n : 0;
	const ssize_t n = near_read(visit, bytes + before, MAX_REQUEST - before);

	if (n == -EAGAIN)
		return;
	if (n < 0) {
		end(visit, true);
		return;
	}
	if (before > 0)
		memcpy(bytes, up->bytes, before);
	free(up->bytes);
	up->bytes = NULL;
	up->has_ended = n == 0;
	keep(up, bytes, before + (size_t)n);
	const size_t all = before + (size_t)n;
	ask(visit, up->has_ended || all == MAX_REQUEST || memchr(bytes, '\n', all) != NULL);
	if (visit->state == ASKING)
		visit->near.waits_to_read = true;
}

static void step_answering(struct visit *visit)
{
	const ssize_t r = move(visit, &visit->down, &downward);

	if (is_broken(r) || r == 0)
		end(visit, is_broken(r));
}

/* ---- the thread ---- */

/*
 * A side that was given its end and waits for nothing is not watched: that it broke, or was cut by the door, is not seen. So
 * such a visit has a time of its own to move in.
 */
static bool is_blind(const struct visit *visit)
{
	return visit->state == OPEN && ((visit->down.is_done && !visit->near.is_watched) ||
					(visit->up.is_done && !visit->far.is_watched));
}

static void look_after(struct visit *visit)
{
	struct terminator *terminator = visit->terminator;
	const bool was_blind = visit->is_blind;

	visit->is_blind = is_blind(visit);
	if (visit->is_blind) /* something has just moved */
		place(visit, OPEN, &terminator->blind);
	else if (was_blind && visit->state == OPEN)
		place(visit, OPEN, &terminator->open);
}

/*
 * A side broke, and nothing is read of it now that would tell: then nothing can be done for the other one. Not so a server
 * of which something still waits for the visitor.
 */
static void look_for_break(struct visit *visit, const struct side *side, uint32_t events)
{
	if (side == &visit->far && visit->down.bytes)
		return;
	if (side && (events & (EPOLLHUP | EPOLLERR)) && !side->waits_to_read && !side->waits_to_write &&
	    (visit->state == OPEN || visit->state == CONNECTING))
		end(visit, true);
}

/* side, events: what happened; NULL: it comes. */
static void step(struct visit *visit, const struct side *side, uint32_t events)
{
	const uint32_t far_events = side == &visit->far ? events : 0;

	if (visit->state == GONE)
		return;
	forget_waits(visit);
	if (visit->state == SHAKING)
		step_shaking(visit);
	else if (visit->state == ASKING)
		step_asking(visit);
	else if (visit->state == CONNECTING)
		step_connecting(visit, far_events);
	else if (visit->state == OPEN)
		step_open(visit);
	if (visit->state == ANSWERING)
		step_answering(visit);
	look_for_break(visit, side, events);
	watch_side(visit, &visit->near, visit->down.is_done);
	watch_side(visit, &visit->far, visit->up.is_done || visit->down.bytes);
	look_after(visit);
}

static struct visit *take_coming(struct terminator *terminator)
{
	struct visit *in_order = NULL, *next;

	pthread_mutex_lock(&terminator->lock);
	struct visit *coming = terminator->coming;
	terminator->coming = NULL;
	pthread_mutex_unlock(&terminator->lock);
	for (; coming; coming = next) {
		next = coming->next;
		coming->next = in_order;
		in_order = coming;
	}
	return in_order;
}

static void let_in(struct terminator *terminator)
{
	struct visit *next;

	for (struct visit *visit = take_coming(terminator); visit; visit = next) {
		next = visit->next;
		place(visit, (enum visit_state)visit->state, &terminator->early);
		step(visit, NULL, 0);
	}
}

/* Returns when the next is late. */
static uint64_t expire(struct terminator *terminator, const struct link *ring, uint32_t time_ms)
{
	struct link *first;

	while ((first = link_first(ring))) {
		struct visit *visit = container_of(first, struct visit, place);
		if (visit->since_ms + time_ms > terminator->now_ms)
			return visit->since_ms + time_ms;
		if (is_early(visit))
			count(visit->host, N_OF(too_slow));
		if (visit->state == CONNECTING)
			not_reached(visit, ETIMEDOUT);
		else
			end(visit, true);
	}
	return UINT64_MAX;
}

static int time_to_wait(struct terminator *terminator)
{
	const uint64_t early = expire(terminator, &terminator->early, terminator->options.handshake_ms);
	const uint64_t connecting = expire(terminator, &terminator->connecting, terminator->options.connect_ms);
	const uint64_t blind = expire(terminator, &terminator->blind, terminator->options.half_closed_ms);
	const uint64_t first = early < connecting ? early : connecting;
	const uint64_t due = first < blind ? first : blind;

	return due == UINT64_MAX ? -1 : (int)(due - terminator->now_ms) + 1;
}

static void read_clock(struct terminator *terminator)
{
	terminator->now_ms = clock_now_ns() / 1000000;
}

static void handle(struct terminator *terminator, const struct epoll_event *event)
{
	struct side *side = event->data.ptr;
	uint64_t n;

	if (!side) {
		if (read(terminator->wake_fd, &n, sizeof(n)) > 0)
			let_in(terminator);
		return;
	}
	step(side->visit, side, event->events);
}

static void end_all(struct terminator *terminator, const struct link *ring)
{
	struct link *first;

	while ((first = link_first(ring)))
		end(container_of(first, struct visit, place), true);
}

static void *run(void *owner)
{
	struct terminator *terminator = owner;
	struct epoll_event events[EVENTS_A_TURN];

	while (!atomic_load(&terminator->is_stopping)) {
		const int wait_ms = time_to_wait(terminator);
		free_gone(terminator);
		const int n = epoll_wait(terminator->epoll_fd, events, EVENTS_A_TURN, wait_ms);
		read_clock(terminator);
		for (int i = 0; i < n; i++)
			handle(terminator, &events[i]);
		free_gone(terminator);
	}
	let_in(terminator);
	end_all(terminator, &terminator->early);
	end_all(terminator, &terminator->connecting);
	end_all(terminator, &terminator->open);
	end_all(terminator, &terminator->blind);
	free_gone(terminator);
	return NULL;
}

/* ---- from outside ---- */

static struct terminator_options with_defaults(const struct terminator_options *options)
{
	struct terminator_options full = *options;
	struct rlimit files = { .rlim_cur = 1024 };

	(void)getrlimit(RLIMIT_NOFILE, &files);
	const uint32_t most = files.rlim_cur / 8 < MAX_VISITS ? (uint32_t)(files.rlim_cur / 8) : MAX_VISITS;
	if (full.max_visits == 0 || full.max_visits > most)
		full.max_visits = most;
	full.max_handshakes = full.max_handshakes ? full.max_handshakes : MAX_HANDSHAKES;
	full.max_of_source = full.max_of_source ? full.max_of_source : MAX_OF_SOURCE;
	full.handshake_ms = full.handshake_ms ? full.handshake_ms : HANDSHAKE_MS;
	full.connect_ms = full.connect_ms ? full.connect_ms : CONNECT_MS;
	full.half_closed_ms = full.half_closed_ms ? full.half_closed_ms : HALF_CLOSED_MS;
	return full;
}

static void free_terminator(struct terminator *terminator)
{
	if (terminator->wake_fd >= 0)
		close(terminator->wake_fd);
	if (terminator->epoll_fd >= 0)
		close(terminator->epoll_fd);
	pthread_mutex_destroy(&terminator->lock);
	free(terminator);
}

/* Signals are the loop's; also SIGPIPE, which TLS would raise. */
static int start_thread(struct terminator *terminator)
{
	struct epoll_event event = { .events = EPOLLIN };
	sigset_t all, before;

	if (terminator->wake_fd < 0 || terminator->epoll_fd < 0 ||
	    epoll_ctl(terminator->epoll_fd, EPOLL_CTL_ADD, terminator->wake_fd, &event) < 0)
		return -errno;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	const int r = -pthread_create(&terminator->thread, NULL, run, terminator);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

int terminator_new(const struct terminator_options *options, struct terminator **ret, struct error *reterr)
{
	struct terminator *terminator = calloc(1, sizeof(*terminator));

	if (!terminator)
		abort();
	terminator->options = with_defaults(options);
	pthread_mutex_init(&terminator->lock, NULL);
	crypto_shorthash_keygen(terminator->seed);
	link_init_ring(&terminator->early);
	link_init_ring(&terminator->connecting);
	link_init_ring(&terminator->open);
	link_init_ring(&terminator->blind);
	link_init_ring(&terminator->gone);
	read_clock(terminator);
	terminator->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	terminator->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	const int r = start_thread(terminator);
	if (r < 0) {
		free_terminator(terminator);
		return error_set(reterr, r, "TLS cannot be terminated: %s", strerror(-r));
	}
	*ret = terminator;
	return 0;
}

void terminator_free(struct terminator *terminator)
{
	if (!terminator)
		return;
	atomic_store(&terminator->is_stopping, true);
	wake(terminator);
	pthread_join(terminator->thread, NULL);
	free_terminator(terminator);
}

void terminated_init(struct terminated *terminated, struct terminator *terminator, const struct endpoint *target,
		     enum exposure_proxy proxy)
{
	*terminated = (struct terminated){ .sink = { .take = take, .judges = judges }, .terminator = terminator, .target = *target, .proxy = proxy };
	tls_site_init(&terminated->site);
}

void terminated_deinit(struct terminated *terminated)
{
	tls_site_deinit(&terminated->site);
}

struct terminated_counters terminated_counters(const struct terminated *terminated)
{
	struct terminated_counters counters;
	uint64_t words[TERMINATED_N_COUNTERS];

	for (size_t i = 0; i < TERMINATED_N_COUNTERS; i++)
		words[i] = atomic_load_explicit(&terminated->counters[i], memory_order_relaxed);
	memcpy(&counters, words, sizeof(counters));
	return counters;
}
