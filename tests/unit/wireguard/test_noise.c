/*
 * Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s: the published vector of that name from the "cacophony"
 * collection (which other Noise implementations test against), and what must fail.
 */
#include "node/wireguard/noise.h"
#include "tests/unit/wireguard/hex.h"

#include <stdio.h>

struct world {
	struct wg_local initiator, responder;
	struct wg_remote to_responder, to_initiator;
	struct secret_key initiator_ephemeral, responder_ephemeral;
	struct wg_noise noise;
	struct wg_noise_opened opened;
	struct wg_session_keys initiator_keys, responder_keys;
	uint8_t first[256], second[256];
};

static const struct {
	const char *prologue, *psk;
	const char *initiator_static, *responder_static, *initiator_ephemeral, *responder_ephemeral;
	struct {
		const char *payload, *message;
	} messages[6];
} vector = {
	.prologue = "4a6f686e2047616c74",
	.psk = "54686973206973206d7920417573747269616e20706572737065637469766521",
	.initiator_static = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
	.responder_static = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
	.initiator_ephemeral = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
	.responder_ephemeral = "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
	.messages = {
		{ "4c756477696720766f6e204d69736573",
		  "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944"
		  "001e21de9f98ddd8e2ad57527207feb56253c9c94a9e496782ecfcb2a75fbcaf"
		  "1b52948cc48daefe660c62119ab50009"
		  "80c84831215f2441eba616548e832985464cf17e51ee93109008399a21f7e13f" },
		{ "4d757272617920526f746862617264",
		  "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843"
		  "cb765f2caef0751b8f007572dab0322217755c0632f365717edbf34d33e87a" },
		{ "462e20412e20486179656b", "8153ca9833bc3c1b91a7e66e5f4d4f5b59bf9e64c2f20d15f0bba7" },
		{ "4361726c204d656e676572", "07af0c9c86e1b4e80f36b04ff7688d51141af3debd0332f0a705ef" },
		{ "4a65616e2d426170746973746520536179",
		  "6ab1467c0448cc78394494abaaf23afce0e234315d6e2624dcbfa8a21c1c4d073d" },
		{ "457567656e2042f6686d20766f6e2042617765726b",
		  "dfc346c0d2296ae6cf1acf6f12b8456a1dba228cf8d8b774aacf1c47fc53aa80ebc7a4c292" },
	},
};

static void local_begin(struct wg_local *local, const char *secret_hex)
{
	struct secret_key secret;
	uint8_t prologue[64];
	size_t n = unhex(vector.prologue, prologue, sizeof(prologue));

	unhex(secret_hex, secret.bytes, KEY_LEN);
	assert(wg_local_init(local, prologue, n) == 0);
	wg_local_set_secret(local, &secret);
}

static void begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	local_begin(&w->initiator, vector.initiator_static);
	local_begin(&w->responder, vector.responder_static);
	unhex(vector.initiator_ephemeral, w->initiator_ephemeral.bytes, KEY_LEN);
	unhex(vector.responder_ephemeral, w->responder_ephemeral.bytes, KEY_LEN);
	wg_remote_set_key(&w->to_responder, &w->initiator, &w->responder.public);
	wg_remote_set_key(&w->to_initiator, &w->responder, &w->initiator.public);
	unhex(vector.psk, w->to_responder.psk, KEY_LEN);
	unhex(vector.psk, w->to_initiator.psk, KEY_LEN);
	assert(memcmp(w->to_responder.static_static, w->to_initiator.static_static, KEY_LEN) == 0);
}

static void end(struct world *w)
{
	wg_local_deinit(&w->initiator);
	wg_local_deinit(&w->responder);
}

/* The first message with its payload; returns its length. */
static size_t initiate(struct world *w)
{
	uint8_t payload[64];
	size_t n = unhex(vector.messages[0].payload, payload, sizeof(payload));

	assert(wg_noise_write_initiation(&w->noise, &w->initiator, &w->to_responder, &w->initiator_ephemeral,
					 payload, n, w->first) == 0);
	return n + WG_NOISE_FIRST_OVERHEAD;
}

static int accept(struct world *w, size_t len, uint8_t *ret_payload)
{
	int r = wg_noise_open_initiation(&w->responder, w->first, len, &w->opened);

	if (r == 0)
		r = wg_noise_finish_initiation(&w->opened, &w->responder, &w->to_initiator, w->first, len,
					       ret_payload);
	return r;
}

static size_t respond(struct world *w)
{
	uint8_t payload[64];
	size_t n = unhex(vector.messages[1].payload, payload, sizeof(payload));

	assert(wg_noise_write_response(&w->opened, &w->responder, &w->to_initiator, &w->responder_ephemeral,
				       payload, n, w->second, &w->responder_keys) == 0);
	return n + WG_NOISE_SECOND_OVERHEAD;
}

static int finish(struct world *w, size_t len)
{
	uint8_t payload[64];

	return wg_noise_read_response(&w->noise, &w->initiator, &w->to_responder, w->second, len, payload,
				      &w->initiator_keys);
}

