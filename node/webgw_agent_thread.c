#include "node/webgw_agent_thread.h"

#include "common/certificate.h"
#include "node/state_dir.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 1000

struct webgw_agent_thread {
	struct webgw_agent_settings settings;
	char state_dir[PATH_MAX];
	uv_loop_t loop; /* the thread's, and its handles: */
	uv_timer_t tick;
	uv_async_t stop;
	struct webgw_agent *agent;
	uv_async_t ended; /* of the node's */
	uv_thread_t id;
	uv_mutex_t lock;
	struct webgw_agent_facts facts; /* guarded by lock */
	void (*stopped)(void *owner);
	void *owner;
};

/* ---- the thread ---- */

static void on_tick(uv_timer_t *timer)
{
	struct webgw_agent_thread *thread = timer->data;
	struct webgw_agent_facts facts;

	webgw_agent_facts(thread->agent, &facts);
	uv_mutex_lock(&thread->lock);
	thread->facts = facts;
	uv_mutex_unlock(&thread->lock);
}

static void on_stop(uv_async_t *async)
{
	struct webgw_agent_thread *thread = async->data;

	uv_close((uv_handle_t *)&thread->stop, NULL);
	uv_close((uv_handle_t *)&thread->tick, NULL);
	if (thread->agent)
		webgw_agent_stop(thread->agent, NULL, NULL);
}

static void run(void *arg)
{
	struct webgw_agent_thread *thread = arg;

	uv_run(&thread->loop, UV_RUN_DEFAULT);
	uv_async_send(&thread->ended);
}

/* The node's certificate may be another one each day. */
static int on_identify(void *owner, char **ret_key_pem, char **ret_certificate_pem, struct error *reterr)
{
	const struct webgw_agent_thread *thread = owner;
	struct state_dir dir = { .lock_fd = -1 };
	struct state_membership *membership = malloc(sizeof(*membership));

	if (!membership)
		abort();
	snprintf(dir.path, sizeof(dir.path), "%s", thread->state_dir);
	int r = state_dir_load_membership(&dir, membership, reterr);
	if (r == -ENOENT)
		error_set(reterr, r, "this node is no member of a network: p2pctl join LINK; or name a secret_file");
	if (r == 0)
		r = state_dir_load_identity_key(&dir, ret_key_pem, reterr);
	if (r == 0 && !(*ret_certificate_pem = strdup(membership->member.certificate_pem)))
		abort();
	free(membership);
	return r;
}

/* ---- the node ---- */

static void end_loop(struct webgw_agent_thread *thread)
{
	if (uv_loop_close(&thread->loop) != 0)
		abort(); /* a handle was left open */
	uv_mutex_destroy(&thread->lock);
}

static void on_ended_closed(uv_handle_t *handle)
{
	struct webgw_agent_thread *thread = handle->data;
	void (*stopped)(void *owner) = thread->stopped;
	void *const owner = thread->owner;

	end_loop(thread);
	free(thread);
	stopped(owner);
}

static void on_ended(uv_async_t *async)
{
	struct webgw_agent_thread *thread = async->data;

	uv_thread_join(&thread->id);
	uv_close((uv_handle_t *)async, on_ended_closed);
}

static int start_agent(struct webgw_agent_thread *thread, struct error *reterr)
{
	const struct webgw_agent_settings *settings = &thread->settings;
	struct webgw_agent_options options = { .host = settings->server,
					       .port = settings->port,
					       .pin = settings->pin,
					       .secret_file = settings->secret_file,
					       .owner = thread,
					       .identify = on_identify,
					       .n_warm = settings->n_warm,
					       .n_hosts = settings->n_hosts };

	memcpy(options.hosts, settings->hosts, sizeof(options.hosts));
	memcpy(options.targets, settings->targets, sizeof(options.targets));
	return webgw_agent_start(&thread->loop, &options, &thread->agent, reterr);
}

int webgw_agent_thread_start(uv_loop_t *loop, const struct webgw_agent_settings *settings, const char *state_dir,
			     struct webgw_agent_thread **ret, struct error *reterr)
{
	struct webgw_agent_thread *thread = calloc(1, sizeof(*thread));

	if (!thread || uv_loop_init(&thread->loop) < 0 || uv_mutex_init(&thread->lock) < 0)
		abort();
	thread->settings = *settings;
	snprintf(thread->state_dir, sizeof(thread->state_dir), "%s", state_dir);
	uv_async_init(&thread->loop, &thread->stop, on_stop);
	uv_timer_init(&thread->loop, &thread->tick);
	thread->stop.data = thread->tick.data = thread->ended.data = thread;
	const int r = start_agent(thread, reterr);
	if (r == 0)
		webgw_agent_facts(thread->agent, &thread->facts);
	if (r != 0) {
		on_stop(&thread->stop);
		uv_run(&thread->loop, UV_RUN_DEFAULT);
		end_loop(thread);
		free(thread);
		return r;
	}
	uv_timer_start(&thread->tick, on_tick, TICK_MS, TICK_MS);
	uv_async_init(loop, &thread->ended, on_ended);
	if (uv_thread_create(&thread->id, run, thread) != 0)
		abort();
	*ret = thread;
	return 0;
}

struct webgw_agent_counters webgw_agent_thread_counters(struct webgw_agent_thread *thread)
{
	uv_mutex_lock(&thread->lock);
	const struct webgw_agent_counters counters = thread->facts.counters;
	uv_mutex_unlock(&thread->lock);
	return counters;
}

void webgw_agent_thread_status(struct webgw_agent_thread *thread, struct node_status_webgw_agent *ret)
{
	struct webgw_agent_facts facts;

	uv_mutex_lock(&thread->lock);
	facts = thread->facts;
	uv_mutex_unlock(&thread->lock);
	*ret = (struct node_status_webgw_agent){ .is_there = true, .is_connected = facts.is_connected, .n_hosts = facts.n_hosts };
	snprintf(ret->server, sizeof(ret->server), strchr(thread->settings.server, ':') ? "[%s]:%u" : "%s:%u",
		 thread->settings.server, thread->settings.port);
	memcpy(ret->why, facts.why, sizeof(facts.why));
	for (uint32_t i = 0; i < facts.n_hosts; i++) {
		const struct webgw_agent_host_facts *host = &facts.hosts[i];
		struct node_status_webgw_host *told = &ret->hosts[i];
		snprintf(told->host, sizeof(told->host), "%s%s", host->name.is_wildcard ? "*." : "", host->name.name.text);
		_Static_assert(sizeof(told->target) >= WEBGW_AGENT_TARGETS_LEN + 1, "both fit");
		webgw_agent_targets_text(&host->targets, told->target);
		strcpy(told->state, host->is_subscribed ? "subscribed" : host->is_down ? "target down" : host->refusal[0] != '\0' ? "refused" : "asking");
		memcpy(told->why, host->refusal, sizeof(host->refusal));
		told->warm = host->warm;
		told->visitors_now = host->visitors_now;
	}
}

void webgw_agent_thread_stop(struct webgw_agent_thread *thread, void (*stopped)(void *owner), void *owner)
{
	thread->stopped = stopped;
	thread->owner = owner;
	uv_async_send(&thread->stop);
}
