#include "node/engine_settings.h"

#include <stdio.h>
#include <string.h>

static void set_machine(struct engine_settings *ret, const struct node_config *config)
{
	struct p2p_engine_options *options = &ret->options;

	options->interface = config->interface;
	options->wireguard = wireguard_kind_name(config->wireguard);
	options->name = config->name[0] ? config->name : NULL;
	options->listen_port = config->listen_port;
	options->mtu = config->mtu;
	options->offloads = ret->offloads;
	options->lanes = config->lanes;
	options->no_port_mapping = !config->port_mapping;
	options->no_lan_discovery = !config->lan_discovery;
}

static void set_turn(struct engine_settings *ret, const struct node_config *config)
{
	struct p2p_engine_options *options = &ret->options;

	ret->turn_server = endpoint_text(&config->turn.server);
	options->turn_server = endpoint_is_none(&config->turn.server) ? NULL : ret->turn_server.s;
	options->turn_user = config->turn.user;
	options->turn_password_file = config->turn.password_file;
}

static void set_public(struct engine_settings *ret, const struct node_config *config)
{
	struct p2p_engine_options *options = &ret->options;

	for (uint32_t i = 0; config->is_public && i < config->n_addresses; i++) {
		ret->public_texts[i] = endpoint_ip_text(&config->addresses[i]);
		ret->public_addresses[i] = ret->public_texts[i].s;
	}
	options->public_addresses = config->is_public ? ret->public_addresses : NULL;
	options->public_tls_port = config->tls_port;
	options->public_stun_port = config->stun_port;
	options->public_stun_rate = config->stun_rate;
	options->public_max_rate_client = config->max_rate_client;
	options->public_max_rate = config->max_rate;
}

/* As door_listen_parse() reads it. */
static void print_places(const struct node_config *config, char *ret, size_t size)
{
	size_t len = 0;

	ret[0] = '\0';
	for (uint32_t i = 0; i < config->n_door_listen; i++)
		len += (size_t)snprintf(ret + len, size - len, "%s%s", i > 0 ? "," : "",
					endpoint_text(&config->door_listen[i]).s);
}

static void set_front_door(struct engine_settings *ret, const struct node_config *config)
{
	struct p2p_engine_options *options = &ret->options;

	for (uint32_t i = 0; i < config->n_door_hosts; i++)
		ret->door_hosts[i] = config->door_hosts[i];
	print_places(config, ret->door_listen, sizeof(ret->door_listen));
	options->front_door_hosts = config->has_front_door ? ret->door_hosts : NULL;
	options->front_door_listen = ret->door_listen;
	options->front_door_no_quic = !config->door_quic;
	options->front_door_tcp_ports = config->door_tcp_ports;
	options->front_door_udp_ports = config->door_udp_ports;
	options->front_door_max_visitors = config->max_visitors;
	options->front_door_max_visitors_source = config->max_visitors_source;
}

static void set_webgw(struct engine_settings *ret, const struct node_config *config)
{
	struct p2p_engine_options *options = &ret->options;

	for (uint32_t i = 0; i < config->n_webgw_hosts; i++)
		ret->webgw_hosts[i] = config->webgw_hosts[i];
	ret->webgw_listen = endpoint_text(&config->webgw_listen);
	ret->webgw_dial_back = endpoint_text(&config->webgw_dial_back);
	options->webgw_hosts = config->has_webgw ? ret->webgw_hosts : NULL;
	options->webgw_listen = ret->webgw_listen.s;
	options->webgw_dial_back = ret->webgw_dial_back.s;
	if (endpoint_is_none(&config->webgw_tls_listen))
		return;
	ret->webgw_tls_listen = endpoint_text(&config->webgw_tls_listen);
	ret->webgw_tls_dial_back = endpoint_text(&config->webgw_tls_dial_back);
	options->webgw_tls_listen = ret->webgw_tls_listen.s;
	options->webgw_tls_dial_back = ret->webgw_tls_dial_back.s;
}

static void set_exposures(struct engine_settings *ret, const struct node_config *config)
{
	for (uint32_t i = 0; i < config->n_exposures; i++) {
		ret->exposures[i] = config->exposures[i];
		ret->exposure_places[i] = config->exposure_places[i];
	}
	ret->options.exposures = ret->exposures;
	ret->options.exposure_places = ret->exposure_places;
}

static void set_acme(struct p2p_engine_options *options, const struct acme_settings *acme)
{
	options->acme_directory = acme->directory;
	options->acme_contact = acme->contact;
	options->acme_ca_file = acme->ca_file;
	options->acme_http_01 = acme->challenge == ACME_HTTP_01;
	options->acme_agrees = acme->agrees;
	options->acme_retry_s = acme->retry_s;
}

int engine_settings_make(struct engine_settings *ret, const struct node_config *config, struct error *reterr)
{
	struct offload_switches switches = config->offloads;
	const int r = offload_switches_from_environment(&switches, reterr);

	if (r != 0)
		return error_prefix(reterr, "$P2P_OFFLOADS"), r;
	memset(ret, 0, sizeof(*ret));
	offload_switches_print(&switches, ret->offloads);
	set_machine(ret, config);
	set_turn(ret, config);
	set_public(ret, config);
	set_front_door(ret, config);
	set_webgw(ret, config);
	set_exposures(ret, config);
	set_acme(&ret->options, &config->acme);
	return 0;
}
