#include "common/endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const uint8_t v4_mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
	return a->port == b->port && a->scope_id == b->scope_id && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

bool endpoint_is_none(const struct endpoint *endpoint)
{
	const struct endpoint none = { 0 };

	return endpoint_equal(endpoint, &none);
}

bool endpoint_is_v4(const struct endpoint *endpoint)
{
	return memcmp(endpoint->ip, v4_mapped, sizeof(v4_mapped)) == 0;
}

bool endpoint_is_same_source(const struct endpoint *a, const struct endpoint *b)
{
	bool is_v4 = endpoint_is_v4(a) || endpoint_is_v4(b);

	return memcmp(a->ip, b->ip, is_v4 ? sizeof(a->ip) : 8) == 0;
}

bool endpoint_is_private(const struct endpoint *endpoint)
{
	const uint8_t *ip = endpoint->ip;

	if (!endpoint_is_v4(endpoint))
		return (ip[0] & 0xfe) == 0xfc || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80);
	ip += 12;
	return ip[0] == 10 || (ip[0] == 172 && (ip[1] & 0xf0) == 16) || (ip[0] == 192 && ip[1] == 168) ||
	       (ip[0] == 169 && ip[1] == 254) || (ip[0] == 100 && (ip[1] & 0xc0) == 64);
}

bool endpoint_is_loopback(const struct endpoint *endpoint)
{
	static const uint8_t loopback6[16] = { [15] = 1 };

	if (endpoint_is_v4(endpoint))
		return endpoint->ip[12] == 127;
	return memcmp(endpoint->ip, loopback6, sizeof(loopback6)) == 0;
}

struct endpoint endpoint_from_v4(uint32_t ip, uint16_t port)
{
	struct endpoint endpoint = { .port = port };

	memcpy(endpoint.ip, v4_mapped, sizeof(v4_mapped));
	endpoint.ip[12] = (uint8_t)(ip >> 24);
	endpoint.ip[13] = (uint8_t)(ip >> 16);
	endpoint.ip[14] = (uint8_t)(ip >> 8);
	endpoint.ip[15] = (uint8_t)ip;
	return endpoint;
}

struct endpoint endpoint_from_sockaddr(const struct sockaddr *address)
{
	struct endpoint endpoint = { 0 };

	if (address->sa_family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, address, sizeof(in));
		return endpoint_from_v4(ntohl(in.sin_addr.s_addr), ntohs(in.sin_port));
	}
	if (address->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;
		memcpy(&in6, address, sizeof(in6));
		memcpy(endpoint.ip, &in6.sin6_addr, sizeof(endpoint.ip));
		endpoint.port = ntohs(in6.sin6_port);
		if (IN6_IS_ADDR_LINKLOCAL(&in6.sin6_addr))
			endpoint.scope_id = in6.sin6_scope_id;
	}
	return endpoint;
}

socklen_t endpoint_to_sockaddr(const struct endpoint *endpoint, struct sockaddr_storage *ret)
{
	*ret = (struct sockaddr_storage){ 0 };
	if (endpoint_is_v4(endpoint)) {
		struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(endpoint->port) };
		memcpy(&in.sin_addr, endpoint->ip + 12, 4);
		memcpy(ret, &in, sizeof(in));
		return sizeof(in);
	}
	return endpoint_to_sockaddr6(endpoint, (struct sockaddr_in6 *)ret);
}

socklen_t endpoint_to_sockaddr6(const struct endpoint *endpoint, struct sockaddr_in6 *ret)
{
	*ret = (struct sockaddr_in6){ .sin6_family = AF_INET6,
				      .sin6_port = htons(endpoint->port),
				      .sin6_scope_id = endpoint->scope_id };
	memcpy(&ret->sin6_addr, endpoint->ip, sizeof(endpoint->ip));
	return sizeof(*ret);
}

struct endpoint_text endpoint_ip_text(const struct endpoint *endpoint)
{
	struct endpoint_text text;

