/*
 * libp2pnode as a stranger's program sees it: only the public header and the shared library.
 * An Engine can be made, started, asked and stopped; what is wrong comes back as a sentence.
 */
#include <p2pnode/engine.h>

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static uv_loop_t loop;
static enum p2p_engine_state last_state;
static int n_done;

static void on_changed(void *owner, enum p2p_engine_state state)
{
	last_state = state;
}

static void on_stopped(void *owner)
{
	*(int *)owner = 1;
}

static void on_done(void *owner, int code, const char *message)
{
	assert(code != 0 && message[0] != '\0');
	n_done++;
}

static struct p2p_engine *start(struct p2p_engine_options *options)
{
	const struct p2p_engine_callbacks callbacks = { .changed = on_changed };
	struct p2p_engine *engine;
	char message[512];

	assert(p2p_engine_new(&loop, options, &callbacks, &engine, message, sizeof(message)) == 0);
	assert(p2p_engine_start(engine, message, sizeof(message)) == 0);
	return engine;
}

static void stop(struct p2p_engine *engine)
{
	int stopped = 0;

	p2p_engine_stop(engine, on_stopped, &stopped);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert(stopped);
}

static void test_an_engine_without_membership_waits_for_a_join(const char *folder)
{
	struct p2p_engine_options options = { .state_dir = folder, .interface = "p2ptest0", .mtu = 1280 };
	struct p2p_engine *engine = start(&options);

	assert(p2p_engine_get_state(engine) == P2P_ENGINE_NOT_JOINED);
	assert(last_state == P2P_ENGINE_NOT_JOINED);
	p2p_engine_join(engine, "no link at all", NULL, on_done, NULL);
	p2p_engine_leave(engine, on_done, NULL);
	assert(n_done == 2);
	char *json = p2p_engine_status_json(engine);
	assert(json && strstr(json, "\"state\":\"not joined\""));
	free(json);
	stop(engine);
}

static void test_bad_options_are_refused_with_a_sentence(const char *folder)
{
	struct p2p_engine_options options = { .state_dir = folder, .interface = "p2ptest0", .mtu = 100 };
	const struct p2p_engine_callbacks callbacks = { .changed = on_changed };
	struct p2p_engine *engine = NULL;
	char message[512] = "";

	assert(p2p_engine_new(&loop, &options, &callbacks, &engine, message, sizeof(message)) < 0);
	assert(!engine && strstr(message, "mtu"));
}

int main(void)
{
	char folder[] = "/tmp/p2p-library-XXXXXX", command[64];

	assert(mkdtemp(folder));
	uv_loop_init(&loop);
	test_bad_options_are_refused_with_a_sentence(folder);
	test_an_engine_without_membership_waits_for_a_join(folder);
	assert(uv_loop_close(&loop) == 0);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	assert(system(command) == 0);
	puts("ok");
}
