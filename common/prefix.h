/*
 * Overlay addresses and prefixes as text and as members of JSON objects: "10.77.0.0/16",
 * "fd12::/64". Pure.
 */
#pragma once

#include "common/error.h"
#include "common/json.h"

#include <netinet/in.h>
#include <stdint.h>

struct prefix_text {
	char s[64];
};

struct prefix_text address4_text(struct in_addr address);
struct prefix_text address6_text(const struct in6_addr *address);
struct prefix_text prefix4_text(struct in_addr prefix, uint8_t len);
struct prefix_text prefix6_text(const struct in6_addr *prefix, uint8_t len);

/* 0, or -EINVAL: not of that form, or with bits behind the length. Write *ret only on success. */
P2P_CHECK int prefix4_parse(const char *text, struct in_addr *ret, uint8_t *ret_len);
P2P_CHECK int prefix6_parse(const char *text, struct in6_addr *ret, uint8_t *ret_len);

/* Required members, as the getters of json.h. */
P2P_CHECK int json_get_address4(const struct json *object, const char *key, struct in_addr *ret,
				struct error *reterr);
P2P_CHECK int json_get_address6(const struct json *object, const char *key, struct in6_addr *ret,
				struct error *reterr);
P2P_CHECK int json_get_prefix4(const struct json *object, const char *key, struct in_addr *ret,
			       uint8_t *ret_len, struct error *reterr);
P2P_CHECK int json_get_prefix6(const struct json *object, const char *key, struct in6_addr *ret,
			       uint8_t *ret_len, struct error *reterr);
