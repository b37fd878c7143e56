#include "relay/frontdoor/host_name.h"

#include <string.h>

#define LABEL_MAX_LEN 63

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_name_character(char c)
{
	return (c >= 'a' && c <= 'z') || is_digit(c) || c == '-' || c == '_';
}

/* What inet_aton() and browsers read as the end of an address: a decimal number, or "0x" and hexadecimal digits. */
static bool is_number(const char *label, size_t len)
{
	bool is_hex = len >= 2 && label[0] == '0' && label[1] == 'x';

	for (size_t i = is_hex ? 2 : 0; i < len; i++)
		if (!is_digit(label[i]) && !(is_hex && label[i] >= 'a' && label[i] <= 'f'))
			return false;
	return true;
}

static int check_label(const char *label, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!is_name_character(label[i]))
			return HOST_NAME_CHARACTER;
	if (len == 0 || len > LABEL_MAX_LEN || label[0] == '-' || label[len - 1] == '-')
		return HOST_NAME_LABEL;
	return 0;
}

/* Lower case and without the last dot. */
static int check_labels(const char *text, size_t len)
{
	size_t start = 0;

	for (;;) {
		const char *dot = memchr(text + start, '.', len - start);
		size_t end = dot ? (size_t)(dot - text) : len;
		int r = check_label(text + start, end - start);
		if (r != 0)
			return r;
		if (!dot)
			return is_number(text + start, end - start) ? HOST_NAME_ADDRESS : 0;
		start = end + 1;
	}
}

/* "[::1]", and "::1" where no port can follow. */
static bool is_ip6(const char *text, size_t len)
{
	const char *colon = memchr(text, ':', len);

	if (text[0] == '[')
		return true;
	return colon && memchr(colon + 1, ':', len - (size_t)(colon + 1 - text));
}

int host_name_from(const char *text, size_t len, struct host_name *ret)
{
	struct host_name name = { 0 };

	if (len == 0)
		return HOST_NAME_EMPTY;
	if (is_ip6(text, len))
		return HOST_NAME_ADDRESS;
	if (text[len - 1] == '.')
		len--;
	if (len > HOST_NAME_MAX_LEN)
		return HOST_NAME_TOO_LONG;
	for (size_t i = 0; i < len; i++)
		name.text[i] = lower(text[i]);
	name.len = (uint8_t)len;
	int r = check_labels(name.text, len);
	if (r == 0)
		*ret = name;
	return r;
}

/* Digits, as many as a port has, or none (RFC 3986 allows "host:"). */
static bool is_port(const char *text, size_t len)
{
	uint32_t port = 0;

	if (len > 5)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!is_digit(text[i]))
			return false;
		port = port * 10 + (uint32_t)(text[i] - '0');
	}
	return port <= UINT16_MAX;
}

int host_name_from_authority(const char *text, size_t len, struct host_name *ret)
{
	const char *colon = len > 0 && text[0] != '[' ? memchr(text, ':', len) : NULL;
	size_t name_len = colon ? (size_t)(colon - text) : len;

	if (colon && !is_port(colon + 1, len - name_len - 1))
		return HOST_NAME_PORT;
	return host_name_from(text, name_len, ret);
}

int host_pattern_from(const char *text, size_t len, struct host_pattern *ret)
{
	struct host_pattern pattern = { .is_wildcard = len >= 2 && text[0] == '*' && text[1] == '.' };
	size_t skipped = pattern.is_wildcard ? 2 : 0;

	int r = host_name_from(text + skipped, len - skipped, &pattern.name);
	if (r != 0)
		return r;
	/* No name that it could stand for would be short enough. */
	if (pattern.is_wildcard && pattern.name.len > HOST_PATTERN_MAX_WILDCARD_LEN)
		return HOST_NAME_TOO_LONG;
	*ret = pattern;
	return 0;
}

bool host_name_equal(const struct host_name *a, const struct host_name *b)
{
	return a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
}

bool host_pattern_matches(const struct host_pattern *pattern, const struct host_name *name)
{
	if (!pattern->is_wildcard)
		return host_name_equal(&pattern->name, name);
	const char *dot = memchr(name->text, '.', name->len);
	if (!dot)
		return false;
	size_t rest = name->len - (size_t)(dot + 1 - name->text);
	return rest == pattern->name.len && memcmp(dot + 1, pattern->name.text, rest) == 0;
}

const char *host_name_error_text(int error)
{
	static const char *const texts[] = {
		[HOST_NAME_EMPTY] = "empty",
		[HOST_NAME_TOO_LONG] = "longer than 253 characters",
		[HOST_NAME_CHARACTER] = "a character that no host name has",
		[HOST_NAME_LABEL] = "a part that is empty, longer than 63 characters, or has a hyphen at an end",
		[HOST_NAME_ADDRESS] = "an IP address, not a name",
		[HOST_NAME_PORT] = "no port behind the colon",
	};

	if (error <= 0 || (size_t)error >= ARRAY_LEN(texts))
		return "no error";
	return texts[error];
}
