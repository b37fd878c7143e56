/*
 * WireGuard in this process: lanes. Changes and samples go to them as commands, what they cannot carry
 * itself comes back as events.
 */
#include "node/wireguard_host.h"

#include "common/clock.h"
#include "common/log.h"
#include "node/hosts/follow.h"
#include "node/status.h"
#include "node/wireguard/lanes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMMON_MTU 1440 /* inside, of a path that takes 1500 bytes */

struct in_process {
	struct wireguard_host host;
	struct wireguard_host_ports ports;
	struct lanes *lanes;
	struct follow_table follows;
	struct reroute *reroutes, **last_reroute; /* to be told to the lanes, oldest first */
	bool is_rerouting;
	struct udp_relays relays; /* as said last */
	bool has_new_relays, is_telling_relays;
	bool is_forgetting;	/* sources, on the device's thread */
	bool must_forget_again; /* routes have changed meanwhile */
	uint64_t sampled_drops[WG_N_DROPS]; /* written by the device's thread while a sample is under way … */
	uint64_t drops[WG_N_DROPS];	    /* … and these are told */
	void (*stopped)(void *arg);
	void *stopped_arg;
};

static struct in_process *in_process_of(struct wireguard_host *host)
{
	return container_of(host, struct in_process, host);
}

/* ---- changes: device's thread ---- */

/* way: NULL: the loop sends what goes by relay. */
static struct wg_route route_of(const struct peer_path *path, const struct wireguard_relay_way *way,
				uint32_t peer_id)
{
	struct wg_route route = { 0 };

	if (path->direct)
		route.paths[route.n++] = (struct wg_path){ .remote = path->endpoint };
	if (!path->relay)
		return route;
	struct wg_path *relayed = &route.paths[route.n++];
	*relayed = (struct wg_path){ .relay_id = WIREGUARD_RELAY_ANY, .peer_id = peer_id };
	if (way && way->remote.port != 0) {
		relayed->relay_id = way->relay_id;
		relayed->remote = way->remote;
		memcpy(relayed->relay_header, way->header, sizeof(relayed->relay_header));
	}
	return route;
}

static void allow(struct wg_peer *wg_peer, const struct wireguard_peer_change *peer)
{
	struct wg_prefix prefix4 = { .family = AF_INET, .len = 32 };
	struct wg_prefix prefix6 = { .family = AF_INET6, .len = 128 };

	memcpy(prefix4.ip, &peer->ip4, 4);
	memcpy(prefix6.ip, &peer->ip6, 16);
	wg_peer_disallow_all(wg_peer);
	if (wg_peer_allow(wg_peer, &prefix4) != 0 || wg_peer_allow(wg_peer, &prefix6) != 0)
		log_error("wireguard", "peer=%u: out of memory for its addresses", peer->id);
}

static void change_peer(const struct lanes_context *context, const struct wireguard_peer_change *peer)
{
	struct wg_peer *wg_peer = wg_device_find_peer(context->device, &peer->key);

	if (!wg_peer && peer->is_new) {
		int r = wg_device_add_peer(context->device, &peer->key, &wg_peer);
		if (r != 0) {
			log_error("wireguard", "peer=%u: cannot be added (%d)", peer->id, r);
			return;
		}
	}
	if (!wg_peer)
		return; /* removed meanwhile */
	if (peer->is_new) {
		wg_peer_set_user(wg_peer, peer->id, NULL);
		wg_peer_set_mode(wg_peer, WG_PINNED);
		allow(wg_peer, peer);
	}
	const struct wg_route route = route_of(&peer->path, &peer->relay_way, peer->id);
	wg_peer_set_mtu(wg_peer, peer->mtu);
	wg_peer_set_route(wg_peer, &route, context->now);
	struct wg_stats stats;
	wg_peer_get_stats(wg_peer, context->now, &stats);
	/* A session that the peer may have lost; a handshake that did not reach it. */
	if ((peer->is_reborn && stats.has_session) ||
	    (peer->is_gone && !stats.has_session && stats.handshake_attempts > 0))
		wg_peer_reconnect(wg_peer, context->now);
}

static void run_change(const struct lanes_context *context, void *arg)
{
	struct wireguard_change *change = arg;

	for (uint32_t i = 0; i < change->n_removed; i++) {
		struct wg_peer *wg_peer = wg_device_find_peer(context->device, &change->removed[i]);
		if (wg_peer)
			wg_device_remove_peer(context->device, wg_peer);
	}
	for (uint32_t i = 0; i < change->n_peers; i++)
		change_peer(context, &change->peers[i]);
}

