/*
 * The webgw agent of a node, on a thread of its own: what it carries keeps nothing else waiting.
 *
 * The node's loop only.
 */
#pragma once

#include "common/error.h"
#include "node/status.h"
#include "node/webgw_agent_settings.h"

#include <uv.h>

struct webgw_agent_thread;

/* 0 or -errno with what to do in reterr. settings are copied. state_dir: of a member's key and certificate. */
P2P_CHECK int webgw_agent_thread_start(uv_loop_t *loop, const struct webgw_agent_settings *settings, const char *state_dir,
				       struct webgw_agent_thread **ret, struct error *reterr);
/* Of a second ago at most. */
struct webgw_agent_counters webgw_agent_thread_counters(struct webgw_agent_thread *thread);
void webgw_agent_thread_status(struct webgw_agent_thread *thread, struct node_status_webgw_agent *ret);
/* Ends it, frees itself from the node's loop, then calls stopped. */
void webgw_agent_thread_stop(struct webgw_agent_thread *thread, void (*stopped)(void *owner), void *owner);
