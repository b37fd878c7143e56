#include "common/suggest.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#define LONGEST 48

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t m = a < b ? a : b;

	return m < c ? m : c;
}

/* Edits (insert, delete, change) from one word to the other; SIZE_MAX for long ones. */
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t row[LONGEST + 1];

	if (a_len > LONGEST || b_len > LONGEST)
		return SIZE_MAX;
	for (size_t j = 0; j <= b_len; j++)
		row[j] = j;
	for (size_t i = 1; i <= a_len; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= b_len; j++) {
			size_t change = diagonal + (tolower((unsigned char)a[i - 1]) != b[j - 1]);
			diagonal = row[j];
			row[j] = min3(change, row[j] + 1, row[j - 1] + 1);
		}
	}
	return row[b_len];
}

struct suggest suggest_for(const char *word, size_t len)
{
	return (struct suggest){ .word = word, .len = len, .best = SIZE_MAX };
}

void suggest_offer(struct suggest *suggest, const char *known)
{
	size_t len = strlen(known);
	size_t d = distance(suggest->word, suggest->len, known, len);

	if (d >= suggest->best || d > len / 3 + 1 || d >= len || d >= suggest->len)
		return;
	suggest->best = d;
	suggest->near = known;
}
