/*
 * Streams on their way to the front door that runs next: messages with descriptors, in a pair of Unix sockets which
 * somebody else keeps meanwhile (systemd, see service_keep_sockets()).
 *
 *   this door ── put ──► ( messages, each with its descriptors ) ── take ──► next door
 *                          kept in the kernel by two descriptors
 *
 * So however many streams there are, the keeper has two descriptors; message and descriptors cannot be parted; and when the
 * keeper lets go of both, or nobody takes them, the kernel closes all that is inside. Nothing of it is ever in a file. Sockets
 * are put in so that this closing is a reset, as it is when a door ends without another one.
 *
 * They are of datagrams: a p2pnode that knows nothing of them takes them for sockets that listen at another's address, and
 * closes them.
 */
#pragma once

#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STREAM_QUEUE_FDS 2

/* Both ends, or -1. */
struct stream_queue {
	int fds[STREAM_QUEUE_FDS];
};

#define STREAM_QUEUE_NONE { .fds = { -1, -1 } }

/* 0 or -errno. */
P2P_CHECK int stream_queue_open(struct stream_queue *ret);
/* Is it an end of one? */
bool stream_queue_is_end(int fd);
/* Closes both ends; what is inside stays there if somebody else has them. */
void stream_queue_close(struct stream_queue *queue);
/* The same, and what is inside is closed; whoever has them. Returns how many messages there were. */
uint32_t stream_queue_drop(struct stream_queue *queue);
/* fds: copies go into the queue. 0, or -errno: it is full, or may not have so many descriptors. */
P2P_CHECK int stream_queue_put(struct stream_queue *queue, const uint8_t *bytes, size_t n, const int *fds, size_t n_fds);
/*
 * The first of them; it is gone from the queue. Its descriptors, close-on-exec, are the caller's. 0; -EAGAIN: there is none;
 * -EBADMSG: it did not fit, or descriptors have run out (then what came of them is closed).
 */
P2P_CHECK int stream_queue_take(struct stream_queue *queue, uint8_t *buf, size_t size, size_t *ret_n, int *fds,
				size_t max_fds, size_t *ret_n_fds);

/* A TCP socket that is connected, or was and has broken since. */
bool stream_is_connected(int fd);
/* Two ends of one pipe, in which just n bytes wait; nobody waits for them from now on. */
bool stream_is_pipe(int out, int in, size_t n);
/* Closing its last copy is a reset, or an end. */
void stream_set_reset_on_close(int fd, bool resets);
