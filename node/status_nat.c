#include "node/status_nat.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const char *const dependence_names[] = {
	[NAT_DEPENDS_UNKNOWN] = "",
	[NAT_DEPENDS_NO_NAT] = "no NAT",
	[NAT_DEPENDS_NOT] = "endpoint-independent",
	[NAT_DEPENDS_ADDRESS] = "address-dependent",
	[NAT_DEPENDS_PORT] = "address-and-port-dependent",
};
static_assert(ARRAY_LEN(dependence_names) == NAT_N_DEPENDENCES, "a name for every dependence");

static const char *const unknown_names[] = {
	[NAT_UNKNOWN_NOT] = "",
	[NAT_UNKNOWN_NOT_YET] = "being measured",
	[NAT_UNKNOWN_NO_SERVER] = "there is no public node to ask",
	[NAT_UNKNOWN_NO_ANSWER] = "no public node answers",
	[NAT_UNKNOWN_ONE_PORT] = "needs a public node whose UDP port 3479 is open as well",
	[NAT_UNKNOWN_ONE_ADDRESS] = "needs a second public node",
	[NAT_UNKNOWN_POOL] = "the NAT has several public addresses",
	[NAT_UNKNOWN_HIDDEN] = "its filter hides it",
	[NAT_UNKNOWN_NO_NAT] = "there is no NAT",
	[NAT_UNKNOWN_NO_SOCKET] = "the system refused to open a socket",
};
static_assert(ARRAY_LEN(unknown_names) == NAT_N_UNKNOWNS, "a name for every reason");

static const char *const ports_names[] = {
	[NAT_PORTS_UNKNOWN] = "",
	[NAT_PORTS_SAME] = "same",
	[NAT_PORTS_IN_STEPS] = "steps",
	[NAT_PORTS_ANY] = "random",
};
static_assert(ARRAY_LEN(ports_names) == NAT_N_PORTS_KINDS, "a name for every kind");

const char *nat_dependence_name(enum nat_dependence dependence)
{
	return dependence_names[dependence];
}

const char *nat_unknown_name(enum nat_unknown unknown)
{
	return unknown_names[unknown];
}

void node_nat_behaviour_init(struct node_nat_behaviour *behaviour)
{
	*behaviour = (struct node_nat_behaviour){ .age_ms = -1,
						  .findings = { .mapping_unknown = NAT_UNKNOWN_NOT_YET,
								.filtering_unknown = NAT_UNKNOWN_NOT_YET,
								.hairpin_unknown = NAT_UNKNOWN_NOT_YET,
								.ports_unknown = NAT_UNKNOWN_NOT_YET } };
}

/* writing */

static void put_text(struct json *object, const char *key, const char *text)
{
	json_put(object, key, text[0] != '\0' ? json_string(text) : json_null());
}

static void put_flag(struct json *object, const char *key, bool is_known, bool value)
{
	json_put(object, key, is_known ? json_boolean(value) : json_null());
}

static struct json *reasons_to_json(const struct nat_findings *findings)
{
	struct json *json = json_object();

	put_text(json, "mapping", unknown_names[findings->mapping_unknown]);
	put_text(json, "filtering", unknown_names[findings->filtering_unknown]);
	put_text(json, "hairpin", unknown_names[findings->hairpin_unknown]);
	put_text(json, "ports", unknown_names[findings->ports_unknown]);
	return json;
}

struct json *node_nat_behaviour_to_json(const struct node_nat_behaviour *behaviour)
{
	const struct nat_findings *findings = &behaviour->findings;
	const bool knows_ports = findings->ports_unknown == NAT_UNKNOWN_NOT;
	struct json *json = json_object();

	json_put(json, "age_ms", behaviour->age_ms >= 0 ? json_integer(behaviour->age_ms) : json_null());
	put_text(json, "outside",
		 endpoint_is_none(&findings->outside) ? "" : endpoint_ip_text(&findings->outside).s);
	put_text(json, "mapping", dependence_names[findings->mapping]);
	put_text(json, "filtering", dependence_names[findings->filtering]);
	put_flag(json, "hairpin", findings->hairpin_unknown == NAT_UNKNOWN_NOT, findings->hairpin);
	put_flag(json, "port_preservation", knows_ports, findings->preserves_port);
	put_text(json, "ports", ports_names[findings->ports]);
	json_put(json, "port_step",
		 findings->ports == NAT_PORTS_IN_STEPS ? json_integer(findings->step) : json_null());
	json_put(json, "unknown", reasons_to_json(findings));
	return json;
}

