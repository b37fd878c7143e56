#include "relay/diglett/tunnel_internal.h"

#include "common/clock.h"
#include "relay/diglett/v1_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SESSION_WINDOW	  (16 * 1024 * 1024)
#define MAX_STREAM_WINDOW (8 * 1024 * 1024)
#define TICK_MS		  1000
#define UNSENT_BYTES	  131072 /* in the kernel, so that what is urgent does not wait behind megabytes */
#define ACT_3_HEAD	  2
#define NO_BODY		  SIZE_MAX

static void on_event(uv_poll_t *poll, int status, int events);

uint64_t tunnel_now_us(void)
{
	return clock_now_ns() / 1000;
}

/* its end */

void tunnel_release(struct tunnel *tunnel)
{
	if (--tunnel->n_open > 0)
		return;
	void (*closed)(void *owner) = tunnel->closed;
	void *const owner = tunnel->ports.owner;

	close(tunnel->fd);
	noise_link_deinit(&tunnel->link);
	noise_handshake_wipe(&tunnel->handshake);
	diglett_request_wipe(&tunnel->request);
	sodium_memzero(tunnel, sizeof(*tunnel)); /* plain bytes were in the buffers */
	free(tunnel);
	if (closed)
		closed(owner);
}

static void on_handle_closed(uv_handle_t *handle)
{
	tunnel_release(handle->data);
}

static void on_told(uv_timer_t *timer)
{
	struct tunnel *tunnel = timer->data;

	tunnel->ports.ended(tunnel->ports.owner, &tunnel->why);
}

/* The owner is told from the loop. */
static void fail(struct tunnel *tunnel, int code, const char *text)
{
	if (tunnel->state == TUNNEL_ENDED || tunnel->is_closing)
		return;
	tunnel->state = TUNNEL_ENDED;
	error_set(&tunnel->why, code, "%s", text);
	uv_poll_stop(&tunnel->poll);
	uv_timer_start(&tunnel->timer, on_told, 0, 0);
}

static void reset_all_visitors(struct tunnel *tunnel)
{
	struct mux_stream *stream;

	while (tunnel->mux.all.next && (stream = mux_fsm_any(&tunnel->mux)))
		visitor_close(stream->owner, MUX_CLOSED);
}

/* sending */

static void watch(struct tunnel *tunnel)
{
	if (tunnel->state == TUNNEL_ENDED || tunnel->is_closing)
		return;
	const int writable = tunnel->out_at < tunnel->n_out ? UV_WRITABLE : 0;
	const int r = uv_poll_start(&tunnel->poll, UV_READABLE | writable, on_event);

	if (r < 0)
		fail(tunnel, r, uv_strerror(r));
}

/* False: not all. */
static bool send_out(struct tunnel *tunnel)
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

/* Act or message: n bytes stand in the buffer, in which nothing waited. */
static void send_now(struct tunnel *tunnel, size_t n)
{
	tunnel->n_out = n;
	tunnel->out_at = 0;
	send_out(tunnel);
	watch(tunnel);
}

static void write_data(struct tunnel *tunnel, struct wire_writer *w, const struct mux_send *send)
{
	enum mux_source source;
	uint8_t *const head = w->at;
	const ssize_t n = visitor_fetch(send->stream->owner, head + MUX_HEAD_LEN, send->max, &source);

	if (n < 0)
		return;
	if (n > 0) {
		mux_data_head(send->stream->id, (size_t)n, head);
		w->at += MUX_HEAD_LEN + n;
	}
	tunnel->counters.bytes_out += (uint64_t)n;
	mux_fsm_sent(&tunnel->mux, send->stream, (size_t)n, source);
}

/* As much as there is and fits into a message. False: nothing. */
static bool make_message(struct tunnel *tunnel, uint64_t now_us)
{
	struct wire_writer w = wire_writer(tunnel->out + NOISE_HEAD_LEN, TUNNEL_BODY_SIZE);
	struct mux_send send;

	for (;;) {
		mux_fsm_next(&tunnel->mux, (size_t)(w.end - w.at), now_us, &send);
		if (send.type == MUX_SEND_NOTHING)
			break;
		if (send.type == MUX_SEND_STREAM) {
			write_data(tunnel, &w, &send);
			continue;
		}
		mux_frame_write(&w, &send.frame);
		if (send.frame.type == MUX_END)
			visitor_close_if_over(send.stream->owner);
	}
	const size_t n = (size_t)(w.at - w.base);
	if (n == 0)
		return false;
	noise_seal(&tunnel->link, tunnel->out, n);
	tunnel->n_out = n + NOISE_MESSAGE_EXTRA;
	return true;
}

