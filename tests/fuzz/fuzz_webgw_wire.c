/* Target: webgw_request_read, webgw_hash_read. What is answered is JSON again, whatever the id was. */
#include "relay/webgw/webgw_wire.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct json_limits limits = { .max_len = 4096 };
	static struct webgw_request request;
	struct error error;
	uint8_t hash[WEBGW_HASH_LEN];
	struct json *root;

	(void)!webgw_hash_read((const char *)data, size, hash);
	const int r = webgw_request_read((const char *)data, size, &request, &error);
	assert(r <= 0);
	char *answer = r == 0 ? webgw_print_subscription(&request.id, 1) : webgw_print_error(&request.id, r, error.message);
	assert(json_parse(answer, strlen(answer), &limits, &root, &error) == 0);
	json_free(root);
	free(answer);
	return 0;
}
