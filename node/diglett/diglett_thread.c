#include "node/diglett/diglett_thread.h"

#include "common/rpc.h"
#include "node/state_dir.h"
#include "relay/diglett/diglett_agent.h"
#include "relay/diglett/diglett_server.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define TICK_MS 1000

/* An order on its way to the thread, and its answer on its way back. */
struct letter {
	struct letter *next;
	struct diglett_thread *thread;
	struct diglett_order order;
	diglett_answered answered;
	void *owner;
	int code;
	struct json *result;
	char message[sizeof(((struct error *)0)->message)];
};

struct letters {
	struct letter *first, **end;
};

struct diglett_thread {
	struct diglett_settings settings;
	char state_dir[PATH_MAX], key_file[PATH_MAX], notes_file[PATH_MAX], tokens_file[PATH_MAX];
	uv_loop_t loop; /* the thread's */
	uv_thread_t id;
	uv_timer_t tick;  /* of the thread's loop */
	uv_mutex_t lock;
	struct diglett_metrics metrics; /* guarded by lock, as are these: */
	struct letters to_thread, to_node;
	struct diglett_members *members; /* for the server to take */
	bool has_ended, has_members;
	uv_async_t stop, ordered;  /* of the thread's loop */
	uv_async_t ended;	   /* of the node's: that, or answers */
	struct diglett_server *server;
	struct diglett_agent *agent;
	uint32_t n_open;
	void (*stopped)(void *owner);
	void *owner;
};

/* letters */

static void letters_init(struct letters *letters)
{
	letters->first = NULL;
	letters->end = &letters->first;
}

static void post(struct diglett_thread *thread, struct letters *letters, struct letter *letter)
{
	letter->next = NULL;
	uv_mutex_lock(&thread->lock);
	*letters->end = letter;
	letters->end = &letter->next;
	uv_mutex_unlock(&thread->lock);
}

static struct letter *collect(struct diglett_thread *thread, struct letters *letters)
{
	uv_mutex_lock(&thread->lock);
	struct letter *first = letters->first;
	letters_init(letters);
	uv_mutex_unlock(&thread->lock);
	return first;
}

/* the thread */

static void on_order_answered(void *owner, int code, struct json *result_take, const char *message)
{
	struct letter *letter = owner;
	struct diglett_thread *const thread = letter->thread;

	letter->code = code;
	letter->result = result_take;
	snprintf(letter->message, sizeof(letter->message), "%s", message ? message : "");
	post(thread, &thread->to_node, letter);
	uv_async_send(&thread->ended);
}

static void take_members(struct diglett_thread *thread)
{
	uv_mutex_lock(&thread->lock);
	struct diglett_members *members = thread->members;
	const bool has_members = thread->has_members;
	thread->members = NULL;
	thread->has_members = false;
	uv_mutex_unlock(&thread->lock);
	if (has_members && thread->server)
		diglett_server_set_members(thread->server, members);
	else
		diglett_members_free(members);
}

