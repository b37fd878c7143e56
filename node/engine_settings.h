/*
 * What the configuration says, in the words of the engine: p2p_engine_options are strings and lists of them, since the
 * engine belongs to the library, which knows no configuration file. Pure, but for the environment variable
 * P2P_OFFLOADS, which goes before the file.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "node/config.h"
#include "node/engine.h"
#include "node/exposure_list.h"
#include "node/wireguard/offload_switches.h"
#include "relay/frontdoor/front_door.h"

/* The options, and the texts that they point to. Not to be copied. */
struct engine_settings {
	struct p2p_engine_options options;

	char offloads[OFFLOAD_SWITCHES_TEXT];
	struct endpoint_text turn_server;
	struct endpoint_text public_texts[MAP_MAX_ADDRESSES];
	const char *public_addresses[MAP_MAX_ADDRESSES + 1];
	const char *door_hosts[CONFIG_FILE_MAX_ITEMS + 1];
	char door_listen[DOOR_MAX_LISTEN * sizeof(struct endpoint_text)];
	const char *webgw_hosts[CONFIG_FILE_MAX_ITEMS + 1];
	struct endpoint_text webgw_listen, webgw_dial_back, webgw_tls_listen, webgw_tls_dial_back;
	const char *exposures[EXPOSURE_MAX + 1], *exposure_places[EXPOSURE_MAX + 1];
};

/*
 * Fills `ret`; config must live as long as that. What is the caller's alone (state_dir, public_sockets) stays unset.
 * 0 or -errno with the reason in reterr: P2P_OFFLOADS says something that is not understood.
 */
P2P_CHECK int engine_settings_make(struct engine_settings *ret, const struct node_config *config, struct error *reterr);
