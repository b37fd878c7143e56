/*
 * A day of an idle node, on virtual time: what its machines send, with UDP's and IP's headers.
 *
 *   home relay   pings by UDP (relay_udp_fsm, against the relay's own code)
 *   STUN         two servers at each of two relays (endpoint_fsm), while the relay's pings keep the mapping
 *   50 peers     members with endpoints, idle (peer_fsm): nothing at all
 *   the link     with control (lan_discovery_fsm): nothing at all
 *   control      a ping and a pong, and what TCP and TLS add, as measured by tests/net/test_quiet.py
 *
 * Together less than 1 MB. And a peer that is wanted all day and cannot be reached is not sent more than
 * a few messages a minute.
 */
#include "actors/lan_discovery/lan_discovery_fsm.h"
#include "actors/endpoint_manager/endpoint_fsm.h"
#include "actors/traffic_manager/peer_fsm.h"
#include "common/macros.h"
#include "tests/sim/relay_udp_world.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define SECONDS(n)    ((uint64_t)(n)*1000000000u)
#define DAY_S	      86400u
#define HEADERS	      28 /* IPv4 and UDP */
#define STUN_BYTES    (100 + HEADERS) /* STUN_REQUEST_LEN */
#define CONTROL_S     60	      /* between two pings */
#define CONTROL_BYTES 260
#define N_PEERS	      50
#define N_SERVERS     4
#define A_DAY	      1000000u

static uint64_t relay_bytes(void)
{
	static struct world world;
	uint64_t bytes;

	world_begin(&world);
	world_start(&world.nodes[0]);
	world_until(&world, (uint64_t)DAY_S * 1000);
	assert(relay_udp_fsm_is_bound(&world.nodes[0].fsm) && world.nodes[0].n_lost == 0);
	bytes = world.n_bytes + (uint64_t)world.n_sent * HEADERS;
	world_end(&world);
	return bytes;
}

/* Each question is answered at once. */
static uint32_t step_endpoints(struct endpoint_fsm *fsm, struct endpoint_input input)
{
	struct endpoint_actions actions;
	uint32_t n = 0;

	input.keeper = endpoint_from_v4(0xc6336401, 3478);
	endpoint_fsm_step(fsm, &input, &actions);
	for (uint32_t i = 0; i < actions.n; i++) {
		struct endpoint_input answer = { .type = ENDPOINT_IN_ANSWER,
						 .now_ns = input.now_ns,
						 .from = actions.all[i].server,
						 .mapped = endpoint_from_v4(0xcb007105, 40000) };
		if (actions.all[i].type != ENDPOINT_DO_ASK)
			continue;
		memcpy(answer.tx_id, actions.all[i].tx_id, sizeof(answer.tx_id));
		n += 1 + step_endpoints(fsm, answer);
	}
	return n;
}

static uint64_t stun_bytes(void)
{
	static struct endpoint_fsm fsm;
	struct endpoint_server servers[N_SERVERS];
	const struct endpoint local = endpoint_from_v4(0xc0a80102, 7000);
	uint64_t n = 0;

	for (uint32_t i = 0; i < N_SERVERS; i++)
		servers[i] = (struct endpoint_server){
			.relay_id = i / 2 + 1, .endpoint = endpoint_from_v4(0xc6336401 + i / 2, (uint16_t)(3478 + i % 2)) };
	endpoint_fsm_init(&fsm, 1);
	n += step_endpoints(&fsm, (struct endpoint_input){
					  .type = ENDPOINT_IN_LOCAL, .now_ns = 1, .endpoints = &local, .n = 1 });
	n += step_endpoints(&fsm, (struct endpoint_input){
					  .type = ENDPOINT_IN_SERVERS, .now_ns = 1, .servers = servers, .n = N_SERVERS });
	while (fsm.deadline_ns < SECONDS(DAY_S))
		n += step_endpoints(&fsm, (struct endpoint_input){ .type = ENDPOINT_IN_DEADLINE,
								   .now_ns = fsm.deadline_ns });
	return n * STUN_BYTES;
}

