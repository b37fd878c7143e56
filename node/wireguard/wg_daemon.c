/*
 * Whatever changes the sockets or the device as a whole is a *step*: a configuration request, or
 * the interface going up or down. One step at a time: it opens what it needs on the loop, runs a
 * command on the device's thread, and when that is done frees what is no longer needed and begins the next.
 */
#include "node/wireguard/wg_daemon.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "node/wireguard/lanes.h"
#include "node/wireguard/link_watch.h"
#include "node/wireguard/netns.h"
#include "node/wireguard/uapi.h"
#include "node/wireguard/uapi_apply.h"

#define LOG "wireguard"

/* What the device's thread does for a step, and what it gives back. */
struct step {
	const struct uapi_request *request; /* NULL: the interface went up or down */
	bool changes_sockets, comes_up;
	struct udp *udp; /* the sockets from now on */
	uint16_t listen_port;
	uint32_t fwmark;
	int result;
	char *text; /* of the answer; NULL: the result only */
	size_t text_len;
};

struct wg_daemon {
	uv_loop_t *loop;
	void (*ended)(void *arg);
	void *ended_arg;

	struct offloads offloads; /* of TUN and UDP */
	unsigned n_lanes;	   /* wanted */
	struct tun tun; /* a descriptor of its own; the lanes have another one */
	struct lanes *lanes;
	struct uapi_server *uapi;
	struct link_watch watch;	/* of the interface, where it is now */
	struct link_watch routes_watch; /* of the namespace our sockets are in */
	bool has_watch, has_routes_watch;
	int n_parts; /* open: lanes, UAPI, watches */
	bool is_stopping;

	uint16_t listen_port; /* configured; 0: any */
	bool is_port_chosen;  /* listen_port was chosen by the kernel */
	uint32_t fwmark;
	struct udp *udp, *udp_before;
	bool is_link_up, is_up; /* what it is; what we have followed */
	uint32_t mtu;		/* followed */
	bool has_step;
	struct step step;
	bool is_forgetting;	    /* sources, on the device's thread */
	bool must_forget_again;	    /* routes have changed meanwhile */
	bool is_taking_drops;	    /* the device's thread writes them */
	bool must_log_again;	    /* asked for while that was under way */
	uint64_t drops[WG_N_DROPS]; /* as of the last wg_daemon_log() */
};

static void next_step(struct wg_daemon *daemon);
static void on_routes(void *owner);

/* the end */

static void on_part_closed(void *arg)
{
	struct wg_daemon *daemon = arg;

	if (--daemon->n_parts > 0)
		return;
	void (*ended)(void *arg) = daemon->ended;
	void *ended_arg = daemon->ended_arg;

	udp_free(daemon->udp);
	udp_free(daemon->udp_before);
	free(daemon);
	ended(ended_arg);
}

void wg_daemon_stop(struct wg_daemon *daemon)
{
	if (daemon->is_stopping)
		return;
	daemon->is_stopping = true;
	/* A part of our own, so that we live until all have been told. */
	daemon->n_parts++;
	tun_close(&daemon->tun);
	if (daemon->lanes)
		lanes_stop(daemon->lanes, on_part_closed, daemon);
	if (daemon->has_watch)
		link_watch_close(&daemon->watch, on_part_closed, daemon);
	if (daemon->has_routes_watch)
		link_watch_close(&daemon->routes_watch, on_part_closed, daemon);
	if (daemon->uapi)
		uapi_close(daemon->uapi, on_part_closed, daemon);
	on_part_closed(daemon);
}

/* steps: on the device's thread */

/*
 * An initiation that was made before there were sockets went nowhere, and the next is not due for 5 s. That
 * happens: peers are configured before the interface is up, and the kernel hands over packets from the
 * moment that it is, of which we learn a little later.
 */