static void flush(struct tunnel *tunnel)
{
	const uint64_t now_us = tunnel_now_us();
	size_t n = 0;

	tunnel->is_dirty = false;
	while (tunnel->state == TUNNEL_OPEN && send_out(tunnel)) {
		if (n >= TUNNEL_TURN_BYTES) {
			tunnel->is_dirty = true; /* more, when the others had their turn: the socket is writable */
			uv_poll_start(&tunnel->poll, UV_READABLE | UV_WRITABLE, on_event);
			return;
		}
		if (!make_message(tunnel, now_us))
			break;
		n += tunnel->n_out;
	}
	watch(tunnel);
}

static void on_check(uv_check_t *check)
{
	struct tunnel *tunnel = check->data;

	if (tunnel->is_dirty && !tunnel->is_closing)
		flush(tunnel);
}

void tunnel_wake(struct tunnel *tunnel)
{
	tunnel->is_dirty = true;
}

static void say_goodbye(struct tunnel *tunnel, uint8_t reason)
{
	struct wire_writer w = wire_writer(tunnel->out + NOISE_HEAD_LEN, TUNNEL_BODY_SIZE);
	const char *text = mux_reason_text(reason);
	const struct mux_frame frame = { .type = MUX_GOAWAY, .goaway = { reason, text, strlen(text) } };

	if (!send_out(tunnel))
		return; /* it does not take anything */
	mux_frame_write(&w, &frame);
	noise_seal(&tunnel->link, tunnel->out, wire_written(&w));
	tunnel->n_out = wire_written(&w) + NOISE_MESSAGE_EXTRA;
	send_out(tunnel);
}

/* the handshake */

static void on_tick(uv_timer_t *timer)
{
	struct tunnel *tunnel = timer->data;
	struct mux_event event;

	for (;;) {
		mux_fsm_tick(&tunnel->mux, tunnel_now_us(), &event);
		if (event.type != MUX_EV_STALLED && event.type != MUX_EV_IDLE)
			break;
		if (event.type == MUX_EV_STALLED)
			visitor_close(event.stream->owner, MUX_STALLED);
		else
			visitor_close_if_silent(event.stream->owner);
	}
	if (event.type == MUX_EV_DEAD)
		fail(tunnel, -ETIMEDOUT, "nothing is heard of the other side");
	else
		flush(tunnel);
}

static void open_mux(struct tunnel *tunnel, uint16_t max_streams)
{
	const uint32_t dead_ms = tunnel->ports.dead_ms ? tunnel->ports.dead_ms : TUNNEL_DEAD_MS;
	const uint32_t half_closed_ms = tunnel->ports.half_closed_ms ? tunnel->ports.half_closed_ms : TUNNEL_HALF_CLOSED_MS;
	const struct mux_settings settings = { .is_initiator = tunnel->is_agent,
					       .max_ours = tunnel->is_agent ? 0 : max_streams,
					       .max_theirs = tunnel->is_agent ? max_streams : 0,
					       .open_burst = max_streams * 4u,
					       .open_each_ms = 1,
					       .session_window = SESSION_WINDOW,
					       .max_stream_window = MAX_STREAM_WINDOW,
					       .ping_ms = dead_ms / 3,
					       .dead_ms = dead_ms,
					       .stalled_ms = 10000,
					       .idle_ms = TUNNEL_IDLE_MS,
					       .half_closed_ms = half_closed_ms };

	mux_fsm_init(&tunnel->mux, &settings, tunnel_now_us());
	tunnel->state = TUNNEL_OPEN;
	uv_timer_start(&tunnel->timer, on_tick, TICK_MS, TICK_MS);
	tunnel_wake(tunnel);
}

static void fail_act(struct tunnel *tunnel, int error)
{
	static const char *const texts[] = {
		[NOISE_LENGTH] = "an act of the handshake has a wrong length",
		[NOISE_VERSION] = "a handshake of another version",
		[NOISE_KEY] = "a key is none",
		[NOISE_TAG] = "a tag is wrong: another key of the server, or another protocol",
	};

	fail(tunnel, -EPROTO, texts[error]);
}

