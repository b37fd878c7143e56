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

/* A superpacket of each kind with the header that the kernel would give it. */
struct super {
	uint8_t packet[4096];
	uint32_t len;
	struct offload_header header;
};

static const struct flow kinds[] = { { .v4 = true, .tcp = true, .payload_len = 2000, .flags = 0x10 },
				     { .v4 = false, .tcp = true, .payload_len = 2000, .flags = 0x10 },
				     { .v4 = true, .tcp = false, .payload_len = 2000 },
				     { .v4 = false, .tcp = false, .payload_len = 2000 } };
#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

static struct super *good_super(size_t kind)
{
	static struct super super;

	super.len = make_packet(super.packet, &kinds[kind]);
	super.header = header_of(&kinds[kind], 1000);
	assert(begin(super.header, super.packet, super.len) == 0);
	return &super;
}

static void test_a_packet_that_ends_within_its_headers_is_refused(void)
{
	for (size_t kind = 0; kind < N_KINDS; kind++) {
		struct super *super = good_super(kind);
		for (size_t len = 0; len <= header_len(super->packet); len++)
			assert(begin(super->header, super->packet, len) == OFFLOAD_E_MALFORMED);
		assert(begin(super->header, super->packet, OFFLOAD_MAX_PACKET + 1) == OFFLOAD_E_MALFORMED);
	}
}

static void test_a_kind_that_is_not_the_packets_is_refused(void)
{
	static const uint8_t types[N_KINDS] = { OFFLOAD_GSO_TCP4, OFFLOAD_GSO_TCP6, OFFLOAD_GSO_UDP, OFFLOAD_GSO_UDP };

	for (size_t kind = 0; kind < N_KINDS; kind++) {
		struct super *super = good_super(kind);
		for (uint32_t type = 1; type < 256; type++) {
			struct offload_header bad = super->header;
			bad.gso_type = (uint8_t)type;
			/* The bit for ECN may be there; without a kind it means nothing. */
			uint8_t without_ecn = (uint8_t)(type & 0x7f);
			assert((begin(bad, super->packet, super->len) == 0) ==
			       (without_ecn == types[kind] || without_ecn == OFFLOAD_GSO_NONE));
		}
		struct offload_header fragments = super->header;
		fragments.gso_type = 3; /* UDP fragments: nobody asked for them */
		assert(begin(fragments, super->packet, super->len) == OFFLOAD_E_UNSUPPORTED);
	}
}

static void test_segments_of_no_size_are_refused(void)
{
	for (size_t kind = 0; kind < N_KINDS; kind++) {
		struct super *super = good_super(kind);
		super->header.gso_size = 0;
		assert(begin(super->header, super->packet, super->len) == OFFLOAD_E_MALFORMED);
	}
}

static void test_segments_larger_than_the_payload_are_one_packet(void)
{
	static uint8_t out[4096];
	struct super *super = good_super(0);
	struct offload_cut cut;
	struct train train;
	bool is_super;

	super->header.gso_size = 65535;
	assert(offload_begin(&super->header, super->packet, super->len, &cut, &is_super) == 0 && is_super);
	assert(offload_packet_len(&cut) == super->len);
	assert(offload_next(&cut, out, sizeof(out), TRAIN_MAX, &train) && train.n == 1);
	check_packet(out, train.last_size);
}

static void test_a_checksum_anywhere_else_is_refused(void)
{
	for (size_t kind = 0; kind < N_KINDS; kind++) {
		struct super *super = good_super(kind);
		for (uint32_t start = 0; start <= UINT16_MAX; start++) {
			struct offload_header bad = super->header;
			bad.csum_start = (uint16_t)start;
			assert((begin(bad, super->packet, super->len) == 0) == (start == super->header.csum_start));
		}
		for (uint32_t offset = 0; offset <= UINT16_MAX; offset++) {
			struct offload_header bad = super->header;
			bad.csum_offset = (uint16_t)offset;
			assert((begin(bad, super->packet, super->len) == 0) == (offset == super->header.csum_offset));
		}
	}
}

