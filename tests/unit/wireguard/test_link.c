/*
 * A real TUN interface in a network namespace of our own: made, addressed, routed, watched, and
 * packets through it both ways. Skipped (77) without the right to make one.
 */
#include "node/wireguard/link.h"
#include "common/endpoint.h"
#include "node/wireguard/link_watch.h"
#include "node/wireguard/netns.h"
#include "node/wireguard/tun.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct link_prefix prefix(const char *ip, uint8_t len)
{
	struct link_prefix made = { .family = strchr(ip, ':') ? AF_INET6 : AF_INET, .len = len };

	assert(inet_pton(made.family, ip, made.ip) == 1);
	return made;
}

/* The next packet out of the interface that is of this IP protocol; others are skipped. */
static size_t read_packet(const struct tun *tun, uint8_t protocol, uint8_t *packet)
{
	struct pollfd readable = { .fd = tun->fd, .events = POLLIN };
	struct offload_header header;
	struct offload_cut cut;
	bool is_super;

	for (;;) {
		assert(poll(&readable, 1, 10000) == 1);
		ssize_t len = tun_read(tun, &header, packet, OFFLOAD_MAX_PACKET);
		if (len == -EAGAIN)
			continue;
		assert(len > 0);
		if (packet[packet[0] >> 4 == 4 ? 9 : 6] != protocol)
			continue;
		assert(offload_begin(&header, packet, (size_t)len, &cut, &is_super) == 0 && !is_super);
		return (size_t)len;
	}
}

static void test_an_interface_is_found_and_changed(void)
{
	struct tun tun, second;
	struct link_info link;
	struct error error;

	assert(tun_open("test%d", &tun, &error) == 0);
	assert(strcmp(tun.name, "test0") == 0 && tun_is_alive(&tun));
	assert(link_find("test0", &link, &error) == 0 && link.ifindex == tun.ifindex && !link.is_up);
	assert(link_set_mtu(tun.ifindex, 1280, &error) == 0);
	assert(link_set_up(tun.ifindex, true, &error) == 0);
	assert(link_get(tun.ifindex, &link, &error) == 0 && link.is_up && link.mtu == 1280);

	assert(tun_open("test0", &second, &error) == -EBUSY && strstr(error.message, "another program"));
	assert(link_find("nowhere", &link, &error) == -ENODEV && strstr(error.message, "nowhere"));
	assert(link_set_mtu(tun.ifindex, 7, &error) == -EINVAL && strstr(error.message, "MTU"));

	assert(link_delete(tun.ifindex, &error) == 0);
	assert(!tun_is_alive(&tun));
	assert(link_get(tun.ifindex, &link, &error) == -ENODEV);
	tun_close(&tun);
	tun_close(&tun); /* again is nothing */
}

/* A datagram to an address behind the route comes out of the interface, with a right checksum. */
static void expect_routed(const struct tun *tun, const char *to)
{
	static uint8_t packet[OFFLOAD_MAX_PACKET];
	struct endpoint endpoint;
	struct sockaddr_storage address;
	assert(endpoint_parse_ip(to, 7, &endpoint) == 0);
	socklen_t len = endpoint_to_sockaddr(&endpoint, &address);
	int fd = socket(address.ss_family, SOCK_DGRAM, 0);

	assert(fd >= 0 && sendto(fd, "hello", 5, 0, (const void *)&address, len) == 5);
	size_t header_len = address.ss_family == AF_INET ? 20 : 40;
	assert(read_packet(tun, IPPROTO_UDP, packet) == header_len + 8 + 5);
	assert(memcmp(packet + header_len + 8, "hello", 5) == 0);
	uint64_t sum = offload_sum(packet + header_len, 13, 0);
	sum += offload_pseudo_sum(packet, address.ss_family == AF_INET, IPPROTO_UDP, 13);
	assert(offload_fold(sum) == 0xffff);
	close(fd);
}

static bool can_send(const char *to)
{
	struct endpoint endpoint;
	struct sockaddr_storage address;
	assert(endpoint_parse_ip(to, 7, &endpoint) == 0);
	socklen_t len = endpoint_to_sockaddr(&endpoint, &address);
	int fd = socket(address.ss_family, SOCK_DGRAM, 0);
	bool sent = sendto(fd, "x", 1, 0, (const void *)&address, len) == 1;

	close(fd);
	return sent;
}

static void test_addresses_and_routes_lead_to_it(void)
{
	struct link_prefix v4 = prefix("100.64.0.1", 24), v6 = prefix("fd64::1", 64);
	struct link_prefix route4 = prefix("10.55.0.0", 16), route6 = prefix("fd55::", 32);
	struct error error;
	struct tun tun;

	assert(tun_open("test%d", &tun, &error) == 0);
	assert(link_set_up(tun.ifindex, true, &error) == 0);
	for (int twice = 0; twice < 2; twice++) { /* what is there already is no failure */
		assert(link_add_address(tun.ifindex, &v4, &error) == 0);
		assert(link_add_address(tun.ifindex, &v6, &error) == 0);
		assert(link_add_route(tun.ifindex, &route4, &error) == 0);
		assert(link_add_route(tun.ifindex, &route6, &error) == 0);
	}
	expect_routed(&tun, "100.64.0.9");
	expect_routed(&tun, "fd64::9");
	expect_routed(&tun, "10.55.3.4");
	expect_routed(&tun, "fd55::3:4");

	assert(link_remove_route(tun.ifindex, &route4, &error) == 0);
	assert(link_remove_route(tun.ifindex, &route6, &error) == 0);
	assert(!can_send("10.55.3.4") && !can_send("fd55::3:4"));
	assert(link_remove_address(tun.ifindex, &v4, &error) == 0);
	assert(link_remove_address(tun.ifindex, &v6, &error) == 0);
	assert(!can_send("100.64.0.9") && !can_send("fd64::9"));
	tun_close(&tun);
}

