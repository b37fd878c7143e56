/* Target: rpc_parse: any bytes are a message or are refused with a code that has a text. */
#include "common/rpc.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct json_limits limits = { .max_len = 4096 };
	enum rpc_code code = RPC_BUSY;
	struct rpc_message message;

	if (rpc_parse((const char *)data, size, &limits, &message, &code, NULL) == 0) {
		if (message.kind == RPC_REQUEST && message.id.kind == RPC_ID_NONE)
			abort();
		if (message.kind == RPC_RESULT && !message.result)
			abort();
	} else if (code != RPC_PARSE_ERROR && code != RPC_INVALID_REQUEST) {
		abort();
	}
	free(rpc_print_error(&message.id, (int)code, NULL));
	rpc_message_deinit(&message);
	return 0;
}