static void test_the_length_of_the_headers_is_only_a_hint(void)
{
	static const uint16_t hints[] = { 0, 1, 20, 40, 2000, 65535 };

	for (size_t i = 0; i < sizeof(hints) / sizeof(*hints); i++) {
		struct super *super = good_super(i % N_KINDS);
		super->header.hdr_len = hints[i];
		assert(begin(super->header, super->packet, super->len) == 0);
	}
}

static void test_a_transport_header_that_contradicts_is_refused(void)
{
	for (size_t kind = 0; kind < N_KINDS; kind++) {
		struct super *super = good_super(kind);
		super->packet[is_v4(super->packet) ? 9 : 6] = IPPROTO_ICMP;
		assert(begin(super->header, super->packet, super->len) == OFFLOAD_E_MALFORMED);
		super = good_super(kind);
		super->packet[0] = 0x50 | (super->packet[0] & 0x0f); /* no such version */
		assert(begin(super->header, super->packet, super->len) == OFFLOAD_E_MALFORMED);
	}
	struct super *super = good_super(0);
	super->packet[20 + 12] = 4 << 4; /* a TCP header shorter than one can be */
	assert(begin(super->header, super->packet, super->len) == OFFLOAD_E_MALFORMED);
	super->packet[20 + 12] = 15 << 4; /* longer than the packet */
	assert(begin(super->header, super->packet, 20 + 60) == OFFLOAD_E_MALFORMED);
	super = good_super(0);
	super->packet[0] = 0x46; /* an IP header that ends elsewhere */
	assert(begin(super->header, super->packet, super->len) == OFFLOAD_E_MALFORMED);
	super = good_super(0);
	super->packet[6] |= 0x20; /* a fragment */
	assert(begin(super->header, super->packet, super->len) == OFFLOAD_E_MALFORMED);
}

/* A destination option before TCP: 8 bytes, or so many as to miss it. */
static void test_extension_headers_of_ipv6_must_lead_to_the_transport_header(void)
{
	static uint8_t out[4096];
	struct super *super = good_super(1);
	struct offload_cut cut;
	struct train train;
	bool is_super;

	memmove(super->packet + 48, super->packet + 40, super->len - 40);
	super->packet[6] = IPPROTO_DSTOPTS;
	memcpy(super->packet + 40, (uint8_t[8]){ IPPROTO_TCP, 0, 1, 4 }, 8);
	super->len += 8;
	super->header.csum_start = 48;
	assert(offload_begin(&super->header, super->packet, super->len, &cut, &is_super) == 0 && is_super);
	assert(offload_next(&cut, out, 2048, 2, &train) && train.n == 2);
	assert(memcmp(train_packet(&train, 1) + 40, super->packet + 40, 8) == 0);
	for (uint32_t units = 1; units < 256; units++) {
		super->packet[41] = (uint8_t)units;
		assert(begin(super->header, super->packet, super->len) == OFFLOAD_E_MALFORMED);
	}
	super->packet[41] = 0;
	super->packet[40] = IPPROTO_UDP;
	assert(begin(super->header, super->packet, super->len) == OFFLOAD_E_MALFORMED);
	super->packet[40] = IPPROTO_TCP;
	super->packet[6] = 44; /* a fragment */
	assert(begin(super->header, super->packet, super->len) == OFFLOAD_E_MALFORMED);
}

