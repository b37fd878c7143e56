/*
 * An ip:port at which somebody may be reached.
 *
 * One form for both families: IPv4 is kept v4-mapped (::ffff:a.b.c.d), on the wire as well
 * (16 bytes address, 2 bytes port, big-endian). Text: "192.0.2.1:51820" or "[2001:db8::1]:51820".
 */
#pragma once

#include "common/macros.h"
#include "common/wire.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define ENDPOINT_WIRE_LEN 18

struct endpoint {
	uint8_t ip[16];
	uint16_t port;	   /* host order; 0: none */
	uint32_t scope_id; /* interface of a link-local IPv6 address, else 0; not on the wire */
};

struct endpoint_text {
	char s[72];
};

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);
bool endpoint_is_none(const struct endpoint *endpoint); /* all zero */
bool endpoint_is_v4(const struct endpoint *endpoint);
/* One IPv4 address, or one IPv6 /64, whose holder has all of it: what limits per source count by. */
bool endpoint_is_same_source(const struct endpoint *a, const struct endpoint *b);
/* RFC 1918, ULA, link-local or 100.64/10. */
bool endpoint_is_private(const struct endpoint *endpoint);
bool endpoint_is_loopback(const struct endpoint *endpoint);

struct endpoint endpoint_from_v4(uint32_t ip_host_order, uint16_t port);
struct endpoint endpoint_from_sockaddr(const struct sockaddr *address);
/* Fills an AF_INET address for IPv4 and AF_INET6 otherwise; returns its length. */
socklen_t endpoint_to_sockaddr(const struct endpoint *endpoint, struct sockaddr_storage *ret);
/* Always AF_INET6, IPv4 mapped: for a dual-stack socket. */
socklen_t endpoint_to_sockaddr6(const struct endpoint *endpoint, struct sockaddr_in6 *ret);

struct endpoint_text endpoint_text(const struct endpoint *endpoint);
/* Numeric only. 0 or -EINVAL; writes *ret only on success. */
P2P_CHECK int endpoint_parse(const char *text, struct endpoint *ret);
/* "192.0.2.1" or "2001:db8::1", with the port given. */
P2P_CHECK int endpoint_parse_ip(const char *ip, uint16_t port, struct endpoint *ret);
/* The address without the port. */
struct endpoint_text endpoint_ip_text(const struct endpoint *endpoint);

struct endpoint wire_endpoint(struct wire_reader *r);
void wire_put_endpoint(struct wire_writer *w, const struct endpoint *endpoint);