static void bring_up(struct wg_device *device, struct wg_time now)
{
	struct wg_stats stats;

	for (struct wg_peer *peer = wg_device_first_peer(device); peer; peer = wg_peer_next(peer)) {
		const bool wants_keepalive = wg_peer_keepalive(peer) > 0;
		wg_peer_get_stats(peer, now, &stats);
		if (stats.has_session && wants_keepalive)
			wg_peer_send_keepalive(peer, now);
		else if (!stats.has_session && (wants_keepalive || stats.n_staged > 0))
			wg_peer_reconnect(peer, now);
	}
}

static void run_step(const struct lanes_context *context, void *arg)
{
	struct step *step = arg;

	if (step->changes_sockets)
		lanes_use_udp(context, step->udp);
	if (step->comes_up)
		bring_up(context->device, context->now);
	if (!step->request)
		return;
	if (step->request->command == UAPI_GET)
		step->text = uapi_describe(context->device, step->listen_port, step->fwmark, context->now,
					   &step->text_len);
	else
		step->result = uapi_apply(context->device, step->request->items, step->request->n_items,
					  context->now);
}

/* steps: on the loop */

static void on_step_done(void *arg)
{
	struct step *step = arg;
	struct wg_daemon *daemon = container_of(step, struct wg_daemon, step);

	udp_free(daemon->udp_before);
	daemon->udp_before = NULL;
	daemon->has_step = false;
	if (step->text)
		uapi_answer(daemon->uapi, step->text, step->text_len);
	else if (step->request)
		uapi_answer_result(daemon->uapi, step->result);
	next_step(daemon);
}

/* The lanes get the daemon's sockets as they are now. */
static void change_sockets(struct wg_daemon *daemon, struct udp *udp)
{
	assert(!daemon->udp_before);
	daemon->udp_before = daemon->udp;
	daemon->udp = udp;
	daemon->step.changes_sockets = true;
}

static void run_on_lanes(struct wg_daemon *daemon)
{
	daemon->has_step = true;
	daemon->step.udp = daemon->udp;
	daemon->step.listen_port = daemon->listen_port;
	daemon->step.fwmark = daemon->fwmark;
	int r = lanes_run(daemon->lanes, run_step, &daemon->step, on_step_done);
	assert(r == 0); /* one step at a time, and one "forget" */
}

static int open_sockets(struct wg_daemon *daemon, uint16_t port, bool any_if_taken, struct error *reterr)
{
	const struct udp_options options = {
		.port = port,
		.any_port_if_taken = any_if_taken,
		.fwmark = daemon->fwmark,
		.n_shards = lanes_n_shards(daemon->n_lanes),
		.offloads = &daemon->offloads,
	};
	struct udp *udp = NULL;

	int r = udp_open(&options, &udp, reterr);
	if (r != 0)
		return r;
	daemon->is_port_chosen = udp->port != port || any_if_taken;
	daemon->listen_port = udp->port;
	change_sockets(daemon, udp);
	log_debug(LOG, "listening on UDP port %u", udp->port);
	return 0;
}

static void follow_link(struct wg_daemon *daemon)
{
	struct error error;

	daemon->step = (struct step){ 0 };
	daemon->is_up = daemon->is_link_up;
	log_info(LOG, "interface %s is %s", daemon->tun.name, daemon->is_up ? "up" : "down");
	if (!daemon->is_up)
		change_sockets(daemon, NULL);
	else if (open_sockets(daemon, daemon->listen_port, daemon->is_port_chosen, &error) == 0)
		daemon->step.comes_up = true;
	else
		log_error(LOG, "%s", error.message);
	run_on_lanes(daemon);
}

static int set_listen_port(struct wg_daemon *daemon, uint16_t port)
{
	struct error error;

	if (port != 0 && port == daemon->listen_port && (daemon->udp || !daemon->is_up)) {
		daemon->is_port_chosen = false;
		return 0;
	}
	if (!daemon->is_up) {
		daemon->listen_port = port;
		daemon->is_port_chosen = false;
		return 0;
	}
	int r = open_sockets(daemon, port, false, &error);
	if (r != 0)
		log_error(LOG, "%s", error.message);
	return r;
}

