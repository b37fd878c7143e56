#include "tests/unit/wireguard/tunnel.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS UINT64_C(1000000000)
#define START_NS  (1000 * SECOND_NS)

static const char *const event_names[] = {
	[WG_EVENT_SESSION] = "session", [WG_EVENT_ARRIVAL] = "arrival", [WG_EVENT_ROAMED] = "roamed",
	[WG_EVENT_NO_PATH] = "no path", [WG_EVENT_GAVE_UP] = "gave up", [WG_EVENT_EXPIRED] = "expired",
};

static const char *const message_names[] = { "?", "initiation", "response", "cookie reply", "data" };

/* ---- ports ---- */

static struct node *other(struct node *node)
{
	struct world *w = node->world;

	return node == &w->alice ? &w->bob : &w->alice;
}

static void on_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path,
			const struct train *train)
{
	struct node *node = owner;
	struct world *w = node->world;

	for (uint32_t i = 0; i < train->n; i++) {
		struct datagram *datagram = &w->cable[w->n_cable++];
		assert(w->n_cable <= CABLE_MAX && train_size(train, i) <= DATAGRAM_MAX);
		datagram->from = node;
		datagram->path = *path;
		datagram->ds = train->ds;
		datagram->size = train_size(train, i);
		memcpy(datagram->bytes, train_packet(train, i), datagram->size);
		w->n_sent++;
		if (!w->trace_datagrams)
			continue;
		bool is_empty = datagram->bytes[0] == 4 && datagram->size == WG_OVERHEAD;
		note(w, "%s: send %s", node->name,
		     is_empty ? "keepalive" : message_names[datagram->bytes[0] % 5]);
	}
}

static void on_deliver(void *owner, struct wg_peer *peer, const struct train *train)
{
	struct node *node = owner;

	assert(peer == node->peer && train->n >= 1 && train->n <= TRAIN_MAX);
	assert(train->last_size <= train->size);
	for (uint32_t i = 0; i < train->n; i++) {
		assert(node->n_inbox < INBOX_MAX);
		node->inbox[node->n_inbox].size = train_size(train, i);
		memcpy(node->inbox[node->n_inbox++].bytes, train_packet(train, i), train_size(train, i));
	}
}

static void on_event(void *owner, struct wg_peer *peer, const struct wg_event *event)
{
	struct node *node = owner;

	assert((event->path != NULL) == (event->type == WG_EVENT_ARRIVAL || event->type == WG_EVENT_ROAMED));
	node->n_sent_told += event->type == WG_EVENT_SENT;
	if (event->type != WG_EVENT_ARRIVAL && event->type != WG_EVENT_SENT)
		note(node->world, "%s: %s", node->name, event_names[event->type]);
}

static void on_reject(void *owner, enum wg_drop why, const uint8_t *packet, size_t size, uint32_t mtu)
{
	struct node *node = owner;

	node->n_rejected++;
	node->rejected_mtu = mtu;
}

static void on_random(void *owner, void *ret, size_t size)
{
	struct node *node = owner;
	uint8_t seed[randombytes_SEEDBYTES] = { 0 };

	node->world->random++;
	memcpy(seed, &node->world->random, sizeof(node->world->random));
	randombytes_buf_deterministic(ret, size, seed);
}

static void on_fit_source(void *owner, struct wg_path *path)
{
	struct node *node = owner;

	node->n_fit++;
	if (!node->is_moved)
		return;
	memset(path->local_ip, 0, sizeof(path->local_ip));
	path->ifindex = 0;
}

/* ---- the world ---- */

static void node_begin(struct world *w, struct node *node, const char *name, uint8_t number,
		       const struct wg_config *config)
{
	struct wg_config own = *config;

	node->world = w;
	node->name = name;
	own.ports = (struct wg_ports){ .owner = node, .transmit = on_transmit, .deliver = on_deliver,
				       .event = on_event, .reject = on_reject, .random = on_random,
				       .fit_source = on_fit_source };
	on_random(node, node->secret.bytes, KEY_LEN);
	secret_key_public(&node->secret, &node->public);
	node->address = endpoint_from_v4(0xc0000200 + number, 51820);
	int r = wg_device_new(&own, &node->device);
	assert(r == 0);
	wg_device_set_private_key(node->device, &node->secret);
}

