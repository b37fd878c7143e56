/* A visit's states, each with what it does when one of its sides is ready. */
#include "node/expose/terminator_internal.h"

#include "relay/frontdoor/proxy_header_wire.h"
#include "relay/frontdoor/splice_pump.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_HEADER  384 /* PROXY: addresses, host, scheme, doors, ALPN */
#define MAX_REQUEST 4096 /* of http-01, up to the end of its first line */

/* ---- where it stands, and how it goes ---- */

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

void visit_place(struct visit *visit, enum visit_state state, struct link *ring)
{
	if (is_early(visit) && state != SHAKING && state != ASKING)
		leave_early(visit);
	visit->state = (uint8_t)state;
	visit->since_ms = visit->terminator->now_ms;
	link_put_last(ring, &visit->place);
}

/* By hand: a child that is being started elsewhere has copies of the sockets, and closing would leave them in epoll. */
static void unwatch(const struct terminator *terminator, struct side *side)
{
	if (side->is_watched)
		(void)epoll_ctl(terminator->epoll_fd, EPOLL_CTL_DEL, side->fd, NULL);
	side->is_watched = false;
}

void visit_end(struct visit *visit, bool broken)
{
	struct terminator *terminator = visit->terminator;

	if (visit->state == GONE)
		return;
	visit_place(visit, GONE, &terminator->gone);
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
	way_drop(&visit->up);
	way_drop(&visit->down);
}

/* ---- what it waits for ---- */

/*
 * Also a side that waits for nothing is watched, for it may break. Not so one that was given its end: when its own end has
 * come it would be told again and again that it has hung up, and what it said before may be unread.
 */
static void watch_side(struct visit *visit, struct side *side, bool was_given_end)
{
	const uint32_t events = (side->waits_to_read ? (uint32_t)EPOLLIN : 0) |
				(side->waits_to_write ? (uint32_t)EPOLLOUT : 0);
	struct epoll_event event = { .events = events, .data.ptr = side };
	const bool is_wanted = events != 0 || !was_given_end;

	if (side->fd < 0 || (side->is_watched == is_wanted && (!is_wanted || side->watched == events)))
		return;
	const int what = !is_wanted ? EPOLL_CTL_DEL : !side->is_watched ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	side->is_watched = is_wanted;
	side->watched = events;
	if (epoll_ctl(visit->terminator->epoll_fd, what, side->fd, &event) < 0)
		visit_end(visit, true);
}

static void forget_waits(struct visit *visit)
{
	visit->near.waits_to_read = visit->near.waits_to_write = false;
	visit->far.waits_to_read = visit->far.waits_to_write = false;
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
	const ssize_t r = way_move(visit, &visit->up, &way_upward);

	if (!is_broken(r) || !visit->far.is_broken)
		return r;
	way_drop(&visit->up);
	visit->up.has_ended = visit->up.is_done = true;
	return 0;
}

