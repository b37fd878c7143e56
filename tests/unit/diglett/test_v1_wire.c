/* Version 1, byte by byte; what is wrong with it; and what its agents may say, and when. */
#include "relay/diglett/v1_fsm.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

/* Of the project's description of the protocol: the agent's secret is 32 × 11, the server's 32 × 21. */
#define AGENT_HELLO  "6469676c01034f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa"
#define SERVER_HELLO "6469676c01028d7500dd4c12685d1f568b4c2b5048e8534b873319f3a8daa612b469132ec7f7"
#define KEY	     "97b1fe713d6665c5b645f6a4d4ba85756130987676d9db2269e468e94dae645d"
#define IV	     "7b7cf29b42802ffb915526165dde5219"
#define FROM_AGENT   "c045bc3a068bc5a7267f3aaa2846fcc3496526080df25d6ecfca56a4274830"
#define FROM_SERVER  "c745bc3a068bc6d3491438aa2846f8c34e82376972c5745fece576ec731c6020ad3ccb0ec10bda"

static struct noise_curve curve;

static size_t unhex(const char *hex, uint8_t *ret, size_t max)
{
	size_t n = 0;

	assert(sodium_hex2bin(ret, max, hex, strlen(hex), NULL, &n, NULL) == 0);
	return n;
}

static bool is(const void *bytes, size_t n, const char *hex)
{
	uint8_t expected[128];

	return unhex(hex, expected, sizeof(expected)) == n && memcmp(bytes, expected, n) == 0;
}

static void keys_of(uint8_t own, uint8_t other, struct noise_public *ret_own, struct v1_keys *ret)
{
	struct noise_secret secret, others;
	struct noise_public public;

	memset(secret.bytes, own, sizeof(secret.bytes));
	memset(others.bytes, other, sizeof(others.bytes));
	assert(noise_public_of(&curve, &secret, ret_own) && noise_public_of(&curve, &others, &public));
	assert(v1_agree(&curve, &secret, &public, ret));
}

static void test_hello_and_keys_are_those_of_the_vectors_on_both_sides(void)
{
	struct noise_public agent, server, read;
	struct v1_keys of_agent, of_server;
	uint8_t hello[V1_HELLO_LEN];

	keys_of(0x11, 0x21, &agent, &of_agent);
	keys_of(0x21, 0x11, &server, &of_server);
	assert(is(of_agent.key, V1_KEY_LEN, KEY) && is(of_agent.iv, V1_IV_LEN, IV));
	assert(memcmp(&of_agent, &of_server, sizeof(of_agent)) == 0);
	v1_hello_write(&agent, hello);
	assert(is(hello, sizeof(hello), AGENT_HELLO));
	assert(v1_hello_read(&curve, hello, &read) == 0 && memcmp(&read, &agent, sizeof(read)) == 0);
	v1_hello_write(&server, hello);
	assert(is(hello, sizeof(hello), SERVER_HELLO));
}

static void test_a_hello_that_is_none_is_refused(void)
{
	struct noise_public read;
	uint8_t hello[V1_HELLO_LEN];

	unhex(AGENT_HELLO, hello, sizeof(hello));
	for (size_t i = 0; i < 6; i++) { /* magic, version, and the point's first byte */
		hello[i] ^= 4;
		assert(v1_hello_read(&curve, hello, &read) == (i < 5 ? NOISE_VERSION : NOISE_KEY));
		hello[i] ^= 4;
	}
	memset(hello + 6, 0xff, 32); /* not of the curve */
	assert(v1_hello_read(&curve, hello, &read) == NOISE_KEY);
}

static size_t put(uint8_t *at, enum v1_kind kind, uint32_t id, const char *payload)
{
	const struct v1_head head = { kind, id, (uint16_t)strlen(payload) };

	v1_head_write(&head, at);
	memcpy(at + V1_HEAD_LEN, payload, head.size);
	return V1_HEAD_LEN + head.size;
}

