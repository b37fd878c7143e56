/*
 * Who is due next: a binary heap of deadlines. An element is embedded in what it wakes; it is in at
 * most one heap. Pure.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct deadline {
	uint64_t at_ns; /* 0: not in the heap */
	size_t index;	/* the heap's */
};

struct deadline_heap {
	struct deadline **items;
	size_t n, capacity;
};

void deadline_heap_deinit(struct deadline_heap *heap);
/* Moves or inserts; at_ns 0 removes. */
void deadline_heap_set(struct deadline_heap *heap, struct deadline *deadline, uint64_t at_ns);
/* The earliest, or NULL. */
struct deadline *deadline_heap_first(const struct deadline_heap *heap);
