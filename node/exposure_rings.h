/*
 * Would who is led to what this node publishes come to its own front door, and be led there again?
 *
 *   visitor ──► front door ──► acceptor ──► target ─┬─► a server
 *                  ▲                                └─► a place of the door, or one of its ports ──┐
 *                  └───────────────────────────────────────────────────────────────────────────────┘
 *
 * A port that leads to another port of the door is in a ring if that one leads back, by however many more.
 *
 * Pure, as far as leads_to is.
 */
#pragma once

#include "node/exposure_list.h"

struct exposure_rings {
	uint32_t n_listen; /* 0: there is no front door */
	struct endpoint listen[DOOR_MAX_LISTEN];
	struct port_ranges tcp_ports, udp_ports; /* that the door may open */
	/* Would who is led to target come to one of these places? As exposure_rings_by_text(), or front_door_leads_back(). */
	bool (*leads_to)(const struct endpoint *places, uint32_t n, const struct endpoint *target);
};

/* As far as it can be told without the machine's addresses. */
bool exposure_rings_by_text(const struct endpoint *places, uint32_t n, const struct endpoint *target);
bool exposure_rings_is_door(const struct exposure_rings *rings, const struct endpoint *target);
/* list: what is published besides. */
bool exposure_rings_is_port(const struct exposure_rings *rings, const struct exposure_list *list, const struct exposure *exposure);
/* Both. 0, or -EINVAL with what to do in reterr. */
P2P_CHECK int exposure_rings_check(const struct exposure_rings *rings, const struct exposure_list *list,
				   const struct exposure *exposure, struct error *reterr);