static void test_frames_are_those_of_the_vectors(void)
{
	struct v1_keys keys;
	struct noise_public public;
	struct v1_cipher cipher = { 0 };
	uint8_t bytes[64];
	size_t n = 0;

	keys_of(0x11, 0x21, &public, &keys);
	assert(v1_cipher_init(&cipher, &keys) == 0);
	n += put(bytes + n, V1_LOGIN, 0, "tok");
	n += put(bytes + n, V1_REGISTER, 0, "example");
	n += put(bytes + n, V1_FINISH_REGISTER, 0, "");
	v1_cipher_apply(&cipher, bytes, 5); /* however it is cut */
	v1_cipher_apply(&cipher, bytes + 5, n - 5);
	assert(is(bytes, n, FROM_AGENT));
	v1_cipher_deinit(&cipher);
	assert(v1_cipher_init(&cipher, &keys) == 0);
	n = put(bytes, V1_OK, 0, "");
	n += put(bytes + n, V1_OK, 0, "");
	n += put(bytes + n, V1_PAYLOAD, 0x8269, "GET / HTTP/1.0\r\n\r\n");
	v1_cipher_apply(&cipher, bytes, n);
	assert(is(bytes, n, FROM_SERVER));
	v1_cipher_deinit(&cipher);
}

/* Why it is behind a switch. No key is used here, but what anybody on the way sees. */
static void test_who_hears_both_directions_reads_the_token_without_any_key(void)
{
	uint8_t agent[64], server[64];
	struct v1_head head;

	unhex(FROM_AGENT, agent, sizeof(agent));
	unhex(FROM_SERVER, server, sizeof(server));
	for (size_t i = 0; i < 2 * V1_HEAD_LEN; i++) /* the server's two Ok are zeros: what is seen is the keystream */
		agent[i] ^= server[i];
	assert(v1_head_read(agent, &head) && head.kind == V1_LOGIN && head.id == 0 && head.size == 3);
	assert(memcmp(agent + V1_HEAD_LEN, "tok", 3) == 0);
	assert(agent[V1_HEAD_LEN + 3] == V1_REGISTER);
	/* And then what the visitor says, by what is known of the registration: a name is public. */
	static const uint8_t known[] = { 0, 7, 'e', 'x', 'a', 'm', 'p', 'l', 'e', V1_FINISH_REGISTER, 0, 0, 0, 0, 0, 0 };
	unhex(FROM_AGENT, agent, sizeof(agent));
	for (size_t i = 0; i < sizeof(known); i++)
		server[15 + i] ^= (uint8_t)(agent[15 + i] ^ known[i]);
	assert(memcmp(server + 21, "GET / HTTP", 10) == 0);
}

static void test_a_byte_that_was_changed_on_the_way_is_not_noticed(void)
{
	struct v1_keys keys;
	struct noise_public public;
	struct v1_cipher cipher = { 0 };
	uint8_t bytes[64];
	const size_t n = unhex(FROM_AGENT, bytes, sizeof(bytes));

	bytes[17 + 0] ^= 'e' ^ 'f';
	keys_of(0x21, 0x11, &public, &keys);
	assert(v1_cipher_init(&cipher, &keys) == 0);
	v1_cipher_apply(&cipher, bytes, n);
	assert(memcmp(bytes + 17, "fxample", 7) == 0);
	v1_cipher_deinit(&cipher);
}

/* The iv begins with the counter, which is random: another library counts in 64 bits. */
static void test_the_counter_of_blocks_carries(void)
{
	struct v1_keys keys;
	struct v1_cipher cipher = { 0 };
	uint8_t bytes[200] = { 0 }, expected[200] = { 0 };

	memset(&keys, 7, sizeof(keys));
	memset(keys.iv, 0xff, 4);
	assert(v1_cipher_init(&cipher, &keys) == 0);
	v1_cipher_apply(&cipher, bytes, 100);
	v1_cipher_apply(&cipher, bytes + 100, 100);
	uint64_t counter = 0;
	for (int i = 7; i >= 0; i--)
		counter = counter << 8 | keys.iv[i];
	crypto_stream_chacha20_xor_ic(expected, expected, sizeof(expected), keys.iv + 8, counter, keys.key);
	assert(memcmp(bytes, expected, sizeof(bytes)) == 0);
	v1_cipher_deinit(&cipher);
}

static enum v1_event say(struct v1_fsm *fsm, enum v1_kind kind, uint32_t id, const char *payload)
{
	const struct v1_head head = { kind, id, (uint16_t)strlen(payload) };

	return v1_fsm_receive(fsm, &head, (const uint8_t *)payload);
}

