/*
 * What is written to a real TUN arrives, merged or not: the kernel takes superpackets of each kind; when
 * it refuses them, nothing is lost and it is not asked again for a while. In a network namespace of our
 * own; skipped (77) without the right to make one.
 */
#include "node/wireguard/device.h"
#include "node/wireguard/tun.h"
#include "common/endpoint.h"
#include "node/wireguard/link.h"
#include "node/wireguard/tun_probe.h"
#include "refuse.h"

#include <arpa/inet.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_SEGMENT 103
#define UDP_GRO	    104
#endif

#define OUR_PORT 7000
#define OUT_PORT 9
#define N	 20
#define PAYLOAD	 500
#define LAST	 123 /* the payload of the last packet is shorter */

struct world {
	struct offloads offloads;
	struct tun tun;
	bool is_v4;
	int socket; /* bound to OUR_PORT on the interface's address; takes trains */
};

static void add_address(const struct tun *tun, const char *ip, uint8_t len)
{
	struct link_prefix prefix = { .family = strchr(ip, ':') ? AF_INET6 : AF_INET, .len = len };
	struct error error;

	assert(inet_pton(prefix.family, ip, prefix.ip) == 1);
	assert(link_add_address(tun->ifindex, &prefix, &error) == 0);
}

/* A new address is usable a moment later (its route is made by a worker of the kernel). */
static void wait_for_address(int fd, const struct sockaddr_storage *address, socklen_t len)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	int other = socket(address->ss_family, SOCK_DGRAM, 0);
	char byte;

	do
		(void)!sendto(other, "x", 1, 0, (const void *)address, len);
	while (poll(&readable, 1, 10) != 1);
	while (recv(fd, &byte, 1, MSG_DONTWAIT) == 1)
		;
	close(other);
}

static int receiver(bool is_v4)
{
	struct endpoint endpoint;
	struct sockaddr_storage address;
	assert(endpoint_parse_ip(is_v4 ? "100.64.0.1" : "fd64::1", OUR_PORT, &endpoint) == 0);
	socklen_t len = endpoint_to_sockaddr(&endpoint, &address);
	int fd = socket(address.ss_family, SOCK_DGRAM, 0);

	assert(fd >= 0 && bind(fd, (const void *)&address, len) == 0);
	assert(setsockopt(fd, IPPROTO_UDP, UDP_GRO, &(int){ 1 }, sizeof(int)) == 0);
	wait_for_address(fd, &address, len);
	return fd;
}

static void begin(struct world *world, bool is_v4, struct offload_switches switches)
{
	const struct tun_options options = { .offloads = &world->offloads };
	struct error error;

	*world = (struct world){ .offloads = { .switches = switches }, .is_v4 = is_v4 };
	assert(tun_open("test%d", &options, &world->tun, &error) == 0);
	assert(link_set_up(world->tun.ifindex, true, &error) == 0);
	add_address(&world->tun, "100.64.0.1", 24);
	add_address(&world->tun, "fd64::1", 64);
	world->socket = receiver(is_v4);
}

static void end(struct world *world)
{
	close(world->socket);
	tun_close(&world->tun);
}

static const struct offload_gauge *gauge(const struct world *world)
{
	return &world->offloads.gauges[OFFLOAD_TUN_GRO_WRITE];
}

static uint32_t put_ip(uint8_t *p, bool is_v4, uint8_t protocol, uint32_t l4_len)
{
	static const uint8_t v6[40] = { 0x60, [7] = 64, [8] = 0xfd, 0x64, [23] = 9, [24] = 0xfd, 0x64, [39] = 1 };
	static const uint8_t v4[20] = { 0x45, [6] = 0x40, [8] = 64, [12] = 100, 64, 0, 9, 100, 64, 0, 1 };

	memcpy(p, is_v4 ? v4 : v6, is_v4 ? sizeof(v4) : sizeof(v6));
	p[is_v4 ? 9 : 6] = protocol;
	uint32_t len = l4_len + (is_v4 ? 20 : 0);
	p[is_v4 ? 2 : 4] = (uint8_t)(len >> 8);
	p[is_v4 ? 3 : 5] = (uint8_t)len;
	if (is_v4) {
		uint16_t sum = (uint16_t)~offload_fold(offload_sum(p, 20, 0));
		memcpy(p + 10, &sum, sizeof(sum));
	}
	return is_v4 ? 20 : 40;
}