/* An echo request to our own address is answered by the kernel. */
static void test_what_is_written_reaches_the_kernel(void)
{
	static uint8_t packet[OFFLOAD_MAX_PACKET];
	struct link_prefix v4 = prefix("100.64.0.1", 24);
	uint8_t echo[28] = { 0x45, 0, 0, 28, 0, 0, 0, 0, 64, IPPROTO_ICMP, 0, 0, 100, 64, 0, 9, 100, 64, 0, 1, 8 };
	struct error error;
	struct tun tun;

	assert(tun_open("test%d", &tun, &error) == 0);
	assert(link_add_address(tun.ifindex, &v4, &error) == 0);
	assert(link_set_up(tun.ifindex, true, &error) == 0);
	uint16_t sum = (uint16_t)~offload_fold(offload_sum(echo, 20, 0));
	memcpy(echo + 10, &sum, 2);
	sum = (uint16_t)~offload_fold(offload_sum(echo + 20, 8, 0));
	memcpy(echo + 22, &sum, 2);
	struct train train = train_of_one(echo, sizeof(echo));
	assert(tun_write(&tun, &train) == 0 && tun.n_refused == 0);
	assert(read_packet(&tun, IPPROTO_ICMP, packet) == sizeof(echo));
	assert(packet[20] == 0 && memcmp(packet + 16, echo + 12, 4) == 0);

	/* What is no IP packet is refused and counted, and nothing else happens. */
	uint8_t nonsense[40] = { 0x10 };
	train = train_of_one(nonsense, sizeof(nonsense));
	assert(tun_write(&tun, &train) == 0 && tun.n_refused == 1);
	assert(link_delete(tun.ifindex, &error) == 0);
	train = train_of_one(echo, sizeof(echo));
	assert(tun_write(&tun, &train) == -EBADFD);
	tun_close(&tun);
}

/* watching */

struct seen {
	int ifindex;
	bool up, down, gone;
	uint32_t mtu, n_routes, n_closed;
};

static void on_link(void *owner, const struct link_info *link)
{
	struct seen *seen = owner;

	if (link->ifindex != seen->ifindex)
		return;
	seen->down |= seen->up && !link->is_up;
	seen->up |= link->is_up;
	seen->mtu = link->mtu;
}

static void on_link_gone(void *owner, const struct link_info *link)
{
	struct seen *seen = owner;

	seen->gone |= link->ifindex == seen->ifindex;
}

static void on_routes(void *owner)
{
	((struct seen *)owner)->n_routes++;
}

static void on_watch_closed(void *arg)
{
	((struct seen *)arg)->n_closed++;
}

static void test_changes_are_told(void)
{
	struct link_prefix v4 = prefix("100.64.0.1", 24);
	struct seen seen = { 0 };
	struct link_watch watch;
	struct error error;
	struct tun tun;
	uv_loop_t loop;
	uv_loop_init(&loop);

	assert(tun_open("test%d", &tun, &error) == 0);
	seen.ifindex = tun.ifindex;
	const struct link_watch_ports ports = { &seen, on_link, on_link_gone, on_routes };
	assert(link_watch_start(&watch, &loop, &ports, &error) == 0);
	assert(link_set_mtu(tun.ifindex, 1333, &error) == 0);
	assert(link_set_up(tun.ifindex, true, &error) == 0);
	assert(link_add_address(tun.ifindex, &v4, &error) == 0);
	assert(link_set_up(tun.ifindex, false, &error) == 0);
	tun_close(&tun);
	while (!seen.gone)
		uv_run(&loop, UV_RUN_ONCE);
	assert(seen.up && seen.down && seen.mtu == 1333 && seen.n_routes > 0);

	link_watch_close(&watch, on_watch_closed, &seen);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(seen.n_closed == 1 && uv_loop_close(&loop) == 0);
}

static void test_the_interfaces_namespace_can_be_visited(void)
{
	struct netns_visit visit;
	struct link_info link;
	struct error error;
	struct tun tun;

	assert(tun_open("visited", &tun, &error) == 0);
	assert(unshare(CLONE_NEWNET) == 0); /* we go, the interface stays */
	assert(link_find("visited", &link, &error) == -ENODEV);
	assert(netns_enter_that_of(tun.fd, &visit, &error) == 0);
	assert(link_find("visited", &link, &error) == 0);
	netns_leave(&visit);
	assert(link_find("visited", &link, &error) == -ENODEV);
	tun_close(&tun);
	assert(netns_enter_that_of(tun.fd, &visit, &error) != 0);
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
	test_an_interface_is_found_and_changed();
	test_addresses_and_routes_lead_to_it();
	test_what_is_written_reaches_the_kernel();
	test_changes_are_told();
	test_the_interfaces_namespace_can_be_visited();
	puts("ok");
	return 0;
}
