#include "relay/frontdoor/hpack_wire.h"

#include <string.h>

#define N_STATIC       61
#define ENTRY_OVERHEAD 32
#define MAX_INTEGER    (1 << 21) /* no length and no index is larger */

/* ---- the static table (RFC 7541, appendix A) ------------------------------------------------- */

static const char *const static_names[N_STATIC + 1] = {
	NULL, ":authority", ":method", ":method", ":path", ":path", ":scheme", ":scheme", ":status", ":status",
	":status", ":status", ":status", ":status", ":status", "accept-charset", "accept-encoding",
	"accept-language", "accept-ranges", "accept", "access-control-allow-origin", "age", "allow",
	"authorization", "cache-control", "content-disposition", "content-encoding", "content-language",
	"content-length", "content-location", "content-range", "content-type", "cookie", "date", "etag", "expect",
	"expires", "from", "host", "if-match", "if-modified-since", "if-none-match", "if-range",
	"if-unmodified-since", "last-modified", "link", "location", "max-forwards", "proxy-authenticate",
	"proxy-authorization", "range", "referer", "refresh", "retry-after", "server", "set-cookie",
	"strict-transport-security", "transfer-encoding", "user-agent", "vary", "via", "www-authenticate",
};

/* The values that matter to somebody here; the others are as if empty. */
static const char *const static_values[N_STATIC + 1] = {
	[2] = "GET", [3] = "POST", [4] = "/", [5] = "/index.html", [6] = "http", [7] = "https",
};

/* ---- Huffman's code (RFC 7541, appendix B) --------------------------------------------------- */

/*
 * The code is canonical: symbols in the order of their codes, and how many codes there are of each length, say all.
 * The last one, of 30 bits, is the end of the string, which must not appear in it.
 */
#define HUFFMAN_MAX_BITS 30

static const uint8_t n_codes[HUFFMAN_MAX_BITS + 1] = {
	0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4,
};

static const uint8_t symbols[256] = {
	48, 49, 50, 97, 99, 101, 105, 111, 115, 116, 32, 37, 45, 46, 47, 51, 52, 53, 54, 55, 56, 57, 61, 65,
	95, 98, 100, 102, 103, 104, 108, 109, 110, 112, 114, 117, 58, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76,
	77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 89, 106, 107, 113, 118, 119, 120, 121, 122, 38, 42, 44, 59,
	88, 90, 33, 34, 40, 41, 63, 39, 43, 124, 35, 62, 0, 36, 64, 91, 93, 126, 94, 125, 60, 96, 123, 92,
	195, 208, 128, 130, 131, 162, 184, 194, 224, 226, 153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230, 129,
	132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190, 196, 198, 228, 232,
	233, 1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180, 182,
	183, 188, 191, 197, 231, 239, 9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237, 199, 207, 234, 235, 192, 193,
	200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255, 203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245,
	246, 247, 248, 250, 251, 252, 253, 254, 2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20,
	21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220, 249, 10, 13, 22,
};

/* ---- strings --------------------------------------------------------------------------------- */

static bool may_stand_in_name(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c != 0 && strchr("!#$%&'*+-.^_`|~", c));
}

static void begin(struct hpack_string *string)
{
	string->len = 0;
	string->is_name = string->is_value = true;
	string->is_path = false;
}

static void put(struct hpack_string *string, uint8_t c)
{
	bool is_colon_in_front = c == ':' && string->len == 0;

	string->is_path = string->len == 0 ? c == '/' : string->is_path && c > ' ' && c < 0x7f;
	if (string->len < HPACK_MAX_TEXT)
		string->text[string->len] = (char)c;
	string->len++;
	string->is_name = string->is_name && (is_colon_in_front || may_stand_in_name(c));
	string->is_value = string->is_value && c != '\0' && c != '\r' && c != '\n';
}

static void put_plain(struct hpack_string *string, const uint8_t *at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		put(string, at[i]);
}

