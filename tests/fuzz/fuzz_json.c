/*
 * Target: json_parse, json_print: what is accepted prints as text that is accepted and prints the
 * same.
 */
#include "common/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct json_limits limits = { .max_len = 4096 }, wider = { .max_len = 1 << 16 };
	struct json *json = NULL, *again = NULL;

	if (json_parse((const char *)data, size, &limits, &json, NULL) != 0)
		return 0;
	char *text = json_print(json);
	if (json_parse(text, strlen(text), &wider, &again, NULL) != 0)
		abort();
	char *text_again = json_print(again);
	if (strcmp(text, text_again) != 0)
		abort();
	free(text);
	free(text_again);
	json_free(json);
	json_free(again);
	return 0;
}
