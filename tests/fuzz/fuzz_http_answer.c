/*
 * Target: http_answer_parse, http_answer_body, http_url_resolve. What is whole stays so, and the same, when more
 * follows; a body is never longer than what came; a URL that was understood is one.
 */
#include "common/http_answer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
	if (!condition)
		abort();
}

static void check_url(const char *text, size_t len)
{
	struct http_url base, url;

	expect(http_url_parse("http://192.0.2.1:5000/a/b?c", 27, &base) == 0);
	if (http_url_resolve(&base, text, len, &url) != 0)
		return;
	expect(endpoint_is_v4(&url.host) && url.host.port != 0);
	expect(url.path[0] == '/' && strlen(url.path) < sizeof(url.path) && !strpbrk(url.path, " \t\r\n#"));
}

static void check_body(const struct http_answer *answer, const char *bytes, size_t len)
{
	size_t n, n_inside, n_of_more;
	char *apart = malloc(len + 1), *inside = malloc(len + 1);

	expect(apart && inside);
	memcpy(inside, bytes, len);
	int r = http_answer_body(answer, bytes, len, true, apart, &n);
	expect(r == http_answer_body(answer, inside, len, true, inside, &n_inside));
	if (r == 0)
		expect(n == n_inside && n <= len && memcmp(apart, inside, n) == 0);
	/* One byte less: either not whole yet, or the same. */
	if (len > 0 && http_answer_body(answer, bytes, len - 1, false, inside, &n_inside) == 0)
		expect(http_answer_body(answer, bytes, len, false, NULL, &n_of_more) == 0 && n_of_more == n_inside);
	free(apart);
	free(inside);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data;
	struct http_answer answer, of_less;
	size_t n;

	check_url(bytes, size);
	int r = http_answer_parse(bytes, size, &answer);
	if (size > 0 && http_answer_parse(bytes, size - 1, &of_less) == 0)
		expect(r == 0 && of_less.head_len == answer.head_len && of_less.body_len == answer.body_len);
	if (r != 0)
		return 0;
	expect(answer.head_len <= size && answer.head_len <= HTTP_ANSWER_MAX_HEAD);
	expect(answer.status >= 100 && answer.status <= 599);
	const char *value = http_header_find(bytes, answer.head_len, "location", &n);
	if (value) {
		expect(value >= bytes && value + n <= bytes + answer.head_len);
		check_url(value, n);
	}
	check_body(&answer, bytes + answer.head_len, size - answer.head_len);
	return 0;
}
