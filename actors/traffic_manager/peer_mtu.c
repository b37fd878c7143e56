#include "actors/traffic_manager/peer_mtu.h"

#include "common/wire.h"

#include <string.h>

/* What stands around a packet inside in a datagram: WireGuard's header and tag (node/wireguard/device.h). */
#define AROUND 32
/* What fits into 1500 bytes, padded: IPv4 and IPv6. */
#define COMMON_V4 1440
#define COMMON_V6 1408
/* The same by relay, whose header stands before it; the peer's leg may be IPv6. */
#define COMMON_RELAYED 1392
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
	seal(mtu, &(struct via){ .by_relay = mtu->relay.relay_id != 0, .endpoint = mtu->endpoint }, &probe);
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

static bool is_same_relay(const struct relay_way *a, const struct relay_way *b)
{
	return a->relay_id == b->relay_id && endpoint_equal(&a->remote, &b->remote);
}

/* While nothing flows nobody wants to know by which relay it would: it stays as it was. */
static struct relay_way relay_of(const struct peer_mtu *mtu, const struct peer_path *path, bool active)
{
	struct relay_way way;

	if (path->direct || !path->relay)
		return (struct relay_way){ 0 };
	return active && data_plane_relay_way(mtu->data_plane, mtu->peer_id, &way) ? way : mtu->relay;
}

static struct path_mtu_input path_input(const struct peer_mtu *mtu)
{
	if (mtu->relay.relay_id == 0)
		return (struct path_mtu_input){ .type = PATH_MTU_IN_PATH,
						.max = data_plane_first_mtu(mtu->data_plane, &mtu->endpoint),
						.common = endpoint_is_v4(&mtu->endpoint) ? COMMON_V4 : COMMON_V6 };
	return (struct path_mtu_input){ .type = PATH_MTU_IN_PATH,
					.max = data_plane_first_relayed_mtu(mtu->data_plane, &mtu->relay),
					.common = COMMON_RELAYED,
					.until_known = COMMON_RELAYED };
}

static void follow_path(struct peer_mtu *mtu, const struct peer_path *path, bool active)
{
	const struct endpoint endpoint = path->direct ? path->endpoint : (struct endpoint){ 0 };
	const struct relay_way relay = relay_of(mtu, path, active);

	if (endpoint_equal(&endpoint, &mtu->endpoint) && is_same_relay(&relay, &mtu->relay))
		return;
	mtu->endpoint = endpoint;
	mtu->relay = relay;
	mtu->nonce = mtu->nonce * 6364136223846793005u + 1442695040888963407u;
	if (path->direct || relay.relay_id != 0)
		step(mtu, path_input(mtu));
	else
		step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_NO_PATH });
}

/* Is that the path? By relay both directions need not go by the same. */
static bool is_of_path(const struct peer_mtu *mtu, const struct via *via)
{
	if (via->by_relay)
		return mtu->relay.relay_id != 0;
	return mtu->relay.relay_id == 0 && endpoint_equal(&via->endpoint, &mtu->endpoint);
}

void peer_mtu_follow(struct peer_mtu *mtu, const struct peer_path *path, bool active, uint32_t rtt_us)
{
	mtu->rtt_us = rtt_us;
	follow_path(mtu, path, active);
	if (active != mtu->fsm.active)
		step(mtu, (struct path_mtu_input){ .type = active ? PATH_MTU_IN_TRAFFIC : PATH_MTU_IN_IDLE });
}

void peer_mtu_sent(struct peer_mtu *mtu)
{
	step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_SENT });
}

void peer_mtu_received(struct peer_mtu *mtu, const struct via *from)
{
	if (is_of_path(mtu, from))
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

void peer_mtu_on_refused(struct peer_mtu *mtu, const struct via *to, uint32_t len)
{
	if (is_of_path(mtu, to))
		step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_REFUSED, .size = len - AROUND });
}

void peer_mtu_on_deadline(struct peer_mtu *mtu)
{
	step(mtu, (struct path_mtu_input){ .type = PATH_MTU_IN_DEADLINE });
}
