/*
 * One lane with two queues of a TUN, which the test plays with sockets: a bulk flow in one does not
 * keep the other waiting. The test is the device's thread; there is no session, so packets are
 * staged in the order in which the lane read them.
 */
#include "node/wireguard/device_internal.h"
#include "node/wireguard/lane.h"

#include <assert.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define N_BULK 40

struct world {
	int kernel[2]; /* the other ends of the queues */
	struct tun tuns[2];
	struct wg_device *device;
	struct wg_peer *peer;
	struct lane *lane;
	_Atomic uint32_t n_woken;
};

static void transmit(void *owner, struct wg_peer *peer, const struct wg_path *path, const struct train *train)
{
}

static void deliver(void *owner, struct wg_peer *peer, const struct train *train)
{
}

static void wake(void *owner)
{
	struct world *world = owner;

	world->n_woken++;
}

static void begin(struct world *world)
{
	const struct wg_config config = { .ports = { .transmit = transmit, .deliver = deliver } };
	const struct wg_prefix all = { .family = AF_INET };
	struct public_key key = { { 9 } };

	memset(world, 0, sizeof(*world));
	assert(wg_device_new(&config, &world->device) == 0);
	assert(wg_device_add_peer(world->device, &key, &world->peer) == 0);
	assert(wg_peer_allow(world->peer, &all) == 0);
	for (int i = 0; i < 2; i++) {
		int pair[2];
		assert(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) == 0);
		world->kernel[i] = pair[0];
		world->tuns[i] = (struct tun){ .fd = pair[1], .has_header = true };
	}
	const struct lane_config lane = {
		.owner = world,
		.device = world->device,
		.role = LANE_SEALS,
		.mtu = WG_DEFAULT_MTU,
		.tuns = world->tuns,
		.n_tuns = 2,
		.is_plain = true,
		.wake_device = wake,
		.wake_loop = wake,
	};
	assert(lane_new(&lane, &world->lane) == 0);
	lane_start(world->lane);
}

static void end(struct world *world)
{
	lane_stop(world->lane);
	lane_free(world->lane);
	wg_device_free(world->device);
	for (int i = 0; i < 2; i++) {
		close(world->kernel[i]);
		close(world->tuns[i].fd);
	}
}

/* An IPv4 packet of so many bytes, with a number. */
static void put(struct world *world, int queue, uint8_t number, uint8_t size)
{
	uint8_t bytes[OFFLOAD_HEADER_LEN + 255] = { 0 }, *ip = bytes + OFFLOAD_HEADER_LEN;

	ip[0] = 0x45;
	ip[3] = size;
	ip[16] = 10;
	ip[20] = number;
	assert(send(world->kernel[queue], bytes, OFFLOAD_HEADER_LEN + size, 0) > 0);
}

/* While the lane stands still. */
static void fill(struct lane *lane, void *arg)
{
	struct world *world = arg;

	for (uint8_t i = 0; i < N_BULK; i++)
		put(world, 0, i, 200);
	put(world, 1, 100, 60);
	put(world, 1, 101, 60);
}

static void test_a_small_packet_waits_for_one_read_of_each_other_queue(void)
{
	struct world world;
	uint32_t place = 0, found[2] = { 0 };
	begin(&world);

	lane_call(world.lane, fill, &world);
	while (world.peer->staged.n < N_BULK + 2)
		(void)lane_take_news(world.lane, (struct wg_time){ .ns = 1 }, 1000);

	for (const struct wg_staged *staged = world.peer->staged.first; staged; staged = staged->next) {
		if (staged->packet[20] >= 100)
			found[staged->packet[20] - 100] = place;
		place++;
	}
	assert(found[0] <= 1 && found[1] == found[0] + 2);
	end(&world);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_a_small_packet_waits_for_one_read_of_each_other_queue();
	puts("ok");
	return 0;
}
