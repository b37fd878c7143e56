/*
 * The hosts of a WireGuard outside of this process:
 *
 *   changes, samples ──► jobs on libuv's pool ──► its configuration (control.h)
 *   its packets ◄──► a loopback socket for each peer (loopback.h) ◄──► paths
 *
 * To WireGuard a peer is at its loopback socket. WireGuard moves a peer's endpoint to wherever the last
 * authentic packet came from; should somebody carry one to WireGuard's own port, it is moved back.
 *
 * How large packets to a peer may be is told to the kernel, not to WireGuard, which has one MTU for all: a peer whose path
 * takes more than the least has a route of its own, with that MTU (link_set_host_mtu()). The kernel does the rest: the
 * MSS of its connections, "too big" for what it forwards. What somebody else has routed stays so: that peer has the least.
 * With the interface down all routes are gone; they are set again when it has changed.
 */
#include "node/wireguard_host.h"

#include "common/clock.h"
#include "common/log.h"
#include "node/hosts/bypass.h"
#include "node/hosts/control.h"
#include "node/hosts/loopback.h"
#include "node/hosts/traffic.h"
#include "node/link_monitor.h"
#include "node/status.h"
#include "node/wireguard/link.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BUCKETS		1024
#define LOCAL_ENDPOINTS 32
#define PORT_ATTEMPTS	40 /* 50 ms apart: a daemon opens its port when it sees that the interface is up */
/* A peer that began anew may have lost its keys: if it is silent for so long, ours are thrown away. */
#define REBORN_SILENT_NS 1000000000ull
#define REBORN_NS	 60000000000ull
#define NUDGE_S		 1
#define LEAST_MTU	 1280 /* passes everywhere, in pieces if need be */

struct external_peer {
	struct external_peer *next_by_id, *next_by_key;
	struct public_key key;
	uint32_t id;
	struct in_addr ip4;
	struct in6_addr ip6;
	struct loopback_peer *loopback;
	struct peer_path path;
	uint32_t mtu; /* of its route; 0: it has none */
	struct traffic traffic;
	struct bypass bypass;
	uint64_t reborn_ns; /* 0: nothing to find out */
	uint64_t asked_ns;  /* the first data sent to it since */
};

/* The MTU of the routes to a peer; 0: none. */
struct peer_route {
	struct in_addr ip4;
	struct in6_addr ip6;
	uint32_t mtu;
};

/* On libuv's pool: what it works with is its own meanwhile. */
struct configuring {
	uv_work_t work;
	struct external *external;
	size_t n;
	struct wireguard_setting *settings;
	size_t n_routes;
	struct peer_route *routes;
	bool renews_routes; /* those to the network, before */
	struct wireguard_change *change; /* done with it; NULL: none */
	int result;
	struct error error;
	bool is_route_refused;
	struct error route_error;
};

struct reading {
	uv_work_t work;
	struct external *external;
	struct wireguard_sample *sample; /* NULL: only to see whether WireGuard is still there */
	struct wireguard_readings readings;
	int result;
	struct error error;
};

struct external {
	struct wireguard_host host;
	struct wireguard_host_ports ports;
	uv_loop_t *loop;
	const struct wireguard_control_class *class;
	struct wireguard_control *control;
	uint16_t port; /* WireGuard's */
	int ifindex;
	char interface[IF_NAMESIZE];
	bool has_routes;	/* the interface takes more than the least */
	bool has_ip6;		/* IPv6 in the overlay */
	bool has_warned;	/* that a route could not be set */
	struct udp *udp; /* the node's */
	struct membership membership;
	struct loopback *loopback;
	struct external_peer *by_id[BUCKETS], *by_key[BUCKETS];

	/* What WireGuard is to be told as soon as it has taken in what it was told last. */
	size_t n_pending, max_pending;
	struct wireguard_setting *pending;
	size_t n_routes, max_routes;
	struct peer_route *routes;
	bool renews_routes;
	struct wireguard_change *pending_change;
	bool is_configuring, is_checking;
	bool is_gone;

	int n_jobs; /* on the pool */
	void (*stopped)(void *arg);
	void *stopped_arg;
};

static struct external *external_of(struct wireguard_host *host)
{
	return container_of(host, struct external, host);
}