static void step_open(struct visit *visit)
{
	const ssize_t up = move_up(visit), down = is_broken(up) ? 0 : way_move(visit, &visit->down, &way_downward);

	if (is_broken(up) || is_broken(down)) {
		if (visit->ssl && is_broken(up) && !visit->down.is_done)
			terminated_count(visit->host, N_OF(truncated));
		visit_end(visit, true);
		return;
	}
	if (visit->up.is_done && visit->down.is_done) {
		visit_end(visit, visit->far.is_broken);
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
	visit_end(visit, true);
}

static void refuse_stranger(struct visit *visit)
{
	door_gate_not_allowed(visit->gate);
	log_limited(&visit->terminator->log_limit, LOG_LEVEL_INFO, "expose", "%s from %s: not allowed: refused",
		    visit->guest.host.text, endpoint_ip_text(&visit->guest.source).s);
	visit_end(visit, true);
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

	visit_place(visit, CONNECTING, &visit->terminator->connecting);
	visit->far.fd = fd;
	if (fd < 0) {
		visit_end(visit, true); /* for want of descriptors: it tells nothing of the server */
		return;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	const int error = connect(fd, (const struct sockaddr *)&address, len) < 0 ? errno : EINPROGRESS;
	if (error == EINPROGRESS)
		visit->far.waits_to_write = true;
	else if (is_want(error))
		visit_end(visit, true);
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
	visit_place(visit, OPEN, &visit->terminator->open);
	step_open(visit);
}

/* ---- SHAKING ---- */

static void shake_failed(struct visit *visit)
{
	const unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	terminated_count(visit->host, N_OF(failed));
	log_limited(&visit->terminator->log_limit, LOG_LEVEL_INFO, "expose", "%s from %s: TLS: %s", visit->guest.host.text,
		    endpoint_ip_text(&visit->guest.source).s, reason ? reason : "broken off");
	visit_end(visit, true);
}

static bool begin_tls(struct visit *visit)
{
	visit->ssl = tls_site_accept(&visit->host->site, &visit->guest.host);
	if (visit->ssl && SSL_set_fd(visit->ssl, visit->near.fd) == 1)
		return true;
	terminated_count(visit->host, N_OF(no_certificate));
	log_limited(&visit->terminator->log_limit, LOG_LEVEL_INFO, "expose", "%s: refused: it has no certificate yet",
		    visit->guest.host.text);
	visit_end(visit, true);
	return false;
}

static void step_shaking(struct visit *visit)
{
	if (!visit->ssl && !begin_tls(visit))
		return;
	ERR_clear_error();
	const int r = SSL_accept(visit->ssl);
	if (r != 1) {
		if (visit_tls_result(visit, r) != -EAGAIN)
			shake_failed(visit);
		return;
	}
	terminated_count(visit->host, N_OF(handshakes));
	if (SSL_session_reused(visit->ssl) == 1)
		terminated_count(visit->host, N_OF(resumed));
	if (!tls_site_was_challenge(visit->ssl)) {
		lead_on(visit);
		return;
	}
	terminated_count(visit->host, N_OF(challenges));
	(void)SSL_shutdown(visit->ssl);
	visit_end(visit, false);
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

	terminated_count(visit->host, N_OF(challenges));
	way_drop(&visit->up);
	way_keep(&visit->down, (const uint8_t *)bytes, (size_t)n);
	visit->down.has_ended = true;
	visit_place(visit, ANSWERING, &visit->terminator->connecting);
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
	const ssize_t n = visit_near_read(visit, bytes + before, MAX_REQUEST - before);

	if (n == -EAGAIN)
		return;
	if (n < 0) {
		visit_end(visit, true);
		return;
	}
	if (before > 0)
		memcpy(bytes, up->bytes, before);
	free(up->bytes);
	up->bytes = NULL;
	up->has_ended = n == 0;
	way_keep(up, bytes, before + (size_t)n);
	const size_t all = before + (size_t)n;
	ask(visit, up->has_ended || all == MAX_REQUEST || memchr(bytes, '\n', all) != NULL);
	if (visit->state == ASKING)
		visit->near.waits_to_read = true;
}

static void step_answering(struct visit *visit)
{
	const ssize_t r = way_move(visit, &visit->down, &way_downward);

	if (is_broken(r) || r == 0)
		visit_end(visit, is_broken(r));
}

/* ---- all of them ---- */

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
		visit_place(visit, OPEN, &terminator->blind);
	else if (was_blind && visit->state == OPEN)
		visit_place(visit, OPEN, &terminator->open);
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
		visit_end(visit, true);
}

void visit_step(struct visit *visit, const struct side *side, uint32_t events)
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

void visit_expire(struct visit *visit)
{
	if (is_early(visit))
		terminated_count(visit->host, N_OF(too_slow));
	if (visit->state == CONNECTING)
		not_reached(visit, ETIMEDOUT);
	else
		visit_end(visit, true);
}
