#include "common/prefix.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct prefix_text address4_text(struct in_addr address)
{
	struct prefix_text text = { "" };

	inet_ntop(AF_INET, &address, text.s, sizeof(text.s));
	return text;
}

struct prefix_text address6_text(const struct in6_addr *address)
{
	struct prefix_text text = { "" };

	inet_ntop(AF_INET6, address, text.s, sizeof(text.s));
	return text;
}

static struct prefix_text with_len(struct prefix_text text, uint8_t len)
{
	size_t used = strlen(text.s);

	snprintf(text.s + used, sizeof(text.s) - used, "/%u", len);
	return text;
}

struct prefix_text prefix4_text(struct in_addr prefix, uint8_t len)
{
	return with_len(address4_text(prefix), len);
}

struct prefix_text prefix6_text(const struct in6_addr *prefix, uint8_t len)
{
	return with_len(address6_text(prefix), len);
}

static bool parse_len(const char *text, unsigned max, uint8_t *ret)
{
	unsigned value = 0;

	if (*text == '\0' || strlen(text) > 3 || (text[0] == '0' && text[1] != '\0'))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned)(*text - '0');
	}
	*ret = (uint8_t)value;
	return value <= max;
}

static bool has_bits_behind(const uint8_t *bytes, unsigned n_bytes, unsigned len)
{
	for (unsigned bit = len; bit < n_bytes * 8; bit++)
		if (bytes[bit / 8] & (0x80 >> bit % 8))
			return true;
	return false;
}

static int parse_prefix(int family, const char *text, uint8_t *bytes, unsigned n_bytes,
			uint8_t *ret_len)
{
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');

	if (!slash || (size_t)(slash - text) >= sizeof(address))
		return -EINVAL;
	memcpy(address, text, (size_t)(slash - text));
	address[slash - text] = '\0';
	if (inet_pton(family, address, bytes) != 1 || !parse_len(slash + 1, n_bytes * 8, ret_len) ||
	    has_bits_behind(bytes, n_bytes, *ret_len))
		return -EINVAL;
	return 0;
}

int prefix4_parse(const char *text, struct in_addr *ret, uint8_t *ret_len)
{
	uint8_t bytes[4], len;
	int r = parse_prefix(AF_INET, text, bytes, sizeof(bytes), &len);

	if (r != 0)
		return r;
	memcpy(&ret->s_addr, bytes, sizeof(bytes));
	*ret_len = len;
	return 0;
}

int prefix6_parse(const char *text, struct in6_addr *ret, uint8_t *ret_len)
{
	uint8_t bytes[16], len;
	int r = parse_prefix(AF_INET6, text, bytes, sizeof(bytes), &len);

	if (r != 0)
		return r;
	memcpy(ret->s6_addr, bytes, sizeof(bytes));
	*ret_len = len;
	return 0;
}

int json_get_address4(const struct json *object, const char *key, struct in_addr *ret,
		      struct error *reterr)
{
	const char *text;
	int r = json_get_string(object, key, &text, reterr);

	if (r == 0 && inet_pton(AF_INET, text, ret) != 1)
		r = error_set(reterr, -EINVAL, "member '%s': must be an IPv4 address", key);
	return r;
}

int json_get_address6(const struct json *object, const char *key, struct in6_addr *ret,
		      struct error *reterr)
{
	const char *text;
	int r = json_get_string(object, key, &text, reterr);

	if (r == 0 && inet_pton(AF_INET6, text, ret) != 1)
		r = error_set(reterr, -EINVAL, "member '%s': must be an IPv6 address", key);
	return r;
}

int json_get_prefix4(const struct json *object, const char *key, struct in_addr *ret,
		     uint8_t *ret_len, struct error *reterr)
{
	const char *text;
	int r = json_get_string(object, key, &text, reterr);

	if (r == 0 && prefix4_parse(text, ret, ret_len) != 0)
		r = error_set(reterr, -EINVAL,
			      "member '%s': must be an IPv4 prefix such as 10.77.0.0/16", key);
	return r;
}

int json_get_prefix6(const struct json *object, const char *key, struct in6_addr *ret,
		     uint8_t *ret_len, struct error *reterr)
{
	const char *text;
	int r = json_get_string(object, key, &text, reterr);

	if (r == 0 && prefix6_parse(text, ret, ret_len) != 0)
		r = error_set(reterr, -EINVAL,
			      "member '%s': must be an IPv6 prefix such as fd12::/64", key);
	return r;
}