	if (endpoint_is_v4(endpoint))
		inet_ntop(AF_INET, endpoint->ip + 12, text.s, sizeof(text.s));
	else
		inet_ntop(AF_INET6, endpoint->ip, text.s, sizeof(text.s));
	return text;
}

struct endpoint_text endpoint_text(const struct endpoint *endpoint)
{
	struct endpoint_text text, ip = endpoint_ip_text(endpoint);

	if (endpoint_is_v4(endpoint))
		snprintf(text.s, sizeof(text.s), "%.46s:%u", ip.s, endpoint->port);
	else if (endpoint->scope_id != 0)
		snprintf(text.s, sizeof(text.s), "[%.46s%%%u]:%u", ip.s, endpoint->scope_id, endpoint->port);
	else
		snprintf(text.s, sizeof(text.s), "[%.46s]:%u", ip.s, endpoint->port);
	return text;
}

static int parse_decimal(const char *text, unsigned long max, unsigned long *ret)
{
	unsigned long value = 0;

	if (*text == '\0' || (*text == '0' && text[1] != '\0'))
		return -EINVAL;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		value = value * 10 + (unsigned long)(*text - '0');
		if (value > max)
			return -EINVAL;
	}
	*ret = value;
	return 0;
}

int endpoint_parse_ip(const char *ip, uint16_t port, struct endpoint *ret)
{
	struct endpoint endpoint = { .port = port };
	char address[INET6_ADDRSTRLEN + 1];
	unsigned long scope = 0;
	const char *percent = strchr(ip, '%');
	size_t n = percent ? (size_t)(percent - ip) : strlen(ip);

	if (n >= sizeof(address))
		return -EINVAL;
	memcpy(address, ip, n);
	address[n] = '\0';
	if (percent && parse_decimal(percent + 1, UINT32_MAX, &scope) != 0)
		return -EINVAL;
	if (inet_pton(AF_INET, address, endpoint.ip + 12) == 1) {
		if (percent)
			return -EINVAL;
		memcpy(endpoint.ip, v4_mapped, sizeof(v4_mapped));
	} else if (inet_pton(AF_INET6, address, endpoint.ip) != 1) {
		return -EINVAL;
	}
	/* A scope means something on a link-local address only. */
	if (percent && (endpoint.ip[0] != 0xfe || (endpoint.ip[1] & 0xc0) != 0x80))
		return -EINVAL;
	endpoint.scope_id = (uint32_t)scope;
	*ret = endpoint;
	return 0;
}

int endpoint_parse(const char *text, struct endpoint *ret)
{
	char ip[64];
	unsigned long port;
	const char *colon = strrchr(text, ':');

	if (!colon || parse_decimal(colon + 1, UINT16_MAX, &port) != 0)
		return -EINVAL;
	size_t n = (size_t)(colon - text);
	if (n >= sizeof(ip))
		return -EINVAL;
	memcpy(ip, text, n);
	ip[n] = '\0';
	if (ip[0] == '[') {
		if (n < 2 || ip[n - 1] != ']')
			return -EINVAL;
		ip[n - 1] = '\0';
		if (!strchr(ip, ':'))
			return -EINVAL;
		return endpoint_parse_ip(ip + 1, (uint16_t)port, ret);
	}
	if (strchr(ip, ':'))
		return -EINVAL;
	return endpoint_parse_ip(ip, (uint16_t)port, ret);
}

struct endpoint wire_endpoint(struct wire_reader *r)
{
	struct endpoint endpoint = { 0 };

	wire_bytes(r, endpoint.ip, sizeof(endpoint.ip));
	endpoint.port = wire_u16(r);
	return endpoint;
}

void wire_put_endpoint(struct wire_writer *w, const struct endpoint *endpoint)
{
	wire_put(w, endpoint->ip, sizeof(endpoint->ip));
	wire_put_u16(w, endpoint->port);
}