/* Each takes what it can use of n bytes: how many, 0: more must come first. */

static size_t take_act_1(struct tunnel *tunnel, const uint8_t *bytes, size_t n)
{
	if (n < NOISE_ACT_1_LEN)
		return 0;
	const int r = noise_read_act_1(&tunnel->handshake, bytes, NOISE_ACT_1_LEN);
	if (r != 0) {
		fail_act(tunnel, r);
		return n;
	}
	noise_write_act_2(&tunnel->handshake, tunnel->out);
	memcpy(tunnel->binding.hash, tunnel->handshake.hash, sizeof(tunnel->binding.hash));
	tunnel->state = TUNNEL_ACT_3;
	send_now(tunnel, NOISE_ACT_2_LEN);
	return NOISE_ACT_1_LEN;
}

static void send_act_3(struct tunnel *tunnel)
{
	uint8_t payload[DIGLETT_MAX_REQUEST];
	const size_t n = diglett_request_write(&tunnel->request, payload);
	const size_t len = NOISE_ACT_3_LEN + n;

	tunnel->out[0] = (uint8_t)(len >> 8);
	tunnel->out[1] = (uint8_t)len;
	noise_write_act_3(&tunnel->handshake, payload, n, tunnel->out + ACT_3_HEAD);
	sodium_memzero(payload, sizeof(payload));
	sodium_memzero(tunnel->request.token, sizeof(tunnel->request.token));
	tunnel->state = TUNNEL_ANSWER;
	send_now(tunnel, ACT_3_HEAD + len);
}

/* False: it has none, which ends the tunnel. */
static bool show_badge(struct tunnel *tunnel)
{
	struct error error;

	if (!tunnel->ports.show_badge)
		return true;
	memcpy(tunnel->binding.hash, tunnel->handshake.hash, sizeof(tunnel->binding.hash));
	memcpy(tunnel->binding.agent, tunnel->handshake.own_public.bytes, sizeof(tunnel->binding.agent));
	const int r = tunnel->ports.show_badge(tunnel->ports.owner, &tunnel->binding, &tunnel->request.badge, &error);
	if (r != 0)
		fail(tunnel, r, error.message);
	return r == 0;
}

static size_t take_act_2(struct tunnel *tunnel, const uint8_t *bytes, size_t n)
{
	if (n < NOISE_ACT_2_LEN)
		return 0;
	int r = noise_read_act_2(&tunnel->handshake, bytes, NOISE_ACT_2_LEN);
	if (r != 0) {
		fail_act(tunnel, r);
		return n;
	}
	if (!show_badge(tunnel))
		return n;
	send_act_3(tunnel);
	r = noise_link_init(&tunnel->link, &tunnel->handshake);
	if (r < 0)
		fail(tunnel, r, "out of memory");
	return NOISE_ACT_2_LEN;
}

static void take_request(struct tunnel *tunnel, const uint8_t *payload, size_t n)
{
	struct diglett_request request;
	const int r = noise_link_init(&tunnel->link, &tunnel->handshake);

	if (r < 0) {
		fail(tunnel, r, "out of memory");
	} else if (!diglett_request_read(payload, n, &request)) {
		const struct diglett_answer answer = { .reason = MUX_ERROR, .text = "the request is not understood" };
		tunnel_answer(tunnel, &answer);
	} else {
		tunnel->request.max_streams = request.max_streams;
		memcpy(tunnel->binding.agent, tunnel->handshake.remote.bytes, sizeof(tunnel->binding.agent));
		tunnel->ports.asked(tunnel->ports.owner, &request);
		diglett_request_wipe(&request);
	}
}

static size_t take_act_3(struct tunnel *tunnel, const uint8_t *bytes, size_t n)
{
	uint8_t payload[NOISE_MAX_PAYLOAD];
	const size_t len = n < ACT_3_HEAD ? 0 : (size_t)bytes[0] << 8 | bytes[1];

	if (n < ACT_3_HEAD)
		return 0;
	if (len < NOISE_ACT_3_LEN || len > NOISE_ACT_3_LEN + DIGLETT_MAX_REQUEST) {
		fail_act(tunnel, NOISE_LENGTH);
		return n;
	}
	if (n < ACT_3_HEAD + len)
		return 0;
	const int r = noise_read_act_3(&tunnel->handshake, bytes + ACT_3_HEAD, len, payload);
	if (r != 0) {
		fail_act(tunnel, r);
		return n;
	}
	take_request(tunnel, payload, len - NOISE_ACT_3_LEN);
	sodium_memzero(payload, sizeof(payload));
	return ACT_3_HEAD + len;
}

