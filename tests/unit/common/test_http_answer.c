/* What a client of HTTP reads: URLs that name IPv4 addresses, heads, and where a body ends. */
#include "common/http_answer.h"

#include "common/macros.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* ---- URLs ------------------------------------------------------------------------------------ */

static void expect_url(const struct http_url *url, const char *host, const char *path)
{
	assert(strcmp(endpoint_text(&url->host).s, host) == 0);
	assert(strcmp(url->path, path) == 0);
}

static void test_a_url_names_an_address_a_port_and_a_path(void)
{
	static const struct {
		const char *text, *host, *path;
	} urls[] = {
		{ "http://192.0.2.1", "192.0.2.1:80", "/" },
		{ "http://192.0.2.1/", "192.0.2.1:80", "/" },
		{ "HTTP://192.0.2.1:5000/a/b?c=d", "192.0.2.1:5000", "/a/b?c=d" },
		{ "http://192.0.2.1//x", "192.0.2.1:80", "//x" },
	};
	struct http_url url;

	for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
		assert(http_url_parse(urls[i].text, strlen(urls[i].text), &url) == 0);
		expect_url(&url, urls[i].host, urls[i].path);
	}
}

static void test_what_is_no_such_url_is_refused(void)
{
	static const char *const bad[] = {
		"",
		"http://",
		"http:///",
		"https://192.0.2.1/",
		"ftp://192.0.2.1/",
		"http://router.local/",
		"http://user@192.0.2.1/",
		"http://[2001:db8::1]/",
		"http://[::ffff:192.0.2.1]:80/",
		"http://192.0.2.1:0/",
		"http://192.0.2.1:65536/",
		"http://192.0.2.1:/",
		"http://192.0.2.256/",
		"http://192.0.2.1?x",
		"http://192.0.2.1/a b",
		"http://192.0.2.1/a\r\nHost: x",
		"http://192.0.2.1/\x7f",
		"http://192.0.2.1/a#b",
		"http://0000000000000000000000000000192.0.2.1/",
	};
	struct http_url url;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert(http_url_parse(bad[i], strlen(bad[i]), &url) == -EINVAL);
	assert(http_url_parse("http://192.0.2.1\0/", 18, &url) == -EINVAL);
}

static void test_a_path_that_does_not_fit_is_refused_and_not_cut(void)
{
	char text[512] = "http://192.0.2.1";
	const size_t host = strlen(text);
	struct http_url url;

	text[host] = '/';
	memset(text + host + 1, 'a', sizeof(text) - host - 1);
	assert(http_url_parse(text, host + HTTP_URL_MAX_PATH - 1, &url) == 0);
	assert(strlen(url.path) == HTTP_URL_MAX_PATH - 1);
	assert(http_url_parse(text, host + HTTP_URL_MAX_PATH, &url) == -EINVAL);
	assert(http_url_resolve(&url, "x", 1, &url) == 0);
	assert(http_url_resolve(&url, text + host + 1, HTTP_URL_MAX_PATH - 1, &url) == -EINVAL);
}

static void test_what_is_relative_is_beside_the_base(void)
{
	static const struct {
		const char *base, *text, *host, *path;
	} urls[] = {
		{ "http://192.0.2.1:5000/a/desc.xml", "/ctl", "192.0.2.1:5000", "/ctl" },
		{ "http://192.0.2.1:5000/a/desc.xml", "ctl/ip", "192.0.2.1:5000", "/a/ctl/ip" },
		{ "http://192.0.2.1:5000/desc?x=/y/z", "ctl", "192.0.2.1:5000", "/ctl" },
		{ "http://192.0.2.1:5000", "ctl/a:b", "192.0.2.1:5000", "/ctl/a:b" },
		{ "http://192.0.2.1:5000/a", "http://192.0.2.2/b", "192.0.2.2:80", "/b" },
	};
	struct http_url base, url;

	for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
		assert(http_url_parse(urls[i].base, strlen(urls[i].base), &base) == 0);
		assert(http_url_resolve(&base, urls[i].text, strlen(urls[i].text), &url) == 0);
		expect_url(&url, urls[i].host, urls[i].path);
	}
}