static void on_ordered(uv_async_t *async)
{
	struct diglett_thread *thread = async->data;

	take_members(thread);
	for (struct letter *letter = collect(thread, &thread->to_thread), *next; letter; letter = next) {
		next = letter->next;
		diglett_orders_run(thread->server, thread->agent, &letter->order, on_order_answered, letter);
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct diglett_thread *thread = timer->data;
	struct diglett_metrics metrics = { .is_server = thread->server != NULL, .is_agent = thread->agent != NULL };

	if (thread->server)
		metrics.server = diglett_server_counters(thread->server);
	if (thread->agent)
		metrics.agent = diglett_agent_counters(thread->agent);
	uv_mutex_lock(&thread->lock);
	thread->metrics = metrics;
	uv_mutex_unlock(&thread->lock);
}

static void on_part_stopped(void *owner)
{
	struct diglett_thread *thread = owner;

	if (--thread->n_open > 0)
		return;
	uv_close((uv_handle_t *)&thread->stop, NULL);
	uv_close((uv_handle_t *)&thread->ordered, NULL);
	uv_close((uv_handle_t *)&thread->tick, NULL);
}

static void on_stop(uv_async_t *async)
{
	struct diglett_thread *thread = async->data;

	uv_timer_stop(&thread->tick); /* what was seen last stays */
	thread->n_open = 1;
	if (thread->server) {
		thread->n_open++;
		diglett_server_stop(thread->server, on_part_stopped, thread);
	}
	if (thread->agent) {
		thread->n_open++;
		diglett_agent_stop(thread->agent, on_part_stopped, thread);
	}
	thread->server = NULL;
	thread->agent = NULL;
	on_part_stopped(thread);
}

static void run(void *arg)
{
	struct diglett_thread *thread = arg;

	uv_run(&thread->loop, UV_RUN_DEFAULT);
	uv_mutex_lock(&thread->lock);
	thread->has_ended = true;
	uv_mutex_unlock(&thread->lock);
	uv_async_send(&thread->ended);
}

/* the node */

static void on_ended_closed(uv_handle_t *handle)
{
	struct diglett_thread *thread = handle->data;
	void (*stopped)(void *owner) = thread->stopped;
	void *const owner = thread->owner;

	if (uv_loop_close(&thread->loop) != 0)
		abort(); /* a handle was left open */
	uv_mutex_destroy(&thread->lock);
	diglett_members_free(thread->members);
	free(thread);
	stopped(owner);
}

static void deliver(struct letter *letter)
{
	for (struct letter *next; letter; letter = next) {
		next = letter->next;
		letter->answered(letter->owner, letter->code, letter->result, letter->message);
		free(letter);
	}
}

/* Those that the thread has not answered before it ended. */
static void refuse_orders(struct diglett_thread *thread)
{
	struct letter *const letters = collect(thread, &thread->to_thread);

	for (struct letter *letter = letters; letter; letter = letter->next) {
		letter->code = RPC_UNAVAILABLE;
		snprintf(letter->message, sizeof(letter->message), "p2pnode is ending");
	}
	deliver(letters);
}

static void on_ended(uv_async_t *async)
{
	struct diglett_thread *thread = async->data;

	uv_mutex_lock(&thread->lock);
	const bool has_ended = thread->has_ended;
	uv_mutex_unlock(&thread->lock);
	deliver(collect(thread, &thread->to_node));
	if (!has_ended)
		return;
	refuse_orders(thread);
	uv_thread_join(&thread->id);
	uv_close((uv_handle_t *)async, on_ended_closed);
}

/* The node's certificate may be another one each day. */
static int on_show_badge(void *owner, const struct node_badge_binding *binding, struct node_badge *ret, struct error *reterr)
{
	const struct diglett_thread *thread = owner;
	struct state_dir dir = { .lock_fd = -1 };
	struct state_membership *membership = malloc(sizeof(*membership));
	char *key = NULL;

	if (!membership)
		abort();
	snprintf(dir.path, sizeof(dir.path), "%s", thread->state_dir);
	int r = state_dir_load_membership(&dir, membership, reterr);
	if (r == -ENOENT)
		error_set(reterr, r, "this node is no member of a network: p2pctl join LINK; or name a token_file");
	if (r == 0)
		r = state_dir_load_identity_key(&dir, &key, reterr);
	if (r == 0)
		r = node_badge_make(key, membership->member.certificate_pem, binding, ret, reterr);
	if (key)
		certificate_free_secret(key);
	free(membership);
	return r;
}

static int start_parts(struct diglett_thread *thread, struct error *reterr)
{
	const struct diglett_settings *settings = &thread->settings;
	const struct diglett_server_options server = { .listen = settings->listen,
						       .info = settings->info,
						       .domain = settings->domain,
						       .key_file = thread->key_file,
						       .tokens_file = settings->tokens,
						       .own_tokens_file = thread->tokens_file,
						       .script = settings->script,
						       .allow_v1 = settings->allow_v1,
						       .notes_file = thread->notes_file };
	struct diglett_agent_options agent = { .host = settings->host,
					       .port = settings->port,
					       .server_key = settings->server_key,
					       .token_file = settings->token_file,
					       .extra = settings->extra,
					       .owner = thread,
					       .show_badge = on_show_badge,
					       .n_ports = settings->n_ports };
	int r = 0;

	memcpy(agent.names, settings->names, sizeof(agent.names));
	memcpy(agent.targets, settings->targets, sizeof(agent.targets));
	if (settings->is_server)
		r = diglett_server_start(&thread->loop, &server, &thread->server, reterr);
	if (r == 0 && settings->is_agent)
		r = diglett_agent_start(&thread->loop, &agent, &thread->agent, reterr);
	return r;
}

int diglett_thread_start(uv_loop_t *loop, const struct diglett_settings *settings, const char *state_dir,
			 struct diglett_thread **ret, struct error *reterr)
{
	struct diglett_thread *thread = calloc(1, sizeof(*thread));

	if (!thread || uv_loop_init(&thread->loop) < 0 || uv_mutex_init(&thread->lock) < 0)
		abort();
	thread->settings = *settings;
	snprintf(thread->state_dir, sizeof(thread->state_dir), "%s", state_dir);
	snprintf(thread->key_file, sizeof(thread->key_file), "%s/diglett.key", state_dir);
	snprintf(thread->notes_file, sizeof(thread->notes_file), "%s/diglett.gateway", state_dir);
	snprintf(thread->tokens_file, sizeof(thread->tokens_file), "%s/diglett.tokens", state_dir);
	letters_init(&thread->to_thread);
	letters_init(&thread->to_node);
	uv_async_init(&thread->loop, &thread->stop, on_stop);
	uv_async_init(&thread->loop, &thread->ordered, on_ordered);
	uv_timer_init(&thread->loop, &thread->tick);
	thread->stop.data = thread->ordered.data = thread->ended.data = thread->tick.data = thread;
	int r = start_parts(thread, reterr);
	if (r == 0) {
		on_tick(&thread->tick);
		uv_timer_start(&thread->tick, on_tick, TICK_MS, TICK_MS);
		uv_async_init(loop, &thread->ended, on_ended);
		thread->ended.data = thread;
		if (uv_thread_create(&thread->id, run, thread) != 0)
			abort();
		*ret = thread;
		return 0;
	}
	on_stop(&thread->stop); /* what has begun ends here */
	uv_run(&thread->loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&thread->loop) != 0)
		abort();
	uv_mutex_destroy(&thread->lock);
	free(thread);
	return r;
}