static void on_changed(void *arg)
{
	struct wireguard_change *change = arg;

	change->done(change);
}

static void host_change(struct wireguard_host *host, struct wireguard_change *change)
{
	struct in_process *in_process = in_process_of(host);
	struct endpoint extra; /* tried anew with the next sample */

	for (uint32_t i = 0; i < change->n_removed; i++)
		follow_remove(&in_process->follows, &change->removed[i]);
	for (uint32_t i = 0; i < change->n_peers; i++) {
		struct wireguard_peer_change *peer = &change->peers[i];
		struct follow *follow = follow_get(&in_process->follows, peer->id, &peer->key);
		follow_set_path(follow, &peer->path, clock_now_ns());
		peer->path = follow_path(follow, &extra);
	}
	if (lanes_run(in_process->lanes, run_change, change, on_changed) != 0)
		abort(); /* at most one change, one sample, one rerouting: LANES_MAX_COMMANDS is far */
}

/* ---- peers whose WireGuard is not on their UDP socket ---- */

struct reroute {
	struct reroute *next;
	uint32_t id;
	bool is_nudge; /* else a new route */
	struct public_key key;
	struct wg_route route;
};

struct rerouting {
	struct in_process *in_process;
	struct reroute *first;
};

/* Only direct ways are others than before: how the relay is reached stays what the last change said. */
static void keep_relayed(struct wg_route *route, const struct wg_route *before)
{
	for (uint32_t i = 0; i < route->n; i++)
		for (uint32_t k = 0; k < before->n; k++)
			if (route->paths[i].relay_id != 0 && before->paths[k].relay_id != 0)
				route->paths[i] = before->paths[k];
}

/* Lane thread. */
static void run_reroutes(const struct lanes_context *context, void *arg)
{
	const struct rerouting *rerouting = arg;

	for (const struct reroute *reroute = rerouting->first; reroute; reroute = reroute->next) {
		struct wg_peer *wg_peer = wg_device_find_peer(context->device, &reroute->key);
		if (!wg_peer)
			continue; /* removed meanwhile */
		if (reroute->is_nudge) {
			wg_peer_send_keepalive(wg_peer, context->now);
			continue;
		}
		struct wg_route route = reroute->route;
		keep_relayed(&route, wg_peer_route(wg_peer));
		wg_peer_set_route(wg_peer, &route, context->now);
	}
}

static void flush_reroutes(struct in_process *in_process);

static void free_reroutes(struct reroute *first)
{
	while (first) {
		struct reroute *reroute = first;
		first = reroute->next;
		free(reroute);
	}
}

static void on_rerouted(void *arg)
{
	struct rerouting *rerouting = arg;
	struct in_process *in_process = rerouting->in_process;

	free_reroutes(rerouting->first);
	free(rerouting);
	in_process->is_rerouting = false;
	flush_reroutes(in_process);
}

/* The route as it is now: changes may have come in between. */
static void fill_reroute(const struct in_process *in_process, struct reroute *reroute)
{
	const struct follow *follow = follow_find(&in_process->follows, reroute->id);
	struct endpoint extra;

	if (!follow)
		return; /* nobody has a key of zeros */
	const struct peer_path path = follow_path(follow, &extra);
	reroute->key = follow->key;
	reroute->route = route_of(&path, NULL, follow->id);
	if (endpoint_is_none(&extra))
		return;
	/* The path is direct and nothing else, so there is room. */
	reroute->route.paths[1] = reroute->route.paths[0];
	reroute->route.paths[0] = (struct wg_path){ .remote = extra };
	reroute->route.n = 2;
}

/* One command at a time for all of them: a sample may bring about one for every peer. */
static void flush_reroutes(struct in_process *in_process)
{
	if (in_process->is_rerouting || !in_process->reroutes)
		return;
	struct rerouting *rerouting = malloc(sizeof(*rerouting));
	if (!rerouting)
		abort();
	*rerouting = (struct rerouting){ .in_process = in_process, .first = in_process->reroutes };
	in_process->reroutes = NULL;
	in_process->last_reroute = &in_process->reroutes;
	for (struct reroute *reroute = rerouting->first; reroute; reroute = reroute->next)
		fill_reroute(in_process, reroute);
	in_process->is_rerouting = true;
	if (lanes_run(in_process->lanes, run_reroutes, rerouting, on_rerouted) == 0)
		return;
	in_process->is_rerouting = false; /* it is ending */
	free_reroutes(rerouting->first);
	free(rerouting);
}

