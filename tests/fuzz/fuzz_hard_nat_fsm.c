/*
 * Target: hard_nat_plan, hard_nat_fsm_step. Whatever a peer tells of its NAT, in any order, wanted or not: datagrams go
 * to ports from 1024 on, and sockets and pings of a search are as few as is promised.
 */
#include "actors/traffic_manager/hard_nat_fsm.h"
#include "common/wire.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hard_nat_facts facts_of(struct wire_reader *r)
{
	struct hard_nat_facts facts = { .mapping = (enum nat_dependence)(wire_u8(r) % NAT_N_DEPENDENCES),
					.filtering = (enum nat_dependence)(wire_u8(r) % NAT_N_DEPENDENCES),
					.ports = (enum nat_ports_kind)(wire_u8(r) % NAT_N_PORTS_KINDS) };

	facts.step = (int16_t)wire_u16(r);
	facts.low_port = wire_u16(r);
	facts.high_port = wire_u16(r);
	facts.last_port = wire_u16(r);
	facts.n_ports = wire_u8(r);
	const uint32_t ip = wire_u32(r);

	facts.outside = endpoint_from_v4(ip, wire_u16(r));
	return facts;
}

static void expect_polite(const struct hard_nat_fsm *fsm, const struct hard_nat_actions *out)
{
	assert(fsm->plan.n_sockets <= HARD_NAT_MAX_SOCKETS && fsm->plan.n_pings <= HARD_NAT_MAX_PINGS);
	for (uint32_t i = 0; i < out->n; i++) {
		const struct hard_nat_action *action = &out->all[i];

		if (action->type == HARD_NAT_DO_PING || action->type == HARD_NAT_DO_KNOCK)
			assert(action->to.port >= 1024 && fsm->is_spent);
		if (action->type == HARD_NAT_DO_PING)
			assert(fsm->is_heard);
		if (action->type == HARD_NAT_DO_OPEN)
			assert(action->n > 0 && action->n <= HARD_NAT_MAX_SOCKETS);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hard_nat_turn turn = { 0 };
	struct hard_nat_fsm fsm;
	struct hard_nat_actions out;
	struct wire_reader r = wire_reader(data, size);
	uint64_t now_ns = 1;

	hard_nat_fsm_init(&fsm, &turn, size);
	while (wire_left(&r) >= 3) {
		struct hard_nat_input in = { .type = (enum hard_nat_input_type)(wire_u8(&r) % HARD_NAT_N_INPUTS) };
		const uint64_t wait = wire_u8(&r);

		in.flag = wire_u8(&r) & 1;
		if (in.type == HARD_NAT_IN_OURS || in.type == HARD_NAT_IN_THEIRS)
			in.facts = facts_of(&r);
		now_ns += wait * wait * 200000;
		in.now_ns = now_ns;
		hard_nat_fsm_step(&fsm, &in, &out);
		expect_polite(&fsm, &out);
		assert(fsm.n_begun <= HARD_NAT_CHANGES);
	}
	return 0;
}
