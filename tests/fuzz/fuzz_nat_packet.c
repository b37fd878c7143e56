/*
 * Target: what the tests' NAT reads and changes in packets of strangers. Input: a byte, which says what is changed, then a packet.
 * Nothing else is changed than what was asked for and the sums over it; those are as right or wrong as they were, but an error's
 * own, which is made anew.
 */
#include "tests/lib/nat/nat_packet.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum change { SOURCE, DESTINATION, INNER_SOURCE, INNER_DESTINATION, N_CHANGES };

static void expect(bool holds)
{
	if (!holds)
		abort();
}

/* Of 16-bit words, so that both zeros are one. */
static uint32_t sum_of(const uint8_t *bytes, size_t len)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? bytes[i] : (uint64_t)bytes[i] << 8;
	return (uint32_t)(sum % 0xffff);
}

static uint32_t header_sum(const struct nat_header *h)
{
	return sum_of(h->ip, (size_t)(h->transport - h->ip));
}

/* With the addresses, where the protocol's sum is over these, too. */
static uint32_t transport_sum(const struct nat_header *h)
{
	const uint32_t addresses = h->protocol == NAT_ICMP ? 0 : sum_of(h->ip + 12, 8);

	return (addresses + sum_of(h->transport, h->transport_len)) % 0xffff;
}

static bool has_sum(const struct nat_header *h)
{
	if (h->protocol == NAT_UDP)
		return h->transport[6] != 0 || h->transport[7] != 0;
	return h->protocol == NAT_ICMP || h->transport_len >= 20;
}

static bool is_same_ip(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

static void change(struct nat_packet *packet, enum change what, const struct endpoint *to)
{
	static void (*const changes[])(struct nat_packet *, const struct endpoint *) = {
		[SOURCE] = nat_packet_set_source,
		[DESTINATION] = nat_packet_set_destination,
		[INNER_SOURCE] = nat_packet_set_inner_source,
		[INNER_DESTINATION] = nat_packet_set_inner_destination,
	};

	changes[what](packet, to);
}

/* So few bytes may be others: addresses, a port and sums, of an error twice. */
static void expect_few_changed(const uint8_t *before, const uint8_t *bytes, size_t len, bool is_error)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += before[i] != bytes[i];
	expect(n <= (is_error ? 2 * 10 : 10));
}

static void expect_changed(const struct nat_packet *packet, enum change what, const struct endpoint *to)
{
	const struct nat_header *h = what == SOURCE || what == DESTINATION ? &packet->outer : &packet->inner;
	const struct endpoint *is = what == SOURCE || what == INNER_SOURCE ? &h->source : &h->destination;

	expect(is_same_ip(is, to) && (is->port == to->port || h->protocol == NAT_ICMP));
	if (what == INNER_SOURCE)
		expect(is_same_ip(&packet->outer.destination, to) && transport_sum(&packet->outer) == 0);
	if (what == INNER_DESTINATION)
		expect(is_same_ip(&packet->outer.source, to) && transport_sum(&packet->outer) == 0);
}

static void try_packet(const uint8_t *given, size_t len, enum change what)
{
	const struct endpoint to = endpoint_from_v4(0xc6336401, 60001);
	struct nat_packet packet, again;
	uint8_t *bytes = malloc(len + 1);

	expect(bytes != NULL);
	uint8_t *at = bytes + 1; /* behind it is nobody's; and no word is aligned */
	memcpy(at, given, len);
	if (nat_packet_read(at, len, &packet) && (packet.is_error || what == SOURCE || what == DESTINATION)) {
		const struct nat_header *h = what == SOURCE || what == DESTINATION ? &packet.outer : &packet.inner;
		const bool is_summed = has_sum(h);
		const uint32_t outer = header_sum(&packet.outer), header = header_sum(h), transport = transport_sum(h);
		expect(packet.len <= len);
		change(&packet, what, &to);
		expect(nat_packet_read(at, len, &again) && again.len == packet.len && again.is_error == packet.is_error);
		expect_changed(&again, what, &to);
		expect(header_sum(&packet.outer) == outer && header_sum(h) == header);
		expect(has_sum(h) == is_summed && (!is_summed || transport_sum(h) == transport));
		expect_few_changed(given, at, len, packet.is_error);
	}
	free(bytes);
}

static void try_fragment(const uint8_t *given, size_t len)
{
	const struct nat_fragment to = { .source = endpoint_from_v4(0xc6336401, 0), .destination = endpoint_from_v4(0xc6336402, 0) };
	struct nat_fragment fragment, again;
	uint8_t *bytes = malloc(len + 1);

	expect(bytes != NULL);
	memcpy(bytes + 1, given, len);
	if (nat_fragment_read(bytes + 1, len, &fragment)) {
		nat_fragment_readdress(bytes + 1, &to);
		expect(nat_fragment_read(bytes + 1, len, &again));
		expect(is_same_ip(&again.source, &to.source) && is_same_ip(&again.destination, &to.destination));
		expect(sum_of(bytes + 1, 20) == sum_of(given, 20) && again.id == fragment.id);
		expect_few_changed(given, bytes + 1, len, false);
	}
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 2048)
		return 0;
	try_packet(data + 1, size - 1, data[0] % N_CHANGES);
	try_fragment(data + 1, size - 1);
	return 0;
}
