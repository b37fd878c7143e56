/*
 * Target: wg_aead_seal_packets, wg_aead_open_packets, with every way that this CPU has, against
 * OpenSSL one by one.
 *
 * Input: key 32 ‖ counter 8 ‖ unaligned 1 ‖ n 1 ‖ n × (size 2, wrong bit 2) ‖ bytes to fill the
 * packets with, over and over. A wrong bit of 0 is none; else it counts from the packet's
 * beginning.
 */
#include "common/wire.h"
#include "node/wireguard/aead.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PACKETS 64
#define MAX_SIZE    2048
#define STRIDE      (MAX_SIZE + WG_AEAD_TAG_LEN + 16)
#define GUARD       0xa5

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	uint8_t key[KEY_LEN];
	uint64_t counter;
	unsigned misaligned, n;
	struct {
		uint32_t size;
		uint32_t wrong_bit; /* 0: none */
	} packets[MAX_PACKETS];
};

static struct wg_crypto crypto;
static struct input input;
static struct wg_aead aead;
static uint8_t plain[MAX_PACKETS * STRIDE], expected[MAX_PACKETS * STRIDE];
static uint8_t ours[MAX_PACKETS * STRIDE + 64];
static struct wg_aead_packet packets[MAX_PACKETS];

static void fill(struct wire_reader *r)
{
	const size_t n = wire_left(r);
	const uint8_t *bytes = wire_take(r, n);

	memset(plain, GUARD, sizeof(plain));
	for (size_t i = 0, k = 0; n > 0 && i < input.n; i++)
		for (uint32_t at = 0; at < input.packets[i].size; at++)
			plain[i * STRIDE + at] = bytes[k++ % n];
}

static bool parse(const uint8_t *data, size_t size)
{
	struct wire_reader r = wire_reader(data, size);

	input = (struct input){ 0 };
	wire_bytes(&r, input.key, KEY_LEN);
	input.counter = wire_u64_le(&r);
	input.misaligned = wire_u8(&r) % 64;
	input.n = 1 + wire_u8(&r) % MAX_PACKETS;
	for (unsigned i = 0; i < input.n; i++) {
		input.packets[i].size = wire_u16(&r) % (MAX_SIZE + 1);
		input.packets[i].wrong_bit =
			wire_u16(&r) % (8 * (input.packets[i].size + WG_AEAD_TAG_LEN));
	}
	if (r.failed)
		return false;
	fill(&r);
	return true;
}

static void seal_expected(void)
{
	memcpy(expected, plain, sizeof(expected));
	for (unsigned i = 0; i < input.n; i++) {
		bool ok = wg_cipher_seal(aead.sealing, input.key, input.counter + i, expected + i * STRIDE,
					 input.packets[i].size);
		assert(ok);
	}
}

static void set_packets(void)
{
	for (unsigned i = 0; i < input.n; i++)
		packets[i] = (struct wg_aead_packet){ .data = ours + input.misaligned + i * STRIDE,
						      .counter = input.counter + i,
						      .size = input.packets[i].size };
}

static void check_seal(void)
{
	set_packets();
	memcpy(ours + input.misaligned, plain, input.n * STRIDE);
	uint32_t n = wg_aead_seal_packets(&aead, input.key, packets, input.n);
	assert(n == input.n);
	assert(memcmp(ours + input.misaligned, expected, input.n * STRIDE) == 0);
}

static void check_opened(unsigned i)
{
	const struct wg_aead_packet *packet = &packets[i];

	assert(packet->is_good == (input.packets[i].wrong_bit == 0));
	if (packet->is_good)
		assert(memcmp(packet->data, plain + i * STRIDE, packet->size) == 0);
	else
		assert(sodium_is_zero(packet->data, packet->size));
	for (uint32_t at = packet->size + WG_AEAD_TAG_LEN; at < STRIDE; at++)
		assert(packet->data[at] == GUARD);
}

static void check_open(void)
{
	set_packets();
	memcpy(ours + input.misaligned, expected, input.n * STRIDE);
	for (unsigned i = 0; i < input.n; i++) {
		const uint32_t bit = input.packets[i].wrong_bit;
		if (bit != 0)
			packets[i].data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	wg_aead_open_packets(&aead, input.key, packets, input.n);
	for (unsigned i = 0; i < input.n; i++)
		check_opened(i);
}

static void check(const struct wg_aead_lanes *lanes)
{
	aead.lanes = lanes;
	check_seal();
	check_open();
	aead.lanes = NULL;
}

/* Every way alone, then as they are used. */
static void check_lanes(const struct wg_aead_lanes *lanes)
{
	for (unsigned i = 0; i < WG_AEAD_MAX_WAYS && lanes->ways[i].width > 0; i++) {
		struct wg_aead_lanes alone = { .name = lanes->name, .ways = { lanes->ways[i] } };
		memset(alone.ways[0].at_least, 1, sizeof(alone.ways[0].at_least));
		check(&alone);
	}
	check(lanes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct wg_aead_lanes *const none[] = { NULL };

	if (!crypto.chacha && (sodium_init() < 0 || wg_crypto_init(&crypto) != 0 ||
			       wg_aead_init(&aead, &crypto, none) != 0))
		abort();
	if (!parse(data, size))
		return 0;
	seal_expected();
	check(NULL);
	for (const struct wg_aead_lanes *const *lanes = wg_aead_all_lanes; *lanes; lanes++)
		if ((*lanes)->is_supported())
			check_lanes(*lanes);
	return 0;
}
