/*
 * All clients over one socket: the address that a datagram leaves from or comes to says whose it is. So one
 * sendmmsg(2) carries packets of many clients.
 */
#include "tests/bench/relay_load/load.h"

#include "common/relay_udp_wire.h"
#include "common/wire.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define BATCH	    64	  /* messages of one system call when sending */
#define INBOX	    8	  /* … and receiving */
#define MAX_PACKETS 4096  /* in a batch */
#define MESSAGE_LEN 65536
#define BUFFER	    (32 << 20)
#define ANSWER_MS   500
#define ATTEMPTS    10
#define MAX_HEADER  16

/* What comes before each packet, and where it goes. */
struct sender {
	uint8_t header[MAX_HEADER];
	struct sockaddr_in to;
	uint32_t source; /* host order */
};

struct control {
	_Alignas(struct cmsghdr) uint8_t bytes[CMSG_SPACE(sizeof(struct in_pktinfo)) + CMSG_SPACE(sizeof(uint16_t))];
};

/* The head of a packet on the wire; the body is the same zeros for all. */
struct head {
	uint8_t bytes[MAX_HEADER + sizeof(struct load_packet)];
};

static struct {
	int fd;
	size_t header_len, arrival_header_len; /* what stands before the packet when it leaves, when it arrives */
	struct sender senders[LOAD_MAX_CLIENTS / 2];

	struct mmsghdr out[BATCH];
	struct control out_controls[BATCH];
	struct iovec pieces[2 * MAX_PACKETS];
	struct head heads[MAX_PACKETS];
	uint32_t n_out, n_packets;

	struct mmsghdr in[INBOX];
	struct iovec in_pieces[INBOX];
	struct control in_controls[INBOX];
	uint8_t in_bytes[INBOX][MESSAGE_LEN];
} udp;

static const uint8_t zeros[1500];

/* ---- the socket ---- */

static void set_option(int level, int name, int value)
{
	if (setsockopt(udp.fd, level, name, &value, sizeof(value)) != 0)
		load_fail("socket option %d: %s", name, strerror(errno));
}

static void open_socket(const struct load *load)
{
	const struct sockaddr_in any = { .sin_family = AF_INET };

	udp.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (udp.fd < 0 || bind(udp.fd, (const void *)&any, sizeof(any)) != 0)
		load_fail("socket: %s", strerror(errno));
	if (!load->is_slow)
		set_option(SOL_SOCKET, SO_RCVBUFFORCE, BUFFER);
	set_option(SOL_SOCKET, SO_SNDBUFFORCE, BUFFER);
	set_option(IPPROTO_IP, IP_PKTINFO, 1);
	set_option(IPPROTO_UDP, UDP_GRO, 1);
	for (int i = 0; i < INBOX; i++) {
		udp.in_pieces[i] = (struct iovec){ udp.in_bytes[i], MESSAGE_LEN };
		udp.in[i].msg_hdr = (struct msghdr){ .msg_iov = &udp.in_pieces[i],
						     .msg_iovlen = 1,
						     .msg_control = &udp.in_controls[i] };
	}
}

static uint16_t own_port(void)
{
	struct sockaddr_in name;
	socklen_t len = sizeof(name);

	if (getsockname(udp.fd, (void *)&name, &len) != 0)
		load_fail("getsockname: %s", strerror(errno));
	return ntohs(name.sin_port);
}

static struct sockaddr_in address(uint32_t ip, uint16_t port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(ip) };
}

static struct sockaddr_in relay_address(const struct load *load)
{
	struct sockaddr_storage name;

	endpoint_to_sockaddr(&load->relay, &name);
	return *(struct sockaddr_in *)(void *)&name;
}

/* ---- packets ---- */

static size_t add_control(struct control *control, size_t at, int level, int type, const void *value, size_t len)
{
	struct cmsghdr *header = (struct cmsghdr *)(void *)(control->bytes + at);

	header->cmsg_level = level;
	header->cmsg_type = type;
	header->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(header), value, len);
	return at + CMSG_SPACE(len);
}

static void udp_flush(struct load *load)
{
	for (uint32_t done = 0; done < udp.n_out;) {
		int n = sendmmsg(udp.fd, udp.out + done, udp.n_out - done, 0);
		if (n < 0 && errno != EAGAIN && errno != ENOBUFS && errno != EINTR)
			load_fail("sendmmsg: %s", strerror(errno));
		done += n > 0 ? (uint32_t)n : 0;
	}
	udp.n_out = udp.n_packets = 0;
}