void tunnel_answer(struct tunnel *tunnel, const struct diglett_answer *answer)
{
	const size_t n = diglett_answer_write(answer, tunnel->out + NOISE_HEAD_LEN);

	noise_seal(&tunnel->link, tunnel->out, n);
	send_now(tunnel, n + NOISE_MESSAGE_EXTRA);
	if (answer->is_accepted)
		open_mux(tunnel, tunnel->request.max_streams);
	else
		fail(tunnel, answer->reason, answer->text);
}

static void take_answer(struct tunnel *tunnel, const uint8_t *body, size_t n)
{
	struct diglett_answer answer;

	if (!diglett_answer_read(body, n, &answer)) {
		fail(tunnel, -EPROTO, "the server's answer is not understood");
		return;
	}
	if (answer.is_accepted)
		open_mux(tunnel, tunnel->request.max_streams);
	else
		fail(tunnel, answer.reason, answer.text);
	tunnel->ports.answered(tunnel->ports.owner, &answer);
}

/* messages */

static void take_event(struct tunnel *tunnel, const struct mux_event *event)
{
	struct visitor *const visitor = event->stream ? event->stream->owner : NULL;

	switch (event->type) {
	case MUX_EV_OPENED:
		visitor_answer_offer(tunnel);
		break;
	case MUX_EV_CAME:
		tunnel->counters.bytes_in += event->len;
		visitor_take(visitor, event->bytes, event->len);
		break;
	case MUX_EV_ENDED:
		visitor_end(visitor);
		break;
	case MUX_EV_RESET:
		visitor_close(visitor, MUX_CLOSED);
		break;
	case MUX_EV_LEAVES:
		fail(tunnel, event->reason, mux_reason_text(event->reason));
		break;
	default:
		break;
	}
}

static void take_frames(struct tunnel *tunnel, const uint8_t *body, size_t n)
{
	struct wire_reader r = wire_reader(body, n);
	const uint64_t now_us = tunnel_now_us();
	struct mux_frame frame;
	struct mux_event event;

	while (wire_left(&r) > 0 && tunnel->state == TUNNEL_OPEN) {
		if (!mux_frame_read(&r, &frame) || mux_fsm_receive(&tunnel->mux, &frame, now_us, &event) != 0) {
			say_goodbye(tunnel, MUX_ERROR);
			fail(tunnel, -EPROTO, "the other side broke the protocol's rules");
			return;
		}
		take_event(tunnel, &event);
	}
	tunnel_wake(tunnel);
}

static size_t take_message(struct tunnel *tunnel, uint8_t *bytes, size_t n)
{
	if (tunnel->n_body == NO_BODY) {
		if (n < NOISE_HEAD_LEN)
			return 0;
		if (noise_open_head(&tunnel->link, bytes, &tunnel->n_body) != 0) {
			fail(tunnel, -EPROTO, "a message was changed on its way");
			return n;
		}
	}
	const size_t len = NOISE_HEAD_LEN + tunnel->n_body + NOISE_TAG_LEN;
	if (n < len)
		return 0;
	uint8_t *const body = bytes + NOISE_HEAD_LEN;
	if (noise_open_body(&tunnel->link, body, tunnel->n_body + NOISE_TAG_LEN) != 0)
		fail(tunnel, -EPROTO, "a message was changed on its way");
	else if (tunnel->state == TUNNEL_ANSWER)
		take_answer(tunnel, body, tunnel->n_body);
	else
		take_frames(tunnel, body, tunnel->n_body);
	tunnel->n_body = NO_BODY;
	return len;
}

static size_t take_some(struct tunnel *tunnel, uint8_t *bytes, size_t n)
{
	switch (tunnel->state) {
	case TUNNEL_ACT_1:
		return take_act_1(tunnel, bytes, n);
	case TUNNEL_ACT_2:
		return take_act_2(tunnel, bytes, n);
	case TUNNEL_ACT_3:
		return take_act_3(tunnel, bytes, n);
	case TUNNEL_ANSWER:
	case TUNNEL_OPEN:
		return take_message(tunnel, bytes, n);
	default:
		return n;
	}
}

