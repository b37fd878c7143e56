/*
 * A superpacket is cut into the packets that a plain sender would have sent, and packets of one flow
 * merge into the superpacket they came from. The model is naive: sums byte pair by byte pair, from
 * the RFCs, sharing no code with offload.c.
 */
#include "node/wireguard/offload.h"

#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STRIDE 2048

/* ---- the model ---- */

static uint32_t model_sum(const uint8_t *bytes, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += (uint32_t)(i % 2 ? bytes[i] : bytes[i] << 8);
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static bool is_v4(const uint8_t *packet)
{
	return packet[0] >> 4 == 4;
}

static uint32_t l4_at(const uint8_t *packet)
{
	return is_v4(packet) ? 20 : 40;
}

static uint8_t protocol_of(const uint8_t *packet)
{
	return is_v4(packet) ? packet[9] : packet[6];
}

static uint32_t number(const uint8_t *at, int n)
{
	uint32_t value = 0;

	for (int i = 0; i < n; i++)
		value = value << 8 | at[i];
	return value;
}

static uint32_t header_len(const uint8_t *packet)
{
	uint32_t l4 = l4_at(packet);

	return l4 + (protocol_of(packet) == IPPROTO_UDP ? 8 : (uint32_t)(packet[l4 + 12] >> 4) * 4);
}

/* All lengths and checksums of a packet are right. */
static void check_packet(const uint8_t *packet, uint32_t len)
{
	uint32_t l4 = l4_at(packet), l4_len = len - l4;
	uint32_t ends_at = is_v4(packet) ? 12 : 8, ends_len = is_v4(packet) ? 8 : 32;
	uint32_t sum;

	if (is_v4(packet)) {
		assert(number(packet + 2, 2) == len);
		assert(model_sum(packet, 20) == 0xffff);
	} else {
		assert(number(packet + 4, 2) == l4_len);
	}
	if (protocol_of(packet) == IPPROTO_UDP)
		assert(number(packet + l4 + 4, 2) == l4_len && number(packet + l4 + 6, 2) != 0);

	sum = model_sum(packet + ends_at, ends_len) + protocol_of(packet) + l4_len;
	sum += model_sum(packet + l4, l4_len);
	while (sum > 0xffff)
		sum = (sum & 0xffff) + (sum >> 16);
	assert(sum == 0xffff);
}

/* ---- packets ---- */

struct flow {
	bool v4, tcp;
	uint32_t options_len, payload_len;
	uint8_t flags;
};

static uint32_t make_packet(uint8_t *packet, const struct flow *flow)
{
	uint32_t l4 = flow->v4 ? 20 : 40;
	uint32_t l4_header = flow->tcp ? 20 + flow->options_len : 8;
	uint32_t len = l4 + l4_header + flow->payload_len;

	for (uint32_t i = 0; i < len; i++)
		packet[i] = (uint8_t)rand();
	packet[0] = flow->v4 ? 0x45 : 0x60;
	if (flow->v4) {
		packet[2] = (uint8_t)(len >> 8);
		packet[3] = (uint8_t)len;
		packet[6] = 0x40;
		packet[7] = 0;
		packet[9] = flow->tcp ? IPPROTO_TCP : IPPROTO_UDP;
	} else {
		packet[4] = (uint8_t)((len - 40) >> 8);
		packet[5] = (uint8_t)(len - 40);
		packet[6] = flow->tcp ? IPPROTO_TCP : IPPROTO_UDP;
	}
	if (flow->tcp) {
		packet[l4 + 12] = (uint8_t)((20 + flow->options_len) / 4 << 4);
		packet[l4 + 13] = flow->flags;
	}
	return len;
}

static struct offload_header header_of(const struct flow *flow, uint16_t segment)
{
	return (struct offload_header){
		.flags = OFFLOAD_NEEDS_CSUM,
		.gso_type = !flow->tcp ? OFFLOAD_GSO_UDP : flow->v4 ? OFFLOAD_GSO_TCP4 : OFFLOAD_GSO_TCP6,
		.gso_size = segment,
		.csum_start = flow->v4 ? 20 : 40,
		.csum_offset = flow->tcp ? 16 : 6,
	};
}

/* ---- cutting ---- */

static void check_segment(const uint8_t *super, const uint8_t *packet, uint32_t len, uint32_t n,
			  uint32_t done, bool is_last)
{
	uint32_t l4 = l4_at(super), head = header_len(super);
	uint8_t expected_flags = super[l4 + 13];

	check_packet(packet, len);
	assert(memcmp(packet + head, super + head + done, len - head) == 0);
	assert(memcmp(packet + l4, super + l4, 4) == 0);
	if (is_v4(super))
		assert(number(packet + 4, 2) == ((number(super + 4, 2) + n) & 0xffff));
	if (protocol_of(super) == IPPROTO_UDP)
		return;
	if (!is_last)
		expected_flags &= (uint8_t)~0x09; /* FIN, PSH */
	if (n > 0)
		expected_flags &= 0x7f; /* CWR */
	assert(packet[l4 + 13] == expected_flags);
	assert(number(packet + l4 + 4, 4) == number(super + l4 + 4, 4) + done);
	assert(memcmp(packet + l4 + 20, super + l4 + 20, head - l4 - 20) == 0);
}

/* Cuts a random superpacket of this flow in trains of max_n and compares with the model. */
static void check_cut(const struct flow *flow, uint16_t segment, uint32_t max_n)
{
	static uint8_t super[OFFLOAD_MAX_PACKET], out[TRAIN_MAX * STRIDE];
	uint32_t len = make_packet(super, flow), head = header_len(super);
	struct offload_header header = header_of(flow, segment);
	struct offload_cut cut;
	struct train train;
	bool is_super;
	uint32_t done = 0, n = 0;

	assert(offload_begin(&header, super, len, &cut, &is_super) == 0 && is_super);
	while (offload_next(&cut, out, STRIDE, max_n, &train)) {
		assert(train.n <= max_n);
		for (uint32_t i = 0; i < train.n; i++, n++) {
			uint32_t size = train_size(&train, i);
			bool is_last = done + size - head == flow->payload_len;
			assert(is_last || size == head + segment);
			check_segment(super, train_packet(&train, i), size, n, done, is_last);
			done += size - head;
		}
	}
	assert(done == flow->payload_len);
}

static void test_tcp_is_cut_like_the_model(void)
{
	for (int i = 0; i < 300; i++) {
		struct flow flow = {
			.v4 = rand() % 2,
			.tcp = true,
			.options_len = (uint32_t)(rand() % 11) * 4,
			.payload_len = 1 + (uint32_t)rand() % 60000,
			.flags = (uint8_t)rand(),
		};
		check_cut(&flow, (uint16_t)(1 + rand() % 1400), 1 + (uint32_t)rand() % TRAIN_MAX);
	}
}

static void test_udp_is_cut_like_the_model(void)
{
	for (int i = 0; i < 300; i++) {
		struct flow flow = { .v4 = rand() % 2, .payload_len = 1 + (uint32_t)rand() % 60000 };
		check_cut(&flow, (uint16_t)(1 + rand() % 1400), TRAIN_MAX);
	}
}

static void test_a_packet_without_segments_gets_its_checksum_in_place(void)
{
	static uint8_t packet[2048];

	for (uint32_t payload = 0; payload < 600; payload++) {
		struct flow flow = { .v4 = payload % 2, .tcp = payload % 3, .payload_len = payload, .flags = 0x18 };
		uint32_t len = make_packet(packet, &flow);
		struct offload_header header = header_of(&flow, 0);
		struct offload_cut cut;
		bool is_super = true;
		uint32_t at = (uint32_t)header.csum_start + header.csum_offset;
		uint8_t protocol = flow.tcp ? IPPROTO_TCP : IPPROTO_UDP;
		uint16_t pseudo = offload_pseudo_sum(packet, flow.v4, protocol, len - header.csum_start);

		header.gso_type = OFFLOAD_GSO_NONE;
		memcpy(packet + at, &pseudo, 2);
		if (flow.v4) { /* the kernel has done the IP header */
			packet[10] = packet[11] = 0;
			uint32_t sum = ~model_sum(packet, 20);
			packet[10] = (uint8_t)(sum >> 8);
			packet[11] = (uint8_t)sum;
		}
		if (!flow.tcp) {
			packet[header.csum_start + 4] = (uint8_t)((8 + payload) >> 8);
			packet[header.csum_start + 5] = (uint8_t)(8 + payload);
		}
		assert(offload_begin(&header, packet, len, &cut, &is_super) == 0 && !is_super);
		check_packet(packet, len);
	}
}

static int begin(struct offload_header header, uint8_t *packet, size_t len)
{
	struct offload_cut cut;
	bool is_super;

	return offload_begin(&header, packet, len, &cut, &is_super);
}

static void test_headers_that_contradict_the_packet_are_refused(void)
{
	static uint8_t packet[4096];
	struct flow flow = { .v4 = true, .tcp = true, .payload_len = 2000, .flags = 0x10 };
	uint32_t len = make_packet(packet, &flow);
	struct offload_header good = header_of(&flow, 1000), bad;

	assert(begin(good, packet, len) == 0);
	for (size_t cut_short = 0; cut_short <= 40; cut_short++)
		assert(begin(good, packet, cut_short) == OFFLOAD_E_MALFORMED);
	bad = good, bad.gso_size = 0;
	assert(begin(bad, packet, len) == OFFLOAD_E_MALFORMED);
	bad = good, bad.csum_start = 16;
	assert(begin(bad, packet, len) == OFFLOAD_E_MALFORMED);
	bad = good, bad.csum_start = 4000;
	assert(begin(bad, packet, len) == OFFLOAD_E_MALFORMED);
	bad = good, bad.gso_type = OFFLOAD_GSO_TCP6;
	assert(begin(bad, packet, len) == OFFLOAD_E_MALFORMED);
	bad = good, bad.gso_type = 3; /* UFO */
	assert(begin(bad, packet, len) == OFFLOAD_E_UNSUPPORTED);
	bad = good, bad.gso_type = OFFLOAD_GSO_NONE, bad.csum_start = 2030, bad.csum_offset = 20;
	assert(begin(bad, packet, len) == OFFLOAD_E_MALFORMED);
}

/* ---- merging ---- */

/* A train of n packets of one flow, cut from a random superpacket. */
static struct train make_train(uint8_t *out, const struct flow *flow, uint16_t segment)
{
	static uint8_t super[OFFLOAD_MAX_PACKET];
	struct offload_header header = header_of(flow, segment);
	struct offload_cut cut;
	struct train train = { 0 };
	bool is_super;

	uint32_t len = make_packet(super, flow);
	assert(offload_begin(&header, super, len, &cut, &is_super) == 0);
	assert(offload_next(&cut, out, STRIDE, TRAIN_MAX, &train));
	return train;
}

static uint32_t gather(const struct offload_run *run, uint8_t *out)
{
	uint32_t len = 0;

	for (int i = 1; i < run->n_pieces; i++) {
		memcpy(out + len, run->pieces[i].iov_base, run->pieces[i].iov_len);
		len += (uint32_t)run->pieces[i].iov_len;
	}
	return len;
}

static void test_what_was_cut_merges_and_cuts_to_the_same_again(void)
{
	static uint8_t packets[TRAIN_MAX * STRIDE], before[TRAIN_MAX * STRIDE];
	static uint8_t merged[OFFLOAD_MAX_PACKET], again[TRAIN_MAX * STRIDE];

	for (int i = 0; i < 400; i++) {
		uint16_t segment = (uint16_t)(1 + rand() % 900);
		struct flow flow = {
			.v4 = rand() % 2,
			.tcp = rand() % 2,
			.options_len = 12,
			.payload_len = segment * (2 + (uint32_t)rand() % 62) + (uint32_t)rand() % segment,
			.flags = rand() % 2 ? 0x10 : 0x18,
		};
		struct offload_run run;
		struct offload_cut cut;
		struct train train = make_train(packets, &flow, segment), twice;
		bool is_super;

		memcpy(before, packets, sizeof(before));
		uint32_t n = offload_merge(&train, 0, OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, &run);
		assert(n == train.n);
		uint32_t len = gather(&run, merged);
		assert(run.header.gso_size == segment && run.header.flags == OFFLOAD_NEEDS_CSUM);
		assert(offload_begin(&run.header, merged, len, &cut, &is_super) == 0 && is_super);
		assert(offload_next(&cut, again, STRIDE, TRAIN_MAX, &twice));
		assert(twice.n == train.n && twice.size == train.size && twice.last_size == train.last_size);
		for (uint32_t k = 0; k < train.n; k++)
			assert(memcmp(again + (size_t)k * STRIDE, before + (size_t)k * STRIDE,
				      train_size(&train, k)) == 0);
	}
}

/* Four packets, one byte of packet 2 changed: it must not be merged with those before it. */
static uint32_t merged_with(struct flow flow, uint32_t at, uint8_t xor)
{
	static uint8_t packets[TRAIN_MAX * STRIDE];
	struct offload_run run;

	flow.payload_len = 400;
	struct train train = make_train(packets, &flow, 100);
	train_packet(&train, 2)[at] ^= xor;
	return offload_merge(&train, 0, OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, &run);
}

static void test_packets_that_differ_in_more_than_their_place_stay_apart(void)
{
	struct flow tcp4 = { .v4 = true, .tcp = true, .options_len = 12, .flags = 0x10 };
	struct flow tcp6 = { .tcp = true, .options_len = 12, .flags = 0x10 };
	struct flow udp4 = { .v4 = true };

	assert(merged_with(tcp4, 0, 0) == 4);
	assert(merged_with(tcp4, 1, 2) == 2);	   /* type of service */
	assert(merged_with(tcp4, 6, 0x20) == 2);   /* more fragments */
	assert(merged_with(tcp4, 8, 1) == 2);	   /* time to live */
	assert(merged_with(tcp4, 12, 1) == 2);	   /* source */
	assert(merged_with(tcp4, 20, 1) == 2);	   /* port */
	assert(merged_with(tcp4, 24, 1) == 2);	   /* sequence */
	assert(merged_with(tcp4, 28, 1) == 2);	   /* acknowledgement */
	assert(merged_with(tcp4, 33, 0x01) == 2);  /* FIN */
	assert(merged_with(tcp4, 33, 0x02) == 2);  /* SYN */
	assert(merged_with(tcp4, 33, 0x08) == 3);  /* PSH ends the run, itself included */
	assert(merged_with(tcp4, 40, 1) == 2);	   /* option */
	assert(merged_with(tcp4, 34, 1) == 4);	   /* the window may differ */
	assert(merged_with(tcp6, 0, 0) == 4);
	assert(merged_with(tcp6, 3, 1) == 2);	   /* flow label */
	assert(merged_with(tcp6, 7, 1) == 2);	   /* hop limit */
	assert(merged_with(udp4, 0, 0) == 4);
	assert(merged_with(udp4, 22, 1) == 2);	   /* port */
}

static void test_kinds_the_kernel_does_not_take_are_left_alone(void)
{
	static uint8_t packets[TRAIN_MAX * STRIDE];
	struct flow udp = { .v4 = true, .payload_len = 400 };
	struct offload_run run;
	struct train train = make_train(packets, &udp, 100);

	assert(offload_merge(&train, 0, OFFLOAD_MERGE_TCP, &run) == 1);
	assert(run.header.gso_type == OFFLOAD_GSO_NONE && run.n_pieces == 2);
	assert(offload_merge(&train, 1, OFFLOAD_MERGE_UDP, &run) == 3);
}

static void test_pure_acknowledgements_and_other_protocols_go_singly(void)
{
	static uint8_t packets[TRAIN_MAX * STRIDE];
	struct flow ack = { .v4 = true, .tcp = true, .flags = 0x10 };
	struct train train = { .base = packets, .n = 2, .stride = STRIDE };
	struct offload_run run;

	train.size = train.last_size = make_packet(packets, &ack);
	memcpy(packets + STRIDE, packets, train.size);
	assert(offload_merge(&train, 0, OFFLOAD_MERGE_TCP, &run) == 1);
	packets[9] = IPPROTO_ICMP;
	assert(offload_merge(&train, 0, OFFLOAD_MERGE_TCP, &run) == 1);
}

int main(void)
{
	srand(20260101);
	test_tcp_is_cut_like_the_model();
	test_udp_is_cut_like_the_model();
	test_a_packet_without_segments_gets_its_checksum_in_place();
	test_headers_that_contradict_the_packet_are_refused();
	test_what_was_cut_merges_and_cuts_to_the_same_again();
	test_packets_that_differ_in_more_than_their_place_stay_apart();
	test_kinds_the_kernel_does_not_take_are_left_alone();
	test_pure_acknowledgements_and_other_protocols_go_singly();
	puts("ok");
	return 0;
}
