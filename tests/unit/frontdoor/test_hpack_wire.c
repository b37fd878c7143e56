/* HPACK: the requests of RFC 7541, appendix C; tables and their limits; what does not decode. */
#include "common/macros.h"
#include "relay/frontdoor/hpack_wire.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All fields, one a word: "method=GET", "other", "authority again"; then "end" or "bad". */
static void read_all(struct hpack *hpack, char *ret, size_t cap)
{
	static const char *const names[HPACK_N_NAMES] = { "other", "host", "authority", "method", "path", "scheme",
							  "pseudo", "none" };
	struct hpack_field field;
	size_t at = 0;
	int r;

	while ((r = hpack_next(hpack, &field)) == 0) {
		at += (size_t)snprintf(ret + at, cap - at, "%s", names[field.name]);
		if (field.is_again)
			at += (size_t)snprintf(ret + at, cap - at, " again");
		else if (field.name != HPACK_OTHER)
			at += (size_t)snprintf(ret + at, cap - at, "=%.*s", (int)field.value.len, field.value.text);
		at += (size_t)snprintf(ret + at, cap - at, ", ");
		assert(at < cap);
	}
	assert(hpack_next(hpack, &field) == r);
	snprintf(ret + at, cap - at, r == HPACK_END ? "end" : "bad");
}

static void expect(const char *block, size_t len, const char *expected)
{
	struct hpack hpack;
	char text[8192];
	uint8_t *copy = malloc(len > 0 ? len : 1);

	assert(copy);
	memcpy(copy, block, len);
	hpack_init(&hpack, copy, len);
	read_all(&hpack, text, sizeof(text));
	free(copy);
	if (strcmp(text, expected) != 0) {
		printf("%s\nnot\n%s\n", text, expected);
		abort();
	}
}

#define EXPECT(block, expected) expect(block, sizeof(block) - 1, expected)

static void test_the_requests_of_appendix_c(void)
{
	EXPECT("\x82\x86\x84\x41\x0fwww.example.com",
	       "method=GET, scheme=http, path=/, authority=www.example.com, end");
	EXPECT("\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
	       "method=GET, scheme=http, path=/, authority=www.example.com, end");
	EXPECT("\x04\x0c/sample/path", "path=/sample/path, end"); /* C.2.2 */
	EXPECT("\x40\x0a" "custom-key\x0d" "custom-header", "other, end"); /* C.2.1 */
	EXPECT("\x10\x08password\x06secret", "other, end"); /* C.2.3 */
}

static void test_what_is_in_the_dynamic_table_was_there_before(void)
{
	EXPECT("\x41\x01" "a\xbe", "authority=a, authority again, end");
	EXPECT("\x40\x04host\x01" "a\x7e\x01" "b\x0f\x2f\x01" "c", "host=a, host=b, host=c, end");
	EXPECT("\x41\x01" "a\xbf", "authority=a, bad"); /* one entry only */
	EXPECT("\xbe", "bad");
	EXPECT("\x00\x01" "a\x01" "b\xbe", "other, bad"); /* not to be indexed */
}

static void test_the_oldest_entries_leave_a_full_table(void)
{
	/* Two entries of 33 bytes and more fit in 66 bytes, a third evicts the first. */
	EXPECT("\x3f\x25\x41\x01" "a\x44\x01" "/\xbf", "authority=a, path=/, bad");
	EXPECT("\x3f\x3f\x41\x01" "a\x44\x01" "/\xbf", "authority=a, path=/, authority again, end");
	/* One that is larger than the table empties it. */
	EXPECT("\x3f\x11\x41\x01" "a\xbe\x40\x20" "0123456789abcdef0123456789abcdef\x01" "b\xbe",
	       "authority=a, authority again, other, bad");
}

static void test_the_size_changes_only_at_the_start_and_up_to_4096(void)
{
	EXPECT("\x20\x3f\xe1\x1f\x82", "method=GET, end");
	EXPECT("\x3f\xe2\x1f\x82", "bad");
	EXPECT("\x82\x20", "method=GET, bad");
}

