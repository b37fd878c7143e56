#include "common/table.h"

#include "common/utf8.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_COLUMNS 16

struct table {
	size_t n_columns, n_cells, cap;
	bool is_right[MAX_COLUMNS];
	char **cells; /* the headings first */
};

static void check(const void *allocated)
{
	if (!allocated)
		abort();
}

/* What could move the cursor, or is no text, becomes '?'. */
static char *harmless(const char *text)
{
	size_t len = strlen(text), used = 0, size;
	char *copy = malloc(len + 1);

	check(copy);
	for (size_t at = 0; at < len; at += size) {
		int32_t c = utf8_decode(text + at, len - at, &size);
		if (c < 0x20 || (c >= 0x7f && c < 0xa0)) {
			copy[used++] = '?';
			continue;
		}
		memcpy(copy + used, text + at, size);
		used += size;
	}
	copy[used] = '\0';
	return copy;
}

static void add(struct table *table, const char *text)
{
	if (table->n_cells == table->cap) {
		table->cap = table->cap ? table->cap * 2 : 64;
		table->cells = realloc(table->cells, table->cap * sizeof(*table->cells));
		check(table->cells);
	}
	table->cells[table->n_cells++] = harmless(text);
}

struct table *table_new(const char *headings)
{
	struct table *table = calloc(1, sizeof(*table));
	char *copy = strdup(headings), *rest = copy, *heading;

	check(table);
	check(copy);
	while ((heading = strsep(&rest, "|"))) {
		assert(table->n_columns < MAX_COLUMNS);
		bool right = heading[0] == '>';
		table->is_right[table->n_columns++] = right;
		add(table, heading + right);
	}
	free(copy);
	return table;
}

struct table *table_free(struct table *table)
{
	if (!table)
		return NULL;
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	free(table);
	return NULL;
}

void table_cell(struct table *table, const char *format, ...)
{
	char *text = NULL;
	va_list args;

	va_start(args, format);
	int n = vasprintf(&text, format, args);
	va_end(args);
	if (n < 0)
		abort();
	add(table, text);
	free(text);
}

size_t table_rows(const struct table *table)
{
	return (table->n_cells - 1) / table->n_columns;
}

static size_t width(const char *cell)
{
	return utf8_width(cell, strlen(cell));
}

static void print_cell(FILE *out, const struct table *table, size_t i, size_t column_width)
{
	size_t column = i % table->n_columns, pad = column_width - width(table->cells[i]);
	bool last = column == table->n_columns - 1;

	fprintf(out, "%s%*s%s", column == 0 ? "" : "  ", table->is_right[column] ? (int)pad : 0, "",
		table->cells[i]);
	if (!table->is_right[column] && !last)
		fprintf(out, "%*s", (int)pad, "");
}

/* Empty cells at the end of a line leave spaces behind: cut off. */
static char *cut_trailing_spaces(char *text)
{
	size_t used = 0;

	for (const char *at = text; *at != '\0'; at++) {
		while (*at == '\n' && used > 0 && text[used - 1] == ' ')
			used--;
		text[used++] = *at;
	}
	text[used] = '\0';
	return text;
}

char *table_text(const struct table *table)
{
	size_t widths[MAX_COLUMNS] = { 0 }, len = 0;
	char *text = NULL;
	FILE *out = open_memstream(&text, &len);

	check(out);
	for (size_t i = 0; i < table->n_cells; i++) {
		size_t w = width(table->cells[i]), *widest = &widths[i % table->n_columns];
		*widest = w > *widest ? w : *widest;
	}
	for (size_t i = 0; i < table->n_cells; i++) {
		print_cell(out, table, i, widths[i % table->n_columns]);
		if ((i + 1) % table->n_columns == 0 || i + 1 == table->n_cells)
			fputc('\n', out);
	}
	if (fclose(out) != 0)
		abort();
	return cut_trailing_spaces(text);
}

void table_print(struct table *table, FILE *out)
{
	char *text = table_text(table);

	fputs(text, out);
	free(text);
	table_free(table);
}
