/*
 * One admin method of control, from a program that has an admin link: connect, admin.login, the
 * call, close.
 *
 * Loop only. The callback comes exactly once, from the loop.
 */
#pragma once

#include "common/error.h"
#include "common/join_link.h"
#include "common/json.h"
#include "common/rpc.h"
#include "common/websocket.h"

/*
 * result is borrowed, NULL when error is set. error->code is an enum rpc_code, or -errno for the
 * connection.
 */
typedef void (*admin_answer_cb)(void *owner, const struct json *result,
				const struct rpc_error *error);

/* 0, or a negative value when the call could not even start (cb is not called then). */
P2P_CHECK int admin_call(struct websocket_host *host, const struct join_link *admin_link,
			 const char *method, struct json *params_take, admin_answer_cb cb,
			 void *owner, struct error *reterr);
