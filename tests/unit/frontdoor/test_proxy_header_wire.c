/* The PROXY protocol by its specification: what is read, what is refused, and that what is written is read again. */
#include "relay/frontdoor/proxy_header_wire.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define SIGNATURE 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a
#define ADDRESSES 192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0x01, 0xbb /* ports 56324, 443 */

static struct endpoint endpoint_of(const char *text)
{
	struct endpoint endpoint;

	assert(endpoint_parse(text, &endpoint) == 0);
	return endpoint;
}

static void expect_addresses(const struct proxy_header *header, const char *source, const char *destination)
{
	assert(header->has_addresses);
	assert(strcmp(endpoint_text(&header->source).s, source) == 0);
	assert(strcmp(endpoint_text(&header->destination).s, destination) == 0);
}

static bool is_value(const struct proxy_value *value, const char *text)
{
	return value->at && value->len == strlen(text) && memcmp(value->at, text, value->len) == 0;
}

/* ---- version 2 ---- */

static int read_2(const uint8_t *bytes, size_t n)
{
	struct proxy_header header;
	size_t len;

	return proxy_v2_decode(bytes, n, &header, &len);
}

static void test_a_header_of_version_2_says_from_where_to_where(void)
{
	static const uint8_t bytes[] = { SIGNATURE, 0x21, 0x11, 0, 12, ADDRESSES, 'G', 'E', 'T' };
	struct proxy_header header;
	size_t len;

	assert(proxy_v2_decode(bytes, sizeof(bytes), &header, &len) == 0);
	assert(len == sizeof(bytes) - 3); /* what follows is the visitor's */
	expect_addresses(&header, "192.0.2.1:56324", "198.51.100.1:443");
	assert(!header.alpn.at && !header.authority.at && !header.unique_id.at && header.scheme == PROXY_NO_SCHEME);
}

static void test_until_it_is_whole_there_is_more_to_come(void)
{
	static const uint8_t bytes[] = { SIGNATURE, 0x21, 0x11, 0, 12, ADDRESSES };

	for (size_t n = 0; n < sizeof(bytes); n++)
		assert(read_2(bytes, n) == PROXY_MORE);
	assert(read_2(bytes, sizeof(bytes)) == 0);
}

static void test_known_values_are_read_and_others_skipped(void)
{
	static const uint8_t bytes[] = { SIGNATURE, 0x21, 0x11, 0, 12 + 5 + 6 + 5 + 4 + 4 + 5 + 4, ADDRESSES,
					 0x01, 0, 2, 'h', '2', 0x02, 0, 3, 'a', '.', 'b', 0x05, 0, 2, 1, 2,
					 0xe0, 0, 1, PROXY_HTTPS, 0xe1, 0, 1, 2, 0x20, 0, 2, 0, 0, 0x04, 0, 1, 0 };
	struct proxy_header header;
	size_t len;

	assert(proxy_v2_decode(bytes, sizeof(bytes), &header, &len) == 0);
	assert(is_value(&header.alpn, "h2") && is_value(&header.authority, "a.b"));
	assert(is_value(&header.unique_id, "\1\2") && header.scheme == PROXY_HTTPS && header.n_doors == 2);
}

static void test_how_many_doors_is_said_once_and_not_of_none(void)
{
	static const uint8_t none[] = { SIGNATURE, 0x21, 0x11, 0, 12 + 4, ADDRESSES, 0xe1, 0, 1, 0 };
	static const uint8_t empty[] = { SIGNATURE, 0x21, 0x11, 0, 12 + 3, ADDRESSES, 0xe1, 0, 0 };
	static const uint8_t twice[] = { SIGNATURE, 0x21, 0x11, 0, 12 + 8, ADDRESSES, 0xe1, 0, 1, 1, 0xe1, 0, 1, 1 };

	assert(read_2(none, sizeof(none)) == PROXY_MALFORMED);
	assert(read_2(empty, sizeof(empty)) == PROXY_MALFORMED);
	assert(read_2(twice, sizeof(twice)) == PROXY_MALFORMED);
}

