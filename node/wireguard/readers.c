#include "node/wireguard/readers.h"

#include <string.h>

#define HOLDS_NOTHING UINT64_MAX

void wg_readers_init(struct wg_readers *readers)
{
	memset(readers, 0, sizeof(*readers));
	atomic_init(&readers->epoch, 1);
	for (unsigned i = 0; i < WG_READERS_MAX; i++)
		atomic_init(&readers->readers[i].seen, HOLDS_NOTHING);
	readers->end = &readers->first;
}

void wg_readers_deinit(struct wg_readers *readers)
{
	wg_readers_collect(readers, UINT64_MAX);
}

struct wg_reader *wg_readers_add(struct wg_readers *readers)
{
	if (readers->in_use == UINT64_MAX)
		return NULL;
	unsigned i = (unsigned)__builtin_ctzll(~readers->in_use);
	readers->in_use |= UINT64_C(1) << i;
	return &readers->readers[i];
}

void wg_readers_remove(struct wg_readers *readers, struct wg_reader *reader)
{
	wg_reader_leave(reader);
	readers->in_use &= ~(UINT64_C(1) << (reader - readers->readers));
}

/*
 * Who enters this new epoch reads what is published after the object was unpublished. Who is still
 * in an older one may have read it before.
 */
void wg_readers_retire(struct wg_readers *readers, struct wg_retired *note, void *object,
		       void (*destroy)(void *object))
{
	*note = (struct wg_retired){
		.epoch = atomic_fetch_add(&readers->epoch, 1) + 1,
		.object = object,
		.destroy = destroy,
	};
	*readers->end = note;
	readers->end = &note->next;
}

/*
 * A reader may have read the epoch and not yet stored it: then it seems to hold nothing, or an older
 * epoch. The latter only delays. In the former case it has not read any published pointer either;
 * when it does, after its store, it is after the objects that we may free now were unpublished. (All
 * four accesses are in one total order.)
 */
uint64_t wg_readers_passed(const struct wg_readers *readers)
{
	uint64_t passed = atomic_load(&readers->epoch);

	for (uint64_t left = readers->in_use; left != 0; left &= left - 1) {
		uint64_t seen = atomic_load(&readers->readers[__builtin_ctzll(left)].seen);
		if (seen < passed)
			passed = seen;
	}
	return passed;
}

bool wg_readers_collect(struct wg_readers *readers, uint64_t passed)
{
	while (readers->first && readers->first->epoch <= passed) {
		struct wg_retired *note = readers->first;
		readers->first = note->next;
		if (!readers->first)
			readers->end = &readers->first;
		note->destroy(note->object); /* and the note with it */
	}
	return readers->first != NULL;
}
