/*
 * The section [webgw-agent] of p2pnode.conf(5). Pure.
 */
#pragma once

#include "common/config_file.h"
#include "relay/webgw/webgw_agent.h"

#define WEBGW_AGENT_SERVER_LEN 255

struct webgw_agent_settings {
	bool is_agent;
	char server[WEBGW_AGENT_SERVER_LEN + 1];
	uint16_t port;
	struct pin pin;
	char secret_file[CONFIG_FILE_MAX_VALUE + 1];
	uint8_t n_warm, n_hosts;
	struct host_pattern hosts[WEBGW_AGENT_MAX_HOSTS];
	struct webgw_agent_targets targets[WEBGW_AGENT_MAX_HOSTS];
};

/* For the schema: each value by itself. */
int webgw_agent_check_server(const char *value, struct error *reterr);
int webgw_agent_check_pin(const char *value, struct error *reterr);
int webgw_agent_check_expose(const char *value, struct error *reterr);

/* All together. 0 or -EINVAL. */
P2P_CHECK int webgw_agent_settings_take(const struct config_values *values, struct webgw_agent_settings *ret,
					struct error *reterr);
