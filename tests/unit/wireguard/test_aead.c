/*
 * Trains of packets through every way to seal and open them that this CPU has, forced one after the
 * other, against RFC 8439, libsodium and OpenSSL.
 */
#include "node/wireguard/aead.h"
#include "tests/unit/wireguard/hex.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_SIZE    2048
#define MAX_PACKETS 64
#define STRIDE      (MAX_SIZE + 2 * WG_AEAD_TAG_LEN + 3) /* odd: unaligned */
#define GUARD       0x5a

static struct wg_crypto crypto;
static uint8_t key[KEY_LEN];
static uint8_t plain[MAX_PACKETS * STRIDE], expected[MAX_PACKETS * STRIDE],
	data[MAX_PACKETS * STRIDE];
static struct wg_aead_packet packets[MAX_PACKETS];

/* OpenSSL, and perhaps the lanes that are tested. */
static struct wg_aead forced;
static struct wg_aead_lanes greedy; /* of forced: one way, for any number of packets */

static void force(const struct wg_aead_lanes *lanes, unsigned way)
{
	greedy = (struct wg_aead_lanes){ .name = lanes->name, .ways = { lanes->ways[way] } };
	memset(greedy.ways[0].at_least, 1, sizeof(greedy.ways[0].at_least));
	forced.lanes = &greedy;
}

static void set_key(void)
{
	randombytes_buf(key, sizeof(key));
}

static void sodium_seal(uint64_t counter, uint8_t *packet, size_t n)
{
	uint8_t nonce[12] = { 0 };
	unsigned long long n_out;

	for (unsigned i = 0; i < 8; i++)
		nonce[4 + i] = (uint8_t)(counter >> (8 * i));
	crypto_aead_chacha20poly1305_ietf_encrypt(packet, &n_out, packet, n, NULL, 0, NULL, nonce,
						  key);
	assert(n_out == n + WG_AEAD_TAG_LEN);
}

/* n packets; sizes[i] of each. Sealed by libsodium, and by OpenSSL too, in expected. */
static void prepare(unsigned n, const uint32_t *sizes, uint64_t counter)
{
	uint8_t other[MAX_SIZE + WG_AEAD_TAG_LEN];

	memset(expected, GUARD, n * STRIDE);
	for (unsigned i = 0; i < n; i++) {
		uint8_t *at = expected + i * STRIDE;
		memcpy(at, plain + i * STRIDE, sizes[i]);
		memcpy(other, at, sizes[i]);
		sodium_seal(counter + i, at, sizes[i]);
		assert(wg_cipher_seal(forced.sealing, key, counter + i, other, sizes[i]));
		assert(memcmp(other, at, sizes[i] + WG_AEAD_TAG_LEN) == 0);
		packets[i] = (struct wg_aead_packet){ .data = data + i * STRIDE,
						      .counter = counter + i,
						      .size = sizes[i] };
	}
}

static void seal_all(unsigned n)
{
	memset(data, GUARD, n * STRIDE);
	for (unsigned i = 0; i < n; i++)
		memcpy(packets[i].data, plain + i * STRIDE, packets[i].size);
	assert(wg_aead_seal_packets(&forced, key, packets, n) == n);
	assert(memcmp(data, expected, n * STRIDE) == 0); /* and nothing around them was touched */
}

static void open_prepared(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		packets[i].is_good = i % 2;
	wg_aead_open_packets(&forced, key, packets, n);
}

static void check_open(unsigned i)
{
	const uint8_t *at = data + i * STRIDE, *sealed = expected + i * STRIDE;
	uint32_t size = packets[i].size;

	assert(packets[i].is_good && memcmp(at, plain + i * STRIDE, size) == 0);
	assert(memcmp(at + size + WG_AEAD_TAG_LEN, sealed + size + WG_AEAD_TAG_LEN,
		      STRIDE - size - WG_AEAD_TAG_LEN) == 0);
}

static void open_all(unsigned n)
{
	memcpy(data, expected, n * STRIDE);
	open_prepared(n);
	for (unsigned i = 0; i < n; i++)
		check_open(i);
}

static void round_trip(unsigned n, const uint32_t *sizes, uint64_t counter)
{
	prepare(n, sizes, counter);
	seal_all(n);
	open_all(n);
}

/* A train: equal sizes, the last may be shorter. */
static void round_trip_train(unsigned n, uint32_t size, uint32_t last, uint64_t counter)
{
	uint32_t sizes[MAX_PACKETS];

	for (unsigned i = 0; i < n; i++)
		sizes[i] = i + 1 < n ? size : last;
	round_trip(n, sizes, counter);
}

/* ---- tests, each with every way ---- */

