#include "relay/diglett/gateway_script.h"

#include "common/file.h"
#include "common/log.h"
#include "common/spawn.h"
#include "relay/diglett/file_saver.h"
#include "relay/diglett/gateway_notes.h"
#include "relay/diglett/request_wire.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NOTES (GATEWAY_MAX_CALLS * (HOST_NAME_MAX_LEN + 2)) /* a name that is noted has a call, or keeps a place for one */

struct call {
	struct call *next;
	uint16_t port; /* 0: of a remove that takes back what a crash has left */
	bool is_add, is_reconciling;
	bool is_told; /* a remove: that the port is free, or what a crash has left is taken back or given up */
	uint8_t failures;
	char extra[DIGLETT_MAX_EXTRA + 1];
};

/* A name that the gateway knows, or is to know. */
struct route {
	struct gateway *gateway;
	struct route *next, *next_in_line;
	struct host_name name;
	struct call *first, *last;
	uint32_t n_calls;
	uint16_t added;	  /* the port of the last add that no remove has followed; 0: none */
	bool may_be_told;
	bool is_noted;	   /* it is to be in the notes … */
	uint64_t noted_at; /* … from this version of them on */
	bool is_in_line, runs, has_failed, waits, is_closing;
	uv_process_t process;
	uv_timer_t timer; /* of its time limit; or until it is run again */
};

struct gateway {
	uv_loop_t *loop;
	char *script, *notes;
	uint32_t limit_ms, retry_ms;
	struct gateway_options options;
	struct route *routes, **routes_end;
	struct route *first_in_line, *last_in_line;
	uint32_t n_runs, n_calls, n_added;
	uint32_t n_reconciling; /* calls that are neither done nor given up: before these nothing is added */
	struct gateway_counters counters;
	struct file_saver saver;
	uint64_t wanted, saving, saved; /* versions of the notes: as they are to be, are being written, are on the disk */
	bool cannot_note;		/* as far as is known; it is tried again */
	uv_timer_t deadline;		/* of closing; before, until the notes are tried again */
	bool is_closing, is_late, is_forgetting, is_timer_closed;
	void (*closed)(void *owner);
	void *owner;
};

static void run_line(struct gateway *gateway);

/* the notes */

static char *print_notes(const struct gateway *gateway, size_t *ret_len)
{
	char *text = NULL;
	FILE *file = open_memstream(&text, ret_len);

	if (!file)
		abort();
	for (const struct route *route = gateway->routes; route; route = route->next)
		if (route->is_noted)
			fprintf(file, "%s\n", route->name.text);
	if (fclose(file) != 0)
		abort();
	return text;
}

/* As they are now, when the disk has time; what changes meanwhile comes after. */
static void save_notes(struct gateway *gateway)
{
	size_t len = 0;

	if (gateway->saver.is_busy || gateway->saved == gateway->wanted)
		return;
	gateway->saving = gateway->wanted;
	char *text = print_notes(gateway, &len);
	file_saver_save(&gateway->saver, text, len);
}

static void note(struct route *route, bool is_noted)
{
	if (route->is_noted == is_noted)
		return;
	route->is_noted = is_noted;
	route->noted_at = ++route->gateway->wanted;
	save_notes(route->gateway);
}

static bool is_on_disk(const struct route *route)
{
	return route->is_noted && route->noted_at <= route->gateway->saved;
}

static struct route *find(const struct gateway *gateway, const struct host_name *name)
{
	struct route *route = gateway->routes;

	while (route && (route->is_closing || !host_name_equal(&route->name, name)))
		route = route->next;
	return route;
}

static struct route *find_or_new(struct gateway *gateway, const struct host_name *name)
{
	struct route *route = find(gateway, name);

	if (route)
		return route;
	route = calloc(1, sizeof(*route));
	if (!route)
		abort();
	*route = (struct route){ .gateway = gateway, .name = *name };
	uv_timer_init(gateway->loop, &route->timer);
	route->timer.data = route->process.data = route;
	*gateway->routes_end = route;
	gateway->routes_end = &route->next;
	return route;
}

