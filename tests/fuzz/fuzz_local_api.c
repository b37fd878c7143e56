/* Target: lines_take, rpc_parse, local_api_decode: bytes of a local client, in two pieces, down to the call. */
#include "common/lines.h"
#include "node/local_api_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void one_line(const char *line, size_t len)
{
	struct json_limits limits = { .max_len = LOCAL_API_MAX_LINE };
	struct rpc_message message = { 0 };
	struct local_api_call call;
	enum rpc_code code = (enum rpc_code)0;
	struct error error;

	if (rpc_parse(line, len, &limits, &message, &code, &error) != 0)
		return;
	if (local_api_decode(&message, &call, &code, &error) != 0) {
		if (code == (enum rpc_code)0)
			abort();
	} else {
		if (strcmp(local_api_method_name(call.method), message.method) != 0)
			abort();
		local_api_call_wipe(&call);
	}
	rpc_message_deinit(&message);
}

static int put(struct lines *lines, const uint8_t *data, size_t size)
{
	size_t room;
	char *at = lines_room(lines, &room);

	size = size < room ? size : room;
	memcpy(at, data, size);
	return lines_put(lines, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lines lines;
	size_t cut = size > 0 ? data[0] % size : 0, len;
	char *line;

	lines_init(&lines, 1024);
	if (size > 0 && put(&lines, data, cut) == 0) {
		while (lines_take(&lines, &line, &len))
			one_line(line, len);
		if (put(&lines, data + cut, size - cut) == 0)
			while (lines_take(&lines, &line, &len))
				one_line(line, len);
	}
	lines_deinit(&lines);
	return 0;
}
