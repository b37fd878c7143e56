/*
 * Target: quic_flows: whatever visitors and targets say, in whatever order: what is passed on belongs to a path of the
 * address that it came from, nothing is led but by a name that a host can have, an answer is shorter than its question,
 * bounds hold, and every path that was begun has one end.
 *
 * Input: pieces of 1 byte deed, 1 byte who and what, 1 byte length, the bytes. The helpful deeds make packets that
 * real clients and servers would send, so that what is behind seals and IDs is reached.
 */
#include "hello.h"
#include "initial.h"
#include "relay/frontdoor/quic_flows.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FLOWS 6

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum deed {
	SAY,	   /* the bytes, as they are */
	SAY_PADDED, /* the same, in a datagram of 1,200 */
	SAY_HELLO, /* whole, or the half that the first byte says */
	SAY_SHORT, /* to one of the IDs that targets use */
	SAY_LONG,
	ANSWER, /* of the target of a path; names one of the IDs */
	ANSWER_BYTES,
	WAIT,
	END,
	N_DEEDS
};

struct slot {
	struct quic_flow *flow; /* NULL: free */
};

static struct quic_flows *flows;
static struct slot slots[MAX_FLOWS];
static uint64_t now_ms;
static uint8_t datagram[2048];
static const struct endpoint target = { .ip = { 1 }, .port = 443 };
static const char *const ids[] = { "server-a", "server-b", "srvc", "", "a-long-one-of-20-byte", "ab", "firstone", "othertwo" };

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static void on_ended(void *owner, struct quic_flow *flow)
{
	struct slot *slot = flow->owner;

	expect(owner == slots);
	if (!slot)
		return;
	expect(slot->flow == flow);
	slot->flow = NULL;
}

static void take_place(struct quic_flow *flow)
{
	int i = 0;

	while (i < MAX_FLOWS && slots[i].flow)
		i++;
	expect(i < MAX_FLOWS);
	slots[i].flow = flow;
	flow->owner = &slots[i];
}

static void lead(struct quic_flow *flow, bool is_there)
{
	const struct host_name *host = &quic_flows_found(flow)->host;
	struct host_name again;
	size_t len, sum = 0;

	expect(host_name_from(host->text, host->len, &again) == 0 && host_name_equal(host, &again));
	for (uint32_t i = 0; quic_flows_kept(flow, i, &len); i++)
		sum += len;
	expect(sum <= 65536);
	if (!is_there) {
		quic_flows_end(flows, flow);
		return;
	}
	take_place(flow);
	quic_flows_led(flows, flow, &target, now_ms);
}

static void say(unsigned who, const uint8_t *bytes, size_t len)
{
	struct udp_way way = { .remote = endpoint_from_v4(0x0a000000 + (who & 3), 4000), .socket = who >> 2 & 1 };
	struct quic_flow *flow = NULL;
	struct quic_answer answer;
	uint8_t *copy = malloc(len ? len : 1);

	expect(copy);
	if (len > 0)
		memcpy(copy, bytes, len);
	const enum quic_verdict verdict = quic_flows_from_visitor(flows, &way, copy, len, now_ms, &flow, &answer);
	if (verdict == QUIC_PASS || verdict == QUIC_LEAD || verdict == QUIC_MOVED)
		expect(flow && endpoint_equal(&flow->way.remote, &way.remote) && flow->way.socket == way.socket);
	if (verdict == QUIC_PASS)
		expect(((struct slot *)flow->owner)->flow == flow && endpoint_equal(&flow->connection->target, &target));
	if (verdict == QUIC_LEAD)
		lead(flow, who & 8);
	if (verdict == QUIC_MOVED)
		take_place(flow);
	if (verdict == QUIC_NEGOTIATE)
		expect(len >= QUIC_MIN_DATAGRAM && answer.len < len);
	free(copy);
}

