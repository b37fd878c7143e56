/*
 * What an admin asks, a file for each thing that is asked about. Not for others.
 *
 *   methods_admin.c (login, nodes, status; the table) ──┬─► admin_keys.c    join keys
 *                                                       ├─► admin_relays.c  relays
 *                                                       ├─► admin_hosts.c   hosts that members may publish
 *                                                       └─► admin_ports.c   ports that members may publish
 *
 * The handlers are as service.h says. On the service's loop.
 */
#pragma once

#include "control/service.h"

int admin_key_create(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		     struct rpc_error *reterr);
int admin_key_list(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		   struct rpc_error *reterr);
int admin_key_revoke(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		     struct rpc_error *reterr);
int admin_relay_add(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		    struct rpc_error *reterr);
int admin_relay_remove(struct control *c, struct connection *conn, const struct json *params,
		       struct json **ret_result, struct rpc_error *reterr);
int admin_relay_list(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		     struct rpc_error *reterr);

/* By its whole name, to anybody. */
bool admin_is_granted_host(const struct control *c, const char *name);
int admin_host_add(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		   struct rpc_error *reterr);
int admin_host_remove(struct control *c, struct connection *conn, const struct json *params,
		      struct json **ret_result, struct rpc_error *reterr);
int admin_host_list(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		    struct rpc_error *reterr);

int admin_port_add(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		   struct rpc_error *reterr);
int admin_port_remove(struct control *c, struct connection *conn, const struct json *params,
		      struct json **ret_result, struct rpc_error *reterr);
int admin_port_list(struct control *c, struct connection *conn, const struct json *params, struct json **ret_result,
		    struct rpc_error *reterr);

/* Something of ours has failed: logged, and answered without the reason. 1. */
int admin_internal(struct rpc_error *reterr, const struct error *err);
/* By "name" in params: 0 and *ret, borrowed until the directory changes; or 1. */
int admin_find_node(struct control *c, const struct json *params, struct member **ret, struct rpc_error *reterr);
/* "a,b" as an array of names, on the heap. */
struct json *admin_tags_json(const char *tags);
