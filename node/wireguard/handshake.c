/*
 * Initiations, responses and cookie replies, both ways. Nothing of a peer changes before the
 * message is authenticated to the end; a cookie reply changes nothing but the cookie.
 */
#include "node/wireguard/device_internal.h"

#include "common/wire.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#define TIMESTAMP_LEN     12
#define STAMP_STEP_NS     (UINT64_C(1) << 24) /* time is told no finer than 16.7 ms */
#define INITIATION_MIN_NS (WG_SECOND_NS / 50) /* between two of one peer */

/* ---- common ---- */

static void transmit_handshake(struct wg_peer *peer, uint8_t *message, size_t len,
			       struct wg_time now)
{
	struct train datagram = train_of_one(message, len);

	datagram.ds = WG_DS_HANDSHAKE;
	wg_peer_transmit(peer, &datagram, now);
}

static void make_ephemeral(struct wg_device *device, struct secret_key *ret)
{
	wg_device_random(device, ret->bytes, sizeof(ret->bytes));
	ret->bytes[0] &= 248;
	ret->bytes[31] = (uint8_t)((ret->bytes[31] & 127) | 64);
}

/*
 * Random, so that indices tell nothing about how many peers there are; but the remainder says which
 * of the lanes opens this peer's sessions.
 */
static uint32_t unused_index(const struct wg_peer *peer)
{
	struct wg_device *device = peer->device;
	uint32_t index;

	do {
		wg_device_random(device, &index, sizeof(index));
		index -= index % device->n_shards;
		index += peer->shard;
	} while (index < peer->shard || wg_index_table_find(&device->indices, index));
	return index;
}

static int install_session(struct wg_peer *peer, struct wg_session_keys *keys, bool is_initiator,
			   uint32_t local_index, uint32_t remote_index, struct wg_time now)
{
	struct wg_device *device = peer->device;
	struct wg_keypair *keypair =
		wg_keypair_new(peer, keys, is_initiator, local_index, remote_index, now.ns);
	struct wg_dropped dropped;

	sodium_memzero(keys, sizeof(*keys));
	if (!keypair ||
	    wg_session_table_add(&device->sessions, &device->readers, local_index, keypair) != 0) {
		wg_keypair_free(keypair);
		wg_drop(device, WG_DROP_INTERNAL);
		return -ENOMEM;
	}
	wg_keypairs_install(&peer->keypairs, keypair, &dropped);
	wg_device_drop_keypairs(device, &dropped);
	wg_peer_publish_session(peer);
	const struct wg_index_entry entry = { .index = local_index,
					      .peer = peer,
					      .keypair = keypair };
	wg_index_table_add(&device->indices, &entry);
	wg_timers_on_session_derived(&peer->timers, now.ns);
	return 0;
}

/* ---- initiation, sent ---- */

/*
 * TAI64N: seconds since 1970 TAI with the top bit set, and nanoseconds. Always later than the last
 * one that this peer got, also when the clock was set back: else it would take us for a replay.
 */
static void make_timestamp(struct wg_peer *peer, struct wg_time now, uint8_t ret[TIMESTAMP_LEN])
{
	struct wire_writer w = wire_writer(ret, TIMESTAMP_LEN);
	uint64_t seconds = now.real_ns / WG_SECOND_NS;
	uint64_t stamp_ns =
		seconds * WG_SECOND_NS + (now.real_ns % WG_SECOND_NS & ~(STAMP_STEP_NS - 1));

	if (stamp_ns <= peer->last_stamp_ns)
		stamp_ns = peer->last_stamp_ns + STAMP_STEP_NS;
	peer->last_stamp_ns = stamp_ns;
	wire_put_u64(&w, UINT64_C(0x400000000000000a) + stamp_ns / WG_SECOND_NS);
	wire_put_u32(&w, (uint32_t)(stamp_ns % WG_SECOND_NS));
}

void wg_peer_abandon_handshake(struct wg_peer *peer)
{
	if (peer->noise.waiting)
		wg_index_table_remove(&peer->device->indices, peer->handshake_index);
	wg_noise_clear(&peer->noise);
}

static int write_initiation(struct wg_peer *peer, struct wg_time now, struct wg_initiation *ret)
{
	struct wg_device *device = peer->device;
	uint8_t timestamp[TIMESTAMP_LEN];
	struct secret_key ephemeral;

	make_timestamp(peer, now, timestamp);
	make_ephemeral(device, &ephemeral);
	int r = wg_noise_write_initiation(&peer->noise, &device->local, &peer->remote, &ephemeral,
					  timestamp, sizeof(timestamp), ret->noise);
	secret_key_wipe(&ephemeral);
	return r;
}

