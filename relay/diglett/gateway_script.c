#include "relay/diglett/gateway_script.h"

#include "common/file.h"
#include "common/log.h"
#include "relay/diglett/request_wire.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NOTES (1024 * 1024)

/* A name that the gateway knows, or is to know. */
struct route {
	struct gateway *gateway;
	struct route *next;
	struct host_name name;
	char extra[DIGLETT_MAX_EXTRA + 1];
	uint16_t wanted, told; /* ports; 0: none */
	uint16_t running;      /* what the script that runs tells */
	bool may_be_told;      /* it is in the notes */
	bool runs, has_failed;
	uv_process_t process;
	uv_timer_t timer; /* of its time limit; or until it is run again */
	bool is_closing;
};

struct gateway {
	uv_loop_t *loop;
	char *script, *notes;
	uint32_t limit_ms, retry_ms;
	struct route *routes;
	uint32_t n_runs;
	struct gateway_counters counters;
	bool is_closing;
	void (*closed)(void *owner);
	void *owner;
};

static void step_all(struct gateway *gateway);

/* the notes */

static void save_notes(const struct gateway *gateway)
{
	struct error error;
	char *text = NULL;
	size_t len = 0;
	FILE *file = open_memstream(&text, &len);

	if (!file)
		abort();
	for (const struct route *route = gateway->routes; route; route = route->next)
		if (route->may_be_told)
			fprintf(file, "%s\n", route->name.text);
	if (fclose(file) != 0)
		abort();
	if (file_write_atomic(gateway->notes, text, len, 0600, &error) != 0)
		log_error("diglett", "%s", error.message);
	free(text);
}

static struct route *find(struct gateway *gateway, const struct host_name *name)
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
	*route = (struct route){ .gateway = gateway, .next = gateway->routes, .name = *name };
	uv_timer_init(gateway->loop, &route->timer);
	route->timer.data = route->process.data = route;
	gateway->routes = route;
	return route;
}

static int load_notes(struct gateway *gateway, struct error *reterr)
{
	char *text = NULL, *rest;
	size_t len;
	int r = file_read(gateway->notes, MAX_NOTES, &text, &len, reterr);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		struct host_name name;
		if (diglett_name_parse(line, strlen(line), &name) == 0)
			find_or_new(gateway, &name)->may_be_told = true;
	}
	free(text);
	return 0;
}

/* a route's end */

static void free_if_closed(struct gateway *gateway)
{
	if (!gateway->is_closing || gateway->routes)
		return;
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
	free(route);
	free_if_closed(gateway);
}

static void close_route(struct route *route)
{
	if (route->is_closing)
		return;
	route->is_closing = true;
	uv_close((uv_handle_t *)&route->timer, on_route_closed);
}

/* a run */

static void on_process_closed(uv_handle_t *handle)
{
	struct route *route = handle->data;

	route->runs = false;
	route->gateway->n_runs--;
	step_all(route->gateway);
}

static void on_retry(uv_timer_t *timer)
{
	struct route *route = timer->data;

	route->has_failed = false;
	step_all(route->gateway);
}

static void on_exit_told(uv_process_t *process, int64_t status, int term_signal)
{
	struct route *route = process->data;

	uv_timer_stop(&route->timer);
	if (status == 0 && term_signal == 0) {
		route->told = route->running;
		route->may_be_told = route->told != 0;
		save_notes(route->gateway);
	} else {
		route->gateway->counters.failures++;
		log_warning("diglett", "the gateway's script failed for %s: exit code %d, signal %d", route->name.text,
			    (int)status, term_signal);
		route->has_failed = true;
		uv_timer_start(&route->timer, on_retry, route->gateway->retry_ms, 0);
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
	char port[8], *environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	char *add_words[] = { gateway->script, "add", route->name.text, "127.0.0.1", port,
			route->extra[0] ? route->extra : NULL, NULL };
	char *remove_words[] = { gateway->script, "remove", route->name.text, NULL };
	const uv_process_options_t options = { .exit_cb = on_exit_told,
					       .file = gateway->script,
					       .args = route->wanted != 0 ? add_words : remove_words,
					       .env = environment,
					       .cwd = "/",
					       .flags = UV_PROCESS_DETACHED };

	snprintf(port, sizeof(port), "%u", route->wanted);
	route->running = route->wanted;
	if (route->wanted != 0 && !route->may_be_told) {
		route->may_be_told = true;
		save_notes(gateway);
	}
	gateway->n_runs++;
	gateway->counters.runs++;
	route->runs = true;
	uv_timer_start(&route->timer, on_time_limit, gateway->limit_ms, 0);
	const int r = uv_spawn(gateway->loop, &route->process, &options);
	route->process.data = route;
	if (r == 0)
		return;
	log_error("diglett", "cannot run the gateway's script: %s", uv_strerror(r));
	gateway->counters.failures++;
	route->has_failed = true;
	uv_timer_start(&route->timer, on_retry, gateway->retry_ms, 0);
	uv_close((uv_handle_t *)&route->process, on_process_closed);
}

static void step(struct route *route)
{
	const bool is_done = route->wanted == route->told && (route->wanted != 0 || !route->may_be_told);

	if (route->runs || route->is_closing)
		return;
	if (is_done && route->wanted != 0)
		return;
	if (is_done || (route->has_failed && route->gateway->is_closing))
		close_route(route);
	else if (!route->has_failed && route->gateway->n_runs < GATEWAY_RUNS)
		run(route);
}

static void step_all(struct gateway *gateway)
{
	for (struct route *route = gateway->routes; route; route = route->next)
		step(route);
}

/* public */

int gateway_new(uv_loop_t *loop, const struct gateway_options *options, struct gateway **ret, struct error *reterr)
{
	struct gateway *gateway = calloc(1, sizeof(*gateway));

	if (!gateway || !(gateway->script = strdup(options->script)) || !(gateway->notes = strdup(options->notes)))
		abort();
	gateway->loop = loop;
	gateway->limit_ms = options->limit_ms ? options->limit_ms : GATEWAY_LIMIT_MS;
	gateway->retry_ms = options->retry_ms ? options->retry_ms : GATEWAY_RETRY_MS;
	int r = load_notes(gateway, reterr);
	if (r < 0) {
		gateway_close(gateway, NULL, NULL);
		return r;
	}
	step_all(gateway);
	*ret = gateway;
	return 0;
}

void gateway_add(struct gateway *gateway, const struct host_name *name, uint16_t port, const char *extra)
{
	struct route *route = find_or_new(gateway, name);

	snprintf(route->extra, sizeof(route->extra), "%s", extra);
	route->wanted = port;
	step(route);
}

void gateway_remove(struct gateway *gateway, const struct host_name *name)
{
	struct route *route = find(gateway, name);

	if (!route)
		return;
	route->wanted = 0;
	step(route);
}

struct gateway_counters gateway_counters(const struct gateway *gateway)
{
	return gateway->counters;
}

void gateway_close(struct gateway *gateway, void (*closed)(void *owner), void *owner)
{
	gateway->is_closing = true;
	gateway->closed = closed;
	gateway->owner = owner;
	for (struct route *route = gateway->routes; route; route = route->next)
		route->wanted = 0;
	step_all(gateway);
	free_if_closed(gateway);
}
