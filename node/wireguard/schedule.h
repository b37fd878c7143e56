/*
 * Which peer has something to do next: a binary heap of peers by deadline.
 *
 * A peer's place is a lower bound of its true deadline. An earlier one moves it up at once; a later
 * one is noticed when the peer comes to the top. So re-arming a timer for each packet costs one
 * comparison.
 */
#pragma once

#include "common/macros.h"

#include <stdint.h>

/* Embedded in a peer. */
struct wg_schedule_entry {
	uint64_t at_ns; /* UINT64_MAX: nothing to do */
	uint32_t place; /* in the heap */
};

struct wg_schedule {
	struct wg_schedule_entry **heap;
	uint32_t n, capacity;
};

/* 0 or -ENOMEM. */
P2P_CHECK int wg_schedule_add(struct wg_schedule *schedule, struct wg_schedule_entry *entry);
void wg_schedule_remove(struct wg_schedule *schedule, struct wg_schedule_entry *entry);
void wg_schedule_deinit(struct wg_schedule *schedule);
/* Not later than at_ns. */
void wg_schedule_earlier(struct wg_schedule *schedule, struct wg_schedule_entry *entry, uint64_t at_ns);
/* Exactly at_ns. */
void wg_schedule_set(struct wg_schedule *schedule, struct wg_schedule_entry *entry, uint64_t at_ns);
/* NULL when there is nobody. */
struct wg_schedule_entry *wg_schedule_first(const struct wg_schedule *schedule);
