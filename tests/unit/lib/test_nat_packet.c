/*
 * What the NAT changes in packets: a packet with changed addresses is one that could have been sent so, a
 * damaged one stays damaged, and no bytes make it touch others. Sums are checked by plain addition.
 */
#include "tests/lib/nat/nat_packet.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IP(a)	(0x0a000000u + (a))
#define MAX_LEN 128

static const uint32_t from_ip = IP(2), to_ip = IP(3), other_ip = 0xc6336401;

static void put16(uint8_t *p, unsigned value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value)
{
	put16(p, value >> 16);
	put16(p + 2, value & 0xffff);
}

static uint32_t add(uint32_t sum, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static uint32_t pseudo_header(const uint8_t *ip, size_t transport_len)
{
	return add(ip[9] + (uint32_t)transport_len, ip + 12, 8);
}

static size_t sum_at(uint8_t protocol)
{
	return protocol == IPPROTO_UDP ? 6 : protocol == IPPROTO_TCP ? 16 : 2;
}

static uint32_t start_of_sum(const uint8_t *packet, size_t len)
{
	return packet[9] == IPPROTO_ICMP ? 0 : pseudo_header(packet, len - 20);
}

static void sum_up(uint8_t *packet, size_t len)
{
	uint8_t *sum = packet + 20 + sum_at(packet[9]);

	put16(packet + 10, 0);
	put16(packet + 10, ~add(0, packet, 20) & 0xffff);
	put16(sum, 0);
	put16(sum, ~add(start_of_sum(packet, len), packet + 20, len - 20) & 0xffff);
}

static bool is_summed(const uint8_t *packet, size_t len)
{
	return add(0, packet, 20) == 0xffff &&
	       add(start_of_sum(packet, len), packet + 20, len - 20) == 0xffff;
}

/* 10.0.0.2:5000 to 10.0.0.3:4000; ICMP: an echo request with the identifier 5000. */
static size_t make(uint8_t *packet, uint8_t protocol, size_t payload)
{
	const size_t len = 20 + (protocol == IPPROTO_TCP ? 20u : 8u) + payload;

	for (size_t i = 0; i < len; i++)
		packet[i] = (uint8_t)(i * 7);
	packet[0] = 0x45;
	put16(packet + 2, (unsigned)len);
	put16(packet + 6, 0x4000);
	packet[9] = protocol;
	put32(packet + 12, from_ip);
	put32(packet + 16, to_ip);
	if (protocol == IPPROTO_ICMP) {
		put16(packet + 20, 8 << 8);
		put16(packet + 24, 5000);
	} else {
		put16(packet + 20, 5000);
		put16(packet + 22, 4000);
	}
	sum_up(packet, len);
	return len;
}

static bool is(struct endpoint a, uint32_t ip, uint16_t port)
{
	const struct endpoint b = endpoint_from_v4(ip, port);

	return endpoint_equal(&a, &b);
}

static const uint8_t protocols[] = { IPPROTO_UDP, IPPROTO_TCP, IPPROTO_ICMP };

static void test_a_changed_packet_could_have_been_sent_so(void)
{
	for (size_t p = 0; p < 3; p++)
		for (size_t payload = 0; payload < 9; payload++) {
			const struct endpoint source = endpoint_from_v4(other_ip, 60001);
			const struct endpoint destination = endpoint_from_v4(other_ip + 1, 60002);
			const bool has_port = protocols[p] != IPPROTO_ICMP;
			uint8_t bytes[MAX_LEN];
			const size_t len = make(bytes, protocols[p], payload);
			struct nat_packet packet;

			assert(nat_packet_read(bytes, len, &packet) && !packet.is_error);
			assert(is(packet.outer.source, from_ip, 5000));
			assert(is(packet.outer.destination, to_ip, has_port ? 4000 : 0));
			nat_packet_set_source(&packet, &source);
			nat_packet_set_destination(&packet, &destination);
			assert(is_summed(bytes, len));
			assert(nat_packet_read(bytes, len, &packet) && packet.len == len);
			assert(is(packet.outer.source, other_ip, 60001));
			assert(is(packet.outer.destination, other_ip + 1, has_port ? 60002 : 0));
		}
}

static void test_a_damaged_packet_stays_damaged(void)
{
	const struct endpoint source = endpoint_from_v4(other_ip, 60001);

	for (size_t p = 0; p < 3; p++) {
		uint8_t bytes[MAX_LEN];
		const size_t len = make(bytes, protocols[p], 8);
		struct nat_packet packet;

		bytes[len - 1] ^= 1;
		assert(nat_packet_read(bytes, len, &packet));
		nat_packet_set_source(&packet, &source);
		assert(!is_summed(bytes, len));
	}
}

static void test_udp_without_a_checksum_gets_none(void)
{
	const struct endpoint source = endpoint_from_v4(other_ip, 60001);
	uint8_t bytes[MAX_LEN];
	const size_t len = make(bytes, IPPROTO_UDP, 8);
	struct nat_packet packet;

	put16(bytes + 26, 0);
	assert(nat_packet_read(bytes, len, &packet));
	nat_packet_set_source(&packet, &source);
	assert(bytes[26] == 0 && bytes[27] == 0);
}

/* An ICMP error of to_ip: that a packet of make() did not get there. */
static size_t make_error(uint8_t *bytes, uint8_t protocol)
{
	uint8_t about[MAX_LEN];
	const size_t len = 20 + 8 + 20 + 8;

	make(about, protocol, 0);
	make(bytes, IPPROTO_ICMP, 28);
	put32(bytes + 12, to_ip);
	put32(bytes + 16, from_ip);
	bytes[20] = 3;
	memcpy(bytes + 28, about, 28);
	sum_up(bytes, len);
	return len;
}

static void test_an_error_is_about_the_packet_as_its_sender_knows_it(void)
{
	for (size_t p = 0; p < 3; p++) {
		const struct endpoint sender = endpoint_from_v4(other_ip, 60001);
		uint8_t bytes[MAX_LEN], expected[MAX_LEN];
		const size_t len = make_error(bytes, protocols[p]);
		struct nat_packet packet;

		assert(nat_packet_read(bytes, len, &packet) && packet.is_error);
		assert(packet.inner.protocol == (protocols[p] == IPPROTO_UDP ? NAT_UDP :
						 protocols[p] == IPPROTO_TCP ? NAT_TCP :
									       NAT_ICMP));
		assert(is(packet.inner.source, from_ip, 5000));
		nat_packet_set_inner_source(&packet, &sender);
		assert(is_summed(bytes, len) && add(0, bytes + 28, 20) == 0xffff);

		/* What it is about is what the sender sent, to the sum of it. */
		make(expected, protocols[p], 0);
		assert(nat_packet_read(expected, 20 + (protocols[p] == IPPROTO_TCP ? 20u : 8u), &packet));
		nat_packet_set_source(&packet, &sender);
		assert(memcmp(bytes + 28, expected, 28) == 0);
	}
}

static void test_an_error_about_a_packet_that_came_in_goes_out(void)
{
	const struct endpoint outside = endpoint_from_v4(other_ip, 60002);
	uint8_t bytes[MAX_LEN];
	const size_t len = make_error(bytes, IPPROTO_UDP);
	struct nat_packet packet;

	assert(nat_packet_read(bytes, len, &packet));
	nat_packet_set_inner_destination(&packet, &outside);
	assert(is_summed(bytes, len) && add(0, bytes + 28, 20) == 0xffff);
	assert(nat_packet_read(bytes, len, &packet));
	assert(is(packet.inner.destination, other_ip, 60002) && is(packet.outer.source, other_ip, 0));
}

static void test_later_fragments_follow_the_first(void)
{
	uint8_t bytes[MAX_LEN];
	const size_t len = make(bytes, IPPROTO_UDP, 16);
	struct nat_fragment whole, first, last, is;
	struct nat_packet packet;

	assert(!nat_fragment_read(bytes, len, &whole) && "no fragment");
	put16(bytes + 6, 0x2000);
	assert(nat_fragment_read(bytes, len, &first) && first.is_first && !first.is_last);
	assert(nat_packet_read(bytes, len, &packet) && "a packet like any other");

	put16(bytes + 6, 3);
	assert(nat_fragment_read(bytes, len, &last) && !last.is_first && last.is_last);
	assert(nat_fragment_is_of(&first, &last));
	assert(!nat_packet_read(bytes, len, &packet));
	put16(bytes + 10, 0);
	put16(bytes + 10, ~add(0, bytes, 20) & 0xffff);
	is = (struct nat_fragment){ .source = endpoint_from_v4(other_ip, 0),
				    .destination = endpoint_from_v4(other_ip + 1, 0) };
	nat_fragment_readdress(bytes, &is);
	assert(add(0, bytes, 20) == 0xffff);
	assert(nat_fragment_read(bytes, len, &last) && !nat_fragment_is_of(&first, &last));
	assert(endpoint_equal(&last.source, &is.source) && endpoint_equal(&last.destination, &is.destination));
}

/* Each in memory of its own size, so that the sanitizer sees one byte too many. */
static void take(const uint8_t *bytes, size_t len)
{
	const struct endpoint any = endpoint_from_v4(other_ip, 60001);
	uint8_t *copy = malloc(len + !len);
	struct nat_fragment fragment;
	struct nat_packet packet;

	assert(copy);
	memcpy(copy, bytes, len);
	if (nat_fragment_read(copy, len, &fragment))
		nat_fragment_readdress(copy, &fragment);
	if (nat_packet_read(copy, len, &packet)) {
		assert(packet.len <= len);
		nat_packet_set_source(&packet, &any);
		nat_packet_set_destination(&packet, &any);
		if (packet.is_error) {
			nat_packet_set_inner_source(&packet, &any);
			nat_packet_set_inner_destination(&packet, &any);
		}
	}
	free(copy);
}

static void test_no_bytes_make_it_touch_others(void)
{
	uint8_t bytes[MAX_LEN];

	srand(1);
	for (size_t p = 0; p < 3; p++) {
		for (size_t len = make(bytes, protocols[p], 4); len > 0; len--)
			take(bytes, len - 1);
		for (int i = 0; i < 20000; i++) {
			const size_t len = i % 2 ? make(bytes, protocols[p], 4) :
						   make_error(bytes, protocols[p]);
			for (int n = rand() % 4; n >= 0; n--)
				bytes[(size_t)rand() % len] = (uint8_t)rand();
			take(bytes, (size_t)rand() % (len + 1));
			take(bytes, len);
		}
	}
}

int main(void)
{
	test_a_changed_packet_could_have_been_sent_so();
	test_a_damaged_packet_stays_damaged();
	test_udp_without_a_checksum_gets_none();
	test_an_error_is_about_the_packet_as_its_sender_knows_it();
	test_an_error_about_a_packet_that_came_in_goes_out();
	test_later_fragments_follow_the_first();
	test_no_bytes_make_it_touch_others();
	puts("ok");
}
