#include "relay/frontdoor/door_share.h"

#include <assert.h>

/* A hello that says nothing of where it wants to go is right in everything else. */
static bool names_nobody(const struct sniffer *sniffer)
{
	return sniffer->protocol == SNIFFER_TLS &&
	       (sniffer->reason == SNIFFER_NO_HOST || sniffer->reason == SNIFFER_HOST_ADDRESS);
}

/* TLS. is_own: it wants this node, and no host. */
static enum door_whose by_alpn(const struct sniffed *found, struct door_share share, bool is_own)
{
	if (found->offers_relay)
		return DOOR_WHOSE_RELAY;
	if (share.has_webgw && found->offers_dial_back)
		return DOOR_WHOSE_DIAL_BACK;
	if (share.has_webgw && (found->offers_webgw || (is_own && found->offers_http_1)))
		return DOOR_WHOSE_WEBGW;
	return is_own ? DOOR_WHOSE_RELAY : DOOR_WHOSE_ROUTES;
}

enum door_whose door_share_decide(const struct sniffer *sniffer, struct door_share share, const struct host_name *own)
{
	const struct sniffed *found = &sniffer->found;

	assert(sniffer->outcome != SNIFFER_MORE);
	if (sniffer->outcome == SNIFFER_REFUSED)
		return share.has_relay && names_nobody(sniffer) ? by_alpn(found, share, true) : DOOR_WHOSE_REFUSED;
	const bool is_own = own->len > 0 && host_name_equal(own, &found->host);
	if (share.has_relay && found->protocol == SNIFFER_TLS)
		return by_alpn(found, share, is_own);
	return is_own ? DOOR_WHOSE_NOBODY : DOOR_WHOSE_ROUTES;
}