static void plan_reroute(struct in_process *in_process, const struct follow *follow, bool is_nudge)
{
	struct reroute *reroute = calloc(1, sizeof(*reroute));

	if (!reroute)
		abort();
	reroute->id = follow->id;
	reroute->is_nudge = is_nudge;
	*in_process->last_reroute = reroute;
	in_process->last_reroute = &reroute->next;
}

static void host_told(struct wireguard_host *host, uint32_t peer_id, const struct endpoint *at)
{
	struct follow *follow = follow_find(&in_process_of(host)->follows, peer_id);

	if (follow)
		follow_told(follow, at);
}

/* To the rest of the node what comes from its WireGuard comes by the path. */
static void follow_sample(struct in_process *in_process, struct wireguard_peer_sample *sampled)
{
	struct follow *follow = follow_find(&in_process->follows, sampled->id);
	struct wg_arrival *last = &sampled->stats.direct;
	uint64_t now_ns = clock_now_ns();

	if (!follow || endpoint_is_none(&follow->told))
		return;
	if (follow_look(follow, &last->path.remote, last->ns, now_ns))
		plan_reroute(in_process, follow, false);
	if (follow_must_nudge(follow, sampled->stats.last_send_ns, now_ns))
		plan_reroute(in_process, follow, true);
	if (endpoint_equal(&last->path.remote, &follow->told) && follow->path.direct)
		last->path.remote = follow->path.endpoint;
}

/* ---- samples ---- */

struct sampling {
	struct in_process *in_process;
	struct wireguard_sample *sample;
};

/* Lane thread. */
static void run_sample(const struct lanes_context *context, void *arg)
{
	struct sampling *sampling = arg;
	struct wireguard_sample *sample = sampling->sample;

	for (struct wg_peer *peer = wg_device_first_peer(context->device); peer && sample->n < sample->max;
	     peer = wg_peer_next(peer)) {
		struct wireguard_peer_sample *sampled = &sample->peers[sample->n++];
		sampled->id = wg_peer_id(peer);
		wg_peer_get_stats(peer, context->now, &sampled->stats);
	}
	for (int i = 0; i < WG_N_DROPS; i++)
		sampling->in_process->sampled_drops[i] = wg_device_drops(context->device, (enum wg_drop)i);
}

static void on_sampled(void *arg)
{
	struct sampling *sampling = arg;
	struct in_process *in_process = sampling->in_process;
	struct wireguard_sample *sample = sampling->sample;

	memcpy(in_process->drops, in_process->sampled_drops, sizeof(in_process->drops));
	free(sampling);
	for (uint32_t i = 0; i < sample->n; i++)
		follow_sample(in_process, &sample->peers[i]);
	flush_reroutes(in_process);
	sample->done(sample);
}

static void host_sample(struct wireguard_host *host, struct wireguard_sample *sample)
{
	struct sampling *sampling = malloc(sizeof(*sampling));

	if (!sampling)
		abort();
	*sampling = (struct sampling){ .in_process = in_process_of(host), .sample = sample };
	if (lanes_run(sampling->in_process->lanes, run_sample, sampling, on_sampled) != 0)
		abort(); /* as in host_change() */
}

/* ---- from the lanes ---- */

static void on_lane_datagram(void *owner, enum demux_kind kind, const struct wg_path *from,
			     const uint8_t *bytes, size_t len)
{
	struct in_process *in_process = owner;

	in_process->ports.datagram(in_process->ports.owner, kind, &from->remote, bytes, len);
}

static void on_lane_relay(void *owner, const struct wg_path *path, const struct train *train)
{
	struct in_process *in_process = owner;

	in_process->ports.relay(in_process->ports.owner, path->relay_id, path->peer_id, train);
}

static void on_lane_peer(void *owner, const struct lanes_peer_event *event)
{
	struct in_process *in_process = owner;

	if (event->type == WG_EVENT_SESSION)
		log_debug("wireguard", "peer=%u new session", event->peer_id);
	struct follow *follow = follow_find(&in_process->follows, event->peer_id);
	if (event->type == WG_EVENT_ARRIVAL && event->path.relay_id == 0 && follow &&
	    follow_arrived(follow, &event->path.remote, clock_now_ns())) {
		plan_reroute(in_process, follow, false);
		flush_reroutes(in_process);
	}
	if (event->type == WG_EVENT_ARRIVAL || event->type == WG_EVENT_SESSION || event->type == WG_EVENT_SENT)
		in_process->ports.moved(in_process->ports.owner);
}