/* Datagram number i to our socket; its bytes say which it is. */
static uint32_t put_datagram(uint8_t *p, bool is_v4, uint32_t i)
{
	uint32_t payload = i + 1 < N ? PAYLOAD : LAST, l4_len = 8 + payload;
	uint32_t at = put_ip(p, is_v4, IPPROTO_UDP, l4_len);
	uint8_t *l4 = p + at;

	memcpy(l4, (uint8_t[8]){ 0x10, 0, OUR_PORT >> 8, OUR_PORT & 0xff, (uint8_t)(l4_len >> 8), (uint8_t)l4_len }, 8);
	memset(l4 + 8, (int)i + 1, payload);
	uint64_t pseudo = offload_pseudo_sum(p, is_v4, IPPROTO_UDP, l4_len);
	uint16_t sum = (uint16_t)~offload_fold(offload_sum(l4, l4_len, pseudo));
	memcpy(l4 + 6, &sum, sizeof(sum));
	return at + l4_len;
}

static void write_datagrams(struct world *world)
{
	static uint8_t bytes[N * 600];
	struct train train = { .base = bytes, .n = N, .stride = 600 };

	for (uint32_t i = 0; i < N; i++) {
		train.last_size = put_datagram(bytes + i * 600, world->is_v4, i);
		if (i == 0)
			train.size = train.last_size;
	}
	assert(tun_write(&world->tun, &train) == 0);
}

/* All N datagrams arrive in order; returns in how many messages. */
static uint32_t expect_datagrams(struct world *world)
{
	static uint8_t bytes[65536];
	struct pollfd readable = { .fd = world->socket, .events = POLLIN };
	uint32_t i = 0, n_messages = 0;

	while (i < N) {
		assert(poll(&readable, 1, 10000) == 1);
		ssize_t len = recv(world->socket, bytes, sizeof(bytes), 0);
		for (ssize_t at = 0; at < len; i++) {
			ssize_t payload = i + 1 < N ? PAYLOAD : LAST;
			assert(i < N && len - at >= payload);
			for (ssize_t k = 0; k < payload; k++)
				assert(bytes[at + k] == i + 1);
			at += payload;
		}
		n_messages++;
	}
	return n_messages;
}

static void expect_state(const struct world *world, const char *state, const char *error)
{
	struct offload_report report = offloads_report(&world->offloads, OFFLOAD_TUN_GRO_WRITE);

	assert(strcmp(report.state, state) == 0 && strcmp(report.error, error) == 0);
}

static void test_datagrams_are_written_as_one_superpacket(bool is_v4)
{
	struct world world;
	begin(&world, is_v4, (struct offload_switches){ 0 });

	assert(world.tun.merge == (OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP));
	write_datagrams(&world);
	assert(expect_datagrams(&world) == 1);
	assert(gauge(&world)->n_used == 1 && gauge(&world)->n_refused == 0 && gauge(&world)->n_fell_back == 0);
	expect_state(&world, "on", "");
	end(&world);
}

/* wireguard-go: a packet was written with the header of the superpacket before it. */
static void test_a_single_packet_does_not_inherit_from_a_superpacket(bool is_v4)
{
	static uint8_t bytes[600], received[600];
	struct train one = { .base = bytes, .n = 1, .stride = sizeof(bytes) };
	struct world world;
	begin(&world, is_v4, (struct offload_switches){ 0 });

	for (int i = 0; i < 3; i++) {
		write_datagrams(&world);
		assert(expect_datagrams(&world) == 1);
		one.size = one.last_size = put_datagram(bytes, is_v4, N - 1);
		assert(tun_write(&world.tun, &one) == 0);
		assert(recv(world.socket, received, sizeof(received), 0) == LAST && received[0] == N);
	}
	assert(world.tun.n_refused == 0 && gauge(&world)->n_used == 3);
	end(&world);
}

static void test_switched_off_they_are_written_one_by_one(bool is_v4)
{
	/* With the reading side on, and with it off as well: then there is no header. */
	for (int both = 0; both < 2; both++) {
		struct world world;
		begin(&world, is_v4,
		      (struct offload_switches){ .off[OFFLOAD_TUN_GRO_WRITE] = true,
						 .off[OFFLOAD_TUN_GSO_READ] = both });
		assert(world.tun.has_header == !both);
		write_datagrams(&world);
		assert(expect_datagrams(&world) == N && world.tun.n_refused == 0);
		assert(gauge(&world)->n_used == 0 && gauge(&world)->n_fell_back == 1);
		expect_state(&world, "off", "");
		end(&world);
	}
}

