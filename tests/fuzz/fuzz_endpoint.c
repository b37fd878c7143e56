/* Target: endpoint_parse, endpoint_text: what parses prints as text that parses to the same. */
#include "common/endpoint.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[256];
	struct endpoint endpoint, again;

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';

	if (endpoint_parse(text, &endpoint) != 0)
		return 0;
	if (endpoint_parse(endpoint_text(&endpoint).s, &again) != 0 ||
	    !endpoint_equal(&endpoint, &again))
		abort();
	return 0;
}