struct wireguard_reading *wireguard_readings_add(struct wireguard_readings *readings)
{
	if (readings->n == readings->max) {
		readings->max = readings->max ? readings->max * 2 : 16;
		readings->all = realloc(readings->all, readings->max * sizeof(*readings->all));
		if (!readings->all)
			abort();
	}
	struct wireguard_reading *reading = &readings->all[readings->n++];
	*reading = (struct wireguard_reading){ 0 };
	return reading;
}

/* ---- peers ---- */

static struct external_peer **id_bucket(const struct external *external, uint32_t id)
{
	return (struct external_peer **)&external->by_id[id % BUCKETS];
}

static struct external_peer **key_bucket(const struct external *external, const struct public_key *key)
{
	uint32_t hash;

	memcpy(&hash, key->bytes, sizeof(hash)); /* keys of members: control signed them */
	return (struct external_peer **)&external->by_key[hash % BUCKETS];
}

static struct external_peer *find_by_id(const struct external *external, uint32_t id)
{
	struct external_peer *peer = *id_bucket(external, id);

	while (peer && peer->id != id)
		peer = peer->next_by_id;
	return peer;
}

static struct external_peer *find_by_key(const struct external *external, const struct public_key *key)
{
	struct external_peer *peer = *key_bucket(external, key);

	while (peer && !public_key_equal(&peer->key, key))
		peer = peer->next_by_key;
	return peer;
}

/* NULL when there is no socket for it. */
static struct external_peer *add_peer(struct external *external, const struct wireguard_peer_change *change)
{
	struct external_peer *peer = calloc(1, sizeof(*peer));
	struct error error;

	if (!peer)
		abort();
	if (loopback_add_peer(external->loopback, change->id, &peer->loopback, &error) != 0) {
		log_error("wireguard", "peer=%u: %s", change->id, error.message);
		free(peer);
		return NULL;
	}
	peer->key = change->key;
	peer->id = change->id;
	peer->next_by_id = *id_bucket(external, peer->id);
	peer->next_by_key = *key_bucket(external, &peer->key);
	*id_bucket(external, peer->id) = peer;
	*key_bucket(external, &peer->key) = peer;
	return peer;
}

static void free_peer(struct external *external, struct external_peer *peer)
{
	struct external_peer **at = id_bucket(external, peer->id);

	while (*at != peer)
		at = &(*at)->next_by_id;
	*at = peer->next_by_id;
	for (at = key_bucket(external, &peer->key); *at != peer; at = &(*at)->next_by_key)
		;
	*at = peer->next_by_key;
	loopback_remove_peer(external->loopback, peer->loopback);
	free(peer);
}

/* ---- configuring ---- */

static void add_setting(struct external *external, const struct wireguard_setting *setting)
{
	if (external->n_pending == external->max_pending) {
		external->max_pending = external->max_pending ? external->max_pending * 2 : 16;
		external->pending =
			realloc(external->pending, external->max_pending * sizeof(*external->pending));
		if (!external->pending)
			abort();
	}
	external->pending[external->n_pending++] = *setting;
}

/* mtu 0: none any more. */
static void set_route(struct external *external, struct external_peer *peer, uint32_t mtu)
{
	if (!external->has_routes)
		return;
	if (external->n_routes == external->max_routes) {
		external->max_routes = external->max_routes ? external->max_routes * 2 : 16;
		external->routes = realloc(external->routes, external->max_routes * sizeof(*external->routes));
		if (!external->routes)
			abort();
	}
	external->routes[external->n_routes++] = (struct peer_route){ peer->ip4, peer->ip6, mtu };
	peer->mtu = mtu;
}

static struct wireguard_setting whole_setting(const struct external_peer *peer)
{
	return (struct wireguard_setting){ .key = peer->key,
					   .is_new = true,
					   .ip4 = peer->ip4,
					   .ip6 = peer->ip6,
					   .endpoint = loopback_peer_endpoint(peer->loopback) };
}

/* An empty packet, or a handshake if there is no session: turning keepalive on sends one. */
static void add_nudge(struct external *external, const struct external_peer *peer, const struct endpoint *to)
{
	add_setting(external,
		    &(struct wireguard_setting){ .key = peer->key, .endpoint = *to, .keepalive_s = NUDGE_S });
	add_setting(external, &(struct wireguard_setting){ .key = peer->key, .keepalive_s = 0 });
}

