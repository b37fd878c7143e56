#include "node/wireguard/aead.h"

#include "node/wireguard/aead_lanes.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

const struct wg_aead_lanes *const wg_aead_all_lanes[] = {
#ifdef P2P_NULL_CRYPTO
	&wg_aead_null,
#endif
#ifdef __x86_64__
	&wg_aead_avx512,
	&wg_aead_avx2,
#endif
	NULL,
};

/* ---- the self-test ---- */

#define TEST_LONGEST 1500 /* more than a pass of the widest way for one packet */
#define TEST_STRIDE  (TEST_LONGEST + WG_AEAD_TAG_LEN)
#define TEST_PACKETS 16

struct self_test {
	uint8_t key[KEY_LEN];
	uint8_t plain[TEST_PACKETS][TEST_STRIDE];
	uint8_t expected[TEST_PACKETS][TEST_STRIDE]; /* sealed by OpenSSL */
	uint8_t data[TEST_PACKETS][TEST_STRIDE];
	struct wg_aead_packet packets[TEST_PACKETS];
	unsigned n;
};

/* All of one length or each shorter than the one before; counters around a carry into their upper half. */
static bool prepare(struct self_test *test, EVP_CIPHER_CTX *cipher, uint32_t longest)
{
	for (unsigned i = 0; i < TEST_PACKETS; i++) {
		const uint32_t less = i * (longest % 3);
		const uint32_t size = less < longest ? longest - less : 0;
		test->packets[i] = (struct wg_aead_packet){ .data = test->data[i],
							    .counter = UINT64_C(0x1fffffff8) + i,
							    .size = size };
		memcpy(test->expected[i], test->plain[i], TEST_STRIDE);
		if (!wg_cipher_seal(cipher, test->key, test->packets[i].counter, test->expected[i],
				    size))
			return false;
	}
	return true;
}

static bool seals(struct self_test *test, const struct wg_aead_way *way)
{
	memcpy(test->data, test->plain, sizeof(test->data));
	way->seal(test->key, test->packets, test->n);
	for (unsigned i = 0; i < test->n; i++)
		if (memcmp(test->data[i], test->expected[i], TEST_STRIDE) != 0)
			return false;
	return true;
}

/* Packet `forged` gets a wrong bit in its tag. */
static bool opens(struct self_test *test, const struct wg_aead_way *way, unsigned forged)
{
	memcpy(test->data, test->expected, sizeof(test->data));
	test->data[forged][test->packets[forged].size + forged % WG_AEAD_TAG_LEN] ^= 0x10;
	way->open(test->key, test->packets, test->n);
	for (unsigned i = 0; i < test->n; i++) {
		const struct wg_aead_packet *packet = &test->packets[i];
		if (packet->is_good != (i != forged))
			return false;
		if (packet->is_good && memcmp(packet->data, test->plain[i], packet->size) != 0)
			return false;
		if (!packet->is_good && !sodium_is_zero(packet->data, packet->size))
			return false;
	}
	return true;
}

/* With the packets that are prepared: all that it takes, and one. */
static bool way_passes(struct self_test *test, const struct wg_aead_way *way, unsigned forged)
{
	if (way->width > TEST_PACKETS)
		return false;
	test->n = way->width;
	if (!seals(test, way) || !opens(test, way, forged % way->width))
		return false;
	test->n = 1;
	return seals(test, way) && opens(test, way, 0);
}

static bool passes_prepared(struct self_test *test, const struct wg_aead_lanes *lanes, unsigned forged)
{
	for (unsigned i = 0; i < WG_AEAD_MAX_WAYS && lanes->ways[i].width > 0; i++)
		if (!way_passes(test, &lanes->ways[i], forged))
			return false;
	return true;
}

/* This is done by every thread, and for every device: it is to take less than a millisecond. */
static bool passes(struct self_test *test, const struct wg_aead_lanes *lanes, EVP_CIPHER_CTX *cipher)
{
	static const uint32_t longest[] = { 0, 16, 47, 129, 448, TEST_LONGEST };

#ifdef P2P_NULL_CRYPTO
	if (lanes == &wg_aead_null)
		return true;
#endif
	for (unsigned i = 0; i < KEY_LEN; i++)
		test->key[i] = (uint8_t)(0xa5 ^ (i * 13));
	for (unsigned i = 0; i < TEST_PACKETS; i++)
		for (unsigned k = 0; k < TEST_STRIDE; k++)
			test->plain[i][k] = (uint8_t)(i * 31 + k * 7);
	for (unsigned i = 0; i < ARRAY_LEN(longest); i++)
		if (!prepare(test, cipher, longest[i]) || !passes_prepared(test, lanes, 5 * i))
			return false;
	return true;
}

/* ---- choosing ---- */

