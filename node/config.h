/*
 * The configuration of p2pnode: what p2pnode.conf(5) describes, as a plain struct.
 *
 * Everything has a default, so that no file is needed. A [public] section, even an empty one, makes the
 * node a public one: it serves STUN and the relay, at the addresses named there or at all of the machine. A
 * [frontdoor] section, even an empty one, opens the front door.
 */
#pragma once

#include "common/config_file.h"
#include "common/endpoint.h"
#include "common/error.h"
#include "common/log.h"
#include "common/map.h"
#include "node/acme/acme.h"
#include "node/diglett/diglett_settings.h"
#include "node/webgw_agent_settings.h"
#include "node/wireguard/offload_switches.h"
#include "node/turn_helper.h"
#include "node/wireguard_kind.h"
#include "node/exposure_list.h"
#include "node/exposure_rings.h"
#include "relay/frontdoor/door_routes.h"
#include "relay/webgw/admin_wire.h"
#include "relay/webgw/webgw_wire.h"

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#define NODE_CONFIG_DEFAULT_PATH "/etc/p2pnode/p2pnode.conf"

struct node_config {
	/* [node] */
	char name[MAP_NAME_LEN + 1]; /* wished for at join; "": the host's name */
	char interface[IF_NAMESIZE];
	enum wireguard_kind wireguard;
	uint16_t listen_port; /* UDP; 0: the last one used, else any */
	uint16_t mtu;
	unsigned lanes; /* threads that move packets; 0: as many as suit the machine */
	bool port_mapping; /* the router is asked to forward our port */
	bool lan_discovery; /* peers on the same link are called when control is away */
	enum log_level log_level;
	/* [turn] */
	struct turn_settings turn;
	/* [offloads] */
	struct offload_switches offloads;
	/* [public] */
	bool is_public;
	uint32_t n_addresses; /* 0: those of the machine */
	struct endpoint addresses[MAP_MAX_ADDRESSES]; /* port 0 */
	uint16_t tls_port, stun_port;
	uint64_t max_rate_client, max_rate; /* of relayed packets, bits a second; 0: no limit */
	uint32_t stun_rate; /* questions a second of one network */
	struct endpoint metrics;	    /* where they are served; port 0: nowhere */
	/* [frontdoor] */
	bool has_front_door;
	uint32_t n_door_listen;
	struct endpoint door_listen[DOOR_MAX_LISTEN];
	uint32_t n_door_hosts;
	char door_hosts[CONFIG_FILE_MAX_ITEMS][CONFIG_FILE_MAX_VALUE + 1]; /* for door_rule_parse() */
	char door_tcp_ports[CONFIG_FILE_MAX_VALUE + 1], door_udp_ports[CONFIG_FILE_MAX_VALUE + 1]; /* for port_ranges_parse() */
	bool door_quic;
	uint32_t max_visitors, max_visitors_source;			     /* 0: as suits the machine */
	/* [expose] */
	uint32_t n_exposures;
	char exposures[EXPOSURE_MAX][CONFIG_FILE_MAX_VALUE + 1];	    /* for exposure_parse() */
	char exposure_places[EXPOSURE_MAX][EXPOSURE_PLACE_LEN + 1]; /* "FILE:LINE" */
	/* [acme] */
	struct acme_settings acme;
	/* [diglett], [diglett-agent] */
	struct diglett_settings diglett;
	/* [webgw-agent] */
	struct webgw_agent_settings webgw_agent;
	/* [webgw] */
	bool has_webgw;
	struct endpoint webgw_listen, webgw_dial_back;
	struct endpoint webgw_tls_listen, webgw_tls_dial_back; /* none: not within TLS */
	char webgw_admin[WEBGW_ADMIN_PATH_LEN + 1]; /* a path, or a name beside the node's socket; empty: none */
	uint32_t n_webgw_hosts;
	char webgw_hosts[CONFIG_FILE_MAX_ITEMS][CONFIG_FILE_MAX_VALUE + 1]; /* for webgw_rule_parse() */
};

/* All defaults. */
void node_config_init(struct node_config *ret);
/* Text of a file: 0 or -EINVAL, -EFBIG with "FILE:LINE: …" in reterr. *ret only on success. Pure. */
P2P_CHECK int node_config_parse(const char *file, const char *text, size_t len, struct node_config *ret,
				struct error *reterr);
/*
 * Reads the file. -ENOENT (reterr names path and remedy) when it does not exist: whoever named it on the
 * command line meant it; p2pnode started without --config takes the defaults then.
 */
P2P_CHECK int node_config_load(const char *path, struct node_config *ret, struct error *reterr);
/* What it says of its front door; none, if it has none. */
struct exposure_rings node_config_rings(const struct node_config *config,
					bool (*leads_to)(const struct endpoint *places, uint32_t n, const struct endpoint *target));
/*
 * Again, with what only this machine knows: is an exposure's target the front door by another address of its? 0, or -EINVAL with
 * "FILE:LINE: …" in reterr.
 */
P2P_CHECK int node_config_check_rings(const struct node_config *config, const struct exposure_rings *rings, struct error *reterr);
/* A commented file with all defaults (p2pnode --show-defaults); the caller frees it. */
char *node_config_defaults_text(void);
/* For tests and the manual page. */
const struct config_schema *node_config_schema(void);
