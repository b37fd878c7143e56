/* Host names: one form for the configuration and for visitors; what is no name, and what a wildcard stands for. */
#include "common/macros.h"
#include "relay/frontdoor/host_name.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define L63 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0"
#define L61 "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxy"

typedef int read_name(const char *text, size_t len, struct host_name *ret);

static void expect_of(read_name *read, const char *text, size_t len, int error, const char *expected)
{
	struct host_name name = { .len = 1, .text = "?" };

	assert(read(text, len, &name) == error);
	assert(strcmp(name.text, error ? "?" : expected) == 0 && name.len == strlen(name.text));
}

static void expect_name(const char *text, const char *expected)
{
	expect_of(host_name_from, text, strlen(text), 0, expected);
	expect_of(host_name_from_authority, text, strlen(text), 0, expected);
}

static void expect_none(const char *text, int error)
{
	expect_of(host_name_from, text, strlen(text), error, NULL);
	expect_of(host_name_from_authority, text, strlen(text), error, NULL);
}

static void test_case_and_one_dot_at_the_end_do_not_matter(void)
{
	expect_name("app.example.org", "app.example.org");
	expect_name("App.EXAMPLE.org", "app.example.org");
	expect_name("app.example.org.", "app.example.org");
	expect_name("localhost", "localhost");
	expect_name("a_b.example", "a_b.example");
	expect_name("xn--BCHER-KVA.example", "xn--bcher-kva.example");
	expect_name("3com.example", "3com.example");
	expect_none("app.example.org..", HOST_NAME_LABEL);
	expect_none(".", HOST_NAME_LABEL);
}

static void test_two_equal_names_are_equal_bytes(void)
{
	struct host_name a, b;

	memset(&a, 0xff, sizeof(a));
	memset(&b, 0x55, sizeof(b));
	assert(host_name_from("Example.org.", 12, &a) == 0 && host_name_from_authority("example.org:80", 14, &b) == 0);
	assert(memcmp(&a, &b, sizeof(a)) == 0 && host_name_equal(&a, &b));
	assert(host_name_from("example.com", 11, &b) == 0 && !host_name_equal(&a, &b));
}

static void test_only_letters_digits_hyphens_and_underscores_are_in_a_name(void)
{
	static const char *const texts[] = { "a b",	"a\tb",	   "a\nb", "a/b",     "a,b",	  "user@a", "a%2eb",
					     "b\xc3\xbc.example", "a*b", "*",	  "*.a.example", "$(id)",  "a'b",    "a\\b" };

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		expect_none(texts[i], HOST_NAME_CHARACTER);
	expect_of(host_name_from, "a\0b", 3, HOST_NAME_CHARACTER, NULL);
	expect_of(host_name_from, "a.example\0", 10, HOST_NAME_CHARACTER, NULL);
	expect_of(host_name_from, "\0", 1, HOST_NAME_CHARACTER, NULL);
}

static void test_labels_have_1_to_63_characters_and_no_hyphen_at_an_end(void)
{
	expect_name(L63 ".org", L63 ".org");
	expect_none(L63 "x.org", HOST_NAME_LABEL);
	expect_none("a..b", HOST_NAME_LABEL);
	expect_none(".a", HOST_NAME_LABEL);
	expect_none("-a.b", HOST_NAME_LABEL);
	expect_none("a-.b", HOST_NAME_LABEL);
	expect_none("a.-", HOST_NAME_LABEL);
	expect_name("a--b.c", "a--b.c");
}

static void test_a_name_has_at_most_253_characters(void)
{
	static const char longest[] = L63 "." L63 "." L63 "." L61;

	assert(strlen(longest) == HOST_NAME_MAX_LEN);
	expect_name(longest, longest);
	expect_name(L63 "." L63 "." L63 "." L61 ".", longest);
	expect_none(L63 "." L63 "." L63 "." L61 "x", HOST_NAME_TOO_LONG);
	expect_none("", HOST_NAME_EMPTY);
}