static int choose(struct wg_aead *aead, const struct wg_aead_lanes *const *candidates)
{
	struct self_test *test = calloc(1, sizeof(*test));

	if (!test)
		return -ENOMEM;
	for (; *candidates && !aead->lanes; candidates++) {
		if (!(*candidates)->is_supported())
			continue;
		if (passes(test, *candidates, aead->sealing))
			aead->lanes = *candidates;
		else
			aead->failed = (*candidates)->name;
	}
	free(test);
	return 0;
}

int wg_aead_init(struct wg_aead *aead, const struct wg_crypto *crypto,
		 const struct wg_aead_lanes *const *candidates)
{
	*aead = (struct wg_aead){ .sealing = wg_cipher_new(crypto, true),
				  .opening = wg_cipher_new(crypto, false) };
	if (aead->sealing && aead->opening && choose(aead, candidates) == 0)
		return 0;
	wg_aead_deinit(aead);
	return -ENOMEM;
}

void wg_aead_deinit(struct wg_aead *aead)
{
	wg_cipher_free(aead->sealing);
	wg_cipher_free(aead->opening);
	*aead = (struct wg_aead){ 0 };
}

const char *wg_aead_name(const struct wg_aead *aead)
{
	return aead->lanes ? aead->lanes->name : "openssl";
}

/* ---- trains ---- */

/* Registers that did not fit were spilled below us on the stack; they held key stream. */
static __attribute__((noinline)) void wipe_stack(void)
{
	uint8_t below[4096];

	wg_aead_wipe(below, sizeof(below));
}

/* The same of 16 packets with all that belongs to them. */
static __attribute__((noinline)) void wipe_deep_stack(void)
{
	uint8_t below[10240];

	wg_aead_wipe(below, sizeof(below));
}

/* The widest way that so many packets are worth; NULL: OpenSSL. */
static const struct wg_aead_way *choose_way(const struct wg_aead *aead,
					    const struct wg_aead_packet *packets, uint32_t n)
{
	/* All are of one size, or the last one is shorter: the first decides. */
	const unsigned size_class = packets->size <= 128 ? 0 : packets->size <= 640 ? 1 : 2;

	for (unsigned i = 0; aead->lanes && i < WG_AEAD_MAX_WAYS; i++) {
		const struct wg_aead_way *way = &aead->lanes->ways[i];
		if (way->width == 0)
			break;
		if (n >= way->at_least[size_class])
			return way;
	}
	return NULL;
}

static uint32_t at_most(uint32_t n, uint32_t limit)
{
	return n < limit ? n : limit;
}

/* How many were sealed or opened: the rest is OpenSSL's. */
static uint32_t use_lanes(const struct wg_aead *aead, bool sealing, const uint8_t key[KEY_LEN],
			  struct wg_aead_packet *packets, uint32_t n)
{
	const struct wg_aead_way *way;
	uint32_t done = 0, some;
	bool is_deep = false;

	for (; done < n && (way = choose_way(aead, packets + done, n - done)); done += some) {
		some = at_most(n - done, way->width);
		(sealing ? way->seal : way->open)(key, packets + done, some);
		is_deep |= way->is_deep;
	}
	if (is_deep)
		wipe_deep_stack();
	else if (done > 0)
		wipe_stack();
	return done;
}

static uint32_t seal_with_openssl(EVP_CIPHER_CTX *cipher, const uint8_t key[KEY_LEN],
				  struct wg_aead_packet *packets, uint32_t n)
{
	uint32_t done = 0;

	if (n == 0)
		return 0;
	while (done < n && wg_cipher_seal(cipher, key, packets[done].counter, packets[done].data,
					  packets[done].size))
		done++;
	wg_cipher_forget_key(cipher);
	return done;
}

static void open_with_openssl(EVP_CIPHER_CTX *cipher, const uint8_t key[KEY_LEN],
			      struct wg_aead_packet *packets, uint32_t n)
{
	if (n == 0)
		return;
	for (struct wg_aead_packet *packet = packets; packet < packets + n; packet++) {
		packet->is_good = wg_cipher_open(cipher, key, packet->counter, packet->data,
						 (size_t)packet->size + WG_AEAD_TAG_LEN);
		if (!packet->is_good)
			memset(packet->data, 0, packet->size);
	}
	wg_cipher_forget_key(cipher);
}

uint32_t wg_aead_seal_packets(struct wg_aead *aead, const uint8_t key[KEY_LEN],
			      struct wg_aead_packet *packets, uint32_t n)
{
	const uint32_t done = use_lanes(aead, true, key, packets, n);

	return done + seal_with_openssl(aead->sealing, key, packets + done, n - done);
}

void wg_aead_open_packets(struct wg_aead *aead, const uint8_t key[KEY_LEN],
			  struct wg_aead_packet *packets, uint32_t n)
{
	const uint32_t done = use_lanes(aead, false, key, packets, n);

	open_with_openssl(aead->opening, key, packets + done, n - done);
}