/* One message: so many packets of one pair. */
static void add_message(struct load *load, uint32_t pair, uint32_t n)
{
	const struct sender *sender = &udp.senders[pair];
	const struct in_pktinfo from = { .ipi_spec_dst.s_addr = htonl(sender->source) };
	const uint16_t segment = (uint16_t)(udp.header_len + load->size);
	struct control *control = &udp.out_controls[udp.n_out];
	struct msghdr *message = &udp.out[udp.n_out].msg_hdr;

	*message = (struct msghdr){ .msg_name = (void *)(uintptr_t)&sender->to,
				    .msg_namelen = sizeof(sender->to),
				    .msg_iov = &udp.pieces[2 * udp.n_packets],
				    .msg_iovlen = 2 * n,
				    .msg_control = control };
	message->msg_controllen = add_control(control, 0, IPPROTO_IP, IP_PKTINFO, &from, sizeof(from));
	if (n > 1)
		message->msg_controllen = add_control(control, message->msg_controllen, IPPROTO_UDP, UDP_SEGMENT,
						      &segment, sizeof(segment));
	for (uint32_t i = 0; i < n; i++, udp.n_packets++) {
		const struct load_packet packet = load_next(load, pair);
		uint8_t *head = udp.heads[udp.n_packets].bytes;
		memcpy(head, sender->header, udp.header_len);
		memcpy(head + udp.header_len, &packet, sizeof(packet));
		udp.pieces[2 * udp.n_packets] = (struct iovec){ head, udp.header_len + sizeof(packet) };
		udp.pieces[2 * udp.n_packets + 1] =
			(struct iovec){ (void *)(uintptr_t)zeros, load->size - sizeof(packet) };
	}
	udp.n_out++;
}

static uint32_t udp_send(struct load *load, uint32_t pair, uint32_t n)
{
	if (udp.n_out == BATCH || udp.n_packets + n > MAX_PACKETS)
		udp_flush(load);
	add_message(load, pair, n);
	return n;
}

static uint32_t segment_of(const struct msghdr *message, uint32_t len)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, c)) {
		int value;
		if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO)
			continue;
		memcpy(&value, CMSG_DATA(c), sizeof(value));
		return value > 0 ? (uint32_t)value : len;
	}
	return len;
}

static int receive_messages(void)
{
	for (int i = 0; i < INBOX; i++)
		udp.in[i].msg_hdr.msg_controllen = sizeof(struct control);
	int n = recvmmsg(udp.fd, udp.in, INBOX, 0, NULL);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
		load_fail("recvmmsg: %s", strerror(errno));
	return n > 0 ? n : 0;
}

static void udp_receive(struct load *load)
{
	int n;

	do {
		n = receive_messages();
		for (int i = 0; i < n; i++) {
			const uint32_t len = udp.in[i].msg_len, segment = segment_of(&udp.in[i].msg_hdr, len);
			for (uint32_t at = 0; at + udp.arrival_header_len < len; at += segment) {
				const uint32_t size = len - at < segment ? len - at : segment;
				load_received(load, udp.in_bytes[i] + at + udp.arrival_header_len,
					      size - udp.arrival_header_len);
			}
		}
	} while (n == INBOX);
}

/* ---- questions and answers, before the first packet ---- */

/* Sends it from the client's address until is_answer() says yes to what comes back. */
static void ask(struct load *load, uint32_t client, const struct sockaddr_in *to, const void *bytes, size_t len,
		bool (*is_answer)(void *arg, const uint8_t *bytes, size_t len), void *arg)
{
	const struct in_pktinfo from = { .ipi_spec_dst.s_addr = htonl(load_address(load, client)) };
	struct iovec piece = { (void *)(uintptr_t)bytes, len };
	struct control control;
	struct msghdr message = { .msg_name = (void *)(uintptr_t)to,
				  .msg_namelen = sizeof(*to),
				  .msg_iov = &piece,
				  .msg_iovlen = 1,
				  .msg_control = &control };

	message.msg_controllen = add_control(&control, 0, IPPROTO_IP, IP_PKTINFO, &from, sizeof(from));
	for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
		if (sendmsg(udp.fd, &message, 0) < 0)
			load_fail("client %u: %s", client, strerror(errno));
		struct pollfd readable = { .fd = udp.fd, .events = POLLIN };
		while (poll(&readable, 1, ANSWER_MS) == 1) {
			const int n = receive_messages();
			for (int i = 0; i < n; i++)
				if (is_answer(arg, udp.in_bytes[i], udp.in[i].msg_len))
					return;
		}
	}
	load_fail("client %u: no answer", client);
}