static void send_initiation(struct wg_peer *peer, struct wg_time now)
{
	struct wg_device *device = peer->device;
	struct wg_initiation initiation = { 0 };
	uint8_t message[WG_INITIATION_LEN];

	wg_peer_abandon_handshake(peer);
	if (write_initiation(peer, now, &initiation) != 0)
		return; /* the peer's key is of low order: there is no way to talk to it */
	peer->handshake_index = initiation.sender = unused_index(peer);
	wg_index_table_add(&device->indices,
			   &(struct wg_index_entry){ .index = initiation.sender, .peer = peer });
	wg_initiation_encode(message, &initiation);
	wg_cookie_add_macs(&peer->cookie, &device->local.crypto, message, sizeof(message), now.ns);
	wg_timers_on_any_sent(&peer->timers, now.ns);
	transmit_handshake(peer, message, sizeof(message), now);
}

void wg_peer_initiate(struct wg_peer *peer, bool is_retry, struct wg_time now)
{
	if (!peer->remote.usable || !wg_timers_may_initiate(&peer->timers, is_retry, now.ns))
		return;
	peer->n_initiations++;
	peer->reached_nobody = peer->route.n == 0;
	if (!peer->reached_nobody)
		send_initiation(peer, now);
	wg_timers_on_initiation_sent(&peer->timers, now.ns);
	wg_peer_tell_sent(peer, now);
	wg_peer_reschedule(peer);
}

/* ---- under load ---- */

static bool is_under_load(struct wg_device *device, uint64_t now_ns)
{
	const uint64_t cost = WG_SECOND_NS / device->handshakes_per_second;
	const uint64_t full = cost * (1 + device->handshakes_per_second / 4);
	uint64_t elapsed = now_ns - device->load_last_ns;

	device->load_last_ns = now_ns;
	device->load_tokens_ns =
		elapsed >= full - device->load_tokens_ns ? full : device->load_tokens_ns + elapsed;
	if (device->load_tokens_ns >= cost)
		device->load_tokens_ns -= cost;
	else
		device->load_until_ns = now_ns + WG_UNDER_LOAD_NS;
	return now_ns < device->load_until_ns;
}

bool wg_device_is_under_load(const struct wg_device *device, struct wg_time now)
{
	return now.ns < device->load_until_ns;
}

/* What a cookie is bound to: the address and port, or who sent it through which relay. */
static void source_of(const struct wg_path *from, uint8_t ret[WG_SOURCE_LEN])
{
	struct wire_writer w = wire_writer(ret, WG_SOURCE_LEN);

	memset(ret, 0, WG_SOURCE_LEN);
	wire_put_u8(&w, from->relay_id != 0);
	if (from->relay_id != 0) {
		wire_put_u32(&w, from->relay_id);
		wire_put_u32(&w, from->peer_id);
	} else {
		wire_put_endpoint(&w, &from->remote);
	}
}

/* What the rate is limited by: an IPv4 address, an IPv6 /64, or a peer. */
static uint64_t source_hash(const struct wg_device *device, const struct wg_path *from)
{
	if (from->relay_id != 0)
		return wg_device_hash(device, &from->peer_id, sizeof(from->peer_id));
	return wg_device_hash(device, from->remote.ip, endpoint_is_v4(&from->remote) ? 16 : 8);
}

static void send_cookie(struct wg_device *device, const uint8_t *message, size_t len,
			const uint8_t source[WG_SOURCE_LEN], const struct wg_path *from, struct wg_time now)
{
	struct wg_cookie_reply reply;
	uint8_t buffer[WG_COOKIE_REPLY_LEN];
	struct train datagram = train_of_one(buffer, sizeof(buffer));
	const struct wg_path back = wg_device_way_of_cookie(device, from, now);

	wg_device_random(device, reply.nonce, sizeof(reply.nonce));
	wg_cookie_make_reply(&device->checker, &device->local.crypto, message, len, source, &reply);
	wg_cookie_reply_encode(buffer, &reply);
	datagram.ds = WG_DS_HANDSHAKE;
	device->ports.transmit(device->ports.owner, NULL, &back, &datagram);
}