static void test_another_host_or_scheme_is_not_taken_for_a_path(void)
{
	static const char *const bad[] = { "", "//198.51.100.1/x", "https://192.0.2.1/x", "javascript:x", "a b", "a\n" };
	struct http_url base, url;

	assert(http_url_parse("http://192.0.2.1/", 17, &base) == 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert(http_url_resolve(&base, bad[i], strlen(bad[i]), &url) == -EINVAL);
}

/* ---- heads ----------------------------------------------------------------------------------- */

static int parse(const char *text, struct http_answer *ret)
{
	return http_answer_parse(text, strlen(text), ret);
}

static void test_a_head_is_taken_once_it_is_whole(void)
{
	static const char text[] = "HTTP/1.1 404 Not Found\r\nContent-length:  12 \r\nX: y\r\n\r\n";
	struct http_answer answer;

	for (size_t len = 0; len < strlen(text); len++)
		assert(http_answer_parse(text, len, &answer) == HTTP_ANSWER_MORE);
	assert(parse(text, &answer) == 0);
	assert(answer.status == 404 && answer.head_len == strlen(text));
	assert(answer.body == HTTP_BODY_LENGTH && answer.body_len == 12);
	assert(parse("HTTP/1.0 200\n\n", &answer) == 0 && answer.status == 200 && answer.body == HTTP_BODY_UNTIL_CLOSE);
}

static void test_what_is_no_answer_is_bad(void)
{
	static const char *const bad[] = {
		"\r\n",
		"GET / HTTP/1.1\r\n",
		"HTTP/2.0 200 OK\r\n",
		"HTTP/1.1 20 OK\r\n",
		"HTTP/1.1 2000 OK\r\n",
		"HTTP/1.1 099 OK\r\n",
		"HTTP/1.1 600 OK\r\n",
		"HTTP/1.1 -20 OK\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
	};
	struct http_answer answer;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert(parse(bad[i], &answer) == HTTP_ANSWER_BAD);
}

static void test_a_head_without_an_end_is_too_long_at_its_bound(void)
{
	static char text[HTTP_ANSWER_MAX_HEAD + 16] = "HTTP/1.1 200 OK\r\n";
	struct http_answer answer;

	memset(text + 17, 'a', sizeof(text) - 17);
	assert(http_answer_parse(text, HTTP_ANSWER_MAX_HEAD - 1, &answer) == HTTP_ANSWER_MORE);
	assert(http_answer_parse(text, HTTP_ANSWER_MAX_HEAD, &answer) == HTTP_ANSWER_TOO_LONG);
	memcpy(text + HTTP_ANSWER_MAX_HEAD - 3, "\r\n\r\n", 4);
	assert(http_answer_parse(text, sizeof(text), &answer) == HTTP_ANSWER_TOO_LONG);
	memcpy(text + HTTP_ANSWER_MAX_HEAD - 4, "\r\n\r\n", 4);
	assert(http_answer_parse(text, sizeof(text), &answer) == 0 && answer.head_len == HTTP_ANSWER_MAX_HEAD);
}

static void test_a_header_is_found_whatever_its_case(void)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nLocation :x\r\nLOCATION:\t http://a/ \r\nlocation: b\r\n\r\nST: no\r\n";
	size_t len;
	const char *value = http_header_find(head, strlen(head), "Location", &len);

	assert(value && len == 9 && memcmp(value, "http://a/", 9) == 0);
	assert(!http_header_find(head, strlen(head), "ST", &len));
	assert(!http_header_find(head, strlen(head), "HTTP/1.1 200 OK", &len));
	assert(!http_header_find(head, 10, "Location", &len));
}

/* ---- bodies ---------------------------------------------------------------------------------- */

/* The answer's body is `body`, and not whole before its last byte is there. */
static void expect_body(const char *text, const char *body)
{
	struct http_answer answer;
	char ret[256];
	size_t len;

	assert(parse(text, &answer) == 0);
	const char *bytes = text + answer.head_len;
	const size_t whole = strlen(bytes);
	const bool until_close = answer.body == HTTP_BODY_UNTIL_CLOSE;
	for (size_t n = 0; n < whole; n++) {
		assert(http_answer_body(&answer, bytes, n, false, NULL, &len) == HTTP_ANSWER_MORE);
		if (!until_close)
			assert(http_answer_body(&answer, bytes, n, true, NULL, &len) == HTTP_ANSWER_BAD);
	}
	assert(http_answer_body(&answer, bytes, whole, until_close, ret, &len) == 0);
	assert(len == strlen(body) && memcmp(ret, body, len) == 0);
	memcpy(ret, bytes, whole);
	assert(http_answer_body(&answer, ret, whole, true, ret, &len) == 0);
	assert(len == strlen(body) && memcmp(ret, body, len) == 0);
}

static void test_a_body_ends_in_one_of_three_ways(void)
{
	expect_body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello");
	expect_body("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "");
	expect_body("HTTP/1.1 200 OK\r\n\r\nhello", "hello");
	expect_body("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\nB;x=y\r\n, you there\r\n0\r\n\r\n",
		    "hello, you there");
	expect_body("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n005 \r\nhello\r\n0\r\nA: b\r\n\r\n",
		    "hello");
}

static void test_chunks_that_are_none_are_bad(void)
{
	static const char *const bad[] = { "\r\n", "x\r\n", "-1\r\n", "5x\r\n", "1\r\nab\r\n", " \r\n", "0x1\r\na\r\n" };
	const struct http_answer answer = { .body = HTTP_BODY_CHUNKED };
	size_t len;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert(http_answer_body(&answer, bad[i], strlen(bad[i]), false, NULL, &len) == HTTP_ANSWER_BAD);
}

static void test_a_length_beyond_all_counting_is_a_large_one(void)
{
	struct http_answer answer;
	size_t len;

	assert(parse("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n", &answer) == 0);
	assert(answer.body_len == SIZE_MAX);
	assert(http_answer_body(&answer, "ab", 2, false, NULL, &len) == HTTP_ANSWER_MORE);
	answer.body = HTTP_BODY_CHUNKED;
	assert(http_answer_body(&answer, "10000000000000000\r\nab", 21, false, NULL, &len) == HTTP_ANSWER_MORE);
}

int main(void)
{
	test_a_url_names_an_address_a_port_and_a_path();
	test_what_is_no_such_url_is_refused();
	test_a_path_that_does_not_fit_is_refused_and_not_cut();
	test_what_is_relative_is_beside_the_base();
	test_another_host_or_scheme_is_not_taken_for_a_path();
	test_a_head_is_taken_once_it_is_whole();
	test_what_is_no_answer_is_bad();
	test_a_head_without_an_end_is_too_long_at_its_bound();
	test_a_header_is_found_whatever_its_case();
	test_a_body_ends_in_one_of_three_ways();
	test_chunks_that_are_none_are_bad();
	test_a_length_beyond_all_counting_is_a_large_one();
	puts("ok");
	return 0;
}
