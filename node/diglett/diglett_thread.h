/*
 * The diglett server and agent of a node, on a thread of their own: what they carry keeps nothing else waiting.
 *
 *   the node's loop ── start, stop ──► thread: loop of its own ─┬─ diglett_server
 *                   ◄── has ended ──                            └─ diglett_agent
 *                   ◄── metrics, behind a lock ── once a second
 *                   ── orders of p2pctl ──►   ◄── their answers ──
 *
 * The node's loop only.
 */
#pragma once

#include "common/error.h"
#include "node/diglett/diglett_settings.h"
#include "relay/diglett/diglett_metrics.h"
#include "relay/diglett/diglett_orders.h"

#include <uv.h>

struct diglett_thread;

/* 0 or -errno with what to do in reterr; binds at once. settings are copied. state_dir: for the key and the notes. */
P2P_CHECK int diglett_thread_start(uv_loop_t *loop, const struct diglett_settings *settings, const char *state_dir,
				   struct diglett_thread **ret, struct error *reterr);
/* Of a second ago at most. */
struct diglett_metrics diglett_thread_metrics(struct diglett_thread *thread);
/* answered() is called once from the node's loop, also when the thread ends before; then with RPC_UNAVAILABLE. */
void diglett_thread_order(struct diglett_thread *thread, const struct diglett_order *order, diglett_answered answered,
			  void *owner);
/* For the server, if there is one; taken (relay/diglett/diglett_members.h). */
void diglett_thread_set_members(struct diglett_thread *thread, struct diglett_members *members_take);
bool diglett_thread_has_server(const struct diglett_thread *thread);
/* Ends both, frees itself from the node's loop, then calls stopped. */
void diglett_thread_stop(struct diglett_thread *thread, void (*stopped)(void *owner), void *owner);
