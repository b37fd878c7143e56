/*
 * Bad input for a WireGuard port, so many datagrams a second for so long.
 *
 *   flood garbage IP PORT RATE SECONDS        random bytes, random lengths
 *   flood handshakes IP PORT RATE SECONDS KEY initiations that are right but for who they are of, each
 *                                             from another source address; KEY: IP's public key, in hex
 *   flood lengths IP PORT RATE SECONDS        trains and datagrams of lengths that no message has
 *   flood replay INTERFACE PORT RATE SECONDS OTHER
 *                                             what was seen to pass out of INTERFACE to PORT, again,
 *                                             to the port OTHER, which may be the same
 *
 * Prints how many datagrams were sent. The cost of sending one is the same whoever listens at the port,
 * or nobody: so a flood of another port shows what the flood alone takes from the machine.
 */
#include "common/endpoint.h"
#include "node/wireguard/device.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define POOL	   512
#define FRAME_MAX  1514
#define INITIATION 148
#define LISTEN_MS  300 /* of a replay; longer when nothing comes */

struct bytes {
	uint8_t bytes[FRAME_MAX];
	size_t size;
};

struct flood {
	int fd;
	struct sockaddr_in to;
	uint8_t key[32];
	struct bytes pool[POOL];
	unsigned n_pool;
	uint64_t next, sent, refused;
	/* Sends one or more; how many. */
	unsigned (*send)(struct flood *flood);
};

static struct flood flood;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint32_t number(void)
{
	return (uint32_t)rand() ^ (uint32_t)rand() << 16;
}

static void fill(uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)rand();
}

static void open_udp(void)
{
	flood.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (flood.fd < 0)
		fail("socket");
}

/* Not connected: that nobody is there shall make no difference. */
static bool put(const uint8_t *bytes, size_t size)
{
	return sendto(flood.fd, bytes, size, 0, (struct sockaddr *)&flood.to, sizeof(flood.to)) >= 0;
}

/* ---- garbage ---- */

static void make_garbage(void)
{
	open_udp();
	for (flood.n_pool = 0; flood.n_pool < POOL; flood.n_pool++) {
		struct bytes *one = &flood.pool[flood.n_pool];
		one->size = 1 + number() % 1400;
		fill(one->bytes, one->size);
	}
}

static unsigned send_garbage(struct flood *f)
{
	const struct bytes *one = &f->pool[f->next++ % f->n_pool];

	return put(one->bytes, one->size);
}

/* ---- handshakes ---- */

static void on_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path, const struct train *train)
{
	struct bytes *one = &flood.pool[flood.n_pool];

	if (train->n != 1 || flood.n_pool == POOL)
		return;
	memcpy(one->bytes, train->base, INITIATION);
	one->size = INITIATION;
	flood.n_pool++;
}

/* A stranger who knows the key of the one he calls: it takes two Diffie-Hellmans to see that he is one. */
static void make_handshakes(void)
{
	const struct wg_config config = { .ports = { .transmit = on_transmit } };
	const struct wg_route route = { .n = 1, .paths = { { .remote = endpoint_from_v4(1, 1) } } };
	struct wg_time now = { .ns = 1, .real_ns = 1000000000 };
	struct wg_device *device;
	struct wg_peer *peer;
	struct secret_key secret;
	struct public_key public;

	memcpy(&public, flood.key, sizeof(public));
	randombytes_buf(&secret, sizeof(secret));
	if (sodium_init() < 0 || wg_device_new(&config, &device) != 0)
		fail("device");
	wg_device_set_private_key(device, &secret);
	if (wg_device_add_peer(device, &public, &peer) != 0)
		fail("peer");
	wg_peer_set_route(peer, &route, now);
	while (flood.n_pool < POOL) {
		now.ns += 10000000000;
		now.real_ns += 10000000000;
		wg_peer_reconnect(peer, now);
	}
	wg_device_free(device);
	flood.fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (flood.fd < 0)
		fail("raw socket");
}

/* From 203.0.113.0/24 and its neighbours, 64 ki addresses. */
static unsigned send_handshake(struct flood *f)
{
	const struct bytes *one = &f->pool[f->next++ % f->n_pool];
	struct {
		struct iphdr ip;
		struct udphdr udp;
		uint8_t message[INITIATION];
	} packet = {
		.ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP,
			.saddr = htonl(0xcb000000 | (number() & 0xffff)), .daddr = f->to.sin_addr.s_addr },
		.udp = { .source = htons((uint16_t)(1024 + number() % 60000)), .dest = f->to.sin_port,
			 .len = htons(sizeof(struct udphdr) + INITIATION) },
	};

	memcpy(packet.message, one->bytes, INITIATION);
	(void)!sendto(f->fd, &packet, sizeof(packet), 0, (struct sockaddr *)&f->to, sizeof(f->to));
	return 1;
}

/* ---- lengths ---- */

/* A train of n segments, the last one shorter or not. */
static unsigned send_train(struct flood *f, uint8_t *bytes, uint16_t segment, size_t size)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(segment))] = { 0 };
	struct iovec iov = { .iov_base = bytes, .iov_len = size };
	struct msghdr message = { .msg_name = &f->to, .msg_namelen = sizeof(f->to), .msg_iov = &iov, .msg_iovlen = 1,
				  .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);

	cmsg->cmsg_level = SOL_UDP;
	cmsg->cmsg_type = UDP_SEGMENT;
	cmsg->cmsg_len = CMSG_LEN(sizeof(segment));
	memcpy(CMSG_DATA(cmsg), &segment, sizeof(segment));
	return sendmsg(f->fd, &message, 0) > 0 ? (unsigned)((size + segment - 1) / segment) : 0;
}