/* A.1 #2: key and nonce 0, block 1. It is what zeros are sealed to. (A.5 has associated data.) */
static void test_key_stream_is_rfc8439_a1(void)
{
	memset(key, 0, sizeof(key));
	memset(plain, 0, sizeof(plain));
	round_trip_train(16, 64, 64, 0);
	assert(is_hex(expected, 64,
		      "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
		      "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"));
}

static void test_every_length_alone_and_in_full_lanes(void)
{
	for (uint32_t size = 0; size <= MAX_SIZE; size++) {
		round_trip_train(1, size, size, size * UINT64_C(0x123456789abcd));
		round_trip_train(size % 2 ? 8 : 16, size, size / 3, size * UINT64_C(0x3456789abcd));
	}
}

static void test_every_number_of_packets(void)
{
	static const uint32_t sizes[] = { 0, 1, 16, 63, 64, 65, 576, 1280, 1420, MAX_SIZE };

	for (unsigned n = 1; n <= MAX_PACKETS; n++)
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
			round_trip_train(n, sizes[i], sizes[i] / (1 + n % 3), n * 1000);
}

static void test_any_mix_of_lengths(void)
{
	uint32_t sizes[MAX_PACKETS];

	for (unsigned round = 0; round < 200; round++) {
		unsigned n = 1 + randombytes_uniform(MAX_PACKETS);
		uint32_t limit = round % 2 ? 130 : MAX_SIZE;
		for (unsigned i = 0; i < n; i++)
			sizes[i] = randombytes_uniform(limit + 1);
		round_trip(n, sizes, randombytes_random());
	}
}

static void test_counters_that_carry_and_jump(void)
{
	static const uint64_t starts[] = {
		0, UINT32_MAX - 7, UINT32_MAX, UINT64_C(0x1fffffff9), INT64_MAX - 4, UINT64_MAX - 63
	};
	uint32_t sizes[16];

	for (size_t i = 0; i < ARRAY_LEN(starts); i++)
		round_trip_train(MAX_PACKETS, 100, 33, starts[i]);
	/* Received ones need not follow one another. */
	for (unsigned i = 0; i < 16; i++)
		sizes[i] = 70 * i;
	prepare(16, sizes, 77);
	for (unsigned i = 0; i < 8; i++) {
		struct wg_aead_packet swapped = packets[i];
		packets[i] = packets[15 - i];
		packets[15 - i] = swapped;
	}
	memcpy(data, expected, 16 * STRIDE);
	open_prepared(16);
	for (unsigned i = 0; i < 16; i++)
		assert(packets[i].is_good &&
		       memcmp(packets[i].data, plain + (packets[i].data - data), packets[i].size) ==
			       0);
}

/* Numbers at the edge of 2^130 - 5, for which carries travel far. */
static void test_extreme_bytes(void)
{
	uint8_t saved[sizeof(plain)];

	memcpy(saved, plain, sizeof(saved));
	memset(plain, 0xff, sizeof(plain));
	for (unsigned round = 0; round < 50; round++) {
		set_key();
		round_trip_train(16, 100 + round, 99, round);
	}
	memcpy(plain, saved, sizeof(saved));
}

static void forge_one(unsigned n, unsigned forged, uint32_t byte, uint8_t bit)
{
	const uint8_t *at = data + forged * STRIDE;

	memcpy(data, expected, n * STRIDE);
	data[forged * STRIDE + byte] ^= bit;
	open_prepared(n);
	for (unsigned i = 0; i < n; i++)
		if (i != forged)
			check_open(i);
	assert(!packets[forged].is_good);
	assert(sodium_is_zero(at, packets[forged].size));
	for (uint32_t i = packets[forged].size + WG_AEAD_TAG_LEN; i < STRIDE; i++)
		assert(at[i] == GUARD);
}

static void test_a_forged_packet_in_every_lane_disturbs_no_other(void)
{
	uint32_t sizes[33];

	for (unsigned i = 0; i < 33; i++)
		sizes[i] = 80;
	sizes[32] = 17;
	prepare(33, sizes, 9);
	for (unsigned i = 0; i < 33; i++)
		for (uint32_t bit = 0; bit < 8 * (sizes[i] + WG_AEAD_TAG_LEN);
		     bit += i == 7 ? 1 : 31)
			forge_one(33, i, bit / 8, (uint8_t)(1 << bit % 8));
	for (unsigned i = 0; i < 33; i++) /* every bit of the tag, in each lane */
		for (uint32_t bit = 0; bit < 8 * WG_AEAD_TAG_LEN; bit++)
			forge_one(33, i, sizes[i] + bit / 8, (uint8_t)(1 << bit % 8));
}

