/*
 * Target: udp_clients_new_from_plain: whatever a relay is said to have handed over is refused, or makes clients that
 * can be saved, read back, and forgotten.
 */
#include "relay/udp_clients_saved.h"

#include <sodium.h>
#include <stdlib.h>

#define NOW_NS UINT64_C(1000000000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static void count(void *owner, const struct udp_clients_client *client)
{
	expect(client->slot != 0 && client->way.socket < 2);
	++*(uint32_t *)owner;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct udp_clients_config config = { .max_clients = 8 };
	struct udp_clients *clients, *again;
	uint8_t *saved;
	uint32_t n = 0;
	size_t len;

	expect(sodium_init() >= 0);
	if (udp_clients_new_from_plain(&config, data, size, 2, NOW_NS, &clients) != 0)
		return 0;
	udp_clients_each(clients, count, &n);
	expect(n == udp_clients_counters(clients).clients && n <= 8);
	udp_clients_save(clients, NOW_NS, &saved, &len);
	expect(udp_clients_new_from(&config, saved, len, 2, NOW_NS, &again) == 0);
	expect(udp_clients_counters(again).clients == n);
	free(saved);
	udp_clients_free(again);
	for (uint64_t i = 0; i < 2000; i++) /* 1 M places at most are looked at in so many */
		udp_clients_tick(clients, NOW_NS + 60000000000);
	expect(udp_clients_counters(clients).clients == 0);
	udp_clients_free(clients);
	return 0;
}
