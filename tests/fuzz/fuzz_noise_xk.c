/*
 * Target: noise_read_act_1, _2 and _3, the first bytes of any stranger, with fixed keys: BOLT-8's. The first byte says who
 * reads the rest:
 *
 *   '1'  the responder, as act 1        '3'  the responder, as act 3 of an initiator whose acts 1 and 2 were right
 *   '2'  the initiator, as act 2        'k'  the same, but sealed: a key (33), and a payload under it
 *
 * Each fails for its first reason, and leaves nothing; or is right, and the next act is due.
 */
#include "relay/diglett/noise_xk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PROLOGUE "diglett/2"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct noise_curve curve;
static struct noise_public initiators;

static struct noise_secret secret_of(uint8_t byte)
{
	struct noise_secret secret;

	memset(secret.bytes, byte, sizeof(secret.bytes));
	return secret;
}

static struct noise_public public_of(uint8_t byte)
{
	const struct noise_secret secret = secret_of(byte);
	struct noise_public public;

	if (!noise_public_of(&curve, &secret, &public))
		abort();
	return public;
}

static void begin(struct noise_handshake *initiator, struct noise_handshake *responder)
{
	const struct noise_secret a = secret_of(0x11), a_ephemeral = secret_of(0x12);
	const struct noise_secret b = secret_of(0x21), b_ephemeral = secret_of(0x22);
	const struct noise_public b_public = public_of(0x21);

	if (!noise_initiate(initiator, &curve, PROLOGUE, strlen(PROLOGUE), &a, &a_ephemeral, &b_public) ||
	    !noise_respond(responder, &curve, PROLOGUE, strlen(PROLOGUE), &b, &b_ephemeral))
		abort();
}

static void do_acts_1_and_2(struct noise_handshake *initiator, struct noise_handshake *responder)
{
	uint8_t act[NOISE_ACT_1_LEN];

	noise_write_act_1(initiator, act);
	if (noise_read_act_1(responder, act, sizeof(act)) != 0)
		abort();
	noise_write_act_2(responder, act);
	if (noise_read_act_2(initiator, act, sizeof(act)) != 0)
		abort();
}

static void assert_state(const struct noise_handshake *handshake, int error, uint8_t next_act)
{
	static const struct noise_handshake wiped;

	if (error == 0)
		assert(handshake->next_act == next_act);
	else
		assert(memcmp(handshake, &wiped, sizeof(wiped)) == 0);
}

/* Acts 1 and 2: what is wrong with them before a tag is looked at; 0: nothing. */
static int wrong_with_ephemeral(const uint8_t *act, size_t n)
{
	struct noise_public key;

	if (n != NOISE_ACT_1_LEN)
		return NOISE_LENGTH;
	if (act[0] != 0)
		return NOISE_VERSION;
	memcpy(key.bytes, act + 1, sizeof(key.bytes));
	return noise_public_is_valid(&curve, &key) ? 0 : NOISE_KEY;
}

static void read_ephemeral(struct noise_handshake *handshake, const uint8_t *act, size_t n)
{
	const int expected = wrong_with_ephemeral(act, n);
	const int r = handshake->is_initiator ? noise_read_act_2(handshake, act, n) : noise_read_act_1(handshake, act, n);

	assert(expected != 0 ? r == expected : r == 0 || r == NOISE_TAG);
	assert_state(handshake, r, handshake->is_initiator ? 3 : 2);
}

static void read_act_1(struct noise_handshake *responder, const uint8_t *act, size_t n)
{
	uint8_t answer[NOISE_ACT_2_LEN];

	read_ephemeral(responder, act, n);
	if (responder->next_act == 2)
		noise_write_act_2(responder, answer);
}

static void read_act_2(struct noise_handshake *initiator, const uint8_t *act, size_t n)
{
	uint8_t ours[NOISE_ACT_1_LEN], answer[NOISE_ACT_3_LEN];

	noise_write_act_1(initiator, ours);
	read_ephemeral(initiator, act, n);
	if (initiator->next_act == 3)
		noise_write_act_3(initiator, "", 0, answer);
}

static void read_act_3(struct noise_handshake *responder, const uint8_t *act, size_t n)
{
	static uint8_t payload[NOISE_MAX_PAYLOAD];
	const int r = noise_read_act_3(responder, act, n, payload);

	assert((r == NOISE_LENGTH) == (n < NOISE_ACT_3_LEN || n > NOISE_ACT_3_LEN + NOISE_MAX_PAYLOAD));
	assert_state(responder, r, 4);
}

/* Who has no right tag never gets to the key in act 3; an initiator of ill will does. */
static void read_sealed_key(struct noise_handshake *initiator, struct noise_handshake *responder, const uint8_t *data,
			    size_t size)
{
	static uint8_t act[NOISE_ACT_3_LEN + NOISE_MAX_PAYLOAD], payload[NOISE_MAX_PAYLOAD];
	const uint8_t *const sent = data + NOISE_PUBLIC_LEN;
	const size_t n = size - NOISE_PUBLIC_LEN;

	memcpy(initiator->own_public.bytes, data, NOISE_PUBLIC_LEN);
	const bool is_point = noise_public_is_valid(&curve, &initiator->own_public);
	const bool is_own = memcmp(&initiator->own_public, &initiators, sizeof(initiators)) == 0;
	noise_write_act_3(initiator, sent, n, act);
	const int r = noise_read_act_3(responder, act, NOISE_ACT_3_LEN + n, payload);
	assert(r == (is_own ? 0 : is_point ? NOISE_TAG : NOISE_KEY));
	assert(r != 0 || (n == 0 || memcmp(payload, sent, n) == 0));
	assert_state(responder, r, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t seed[32];
	struct noise_handshake initiator, responder;

	if (!curve.context) {
		if (noise_curve_init(&curve, seed) != 0)
			abort();
		initiators = public_of(0x11);
	}
	if (size == 0)
		return 0;
	begin(&initiator, &responder);
	if (data[0] == '1') {
		read_act_1(&responder, data + 1, size - 1);
	} else if (data[0] == '2') {
		read_act_2(&initiator, data + 1, size - 1);
	} else if (data[0] == '3') {
		do_acts_1_and_2(&initiator, &responder);
		read_act_3(&responder, data + 1, size - 1);
	} else if (data[0] == 'k' && size > NOISE_PUBLIC_LEN && size - 1 - NOISE_PUBLIC_LEN <= NOISE_MAX_PAYLOAD) {
		do_acts_1_and_2(&initiator, &responder);
		read_sealed_key(&initiator, &responder, data + 1, size - 1);
	}
	noise_handshake_wipe(&initiator);
	noise_handshake_wipe(&responder);
	return 0;
}
