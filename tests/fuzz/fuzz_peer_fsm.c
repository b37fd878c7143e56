/*
 * Target: peer_fsm_step: any sequence of inputs keeps the invariant (asserted inside), and every
 * action is one the shell can carry out. An input: type, how much time passed, where from, a few
 * bytes more. Pongs answer a ping that was sent, so that all states are reached.
 */
#include "actors/traffic_manager/peer_fsm.h"
#include "common/wire.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define N_KEPT 16

static struct peer_tx_id kept[N_KEPT];
static unsigned int n_kept;

/* A few addresses that come again and again, with bad ones among them. */
static struct endpoint address(uint8_t which)
{
	if (which == 0)
		return (struct endpoint){ 0 };
	if (which < 8)
		return endpoint_from_v4(0x7f000000u + which, which);
	return endpoint_from_v4(0xc0a80000u + which % 96u, 1000);
}

static struct peer_input read_input(struct wire_reader *r, struct endpoint endpoints[40])
{
	struct peer_input input = { .type = (enum peer_input_type)(wire_u8(r) % PEER_N_INPUTS) };
	uint8_t flags = wire_u8(r);
	uint8_t which = wire_u8(r);

	input.from.by_relay = flags & 1;
	input.from.endpoint = address(which);
	input.relay_up = flags & 2;
	input.too_big = flags & 4;
	input.session = flags >> 3 & 3;
	input.n_endpoints = wire_u8(r) % 40;
	for (uint32_t i = 0; i < input.n_endpoints; i++)
		endpoints[i] = address((uint8_t)(which + i));
	input.endpoints = endpoints;
	input.tx_id = kept[which % N_KEPT];
	input.age_ms = which == 0 ? PEER_NO_RECEIPT : which * 16u;
	return input;
}

static void check(const struct peer_action *action)
{
	switch (action->type) {
	case PEER_DO_SEND_PING:
		kept[n_kept++ % N_KEPT] = action->tx_id;
		assert(action->to.by_relay || candidate_is_sane(&action->to.endpoint));
		break;
	case PEER_DO_SET_PATH:
		assert(action->path.direct || action->path.relay);
		assert(!action->path.direct || candidate_is_sane(&action->path.endpoint));
		break;
	case PEER_DO_SEND_PONG:
		break;
	case PEER_DO_SEND_RECEIPT:
		assert(!action->to.by_relay);
		break;
	case PEER_DO_SEND_RENDEZVOUS:
		assert(action->to.by_relay);
		break;
	case PEER_DO_ADD_AKA:
	case PEER_DO_REMOVE_AKA:
		assert(candidate_is_sane(&action->to.endpoint));
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_reader r = wire_reader(data, size);
	struct endpoint endpoints[40];
	struct peer_actions actions;
	struct peer_fsm fsm;
	uint64_t now_ns = 1;

	memset(kept, 0, sizeof(kept));
	n_kept = 0;
	peer_fsm_init(&fsm, 1);
	while (wire_left(&r) >= 5) {
		struct peer_input input = read_input(&r, endpoints);
		uint8_t pause = wire_u8(&r);

		now_ns += pause < 128 ? pause * 1000000u : (uint64_t)(pause - 127) * 1000000000u;
		input.now_ns = now_ns;
		peer_fsm_step(&fsm, &input, &actions);
		for (uint32_t i = 0; i < actions.n; i++)
			check(&actions.all[i]);
	}
	return 0;
}
