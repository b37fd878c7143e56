/*
 * The map on disk: what a node knows of its network when it starts and control is away.
 *
 *   map_cache_keep ─► newest ─► being written, by a worker thread ─► on disk
 *                      ▲             │
 *                      └── a rest ◄──┘   a busy network must not keep the disk busy
 *
 * The first one is written at once, so that a crash loses next to nothing; those that come while one is written
 * replace each other. The loop never waits for the disk.
 *
 * Loop only.
 */
#pragma once

#include "actors/message.h"
#include "node/state_dir.h"

#include <uv.h>

struct map_cache;

/* dir must outlive it. */
struct map_cache *map_cache_new(uv_loop_t *loop, const struct state_dir *dir);
/* Keeps a reference. What cannot be written is logged, and tried again with the next one. */
void map_cache_keep(struct map_cache *cache, struct map_ref *map);
/* When the newest is on disk: frees itself and calls cb. Accepts NULL and calls nothing then. */
void map_cache_close(struct map_cache *cache, void (*cb)(void *owner), void *owner);
