#include "common/http_answer.h"

#include "common/macros.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

/* ---- URLs ------------------------------------------------------------------------------------ */

#define SCHEME "http://"

static bool is_path(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~' || text[i] == '#')
			return false;
	return len < HTTP_URL_MAX_PATH;
}

static bool is_url(const char *text, size_t len)
{
	return len >= strlen(SCHEME) && strncasecmp(text, SCHEME, strlen(SCHEME)) == 0;
}

/* "192.0.2.1" or "192.0.2.1:80" */
static int parse_host(const char *text, size_t len, struct endpoint *ret)
{
	char host[sizeof("255.255.255.255:65535")];

	if (len == 0 || len >= sizeof(host) || text[0] == '[' || memchr(text, '\0', len))
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	int r = strchr(host, ':') ? endpoint_parse(host, ret) : endpoint_parse_ip(host, 80, ret);
	return r == 0 && endpoint_is_v4(ret) && ret->port != 0 ? 0 : -EINVAL;
}

int http_url_parse(const char *text, size_t len, struct http_url *ret)
{
	struct http_url url = { .path = "/" };

	if (!is_url(text, len))
		return -EINVAL;
	text += strlen(SCHEME);
	len -= strlen(SCHEME);
	const char *path = memchr(text, '/', len);
	size_t host_len = path ? (size_t)(path - text) : len;
	if (parse_host(text, host_len, &url.host) != 0)
		return -EINVAL;
	if (path) {
		if (!is_path(path, len - host_len))
			return -EINVAL;
		memcpy(url.path, path, len - host_len);
		url.path[len - host_len] = '\0';
	}
	*ret = url;
	return 0;
}

/* What stays of the base's path in front of a relative one: up to its last '/'. */
static size_t folder_len(const char *path)
{
	size_t len = strcspn(path, "?");

	while (len > 0 && path[len - 1] != '/')
		len--;
	return len;
}

int http_url_resolve(const struct http_url *base, const char *text, size_t len, struct http_url *ret)
{
	struct http_url url = *base;

	if (is_url(text, len))
		return http_url_parse(text, len, ret);
	/* "//host/path" names another host, "name:" another scheme. */
	if (len == 0 || (len > 1 && text[0] == '/' && text[1] == '/') || !is_path(text, len))
		return -EINVAL;
	const char *colon = memchr(text, ':', len);
	if (colon && !memchr(text, '/', (size_t)(colon - text)))
		return -EINVAL;
	size_t kept = text[0] == '/' ? 0 : folder_len(base->path);
	if (kept + len >= sizeof(url.path))
		return -EINVAL;
	memcpy(url.path + kept, text, len);
	url.path[kept + len] = '\0';
	*ret = url;
	return 0;
}

/* ---- the head -------------------------------------------------------------------------------- */

struct line {
	const char *at;
	size_t len;
};

