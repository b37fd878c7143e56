/* Bytes as hex digits, for vectors. */
#pragma once

#include <assert.h>
#include <sodium.h>
#include <stdint.h>
#include <string.h>

/* Returns how many bytes there are. */
static inline size_t unhex(const char *text, uint8_t *ret, size_t cap)
{
	size_t n = 0;
	int r = sodium_hex2bin(ret, cap, text, strlen(text), NULL, &n, NULL);

	assert(r == 0 && n * 2 == strlen(text));
	return n;
}

static inline int is_hex(const uint8_t *bytes, size_t n, const char *text)
{
	uint8_t expected[4096];

	return unhex(text, expected, sizeof(expected)) == n && memcmp(bytes, expected, n) == 0;
}
