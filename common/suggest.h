/* "Did you mean …?": finds the known word that a mistyped one is nearest to. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct suggest {
	const char *word;
	size_t len;
	const char *near; /* the answer; NULL: nothing is near enough */
	size_t best;
};

struct suggest suggest_for(const char *word, size_t len);
/* Offers a known word. Near enough is what differs in a third of its letters, or in one. */
void suggest_offer(struct suggest *suggest, const char *known);
