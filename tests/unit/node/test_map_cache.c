/*
 * The cached map: what was kept last is on disk when the cache is closed, without the loop having waited; what
 * comes while one is written replaces what waits.
 */
#include "node/map_cache.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static char folder[256];
static struct state_dir dir;
static uv_loop_t loop;
static bool is_closed;

static void begin(void)
{
	snprintf(folder, sizeof(folder), "/tmp/p2p-map-cache-XXXXXX");
	assert(mkdtemp(folder));
	assert(state_dir_open(&dir, folder, NULL) == 0);
	assert(uv_loop_init(&loop) == 0);
	is_closed = false;
}

static void end(void)
{
	char command[300];

	assert(uv_run(&loop, UV_RUN_DEFAULT) == 0 && uv_loop_close(&loop) == 0);
	state_dir_close(&dir);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	assert(system(command) == 0);
}

static void keep(struct map_cache *cache, uint64_t sequence)
{
	static const char text[] =
		"{\"sequence\":\"1\",\"epoch\":\"1\",\"network\":\"home\",\"prefix4\":\"100.64.0.0/10\","
		"\"prefix6\":\"fd00::/64\",\"self\":{\"id\":1,\"name\":\"me\","
		"\"node_key\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\","
		"\"address4\":\"100.64.0.1\",\"address6\":\"fd00::1\"},\"peers\":[],\"relays\":[]}";
	const struct json_limits limits = { .max_len = sizeof(text) };
	struct json *json;
	struct map map;

	assert(json_parse(text, strlen(text), &limits, &json, NULL) == 0);
	assert(map_from_json(json, &map, NULL) == 0);
	json_free(json);
	map.sequence = sequence;
	struct map_ref *ref = map_ref_new(&map);
	map_cache_keep(cache, ref);
	map_unref(ref);
	map_deinit(&map);
}

/* 0: there is none. */
static ino_t file_on_disk(void)
{
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), "%s/map.json", folder);
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

/* 0: none is on disk. */
static uint64_t sequence_on_disk(void)
{
	struct map map;

	if (file_on_disk() == 0)
		return 0;
	assert(state_dir_load_map(&dir, &map, NULL) == 0);
	uint64_t sequence = map.sequence;
	map_deinit(&map);
	return sequence;
}

static void note_closed(void *owner)
{
	assert(owner == &loop);
	is_closed = true;
}

static void test_what_is_kept_is_written_at_once_but_not_by_the_loop(void)
{
	begin();
	struct map_cache *cache = map_cache_new(&loop, &dir);
	keep(cache, 7);
	while (file_on_disk() == 0)
		uv_run(&loop, UV_RUN_ONCE);
	assert(sequence_on_disk() == 7);
	map_cache_close(cache, note_closed, &loop);
	assert(!is_closed);
	end();
	assert(is_closed);
}

static void test_the_newest_is_on_disk_when_it_is_closed(void)
{
	begin();
	struct map_cache *cache = map_cache_new(&loop, &dir);
	for (uint64_t i = 1; i <= 100; i++)
		keep(cache, i);
	map_cache_close(cache, note_closed, &loop);
	while (!is_closed)
		uv_run(&loop, UV_RUN_ONCE);
	assert(sequence_on_disk() == 100);
	end();
}

static void wait_to_go(uv_work_t *work)
{
	uv_sem_wait(work->data);
}

/* However slow the machine is: a write that took WRITE_MS is followed by a rest of twenty times that. */
static void test_a_busy_network_does_not_keep_the_disk_busy(void)
{
	enum { WRITE_MS = 20, LOOK_MS = 300 };
	uv_sem_t go;
	uv_work_t before = { .data = &go };

	begin();
	assert(uv_sem_init(&go, 0) == 0);
	assert(uv_queue_work(&loop, &before, wait_to_go, NULL) == 0); /* the one worker is busy for so long */
	struct map_cache *cache = map_cache_new(&loop, &dir);
	const uint64_t begun_ns = uv_hrtime();
	keep(cache, 1);
	while (uv_hrtime() < begun_ns + WRITE_MS * UINT64_C(1000000))
		uv_run(&loop, UV_RUN_NOWAIT);
	const uint64_t until_ns = uv_hrtime() + LOOK_MS * UINT64_C(1000000);
	uv_sem_post(&go);
	while (file_on_disk() == 0)
		uv_run(&loop, UV_RUN_ONCE);
	for (uint64_t i = 2; uv_hrtime() < until_ns; i++) {
		keep(cache, i);
		uv_run(&loop, UV_RUN_NOWAIT);
		const uint64_t sequence = sequence_on_disk();
		assert(sequence == 1 || uv_hrtime() >= until_ns);
	}
	keep(cache, 1000000000);
	while (sequence_on_disk() != 1000000000) /* after the rest */
		uv_run(&loop, UV_RUN_ONCE);
	map_cache_close(cache, note_closed, &loop);
	end();
	assert(is_closed);
	uv_sem_destroy(&go);
}

static void test_a_cache_that_kept_nothing_closes_and_writes_nothing(void)
{
	begin();
	map_cache_close(map_cache_new(&loop, &dir), note_closed, &loop);
	map_cache_close(NULL, note_closed, NULL);
	while (!is_closed)
		uv_run(&loop, UV_RUN_ONCE);
	assert(sequence_on_disk() == 0);
	end();
}

int main(void)
{
	assert(setenv("UV_THREADPOOL_SIZE", "1", 1) == 0);
	test_what_is_kept_is_written_at_once_but_not_by_the_loop();
	test_the_newest_is_on_disk_when_it_is_closed();
	test_a_busy_network_does_not_keep_the_disk_busy();
	test_a_cache_that_kept_nothing_closes_and_writes_nothing();
	return 0;
}