/* a route's end */

static void free_if_closed(struct gateway *gateway);
static void on_route_closed(uv_handle_t *handle);

static void on_deadline_closed(uv_handle_t *handle)
{
	struct gateway *gateway = handle->data;

	gateway->is_timer_closed = true;
	free_if_closed(gateway);
}

/* What stays in the notes is forgotten when nothing is to be written any more. */
static void close_routes(struct gateway *gateway)
{
	for (struct route *route = gateway->routes; route; route = route->next) {
		if (!route->is_closing)
			uv_close((uv_handle_t *)&route->timer, on_route_closed);
		route->is_closing = true;
	}
}

static void free_if_closed(struct gateway *gateway)
{
	const bool is_written = gateway->saved == gateway->wanted || gateway->cannot_note;

	if (!gateway->is_closing || gateway->n_calls > 0 || gateway->n_runs > 0 || gateway->saver.is_busy || !is_written)
		return;
	if (!gateway->is_forgetting)
		close_routes(gateway);
	gateway->is_forgetting = true;
	if (gateway->routes)
		return;
	if (!gateway->is_timer_closed) {
		if (!uv_is_closing((uv_handle_t *)&gateway->deadline))
			uv_close((uv_handle_t *)&gateway->deadline, on_deadline_closed);
		return;
	}
	void (*closed)(void *owner) = gateway->closed;
	void *const owner = gateway->owner;

	free(gateway->script);
	free(gateway->notes);
	free(gateway);
	if (closed)
		closed(owner);
}

static void on_route_closed(uv_handle_t *handle)
{
	struct route *route = handle->data;
	struct gateway *const gateway = route->gateway;
	struct route **at = &gateway->routes;

	while (*at != route)
		at = &(*at)->next;
	*at = route->next;
	if (gateway->routes_end == &route->next)
		gateway->routes_end = at;
	free(route);
	free_if_closed(gateway);
}

/* Nothing waits, and the gateway does not know it. */
static void close_if_over(struct route *route)
{
	if (route->is_closing || route->first || route->is_in_line || route->is_noted)
		return;
	route->is_closing = true;
	uv_close((uv_handle_t *)&route->timer, on_route_closed);
}

/* calls */

/* To the end of the line, when it has something to say and may say it. */
static void line_up(struct route *route)
{
	struct gateway *const gateway = route->gateway;

	if (!route->first || route->is_in_line || route->runs || route->waits)
		return;
	route->is_in_line = true;
	route->next_in_line = NULL;
	if (gateway->last_in_line)
		gateway->last_in_line->next_in_line = route;
	else
		gateway->first_in_line = route;
	gateway->last_in_line = route;
}

/* Its owner is told once that the port is free. */
static void tell_removed(struct route *route, struct call *call)
{
	const struct gateway_options *options = &route->gateway->options;

	if (call->is_add || call->is_told)
		return;
	call->is_told = true;
	route->gateway->n_reconciling -= call->is_reconciling ? 1 : 0;
	if (call->port != 0 && options->removed)
		options->removed(options->owner, &route->name, call->port);
}

static void end_call(struct route *route)
{
	struct call *call = route->first;

	route->first = call->next;
	route->last = route->first ? route->last : NULL;
	route->n_calls--;
	route->gateway->n_calls--;
	tell_removed(route, call);
	free(call);
}

/* What has failed, and is tried again only as long as nothing newer waits? */
static bool is_given_up(const struct call *call)
{
	return call->failures > 0 && (call->is_add || call->failures >= GATEWAY_TRIES);
}

static struct call *append(struct route *route, bool is_add, uint16_t port)
{
	struct call *call = calloc(1, sizeof(*call));

	if (!call)
		abort();
	*call = (struct call){ .is_add = is_add, .port = port };
	if (route->waits && is_given_up(route->first)) {
		uv_timer_stop(&route->timer);
		route->waits = false;
		end_call(route);
	}
	if (route->last)
		route->last->next = call;
	else
		route->first = call;
	route->last = call;
	route->n_calls++;
	route->gateway->n_calls++;
	line_up(route);
	return call;
}