static void test_of_local_nothing_is_used(void)
{
	static const uint8_t bytes[] = { SIGNATURE, 0x20, 0x11, 0, 12, ADDRESSES };
	static const uint8_t empty[] = { SIGNATURE, 0x20, 0x00, 0, 0 };
	struct proxy_header header = { .has_addresses = true };
	size_t len;

	assert(proxy_v2_decode(bytes, sizeof(bytes), &header, &len) == 0 && len == sizeof(bytes));
	assert(!header.has_addresses && endpoint_is_none(&header.source));
	assert(read_2(empty, sizeof(empty)) == 0);
}

static void test_an_unknown_family_has_values_without_addresses(void)
{
	static const uint8_t bytes[] = { SIGNATURE, 0x21, 0x00, 0, 4, 0x02, 0, 1, 'a' };
	struct proxy_header header;
	size_t len;

	assert(proxy_v2_decode(bytes, sizeof(bytes), &header, &len) == 0);
	assert(!header.has_addresses && is_value(&header.authority, "a"));
}

static void test_what_is_no_header_is_known_by_its_first_byte_that_differs(void)
{
	static const uint8_t other[] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x01 };

	assert(read_2(other, 4) == PROXY_MORE);
	assert(read_2(other, 5) == PROXY_NO_HEADER);
	assert(read_2((const uint8_t *)"PROXY TCP4", 10) == PROXY_NO_HEADER); /* of the other version */
}

static void test_other_versions_commands_and_families_are_not_supported(void)
{
	static const uint8_t version[] = { SIGNATURE, 0x31, 0x11, 0, 12, ADDRESSES };
	static const uint8_t command[] = { SIGNATURE, 0x22, 0x11, 0, 12, ADDRESSES };
	static const uint8_t unix_path[] = { SIGNATURE, 0x21, 0x31, 0, 12, ADDRESSES };

	assert(read_2(version, sizeof(version)) == PROXY_UNSUPPORTED);
	assert(read_2(command, sizeof(command)) == PROXY_UNSUPPORTED);
	assert(read_2(unix_path, sizeof(unix_path)) == PROXY_UNSUPPORTED);
}

static void test_of_datagrams_it_says_so(void)
{
	static const uint8_t bytes[] = { SIGNATURE, 0x21, 0x12, 0, 12, ADDRESSES };
	struct proxy_header header;
	uint8_t again[64];
	size_t len;

	assert(proxy_v2_decode(bytes, sizeof(bytes), &header, &len) == 0 && header.is_datagram && header.has_addresses);
	assert(proxy_v2_encode(&header, again, sizeof(again)) == sizeof(bytes) && memcmp(again, bytes, sizeof(bytes)) == 0);
	memset(header.source.ip, 0x20, sizeof(header.source.ip)); /* IPv6 */
	assert(proxy_v2_encode(&header, again, sizeof(again)) == 16 + 36 && again[13] == 0x22);
	assert(proxy_v2_decode(again, 52, &header, &len) == 0 && header.is_datagram && len == 52);
}

static void test_a_length_beyond_the_bound_is_refused_before_more_comes(void)
{
	static const uint8_t most[] = { SIGNATURE, 0x21, 0x11, 0x0f, 0xf0 }, more[] = { SIGNATURE, 0x21, 0x11, 0x0f, 0xf1 };

	assert(read_2(most, sizeof(most)) == PROXY_MORE);
	assert(read_2(more, sizeof(more)) == PROXY_TOO_LONG);
}

