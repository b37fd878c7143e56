/*
 * A wire between two network interfaces that changes the order of what it carries.
 *
 *   wire LEFT RIGHT PER_MILLE DISTANCE
 *
 * So many of a thousand frames are held back until up to DISTANCE others have passed them, or for
 * 5 ms. Prints "wired"; on SIGTERM how many frames it carried and held back.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX 9100
#define HELD_MAX  64
#define HOLD_NS	  5000000
#define BURST	  64

struct held {
	uint8_t bytes[FRAME_MAX];
	size_t len; /* 0: free */
	unsigned wait_for;
	uint64_t until_ns;
};

/* One direction. */
struct side {
	int from, to;
	struct held held[HELD_MAX];
	unsigned n_held;
	uint64_t n_frames, n_late, n_lost;
};

static struct side sides[2];
static unsigned per_mille, distance;
static volatile sig_atomic_t is_over;

static void on_term(int number)
{
	is_over = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int open_end(const char *name)
{
	const int one = 1, room = 16 << 20;
	struct sockaddr_ll address = { .sll_family = AF_PACKET,
				       .sll_protocol = htons(ETH_P_ALL),
				       .sll_ifindex = (int)if_nametoindex(name) };
	struct packet_mreq promiscuous = { .mr_ifindex = address.sll_ifindex, .mr_type = PACKET_MR_PROMISC };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL));

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof(promiscuous)) != 0) {
		fprintf(stderr, "wire: %s: %s\n", name, strerror(errno));
		exit(1);
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	return fd;
}

static void put(struct side *side, const uint8_t *bytes, size_t len)
{
	if (send(side->to, bytes, len, 0) < 0)
		side->n_lost++;
}

/* Another frame has passed (or time): who has waited enough goes. */
static void release(struct side *side, bool has_passed)
{
	uint64_t now = side->n_held > 0 ? now_ns() : 0;

	for (unsigned i = 0; i < HELD_MAX && side->n_held > 0; i++) {
		struct held *held = &side->held[i];
		if (held->len == 0)
			continue;
		if (has_passed && held->wait_for > 0)
			held->wait_for--;
		if (held->wait_for > 0 && now < held->until_ns)
			continue;
		put(side, held->bytes, held->len);
		held->len = 0;
		side->n_held--;
	}
}

static bool hold(struct side *side, const uint8_t *bytes, size_t len)
{
	if ((unsigned)rand() % 1000 >= per_mille || side->n_held == HELD_MAX)
		return false;
	struct held *held = side->held;
	while (held->len != 0)
		held++;
	memcpy(held->bytes, bytes, len);
	held->len = len;
	held->wait_for = 1 + (unsigned)rand() % distance;
	held->until_ns = now_ns() + HOLD_NS;
	side->n_held++;
	side->n_late++;
	return true;
}

static void carry(struct side *side)
{
	uint8_t bytes[FRAME_MAX];

	for (unsigned i = 0; i < BURST; i++) {
		ssize_t len = recv(side->from, bytes, sizeof(bytes), MSG_TRUNC);
		if (len <= 0)
			break;
		side->n_frames++;
		if ((size_t)len > sizeof(bytes)) {
			side->n_lost++; /* offloads are on: this is not a frame */
			continue;
		}
		if (hold(side, bytes, (size_t)len))
			continue;
		put(side, bytes, (size_t)len);
		release(side, true);
	}
	release(side, false);
}

int main(int argc, char *argv[])
{
	if (argc != 5) {
		fputs("usage: wire LEFT RIGHT PER_MILLE DISTANCE\n", stderr);
		return 2;
	}
	per_mille = (unsigned)atoi(argv[3]);
	distance = (unsigned)atoi(argv[4]);
	signal(SIGTERM, on_term);
	sides[0].from = sides[1].to = open_end(argv[1]);
	sides[1].from = sides[0].to = open_end(argv[2]);
	puts("wired");
	fflush(stdout);
	while (!is_over) {
		struct pollfd fds[2] = { { .fd = sides[0].from, .events = POLLIN },
					 { .fd = sides[1].from, .events = POLLIN } };
		poll(fds, 2, sides[0].n_held + sides[1].n_held > 0 ? 1 : -1);
		carry(&sides[0]);
		carry(&sides[1]);
	}
	printf("{\"frames\": %llu, \"late\": %llu, \"lost\": %llu}\n",
	       (unsigned long long)(sides[0].n_frames + sides[1].n_frames),
	       (unsigned long long)(sides[0].n_late + sides[1].n_late),
	       (unsigned long long)(sides[0].n_lost + sides[1].n_lost));
	return 0;
}
