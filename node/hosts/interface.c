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

static struct link_prefix network_of(const struct link_prefix *address)
{
	const uint32_t n_bits = address->family == AF_INET ? 32 : 128;
	struct link_prefix network = *address;

	for (uint32_t bit = address->len; bit < n_bits; bit++)
		network.ip[bit / 8] &= (uint8_t)~(0x80u >> bit % 8);
	return network;
}

static int add_address(int ifindex, const struct link_prefix *address, uint32_t route_mtu, struct error *reterr)
{
	const struct link_prefix network = network_of(address);
	int r;

	if (route_mtu == 0)
		return link_add_address(ifindex, address, reterr);
	if ((r = link_add_address_alone(ifindex, address, reterr)) != 0 ||
	    (r = link_add_network_mtu(ifindex, &network, address->ip, route_mtu, reterr)) != 0)
		return r;
	/* Has the address been there already, the kernel's route without an MTU would stay in front. */
	return link_remove_kernel_route(ifindex, &network, address->ip, reterr);
}

int wireguard_renew_routes(int ifindex, const struct membership *member, uint32_t route_mtu, bool has_ip6,
			   struct error *reterr)
{
	const struct link_prefix ip4 = prefix_of(AF_INET, &member->ip4, member->prefix4_len);
	const struct link_prefix ip6 = prefix_of(AF_INET6, &member->ip6, member->prefix6_len);
	const struct link_prefix net4 = network_of(&ip4), net6 = network_of(&ip6);
	struct error ignored; /* the kernel takes the address away with the interface down */

	if (has_ip6)
		(void)!link_add_network_mtu(ifindex, &net6, ip6.ip, route_mtu, &ignored);
	return link_add_network_mtu(ifindex, &net4, ip4.ip, route_mtu, reterr);
}

int wireguard_set_up_interface(int ifindex, const struct wireguard_host_options *options, uint32_t route_mtu,
			       bool *ret_has_ip6, struct error *reterr)
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
	*ret_has_ip6 = add_address(ifindex, &ip6, route_mtu, &error) == 0;
	if (!*ret_has_ip6)
		log_warning("node", "no IPv6 in the overlay: %s", error.message);
	return 0;
}
