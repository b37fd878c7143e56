#include "relay/diglett/v1_tunnel.h"

#include "common/macros.h"
#include "relay/diglett/diglett_keys.h"
#include "relay/diglett/tunnel_internal.h"
#include "relay/diglett/v1_fsm.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUCKETS	     64
#define OUT_BYTES    49152 /* of frames, before they are sent */
#define DATA_BYTES   16384 /* of a frame of ours, so that others have their turn */
#define TICK_MS	     1000
#define LINGER_MS    5000
#define PROGRESS     MUX_PROGRESS /* who takes fewer bytes in stalled_ms is stalled */
#define N_NUMBERS    65536

struct v1_visitor {
	struct v1_tunnel *tunnel;
	struct v1_visitor *next_in_bucket;
	struct mux_link all, turn; /* rings; of turn: it may have something to say */
	uv_poll_t poll;
	int fd;
	uint16_t number;
	bool is_told; /* the agent knows of it */
	bool is_over; /* nothing more comes for it, nor is taken from it */
	bool is_lingering; /* it has all: what it still says is thrown away, so that no reset takes what it has not read */
	bool is_urgent;	   /* it has sent something out of band */
	bool is_full, is_closing;
	uint8_t *held; /* for its socket */
	size_t n_held, held_at, held_size;
	size_t taken; /* since taken_us */
	uint64_t taken_us, moved_us;
};

struct v1_tunnel {
	struct v1_tunnel_ports ports;
	uv_loop_t *loop;
	int fd;
	uv_poll_t poll;
	uv_timer_t timer; /* the handshake's deadline; then once a second; then to tell the end */
	uv_check_t check; /* at the end of a turn what is dirty is sent */
	uint32_t n_open;
	bool has_keys, has_ended, is_closing, is_dirty;
	void (*closed)(void *owner);
	struct error why;
	const struct noise_curve *curve;
	struct noise_public remote;
	struct v1_cipher sending, receiving;
	struct v1_fsm fsm;
	struct mux_link all, turn;
	struct v1_visitor *buckets[BUCKETS];
	uint32_t n_visitors, n_full;
	size_t n_held;
	uint16_t closes[V1_MAX_VISITORS + 1], n_closes; /* told of, and to be told that they are gone */
	uint8_t used[N_NUMBERS / 8];			/* numbers, by this connection */
	uint16_t last_number;
	struct tunnel_counters counters;
	size_t n_in, n_out, out_at;
	uint8_t in[V1_HEAD_LEN + V1_MAX_PAYLOAD];
	uint8_t out[OUT_BYTES + V1_HEAD_LEN + DATA_BYTES];
};

static void on_event(uv_poll_t *poll, int status, int events);
static void on_visitor_event(uv_poll_t *poll, int status, int events);

/* its end */

static void release(struct v1_tunnel *tunnel)
{
	if (--tunnel->n_open > 0)
		return;
	void (*closed)(void *owner) = tunnel->closed;
	void *const owner = tunnel->ports.owner;

	close(tunnel->fd);
	v1_cipher_deinit(&tunnel->sending);
	v1_cipher_deinit(&tunnel->receiving);
	sodium_memzero(tunnel, sizeof(*tunnel)); /* the token, and plain bytes */
	free(tunnel);
	if (closed)
		closed(owner);
}

static void on_handle_closed(uv_handle_t *handle)
{
	release(handle->data);
}

static void on_told(uv_timer_t *timer)
{
	struct v1_tunnel *tunnel = timer->data;

	tunnel->ports.ended(tunnel->ports.owner, &tunnel->why);
}

/* The owner is told from the loop. */
static void fail(struct v1_tunnel *tunnel, int code, const char *text)
{
	if (tunnel->has_ended || tunnel->is_closing)
		return;
	tunnel->has_ended = true;
	error_set(&tunnel->why, code, "%s", text);
	uv_poll_stop(&tunnel->poll);
	uv_timer_start(&tunnel->timer, on_told, 0, 0);
}

/* visitors */

static void link_init(struct mux_link *link)
{
	link->next = link->previous = link;
}

static void link_remove(struct mux_link *link)
{
	link->next->previous = link->previous;
	link->previous->next = link->next;
	link_init(link);
}

static void link_append(struct mux_link *ring, struct mux_link *link)
{
	if (link->next != link)
		return;
	link->previous = ring->previous;
	link->next = ring;
	ring->previous->next = link;
	ring->previous = link;
}

