/*
 * The same blocks, read by libnghttp2 and by us: blocks that libnghttp2 makes of random requests, with Huffman's code
 * and the dynamic table, and the same ones damaged. Both find the same names and values, and fail at the same field.
 */
#include "relay/frontdoor/hpack_wire.h"

#include <assert.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_ROUNDS 20000

static uint32_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
	random_state = random_state * 1664525 + 1013904223;
	return (random_state >> 8) % n;
}

static enum hpack_name name_by_text(const nghttp2_nv *nv)
{
	static const struct {
		const char *text;
		enum hpack_name name;
	} known[] = { { ":authority", HPACK_AUTHORITY }, { ":method", HPACK_METHOD }, { ":path", HPACK_PATH },
		      { ":scheme", HPACK_SCHEME },	 { "host", HPACK_HOST } };

	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		if (nv->namelen == strlen(known[i].text) && memcmp(nv->name, known[i].text, nv->namelen) == 0)
			return known[i].name;
	return nv->namelen > 0 && nv->name[0] == ':' ? HPACK_PSEUDO : HPACK_OTHER;
}

static void expect_same(const struct hpack_field *ours, const nghttp2_nv *theirs)
{
	enum hpack_name name = name_by_text(theirs);

	if (ours->name == HPACK_NO_NAME) /* nghttp2's inflater leaves that to its session */
		return;
	assert(ours->name == name);
	/* Of fields that do not matter here the static table has no values. */
	if (ours->is_again || name == HPACK_OTHER || name == HPACK_PSEUDO)
		return;
	size_t kept = theirs->valuelen < HPACK_MAX_TEXT ? theirs->valuelen : HPACK_MAX_TEXT;
	assert(ours->value.len == theirs->valuelen && memcmp(ours->value.text, theirs->value, kept) == 0);
}

/* Field by field; false if they failed, which both must. */
static bool compare(const uint8_t *block, size_t len)
{
	nghttp2_hd_inflater *inflater;
	struct hpack_field field;
	struct hpack hpack;
	bool is_right = true;

	assert(nghttp2_hd_inflate_new(&inflater) == 0);
	hpack_init(&hpack, block, len);
	for (;;) {
		nghttp2_nv nv;
		int flags = 0;
		ssize_t n = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, block, len, 1);
		if (n >= 0 && flags & NGHTTP2_HD_INFLATE_EMIT) {
			assert(hpack_next(&hpack, &field) == 0);
			expect_same(&field, &nv);
			block += n;
			len -= (size_t)n;
			continue;
		}
		is_right = n >= 0 && flags & NGHTTP2_HD_INFLATE_FINAL;
		assert(hpack_next(&hpack, &field) == (is_right ? HPACK_END : HPACK_BAD));
		break;
	}
	nghttp2_hd_inflate_del(inflater);
	return is_right;
}

static size_t random_block(uint8_t *ret, size_t cap)
{
	static const char *const names[] = { ":authority", ":method", ":path", ":scheme", "host", "cookie", "x-a", "accept" };
	static uint8_t values[12][64];
	nghttp2_hd_deflater *deflater;
	nghttp2_nv fields[12];
	size_t n = 1 + random_below(12);

	for (size_t i = 0; i < n; i++) {
		const char *name = names[random_below(8)];
		size_t len = random_below(sizeof(values[i]));
		bool any_byte = random_below(4) == 0;
		for (size_t j = 0; j < len; j++)
			values[i][j] = (uint8_t)(any_byte ? random_below(256) : 'a' + random_below(4));
		if (i > 0 && random_below(3) == 0)
			memcpy(values[i], values[i - 1], len);
		fields[i] = (nghttp2_nv){ (uint8_t *)name, values[i], strlen(name), len,
					  random_below(8) == 0 ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE };
	}
	assert(nghttp2_hd_deflate_new(&deflater, 4096) == 0);
	if (random_below(4) == 0)
		nghttp2_hd_deflate_change_table_size(deflater, random_below(200));
	ssize_t len = nghttp2_hd_deflate_hd(deflater, ret, cap, fields, n);
	nghttp2_hd_deflate_del(deflater);
	assert(len >= 0);
	return (size_t)len;
}

int main(void)
{
	unsigned n_right = 0, n_wrong = 0;
	uint8_t block[4096];

	for (int round = 0; round < N_ROUNDS; round++) {
		size_t len = random_block(block, sizeof(block));

		assert(compare(block, len));
		for (uint32_t damages = random_below(3); damages > 0; damages--)
			block[random_below((uint32_t)len)] ^= (uint8_t)(1 << random_below(8));
		*(compare(block, len - random_below(2)) ? &n_right : &n_wrong) += 1;
	}
	assert(n_right > N_ROUNDS / 10 && n_wrong > N_ROUNDS / 10); /* else this shows nothing */
	puts("ok");
	return 0;
}
