#include "common/spawn.h"

#include "common/clock.h"

#include <stdatomic.h>

static _Atomic uint32_t n_spawning;
static _Atomic uint64_t rest_until_ms;

void spawn_begin(void)
{
	atomic_fetch_add(&n_spawning, 1);
}

void spawn_end(void)
{
	atomic_store(&rest_until_ms, clock_now_ns() / 1000000 + SPAWN_REST_MS);
	atomic_fetch_sub(&n_spawning, 1);
}

int spawn_child(uv_loop_t *loop, uv_process_t *process, const uv_process_options_t *options)
{
	spawn_begin();
	const int r = uv_spawn(loop, process, options); /* returns when the child has begun its program, or could not */
	spawn_end();
	return r;
}

bool spawn_has_copies(uint64_t now_ms)
{
	return atomic_load(&n_spawning) > 0 || now_ms < atomic_load(&rest_until_ms);
}
