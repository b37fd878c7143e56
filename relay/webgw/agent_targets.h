/*
 * Where a webgw agent's visitors go, of one host: those without TLS, and those with it. Pure.
 */
#pragma once

#include "common/endpoint.h"

/* Port 0: there is none, and who comes for it is reset. */
struct webgw_agent_targets {
	struct endpoint http, https;
};

#define WEBGW_AGENT_TARGETS_LEN 159

/* For people: "127.0.0.1:8080", or "http://127.0.0.1:80 https://127.0.0.1:443", or one of both. */
void webgw_agent_targets_text(const struct webgw_agent_targets *targets, char ret[WEBGW_AGENT_TARGETS_LEN + 1]);