static struct v1_visitor **bucket_of(struct v1_tunnel *tunnel, uint16_t number)
{
	return &tunnel->buckets[number % BUCKETS];
}

static struct v1_visitor *find(struct v1_tunnel *tunnel, uint16_t number)
{
	struct v1_visitor *visitor = *bucket_of(tunnel, number);

	while (visitor && visitor->number != number)
		visitor = visitor->next_in_bucket;
	return visitor;
}

static uint32_t id_of(const struct v1_tunnel *tunnel, uint16_t number)
{
	return (uint32_t)tunnel->fsm.registration << 16 | number;
}

static bool is_used(const struct v1_tunnel *tunnel, uint16_t number)
{
	return tunnel->used[number / 8] >> number % 8 & 1;
}

static void note_used(struct v1_tunnel *tunnel, uint16_t number)
{
	tunnel->used[number / 8] |= (uint8_t)(1u << number % 8);
}

/* When all were used, those that are used now stay so. */
static void begin_numbers_anew(struct v1_tunnel *tunnel)
{
	memset(tunnel->used, 0, sizeof(tunnel->used));
	for (struct mux_link *at = tunnel->all.next; at != &tunnel->all; at = at->next)
		note_used(tunnel, container_of(at, struct v1_visitor, all)->number);
	for (uint16_t i = 0; i < tunnel->n_closes; i++)
		note_used(tunnel, tunnel->closes[i]);
}

/* Its port; or, when that was used before, the next after the last. */
static uint16_t choose_number(struct v1_tunnel *tunnel, uint16_t port)
{
	uint16_t number = port;
	uint32_t n = 0;

	while (is_used(tunnel, number)) {
		number = ++tunnel->last_number;
		if (++n == N_NUMBERS)
			begin_numbers_anew(tunnel);
	}
	note_used(tunnel, number);
	return number;
}

static void watch_visitor(struct v1_visitor *visitor)
{
	const bool is_in_turn = visitor->turn.next != &visitor->turn;
	const bool is_read = visitor->is_over ? visitor->is_lingering : !is_in_turn && visitor->tunnel->fsm.state == V1_IS_OPEN;
	const int events = (is_read ? UV_READABLE : 0) | (visitor->n_held > 0 ? UV_WRITABLE : 0);

	if (visitor->is_closing)
		return;
	if (events != 0)
		uv_poll_start(&visitor->poll, events, on_visitor_event);
	else if (!visitor->is_urgent)
		uv_poll_start(&visitor->poll, UV_PRIORITIZED, on_visitor_event); /* to see that it is gone */
	else
		uv_poll_stop(&visitor->poll);
}

/* What is held has changed: is the agent let speak? */
static void note_held(struct v1_visitor *visitor)
{
	struct v1_tunnel *const tunnel = visitor->tunnel;
	const bool is_full = visitor->n_held >= V1_HELD_OF_VISITOR;

	if (is_full && !visitor->is_full)
		tunnel->n_full++;
	if (!is_full && visitor->is_full)
		tunnel->n_full--;
	visitor->is_full = is_full;
	tunnel->is_dirty = true;
}

static bool is_paused(const struct v1_tunnel *tunnel)
{
	return tunnel->n_full > 0 || tunnel->n_held >= V1_HELD;
}

static void drop_held(struct v1_visitor *visitor)
{
	visitor->tunnel->n_held -= visitor->n_held;
	visitor->n_held = 0;
	note_held(visitor);
	free(visitor->held);
	visitor->held = NULL;
}

static void on_visitor_closed(uv_handle_t *handle)
{
	struct v1_visitor *visitor = handle->data;
	struct v1_tunnel *const tunnel = visitor->tunnel;

	close(visitor->fd);
	free(visitor);
	release(tunnel);
}

