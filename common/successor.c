#include "common/successor.h"

#include "common/spawn.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static void on_closed(uv_handle_t *handle)
{
	struct successor *successor = handle->data;

	if (--successor->n_handles == 0)
		successor->on_checked(successor->owner, successor->result, successor->error.message);
}

static void end(struct successor *successor)
{
	successor->n_handles = 2;
	uv_close((uv_handle_t *)&successor->process, on_closed);
	uv_close((uv_handle_t *)&successor->limit, on_closed);
}

static void on_exit_of(uv_process_t *process, int64_t code, int number)
{
	struct successor *successor = process->data;

	if (number != 0)
		successor->result = error_set(&successor->error, -ECANCELED, "%s was ended by signal %d while it checked whether it would start",
					      successor->file, number);
	else if (code != 0)
		successor->result = error_set(&successor->error, -EINVAL, "%s would not start, as it says in the lines before (exit code %d)",
					      successor->file, (int)code);
	end(successor);
}

static void on_limit(uv_timer_t *timer)
{
	successor_cancel(timer->data);
}

void successor_cancel(struct successor *successor)
{
	if (successor->n_handles == 0) /* else it has ended */
		(void)uv_process_kill(&successor->process, SIGKILL);
}

/* The option first: behind "--" it would be none. The caller frees the array. */
static char **arguments_with(char *const argv[], const char *option)
{
	size_t n = 0;

	while (argv[n])
		n++;
	char **ret = calloc(n + 2, sizeof(*ret));
	if (!ret)
		abort();
	ret[0] = argv[0];
	ret[1] = (char *)(uintptr_t)option;
	for (size_t i = 1; i < n; i++)
		ret[i + 1] = argv[i];
	return ret;
}

void successor_check(struct successor *successor, uv_loop_t *loop, char *const argv[], const char *option, uint64_t limit_ms,
		     void (*on_checked)(void *owner, int result, const char *why), void *owner)
{
	char **arguments = arguments_with(argv, option);
	uv_stdio_container_t stdio[3] = { { .flags = UV_IGNORE },
					  { .flags = UV_IGNORE },
					  { .flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO } };
	const uv_process_options_t options = {
		.exit_cb = on_exit_of, .file = argv[0], .args = arguments, .stdio = stdio, .stdio_count = 3
	};

	*successor = (struct successor){ .file = argv[0], .on_checked = on_checked, .owner = owner };
	successor->process.data = successor->limit.data = successor;
	uv_timer_init(loop, &successor->limit);
	int r = spawn_child(loop, &successor->process, &options);
	free(arguments);
	if (r == 0) {
		uv_timer_start(&successor->limit, on_limit, limit_ms, 0);
		return;
	}
	successor->result = error_set(&successor->error, r, "cannot run %s: %s", argv[0], uv_strerror(r));
	end(successor);
}
