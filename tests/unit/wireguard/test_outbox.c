/* What a lane has for the loop: session messages pass bulk traffic, and find room beside it. */
#include "node/wireguard/lane_outbox.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static uint32_t n_datagrams, n_trains, n_trains_before_datagram;

static void on_datagram(void *owner, enum demux_kind kind, const struct wg_path *from, const uint8_t *bytes,
			size_t len)
{
	assert(len == 4 && memcmp(bytes, "ping", 4) == 0);
	n_datagrams++;
	n_trains_before_datagram = n_trains;
}

static void on_relay(void *owner, const struct wg_path *path, const struct train *train)
{
	n_trains++;
}

static void test_a_datagram_passes_a_ring_full_of_relayed_trains(void)
{
	static uint8_t packet[1400];
	const struct lanes_ports ports = { .datagram = on_datagram, .relay = on_relay };
	const struct wg_path path = { .relay_id = 7 };
	const struct train train = train_of_one(packet, sizeof(packet));
	const bool is_stopped = false;
	struct lane_outbox outbox;
	uint32_t n_sent = 0;

	lane_outbox_init(&outbox);
	for (; lane_outbox_n_dropped(&outbox) == 0; n_sent++)
		lane_outbox_relay(&outbox, &path, &train);
	lane_outbox_datagram(&outbox, DEMUX_UNKNOWN, &path, (const uint8_t *)"ping", 4);
	assert(lane_outbox_n_dropped(&outbox) == 1);
	assert(!lane_outbox_dispatch(&outbox, &ports, UINT64_MAX, 1, &is_stopped));
	while (!lane_outbox_dispatch(&outbox, &ports, UINT64_MAX, 100, &is_stopped))
		;

	assert(n_datagrams == 1 && n_trains_before_datagram == 0 && n_trains == n_sent - 1);
	lane_outbox_deinit(&outbox);
}

int main(void)
{
	test_a_datagram_passes_a_ring_full_of_relayed_trains();
	puts("ok");
}
