/*
 * Writes a small file whole (common/file.h) without keeping the loop waiting for the disk.
 *
 *   save() ──► a thread of libuv's pool: write, sync, rename ──► saved()
 *
 * One at a time: its owner begins the next when it was told of the last. Loop only.
 */
#pragma once

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct file_saver {
	uv_work_t work;
	uv_loop_t *loop;
	const char *path;
	void *owner;
	/* r: 0 or -errno. The saver may be used again, or freed, from inside. */
	void (*saved)(void *owner, int r, const struct error *error);
	bool is_busy; /* it must stay until saved() was called */
	char *text;
	size_t len;
	int r;
	struct error error;
};

/* path is borrowed. */
void file_saver_init(struct file_saver *saver, uv_loop_t *loop, const char *path,
		     void (*saved)(void *owner, int r, const struct error *error), void *owner);
/* Not while it is busy. text is taken. */
void file_saver_save(struct file_saver *saver, char *text_take, size_t len);
