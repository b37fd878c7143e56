#include "node/exposure_rings.h"

#include <errno.h>

bool exposure_rings_by_text(const struct endpoint *places, uint32_t n, const struct endpoint *target)
{
	return door_listens_at(places, n, target, endpoint_is_loopback(target));
}

bool exposure_rings_is_door(const struct exposure_rings *rings, const struct endpoint *target)
{
	return rings->n_listen > 0 && rings->leads_to(rings->listen, rings->n_listen, target);
}

/* Does this one of a port lead to our front door, to a port of its kind that may be open there? Then to which. */
static bool leads_to_port(const struct exposure_rings *rings, const struct exposure *exposure, struct port_name *ret)
{
	const struct endpoint place = { .port = exposure->target.port };

	if (rings->n_listen == 0 || !exposure_is_port(exposure, ret))
		return false;
	ret->number = place.port;
	return port_ranges_have(ret->kind == PORT_TCP ? &rings->tcp_ports : &rings->udp_ports, ret->number) &&
	       rings->leads_to(&place, 1, &exposure->target);
}

bool exposure_rings_is_port(const struct exposure_rings *rings, const struct exposure_list *list, const struct exposure *exposure)
{
	const struct exposure *at = exposure;
	const struct exposure_item *item;
	struct port_name own, next;
	struct host_name name;

	if (!exposure_is_port(exposure, &own))
		return false;
	for (uint32_t i = 0; i <= EXPOSURE_MAX && leads_to_port(rings, at, &next); i++) {
		if (port_name_equal(&next, &own))
			return true;
		port_name_to_host(&next, &name);
		item = exposure_list_find(list, next.kind == PORT_TCP ? DOOR_TCP : DOOR_UDP, &name);
		if (!item)
			return false;
		at = &item->exposure;
	}
	return false;
}

int exposure_rings_check(const struct exposure_rings *rings, const struct exposure_list *list, const struct exposure *exposure,
			 struct error *reterr)
{
	if (!exposure_rings_is_door(rings, &exposure->target) && !exposure_rings_is_port(rings, list, exposure))
		return 0;
	return error_set(reterr, -EINVAL, "%s is the front door itself; name the port of the server behind it",
			 endpoint_text(&exposure->target).s);
}