/* What was noted is taken back. */
static void reconcile(struct gateway *gateway, struct gateway_notes notes)
{
	struct host_name name;

	while (gateway_notes_next(&notes, &name)) {
		if (find(gateway, &name))
			continue;
		struct route *route = find_or_new(gateway, &name);
		route->may_be_told = route->is_noted = true;
		append(route, false, 0)->is_reconciling = true;
		gateway->n_reconciling++;
	}
}

static int load_notes(struct gateway *gateway, struct error *reterr)
{
	char *text = NULL;
	size_t len = 0;
	int r = file_read(gateway->notes, MAX_NOTES, &text, &len, reterr);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	const struct gateway_notes notes = { text, len };
	/* Seen before the first is taken: a file that is not ours is left as it is. */
	if (gateway_notes_count(notes) > GATEWAY_MAX_CALLS)
		r = error_set(reterr, -EFBIG, "%s: more than %d names", gateway->notes, GATEWAY_MAX_CALLS);
	else
		reconcile(gateway, notes);
	free(text);
	return r;
}

/* Nobody needs to hear of what ends before it has begun; and when it is late, the next start takes back the rest. */
static void drop_calls(struct route *route)
{
	const bool is_late = route->gateway->is_late;

	while (route->first && !route->runs && (is_late || route->first->is_add || !route->may_be_told))
		end_call(route);
	if (!route->first && !route->may_be_told)
		note(route, false);
}

/* a run */

static void on_retry(uv_timer_t *timer)
{
	struct route *route = timer->data;

	route->waits = false;
	line_up(route);
	run_line(route->gateway);
}

/* It stays in the notes when it is to be added anew. */
static void finish_well(struct route *route)
{
	const bool was_add = route->first->is_add;

	end_call(route);
	if (was_add)
		return;
	route->may_be_told = false;
	note(route, route->first != NULL);
}

static void finish_badly(struct route *route)
{
	struct call *const call = route->first;

	if (call->failures < GATEWAY_TRIES)
		call->failures++;
	if (route->gateway->is_closing || (call->next && is_given_up(call))) {
		end_call(route);
		return;
	}
	if (is_given_up(call))
		tell_removed(route, call);
	route->waits = true;
	uv_timer_start(&route->timer, on_retry, route->gateway->retry_ms, 0);
}

static void on_process_closed(uv_handle_t *handle)
{
	struct route *route = handle->data;
	struct gateway *const gateway = route->gateway;

	route->runs = false;
	gateway->n_runs--;
	if (route->has_failed)
		finish_badly(route);
	else
		finish_well(route);
	if (gateway->is_closing)
		drop_calls(route);
	line_up(route);
	close_if_over(route);
	run_line(gateway);
}

static void on_exit_told(uv_process_t *process, int64_t status, int term_signal)
{
	struct route *route = process->data;

	uv_timer_stop(&route->timer);
	route->has_failed = status != 0 || term_signal != 0;
	if (route->has_failed) {
		route->gateway->counters.failures++;
		log_warning("diglett", "the gateway's script failed for %s: exit code %d, signal %d", route->name.text,
			    (int)status, term_signal);
	}
	uv_close((uv_handle_t *)process, on_process_closed);
}

/* With all it has started: it leads a session of its own. */
static void on_time_limit(uv_timer_t *timer)
{
	struct route *route = timer->data;

	route->gateway->counters.killed++;
	log_warning("diglett", "the gateway's script takes too long for %s: killed", route->name.text);
	kill(-route->process.pid, SIGKILL);
}

