#include "common/http_request.h"

#include "common/macros.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

static const char *find(const char *bytes, size_t len, const char *what)
{
	return memmem(bytes, len, what, strlen(what));
}

static bool is_printable(const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i] <= ' ' || bytes[i] > '~')
			return false;
	return len > 0;
}

static enum http_method method_of(const char *bytes, size_t len)
{
	static const char *const names[] = { [HTTP_GET] = "GET", [HTTP_HEAD] = "HEAD", [HTTP_POST] = "POST",
					     [HTTP_DELETE] = "DELETE" };

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strlen(names[i]) == len && memcmp(bytes, names[i], len) == 0)
			return (enum http_method)i;
	return HTTP_OTHER;
}

/* "GET /path?query HTTP/1.1" */
static int parse_line(const char *line, size_t len, struct http_request *ret)
{
	const char *end = line + len, *path = memchr(line, ' ', len);
	const char *version = path ? memchr(path + 1, ' ', (size_t)(end - path - 1)) : NULL;

	if (!version || end - version != 9 || memcmp(version, " HTTP/1.", 8) != 0)
		return HTTP_REQUEST_BAD;
	if (!is_printable(line, (size_t)(path - line)) || !is_printable(path + 1, (size_t)(version - path - 1)))
		return HTTP_REQUEST_BAD;
	ret->method = method_of(line, (size_t)(path - line));
	path++;
	const char *query = memchr(path, '?', (size_t)(version - path));
	size_t n = (size_t)((query ? query : version) - path);
	if (n >= sizeof(ret->path))
		n = sizeof(ret->path) - 1;
	memcpy(ret->path, path, n);
	ret->path[n] = '\0';
	return 0;
}

int http_request_parse(const char *bytes, size_t len, struct http_request *ret)
{
	const char *line_end = find(bytes, len, "\r\n");

	*ret = (struct http_request){ .method = HTTP_OTHER };
	if (memchr(bytes, '\0', len))
		return HTTP_REQUEST_BAD;
	if (!line_end)
		return len < HTTP_REQUEST_MAX_LEN ? HTTP_REQUEST_MORE : HTTP_REQUEST_TOO_LONG;
	int r = parse_line(bytes, (size_t)(line_end - bytes), ret);
	if (r != 0)
		return r;
	if (find(line_end, len - (size_t)(line_end - bytes), "\r\n\r\n"))
		return 0;
	return len < HTTP_REQUEST_MAX_LEN ? HTTP_REQUEST_MORE : HTTP_REQUEST_TOO_LONG;
}

/* ---- the body ---- */

/* Is it the header of this name? Then what stands behind the colon, without blanks around it. */
static bool take_header(const char *line, size_t len, const char *name, const char **ret, size_t *ret_len)
{
	const size_t n = strlen(name);

	if (len <= n || line[n] != ':' || strncasecmp(line, name, n) != 0)
		return false;
	line += n + 1;
	len -= n + 1;
	for (; len > 0 && (*line == ' ' || *line == '\t'); len--)
		line++;
	while (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\t'))
		len--;
	*ret = line;
	*ret_len = len;
	return true;
}

/* Digits alone. What is too large to count is SIZE_MAX. */
static bool read_length(const char *text, size_t len, size_t *ret)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		n = n < SIZE_MAX / 10 - 9 ? n * 10 + (size_t)(text[i] - '0') : SIZE_MAX;
	}
	*ret = n;
	return len > 0;
}

/* 0 or HTTP_REQUEST_BAD. head: with the empty line at its end. */
static int find_length(const char *head, const char *end, size_t *ret)
{
	const char *value, *line_end;
	bool is_said = false;
	size_t n;

	*ret = 0;
	for (const char *line = head; line < end; line = line_end + 2) {
		line_end = find(line, (size_t)(end - line), "\r\n");
		if (!line_end)
			break;
		const size_t len = (size_t)(line_end - line);
		if (take_header(line, len, "Transfer-Encoding", &value, &n))
			return HTTP_REQUEST_BAD;
		if (!take_header(line, len, "Content-Length", &value, &n))
			continue;
		if (is_said || !read_length(value, n, ret))
			return HTTP_REQUEST_BAD;
		is_said = true;
	}
	return 0;
}

int http_request_body(const char *bytes, size_t len, size_t max, const char **ret, size_t *ret_len)
{
	const char *end = find(bytes, len, "\r\n\r\n");

	if (!end)
		return HTTP_REQUEST_MORE;
	end += strlen("\r\n\r\n");
	const int r = find_length(bytes, end, ret_len);
	if (r != 0)
		return r;
	if (*ret_len > max)
		return HTTP_REQUEST_TOO_LONG;
	if (len - (size_t)(end - bytes) < *ret_len)
		return HTTP_REQUEST_MORE;
	*ret = end;
	return 0;
}
