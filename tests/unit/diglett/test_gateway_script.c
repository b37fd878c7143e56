/* The gateway's script: what it is told, once and in order; and that none of its faults stops the next. */
#include "relay/diglett/gateway_script.h"

#include "common/file.h"
#include "relay/diglett/request_wire.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
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
	uv_timer_t poke; /* so that files that are awaited are looked at */
	struct gateway *gateway;
	uint32_t limit_ms;
	bool is_closed;
	char removed[256]; /* the ports that are free */
	uint32_t n_unnoted;
} world;

/* body: of a script that has noted its words in the log. */
static void write_script(const char *body)
{
	FILE *file = fopen(world.script, "w");

	fprintf(file, "#!/bin/sh\necho \"$@\" >>%s\n%s\n", world.log, body);
	fclose(file);
	assert(chmod(world.script, 0755) == 0);
}

static void on_poke(uv_timer_t *timer)
{
	(void)timer;
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
	uv_timer_init(&world.loop, &world.poke);
	uv_timer_start(&world.poke, on_poke, 5, 5);
}

static void on_removed(void *owner, const struct host_name *name, uint16_t port)
{
	const size_t len = strlen(world.removed);

	(void)owner;
	snprintf(world.removed + len, sizeof(world.removed) - len, "%s %u\n", name->text, port);
}

static void on_unnoted(void *owner);

static void open_gateway(void)
{
	const struct gateway_options options = { .script = world.script,
						 .notes = world.notes,
						 .limit_ms = world.limit_ms,
						 .retry_ms = RETRY_MS,
						 .removed = on_removed,
						 .unnoted = on_unnoted };
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
	uv_close((uv_handle_t *)&world.poke, NULL);
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

	assert(gateway_has_room(world.gateway, &host, 1));
	gateway_add(world.gateway, &host, port, extra);
}

static void take_away(const char *name, uint16_t port)
{
	const struct host_name host = name_of(name);

	gateway_remove(world.gateway, &host, port);
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
	assert(file_is(world.notes, "app.demo\nb.demo\n"));
	take_away("app.demo", 4000);
	await_file(world.notes, "b.demo\n");
	close_gateway();
	assert(file_is(world.notes, ""));
	end_world();
}

