#include "node/map_cache.h"

#include "common/log.h"
#include "common/macros.h"

#include <stdlib.h>

#define REST_SHARE 20 /* writing may take one part in so many of the time */

struct map_cache {
	uv_loop_t *loop;
	const struct state_dir *dir;
	uv_timer_t rest;
	uv_work_t work;
	struct map_ref *newest, *written; /* NULL: none waits; none is being written */
	uint64_t begun_ns;
	int result; /* of the worker, with its error */
	struct error error;
	bool is_closing;
	void (*closed)(void *owner);
	void *owner;
};

static void begin(struct map_cache *cache);

static void on_closed(uv_handle_t *handle)
{
	struct map_cache *cache = container_of((uv_timer_t *)handle, struct map_cache, rest);
	void (*closed)(void *owner) = cache->closed;
	void *owner = cache->owner;

	free(cache);
	closed(owner);
}

static void on_rested(uv_timer_t *timer)
{
	begin(container_of(timer, struct map_cache, rest));
}

static void write_map(uv_work_t *work)
{
	struct map_cache *cache = container_of(work, struct map_cache, work);

	cache->result = state_dir_save_map(cache->dir, map_ref_get(cache->written), &cache->error);
}

static void on_written(uv_work_t *work, int status)
{
	struct map_cache *cache = container_of(work, struct map_cache, work);

	(void)status; /* never cancelled */
	map_unref(cache->written);
	cache->written = NULL;
	if (cache->result != 0)
		log_error("node", "%s", cache->error.message);
	if (cache->is_closing)
		begin(cache);
	else
		uv_timer_start(&cache->rest, on_rested, (uv_hrtime() - cache->begun_ns) * REST_SHARE / 1000000 + 1, 0);
}

/* Nothing is being written, and the rest is over. */
static void begin(struct map_cache *cache)
{
	if (!cache->newest) {
		if (cache->is_closing)
			uv_close((uv_handle_t *)&cache->rest, on_closed);
		return;
	}
	cache->written = cache->newest;
	cache->newest = NULL;
	cache->begun_ns = uv_hrtime();
	if (uv_queue_work(cache->loop, &cache->work, write_map, on_written) != 0)
		abort();
}

struct map_cache *map_cache_new(uv_loop_t *loop, const struct state_dir *dir)
{
	struct map_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		abort();
	cache->loop = loop;
	cache->dir = dir;
	uv_timer_init(loop, &cache->rest);
	return cache;
}

void map_cache_keep(struct map_cache *cache, struct map_ref *map)
{
	map_unref(cache->newest);
	cache->newest = map_ref(map);
	if (!cache->written && !uv_is_active((uv_handle_t *)&cache->rest))
		begin(cache);
}

void map_cache_close(struct map_cache *cache, void (*cb)(void *owner), void *owner)
{
	if (!cache)
		return;
	cache->is_closing = true;
	cache->closed = cb;
	cache->owner = owner;
	uv_timer_stop(&cache->rest);
	if (!cache->written)
		begin(cache);
}