static void introduce(struct node *node, struct node *to, uint8_t number)
{
	const struct wg_prefix prefix4 = { .family = AF_INET, .len = 32, .ip = { 10, 0, 0, number } };
	const struct wg_prefix prefix6 = { .family = AF_INET6, .len = 128, .ip = { 0xfd, [15] = number } };

	int r = wg_device_add_peer(node->device, &to->public, &node->peer);
	assert(r == 0);
	r = wg_peer_allow(node->peer, &prefix4);
	assert(r == 0);
	r = wg_peer_allow(node->peer, &prefix6);
	assert(r == 0);
}

void world_begin_with(struct world *w, const struct wg_config *config)
{
	int r = sodium_init();
	assert(r >= 0);
	memset(w, 0, sizeof(*w));
	w->now = (struct wg_time){ .ns = START_NS, .real_ns = UINT64_C(1800000000) * SECOND_NS };
	node_begin(w, &w->alice, "alice", 1, config);
	node_begin(w, &w->bob, "bob", 2, config);
	introduce(&w->alice, &w->bob, 2);
	introduce(&w->bob, &w->alice, 1);
	const struct wg_route to_bob = { .n = 1, .paths = { { .remote = w->bob.address } } };
	wg_peer_set_route(w->alice.peer, &to_bob, w->now);
}

void world_begin(struct world *w)
{
	const struct wg_config config = { .mtu = 1420 };

	world_begin_with(w, &config);
}

void world_end(struct world *w)
{
	wg_device_free(w->alice.device);
	wg_device_free(w->bob.device);
}

/* ---- packets ---- */

uint32_t make_packet(const struct node *from, uint8_t mark, uint32_t n, uint8_t *ret)
{
	uint8_t me = from == &from->world->alice ? 1 : 2;
	const uint8_t header[20] = { 0x45, 0, (uint8_t)(n >> 8), (uint8_t)n, [8] = 64, 17,
				     [12] = 10, 0, 0, me, 10, 0, 0, (uint8_t)(3 - me) };

	assert(n >= sizeof(header) && n <= DATAGRAM_MAX);
	memcpy(ret, header, sizeof(header));
	for (uint32_t i = sizeof(header); i < n; i++)
		ret[i] = (uint8_t)(mark + i * 7);
	return n;
}

static uint8_t send_buffer[TRAIN_MAX * (DATAGRAM_MAX + 64)];

void say_bytes(struct node *from, const uint8_t *bytes, uint32_t n)
{
	struct train train = train_of_one(send_buffer + WG_HEADROOM, n);

	memcpy(train.base, bytes, n);
	wg_device_send(from->device, &train, from->world->now);
}

void say(struct node *from, uint8_t mark, uint32_t n)
{
	uint8_t packet[DATAGRAM_MAX];

	say_bytes(from, packet, make_packet(from, mark, n, packet));
}

void say_train(struct node *from, uint8_t mark, uint32_t n, uint32_t size)
{
	struct train train = { .base = send_buffer + WG_HEADROOM, .n = n, .stride = wg_slot_size(size, 1420),
			       .size = size, .last_size = size };

	for (uint32_t i = 0; i < n; i++)
		make_packet(from, (uint8_t)(mark + i), size, train_packet(&train, i));
	wg_device_send(from->device, &train, from->world->now);
}

bool heard(struct node *node, uint8_t mark, uint32_t n)
{
	uint8_t expected[DATAGRAM_MAX];
	bool good = node->n_inbox == 1 && node->inbox[0].size == n;

	make_packet(other(node), mark, n, expected);
	good = good && memcmp(node->inbox[0].bytes, expected, n) == 0;
	node->n_inbox = 0;
	return good;
}

