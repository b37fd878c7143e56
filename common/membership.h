/*
 * What control gives a node that has joined: enough to come back without the join link.
 *
 * JSON, as in the answer to node.join and in membership.json: {"node_id", "name", "network",
 * "address4", "prefix4", "address6", "prefix6", "ca", "certificate"}. Pure.
 */
#pragma once

#include "common/error.h"
#include "common/json.h"
#include "common/map.h"

#include <netinet/in.h>
#include <stdint.h>

#define MEMBERSHIP_MAX_PEM 8192

struct membership {
	uint32_t node_id;
	char name[MAP_NAME_LEN + 1];
	char network[MAP_NAME_LEN + 1];
	struct in_addr ip4, prefix4; /* network order */
	uint8_t prefix4_len;
	struct in6_addr ip6, prefix6;
	uint8_t prefix6_len;
	char ca_pem[MEMBERSHIP_MAX_PEM];
	char certificate_pem[MEMBERSHIP_MAX_PEM];
};

struct json *membership_to_json(const struct membership *membership);
P2P_CHECK int membership_from_json(const struct json *json, struct membership *ret,
				   struct error *reterr);