#define EXPECT_MALFORMED(...)                                                                               \
	do {                                                                                                \
		static const uint8_t body_[] = { __VA_ARGS__ };                                             \
		uint8_t bytes_[16 + sizeof(body_)] = { SIGNATURE, 0x21, 0x11, 0, sizeof(body_) };           \
		memcpy(bytes_ + 16, body_, sizeof(body_));                                                  \
		assert(read_2(bytes_, sizeof(bytes_)) == PROXY_MALFORMED);                                  \
	} while (0)

static void test_what_does_not_fit_its_length_is_malformed(void)
{
	EXPECT_MALFORMED(192, 0, 2, 1);
	EXPECT_MALFORMED(ADDRESSES, 0x02);
	EXPECT_MALFORMED(ADDRESSES, 0x02, 0, 2, 'a');
	EXPECT_MALFORMED(ADDRESSES, 0xee, 0xff, 0xff, 0);
}

static void test_what_could_be_read_in_two_ways_is_malformed(void)
{
	EXPECT_MALFORMED(ADDRESSES, 0x02, 0, 1, 'a', 0x02, 0, 1, 'b');
	EXPECT_MALFORMED(ADDRESSES, 0x02, 0, 0);
	EXPECT_MALFORMED(ADDRESSES, 0xe0, 0, 1, PROXY_HTTP, 0xe0, 0, 1, PROXY_HTTP);
	EXPECT_MALFORMED(ADDRESSES, 0xe0, 0, 2, PROXY_HTTP, 0);
	EXPECT_MALFORMED(ADDRESSES, 0xe0, 0, 1, 0);
	EXPECT_MALFORMED(ADDRESSES, 0xe0, 0, 1, PROXY_N_SCHEMES);
}

static void test_a_unique_id_has_128_bytes_at_most(void)
{
	uint8_t bytes[16 + 12 + 3 + 129] = { SIGNATURE, 0x21, 0x11, 0, 12 + 3 + 128, ADDRESSES, 0x05, 0, 128 };

	assert(read_2(bytes, sizeof(bytes)) == 0);
	bytes[15]++;
	bytes[30]++;
	assert(read_2(bytes, sizeof(bytes)) == PROXY_MALFORMED);
}

static void expect_same_2(const struct proxy_header *header, size_t expected_len)
{
	uint8_t bytes[PROXY_V2_MAX_LEN];
	struct proxy_header again;
	size_t len;
	const size_t n = proxy_v2_encode(header, bytes, sizeof(bytes));

	assert(n == expected_len);
	assert(proxy_v2_decode(bytes, n, &again, &len) == 0 && len == n);
	assert(again.has_addresses == header->has_addresses && again.scheme == header->scheme &&
	       again.n_doors == header->n_doors);
	assert(endpoint_equal(&again.source, &header->source));
	assert(endpoint_equal(&again.destination, &header->destination));
	assert(again.authority.len == header->authority.len && again.alpn.len == header->alpn.len);
	assert(proxy_v2_encode(header, bytes, n - 1) == 0);
	assert(proxy_v2_encode(header, bytes, n) == n);
}

static void test_what_is_written_in_version_2_is_read_again(void)
{
	struct proxy_header header = { .has_addresses = false };

	expect_same_2(&header, 16); /* LOCAL */
	header.authority = (struct proxy_value){ .at = (const uint8_t *)"app.example.org", .len = 15 };
	expect_same_2(&header, 16 + 3 + 15);
	header.has_addresses = true;
	header.source = endpoint_of("192.0.2.1:1");
	header.destination = endpoint_of("198.51.100.1:443");
	expect_same_2(&header, 16 + 12 + 3 + 15);
	header.scheme = PROXY_HTTPS;
	header.alpn = (struct proxy_value){ .at = (const uint8_t *)"h2", .len = 2 };
	expect_same_2(&header, 16 + 12 + 3 + 15 + 4 + 5);
	header.n_doors = 1;
	expect_same_2(&header, 16 + 12 + 3 + 15 + 4 + 5 + 4);
	header.n_doors = 0;
	header.destination = endpoint_of("[2001:db8::1]:443"); /* IPv4 stands there as mapped */
	expect_same_2(&header, 16 + 36 + 3 + 15 + 4 + 5);
}

