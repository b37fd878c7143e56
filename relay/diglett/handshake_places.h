/*
 * Who may be in a handshake: so many at once, so many of a source (IPv4 /24, IPv6 /56), and always one more.
 *
 *                  ┌─ its source has its part ─────► the oldest of its source leaves ─┐
 *   newcomer ──────┼─ all places are taken ────────► the oldest of the source that    ├──► takes its place
 *                  │                                 has most (IPv6: of the /48) ─────┤
 *                  └─ else ───────────────────────────────────────────────────────────┘
 *
 * So who comes and says nothing keeps nobody out: a source drives out itself, and many of them drive out each other before
 * one that came once. Pure; one thread at a time.
 */
#pragma once

#include "common/endpoint.h"

#include <stdint.h>

#define HANDSHAKE_PLACES     64
#define HANDSHAKE_OF_SOURCE 8

struct handshake_place {
	void *owner; /* NULL: free */
	struct endpoint source;
	uint64_t number; /* the lower, the older */
};

struct handshake_places {
	struct handshake_place places[HANDSHAKE_PLACES];
	uint64_t last_number;
};

/* A place for owner, who is not NULL. Returns whose it was, who has none any more; NULL: it was free. */
void *handshake_places_take(struct handshake_places *places, const struct endpoint *source, void *owner);
/* Gives its place back, if it has one. */
void handshake_places_leave(struct handshake_places *places, const void *owner);
