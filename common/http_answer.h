/*
 * What a client of HTTP/1 reads: where to ask (a URL), the head of the answer, and the end of its body.
 *
 *   http://192.168.1.1:5000/desc.xml        HTTP/1.1 200 OK
 *          ╰───── host ────╯╰─ path ─╯      Content-Length: 20  ┐ one of three ways to tell
 *                                           Transfer-Encoding…  ┘ where the body ends; none: the end
 *                                                                 of the connection
 *                                           body
 *
 * For small answers that are held in memory as a whole. Hosts are IPv4 addresses: nothing is looked up.
 * Total and bounded: whatever comes is an outcome. Pure.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stddef.h>

#define HTTP_ANSWER_MAX_HEAD 8192
#define HTTP_URL_MAX_PATH    256 /* with its end */

struct http_url {
	struct endpoint host;
	char path[HTTP_URL_MAX_PATH]; /* with the query; printable, no blanks, begins with '/' */
};

/* "http://IPV4[:PORT][/PATH]", without user and fragment. 0 or -EINVAL; writes *ret only on success. */
P2P_CHECK int http_url_parse(const char *text, size_t len, struct http_url *ret);
/* text: such a URL, or a path, absolute or beside base's. Errors as above. */
P2P_CHECK int http_url_resolve(const struct http_url *base, const char *text, size_t len, struct http_url *ret);

enum http_answer_error {
	HTTP_ANSWER_MORE = 1, /* not complete yet */
	HTTP_ANSWER_BAD,      /* no HTTP/1, or not said clearly where it ends */
	HTTP_ANSWER_TOO_LONG, /* the head */
};

enum http_body { HTTP_BODY_UNTIL_CLOSE, HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED };

struct http_answer {
	unsigned status; /* 100 to 599 */
	size_t head_len; /* the body begins here */
	enum http_body body;
	size_t body_len; /* HTTP_BODY_LENGTH; of a number that is none to count with SIZE_MAX */
};

/* bytes: all that came so far. 0 or an enum http_answer_error. */
P2P_CHECK int http_answer_parse(const char *bytes, size_t len, struct http_answer *ret);

/*
 * Is the body whole? bytes: all that came so far behind the head; is_over: nothing more will come.
 * 0 or an enum http_answer_error; one that is over before its end is bad. On 0 *ret_len bytes of it are in ret,
 * which has room for len, may be bytes itself, and may be NULL for who only asks.
 */
P2P_CHECK int http_answer_body(const struct http_answer *answer, const char *bytes, size_t len, bool is_over,
			       char *ret, size_t *ret_len);

/*
 * The value of the first header of this name, whatever its case, without blanks around it; NULL: there is none.
 * head: with its first line; all of it. Borrowed from head.
 */
const char *http_header_find(const char *head, size_t len, const char *name, size_t *ret_len);
