/*
 * An HTTP/1 request, as far as one needs it who serves a few pages: method and path, and a small body. Of what is behind
 * the first line only the end of the head and the length of the body are looked at. Total and bounded. Pure.
 */
#pragma once

#include <stddef.h>

#define HTTP_REQUEST_MAX_LEN 4096 /* of the whole head */

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_DELETE, HTTP_OTHER };

enum http_request_error {
	HTTP_REQUEST_MORE = 1, /* the head is not complete */
	HTTP_REQUEST_BAD,      /* that is no HTTP/1 */
	HTTP_REQUEST_TOO_LONG,
};

struct http_request {
	enum http_method method;
	char path[320]; /* without what follows a '?'; a longer one is cut, and so none that is served */
};

/* bytes: all that came so far. 0 or an enum http_request_error. */
int http_request_parse(const char *bytes, size_t len, struct http_request *ret);

/*
 * The body of a request whose head is whole; bytes: all that came so far, with the head. 0 with the body, which is within
 * bytes, and of no bytes if no length is said; or an enum http_request_error: HTTP_REQUEST_BAD also when it is not said
 * clearly how long it is, as with chunks; HTTP_REQUEST_TOO_LONG: of more than max bytes, as it says.
 */
int http_request_body(const char *bytes, size_t len, size_t max, const char **ret, size_t *ret_len);
