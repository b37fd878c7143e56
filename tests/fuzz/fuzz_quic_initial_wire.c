/*
 * Target: quic_initial_read, quic_header_decode. The first byte of the input says what the rest is: datagrams as they
 * come, each after its length in two bytes; or (odd) the frames of Initial packets, each after their length, which are
 * sealed here, so that what is behind the seal is reached.
 *
 * Whatever comes is an outcome, what is found is a name that a host can have, and nothing changes afterwards.
 */
#include "initial.h"
#include "relay/frontdoor/quic_initial_wire.h"

#include <stdlib.h>
#include <string.h>

#define MAX_FRAMES 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct quic_initial client;

static void expect(bool condition)
{
	if (!condition)
		abort();
}

static void check(void)
{
	struct host_name again;

	expect(client.n_whole <= QUIC_MAX_HELLO);
	if (client.outcome == QUIC_REFUSED)
		expect(client.reason != SNIFFER_NOT_REFUSED && client.reason < SNIFFER_N_REASONS);
	if (client.outcome != QUIC_FOUND)
		return;
	expect(host_name_from(client.found.host.text, client.found.host.len, &again) == 0);
	expect(host_name_equal(&again, &client.found.host) && client.found.protocol == SNIFFER_QUIC);
}

/* From a block of exactly that size, so that a read past its end shows. */
static void read_copy(const uint8_t *datagram, size_t len)
{
	enum quic_outcome before = client.outcome;
	uint8_t *copy = malloc(len > 0 ? len : 1), answer[600];
	struct quic_header header;

	expect(copy);
	if (len > 0)
		memcpy(copy, datagram, len);
	enum quic_outcome outcome = quic_initial_read(&client, copy, len);
	expect(before == QUIC_MORE || outcome == before);
	if (quic_header_decode(copy, len, &header) == 0 && header.type != QUIC_SHORT) {
		expect(header.type == QUIC_OTHER_VERSION || header.type == QUIC_NEGOTIATION ||
		       (header.destination.len <= QUIC_MAX_CID && header.source.len <= QUIC_MAX_CID));
		size_t n = quic_encode_negotiation(&header, answer, sizeof(answer));
		expect(n > 0 && quic_header_decode(answer, n, &header) == 0 && header.type == QUIC_NEGOTIATION);
	}
	free(copy);
	check();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t datagram[2 * MAX_FRAMES];
	struct initial_options options = { 0 };

	if (size == 0)
		return 0;
	quic_initial_init(&client);
	for (size_t at = 1; at + 2 <= size; options.number++) {
		size_t len = (size_t)data[at] << 8 | data[at + 1], left = size - at - 2;
		const uint8_t *bytes = data + at + 2;
		if (len > left)
			len = left;
		if (len > MAX_FRAMES)
			len = MAX_FRAMES;
		if (data[0] & 1)
			read_copy(datagram, initial_build(&options, bytes, len, datagram, sizeof(datagram)));
		else
			read_copy(bytes, len);
		at += 2 + len;
	}
	return 0;
}
