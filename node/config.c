#include "node/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/wireguard/lanes.h"

#define MAX_RATE 1000000000000000 /* bits a second; more is a mistake, and would not be counted in 64 bits */

static int check_name(const char *value, struct error *reterr)
{
	if (map_name_is_valid(value))
		return 0;
	return error_set(reterr, -EINVAL,
			 "one to %d of a-z, 0-9 and '-', with no '-' at either end, such as web-1",
			 MAP_NAME_LEN);
}

static int check_interface(const char *value, struct error *reterr)
{
	bool bad = strcmp(value, ".") == 0 || strcmp(value, "..") == 0;

	for (const char *at = value; *at != '\0'; at++)
		bad |= *at <= ' ' || *at == '/' || *at == ':' || *at == '%' ||
		       (unsigned char)*at >= 0x7f;
	if (!bad)
		return 0;
	return error_set(reterr, -EINVAL, "the name of a network interface, such as p2p0");
}

static int check_address(const char *value, struct error *reterr)
{
	const struct endpoint any4 = endpoint_from_v4(0, 0);
	struct endpoint endpoint;

	if (endpoint_parse_ip(value, 0, &endpoint) == 0 && endpoint.scope_id == 0 &&
	    !endpoint_is_none(&endpoint) && !endpoint_equal(&endpoint, &any4))
		return 0;
	return error_set(
		reterr, -EINVAL,
		"a numeric IP address without a port, such as 198.51.100.1 or 2001:db8::1");
}

static int check_log_level(const char *value, struct error *reterr)
{
	enum log_level level;

	if (log_level_parse(value, &level) == 0)
		return 0;
	return error_set(reterr, -EINVAL, "one of error, warning, info, debug, trace");
}

static int check_wireguard(const char *value, struct error *reterr)
{
	enum wireguard_kind kind;

	if (wireguard_kind_parse(value, &kind) == 0)
		return 0;
	return error_set(reterr, -EINVAL, "one of in-process, kernel, uapi");
}

/* Bits a second: digits, and perhaps one of k, M, G. 0 or -EINVAL. */
static int parse_rate(const char *value, uint64_t *ret)
{
	static const char units[] = "kMG";
	char *end;

	if (value[0] < '0' || value[0] > '9')
		return -EINVAL;
	errno = 0;
	uint64_t rate = strtoull(value, &end, 10);
	const char *unit = *end != '\0' ? strchr(units, *end) : NULL;

	end += unit ? 1 : 0;
	for (const char *at = units; unit && at <= unit && rate <= MAX_RATE; at++)
		rate *= 1000;
	if (errno != 0 || *end != '\0' || rate > MAX_RATE)
		return -EINVAL;
	*ret = rate;
	return 0;
}

static int check_rate(const char *value, struct error *reterr)
{
	uint64_t rate;

	if (parse_rate(value, &rate) == 0)
		return 0;
	return error_set(reterr, -EINVAL, "bits a second, such as 500M or 10G, or 0 for no limit");
}

static int check_metrics(const char *value, struct error *reterr)
{
	struct endpoint endpoint;

	if (value[0] == '\0' || (endpoint_parse(value, &endpoint) == 0 && endpoint.port != 0))
		return 0;
	return error_set(reterr, -EINVAL, "an IP address and a port, such as 127.0.0.1:9100 or [::1]:9100");
}

static const struct config_setting settings[] = {
	{ "node", "name", CONFIG_TEXT, 0, MAP_NAME_LEN, "", false, check_name,
	  "Name asked for when the node joins; empty: the host's name" },
	{ "node", "interface", CONFIG_TEXT, 1, IF_NAMESIZE - 1, "p2p0", false, check_interface,
	  "Network interface that the node creates" },
	{ "node", "wireguard", CONFIG_TEXT, 1, 16, "in-process", false, check_wireguard,
	  "Whose WireGuard: in-process, kernel (of Linux), or uapi (a daemon that serves the interface)" },
	{ "node", "listen_port", CONFIG_NUMBER, 0, 65535, "0", false, NULL,
	  "UDP port of the node; 0: the one used last time, else any free one" },
	{ "node", "mtu", CONFIG_NUMBER, 1280, 9000, "1280", false, NULL,
	  "Largest packet of the interface, in bytes" },
	{ "node", "lanes", CONFIG_NUMBER, 0, LANES_MAX, "0", false, NULL,
	  "Threads that move packets; 0: as many as suit the machine" },
	{ "node", "log_level", CONFIG_TEXT, 1, 8, "info", false, check_log_level,
	  "error, warning, info, debug or trace" },
	{ "offloads", "tun_gso_read", CONFIG_BOOL, 0, 0, "yes", false, NULL,
	  "The kernel hands over many packets of a flow at once" },
	{ "offloads", "tun_gro_write", CONFIG_BOOL, 0, 0, "yes", false, NULL,
	  "The kernel is handed many packets of a flow at once" },
	{ "offloads", "udp_gso", CONFIG_BOOL, 0, 0, "yes", false, NULL,
	  "Many datagrams are sent at once" },
	{ "offloads", "udp_gro", CONFIG_BOOL, 0, 0, "yes", false, NULL,
	  "Many datagrams are received at once" },
	{ "public", "address", CONFIG_TEXT, 1, 45, NULL, true, check_address,
	  "Address at which everybody reaches this node, such as 198.51.100.1; none: those of the machine" },
	{ "public", "tls_port", CONFIG_NUMBER, 1, 65535, "443", false, NULL,
	  "TCP port of the relay" },
	{ "public", "stun_port", CONFIG_NUMBER, 1, 65535, "3478", false, NULL,
	  "UDP port of the STUN server" },
	{ "public", "metrics", CONFIG_TEXT, 0, 64, "", false, check_metrics,
	  "Address and port of GET /metrics and /healthz, such as 127.0.0.1:9100; empty: not served" },
	{ "public", "max_rate_client", CONFIG_TEXT, 1, 20, "10G", false, check_rate,
	  "Bits a second that the relay takes from one client; k, M or G may follow; 0: no limit" },
	{ "public", "max_rate", CONFIG_TEXT, 1, 20, "0", false, check_rate,
	  "Bits a second that the relay takes from all clients together; 0: no limit" },
};

