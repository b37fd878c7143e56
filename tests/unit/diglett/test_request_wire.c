/* What an agent asks for and what it is told, byte by byte as docs/PROTOCOL-diglett.md has them; and the token list. */
#include "relay/diglett/request_wire.h"
#include "relay/diglett/token_list.h"
#include "tests/unit/wireguard/hex.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct host_name name_of(const char *text)
{
	struct host_name name;

	assert(diglett_name_parse(text, strlen(text), &name) == 0);
	return name;
}

/* ---- request and answer ---- */

static void test_a_request_is_written_and_read_as_described(void)
{
	const struct diglett_request request = { .max_streams = 512, .n_ports = 2,
						 .names = { name_of("app"), name_of("b.example.org") },
						 .token = "tok", .extra = "x y" };
	uint8_t bytes[DIGLETT_MAX_REQUEST];
	struct diglett_request read;

	const size_t n = diglett_request_write(&request, bytes);
	assert(is_hex(bytes, n, "01" "0200" "02" "03617070" "0d622e6578616d706c652e6f7267" "03746f6b" "0003782079"));
	assert(diglett_request_read(bytes, n, &read));
	assert(memcmp(&read, &request, sizeof(read)) == 0);
	for (size_t i = 0; i < n; i++)
		assert(!diglett_request_read(bytes, i, &read) && read.n_ports == 0 && read.token[0] == '\0');
	bytes[n] = 0;
	assert(!diglett_request_read(bytes, n + 1, &read));
}

static void test_the_longest_request_fits(void)
{
	struct diglett_request request = { .max_streams = 1024, .n_ports = DIGLETT_MAX_PORTS }, read;
	uint8_t bytes[DIGLETT_MAX_REQUEST];
	char text[HOST_NAME_MAX_LEN + 1];

	memset(request.token, 't', DIGLETT_MAX_TOKEN);
	memset(request.extra, 'e', DIGLETT_MAX_EXTRA);
	for (int i = 0; i < DIGLETT_MAX_PORTS; i++) {
		for (int at = 0; at < HOST_NAME_MAX_LEN; at++)
			text[at] = at % 50 == 49 ? '.' : (char)('a' + i);
		request.names[i] = (struct host_name){ .len = HOST_NAME_MAX_LEN };
		memcpy(request.names[i].text, text, HOST_NAME_MAX_LEN);
	}
	size_t n = diglett_request_write(&request, bytes);
	assert(n > 0 && diglett_request_read(bytes, n, &read) && memcmp(&read, &request, sizeof(read)) == 0);
	memset(request.token, 0, sizeof(request.token));
	request.badge.n_certificate = NODE_BADGE_MAX_CERTIFICATE;
	request.badge.n_signature = NODE_BADGE_MAX_SIGNATURE;
	memset(request.badge.certificate, 'c', NODE_BADGE_MAX_CERTIFICATE);
	memset(request.badge.signature, 's', NODE_BADGE_MAX_SIGNATURE);
	n = diglett_request_write(&request, bytes);
	assert(n > 0 && diglett_request_read(bytes, n, &read) && memcmp(&read, &request, sizeof(read)) == 0);
}

static void test_a_badge_is_written_and_read_as_described(void)
{
	const struct diglett_request request = { .max_streams = 512, .n_ports = 1, .names = { name_of("app") },
						 .badge = { 3, 2, { 1, 2, 3 }, { 4, 5 } } };
	uint8_t bytes[DIGLETT_MAX_REQUEST];
	struct diglett_request read;

	const size_t n = diglett_request_write(&request, bytes);
	assert(is_hex(bytes, n, "02" "0200" "01" "03617070" "00" "0000" "0003010203" "020405"));
	assert(diglett_request_read(bytes, n, &read) && memcmp(&read, &request, sizeof(read)) == 0);
	for (size_t i = 0; i < n; i++)
		assert(!diglett_request_read(bytes, i, &read) && read.badge.n_certificate == 0);
}

static const struct {
	const char *rule, *hex;
} bad_requests[] = {
	{ "a badge and a token", "02" "0200" "01" "03617070" "03746f6b" "0000" "0003010203" "020405" },
	{ "an empty certificate", "02" "0200" "01" "03617070" "00" "0000" "0000" "020405" },
	{ "a certificate too long", "02" "0200" "01" "03617070" "00" "0000" "0401010203" "020405" },
	{ "no signature", "02" "0200" "01" "03617070" "00" "0000" "0003010203" "00" },
	{ "a signature too long", "02" "0200" "01" "03617070" "00" "0000" "0003010203" "490405" },
	{ "another layout", "03" "0200" "01" "03617070" "03746f6b" "0000" },
	{ "no stream", "01" "0000" "01" "03617070" "03746f6b" "0000" },
	{ "too many streams", "01" "0401" "01" "03617070" "03746f6b" "0000" },
	{ "no name", "01" "0200" "00" "03746f6b" "0000" },
	{ "the same name twice", "01" "0200" "02" "03617070" "03417070" "03746f6b" "0000" },
	{ "an underscore in a name", "01" "0200" "01" "0361705f" "03746f6b" "0000" },
	{ "a slash in a name", "01" "0200" "01" "03612f62" "03746f6b" "0000" },
	{ "a hyphen first", "01" "0200" "01" "032d6162" "03746f6b" "0000" },
	{ "a space in a token", "01" "0200" "01" "03617070" "03742074" "0000" },
	{ "a newline in extra", "01" "0200" "01" "03617070" "03746f6b" "00010a" },
};

