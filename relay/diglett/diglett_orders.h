/*
 * What p2pctl asks of a diglett server and an agent, and the answers as JSON (p2pnode(8) describes them).
 *
 *   status         both: who is let in, what is carried
 *   end            the agent that has a name
 *   token create   the answer has the token, which is shown this once
 *   token list, token revoke
 *
 * Loop only, that of the server and the agent.
 */
#pragma once

#include "common/json.h"
#include "relay/diglett/diglett_agent.h"
#include "relay/diglett/diglett_order.h"
#include "relay/diglett/diglett_server.h"

/* code: 0, or an enum rpc_code with what to do in message. */
typedef void (*diglett_answered)(void *owner, int code, struct json *result_take, const char *message);

/* NULL: there is none. answered() is called once, now or later. */
void diglett_orders_run(struct diglett_server *server, struct diglett_agent *agent, const struct diglett_order *order,
			diglett_answered answered, void *owner);
