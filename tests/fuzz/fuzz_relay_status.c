/* Target: relay_status_from_json, relay_status_to_json: what is read, is written and read the same again. */
#include "node/relay_status.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *print(const struct relay_status *status)
{
	struct json *json = relay_status_to_json(status);
	char *text = json_print(json);

	json_free(json);
	return text;
}

static char *read_and_print(const char *text, size_t len)
{
	struct json_limits limits = { .max_len = 1 << 20 };
	struct relay_status status;
	struct error error;
	struct json *json;
	char *again = NULL;

	if (json_parse(text, len, &limits, &json, &error) != 0)
		return NULL;
	if (relay_status_from_json(json, &status, &error) == 0) {
		again = print(&status);
		relay_status_deinit(&status);
	}
	json_free(json);
	return again;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *once = read_and_print((const char *)data, size), *twice = NULL;

	if (once) {
		twice = read_and_print(once, strlen(once));
		if (!twice || strcmp(once, twice) != 0)
			abort();
	}
	free(once);
	free(twice);
	return 0;
}