static void test_a_refused_superpacket_is_written_again_in_pieces(bool is_v4)
{
	struct world world;
	begin(&world, is_v4, (struct offload_switches){ 0 });
	refuse_merged_writes();

	write_datagrams(&world);
	assert(expect_datagrams(&world) == N && world.tun.n_refused == 0);
	assert(gauge(&world)->n_refused == 1 && gauge(&world)->n_used == 0);
	expect_state(&world, "refused", "EINVAL");
	/* Not asked again … */
	write_datagrams(&world);
	assert(expect_datagrams(&world) == N && gauge(&world)->n_refused == 1);
	/* … for UDP; TCP has not been refused … */
	assert(world.tun.merge_refused == OFFLOAD_MERGE_UDP);
	/* … until a minute has passed. */
	world.tun.merge_retry_s -= 61;
	write_datagrams(&world);
	assert(expect_datagrams(&world) == N && gauge(&world)->n_refused == 2);
	end(&world);
}

static void test_a_kernel_that_takes_no_superpackets_is_not_given_any(bool is_v4)
{
	struct world world;
	refuse_merged_writes();
	begin(&world, is_v4, (struct offload_switches){ 0 });

	assert(world.tun.merge == 0);
	expect_state(&world, "refused", "EINVAL");
	write_datagrams(&world);
	assert(expect_datagrams(&world) == N && gauge(&world)->n_refused == 0);
	end(&world);
}

/* Packets that it refuses one by one as well say nothing about merging; else a peer could switch it off. */
static void test_packets_that_are_refused_in_any_form_change_nothing(void)
{
	struct world world;
	begin(&world, true, (struct offload_switches){ 0 });
	struct error error;

	assert(link_set_up(world.tun.ifindex, false, &error) == 0);
	write_datagrams(&world);
	assert(world.tun.n_refused == N && gauge(&world)->n_refused == 0);
	expect_state(&world, "on", "");
	assert(link_set_up(world.tun.ifindex, true, &error) == 0);
	write_datagrams(&world);
	assert(expect_datagrams(&world) == 1 && world.tun.n_refused == N);
	end(&world);
}

/* Sends N datagrams in one call to an address behind the interface. */
static void send_out(bool is_v4)
{
	static uint8_t bytes[(N - 1) * PAYLOAD + LAST];
	struct endpoint endpoint;
	struct sockaddr_storage address;
	assert(endpoint_parse_ip(is_v4 ? "100.64.0.9" : "fd64::9", OUT_PORT, &endpoint) == 0);
	socklen_t len = endpoint_to_sockaddr(&endpoint, &address);
	int fd = socket(address.ss_family, SOCK_DGRAM, 0);

	for (uint32_t i = 0; i < N; i++)
		memset(bytes + i * PAYLOAD, (int)i + 1, i + 1 < N ? PAYLOAD : LAST);
	assert(fd >= 0 && setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &(int){ PAYLOAD }, sizeof(int)) == 0);
	assert(sendto(fd, bytes, sizeof(bytes), 0, (const void *)&address, len) == sizeof(bytes));
	close(fd);
}

static bool is_right_datagram(const uint8_t *packet, uint32_t size, bool is_v4, uint32_t i)
{
	uint32_t at = is_v4 ? 20 : 40, payload = i + 1 < N ? PAYLOAD : LAST;
	uint64_t pseudo = offload_pseudo_sum(packet, is_v4, IPPROTO_UDP, 8 + payload);

	if (size != at + 8 + payload || offload_fold(offload_sum(packet + at, size - at, pseudo)) != 0xffff)
		return false;
	for (uint32_t k = at + 8; k < size; k++)
		if (packet[k] != i + 1)
			return false;
	return true;
}

/* Reads until all N datagrams are there, in order; returns with how many reads. */
static uint32_t expect_read(struct world *world)
{
	static uint8_t packet[OFFLOAD_MAX_PACKET], slots[TRAIN_MAX * 1024];
	struct pollfd readable = { .fd = world->tun.fd, .events = POLLIN };
	struct offload_header header;
	struct offload_cut cut;
	bool is_super;
	uint32_t i = 0, n_reads = 0;

	while (i < N) {
		assert(poll(&readable, 1, 10000) == 1);
		ssize_t len = tun_read(&world->tun, &header, packet, sizeof(packet));
		assert(len > 0);
		bool is_v4 = packet[0] >> 4 == 4;
		if (packet[is_v4 ? 9 : 6] != IPPROTO_UDP || packet[is_v4 ? 23 : 43] != OUT_PORT)
			continue; /* the kernel's own, or of wait_for_address() */
		assert(offload_begin(&header, packet, (size_t)len, &cut, &is_super) == 0);
		struct train train = train_of_one(packet, (size_t)len);
		if (is_super)
			assert(offload_next(&cut, slots, 1024, TRAIN_MAX, &train));
		for (uint32_t k = 0; k < train.n; k++, i++)
			assert(is_right_datagram(train_packet(&train, k), train_size(&train, k), world->is_v4, i));
		n_reads++;
	}
	return n_reads;
}

