#include "node/wireguard/link_watch.h"

#include <assert.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/macros.h"

/* Groups that have no RTMGRP_ name; one that the kernel does not know is as if it were silent. */
#define GROUP(number) (1u << ((number) - 1))
#define GROUPS                                                                                                  \
	(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE |        \
	 RTMGRP_IPV4_RULE | GROUP(RTNLGRP_IPV6_RULE) | GROUP(RTNLGRP_NEXTHOP))

/* What may lead packets another way. */
static bool is_route_message(uint16_t type)
{
	switch (type) {
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
	case RTM_NEWADDR:
	case RTM_DELADDR:
	case RTM_NEWRULE:
	case RTM_DELRULE:
	case RTM_NEWNEXTHOP:
	case RTM_DELNEXTHOP:
		return true;
	default:
		return false;
	}
}

/* Made by link_add_network_mtu() or link_set_host_mtu(): what it leads to is where it was. */
static bool is_about_size(const struct nlmsghdr *message)
{
	if (message->nlmsg_type != RTM_NEWROUTE && message->nlmsg_type != RTM_DELROUTE)
		return false;
	return message->nlmsg_len >= NLMSG_LENGTH(sizeof(struct rtmsg)) &&
	       ((const struct rtmsg *)NLMSG_DATA(message))->rtm_protocol == LINK_PROTOCOL_MTU;
}

/* True when the message is about addresses, routes, rules or nexthops. */
static bool handle_message(struct link_watch *watch, const struct nlmsghdr *message)
{
	const struct link_watch_ports *ports = &watch->ports;
	struct link_info link;

	if (!link_info_from_message(message, &link))
		return is_route_message(message->nlmsg_type) && !is_about_size(message);
	/* Bridges tell of their ports in the same words, in a family of their own. */
	if (((const struct ifinfomsg *)NLMSG_DATA(message))->ifi_family != AF_UNSPEC)
		return false;
	if (message->nlmsg_type == RTM_NEWLINK && ports->link)
		ports->link(ports->owner, &link);
	if (message->nlmsg_type == RTM_DELLINK && ports->link_gone)
		ports->link_gone(ports->owner, &link);
	return false;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct link_watch *watch = container_of(poll, struct link_watch, poll);
	_Alignas(struct nlmsghdr) char buffer[32768];
	bool routes_changed = false;

	ssize_t n = recv(watch->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	if (n < 0) /* ENOBUFS: something was lost */
		routes_changed = errno == ENOBUFS;

	int left = (int)n; /* below zero when what is left is shorter than its padding */
	for (const struct nlmsghdr *m = (const void *)buffer;
	     left > 0 && NLMSG_OK(m, (unsigned)left) && !watch->closed;
	     left -= (int)NLMSG_ALIGN(m->nlmsg_len), m = (const void *)((const char *)m + NLMSG_ALIGN(m->nlmsg_len)))
		routes_changed |= handle_message(watch, m);
	if (routes_changed && !watch->closed && watch->ports.routes)
		watch->ports.routes(watch->ports.owner);
}

int link_watch_start(struct link_watch *watch, uv_loop_t *loop, const struct link_watch_ports *ports,
		     struct error *reterr)
{
	const struct sockaddr_nl groups = { .nl_family = AF_NETLINK, .nl_groups = GROUPS };

	*watch = (struct link_watch){ .ports = *ports };
	watch->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	int r = watch->fd < 0 ? -errno : 0;
	if (r == 0 && bind(watch->fd, (const void *)&groups, sizeof(groups)) != 0)
		r = -errno;
	if (r == 0)
		r = uv_poll_init(loop, &watch->poll, watch->fd);
	if (r != 0) {
		if (watch->fd >= 0)
			close(watch->fd);
		watch->fd = -1;
		return error_set(reterr, r, "cannot watch interfaces: %s", strerror(-r));
	}
	return uv_poll_start(&watch->poll, UV_READABLE, on_readable);
}

static void on_closed(uv_handle_t *handle)
{
	struct link_watch *watch = container_of((uv_poll_t *)handle, struct link_watch, poll);

	close(watch->fd);
	watch->fd = -1;
	watch->closed(watch->closed_arg);
}

void link_watch_close(struct link_watch *watch, void (*closed)(void *arg), void *arg)
{
	assert(!watch->closed);
	watch->closed = closed;
	watch->closed_arg = arg;
	uv_close((uv_handle_t *)&watch->poll, on_closed);
}
