/*
 * Who takes visitors of a host in this process, in place of a target: what terminates TLS (node/expose/terminator.h).
 *
 *   visitor ◄══ splice_pump ══► pair of Unix sockets ◄──► sink ──► where it leads them
 *     gate, bounds, time limits: the door's, as for all visitors
 *
 * The door sees the pair's one end as the target. What came first from the visitor is the first that is read at the other.
 */
#pragma once

#include "common/endpoint.h"
#include "relay/frontdoor/door_gate.h"
#include "relay/frontdoor/host_name.h"

#include <stdbool.h>
#include <stdint.h>

/* A visitor, for a sink. */
struct door_guest {
	struct endpoint source, destination; /* who it is, and where it came to first */
	struct host_name host;
	bool is_https;
	uint8_t n_doors; /* that have passed it on, with this one */
	struct door_gate *gate; /* borrowed: who keeps it holds it. It is told whether the target was reached */
};

struct door_sink {
	/*
	 * In the door's thread: fd, a non-blocking Unix socket, is the sink's from now on, also when it says false: there is no
	 * room. guest is borrowed.
	 */
	bool (*take)(struct door_sink *sink, int fd, const struct door_guest *guest);
	/*
	 * In the door's thread: does it look itself, of everybody, whether the gate's list allows him (door_gate_allows()), and has to
	 * do with some who are not on it? NULL: never.
	 */
	bool (*judges)(struct door_sink *sink);
};
