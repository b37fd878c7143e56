/*
 * The values that a status is made of, written and read side by side.
 *
 *   written: what is not known is null.
 *   read:    absent and null are "not known" (a node of another version); 0, or -EINVAL with the member in reterr.
 *
 * Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/json.h"
#include "common/key.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum node_known { NODE_KNOWN_NOT, NODE_KNOWN_NO, NODE_KNOWN_YES };

/* "" is not known. */
void status_put_text(struct json *object, const char *key, const char *text);
int status_get_text(const struct json *object, const char *key, char *ret, size_t cap, struct error *reterr);

/* An age, a latency, an id: < 0 is not known, NODE_STATUS_UNKNOWN when read. */
void status_put_known(struct json *object, const char *key, int64_t value);
int status_get_known(const struct json *object, const char *key, int64_t *ret, struct error *reterr);

/* All of these: 0 is not known. */
int status_get_u32(const struct json *object, const char *key, uint32_t *ret, struct error *reterr);
void status_put_ips(struct json *object, const struct in_addr *ip4, const struct in6_addr *ip6);
int status_get_ips(const struct json *object, struct in_addr *ip4, struct in6_addr *ip6, struct error *reterr);
void status_put_key(struct json *object, const char *key, const struct public_key *value);
int status_get_key(const struct json *object, const char *key, struct public_key *ret, struct error *reterr);
void status_put_endpoint(struct json *object, const char *key, const struct endpoint *endpoint);
int status_get_endpoint(const struct json *object, const char *key, struct endpoint *ret, struct error *reterr);

/* A name out of a table; one that we do not know (a newer node) is the first of the table. */
int status_get_name(const struct json *object, const char *key, const char *const names[], int n, int *ret,
		    struct error *reterr);
/* Not known is false. */
int status_get_flag(const struct json *object, const char *key, bool *ret, struct error *reterr);
void status_put_yes_no(struct json *object, const char *key, enum node_known known);
int status_get_yes_no(const struct json *object, const char *key, enum node_known *ret, struct error *reterr);