/* ---- ours ---- */

struct expected {
	enum relay_udp_type type;
	const struct relay_udp_key *key; /* NULL: no proof */
	struct relay_udp_datagram got;
};

static bool is_expected(void *arg, const uint8_t *bytes, size_t len)
{
	struct expected *expected = arg;

	if (relay_udp_decode(bytes, len, &expected->got) != 0)
		return false;
	if (expected->got.type == RELAY_UDP_REFUSED)
		load_fail("refused: reason %d", expected->got.refused.reason);
	return expected->got.type == expected->type &&
	       (!expected->key || relay_udp_is_proven(expected->key, bytes, len));
}

static struct relay_udp_datagram ask_relay(struct load *load, uint32_t client, const struct relay_udp_datagram *question,
					   enum relay_udp_type type, const struct relay_udp_key *key)
{
	const struct sockaddr_in relay = relay_address(load);
	struct expected expected = { .type = type, .key = key };
	uint8_t bytes[RELAY_UDP_MAX_LEN];
	const size_t len = relay_udp_encode(bytes, sizeof(bytes), question);

	if (key)
		relay_udp_prove(key, bytes, len);
	ask(load, client, &relay, bytes, len, is_expected, &expected);
	return expected.got;
}

static struct relay_udp_bound bind_client(struct load *load, uint32_t client)
{
	struct relay_udp_datagram bind = { .type = RELAY_UDP_BIND, .bind.version = RELAY_UDP_VERSION };
	const struct relay_udp_datagram question = { .type = RELAY_UDP_ASK, .ask.number = client };
	struct secret_key secret;
	struct relay_udp_key key;

	load_keys(client, &secret, &bind.bind.node_key);
	if (relay_udp_key(&secret, &bind.bind.node_key, &load->relay_key, false, &key) != 0)
		load_fail("the relay's key is none");
	const struct relay_udp_datagram cookie = ask_relay(load, client, &question, RELAY_UDP_COOKIE, NULL);
	memcpy(bind.bind.cookie, cookie.cookie.cookie, sizeof(bind.bind.cookie));
	randombytes_buf(&bind.bind.number, sizeof(bind.bind.number));
	return ask_relay(load, client, &bind, RELAY_UDP_BOUND, &key).bound;
}

static uint32_t find_client(struct load *load, uint32_t from, const struct relay_udp_bound *bound, uint32_t wanted)
{
	struct relay_udp_datagram find = { .type = RELAY_UDP_FIND,
					   .header = { RELAY_UDP_FIND, 0, bound->slot, bound->token } };
	struct secret_key secret;

	load_keys(wanted, &secret, &find.node_key);
	const uint32_t slot = ask_relay(load, from, &find, RELAY_UDP_FOUND, NULL).header.from;
	if (slot == 0)
		load_fail("client %u is not found", wanted);
	return slot;
}

static void connect_udp(struct load *load)
{
	open_socket(load);
	udp.header_len = udp.arrival_header_len = RELAY_UDP_HEADER_LEN;
	for (uint32_t pair = 0; pair < load->n_pairs; pair++) {
		struct sender *sender = &udp.senders[pair];
		const struct relay_udp_bound bound = bind_client(load, load_sender(pair));
		(void)bind_client(load, load_receiver(pair));
		const struct relay_udp_header header = {
			.type = RELAY_UDP_DATA,
			.to = find_client(load, load_sender(pair), &bound, load_receiver(pair)),
			.from = bound.slot,
			.token = bound.token,
		};
		relay_udp_header_encode(sender->header, &header);
		sender->to = relay_address(load);
		sender->source = load_address(load, load_sender(pair));
	}
}

/* ---- TURN: the sender has an allocation, and a channel to the receiver's address ---- */

#define TURN_COOKIE	0x2112a442u
#define TURN_ALLOCATE	0x0003
#define TURN_CHANNEL	0x0009
#define TURN_SUCCESS	0x0100
#define TURN_ERROR	0x0110
#define TURN_HEADER_LEN 20
#define CHANNEL		0x4000
#define CHANNEL_HEADER	4

