/*
 * The sections [diglett] and [diglett-agent] of p2pnode.conf(5). Pure.
 */
#pragma once

#include "common/config_file.h"
#include "common/endpoint.h"
#include "relay/diglett/noise_xk.h"
#include "relay/diglett/request_wire.h"

#define DIGLETT_PATH_LEN CONFIG_FILE_MAX_VALUE
#define DIGLETT_HOST_LEN 255

struct diglett_settings {
	bool is_server; /* [diglett] */
	bool allow_v1;
	struct endpoint listen, info;
	char domain[HOST_NAME_MAX_LEN + 1];
	char tokens[DIGLETT_PATH_LEN + 1], script[DIGLETT_PATH_LEN + 1];
	bool is_agent; /* [diglett-agent] */
	char host[DIGLETT_HOST_LEN + 1];
	uint16_t port;
	struct noise_public server_key;
	char token_file[DIGLETT_PATH_LEN + 1], extra[DIGLETT_PATH_LEN + 1];
	uint8_t n_ports;
	struct host_name names[DIGLETT_MAX_PORTS];
	struct endpoint targets[DIGLETT_MAX_PORTS];
};

/* For the schema: each value by itself. */
int diglett_check_listen(const char *value, struct error *reterr);
int diglett_check_info(const char *value, struct error *reterr);
int diglett_check_domain(const char *value, struct error *reterr);
int diglett_check_path(const char *value, struct error *reterr);
int diglett_check_server(const char *value, struct error *reterr);
int diglett_check_key(const char *value, struct error *reterr);
int diglett_check_expose(const char *value, struct error *reterr);
int diglett_check_extra(const char *value, struct error *reterr);

/* "gate.example.org:20000", "[2001:db8::1]:20000"; host: of DIGLETT_HOST_LEN + 1. 0 or -EINVAL. */
P2P_CHECK int diglett_parse_server(const char *value, char *host, uint16_t *port);

/* All together. 0 or -EINVAL. */
P2P_CHECK int diglett_settings_take(const struct config_values *values, struct diglett_settings *ret,
				    struct error *reterr);