static void test_many_forged_packets(void)
{
	uint32_t sizes[20];

	for (unsigned i = 0; i < 20; i++)
		sizes[i] = 40 * i;
	prepare(20, sizes, 1);
	for (unsigned round = 0; round < 100; round++) {
		uint32_t forged = randombytes_random();
		memcpy(data, expected, 20 * STRIDE);
		for (unsigned i = 0; i < 20; i++)
			data[i * STRIDE + sizes[i] + 3] ^= (uint8_t)(forged >> i & 1);
		open_prepared(20);
		for (unsigned i = 0; i < 20; i++) {
			if (forged >> i & 1)
				assert(!packets[i].is_good);
			else
				check_open(i);
		}
	}
}

static void test_all(const char *name)
{
	printf("%s\n", name);
	test_key_stream_is_rfc8439_a1();
	set_key();
	randombytes_buf(plain, sizeof(plain));
	test_every_length_alone_and_in_full_lanes();
	test_every_number_of_packets();
	test_any_mix_of_lengths();
	test_counters_that_carry_and_jump();
	test_extreme_bytes();
	test_a_forged_packet_in_every_lane_disturbs_no_other();
	test_many_forged_packets();
}

/* Every way alone, and all together with the thresholds as they are. */
static void test_lanes(const struct wg_aead_lanes *lanes)
{
	char name[64];

	if (!lanes->is_supported()) {
		printf("%s: this CPU has it not\n", lanes->name);
		return;
	}
	for (unsigned i = 0; i < WG_AEAD_MAX_WAYS && lanes->ways[i].width > 0; i++) {
		snprintf(name, sizeof(name), "%s, way %u", lanes->name, i);
		force(lanes, i);
		test_all(name);
	}
	forced.lanes = lanes;
	test_all(lanes->name);
}

/* ---- choosing ---- */

static bool yes(void)
{
	return true;
}

static bool no(void)
{
	return false;
}

static void seal_rightly(const uint8_t k[KEY_LEN], struct wg_aead_packet *p, unsigned n)
{
	EVP_CIPHER_CTX *cipher = wg_cipher_new(&crypto, true);

	for (unsigned i = 0; i < n; i++)
		assert(wg_cipher_seal(cipher, k, p[i].counter, p[i].data, p[i].size));
	wg_cipher_free(cipher);
}

static void open_rightly(const uint8_t k[KEY_LEN], struct wg_aead_packet *p, unsigned n)
{
	EVP_CIPHER_CTX *cipher = wg_cipher_new(&crypto, false);

	for (unsigned i = 0; i < n; i++) {
		p[i].is_good = wg_cipher_open(cipher, k, p[i].counter, p[i].data,
					      p[i].size + WG_AEAD_TAG_LEN);
		if (!p[i].is_good)
			memset(p[i].data, 0, p[i].size);
	}
	wg_cipher_free(cipher);
}

static void seal_last_bit_wrong(const uint8_t k[KEY_LEN], struct wg_aead_packet *p, unsigned n)
{
	seal_rightly(k, p, n);
	p[n - 1].data[p[n - 1].size + WG_AEAD_TAG_LEN - 1] ^= 0x80;
}

static void open_everything(const uint8_t k[KEY_LEN], struct wg_aead_packet *p, unsigned n)
{
	open_rightly(k, p, n);
	for (unsigned i = 0; i < n; i++)
		p[i].is_good = true;
}

#define MENU(...) ((const struct wg_aead_lanes *[]){ __VA_ARGS__ })

static void test_choice(void)
{
	const struct wg_aead_way way = { .width = 4,
					 .at_least = { 2, 2, 2 },
					 .seal = seal_rightly,
					 .open = open_rightly };
	const struct wg_aead_lanes right = { .name = "right",
					     .is_supported = yes,
					     .ways = { way, way } };
	struct wg_aead_lanes bad_seal = right, bad_open = right, absent = right;
	struct wg_aead aead;

	bad_seal.name = "bad seal";
	bad_seal.ways[1].seal = seal_last_bit_wrong;
	bad_open.name = "bad open";
	bad_open.ways[0].open = open_everything;
	absent.is_supported = no;

	assert(wg_aead_init(&aead, &crypto, MENU(&absent, &right, NULL)) == 0);
	assert(aead.lanes == &right && !aead.failed && strcmp(wg_aead_name(&aead), "right") == 0);
	wg_aead_deinit(&aead);
	assert(wg_aead_init(&aead, &crypto, MENU(&bad_seal, &right, NULL)) == 0);
	assert(aead.lanes == &right && strcmp(aead.failed, "bad seal") == 0);
	wg_aead_deinit(&aead);
	assert(wg_aead_init(&aead, &crypto, MENU(&bad_open, &absent, NULL)) == 0);
	assert(!aead.lanes && strcmp(aead.failed, "bad open") == 0);
	assert(strcmp(wg_aead_name(&aead), "openssl") == 0);
	wg_aead_deinit(&aead);
	assert(wg_aead_init(&aead, &crypto, MENU(NULL)) == 0);
	assert(!aead.lanes && !aead.failed);

	wg_aead_deinit(&aead);
	assert(wg_aead_init(&aead, &crypto, wg_aead_all_lanes) == 0);
	assert(!aead.failed);
	printf("chosen: %s\n", wg_aead_name(&aead));
	wg_aead_deinit(&aead);
}