struct transaction {
	uint16_t method;
	uint8_t id[12];
};

static bool is_turn_answer(void *arg, const uint8_t *bytes, size_t len)
{
	const struct transaction *transaction = arg;
	struct wire_reader r = wire_reader(bytes, len);
	const uint16_t type = wire_u16(&r);

	if (len < TURN_HEADER_LEN || memcmp(bytes + 8, transaction->id, sizeof(transaction->id)) != 0)
		return false;
	if (type == (transaction->method | TURN_ERROR))
		load_fail("TURN: method %d is refused", transaction->method);
	return type == (transaction->method | TURN_SUCCESS);
}

/* A request with these attributes. */
static void ask_turn(struct load *load, uint32_t client, uint16_t method, const uint8_t *attributes, size_t len)
{
	const struct sockaddr_in relay = relay_address(load);
	struct transaction transaction = { .method = method };
	uint8_t bytes[128];
	struct wire_writer w = wire_writer(bytes, sizeof(bytes));

	randombytes_buf(transaction.id, sizeof(transaction.id));
	wire_put_u16(&w, method);
	wire_put_u16(&w, (uint16_t)len);
	wire_put_u32(&w, TURN_COOKIE);
	wire_put(&w, transaction.id, sizeof(transaction.id));
	wire_put(&w, attributes, len);
	ask(load, client, &relay, bytes, TURN_HEADER_LEN + len, is_turn_answer, &transaction);
}

static void connect_turn_pair(struct load *load, uint32_t pair)
{
	static const uint8_t requested_udp[] = { 0x00, 0x19, 0, 4, IPPROTO_UDP, 0, 0, 0 };
	const uint32_t receiver = load_address(load, load_receiver(pair));
	struct sender *sender = &udp.senders[pair];
	uint8_t channel[20];
	struct wire_writer w = wire_writer(channel, sizeof(channel));

	ask_turn(load, load_sender(pair), TURN_ALLOCATE, requested_udp, sizeof(requested_udp));
	wire_put_u32(&w, 0x000c0004); /* CHANNEL-NUMBER */
	wire_put_u32(&w, CHANNEL << 16);
	wire_put_u32(&w, 0x00120008); /* XOR-PEER-ADDRESS */
	wire_put_u32(&w, 0x00010000u | (own_port() ^ TURN_COOKIE >> 16));
	wire_put_u32(&w, receiver ^ TURN_COOKIE);
	ask_turn(load, load_sender(pair), TURN_CHANNEL, channel, sizeof(channel));
	w = wire_writer(sender->header, CHANNEL_HEADER);
	wire_put_u32(&w, CHANNEL << 16 | load->size);
	sender->to = relay_address(load);
	sender->source = load_address(load, load_sender(pair));
}

static void connect_turn(struct load *load)
{
	open_socket(load);
	udp.header_len = CHANNEL_HEADER;
	udp.arrival_header_len = 0; /* the receiver is no client of the server: it gets the packet itself */
	for (uint32_t pair = 0; pair < load->n_pairs; pair++)
		connect_turn_pair(load, pair);
}

/* ---- no relay: what the generator alone does ---- */

static void connect_none(struct load *load)
{
	open_socket(load);
	for (uint32_t pair = 0; pair < load->n_pairs; pair++) {
		udp.senders[pair].to = address(load_address(load, load_receiver(pair)), own_port());
		udp.senders[pair].source = load_address(load, load_sender(pair));
	}
}

/* ---- a relay that is nothing but the kernel: bench_relay_floor ---- */

static void connect_bare(struct load *load)
{
	open_socket(load);
	for (uint32_t pair = 0; pair < load->n_pairs; pair++) {
		udp.senders[pair].to = relay_address(load);
		udp.senders[pair].source = load_address(load, load_sender(pair));
	}
}

const struct load_transport load_bare = { "bare", connect_bare, udp_send, udp_flush, udp_receive };
const struct load_transport load_udp = { "udp", connect_udp, udp_send, udp_flush, udp_receive };
const struct load_transport load_turn = { "turn", connect_turn, udp_send, udp_flush, udp_receive };
const struct load_transport load_none = { "none", connect_none, udp_send, udp_flush, udp_receive };
