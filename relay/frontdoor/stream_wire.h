/*
 * What one front door says to the next of the streams that it hands over: one message each, in this order, with the
 * descriptors beside it (stream_queue.h).
 *
 *   FIRST ──► CARRIED … CARRIED ──► SNIFFED … SNIFFED ──► LAST
 *     │          │                     │                    └ how many were, and how many had to end
 *     │          │                     └ visitor │ bytes that came of it
 *     │          └ visitor, target, [pipe out, pipe in] of each way │ bytes that wait in memory
 *     └ format; another one is not understood, and all that follows is closed
 *
 * Those of a kind come by how long nothing has moved, the longest first. Every message is whole or refused.
 *
 * Pure.
 */
#pragma once

#include "common/endpoint.h"
#include "common/macros.h"
#include "relay/frontdoor/host_name.h"
#include "relay/frontdoor/sniffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STREAM_MAX_FDS	   6
#define STREAM_MAX_KEPT	   (SNIFFER_MAX + 4096) /* of one way, in memory: all that was sniffed, with a PROXY header */
#define STREAM_MAX_IN_PIPE (16u << 20)
#define STREAM_MAX_MESSAGE (2 * STREAM_MAX_KEPT + 1024)

enum stream_kind { STREAM_FIRST = 1, STREAM_CARRIED, STREAM_SNIFFED, STREAM_LAST };

struct stream_end {
	bool is_urgent, is_broken, is_prompt; /* as in struct splice_end */
};

/* From ends[i] to ends[1 - i]. */
struct stream_flow {
	uint32_t waiting;
	bool is_in_pipe; /* what waits; else it is in head */
	bool has_ended, is_cut_off, is_done, is_finished, is_bulk; /* as in struct splice_flow */
	uint64_t n_bytes;
	const uint8_t *head; /* borrowed; waiting bytes, if these are not in a pipe */
};

struct stream_said {
	enum stream_kind kind;
	/* FIRST: the clock of the machine when the streams were handed over */
	uint64_t saved_ms;
	/* LAST */
	uint32_t n_handed, n_left;
	/* CARRIED, SNIFFED */
	struct endpoint remote;
	uint32_t quiet_ms; /* nothing has moved for so long; SNIFFED: since it came */
	uint8_t n_doors;   /* that have passed it on */
	bool is_at_relays;
	/* CARRIED */
	bool is_members; /* its host is one of webgw's, by a member's grant; a door of before this refuses such a visitor */
	enum sniffer_protocol protocol;
	struct host_name host; /* that it asked for; len 0: none */
	struct stream_end ends[2];
	struct stream_flow flows[2];
	/* SNIFFED */
	const uint8_t *bytes; /* borrowed */
	size_t n_bytes;
};

/* How many descriptors belong to it. */
size_t stream_count_fds(const struct stream_said *said);
/* Its length; said is one that stream_decode() could have made. */
size_t stream_encode(const struct stream_said *said, uint8_t buf[STREAM_MAX_MESSAGE]);
/*
 * 0; -EPROTONOSUPPORT: a FIRST of another format; -EBADMSG: not whole, or it contradicts itself. *ret is written only on
 * success, and borrows from buf.
 */
P2P_CHECK int stream_decode(const uint8_t *buf, size_t len, struct stream_said *ret);
