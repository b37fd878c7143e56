/* The gateway's script: what it is told, once and in order; and that none of its faults stops the next. */
#include "relay/diglett/gateway_script.h"

#include "common/file.h"
#include "relay/diglett/request_wire.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT_MS 60000 /* on a busy machine nobody is too slow */
#define RETRY_MS 50

static struct world {
	char folder[64], script[96], notes[96], log[96];
	uv_loop_t loop;
	struct gateway *gateway;
	uint32_t limit_ms;
	bool is_closed;
} world;

/* body: of a script that has noted its words in the log. */
static void write_script(const char *body)
{
	FILE *file = fopen(world.script, "w");

	fprintf(file, "#!/bin/sh\necho \"$@\" >>%s\n%s\n", world.log, body);
	fclose(file);
	assert(chmod(world.script, 0755) == 0);
}

static void new_world(const char *body)
{
	memset(&world, 0, sizeof(world));
	world.limit_ms = LIMIT_MS;
	snprintf(world.folder, sizeof(world.folder), "/tmp/p2p-gateway-XXXXXX");
	assert(mkdtemp(world.folder));
	snprintf(world.script, sizeof(world.script), "%s/script", world.folder);
	snprintf(world.notes, sizeof(world.notes), "%s/notes", world.folder);
	snprintf(world.log, sizeof(world.log), "%s/log", world.folder);
	write_script(body);
	assert(uv_loop_init(&world.loop) == 0);
}

static void open_gateway(void)
{
	const struct gateway_options options = { world.script, world.notes, world.limit_ms, RETRY_MS };
	struct error error;

	assert(gateway_new(&world.loop, &options, &world.gateway, &error) == 0);
}

static void on_closed(void *owner)
{
	(void)owner;
	world.is_closed = true;
}

static void close_gateway(void)
{
	gateway_close(world.gateway, on_closed, NULL);
	while (!world.is_closed)
		uv_run(&world.loop, UV_RUN_ONCE);
}

static void end_world(void)
{
	uv_run(&world.loop, UV_RUN_DEFAULT);
	assert(uv_loop_close(&world.loop) == 0);
	(void)unlink(world.script);
	(void)unlink(world.notes);
	(void)unlink(world.log);
	assert(rmdir(world.folder) == 0); /* nothing else was left there */
}

static struct host_name name_of(const char *text)
{
	struct host_name name;

	assert(diglett_name_parse(text, strlen(text), &name) == 0);
	return name;
}

static void add(const char *name, uint16_t port, const char *extra)
{
	const struct host_name host = name_of(name);

	gateway_add(world.gateway, &host, port, extra);
}

static void take_away(const char *name)
{
	const struct host_name host = name_of(name);

	gateway_remove(world.gateway, &host);
}

static bool file_is(const char *path, const char *text)
{
	char *content = NULL;
	size_t len = 0;
	const bool is = file_read(path, 65536, &content, &len, NULL) == 0 ? strcmp(content, text) == 0 : text[0] == '\0';

	free(content);
	return is;
}

static void await_file(const char *path, const char *text)
{
	while (!file_is(path, text))
		uv_run(&world.loop, UV_RUN_ONCE); /* the test's own time limit ends one that never comes */
}

static void test_a_name_is_added_and_removed_and_noted_meanwhile(void)
{
	new_world("");
	open_gateway();
	add("app.demo", 4000, "");
	await_file(world.log, "add app.demo 127.0.0.1 4000\n");
	add("b.demo", 4001, "x y; rm -rf /");
	await_file(world.log, "add app.demo 127.0.0.1 4000\nadd b.demo 127.0.0.1 4001 x y; rm -rf /\n");
	assert(file_is(world.notes, "b.demo\napp.demo\n"));
	take_away("app.demo");
	await_file(world.notes, "b.demo\n");
	close_gateway();
	assert(file_is(world.notes, ""));
	end_world();
}

