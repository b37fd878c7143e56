#include "relay/frontdoor/door_share.h"

#include <assert.h>

/* A hello that says nothing of where it wants to go is right in everything else. */
static bool names_nobody(const struct sniffer *sniffer)
{
	return sniffer->protocol == SNIFFER_TLS &&
	       (sniffer->reason == SNIFFER_NO_HOST || sniffer->reason == SNIFFER_HOST_ADDRESS);
}

enum door_whose door_share_decide(const struct sniffer *sniffer, bool is_shared, const struct host_name *own)
{
	const struct sniffed *found = &sniffer->found;

	assert(sniffer->outcome != SNIFFER_MORE);
	if (sniffer->outcome == SNIFFER_REFUSED)
		return is_shared && names_nobody(sniffer) ? DOOR_WHOSE_RELAY : DOOR_WHOSE_REFUSED;
	const bool is_for_relay = is_shared && found->protocol == SNIFFER_TLS;
	if (own->len > 0 && host_name_equal(own, &found->host))
		return is_for_relay ? DOOR_WHOSE_RELAY : DOOR_WHOSE_NOBODY;
	return is_for_relay && found->offers_relay ? DOOR_WHOSE_RELAY : DOOR_WHOSE_ROUTES;
}
