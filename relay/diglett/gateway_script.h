/*
 * The program that tells a gateway (traefik, nginx, HAProxy …) of agents that come and go.
 *
 *   SCRIPT add NAME 127.0.0.1 PORT [EXTRA]      the agent's port is open
 *   SCRIPT remove NAME                          it is not any more
 *
 * Run without a shell, with PATH only in its environment, nothing to read, and its output thrown away. NAME has letters,
 * digits, hyphens and dots only. One that takes longer than 10 s is killed with all it has started. Both words may come
 * again for what is done already.
 *
 *   add(), remove() ──► calls of the name, first in, first out ──► the line of names, first in, first out ──► 4 run at once,
 *                                                                              ▲                              1 of a name
 *                                                                              └── after 5 s ◄── failed
 *
 * Nothing is left out, and nothing overtakes another call of its name. An add that failed is tried again until something
 * newer waits behind it. A remove that failed is tried again; what waits behind it waits until it was tried 3 times. Then,
 * or when it is done, its owner is told that the port is free: before, the gateway may lead visitors to it.
 *
 * What may be told is noted in a file before, and that is on the disk, so that the next start takes back what a crash has
 * left, before it tells anything else. A thread of libuv's writes it; an add waits for that, and others do not wait for it.
 * Notes that cannot be written are tried again after 5 s; until then nothing may be added.
 *
 * Loop only.
 */
#pragma once

#include "common/error.h"
#include "relay/frontdoor/host_name.h"

#include <stdbool.h>
#include <uv.h>

#define GATEWAY_LIMIT_MS     10000
#define GATEWAY_RETRY_MS     5000
#define GATEWAY_RUNS	     4	  /* at once */
#define GATEWAY_TRIES	     3	  /* of a remove, before the port is given up */
#define GATEWAY_MAX_CALLS    8192 /* that wait, and the removes that are still to come */
#define GATEWAY_MAX_OF_NAME 4	  /* that wait when one more is added */

struct gateway;

struct gateway_counters {
	uint64_t runs, failures, killed;
	uint32_t waiting; /* calls now, those that run included */
};

enum gateway_state {
	GATEWAY_TELLS,	/* it is to be told, or just is */
	GATEWAY_KNOWS,	/* it was told all */
	GATEWAY_FAILED, /* the script has failed, and is run again */
};

struct gateway_options {
	const char *script, *notes;  /* copied */
	uint32_t limit_ms, retry_ms; /* 0: as above */
	void *owner;
	/* From the loop: the gateway does not lead there any more, or cannot be told so. May be NULL. */
	void (*removed)(void *owner, const struct host_name *name, uint16_t port);
	/* From the loop: the notes cannot be written. What gateway_is_noted() does not have is told to nobody: remove it. May be NULL. */
	void (*unnoted)(void *owner);
};

/* Takes back what the notes say. 0, or -errno: they cannot be read. */
P2P_CHECK int gateway_new(uv_loop_t *loop, const struct gateway_options *options, struct gateway **ret,
			  struct error *reterr);
/* Can the notes be written, as far as is known? */
P2P_CHECK bool gateway_can_note(const struct gateway *gateway);
/* Are they, with this name? */
P2P_CHECK bool gateway_is_noted(const struct gateway *gateway, const struct host_name *name);
/* May all these be added now? Not before all of the notes was taken back, or given up; nor while they cannot be written. */
P2P_CHECK bool gateway_has_room(const struct gateway *gateway, const struct host_name *names, uint8_t n);
/* Only when there is room. Each is followed by a remove of its own, sooner or later. */
void gateway_add(struct gateway *gateway, const struct host_name *name, uint16_t port, const char *extra);
void gateway_remove(struct gateway *gateway, const struct host_name *name, uint16_t port);
enum gateway_state gateway_state(const struct gateway *gateway, const struct host_name *name);
struct gateway_counters gateway_counters(const struct gateway *gateway);
/* Removes all, within limit_ms, frees itself, then calls closed. What fails now, or is not run in time, stays in the notes. */
void gateway_close(struct gateway *gateway, void (*closed)(void *owner), void *owner);