/* Without segments: the sum must begin behind the IP header, and its field lie in the packet. */
static void test_a_single_packets_checksum_outside_of_it_is_refused(void)
{
	struct super *super = good_super(0);
	struct offload_header single = { .flags = OFFLOAD_NEEDS_CSUM, .csum_start = 20, .csum_offset = 16 };

	assert(begin(single, super->packet, 38) == 0);
	assert(begin(single, super->packet, 37) == OFFLOAD_E_MALFORMED);
	for (uint32_t start = 0; start < 20; start++) {
		single.csum_start = (uint16_t)start;
		assert(begin(single, super->packet, super->len) == OFFLOAD_E_MALFORMED);
	}
	single.csum_start = UINT16_MAX;
	single.csum_offset = UINT16_MAX; /* more than 16 bits together */
	assert(begin(single, super->packet, super->len) == OFFLOAD_E_MALFORMED);
	single.csum_start = 20;
	single.csum_offset = (uint16_t)(super->len - 21);
	assert(begin(single, super->packet, super->len) == OFFLOAD_E_MALFORMED);
	single.flags = 0xfe; /* everything but "needs a checksum": then nothing of it counts */
	assert(begin(single, super->packet, super->len) == 0);
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
static uint32_t merged_with(struct flow flow, uint32_t at, uint32_t xor)
{
	static uint8_t packets[TRAIN_MAX * STRIDE];
	struct offload_run run;

	flow.payload_len = 400;
	struct train train = make_train(packets, &flow, 100);
	train_packet(&train, 2)[at] ^= (uint8_t)xor;
	return offload_merge(&train, 0, OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, &run);
}

/* ---- merging: a rule each ---- */

#define MERGES(flow, at, xor)	     (merged_with(flow, at, xor) == 4)
#define STAYS_APART(flow, at, xor) (merged_with(flow, at, xor) == 2)
#define TCP4 20 /* where TCP and UDP begin */
#define TCP6 40

static const struct flow tcp4 = { .v4 = true, .tcp = true, .options_len = 12, .flags = 0x10 };
static const struct flow tcp6 = { .tcp = true, .options_len = 12, .flags = 0x10 };
static const struct flow udp4 = { .v4 = true };
static const struct flow udp6 = { .v4 = false };

static void test_neighbours_of_a_flow_merge(void)
{
	assert(MERGES(tcp4, 0, 0) && MERGES(tcp6, 0, 0) && MERGES(udp4, 0, 0) && MERGES(udp6, 0, 0));
}

static void test_another_version_does_not_merge(void)
{
	assert(STAYS_APART(tcp4, 0, 0x20) && STAYS_APART(tcp6, 0, 0x20)); /* 4 and 6 */
}

static void test_ipv4_options_are_not_merged(void)
{
	assert(STAYS_APART(tcp4, 0, 0x03)); /* 24 bytes */
	assert(STAYS_APART(udp4, 0, 0x0a)); /* 60 bytes */
}

static void test_fragments_are_not_merged(void)
{
	assert(STAYS_APART(tcp4, 6, 0x20)); /* more fragments */
	assert(STAYS_APART(tcp4, 6, 0x10) && STAYS_APART(tcp4, 7, 0x01)); /* the offset, from top to bottom */
	assert(STAYS_APART(udp4, 6, 0x20) && STAYS_APART(udp4, 7, 0x80));
}

static void test_the_length_in_the_header_must_be_the_packets(void)
{
	assert(STAYS_APART(tcp4, 3, 1) && STAYS_APART(tcp6, 5, 1));
	assert(STAYS_APART(udp4, 2, 1) && STAYS_APART(udp6, 4, 1));
	assert(STAYS_APART(udp4, 24, 1) && STAYS_APART(udp4, 25, 1) && STAYS_APART(udp6, 45, 1)); /* that of UDP */
}

static void test_tcp_or_udp_must_follow_ip_directly(void)
{
	assert(STAYS_APART(tcp4, 9, IPPROTO_TCP ^ IPPROTO_ICMP));
	assert(STAYS_APART(tcp6, 6, IPPROTO_TCP ^ IPPROTO_DSTOPTS));
	assert(STAYS_APART(tcp6, 6, IPPROTO_TCP)); /* hop by hop */
	assert(STAYS_APART(udp4, 9, IPPROTO_UDP ^ IPPROTO_TCP));
}

static void test_every_bit_of_addresses_and_ports_counts(void)
{
	for (uint32_t bit = 0; bit < 8 * 12; bit++)
		assert(STAYS_APART(tcp4, 12 + bit / 8, 1 << bit % 8) && STAYS_APART(udp4, 12 + bit / 8, 1 << bit % 8));
	for (uint32_t bit = 0; bit < 8 * 36; bit++)
		assert(STAYS_APART(tcp6, 8 + bit / 8, 1 << bit % 8) && STAYS_APART(udp6, 8 + bit / 8, 1 << bit % 8));
}

static void test_type_of_service_with_ecn_and_traffic_class_count(void)
{
	for (uint32_t bit = 0; bit < 8; bit++)
		assert(STAYS_APART(tcp4, 1, 1 << bit) && STAYS_APART(udp4, 1, 1 << bit));
	for (uint32_t bit = 4; bit < 12; bit++)
		assert(STAYS_APART(tcp6, 1 - bit / 8, 1 << bit % 8) && STAYS_APART(udp6, 1 - bit / 8, 1 << bit % 8));
}

static void test_time_to_live_and_hop_limit_count(void)
{
	assert(STAYS_APART(tcp4, 8, 1) && STAYS_APART(udp4, 8, 0x80));
	assert(STAYS_APART(tcp6, 7, 1) && STAYS_APART(udp6, 7, 0x80));
}

static void test_dont_fragment_and_the_reserved_bit_count(void)
{
	assert(STAYS_APART(tcp4, 6, 0x40) && STAYS_APART(tcp4, 6, 0x80));
	assert(STAYS_APART(udp4, 6, 0x40) && STAYS_APART(udp4, 6, 0x80));
}

static void test_the_flow_label_counts(void)
{
	for (uint32_t bit = 0; bit < 20; bit++)
		assert(STAYS_APART(tcp6, 3 - bit / 8, 1 << bit % 8) && STAYS_APART(udp6, 3 - bit / 8, 1 << bit % 8));
}

static void test_only_tcp_with_ack_and_perhaps_push_is_merged(void)
{
	for (uint32_t bit = 0; bit < 8; bit++)
		if (bit != 3) /* push */
			assert(STAYS_APART(tcp4, TCP4 + 13, 1 << bit) && STAYS_APART(tcp6, TCP6 + 13, 1 << bit));
}

static void test_nothing_follows_a_push(void)
{
	assert(merged_with(tcp4, TCP4 + 13, 0x08) == 3); /* itself included */
	assert(merged_with(tcp6, TCP6 + 13, 0x08) == 3);
}

static void test_the_sequence_continues(void)
{
	for (uint32_t bit = 0; bit < 32; bit++)
		assert(STAYS_APART(tcp4, TCP4 + 4 + bit / 8, 1 << bit % 8));
}

static void test_acknowledgement_window_and_urgent_pointer_count(void)
{
	for (uint32_t bit = 0; bit < 32; bit++)
		assert(STAYS_APART(tcp4, TCP4 + 8 + bit / 8, 1 << bit % 8));
	for (uint32_t bit = 0; bit < 16; bit++)
		assert(STAYS_APART(tcp4, TCP4 + 14 + bit / 8, 1 << bit % 8) &&
		       STAYS_APART(tcp6, TCP6 + 18 + bit / 8, 1 << bit % 8));
}

static void test_reserved_bits_of_tcp_count(void)
{
	for (uint32_t bit = 0; bit < 4; bit++)
		assert(STAYS_APART(tcp4, TCP4 + 12, 1 << bit));
}

static void test_options_and_their_length_count(void)
{
	for (uint32_t at = 20; at < 32; at++)
		assert(STAYS_APART(tcp4, TCP4 + at, 0x40) && STAYS_APART(tcp6, TCP6 + at, 0x01));
	assert(STAYS_APART(tcp4, TCP4 + 12, 0x10) && STAYS_APART(tcp4, TCP4 + 12, 0x80));
}

static void test_checksums_do_not_count(void)
{
	assert(MERGES(tcp4, TCP4 + 16, 0x55)); /* who has sealed it has vouched for it */
	assert(MERGES(udp6, TCP6 + 6, 0x55));
	assert(MERGES(tcp4, 10, 0x55));
}

static void test_udp_without_a_checksum_is_not_merged(void)
{
	static uint8_t packets[TRAIN_MAX * STRIDE];
	struct offload_run run;

	for (size_t kind = 2; kind < N_KINDS; kind++) {
		struct train train = make_train(packets, &kinds[kind], 500);
		memset(train_packet(&train, 1) + l4_at(packets) + 6, 0, 2);
		assert(offload_merge(&train, 0, OFFLOAD_MERGE_UDP, &run) == 1);
		assert(offload_merge(&train, 1, OFFLOAD_MERGE_UDP, &run) == 1);
		assert(offload_merge(&train, 2, OFFLOAD_MERGE_UDP, &run) == 2);
	}
}

/* Without "don't fragment" the ID matters to whoever puts fragments together. */
static void test_the_id_counts_where_fragments_may_be_made(void)
{
	assert(MERGES(tcp4, 5, 1) && MERGES(udp4, 5, 1));
	static uint8_t packets[TRAIN_MAX * STRIDE];
	struct offload_run run;
	struct flow flow = udp4;

	flow.payload_len = 400;
	struct train train = make_train(packets, &flow, 100);
	for (uint32_t i = 0; i < train.n; i++)
		train_packet(&train, i)[6] = 0;
	assert(offload_merge(&train, 0, OFFLOAD_MERGE_UDP, &run) == 4); /* the cut has counted them up */
	train = make_train(packets, &flow, 100);
	for (uint32_t i = 0; i < train.n; i++)
		train_packet(&train, i)[6] = 0;
	train_packet(&train, 2)[5] ^= 1;
	assert(offload_merge(&train, 0, OFFLOAD_MERGE_UDP, &run) == 2);
}

/* Packets of these payload lengths, one after the other in a flow; how many merge. */
static uint32_t merged_lengths(bool tcp, const uint32_t *lengths, uint32_t n)
{
	static uint8_t packets[TRAIN_MAX * STRIDE];
	struct train train = { .base = packets, .n = 1, .stride = STRIDE };
	uint32_t sequence = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct flow flow = { .v4 = true, .tcp = tcp, .flags = 0x10, .payload_len = lengths[i] };
		uint8_t *packet = train_packet(&train, i);
		srand(7); /* the same headers */
		uint32_t len = make_packet(packet, &flow);
		if (tcp) {
			packet[TCP4 + 6] = (uint8_t)(sequence >> 8);
			packet[TCP4 + 7] = (uint8_t)sequence;
			packet[TCP4 + 4] = packet[TCP4 + 5] = 0;
		} else {
			packet[TCP4 + 4] = (uint8_t)((len - TCP4) >> 8);
			packet[TCP4 + 5] = (uint8_t)(len - TCP4);
		}
		sequence += lengths[i];
		train.last_size = len;
		if (i == 0)
			train.size = len;
	}
	struct offload_run run;
	train.n = n;
	return offload_merge(&train, 0, OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, &run);
}