/* Where in the code one stands: the bits since the last symbol. */
struct code {
	uint32_t bits, first; /* the bits read, and the first code that is as long */
	uint32_t index;	      /* of that code's symbol */
	uint32_t n;	      /* how many bits */
	bool is_all_ones;
};

static const struct code no_code = { .is_all_ones = true };

/* One bit more; false: that is the end of the string, or longer than any code. */
static bool put_bit(struct hpack_string *string, struct code *code, unsigned bit)
{
	code->bits = code->bits << 1 | bit;
	code->first <<= 1;
	code->is_all_ones = code->is_all_ones && bit;
	if (++code->n > HUFFMAN_MAX_BITS)
		return false;
	uint32_t n = n_codes[code->n], i = code->bits - code->first;
	if (i < n) {
		if (code->index + i >= sizeof(symbols))
			return false;
		put(string, symbols[code->index + i]);
		*code = no_code;
		return true;
	}
	code->index += n;
	code->first += n;
	return true;
}

/* Padded with ones, fewer than eight (section 5.2). */
static bool put_huffman(struct hpack_string *string, const uint8_t *at, size_t len)
{
	struct code code = no_code;

	for (size_t i = 0; i < len; i++)
		for (int bit = 7; bit >= 0; bit--)
			if (!put_bit(string, &code, at[i] >> bit & 1))
				return false;
	return code.n < 8 && code.is_all_ones;
}

/* ---- primitives (section 5) ------------------------------------------------------------------ */

/* first: the byte with the prefix of n_bits bits, already read. */
static uint32_t read_integer(struct wire_reader *r, uint8_t first, unsigned n_bits)
{
	uint32_t prefix = (1U << n_bits) - 1, value = first & prefix;

	if (value < prefix)
		return value;
	for (unsigned shift = 0;; shift += 7) {
		uint8_t byte = wire_u8(r);
		value += (uint32_t)(byte & 0x7f) << shift;
		if (value > MAX_INTEGER || shift > 21)
			r->failed = true;
		if (r->failed || !(byte & 0x80))
			return r->failed ? 0 : value;
	}
}

static bool read_string(struct wire_reader *r, struct hpack_string *ret)
{
	uint8_t first = wire_u8(r);
	size_t len = read_integer(r, first, 7);
	const uint8_t *at = wire_take(r, len);

	begin(ret);
	if (!at)
		return false;
	if (first & 0x80)
		return put_huffman(ret, at, len);
	put_plain(ret, at, len);
	return true;
}

/* ---- names ----------------------------------------------------------------------------------- */

static enum hpack_name name_of(const char *text, size_t len)
{
	static const char *const known[HPACK_N_NAMES] = {
		[HPACK_HOST] = "host", [HPACK_AUTHORITY] = ":authority", [HPACK_METHOD] = ":method",
		[HPACK_PATH] = ":path", [HPACK_SCHEME] = ":scheme",
	};

	for (int i = 0; i < HPACK_N_NAMES; i++)
		if (known[i] && len == strlen(known[i]) && memcmp(text, known[i], len) == 0)
			return (enum hpack_name)i;
	return text[0] == ':' ? HPACK_PSEUDO : HPACK_OTHER;
}

/* Of a literal. One that was cut is none of the known. */
static enum hpack_name name_of_string(const struct hpack_string *string)
{
	if (!string->is_name || string->len == 0)
		return HPACK_NO_NAME;
	return name_of(string->text, string->len < HPACK_MAX_TEXT ? string->len : HPACK_MAX_TEXT);
}

/* ---- the dynamic table (section 4) ----------------------------------------------------------- */

/* age: 0 for the newest. */
static struct hpack_entry *entry_at(struct hpack *hpack, uint32_t age)
{
	return &hpack->entries[(hpack->newest + HPACK_MAX_ENTRIES - age) % HPACK_MAX_ENTRIES];
}

static void shrink_to(struct hpack *hpack, uint32_t size)
{
	while (hpack->size > size) {
		hpack->n--;
		hpack->size -= entry_at(hpack, hpack->n)->size;
	}
}

