/* Signals of a program that begins anew in its own process: none is lost, none ends it, whenever it comes. */
#include "common/signal_watch.h"

#include "common/macros.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FOLLOWS "follows"

static const int numbers[] = { SIGTERM, SIGUSR1 };

struct heard {
	struct signal_watch watch;
	int numbers[4], n;
	bool is_stopped;
};

static void on_stopped(void *owner)
{
	((struct heard *)owner)->is_stopped = true;
}

/* Stops when it is told to end, as a program does. */
static void on_signal(void *owner, int number)
{
	struct heard *heard = owner;

	heard->numbers[heard->n++] = number;
	if (number == SIGTERM)
		signal_watch_stop(&heard->watch, on_stopped);
}

static void start(struct heard *heard, uv_loop_t *loop)
{
	struct error error;

	*heard = (struct heard){ .n = 0 };
	uv_loop_init(loop);
	assert(signal_watch_start(&heard->watch, loop, numbers, ARRAY_LEN(numbers), on_signal, heard, &error) == 0);
}

static void *wait_for_nothing(void *is_over)
{
	pthread_mutex_lock(is_over);
	pthread_mutex_unlock(is_over);
	return NULL;
}

static void test_who_is_told_hears_each_once_whatever_other_threads_there_are(void)
{
	pthread_mutex_t is_over = PTHREAD_MUTEX_INITIALIZER;
	pthread_t thread;
	struct heard heard;
	uv_loop_t loop;

	start(&heard, &loop);
	pthread_mutex_lock(&is_over);
	assert(pthread_create(&thread, NULL, wait_for_nothing, &is_over) == 0); /* which does not block them itself */
	kill(getpid(), SIGUSR1);
	uv_run(&loop, UV_RUN_ONCE);
	assert(heard.n == 1 && heard.numbers[0] == SIGUSR1);
	kill(getpid(), SIGTERM);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(heard.n == 2 && heard.numbers[1] == SIGTERM && heard.is_stopped);
	assert(uv_loop_close(&loop) == 0);
	pthread_mutex_unlock(&is_over);
	pthread_join(thread, NULL);
}

static void on_exit_of(uv_process_t *process, int64_t code, int number)
{
	int *ended_by = process->data;

	(void)code;
	*ended_by = number;
	uv_close((uv_handle_t *)process, NULL);
}

static void test_a_child_is_ended_by_them(void)
{
	char *argv[] = { "sh", "-c", "kill -TERM $$; exit 0", NULL };
	const uv_process_options_t options = { .exit_cb = on_exit_of, .file = "sh", .args = argv };
	uv_process_t process;
	struct heard heard;
	int ended_by = 0;
	uv_loop_t loop;

	start(&heard, &loop);
	process.data = &ended_by;
	assert(uv_spawn(&loop, &process, &options) == 0);
	signal_watch_stop(&heard.watch, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(ended_by == SIGTERM && uv_loop_close(&loop) == 0);
}

/* What came before it was there waits for it. */
static int follow(void)
{
	struct heard heard;
	uv_loop_t loop;

	start(&heard, &loop);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(uv_loop_close(&loop) == 0);
	return heard.n == 1 && heard.numbers[0] == SIGTERM ? 0 : 1;
}

static void test_what_comes_when_nobody_watches_is_heard_by_who_follows(void)
{
	int status;
	const pid_t child = fork();

	assert(child >= 0);
	if (child == 0) {
		struct heard heard;
		uv_loop_t loop;
		start(&heard, &loop);
		signal_watch_stop(&heard.watch, NULL);
		uv_run(&loop, UV_RUN_DEFAULT);
		kill(getpid(), SIGTERM);
		execl("/proc/self/exe", "test_signal_watch", FOLLOWS, NULL);
		abort();
	}
	assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char *argv[])
{
	if (argc == 2 && strcmp(argv[1], FOLLOWS) == 0)
		return follow();
	test_who_is_told_hears_each_once_whatever_other_threads_there_are();
	test_a_child_is_ended_by_them();
	test_what_comes_when_nobody_watches_is_heard_by_who_follows();
	puts("ok");
	return 0;
}
