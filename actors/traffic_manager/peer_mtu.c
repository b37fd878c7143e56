#include "actors/traffic_manager/peer_mtu.h"

#include "common/wire.h"

#include <string.h>

/* What stands around a packet inside in a datagram: WireGuard's header and tag (node/wireguard/device.h). */
#define AROUND 32
/* What fits into 1500 bytes, padded: IPv4 and IPv6. */
#define COMMON_V4 1440
#define COMMON_V6 1408
/* Probes that are answered at once, and then one in so many ms: a search asks 40 in its first ten seconds. */
#define ANSWERS_BURST	32
#define ANSWERS_EACH_MS 100

void peer_mtu_init(struct peer_mtu *mtu, struct stage *stage, struct data_plane *data_plane, uint32_t peer_id,
		   uint64_t seed)
{
	mtu->stage = stage;
	mtu->data_plane = data_plane;
	mtu->peer_id = peer_id;
	mtu->nonce = seed;
}

/* ---- what the machine decides ---- */

static void seal(const struct peer_mtu *mtu, const struct via *via, const struct session_message *session)
{
	struct message message = { .type = MESSAGE_SEAL,
				   .peer_id = mtu->peer_id,
				   .via = { .by_relay = via->by_relay, .endpoint = via->endpoint },
				   .session = *session };

	stage_post(mtu->stage, ACTOR_TRAFFIC_MANAGER, ACTOR_SESSION_MANAGER, &message);
}

static void send_probe(const struct peer_mtu *mtu, uint32_t size)
{
	struct session_message probe = { .type = SESSION_PROBE,
					 .n_padding = (uint16_t)(size + AROUND - SESSION_PROBE_LEN) };
	struct wire_writer w = wire_writer(probe.tx_id, sizeof(probe.tx_id));

	wire_put_u64(&w, mtu->nonce);
	wire_put_u32(&w, size);
	seal(mtu, &(struct via){ .endpoint = mtu->endpoint }, &probe);
}

static void step(struct peer_mtu *mtu, struct path_mtu_input input)
{
	struct path_mtu_actions actions;

	input.now_ns = stage_now_ns(mtu->stage);
	input.rtt_us = mtu->rtt_us;
	path_mtu_fsm_step(&mtu->fsm, &input, &actions);
	for (uint32_t i = 0; i < actions.n; i++) {
		if (actions.all[i].type == PATH_MTU_DO_PROBE)
			send_probe(mtu, actions.all[i].size);
		else
			data_plane_set_mtu(mtu->data_plane, mtu->peer_id, actions.all[i].size);
	}
}

/* ---- what happens ---- */

static void follow_path(struct peer_mtu *mtu, const struct peer_path *path)
{
	const struct endpoint none = { 0 };
	const struct endpoint *endpoint = path->direct ? &path->endpoint : &none;

	if (endpoint_equal(endpoint, &mtu->endpoint))
		return;
	mtu->endpoint = *endpoint;
	mtu->nonce = mtu->nonce * 6364136223846793005u + 1442695040888963407u;
	if (!path->direct) {
		step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_NO_PATH });
		return;
	}
	step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_PATH,
					   .max = data_plane_first_mtu(mtu->data_plane, endpoint),
					   .common = endpoint_is_v4(endpoint) ? COMMON_V4 : COMMON_V6 });
}

void peer_mtu_follow(struct peer_mtu *mtu, const struct peer_path *path, bool active, uint32_t rtt_us)
{
	mtu->rtt_us = rtt_us;
	follow_path(mtu, path);
	if (active != mtu->fsm.active)
		step(mtu, (struct path_mtu_input){ .type = active ? PATH_MTU_IN_TRAFFIC : PATH_MTU_IN_IDLE });
}

void peer_mtu_sent(struct peer_mtu *mtu)
{
	step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_SENT });
}

void peer_mtu_received(struct peer_mtu *mtu, const struct endpoint *from)
{
	if (endpoint_equal(from, &mtu->endpoint))
		step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_RECEIVED });
}

void peer_mtu_on_probe(struct peer_mtu *mtu, const struct via *via, const struct session_message *probe)
{
	struct session_message passed = { .type = SESSION_PASSED };

	if (!token_bucket_take(&mtu->answers, stage_now_ns(mtu->stage) / 1000000, ANSWERS_BURST, ANSWERS_EACH_MS)) {
		mtu->n_answers_dropped++;
		return;
	}
	memcpy(passed.tx_id, probe->tx_id, sizeof(passed.tx_id));
	seal(mtu, via, &passed);
}

void peer_mtu_on_passed(struct peer_mtu *mtu, const struct session_message *passed)
{
	struct wire_reader r = wire_reader(passed->tx_id, sizeof(passed->tx_id));
	const uint64_t nonce = wire_u64(&r);
	const uint32_t size = wire_u32(&r);

	if (nonce == mtu->nonce)
		step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_PASSED, .size = size });
}

void peer_mtu_on_refused(struct peer_mtu *mtu, const struct endpoint *to, uint32_t len)
{
	if (endpoint_equal(to, &mtu->endpoint))
		step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_REFUSED, .size = len - AROUND });
}

void peer_mtu_on_deadline(struct peer_mtu *mtu)
{
	step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_DEADLINE });
}
