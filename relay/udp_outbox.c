/*
 * What leaves by one socket in one batch. A message is a chain of pieces; those to one client from one client are
 * found again and grow, up to what one UDP_SEGMENT takes:
 *
 *   note of the receiver's way ──► message ──► piece ──► piece ──► …     (each: one or more datagrams, in place)
 *
 * So are STUN answers of one size to one address, by its hash.
 *
 * When the socket is full, what was not sent is copied into the backlog, and sent from there when there is room.
 */
#include "relay/udp_socket.h"

#include "relay/udp_ancillary.h"
#include "relay/udp_backlog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES      1024
#define PIECES	      2048
#define SEGMENTS      63    /* UDP_MAX_SEGMENTS was 64 before Linux 6.9, and some kernels count the header into that */
#define NONE	      UINT16_MAX
#define RESUME	      128 /* datagrams that leave the backlog at once */
#define NOTES	      256

struct piece {
	const uint8_t *bytes;
	uint32_t len;
	uint16_t next;
};

struct message {
	struct endpoint remote;
	enum relay_outbox_kind kind;
	uint32_t n, size, bytes; /* datagrams; of each but the last; of all */
	uint16_t first, last;	 /* pieces */
	bool is_closed;		 /* the last is shorter: nothing can follow */
};

struct relay_outbox {
	const struct relay_socket *sock;
	struct refused_paths *refused;
	struct relay_outbox_counters *counters;
	struct udp_backlog *backlog;
	uint16_t notes[NOTES]; /* of ways from the backlog, by the receiver's slot; may be wrong, as all notes */
	uint16_t answers[NOTES]; /* of STUN, by the receiver's address; may be wrong, too */
	uint32_t n, n_pieces, now_s;
	struct message messages[MESSAGES];
	struct udp_way ways[MESSAGES];
	struct piece pieces[PIECES];
	/* what sendmmsg(2) works with */
	struct mmsghdr headers[MESSAGES];
	struct sockaddr_in6 names[MESSAGES];
	struct udp_ancillary controls[MESSAGES];
	struct iovec iovecs[PIECES];
};

struct relay_outbox *relay_outbox_new(const struct relay_socket *sock, struct refused_paths *refused,
				      struct relay_outbox_counters *counters)
{
	struct relay_outbox *outbox = calloc(1, sizeof(*outbox));

	if (!outbox)
		return NULL;
	outbox->backlog = udp_backlog_new();
	if (!outbox->backlog) {
		free(outbox);
		return NULL;
	}
	outbox->sock = sock;
	outbox->refused = refused;
	outbox->counters = counters;
	return outbox;
}

void relay_outbox_free(struct relay_outbox *outbox)
{
	if (outbox)
		udp_backlog_free(outbox->backlog);
	free(outbox);
}

/* ---- collecting ---- */

static socklen_t put_name(const struct relay_socket *sock, struct sockaddr_in6 *name, const struct endpoint *to)
{
	if (sock->is_v6)
		return endpoint_to_sockaddr6(to, name);
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(to->port) };
	memcpy(&v4.sin_addr, to->ip + 12, sizeof(v4.sin_addr));
	memcpy(name, &v4, sizeof(v4));
	return sizeof(v4);
}

static bool is_full(const struct relay_outbox *outbox)
{
	return outbox->n == MESSAGES || outbox->n_pieces == PIECES;
}

/* There is room for it. */
static struct message *add_message(struct relay_outbox *outbox, enum relay_outbox_kind kind,
				   const struct udp_way *to, size_t size)
{
	const uint32_t i = outbox->n++;
	struct msghdr *header = &outbox->headers[i].msg_hdr;
	struct message *message = &outbox->messages[i];

	*header = (struct msghdr){ .msg_name = &outbox->names[i], .msg_control = outbox->controls[i].bytes };
	header->msg_namelen = put_name(outbox->sock, &outbox->names[i], &to->remote);
	udp_ancillary_put_source(header, outbox->sock, to);
	outbox->ways[i] = *to;
	*message = (struct message){
		.remote = to->remote, .kind = kind, .size = (uint32_t)size, .first = NONE, .last = NONE
	};
	return message;
}

