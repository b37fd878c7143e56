#include "common/utf8.h"

#include "common/macros.h"

static int32_t bad(size_t *ret_size)
{
	*ret_size = 1;
	return -1;
}

int32_t utf8_decode(const char *text, size_t len, size_t *ret_size)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
	int32_t value;

	if (n == 0 || n > len)
		return bad(ret_size);
	value = n == 1 ? p[0] : p[0] & (0x7f >> n);
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return bad(ret_size);
		value = value << 6 | (p[i] & 0x3f);
	}
	if ((n == 3 && (value < 0x800 || (value >= 0xd800 && value < 0xe000))) ||
	    (n == 4 && (value < 0x10000 || value > 0x10ffff)))
		return bad(ret_size);
	*ret_size = n;
	return value;
}

bool utf8_is_valid(const char *text, size_t len)
{
	size_t size;

	for (size_t at = 0; at < len; at += size)
		if (utf8_decode(text + at, len - at, &size) < 0)
			return false;
	return true;
}

bool utf8_is_plain(const char *text, size_t len)
{
	size_t size;

	for (size_t at = 0; at < len; at += size) {
		int32_t c = utf8_decode(text + at, len - at, &size);
		if (c < 0x20 || (c >= 0x7f && c < 0xa0))
			return false;
	}
	return true;
}

struct range {
	int32_t first, last;
};

static bool is_in(int32_t c, const struct range *ranges, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (c >= ranges[i].first && c <= ranges[i].last)
			return true;
	return false;
}

static size_t width_of(int32_t c)
{
	/* The ranges that occur in practice, not the whole of Unicode's tables. */
	static const struct range combining[] = {
		{ 0x300, 0x36f },   { 0x483, 0x489 },	{ 0x591, 0x5bd },   { 0x610, 0x61a },
		{ 0x64b, 0x65f },   { 0x1ab0, 0x1aff }, { 0x1dc0, 0x1dff }, { 0x200b, 0x200f },
		{ 0x20d0, 0x20ff }, { 0xfe00, 0xfe0f }, { 0xfe20, 0xfe2f }, { 0xe0100, 0xe01ef },
	};
	static const struct range wide[] = {
		{ 0x1100, 0x115f },   { 0x2e80, 0x303e },   { 0x3041, 0x33ff },	  { 0x3400, 0x4dbf },
		{ 0x4e00, 0x9fff },   { 0xa000, 0xa4cf },   { 0xac00, 0xd7a3 },	  { 0xf900, 0xfaff },
		{ 0xfe30, 0xfe6f },   { 0xff00, 0xff60 },   { 0xffe0, 0xffe6 },	  { 0x1f300, 0x1f64f },
		{ 0x1f900, 0x1f9ff }, { 0x20000, 0x2fffd }, { 0x30000, 0x3fffd },
	};

	if (is_in(c, combining, ARRAY_LEN(combining)))
		return 0;
	return is_in(c, wide, ARRAY_LEN(wide)) ? 2 : 1;
}

size_t utf8_width(const char *text, size_t len)
{
	size_t width = 0, size;

	for (size_t at = 0; at < len; at += size)
		width += width_of(utf8_decode(text + at, len - at, &size));
	return width;
}