static void test_all_that_changes_meanwhile_is_told_in_order(void)
{
	new_world("sleep 0.05");
	open_gateway();
	add("app.demo", 1, "");
	take_away("app.demo", 1);
	add("app.demo", 2, "");
	take_away("app.demo", 2);
	assert(gateway_counters(world.gateway).waiting == 4);
	while (gateway_counters(world.gateway).waiting > 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	close_gateway();
	assert(file_is(world.log, "add app.demo 127.0.0.1 1\nremove app.demo\nadd app.demo 127.0.0.1 2\nremove app.demo\n"));
	end_world();
}

static void test_who_came_first_is_told_first(void)
{
	char names[12][16], expected[1024] = "";

	/* Until all wait, nothing is said; then one at a time, so that the log shows in which order they were run. */
	new_world("");
	FILE *script = fopen(world.script, "w");
	fprintf(script, "#!/bin/sh\nwhile ! test -e $0.go || ! mkdir $0.lock 2>/dev/null; do sleep 0.01; done\n"
			"echo \"$@\" >>%s\nrmdir $0.lock\n", world.log);
	fclose(script);
	open_gateway();
	for (int i = 0; i < 12; i++) {
		snprintf(names[i], sizeof(names[i]), "n%02d.demo", i);
		add(names[i], (uint16_t)(i + 1), "");
	}
	char go[112];
	snprintf(go, sizeof(go), "%s.go", world.script);
	fclose(fopen(go, "w"));
	while (gateway_counters(world.gateway).waiting > 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	char *log = NULL;
	size_t len;
	assert(file_read(world.log, 65536, &log, &len, NULL) == 0);
	for (int i = 0; i < 12; i++) { /* not later than the three that may run beside it */
		snprintf(expected, sizeof(expected), "add %s 127.0.0.1 %d\n", names[i], i + 1);
		const char *at = strstr(log, expected);
		int n_before = 0;
		assert(at);
		for (const char *c = log; c < at; c++)
			n_before += *c == '\n';
		assert(n_before >= i - GATEWAY_RUNS + 1);
	}
	free(log);
	close_gateway();
	unlink(go);
	end_world();
}

static void test_a_port_is_free_when_its_removal_was_told_and_not_before(void)
{
	new_world("test $1 = add || while ! test -e $0.go; do sleep 0.01; done");
	char go[112];
	snprintf(go, sizeof(go), "%s.go", world.script);
	open_gateway();
	add("app.demo", 1, "");
	await_file(world.notes, "app.demo\n");
	while (gateway_counters(world.gateway).waiting > 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	take_away("app.demo", 1);
	await_file(world.log, "add app.demo 127.0.0.1 1\nremove app.demo\n");
	assert(world.removed[0] == '\0');
	fclose(fopen(go, "w"));
	await_file(world.notes, "");
	assert(strcmp(world.removed, "app.demo 1\n") == 0);
	unlink(go);
	close_gateway();
	end_world();
}

static void test_a_port_whose_removal_fails_is_given_up_after_three_times_and_the_newer_is_told(void)
{
	new_world("test $1 = add");
	open_gateway();
	add("app.demo", 1, "");
	take_away("app.demo", 1);
	add("app.demo", 2, "");
	await_file(world.log, "add app.demo 127.0.0.1 1\nremove app.demo\nremove app.demo\nremove app.demo\n"
			      "add app.demo 127.0.0.1 2\n");
	assert(strcmp(world.removed, "app.demo 1\n") == 0);
	close_gateway();
	assert(file_is(world.notes, "app.demo\n")); /* the next start tries again */
	end_world();
}

static void test_a_start_that_fails_gives_way_to_the_end_behind_it(void)
{
	new_world("test $1 = remove");
	open_gateway();
	add("app.demo", 1, "");
	while (gateway_counters(world.gateway).failures == 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	take_away("app.demo", 1);
	await_file(world.notes, "");
	assert(strcmp(world.removed, "app.demo 1\n") == 0);
	close_gateway();
	end_world();
}

static void test_what_waits_is_bounded(void)
{
	struct host_name names[2] = { name_of("a.demo"), name_of("b.demo") };
	uint16_t port = 0;

	new_world("while ! test -e $0.go; do sleep 0.01; done");
	char go[112];
	snprintf(go, sizeof(go), "%s.go", world.script);
	open_gateway();
	while (gateway_has_room(world.gateway, names, 2)) { /* of a name */
		add("b.demo", ++port, "");
		take_away("b.demo", port);
	}
	assert(gateway_counters(world.gateway).waiting == GATEWAY_MAX_OF_NAME);
	assert(gateway_has_room(world.gateway, names, 1));
	uint32_t n = 0;
	for (; n < GATEWAY_MAX_CALLS; n++) { /* of all; each add keeps a place for its remove */
		char text[24];
		snprintf(text, sizeof(text), "n%u.demo", n);
		const struct host_name name = name_of(text);
		if (!gateway_has_room(world.gateway, &name, 1))
			break;
		gateway_add(world.gateway, &name, 1, "");
	}
	assert(n == (GATEWAY_MAX_CALLS - GATEWAY_MAX_OF_NAME) / 2);
	write_script("");
	unlink(world.script); /* what still waits fails at once */
	fclose(fopen(go, "w"));
	close_gateway();
	unlink(go);
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
	assert(world.removed[0] == '\0'); /* these ports were nobody's */
	close_gateway();
	end_world();
}

static void test_after_a_crash_nothing_is_told_before_all_was_taken_back(void)
{
	new_world("test $2 != slow.demo || sleep 0.2; test $2 != bad.demo");
	FILE *notes = fopen(world.notes, "w");
	fputs("slow.demo\nbad.demo\nfast.demo\n", notes);
	fclose(notes);
	write_script("test $2 != slow.demo || sleep 0.2; echo \"$1 $2\" >>$0.done; test $2 != bad.demo");
	char done[112];
	snprintf(done, sizeof(done), "%s.done", world.script);
	const struct host_name name = name_of("new.demo");
	open_gateway();
	while (!gateway_has_room(world.gateway, &name, 1)) /* nor has anybody a port that the gateway may lead to */
		uv_run(&world.loop, UV_RUN_ONCE);
	assert(gateway_counters(world.gateway).runs >= 2 + GATEWAY_TRIES); /* bad.demo is given up */
	add("new.demo", 1, "");
	add("fast.demo", 2, "");
	while (gateway_counters(world.gateway).waiting > 1)
		uv_run(&world.loop, UV_RUN_ONCE);
	char *text = NULL;
	size_t len;
	assert(file_read(done, 4096, &text, &len, NULL) == 0);
	assert(strstr(text, "remove slow.demo\n") && strstr(text, "remove bad.demo\n") && strstr(text, "remove fast.demo\n"));
	assert(!strstr(text, "add ") || strstr(text, "add ") > strstr(text, "remove slow.demo\n"));
	free(text);
	close_gateway();
	unlink(done);
	end_world();
}

/* Those that failed stand before others that were not tried yet. */
static void test_after_a_crash_many_that_fail_keep_no_other_waiting_for_ever(void)
{
	const struct host_name name = name_of("new.demo");

	new_world("sleep 0.03; false");
	FILE *notes = fopen(world.notes, "w");
	for (int i = 0; i < 40; i++)
		fprintf(notes, "n%d.demo\n", i);
	fclose(notes);
	open_gateway();
	while (!gateway_has_room(world.gateway, &name, 1))
		uv_run(&world.loop, UV_RUN_ONCE);
	assert(gateway_counters(world.gateway).runs >= 40 * GATEWAY_TRIES);
	unlink(world.script);
	close_gateway();
	end_world();
}

/* As many names as can be told, each as long as one can be. */
static void test_the_longest_notes_that_it_writes_it_can_read(void)
{
	char label[64];

	memset(label, 'a', 63);
	label[63] = '\0';
	new_world("");
	FILE *notes = fopen(world.notes, "w");
	for (int i = 0; i < GATEWAY_MAX_CALLS; i++)
		fprintf(notes, "%04d%.59s.%s.%s.%.61s\n", i, label, label, label, label);
	fclose(notes);
	world.limit_ms = 50;
	open_gateway();
	assert(gateway_counters(world.gateway).waiting == GATEWAY_MAX_CALLS);
	close_gateway();
	end_world();
}

/* They are none of its own. */
static void test_notes_of_more_names_than_can_be_told_are_refused_and_left_as_they_are(void)
{
	const struct gateway_options options = { .script = world.script, .notes = world.notes };
	struct error error;
	size_t n_before, n_after;
	char *before, *after;

	new_world("");
	FILE *notes = fopen(world.notes, "w");
	for (int i = 0; i <= GATEWAY_MAX_CALLS; i++)
		fprintf(notes, "n%d.demo\n", i);
	fclose(notes);
	assert(file_read(world.notes, 1 << 20, &before, &n_before, NULL) == 0);
	assert(gateway_new(&world.loop, &options, &world.gateway, &error) == -EFBIG);
	uv_unref((uv_handle_t *)&world.poke);
	uv_run(&world.loop, UV_RUN_DEFAULT);
	assert(file_read(world.notes, 1 << 20, &after, &n_after, NULL) == 0);
	assert(n_before == n_after && memcmp(before, after, n_before) == 0);
	free(before);
	free(after);
	end_world();
}

static void test_closing_has_one_time_limit_however_many_names_there_are(void)
{
	char *text = NULL;
	size_t len;
	int n_noted = 0, n_removed = 0;

	new_world("test $1 = add || exec sleep 1000");
	world.limit_ms = 3000; /* an add on a busy machine */
	open_gateway();
	for (int i = 0; i < 40; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%02d.demo", i);
		add(name, (uint16_t)(i + 1), "");
	}
	while (gateway_counters(world.gateway).waiting > 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	assert(gateway_counters(world.gateway).failures == 0);
	close_gateway();
	assert(file_read(world.notes, 65536, &text, &len, NULL) == 0);
	for (const char *c = text; *c; c++)
		n_noted += *c == '\n';
	free(text);
	assert(n_noted == 40); /* for the next start */
	assert(file_read(world.log, 65536, &text, &len, NULL) == 0);
	for (const char *c = text; (c = strstr(c, "remove ")); c++)
		n_removed++;
	free(text);
	assert(n_removed <= GATEWAY_RUNS);
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
	take_away("app.demo", 1);
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

	new_world("test \"$1 $2\" != \"add slow.demo\" || { echo $$ >$0.new; mv $0.new $0.pid; exec sleep 1000; }");
	snprintf(path, sizeof(path), "%s.pid", world.script);
	open_gateway();
	add("slow.demo", 1, "");
	while (access(path, F_OK) != 0)
		uv_run(&world.loop, UV_RUN_NOWAIT);
	add("fast.demo", 2, "");
	take_away("fast.demo", 2);
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

static void on_unnoted(void *owner)
{
	(void)owner;
	world.n_unnoted++;
}

/* A folder in the file's place: it cannot be written, whoever the test is run by. */
static void test_who_cannot_be_noted_is_told_to_nobody_until_it_can(void)
{
	const struct host_name name = name_of("app.demo");

	new_world("");
	open_gateway();
	assert(unlink(world.notes) == 0 && mkdir(world.notes, 0700) == 0);
	add("app.demo", 1, "");
	while (world.n_unnoted == 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	assert(!gateway_can_note(world.gateway) && !gateway_is_noted(world.gateway, &name));
	assert(!gateway_has_room(world.gateway, &name, 1) && gateway_counters(world.gateway).runs == 0);
	take_away("app.demo", 1);
	while (world.n_unnoted < 3) /* it is tried again */
		uv_run(&world.loop, UV_RUN_ONCE);
	assert(file_is(world.log, ""));
	assert(rmdir(world.notes) == 0);
	while (!gateway_can_note(world.gateway) || gateway_counters(world.gateway).waiting > 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	assert(gateway_has_room(world.gateway, &name, 1));
	assert(strcmp(world.removed, "app.demo 1\n") == 0);
	close_gateway();
	assert(file_is(world.notes, ""));
	end_world();
}

static void test_notes_that_cannot_be_written_let_it_end_all_the_same(void)
{
	new_world("");
	open_gateway();
	assert(unlink(world.notes) == 0 && mkdir(world.notes, 0700) == 0);
	add("app.demo", 1, "");
	close_gateway();
	assert(rmdir(world.notes) == 0);
	end_world();
}

static void test_a_name_whose_end_failed_stays_noted_though_others_end_well_later(void)
{
	new_world("if test $1 = remove; then if test $2 = a.demo; then exit 1; else sleep 0.2; fi; fi");
	open_gateway();
	add("a.demo", 1, "");
	add("b.demo", 2, "");
	while (gateway_counters(world.gateway).waiting > 0)
		uv_run(&world.loop, UV_RUN_ONCE);
	close_gateway();
	assert(file_is(world.notes, "a.demo\n"));
	end_world();
}

/* A script that failed, hung or flooded its output leaves neither pipes nor places of a child. */
static unsigned count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	assert(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

int main(void)
{
	test_who_cannot_be_noted_is_told_to_nobody_until_it_can();
	test_notes_that_cannot_be_written_let_it_end_all_the_same();
	test_a_name_whose_end_failed_stays_noted_though_others_end_well_later();
	test_a_name_is_added_and_removed_and_noted_meanwhile();
	test_all_that_changes_meanwhile_is_told_in_order();
	test_who_came_first_is_told_first();
	test_a_port_is_free_when_its_removal_was_told_and_not_before();
	test_a_port_whose_removal_fails_is_given_up_after_three_times_and_the_newer_is_told();
	test_a_start_that_fails_gives_way_to_the_end_behind_it();
	test_what_waits_is_bounded();
	test_after_a_crash_the_next_start_takes_back_what_was_told();
	test_after_a_crash_nothing_is_told_before_all_was_taken_back();
	test_after_a_crash_many_that_fail_keep_no_other_waiting_for_ever();
	test_the_longest_notes_that_it_writes_it_can_read();
	test_notes_of_more_names_than_can_be_told_are_refused_and_left_as_they_are();
	test_closing_has_one_time_limit_however_many_names_there_are();
	const unsigned n_before = count_descriptors();
	test_a_script_that_fails_is_run_again();
	test_a_script_that_hangs_is_killed();
	test_who_hangs_keeps_no_other_name_waiting();
	test_a_script_that_floods_its_output_fills_nothing();
	test_a_script_that_is_not_there_fails_and_ends();
	assert(count_descriptors() == n_before);
	return 0;
}