static void take_all(struct tunnel *tunnel)
{
	size_t at = 0;

	while (at < tunnel->n_in) {
		const size_t n = take_some(tunnel, tunnel->in + at, tunnel->n_in - at);
		if (n == 0)
			break;
		at += n;
	}
	memmove(tunnel->in, tunnel->in + at, tunnel->n_in - at);
	tunnel->n_in -= at;
}

/* Which stays in the socket: another protocol's is not ours to take. */
static bool begins_as_v1(const struct tunnel *tunnel)
{
	uint8_t first;

	return tunnel->state == TUNNEL_ACT_1 && tunnel->n_in == 0 && recv(tunnel->fd, &first, 1, MSG_PEEK) == 1 &&
	       first == V1_MAGIC_FIRST;
}

static void receive(struct tunnel *tunnel)
{
	size_t total = 0;

	if (begins_as_v1(tunnel)) {
		tunnel->is_v1 = true;
		fail(tunnel, -EPROTONOSUPPORT, "it speaks version 1 of the protocol, which is let in with allow_v1 only");
		return;
	}
	while (total < TUNNEL_TURN_BYTES && tunnel->state != TUNNEL_ENDED && !tunnel->is_closing) {
		const size_t room = sizeof(tunnel->in) - tunnel->n_in;
		const ssize_t n = recv(tunnel->fd, tunnel->in + tunnel->n_in, room, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			fail(tunnel, n < 0 ? -errno : -ECONNRESET, n < 0 ? strerror(errno) : "the other side has closed");
			return;
		}
		tunnel->n_in += (size_t)n;
		total += (size_t)n;
		take_all(tunnel);
		if ((size_t)n < room)
			break;
	}
}

/* its socket */

static void finish_connect(struct tunnel *tunnel)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(tunnel->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error != 0) {
		fail(tunnel, -error, strerror(error));
		return;
	}
	noise_write_act_1(&tunnel->handshake, tunnel->out);
	tunnel->state = TUNNEL_ACT_2;
	send_now(tunnel, NOISE_ACT_1_LEN);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
	struct tunnel *tunnel = poll->data;

	if (tunnel->state == TUNNEL_CONNECTING && (events & UV_WRITABLE || status < 0)) {
		finish_connect(tunnel);
		return;
	}
	if (events & UV_READABLE || status < 0)
		receive(tunnel);
	if (tunnel->state == TUNNEL_ENDED)
		return;
	if (status < 0)
		fail(tunnel, status, "the connection is broken");
	else if (events & UV_WRITABLE)
		tunnel_wake(tunnel);
	if (events & UV_WRITABLE && tunnel->state != TUNNEL_OPEN)
		send_out(tunnel), watch(tunnel);
}

static void on_deadline(uv_timer_t *timer)
{
	struct tunnel *tunnel = timer->data;

	fail(tunnel, -ETIMEDOUT, "the handshake takes too long");
}

