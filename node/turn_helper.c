#include "node/turn_helper.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/spawn.h"
#include "node/turn/turn_fsm.h"

#include <assert.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_RESTART_MS 1000
#define MAX_RESTART_MS	 300000
#define END_MS		 1000
#define MAX_LINE	 128
#define N_TOLD		 64
#define TELL_AGAIN_NS	 60000000000ull /* p2pturn lets in for ten minutes */
#define MAX_UNWRITTEN	 16384

struct told {
	struct endpoint ip;
	uint64_t at_ns;
};

struct turn_helper {
	struct turn_helper_options options;
	uv_process_t process;
	uv_pipe_t input, output; /* of the child */
	uv_timer_t timer;
	bool runs;
	int n_open; /* handles; closes when there are none */
	uint32_t restart_ms;
	char line[MAX_LINE];
	size_t line_len;
	char bytes[1024];
	struct endpoint relayed;
	struct told told[N_TOLD];
	void (*closed)(void *owner);
	void *closed_owner;
};

struct written {
	uv_write_t write;
	char line[MAX_LINE];
};

static void start(struct turn_helper *helper);

static void on_closed(uv_handle_t *handle)
{
	struct turn_helper *helper = handle->data;

	if (--helper->n_open > 0)
		return;
	helper->closed(helper->closed_owner);
	free(helper);
}

static void set_relayed(struct turn_helper *helper, const struct endpoint *relayed)
{
	if (endpoint_equal(&helper->relayed, relayed))
		return;
	helper->relayed = *relayed;
	if (endpoint_is_none(relayed))
		log_info("turn", "no address at the TURN server any more");
	else
		log_info("turn", "the TURN server gives us %s", endpoint_text(relayed).s);
	if (!helper->closed)
		helper->options.changed(helper->options.owner, relayed);
}

/* ---- the child's words ---- */

static void take_line(struct turn_helper *helper)
{
	static const char word[] = "relayed ";
	struct endpoint relayed = { 0 };

	helper->line[helper->line_len] = '\0';
	if (strncmp(helper->line, word, strlen(word)) != 0)
		return;
	if (endpoint_parse(helper->line + strlen(word), &relayed) == 0)
		helper->restart_ms = FIRST_RESTART_MS;
	set_relayed(helper, &relayed);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct turn_helper *helper = handle->data;

	*ret = uv_buf_init(helper->bytes, sizeof(helper->bytes));
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
	struct turn_helper *helper = stream->data;

	if (n < 0)
		uv_read_stop(stream); /* its end is told by on_exit() */
	for (ssize_t i = 0; i < n; i++) {
		if (helper->bytes[i] == '\n') {
			take_line(helper);
			helper->line_len = 0;
		} else if (helper->line_len < sizeof(helper->line) - 1) {
			helper->line[helper->line_len++] = helper->bytes[i];
		}
	}
}

/* ---- its life ---- */

static void on_restart(uv_timer_t *timer)
{
	start(timer->data);
}

static void close_child(struct turn_helper *helper)
{
	uv_close((uv_handle_t *)&helper->process, on_closed);
	uv_close((uv_handle_t *)&helper->input, on_closed);
	uv_close((uv_handle_t *)&helper->output, on_closed);
}

static void plan_restart(struct turn_helper *helper)
{
	log_warning("turn", "p2pturn does not run: again in %u ms", helper->restart_ms);
	uv_timer_start(&helper->timer, on_restart, helper->restart_ms, 0);
	helper->restart_ms = helper->restart_ms < MAX_RESTART_MS / 2 ? helper->restart_ms * 2 : MAX_RESTART_MS;
}

static void on_ended(uv_process_t *process, int64_t status, int term_signal)
{
	const struct endpoint none = { 0 };
	struct turn_helper *helper = process->data;

	helper->runs = false;
	memset(helper->told, 0, sizeof(helper->told));
	set_relayed(helper, &none);
	close_child(helper);
	if (helper->closed)
		uv_close((uv_handle_t *)&helper->timer, on_closed);
	else
		plan_restart(helper);
}

/* Beside our own program, as in a build folder, or where it is installed. */
static void find_program(char ret[PATH_MAX])
{
	char ours[PATH_MAX];
	const ssize_t n = readlink("/proc/self/exe", ours, sizeof(ours) - 1);

	if (n > 0) {
		ours[n] = '\0';
		const char *slash = strrchr(ours, '/');
		const int len = slash ? (int)(slash - ours) : 0;
		if (snprintf(ret, PATH_MAX, "%.*s/p2pturn", len, ours) < PATH_MAX && access(ret, X_OK) == 0)
			return;
	}
	snprintf(ret, PATH_MAX, "%s", P2P_TURN_PROGRAM);
}

