/*
 * A real TUN interface in a network namespace of our own: made, addressed, routed, watched, and
 * packets through it both ways. Skipped (77) without the right to make one.
 */
#include "node/wireguard/link.h"
#include "common/endpoint.h"
#include "node/link_monitor.h"
#include "node/wireguard/link_watch.h"
#include "node/wireguard/netns.h"
#include "node/wireguard/tun.h"
#include "node/wireguard/udp.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct tun_options one_queue = { 0 };

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

	assert(tun_open("test%d", &one_queue, &tun, &error) == 0);
	assert(strcmp(tun.name, "test0") == 0 && tun_is_alive(&tun));
	assert(link_find("test0", &link, &error) == 0 && link.ifindex == tun.ifindex && !link.is_up);
	assert(link_set_mtu(tun.ifindex, 1280, &error) == 0);
	assert(link_set_up(tun.ifindex, true, &error) == 0);
	assert(link_get(tun.ifindex, &link, &error) == 0 && link.is_up && link.mtu == 1280);

	assert(tun_open("test0", &one_queue, &second, &error) == -EBUSY && strstr(error.message, "another program"));
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

	assert(tun_open("test%d", &one_queue, &tun, &error) == 0);
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

static struct wg_path path_between(const char *from, const char *to, int ifindex)
{
	struct wg_path path = { .ifindex = (uint32_t)ifindex };
	struct endpoint source;

	assert(endpoint_parse_ip(from, 0, &source) == 0 && endpoint_parse_ip(to, 9, &path.remote) == 0);
	memcpy(path.local_ip, source.ip, sizeof(path.local_ip));
	return path;
}

/* What udp_fit_source() leaves of such a path. */
static void expect_fit(const struct udp *udp, const struct wg_path *path, bool keeps_address, bool keeps_interface)
{
	static const uint8_t none[16];
	struct wg_path fit = *path;

	udp_fit_source(udp, &fit);
	assert(memcmp(fit.local_ip, keeps_address ? path->local_ip : none, 16) == 0);
	assert(fit.ifindex == (keeps_interface ? path->ifindex : 0));
}