static void test_an_address_is_no_name(void)
{
	static const char *const addresses[] = { "192.0.2.1", "192.0.2.1.", "127.1",  "2130706433",
						 "0x7f000001", "a.0x", "example.1", "[2001:db8::1]" };

	for (size_t i = 0; i < ARRAY_LEN(addresses); i++)
		expect_none(addresses[i], HOST_NAME_ADDRESS);
	expect_of(host_name_from, "2001:db8::1", 11, HOST_NAME_ADDRESS, NULL);
	expect_of(host_name_from_authority, "[2001:db8::1]:443", 17, HOST_NAME_ADDRESS, NULL);
	expect_of(host_name_from_authority, "192.0.2.1:443", 13, HOST_NAME_ADDRESS, NULL);
}

static void test_a_port_does_not_matter_where_one_may_stand_and_must_be_one(void)
{
	static const char *const with_port[] = { "a.example:80", "a.example:", "a.example.:65535", "A.example:00080" };
	static const char *const wrong[] = { "a.example:65536", "a.example:http", "a.example:80:80", "a.example:-1",
					     "a.example: 80",	"a.example:000080", "::1" };

	for (size_t i = 0; i < ARRAY_LEN(with_port); i++) {
		expect_of(host_name_from_authority, with_port[i], strlen(with_port[i]), 0, "a.example");
		expect_of(host_name_from, with_port[i], strlen(with_port[i]), HOST_NAME_CHARACTER, NULL);
	}
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		expect_of(host_name_from_authority, wrong[i], strlen(wrong[i]), HOST_NAME_PORT, NULL);
	expect_of(host_name_from_authority, ":80", 3, HOST_NAME_EMPTY, NULL);
}

/* ---- patterns -------------------------------------------------------------------------------- */

static bool matches(const char *pattern_text, const char *name_text)
{
	struct host_pattern pattern;
	struct host_name name;

	assert(host_pattern_from(pattern_text, strlen(pattern_text), &pattern) == 0);
	assert(host_name_from(name_text, strlen(name_text), &name) == 0);
	return host_pattern_matches(&pattern, &name);
}

static void test_a_wildcard_stands_for_exactly_one_label(void)
{
	assert(matches("*.example.org", "a.example.org"));
	assert(matches("*.Example.org.", "A.EXAMPLE.ORG"));
	assert(!matches("*.example.org", "a.b.example.org"));
	assert(!matches("*.example.org", "example.org"));
	assert(!matches("*.example.org", "aexample.org"));
	assert(!matches("*.example.org", "a.example.com"));
	assert(!matches("*.org", "org"));
	assert(matches("example.org", "example.org") && !matches("example.org", "a.example.org"));
}

static void test_a_wildcard_stands_in_front_and_alone(void)
{
	static const struct {
		const char *text;
		int error;
	} wrong[] = {
		{ "*", HOST_NAME_CHARACTER },	       { "*.", HOST_NAME_EMPTY },
		{ "a.*.example", HOST_NAME_CHARACTER }, { "*a.example", HOST_NAME_CHARACTER },
		{ "*.*.example", HOST_NAME_CHARACTER }, { "*..example", HOST_NAME_LABEL },
		{ "*.example:80", HOST_NAME_CHARACTER }, { "*.192.0.2.1", HOST_NAME_ADDRESS },
		{ "", HOST_NAME_EMPTY },	       { "*." L63 "." L63 "." L63 "." L61, HOST_NAME_TOO_LONG },
	};
	struct host_pattern pattern;

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert(host_pattern_from(wrong[i].text, strlen(wrong[i].text), &pattern) == wrong[i].error);
}

static void test_each_error_has_its_text(void)
{
	for (int error = HOST_NAME_EMPTY; error <= HOST_NAME_PORT; error++)
		assert(strcmp(host_name_error_text(error), "no error") != 0);
	assert(strcmp(host_name_error_text(0), "no error") == 0);
	assert(strcmp(host_name_error_text(HOST_NAME_PORT + 1), "no error") == 0);
}

int main(void)
{
	test_case_and_one_dot_at_the_end_do_not_matter();
	test_two_equal_names_are_equal_bytes();
	test_only_letters_digits_hyphens_and_underscores_are_in_a_name();
	test_labels_have_1_to_63_characters_and_no_hyphen_at_an_end();
	test_a_name_has_at_most_253_characters();
	test_an_address_is_no_name();
	test_a_port_does_not_matter_where_one_may_stand_and_must_be_one();
	test_a_wildcard_stands_for_exactly_one_label();
	test_a_wildcard_stands_in_front_and_alone();
	test_each_error_has_its_text();
	puts("ok");
	return 0;
}