/* There is room for a piece. */
static void add_piece(struct relay_outbox *outbox, struct message *message, const uint8_t *bytes, size_t len,
		      uint32_t n)
{
	const uint16_t i = (uint16_t)outbox->n_pieces++;

	outbox->pieces[i] = (struct piece){ bytes, (uint32_t)len, NONE };
	if (message->last == NONE)
		message->first = i;
	else
		outbox->pieces[message->last].next = i;
	message->last = i;
	message->bytes += (uint32_t)len;
	message->n += n;
	message->is_closed = len < (size_t)n * message->size;
}

static uint16_t *answer_note(struct relay_outbox *outbox, const struct endpoint *to)
{
	uint32_t low;

	memcpy(&low, to->ip + 12, sizeof(low));
	return &outbox->answers[((low ^ to->port) * UINT32_C(0x9e3779b1)) >> 24];
}

static bool is_same_way(const struct udp_way *a, const struct udp_way *b)
{
	return endpoint_equal(&a->remote, &b->remote) && memcmp(a->local_ip, b->local_ip, sizeof(a->local_ip)) == 0 &&
	       a->ifindex == b->ifindex;
}

/* The message of answers that one more of this size may join; NULL: none. The note may be an old one. */
static struct message *find_answers(struct relay_outbox *outbox, uint32_t note, const struct udp_way *to, size_t size)
{
	struct message *message = note < outbox->n ? &outbox->messages[note] : NULL;

	if (!message || message->kind != RELAY_OUTBOX_STUN || message->size != size || message->n >= SEGMENTS ||
	    message->bytes + size > RELAY_OUTBOX_MAX_LEN)
		return NULL;
	return is_same_way(&outbox->ways[note], to) ? message : NULL;
}

static void add_answer(struct relay_outbox *outbox, const struct udp_way *to, const uint8_t *bytes, size_t len)
{
	uint16_t *note = answer_note(outbox, &to->remote);
	struct message *message = find_answers(outbox, *note, to, len);

	if (!message) {
		message = add_message(outbox, RELAY_OUTBOX_STUN, to, len);
		*note = (uint16_t)(outbox->n - 1);
	}
	add_piece(outbox, message, bytes, len, 1);
}

void relay_outbox_add(struct relay_outbox *outbox, enum relay_outbox_kind kind, const struct udp_way *to,
		      const uint8_t *bytes, size_t len)
{
	if (is_full(outbox))
		relay_outbox_flush(outbox, outbox->now_s);
	if (kind == RELAY_OUTBOX_STUN)
		add_answer(outbox, to, bytes, len);
	else
		add_piece(outbox, add_message(outbox, kind, to, len), bytes, len, 1);
}

/* The message that this may follow; NULL: none. The note i may be an old one. */
static struct message *find_recent(struct relay_outbox *outbox, uint32_t i, const uint8_t *header, size_t len,
				   size_t size, uint32_t n)
{
	struct message *message = i < outbox->n ? &outbox->messages[i] : NULL;

	if (!message || message->kind != RELAY_OUTBOX_DATA || message->is_closed ||
	    outbox->n_pieces == PIECES)
		return NULL;
	if (message->size != size && (n > 1 || message->size < len))
		return NULL;
	if (message->n + n > SEGMENTS || message->bytes + len > RELAY_OUTBOX_MAX_LEN)
		return NULL;
	return memcmp(outbox->pieces[message->first].bytes, header, RELAY_UDP_HEADER_LEN) == 0 ? message : NULL;
}

static uint32_t limit_of(size_t size)
{
	const size_t n = size > 0 ? RELAY_OUTBOX_MAX_LEN / size : 1;

	return n > SEGMENTS ? SEGMENTS : n > 0 ? (uint32_t)n : 1;
}

static uint32_t slot_in(const uint8_t *bytes)
{
	uint32_t slot;

	memcpy(&slot, bytes, sizeof(slot));
	return ntohl(slot);
}

static uint32_t receiver_of(const uint8_t *header)
{
	return slot_in(header + 4);
}

static uint32_t sender_of(const uint8_t *header)
{
	return slot_in(header + 8);
}

static void put_in_backlog(struct relay_outbox *outbox, const struct udp_way *to, const uint8_t *bytes, size_t len,
			   size_t size)
{
	for (size_t at = 0; at < len; at += size) {
		const size_t left = len - at;
		outbox->counters->full[RELAY_OUTBOX_DATA] += udp_backlog_put(
			outbox->backlog, sender_of(bytes + at), to, bytes + at, left < size ? left : size);
	}
}

