/* Before a program gives all up for the one that follows, that one is asked whether it would start. */
#include "common/successor.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct answer {
	int n, result;
	char why[256];
};

static void on_checked(void *owner, int result, const char *why)
{
	struct answer *answer = owner;

	answer->n++;
	answer->result = result;
	snprintf(answer->why, sizeof(answer->why), "%s", why);
}

enum { SHORT_MS = 50, LONG_MS = 60000 };

/* Of `sh -f -c SCRIPT`: the option that is put in front is -f. */
static struct answer ask(const char *file, const char *script, uint64_t limit_ms, bool is_cancelled)
{
	char *argv[] = { (char *)(uintptr_t)file, (char *)(uintptr_t)"-c", (char *)(uintptr_t)script, NULL };
	struct answer answer = { .n = 0 };
	struct successor successor;
	uv_loop_t loop;

	uv_loop_init(&loop);
	successor_check(&successor, &loop, argv, "-f", limit_ms, on_checked, &answer);
	assert(answer.n == 0);
	if (is_cancelled)
		successor_cancel(&successor);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(answer.n == 1 && uv_loop_close(&loop) == 0);
	return answer;
}

static void test_who_ends_well_when_asked_would_start(void)
{
	assert(ask("sh", "case $- in *f*) exit 0; esac; exit 1", LONG_MS, false).result == 0);
}

static void test_who_ends_otherwise_is_named_with_its_exit_code(void)
{
	const struct answer answer = ask("sh", "exit 7", LONG_MS, false);

	assert(answer.result == -EINVAL && strstr(answer.why, "sh ") && strstr(answer.why, "exit code 7"));
}

static void test_who_is_killed_would_not_start(void)
{
	const struct answer answer = ask("sh", "kill -SEGV $$", LONG_MS, false);

	assert(answer.result == -ECANCELED && strstr(answer.why, "signal 11"));
}

#define NEVER "while :; do read line </dev/zero; done"

static void test_who_does_not_answer_is_not_waited_for_for_ever(void)
{
	const struct answer answer = ask("sh", NEVER, SHORT_MS, false);

	assert(answer.result == -ECANCELED && strstr(answer.why, "signal 9"));
	assert(ask("sh", NEVER, LONG_MS, true).result == -ECANCELED);
}

static void test_a_program_that_is_not_there_is_named(void)
{
	const struct answer answer = ask("/nowhere/p2pnode", "", LONG_MS, false);

	assert(answer.result == -ENOENT && strstr(answer.why, "/nowhere/p2pnode") && strstr(answer.why, "no such file"));
}

int main(void)
{
	test_who_ends_well_when_asked_would_start();
	test_who_ends_otherwise_is_named_with_its_exit_code();
	test_who_is_killed_would_not_start();
	test_who_does_not_answer_is_not_waited_for_for_ever();
	test_a_program_that_is_not_there_is_named();
	puts("ok");
	return 0;
}
