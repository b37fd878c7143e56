/*
 * What the NAT before the node does (actors/endpoint_manager/nat_behaviour_fsm.h), as a part of its status. Pure.
 *
 * JSON, a value that is not known being null:
 *   { "age_ms", "outside": "203.0.113.5",
 *     "mapping", "filtering": "no NAT", "endpoint-independent", "address-dependent", "address-and-port-dependent",
 *     "hairpin": true, "port_preservation": true, "ports": "same", "steps", "random", "port_step": 2,
 *     "unknown": {"mapping": "why it is not known", "filtering", "hairpin", "ports"} }
 */
#pragma once

#include "actors/endpoint_manager/nat_behaviour_fsm.h"
#include "common/error.h"
#include "common/json.h"

struct node_nat_behaviour {
	int64_t age_ms; /* of what was found; < 0: nothing was */
	struct nat_findings findings; /* at_ns is of no meaning here */
};

/* Nothing is known, because nobody has told yet. */
void node_nat_behaviour_init(struct node_nat_behaviour *behaviour);
struct json *node_nat_behaviour_to_json(const struct node_nat_behaviour *behaviour);
/* 0 or -EINVAL with the member in reterr. */
P2P_CHECK int node_nat_behaviour_from_json(const struct json *json, struct node_nat_behaviour *ret,
					   struct error *reterr);

/* "" for unknown. */
const char *nat_dependence_name(enum nat_dependence dependence);
/* Why something is not known, for people: a clause. "" when it is. */
const char *nat_unknown_name(enum nat_unknown unknown);
