#include "common/http_request.h"

#include "common/macros.h"

#include <stdbool.h>
#include <string.h>

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
	if (len == 3 && memcmp(bytes, "GET", 3) == 0)
		return HTTP_GET;
	if (len == 4 && memcmp(bytes, "HEAD", 4) == 0)
		return HTTP_HEAD;
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
