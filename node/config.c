#include "node/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/lan_discovery.h"
#include "node/wireguard/lanes.h"

#define MAX_RATE 1000000000000000 /* bits a second; more is a mistake, and would not be counted in 64 bits */
/* Of the interface. Each path has its own, which is found out; not where WireGuard is not ours. */
#define MTU_MIN	      1280
#define MTU_AUTOMATIC 8920 /* 9000 - 80: IPv6, UDP, WireGuard */

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

static int check_mtu(const char *value, struct error *reterr)
{
	const unsigned long mtu = strtoul(value, NULL, 10);

	if (mtu == 0 || mtu >= MTU_MIN)
		return 0;
	return error_set(reterr, -EINVAL, "0, or a whole number from 1280 to 9000");
}

static int check_turn_server(const char *value, struct error *reterr)
{
	struct endpoint endpoint;

	if (value[0] == '\0' || (endpoint_parse(value, &endpoint) == 0 && endpoint_is_v4(&endpoint) && endpoint.port != 0))
		return 0;
	return error_set(reterr, -EINVAL, "an IPv4 address and a port, such as 198.51.100.5:3478");
}

static int check_door_listen(const char *value, struct error *reterr)
{
	struct endpoint places[DOOR_MAX_LISTEN];
	uint32_t n;

	return door_listen_parse(value, places, &n, reterr);
}

static int check_door_host(const char *value, struct error *reterr)
{
	struct door_rule rule;

	return door_rule_parse(value, &rule, reterr);
}

static int check_port_ranges(const char *value, struct error *reterr)
{
	struct port_ranges ranges;

	return port_ranges_parse(value, &ranges, reterr);
}

static int check_exposure(const char *value, struct error *reterr)
{
	struct exposure exposure;

	return exposure_parse(value, &exposure, reterr);
}

static int parse_place(const char *value, struct endpoint *ret, struct error *reterr)
{
	struct endpoint places[DOOR_MAX_LISTEN];
	uint32_t n;
	const int r = door_listen_parse(value, places, &n, reterr);

	if (r != 0 || n != 1)
		return error_set(reterr, -EINVAL, "a port, or an address with a port, such as 127.0.0.1:9080");
	*ret = places[0];
	return 0;
}

static int check_place(const char *value, struct error *reterr)
{
	struct endpoint place;

	return parse_place(value, &place, reterr);
}

static int check_place_or_none(const char *value, struct error *reterr)
{
	return value[0] == '\0' ? 0 : check_place(value, reterr);
}

static int check_webgw_admin(const char *value, struct error *reterr)
{
	return value[0] == '/' || !strchr(value, '/')
		       ? 0
		       : error_set(reterr, -EINVAL, "a path that begins with '/', or a name beside the node's own socket");
}

static int check_webgw_host(const char *value, struct error *reterr)
{
	struct webgw_rule rule;

	return webgw_rule_parse(value, &rule, reterr);
}

static int check_acme_directory(const char *value, struct error *reterr)
{
	struct acme_url url;

	return acme_url_parse(value, &url) == 0
		       ? 0
		       : error_set(reterr, -EINVAL, "a URL such as " ACME_DEFAULT_DIRECTORY "; it begins with https://");
}

static int check_acme_contact(const char *value, struct error *reterr)
{
	const char *at = strchr(value, '@');

	for (const char *i = value; *i; i++)
		if (*i <= ' ' || *i > '~' || strchr(",?:<>\"\\", *i))
			at = NULL;
	return value[0] == '\0' || (at && at != value && at[1] != '\0')
		       ? 0
		       : error_set(reterr, -EINVAL, "one mail address, such as admin@example.org");
}

static int check_acme_ca_file(const char *value, struct error *reterr)
{
	return value[0] == '\0' || value[0] == '/' ? 0 : error_set(reterr, -EINVAL, "a path from the root on");
}