/* Transport messages alternate, each direction counts for itself. */
static void check_transport(const uint8_t key[KEY_LEN], size_t i)
{
	struct wg_crypto crypto;
	uint8_t packet[128];
	size_t n = unhex(vector.messages[i].payload, packet, sizeof(packet));

	assert(wg_crypto_init(&crypto) == 0);
	EVP_CIPHER_CTX *seal = wg_cipher_new(&crypto, true);
	assert(wg_cipher_seal(seal, key, i / 2 - 1, packet, n));
	assert(is_hex(packet, n + WG_AEAD_TAG_LEN, vector.messages[i].message));
	wg_cipher_free(seal);
	wg_crypto_deinit(&crypto);
}

static void test_the_published_vector_byte_for_byte(void)
{
	struct world w;
	uint8_t payload[64];
	begin(&w);

	size_t n = initiate(&w);
	assert(is_hex(w.first, n, vector.messages[0].message));
	assert(accept(&w, n, payload) == 0);
	assert(is_hex(payload, n - WG_NOISE_FIRST_OVERHEAD, vector.messages[0].payload));
	assert(public_key_equal(&w.opened.remote_static, &w.initiator.public));
	n = respond(&w);
	assert(is_hex(w.second, n, vector.messages[1].message));
	assert(finish(&w, n) == 0);

	assert(memcmp(w.initiator_keys.send, w.responder_keys.receive, KEY_LEN) == 0);
	assert(memcmp(w.initiator_keys.receive, w.responder_keys.send, KEY_LEN) == 0);
	for (size_t i = 2; i < 6; i++)
		check_transport(i % 2 == 0 ? w.initiator_keys.send : w.responder_keys.send, i);
	end(&w);
}

/* The two constants that every WireGuard implementation starts from. */
static void test_the_start_of_wireguards_transcript(void)
{
	struct wg_local local;

	assert(wg_local_init(&local, WG_NOISE_PROLOGUE, strlen(WG_NOISE_PROLOGUE)) == 0);
	assert(is_hex(local.start.chain, WG_HASH_LEN,
		      "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"));
	assert(is_hex(local.start.hash, WG_HASH_LEN,
		      "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"));
	wg_local_deinit(&local);
}

static void test_every_changed_byte_of_an_initiation_is_noticed(void)
{
	struct world w;
	uint8_t payload[64];
	begin(&w);

	size_t n = initiate(&w);
	for (size_t i = 0; i < n; i++) {
		w.first[i] ^= 0x40;
		assert(accept(&w, n, payload) == WG_NOISE_E_DECRYPT);
		w.first[i] ^= 0x40;
	}
	assert(accept(&w, n, payload) == 0);
	end(&w);
}

static void test_a_forged_response_does_not_end_the_handshake(void)
{
	struct world w;
	uint8_t payload[64];
	begin(&w);

	assert(accept(&w, initiate(&w), payload) == 0);
	size_t n = respond(&w);
	for (size_t i = 0; i < n; i++) {
		w.second[i] ^= 0x40;
		assert(finish(&w, n) == WG_NOISE_E_DECRYPT);
		w.second[i] ^= 0x40;
	}
	assert(finish(&w, n) == 0);
	assert(finish(&w, n) == WG_NOISE_E_STATE); /* and only once */
	end(&w);
}

static void test_another_psk_is_noticed_by_the_initiator(void)
{
	struct world w;
	uint8_t payload[64];
	begin(&w);

	assert(accept(&w, initiate(&w), payload) == 0);
	w.to_initiator.psk[31] ^= 1;
	assert(finish(&w, respond(&w)) == WG_NOISE_E_DECRYPT);
	end(&w);
}

static void test_ephemerals_of_low_order_are_refused(void)
{
	struct world w;
	uint8_t payload[64];
	begin(&w);

	size_t n = initiate(&w);
	memset(w.first, 0, KEY_LEN);
	assert(accept(&w, n, payload) == WG_NOISE_E_LOW_ORDER);
	assert(accept(&w, initiate(&w), payload) == 0);
	n = respond(&w);
	memset(w.second, 0, KEY_LEN);
	assert(finish(&w, n) == WG_NOISE_E_LOW_ORDER);
	end(&w);
}

static void test_a_static_key_of_low_order_is_not_usable(void)
{
	struct world w;
	const struct public_key zero = { { 0 } };
	begin(&w);

	wg_remote_set_key(&w.to_responder, &w.initiator, &zero);
	assert(!w.to_responder.usable);
	assert(wg_noise_write_initiation(&w.noise, &w.initiator, &w.to_responder, &w.initiator_ephemeral,
					 NULL, 0, w.first) == WG_NOISE_E_LOW_ORDER);
	assert(!w.noise.waiting);
	end(&w);
}

static void test_short_messages_are_malformed(void)
{
	struct world w;
	uint8_t payload[64];
	begin(&w);

	initiate(&w);
	assert(accept(&w, WG_NOISE_FIRST_OVERHEAD - 1, payload) == WG_NOISE_E_MALFORMED);
	assert(finish(&w, WG_NOISE_SECOND_OVERHEAD - 1) == WG_NOISE_E_MALFORMED);
	end(&w);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_the_published_vector_byte_for_byte();
	test_the_start_of_wireguards_transcript();
	test_every_changed_byte_of_an_initiation_is_noticed();
	test_a_forged_response_does_not_end_the_handshake();
	test_another_psk_is_noticed_by_the_initiator();
	test_ephemerals_of_low_order_are_refused();
	test_a_static_key_of_low_order_is_not_usable();
	test_short_messages_are_malformed();
	puts("ok");
}