static int set_fwmark(struct wg_daemon *daemon, uint32_t fwmark)
{
	struct error error;
	int r = daemon->udp ? udp_set_mark(daemon->udp, fwmark, &error) : 0;

	if (r != 0) {
		log_error(LOG, "%s", error.message);
		return r;
	}
	daemon->fwmark = fwmark;
	on_routes(daemon); /* another mark may lead another way */
	return 0;
}

/* What of a set request is ours and not the device's: the sockets. The last line of a key counts. */
static int set_sockets(struct wg_daemon *daemon, const struct uapi_request *request)
{
	const struct uapi_item *port = NULL, *fwmark = NULL;
	int r = 0;

	for (size_t i = 0; i < request->n_items; i++) {
		if (request->items[i].key == UAPI_LISTEN_PORT)
			port = &request->items[i];
		if (request->items[i].key == UAPI_FWMARK)
			fwmark = &request->items[i];
	}
	if (fwmark)
		r = set_fwmark(daemon, fwmark->number);
	if (r == 0 && port)
		r = set_listen_port(daemon, (uint16_t)port->number);
	return r;
}

/* Interfaces named in link-local endpoints, in the namespace of our sockets. */
static int look_scopes_up(const struct uapi_request *request)
{
	for (size_t i = 0; i < request->n_items; i++) {
		struct uapi_item *item = &request->items[i];
		if (item->key != UAPI_ENDPOINT || !item->scope_name[0])
			continue;
		item->endpoint.scope_id = if_nametoindex(item->scope_name);
		if (item->endpoint.scope_id == 0)
			return -ENODEV;
	}
	return 0;
}

static void begin_request(struct wg_daemon *daemon, const struct uapi_request *request)
{
	daemon->step = (struct step){ .request = request };
	int r = look_scopes_up(request);
	if (r == 0 && request->command == UAPI_SET)
		r = set_sockets(daemon, request);
	if (r != 0)
		uapi_answer_result(daemon->uapi, r);
	else
		run_on_lanes(daemon);
}

static void next_step(struct wg_daemon *daemon)
{
	const struct uapi_request *request;

	while (!daemon->has_step && !daemon->is_stopping) {
		if (daemon->is_up != daemon->is_link_up)
			follow_link(daemon);
		else if (daemon->uapi && (request = uapi_take(daemon->uapi)))
			begin_request(daemon, request);
		else
			return;
	}
}

/* what happened */

static void log_offloads(const struct wg_daemon *daemon)
{
	for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++) {
		struct offload_report report = offloads_report(&daemon->offloads, (enum offload_kind)kind);
		log_info(LOG, "%s: %s%s%s, used %" PRIu64 ", refused %" PRIu64 ", fell back %" PRIu64,
			 report.name, report.state, report.error[0] ? " " : "", report.error, report.n_used,
			 report.n_refused, report.n_fell_back);
	}
}

static void take_drops(const struct lanes_context *context, void *arg)
{
	struct wg_daemon *daemon = arg;

	for (int drop = 0; drop < WG_N_DROPS; drop++)
		daemon->drops[drop] = wg_device_drops(context->device, (enum wg_drop)drop);
}

static void log_lanes(struct wg_daemon *daemon)
{
	struct lane_counters counters;
	const char *role;

	for (unsigned i = 0; lanes_get_lane(daemon->lanes, i, &counters, &role); i++)
		log_info(LOG,
			 "lane %u (%s): from the interface %" PRIu64 " packets, %" PRIu64
			 " bytes; from the network %" PRIu64 " datagrams, %" PRIu64 " bytes",
			 i, role, counters.n_tun_packets, counters.n_tun_bytes, counters.n_udp_datagrams,
			 counters.n_udp_bytes);
}