static void add_entry(struct hpack *hpack, enum hpack_name name, uint32_t name_len, uint32_t value_len)
{
	uint32_t size = name_len + value_len + ENTRY_OVERHEAD;

	if (size > hpack->max_size) {
		shrink_to(hpack, 0); /* what does not fit empties the table, and is no error */
		return;
	}
	shrink_to(hpack, hpack->max_size - size);
	hpack->newest = (hpack->newest + 1) % HPACK_MAX_ENTRIES;
	hpack->n++;
	hpack->size += size;
	*entry_at(hpack, 0) = (struct hpack_entry){ (uint16_t)size, (uint16_t)name_len, name };
}

/* ---- fields (section 6) ---------------------------------------------------------------------- */

/* Whose name is at that index, in either table; false: nobody's. */
static bool name_at(struct hpack *hpack, uint32_t index, enum hpack_name *ret, uint32_t *ret_len)
{
	if (index == 0 || index > N_STATIC + hpack->n)
		return false;
	if (index <= N_STATIC) {
		*ret_len = (uint32_t)strlen(static_names[index]);
		*ret = name_of(static_names[index], *ret_len);
		return true;
	}
	const struct hpack_entry *entry = entry_at(hpack, index - N_STATIC - 1);
	*ret_len = entry->name_len;
	*ret = entry->name;
	return true;
}

static bool read_indexed(struct hpack *hpack, uint8_t first, struct hpack_field *ret)
{
	uint32_t index = read_integer(&hpack->r, first, 7), name_len;

	if (hpack->r.failed || !name_at(hpack, index, &ret->name, &name_len))
		return false;
	begin(&ret->value);
	ret->is_again = index > N_STATIC;
	if (index <= N_STATIC && static_values[index])
		put_plain(&ret->value, (const uint8_t *)static_values[index], strlen(static_values[index]));
	return true;
}

static bool read_literal(struct hpack *hpack, uint8_t first, bool is_added, struct hpack_field *ret)
{
	uint32_t index = read_integer(&hpack->r, first, is_added ? 6 : 4), name_len;

	if (hpack->r.failed)
		return false;
	if (index == 0) {
		if (!read_string(&hpack->r, &ret->value))
			return false;
		ret->name = name_of_string(&ret->value);
		name_len = ret->value.len;
	} else if (!name_at(hpack, index, &ret->name, &name_len)) {
		return false;
	}
	if (!read_string(&hpack->r, &ret->value))
		return false;
	ret->is_again = false;
	if (is_added)
		add_entry(hpack, ret->name, name_len, ret->value.len);
	return true;
}

static bool read_size(struct hpack *hpack, uint8_t first)
{
	uint32_t size = read_integer(&hpack->r, first, 5);

	if (hpack->r.failed || hpack->has_begun || size > HPACK_TABLE_SIZE)
		return false;
	hpack->max_size = size;
	shrink_to(hpack, size);
	return true;
}

void hpack_init(struct hpack *hpack, const uint8_t *block, size_t len)
{
	hpack->r = wire_reader(block, len);
	hpack->has_begun = false;
	hpack->size = hpack->n = hpack->newest = 0;
	hpack->max_size = HPACK_TABLE_SIZE;
}

int hpack_next(struct hpack *hpack, struct hpack_field *ret)
{
	while (wire_left(&hpack->r) > 0) {
		uint8_t first = wire_u8(&hpack->r);
		bool is_right;

		if ((first & 0xe0) == 0x20) {
			is_right = read_size(hpack, first);
		} else {
			hpack->has_begun = true;
			is_right = first & 0x80 ? read_indexed(hpack, first, ret) :
						  read_literal(hpack, first, first & 0x40, ret);
			if (is_right)
				return 0;
		}
		if (!is_right)
			hpack->r.failed = true;
	}
	return hpack->r.failed ? HPACK_BAD : HPACK_END;
}