/* The first bytes of each segment are those of a message: of data, or of a handshake cut short. */
static unsigned send_lengths(struct flood *f)
{
	static const uint16_t segments[] = { 1, 3, 4, 8, 15, 16, 31, 32, 33, 64, 91, 147, 149, 576, 1400, 1452 };
	static uint8_t bytes[65507];
	uint16_t segment = segments[number() % ARRAY_LEN(segments)];
	size_t size = segment * (1 + number() % 40);

	if (f->next++ % 64 == 0) { /* the largest there is, in fragments */
		memcpy(bytes, (uint8_t[]){ 4, 0, 0, 0 }, 4);
		return put(bytes, sizeof(bytes) - number() % 4);
	}
	if (number() % 2)
		size += number() % segment;
	for (size_t at = 0; at + 8 < size; at += segment)
		memcpy(bytes + at, (uint8_t[]){ (uint8_t)(1 + number() % 4), 0, 0, 0 }, 4);
	if (size <= segment)
		return put(bytes, size);
	return send_train(f, bytes, segment, size);
}

/* ---- replay ---- */

static unsigned send_frame(struct flood *f)
{
	const struct bytes *one = &f->pool[f->next++ % f->n_pool];

	return send(f->fd, one->bytes, one->size, 0) > 0;
}

static bool is_wanted(const uint8_t *frame, size_t size)
{
	const uint8_t *ip = frame + ETH_HLEN;

	return size >= ETH_HLEN + 20 + 8 + 32 && size <= FRAME_MAX && frame[12] == 8 && frame[13] == 0 &&
	       ip[0] == 0x45 && ip[9] == IPPROTO_UDP && memcmp(ip + 22, &flood.to.sin_port, 2) == 0;
}

/* Frames as they leave the interface, which those who send to the host behind it cannot but do. */
static void listen_for_frames(const char *interface, uint16_t other)
{
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
				       .sll_ifindex = (int)if_nametoindex(interface) };
	const struct timeval timeout = { .tv_usec = 100000 };
	uint64_t begin = now_ns(), end = begin + LISTEN_MS * UINT64_C(1000000);

	flood.fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));
	if (flood.fd < 0 || bind(flood.fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		fail(interface);
	setsockopt(flood.fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	while (flood.n_pool < POOL && now_ns() < (flood.n_pool > 0 ? end : begin + 5000000000)) {
		static uint8_t frame[65536];
		struct sockaddr_ll how;
		ssize_t size = recvfrom(flood.fd, frame, sizeof(frame), 0, (struct sockaddr *)&how,
					&(socklen_t){ sizeof(how) });
		if (size <= 0 || how.sll_pkttype != PACKET_OUTGOING || !is_wanted(frame, (size_t)size))
			continue;
		struct bytes *one = &flood.pool[flood.n_pool++];
		memcpy(one->bytes, frame, (size_t)size);
		memcpy(one->bytes + ETH_HLEN + 20 + 2, &(uint16_t){ htons(other) }, 2);
		memset(one->bytes + ETH_HLEN + 20 + 6, 0, 2); /* the checksum was left to the card: none */
		one->size = (size_t)size;
	}
	if (flood.n_pool == 0) {
		fputs("flood: nothing passed that could be replayed\n", stderr);
		exit(1);
	}
	shutdown(flood.fd, SHUT_RD);
}

/* ---- all ---- */

static void run(unsigned rate, unsigned seconds)
{
	uint64_t begin = now_ns(), end = begin + seconds * UINT64_C(1000000000), now;

	for (uint64_t tick = begin; (now = now_ns()) < end; tick += 1000000) {
		const struct timespec at = { (time_t)(tick / 1000000000), (long)(tick % 1000000000) };
		uint64_t due = (now - begin) * rate / 1000000000;
		while (flood.sent < due && now_ns() < end) {
			unsigned n = flood.send(&flood);
			flood.sent += n;
			flood.refused += n == 0;
			due -= n == 0;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
	}
}

int main(int argc, char *argv[])
{
	const char *kind = argc > 1 ? argv[1] : "";
	bool is_replay = strcmp(kind, "replay") == 0, is_handshakes = strcmp(kind, "handshakes") == 0;

	if (argc != (is_handshakes || is_replay ? 7 : 6) ||
	    (!is_replay && inet_pton(AF_INET, argv[2], &flood.to.sin_addr) != 1) ||
	    (is_handshakes && sodium_hex2bin(flood.key, sizeof(flood.key), argv[6], 64, NULL, NULL, NULL) != 0)) {
		fputs("usage: flood KIND IP|INTERFACE PORT RATE SECONDS [KEY|OTHER]\n", stderr);
		return 2;
	}
	flood.to.sin_family = AF_INET;
	flood.to.sin_port = htons((uint16_t)atoi(argv[3]));
	if (is_replay) {
		listen_for_frames(argv[2], (uint16_t)atoi(argv[6]));
		flood.send = send_frame;
	} else if (is_handshakes) {
		make_handshakes();
		flood.send = send_handshake;
	} else if (strcmp(kind, "garbage") == 0) {
		make_garbage();
		flood.send = send_garbage;
	} else if (strcmp(kind, "lengths") == 0) {
		open_udp();
		flood.send = send_lengths;
	} else {
		fprintf(stderr, "flood: what is %s?\n", kind);
		return 2;
	}
	puts("begun");
	fflush(stdout);
	run((unsigned)atoi(argv[4]), (unsigned)atoi(argv[5]));
	printf("%llu sent, %llu refused\n", (unsigned long long)flood.sent, (unsigned long long)flood.refused);
	return 0;
}
