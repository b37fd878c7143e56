/*
 * What a node publishes: a host name or a port, and the server behind it.
 *
 *   https://app.example.org   8443            proxy=v2 allow=10.0.0.0/8 rate=100
 *   └── who visitors ask for  └── where it is └── how
 *
 *   tcp :2222   22            a port of the front door instead of a host: TCP, or UDP (udp :5353); also tcp:2222
 *
 *   host    app.example.org (HTTPS and HTTP), https://app.example.org, http://app.example.org, *.example.org
 *   target  8443 (of 127.0.0.1), 192.168.1.7:8443, [::1]:8443
 *   proxy=none|v1|v2   the server is told who the visitor is, in a header of the PROXY protocol [none]; v1 not of UDP
 *   allow=PREFIX,…     whose visits are taken; an address is a prefix of one [all]
 *   rate=N             visitors a second, twice as many at once [no limit]
 *   rate_source=N      of these from one source: an IPv4 address, an IPv6 /56 [no limit]
 *   tls=pass|terminate|acme   HTTPS goes to the server as it comes, or ends here, and the server is spoken to in plain;
 *                      acme: with a certificate that is got by ACME [pass]
 *   certificate=FILE key=FILE   of terminate: what visitors are shown, in PEM
 *   h2=yes|no          of terminate and acme: the server speaks HTTP/2 in plain, by prior knowledge [no]
 *   quic=yes|no        of HTTPS that is passed on: HTTP/3 goes to the UDP port of the same number [yes; with proxy=v1 or v2 it does not]
 *
 * The same words in a configuration (service = …), on the command line and in the state folder. Total; bounds:
 * EXPOSURE_MAX_ALLOW prefixes, EXPOSURE_TEXT bytes; a node has EXPOSURE_MAX exposures. Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "relay/frontdoor/door_routes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPOSURE_MAX	   64
#define EXPOSURE_MAX_ALLOW 16
#define EXPOSURE_MAX_RATE  1000000
#define EXPOSURE_HOST_TEXT (8 + 2 + HOST_NAME_MAX_LEN + 1)
#define EXPOSURE_PATH_LEN  255
#define EXPOSURE_TEXT	   1856

enum exposure_proxy { EXPOSURE_PROXY_NONE, EXPOSURE_PROXY_V1, EXPOSURE_PROXY_V2, EXPOSURE_N_PROXY };

enum exposure_tls { EXPOSURE_TLS_PASS, EXPOSURE_TLS_TERMINATE, EXPOSURE_TLS_ACME, EXPOSURE_N_TLS };

struct exposure_prefix {
	uint8_t ip[16]; /* IPv4 mapped, as in an endpoint; zero behind len */
	uint8_t len;	/* 0 … 128; of IPv4 96 more than it is written with */
};

struct exposure {
	bool takes[DOOR_N_SCHEMES]; /* at least one */
	struct host_pattern host; /* of a port, DOOR_TCP or DOOR_UDP alone: its name (port_name.h) */
	struct endpoint target; /* with a port */
	enum exposure_proxy proxy;
	enum exposure_tls tls;
	bool has_h2;
	bool is_without_quic; /* quic=no */
	char certificate[EXPOSURE_PATH_LEN + 1], key[EXPOSURE_PATH_LEN + 1]; /* absolute; both or none */
	uint32_t rate, rate_source; /* visitors a second; 0: no limit */
	uint32_t n_allow;	    /* 0: all may come */
	struct exposure_prefix allow[EXPOSURE_MAX_ALLOW];
};

/* 0, or -EINVAL with what is wrong, and how it should be, in reterr. All that is not used is zero: two compare as bytes. */
P2P_CHECK int exposure_parse(const char *text, struct exposure *ret, struct error *reterr);
/* The first word alone: host and takes of *ret, the rest zero. The same. */
P2P_CHECK int exposure_parse_host(const char *text, struct exposure *ret, struct error *reterr);
/* "v2", or NULL: there is no such. */
const char *exposure_proxy_name(enum exposure_proxy proxy);
/* "pass", "terminate", "acme"; the same. */
const char *exposure_tls_name(enum exposure_tls tls);

/* Of a port? Then which. */
bool exposure_is_port(const struct exposure *exposure, struct port_name *ret);
/* As exposure_parse() reads it. */
void exposure_print(const struct exposure *exposure, char ret[EXPOSURE_TEXT]);
/* "https://app.example.org", "tcp:2222" */
void exposure_print_host(const struct exposure *exposure, char ret[EXPOSURE_HOST_TEXT]);
/* "10.0.0.0/8"; an address alone without length. */
struct endpoint_text exposure_prefix_text(const struct exposure_prefix *prefix);

/* Do visitors come by QUIC? */
bool exposure_has_quic(const struct exposure *exposure);
/* Does it stand for this host in this scheme? */
bool exposure_is_for(const struct exposure *exposure, enum door_scheme scheme, const struct host_name *host);
/* The same host, and a scheme in common: one of both has to go. */
bool exposure_overlaps(const struct exposure *a, const struct exposure *b);
/* May it come, by the allow list? */
bool exposure_allows(const struct exposure *exposure, const struct endpoint *visitor);
