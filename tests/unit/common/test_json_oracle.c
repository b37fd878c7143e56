/*
 * The rows of test_json.c, asked of jansson, an independent strict parser. A program of its own,
 * because both libraries use the prefix json_.
 */
#include "tests/unit/common/json_rows.h"

#include <jansson.h>
#include <stdio.h>

int main(void)
{
	int failed = 0;

	for (size_t i = 0; i < sizeof(json_rows) / sizeof(*json_rows); i++) {
		const struct json_row *row = &json_rows[i];
		json_error_t error;
		json_t *value = json_loadb(row->text, row->len,
					   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
		if ((value != NULL) != (row->accepted || row->stricter)) {
			fprintf(stderr, "row %zu: jansson disagrees: %s\n", i, row->text);
			failed = 1;
		}
		json_decref(value);
	}
	return failed;
}