static void test_an_agent_logs_in_then_names_itself_then_speaks(void)
{
	struct v1_fsm fsm;

	v1_fsm_init(&fsm);
	assert(say(&fsm, V1_LOGIN, 0, "tok") == V1_EV_LOGGED_IN);
	assert(say(&fsm, V1_REGISTER, 3u << 16, "Example") == V1_EV_ASKS);
	assert(strcmp(fsm.request.token, "tok") == 0 && strcmp(fsm.request.names[0].text, "example") == 0);
	assert(fsm.request.n_ports == 1 && fsm.registration == 3);
	v1_fsm_answer(&fsm);
	assert(say(&fsm, V1_FINISH_REGISTER, 0, "") == V1_EV_OPEN);
	assert(say(&fsm, V1_PAYLOAD, 3u << 16 | 9, "x") == V1_EV_CAME && say(&fsm, V1_PAYLOAD, 9, "") == V1_EV_CAME);
	assert(say(&fsm, V1_CLOSE, 9, "") == V1_EV_CLOSED);
	assert(say(&fsm, V1_TERMINATE, 0, "") == V1_EV_LEAVES);
}

/* As many words as the state asks for, from the beginning. */
static void reach(struct v1_fsm *fsm, enum v1_state state)
{
	v1_fsm_init(fsm);
	if (state > V1_IN_LOGIN)
		assert(say(fsm, V1_LOGIN, 0, "tok") == V1_EV_LOGGED_IN);
	if (state > V1_IN_REGISTER) {
		assert(say(fsm, V1_REGISTER, 0, "example") == V1_EV_ASKS);
		v1_fsm_answer(fsm);
	}
	if (state > V1_IN_FINISH)
		assert(say(fsm, V1_FINISH_REGISTER, 0, "") == V1_EV_OPEN);
	assert(fsm->state == state);
}

static void test_whatever_else_it_says_breaks_the_rules(void)
{
	static const bool may[][V1_N_KINDS] = {
		[V1_IN_LOGIN] = { [V1_LOGIN] = true, [V1_TERMINATE] = true },
		[V1_IN_REGISTER] = { [V1_REGISTER] = true, [V1_TERMINATE] = true },
		[V1_IN_FINISH] = { [V1_FINISH_REGISTER] = true, [V1_TERMINATE] = true },
		[V1_IS_OPEN] = { [V1_PAYLOAD] = true, [V1_CLOSE] = true, [V1_TERMINATE] = true },
	};
	struct v1_fsm fsm;

	for (enum v1_state state = V1_IN_LOGIN; state <= V1_IS_OPEN; state++)
		for (enum v1_kind kind = V1_OK; kind < V1_N_KINDS; kind++) {
			reach(&fsm, state);
			const char *payload = kind == V1_REGISTER || kind == V1_LOGIN ? "x" : "";
			assert((say(&fsm, kind, 0, payload) != V1_EV_VIOLATION) == may[state][kind]);
		}
	static const char *const names[] = { "", "a b", "a;b", "../x", "a_b", "1.2.3.4/", ".", "-" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		reach(&fsm, V1_IN_REGISTER);
		assert(say(&fsm, V1_REGISTER, 0, names[i]) == V1_EV_VIOLATION);
	}
	v1_fsm_init(&fsm);
	assert(say(&fsm, V1_LOGIN, 0, "two words") == V1_EV_VIOLATION);
	char long_token[DIGLETT_MAX_TOKEN + 2];
	memset(long_token, 'x', sizeof(long_token) - 1);
	long_token[sizeof(long_token) - 1] = '\0';
	assert(say(&fsm, V1_LOGIN, 0, long_token) == V1_EV_VIOLATION);
	assert(say(&fsm, V1_LOGIN, 0, long_token + 1) == V1_EV_LOGGED_IN);
}

int main(void)
{
	const uint8_t seed[32] = { 1 };

	assert(sodium_init() >= 0 && noise_curve_init(&curve, seed) == 0);
	test_hello_and_keys_are_those_of_the_vectors_on_both_sides();
	test_a_hello_that_is_none_is_refused();
	test_frames_are_those_of_the_vectors();
	test_who_hears_both_directions_reads_the_token_without_any_key();
	test_a_byte_that_was_changed_on_the_way_is_not_noticed();
	test_the_counter_of_blocks_carries();
	test_an_agent_logs_in_then_names_itself_then_speaks();
	test_whatever_else_it_says_breaks_the_rules();
	noise_curve_deinit(&curve);
	return 0;
}