static void test_a_request_that_is_none_is_not_read(void)
{
	for (size_t i = 0; i < ARRAY_LEN(bad_requests); i++) {
		uint8_t bytes[64];
		struct diglett_request read;
		if (diglett_request_read(bytes, unhex(bad_requests[i].hex, bytes, sizeof(bytes)), &read)) {
			printf("%s\n", bad_requests[i].rule);
			abort();
		}
	}
}

static void test_answers_are_written_and_read_as_described(void)
{
	const struct diglett_answer yes = { .is_accepted = true, .n_ports = 1, .names = { name_of("app.example.org") } };
	const struct diglett_answer no = { .reason = MUX_REFUSED, .text = "no" };
	uint8_t bytes[DIGLETT_MAX_ANSWER];
	struct diglett_answer read;

	size_t n = diglett_answer_write(&yes, bytes);
	assert(is_hex(bytes, n, "01" "00" "01" "0f6170702e6578616d706c652e6f7267"));
	assert(diglett_answer_read(bytes, n, &read) && memcmp(&read, &yes, sizeof(read)) == 0);
	n = diglett_answer_write(&no, bytes);
	assert(is_hex(bytes, n, "01" "01" "02" "026e6f"));
	assert(diglett_answer_read(bytes, n, &read) && memcmp(&read, &no, sizeof(read)) == 0);
	bytes[1] = 2;
	assert(!diglett_answer_read(bytes, n, &read));
}

/* ---- tokens ---- */

static struct token_list list_of(const char *text)
{
	struct token_list list;
	struct error error;

	if (token_list_parse(text, strlen(text), &list, &error) != 0) {
		printf("%s\n", error.message);
		abort();
	}
	return list;
}

#define HELLO "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" /* SHA-256 of "hello" */
#define OTHER "0000000000000000000000000000000000000000000000000000000000000001"

static bool allows(const struct token_list *list, const char *token, const char *name)
{
	const struct host_name host = name_of(name);
	uint8_t hash[TOKEN_HASH_LEN];

	token_hash(token, hash);
	return token_list_allows(list, hash, &host);
}

static void test_a_token_is_for_its_names_alone(void)
{
	struct token_list list = list_of("# ours\n\n" HELLO "  shop.example.org\t*.test.example.org # both\r\n" OTHER " x.org\n");

	assert(list.n == 2);
	assert(allows(&list, "hello", "shop.example.org") && allows(&list, "hello", "a.test.example.org"));
	assert(!allows(&list, "hello", "test.example.org") && !allows(&list, "hello", "a.b.test.example.org"));
	assert(!allows(&list, "hello", "x.org") && !allows(&list, "Hello", "shop.example.org"));
	assert(!allows(&list, "", "shop.example.org"));
	assert(strcmp(list.entries[0].label, "both") == 0 && list.entries[1].label[0] == '\0');
	size_t len;
	char *text = token_list_print(&list, "heading", &len);
	struct token_list again = list_of(text);
	assert(again.n == list.n && memcmp(again.entries, list.entries, list.n * sizeof(*list.entries)) == 0);
	token_list_deinit(&again);
	free(text);
	token_list_deinit(&list);
}

static void test_without_a_line_nobody_is_let_in(void)
{
	struct token_list list = list_of("");

	assert(!allows(&list, "hello", "shop.example.org") && !allows(&list, "", "shop.example.org"));
	token_list_deinit(&list);
}

static const struct {
	const char *text, *error;
} bad_lists[] = {
	{ "hello shop.example.org\n", "line 1: it does not begin with the SHA-256 of a token, 64 hex digits" },
	{ "\n" HELLO "\n", "line 2: no name; put what the token is for behind it" },
	{ HELLO " a.org\n" HELLO " b.org\n", "line 2: this token stands above already; put its names there" },
};

static void test_mistakes_are_told_with_their_line_and_without_the_hash(void)
{
	for (size_t i = 0; i < ARRAY_LEN(bad_lists); i++) {
		struct token_list list = { 0 };
		struct error error;
		assert(token_list_parse(bad_lists[i].text, strlen(bad_lists[i].text), &list, &error) == -EINVAL);
		if (strcmp(error.message, bad_lists[i].error) != 0)
			printf("%s\n", error.message);
		assert(strcmp(error.message, bad_lists[i].error) == 0 && list.n == 0);
	}
	struct token_list list;
	struct error error;
	assert(token_list_parse(HELLO " a/b\n", strlen(HELLO " a/b\n"), &list, &error) == -EINVAL);
	assert(!strstr(error.message, "2cf24"));
}

int main(void)
{
	test_a_request_is_written_and_read_as_described();
	test_the_longest_request_fits();
	test_a_badge_is_written_and_read_as_described();
	test_a_request_that_is_none_is_not_read();
	test_answers_are_written_and_read_as_described();
	test_a_token_is_for_its_names_alone();
	test_without_a_line_nobody_is_let_in();
	test_mistakes_are_told_with_their_line_and_without_the_hash();
	return 0;
}