/* Something goes that way at once: it takes the peer's WireGuard back, too. */
static void add_loopback(struct external *external, const struct external_peer *peer)
{
	const struct endpoint loopback = loopback_peer_endpoint(peer->loopback);

	add_nudge(external, peer, &loopback);
}

/* Its sessions are forgotten, and a handshake begins. */
static void begin_anew(struct external *external, const struct external_peer *peer)
{
	const struct wireguard_setting remove = { .key = peer->key, .remove = true };
	struct wireguard_setting add = whole_setting(peer);

	add_setting(external, &remove);
	add_setting(external, &add);
	add_nudge(external, peer, &add.endpoint);
}

static void tell_gone(struct external *external, const struct error *error)
{
	if (external->is_gone || external->stopped)
		return;
	external->is_gone = true;
	log_warning("wireguard", "%s", error->message);
	external->ports.gone(external->ports.owner);
}

static void finish_stop(struct external *external);

static void job_done(struct external *external)
{
	external->n_jobs--;
	if (external->stopped)
		finish_stop(external);
}

/* Pool. */
static void note_route(struct configuring *job, int result, const struct error *error)
{
	if (result == 0 || result == -ENETDOWN || result == -ENETUNREACH) /* down: set when it is up */
		return;
	if (job->is_route_refused)
		return;
	job->is_route_refused = true;
	job->route_error = *error;
}

/* Pool. */
static void carry_out_route(struct configuring *job, const struct peer_route *route)
{
	struct link_prefix ip4 = { .family = AF_INET, .len = 32 }, ip6 = { .family = AF_INET6, .len = 128 };
	const struct membership *ours = &job->external->membership;
	const int ifindex = job->external->ifindex;
	struct error error;

	memcpy(ip4.ip, &route->ip4, sizeof(route->ip4));
	memcpy(ip6.ip, &route->ip6, sizeof(route->ip6));
	note_route(job, link_set_host_mtu(ifindex, &ip4, &ours->ip4, route->mtu, &error), &error);
	if (job->external->has_ip6)
		note_route(job, link_set_host_mtu(ifindex, &ip6, &ours->ip6, route->mtu, &error), &error);
}

/* Pool. */
static void carry_out_renewal(struct configuring *job)
{
	const struct external *external = job->external;
	struct error error;

	const int r = wireguard_renew_routes(external->ifindex, &external->membership, LEAST_MTU, external->has_ip6,
					     &error);

	note_route(job, r, &error);
}

/* Pool. */
static void run_configure(uv_work_t *work)
{
	struct configuring *job = container_of(work, struct configuring, work);
	struct external *external = job->external;

	if (job->renews_routes)
		carry_out_renewal(job);
	for (size_t i = 0; i < job->n_routes; i++)
		carry_out_route(job, &job->routes[i]);
	job->result = external->class->configure(external->control, job->settings, job->n, &job->error);
}

static void configure(struct external *external);

static void on_configured(uv_work_t *work, int status)
{
	struct configuring *job = container_of(work, struct configuring, work);
	struct external *external = job->external;

	external->is_configuring = false;
	if (job->is_route_refused && !external->has_warned) /* no reason to give up */
		log_warning("wireguard", "packets to some peers stay small: %s", job->route_error.message);
	external->has_warned |= job->is_route_refused;
	if (job->result != 0)
		tell_gone(external, &job->error);
	if (job->change)
		job->change->done(job->change);
	free(job->settings);
	free(job->routes);
	free(job);
	if (!external->stopped)
		configure(external);
	job_done(external);
}

/* Tells what is pending, unless WireGuard is still busy with the last. */
static void configure(struct external *external)
{
	if (external->is_configuring)
		return;
	if (external->n_pending == 0 && !external->pending_change && external->n_routes == 0 && !external->renews_routes)
		return;
	struct configuring *job = calloc(1, sizeof(*job));
	if (!job)
		abort();
	job->external = external;
	job->n = external->n_pending;
	job->settings = external->pending;
	job->n_routes = external->n_routes;
	job->routes = external->routes;
	job->renews_routes = external->renews_routes;
	job->change = external->pending_change;
	external->pending = NULL;
	external->n_pending = external->max_pending = 0;
	external->routes = NULL;
	external->n_routes = external->max_routes = 0;
	external->renews_routes = false;
	external->pending_change = NULL;
	external->is_configuring = true;
	external->n_jobs++;
	if (uv_queue_work(external->loop, &job->work, run_configure, on_configured) != 0)
		abort(); /* it has no other reason than a missing function */
}

