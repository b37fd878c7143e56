#include "node/status_values.h"

#include "node/status.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

void status_put_text(struct json *object, const char *key, const char *text)
{
	json_put(object, key, text[0] != '\0' ? json_string(text) : json_null());
}

int status_get_text(const struct json *object, const char *key, char *ret, size_t cap,
		    struct error *reterr)
{
	const char *text;
	int r = json_get_string_or(object, key, "", &text, reterr);

	if (r != 0)
		return r;
	if (strlen(text) >= cap)
		return error_set(reterr, -EINVAL, "member '%s': longer than %zu bytes", key,
				 cap - 1);
	memcpy(ret, text, strlen(text) + 1);
	return 0;
}

void status_put_known(struct json *object, const char *key, int64_t value)
{
	json_put(object, key, value >= 0 ? json_integer(value) : json_null());
}

int status_get_known(const struct json *object, const char *key, int64_t *ret, struct error *reterr)
{
	return json_get_integer_or(object, key, 0, 999999999999999, NODE_STATUS_UNKNOWN, ret,
				   reterr);
}

int status_get_u32(const struct json *object, const char *key, uint32_t *ret, struct error *reterr)
{
	int64_t value;
	int r = json_get_integer_or(object, key, 0, UINT32_MAX, 0, &value, reterr);

	if (r == 0)
		*ret = (uint32_t)value;
	return r;
}

static void status_put_ip(struct json *object, const char *key, int family, const void *ip, size_t size)
{
	static const uint8_t none[16];
	char text[INET6_ADDRSTRLEN];

	if (memcmp(ip, none, size) == 0 || !inet_ntop(family, ip, text, sizeof(text)))
		json_put(object, key, json_null());
	else
		json_put_string(object, key, text);
}

void status_put_ips(struct json *object, const struct in_addr *ip4, const struct in6_addr *ip6)
{
	status_put_ip(object, "ip4", AF_INET, ip4, sizeof(*ip4));
	status_put_ip(object, "ip6", AF_INET6, ip6, sizeof(*ip6));
}

static int status_get_ip(const struct json *object, const char *key, int family, void *ret,
			 struct error *reterr)
{
	const char *text;
	int r = json_get_string_or(object, key, "", &text, reterr);

	if (r == 0 && text[0] != '\0' && inet_pton(family, text, ret) != 1)
		return error_set(reterr, -EINVAL, "member '%s': must be an IP address", key);
	return r;
}

int status_get_ips(const struct json *object, struct in_addr *ip4, struct in6_addr *ip6,
		   struct error *reterr)
{
	int r = status_get_ip(object, "ip4", AF_INET, ip4, reterr);

	return r != 0 ? r : status_get_ip(object, "ip6", AF_INET6, ip6, reterr);
}

void status_put_key(struct json *object, const char *key, const struct public_key *value)
{
	if (public_key_is_zero(value))
		json_put(object, key, json_null());
	else
		json_put_public_key(object, key, value);
}

int status_get_key(const struct json *object, const char *key, struct public_key *ret,
		   struct error *reterr)
{
	const struct json *member = json_member(object, key);

	return !member || json_is_null(member) ? 0 : json_get_public_key(object, key, ret, reterr);
}

void status_put_endpoint(struct json *object, const char *key, const struct endpoint *endpoint)
{
	status_put_text(object, key, endpoint_is_none(endpoint) ? "" : endpoint_text(endpoint).s);
}

int status_get_endpoint(const struct json *object, const char *key, struct endpoint *ret,
			struct error *reterr)
{
	const char *text;
	int r = json_get_string_or(object, key, "", &text, reterr);

	if (r == 0 && text[0] != '\0' && endpoint_parse(text, ret) != 0)
		return error_set(reterr, -EINVAL, "member '%s': must be ip:port", key);
	return r;
}

int status_get_name(const struct json *object, const char *key, const char *const names[], int n,
		    int *ret, struct error *reterr)
{
	const char *text;
	int r = json_get_string_or(object, key, names[0], &text, reterr);

	*ret = 0;
	for (int i = 0; r == 0 && i < n; i++)
		if (strcmp(names[i], text) == 0)
			*ret = i;
	return r;
}

int status_get_flag(const struct json *object, const char *key, bool *ret, struct error *reterr)
{
	return json_get_boolean_or(object, key, false, ret, reterr);
}

void status_put_yes_no(struct json *object, const char *key, enum node_known known)
{
	json_put(object, key, known == NODE_KNOWN_NOT ? json_null() : json_boolean(known == NODE_KNOWN_YES));
}

int status_get_yes_no(const struct json *object, const char *key, enum node_known *ret, struct error *reterr)
{
	const struct json *member = json_member(object, key);
	bool yes = false;
	int r = json_get_boolean_or(object, key, false, &yes, reterr);

	if (r == 0 && member && !json_is_null(member))
		*ret = yes ? NODE_KNOWN_YES : NODE_KNOWN_NO;
	return r;
}