static bool admit_under_load(struct wg_device *device, const uint8_t *message, size_t len,
			     const struct wg_path *from, struct wg_time now)
{
	uint8_t source[WG_SOURCE_LEN], secret[KEY_LEN];

	if (wg_cookie_secret_is_old(&device->checker, now.ns)) {
		wg_device_random(device, secret, sizeof(secret));
		wg_cookie_set_secret(&device->checker, secret, now.ns);
		sodium_memzero(secret, sizeof(secret));
	}
	source_of(from, source);
	if (!wg_cookie_check_mac2(&device->checker, &device->local.crypto, message, len, source)) {
		send_cookie(device, message, len, source, from, now);
		wg_drop(device, WG_DROP_COOKIE_REQUIRED);
		return false;
	}
	if (!wg_ratelimiter_allow(&device->limiter, source_hash(device, from), now.ns)) {
		wg_drop(device, WG_DROP_RATE_LIMITED);
		return false;
	}
	return true;
}

/* Before any curve operation: does the sender know our key, and under load its own address? */
static bool admit(struct wg_device *device, const uint8_t *message, size_t len,
		  const struct wg_path *from, struct wg_time now)
{
	if (secret_key_is_zero(&device->local.secret)) {
		wg_drop(device, WG_DROP_NO_PRIVATE_KEY);
		return false;
	}
	if (!wg_cookie_check_mac1(&device->checker, &device->local.crypto, message, len)) {
		wg_drop(device, WG_DROP_MAC1);
		return false;
	}
	return !is_under_load(device, now.ns) || admit_under_load(device, message, len, from, now);
}

/*
 * The lane that opens the peer's data tells anew where it comes from: that may be elsewhere. Not all that changes the
 * way back is told by the kernel (a cable pulled where routes with a dead link are ignored): asked at each handshake.
 */
static void on_authentic(struct wg_peer *peer, const struct wg_path *from, size_t len, struct wg_time now)
{
	wg_mark_add(&peer->marks.rx_bytes, len);
	if (wg_peer_on_authenticated(peer, from, true, now))
		atomic_fetch_add(&peer->published.route_version, 1);
}

/* ---- initiation, received ---- */

/* Two relays to one peer are one way: which of them was taken last does not matter. */
static bool is_same_way(const struct wg_path *a, const struct wg_path *b)
{
	if (a->relay_id != 0 && b->relay_id != 0)
		return a->peer_id == b->peer_id;
	return wg_path_equal(a, b);
}

/* By the way that the question came, and by the route if that is another. */
static void transmit_response(struct wg_peer *peer, uint8_t *message, size_t len,
			      const struct wg_path *from, struct wg_time now)
{
	struct wg_device *device = peer->device;
	const struct wg_path back = wg_peer_way_back(peer, from, now);
	struct train datagram = train_of_one(message, len);

	datagram.ds = WG_DS_HANDSHAKE;
	wg_mark_add(&peer->marks.tx_bytes, len);
	peer->stats.last_send_ns = now.ns;
	device->ports.transmit(device->ports.owner, peer, &back, &datagram);
	for (uint32_t i = 0; i < peer->route.n; i++)
		if (!is_same_way(&peer->route.paths[i], from))
			device->ports.transmit(device->ports.owner, peer, &peer->route.paths[i],
					       &datagram);
}

static void respond(struct wg_peer *peer, struct wg_noise_opened *opened, uint32_t remote_index,
		    const struct wg_path *from, struct wg_time now)
{
	struct wg_device *device = peer->device;
	struct wg_response response = { .sender = unused_index(peer), .receiver = remote_index };
	struct wg_session_keys keys;
	struct secret_key ephemeral;
	uint8_t message[WG_RESPONSE_LEN];

	make_ephemeral(device, &ephemeral);
	int r = wg_noise_write_response(opened, &device->local, &peer->remote, &ephemeral, NULL, 0,
					response.noise, &keys);
	secret_key_wipe(&ephemeral);
	if (r != 0) {
		wg_drop(device, WG_DROP_HANDSHAKE);
		return;
	}
	if (install_session(peer, &keys, false, response.sender, remote_index, now) != 0)
		return;
	wg_response_encode(message, &response);
	wg_cookie_add_macs(&peer->cookie, &device->local.crypto, message, sizeof(message), now.ns);
	wg_timers_on_any_sent(&peer->timers, now.ns);
	wg_timers_on_response_sent(&peer->timers, now.ns);
	transmit_response(peer, message, sizeof(message), from, now);
}

/*
 * NULL: counted and dropped. Else the peer is authentic and its initiation new. What is new is
 * judged by the latest time stamp in memory only: a peer whose clock was far ahead once is refused
 * until we or the peer object start anew (CVE-2021-46873 is about attackers who move clocks).
 */
