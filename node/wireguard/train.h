/*
 * A train: up to 64 packets of equal size handled as one buffer.
 *
 *   base            base + stride         base + 2*stride
 *   ┌──────────────┬─┬──────────────────┬─┬──────────────┐
 *   │ packet 0     │ │ packet 1         │ │ packet 2     │      n = 3
 *   └──────────────┴─┴──────────────────┴─┴──────────────┘
 *    ◄─── size ───►                        ◄ last_size ─►
 *
 * It is what UDP_SEGMENT sends, what UDP_GRO receives, and what a TSO superpacket is cut into.
 * Only the last packet may be shorter. A train borrows its buffer and is passed by value or by
 * const pointer; the bytes are mutable, because packets are sealed and opened in place.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TRAIN_MAX 64

struct train {
	uint8_t *base;
	uint32_t n;	    /* packets, 1..TRAIN_MAX */
	uint32_t stride;    /* from the beginning of one packet to that of the next */
	uint32_t size;	    /* of every packet but the last */
	uint32_t last_size; /* 0..size */
	uint8_t ds;	    /* DS field and ECN of the outer IP header; for plain packets unused */
};

static inline struct train train_of_one(uint8_t *base, size_t size)
{
	return (struct train){ .base = base,
			       .n = 1,
			       .stride = (uint32_t)size,
			       .size = (uint32_t)size,
			       .last_size = (uint32_t)size };
}

static inline uint8_t *train_packet(const struct train *train, uint32_t i)
{
	return train->base + (size_t)i * train->stride;
}

static inline uint32_t train_size(const struct train *train, uint32_t i)
{
	return i + 1 < train->n ? train->size : train->last_size;
}

/* The packets' bytes, without what lies between them. */
static inline uint64_t train_bytes(const struct train *train)
{
	return (uint64_t)(train->n - 1) * train->size + train->last_size;
}

/* No gap between the packets: one iovec holds them all. */
static inline bool train_is_contiguous(const struct train *train)
{
	return train->n == 1 || train->stride == train->size;
}

/* Writes the packets without gaps to `to`, which has room for train_bytes(). */
static inline void train_copy(uint8_t *to, const struct train *train)
{
	for (uint32_t i = 0; i < train->n; to += train_size(train, i++))
		memcpy(to, train_packet(train, i), train_size(train, i));
}

/* Packets first .. first + n - 1 as a train of their own, on the same bytes. */
static inline struct train train_slice(const struct train *train, uint32_t first, uint32_t n)
{
	struct train part = *train;

	assert(n > 0 && first + n <= train->n);
	part.base = train_packet(train, first);
	part.n = n;
	part.last_size = train_size(train, first + n - 1);
	if (n == 1)
		part.size = part.last_size;
	return part;
}