static bool is_same_path(const struct peer_path *a, const struct peer_path *b)
{
	return a->direct == b->direct && a->relay == b->relay && endpoint_equal(&a->endpoint, &b->endpoint);
}

static void set_path(struct external *external, struct external_peer *peer, const struct peer_path *path)
{
	if ((!path->direct || path->relay) && bypass_end(&peer->bypass, clock_now_ns()))
		add_loopback(external, peer);
	peer->path = *path;
	loopback_set_path(external->loopback, peer->loopback, path);
}

/* Its address may be another, and its old one somebody else's: all such routes go before any is set. */
static void forget_route(struct external *external, const struct wireguard_peer_change *change)
{
	struct external_peer *peer = change->is_new ? find_by_key(external, &change->key) : NULL;

	if (peer && peer->mtu != 0)
		set_route(external, peer, 0);
}

static void change_peer(struct external *external, const struct wireguard_peer_change *change)
{
	struct external_peer *peer = find_by_key(external, &change->key);

	if (!peer && change->is_new)
		peer = add_peer(external, change);
	if (!peer)
		return; /* removed meanwhile, or no socket */
	if (change->is_new) {
		peer->ip4 = change->ip4;
		peer->ip6 = change->ip6;
		const struct wireguard_setting setting = whole_setting(peer);
		add_setting(external, &setting);
	}
	const uint32_t mtu = change->mtu > LEAST_MTU ? change->mtu : 0;
	if (mtu != peer->mtu)
		set_route(external, peer, mtu);
	if (!is_same_path(&change->path, &peer->path))
		set_path(external, peer, &change->path);
	if (change->is_reborn) {
		peer->reborn_ns = clock_now_ns();
		peer->asked_ns = 0;
	}
}

static void host_change(struct wireguard_host *host, struct wireguard_change *change)
{
	struct external *external = external_of(host);

	for (uint32_t i = 0; i < change->n_removed; i++) {
		const struct wireguard_setting remove = { .key = change->removed[i], .remove = true };
		struct external_peer *peer = find_by_key(external, &change->removed[i]);
		if (!peer)
			continue;
		if (peer->mtu != 0)
			set_route(external, peer, 0);
		free_peer(external, peer);
		add_setting(external, &remove);
	}
	for (uint32_t i = 0; i < change->n_peers; i++)
		forget_route(external, &change->peers[i]);
	for (uint32_t i = 0; i < change->n_peers; i++)
		change_peer(external, &change->peers[i]);
	external->pending_change = change;
	configure(external);
}

/* ---- samples ---- */

/*
 * A peer that began a new Session has perhaps forgotten its keys, and WireGuard would need 15 s to find
 * out: if nothing comes although data goes, its session is given up at once.
 */
static void watch_reborn(struct external *external, struct external_peer *peer, uint64_t now_ns)
{
	const struct wg_stats *stats = &peer->traffic.stats;
	uint64_t heard_ns = stats->direct.ns > stats->relayed.ns ? stats->direct.ns : stats->relayed.ns;

	if (peer->reborn_ns == 0)
		return;
	if (heard_ns > peer->reborn_ns || now_ns - peer->reborn_ns > REBORN_NS || !stats->has_session) {
		peer->reborn_ns = 0;
		return;
	}
	if (peer->asked_ns == 0 && stats->last_send_data_ns > peer->reborn_ns)
		peer->asked_ns = now_ns;
	if (peer->asked_ns == 0 || now_ns - peer->asked_ns < REBORN_SILENT_NS)
		return;
	peer->reborn_ns = 0;
	begin_anew(external, peer);
}

static void step_bypass(struct external *external, struct external_peer *peer,
			const struct wireguard_reading *reading, uint64_t now_ns)
{
	static const struct endpoint none;
	const struct endpoint loopback = loopback_peer_endpoint(peer->loopback);
	const struct bypass_look look = { .now_ns = now_ns,
					  .is_direct = peer->path.direct && !peer->path.relay,
					  .path = peer->path.endpoint,
					  .endpoint = reading->endpoint,
					  .is_loopback = endpoint_equal(&reading->endpoint, &loopback),
					  .has_heard = peer->traffic.rx_bypassed > 0,
					  .has_sent = peer->traffic.has_sent };
	enum bypass_state before = peer->bypass.state;

	switch (bypass_step(&peer->bypass, &look)) {
	case BYPASS_NOTHING:
		break;
	case BYPASS_TO_PEER:
		add_nudge(external, peer, &peer->bypass.target);
		break;
	case BYPASS_TO_LOOPBACK:
		add_loopback(external, peer);
		break;
	case BYPASS_NUDGE:
		add_nudge(external, peer, &none);
		break;
	}
	if (peer->bypass.state == BYPASS_ON && before != BYPASS_ON)
		log_info("wireguard", "peer=%u straight to its WireGuard at %s", peer->id,
			 endpoint_text(&reading->endpoint).s);
}

