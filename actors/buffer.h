/*
 * Bytes that travel with a message: one owner at a time, freed by the runtime when the message has
 * been handled, unless the handler takes them.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct buffer {
	size_t len;
	uint8_t bytes[];
};

/* A copy of len bytes (data may be NULL: uninitialised). Aborts when out of memory: len ≤ 64 KiB. */
struct buffer *buffer_new(const void *data, size_t len);
void buffer_free(struct buffer *buffer);
