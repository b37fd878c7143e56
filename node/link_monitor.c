#include "node/link_monitor.h"

#include <errno.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTLE_MS 100

struct link_monitor {
	int fd;
	char except[IF_NAMESIZE];
	unsigned except_index; /* its last one; 0: never seen */
	uv_poll_t poll;
	uv_timer_t settle;
	void (*changed)(void *owner);
	void *owner;
	int n_open_handles;
	void (*closed)(void *owner);
	void *closed_owner;
};

static void on_settled(uv_timer_t *timer)
{
	struct link_monitor *monitor = container_of(timer, struct link_monitor, settle);

	monitor->changed(monitor->owner);
}

/* The attribute of that type, or NULL. `own_len`: of the message's own header, which stands before them. */
static const struct rtattr *find_attribute(const struct nlmsghdr *message, size_t own_len, unsigned short type)
{
	const uint8_t *bytes = (const uint8_t *)message;
	size_t at = NLMSG_SPACE(own_len);

	while (at + sizeof(struct rtattr) <= message->nlmsg_len) {
		const struct rtattr *a = (const void *)(bytes + at);
		if (a->rta_len < sizeof(*a) || a->rta_len > message->nlmsg_len - at)
			break;
		if (a->rta_type == type)
			return a;
		at += RTA_ALIGN((size_t)a->rta_len);
	}
	return NULL;
}

/* A link of our interface's name tells its index, by which addresses and routes know it. */
static bool is_own_link(struct link_monitor *monitor, const struct nlmsghdr *message)
{
	const struct ifinfomsg *link = NLMSG_DATA(message);
	const struct rtattr *name = find_attribute(message, sizeof(*link), IFLA_IFNAME);

	if (name && strncmp(RTA_DATA(name), monitor->except, RTA_PAYLOAD(name)) == 0)
		monitor->except_index = (unsigned)link->ifi_index;
	return (unsigned)link->ifi_index == monitor->except_index;
}

static bool is_own_route(const struct link_monitor *monitor, const struct nlmsghdr *message)
{
	const struct rtattr *out = find_attribute(message, sizeof(struct rtmsg), RTA_OIF);
	unsigned index;

	if (!out || RTA_PAYLOAD(out) != sizeof(index))
		return false;
	memcpy(&index, RTA_DATA(out), sizeof(index));
	return index == monitor->except_index;
}

static bool is_news(struct link_monitor *monitor, const struct nlmsghdr *message)
{
	switch (message->nlmsg_type) {
	case RTM_NEWLINK:
	case RTM_DELLINK:
		return message->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg)) ||
		       !is_own_link(monitor, message);
	case RTM_NEWADDR:
	case RTM_DELADDR:
		return message->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifaddrmsg)) ||
		       ((const struct ifaddrmsg *)NLMSG_DATA(message))->ifa_index != monitor->except_index;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		return message->nlmsg_len < NLMSG_LENGTH(sizeof(struct rtmsg)) || !is_own_route(monitor, message);
	default:
		return true;
	}
}

/* True when a message among those waiting is news. An overrun (ENOBUFS) is: something was lost. */
static bool read_news(struct link_monitor *monitor)
{
	_Alignas(struct nlmsghdr) char buffer[8192];
	bool news = false;
	ssize_t n;

	while ((n = recv(monitor->fd, buffer, sizeof(buffer), MSG_DONTWAIT)) >= 0 || errno == ENOBUFS) {
		news |= n < 0;
		for (const struct nlmsghdr *m = (const void *)buffer; n > 0 && NLMSG_OK(m, n);
		     m = NLMSG_NEXT(m, n))
			news |= is_news(monitor, m);
	}
	return news;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct link_monitor *monitor = container_of(poll, struct link_monitor, poll);

	/* What exactly changed does not matter: the owner looks anew. */
	if (read_news(monitor) && !uv_is_active((uv_handle_t *)&monitor->settle))
		uv_timer_start(&monitor->settle, on_settled, SETTLE_MS, 0);
}

int link_monitor_new(uv_loop_t *loop, const char *except, void (*changed)(void *owner), void *owner,
		     struct link_monitor **ret)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK,
				       .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
						    RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	struct link_monitor *monitor = calloc(1, sizeof(*monitor));
	if (!monitor)
		abort();
	*monitor = (struct link_monitor){ .fd = fd, .changed = changed, .owner = owner,
					  .except_index = if_nametoindex(except) };
	snprintf(monitor->except, sizeof(monitor->except), "%s", except);
	uv_timer_init(loop, &monitor->settle);
	if (uv_poll_init(loop, &monitor->poll, fd) != 0 ||
	    uv_poll_start(&monitor->poll, UV_READABLE, on_readable) != 0)
		abort(); /* a fresh socket can be polled */
	*ret = monitor;
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct link_monitor *monitor = handle->data;

	if (--monitor->n_open_handles > 0)
		return;
	close(monitor->fd);
	monitor->closed(monitor->closed_owner);
	free(monitor);
}

void link_monitor_close(struct link_monitor *monitor, void (*closed)(void *owner), void *owner)
{
	if (!monitor) {
		closed(owner);
		return;
	}
	monitor->closed = closed;
	monitor->closed_owner = owner;
	monitor->n_open_handles = 2;
	monitor->poll.data = monitor;
	monitor->settle.data = monitor;
	uv_close((uv_handle_t *)&monitor->poll, on_closed);
	uv_close((uv_handle_t *)&monitor->settle, on_closed);
}

static bool is_usable(const struct ifaddrs *interface, const char *except)
{
	if (!interface->ifa_addr || strcmp(interface->ifa_name, except) == 0)
		return false;
	if (!(interface->ifa_flags & IFF_UP) || (interface->ifa_flags & (IFF_LOOPBACK | IFF_POINTOPOINT)))
		return false;
	return interface->ifa_addr->sa_family == AF_INET || interface->ifa_addr->sa_family == AF_INET6;
}

size_t link_local_endpoints(uint16_t port, const char *except, struct endpoint *ret, size_t max)
{
	struct ifaddrs *interfaces;
	size_t n = 0;

	if (getifaddrs(&interfaces) != 0)
		return 0;
	for (struct ifaddrs *i = interfaces; i && n < max; i = i->ifa_next) {
		if (!is_usable(i, except))
			continue;
		struct endpoint endpoint = endpoint_from_sockaddr(i->ifa_addr);
		bool is_link_local = !endpoint_is_v4(&endpoint) && endpoint.ip[0] == 0xfe &&
				     (endpoint.ip[1] & 0xc0) == 0x80;
		if (is_link_local || endpoint_is_none(&endpoint))
			continue;
		endpoint.port = port;
		ret[n++] = endpoint;
	}
	freeifaddrs(interfaces);
	return n;
}