static void take_reading(struct external *external, const struct wireguard_reading *reading, struct wg_time now,
			 struct wireguard_sample *sample)
{
	struct external_peer *peer = find_by_key(external, &reading->key);
	struct traffic_look look = { .now = now,
				     .rx_bytes = reading->rx_bytes,
				     .tx_bytes = reading->tx_bytes,
				     .last_handshake_real_ns = reading->last_handshake_real_ns };

	if (!peer)
		return; /* removed meanwhile */
	if (peer->path.direct)
		look.path = peer->path.endpoint;
	loopback_get_carried(external->loopback, peer->loopback, &look.carried);
	traffic_take(&peer->traffic, &look);
	if (!external->is_configuring) /* else it may be about what was said before */
		step_bypass(external, peer, reading, now.ns);
	watch_reborn(external, peer, now.ns);
	if (sample && sample->n < sample->max)
		sample->peers[sample->n++] =
			(struct wireguard_peer_sample){ .id = peer->id, .stats = peer->traffic.stats };
}

static struct wg_time time_now(void)
{
	struct timespec real;

	clock_gettime(CLOCK_REALTIME, &real);
	return (struct wg_time){ .ns = clock_now_ns(),
				 .real_ns = (uint64_t)real.tv_sec * 1000000000 + (uint64_t)real.tv_nsec };
}

/* Pool. */
static void run_read(uv_work_t *work)
{
	struct reading *job = container_of(work, struct reading, work);
	struct external *external = job->external;

	job->result = external->class->read(external->control, &job->readings, &job->error);
	if (job->result == 0 && job->readings.port != external->port)
		job->result = error_set(&job->error, -ENOTCONN, "WireGuard has moved from port %u to %u",
					external->port, job->readings.port);
}

static void on_read(uv_work_t *work, int status)
{
	struct reading *job = container_of(work, struct reading, work);
	struct external *external = job->external;
	struct wireguard_sample *sample = job->sample;

	if (!sample)
		external->is_checking = false;
	if (job->result != 0)
		tell_gone(external, &job->error);
	else if (!external->stopped)
		for (size_t i = 0; i < job->readings.n; i++)
			take_reading(external, &job->readings.all[i], time_now(), sample);
	free(job->readings.all);
	free(job);
	if (sample)
		sample->done(sample);
	if (!external->stopped)
		configure(external);
	job_done(external);
}

static void start_reading(struct external *external, struct wireguard_sample *sample)
{
	struct reading *job = calloc(1, sizeof(*job));

	if (!job)
		abort();
	job->external = external;
	job->sample = sample;
	external->n_jobs++;
	if (uv_queue_work(external->loop, &job->work, run_read, on_read) != 0)
		abort();
}

static void host_sample(struct wireguard_host *host, struct wireguard_sample *sample)
{
	start_reading(external_of(host), sample);
}

/* All that should be there; what is there already stays as it is. Of these changes nobody hears. */
static void renew_routes(struct external *external)
{
	if (!external->has_routes || external->renews_routes || external->stopped)
		return;
	external->renews_routes = true;
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct external_peer *peer = external->by_id[i]; peer; peer = peer->next_by_id)
			if (peer->mtu != 0)
				set_route(external, peer, peer->mtu);
	configure(external);
}

/* The interface may have been deleted, or was set down and up. */
static void host_link_changed(struct wireguard_host *host)
{
	struct external *external = external_of(host);

	renew_routes(external);
	if (external->is_checking)
		return;
	external->is_checking = true;
	start_reading(external, NULL);
}

/* ---- packets ---- */

static int host_put_relayed(struct wireguard_host *host, uint32_t relay_id, uint32_t peer_id, const uint8_t *bytes,
			 size_t len)
{
	struct external *external = external_of(host);
	struct external_peer *peer = find_by_id(external, peer_id);

	return peer ? loopback_put_relayed(external->loopback, peer->loopback, bytes, len) : -EAGAIN;
}

