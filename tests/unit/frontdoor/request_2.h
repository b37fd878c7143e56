/* HTTP/2 requests to test with, built from the layouts in RFC 9113 and RFC 7541. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REQUEST_2_MAX_FIELDS 8

struct request_2 {
	struct {
		const char *name, *value;
	} fields[REQUEST_2_MAX_FIELDS];
	bool is_indexed;	/* literals go into the dynamic table */
	const char *before;	/* frames between SETTINGS and HEADERS … */
	size_t before_len;
	bool has_no_settings;
	bool is_padded, has_priority;
	size_t fragment_len;	/* 0: HEADERS alone; else so much in each frame, the rest in CONTINUATION */
	const char *block;	/* instead of fields */
	size_t block_len;
	size_t filler;		/* bytes of a value of a field more */
	uint32_t stream;	/* 0: 1 */
};

size_t request_2_build(const struct request_2 *request, uint8_t *ret, size_t cap);
