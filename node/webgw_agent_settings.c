#include "node/webgw_agent_settings.h"

#include "common/join_link.h"
#include "node/diglett/diglett_settings.h"

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

static int parse_expose(const char *value, struct host_pattern *host, struct endpoint *target)
{
	const size_t len = strcspn(value, " \t");
	const char *rest = value + len + strspn(value + len, " \t");

	if (host_pattern_from(value, len, host) != 0)
		return -EINVAL;
	return endpoint_parse(rest, target) == 0 && target->port != 0 ? 0 : -EINVAL;
}

int webgw_agent_check_expose(const char *value, struct error *reterr)
{
	struct host_pattern host;
	struct endpoint target;

	return parse_expose(value, &host, &target) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "a host and where it is, such as www.example.com 127.0.0.1:8080");
}

static int take_exposed(const struct config_values *values, struct webgw_agent_settings *ret, struct error *reterr)
{
	const uint32_t n = config_count(values, SECTION, "expose");

	if (n == 0 || n > WEBGW_AGENT_MAX_HOSTS)
		return config_error(values, SECTION, "expose", reterr, "[webgw-agent] needs 1 to %d lines of expose",
				    WEBGW_AGENT_MAX_HOSTS);
	for (ret->n_hosts = 0; ret->n_hosts < n; ret->n_hosts++) {
		const uint8_t at = ret->n_hosts;
		if (parse_expose(config_item(values, SECTION, "expose", at), &ret->hosts[at], &ret->targets[at]) != 0)
			return -EINVAL; /* not reached: the schema checked it */
		for (uint8_t i = 0; i < at; i++)
			if (ret->hosts[i].is_wildcard == ret->hosts[at].is_wildcard &&
			    host_name_equal(&ret->hosts[i].name, &ret->hosts[at].name))
				return config_error(values, SECTION, "expose", reterr, "%s stands twice in [webgw-agent]; keep one",
						    ret->hosts[at].name.text);
	}
	return 0;
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