static void host_heard(struct wireguard_host *host, uint32_t peer_id, const struct endpoint *from)
{
	struct external *external = external_of(host);
	struct external_peer *peer = find_by_id(external, peer_id);

	if (peer)
		loopback_know(external->loopback, peer->loopback, from);
}

/* A NAT would have to know of WireGuard's port as well. */
static int host_port(struct wireguard_host *host, const struct endpoint *observed)
{
	struct external *external = external_of(host);
	struct endpoint ours[LOCAL_ENDPOINTS];
	size_t n = link_local_endpoints(external->udp->port, external->interface, ours, LOCAL_ENDPOINTS);

	for (size_t i = 0; i < n; i++)
		if (endpoint_equal(&ours[i], observed))
			return external->port;
	return -1;
}

static void host_told(struct wireguard_host *host, uint32_t peer_id, const struct endpoint *at)
{
	struct external_peer *peer = find_by_id(external_of(host), peer_id);

	if (peer)
		peer->bypass.target = *at;
}

static void on_datagram(void *owner, enum demux_kind kind, const struct endpoint *from, const uint8_t *bytes,
			size_t len)
{
	struct external *external = owner;

	external->ports.datagram(external->ports.owner, kind, from, bytes, len);
}

static void on_relay(void *owner, uint32_t peer_id, const struct train *train)
{
	struct external *external = owner;

	external->ports.relay(external->ports.owner, WIREGUARD_RELAY_ANY, peer_id, train);
}

static void on_moved(void *owner)
{
	struct external *external = owner;

	external->ports.moved(external->ports.owner);
}

static void host_fill_drops(struct wireguard_host *host, struct node_status *status)
{
	struct external *external = external_of(host);
	struct loopback_counters counters;

	loopback_get_counters(external->loopback, &counters);
	node_status_add_drop(status, "wireguard initiation of unknown address", counters.n_unknown_initiations);
	node_status_add_drop(status, "wireguard packet of unknown address", counters.n_unknown_senders);
	node_status_add_drop(status, "wireguard no path", counters.n_no_path);
	node_status_add_drop(status, "loopback sends refused", counters.n_sends_dropped);
	node_status_add_drop(status, "loopback events full", counters.n_events_dropped);
}

/* ---- life ---- */

/* WireGuard's own port, once the interface is up. */
static int wait_for_port(struct external *external, struct error *reterr)
{
	for (int i = 0; i < PORT_ATTEMPTS; i++) {
		struct wireguard_readings readings = { 0 };
		int r = external->class->read(external->control, &readings, reterr);

		free(readings.all);
		if (r != 0)
			return r;
		external->port = readings.port;
		if (external->port != 0)
			return 0;
		nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
	}
	return error_set(reterr, -ETIMEDOUT, "WireGuard does not open its UDP port; its log may say why");
}

static int start_loopback(struct external *external, const struct wireguard_host_options *options,
			  struct error *reterr)
{
	const struct loopback_options loopback = {
		.loop = options->loop,
		.udp = options->udp,
		.mtu = options->mtu,
		.wireguard_port = external->port,
		.ports = { .owner = external, .datagram = on_datagram, .relay = on_relay, .moved = on_moved },
	};

	return loopback_start(&loopback, &external->loopback, reterr);
}

/* What start() and open() have done to the interface is undone. */
static void close_control(struct external *external)
{
	const struct membership *member = &external->membership;
	struct link_prefix ip4 = { .family = AF_INET, .len = member->prefix4_len };
	struct link_prefix ip6 = { .family = AF_INET6, .len = member->prefix6_len };
	struct error ignored; /* it may have gone long since */

	memcpy(ip4.ip, &member->ip4, sizeof(member->ip4));
	memcpy(ip6.ip, &member->ip6, sizeof(member->ip6));
	if (external->class->keeps_interface) {
		(void)!link_remove_address(external->ifindex, &ip4, &ignored);
		(void)!link_remove_address(external->ifindex, &ip6, &ignored);
		(void)!link_set_up(external->ifindex, false, &ignored);
	}
	external->class->close(external->control);
}