/* No more than one message takes, and there is room for it. */
static void add_part(struct relay_outbox *outbox, struct udp_way *to, const uint8_t *bytes, size_t len, size_t size,
		     uint32_t n)
{
	struct message *message = find_recent(outbox, to->note, bytes, len, size, n);

	if (!message) {
		message = add_message(outbox, RELAY_OUTBOX_DATA, to, size);
		to->note = (uint16_t)(outbox->n - 1);
	}
	add_piece(outbox, message, bytes, len, n);
}

void relay_outbox_add_run(struct relay_outbox *outbox, struct udp_way *to, const uint8_t *bytes, size_t len,
			  size_t size, uint32_t n)
{
	if (n == 1)
		size = len;
	while (n > 0) {
		const uint32_t limit = limit_of(size), part = n < limit ? n : limit;
		const size_t part_len = part < n ? part * size : len;
		if (is_full(outbox))
			relay_outbox_flush(outbox, outbox->now_s);
		if (relay_outbox_is_waiting(outbox)) { /* since before, or since now: nothing goes past what waits */
			put_in_backlog(outbox, to, bytes, len, size);
			return;
		}
		add_part(outbox, to, bytes, part_len, size, part);
		bytes += part_len;
		len -= part_len;
		n -= part;
	}
}

/* ---- sending ---- */

static bool may_segment(const struct relay_outbox *outbox, const struct message *message)
{
	return message->size <= refused_paths_limit(outbox->refused, &message->remote, outbox->now_s);
}

/* Its pieces side by side, as sendmmsg() wants them. */
static uint32_t finish_message(struct relay_outbox *outbox, uint32_t i, uint32_t n_iovecs)
{
	const struct message *message = &outbox->messages[i];
	struct msghdr *header = &outbox->headers[i].msg_hdr;

	header->msg_iov = &outbox->iovecs[n_iovecs];
	for (uint16_t p = message->first; p != NONE; p = outbox->pieces[p].next)
		outbox->iovecs[n_iovecs++] =
			(struct iovec){ (void *)(uintptr_t)outbox->pieces[p].bytes, outbox->pieces[p].len };
	header->msg_iovlen = (size_t)(&outbox->iovecs[n_iovecs] - header->msg_iov);
	if (message->n > 1)
		udp_ancillary_put_segment(header, (uint16_t)message->size);
	if (header->msg_controllen == 0)
		header->msg_control = NULL;
	return n_iovecs;
}

static void count_sent(struct relay_outbox *outbox, const struct message *message, uint32_t n, uint32_t bytes)
{
	outbox->counters->sent[message->kind] += n;
	if (message->kind == RELAY_OUTBOX_DATA || message->kind == RELAY_OUTBOX_PROBE)
		outbox->counters->data_bytes += bytes;
	outbox->counters->messages++;
}

static bool says_full(int r)
{
	return r == -EAGAIN || r == -ENOBUFS;
}

