/*
 * Children of this process. Between fork and exec a child has a copy of every descriptor: what is closed meanwhile stays
 * open for it, and in every epoll it was put into. Whoever leaves that to close() asks here how long what an event points
 * to has to be there.
 *
 *   fork ──── copies ──── exec ─┬─ SPAWN_REST_MS ─┬─► gone: the kernel lets go of them after uv_spawn() has been told
 *   └────────────── spawn_has_copies() ───────────┘
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define SPAWN_REST_MS 2000

/* uv_spawn(), of which all are told. */
int spawn_child(uv_loop_t *loop, uv_process_t *process, const uv_process_options_t *options);
/* Around a fork, and until the child has closed its copies. */
void spawn_begin(void);
void spawn_end(void);

/* now_ms: of clock.h. By any thread: may a child have a copy of what was closed just now? */
bool spawn_has_copies(uint64_t now_ms);