static void test_a_table_of_128_empty_entries_is_full(void)
{
	char block[2 * 200 + 2];
	char expected[200 * 8 + 40] = "";

	for (int i = 0; i < 130; i++) {
		memcpy(block + 3 * i, "\x40\x00\x00", 3);
		strcat(expected, "none=, ");
	}
	memcpy(block + 390, "\xff\x3e", 2); /* the 128th */
	strcat(expected, "none again, end");
	expect(block, 392, expected);
	block[391]++;
	strcpy(strstr(expected, "none again"), "bad");
	expect(block, 392, expected);
}

static void test_names_are_of_lower_case(void)
{
	EXPECT("\x00\x04Host\x01" "a", "none=a, end");
	EXPECT("\x00\x05" "a\0b:c\x01" "a", "none=a, end");
	EXPECT("\x00\x05" "a:b-c\x01" "a", "none=a, end");
	EXPECT("\x00\x07:status\x01" "a", "pseudo=a, end");
	EXPECT("\x88", "pseudo=, end"); /* :status 200 of the static table */
	EXPECT("\x00\x00\x01" "a", "none=a, end");
}

static void test_values_without_nul_cr_and_lf_are_told_from_others(void)
{
	static const struct {
		const char *value;
		bool is_value;
	} values[] = { { "a b\tc", true }, { "\xff", true }, { "a\r", false }, { "\nb", false }, { "", false } };

	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		size_t len = values[i].value[0] ? strlen(values[i].value) : 1;
		char block[16] = { 0x01, (char)len };
		struct hpack_field field;
		struct hpack hpack;

		memcpy(block + 2, values[i].value, len);
		hpack_init(&hpack, (uint8_t *)block, 2 + len);
		assert(hpack_next(&hpack, &field) == 0 && field.value.is_value == values[i].is_value);
	}
}

static void test_of_a_long_string_the_start_is_kept_and_the_length_told(void)
{
	static char block[4 + 600] = "\x01\x7f\xd9\x03";
	struct hpack_field field;
	struct hpack hpack;

	memset(block + 4, 'a', 600);
	hpack_init(&hpack, (uint8_t *)block, sizeof(block));
	assert(hpack_next(&hpack, &field) == 0 && field.name == HPACK_AUTHORITY && field.value.len == 600);
	assert(memchr(field.value.text, '\0', HPACK_MAX_TEXT) == NULL);
}

static void test_what_does_not_decode_is_bad(void)
{
	EXPECT("\x80", "bad");					/* index 0 */
	EXPECT("\x41\x05" "abc", "bad");			/* cut in a string */
	EXPECT("\x41", "bad");					/* cut before it */
	EXPECT("\x7f\xff\xff\xff\xff\x0f\x00", "bad");		/* an integer without measure */
	EXPECT("\xff\x80\x80\x80\x80\x80\x80\x00", "bad");	/* zeroes without end */
	EXPECT("\x41\x81\x1e", "bad");				/* Huffman: padded with zeroes */
	EXPECT("\x41\x82\x1f\xff", "bad");			/* padded with eight ones and more */
	EXPECT("\x41\x84\xff\xff\xff\xff", "bad");		/* the end of the string in it */
	EXPECT("\x41\x81\x1f", "authority=a, end");
	EXPECT("", "end");
}

int main(void)
{
	test_the_requests_of_appendix_c();
	test_what_is_in_the_dynamic_table_was_there_before();
	test_the_oldest_entries_leave_a_full_table();
	test_the_size_changes_only_at_the_start_and_up_to_4096();
	test_a_table_of_128_empty_entries_is_full();
	test_names_are_of_lower_case();
	test_values_without_nul_cr_and_lf_are_told_from_others();
	test_of_a_long_string_the_start_is_kept_and_the_length_told();
	test_what_does_not_decode_is_bad();
	puts("ok");
	return 0;
}