static int parse_acme_challenge(const char *value, enum acme_challenge *ret)
{
	for (int i = 0; i < ACME_N_CHALLENGES; i++) {
		*ret = (enum acme_challenge)i;
		if (strcmp(acme_challenge_name(*ret), value) == 0)
			return 0;
	}
	return -EINVAL;
}

static int check_acme_challenge(const char *value, struct error *reterr)
{
	enum acme_challenge challenge;

	return parse_acme_challenge(value, &challenge) == 0 ? 0 : error_set(reterr, -EINVAL, "one of http-01, tls-alpn-01");
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
	{ "node", "mtu", CONFIG_NUMBER, 0, 9000, "0", false, check_mtu,
	  "Largest packet of the interface, in bytes; 0: as large as any path takes" },
	{ "node", "lanes", CONFIG_NUMBER, 0, LANES_MAX, "0", false, NULL,
	  "Threads that move packets; 0: as many as suit the machine" },
	{ "node", "port_mapping", CONFIG_BOOL, 0, 0, "yes", false, NULL,
	  "The router is asked to forward the UDP port, by PCP, NAT-PMP or UPnP" },
	{ "node", "lan_discovery", CONFIG_BOOL, 0, 0, "yes", false, NULL,
	  "Without control, peers on the same link are called by multicast" },
	{ "node", "log_level", CONFIG_TEXT, 1, 8, "info", false, check_log_level,
	  "error, warning, info, debug or trace" },
	{ "turn", "server", CONFIG_TEXT, 0, 64, "", false, check_turn_server,
	  "A TURN server that passes on to this node, such as 198.51.100.5:3478; empty: none" },
	{ "turn", "user", CONFIG_TEXT, 0, TURN_USER_LEN, "", false, NULL,
	  "Who this node is at the TURN server" },
	{ "turn", "password_file", CONFIG_TEXT, 0, TURN_PATH_LEN, "", false, NULL,
	  "File whose first line is the password there" },
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
	{ "public", "stun_rate", CONFIG_NUMBER, 1, 1000000, "100", false, NULL,
	  "STUN questions of one network (IPv4 /24, IPv6 /56) answered a second; twice as many may come at once" },
	{ "public", "metrics", CONFIG_TEXT, 0, 64, "", false, check_metrics,
	  "Address and port of GET /metrics and /healthz, such as 127.0.0.1:9100; empty: not served" },
	{ "public", "max_rate_client", CONFIG_TEXT, 1, 20, "10G", false, check_rate,
	  "Bits a second that the relay takes from one client; k, M or G may follow; 0: no limit" },
	{ "public", "max_rate", CONFIG_TEXT, 1, 20, "0", false, check_rate,
	  "Bits a second that the relay takes from all clients together; 0: no limit" },
	{ "frontdoor", "listen", CONFIG_TEXT, 1, CONFIG_FILE_MAX_VALUE, "80, 443", false, check_door_listen,
	  "TCP ports, or addresses with a port, at which visitors come" },
	{ "frontdoor", "host", CONFIG_TEXT, 1, CONFIG_FILE_MAX_VALUE, NULL, true, check_door_host,
	  "A host and where it is, such as app.example.org 127.0.0.1:8443, or https://app.example.org alice:8443" },
	{ "frontdoor", "tcp_ports", CONFIG_TEXT, 0, CONFIG_FILE_MAX_VALUE, "", false, check_port_ranges,
	  "TCP ports that may lead to members, such as 2222, 30000-30100; empty: none" },
	{ "frontdoor", "udp_ports", CONFIG_TEXT, 0, CONFIG_FILE_MAX_VALUE, "", false, check_port_ranges,
	  "UDP ports that may lead to members, such as 5353; empty: none" },
	{ "frontdoor", "quic", CONFIG_BOOL, 0, 0, "yes", false, NULL,
	  "QUIC is served as well: by UDP at the same ports, but 80" },
	{ "frontdoor", "max_visitors", CONFIG_NUMBER, 0, 65536, "0", false, NULL,
	  "Connections at once at most; 0: as many as the limit of open files lets" },
	{ "frontdoor", "max_visitors_source", CONFIG_NUMBER, 0, 65536, "0", false, NULL,
	  "Of these from one IPv4 address or IPv6 /56; 0: a quarter, 1024 at most" },
	{ "expose", "service", CONFIG_TEXT, 1, CONFIG_FILE_MAX_VALUE, NULL, true, check_exposure,
	  "A host that is published through front doors, and the port behind it, such as https://app.example.org 8443" },
	{ "acme", "directory", CONFIG_TEXT, 1, CONFIG_FILE_MAX_VALUE, ACME_DEFAULT_DIRECTORY, false, check_acme_directory,
	  "Where certificates of exposures with tls=acme are got: the URL of an ACME server's directory" },
	{ "acme", "agree_terms", CONFIG_BOOL, 0, 0, "no", false, NULL,
	  "You have read the server's terms of service and agree; before that nothing is asked of it" },
	{ "acme", "contact", CONFIG_TEXT, 0, ACME_CONTACT_LEN, "", false, check_acme_contact,
	  "Mail address that the server may write to; empty: none" },
	{ "acme", "challenge", CONFIG_TEXT, 1, 16, "tls-alpn-01", false, check_acme_challenge,
	  "How the server sees that a host is led here: tls-alpn-01 (port 443) or http-01 (port 80)" },
	{ "acme", "ca_file", CONFIG_TEXT, 0, ACME_PATH_LEN, "", false, check_acme_ca_file,
	  "CAs in PEM by which the ACME server itself is known, for a private one; empty: the system's" },
	{ "acme", "retry", CONFIG_NUMBER, 1, 21600, "60", false, NULL,
	  "Seconds after a first failure until the next try; twice as many after each further one, six hours at most" },
	{ "diglett", "listen", CONFIG_TEXT, 1, 64, "20000", false, diglett_check_listen,
	  "TCP port, or address with a port, at which agents are let in" },
	{ "diglett", "info", CONFIG_TEXT, 0, 64, "", false, diglett_check_info,
	  "Port, or address with a port, of GET /info, such as 127.0.0.1:20080; empty: not served" },
	{ "diglett", "domain", CONFIG_TEXT, 0, 200, "", false, diglett_check_domain,
	  "Domain of names that agents ask for without a dot; empty: they must ask for whole ones" },
	{ "diglett", "tokens", CONFIG_TEXT, 0, DIGLETT_PATH_LEN, "", false, diglett_check_path,
	  "File of tokens' hashes and of the names they are for, read again when it changes; p2pctl diglett token makes others" },
	{ "diglett", "script", CONFIG_TEXT, 0, DIGLETT_PATH_LEN, "", false, diglett_check_path,
	  "Program that tells the gateway of names that come and go; empty: none" },
	{ "diglett", "allow_v1", CONFIG_BOOL, 0, 0, "no", false, NULL,
	  "Agents of version 1 are let in, too: whoever hears their connections reads their tokens and what they carry" },
	{ "diglett-agent", "server", CONFIG_TEXT, 0, 255, "", false, diglett_check_server,
	  "Host and port of a diglett server, such as gate.example.org:20000" },
	{ "diglett-agent", "server_key", CONFIG_TEXT, 0, 66, "", false, diglett_check_key,
	  "The server's public key, as its /info and its log have it" },
	{ "diglett-agent", "token_file", CONFIG_TEXT, 0, DIGLETT_PATH_LEN, "", false, diglett_check_path,
	  "File whose first line is the token; empty: the node shows its certificate instead" },
	{ "diglett-agent", "extra", CONFIG_TEXT, 0, DIGLETT_PATH_LEN, "", false, diglett_check_extra,
	  "Told to the server's script besides the name" },
	{ "diglett-agent", "expose", CONFIG_TEXT, 1, CONFIG_FILE_MAX_VALUE, NULL, true, diglett_check_expose,
	  "A name and where it is, such as app 127.0.0.1:8080" },
	{ "webgw", "listen", CONFIG_TEXT, 1, 72, "127.0.0.1:9080", false, check_place,
	  "TCP port, or address with a port, at which webgw's agents subscribe, without encryption" },
	{ "webgw", "dial_back", CONFIG_TEXT, 1, 72, "4658", false, check_place,
	  "TCP port, or address with a port, at which they dial back" },
	{ "webgw", "tls_listen", CONFIG_TEXT, 0, 72, "9081", false, check_place_or_none,
	  "TCP port, or address with a port, at which they subscribe within TLS; empty: not" },
	{ "webgw", "tls_dial_back", CONFIG_TEXT, 1, 72, "4659", false, check_place,
	  "TCP port, or address with a port, at which those dial back, within TLS as well" },
	{ "webgw", "admin", CONFIG_TEXT, 0, WEBGW_ADMIN_PATH_LEN, "webgw.sock", false, check_webgw_admin,
	  "Unix socket at which hosts are added and removed; empty: none" },
	{ "webgw", "host", CONFIG_TEXT, 1, CONFIG_FILE_MAX_VALUE, NULL, true, check_webgw_host,
	  "A host and the SHA-256 of its secret in hex; then balance=round-robin, if its agents share it in turn" },
	{ "webgw", "allow_plaintext", CONFIG_BOOL, 0, 0, "no", false, NULL,
	  "Agents may be listened to without encryption at public addresses" },
	{ "webgw-agent", "server", CONFIG_TEXT, 0, 255, "", false, webgw_agent_check_server,
	  "Host and port at which a public node listens to webgw's agents within TLS, such as gate.example.org:9081" },
	{ "webgw-agent", "server_pin", CONFIG_TEXT, 0, 64, "", false, webgw_agent_check_pin,
	  "The pin of that node's key, as its log has it" },
	{ "webgw-agent", "secret_file", CONFIG_TEXT, 0, CONFIG_FILE_MAX_VALUE, "", false, diglett_check_path,
	  "File whose first line is the hosts' secret in hex; empty: the node shows its certificate instead" },
	{ "webgw-agent", "warm", CONFIG_NUMBER, 0, WEBGW_AGENT_MAX_WARM, "4", false, NULL,
	  "Connections that are kept ready for visitors of each host; 0: none" },
	{ "webgw-agent", "metrics", CONFIG_TEXT, 0, 64, "", false, check_metrics,
	  "Address and port of GET /metrics and /healthz, such as 127.0.0.1:9100, where [public] has none; empty: not served" },
	{ "webgw-agent", "expose", CONFIG_TEXT, 1, CONFIG_FILE_MAX_VALUE, NULL, true, webgw_agent_check_expose,
	  "A host and where it is, such as www.example.com 127.0.0.1:8080" },
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

static int take_turn(const struct config_values *values, struct turn_settings *ret, struct error *reterr)
{
	const char *server = config_text(values, "turn", "server");

	if (server[0] == '\0' || endpoint_parse(server, &ret->server) != 0)
		return 0;
	snprintf(ret->user, sizeof(ret->user), "%s", config_text(values, "turn", "user"));
	snprintf(ret->password_file, sizeof(ret->password_file), "%s", config_text(values, "turn", "password_file"));
	if (ret->user[0] == '\0' || ret->password_file[0] == '\0')
		return config_error(values, "turn", "server", reterr, "a TURN server needs user and password_file");
	return 0;
}

static int take_public(const struct config_values *values, struct node_config *config,
		       struct error *reterr)
{
	config->tls_port = (uint16_t)config_number(values, "public", "tls_port");
	config->stun_port = (uint16_t)config_number(values, "public", "stun_port");
	config->stun_rate = (uint32_t)config_number(values, "public", "stun_rate");
	config->is_public = config_has_section(values, "public");
	if (parse_rate(config_text(values, "public", "max_rate_client"), &config->max_rate_client) != 0 ||
	    parse_rate(config_text(values, "public", "max_rate"), &config->max_rate) != 0)
		return -EINVAL; /* not reached: the schema checked them */
	const char *metrics = config_text(values, "public", "metrics"), *of_agent = config_text(values, "webgw-agent", "metrics");
	if (metrics[0] != '\0' && of_agent[0] != '\0')
		return config_error(values, "webgw-agent", "metrics", reterr, "[public] has metrics as well, and serves the same; "
				    "keep one");
	metrics = metrics[0] != '\0' ? metrics : of_agent;
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

/*
 * The door listens for the relay as well, where both have a TCP port. It cannot where the relay has the port at all
 * addresses of the machine, and the door at some of them: the kernel gives a port to one of both.
 */
static bool is_in_the_relays_way(const struct node_config *config, const struct endpoint *place)
{
	const struct endpoint any6 = { .port = place->port };

	return config->is_public && place->port == config->tls_port && config->n_addresses == 0 &&
	       !endpoint_equal(place, &any6);
}

/* Its relay is asked for by that name. Unnamed nodes are called as their machine is: that is seen when the door opens. */
static int check_no_own_name(const struct node_config *config, const struct host_pattern *host, struct error *reterr)
{
	bool is_shared = false;

	for (uint32_t i = 0; i < config->n_door_listen; i++)
		is_shared = is_shared || (config->has_front_door && config->is_public &&
					  config->door_listen[i].port == config->tls_port);
	if (!is_shared || host->is_wildcard || strcmp(host->name.text, config->name) != 0)
		return 0;
	return error_set(reterr, -EINVAL,
			 "%s is this node's own name, by which its relay is asked for on TCP port %u; name the host "
			 "otherwise, or put another port into tls_port in [public]", config->name, config->tls_port);
}

/* Which UDP port of the door's the STUN server listens at, too: it has a second one behind its own. 0: none. */
static uint16_t port_of_stun(const struct node_config *config)
{
	for (uint32_t i = 0; config->is_public && i < config->n_door_listen; i++) {
		const uint16_t port = config->door_listen[i].port;
		if (port != 80 && (port == config->stun_port || port == config->stun_port + 1))
			return port;
	}
	return 0;
}

static bool is_the_door(const struct node_config *config, const struct endpoint *target)
{
	return door_listens_at(config->door_listen, config->n_door_listen, target, endpoint_is_loopback(target));
}

/* A target that is the door itself would call the door again, and again. */
static int check_no_loop(const struct config_values *values, const struct node_config *config,
			 uint32_t i, const struct door_rule *rule, struct error *reterr)
{
	if (rule->member[0] == '\0' && is_the_door(config, &rule->address))
		return config_error_at(values, "frontdoor", "host", i, reterr,
				       "%s is the front door itself; name the port of the server behind it",
				       endpoint_text(&rule->address).s);
	return 0;
}

static int take_door_hosts(const struct config_values *values, struct node_config *config, struct error *reterr)
{
	struct door_rule rule;
	struct error why;
	int r = 0;

	config->n_door_hosts = config_count(values, "frontdoor", "host");
	struct door_routes *routes = door_routes_new(config->n_door_hosts);
	for (uint32_t i = 0; i < config->n_door_hosts && r == 0; i++) {
		const char *text = config_item(values, "frontdoor", "host", i);
		snprintf(config->door_hosts[i], sizeof(config->door_hosts[i]), "%s", text);
		r = door_rule_parse(text, &rule, reterr);
		if (r == 0)
			r = check_no_loop(values, config, i, &rule, reterr);
		if (r == 0 && check_no_own_name(config, &rule.host, &why) != 0)
			r = config_error_at(values, "frontdoor", "host", i, reterr, "%s", why.message);
		if (r == 0 && door_routes_add(routes, &rule, &rule.address) != 0)
			r = config_error_at(values, "frontdoor", "host", i, reterr,
					    "'%.80s': this host has a target already; keep one for http and one for "
					    "https, or one for both", text);
	}
	door_routes_free(routes);
	return r;
}

struct used_port {
	uint16_t port; /* 0: none */
	const char *whose;
};

/* Of those that may lead to members: one that this node has itself, by its configuration; NULL: none. */
static const struct used_port *find_used(const struct port_ranges *ranges, const struct used_port *used, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (used[i].port != 0 && port_ranges_have(ranges, used[i].port))
			return &used[i];
	return NULL;
}

static int refuse_used(const struct config_values *values, const char *key, const struct used_port *used, struct error *reterr)
{
	return used ? config_error(values, "frontdoor", key, reterr, "port %u is %s; leave it out", used->port, used->whose) : 0;
}

static uint16_t port_of_place(const struct config_values *values, const char *section, const char *key)
{
	const char *text = config_text(values, section, key);
	struct endpoint place = { 0 };

	if (!config_has_section(values, section) || text[0] == '\0' || parse_place(text, &place, NULL) != 0)
		return 0;
	return place.port;
}

static int take_door_ports(const struct config_values *values, struct node_config *config, struct error *reterr)
{
	struct used_port tcp[DOOR_MAX_LISTEN + 8] = {
		{ config->is_public ? config->tls_port : 0, "the relay's" },
		{ config->metrics.port, "where metrics are served" },
		{ port_of_place(values, "webgw", "listen"), "webgw's" },
		{ port_of_place(values, "webgw", "dial_back"), "webgw's" },
		{ port_of_place(values, "webgw", "tls_listen"), "webgw's" },
		{ port_of_place(values, "webgw", "tls_dial_back"), "webgw's" },
		{ port_of_place(values, "diglett", "listen"), "diglett's" },
		{ port_of_place(values, "diglett", "info"), "diglett's" },
	};
	struct used_port udp[DOOR_MAX_LISTEN + 4] = {
		{ config->listen_port, "WireGuard's" },
		{ config->is_public ? config->stun_port : 0, "the STUN server's" },
		{ config->is_public ? (uint16_t)(config->stun_port + 1) : 0, "the STUN server's second" }, /* 65535 has none */
		{ config->lan_discovery ? LAN_DISCOVERY_PORT : 0, "the LAN discovery's" },
	};
	struct port_ranges tcp_ports, udp_ports;

	for (uint32_t i = 0; i < config->n_door_listen; i++) {
		tcp[8 + i] = (struct used_port){ config->door_listen[i].port, "the front door's own" };
		if (config->door_quic && config->door_listen[i].port != 80)
			udp[4 + i] = (struct used_port){ config->door_listen[i].port, "the front door's own, for QUIC" };
	}
	snprintf(config->door_tcp_ports, sizeof(config->door_tcp_ports), "%s", config_text(values, "frontdoor", "tcp_ports"));
	snprintf(config->door_udp_ports, sizeof(config->door_udp_ports), "%s", config_text(values, "frontdoor", "udp_ports"));
	int r = port_ranges_parse(config->door_tcp_ports, &tcp_ports, reterr);
	if (r == 0)
		r = port_ranges_parse(config->door_udp_ports, &udp_ports, reterr);
	if (r == 0)
		r = refuse_used(values, "tcp_ports", find_used(&tcp_ports, tcp, ARRAY_LEN(tcp)), reterr);
	return r == 0 ? refuse_used(values, "udp_ports", find_used(&udp_ports, udp, ARRAY_LEN(udp)), reterr) : r;
}

static int take_front_door(const struct config_values *values, struct node_config *config, struct error *reterr)
{
	config->door_quic = config_bool(values, "frontdoor", "quic");
	config->max_visitors = (uint32_t)config_number(values, "frontdoor", "max_visitors");
	config->max_visitors_source = (uint32_t)config_number(values, "frontdoor", "max_visitors_source");
	config->has_front_door = config_has_section(values, "frontdoor");
	int r = door_listen_parse(config_text(values, "frontdoor", "listen"), config->door_listen,
				  &config->n_door_listen, reterr);
	if (r != 0 || !config->has_front_door)
		return r;
	for (uint32_t i = 0; i < config->n_door_listen; i++)
		if (is_in_the_relays_way(config, &config->door_listen[i]))
			return config_error(values, "frontdoor", "listen", reterr,
					    "the relay has TCP port %u at all addresses, and the front door at one of them; "
					    "write the port alone in listen, or name the relay's addresses in [public]",
					    config->tls_port);
	const uint16_t of_stun = port_of_stun(config);
	if (config->door_quic && of_stun != 0)
		return config_error(values, "frontdoor", "quic", reterr,
				    "UDP port %u is the STUN server's%s; put another into stun_port in [public], or say "
				    "quic = no", of_stun, of_stun == config->stun_port ? "" : " second");
	r = take_door_ports(values, config, reterr);
	return r == 0 ? take_door_hosts(values, config, reterr) : r;
}

struct exposure_rings node_config_rings(const struct node_config *config,
					bool (*leads_to)(const struct endpoint *places, uint32_t n, const struct endpoint *target))
{
	struct exposure_rings rings = { .n_listen = config->has_front_door ? config->n_door_listen : 0, .leads_to = leads_to };

	memcpy(rings.listen, config->door_listen, sizeof(rings.listen));
	if (rings.n_listen > 0 && (port_ranges_parse(config->door_tcp_ports, &rings.tcp_ports, NULL) != 0 ||
				   port_ranges_parse(config->door_udp_ports, &rings.udp_ports, NULL) != 0))
		abort(); /* they were read before */
	return rings;
}

int node_config_check_rings(const struct node_config *config, const struct exposure_rings *rings, struct error *reterr)
{
	struct exposure_list *list = calloc(1, sizeof(*list));
	struct exposure exposure;
	struct error why;
	int r = 0;

	if (!list)
		abort();
	for (uint32_t i = 0; i < config->n_exposures && r == 0; i++) {
		r = exposure_parse(config->exposures[i], &exposure, &why);
		if (r == 0)
			r = exposure_list_add(list, &exposure, config->exposure_places[i], &why);
		if (r == 0)
			r = exposure_rings_check(rings, list, &exposure, &why);
		if (r != 0)
			(void)error_set(reterr, r, "%s: '%.80s': %s", config->exposure_places[i], config->exposures[i], why.message);
	}
	free(list);
	return r;
}

/* All of them as one list, so that two that are in each other's way are told. */
static int take_exposures(const struct config_values *values, struct node_config *config, struct error *reterr)
{
	const struct exposure_rings rings = node_config_rings(config, exposure_rings_by_text);
	struct exposure_list *list = calloc(1, sizeof(*list));
	int r = 0;

	if (!list)
		abort();
	config->n_exposures = config_count(values, "expose", "service");
	for (uint32_t i = 0; i < config->n_exposures && r == 0; i++) {
		const char *text = config_item(values, "expose", "service", i);
		struct exposure exposure;
		struct error why;
		snprintf(config->exposures[i], sizeof(config->exposures[i]), "%s", text);
		snprintf(config->exposure_places[i], sizeof(config->exposure_places[i]), "%s:%u", values->file,
			 config_line(values, "expose", "service", i));
		r = exposure_parse(text, &exposure, &why);
		if (r == 0)
			r = check_no_own_name(config, &exposure.host, &why);
		if (r == 0)
			r = exposure_list_add(list, &exposure, config->exposure_places[i], &why);
		if (r == 0)
			r = exposure_rings_check(&rings, list, &exposure, &why);
		if (r != 0)
			r = config_error_at(values, "expose", "service", i, reterr, "'%.80s': %s", text, why.message);
	}
	free(list);
	return r;
}

static void take_acme(const struct config_values *values, struct acme_settings *ret)
{
	snprintf(ret->directory, sizeof(ret->directory), "%s", config_text(values, "acme", "directory"));
	snprintf(ret->contact, sizeof(ret->contact), "%s", config_text(values, "acme", "contact"));
	snprintf(ret->ca_file, sizeof(ret->ca_file), "%s", config_text(values, "acme", "ca_file"));
	ret->agrees = config_bool(values, "acme", "agree_terms");
	ret->retry_s = (uint32_t)config_number(values, "acme", "retry");
	if (parse_acme_challenge(config_text(values, "acme", "challenge"), &ret->challenge) != 0)
		ret->challenge = ACME_TLS_ALPN_01; /* not reached: the schema checked it */
}

static int take_webgw(const struct config_values *values, struct node_config *config, struct error *reterr)
{
	int r;

	config->has_webgw = config_has_section(values, "webgw");
	snprintf(config->webgw_admin, sizeof(config->webgw_admin), "%s", config_text(values, "webgw", "admin"));
	config->n_webgw_hosts = config_count(values, "webgw", "host");
	for (uint32_t i = 0; i < config->n_webgw_hosts; i++)
		snprintf(config->webgw_hosts[i], sizeof(config->webgw_hosts[i]), "%s",
			 config_item(values, "webgw", "host", i));
	if ((r = parse_place(config_text(values, "webgw", "listen"), &config->webgw_listen, reterr)) != 0 ||
	    (r = parse_place(config_text(values, "webgw", "dial_back"), &config->webgw_dial_back, reterr)) != 0)
		return r;
	if (config_text(values, "webgw", "tls_listen")[0] != '\0' &&
	    ((r = parse_place(config_text(values, "webgw", "tls_listen"), &config->webgw_tls_listen, reterr)) != 0 ||
	     (r = parse_place(config_text(values, "webgw", "tls_dial_back"), &config->webgw_tls_dial_back, reterr)) != 0))
		return r;
	if (!config->has_webgw)
		return 0;
	if (!config->has_front_door)
		return config_error(values, "webgw", "host", reterr,
				    "[webgw] is for visitors of the front door: write a section [frontdoor] as well");
	if (!endpoint_is_loopback(&config->webgw_listen) && !endpoint_is_private(&config->webgw_listen) &&
	    !config_bool(values, "webgw", "allow_plaintext"))
		return config_error(values, "webgw", "listen", reterr,
				    "what agents are told there is not encrypted: who sees it can take their visitors. "
				    "Listen at an address of the overlay, of loopback or a private one, or write "
				    "allow_plaintext = yes");
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
	config.port_mapping = config_bool(values, "node", "port_mapping");
	config.lan_discovery = config_bool(values, "node", "lan_discovery");
	config.offloads = take_offloads(values);
	r = take_turn(values, &config.turn, reterr);
	if (r == 0)
		r = log_level_parse(config_text(values, "node", "log_level"), &config.log_level);
	if (r == 0)
		r = wireguard_kind_parse(config_text(values, "node", "wireguard"), &config.wireguard);
	if (r == 0 && config.mtu == 0)
		config.mtu = MTU_AUTOMATIC;
	if (r == 0)
		r = take_public(values, &config, reterr);
	if (r == 0)
		r = take_front_door(values, &config, reterr);
	if (r == 0)
		r = take_exposures(values, &config, reterr);
	take_acme(values, &config.acme);
	if (r == 0)
		r = diglett_settings_take(values, &config.diglett, reterr);
	if (r == 0)
		r = webgw_agent_settings_take(values, &config.webgw_agent, reterr);
	if (r == 0)
		r = take_webgw(values, &config, reterr);
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