static void on_drops_taken(void *arg)
{
	struct wg_daemon *daemon = arg;
	struct lane_counters counters;
	char text[1024] = "";
	size_t n = 0;

	daemon->is_taking_drops = false;
	if (daemon->is_stopping)
		return;
	log_lanes(daemon);
	lanes_get_counters(daemon->lanes, &counters);
	for (int drop = 0; drop < WG_N_DROPS && n < sizeof(text); drop++)
		if (daemon->drops[drop] > 0)
			n += (size_t)snprintf(text + n, sizeof(text) - n, ", %s %" PRIu64,
					      wg_drop_name((enum wg_drop)drop), daemon->drops[drop]);
	log_info(LOG, "datagrams %" PRIu64 ", packets %" PRIu64 "; dropped: strange %" PRIu64 "%s",
		 counters.n_udp_datagrams, counters.n_tun_packets, counters.n_unknown, text);
	if (daemon->must_log_again)
		wg_daemon_log(daemon);
}

void wg_daemon_log(struct wg_daemon *daemon)
{
	daemon->must_log_again = daemon->is_taking_drops;
	if (daemon->is_taking_drops)
		return;
	log_offloads(daemon);
	if (daemon->is_stopping || lanes_run(daemon->lanes, take_drops, daemon, on_drops_taken) != 0)
		log_warning(LOG, "no counters: the interface is ending, or too busy");
	else
		daemon->is_taking_drops = true;
}

/* the interface */

static void set_mtu(const struct lanes_context *context, void *arg)
{
	lanes_set_mtu(context, (uint32_t)(uintptr_t)arg);
}

/* Where the interface is now, and by its descriptor: in another namespace its index is another's here. */
static void fit_superpackets(struct wg_daemon *daemon, uint32_t mtu)
{
	struct netns_visit visit;
	struct link_info link;
	struct error error;

	if (netns_enter_that_of(daemon->tun.fd, &visit, &error) != 0) {
		log_debug(LOG, "%s", error.message); /* only slower */
		return;
	}
	if (tun_name(&daemon->tun) == 0 && link_find(daemon->tun.name, &link, &error) == 0)
		tun_fit_superpackets(link.ifindex, mtu);
	netns_leave(&visit);
}

static void follow_mtu(struct wg_daemon *daemon, const struct link_info *link)
{
	if (link->mtu == 0 || link->mtu == daemon->mtu)
		return;
	fit_superpackets(daemon, link->mtu);
	if (lanes_run(daemon->lanes, set_mtu, (void *)(uintptr_t)link->mtu, NULL) == 0)
		daemon->mtu = link->mtu;
	else
		log_warning(LOG, "interface %s changes faster than it can be followed", link->name);
}

static void on_link(void *owner, const struct link_info *link)
{
	struct wg_daemon *daemon = owner;

	if (link->ifindex != daemon->tun.ifindex)
		return;
	follow_mtu(daemon, link);
	daemon->is_link_up = link->is_up;
	next_step(daemon);
}

static void forget_sources(const struct lanes_context *context, void *arg)
{
	wg_device_forget_sources(context->device);
}

static void on_sources_forgotten(void *arg);

/* What came in between the forgetting and this change has taught the old source again. */
static void begin_forgetting(struct wg_daemon *daemon)
{
	daemon->must_forget_again = daemon->is_forgetting;
	if (!daemon->is_forgetting)
		daemon->is_forgetting =
			lanes_run(daemon->lanes, forget_sources, daemon, on_sources_forgotten) == 0;
}

static void on_sources_forgotten(void *arg)
{
	struct wg_daemon *daemon = arg;

	daemon->is_forgetting = false;
	if (daemon->must_forget_again && !daemon->is_stopping)
		begin_forgetting(daemon);
}

static void on_routes(void *owner)
{
	struct wg_daemon *daemon = owner;

	if (daemon->udp)
		udp_routes_changed(daemon->udp);
	begin_forgetting(daemon);
}

/* A cable that is pulled, or in again: packets may go elsewhere though no route has changed. */
static void on_any_link(void *owner, const struct link_info *link)
{
	on_routes(owner);
}

