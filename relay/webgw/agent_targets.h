/*
 * Where a webgw agent's visitors go, of one host: those without TLS, and those with it. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "relay/frontdoor/door_routes.h"

#include <stdbool.h>

/* Port 0: there is none, and who comes for it is reset. */
struct webgw_agent_targets {
	struct endpoint http, https;
	enum door_header http_header, https_header; /* that it gets before a visitor's first bytes */
};

#define WEBGW_AGENT_TARGETS_LEN 191

/* Has one of them to be told who its visitors are? */
bool webgw_agent_targets_want_visitors(const struct webgw_agent_targets *targets);

/* For people: "127.0.0.1:8080", or "http://127.0.0.1:80 https://127.0.0.1:443 proxy=v2", or one of both. */
void webgw_agent_targets_text(const struct webgw_agent_targets *targets, char ret[WEBGW_AGENT_TARGETS_LEN + 1]);
