/*
 * The two halves of a device, and what the threads between them can do: bob's packets go through a
 * lane, and the test decides when his device gets to see what the lane handed over.
 *
 *   alice ── cable ── bob's lane ──► news (kept here) ──► bob's device
 */
#include "tests/unit/wireguard/tunnel.h"

#include "node/wireguard/device_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS      UINT64_C(1000000000)
#define MILLISECOND_NS UINT64_C(1000000)
#define N_NEWS	       16
#define PATIENCE       5 /* waits */

struct kept {
	struct wg_news news;
	uint8_t bytes[DATAGRAM_MAX];
};

static struct world w;
static struct wg_lane *lane;
static struct wg_time burst; /* the lane's time */
static struct kept kept[N_NEWS];
static unsigned n_kept, n_waits, n_delivered, n_transmitted;
static bool is_device_quick; /* it takes news while the lane waits */

/* ---- the lane's ports ---- */

static void on_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path, const struct train *train)
{
	const struct wg_ports *ports = &w.bob.device->ports;

	n_transmitted += train->n;
	ports->transmit(ports->owner, peer, path, train);
}

static void on_deliver(void *owner, struct wg_peer *peer, const struct train *train)
{
	n_delivered += train->n;
}

static bool on_hand(void *owner, const struct wg_news *news)
{
	struct kept *record = &kept[n_kept++];

	assert(n_kept <= N_NEWS);
	record->news = *news;
	if (news->type != WG_NEWS_PLAIN && news->type != WG_NEWS_HANDSHAKE)
		return true;
	assert(news->train.n == 1 && news->train.size <= sizeof(record->bytes));
	memcpy(record->bytes, news->train.base, news->train.size);
	record->news.train.base = record->bytes;
	return true;
}

static void device_takes(void)
{
	for (unsigned i = 0; i < n_kept; i++)
		wg_device_take(w.bob.device, &kept[i].news, w.now);
	n_kept = 0;
}

/* As if the first had come from another lane, whose turn is later. */
static void device_takes_but_the_first(void)
{
	const unsigned n = n_kept;

	for (unsigned i = 1; i < n; i++)
		wg_device_take(w.bob.device, &kept[i].news, w.now);
	n_kept = 1;
}

static bool on_wait(void *owner, unsigned n)
{
	if (n == PATIENCE)
		return false;
	n_waits++;
	if (is_device_quick)
		device_takes();
	return true;
}

/* ---- the world ---- */

static void begin(const struct wg_config *config)
{
	const struct wg_lane_ports ports = { .transmit = on_transmit,
					     .deliver = on_deliver,
					     .hand = on_hand,
					     .wait = on_wait };

	world_begin_with(&w, config);
	int r = wg_lane_new(w.bob.device, &ports, wg_readers_add(wg_device_readers(w.bob.device)), &lane);
	assert(r == 0);
	burst = w.now;
	n_kept = n_waits = n_delivered = n_transmitted = 0;
	is_device_quick = true;
}

static void end(void)
{
	wg_lane_free(lane);
	world_end(&w);
}

/* Time goes on, for the lane too: a new burst. */
static void go_on(uint64_t ns)
{
	w.now.ns += ns;
	w.now.real_ns += ns;
	burst = w.now;
}

/* What is on its way to bob comes to his lane. */
static void lane_receives(void)
{
	while (w.n_cable > 0) {
		struct datagram datagram = cable_take(&w);
		struct train train = train_of_one(datagram.bytes, datagram.size);
		const struct wg_path from = { .remote = w.alice.address };
		assert(datagram.from == &w.alice);
		wg_lane_receive(lane, &train, &from, burst);
	}
}

static void lane_sends(uint32_t to, uint8_t mark)
{
	uint8_t buffer[WG_HEADROOM + 256];
	struct train train = train_of_one(buffer + WG_HEADROOM, 100);

	make_packet(&w.bob, mark, 100, train.base);
	train.base[19] = (uint8_t)to; /* 10.0.0.x */
	wg_lane_send(lane, &train, burst);
}

/* Alice has called, bob's device has answered; her first data is on the cable. */
static void shake_hands(void)
{
	say(&w.alice, 1, 100);
	lane_receives();
	device_takes();
	assert(w.n_cable == 1);
	struct datagram response = cable_take(&w);
	hand_over(&w, &response);
	assert(w.n_cable == 1);
}

static struct wg_peer *add_silent_peer(void)
{
	const struct wg_prefix prefix = { .family = AF_INET, .len = 32, .ip = { 10, 0, 0, 9 } };
	struct secret_key secret;
	struct public_key public;
	struct wg_peer *peer;

	secret_key_generate(&secret);
	secret_key_public(&secret, &public);
	int r = wg_device_add_peer(w.bob.device, &public, &peer);
	assert(r == 0);
	r = wg_peer_allow(peer, &prefix);
	assert(r == 0);
	return peer;
}

/* ---- tests ---- */

static void test_a_session_that_is_younger_than_the_burst_works(void)
{
	begin(&(struct wg_config){ 0 });
	w.now.ns += MILLISECOND_NS; /* the device's clock; the lane has read it when its burst began */
	shake_hands();
	lane_receives();
	assert(n_delivered == 1 && wg_lane_drops(lane, WG_DROP_EXPIRED_KEY) == 0);
	device_takes();

	lane_sends(1, 2);
	assert(n_transmitted == 1 && n_kept == 0);
	end();
}

static void test_what_was_pushed_out_of_the_queue_is_not_waited_for(void)
{
	begin(&(struct wg_config){ .n_staged = 1 });
	const struct wg_route to_alice = { .n = 1, .paths = { { .remote = w.alice.address } } };
	wg_peer_set_route(w.bob.peer, &to_alice, w.now);
	add_silent_peer();
	lane_sends(1, 2);
	lane_sends(9, 3); /* there is room for one packet */
	device_takes();
	assert(w.bob.peer->staged.n == 0);

	assert(w.n_cable == 1);
	struct datagram initiation = cable_take(&w);
	hand_over(&w, &initiation);
	lane_receives();
	device_takes();
	assert(stats_of(&w.bob).has_session);
	go_on(MILLISECOND_NS);
	lane_sends(1, 4);
	assert(n_waits == 0 && n_kept == 0 && n_transmitted == 1);
	end();
}

static void test_packets_handed_over_go_before_those_that_the_lane_sends(void)
{
	begin(&(struct wg_config){ 0 });
	shake_hands();
	is_device_quick = false;
	lane_sends(1, 2);
	lane_receives();
	device_takes_but_the_first();
	assert(kept[0].news.type == WG_NEWS_PLAIN);
	is_device_quick = true;
	go_on(MILLISECOND_NS);
	n_waits = 0;
	lane_sends(1, 3);
	assert(n_kept == 0 && n_waits == 1);

	cable_run(&w);
	uint8_t expected[100];
	assert(w.alice.n_inbox == 2);
	make_packet(&w.bob, 2, sizeof(expected), expected);
	assert(memcmp(w.alice.inbox[0].bytes, expected, sizeof(expected)) == 0);
	make_packet(&w.bob, 3, sizeof(expected), expected);
	assert(memcmp(w.alice.inbox[1].bytes, expected, sizeof(expected)) == 0);
	end();
}

int main(void)
{
	test_a_session_that_is_younger_than_the_burst_works();
	test_what_was_pushed_out_of_the_queue_is_not_waited_for();
	test_packets_handed_over_go_before_those_that_the_lane_sends();
	puts("ok");
}
