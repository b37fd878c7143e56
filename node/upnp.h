/*
 * Has the home router forward a UDP port to us, over UPnP (common/upnp_wire.h).
 *
 *   upnp_map()      search ──► description ──► external address ──► add mapping ──► done
 *                   ≤ 2 s      ≤ 3 s           ≤ 3 s a call, each service    │ taken: another port, 3 times
 *                                              in turn, until one is online  └ for good only: so be it
 *   upnp_find()     search ──► description
 *   upnp_remove()   delete mapping, if the service is told; if it does not answer any more:
 *                   search ──► description ──► delete mapping, each service in turn
 *
 * Both block, for UPNP_MAX_MS at most, or less if so asked: call them from a thread that may, like those of libuv's
 * pool. Any thread, any number at once: there is no state outside a call. They allocate up to 64 KiB, for the call.
 *
 * A router is a stranger: what it sends is believed only if it comes from its own address, its URLs lead to that
 * address only, no redirect is followed, and no answer is longer than UPNP_MAX_DESCRIPTION or UPNP_MAX_ANSWER.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/macros.h"
#include "common/upnp_wire.h"

#include <stdint.h>

#define UPNP_MAX_MS	     10000 /* a call in all */
#define UPNP_SEARCH_MS	     2000
#define UPNP_EXCHANGE_MS     3000		/* one request and its answer, with connecting */
#define UPNP_MAX_DESCRIPTION (64 * 1024)	/* bytes, with the head of the answer */
#define UPNP_MAX_ANSWER	     (16 * 1024)	/* to any other request */

struct upnp_request {
	struct endpoint router;	/* IPv4; its port is of no meaning */
	struct endpoint ours;	/* IPv4: our address in the router's network, and the port to forward to */
	uint16_t external_port;	/* map: wanted, 0: ours.port; remove: that of the mapping */
	uint32_t lifetime_s;	/* wanted, 0: for good; remove: of no meaning */
	uint32_t max_ms;	/* how long it may take, 0: UPNP_MAX_MS; never longer than that */
	int stop_fd;		/* readable: give up at once; 0: none. Borrowed for the call */
	uint16_t search_port;	/* 0: UPNP_SEARCH_PORT; another one is for tests */
	const struct upnp_service *service; /* remove: asked first, without a search; NULL: none. Borrowed for the call */
};

/*
 * 0: *ret_external is forwarded to request->ours for *ret_lifetime_s seconds, 0: until it is removed. The address is
 * what the router takes for its own: a private one, if it stands behind another NAT. The same request again renews.
 *
 * Otherwise a -errno, with *reterr filled (a mapping may be there nevertheless, if only the answer was lost):
 *   -EINVAL       the request is not for IPv4, or without a port
 *   -ECANCELED    stop_fd became readable
 *   -ETIMEDOUT    no answer, or not a whole one in time
 *   -ENOENT       the router has no service that forwards ports
 *   -EXDEV        it sends us to another host
 *   -ENETUNREACH  it has no external address itself
 *   -EADDRINUSE   the external port is another's, and so were the others tried
 *   -EACCES       it refused; the UPnP error is in *reterr
 *   -EPROTO, -EMSGSIZE   an answer that is none, or too long
 *   and whatever sockets and memory fail with
 *
 * *ret_service: who was asked to forward, also when that failed; of no address if nobody was. May be NULL.
 */
P2P_CHECK int upnp_map(const struct upnp_request *request, struct endpoint *ret_external, uint32_t *ret_lifetime_s,
		       struct upnp_service *ret_service, struct error *reterr);

/* Does the router forward ports by UPnP at all? 0: it does. Otherwise a -errno as above. */
P2P_CHECK int upnp_find(const struct upnp_request *request, struct error *reterr);

/* 0: the mapping is gone, also when it was not there. Otherwise a -errno as above. */
P2P_CHECK int upnp_remove(const struct upnp_request *request, struct error *reterr);
