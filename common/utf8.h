/* UTF-8: one code point at a time, and how many columns a text takes in a terminal. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The code point at text (len > 0 bytes) and its length in *ret_size; or -1 and size 1 when the byte
 * there begins no valid one (overlong, surrogate, beyond U+10FFFF, cut off).
 */
int32_t utf8_decode(const char *text, size_t len, size_t *ret_size);
bool utf8_is_valid(const char *text, size_t len);
/* No control characters (C0, DEL, C1), and valid. */
bool utf8_is_plain(const char *text, size_t len);
/* Columns: 0 for combining marks, 2 for wide East Asian characters and emoji, 1 for anything else. */
size_t utf8_width(const char *text, size_t len);
