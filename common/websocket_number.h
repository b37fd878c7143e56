/*
 * A way around a fault of libwebsockets 4.1 with libuv: when a context is destroyed, it closes the descriptor of its
 * eventfd at once, and again some turns of the loop later, when that number may be another thread's.
 *
 *   find ──► context's first destruction: closed ──► hold: the number is ours ──► closed again: ours ──► let_go
 *
 * Between the first two only some microseconds are left in which another thread may get the number.
 */
#pragma once

#include <uv.h>

#include <sys/types.h>

struct websocket_number {
	int fd;		 /* -1: not known */
	ino_t held;	 /* 0: nothing is held there */
	dev_t held_on;
};

/* The context has just been made: its descriptor is that of the loop's newest handle of this kind. */
void websocket_number_find(struct websocket_number *number, uv_loop_t *loop);
void websocket_number_hold(struct websocket_number *number);
/* Also where nobody closed it a second time. */
void websocket_number_let_go(struct websocket_number *number);