static void test_datagrams_sent_in_one_call_are_read_as_one_superpacket(bool is_v4)
{
	struct world world;
	begin(&world, is_v4, (struct offload_switches){ 0 });

	send_out(is_v4);
	assert(expect_read(&world) == 1);
	end(&world);
}

static void test_switched_off_they_are_read_one_by_one(bool is_v4)
{
	/* With the writing side on, and with it off as well: then there is no header. */
	for (int both = 0; both < 2; both++) {
		struct world world;
		begin(&world, is_v4,
		      (struct offload_switches){ .off[OFFLOAD_TUN_GSO_READ] = true,
						 .off[OFFLOAD_TUN_GRO_WRITE] = both });
		send_out(is_v4);
		assert(expect_read(&world) == N);
		end(&world);
	}
}

static void test_the_probe_does_no_harm(bool is_v4)
{
	uint8_t bytes[TUN_PROBE_LEN], packet[200];
	struct offload_header header;
	struct world world;
	begin(&world, is_v4, (struct offload_switches){ 0 });

	/* Even with the interface up: taken, and nothing comes of it. */
	for (int is_tcp = 0; is_tcp < 2; is_tcp++) {
		struct train two = tun_probe_packets(is_v4, is_tcp, bytes);
		assert(tun_write(&world.tun, &two) == 0 && world.tun.n_refused == 0);
	}
	assert(gauge(&world)->n_used == 2);
	ssize_t len;
	while ((len = tun_read(&world.tun, &header, packet, sizeof(packet))) > 0)
		assert(packet[0] >> 4 == 6 && packet[6] != IPPROTO_TCP &&
		       (packet[6] != IPPROTO_ICMPV6 || packet[40] >= 128)); /* no error, no reset */
	assert(len == -EAGAIN);
	end(&world);
}

static void test_a_superpacket_has_as_many_packets_as_leave_at_once(void)
{
	static const uint32_t cases[][2] = { /* mtu, packets */
					     { 576, 63 },  { 1280, 48 },  { 1420, 45 },
					     { 9000, 63 }, { 65507, 63 }, { 65535, 63 } };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert(tun_max_segments(cases[i][0]) == cases[i][1]);
}

static void test_superpackets_that_make_no_sense_are_not_asked_for_again(void)
{
	struct world world;
	begin(&world, true, (struct offload_switches){ 0 });

	for (int i = 0; i < 100; i++) /* one now and then is no reason */
		tun_read_made_sense(&world.tun, i % 10 == 0);
	struct offload_report report = offloads_report(&world.offloads, OFFLOAD_TUN_GSO_READ);
	assert(strcmp(report.state, "on") == 0 && report.n_used == 10 && report.n_refused == 90);
	for (int i = 0; i < 20; i++)
		tun_read_made_sense(&world.tun, false);
	report = offloads_report(&world.offloads, OFFLOAD_TUN_GSO_READ);
	assert(strcmp(report.state, "refused") == 0 && strcmp(report.error, "EPROTO") == 0);
	end(&world);
}

/* What cannot be undone in this process happens in another one. */
static void apart(void (*test)(bool is_v4), bool is_v4)
{
	int status;
	pid_t child = fork();

	assert(child >= 0);
	if (child == 0) {
		test(is_v4);
		_exit(0);
	}
	assert(waitpid(child, &status, 0) == child && status == 0);
}

int main(void)
{
	struct error error;
	struct link_info lo;

	if (unshare(CLONE_NEWNET) != 0 || access("/dev/net/tun", R_OK | W_OK) != 0) {
		puts("skipped: no network namespace or no TUN here");
		return 77;
	}
	assert(link_find("lo", &lo, &error) == 0 && link_set_up(lo.ifindex, true, &error) == 0);
	for (int is_v4 = 0; is_v4 < 2; is_v4++) {
		test_datagrams_are_written_as_one_superpacket(is_v4);
		test_a_single_packet_does_not_inherit_from_a_superpacket(is_v4);
		test_switched_off_they_are_written_one_by_one(is_v4);
		apart(test_a_refused_superpacket_is_written_again_in_pieces, is_v4);
		apart(test_a_kernel_that_takes_no_superpackets_is_not_given_any, is_v4);
		test_datagrams_sent_in_one_call_are_read_as_one_superpacket(is_v4);
		test_switched_off_they_are_read_one_by_one(is_v4);
		test_the_probe_does_no_harm(is_v4);
	}
	test_packets_that_are_refused_in_any_form_change_nothing();
	test_superpackets_that_make_no_sense_are_not_asked_for_again();
	test_a_superpacket_has_as_many_packets_as_leave_at_once();
	puts("ok");
	return 0;
}