static void test_a_shorter_packet_is_the_last_and_a_longer_one_never_joins(void)
{
	for (int tcp = 0; tcp < 2; tcp++) {
		assert(merged_lengths(tcp, (uint32_t[]){ 100, 100, 60 }, 3) == 3);
		assert(merged_lengths(tcp, (uint32_t[]){ 100, 100, 101 }, 3) == 2);
		assert(merged_lengths(tcp, (uint32_t[]){ 100, 1 }, 2) == 2);
		assert(merged_lengths(tcp, (uint32_t[]){ 1, 100 }, 2) == 1);
		/* The second says that it is shorter than its slot: not a packet of this train. */
		assert(merged_lengths(tcp, (uint32_t[]){ 100, 60, 100 }, 3) == 1);
		assert(merged_lengths(tcp, (uint32_t[]){ 100, 0 }, 2) == 1); /* nothing in it */
	}
}

static void test_the_whole_is_never_longer_than_a_packet_can_be(void)
{
	uint32_t lengths[TRAIN_MAX];

	for (int tcp = 0; tcp < 2; tcp++) {
		uint32_t room = OFFLOAD_MAX_PACKET - (tcp ? 40 : 28);
		for (uint32_t len = 1000; len <= 1900; len += 100) {
			for (uint32_t i = 0; i < TRAIN_MAX; i++)
				lengths[i] = len;
			uint32_t fit = room / len < TRAIN_MAX ? room / len : TRAIN_MAX;
			assert(merged_lengths(tcp, lengths, TRAIN_MAX) == fit);
		}
	}
}

