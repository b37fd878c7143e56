/* Target: http_request_parse: whatever comes is an outcome, and what is one stays it when more follows. */
#include "common/http_request.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_request request, of_less;
	int r = http_request_parse((const char *)data, size, &request);

	if (r == 0 && (request.path[0] == '\0' || strlen(request.path) >= sizeof(request.path)))
		abort();
	if (size > 0 && http_request_parse((const char *)data, size - 1, &of_less) == 0 && r == 0 &&
	    strcmp(request.path, of_less.path) != 0)
		abort();
	return 0;
}