static void set_options(int fd)
{
	const int one = 1, idle_s = 60, unsent = UNSENT_BYTES, timeout_ms = 45000;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

/* fd is taken, also on failure. */
static int new_tunnel(uv_loop_t *loop, int fd, bool is_agent, const struct tunnel_ports *ports, struct tunnel **ret)
{
	struct tunnel *tunnel = calloc(1, sizeof(*tunnel));

	if (!tunnel || uv_poll_init(loop, &tunnel->poll, fd) < 0) {
		close(fd);
		free(tunnel);
		return -ENOMEM;
	}
	tunnel->ports = *ports;
	tunnel->loop = loop;
	tunnel->fd = fd;
	tunnel->is_agent = is_agent;
	tunnel->n_body = NO_BODY;
	tunnel->state = is_agent ? TUNNEL_CONNECTING : TUNNEL_ACT_1;
	tunnel->n_open = 3;
	uv_timer_init(loop, &tunnel->timer);
	uv_check_init(loop, &tunnel->check);
	tunnel->poll.data = tunnel->timer.data = tunnel->check.data = tunnel;
	uv_check_start(&tunnel->check, on_check);
	uv_timer_start(&tunnel->timer, on_deadline, ports->handshake_ms ? ports->handshake_ms : TUNNEL_HANDSHAKE_MS, 0);
	uv_poll_start(&tunnel->poll, is_agent ? UV_WRITABLE : UV_READABLE, on_event);
	set_options(fd);
	*ret = tunnel;
	return 0;
}

static void draw_ephemeral(struct noise_secret *ret)
{
	randombytes_buf(ret->bytes, sizeof(ret->bytes));
}

int tunnel_serve(uv_loop_t *loop, const struct noise_curve *curve, const struct noise_secret *own, int fd,
		 const struct tunnel_ports *ports, struct tunnel **ret)
{
	struct noise_secret ephemeral;

	int r = new_tunnel(loop, fd, false, ports, ret);
	if (r < 0)
		return r;
	draw_ephemeral(&ephemeral);
	if (!noise_respond(&(*ret)->handshake, curve, DIGLETT_PROLOGUE, strlen(DIGLETT_PROLOGUE), own, &ephemeral))
		fail(*ret, -EINVAL, "our key is none");
	noise_secret_wipe(&ephemeral);
	return 0;
}

int tunnel_connect(uv_loop_t *loop, const struct noise_curve *curve, const struct noise_secret *own,
		   const struct noise_public *server_key, const struct endpoint *server,
		   const struct diglett_request *request, const struct tunnel_ports *ports, struct tunnel **ret)
{
	struct sockaddr_storage address;
	const socklen_t len = endpoint_to_sockaddr(server, &address);
	struct noise_secret ephemeral;

	int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, len) < 0 && errno != EINPROGRESS) {
		int r = -errno;
		close(fd);
		return r;
	}
	int r = new_tunnel(loop, fd, true, ports, ret);
	if (r < 0)
		return r;
	(*ret)->request = *request;
	draw_ephemeral(&ephemeral);
	if (!noise_initiate(&(*ret)->handshake, curve, DIGLETT_PROLOGUE, strlen(DIGLETT_PROLOGUE), own, &ephemeral, server_key))
		fail(*ret, -EINVAL, "the server's key is none");
	noise_secret_wipe(&ephemeral);
	return 0;
}

void tunnel_visit(struct tunnel *tunnel, int fd, uint16_t port, const struct endpoint *remote)
{
	visitor_open(tunnel, fd, port, remote);
}

void tunnel_close(struct tunnel *tunnel, uint8_t reason, void (*closed)(void *owner))
{
	tunnel->closed = closed;
	if (tunnel->state == TUNNEL_OPEN)
		say_goodbye(tunnel, reason);
	tunnel->is_closing = true;
	reset_all_visitors(tunnel);
	uv_close((uv_handle_t *)&tunnel->poll, on_handle_closed);
	uv_close((uv_handle_t *)&tunnel->timer, on_handle_closed);
	uv_close((uv_handle_t *)&tunnel->check, on_handle_closed);
}

bool tunnel_is_open(const struct tunnel *tunnel)
{
	return tunnel->state == TUNNEL_OPEN;
}

int tunnel_take_v1(const struct tunnel *tunnel)
{
	return tunnel->is_v1 ? fcntl(tunnel->fd, F_DUPFD_CLOEXEC, 0) : -1;
}

const struct noise_public *tunnel_remote_key(const struct tunnel *tunnel)
{
	return &tunnel->handshake.remote;
}

const struct node_badge_binding *tunnel_binding(const struct tunnel *tunnel)
{
	return &tunnel->binding;
}

struct tunnel_counters tunnel_counters(const struct tunnel *tunnel)
{
	struct tunnel_counters counters = tunnel->counters;

	counters.mux = tunnel->mux.counters;
	return counters;
}

void tunnel_counters_add(struct tunnel_counters *sum, const struct tunnel_counters *counters)
{
	sum->bytes_in += counters->bytes_in;
	sum->bytes_out += counters->bytes_out;
	sum->visitors_now += counters->visitors_now;
	sum->mux.opened += counters->mux.opened;
	sum->mux.refused += counters->mux.refused;
	sum->mux.resets_sent += counters->mux.resets_sent;
	sum->mux.resets_received += counters->mux.resets_received;
	sum->mux.stalled += counters->mux.stalled;
	sum->mux.idle += counters->mux.idle;
	sum->mux.late += counters->mux.late;
}
