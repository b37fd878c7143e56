/*
 * Target: wg_device_receive, wg_device_send, wg_device_tick.
 *
 * The input is a script for the two devices of tests/unit/wireguard/tunnel.h: each command is a byte
 * and its arguments. Bytes of the input are handed over as they are, with a right mac1, or rightly
 * sealed, so that the code behind the authentication is reached too. Whatever is said, bounds hold
 * and a new conversation works at the end.
 */
#include "node/wireguard/device_internal.h"
#include "tests/unit/wireguard/tunnel.h"

#include <assert.h>
#include <string.h>

#define SECOND_NS    UINT64_C(1000000000)
#define MAX_COMMANDS 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct world w;

enum command {
	RAW,	  /* len16, bytes: a datagram for bob */
	WITH_MAC, /* bytes: a handshake message for bob with a right mac1 */
	SEALED,	  /* len16, bytes: a plain packet for bob, sealed by alice's session */
	SAY,	  /* len8, who */
	HAND_OVER,
	DAMAGE, /* where16, how */
	LOSE,
	WAIT, /* seconds */
	PLAIN, /* len16, bytes: a plain packet from alice's TUN */
	N_COMMANDS,
};

static void add_mac1(uint8_t *message, uint32_t len)
{
	struct wg_cookie cookie;

	wg_cookie_init(&cookie, &w.alice.device->local.crypto, &w.bob.public);
	memset(message + len - 32, 0, 32);
	wg_cookie_add_macs(&cookie, &w.alice.device->local.crypto, message, len, w.now.ns);
}

static void to_bob(uint32_t size, const uint8_t *bytes)
{
	static struct datagram datagram;

	datagram.from = &w.alice;
	datagram.size = size;
	memcpy(datagram.bytes, bytes, size);
	hand_over(&w, &datagram);
}

static void with_mac(struct wire_reader *r)
{
	uint8_t message[WG_INITIATION_LEN] = { 0 };
	bool is_response = wire_u8(r) & 1;
	uint32_t len = is_response ? WG_RESPONSE_LEN : WG_INITIATION_LEN;

	message[0] = is_response ? WG_MESSAGE_RESPONSE : WG_MESSAGE_INITIATION;
	wire_bytes(r, message + 4, len - 4 - 32);
	add_mac1(message, len);
	to_bob(len, message);
}

static void sealed(const uint8_t *bytes, uint32_t n)
{
	struct wg_keypair *keypair = w.alice.peer->keypairs.current;
	uint8_t datagram[DATAGRAM_MAX];

	if (!keypair)
		return;
	const struct wg_data_header header = { keypair->remote_index, keypair->next_counter++ };
	wg_data_header_encode(datagram, &header);
	memcpy(datagram + WG_DATA_HEADER_LEN, bytes, n);
	struct wg_aead_packet packet = { datagram + WG_DATA_HEADER_LEN, header.counter, n, false };
	n = wg_aead_seal_packets(&w.alice.device->own->aead, keypair->seal_key, &packet, 1);
	assert(n == 1);
	to_bob(packet.size + WG_OVERHEAD, datagram);
}

static void damage(struct wire_reader *r)
{
	uint16_t where = wire_u16(r);
	uint8_t how = wire_u8(r);

	if (w.n_cable > 0)
		w.cable[0].bytes[where % w.cable[0].size] ^= how;
}

static void hand_over_next(void)
{
	if (w.n_cable == 0)
		return;
	struct datagram datagram = cable_take(&w);
	hand_over(&w, &datagram);
}

/* Up to 1500 bytes of the input. */
static const uint8_t *take_bytes(struct wire_reader *r, uint32_t *ret_n)
{
	size_t n = wire_u16(r) % 1500;

	if (n > wire_left(r))
		n = wire_left(r);
	const uint8_t *bytes = wire_take(r, n);
	*ret_n = bytes ? (uint32_t)n : 0;
	return bytes ? bytes : (const uint8_t *)"";
}

static void obey(struct wire_reader *r)
{
	enum command command = wire_u8(r) % N_COMMANDS;
	const uint8_t *bytes;
	uint32_t n;

	switch (command) {
	case RAW:
		bytes = take_bytes(r, &n);
		to_bob(n, bytes);
		break;
	case WITH_MAC:
		with_mac(r);
		break;
	case SEALED:
		bytes = take_bytes(r, &n);
		sealed(bytes, n);
		break;
	case SAY:
		n = 20u + wire_u8(r);
		say(wire_u8(r) & 1 ? &w.alice : &w.bob, 1, n);
		break;
	case HAND_OVER:
		hand_over_next();
		break;
	case DAMAGE:
		damage(r);
		break;
	case LOSE:
		if (w.n_cable > 0)
			cable_take(&w);
		break;
	case WAIT:
		wait_s(&w, wire_u8(r));
		break;
	case PLAIN:
		bytes = take_bytes(r, &n);
		say_bytes(&w.alice, bytes, n);
		break;
	case N_COMMANDS:
		break;
	}
	assert(w.bob.device->indices.n <= 4 && w.alice.device->indices.n <= 4);
	w.alice.n_inbox = w.bob.n_inbox = 0;
	w.trace[0] = '\0';
}

static void all_is_well_again(void)
{
	cable_lose(&w);
	wait_s(&w, 700); /* all sessions are over */
	w.bob.n_inbox = 0;
	const struct wg_route route = { .n = 1, .paths = { { .remote = w.bob.address } } };
	wg_peer_set_route(w.alice.peer, &route, w.now);
	say(&w.alice, 9, 200);
	cable_run(&w);
	assert(w.bob.n_inbox >= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_reader r = wire_reader(data, size);
	const struct wg_config config = { .mtu = 1420, .n_staged = 256, .handshakes_per_second = 8 };

	world_begin_with(&w, &config);
	if (size > 0 && data[0] & 0x80)
		connect_both(&w);
	for (int i = 0; i < MAX_COMMANDS && wire_left(&r) > 0; i++)
		obey(&r);
	all_is_well_again();
	world_end(&w);
	return 0;
}
