/*
 * Of the fuzz targets of what a node tells of itself: whatever is read, is written and read the same again.
 *
 *   FUZZ_STATUS(node_status)    makes the target, of struct node_status, node_status_from_json() and so on
 */
#pragma once

#include "common/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* NULL: it cannot be read. */
typedef char *read_and_print(const struct json *json);

static char *parse_and_print(read_and_print *each, const char *text, size_t len)
{
	struct json_limits limits = { .max_len = 1 << 20 };
	struct error error;
	struct json *json;

	if (json_parse(text, len, &limits, &json, &error) != 0)
		return NULL;
	char *again = each(json);
	json_free(json);
	return again;
}

static void expect_same_again(read_and_print *each, const uint8_t *data, size_t size)
{
	char *once = parse_and_print(each, (const char *)data, size), *twice = NULL;

	if (once) {
		twice = parse_and_print(each, once, strlen(once));
		if (!twice || strcmp(once, twice) != 0)
			abort();
	}
	free(once);
	free(twice);
}

#define FUZZ_STATUS(name)                                                              \
	static char *read_and_print_##name(const struct json *json)                    \
	{                                                                              \
		struct name status;                                                    \
		struct error error;                                                    \
                                                                                       \
		if (name##_from_json(json, &status, &error) != 0)                      \
			return NULL;                                                   \
		struct json *written = name##_to_json(&status);                        \
		char *text = json_print(written);                                      \
		json_free(written);                                                    \
		name##_deinit(&status);                                                \
		return text;                                                           \
	}                                                                              \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)                   \
	{                                                                              \
		expect_same_again(read_and_print_##name, data, size);                  \
		return 0;                                                              \
	}
