#include "actors/deadline_heap.h"

#include <assert.h>
#include <stdlib.h>

void deadline_heap_deinit(struct deadline_heap *heap)
{
	free(heap->items);
	*heap = (struct deadline_heap){ 0 };
}

static void place(struct deadline_heap *heap, size_t index, struct deadline *deadline)
{
	heap->items[index] = deadline;
	deadline->index = index;
}

static void sift_up(struct deadline_heap *heap, size_t index)
{
	struct deadline *deadline = heap->items[index];

	for (; index > 0; index = (index - 1) / 2) {
		struct deadline *parent = heap->items[(index - 1) / 2];
		if (parent->at_ns <= deadline->at_ns)
			break;
		place(heap, index, parent);
	}
	place(heap, index, deadline);
}

static void sift_down(struct deadline_heap *heap, size_t index)
{
	struct deadline *deadline = heap->items[index];

	for (;;) {
		size_t child = 2 * index + 1;
		if (child >= heap->n)
			break;
		if (child + 1 < heap->n && heap->items[child + 1]->at_ns < heap->items[child]->at_ns)
			child++;
		if (heap->items[child]->at_ns >= deadline->at_ns)
			break;
		place(heap, index, heap->items[child]);
		index = child;
	}
	place(heap, index, deadline);
}

static void take_out(struct deadline_heap *heap, struct deadline *deadline)
{
	size_t index = deadline->index;
	struct deadline *last = heap->items[--heap->n];

	assert(heap->items[index] == deadline || last == deadline);
	deadline->at_ns = 0;
	if (last == deadline)
		return;
	place(heap, index, last);
	sift_up(heap, index);
	sift_down(heap, last->index);
}

void deadline_heap_set(struct deadline_heap *heap, struct deadline *deadline, uint64_t at_ns)
{
	if (deadline->at_ns != 0)
		take_out(heap, deadline);
	if (at_ns == 0)
		return;
	if (heap->n == heap->capacity) {
		heap->capacity = heap->capacity ? heap->capacity * 2 : 16;
		heap->items = realloc(heap->items, heap->capacity * sizeof(*heap->items));
		if (!heap->items)
			abort();
	}
	deadline->at_ns = at_ns;
	place(heap, heap->n, deadline);
	heap->n++;
	sift_up(heap, heap->n - 1);
}

struct deadline *deadline_heap_first(const struct deadline_heap *heap)
{
	return heap->n > 0 ? heap->items[0] : NULL;
}
