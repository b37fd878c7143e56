/* What all hosts have in common: how the interface is set up. */
#include "node/wireguard_host.h"

#include "common/log.h"
#include "node/wireguard/link.h"

#include <string.h>

static struct link_prefix prefix_of(int family, const void *ip, uint8_t len)
{
	struct link_prefix prefix = { .family = family, .len = len };

	memcpy(prefix.ip, ip, family == AF_INET ? 4 : 16);
	return prefix;
}

static int add_address(int ifindex, const struct link_prefix *address, uint32_t route_mtu, struct error *reterr)
{
	struct link_prefix network = *address;
	const uint32_t n_bits = address->family == AF_INET ? 32 : 128;
	int r;

	if (route_mtu == 0)
		return link_add_address(ifindex, address, reterr);
	for (uint32_t bit = address->len; bit < n_bits; bit++)
		network.ip[bit / 8] &= (uint8_t)~(0x80u >> bit % 8);
	r = link_add_address_alone(ifindex, address, reterr);
	return r != 0 ? r : link_set_route_mtu(ifindex, &network, route_mtu, reterr);
}

int wireguard_set_up_interface(int ifindex, const struct wireguard_host_options *options, uint32_t route_mtu,
			       struct error *reterr)
{
	const struct membership *member = options->membership;
	const struct link_prefix ip4 = prefix_of(AF_INET, &member->ip4, member->prefix4_len);
	const struct link_prefix ip6 = prefix_of(AF_INET6, &member->ip6, member->prefix6_len);
	int r;

	if ((r = link_set_mtu(ifindex, options->mtu, reterr)) != 0 ||
	    (r = link_set_up(ifindex, true, reterr)) != 0 ||
	    (r = add_address(ifindex, &ip4, route_mtu, reterr)) != 0)
		return r;
	struct error error;
	if (add_address(ifindex, &ip6, route_mtu, &error) != 0)
		log_warning("node", "no IPv6 in the overlay: %s", error.message);
	return 0;
}