static void test_what_is_written_in_version_2_has_the_bytes_of_the_specification(void)
{
	static const uint8_t expected[] = { SIGNATURE, 0x21, 0x11, 0, 12 + 4 + 4, ADDRESSES,
					    0x02, 0, 1, 'a', 0xe0, 0, 1, PROXY_HTTP };
	const struct proxy_header header = { .has_addresses = true, .scheme = PROXY_HTTP,
					     .source = endpoint_of("192.0.2.1:56324"),
					     .destination = endpoint_of("198.51.100.1:443"),
					     .authority = { .at = (const uint8_t *)"a", .len = 1 } };
	uint8_t bytes[64];

	assert(proxy_v2_encode(&header, bytes, sizeof(bytes)) == sizeof(expected));
	assert(memcmp(bytes, expected, sizeof(expected)) == 0);
}

static void test_more_than_is_read_is_not_written(void)
{
	static uint8_t host[PROXY_V2_MAX_LEN], bytes[2 * PROXY_V2_MAX_LEN];
	struct proxy_header header = { .authority = { .at = host, .len = sizeof(host) - 19 } };

	assert(proxy_v2_encode(&header, bytes, sizeof(bytes)) == PROXY_V2_MAX_LEN);
	header.authority.len++;
	assert(proxy_v2_encode(&header, bytes, sizeof(bytes)) == 0);
}

/* ---- version 1 ---- */

static int read_1(const char *text, struct proxy_header *header)
{
	size_t len = 0;
	int r = proxy_v1_decode((const uint8_t *)text, strlen(text), header, &len);

	assert(r != 0 || len == (size_t)(strstr(text, "\r\n") + 2 - text));
	return r;
}

static void test_a_line_of_version_1_says_from_where_to_where(void)
{
	struct proxy_header header;

	assert(read_1("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\nGET /\r\n", &header) == 0);
	expect_addresses(&header, "192.0.2.1:56324", "198.51.100.1:443");
	assert(read_1("PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n", &header) == 0);
	expect_addresses(&header, "[2001:db8::1]:65535", "[2001:db8::2]:0");
}

static void test_of_unknown_nothing_is_used(void)
{
	struct proxy_header header = { .has_addresses = true };

	assert(read_1("PROXY UNKNOWN\r\n", &header) == 0 && !header.has_addresses);
	assert(read_1("PROXY UNKNOWN ffff::1 what ever\r\n", &header) == 0 && !header.has_addresses);
	assert(read_1("PROXY UNKNOWNS\r\n", &header) == PROXY_MALFORMED);
}

static void test_a_line_is_read_only_once_it_has_ended(void)
{
	static const char line[] = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
	struct proxy_header header;
	size_t len;

	for (size_t n = 0; n < sizeof(line) - 1; n++)
		assert(proxy_v1_decode((const uint8_t *)line, n, &header, &len) == PROXY_MORE);
	assert(proxy_v1_decode((const uint8_t *)line, sizeof(line) - 1, &header, &len) == 0);
}

static void test_a_line_has_107_bytes_at_most(void)
{
	char line[PROXY_V1_MAX_LEN + 2] = "PROXY UNKNOWN ";
	struct proxy_header header;

	memset(line + 14, 'a', PROXY_V1_MAX_LEN - 14);
	assert(read_1(line, &header) == PROXY_TOO_LONG);
	memcpy(line + PROXY_V1_MAX_LEN - 2, "\r\n", 3);
	assert(read_1(line, &header) == 0);
	memcpy(line + PROXY_V1_MAX_LEN - 2, "a\r\n", 3);
	assert(read_1(line, &header) == PROXY_TOO_LONG);
}

