#include "common/membership.h"

#include "common/prefix.h"

#include <errno.h>
#include <string.h>

struct json *membership_to_json(const struct membership *m)
{
	struct json *json = json_object();

	json_put_integer(json, "node_id", m->node_id);
	json_put_string(json, "name", m->name);
	json_put_string(json, "network", m->network);
	json_put_string(json, "address4", address4_text(m->ip4).s);
	json_put_string(json, "prefix4", prefix4_text(m->prefix4, m->prefix4_len).s);
	json_put_string(json, "address6", address6_text(&m->ip6).s);
	json_put_string(json, "prefix6", prefix6_text(&m->prefix6, m->prefix6_len).s);
	json_put_string(json, "ca", m->ca_pem);
	json_put_string(json, "certificate", m->certificate_pem);
	return json;
}

static int get_text(const struct json *json, const char *key, char *ret, size_t size,
		    struct error *reterr)
{
	const char *text;
	int r = json_get_string(json, key, &text, reterr);

	if (r != 0)
		return r;
	if (strlen(text) >= size)
		return error_set(reterr, -EINVAL, "member '%s': too long", key);
	memcpy(ret, text, strlen(text) + 1);
	return 0;
}

static int get_name(const struct json *json, const char *key, char ret[MAP_NAME_LEN + 1],
		    struct error *reterr)
{
	int r = get_text(json, key, ret, MAP_NAME_LEN + 1, reterr);

	if (r == 0 && !map_name_is_valid(ret))
		r = error_set(reterr, -EINVAL, "member '%s': must be a name", key);
	return r;
}

static int read_addresses(const struct json *json, struct membership *m, struct error *reterr)
{
	int r = json_get_address4(json, "address4", &m->ip4, reterr);

	if (r == 0)
		r = json_get_prefix4(json, "prefix4", &m->prefix4, &m->prefix4_len, reterr);
	if (r == 0)
		r = json_get_address6(json, "address6", &m->ip6, reterr);
	if (r == 0)
		r = json_get_prefix6(json, "prefix6", &m->prefix6, &m->prefix6_len, reterr);
	return r;
}

int membership_from_json(const struct json *json, struct membership *ret, struct error *reterr)
{
	struct membership m = { 0 };
	int64_t id = 0;
	int r = json_get_integer(json, "node_id", 1, UINT32_MAX, &id, reterr);

	m.node_id = (uint32_t)id;
	if (r == 0)
		r = get_name(json, "name", m.name, reterr);
	if (r == 0)
		r = get_name(json, "network", m.network, reterr);
	if (r == 0)
		r = read_addresses(json, &m, reterr);
	if (r == 0)
		r = get_text(json, "ca", m.ca_pem, sizeof(m.ca_pem), reterr);
	if (r == 0)
		r = get_text(json, "certificate", m.certificate_pem, sizeof(m.certificate_pem),
			     reterr);
	if (r == 0)
		*ret = m;
	return r;
}
