#include "node/link_monitor.h"

#include "node/wireguard/link_watch.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_MS 100

struct link_monitor {
	struct link_watch watch;
	uv_timer_t settle;
	struct link_monitor_ports ports;
	int n_open;
	void (*closed)(void *owner);
	void *closed_owner;
};

static void on_settled(uv_timer_t *timer)
{
	struct link_monitor *monitor = container_of(timer, struct link_monitor, settle);

	monitor->ports.changed(monitor->ports.owner);
}

/* What exactly changed does not matter: the owner looks anew. */
static void on_routes(void *owner)
{
	struct link_monitor *monitor = owner;

	if (uv_is_active((uv_handle_t *)&monitor->settle))
		return;
	uv_timer_start(&monitor->settle, on_settled, SETTLE_MS, 0);
	monitor->ports.begins(monitor->ports.owner);
}

static void on_link(void *owner, const struct link_info *link)
{
	on_routes(owner);
}

static void free_closed(uv_handle_t *handle)
{
	free(container_of((uv_timer_t *)handle, struct link_monitor, settle));
}

int link_monitor_new(uv_loop_t *loop, const struct link_monitor_ports *ports, struct link_monitor **ret,
		     struct error *reterr)
{
	struct link_monitor *monitor = calloc(1, sizeof(*monitor));
	const struct link_watch_ports watched = {
		.owner = monitor, .link = on_link, .link_gone = on_link, .routes = on_routes
	};

	if (!monitor)
		abort();
	monitor->ports = *ports;
	uv_timer_init(loop, &monitor->settle);
	int r = link_watch_start(&monitor->watch, loop, &watched, reterr);
	if (r != 0) {
		uv_close((uv_handle_t *)&monitor->settle, free_closed);
		return r;
	}
	*ret = monitor;
	return 0;
}

static void on_part_closed(struct link_monitor *monitor)
{
	if (--monitor->n_open > 0)
		return;
	monitor->closed(monitor->closed_owner);
	free(monitor);
}

static void on_watch_closed(void *arg)
{
	on_part_closed(arg);
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_timer_t *)handle, struct link_monitor, settle));
}

void link_monitor_close(struct link_monitor *monitor, void (*closed)(void *owner), void *owner)
{
	if (!monitor) {
		closed(owner);
		return;
	}
	monitor->closed = closed;
	monitor->closed_owner = owner;
	monitor->n_open = 2;
	link_watch_close(&monitor->watch, on_watch_closed, monitor);
	uv_close((uv_handle_t *)&monitor->settle, on_timer_closed);
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