static const struct config_schema schema = { settings, ARRAY_LEN(settings) };

static struct offload_switches take_offloads(const struct config_values *values)
{
	return (struct offload_switches){
		.off[OFFLOAD_TUN_GSO_READ] = !config_bool(values, "offloads", "tun_gso_read"),
		.off[OFFLOAD_TUN_GRO_WRITE] = !config_bool(values, "offloads", "tun_gro_write"),
		.off[OFFLOAD_UDP_GSO] = !config_bool(values, "offloads", "udp_gso"),
		.off[OFFLOAD_UDP_GRO] = !config_bool(values, "offloads", "udp_gro"),
	};
}

static int take_public(const struct config_values *values, struct node_config *config,
		       struct error *reterr)
{
	config->tls_port = (uint16_t)config_number(values, "public", "tls_port");
	config->stun_port = (uint16_t)config_number(values, "public", "stun_port");
	config->is_public = config_has_section(values, "public");
	if (parse_rate(config_text(values, "public", "max_rate_client"), &config->max_rate_client) != 0 ||
	    parse_rate(config_text(values, "public", "max_rate"), &config->max_rate) != 0)
		return -EINVAL; /* not reached: the schema checked them */
	const char *metrics = config_text(values, "public", "metrics");
	if (metrics[0] != '\0' && endpoint_parse(metrics, &config->metrics) != 0)
		return -EINVAL;
	if (!config->is_public)
		return 0;

	config->n_addresses = config_count(values, "public", "address");
	if (config->n_addresses > MAP_MAX_ADDRESSES)
		return config_error(
			values, "public", "address", reterr,
			"more than %d addresses in [public]; keep those that others reach",
			MAP_MAX_ADDRESSES);
	for (uint32_t i = 0; i < config->n_addresses; i++) {
		int r = endpoint_parse_ip(config_item(values, "public", "address", i), 0,
					  &config->addresses[i]);
		if (r != 0)
			return r; /* not reached: the schema checked it */
		for (uint32_t j = 0; j < i; j++)
			if (endpoint_equal(&config->addresses[i], &config->addresses[j]))
				return config_error(values, "public", "address", reterr,
						    "address %s stands twice in [public]; keep one",
						    endpoint_ip_text(&config->addresses[i]).s);
	}
	return 0;
}

static int take_values(const struct config_values *values, struct node_config *ret,
		       struct error *reterr)
{
	struct node_config config = { 0 };
	int r;

	snprintf(config.name, sizeof(config.name), "%s", config_text(values, "node", "name"));
	snprintf(config.interface, sizeof(config.interface), "%s",
		 config_text(values, "node", "interface"));
	config.listen_port = (uint16_t)config_number(values, "node", "listen_port");
	config.mtu = (uint16_t)config_number(values, "node", "mtu");
	config.lanes = (unsigned)config_number(values, "node", "lanes");
	config.offloads = take_offloads(values);
	r = log_level_parse(config_text(values, "node", "log_level"), &config.log_level);
	if (r == 0)
		r = wireguard_kind_parse(config_text(values, "node", "wireguard"), &config.wireguard);
	if (r == 0)
		r = take_public(values, &config, reterr);
	if (r == 0)
		*ret = config;
	return r;
}

void node_config_init(struct node_config *ret)
{
	int r = node_config_parse("(defaults)", "", 0, ret, NULL);

	if (r != 0)
		abort();
}

int node_config_parse(const char *file, const char *text, size_t len, struct node_config *ret,
		      struct error *reterr)
{
	struct config_values values;
	int r = config_file_parse(&schema, file, text, len, &values, reterr);

	if (r != 0)
		return r;
	r = take_values(&values, ret, reterr);
	config_values_deinit(&values);
	return r;
}

char *node_config_defaults_text(void)
{
	return config_schema_text(&schema);
}

const struct config_schema *node_config_schema(void)
{
	return &schema;
}
