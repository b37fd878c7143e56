/*
 * A bounded queue of records between two threads: one puts, one takes, nobody locks.
 *
 * A record is any number of bytes, contiguous and 8-byte aligned. What does not fit is counted and
 * not put; the other side is woken by other means.
 */
#pragma once

#include "common/macros.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
	uint8_t *bytes;
	uint64_t size;		    /* a power of two */
	_Alignas(64) _Atomic uint64_t head; /* bytes ever put; written by the one who puts */
	uint64_t reserved;	    /* of the one who puts: head after ring_commit() */
	_Atomic uint64_t n_dropped;
	_Alignas(64) _Atomic uint64_t tail; /* bytes ever taken; written by the one who takes */
	uint64_t peeked;	    /* of the one who takes: tail after ring_release() */
};

/* size is rounded up to a power of two. Aborts when out of memory. */
void ring_init(struct ring *ring, size_t size);
void ring_deinit(struct ring *ring);

/* Room for a record of len bytes, to be filled and committed; NULL (counted) when the ring is full. */
void *ring_reserve(struct ring *ring, size_t len);
/*
 * The same for what a stranger can send at will: half of the ring is not for it, so that a flood leaves
 * room for the rest.
 */
void *ring_reserve_for_stranger(struct ring *ring, size_t len);
void ring_commit(struct ring *ring);

/* Any thread: a mark behind what has been put, and whether all before it was taken. */
uint64_t ring_mark(const struct ring *ring);
bool ring_is_taken(const struct ring *ring, uint64_t mark);

/* The oldest record, valid until ring_release(); NULL when there is none. */
const void *ring_peek(struct ring *ring, size_t *ret_len);
void ring_release(struct ring *ring);