static int send_one(const struct relay_outbox *outbox, const struct msghdr *header)
{
	ssize_t n;

	do
		n = sendmsg(outbox->sock->fd, header, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* The way of a message, as it was given. */
static struct udp_way way_of(const struct relay_outbox *outbox, uint32_t i)
{
	struct udp_way way = outbox->ways[i];

	way.note = 0;
	return way;
}

/* Its pieces from the last to the first: those that come from the backlog, each one datagram, go back to its head. */
static void put_back(struct relay_outbox *outbox, const struct message *message, uint32_t n_sent)
{
	const uint8_t *pieces[SEGMENTS];
	uint32_t n = 0;

	for (uint16_t p = message->first; p != NONE; p = outbox->pieces[p].next)
		pieces[n++] = outbox->pieces[p].bytes;
	while (n > n_sent)
		udp_backlog_put_back(outbox->backlog, pieces[--n]);
}

static void keep(struct relay_outbox *outbox, uint32_t i, uint32_t n_sent)
{
	const struct message *message = &outbox->messages[i];
	const struct udp_way way = way_of(outbox, i);
	size_t sent = (size_t)n_sent * message->size;

	if (message->kind != RELAY_OUTBOX_DATA && message->kind != RELAY_OUTBOX_PROBE) {
		outbox->counters->full[message->kind] += message->n - n_sent;
		return;
	}
	for (uint16_t p = message->first; p != NONE; p = outbox->pieces[p].next) {
		const struct piece *piece = &outbox->pieces[p];
		const size_t skipped = sent < piece->len ? sent : piece->len;
		put_in_backlog(outbox, &way, piece->bytes + skipped, piece->len - skipped, message->size);
		sent -= skipped;
	}
}

/*
 * The socket is full; of message i so many datagrams are sent. What came from the backlog was taken in turn, so the
 * last goes back first.
 */
static void keep_from(struct relay_outbox *outbox, uint32_t i, uint32_t n_sent)
{
	const struct message *first = &outbox->messages[i];

	outbox->counters->n_full++;
	if (udp_backlog_has(outbox->backlog, outbox->pieces[first->first].bytes)) {
		for (uint32_t j = outbox->n - 1; j > i; j--)
			put_back(outbox, &outbox->messages[j], 0);
		put_back(outbox, first, n_sent);
		return;
	}
	for (uint32_t j = i; j < outbox->n; j++)
		keep(outbox, j, j == i ? n_sent : 0);
}

/* The datagrams of one message by themselves. False: the socket is full, and keeps what was not sent, and the rest. */
static bool send_singly(struct relay_outbox *outbox, uint32_t i, uint32_t *ret_sent)
{
	const struct message *message = &outbox->messages[i];
	struct msghdr header = outbox->headers[i].msg_hdr;
	uint32_t n = 0; /* sent or refused */

	*ret_sent = 0;
	if (message->n > 1) /* without UDP_SEGMENT, which is the last */
		header.msg_controllen -= CMSG_SPACE(sizeof(uint16_t));
	if (header.msg_controllen == 0)
		header.msg_control = NULL;
	for (uint16_t p = message->first; p != NONE; p = outbox->pieces[p].next) {
		const struct piece *piece = &outbox->pieces[p];
		for (uint32_t at = 0; at < piece->len; at += message->size, n++) {
			const uint32_t left = piece->len - at;
			struct iovec iov = { (void *)(uintptr_t)(piece->bytes + at),
					     left < message->size ? left : message->size };
			header.msg_iov = &iov;
			header.msg_iovlen = 1;
			const int r = send_one(outbox, &header);
			if (says_full(r)) {
				outbox->counters->failed[message->kind] += n - *ret_sent;
				keep_from(outbox, i, n);
				return false;
			}
			if (r == 0)
				count_sent(outbox, message, 1, (uint32_t)iov.iov_len);
			*ret_sent += r == 0;
		}
	}
	outbox->counters->failed[message->kind] += message->n - *ret_sent;
	return true;
}

/* Our address is no longer ours, perhaps: any other is better than none. False: that was not it. */
static bool send_without_source(struct relay_outbox *outbox, uint32_t i)
{
	const struct message *message = &outbox->messages[i];
	struct msghdr header = outbox->headers[i].msg_hdr;
	struct {
		_Alignas(struct cmsghdr) uint8_t bytes[CMSG_SPACE(sizeof(uint16_t))];
	} control = { 0 };

	header.msg_control = control.bytes;
	header.msg_controllen = 0;
	if (message->n > 1)
		udp_ancillary_put_segment(&header, (uint16_t)message->size);
	else
		header.msg_control = NULL;
	if (send_one(outbox, &header) != 0)
		return false;
	count_sent(outbox, message, message->n, message->bytes);
	return true;
}

/*
 * The kernel did not take it. EIO: this route cannot segment at all (no checksum offload, or IPsec). EINVAL and
 * EMSGSIZE: a datagram and its headers exceed the path's MTU; smaller ones go. False: the socket is full.
 */
static bool take_refusal(struct relay_outbox *outbox, uint32_t i, int error)
{
	const struct message *message = &outbox->messages[i];
	uint32_t n_sent;

	if (outbox->sock->tells_address && (error == EINVAL || error == ENETUNREACH || error == EADDRNOTAVAIL) &&
	    send_without_source(outbox, i))
		return true;
	if (message->n == 1 || (error != EIO && error != EINVAL && error != EMSGSIZE)) {
		outbox->counters->failed[message->kind] += message->n;
		return true;
	}
	const bool goes_on = send_singly(outbox, i, &n_sent);
	if (n_sent > 0) /* otherwise it was not the segmentation that was refused */
		refused_paths_note(outbox->refused, &message->remote, error == EIO ? 0 : message->size - 1, outbox->now_s);
	return goes_on;
}

/* All before `end`, none of which is to be sent singly. False: the socket is full. */
static bool send_range(struct relay_outbox *outbox, uint32_t begin, uint32_t end)
{
	while (begin < end) {
		int n = sendmmsg(outbox->sock->fd, outbox->headers + begin, end - begin, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0) {
			for (; n > 0; n--, begin++)
				count_sent(outbox, &outbox->messages[begin], outbox->messages[begin].n,
					   outbox->messages[begin].bytes);
		} else if (says_full(-errno)) {
			keep_from(outbox, begin, 0);
			return false;
		} else if (errno != EINTR && !take_refusal(outbox, begin++, errno)) {
			return false;
		}
	}
	return true;
}

void relay_outbox_flush(struct relay_outbox *outbox, uint32_t now_s)
{
	uint32_t n_iovecs = 0, begin = 0, n_sent;
	bool goes_on = true;

	outbox->now_s = now_s;
	for (uint32_t i = 0; i < outbox->n; i++)
		n_iovecs = finish_message(outbox, i, n_iovecs);
	for (uint32_t i = 0; i < outbox->n && goes_on; i++) {
		if (outbox->messages[i].n == 1 || may_segment(outbox, &outbox->messages[i]))
			continue;
		goes_on = send_range(outbox, begin, i) && send_singly(outbox, i, &n_sent);
		begin = i + 1;
	}
	if (goes_on)
		send_range(outbox, begin, outbox->n);
	outbox->n = outbox->n_pieces = 0;
}

/* One that may not come in pieces. A socket has one setting for all that it sends. */
static void send_whole(struct relay_outbox *outbox, const struct udp_way *to, const uint8_t *bytes, size_t len)
{
	if (relay_socket_set_whole(outbox->sock, true) != 0) {
		outbox->counters->failed[RELAY_OUTBOX_PROBE]++;
		return;
	}
	relay_outbox_add(outbox, RELAY_OUTBOX_PROBE, to, bytes, len);
	relay_outbox_flush(outbox, outbox->now_s);
	(void)relay_socket_set_whole(outbox->sock, false);
}

/* It waits as data does: were it dropped where data waits, a full socket would be taken for a path that has become narrow. */
void relay_outbox_send_whole(struct relay_outbox *outbox, const struct udp_way *to, const uint8_t *bytes, size_t len)
{
	relay_outbox_flush(outbox, outbox->now_s);
	if (relay_outbox_is_waiting(outbox))
		put_in_backlog(outbox, to, bytes, len, len);
	else
		send_whole(outbox, to, bytes, len);
}

bool relay_outbox_is_waiting(const struct relay_outbox *outbox)
{
	return !udp_backlog_is_empty(outbox->backlog);
}

/* A probe leaves behind what was taken before it; when the socket is full by then it may go past that, which is no matter. */
static void send_taken(struct relay_outbox *outbox, struct udp_way *to, const uint8_t *bytes, size_t len)
{
	uint16_t *note = &outbox->notes[receiver_of(bytes) % NOTES];

	if (relay_packet_is_probe(bytes + RELAY_UDP_HEADER_LEN, len - RELAY_UDP_HEADER_LEN)) {
		const uint64_t full = outbox->counters->n_full;
		relay_outbox_flush(outbox, outbox->now_s);
		if (outbox->counters->n_full == full)
			send_whole(outbox, to, bytes, len);
		else
			udp_backlog_put_back(outbox->backlog, bytes);
		return;
	}
	to->note = *note;
	add_part(outbox, to, bytes, len, len, 1);
	*note = to->note;
}

/* As much as the socket takes, in turns; trains are joined again. */
void relay_outbox_resume(struct relay_outbox *outbox, uint32_t now_s)
{
	const uint64_t full = outbox->counters->n_full;
	const uint8_t *bytes;
	struct udp_way to;
	size_t len;

	relay_outbox_flush(outbox, now_s); /* nothing else lies in it from here on */
	while (relay_outbox_is_waiting(outbox) && outbox->counters->n_full == full) {
		for (int i = 0; i < RESUME && outbox->counters->n_full == full &&
				(bytes = udp_backlog_take(outbox->backlog, &to, &len)); i++)
			send_taken(outbox, &to, bytes, len);
		relay_outbox_flush(outbox, now_s);
		udp_backlog_settle(outbox->backlog);
	}
}