static int spawn(struct turn_helper *helper)
{
	const struct turn_settings *settings = helper->options.settings;
	struct endpoint_text server = endpoint_text(&settings->server);
	char path[PATH_MAX], port[8];

	find_program(path);
	snprintf(port, sizeof(port), "%u", helper->options.port);
	char *argv[] = { path, "--server", server.s, "--user", (char *)(uintptr_t)settings->user, "--password-file",
			 (char *)(uintptr_t)settings->password_file, "--node-port", port, NULL };
	uv_stdio_container_t stdio[] = {
		{ .flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&helper->input },
		{ .flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&helper->output },
		{ .flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO },
	};
	const uv_process_options_t options = {
		.exit_cb = on_ended, .file = path, .args = argv, .stdio_count = ARRAY_LEN(stdio), .stdio = stdio
	};

	return spawn_child(helper->options.loop, &helper->process, &options);
}

static void start(struct turn_helper *helper)
{
	uv_pipe_init(helper->options.loop, &helper->input, 0);
	uv_pipe_init(helper->options.loop, &helper->output, 0);
	helper->input.data = helper->output.data = helper->process.data = helper;
	helper->n_open += 3;
	helper->line_len = 0;
	const int r = spawn(helper);
	helper->runs = r == 0;
	if (r != 0) {
		log_warning("turn", "p2pturn cannot be started: %s", uv_strerror(r));
		close_child(helper);
		plan_restart(helper);
		return;
	}
	(void)uv_read_start((uv_stream_t *)&helper->output, on_alloc, on_output);
}

/* ---- what it is told ---- */

static void on_written(uv_write_t *write, int status)
{
	free(container_of(write, struct written, write));
}

static void write_line(struct turn_helper *helper, const char *line)
{
	struct written *written = calloc(1, sizeof(*written));

	if (!written)
		abort();
	snprintf(written->line, sizeof(written->line), "%s", line);
	const uv_buf_t buffer = uv_buf_init(written->line, (unsigned)strlen(written->line));
	if (uv_write(&written->write, (uv_stream_t *)&helper->input, &buffer, 1, on_written) != 0)
		free(written);
}

/* Of whom it was told longest ago; NULL: all were told of within the minute. */
static struct told *find_told(struct turn_helper *helper, const struct endpoint *ip)
{
	struct told *oldest = &helper->told[0];

	for (struct told *t = helper->told; t < helper->told + N_TOLD; t++) {
		if (endpoint_equal(&t->ip, ip))
			return t;
		if (t->at_ns < oldest->at_ns)
			oldest = t;
	}
	return oldest;
}

void turn_helper_pinged(struct turn_helper *helper, const struct endpoint *peer)
{
	const uint64_t now_ns = clock_now_ns();
	struct endpoint ip = *peer;
	char line[MAX_LINE];

	ip.port = 0;
	if (!helper->runs || helper->closed || !turn_can_reach(&helper->options.settings->server, peer))
		return;
	struct told *told = find_told(helper, &ip);
	if ((told->at_ns != 0 && now_ns - told->at_ns < TELL_AGAIN_NS) ||
	    helper->input.write_queue_size > MAX_UNWRITTEN)
		return;
	*told = (struct told){ .ip = ip, .at_ns = now_ns };
	snprintf(line, sizeof(line), "permit %s\n", endpoint_ip_text(&ip).s);
	write_line(helper, line);
}

void turn_helper_link_changed(struct turn_helper *helper)
{
	if (helper->closed)
		return;
	if (helper->runs) {
		write_line(helper, "network\n");
		return;
	}
	helper->restart_ms = FIRST_RESTART_MS;
	uv_timer_start(&helper->timer, on_restart, FIRST_RESTART_MS, 0);
}

/* ---- life ---- */

struct turn_helper *turn_helper_new(const struct turn_helper_options *options)
{
	struct turn_helper *helper = calloc(1, sizeof(*helper));

	if (!helper)
		abort();
	helper->options = *options;
	helper->restart_ms = FIRST_RESTART_MS;
	uv_timer_init(options->loop, &helper->timer);
	helper->timer.data = helper;
	helper->n_open = 1;
	start(helper);
	return helper;
}

struct endpoint turn_helper_relayed(const struct turn_helper *helper)
{
	return helper->relayed;
}

static void on_too_late(uv_timer_t *timer)
{
	struct turn_helper *helper = timer->data;

	if (helper->runs)
		(void)uv_process_kill(&helper->process, SIGKILL);
}

void turn_helper_close(struct turn_helper *helper, void (*closed)(void *owner), void *owner)
{
	if (!helper) {
		closed(owner);
		return;
	}
	assert(!helper->closed);
	helper->closed = closed;
	helper->closed_owner = owner;
	if (!helper->runs) {
		uv_close((uv_handle_t *)&helper->timer, on_closed);
		return;
	}
	(void)uv_process_kill(&helper->process, SIGTERM);
	uv_timer_start(&helper->timer, on_too_late, END_MS, 0);
}