static void test_a_line_of_another_form_is_refused(void)
{
	static const char *const malformed[] = {
		"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
		"PROXY TCP4  192.0.2.1 198.51.100.1 56324 443\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 \r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 56324 0443\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 56324 +443\r\n",
		"PROXY TCP4 192.0.2.1 198.51.100.1 56324 65536\r\n",
		"PROXY TCP4 192.0.2.01 198.51.100.1 56324 443\r\n",
		"PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
		"PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
		"PROXY TCP6 192.0.2.1 198.51.100.1 56324 443\r\n",
		"PROXY TCP6 2001:db8::1%1 2001:db8::2 56324 443\r\n",
	};
	struct proxy_header header;

	for (size_t i = 0; i < sizeof(malformed) / sizeof(*malformed); i++)
		if (read_1(malformed[i], &header) != PROXY_MALFORMED) {
			printf("%s", malformed[i]);
			assert(false);
		}
	assert(read_1("PROXY UDP4 192.0.2.1 198.51.100.1 56324 443\r\n", &header) == PROXY_UNSUPPORTED);
	assert(read_1("PROXY\r\n", &header) == PROXY_NO_HEADER);
	assert(read_1("GET / HTTP/1.1\r\n", &header) == PROXY_NO_HEADER);
}

static void expect_line(const struct proxy_header *header, const char *expected)
{
	uint8_t bytes[PROXY_V1_MAX_LEN];
	const size_t n = proxy_v1_encode(header, bytes, sizeof(bytes));

	assert(n == strlen(expected) && memcmp(bytes, expected, n) == 0);
	assert(proxy_v1_encode(header, bytes, n - 1) == 0);
}

static void test_what_is_written_in_version_1_is_a_line_of_the_specification(void)
{
	struct proxy_header header = { .has_addresses = true, .source = endpoint_of("192.0.2.1:56324"),
				       .destination = endpoint_of("198.51.100.1:443") };

	expect_line(&header, "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n");
	header.source = endpoint_of("[2001:db8::1]:1");
	expect_line(&header, "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.1 1 443\r\n");
	header.has_addresses = false;
	expect_line(&header, "PROXY UNKNOWN\r\n");
}

static void test_the_longest_line_fits(void)
{
	struct proxy_header header = { .has_addresses = true };
	uint8_t bytes[PROXY_V1_MAX_LEN];

	memset(header.source.ip, 0xff, sizeof(header.source.ip));
	header.source.port = UINT16_MAX;
	header.destination = header.source;
	assert(proxy_v1_encode(&header, bytes, sizeof(bytes)) > 100);
}

int main(void)
{
	test_a_header_of_version_2_says_from_where_to_where();
	test_until_it_is_whole_there_is_more_to_come();
	test_known_values_are_read_and_others_skipped();
	test_how_many_doors_is_said_once_and_not_of_none();
	test_of_local_nothing_is_used();
	test_an_unknown_family_has_values_without_addresses();
	test_what_is_no_header_is_known_by_its_first_byte_that_differs();
	test_other_versions_commands_and_families_are_not_supported();
	test_of_datagrams_it_says_so();
	test_a_length_beyond_the_bound_is_refused_before_more_comes();
	test_what_does_not_fit_its_length_is_malformed();
	test_what_could_be_read_in_two_ways_is_malformed();
	test_a_unique_id_has_128_bytes_at_most();
	test_what_is_written_in_version_2_is_read_again();
	test_what_is_written_in_version_2_has_the_bytes_of_the_specification();
	test_more_than_is_read_is_not_written();
	test_a_line_of_version_1_says_from_where_to_where();
	test_of_unknown_nothing_is_used();
	test_a_line_is_read_only_once_it_has_ended();
	test_a_line_has_107_bytes_at_most();
	test_a_line_of_another_form_is_refused();
	test_what_is_written_in_version_1_is_a_line_of_the_specification();
	test_the_longest_line_fits();
	return 0;
}
