/*
 * Target: sniffer_read, client_hello_decode, hpack_next and all between. Whatever comes is an outcome, the same at
 * once as in pieces, and one that stays when more follows; what is found is a name that a host can have. And door_share_decide:
 * its own name is never by the routes, and nothing is the relay's or webgw's but TLS on the port that they have as well.
 *
 * The bytes are a visitor's; where they are cut follows from them.
 */
#include "relay/frontdoor/door_share.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
	if (!condition)
		abort();
}

static void check_found(const struct sniffed *found)
{
	struct host_name again;

	expect(host_name_from(found->host.text, found->host.len, &again) == 0);
	expect(memcmp(&again, &found->host, sizeof(again)) == 0);
	expect(found->protocol != SNIFFER_UNKNOWN && found->protocol < SNIFFER_N_PROTOCOLS);
	expect(!found->is_acme_http || found->protocol != SNIFFER_TLS);
	expect(!found->is_acme_tls || (found->protocol == SNIFFER_TLS && !found->offers_h2 && !found->offers_http_1));
}

/* From a block of exactly that size, so that a read past its end shows. */
static enum sniffer_outcome read_copy(struct sniffer *sniffer, const uint8_t *data, size_t n)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);

	expect(copy);
	if (n > 0)
		memcpy(copy, data, n);
	enum sniffer_outcome outcome = sniffer_read(sniffer, copy, n);
	free(copy);
	return outcome;
}

static void expect_same(const struct sniffer *a, const struct sniffer *b)
{
	expect(a->outcome == b->outcome && a->reason == b->reason && a->protocol == b->protocol);
	if (a->outcome == SNIFFER_FOUND)
		expect(host_name_equal(&a->found.host, &b->found.host) && a->found.is_acme_http == b->found.is_acme_http &&
		       a->found.is_acme_tls == b->found.is_acme_tls && a->found.has_ech == b->found.has_ech &&
		       a->found.offers_http_1 == b->found.offers_http_1 && a->found.offers_h2 == b->found.offers_h2 &&
		       a->found.offers_h3 == b->found.offers_h3 && a->found.offers_relay == b->found.offers_relay &&
		       a->found.offers_webgw == b->found.offers_webgw && a->found.offers_dial_back == b->found.offers_dial_back);
}

/* Where webgw is there as well, it has those alone who ask for it by ALPN. */
static void check_webgw(const struct sniffer *sniffer, const struct host_name *own, enum door_whose without)
{
	const struct door_share share = { .has_relay = true, .has_webgw = true };
	const enum door_whose whose = door_share_decide(sniffer, share, own);
	const struct sniffed *found = &sniffer->found;

	if (whose == without)
		return;
	expect(sniffer->protocol == SNIFFER_TLS && !found->offers_relay);
	expect((whose == DOOR_WHOSE_DIAL_BACK && found->offers_dial_back) ||
	       (whose == DOOR_WHOSE_WEBGW && (found->offers_webgw || found->offers_http_1)));
}

static void check_whose(const struct sniffer *sniffer)
{
	const struct host_name none = { 0 };
	const bool is_found = sniffer->outcome == SNIFFER_FOUND, is_tls = sniffer->protocol == SNIFFER_TLS;

	if (sniffer->outcome == SNIFFER_MORE)
		return;
	const struct door_share only_hosts = { 0 }, with_relay = { .has_relay = true }, with_all = { .has_relay = true, .has_webgw = true };
	const enum door_whose alone = door_share_decide(sniffer, only_hosts, &none);
	const enum door_whose shared = door_share_decide(sniffer, with_relay, &none);
	expect(alone == (is_found ? DOOR_WHOSE_ROUTES : DOOR_WHOSE_REFUSED));
	expect(shared == alone || (shared == DOOR_WHOSE_RELAY && is_tls));
	check_webgw(sniffer, &none, shared);
	if (!is_found)
		return;
	const enum door_whose own = door_share_decide(sniffer, with_relay, &sniffer->found.host);
	expect(own == (is_tls ? DOOR_WHOSE_RELAY : DOOR_WHOSE_NOBODY));
	check_webgw(sniffer, &sniffer->found.host, own);
	expect(door_share_decide(sniffer, only_hosts, &sniffer->found.host) == DOOR_WHOSE_NOBODY);
	expect(door_share_decide(sniffer, with_all, &sniffer->found.host) != DOOR_WHOSE_ROUTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sniffer whole, in_pieces, before;
	uint32_t step = 1;

	sniffer_init(&whole);
	sniffer_init(&in_pieces);
	read_copy(&whole, data, size);
	for (size_t n = 0; n < size; n += step) {
		before = in_pieces;
		if (read_copy(&in_pieces, data, n) != SNIFFER_MORE && before.outcome != SNIFFER_MORE)
			expect_same(&in_pieces, &before);
		step = size < 256 ? 1 : 1 + data[n];
	}
	read_copy(&in_pieces, data, size);
	expect_same(&whole, &in_pieces);
	check_whose(&whole);
	expect(size < SNIFFER_MAX || whole.outcome != SNIFFER_MORE);
	if (whole.outcome == SNIFFER_FOUND)
		check_found(&whole.found);
	if (whole.outcome == SNIFFER_REFUSED)
		expect(whole.reason != SNIFFER_NOT_REFUSED && strlen(sniffer_reason_name(whole.reason)) > 0 &&
		       (sniffer_answer(&whole) == SNIFFER_RESET || whole.protocol == SNIFFER_HTTP_1));
	return 0;
}
