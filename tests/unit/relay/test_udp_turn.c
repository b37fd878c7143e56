/*
 * The relay over UDP while more and more comes in: what could not be sent leaves as soon as there is room, and one socket
 * does not hold the thread for long. What the thread receives and sends then is a model: recvmmsg(2) and sendmmsg(2) are
 * defined here, and are the kernel's until the flood begins.
 */
#include "relay/udp_server.h"
#include "udp_client.h"
#include "world.h"

#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define N_FLOOD	    10000
#define LEN	    (RELAY_UDP_HEADER_LEN + 4)
#define MAX_A_TURN  (2048 + RELAY_INBOX_MESSAGES)

static struct {
	int fd, other_fd; /* of the relay: where it comes, and one where nothing does, though the kernel says so */
	_Atomic bool is_on, is_over;
	struct relay_udp_header header;
	struct sockaddr_in from;
	/* Of the relay's thread, while it is on: */
	uint32_t n_batches; /* asked for */
	uint32_t n_received, n_sent, n_misordered, n_this_turn, most_a_turn;
	uint32_t sent_in_first_turn, received_in_first_turn; /* 0: it is not over */
} flood;

static bool is_model(int fd)
{
	return atomic_load(&flood.is_on) && !atomic_load(&flood.is_over) && (fd == flood.fd || fd == flood.other_fd);
}

/* The other socket has its turn: the first has had its own. */
static void end_turn(void)
{
	if (flood.received_in_first_turn == 0) {
		flood.received_in_first_turn = flood.n_received;
		flood.sent_in_first_turn = flood.n_sent;
	}
	if (flood.n_this_turn > flood.most_a_turn)
		flood.most_a_turn = flood.n_this_turn;
	flood.n_this_turn = 0;
	if (flood.n_sent == N_FLOOD)
		atomic_store(&flood.is_over, true);
}

/* Datagrams with a number each. */
int recvmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags, struct timespec *timeout)
{
	unsigned i = 0;

	if (!is_model(fd))
		return (int)syscall(SYS_recvmmsg, fd, headers, n, flags, timeout);
	errno = EAGAIN;
	if (fd == flood.other_fd) {
		end_turn();
		return -1;
	}
	flood.n_batches++;
	for (; i < n && flood.n_received < N_FLOOD; i++, flood.n_received++) {
		uint8_t *bytes = headers[i].msg_hdr.msg_iov->iov_base;
		relay_udp_header_encode(bytes, &flood.header);
		memcpy(bytes + RELAY_UDP_HEADER_LEN, &flood.n_received, 4);
		memcpy(headers[i].msg_hdr.msg_name, &flood.from, sizeof(flood.from));
		headers[i].msg_hdr.msg_namelen = sizeof(flood.from);
		headers[i].msg_hdr.msg_controllen = 0;
		headers[i].msg_len = LEN;
	}
	flood.n_this_turn += i;
	return i > 0 ? (int)i : -1;
}

/* The socket is full until the second batch was asked for, and from then on takes everything. */
int sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
	if (!is_model(fd))
		return (int)syscall(SYS_sendmmsg, fd, headers, n, flags);
	errno = EAGAIN;
	if (flood.n_batches < 2)
		return -1;
	for (unsigned i = 0; i < n; i++) {
		const struct msghdr *header = &headers[i].msg_hdr;
		for (size_t p = 0; p < header->msg_iovlen; p++) {
			uint32_t number;
			EXPECT(header->msg_iov[p].iov_len == LEN);
			memcpy(&number, (const uint8_t *)header->msg_iov[p].iov_base + RELAY_UDP_HEADER_LEN, 4);
			flood.n_misordered += number != flood.n_sent++;
		}
	}
	return (int)n;
}

struct bench {
	struct world w;
	struct udp_server *server;
	struct secret_key secret;
	struct public_key public;
	struct client alice, bob;
	bool stopped;
};

static void begin(struct bench *b)
{
	struct udp_server_options options = { .n_listen = 2,
					      .listen = { at("127.0.0.1", 0), at("127.0.0.2", 0) } };
	struct key_table *members = calloc(1, sizeof(*members));

	*b = (struct bench){ 0 };
	world_begin(&b->w);
	secret_key_generate(&b->secret);
	secret_key_public(&b->secret, &b->public);
	options.node_key = &b->secret;
	EXPECT(members && udp_server_start(&b->w.loop, &options, &b->server, NULL) == 0);
	make_client(&b->alice, &b->public);
	make_client(&b->bob, &b->public);
	key_table_init(members);
	key_table_put(members, &b->alice.public, b);
	key_table_put(members, &b->bob.public, b);
	udp_server_set_members(b->server, members);
	bind_client(&b->alice, "127.0.0.1", at("127.0.0.1", udp_server_port(b->server)));
	bind_client(&b->bob, "127.0.0.1", at("127.0.0.1", udp_server_port(b->server)));
}

static void on_stopped(void *owner)
{
	((struct bench *)owner)->stopped = true;
}

static void finish(struct bench *b)
{
	udp_server_stop(b->server, on_stopped, b);
	AWAIT(&b->w, b->stopped);
	close(b->alice.fd);
	close(b->bob.fd);
	world_end(&b->w);
}

/* From alice to bob. What she sends first wakes the relay, and is received when the flood is over. */
static void let_flood_come(const struct bench *b)
{
	struct client to_other = b->alice;
	socklen_t len = sizeof(flood.from);
	int fds[UDP_SERVER_MAX_SOCKETS];

	EXPECT(udp_server_sockets(b->server, fds) == 2);
	EXPECT(getsockname(b->alice.fd, (struct sockaddr *)&flood.from, &len) == 0);
	flood.fd = fds[0];
	flood.other_fd = fds[1];
	flood.header = header_to(&b->alice, RELAY_UDP_DATA, b->bob.slot);
	atomic_store(&flood.is_on, true);
	to_other.relay = at("127.0.0.2", udp_server_port(b->server));
	send_bytes(&to_other, "?", 1);
	say(&b->alice, &b->bob, "after all that");
}

static void test_a_flood_neither_overflows_what_waits_nor_holds_the_thread(void)
{
	struct bench b;
	begin(&b);

	let_flood_come(&b);
	await_said(&b.bob, &b.alice, "after all that");
	EXPECT(flood.n_sent == N_FLOOD && flood.n_misordered == 0);
	EXPECT(udp_server_counters(b.server).out.full[RELAY_OUTBOX_DATA] == 0);
	/* What waited left when the second batch was there, and that one as well. */
	EXPECT(flood.received_in_first_turn >= 2 * RELAY_INBOX_MESSAGES);
	EXPECT(flood.sent_in_first_turn == flood.received_in_first_turn);
	EXPECT(flood.most_a_turn <= MAX_A_TURN);
	finish(&b);
}

int main(void)
{
	EXPECT(sodium_init() >= 0);
	test_a_flood_neither_overflows_what_waits_nor_holds_the_thread();
	puts("ok");
	return 0;
}