static uint32_t n_messages(const struct peer_actions *actions)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < actions->n; i++)
		n += actions->all[i].type <= PEER_DO_SEND_RENDEZVOUS;
	return n;
}

static uint32_t step_peer(struct peer_fsm *fsm, uint64_t now_ns, struct peer_input input)
{
	static struct peer_actions actions;

	input.now_ns = now_ns;
	peer_fsm_step(fsm, &input, &actions);
	return n_messages(&actions);
}

static uint32_t begin_peer(struct peer_fsm *fsm, uint32_t number, bool relay_up)
{
	const struct endpoint at[] = { endpoint_from_v4(0xc0a80202 + number, 7000),
				       endpoint_from_v4(0xcb007200 + number, 40000) };
	uint32_t n;

	peer_fsm_init(fsm, number);
	n = step_peer(fsm, 1, (struct peer_input){ .type = PEER_IN_OUR_ENDPOINTS, .n_endpoints = 2 });
	n += step_peer(fsm, 1, (struct peer_input){ .type = PEER_IN_RELAY, .relay_up = relay_up });
	n += step_peer(fsm, 1, (struct peer_input){
				       .type = PEER_IN_INFO, .session = 1 + number, .endpoints = at, .n_endpoints = 2 });
	return n;
}

static uint32_t rest_of_day(struct peer_fsm *fsm)
{
	uint32_t n = 0;

	while (fsm->deadline_ns != 0 && fsm->deadline_ns < SECONDS(DAY_S))
		n += step_peer(fsm, fsm->deadline_ns, (struct peer_input){ .type = PEER_IN_DEADLINE });
	return n;
}

static uint32_t idle_peers(void)
{
	static struct peer_fsm peers[N_PEERS];
	uint32_t n = 0;

	for (uint32_t i = 0; i < N_PEERS; i++)
		n += begin_peer(&peers[i], i, true) + rest_of_day(&peers[i]);
	return n;
}

/* Somebody goes on sending to it; it never answers. */
static uint32_t unreachable_peer(void)
{
	static struct peer_fsm peer;

	return begin_peer(&peer, 1, true) +
	       step_peer(&peer, SECONDS(1), (struct peer_input){ .type = PEER_IN_TRAFFIC }) + rest_of_day(&peer);
}

static uint32_t calls_on_the_link(void)
{
	static struct lan_discovery_fsm fsm;
	struct lan_output output;
	uint32_t n = 0;

	lan_discovery_fsm_init(&fsm, 1);
	lan_discovery_fsm_step(&fsm, &(struct lan_input){ .type = LAN_IN_CONTROL, .now_ns = 1, .is_connected = true },
			       &output);
	while (fsm.deadline_ns != 0 && fsm.deadline_ns < SECONDS(DAY_S)) {
		lan_discovery_fsm_step(&fsm, &(struct lan_input){ .type = LAN_IN_DEADLINE, .now_ns = fsm.deadline_ns },
				       &output);
		n += output.call;
	}
	return n + output.call;
}

int main(void)
{
	uint64_t relay, stun, control = (uint64_t)DAY_S / CONTROL_S * CONTROL_BYTES;
	uint32_t peers, missed, calls;

	if (sodium_init() < 0)
		return 1;
	relay = relay_bytes();
	stun = stun_bytes();
	peers = idle_peers();
	missed = unreachable_peer();
	calls = calls_on_the_link();
	printf("a day: relay %llu bytes, STUN %llu, control %llu: %llu; messages to %u idle peers %u, to one that is "
	       "wanted and does not answer %u; calls on the link %u\n",
	       (unsigned long long)relay, (unsigned long long)stun, (unsigned long long)control,
	       (unsigned long long)(relay + stun + control), N_PEERS, peers, missed, calls);
	assert(relay > 0 && stun > 0);
	if (relay + stun + control >= A_DAY || peers > 0 || calls > 0 || missed > 10 * DAY_S / 60) {
		fprintf(stderr, "that is not quiet\n");
		return 1;
	}
	return 0;
}
