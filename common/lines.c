#include "common/lines.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define ROOM 4096

void lines_init(struct lines *lines, size_t max)
{
	*lines = (struct lines){ .max = max };
}

void lines_deinit(struct lines *lines)
{
	if (lines->buffer)
		sodium_memzero(lines->buffer, lines->cap);
	free(lines->buffer);
	*lines = (struct lines){ .max = lines->max };
}

/* Not realloc(): it would leave the old bytes behind. */
static void grow(struct lines *lines)
{
	size_t cap = lines->cap ? lines->cap * 2 : 2 * ROOM;
	char *buffer = malloc(cap);

	if (!buffer)
		abort();
	if (lines->buffer) {
		memcpy(buffer, lines->buffer, lines->end);
		sodium_memzero(lines->buffer, lines->cap);
		free(lines->buffer);
	}
	lines->buffer = buffer;
	lines->cap = cap;
}

char *lines_room(struct lines *lines, size_t *ret_size)
{
	if (lines->begin > 0) {
		size_t left = lines->end - lines->begin;
		memmove(lines->buffer, lines->buffer + lines->begin, left);
		sodium_memzero(lines->buffer + left, lines->begin);
		lines->looked -= lines->begin;
		lines->end = left;
		lines->begin = 0;
	}
	if (lines->cap - lines->end < ROOM)
		grow(lines);
	*ret_size = lines->cap - lines->end;
	return lines->buffer + lines->end;
}

int lines_put(struct lines *lines, size_t n)
{
	const char *newline;

	lines->end += n;
	newline = memchr(lines->buffer + lines->looked, '\n', lines->end - lines->looked);
	if (!newline) {
		lines->looked = lines->end;
		return lines->end - lines->begin > lines->max ? -EMSGSIZE : 0;
	}
	return (size_t)(newline - lines->buffer) - lines->begin > lines->max ? -EMSGSIZE : 0;
}

bool lines_take(struct lines *lines, char **ret, size_t *ret_len)
{
	char *newline = lines->end > lines->looked
				? memchr(lines->buffer + lines->looked, '\n', lines->end - lines->looked)
				: NULL;
	if (!newline) {
		lines->looked = lines->end;
		return false;
	}
	char *line = lines->buffer + lines->begin;
	size_t len = (size_t)(newline - line);

	lines->begin += len + 1;
	lines->looked = lines->begin;
	if (len > 0 && line[len - 1] == '\r')
		len--;
	line[len] = '\0';
	*ret = line;
	*ret_len = len;
	return true;
}
