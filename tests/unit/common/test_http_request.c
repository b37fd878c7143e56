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
	expect("POST /metrics HTTP/1.1\r\n\r\n", HTTP_OTHER, "/metrics");
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
	char text[HTTP_REQUEST_MAX_LEN + 1], line[256] = "GET /", *at = line + 5;
	struct http_request request;

	memset(text, 'a', sizeof(text));
	assert(http_request_parse(text, HTTP_REQUEST_MAX_LEN - 1, &request) == HTTP_REQUEST_MORE);
	assert(http_request_parse(text, HTTP_REQUEST_MAX_LEN, &request) == HTTP_REQUEST_TOO_LONG);
	memcpy(text, "GET / HTTP/1.1\r\n", 16);
	assert(http_request_parse(text, HTTP_REQUEST_MAX_LEN, &request) == HTTP_REQUEST_TOO_LONG);
	memset(at, 'b', 200);
	strcpy(at + 200, " HTTP/1.1\r\n\r\n");
	assert(parse(line, &request) == 0 && strlen(request.path) == sizeof(request.path) - 1);
}

int main(void)
{
	test_method_and_path_are_taken_once_the_head_is_whole();
	test_what_is_no_http_is_bad();
	test_a_head_that_is_too_long_is_refused_and_a_long_path_cut();
	puts("ok");
	return 0;
}