static void on_link_gone(void *owner, const struct link_info *link);

static int watch_here(struct wg_daemon *daemon, struct error *reterr)
{
	const struct link_watch_ports ports = {
		.owner = daemon,
		.link = on_link,
		.link_gone = on_link_gone,
	};
	int r = link_watch_start(&daemon->watch, daemon->loop, &ports, reterr);

	if (r != 0)
		return r;
	daemon->has_watch = true;
	daemon->n_parts++;
	return 0;
}

static int watch_routes(struct wg_daemon *daemon, struct error *reterr)
{
	const struct link_watch_ports ports = {
		.owner = daemon, .link = on_any_link, .link_gone = on_any_link, .routes = on_routes
	};
	int r = link_watch_start(&daemon->routes_watch, daemon->loop, &ports, reterr);

	if (r != 0)
		return r;
	daemon->has_routes_watch = true;
	daemon->n_parts++;
	return 0;
}

/* Index and state of the interface in the namespace we are in; the name may have changed. */
static int look_at_link(struct wg_daemon *daemon, struct error *reterr)
{
	struct link_info link;
	int r = tun_name(&daemon->tun);

	if (r == 0)
		r = link_find(daemon->tun.name, &link, reterr);
	if (r != 0)
		return r;
	daemon->tun.ifindex = link.ifindex;
	on_link(daemon, &link);
	return 0;
}

static void on_old_watch_closed(void *arg);

static void begin_following(struct wg_daemon *daemon)
{
	daemon->has_watch = false;
	link_watch_close(&daemon->watch, on_old_watch_closed, daemon);
}

/* Watches first and looks then, so that no change falls between; it may have moved on meanwhile. */
static int watch_there(struct wg_daemon *daemon, struct error *reterr)
{
	int r = watch_here(daemon, reterr);

	if (r == 0)
		r = look_at_link(daemon, reterr);
	if (r != -ENODEV || !tun_is_alive(&daemon->tun))
		return r;
	begin_following(daemon);
	return 0;
}

static void follow_into_namespace(struct wg_daemon *daemon)
{
	struct netns_visit visit;
	struct error error = { 0 };

	int r = netns_enter_that_of(daemon->tun.fd, &visit, &error);
	if (r == 0) {
		r = watch_there(daemon, &error);
		netns_leave(&visit);
	}
	if (r == 0)
		return;
	if (tun_is_alive(&daemon->tun))
		log_error(LOG, "cannot follow interface %s: %s", daemon->tun.name, error.message);
	wg_daemon_stop(daemon);
}

static void on_old_watch_closed(void *arg)
{
	struct wg_daemon *daemon = arg;

	if (!daemon->is_stopping)
		follow_into_namespace(daemon);
	on_part_closed(daemon);
}

/* Deleted, or moved into another network namespace: then its descriptor still works. */
static void on_link_gone(void *owner, const struct link_info *link)
{
	struct wg_daemon *daemon = owner;

	if (link->ifindex != daemon->tun.ifindex)
		return;
	if (!tun_is_alive(&daemon->tun)) {
		log_info(LOG, "interface %s was deleted", daemon->tun.name);
		wg_daemon_stop(daemon);
		return;
	}
	log_info(LOG, "interface %s moved into another network namespace", daemon->tun.name);
	begin_following(daemon);
}

static void on_tun_gone(void *owner)
{
	struct wg_daemon *daemon = owner;

	log_info(LOG, "interface %s was deleted", daemon->tun.name);
	wg_daemon_stop(daemon);
}

/* the socket */

static void on_requested(void *owner)
{
	next_step(owner);
}

static void on_socket_gone(void *owner)
{
	struct wg_daemon *daemon = owner;

	log_info(LOG, "the socket's file of %s was removed", daemon->tun.name);
	wg_daemon_stop(daemon);
}

/* new sessions */

