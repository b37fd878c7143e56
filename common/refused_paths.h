/*
 * The remotes to which the kernel refused to send trains (UDP_SEGMENT), and from which size on.
 *
 * A refusal belongs to the route: its interface cannot do it, IPsec is in the way, or the path's MTU is
 * too small; other remotes are not concerned. Each is remembered for a minute or until routes change,
 * then tried again. A fixed table, in which a remote may push out another: that one is only tried again
 * earlier. No lock; an entry is one atomic word, so any thread, and a race costs one refusal more.
 * Times are in seconds of any monotonic clock. Pure.
 */
#pragma once

#include "common/endpoint.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define REFUSED_PATHS_N	      512
#define REFUSED_PATHS_RETRY_S 60
#define REFUSED_PATHS_ANY     UINT32_MAX /* nothing is known against it */

struct refused_paths {
	_Atomic bool has_any;
	_Atomic uint64_t entries[REFUSED_PATHS_N];
};

/* Largest datagram that trains to the remote may have; 0: no trains at all; REFUSED_PATHS_ANY. */
uint32_t refused_paths_limit(const struct refused_paths *paths, const struct endpoint *remote, uint32_t now_s);
/* From now on the limit is this, at most 65535. Ports of one address share it. */
void refused_paths_note(struct refused_paths *paths, const struct endpoint *remote, uint32_t limit,
			uint32_t now_s);
/* Routes have changed. */
void refused_paths_forget(struct refused_paths *paths);