/* Of a node that was killed: its routes, and its address if that came without one. */
static void clean_interface(struct external *external)
{
	const struct membership *member = &external->membership;
	struct link_prefix ip4 = { .family = AF_INET, .len = member->prefix4_len };
	struct link_prefix ip6 = { .family = AF_INET6, .len = member->prefix6_len };
	struct error error;
	const int n = link_remove_all_mtu(external->ifindex, &error);

	if (n < 0)
		log_warning("wireguard", "what another node has left: %s", error.message);
	if (n <= 0 || external->has_routes)
		return;
	memcpy(ip4.ip, &member->ip4, sizeof(member->ip4));
	memcpy(ip6.ip, &member->ip6, sizeof(member->ip6));
	(void)!link_remove_address(external->ifindex, &ip4, &error); /* it may be another */
	(void)!link_remove_address(external->ifindex, &ip6, &error);
}

static int start(const struct wireguard_host_class *class, const struct wireguard_control_class *control_class,
		   const struct wireguard_host_options *options, struct wireguard_host **ret, struct error *reterr)
{
	struct external *external = calloc(1, sizeof(*external));
	int ifindex, r;

	if (!external)
		abort();
	external->host.class = class;
	external->ports = options->ports;
	external->loop = options->loop;
	external->class = control_class;
	if ((r = control_class->open(options->interface, options->node_key, &external->control, &ifindex,
				     reterr)) != 0) {
		free(external);
		return r;
	}
	external->ifindex = ifindex;
	external->udp = options->udp;
	snprintf(external->interface, sizeof(external->interface), "%s", options->interface);
	external->membership = *options->membership;
	external->has_routes = options->mtu > LEAST_MTU;
	if (control_class->keeps_interface)
		clean_interface(external);
	if ((r = wireguard_set_up_interface(ifindex, options, external->has_routes ? LEAST_MTU : 0, &external->has_ip6,
					    reterr)) != 0 ||
	    (r = wait_for_port(external, reterr)) != 0 || (r = start_loopback(external, options, reterr)) != 0) {
		close_control(external);
		free(external);
		return r;
	}
	log_info("wireguard", "WireGuard of %s is on UDP port %u", options->interface, external->port);
	*ret = &external->host;
	return 0;
}

static void on_loopback_stopped(void *arg)
{
	struct external *external = arg;
	void (*stopped)(void *) = external->stopped;
	void *stopped_arg = external->stopped_arg;

	free(external->pending);
	free(external->routes);
	free(external);
	stopped(stopped_arg);
}

/* Once nothing is under way on the pool. */
static void finish_stop(struct external *external)
{
	if (external->n_jobs > 0)
		return;
	if (external->pending_change)
		external->pending_change->done(external->pending_change);
	for (uint32_t i = 0; i < BUCKETS; i++)
		while (external->by_id[i])
			free_peer(external, external->by_id[i]);
	close_control(external);
	loopback_stop(external->loopback, on_loopback_stopped, external);
}

static void host_stop(struct wireguard_host *host, void (*stopped)(void *arg), void *arg)
{
	struct external *external = external_of(host);

	assert(!external->stopped);
	external->stopped = stopped;
	external->stopped_arg = arg;
	finish_stop(external);
}

/* ---- the two ---- */

static int start_kernel(const struct wireguard_host_options *options, struct wireguard_host **ret,
			struct error *reterr)
{
#ifdef P2P_KERNEL_WIREGUARD
	return start(&wireguard_kernel, &wireguard_kernel_control, options, ret, reterr);
#else
	return error_set(reterr, -EOPNOTSUPP,
			 "this p2pnode was built without the kernel's WireGuard; build it with Debian's "
			 "wireguard-tools installed, or set wireguard = in-process in [node]");
#endif
}

static int start_uapi(const struct wireguard_host_options *options, struct wireguard_host **ret,
		      struct error *reterr)
{
	return start(&wireguard_uapi, &wireguard_uapi_control, options, ret, reterr);
}

/* All but the start is the same. */
#define EXTERNAL_HOST                                                                              \
	.stop = host_stop, .change = host_change, .sample = host_sample,                           \
	.put_relayed = host_put_relayed, .heard = host_heard, .port = host_port,                   \
	.told = host_told, .link_changed = host_link_changed, .fill_drops = host_fill_drops

const struct wireguard_host_class wireguard_kernel = { .start = start_kernel, EXTERNAL_HOST };
const struct wireguard_host_class wireguard_uapi = { .start = start_uapi, EXTERNAL_HOST };
