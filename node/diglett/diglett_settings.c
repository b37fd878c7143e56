#include "node/diglett/diglett_settings.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER "diglett"
#define AGENT  "diglett-agent"

/* A port alone: at all addresses. */
static int parse_listen(const char *value, struct endpoint *ret)
{
	char *end;
	const unsigned long port = strtoul(value, &end, 10);

	if (value[0] < '0' || value[0] > '9' || *end != '\0')
		return endpoint_parse(value, ret) == 0 && ret->port != 0 ? 0 : -EINVAL;
	*ret = (struct endpoint){ .port = (uint16_t)port };
	return port > 0 && port <= 65535 ? 0 : -EINVAL;
}

int diglett_check_listen(const char *value, struct error *reterr)
{
	struct endpoint endpoint;

	return parse_listen(value, &endpoint) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "a TCP port, or an IP address and a port, such as 198.51.100.1:20000");
}

int diglett_check_info(const char *value, struct error *reterr)
{
	struct endpoint endpoint;

	return value[0] == '\0' || parse_listen(value, &endpoint) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "a TCP port, or an IP address and a port, such as 127.0.0.1:20080");
}

int diglett_check_domain(const char *value, struct error *reterr)
{
	struct host_name name;

	return value[0] == '\0' || diglett_name_parse(value, strlen(value), &name) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "a domain, such as apps.example.org");
}

int diglett_check_path(const char *value, struct error *reterr)
{
	return value[0] == '\0' || value[0] == '/' ? 0 : error_set(reterr, -EINVAL, "a path that begins with '/'");
}

int diglett_parse_server(const char *value, char *host, uint16_t *port)
{
	const char *colon = strrchr(value, ':');
	const bool is_bracketed = value[0] == '[' && colon && colon > value && colon[-1] == ']';
	char *end;

	if (!colon || colon == value || colon[1] < '0' || colon[1] > '9')
		return -EINVAL;
	const unsigned long number = strtoul(colon + 1, &end, 10);
	const char *begin = value + (is_bracketed ? 1 : 0);
	const size_t len = (size_t)(colon - begin) - (is_bracketed ? 1 : 0);
	if (*end != '\0' || number == 0 || number > 65535 || len == 0 || len > DIGLETT_HOST_LEN)
		return -EINVAL;
	snprintf(host, DIGLETT_HOST_LEN + 1, "%.*s", (int)len, begin);
	*port = (uint16_t)number;
	return !is_bracketed && strchr(host, ':') ? -EINVAL : 0;
}

int diglett_check_server(const char *value, struct error *reterr)
{
	char host[DIGLETT_HOST_LEN + 1];
	uint16_t port;

	return value[0] == '\0' || diglett_parse_server(value, host, &port) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "a host and a port, such as gate.example.org:20000");
}

static int parse_key(const char *value, struct noise_public *ret)
{
	size_t n = 0;

	if (sodium_hex2bin(ret->bytes, sizeof(ret->bytes), value, strlen(value), NULL, &n, NULL) != 0 ||
	    n != sizeof(ret->bytes) || (ret->bytes[0] != 2 && ret->bytes[0] != 3))
		return -EINVAL;
	return 0;
}

int diglett_check_key(const char *value, struct error *reterr)
{
	struct noise_public key;

	return value[0] == '\0' || parse_key(value, &key) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "66 hex digits that begin with 02 or 03, as the server's /info has them");
}

static int parse_expose(const char *value, struct host_name *name, struct endpoint *target)
{
	const size_t len = strcspn(value, " \t");
	const char *rest = value + len + strspn(value + len, " \t");

	if (diglett_name_parse(value, len, name) != 0)
		return -EINVAL;
	return endpoint_parse(rest, target) == 0 && target->port != 0 ? 0 : -EINVAL;
}

int diglett_check_expose(const char *value, struct error *reterr)
{
	struct host_name name;
	struct endpoint target;

	return parse_expose(value, &name, &target) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "a name and where it is, such as app 127.0.0.1:8080");
}

int diglett_check_extra(const char *value, struct error *reterr)
{
	for (const char *at = value; *at != '\0'; at++)
		if (*at < ' ' || *at > '~')
			return error_set(reterr, -EINVAL, "printable ASCII");
	return 0;
}

static int take_server(const struct config_values *values, struct diglett_settings *ret, struct error *reterr)
{
	const char *info = config_text(values, SERVER, "info");

	ret->is_server = config_has_section(values, SERVER);
	ret->allow_v1 = config_bool(values, SERVER, "allow_v1");
	if (parse_listen(config_text(values, SERVER, "listen"), &ret->listen) != 0 ||
	    (info[0] != '\0' && parse_listen(info, &ret->info) != 0))
		return -EINVAL; /* not reached: the schema checked them */
	snprintf(ret->domain, sizeof(ret->domain), "%s", config_text(values, SERVER, "domain"));
	snprintf(ret->tokens, sizeof(ret->tokens), "%s", config_text(values, SERVER, "tokens"));
	snprintf(ret->script, sizeof(ret->script), "%s", config_text(values, SERVER, "script"));
	return 0;
}

static int take_exposed(const struct config_values *values, struct diglett_settings *ret, struct error *reterr)
{
	const uint32_t n = config_count(values, AGENT, "expose");

	if (n == 0 || n > DIGLETT_MAX_PORTS)
		return config_error(values, AGENT, "expose", reterr, "[diglett-agent] needs 1 to %d lines of expose",
				    DIGLETT_MAX_PORTS);
	for (ret->n_ports = 0; ret->n_ports < n; ret->n_ports++) {
		const uint8_t at = ret->n_ports;
		if (parse_expose(config_item(values, AGENT, "expose", at), &ret->names[at], &ret->targets[at]) != 0)
			return -EINVAL; /* not reached */
		for (uint8_t i = 0; i < at; i++)
			if (host_name_equal(&ret->names[i], &ret->names[at]))
				return config_error(values, AGENT, "expose", reterr, "%s stands twice in [diglett-agent]; keep one",
						    ret->names[at].text);
	}
	return 0;
}

static int take_agent(const struct config_values *values, struct diglett_settings *ret, struct error *reterr)
{
	const char *server = config_text(values, AGENT, "server");
	const char *key = config_text(values, AGENT, "server_key");

	ret->is_agent = config_has_section(values, AGENT);
	if (!ret->is_agent)
		return 0;
	snprintf(ret->token_file, sizeof(ret->token_file), "%s", config_text(values, AGENT, "token_file"));
	snprintf(ret->extra, sizeof(ret->extra), "%s", config_text(values, AGENT, "extra"));
	if (server[0] == '\0' || key[0] == '\0')
		return config_error(values, AGENT, "server", reterr, "[diglett-agent] needs server and server_key");
	if (diglett_parse_server(server, ret->host, &ret->port) != 0 || parse_key(key, &ret->server_key) != 0)
		return -EINVAL; /* not reached: the schema checked them */
	return take_exposed(values, ret, reterr);
}

int diglett_settings_take(const struct config_values *values, struct diglett_settings *ret, struct error *reterr)
{
	int r = take_server(values, ret, reterr);

	return r == 0 ? take_agent(values, ret, reterr) : r;
}
