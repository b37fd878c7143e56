/* What a relay over UDP brings us, and what only looks like it. */
#include "node/wireguard/udp_relays.h"

#include "common/relay_udp_wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static struct udp_relays relays;
static struct endpoint first, second;

static void begin(void)
{
	first = endpoint_from_v4(0xcb007105, 3478);
	assert(endpoint_parse("[2001:db8::5]:3478", &second) == 0);
	relays = (struct udp_relays){ .n = 2,
				      .relays = { { .relay_id = 7, .remote = first, .slot = 11, .token = 111 },
						  { .relay_id = 8, .remote = second, .slot = 11, .token = 222 } } };
}

static uint32_t find(const struct endpoint *from, enum relay_udp_type type, uint32_t to, uint32_t token, uint32_t len)
{
	const struct relay_udp_header header = { .type = type, .to = to, .from = 5, .token = token };
	uint8_t bytes[100] = { 0 };

	relay_udp_header_encode(bytes, &header);
	return udp_relays_find(&relays, from, bytes, len);
}

static void test_source_slot_and_token_say_which_relay_brings_it(void)
{
	begin();
	assert(find(&first, RELAY_UDP_DATA, 11, 111, 100) == 7);
	assert(find(&second, RELAY_UDP_DATA, 11, 222, 17) == 8);
}

static void test_one_of_them_wrong_and_it_is_from_none(void)
{
	struct endpoint other_port = first;
	begin();

	other_port.port++;
	assert(find(&other_port, RELAY_UDP_DATA, 11, 111, 100) == 0);
	assert(find(&second, RELAY_UDP_DATA, 11, 111, 100) == 0);
	assert(find(&first, RELAY_UDP_DATA, 12, 111, 100) == 0);
	assert(find(&first, RELAY_UDP_DATA, 11, 112, 100) == 0);
	relays.n = 1;
	assert(find(&second, RELAY_UDP_DATA, 11, 222, 100) == 0);
}

static void test_only_data_with_a_packet_is_data(void)
{
	begin();
	for (uint32_t len = 0; len <= RELAY_UDP_HEADER_LEN; len++)
		assert(find(&first, RELAY_UDP_DATA, 11, 111, len) == 0);
	assert(find(&first, RELAY_UDP_GONE, 11, 111, RELAY_UDP_HEADER_LEN) == 0);
	assert(find(&first, RELAY_UDP_PONG, 11, 111, RELAY_UDP_HEADER_LEN + 12) == 0);
}

int main(void)
{
	test_source_slot_and_token_say_which_relay_brings_it();
	test_one_of_them_wrong_and_it_is_from_none();
	test_only_data_with_a_packet_is_data();
	puts("ok");
	return 0;
}
