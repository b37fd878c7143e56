#include "node/webgw_agent_settings.h"

#include "common/join_link.h"
#include "node/diglett/diglett_settings.h"
#include "relay/frontdoor/door_routes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SECTION "webgw-agent"

_Static_assert(WEBGW_AGENT_SERVER_LEN == DIGLETT_HOST_LEN, "what diglett_parse_server() fills");

int webgw_agent_check_server(const char *value, struct error *reterr)
{
	char host[WEBGW_AGENT_SERVER_LEN + 1];
	uint16_t port;

	return value[0] == '\0' || diglett_parse_server(value, host, &port) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "a host and a port, such as gate.example.org:9081");
}

int webgw_agent_check_pin(const char *value, struct error *reterr)
{
	struct pin pin;

	return value[0] == '\0' || pin_parse(value, &pin) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "the pin of the public node's key, as its log has it");
}

#define WHITE " \t"

static int parse_target(const char *text, size_t len, struct endpoint *ret)
{
	char place[sizeof(struct endpoint_text)] = "";

	if (len >= sizeof(place))
		return -EINVAL;
	memcpy(place, text, len);
	return endpoint_parse(place, ret) == 0 && ret->port != 0 ? 0 : -EINVAL;
}

static int tell_form(struct error *reterr)
{
	return error_set(reterr, -EINVAL, "a host and where it is, such as www.example.com 127.0.0.1:8080, or of one scheme alone: "
					  "https://www.example.com 127.0.0.1:8443");
}

/* As host = of [frontdoor]; a target for each scheme that it is for. */
static int parse_expose(const char *value, struct host_pattern *host, struct webgw_agent_targets *targets, struct error *reterr)
{
	struct door_rule rule = { 0 };
	struct endpoint target;
	enum door_header header;
	const size_t len = strcspn(value, WHITE);
	const char *rest = value + len + strspn(value + len, WHITE);
	const size_t target_len = strcspn(rest, WHITE);

	*targets = (struct webgw_agent_targets){ 0 };
	if (door_rule_parse_host(value, len, &rule, NULL) != 0 || (!rule.takes[DOOR_HTTP] && !rule.takes[DOOR_HTTPS]))
		return tell_form(reterr);
	if (parse_target(rest, target_len, &target) != 0)
		return tell_form(reterr);
	rest += target_len;
	const int r = door_header_parse(rest + strspn(rest, WHITE), &header, reterr);
	if (r != 0)
		return r;
	*host = rule.host;
	if (rule.takes[DOOR_HTTP])
		*targets = (struct webgw_agent_targets){ .http = target, .http_header = header };
	if (rule.takes[DOOR_HTTPS]) {
		targets->https = target;
		targets->https_header = header;
	}
	return 0;
}

int webgw_agent_check_expose(const char *value, struct error *reterr)
{
	struct host_pattern host;
	struct webgw_agent_targets targets;

	return parse_expose(value, &host, &targets, reterr);
}

static uint8_t find_host(const struct webgw_agent_settings *settings, const struct host_pattern *host)
{
	uint8_t at = 0;

	while (at < settings->n_hosts && (settings->hosts[at].is_wildcard != host->is_wildcard ||
					  !host_name_equal(&settings->hosts[at].name, &host->name)))
		at++;
	return at;
}

/* A host may stand twice: once for each scheme. */
static int add_exposed(struct webgw_agent_settings *ret, const struct host_pattern *host,
		       const struct webgw_agent_targets *targets)
{
	const uint8_t at = find_host(ret, host);
	struct webgw_agent_targets *there = &ret->targets[at];

	if (at == ret->n_hosts) {
		if (at == WEBGW_AGENT_MAX_HOSTS)
			return -ENOBUFS;
		ret->n_hosts++;
		ret->hosts[at] = *host;
		*there = (struct webgw_agent_targets){ 0 };
	}
	if ((targets->http.port != 0 && there->http.port != 0) || (targets->https.port != 0 && there->https.port != 0))
		return -EEXIST;
	if (targets->http.port != 0) {
		there->http = targets->http;
		there->http_header = targets->http_header;
	}
	if (targets->https.port != 0) {
		there->https = targets->https;
		there->https_header = targets->https_header;
	}
	return 0;
}

static int take_exposed(const struct config_values *values, struct webgw_agent_settings *ret, struct error *reterr)
{
	const uint32_t n = config_count(values, SECTION, "expose");
	int r = n == 0 ? -ENOBUFS : 0;

	ret->n_hosts = 0;
	for (uint32_t i = 0; i < n && r == 0; i++) {
		struct host_pattern host;
		struct webgw_agent_targets targets;
		if (parse_expose(config_item(values, SECTION, "expose", i), &host, &targets, reterr) != 0)
			return -EINVAL; /* not reached: the schema checked it */
		r = add_exposed(ret, &host, &targets);
		if (r == -EEXIST)
			return config_error(values, SECTION, "expose", reterr,
					    "%s stands twice in [webgw-agent]; keep one, or one of http:// and one of https://",
					    host.name.text);
	}
	return r == 0 ? 0 : config_error(values, SECTION, "expose", reterr, "[webgw-agent] needs 1 to %d hosts with expose",
					 WEBGW_AGENT_MAX_HOSTS);
}

int webgw_agent_settings_take(const struct config_values *values, struct webgw_agent_settings *ret, struct error *reterr)
{
	const char *server = config_text(values, SECTION, "server"), *pin = config_text(values, SECTION, "server_pin");

	ret->is_agent = config_has_section(values, SECTION);
	if (!ret->is_agent)
		return 0;
	snprintf(ret->secret_file, sizeof(ret->secret_file), "%s", config_text(values, SECTION, "secret_file"));
	ret->n_warm = (uint8_t)config_number(values, SECTION, "warm");
	if (server[0] == '\0' || pin[0] == '\0')
		return config_error(values, SECTION, "server", reterr, "[webgw-agent] needs server and server_pin");
	if (diglett_parse_server(server, ret->server, &ret->port) != 0 || pin_parse(pin, &ret->pin) != 0)
		return -EINVAL; /* not reached: the schema checked them */
	return take_exposed(values, ret, reterr);
}
