/* The head of an HTTP request: method and path of the first line, and where the head ends. */
#include "common/http_request.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static int parse(const char *text, struct http_request *ret)
{
	return http_request_parse(text, strlen(text), ret);
}

static void expect(const char *text, enum http_method method, const char *path)
{
	struct http_request request;

	assert(parse(text, &request) == 0);
	assert(request.method == method && strcmp(request.path, path) == 0);
	for (size_t len = 0; len < strlen(text); len++)
		assert(http_request_parse(text, len, &request) == HTTP_REQUEST_MORE);
}

static void test_method_and_path_are_taken_once_the_head_is_whole(void)
{
	expect("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", HTTP_GET, "/metrics");
	expect("HEAD /healthz HTTP/1.0\r\n\r\n", HTTP_HEAD, "/healthz");
	expect("GET /metrics?name=x HTTP/1.1\r\n\r\n", HTTP_GET, "/metrics");
	expect("POST /metrics HTTP/1.1\r\n\r\n", HTTP_POST, "/metrics");
	expect("DELETE /metrics HTTP/1.1\r\n\r\n", HTTP_DELETE, "/metrics");
	expect("get /metrics HTTP/1.1\r\n\r\n", HTTP_OTHER, "/metrics");
}

static void test_what_is_no_http_is_bad(void)
{
	static const char *const bad[] = { "GET\r\n",		  "GET /\r\n",		   "GET / HTTP/2.0\r\n",
					   "GET / / HTTP/1.1\r\n", " / HTTP/1.1\r\n",	   "GET  HTTP/1.1\r\n",
					   "\r\n\r\n",		  "G\x7fT / HTTP/1.1\r\n", "GET /\xc3 HTTP/1.1\r\n" };
	struct http_request request;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert(parse(bad[i], &request) == HTTP_REQUEST_BAD);
	assert(http_request_parse("GET /\0 HTTP/1.1\r\n\r\n", 20, &request) == HTTP_REQUEST_BAD);
}

static void test_a_head_that_is_too_long_is_refused_and_a_long_path_cut(void)
{
	char text[HTTP_REQUEST_MAX_LEN + 1], line[512] = "GET /", *at = line + 5;
	struct http_request request;

	memset(text, 'a', sizeof(text));
	assert(http_request_parse(text, HTTP_REQUEST_MAX_LEN - 1, &request) == HTTP_REQUEST_MORE);
	assert(http_request_parse(text, HTTP_REQUEST_MAX_LEN, &request) == HTTP_REQUEST_TOO_LONG);
	memcpy(text, "GET / HTTP/1.1\r\n", 16);
	assert(http_request_parse(text, HTTP_REQUEST_MAX_LEN, &request) == HTTP_REQUEST_TOO_LONG);
	memset(at, 'b', 400);
	strcpy(at + 400, " HTTP/1.1\r\n\r\n");
	assert(parse(line, &request) == 0 && strlen(request.path) == sizeof(request.path) - 1);
}

#define POST "POST / HTTP/1.1\r\n"

static int body_of(const char *text, const char **ret, size_t *ret_len)
{
	return http_request_body(text, strlen(text), 10, ret, ret_len);
}

static void test_a_body_is_as_long_as_the_head_says(void)
{
	static const char text[] = POST "host: x\r\ncontent-LENGTH: \t 5 \r\n\r\nhello, and more";
	const char *body;
	size_t len;

	assert(body_of(text, &body, &len) == 0 && len == 5 && memcmp(body, "hello", 5) == 0);
	for (size_t n = 0; n < strlen(text) - strlen(", and more"); n++)
		assert(http_request_body(text, n, 10, &body, &len) == HTTP_REQUEST_MORE);
	assert(body_of(POST "\r\nhello", &body, &len) == 0 && len == 0);
	assert(body_of(POST "X-Content-Length: 5\r\n\r\nhello", &body, &len) == 0 && len == 0);
	assert(body_of(POST "Content-Length: 10\r\n\r\n0123456789", &body, &len) == 0 && len == 10);
	assert(body_of(POST "Content-Length: 11\r\n\r\n", &body, &len) == HTTP_REQUEST_TOO_LONG);
	assert(body_of(POST "Content-Length: 99999999999999999999999999\r\n\r\n", &body, &len) == HTTP_REQUEST_TOO_LONG);
}

static void test_a_body_whose_length_is_not_clear_is_bad(void)
{
	static const char *const bad[] = { "Content-Length: \r\n", "Content-Length: -1\r\n", "Content-Length: +1\r\n",
					   "Content-Length: 0x1\r\n", "Content-Length: 1 1\r\n", "Content-Length: 1,1\r\n",
					   "Content-Length: 1\r\nContent-Length: 1\r\n",
					   "Transfer-Encoding: chunked\r\n",
					   "Content-Length: 1\r\ntransfer-encoding: chunked\r\n" };
	char text[256];
	const char *body;
	size_t len;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(text, sizeof(text), POST "%s\r\nabc", bad[i]);
		assert(body_of(text, &body, &len) == HTTP_REQUEST_BAD);
	}
}

int main(void)
{
	test_method_and_path_are_taken_once_the_head_is_whole();
	test_what_is_no_http_is_bad();
	test_a_head_that_is_too_long_is_refused_and_a_long_path_cut();
	test_a_body_is_as_long_as_the_head_says();
	test_a_body_whose_length_is_not_clear_is_bad();
	puts("ok");
	return 0;
}