/* reading */

/* A name that we do not know (a newer node) is the fallback. */
static int get_name(const struct json *object, const char *key, const char *const names[], size_t n, int fallback,
		    int *ret, struct error *reterr)
{
	const char *text;
	int r = json_get_string_or(object, key, "", &text, reterr);

	*ret = fallback;
	for (size_t i = 0; r == 0 && i < n; i++)
		if (strcmp(names[i], text) == 0)
			*ret = (int)i;
	return r;
}

static int get_reasons(const struct json *json, struct nat_findings *findings, struct error *reterr)
{
	const struct {
		const char *key;
		enum nat_unknown *ret;
	} members[] = { { "mapping", &findings->mapping_unknown },
			{ "filtering", &findings->filtering_unknown },
			{ "hairpin", &findings->hairpin_unknown },
			{ "ports", &findings->ports_unknown } };
	const struct json *reasons;
	int r = json_get_object(json, "unknown", &reasons, reterr), value = 0;

	for (size_t i = 0; i < ARRAY_LEN(members) && r == 0; i++) {
		r = get_name(reasons, members[i].key, unknown_names, ARRAY_LEN(unknown_names), NAT_UNKNOWN_NO_ANSWER,
			     &value, reterr);
		*members[i].ret = (enum nat_unknown)value;
	}
	return r;
}

static int get_dependence(const struct json *json, const char *key, enum nat_dependence *ret, struct error *reterr)
{
	int value, r = get_name(json, key, dependence_names, ARRAY_LEN(dependence_names), NAT_DEPENDS_UNKNOWN, &value,
				reterr);

	*ret = (enum nat_dependence)value;
	return r;
}

static int get_ports(const struct json *json, struct nat_findings *findings, struct error *reterr)
{
	int64_t step = 0;
	int value, r = get_name(json, "ports", ports_names, ARRAY_LEN(ports_names), NAT_PORTS_UNKNOWN, &value, reterr);

	if (r == 0)
		r = json_get_boolean_or(json, "port_preservation", false, &findings->preserves_port, reterr);
	if (r == 0)
		r = json_get_integer_or(json, "port_step", INT16_MIN, INT16_MAX, 0, &step, reterr);
	findings->ports = (enum nat_ports_kind)value;
	findings->step = (int32_t)step;
	return r;
}

static int get_outside(const struct json *json, struct endpoint *ret, struct error *reterr)
{
	const char *text;
	int r = json_get_string_or(json, "outside", "", &text, reterr);

	if (r == 0 && text[0] != '\0' && endpoint_parse_ip(text, 0, ret) != 0)
		return error_set(reterr, -EINVAL, "member 'outside': must be an IP address");
	return r;
}

int node_nat_behaviour_from_json(const struct json *json, struct node_nat_behaviour *ret, struct error *reterr)
{
	struct node_nat_behaviour behaviour;
	struct nat_findings *findings = &behaviour.findings;

	node_nat_behaviour_init(&behaviour);
	int r = json_get_integer_or(json, "age_ms", 0, 999999999999999, -1, &behaviour.age_ms, reterr);
	if (r == 0)
		r = get_outside(json, &findings->outside, reterr);
	if (r == 0)
		r = get_dependence(json, "mapping", &findings->mapping, reterr);
	if (r == 0)
		r = get_dependence(json, "filtering", &findings->filtering, reterr);
	if (r == 0)
		r = json_get_boolean_or(json, "hairpin", false, &findings->hairpin, reterr);
	if (r == 0)
		r = get_ports(json, findings, reterr);
	if (r == 0)
		r = get_reasons(json, findings, reterr);
	if (r == 0)
		*ret = behaviour;
	return r;
}
