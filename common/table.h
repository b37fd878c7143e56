/*
 * A table for a terminal: columns as wide as their widest cell, two spaces between them.
 *
 * Widths count columns of the terminal, not bytes, so that names in any script line up. A cell cannot
 * do anything to the terminal: control characters and invalid UTF-8 become '?'. Pure.
 */
#pragma once

#include "common/macros.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct table;

/* "NAME|ADDRESS|>LATENCY": headings between bars; '>' aligns a column to the right. */
struct table *table_new(const char *headings);
struct table *table_free(struct table *table); /* accepts NULL, returns NULL */
/* The next cell, row by row. */
void table_cell(struct table *table, const char *format, ...) P2P_PRINTF(2, 3);
/* All rows, one a line, no white space at the ends of lines; the caller frees it. */
char *table_text(const struct table *table);
/* The same to out; the table is freed. */
void table_print(struct table *table, FILE *out);
size_t table_rows(const struct table *table); /* without the headings */
