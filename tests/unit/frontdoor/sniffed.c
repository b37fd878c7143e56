#include "sniffed.h"

#include "relay/frontdoor/quic_initial_wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUT_EVERYWHERE 4096 /* what is longer is cut at some hundred places */

/* Each time from another block of exactly that size: a read past the end shows, and so does a pointer that was kept. */
static enum sniffer_outcome read_copy(struct sniffer *sniffer, const uint8_t *bytes, size_t n)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);

	assert(copy);
	memcpy(copy, bytes, n);
	enum sniffer_outcome outcome = sniffer_read(sniffer, copy, n);
	free(copy);
	return outcome;
}

static void describe_found(const struct sniffed *found, char *ret)
{
	snprintf(ret, SNIFFED_MAX_TEXT, "to `%s`%s%s%s", found->host.text, found->is_acme_http ? ", ACME http-01" : "",
		 found->is_acme_tls ? ", ACME tls-alpn-01" : "", found->has_ech ? ", ECH" : "");
}

static void describe(const struct sniffer *sniffer, char *ret)
{
	switch (sniffer->outcome) {
	case SNIFFER_MORE:
		snprintf(ret, SNIFFED_MAX_TEXT, "more");
		break;
	case SNIFFER_FOUND:
		assert(sniffer->found.protocol == sniffer->protocol);
		describe_found(&sniffer->found, ret);
		break;
	case SNIFFER_REFUSED:
		snprintf(ret, SNIFFED_MAX_TEXT, "`%s`, %s", sniffer_reason_name(sniffer->reason),
			 sniffer_answer(sniffer) == SNIFFER_HTTP_400 ? "400" : "reset");
		break;
	}
}

static void expect(const struct sniffer *sniffer, const char *expected)
{
	char text[SNIFFED_MAX_TEXT];

	describe(sniffer, text);
	assert(strcmp(text, expected) == 0);
}

static void in_two_reads(const uint8_t *bytes, size_t n, size_t cut, const char *expected)
{
	struct sniffer sniffer;

	sniffer_init(&sniffer);
	if (read_copy(&sniffer, bytes, cut) != SNIFFER_MORE)
		expect(&sniffer, expected);
	read_copy(&sniffer, bytes, n);
	expect(&sniffer, expected);
}

static void byte_by_byte(const uint8_t *bytes, size_t n, const char *expected)
{
	struct sniffer sniffer;
	size_t step = n <= CUT_EVERYWHERE ? 1 : 17;

	sniffer_init(&sniffer);
	for (size_t i = 0; i <= n; i += step)
		if (read_copy(&sniffer, bytes, i) != SNIFFER_MORE)
			expect(&sniffer, expected);
	read_copy(&sniffer, bytes, n);
	expect(&sniffer, expected);
}

void sniffed_text(const void *bytes, size_t n, char ret[SNIFFED_MAX_TEXT])
{
	struct sniffer sniffer;
	size_t step = n <= CUT_EVERYWHERE ? 1 : 117;

	sniffer_init(&sniffer);
	read_copy(&sniffer, bytes, n);
	describe(&sniffer, ret);
	byte_by_byte(bytes, n, ret);
	for (size_t cut = 0; cut < n; cut += step)
		in_two_reads(bytes, n, cut, ret);
}

void sniffed_quic_text(const uint8_t *datagrams, size_t n, char ret[SNIFFED_MAX_TEXT])
{
	struct quic_initial *client = malloc(sizeof(*client));

	assert(client);
	quic_initial_init(client);
	for (size_t at = 0; at < n;) {
		size_t len = (size_t)datagrams[at] << 8 | datagrams[at + 1];
		assert(at + 2 + len <= n);
		uint8_t *copy = malloc(len > 0 ? len : 1);
		assert(copy);
		memcpy(copy, datagrams + at + 2, len);
		quic_initial_read(client, copy, len);
		free(copy);
		at += 2 + len;
	}
	if (client->outcome == QUIC_MORE)
		snprintf(ret, SNIFFED_MAX_TEXT, "more");
	else if (client->outcome == QUIC_UNKNOWN_VERSION)
		snprintf(ret, SNIFFED_MAX_TEXT, "Version Negotiation");
	else if (client->outcome == QUIC_FOUND)
		describe_found(&client->found, ret);
	else
		snprintf(ret, SNIFFED_MAX_TEXT, "`%s`, no answer", sniffer_reason_name(client->reason));
	free(client);
}