static struct wg_peer *authenticate(struct wg_device *device,
				    const struct wg_initiation *initiation,
				    struct wg_noise_opened *opened, struct wg_time now)
{
	uint8_t timestamp[TIMESTAMP_LEN];
	enum wg_drop why = WG_N_DROPS;
	struct wg_peer *peer = NULL;

	if (wg_noise_open_initiation(&device->local, initiation->noise, sizeof(initiation->noise),
				     opened) != 0)
		why = WG_DROP_HANDSHAKE;
	else if (!(peer = wg_device_find_peer(device, &opened->remote_static)))
		why = WG_DROP_UNKNOWN_PEER;
	else if (wg_noise_finish_initiation(opened, &device->local, &peer->remote,
					    initiation->noise, sizeof(initiation->noise),
					    timestamp) != 0)
		why = WG_DROP_HANDSHAKE;
	else if (memcmp(timestamp, peer->latest_timestamp, sizeof(timestamp)) <= 0)
		why = WG_DROP_TIMESTAMP;
	else if (wg_is_recent(peer->last_initiation_ns, INITIATION_MIN_NS, now.ns))
		why = WG_DROP_FLOOD;
	if (why != WG_N_DROPS) {
		wg_drop(device, why);
		return NULL;
	}
	memcpy(peer->latest_timestamp, timestamp, sizeof(timestamp));
	peer->last_initiation_ns = now.ns;
	return peer;
}

static void receive_initiation(struct wg_device *device, const uint8_t *message, size_t len,
			       const struct wg_path *from, struct wg_time now)
{
	struct wg_noise_opened opened;
	struct wg_initiation initiation;

	if (wg_initiation_decode(message, len, &initiation) != 0) {
		wg_drop(device, WG_DROP_MALFORMED);
		return;
	}
	struct wg_peer *peer = authenticate(device, &initiation, &opened, now);
	if (peer) {
		on_authentic(peer, from, len, now);
		respond(peer, &opened, initiation.sender, from, now);
		wg_peer_reschedule(peer);
	}
	sodium_memzero(&opened, sizeof(opened));
}

/* ---- response, received ---- */

static void receive_response(struct wg_device *device, const uint8_t *message, size_t len,
			     const struct wg_path *from, struct wg_time now)
{
	struct wg_session_keys keys;
	struct wg_response response;
	uint8_t nothing[1];

	if (wg_response_decode(message, len, &response) != 0) {
		wg_drop(device, WG_DROP_MALFORMED);
		return;
	}
	const struct wg_index_entry *entry =
		wg_index_table_find(&device->indices, response.receiver);
	if (!entry || entry->keypair) {
		wg_drop(device, WG_DROP_UNKNOWN_INDEX);
		return;
	}
	struct wg_peer *peer = entry->peer;
	if (wg_noise_read_response(&peer->noise, &device->local, &peer->remote, response.noise,
				   sizeof(response.noise), nothing, &keys) != 0) {
		wg_drop(device, WG_DROP_HANDSHAKE);
		return;
	}
	/* The handshake is over, its index becomes that of the session. */
	wg_index_table_remove(&device->indices, response.receiver);
	on_authentic(peer, from, len, now);
	if (install_session(peer, &keys, true, response.receiver, response.sender, now) != 0)
		return;
	wg_peer_on_session(peer, now);
	wg_peer_send_keepalive(peer,
			       now); /* or what waits: the responder must hear that it worked */
	wg_peer_reschedule(peer);
}

static void receive_cookie_reply(struct wg_device *device, const uint8_t *message, size_t len,
				 struct wg_time now)
{
	struct wg_cookie_reply reply;

	if (wg_cookie_reply_decode(message, len, &reply) != 0) {
		wg_drop(device, WG_DROP_MALFORMED);
		return;
	}
	const struct wg_index_entry *entry = wg_index_table_find(&device->indices, reply.receiver);
	if (!entry)
		wg_drop(device, WG_DROP_UNKNOWN_INDEX);
	else if (!wg_cookie_consume(&entry->peer->cookie, &reply, now.ns))
		wg_drop(device, WG_DROP_COOKIE_REPLY);
}

void wg_device_receive_handshake(struct wg_device *device, enum wg_message_type type,
				 const uint8_t *message, size_t len, const struct wg_path *from,
				 struct wg_time now)
{
	if (type == WG_MESSAGE_COOKIE_REPLY)
		receive_cookie_reply(device, message, len, now);
	else if (!admit(device, message, len, from, now))
		return;
	else if (type == WG_MESSAGE_INITIATION)
		receive_initiation(device, message, len, from, now);
	else
		receive_response(device, message, len, from, now);
}
