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

int wireguard_set_up_interface(int ifindex, const struct wireguard_host_options *options, struct error *reterr)
{
	const struct membership *member = options->membership;
	const struct link_prefix ip4 = prefix_of(AF_INET, &member->ip4, member->prefix4_len);
	const struct link_prefix ip6 = prefix_of(AF_INET6, &member->ip6, member->prefix6_len);
	int r;

	if ((r = link_set_mtu(ifindex, options->mtu, reterr)) != 0 ||
	    (r = link_add_address(ifindex, &ip4, reterr)) != 0 || (r = link_set_up(ifindex, true, reterr)) != 0)
		return r;
	struct error error;
	if (link_add_address(ifindex, &ip6, &error) != 0)
		log_warning("node", "no IPv6 in the overlay: %s", error.message);
	return 0;
}
