/*
 * The program that tells a gateway (traefik, nginx, HAProxy …) of agents that come and go.
 *
 *   SCRIPT add NAME 127.0.0.1 PORT [EXTRA]      the agent's port is open
 *   SCRIPT remove NAME                          it is not any more
 *
 * Run without a shell, with PATH only in its environment, nothing to read, and its output thrown away. NAME has letters,
 * digits, hyphens and dots only. Of a name one runs at a time, of all 4; what changes meanwhile is done afterwards, and
 * only the last of it. One that takes longer than 10 s is killed with all it has started; one that fails is run again.
 * Both words may come again for what is done already.
 *
 * What may be told is noted in a file before, so that the next start takes back what a crash has left.
 *
 * Loop only.
 */
#pragma once

#include "common/error.h"
#include "relay/frontdoor/host_name.h"

#include <uv.h>

#define GATEWAY_LIMIT_MS 10000
#define GATEWAY_RETRY_MS 5000
#define GATEWAY_RUNS	 4 /* at once */

struct gateway;

struct gateway_counters {
	uint64_t runs, failures, killed;
};

struct gateway_options {
	const char *script, *notes;  /* copied */
	uint32_t limit_ms, retry_ms; /* 0: as above */
};

/* Takes back what the notes say. 0, or -errno: they cannot be read. */
P2P_CHECK int gateway_new(uv_loop_t *loop, const struct gateway_options *options, struct gateway **ret,
			  struct error *reterr);
void gateway_add(struct gateway *gateway, const struct host_name *name, uint16_t port, const char *extra);
void gateway_remove(struct gateway *gateway, const struct host_name *name);
struct gateway_counters gateway_counters(const struct gateway *gateway);
/* Removes all, waits for what runs, frees itself, then calls closed. What fails now stays in the notes. */
void gateway_close(struct gateway *gateway, void (*closed)(void *owner), void *owner);