/* ---- the cable ---- */

struct datagram cable_take(struct world *w)
{
	assert(w->n_cable > 0);
	struct datagram first = w->cable[0];
	memmove(w->cable, w->cable + 1, --w->n_cable * sizeof(*w->cable));
	return first;
}

void hand_over(struct world *w, const struct datagram *datagram)
{
	struct node *to = other(datagram->from);
	uint8_t *bytes = malloc(datagram->size + 1); /* exact, so that the sanitizer sees every overrun */
	struct train train = train_of_one(bytes, datagram->size);

	memcpy(bytes, datagram->bytes, datagram->size);
	train.ds = datagram->ds;
	to->heard = (struct wg_path){ .remote = datagram->from->address };
	if (datagram->path.relay_id != 0)
		to->heard = (struct wg_path){ .relay_id = datagram->path.relay_id,
					      .peer_id = datagram->path.peer_id };
	wg_device_receive(to->device, &train, &to->heard, w->now);
	free(bytes);
}

void cable_run(struct world *w)
{
	while (w->n_cable > 0) {
		struct datagram datagram = cable_take(w);
		if (datagram.path.relay_id != 0 ||
		    endpoint_equal(&datagram.path.remote, &other(datagram.from)->address))
			hand_over(w, &datagram);
	}
}

void cable_lose(struct world *w)
{
	w->n_cable = 0;
}

/* ---- time ---- */

static void wait_until(struct world *w, uint64_t end_ns, void (*deal)(struct world *w))
{
	for (;;) {
		uint64_t a = wg_device_next_deadline(w->alice.device);
		uint64_t b = wg_device_next_deadline(w->bob.device);
		uint64_t next = a < b ? a : b;
		if (next > end_ns)
			next = end_ns;
		if (next < w->now.ns)
			next = w->now.ns; /* the test has jumped over it */
		w->now.real_ns += next - w->now.ns;
		w->now.ns = next;
		if (next == end_ns && a > end_ns && b > end_ns)
			return;
		wg_device_tick(w->alice.device, w->now);
		wg_device_tick(w->bob.device, w->now);
		deal(w);
	}
}

void wait_s(struct world *w, uint64_t seconds)
{
	wait_until(w, w->now.ns + seconds * SECOND_NS, cable_run);
}

void wait_s_deaf(struct world *w, uint64_t seconds)
{
	wait_until(w, w->now.ns + seconds * SECOND_NS, cable_lose);
}

/* ---- looking ---- */

void note(struct world *w, const char *format, ...)
{
	size_t used = strlen(w->trace);
	va_list args;

	/* Without the jitter, which is below half a second. */
	int n = snprintf(w->trace + used, sizeof(w->trace) - used, "[%3llu] ",
			 (unsigned long long)((w->now.ns - START_NS) / SECOND_NS));
	used += (size_t)n;
	va_start(args, format);
	n = vsnprintf(w->trace + used, sizeof(w->trace) - used, format, args);
	va_end(args);
	used += (size_t)n;
	assert(used + 2 < sizeof(w->trace));
	strcpy(w->trace + used, "\n");
}

void expect_trace(struct world *w, const char *expected)
{
	if (strcmp(w->trace, expected) != 0) {
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, w->trace);
		abort();
	}
	w->trace[0] = '\0';
}

void connect_both(struct world *w)
{
	say(&w->alice, 1, 100);
	cable_run(w);
	bool good = heard(&w->bob, 1, 100);
	assert(good);
	w->trace[0] = '\0';
}

struct wg_stats stats_of(struct node *node)
{
	struct wg_stats stats;

	wg_peer_get_stats(node->peer, node->world->now, &stats);
	return stats;
}

uint64_t drops_of(const struct node *node, enum wg_drop drop)
{
	return wg_device_drops(node->device, drop);
}
