/*
 * Bytes in, whole lines out: what a stream socket with one message a line needs.
 *
 *   room = lines_room(l, &n); n = read(fd, room, n); lines_put(l, n);
 *   while (lines_take(l, &line, &len)) …
 *
 * Grows up to max bytes of one line; a longer one makes lines_put() say so, for good. Pure.
 */
#pragma once

#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>

struct lines {
	char *buffer;
	size_t max;		  /* of one line, without its newline */
	size_t begin, end, cap;	  /* what is in the buffer and not taken yet: begin … end */
	size_t looked;		  /* no newline before here */
};

void lines_init(struct lines *lines, size_t max);
void lines_deinit(struct lines *lines); /* wipes: a line may have held a secret */
/* Where to put the next bytes; never NULL, *ret_size > 0. Ends the life of lines taken before. */
char *lines_room(struct lines *lines, size_t *ret_size);
/* n bytes were put there. 0, or -EMSGSIZE when there is a line longer than max. */
P2P_CHECK int lines_put(struct lines *lines, size_t n);
/* The next whole line, NUL-terminated in place of its newline (a '\r' before it is cut off). Borrowed. */
bool lines_take(struct lines *lines, char **ret, size_t *ret_len);
