/*
 * Does somebody listen at a target? One connection that is closed again, without a byte.
 *
 *   begun ──► connected, refused, or too late ──► closed: done(owner, 0 or -errno), once, and it is freed
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"

#include <uv.h>

struct target_probe;

/* done follows from the loop, always. */
struct target_probe *target_probe_begin(uv_loop_t *loop, const struct endpoint *target, void (*done)(void *owner, int status),
					void *owner);
/* It is done with -ETIMEDOUT, if it is not already. */
void target_probe_end(struct target_probe *probe);