static void run(struct route *route)
{
	struct gateway *const gateway = route->gateway;
	struct call *const call = route->first;
	char port[8], *environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	char *add_words[] = { gateway->script, "add", route->name.text, "127.0.0.1", port,
			      call->extra[0] ? call->extra : NULL, NULL };
	char *remove_words[] = { gateway->script, "remove", route->name.text, NULL };
	const uv_process_options_t options = { .exit_cb = on_exit_told,
					       .file = gateway->script,
					       .args = call->is_add ? add_words : remove_words,
					       .env = environment,
					       .cwd = "/",
					       .flags = UV_PROCESS_DETACHED };

	snprintf(port, sizeof(port), "%u", call->port);
	if (call->is_add)
		route->may_be_told = true;
	gateway->n_runs++;
	gateway->counters.runs++;
	route->runs = true;
	uv_timer_start(&route->timer, on_time_limit, gateway->limit_ms, 0);
	const int r = spawn_child(gateway->loop, &route->process, &options);
	route->process.data = route;
	if (r == 0)
		return;
	log_error("diglett", "cannot run the gateway's script: %s", uv_strerror(r));
	uv_timer_stop(&route->timer);
	gateway->counters.failures++;
	route->has_failed = true;
	uv_close((uv_handle_t *)&route->process, on_process_closed);
}

/* The first that may be run; NULL: none. Of what is noted nowhere nobody is told. */
static struct route *take_from_line(struct gateway *gateway)
{
	struct route *before = NULL, *route = gateway->first_in_line;

	while (route && route->first && route->first->is_add && !is_on_disk(route)) {
		before = route;
		route = route->next_in_line;
	}
	if (!route)
		return NULL;
	if (before)
		before->next_in_line = route->next_in_line;
	else
		gateway->first_in_line = route->next_in_line;
	if (gateway->last_in_line == route)
		gateway->last_in_line = before;
	route->is_in_line = false;
	return route;
}

static void run_line(struct gateway *gateway)
{
	struct route *route;

	while (gateway->n_runs < GATEWAY_RUNS && (route = take_from_line(gateway))) {
		if (route->first)
			run(route);
		else
			close_if_over(route);
	}
	free_if_closed(gateway);
}

/* the notes are written, or not */

static void on_note_again(uv_timer_t *timer)
{
	save_notes(timer->data);
}

static void note_failure(struct gateway *gateway, const struct error *error)
{
	if (!gateway->cannot_note)
		log_error("diglett", "names that the gateway is told cannot be noted, so no agent is let in: %s", error->message);
	gateway->cannot_note = true;
	if (gateway->is_closing)
		return;
	uv_timer_start(&gateway->deadline, on_note_again, gateway->retry_ms, 0);
	if (gateway->options.unnoted)
		gateway->options.unnoted(gateway->options.owner);
}

static void on_saved(void *owner, int r, const struct error *error)
{
	struct gateway *gateway = owner;

	if (r < 0) {
		note_failure(gateway, error);
	} else {
		if (gateway->cannot_note)
			log_info("diglett", "names that the gateway is told can be noted again");
		gateway->cannot_note = false;
		gateway->saved = gateway->saving;
		save_notes(gateway);
	}
	run_line(gateway);
}

/* Can they be written at all? Nobody waits yet. */
static void try_notes(struct gateway *gateway)
{
	struct error error;
	size_t len = 0;
	char *text = print_notes(gateway, &len);
	const int r = file_write_atomic(gateway->notes, text, len, 0600, &error);

	free(text);
	if (r == 0)
		return;
	gateway->wanted++; /* something is to be written */
	note_failure(gateway, &error);
}

/* public */

int gateway_new(uv_loop_t *loop, const struct gateway_options *options, struct gateway **ret, struct error *reterr)
{
	struct gateway *gateway = calloc(1, sizeof(*gateway));

	if (!gateway || !(gateway->script = strdup(options->script)) || !(gateway->notes = strdup(options->notes)))
		abort();
	gateway->loop = loop;
	gateway->options = *options;
	gateway->routes_end = &gateway->routes;
	gateway->limit_ms = options->limit_ms ? options->limit_ms : GATEWAY_LIMIT_MS;
	gateway->retry_ms = options->retry_ms ? options->retry_ms : GATEWAY_RETRY_MS;
	uv_timer_init(loop, &gateway->deadline);
	gateway->deadline.data = gateway;
	file_saver_init(&gateway->saver, loop, gateway->notes, on_saved, gateway);
	int r = load_notes(gateway, reterr);
	if (r < 0) {
		gateway_close(gateway, NULL, NULL);
		return r;
	}
	try_notes(gateway);
	run_line(gateway);
	*ret = gateway;
	return 0;
}