static void test_only_the_last_of_what_changes_meanwhile_is_told(void)
{
	new_world("sleep 0.05");
	open_gateway();
	add("app.demo", 1, "");
	take_away("app.demo");
	add("app.demo", 2, "");
	add("app.demo", 3, "");
	await_file(world.log, "add app.demo 127.0.0.1 1\nadd app.demo 127.0.0.1 3\n");
	take_away("app.demo");
	add("app.demo", 3, "");
	close_gateway();
	assert(file_is(world.log, "add app.demo 127.0.0.1 1\nadd app.demo 127.0.0.1 3\nremove app.demo\n"));
	end_world();
}

static void test_after_a_crash_the_next_start_takes_back_what_was_told(void)
{
	new_world("");
	FILE *notes = fopen(world.notes, "w");
	fputs("app.demo\n../../etc/passwd\nb.demo\n", notes);
	fclose(notes);
	open_gateway();
	await_file(world.notes, "");
	assert(gateway_counters(world.gateway).runs == 2 && gateway_counters(world.gateway).failures == 0);
	close_gateway();
	end_world();
}

static void test_a_script_that_fails_is_run_again(void)
{
	new_world("test -e $0.ok");
	char ok[112];
	snprintf(ok, sizeof(ok), "%s.ok", world.script);
	open_gateway();
	add("app.demo", 1, "");
	await_file(world.log, "add app.demo 127.0.0.1 1\nadd app.demo 127.0.0.1 1\n");
	fclose(fopen(ok, "w"));
	const uint64_t failures = gateway_counters(world.gateway).failures;
	assert(failures >= 1);
	take_away("app.demo");
	while (!file_is(world.notes, ""))
		uv_run(&world.loop, UV_RUN_ONCE);
	unlink(ok);
	close_gateway();
	end_world();
}

static void test_a_script_that_hangs_is_killed(void)
{
	new_world("sleep 1000 & sleep 1000");
	world.limit_ms = 100;
	open_gateway();
	add("slow.demo", 1, "");
	while (gateway_counters(world.gateway).failures == 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	assert(gateway_counters(world.gateway).killed > 0);
	close_gateway(); /* it does not wait for ever */
	end_world();
}

static void test_who_hangs_keeps_no_other_name_waiting(void)
{
	char path[112], *pid = NULL;
	size_t len;

	new_world("test $2 != slow.demo || { echo $$ >$0.new; mv $0.new $0.pid; exec sleep 1000; }");
	snprintf(path, sizeof(path), "%s.pid", world.script);
	open_gateway();
	add("slow.demo", 1, "");
	while (access(path, F_OK) != 0)
		uv_run(&world.loop, UV_RUN_NOWAIT);
	add("fast.demo", 2, "");
	take_away("fast.demo");
	while (gateway_counters(world.gateway).runs < 3)
		uv_run(&world.loop, UV_RUN_ONCE);
	await_file(world.notes, "slow.demo\n");
	assert(gateway_counters(world.gateway).failures == 0);
	assert(file_read(path, 64, &pid, &len, NULL) == 0 && kill(atoi(pid), SIGKILL) == 0);
	free(pid);
	unlink(path);
	close_gateway();
	end_world();
}

static void test_a_script_that_floods_its_output_fills_nothing(void)
{
	new_world("dd if=/dev/zero bs=65536 count=200; dd if=/dev/zero bs=65536 count=200 >&2");
	open_gateway();
	add("app.demo", 1, "");
	close_gateway();
	end_world();
}

static void test_a_script_that_is_not_there_fails_and_ends(void)
{
	new_world("");
	open_gateway();
	assert(unlink(world.script) == 0);
	add("app.demo", 1, "");
	while (gateway_counters(world.gateway).failures < 2)
		uv_run(&world.loop, UV_RUN_ONCE);
	close_gateway();
	assert(file_is(world.notes, "app.demo\n")); /* the next start tries to take it back */
	end_world();
}

int main(void)
{
	test_a_name_is_added_and_removed_and_noted_meanwhile();
	test_only_the_last_of_what_changes_meanwhile_is_told();
	test_after_a_crash_the_next_start_takes_back_what_was_told();
	test_a_script_that_fails_is_run_again();
	test_a_script_that_hangs_is_killed();
	test_who_hangs_keeps_no_other_name_waiting();
	test_a_script_that_floods_its_output_fills_nothing();
	test_a_script_that_is_not_there_fails_and_ends();
	return 0;
}
