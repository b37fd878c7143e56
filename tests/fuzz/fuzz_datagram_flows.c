/*
 * Target: datagram_flows: whatever visitors and targets send, in whatever order: a datagram belongs to a flow of the address that it
 * came from, bounds hold, and every flow that was begun has one end.
 *
 * Input: pieces of three bytes: deed, who, what.
 */
#include "relay/frontdoor/datagram_flows.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FLOWS  6
#define MAX_SOURCE 3

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum deed { SAY, SAY_FOR_ANOTHER, ANSWER, WAIT, END, END_SOME, EXPIRE, N_DEEDS };

static struct datagram_flow *slots[MAX_FLOWS];
static uint64_t now_ms, n_begun, n_ended;

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static void on_ended(void *owner, struct datagram_flow *flow)
{
	struct datagram_flow **slot = flow->owner;

	expect(owner == slots && slot && *slot == flow);
	*slot = NULL;
	n_ended++;
}

static void take(struct datagram_flow *flow)
{
	for (int i = 0; i < MAX_FLOWS; i++)
		if (!slots[i]) {
			slots[i] = flow;
			flow->owner = &slots[i];
			n_begun++;
			return;
		}
	expect(false); /* more than there may be */
}

static void say(struct datagram_flows *flows, uint8_t who, uint8_t what, bool for_another)
{
	const struct udp_way way = { .remote = endpoint_from_v4(0xc0000200 + (who & 7), (uint16_t)(1000 + (who >> 3))),
				     .socket = (uint16_t)(what & 1) };
	const struct endpoint another = endpoint_from_v4(0xc6336400 + (what >> 4), 7), *visitor = for_another ? &another : &way.remote;
	struct datagram_flow *flow = NULL;

	switch (datagram_flows_from_visitor(flows, &way, visitor, (uint16_t)(what >> 1 & 3), now_ms, &flow)) {
	case DATAGRAM_BEGUN:
		expect(!flow->owner);
		take(flow);
		break;
	case DATAGRAM_PASS:
		expect(flow->owner);
		break;
	case DATAGRAM_DROPPED:
		return;
	}
	expect(endpoint_equal(&flow->way.remote, &way.remote) && flow->way.socket == way.socket);
	expect(endpoint_equal(&flow->visitor, visitor) && flow->port == (what >> 1 & 3));
}

static bool is_of_port(const void *context, const struct datagram_flow *flow)
{
	return flow->port == *(const uint8_t *)context % 4;
}

static void check(struct datagram_flows *flows)
{
	uint32_t n = 0;

	for (int i = 0; i < MAX_FLOWS; i++)
		n += slots[i] != NULL;
	expect(datagram_flows_counters(flows)->flows_now == n && n_begun - n_ended == n);
}

static void do_one(struct datagram_flows *flows, const uint8_t piece[3])
{
	struct datagram_flow *flow = slots[piece[1] % MAX_FLOWS];

	switch ((enum deed)(piece[0] % N_DEEDS)) {
	case SAY:
	case SAY_FOR_ANOTHER:
		say(flows, piece[1], piece[2], piece[0] % N_DEEDS == SAY_FOR_ANOTHER);
		break;
	case ANSWER:
		if (flow)
			datagram_flows_from_target(flows, flow);
		break;
	case WAIT:
		now_ms += (uint64_t)piece[1] * piece[2];
		break;
	case END:
		if (flow)
			datagram_flows_end(flows, flow);
		break;
	case END_SOME:
		datagram_flows_end_some(flows, is_of_port, &piece[2]);
		break;
	case EXPIRE:
		expect(datagram_flows_expire(flows, now_ms) > now_ms);
		break;
	case N_DEEDS:
		break;
	}
	check(flows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct datagram_flows_options options = { .times_ms = { 1000, 3000, 12000 },
							.max_flows = MAX_FLOWS,
							.max_source = MAX_SOURCE,
							.begun_per_s = 20,
							.begun_source_per_s = 10,
							.owner = slots,
							.ended = on_ended };

	expect(sodium_init() >= 0);
	memset(slots, 0, sizeof(slots));
	n_begun = n_ended = 0;
	now_ms = 1000;
	struct datagram_flows *flows = datagram_flows_new(&options, now_ms);
	for (size_t at = 0; at + 3 <= size && at < 3 * 4096; at += 3)
		do_one(flows, data + at);
	datagram_flows_free(flows);
	expect(n_begun == n_ended);
	return 0;
}