/* No netlink socket, as in a sandbox: a process of its own, since that cannot be undone. */
static void expect_kept_when_nothing_can_be_asked(const struct udp *udp, const struct wg_path *path)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog filter = { .len = sizeof(code) / sizeof(*code), .filter = code };
	int status;
	pid_t child = fork();

	if (child == 0) {
		assert(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
		assert(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
		assert(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) < 0 && errno == EACCES);
		expect_fit(udp, path, true, true);
		_exit(0);
	}
	assert(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_a_source_fits_where_its_answers_leave(void)
{
	static const char *const ips[2][2] = { { "100.64.0.1", "fd64::1" }, { "100.65.0.1", "fd65::1" } };
	static const char *const remotes[] = { "100.65.0.9", "fd65::9" }, *const services[] = { "10.9.9.9", "fd99::9" };
	struct tun tuns[2];
	struct link_info lo;
	struct error error;
	struct udp *udp;

	assert(udp_open(&(struct udp_options){ 0 }, &udp, &error) == 0 && link_find("lo", &lo, &error) == 0);
	for (int i = 0; i < 2; i++) {
		assert(tun_open("test%d", &one_queue, &tuns[i], &error) == 0);
		assert(link_set_up(tuns[i].ifindex, true, &error) == 0);
		for (int v6 = 0; v6 < 2; v6++) {
			const struct link_prefix address = prefix(ips[i][v6], v6 ? 64 : 24);
			const struct link_prefix service = prefix(services[v6], v6 ? 128 : 32);
			assert(link_add_address(tuns[i].ifindex, &address, &error) == 0);
			assert(link_add_address(lo.ifindex, &service, &error) == 0);
		}
	}
	for (int v6 = 0; v6 < 2; v6++) {
		struct wg_path path = path_between(ips[1][v6], remotes[v6], tuns[1].ifindex);
		expect_fit(udp, &path, true, true);
		path = path_between(ips[0][v6], remotes[v6], tuns[0].ifindex); /* the route has moved away from it */
		expect_fit(udp, &path, false, false);
		expect_kept_when_nothing_can_be_asked(udp, &path);
		path = path_between(services[v6], remotes[v6], tuns[0].ifindex); /* is asked by any interface */
		expect_fit(udp, &path, true, false);
		path = path_between(ips[0][v6], ips[1][v6], tuns[0].ifindex); /* to this machine */
		expect_fit(udp, &path, true, false);
		path = path_between(ips[1][v6], v6 ? "2001:db8::1" : "203.0.113.1", tuns[1].ifindex); /* no route */
		expect_fit(udp, &path, false, false);
	}
	for (int i = 0; i < 2; i++)
		tun_close(&tuns[i]);
	for (int v6 = 0; v6 < 2; v6++) {
		const struct link_prefix service = prefix(services[v6], v6 ? 128 : 32);
		assert(link_remove_address(lo.ifindex, &service, &error) == 0);
	}
	udp_free(udp);
}

/* An echo request to our own address is answered by the kernel. */
static void test_what_is_written_reaches_the_kernel(void)
{
	static uint8_t packet[OFFLOAD_MAX_PACKET];
	struct link_prefix v4 = prefix("100.64.0.1", 24);
	uint8_t echo[28] = { 0x45, 0, 0, 28, 0, 0, 0, 0, 64, IPPROTO_ICMP, 0, 0, 100, 64, 0, 9, 100, 64, 0, 1, 8 };
	struct error error;
	struct tun tun;

	assert(tun_open("test%d", &one_queue, &tun, &error) == 0);
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

/* several queues */

#define N_QUEUES 4

/* A TCP segment from port `flow` that goes out by the interface, to 100.64.0.9 or fd64::9. */
static void send_segment(int raw, bool is_v4, uint16_t flow)
{
	uint8_t segment[20] = { (uint8_t)(flow >> 8), (uint8_t)flow, 0, 80, [12] = 0x50, [13] = 0x10 };
	struct endpoint endpoint;
	struct sockaddr_storage address;
	assert(endpoint_parse_ip(is_v4 ? "100.64.0.9" : "fd64::9", 0, &endpoint) == 0);
	socklen_t len = endpoint_to_sockaddr(&endpoint, &address);

	assert(sendto(raw, segment, sizeof(segment), 0, (const void *)&address, len) == sizeof(segment));
}

/* The queue from which the next TCP packet comes, which is of this flow; it may not be anywhere else. */
static int queue_of_next(const struct tun *queues, uint16_t flow)
{
	static uint8_t packet[OFFLOAD_MAX_PACKET];
	struct offload_header header;

	for (;;) {
		struct pollfd fds[N_QUEUES];
		for (int i = 0; i < N_QUEUES; i++)
			fds[i] = (struct pollfd){ .fd = queues[i].fd, .events = POLLIN };
		assert(poll(fds, N_QUEUES, 10000) >= 1);
		for (int i = 0; i < N_QUEUES; i++) {
			if (!fds[i].revents ||
			    tun_read(&queues[i], &header, packet, sizeof(packet)) <= 0)
				continue;
			bool is_v4 = packet[0] >> 4 == 4;
			if (packet[is_v4 ? 9 : 6] != IPPROTO_TCP)
				continue;
			assert((packet[is_v4 ? 20 : 40] << 8 | packet[is_v4 ? 21 : 41]) == flow);
			return i;
		}
	}
}

/* The answer to a flow's segment, written to a queue: the kernel would learn the queue from it. */
static void write_answer(struct tun *queue, bool is_v4, uint16_t flow)
{
	uint8_t v4[40] = { 0x45, 0, 0, 40, 0, 0, 0, 0, 64, IPPROTO_TCP, 0, 0, 100, 64, 0, 9, 100, 64, 0, 1 };
	uint8_t v6[60] = { 0x60, [5] = 20, [6] = IPPROTO_TCP, [7] = 64, [8] = 0xfd, 0x64, [23] = 9,
			   [24] = 0xfd, 0x64, [39] = 1 };
	uint8_t *l4 = is_v4 ? v4 + 20 : v6 + 40;
	struct train train = is_v4 ? train_of_one(v4, sizeof(v4)) : train_of_one(v6, sizeof(v6));

	memcpy(l4, (uint8_t[4]){ 0, 80, (uint8_t)(flow >> 8), (uint8_t)flow }, 4);
	l4[12] = 0x50;
	l4[13] = 0x04; /* a reset: nobody answers it */
	uint16_t sum = (uint16_t)~offload_fold(offload_sum(v4, 20, 0));
	memcpy(v4 + 10, &sum, 2);
	sum = (uint16_t)~offload_fold(
		offload_sum(l4, 20, offload_pseudo_sum(train.base, is_v4, IPPROTO_TCP, 20)));
	memcpy(l4 + 16, &sum, 2);
	assert(tun_write(queue, &train) == 0 && queue->n_refused == 0);
}

static void check_flows_stay(struct tun *queues, bool is_v4)
{
	int raw = socket(is_v4 ? AF_INET : AF_INET6, SOCK_RAW, IPPROTO_TCP);
	int n_in[N_QUEUES] = { 0 };
	assert(raw >= 0);

	for (uint16_t flow = 1000; flow < 1100; flow++) {
		send_segment(raw, is_v4, flow);
		int queue = queue_of_next(queues, flow);
		n_in[queue]++;
		for (int i = 0; i < N_QUEUES; i++) {
			write_answer(&queues[i], is_v4, flow);
			send_segment(raw, is_v4, flow);
			assert(queue_of_next(queues, flow) == queue);
		}
	}
	for (int i = 0; i < N_QUEUES; i++)
		assert(n_in[i] >= 10); /* 25 if evenly spread */
	close(raw);
}

static void test_a_flow_stays_in_its_queue_and_flows_are_spread(void)
{
	struct link_prefix v4 = prefix("100.64.0.1", 24), v6 = prefix("fd64::1", 64);
	struct tun queues[N_QUEUES];
	struct error error;

	assert(tun_open("test%d", &(struct tun_options){ .several_queues = true }, &queues[0], &error) == 0);
	if (!queues[0].may_add_queues) {
		puts("  not tested: the kernel loads no eBPF program");
		tun_close(&queues[0]);
		return;
	}
	for (int i = 1; i < N_QUEUES; i++)
		assert(tun_add_queue(&queues[0], &queues[i], &error) == 0);
	assert(link_add_address(queues[0].ifindex, &v4, &error) == 0);
	assert(link_add_address(queues[0].ifindex, &v6, &error) == 0);
	assert(link_set_up(queues[0].ifindex, true, &error) == 0);
	check_flows_stay(queues, true);
	check_flows_stay(queues, false);

	for (int i = 0; i < N_QUEUES; i++) {
		assert(tun_is_alive(&queues[i]));
		tun_close(&queues[i]);
	}
	struct link_info link;
	assert(link_find(queues[0].name, &link, &error) == -ENODEV);
}

/* Whole, in fragments, without ports: a UDP flow is in one queue. */
static void test_a_datagram_and_fragments_of_another_share_a_queue(void)
{
	static uint8_t packet[OFFLOAD_MAX_PACKET], big[3000];
	struct link_prefix v4 = prefix("100.64.0.1", 24);
	struct offload_header header;
	struct tun queues[N_QUEUES];
	struct error error;

	assert(tun_open("test%d", &(struct tun_options){ .several_queues = true }, &queues[0], &error) == 0);
	for (int i = 1; i < N_QUEUES && queues[0].may_add_queues; i++)
		assert(tun_add_queue(&queues[0], &queues[i], &error) == 0);
	assert(link_add_address(queues[0].ifindex, &v4, &error) == 0);
	assert(link_set_up(queues[0].ifindex, true, &error) == 0);
	for (uint16_t port = 7; queues[0].may_add_queues && port < 27; port++) {
		const struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port),
						.sin_addr = { htonl(0x64400009) } };
		int fd = socket(AF_INET, SOCK_DGRAM, 0), n = 0, used = 0;
		assert(sendto(fd, big, 10, 0, (const void *)&to, sizeof(to)) == 10);
		assert(sendto(fd, big, sizeof(big), 0, (const void *)&to, sizeof(to)) == sizeof(big));
		for (int i = 0; i < N_QUEUES; i++) {
			int before = n;
			while (tun_read(&queues[i], &header, packet, sizeof(packet)) > 0)
				n += packet[0] >> 4 == 4 && packet[9] == IPPROTO_UDP;
			used += n > before;
		}
		assert(n == 1 + 3 && used == 1);
		close(fd);
	}
	for (int i = 0; i < N_QUEUES && (i == 0 || queues[0].may_add_queues); i++)
		tun_close(&queues[i]);
}

static void test_an_interface_with_queues_is_not_shared_with_another_program(void)
{
	const struct tun_options several = { .several_queues = true };
	struct tun tun, second;
	struct error error;

	assert(tun_open("test%d", &several, &tun, &error) == 0);
	assert(tun_open(tun.name, &several, &second, &error) < 0 && strstr(error.message, "another program"));
	assert(tun_open(tun.name, &one_queue, &second, &error) < 0 && strstr(error.message, "another program"));
	tun_close(&tun);
	assert(tun_open("test%d", &one_queue, &tun, &error) == 0 && !tun.may_add_queues);
	assert(tun_add_queue(&tun, &second, &error) == -EOPNOTSUPP);
	tun_close(&tun);
}

/* watching */

struct seen {
	int ifindex;
	bool up, down, gone;
	uint32_t mtu, n_routes, n_begun, n_changed, n_closed;
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

	assert(tun_open("test%d", &one_queue, &tun, &error) == 0);
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

static uint32_t mtu_towards(const char *ip)
{
	struct endpoint remote = { .port = 9 };
	const struct link_prefix address = prefix(ip, 0);

	if (address.family == AF_INET)
		remote = endpoint_from_v4(ntohl(*(const uint32_t *)(const void *)address.ip), 9);
	else
		memcpy(remote.ip, address.ip, sizeof(remote.ip));
	return udp_first_mtu(&remote);
}

/* Else the interface has an address of its own some time after it is up, of which who watches hears. */
static void have_no_link_local_addresses(void)
{
	int fd = open("/proc/sys/net/ipv6/conf/default/addr_gen_mode", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	assert(write(fd, "1", 1) == 1);
	close(fd);
}

/* One interface, and sizes by routes; of these alone who watches does not hear. */
static void test_a_route_may_have_an_mtu_of_its_own_and_nobody_looks_up_for_it(void)
{
	struct link_prefix v4 = prefix("100.64.0.1", 24), v6 = prefix("fd64::1", 64);
	const struct link_prefix net4 = prefix("100.64.0.0", 24), net6 = prefix("fd64::", 64);
	const struct link_prefix bob4 = prefix("100.64.0.2", 32), bob6 = prefix("fd64::2", 128);
	struct seen seen = { 0 };
	struct link_watch watch;
	struct error error;
	struct tun tun;
	uv_loop_t loop;
	uv_loop_init(&loop);

	have_no_link_local_addresses();
	assert(tun_open("test%d", &one_queue, &tun, &error) == 0);
	assert(link_set_mtu(tun.ifindex, 8920, &error) == 0 && link_set_up(tun.ifindex, true, &error) == 0);
	assert(link_add_address_alone(tun.ifindex, &v4, &error) == 0);
	assert(link_add_address_alone(tun.ifindex, &v6, &error) == 0);
	assert(mtu_towards("100.64.0.2") == 0 && mtu_towards("fd64::2") == 0); /* nothing leads there */
	seen.ifindex = tun.ifindex;
	const struct link_watch_ports ports = { &seen, on_link, on_link_gone, on_routes };
	assert(link_watch_start(&watch, &loop, &ports, &error) == 0);

	assert(link_add_network_mtu(tun.ifindex, &net4, v4.ip, 1280, &error) == 0);
	assert(link_add_network_mtu(tun.ifindex, &net6, v6.ip, 1280, &error) == 0);
	assert(link_set_host_mtu(tun.ifindex, &bob4, v4.ip, 8920, &error) == 0);
	assert(link_set_host_mtu(tun.ifindex, &bob6, v6.ip, 1400, &error) == 0);
	assert(mtu_towards("100.64.0.3") == 1280 && mtu_towards("100.64.0.2") == 8920);
	assert(mtu_towards("fd64::3") == 1280 && mtu_towards("fd64::2") == 1400);
	assert(link_set_host_mtu(tun.ifindex, &bob4, v4.ip, 1392, &error) == 0 && mtu_towards("100.64.0.2") == 1392);
	assert(link_set_host_mtu(tun.ifindex, &bob6, v6.ip, 8920, &error) == 0 && mtu_towards("fd64::2") == 8920);
	assert(link_set_host_mtu(tun.ifindex, &bob4, v4.ip, 0, &error) == 0 && mtu_towards("100.64.0.2") == 1280);
	assert(link_set_host_mtu(tun.ifindex, &bob6, v6.ip, 0, &error) == 0 && mtu_towards("fd64::2") == 1280);
	assert(link_set_host_mtu(tun.ifindex, &bob4, v4.ip, 0, &error) == 0); /* that there is none is no failure */
	assert(link_set_host_mtu(tun.ifindex, &bob6, v6.ip, 0, &error) == 0);
	for (int i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert(seen.n_routes == 0);
	const struct link_prefix other = prefix("10.55.0.0", 16);
	assert(link_add_route(tun.ifindex, &other, &error) == 0);
	while (seen.n_routes == 0)
		uv_run(&loop, UV_RUN_ONCE);

	link_watch_close(&watch, on_watch_closed, &seen);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(uv_loop_close(&loop) == 0);
	tun_close(&tun);
}

/* An interface that is up, with an address, and a network's route with an MTU; not that: with the kernel's. */
static void open_overlay(struct tun *tun, const char *ip, uint8_t len, bool has_mtu)
{
	const struct link_prefix address = prefix(ip, len);
	struct link_prefix network = address;
	struct error error;

	memset(network.ip + len / 8, 0, sizeof(network.ip) - len / 8);
	assert(tun_open("test%d", &one_queue, tun, &error) == 0);
	assert(link_set_mtu(tun->ifindex, 8920, &error) == 0 && link_set_up(tun->ifindex, true, &error) == 0);
	if (!has_mtu) {
		assert(link_add_address(tun->ifindex, &address, &error) == 0);
		return;
	}
	assert(link_add_address_alone(tun->ifindex, &address, &error) == 0);
	assert(link_add_network_mtu(tun->ifindex, &network, address.ip, 1280, &error) == 0);
}

static bool leads_to(const char *ip, const struct tun *tun)
{
	const struct link_prefix to = prefix(ip, 0);
	struct link_way way;

	return link_find_way(to.family, NULL, to.ip, 0, &way) == 0 && way.ifindex == (uint32_t)tun->ifindex;
}

static void test_a_route_of_somebody_else_stays_and_goes_before(void)
{
	const struct link_prefix ours = prefix("10.77.0.5", 16), net = prefix("10.77.0.0", 16);
	const struct link_prefix bob = prefix("10.77.0.9", 32), bob6 = prefix("fd77::9", 128);
	const struct link_prefix admins[] = { prefix("10.78.0.9", 32), prefix("fd78::9", 128) };
	struct tun lan, overlay;
	struct error error;

	open_overlay(&lan, "10.77.3.9", 16, false);
	open_overlay(&overlay, "10.77.0.5", 16, true);
	assert(leads_to("10.77.0.9", &lan));
	assert(link_set_host_mtu(overlay.ifindex, &bob, ours.ip, 1400, &error) == -EEXIST);
	assert(link_set_host_mtu(overlay.ifindex, &bob, ours.ip, 0, &error) == 0 && leads_to("10.77.0.9", &lan));
	assert(link_add_network_mtu(overlay.ifindex, &net, ours.ip, 1280, &error) == 0); /* again is nothing */
	tun_close(&overlay);
	assert(leads_to("10.77.0.9", &lan) && leads_to("10.77.200.1", &lan));
	tun_close(&lan);

	open_overlay(&overlay, "10.78.0.5", 16, true);
	const struct link_prefix ours6 = prefix("fd78::5", 64), net6 = prefix("fd78::", 64);
	assert(link_add_address_alone(overlay.ifindex, &ours6, &error) == 0);
	assert(link_add_network_mtu(overlay.ifindex, &net6, ours6.ip, 1280, &error) == 0);
	assert(link_add_network_mtu(overlay.ifindex, &net6, ours6.ip, 1280, &error) == 0);
	open_overlay(&lan, "192.168.9.1", 24, false);
	for (int i = 0; i < 2; i++) { /* through the overlay's interface, then through another */
		const struct tun *at = i == 0 ? &overlay : &lan;
		assert(link_add_route(at->ifindex, &admins[0], &error) == 0);
		assert(link_add_route(at->ifindex, &admins[1], &error) == 0);
		assert(link_set_host_mtu(overlay.ifindex, &admins[0], prefix("10.78.0.5", 0).ip, 1400, &error) == -EEXIST);
		assert(link_set_host_mtu(overlay.ifindex, &admins[1], ours6.ip, 1400, &error) == -EEXIST);
		assert(leads_to("10.78.0.9", at) && leads_to("fd78::9", at));
		assert(link_remove_route(at->ifindex, &admins[0], &error) == 0);
		assert(link_remove_route(at->ifindex, &admins[1], &error) == 0);
	}
	assert(mtu_towards("10.78.0.9") == 1280 && mtu_towards("fd78::9") == 1280);
	assert(link_set_host_mtu(overlay.ifindex, &bob6, NULL, 0, &error) == 0);
	tun_close(&lan);
	tun_close(&overlay);
}

static void test_what_goes_by_a_route_with_an_mtu_is_from_our_address_on_it(void)
{
	const struct link_prefix first = prefix("192.168.9.1", 24), ours = prefix("10.77.0.5", 16);
	const struct link_prefix net = prefix("10.77.0.0", 16), bob = prefix("10.77.0.9", 32);
	const struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr = { inet_addr("10.77.0.9") } };
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	struct error error;
	struct tun tun;

	assert(tun_open("test%d", &one_queue, &tun, &error) == 0 && link_set_up(tun.ifindex, true, &error) == 0);
	assert(link_add_address(tun.ifindex, &first, &error) == 0);
	assert(link_add_address_alone(tun.ifindex, &ours, &error) == 0);
	assert(link_add_network_mtu(tun.ifindex, &net, ours.ip, 1280, &error) == 0);
	for (int i = 0; i < 2; i++) { /* the network's, the host's */
		int fd = socket(AF_INET, SOCK_DGRAM, 0);
		assert(fd >= 0 && connect(fd, (const void *)&to, sizeof(to)) == 0);
		assert(getsockname(fd, (void *)&from, &len) == 0 && memcmp(&from.sin_addr, ours.ip, 4) == 0);
		close(fd);
		assert(link_set_host_mtu(tun.ifindex, &bob, ours.ip, 1400, &error) == 0);
	}
	tun_close(&tun);
}

static void test_all_routes_that_were_left_on_an_interface_go_and_no_others(void)
{
	const struct link_prefix ours = prefix("10.77.0.5", 16), other = prefix("10.78.0.5", 16);
	const struct link_prefix admins = prefix("10.55.0.0", 16), kept = prefix("10.78.0.9", 32);
	const struct link_prefix ours6 = prefix("fd77::5", 64), net6 = prefix("fd77::", 64);
	struct tun tun, second;
	struct error error;

	open_overlay(&tun, "10.77.0.5", 16, true);
	open_overlay(&second, "10.78.0.5", 16, true);
	assert(link_add_address_alone(tun.ifindex, &ours6, &error) == 0);
	assert(link_add_network_mtu(tun.ifindex, &net6, ours6.ip, 1280, &error) == 0);
	assert(link_add_route(tun.ifindex, &admins, &error) == 0);
	assert(link_set_host_mtu(second.ifindex, &kept, other.ip, 1400, &error) == 0);
	for (uint16_t i = 0; i < 1000; i++) { /* more than one part of the kernel's answer */
		struct link_prefix peer = prefix("10.77.8.0", 32), peer6 = prefix("fd77::", 128);
		peer.ip[2] = (uint8_t)(8 + i / 250);
		peer.ip[3] = (uint8_t)(1 + i % 250);
		memcpy(peer6.ip + 8, peer.ip, 4);
		assert(link_set_host_mtu(tun.ifindex, &peer, ours.ip, 1400, &error) == 0);
		assert(link_set_host_mtu(tun.ifindex, &peer6, ours6.ip, 1400, &error) == 0);
	}
	assert(mtu_towards("10.77.8.1") == 1400);
	assert(link_remove_all_mtu(tun.ifindex, &error) == 2002 && link_remove_all_mtu(tun.ifindex, &error) == 0);
	assert(mtu_towards("10.77.8.1") == 0 && mtu_towards("10.77.0.9") == 0 && mtu_towards("fd77::9") == 0);
	assert(leads_to("10.55.0.9", &tun) && mtu_towards("10.78.0.9") == 1400 && mtu_towards("10.78.0.8") == 1280);
	tun_close(&second);
	tun_close(&tun);
}

/* An address with the kernel's route to its network becomes one of ours. */
static void test_the_kernels_route_for_an_address_makes_place_for_one_with_an_mtu(void)
{
	const struct link_prefix ours[] = { prefix("10.77.0.5", 16), prefix("fd77::5", 64) };
	const struct link_prefix nets[] = { prefix("10.77.0.0", 16), prefix("fd77::", 64) };
	struct error error;
	struct tun tun;

	open_overlay(&tun, "10.77.0.5", 16, false);
	assert(link_add_address(tun.ifindex, &ours[1], &error) == 0);
	for (int i = 0; i < 2; i++) {
		assert(link_add_network_mtu(tun.ifindex, &nets[i], ours[i].ip, 1280, &error) == 0);
		assert(mtu_towards(i == 0 ? "10.77.0.9" : "fd77::9") == 8920);
		assert(link_remove_kernel_route(tun.ifindex, &nets[i], ours[i].ip, &error) == 0);
		assert(mtu_towards(i == 0 ? "10.77.0.9" : "fd77::9") == 1280);
		assert(link_remove_kernel_route(tun.ifindex, &nets[i], ours[i].ip, &error) == 0);
	}
	tun_close(&tun);
}

/* A request to the kernel that it must grant. */
static void request(const void *message, size_t len)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
	} answer;

	assert(fd >= 0 && sendto(fd, message, len, 0, (const void *)&kernel, sizeof(kernel)) == (ssize_t)len);
	assert(recv(fd, &answer, sizeof(answer), 0) >= (ssize_t)sizeof(answer));
	assert(answer.header.nlmsg_type == NLMSG_ERROR && answer.error.error == 0);
	close(fd);
}

static void change_rule(uint16_t type, uint8_t family)
{
	const struct {
		struct nlmsghdr header;
		struct fib_rule_hdr rule;
	} message = {
		.header = { .nlmsg_len = sizeof(message), .nlmsg_type = type,
			    .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE },
		.rule = { .family = family, .table = 100, .action = FR_ACT_TO_TBL },
	};

	request(&message, sizeof(message));
}

static void change_nexthop(uint16_t type)
{
	const struct {
		struct nlmsghdr header;
		struct nhmsg nexthop;
		struct nlattr id_header;
		uint32_t id;
		struct nlattr blackhole; /* not when it is deleted */
	} message = {
		.header = { .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE,
			    .nlmsg_len = sizeof(message) - (type == RTM_DELNEXTHOP ? sizeof(struct nlattr) : 0) },
		.nexthop = { .nh_family = type == RTM_DELNEXTHOP ? AF_UNSPEC : AF_INET },
		.id_header = { .nla_len = sizeof(struct nlattr) + sizeof(uint32_t), .nla_type = NHA_ID },
		.id = 7,
		.blackhole = { .nla_len = sizeof(struct nlattr), .nla_type = NHA_BLACKHOLE },
	};

	request(&message, message.header.nlmsg_len);
}

static void await_routes(uv_loop_t *loop, struct seen *seen)
{
	while (seen->n_routes == 0)
		uv_run(loop, UV_RUN_ONCE);
	seen->n_routes = 0;
}

static void test_rules_and_nexthops_are_told_as_routes(void)
{
	struct seen seen = { 0 };
	const struct link_watch_ports ports = { .owner = &seen, .routes = on_routes };
	struct link_watch watch;
	struct error error;
	uv_loop_t loop;
	uv_loop_init(&loop);

	assert(link_watch_start(&watch, &loop, &ports, &error) == 0);
	for (int i = 0; i < 2; i++) {
		change_rule(RTM_NEWRULE, i ? AF_INET6 : AF_INET);
		await_routes(&loop, &seen);
		change_rule(RTM_DELRULE, i ? AF_INET6 : AF_INET);
		await_routes(&loop, &seen);
	}
	change_nexthop(RTM_NEWNEXTHOP);
	await_routes(&loop, &seen);
	change_nexthop(RTM_DELNEXTHOP);
	await_routes(&loop, &seen);

	link_watch_close(&watch, on_watch_closed, &seen);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(seen.n_closed == 1 && uv_loop_close(&loop) == 0);
}

static void on_begins(void *owner)
{
	((struct seen *)owner)->n_begun++;
}

static void on_changed(void *owner)
{
	((struct seen *)owner)->n_changed++;
}

/* A rule more, a rule less: at once, and again when no more follows. */
static void test_that_something_changes_is_told_before_it_has_settled(void)
{
	struct seen seen = { 0 };
	const struct link_monitor_ports ports = { .owner = &seen, .begins = on_begins, .changed = on_changed };
	struct link_monitor *monitor;
	struct error error;
	uv_loop_t loop;
	uv_loop_init(&loop);

	assert(link_monitor_new(&loop, &ports, &monitor, &error) == 0);
	change_rule(RTM_NEWRULE, AF_INET);
	change_rule(RTM_DELRULE, AF_INET);
	while (seen.n_begun == 0)
		uv_run(&loop, UV_RUN_ONCE);
	assert(seen.n_changed == 0);
	while (seen.n_changed == 0)
		uv_run(&loop, UV_RUN_ONCE);
	assert(seen.n_begun == 1);

	link_monitor_close(monitor, on_watch_closed, &seen);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(seen.n_closed == 1 && uv_loop_close(&loop) == 0);
}

static void test_the_interfaces_namespace_can_be_visited(void)
{
	struct netns_visit visit;
	struct link_info link;
	struct error error;
	struct tun tun;

	assert(tun_open("visited", &one_queue, &tun, &error) == 0);
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
	test_a_source_fits_where_its_answers_leave();
	test_what_is_written_reaches_the_kernel();
	test_a_flow_stays_in_its_queue_and_flows_are_spread();
	test_a_datagram_and_fragments_of_another_share_a_queue();
	test_an_interface_with_queues_is_not_shared_with_another_program();
	test_changes_are_told();
	test_a_route_may_have_an_mtu_of_its_own_and_nobody_looks_up_for_it();
	test_a_route_of_somebody_else_stays_and_goes_before();
	test_what_goes_by_a_route_with_an_mtu_is_from_our_address_on_it();
	test_all_routes_that_were_left_on_an_interface_go_and_no_others();
	test_the_kernels_route_for_an_address_makes_place_for_one_with_an_mtu();
	test_rules_and_nexthops_are_told_as_routes();
	test_that_something_changes_is_told_before_it_has_settled();
	test_the_interfaces_namespace_can_be_visited();
	puts("ok");
	return 0;
}