static void on_tun_gone(void *owner)
{
	struct in_process *in_process = owner;

	in_process->ports.gone(in_process->ports.owner);
}

/* ---- the rest of the host ---- */

static int host_put_relayed(struct wireguard_host *host, uint32_t relay_id, uint32_t peer_id,
			    const uint8_t *bytes, size_t len)
{
	const struct wg_path path = { .relay_id = relay_id, .peer_id = peer_id };
	/* The lanes copy; the train's pointer is mutable only for those that open in place. */
	const struct train train = train_of_one((uint8_t *)(uintptr_t)bytes, len);

	return lanes_put_relayed(in_process_of(host)->lanes, &path, &train);
}

/* ---- relays over UDP ---- */

struct telling_relays {
	struct in_process *in_process;
	struct udp_relays relays;
};

/* Lane thread. */
static void run_set_relays(const struct lanes_context *context, void *arg)
{
	const struct telling_relays *telling = arg;

	lanes_set_relays(context, &telling->relays);
}

static void tell_relays(struct in_process *in_process);

static void on_relays_set(void *arg)
{
	struct telling_relays *telling = arg;
	struct in_process *in_process = telling->in_process;

	free(telling);
	in_process->is_telling_relays = false;
	tell_relays(in_process);
}

/* One command at a time: what is said meanwhile follows when it is done. */
static void tell_relays(struct in_process *in_process)
{
	if (in_process->is_telling_relays || !in_process->has_new_relays)
		return;
	struct telling_relays *telling = malloc(sizeof(*telling));
	if (!telling)
		abort();
	*telling = (struct telling_relays){ in_process, in_process->relays };
	if (lanes_run(in_process->lanes, run_set_relays, telling, on_relays_set) != 0) {
		free(telling); /* it is ending */
		return;
	}
	in_process->is_telling_relays = true;
	in_process->has_new_relays = false;
}

static void host_set_relays(struct wireguard_host *host, uint32_t n, const struct wireguard_udp_relay *relays)
{
	struct in_process *in_process = in_process_of(host);

	in_process->relays.n = n < UDP_RELAYS_MAX ? n : UDP_RELAYS_MAX;
	if (n > 0)
		memcpy(in_process->relays.relays, relays, in_process->relays.n * sizeof(*relays));
	in_process->has_new_relays = true;
	tell_relays(in_process);
}

/* Lane thread. */
static void run_forget_sources(const struct lanes_context *context, void *arg)
{
	wg_device_forget_sources(context->device);
}

static void forget_sources(struct in_process *in_process);

static void on_sources_forgotten(void *arg)
{
	struct in_process *in_process = arg;

	in_process->is_forgetting = false;
	if (in_process->must_forget_again)
		forget_sources(in_process);
}

/* One command at a time, so that there is always room for it; it fails only when the lanes are ending. */
static void forget_sources(struct in_process *in_process)
{
	in_process->must_forget_again = in_process->is_forgetting;
	if (!in_process->is_forgetting)
		in_process->is_forgetting =
			lanes_run(in_process->lanes, run_forget_sources, in_process, on_sources_forgotten) == 0;
}

static void host_link_changed(struct wireguard_host *host)
{
	forget_sources(in_process_of(host));
}

static void fill_lanes(struct in_process *in_process, struct node_status *status)
{
	struct node_status_lane *told;
	struct lane_counters lane;
	const char *role;

	for (unsigned i = 0; lanes_get_lane(in_process->lanes, i, &lane, &role); i++) {
		if (!(told = node_status_add_lane(status)))
			return;
		snprintf(told->role, sizeof(told->role), "%s", role);
		told->tun_packets = lane.n_tun_packets;
		told->tun_bytes = lane.n_tun_bytes;
		told->udp_datagrams = lane.n_udp_datagrams;
		told->udp_bytes = lane.n_udp_bytes;
		told->udp_relayed = lane.n_udp_relayed;
		for (int drop = 0; drop < WG_N_DROPS; drop++)
			node_status_add_lane_drop(told, wg_drop_name((enum wg_drop)drop), lane.drops[drop]);
		node_status_add_lane_drop(told, "events_full", lane.n_events_dropped);
		node_status_add_lane_drop(told, "sends_refused", lane.n_sends_dropped);
		node_status_add_lane_drop(told, "unknown", lane.n_unknown);
	}
}

