/*
 * A ring of things in some order: a link is embedded in each, and one more is the ring itself. Pure.
 *
 * Where all in a ring have the same time to live and the youngest is put last, the first is the first to expire: no
 * heap is needed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct link {
	struct link *before, *after; /* NULL: in no ring */
};

static inline void link_init_ring(struct link *ring)
{
	ring->before = ring->after = ring;
}

/* Accepts one that is in no ring. */
static inline void link_remove(struct link *link)
{
	if (!link->after)
		return;
	link->before->after = link->after;
	link->after->before = link->before;
	link->before = link->after = NULL;
}

/* Puts it last, wherever it was. */
static inline void link_put_last(struct link *ring, struct link *link)
{
	link_remove(link);
	link->before = ring->before;
	link->after = ring;
	ring->before->after = link;
	ring->before = link;
}

/* All that are in `from`, in their order, behind those in `to`. */
static inline void link_move_all(struct link *to, struct link *from)
{
	if (from->after == from)
		return;
	from->after->before = to->before;
	to->before->after = from->after;
	from->before->after = to;
	to->before = from->before;
	link_init_ring(from);
}

/* NULL: the ring is empty. */
static inline struct link *link_first(const struct link *ring)
{
	return ring->after == ring ? NULL : ring->after;
}

static inline bool link_is_in_ring(const struct link *link)
{
	return link->after != NULL;
}
