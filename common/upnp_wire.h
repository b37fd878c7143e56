/*
 * What is said to a home router over UPnP (Internet Gateway Device, 1 and 2) to have a UDP port forwarded.
 *
 *   we                                         router
 *    ├─ SSDP, UDP 1900: M-SEARCH ───────────────►│   by multicast, and to it alone
 *    │◄───────────── 200 OK, LOCATION: a URL ────┤
 *    ├─ HTTP: GET that URL ─────────────────────►│
 *    │◄──── description: services, control URLs ─┤   XML
 *    ├─ HTTP: POST control URL, SOAP: a call ───►│   XML
 *    │◄────────── its answer, or a UPnP error ───┤   XML
 *
 * Everything a router says is bounded here, and names no other host than the router. For IPv4. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/http_answer.h"
#include "common/macros.h"

#include <stddef.h>
#include <stdint.h>

#define UPNP_SEARCH_PORT     1900
#define UPNP_SEARCH_GROUP    0xeffffffau /* 239.255.255.250 */
#define UPNP_SEARCH_WAIT_S   1	       /* within which who was asked by multicast is to answer */
#define UPNP_SEARCH_MAX_LEN  256
#define UPNP_CALL_MAX_LEN    2048
#define UPNP_MAX_SERVICES    4
#define UPNP_N_IGD_VERSIONS  2

/* The error codes we decide by. */
#define UPNP_E_NO_SUCH_ENTRY  714 /* there is no such mapping */
#define UPNP_E_CONFLICT	      718 /* another machine has this external port */
#define UPNP_E_PERMANENT_ONLY 725 /* mappings without a lifetime only */
#define UPNP_E_MECHANISM      729 /* something other than UPnP has this external port */

/* ---- finding it ------------------------------------------------------------------------------ */

/* Asks for gateways of this version, 1 or 2; `to` stands in the text. Bytes written; ret has UPNP_SEARCH_MAX_LEN. */
size_t upnp_encode_search(char *ret, const struct endpoint *to, unsigned version);

/*
 * Where a gateway's description is. 0; -EPROTO: no answer of a gateway; -EXDEV: it names another host than the
 * router (of which only the address counts). Who the datagram came from is for the caller to check.
 */
P2P_CHECK int upnp_decode_found(const char *bytes, size_t len, const struct endpoint *router, struct http_url *ret);

/* ---- what it offers -------------------------------------------------------------------------- */

enum upnp_service_type { UPNP_WAN_IP_2, UPNP_WAN_IP_1, UPNP_WAN_PPP_1, UPNP_N_SERVICE_TYPES };

struct upnp_service {
	enum upnp_service_type type;
	struct http_url control; /* on the router */
};

struct upnp_services {
	unsigned n;
	struct upnp_service all[UPNP_MAX_SERVICES];
};

/*
 * The services that forward ports, in the document's order; those with a control URL that is none or on another host
 * than location's are left out, and so are those for which there is no room. 0; -ENOENT: none; -EXDEV: none but on
 * another host.
 */
P2P_CHECK int upnp_decode_description(const char *xml, size_t len, const struct http_url *location,
				      struct upnp_services *ret);

/* ---- calls ----------------------------------------------------------------------------------- */

struct upnp_mapping {
	struct endpoint ours;	/* address and port */
	uint16_t external_port; /* not 0 */
	uint32_t lifetime_s;	/* 0: for good */
};

/* A whole POST, head and body. Bytes written; ret has UPNP_CALL_MAX_LEN. */
size_t upnp_encode_add(char *ret, const struct upnp_service *service, const struct upnp_mapping *mapping);
size_t upnp_encode_delete(char *ret, const struct upnp_service *service, uint16_t external_port);
size_t upnp_encode_external(char *ret, const struct upnp_service *service);
size_t upnp_encode_get(char *ret, const struct http_url *url);

/* The UPnP error code in the body of an answer that is not "200 OK", 1 to 9999; 0: there is none. */
unsigned upnp_decode_error(const char *xml, size_t len);
/* "ConflictInMappingEntry", as the specifications call it; of unknown codes "unknown error". */
const char *upnp_error_name(unsigned code);

/* The answer to upnp_encode_external(), without a port. 0; -EPROTO: no address; -ENETUNREACH: 0.0.0.0, not online. */
P2P_CHECK int upnp_decode_external(const char *xml, size_t len, struct endpoint *ret);