static void host_fill_drops(struct wireguard_host *host, struct node_status *status)
{
	struct in_process *in_process = in_process_of(host);
	struct lane_counters lane;
	char name[48];

	for (int i = 0; i < WG_N_DROPS; i++) {
		snprintf(name, sizeof(name), "wireguard %s", wg_drop_name((enum wg_drop)i));
		node_status_add_drop(status, name, in_process->drops[i]);
	}
	fill_lanes(in_process, status);
	lanes_get_counters(in_process->lanes, &lane);
	node_status_add_drop(status, "lane events full", lane.n_events_dropped);
	node_status_add_drop(status, "lane relayed full", lane.n_relayed_dropped);
	node_status_add_drop(status, "lane sends refused", lane.n_sends_dropped);
	node_status_add_drop(status, "interface did not take", lane.n_tun_refused);
	node_status_add_drop(status, "lane datagram unknown", lane.n_unknown);
}

struct identity_command {
	struct secret_key key;
};

/* Lane thread. */
static void run_set_key(const struct lanes_context *context, void *arg)
{
	struct identity_command *command = arg;

	wg_device_set_private_key(context->device, &command->key);
}

static void on_key_set(void *arg)
{
	struct identity_command *command = arg;

	secret_key_wipe(&command->key);
	free(command);
}

static int start_lanes(struct in_process *in_process, const struct wireguard_host_options *options,
		      const struct tun *tuns_take, unsigned n_tuns, struct error *reterr)
{
	const struct lanes_config config = {
		.loop = options->loop,
		.tuns_take = tuns_take,
		.n_tuns = n_tuns,
		.n_lanes = options->n_lanes,
		.udp = options->udp,
		.mtu = options->mtu,
		.ports = { .owner = in_process,
			   .datagram = on_lane_datagram,
			   .relay = on_lane_relay,
			   .peer = on_lane_peer,
			   .tun_gone = on_tun_gone },
	};
	int r = lanes_start(&config, &in_process->lanes, reterr);
	if (r != 0)
		return r;

	struct identity_command *command = malloc(sizeof(*command));
	if (!command)
		abort();
	command->key = *options->node_key;
	if (lanes_run(in_process->lanes, run_set_key, command, on_key_set) != 0)
		abort(); /* the first command of all */
	return 0;
}

static int host_start(const struct wireguard_host_options *options, struct wireguard_host **ret,
		      struct error *reterr)
{
	struct tun tuns[LANES_MAX_QUEUES];
	unsigned n_tuns = 0;
	bool has_ip6; /* whether or not */
	struct in_process *in_process = calloc(1, sizeof(*in_process));
	int r;

	if (!in_process)
		abort();
	in_process->host.class = &wireguard_in_process;
	in_process->last_reroute = &in_process->reroutes;
	in_process->ports = options->ports;
	if ((r = tun_open_queues(options->interface, options->offloads, lanes_n_queues(options->n_lanes), tuns,
				 &n_tuns, reterr)) != 0 ||
	    (r = wireguard_set_up_interface(tuns->ifindex, options, 0, &has_ip6, reterr)) != 0 ||
	    (r = start_lanes(in_process, options, tuns, n_tuns, reterr)) != 0) {
		for (unsigned i = 0; i < n_tuns; i++)
			tun_close(&tuns[i]);
		free(in_process);
		return r;
	}
	/* Of what most paths take. Fewer of the larger ones fill a superpacket anyway. */
	tun_fit_superpackets(tuns->ifindex, options->mtu < COMMON_MTU ? options->mtu : COMMON_MTU);
	*ret = &in_process->host;
	return 0;
}

static void on_lanes_stopped(void *arg)
{
	struct in_process *in_process = arg;
	void (*stopped)(void *) = in_process->stopped;
	void *stopped_arg = in_process->stopped_arg;

	follow_clear(&in_process->follows);
	free_reroutes(in_process->reroutes);
	free(in_process);
	stopped(stopped_arg);
}

static void host_stop(struct wireguard_host *host, void (*stopped)(void *arg), void *arg)
{
	struct in_process *in_process = in_process_of(host);

	in_process->stopped = stopped;
	in_process->stopped_arg = arg;
	lanes_stop(in_process->lanes, on_lanes_stopped, in_process);
}

const struct wireguard_host_class wireguard_in_process = {
	.start = host_start,
	.stop = host_stop,
	.change = host_change,
	.sample = host_sample,
	.put_relayed = host_put_relayed,
	.set_relays = host_set_relays,
	.told = host_told,
	.link_changed = host_link_changed,
	.fill_drops = host_fill_drops,
};
