/*
 * When may memory be freed that other threads read without a lock?
 *
 * One writer (the device's thread) unpublishes an object and retires it; each reader (a lane) says
 * once per burst that it holds nothing any more. An object is freed when every reader has said so
 * after it was retired.
 *
 *   writer   unpublish ── retire ────────────────────────── collect: freed
 *   lane 0   ····burst····│enter ···burst···
 *   lane 1   ···burst·········│leave (sleeps) ······
 *
 * Published pointers are read and written with sequentially consistent atomics (the default), which
 * on x86 costs the reader nothing.
 */
#pragma once

#include "common/macros.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WG_READERS_MAX 64

/* Lies within what is retired, so that retiring needs no memory and cannot fail. */
struct wg_retired {
	struct wg_retired *next;
	uint64_t epoch; /* a reader that has entered this one or a later one cannot hold the object */
	void *object;
	void (*destroy)(void *object);
};

struct wg_reader {
	_Alignas(64) _Atomic uint64_t seen; /* the epoch of its burst; UINT64_MAX: it holds nothing */
};

struct wg_readers {
	_Atomic uint64_t epoch;
	uint64_t in_use; /* a bit for each of readers */
	struct wg_reader readers[WG_READERS_MAX];
	struct wg_retired *first, **end; /* oldest first; of the writer */
};

/* All zero is not a start. */
void wg_readers_init(struct wg_readers *readers);
/* Destroys all that was retired. No reader reads any more. */
void wg_readers_deinit(struct wg_readers *readers);
/* By the writer, before the reader's thread starts. NULL: WG_READERS_MAX are there. It holds nothing yet. */
struct wg_reader *wg_readers_add(struct wg_readers *readers);
/* By the writer, after the reader's thread has ended. */
void wg_readers_remove(struct wg_readers *readers, struct wg_reader *reader);

/* ---- reader's thread ---- */

/* A burst begins: what was read before may vanish, what is read from now on stays. */
static inline void wg_reader_enter(const struct wg_readers *readers, struct wg_reader *reader)
{
	atomic_store(&reader->seen, atomic_load(&readers->epoch));
}

/* Nothing is held until the next wg_reader_enter(). */
static inline void wg_reader_leave(struct wg_reader *reader)
{
	atomic_store(&reader->seen, UINT64_MAX);
}

/* ---- writer's thread ---- */

/*
 * destroy(object) when nobody can hold it any more; from wg_readers_collect() or _deinit(), never at
 * once. The object is no longer published. The note lies within the object. destroy may retire more.
 */
void wg_readers_retire(struct wg_readers *readers, struct wg_retired *note, void *object,
		       void (*destroy)(void *object));
/*
 * The epoch that every reader has entered by now: what the readers left behind for the writer
 * before (in rings, lists) is visible. Pass it to wg_readers_collect() after having looked there.
 */
uint64_t wg_readers_passed(const struct wg_readers *readers);
/* Destroys what was retired before `passed`. True when something still waits. */
bool wg_readers_collect(struct wg_readers *readers, uint64_t passed);