/* Its number is free at once: nothing more is said of it but the Close that was queued. */
static void close_visitor(struct v1_visitor *visitor, bool resets)
{
	struct v1_tunnel *const tunnel = visitor->tunnel;
	const struct linger now = { .l_onoff = 1, .l_linger = 0 };
	struct v1_visitor **at = bucket_of(tunnel, visitor->number);

	if (visitor->is_closing)
		return;
	visitor->is_closing = true;
	if (resets)
		setsockopt(visitor->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	drop_held(visitor);
	while (*at != visitor)
		at = &(*at)->next_in_bucket;
	*at = visitor->next_in_bucket;
	link_remove(&visitor->all);
	link_remove(&visitor->turn);
	tunnel->n_visitors--;
	tunnel->counters.visitors_now--;
	uv_close((uv_handle_t *)&visitor->poll, on_visitor_closed);
}

/*
 * Nothing more comes from it: the agent is told. Before a visitor is told of, all Closes have gone out, so that there are
 * no more of them than visitors.
 */
static void tell_close(struct v1_visitor *visitor)
{
	struct v1_tunnel *const tunnel = visitor->tunnel;

	if (!visitor->is_told)
		return;
	visitor->is_told = false;
	assert(tunnel->n_closes < ARRAY_LEN(tunnel->closes));
	tunnel->closes[tunnel->n_closes++] = visitor->number;
	tunnel->is_dirty = true;
}

/* All was given. */
static void linger(struct v1_visitor *visitor)
{
	shutdown(visitor->fd, SHUT_WR);
	visitor->is_lingering = true;
	visitor->moved_us = tunnel_now_us();
	watch_visitor(visitor);
}

/* Both ways end, as this version has it; but what has come for it is still given. */
static void end_visitor(struct v1_visitor *visitor)
{
	tell_close(visitor);
	visitor->is_over = true;
	link_remove(&visitor->turn);
	if (visitor->n_held == 0)
		linger(visitor);
	else
		watch_visitor(visitor);
}

static void break_visitor(struct v1_visitor *visitor)
{
	tell_close(visitor);
	close_visitor(visitor, true);
}

static void note_taken(struct v1_visitor *visitor, size_t n)
{
	visitor->moved_us = tunnel_now_us();
	visitor->taken += n;
	if (visitor->n_held > 0 && visitor->taken < PROGRESS)
		return;
	visitor->taken = 0;
	visitor->taken_us = visitor->moved_us;
}

/* How many its socket takes; -1: it is gone, and closed. */
static ssize_t give(struct v1_visitor *visitor, const uint8_t *bytes, size_t n)
{
	ssize_t sent;

	do
		sent = send(visitor->fd, bytes, n, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0 && errno == EAGAIN)
		return 0;
	if (sent < 0)
		break_visitor(visitor);
	return sent;
}

static void give_held(struct v1_visitor *visitor)
{
	const ssize_t n = give(visitor, visitor->held + visitor->held_at, visitor->n_held);

	if (n < 0)
		return;
	visitor->held_at += (size_t)n;
	visitor->n_held -= (size_t)n;
	visitor->tunnel->n_held -= (size_t)n;
	note_taken(visitor, (size_t)n);
	note_held(visitor);
	if (visitor->n_held > 0)
		return;
	free(visitor->held);
	visitor->held = NULL;
	visitor->held_at = visitor->held_size = 0;
	if (visitor->is_over)
		linger(visitor);
	else
		watch_visitor(visitor);
}

static void keep(struct v1_visitor *visitor, const uint8_t *bytes, size_t n)
{
	if (visitor->held_at > 0)
		memmove(visitor->held, visitor->held + visitor->held_at, visitor->n_held);
	visitor->held_at = 0;
	if (visitor->n_held + n > visitor->held_size) {
		visitor->held_size = 2 * visitor->held_size > visitor->n_held + n ? 2 * visitor->held_size : visitor->n_held + n;
		visitor->held = realloc(visitor->held, visitor->held_size);
		if (!visitor->held)
			abort();
	}
	if (visitor->n_held == 0)
		visitor->taken_us = tunnel_now_us();
	memcpy(visitor->held + visitor->n_held, bytes, n);
	visitor->n_held += n;
	visitor->tunnel->n_held += n;
	note_held(visitor);
	watch_visitor(visitor);
}

static void take_payload(struct v1_tunnel *tunnel, uint32_t id, const uint8_t *bytes, size_t n)
{
	struct v1_visitor *visitor = id == id_of(tunnel, (uint16_t)id) ? find(tunnel, (uint16_t)id) : NULL;

	if (!visitor || visitor->is_over) {
		tunnel->counters.mux.late++;
		return;
	}
	tunnel->counters.bytes_in += n;
	visitor->moved_us = tunnel_now_us();
	const ssize_t given = visitor->n_held == 0 && n > 0 ? give(visitor, bytes, n) : 0;
	if (given >= 0 && (size_t)given < n)
		keep(visitor, bytes + given, n - (size_t)given);
}

static void take_close(struct v1_tunnel *tunnel, uint32_t id)
{
	struct v1_visitor *visitor = id == id_of(tunnel, (uint16_t)id) ? find(tunnel, (uint16_t)id) : NULL;

	if (visitor && !visitor->is_over)
		end_visitor(visitor);
	else
		tunnel->counters.mux.late++;
}

static bool is_broken(const struct v1_visitor *visitor)
{
	int error = 0;
	socklen_t len = sizeof(error);

	return getsockopt(visitor->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error != 0;
}

/* A little at a time: others have their turn. */
static void throw_away(struct v1_visitor *visitor)
{
	uint8_t bytes[4096];
	const ssize_t n = recv(visitor->fd, bytes, sizeof(bytes), 0);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		close_visitor(visitor, false);
}

static void on_visitor_event(uv_poll_t *poll, int status, int events)
{
	struct v1_visitor *visitor = poll->data;

	if (status < 0 || (events & UV_PRIORITIZED && is_broken(visitor))) {
		break_visitor(visitor);
		return;
	}
	if (events & UV_PRIORITIZED) /* it would be told of again and again */
		visitor->is_urgent = true;
	if (events & UV_READABLE && visitor->is_lingering) {
		throw_away(visitor);
		return;
	}
	if (events & UV_READABLE && !visitor->is_over) {
		link_append(&visitor->tunnel->turn, &visitor->turn);
		visitor->tunnel->is_dirty = true;
	}
	if (events & UV_WRITABLE && visitor->n_held > 0)
		give_held(visitor);
	watch_visitor(visitor);
}

/* sending */

/* In what is not sent yet there is room for it. */
static void put_frame(struct v1_tunnel *tunnel, enum v1_kind kind, uint32_t id, size_t n)
{
	const struct v1_head head = { kind, id, (uint16_t)n };
	uint8_t *const at = tunnel->out + tunnel->n_out;

	v1_head_write(&head, at);
	v1_cipher_apply(&tunnel->sending, at, V1_HEAD_LEN + n);
	tunnel->n_out += V1_HEAD_LEN + n;
}

/* A frame of its own, which tells of it, too; it may be closed then. */
static void put_visitor(struct v1_visitor *visitor)
{
	struct v1_tunnel *const tunnel = visitor->tunnel;
	ssize_t n;

	link_remove(&visitor->turn);
	do
		n = recv(visitor->fd, tunnel->out + tunnel->n_out + V1_HEAD_LEN, DATA_BYTES, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN) {
		break_visitor(visitor);
		return;
	}
	if (n == 0) {
		end_visitor(visitor);
		return;
	}
	if (n > 0 || !visitor->is_told)
		put_frame(tunnel, V1_PAYLOAD, id_of(tunnel, visitor->number), n > 0 ? (size_t)n : 0);
	visitor->is_told = true;
	if (n > 0) {
		visitor->moved_us = tunnel_now_us();
		tunnel->counters.bytes_out += (uint64_t)n;
	}
	if (n == DATA_BYTES) /* to the end of the line: there may be more */
		link_append(&tunnel->turn, &visitor->turn);
	watch_visitor(visitor);
}

static void fill(struct v1_tunnel *tunnel)
{
	if (tunnel->fsm.state != V1_IS_OPEN)
		return;
	for (uint16_t i = 0; i < tunnel->n_closes; i++)
		put_frame(tunnel, V1_CLOSE, id_of(tunnel, tunnel->closes[i]), 0);
	tunnel->n_closes = 0;
	/* Closes of this turn wait for the next: no visitor is told of before them. */
	while (tunnel->n_out < OUT_BYTES && tunnel->turn.next != &tunnel->turn && tunnel->n_closes == 0)
		put_visitor(container_of(tunnel->turn.next, struct v1_visitor, turn));
}

/* False: not all. */
static bool send_out(struct v1_tunnel *tunnel)
{
	while (tunnel->out_at < tunnel->n_out) {
		const ssize_t n = send(tunnel->fd, tunnel->out + tunnel->out_at, tunnel->n_out - tunnel->out_at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			fail(tunnel, -errno, strerror(errno));
		if (n < 0)
			return false;
		tunnel->out_at += (size_t)n;
	}
	tunnel->out_at = tunnel->n_out = 0;
	return true;
}

static void watch(struct v1_tunnel *tunnel, bool has_more)
{
	const int readable = is_paused(tunnel) ? 0 : UV_READABLE;
	const int writable = tunnel->out_at < tunnel->n_out || has_more ? UV_WRITABLE : 0;

	if (tunnel->has_ended || tunnel->is_closing)
		return;
	const int events = (readable | writable) == 0 ? UV_PRIORITIZED : readable | writable;
	const int r = uv_poll_start(&tunnel->poll, events, on_event);
	if (r < 0)
		fail(tunnel, r, uv_strerror(r));
}

static void flush(struct v1_tunnel *tunnel)
{
	size_t n = 0;

	tunnel->is_dirty = false;
	while (!tunnel->has_ended && n < TUNNEL_TURN_BYTES && send_out(tunnel)) {
		fill(tunnel);
		if (tunnel->n_out == 0 && tunnel->n_closes == 0)
			break;
		n += tunnel->n_out;
	}
	watch(tunnel, n >= TUNNEL_TURN_BYTES);
}

static void take_frames(struct v1_tunnel *tunnel);

static void on_check(uv_check_t *check)
{
	struct v1_tunnel *tunnel = check->data;

	if (!tunnel->is_dirty || tunnel->is_closing || tunnel->has_ended)
		return;
	take_frames(tunnel); /* those that waited while too much was held */
	flush(tunnel);
}

/* receiving */

static void send_error(struct v1_tunnel *tunnel, const char *text)
{
	const size_t n = strlen(text) < DATA_BYTES ? strlen(text) : DATA_BYTES;

	if (!send_out(tunnel))
		return; /* it does not take anything */
	memcpy(tunnel->out + V1_HEAD_LEN, text, n);
	put_frame(tunnel, V1_ERROR, 0, n);
	send_out(tunnel);
}

void v1_tunnel_answer(struct v1_tunnel *tunnel, const struct diglett_answer *answer)
{
	v1_fsm_answer(&tunnel->fsm);
	if (answer->is_accepted) {
		put_frame(tunnel, V1_OK, 0, 0);
		return;
	}
	send_error(tunnel, answer->text);
	fail(tunnel, answer->reason, answer->text);
}

/* Before it, visitors wait with all they say. */
static void on_tick(uv_timer_t *timer);

static void open_tunnel(struct v1_tunnel *tunnel)
{
	uv_timer_start(&tunnel->timer, on_tick, TICK_MS, TICK_MS);
	for (struct mux_link *at = tunnel->all.next; at != &tunnel->all; at = at->next) {
		struct v1_visitor *visitor = container_of(at, struct v1_visitor, all);
		link_append(&tunnel->turn, &visitor->turn);
	}
}

static void take_frame(struct v1_tunnel *tunnel, const struct v1_head *head, const uint8_t *payload)
{
	switch (v1_fsm_receive(&tunnel->fsm, head, payload)) {
	case V1_EV_LOGGED_IN:
		put_frame(tunnel, V1_OK, 0, 0);
		break;
	case V1_EV_ASKS:
		tunnel->ports.asked(tunnel->ports.owner, &tunnel->fsm.request);
		sodium_memzero(tunnel->fsm.request.token, sizeof(tunnel->fsm.request.token));
		break;
	case V1_EV_OPEN:
		open_tunnel(tunnel);
		break;
	case V1_EV_CAME:
		take_payload(tunnel, head->id, payload, head->size);
		break;
	case V1_EV_CLOSED:
		take_close(tunnel, head->id);
		break;
	case V1_EV_LEAVES:
		fail(tunnel, -ECONNRESET, "the agent leaves");
		break;
	case V1_EV_VIOLATION:
		send_error(tunnel, "unexpected message");
		fail(tunnel, -EPROTO, "the agent broke the protocol's rules");
		break;
	}
	tunnel->is_dirty = true;
}

/* Of what has come; those that are whole, as long as not too much is held. */
static void take_frames(struct v1_tunnel *tunnel)
{
	size_t at = 0;

	while (tunnel->has_keys && !tunnel->has_ended && !tunnel->is_closing && !is_paused(tunnel)) {
		const size_t left = tunnel->n_in - at;
		struct v1_head head;
		if (left < V1_HEAD_LEN)
			break;
		if (!v1_head_read(tunnel->in + at, &head)) {
			fail(tunnel, -EPROTO, "a frame is none: another protocol, or a change on the way");
			break;
		}
		if (head.size > v1_fsm_max_payload(&tunnel->fsm)) { /* is not waited for */
			send_error(tunnel, "message too long");
			fail(tunnel, -EPROTO, "a token, a name, or what is said instead is too long");
			break;
		}
		if (left < V1_HEAD_LEN + (size_t)head.size)
			break;
		at += V1_HEAD_LEN + (size_t)head.size;
		take_frame(tunnel, &head, tunnel->in + at - head.size);
	}
	memmove(tunnel->in, tunnel->in + at, tunnel->n_in - at);
	tunnel->n_in -= at;
}

/* A key for this connection alone. */
static int begin_keys(struct v1_tunnel *tunnel)
{
	struct noise_secret secret;
	struct noise_public public;
	struct v1_keys keys = { 0 };

	diglett_key_draw(tunnel->curve, &secret);
	int r = noise_public_of(tunnel->curve, &secret, &public) && v1_agree(tunnel->curve, &secret, &tunnel->remote, &keys)
			? 0
			: -EINVAL;
	noise_secret_wipe(&secret);
	if (r == 0)
		r = v1_cipher_init(&tunnel->sending, &keys);
	if (r == 0)
		r = v1_cipher_init(&tunnel->receiving, &keys);
	sodium_memzero(&keys, sizeof(keys));
	if (r < 0)
		return r;
	v1_hello_write(&public, tunnel->out);
	tunnel->n_out = V1_HELLO_LEN;
	return 0;
}

static void take_hello(struct v1_tunnel *tunnel)
{
	if (v1_hello_read(tunnel->curve, tunnel->in, &tunnel->remote) != 0) {
		fail(tunnel, -EPROTO, "a hello is none");
		return;
	}
	const int r = begin_keys(tunnel);
	if (r < 0)
		fail(tunnel, r, "no key was agreed on");
	tunnel->has_keys = r == 0;
	tunnel->n_in = 0;
	tunnel->is_dirty = true;
}

static void take_some(struct v1_tunnel *tunnel, size_t n)
{
	if (tunnel->has_keys)
		v1_cipher_apply(&tunnel->receiving, tunnel->in + tunnel->n_in, n);
	tunnel->n_in += n;
	if (tunnel->has_keys)
		take_frames(tunnel);
	else if (tunnel->n_in == V1_HELLO_LEN)
		take_hello(tunnel);
}

static void receive(struct v1_tunnel *tunnel)
{
	size_t total = 0;

	take_frames(tunnel); /* so that there is room, also when it just was let speak again */
	while (total < TUNNEL_TURN_BYTES && !tunnel->has_ended && !tunnel->is_closing && !is_paused(tunnel)) {
		const size_t room = (tunnel->has_keys ? sizeof(tunnel->in) : V1_HELLO_LEN) - tunnel->n_in;
		const ssize_t n = recv(tunnel->fd, tunnel->in + tunnel->n_in, room, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			fail(tunnel, n < 0 ? -errno : -ECONNRESET, n < 0 ? strerror(errno) : "the other side has closed");
			return;
		}
		total += (size_t)n;
		take_some(tunnel, (size_t)n);
	}
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct v1_tunnel *tunnel = poll->data;

	if (events & UV_READABLE || status < 0)
		receive(tunnel);
	if (tunnel->has_ended)
		return;
	if (status < 0 || events & UV_PRIORITIZED)
		fail(tunnel, status < 0 ? status : -ECONNRESET, "the connection is broken");
	tunnel->is_dirty = true;
}

/* time */

static bool is_stalled(const struct v1_visitor *visitor, uint64_t now_us)
{
	const struct v1_tunnel *tunnel = visitor->tunnel;
	const uint64_t limit_ms = tunnel->ports.stalled_ms ? tunnel->ports.stalled_ms : V1_STALLED_MS;

	return is_paused(tunnel) && visitor->n_held > 0 && now_us - visitor->taken_us >= limit_ms * 1000;
}

/* As in diglett/2: who was told the end, and takes nothing of what is held, has two minutes. */
static bool is_idle(const struct v1_visitor *visitor, uint64_t now_us)
{
	const uint64_t limit_ms = visitor->is_over ? TUNNEL_HALF_CLOSED_MS : TUNNEL_IDLE_MS;

	return now_us - visitor->moved_us >= limit_ms * 1000;
}

static void on_tick(uv_timer_t *timer)
{
	struct v1_tunnel *tunnel = timer->data;
	const uint64_t now_us = tunnel_now_us();

	for (struct mux_link *at = tunnel->all.next, *next; at != &tunnel->all; at = next) {
		struct v1_visitor *visitor = container_of(at, struct v1_visitor, all);
		next = at->next;
		if (is_stalled(visitor, now_us)) {
			tunnel->counters.mux.stalled++;
			break_visitor(visitor);
		} else if (is_idle(visitor, now_us)) {
			tunnel->counters.mux.idle++;
			break_visitor(visitor);
		} else if (visitor->is_lingering && now_us - visitor->moved_us >= LINGER_MS * 1000) {
			close_visitor(visitor, false);
		}
	}
	flush(tunnel);
}

static void on_deadline(uv_timer_t *timer)
{
	fail(timer->data, -ETIMEDOUT, "the handshake takes too long");
}

/* public */

int v1_tunnel_serve(uv_loop_t *loop, const struct noise_curve *curve, int fd, const struct v1_tunnel_ports *ports,
		    struct v1_tunnel **ret)
{
	struct v1_tunnel *tunnel = calloc(1, sizeof(*tunnel));

	if (!tunnel || uv_poll_init(loop, &tunnel->poll, fd) < 0) {
		close(fd);
		free(tunnel);
		return -ENOMEM;
	}
	tunnel->ports = *ports;
	tunnel->loop = loop;
	tunnel->curve = curve;
	tunnel->fd = fd;
	tunnel->n_open = 3;
	link_init(&tunnel->all);
	link_init(&tunnel->turn);
	v1_fsm_init(&tunnel->fsm);
	uv_timer_init(loop, &tunnel->timer);
	uv_check_init(loop, &tunnel->check);
	tunnel->poll.data = tunnel->timer.data = tunnel->check.data = tunnel;
	uv_check_start(&tunnel->check, on_check);
	uv_timer_start(&tunnel->timer, on_deadline, ports->handshake_ms ? ports->handshake_ms : TUNNEL_HANDSHAKE_MS, 0);
	uv_poll_start(&tunnel->poll, UV_READABLE, on_event);
	*ret = tunnel;
	return 0;
}

static void reset_socket(int fd)
{
	const struct linger now = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

void v1_tunnel_visit(struct v1_tunnel *tunnel, int fd, const struct endpoint *remote)
{
	const int one = 1, idle_s = 60;
	struct v1_visitor *visitor = NULL;

	if (!tunnel->has_ended && !tunnel->is_closing && tunnel->n_visitors < V1_MAX_VISITORS)
		visitor = calloc(1, sizeof(*visitor));
	if (!visitor || uv_poll_init(tunnel->loop, &visitor->poll, fd) < 0) {
		tunnel->counters.mux.refused++;
		reset_socket(fd);
		free(visitor);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	visitor->tunnel = tunnel;
	visitor->fd = fd;
	visitor->poll.data = visitor;
	visitor->number = choose_number(tunnel, remote->port);
	visitor->moved_us = visitor->taken_us = tunnel_now_us();
	visitor->next_in_bucket = *bucket_of(tunnel, visitor->number);
	*bucket_of(tunnel, visitor->number) = visitor;
	link_init(&visitor->all);
	link_init(&visitor->turn);
	link_append(&tunnel->all, &visitor->all);
	link_append(&tunnel->turn, &visitor->turn);
	tunnel->n_visitors++;
	tunnel->n_open++;
	tunnel->counters.visitors_now++;
	tunnel->counters.mux.opened++;
	tunnel->is_dirty = true;
	watch_visitor(visitor);
}

void v1_tunnel_close(struct v1_tunnel *tunnel, void (*closed)(void *owner))
{
	tunnel->closed = closed;
	tunnel->is_closing = true;
	while (tunnel->all.next != &tunnel->all)
		close_visitor(container_of(tunnel->all.next, struct v1_visitor, all), true);
	uv_close((uv_handle_t *)&tunnel->poll, on_handle_closed);
	uv_close((uv_handle_t *)&tunnel->timer, on_handle_closed);
	uv_close((uv_handle_t *)&tunnel->check, on_handle_closed);
}

const struct noise_public *v1_tunnel_remote_key(const struct v1_tunnel *tunnel)
{
	return &tunnel->remote;
}

struct tunnel_counters v1_tunnel_counters(const struct v1_tunnel *tunnel)
{
	return tunnel->counters;
}