static size_t hello(unsigned what, unsigned half)
{
	static uint8_t message[1024], frames[1024];
	const struct hello_options hello = { .names = { what & 16 ? "app.example.org" : "192.0.2.1" } };
	const size_t len = hello_build(&hello, message, sizeof(message)), at = half & 1 ? len / 2 : 0;
	const size_t n = initial_crypto(at, message + at, half & 2 ? len / 2 : len - at, frames, sizeof(frames));
	const struct initial_options options = { .destination = ids[what >> 5], .number = half,
						 .destination_len = (uint8_t)strlen(ids[what >> 5]) };

	return initial_build(&options, frames, n, datagram, sizeof(datagram));
}

static size_t with_header(uint8_t first, const char *destination, const char *source)
{
	uint8_t *at = datagram;

	memset(datagram, 0x5a, 100);
	*at++ = first;
	if (first & 0x80) {
		at = mempcpy(at, "\0\0\0\1", 4);
		*at++ = (uint8_t)strlen(destination);
	}
	at = mempcpy(at, destination, strlen(destination));
	if (first & 0x80) {
		*at++ = (uint8_t)strlen(source);
		at = mempcpy(at, source, strlen(source));
	}
	return (size_t)(at - datagram) + 40;
}

static void answer(unsigned who, const uint8_t *bytes, size_t len)
{
	struct quic_flow *flow = slots[who % MAX_FLOWS].flow;

	if (flow)
		quic_flows_from_target(flows, flow, bytes, len, now_ms);
}

static void act(unsigned deed, unsigned what, const uint8_t *bytes, size_t len)
{
	struct quic_flow *flow = slots[what % MAX_FLOWS].flow;

	switch ((enum deed)(deed % N_DEEDS)) {
	case SAY:
		say(what, bytes, len);
		break;
	case SAY_PADDED:
		memset(datagram, 0, 1200);
		if (len > 0)
			memcpy(datagram, bytes, len);
		say(what, datagram, 1200);
		break;
	case SAY_HELLO:
		say(what, datagram, hello(what, len > 0 ? bytes[0] : 0));
		break;
	case SAY_SHORT:
		say(what, datagram, with_header(0x40, ids[what >> 5], ""));
		break;
	case SAY_LONG:
		say(what, datagram, with_header((uint8_t)(0xc0 | (what & 16) << 1), ids[what >> 5], "client"));
		break;
	case ANSWER:
		answer(what, datagram, with_header(0xe0, "client", ids[what >> 5]));
		break;
	case ANSWER_BYTES:
		answer(what, bytes, len);
		break;
	case WAIT:
		now_ms += (uint64_t)what * 100;
		(void)quic_flows_expire(flows, now_ms);
		break;
	case END:
		if (flow)
			quic_flows_end(flows, flow);
		break;
	case N_DEEDS:
		break;
	}
}

static void check(void)
{
	const struct quic_counters *counters = quic_flows_counters(flows);
	uint64_t n = counters->sniffing_now, n_proven = 0;

	for (int i = 0; i < MAX_FLOWS; i++) {
		n += slots[i].flow != NULL;
		n_proven += slots[i].flow && slots[i].flow->fsm.state == QUIC_FLOW_PROVEN;
	}
	expect(n == counters->flows_now && n <= MAX_FLOWS && n_proven == counters->proven_now);
	expect(counters->kept_bytes_now <= 60000 && (counters->sniffing_now > 0 || counters->kept_bytes_now == 0));
	expect(counters->connections_now <= n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct quic_flows_options options = {
		.times = { 10000, 10000, 30000, 120000, 10000 }, .max_flows = MAX_FLOWS, .max_source = 4, .max_paths = 3,
		.max_kept_bytes = 60000, .hellos_per_s = 100, .hellos_source_per_s = 100, .negotiations_per_s = 10,
		.owner = slots, .ended = on_ended,
	};

	expect(sodium_init() >= 0);
	now_ms = 86400000;
	flows = quic_flows_new(&options, now_ms);
	while (size >= 3) {
		const size_t len = data[2] < size - 3 ? data[2] : size - 3;
		act(data[0], data[1], data + 3, len);
		check();
		data += 3 + len;
		size -= 3 + len;
	}
	quic_flows_free(flows);
	for (int i = 0; i < MAX_FLOWS; i++)
		expect(!slots[i].flow);
	return 0;
}
