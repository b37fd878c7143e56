/*
 * How a membership begins and ends by the user's will: join and leave. What lives as long as it is engine.c's.
 */
#include "node/engine_internal.h"

#include "common/log.h"
#include "common/rpc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define JOIN_TIMEOUT_MS 15000

/* ---- join ---- */

static void finish_join(struct p2p_engine *engine, int code, const char *message)
{
	p2p_engine_done done = engine->join_done;

	engine->join_done = NULL;
	join_link_wipe(&engine->join_link);
	if (done)
		done(engine->join_owner, code, message);
	engine_tell_changed(engine);
}

/* What was joined stays joined: the key may be used up. Only the interface is tried again. */
static void after_failed_start(struct p2p_engine *engine)
{
	if (!engine->stopping)
		engine_retry_interface(engine);
	finish_join(engine, -EIO, engine->join_failure);
}

/* Nothing was joined: as before. */
static void fail_join(struct p2p_engine *engine, int code, const char *message)
{
	engine->state = engine->was_removed ? REMOVED : NOT_JOINED;
	engine_forget_identity_key(engine);
	finish_join(engine, code, message);
}

/* The map of a membership that ended is none of the new one's. */
static int keep_membership(struct p2p_engine *engine, const struct membership *membership, struct error *reterr)
{
	int r = state_dir_forget_map(&engine->dir, reterr);

	if (r != 0)
		return r;
	engine->membership = (struct state_membership){ .port = engine->join_link.port,
							.pin = engine->join_link.pin,
							.member = *membership };
	strcpy(engine->membership.host, engine->join_link.host);
	return state_dir_save_membership(&engine->dir, &engine->membership, reterr);
}

static void on_joined(void *owner, const struct membership *membership, const struct error *err)
{
	struct p2p_engine *engine = owner;
	struct error error;
	int r;

	if (err) {
		fail_join(engine, err->code, err->message);
		return;
	}
	if (engine->stopping) {
		fail_join(engine, -ECANCELED, "p2pnode is ending; join again with the same link");
		return;
	}
	r = keep_membership(engine, membership, &error);
	if (r == 0)
		r = engine_start_member(engine, &error);
	if (r != 0) {
		snprintf(engine->join_failure, sizeof(engine->join_failure),
			 "joined, but: %.190s; tried again every %u s", error.message, ENGINE_INTERFACE_RETRY_MS / 1000);
		engine_close_member(engine, after_failed_start);
		return;
	}
	finish_join(engine, 0, "joined");
}

/* The same key again after a crash: control then gives the same membership. */
static int prepare_identity_key(struct p2p_engine *engine, struct error *reterr)
{
	int r = state_dir_load_identity_key(&engine->dir, &engine->identity_key_pem, reterr);

	if (r != -ENOENT)
		return r;
	r = identity_key_generate(&engine->identity_key_pem, reterr);
	if (r == 0)
		r = state_dir_save_identity_key(&engine->dir, engine->identity_key_pem, reterr);
	return r;
}

void engine_join(struct p2p_engine *engine, const struct join_link *link, const char *name,
		 p2p_engine_done done, void *owner)
{
	const struct control_join_options options = {
		.host = engine->websockets,
		.link = &engine->join_link,
		.node_key = &engine->node_key,
		.name = name && name[0] ? name : engine->wanted_name,
		.timeout_ms = JOIN_TIMEOUT_MS,
	};
	struct control_join_options with_key = options;
	struct error error;
	int r;

	if (engine->state == MEMBER || engine->state == JOINING || engine->closing_member || engine->stopping) {
		done(owner, RPC_ALREADY,
		     engine->state == MEMBER ? "this node is a member already; p2pctl leave first"
					     : "a join or leave is under way; wait for it");
		return;
	}
	r = prepare_identity_key(engine, &error);
	if (r != 0) {
		engine_forget_identity_key(engine);
		done(owner, r, error.message);
		return;
	}
	engine->was_removed = engine->state == REMOVED;
	engine->state = JOINING;
	engine->relay_drains = false;
	engine->join_link = *link;
	engine->join_done = done;
	engine->join_owner = owner;
	with_key.identity_key_pem = engine->identity_key_pem;
	r = control_client_join(&with_key, on_joined, engine, &error);
	if (r != 0) {
		fail_join(engine, r, error.message);
		return;
	}
	engine_tell_changed(engine);
}

void p2p_engine_join(struct p2p_engine *engine, const char *text, const char *name, p2p_engine_done done,
		     void *owner)
{
	struct join_link link;
	struct error error;
	int r = join_link_parse(text, &link, &error);

	if (r != 0) {
		done(owner, r, error.message);
		return;
	}
	engine_join(engine, &link, name, done, owner);
	join_link_wipe(&link);
}

/* ---- leave ---- */

static void after_leave(struct p2p_engine *engine)
{
	p2p_engine_done done = engine->leave_done;
	struct error error;
	int r = state_dir_forget(&engine->dir, &error);

	engine->state = NOT_JOINED;
	engine_forget_exposures(engine);
	engine->leave_done = NULL;
	if (engine->join_done)
		finish_join(engine, -ECANCELED, "joined, and left again before it had begun");
	if (done)
		done(engine->leave_owner, r, r != 0 ? error.message : "left");
	engine_tell_changed(engine);
}

static void on_control_left(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct p2p_engine *engine = owner;

	if (error)
		log_warning("node", "control did not take our leave: %s; an admin may remove the node", error->message);
	/* Whatever else ends the membership at the same time (a removal, SIGTERM): who leaves has left. */
	if (engine->closing_member)
		engine->then = after_leave;
	else
		engine_close_member(engine, after_leave);
}

void p2p_engine_leave(struct p2p_engine *engine, p2p_engine_done done, void *owner)
{
	if (engine->state != MEMBER && engine->state != REMOVED) {
		done(owner, RPC_UNAVAILABLE, "this node is no member of a network");
		return;
	}
	if (engine->leave_done || engine->stopping) {
		done(owner, RPC_UNAVAILABLE, "this node is leaving or ending already");
		return;
	}
	engine->leave_done = done;
	engine->leave_owner = owner;
	if (engine->session && session_is_connected(engine->session) &&
	    session_leave(engine->session, on_control_left, engine) == 0)
		return;
	if (engine->state == MEMBER)
		log_warning("node", "control cannot be reached: it keeps this node until an admin removes it");
	if (engine->closing_member)
		engine->then = after_leave;
	else
		engine_close_member(engine, after_leave);
}
