/*
 * Whose is this host? Patterns, and for each an entry of the owner's.
 *
 *   app.example.org ──► exact   ──► there? that one
 *                       *.example.org ► there? that one, else nobody
 *
 * The exact name goes before the wildcard, and a wildcard stands for one label (host_name.h): so a look-up is two
 * look-ups in a hash table, however many hosts there are and whatever a visitor asks for. Nothing is
 * kept of names that are not there.
 *
 * Entries are embedded in what they stand for, and the buckets are the owner's too: nothing is allocated here.
 * Seeded, so that nobody can choose names that collide. One thread. Pure.
 */
#pragma once

#include "common/macros.h"
#include "relay/frontdoor/host_name.h"

#include <stddef.h>
#include <stdint.h>

struct host_entry {
	struct host_pattern pattern; /* does not change while it is in a table */
	struct host_entry *next;     /* the table's */
};

struct host_table {
	struct host_entry **buckets;
	uint32_t n_buckets, n;
	uint8_t seed[16];
};

/* n_buckets: a power of two, best about as many as there are hosts. sodium_init() must have been called. */
void host_table_init(struct host_table *table, struct host_entry **buckets, uint32_t n_buckets);
/* 0, or -EEXIST: the same pattern is there already. The entry is borrowed until it is removed. */
P2P_CHECK int host_table_add(struct host_table *table, struct host_entry *entry);
/* It must be there. */
void host_table_remove(struct host_table *table, struct host_entry *entry);
/* Whose name this is: exact, else by wildcard; NULL: nobody's. */
struct host_entry *host_table_find(const struct host_table *table, const struct host_name *name);
/* The entry of this very pattern, or NULL. */
struct host_entry *host_table_find_pattern(const struct host_table *table, const struct host_pattern *pattern);