struct diglett_metrics diglett_thread_metrics(struct diglett_thread *thread)
{
	uv_mutex_lock(&thread->lock);
	const struct diglett_metrics metrics = thread->metrics;
	uv_mutex_unlock(&thread->lock);
	return metrics;
}

void diglett_thread_order(struct diglett_thread *thread, const struct diglett_order *order, diglett_answered answered,
			  void *owner)
{
	struct letter *letter = calloc(1, sizeof(*letter));

	if (!letter)
		abort();
	*letter = (struct letter){ .thread = thread, .order = *order, .answered = answered, .owner = owner };
	post(thread, &thread->to_thread, letter);
	uv_async_send(&thread->ordered);
}

void diglett_thread_set_members(struct diglett_thread *thread, struct diglett_members *members_take)
{
	uv_mutex_lock(&thread->lock);
	diglett_members_free(thread->members);
	thread->members = members_take;
	thread->has_members = true;
	uv_mutex_unlock(&thread->lock);
	uv_async_send(&thread->ordered);
}

bool diglett_thread_has_server(const struct diglett_thread *thread)
{
	return thread->settings.is_server;
}

void diglett_thread_stop(struct diglett_thread *thread, void (*stopped)(void *owner), void *owner)
{
	thread->stopped = stopped;
	thread->owner = owner;
	uv_async_send(&thread->stop);
}
