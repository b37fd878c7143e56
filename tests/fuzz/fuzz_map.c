/*
 * Target: map_from_json, map_apply_patch, membership_from_json: a bad patch changes nothing, a map
 * prints as what reads as the same map. Input: two JSON texts, apart by a newline: snapshot and
 * patch.
 */
#include "common/map.h"
#include "common/membership.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *print(const struct map *map)
{
	struct json *json = map_to_json(map);
	char *text = json_print(json);
	struct map again;

	if (map_from_json(json, &again, NULL) != 0)
		abort();
	struct json *json_again = map_to_json(&again);
	char *text_again = json_print(json_again);
	if (strcmp(text, text_again) != 0)
		abort();
	free(text_again);
	json_free(json_again);
	map_deinit(&again);
	json_free(json);
	return text;
}

static void apply(struct map *map, const char *text, size_t len, const struct json_limits *limits)
{
	struct json *patch = NULL;

	if (json_parse(text, len, limits, &patch, NULL) != 0)
		return;
	char *before = print(map);
	int r = map_apply_patch(map, patch, NULL);
	char *after = print(map);
	if (r != 0 && strcmp(before, after) != 0)
		abort();
	free(before);
	free(after);
	json_free(patch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct json_limits limits = { .max_len = 8192 };
	const char *text = (const char *)data;
	const char *newline = size ? memchr(text, '\n', size) : NULL;
	size_t len = newline ? (size_t)(newline - text) : size;
	struct json *json = NULL;
	struct membership membership;
	struct map map;

	if (json_parse(text, len, &limits, &json, NULL) != 0)
		return 0;
	if (membership_from_json(json, &membership, NULL) == 0)
		json_free(membership_to_json(&membership));
	if (map_from_json(json, &map, NULL) == 0) {
		if (newline)
			apply(&map, newline + 1, size - len - 1, &limits);
		map_deinit(&map);
	}
	json_free(json);
	return 0;
}
