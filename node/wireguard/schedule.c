#include "node/wireguard/schedule.h"

#include <errno.h>
#include <stdlib.h>

static void put(struct wg_schedule *schedule, uint32_t place, struct wg_schedule_entry *entry)
{
	schedule->heap[place] = entry;
	entry->place = place;
}

static void move_up(struct wg_schedule *schedule, struct wg_schedule_entry *entry)
{
	uint32_t place = entry->place;

	while (place > 0 && schedule->heap[(place - 1) / 2]->at_ns > entry->at_ns) {
		put(schedule, place, schedule->heap[(place - 1) / 2]);
		place = (place - 1) / 2;
	}
	put(schedule, place, entry);
}

static void move_down(struct wg_schedule *schedule, struct wg_schedule_entry *entry)
{
	uint32_t place = entry->place;

	for (;;) {
		uint32_t child = 2 * place + 1;
		if (child >= schedule->n)
			break;
		if (child + 1 < schedule->n &&
		    schedule->heap[child + 1]->at_ns < schedule->heap[child]->at_ns)
			child++;
		if (schedule->heap[child]->at_ns >= entry->at_ns)
			break;
		put(schedule, place, schedule->heap[child]);
		place = child;
	}
	put(schedule, place, entry);
}

int wg_schedule_add(struct wg_schedule *schedule, struct wg_schedule_entry *entry)
{
	if (schedule->n == schedule->capacity) {
		uint32_t capacity = schedule->capacity ? schedule->capacity * 2 : 16;
		struct wg_schedule_entry **heap =
			realloc(schedule->heap, capacity * sizeof(*schedule->heap));
		if (!heap)
			return -ENOMEM;
		schedule->heap = heap;
		schedule->capacity = capacity;
	}
	entry->at_ns = UINT64_MAX;
	put(schedule, schedule->n++, entry);
	return 0;
}

void wg_schedule_remove(struct wg_schedule *schedule, struct wg_schedule_entry *entry)
{
	struct wg_schedule_entry *last = schedule->heap[--schedule->n];

	if (last == entry)
		return;
	put(schedule, entry->place, last);
	move_up(schedule, last);
	move_down(schedule, last);
}

void wg_schedule_deinit(struct wg_schedule *schedule)
{
	free(schedule->heap);
	*schedule = (struct wg_schedule){ 0 };
}

void wg_schedule_earlier(struct wg_schedule *schedule, struct wg_schedule_entry *entry,
			 uint64_t at_ns)
{
	if (at_ns >= entry->at_ns)
		return;
	entry->at_ns = at_ns;
	move_up(schedule, entry);
}

void wg_schedule_set(struct wg_schedule *schedule, struct wg_schedule_entry *entry, uint64_t at_ns)
{
	entry->at_ns = at_ns;
	move_up(schedule, entry);
	move_down(schedule, entry);
}

struct wg_schedule_entry *wg_schedule_first(const struct wg_schedule *schedule)
{
	return schedule->n > 0 ? schedule->heap[0] : NULL;
}