static void rekey(const struct lanes_context *context, void *arg)
{
	struct wg_peer *peer = wg_device_first_peer(context->device);

	for (; peer; peer = wg_peer_next(peer))
		if (wg_peer_route(peer)->n > 0)
			wg_peer_reconnect(peer, context->now);
}

void wg_daemon_rekey(struct wg_daemon *daemon)
{
	if (daemon->is_stopping || lanes_run(daemon->lanes, rekey, NULL, NULL) != 0)
		log_warning(LOG, "no new sessions: the interface is ending, or too busy");
}

/* start */

static int start_lanes(struct wg_daemon *daemon, const struct tun *tuns_take, unsigned n_tuns,
		      struct error *reterr)
{
	const struct lanes_config config = {
		.loop = daemon->loop,
		.ports = { .owner = daemon, .tun_gone = on_tun_gone },
		.tuns_take = tuns_take,
		.n_tuns = n_tuns,
		.n_lanes = daemon->n_lanes,
		.mtu = WG_DEFAULT_MTU,
		.is_plain = true,
	};
	int r = lanes_start(&config, &daemon->lanes, reterr);

	if (r == 0)
		daemon->n_parts++;
	return r;
}

static int start_uapi(struct wg_daemon *daemon, struct error *reterr)
{
	const struct uapi_ports ports = {
		.owner = daemon,
		.requested = on_requested,
		.socket_gone = on_socket_gone,
	};
	int r = uapi_listen(daemon->loop, daemon->tun.name, &ports, &daemon->uapi, reterr);

	if (r == 0)
		daemon->n_parts++;
	return r;
}

static void close_tuns(struct tun *tuns, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		tun_close(&tuns[i]);
}

static int start_tun(struct wg_daemon *daemon, const char *ifname, struct tun ret[LANES_MAX_QUEUES], unsigned *ret_n,
		     struct error *reterr)
{
	int r = tun_open_queues(ifname, &daemon->offloads, lanes_n_queues(daemon->n_lanes), ret, ret_n, reterr);

	if (r != 0)
		return r;
	r = link_set_mtu(ret->ifindex, WG_DEFAULT_MTU, reterr);
	if (r != 0) {
		close_tuns(ret, *ret_n);
		return r;
	}
	tun_fit_superpackets(ret->ifindex, WG_DEFAULT_MTU);
	daemon->mtu = WG_DEFAULT_MTU;
	daemon->tun = *ret;
	daemon->tun.fd = fcntl(ret->fd, F_DUPFD_CLOEXEC, 0);
	return 0;
}

static void ignore_end(void *arg)
{
}

int wg_daemon_start(uv_loop_t *loop, const char *ifname, const struct wg_daemon_options *options,
		    void (*ended)(void *arg), void *arg, struct wg_daemon **ret, struct error *reterr)
{
	struct wg_daemon *daemon = calloc(1, sizeof(*daemon));
	struct tun tuns[LANES_MAX_QUEUES];
	unsigned n_tuns = 0;
	if (!daemon)
		abort();

	*daemon = (struct wg_daemon){ .loop = loop, .ended = ended, .ended_arg = arg, .tun = TUN_NONE };
	daemon->offloads.switches = options->offloads;
	daemon->n_lanes = options->n_lanes;
	int r = start_tun(daemon, ifname, tuns, &n_tuns, reterr);
	if (r == 0) {
		r = start_lanes(daemon, tuns, n_tuns, reterr);
		if (r != 0)
			close_tuns(tuns, n_tuns);
	}
	if (r == 0)
		r = watch_here(daemon, reterr);
	if (r == 0)
		r = watch_routes(daemon, reterr);
	if (r == 0)
		r = look_at_link(daemon, reterr);
	if (r == 0)
		r = start_uapi(daemon, reterr);
	if (r != 0) {
		daemon->ended = ignore_end;
		wg_daemon_stop(daemon);
		return r;
	}
	*ret = daemon;
	return 0;
}