/* ---- what is left behind ---- */

/* Only optimized code has the frames that are used; sanitizers make others. */
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#define STACK_WORDS 8192 /* 32 KiB */
#define LEFT_BEHIND 8	 /* so many words cannot be there by chance */

static uint32_t secrets[MAX_PACKETS * MAX_SIZE / 4 + KEY_LEN / 4];
static size_t n_secrets;
static volatile uint32_t seen_stack[STACK_WORDS];

static __attribute__((noinline)) void paint_stack(void)
{
	volatile uint32_t below[STACK_WORDS];

	for (unsigned i = 0; i < STACK_WORDS; i++)
		below[i] = 0;
	(void)below[0];
}

static __attribute__((noinline)) void look_at_stack(void)
{
	volatile uint32_t below[STACK_WORDS];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__ /* which does not know it */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
	for (unsigned i = 0; i < STACK_WORDS; i++)
		seen_stack[i] = below[i];
#pragma GCC diagnostic pop
}

static int compare_words(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The key, and the key stream: what sealing has changed each packet by. */
static void collect_secrets(unsigned n)
{
	memcpy(secrets, key, KEY_LEN);
	n_secrets = KEY_LEN / 4;
	for (unsigned i = 0; i < n; i++) {
		for (uint32_t at = 0; at + 4 <= packets[i].size; at += 4) {
			uint32_t a, b;
			memcpy(&a, plain + i * STRIDE + at, 4);
			memcpy(&b, expected + i * STRIDE + at, 4);
			secrets[n_secrets++] = a ^ b;
		}
	}
	qsort(secrets, n_secrets, sizeof(secrets[0]), compare_words);
}

static unsigned count_secrets(void)
{
	unsigned found = 0;

	for (unsigned i = 0; i < STACK_WORDS; i++) {
		uint32_t word = seen_stack[i];
		found += word != 0 &&
			 bsearch(&word, secrets, n_secrets, sizeof(secrets[0]), compare_words) != NULL;
	}
	return found;
}

static void check_stack(unsigned n, uint32_t size)
{
	uint32_t sizes[MAX_PACKETS];

	for (unsigned i = 0; i < n; i++)
		sizes[i] = size;
	set_key();
	prepare(n, sizes, 7);
	collect_secrets(n);
	for (unsigned i = 0; i < n; i++)
		memcpy(packets[i].data, plain + i * STRIDE, size);
	paint_stack();
	uint32_t sealed = wg_aead_seal_packets(&forced, key, packets, n);
	look_at_stack();
	assert(sealed == n && count_secrets() < LEFT_BEHIND);
	paint_stack();
	wg_aead_open_packets(&forced, key, packets, n);
	look_at_stack();
	assert(packets[0].is_good && count_secrets() < LEFT_BEHIND);
}

static void test_no_key_and_no_key_stream_is_left_on_the_stack(const struct wg_aead_lanes *lanes)
{
	static const uint32_t sizes[] = { 16, 64, 200, 256, 300, 640, 1420, 2000 };

	for (unsigned way = 0; way < WG_AEAD_MAX_WAYS && lanes->ways[way].width > 0; way++) {
		force(lanes, way);
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			check_stack(1, sizes[i]);
			check_stack(lanes->ways[way].width, sizes[i]);
		}
	}
}

#else

static void test_no_key_and_no_key_stream_is_left_on_the_stack(const struct wg_aead_lanes *lanes)
{
}

#endif

int main(void)
{
	if (sodium_init() < 0 || wg_crypto_init(&crypto) != 0)
		return 1;
	assert(wg_aead_init(&forced, &crypto, MENU(NULL)) == 0);
	test_choice();
	test_all("openssl");
	for (const struct wg_aead_lanes *const *l = wg_aead_all_lanes; *l; l++)
		test_lanes(*l);
	for (const struct wg_aead_lanes *const *l = wg_aead_all_lanes; *l; l++)
		if ((*l)->is_supported())
			test_no_key_and_no_key_stream_is_left_on_the_stack(*l);
	forced.lanes = NULL;
	wg_aead_deinit(&forced);
	wg_crypto_deinit(&crypto);
	puts("ok");
}
