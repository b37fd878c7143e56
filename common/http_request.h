/*
 * The head of an HTTP/1 request, as far as one needs it who serves a few pages: method and path. Everything behind
 * the first line is looked at only for its end. Total and bounded. Pure.
 */
#pragma once

#include <stddef.h>

#define HTTP_REQUEST_MAX_LEN 4096 /* of the whole head */

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_OTHER };

enum http_request_error {
	HTTP_REQUEST_MORE = 1, /* the head is not complete */
	HTTP_REQUEST_BAD,      /* that is no HTTP/1 */
	HTTP_REQUEST_TOO_LONG,
};

struct http_request {
	enum http_method method;
	char path[64]; /* without what follows a '?'; a longer one is cut, and so none that is served */
};

/* bytes: all that came so far. 0 or an enum http_request_error. */
int http_request_parse(const char *bytes, size_t len, struct http_request *ret);