bool gateway_can_note(const struct gateway *gateway)
{
	return !gateway->cannot_note;
}

bool gateway_is_noted(const struct gateway *gateway, const struct host_name *name)
{
	const struct route *route = find(gateway, name);

	return route && is_on_disk(route);
}

bool gateway_has_room(const struct gateway *gateway, const struct host_name *names, uint8_t n)
{
	if (gateway->n_reconciling > 0) /* it may lead to ports of before: nobody is to get these */
		return false;
	if (!gateway_can_note(gateway))
		return false;
	for (uint8_t i = 0; i < n; i++) {
		const struct route *route = find(gateway, &names[i]);
		if (route && route->n_calls >= GATEWAY_MAX_OF_NAME)
			return false;
	}
	return gateway->n_calls + gateway->n_added + 2u * n <= GATEWAY_MAX_CALLS;
}

void gateway_add(struct gateway *gateway, const struct host_name *name, uint16_t port, const char *extra)
{
	struct route *route = find_or_new(gateway, name);
	struct call *call = append(route, true, port);

	assert(route->added == 0 && port != 0 && gateway->n_reconciling == 0); /* the remove of the one before has come before */
	snprintf(call->extra, sizeof(call->extra), "%s", extra);
	route->added = port;
	gateway->n_added++;
	note(route, true);
	run_line(gateway);
}

static void remove_added(struct route *route)
{
	const uint16_t port = route->added;

	route->added = 0;
	route->gateway->n_added--;
	append(route, false, port);
}

void gateway_remove(struct gateway *gateway, const struct host_name *name, uint16_t port)
{
	struct route *route = find(gateway, name);

	assert(route && route->added == port);
	remove_added(route);
	run_line(gateway);
}

enum gateway_state gateway_state(const struct gateway *gateway, const struct host_name *name)
{
	const struct route *route = find(gateway, name);

	if (!route || !route->first)
		return GATEWAY_KNOWS;
	return route->first->failures > 0 ? GATEWAY_FAILED : GATEWAY_TELLS;
}

struct gateway_counters gateway_counters(const struct gateway *gateway)
{
	struct gateway_counters counters = gateway->counters;

	counters.waiting = gateway->n_calls;
	return counters;
}

/* Nothing is waited for but what runs, and what is to be run once. */
static void hurry(struct route *route)
{
	if (route->added != 0)
		remove_added(route);
	if (route->waits) {
		uv_timer_stop(&route->timer);
		route->waits = false;
	}
	drop_calls(route);
	line_up(route);
	close_if_over(route);
}

/* What runs is killed, what waits is not run. */
static void on_deadline(uv_timer_t *timer)
{
	struct gateway *const gateway = timer->data;

	log_warning("diglett", "the gateway's script takes too long to take back all names: the next start does the rest");
	gateway->is_late = true;
	for (struct route *route = gateway->routes; route; route = route->next) {
		if (route->runs && uv_is_active((uv_handle_t *)&route->timer)) {
			uv_timer_stop(&route->timer);
			on_time_limit(&route->timer);
		}
		drop_calls(route);
		close_if_over(route);
	}
	run_line(gateway);
}

void gateway_close(struct gateway *gateway, void (*closed)(void *owner), void *owner)
{
	gateway->is_closing = true;
	gateway->closed = closed;
	gateway->owner = owner;
	uv_timer_start(&gateway->deadline, on_deadline, gateway->limit_ms, 0);
	for (struct route *route = gateway->routes; route; route = route->next)
		hurry(route);
	run_line(gateway);
}
