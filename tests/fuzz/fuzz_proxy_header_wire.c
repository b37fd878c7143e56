/*
 * Target: proxy_v1_decode, proxy_v2_decode: what was read is written and read again as the same; and of a header in
 * pieces nothing else is said than of the whole.
 */
#include "relay/frontdoor/proxy_header_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef int decoder(const uint8_t *bytes, size_t n, struct proxy_header *ret, size_t *ret_len);
typedef size_t encoder(const struct proxy_header *header, uint8_t *buf, size_t size);

static void expect(bool condition)
{
	if (!condition)
		abort();
}

static void expect_same_value(const struct proxy_value *a, const struct proxy_value *b)
{
	expect(!a->at == !b->at && a->len == b->len && (!a->at || memcmp(a->at, b->at, a->len) == 0));
}

static void check_again(const struct proxy_header *header, decoder *decode, encoder *encode)
{
	uint8_t bytes[PROXY_V2_MAX_LEN + 64];
	struct proxy_header again;
	size_t len, n = encode(header, bytes, sizeof(bytes));

	if (n == 0) /* mapped addresses are longer as such, once one of both is IPv6 */
		return;
	expect(decode(bytes, n, &again, &len) == 0 && len == n);
	expect(again.has_addresses == header->has_addresses && again.is_datagram == header->is_datagram &&
	       again.scheme == header->scheme && again.n_doors == header->n_doors);
	expect(endpoint_equal(&again.source, &header->source));
	expect(endpoint_equal(&again.destination, &header->destination));
	expect_same_value(&again.alpn, &header->alpn);
	expect_same_value(&again.authority, &header->authority);
	expect_same_value(&again.unique_id, &header->unique_id);
}

/* From a block of exactly that size, so that a read past its end shows. */
static int read_copy(const uint8_t *data, size_t n, decoder *decode)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);
	struct proxy_header header;
	size_t len;

	expect(copy);
	memcpy(copy, data, n);
	int r = decode(copy, n, &header, &len);
	expect(r != 0 || len <= n);
	free(copy);
	return r;
}

static void check(const uint8_t *data, size_t size, decoder *decode, encoder *encode)
{
	struct proxy_header header;
	size_t len = 0;
	const int whole = decode(data, size, &header, &len);

	for (size_t n = 0; n < size; n += n < 64 ? 1 : 61) {
		int part = read_copy(data, n, decode);
		expect(part == PROXY_MORE || part == whole);
		expect(whole != 0 || (part == PROXY_MORE) == (n < len));
	}
	if (whole == 0)
		check_again(&header, decode, encode);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check(data, size, proxy_v1_decode, proxy_v1_encode);
	check(data, size, proxy_v2_decode, proxy_v2_encode);
	return 0;
}