/* The next line without its end; false: not a whole one. Some routers end theirs with a bare LF. */
static bool take_line(const char **at, const char *end, struct line *ret)
{
	const char *newline = memchr(*at, '\n', (size_t)(end - *at));

	if (!newline)
		return false;
	*ret = (struct line){ .at = *at, .len = (size_t)(newline - *at) };
	if (ret->len > 0 && ret->at[ret->len - 1] == '\r')
		ret->len--;
	*at = newline + 1;
	return true;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct line trim(struct line line)
{
	while (line.len > 0 && is_blank(line.at[0])) {
		line.at++;
		line.len--;
	}
	while (line.len > 0 && is_blank(line.at[line.len - 1]))
		line.len--;
	return line;
}

static bool split_header(struct line line, struct line *ret_name, struct line *ret_value)
{
	const char *colon = memchr(line.at, ':', line.len);

	if (!colon)
		return false;
	*ret_name = (struct line){ line.at, (size_t)(colon - line.at) };
	*ret_value = trim((struct line){ colon + 1, line.len - ret_name->len - 1 });
	return true;
}

static bool is_text(struct line line, const char *text)
{
	return line.len == strlen(text) && strncasecmp(line.at, text, line.len) == 0;
}

const char *http_header_find(const char *head, size_t len, const char *name, size_t *ret_len)
{
	const char *end = head + len;
	struct line line, key, value;

	if (!take_line(&head, end, &line))
		return NULL;
	while (take_line(&head, end, &line) && line.len > 0)
		if (split_header(line, &key, &value) && is_text(key, name)) {
			*ret_len = value.len;
			return value.at;
		}
	return NULL;
}

/* "HTTP/1.1 200 OK" */
static int parse_status(struct line line, unsigned *ret)
{
	unsigned status = 0;

	if (line.len < 12 || strncasecmp(line.at, "HTTP/1.", 7) != 0 || line.at[8] != ' ' ||
	    (line.len > 12 && line.at[12] != ' '))
		return HTTP_ANSWER_BAD;
	for (size_t i = 9; i < 12; i++) {
		if (line.at[i] < '0' || line.at[i] > '9')
			return HTTP_ANSWER_BAD;
		status = status * 10 + (unsigned)(line.at[i] - '0');
	}
	if (status < 100 || status > 599)
		return HTTP_ANSWER_BAD;
	*ret = status;
	return 0;
}

static int digit(char c, unsigned base)
{
	int value = c >= '0' && c <= '9' ? c - '0' :
		    c >= 'a' && c <= 'f' ? c - 'a' + 10 :
		    c >= 'A' && c <= 'F' ? c - 'A' + 10 :
					   -1;

	return value < (int)base ? value : -1;
}

/* The digits at the beginning; how many. What is too large for a size_t is SIZE_MAX. */
static size_t parse_number(struct line line, unsigned base, size_t *ret)
{
	size_t n = 0, value = 0;

	for (; n < line.len && digit(line.at[n], base) >= 0; n++) {
		size_t unit = (size_t)digit(line.at[n], base);
		value = value > (SIZE_MAX - unit) / base ? SIZE_MAX : value * base + unit;
	}
	*ret = value;
	return n;
}

static int take_framing(struct line name, struct line value, struct http_answer *answer)
{
	size_t len;

	if (is_text(name, "transfer-encoding")) {
		if (!is_text(value, "chunked"))
			return HTTP_ANSWER_BAD;
		answer->body = HTTP_BODY_CHUNKED; /* goes before a length */
	} else if (is_text(name, "content-length")) {
		if (value.len == 0 || parse_number(value, 10, &len) != value.len)
			return HTTP_ANSWER_BAD;
		if (answer->body == HTTP_BODY_LENGTH && len != answer->body_len)
			return HTTP_ANSWER_BAD;
		if (answer->body == HTTP_BODY_UNTIL_CLOSE)
			answer->body = HTTP_BODY_LENGTH;
		answer->body_len = len;
	}
	return 0;
}

static int parse_head(const char *bytes, size_t len, struct http_answer *ret)
{
	const char *at = bytes, *end = bytes + len;
	struct line line, name, value;

	if (!take_line(&at, end, &line))
		return HTTP_ANSWER_MORE;
	int r = parse_status(line, &ret->status);
	while (r == 0) {
		if (!take_line(&at, end, &line))
			return HTTP_ANSWER_MORE;
		if (line.len == 0)
			break;
		if (split_header(line, &name, &value))
			r = take_framing(name, value, ret);
	}
	ret->head_len = (size_t)(at - bytes);
	return r;
}

int http_answer_parse(const char *bytes, size_t len, struct http_answer *ret)
{
	size_t n = len < HTTP_ANSWER_MAX_HEAD ? len : HTTP_ANSWER_MAX_HEAD;

	*ret = (struct http_answer){ .body = HTTP_BODY_UNTIL_CLOSE };
	int r = parse_head(bytes, n, ret);
	return r == HTTP_ANSWER_MORE && n == HTTP_ANSWER_MAX_HEAD ? HTTP_ANSWER_TOO_LONG : r;
}

/* ---- the body -------------------------------------------------------------------------------- */

static void put(char *ret, size_t *ret_len, const char *bytes, size_t len)
{
	if (ret)
		memmove(ret + *ret_len, bytes, len);
	*ret_len += len;
}

/* "1a;name=value": 0 and its size, or an enum http_answer_error. */
static int take_chunk_size(const char **at, const char *end, size_t *ret)
{
	struct line line;

	if (!take_line(at, end, &line))
		return HTTP_ANSWER_MORE;
	line = trim(line);
	size_t n = parse_number(line, 16, ret);
	if (n == 0 || (n < line.len && line.at[n] != ';' && !is_blank(line.at[n])))
		return HTTP_ANSWER_BAD;
	return 0;
}

static int take_chunks(const char *at, const char *end, char *ret, size_t *ret_len)
{
	struct line line;

	for (;;) {
		size_t size;
		int r = take_chunk_size(&at, end, &size);
		if (r != 0)
			return r;
		if (size == 0)
			break;
		if (size > (size_t)(end - at))
			return HTTP_ANSWER_MORE;
		put(ret, ret_len, at, size);
		at += size;
		if (!take_line(&at, end, &line))
			return HTTP_ANSWER_MORE;
		if (line.len != 0)
			return HTTP_ANSWER_BAD;
	}
	/* Headers may follow. Nobody asks for them. */
	do {
		if (!take_line(&at, end, &line))
			return HTTP_ANSWER_MORE;
	} while (line.len > 0);
	return 0;
}

int http_answer_body(const struct http_answer *answer, const char *bytes, size_t len, bool is_over, char *ret,
		     size_t *ret_len)
{
	int r = HTTP_ANSWER_MORE;

	*ret_len = 0;
	switch (answer->body) {
	case HTTP_BODY_UNTIL_CLOSE:
		if (!is_over)
			return HTTP_ANSWER_MORE;
		put(ret, ret_len, bytes, len);
		return 0;
	case HTTP_BODY_LENGTH:
		if (len >= answer->body_len) {
			put(ret, ret_len, bytes, answer->body_len);
			return 0;
		}
		break;
	case HTTP_BODY_CHUNKED:
		r = take_chunks(bytes, bytes + len, ret, ret_len);
		break;
	}
	return r == HTTP_ANSWER_MORE && is_over ? HTTP_ANSWER_BAD : r;
}