static void test_a_merge_can_be_undone(void)
{
	static uint8_t packets[TRAIN_MAX * STRIDE], before[TRAIN_MAX * STRIDE];
	struct offload_run run;

	for (size_t kind = 0; kind < N_KINDS; kind++) {
		struct flow flow = kinds[kind];
		flow.options_len = flow.tcp ? 40 : 0; /* the longest */
		struct train train = make_train(packets, &flow, 300);
		memcpy(before, packets, sizeof(before));
		assert(offload_merge(&train, 0, OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, &run) == train.n);
		assert(memcmp(before, packets, sizeof(before)) != 0);
		offload_undo_merge(&run);
		assert(memcmp(before, packets, sizeof(before)) == 0);
		/* What was not merged has nothing to be undone. */
		assert(offload_merge(&train, train.n - 1, OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, &run) == 1);
		offload_undo_merge(&run);
		assert(memcmp(before, packets, sizeof(before)) == 0);
	}
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
	test_a_packet_that_ends_within_its_headers_is_refused();
	test_a_kind_that_is_not_the_packets_is_refused();
	test_segments_of_no_size_are_refused();
	test_segments_larger_than_the_payload_are_one_packet();
	test_a_checksum_anywhere_else_is_refused();
	test_the_length_of_the_headers_is_only_a_hint();
	test_a_transport_header_that_contradicts_is_refused();
	test_extension_headers_of_ipv6_must_lead_to_the_transport_header();
	test_a_single_packets_checksum_outside_of_it_is_refused();
	test_what_was_cut_merges_and_cuts_to_the_same_again();
	test_neighbours_of_a_flow_merge();
	test_another_version_does_not_merge();
	test_ipv4_options_are_not_merged();
	test_fragments_are_not_merged();
	test_the_length_in_the_header_must_be_the_packets();
	test_tcp_or_udp_must_follow_ip_directly();
	test_every_bit_of_addresses_and_ports_counts();
	test_type_of_service_with_ecn_and_traffic_class_count();
	test_time_to_live_and_hop_limit_count();
	test_dont_fragment_and_the_reserved_bit_count();
	test_the_flow_label_counts();
	test_only_tcp_with_ack_and_perhaps_push_is_merged();
	test_nothing_follows_a_push();
	test_the_sequence_continues();
	test_acknowledgement_window_and_urgent_pointer_count();
	test_reserved_bits_of_tcp_count();
	test_options_and_their_length_count();
	test_checksums_do_not_count();
	test_udp_without_a_checksum_is_not_merged();
	test_the_id_counts_where_fragments_may_be_made();
	test_a_shorter_packet_is_the_last_and_a_longer_one_never_joins();
	test_the_whole_is_never_longer_than_a_packet_can_be();
	test_a_merge_can_be_undone();
	test_kinds_the_kernel_does_not_take_are_left_alone();
	test_pure_acknowledgements_and_other_protocols_go_singly();
	puts("ok");
	return 0;
}
