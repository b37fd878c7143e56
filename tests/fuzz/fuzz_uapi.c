/* Target: uapi_request_len, uapi_parse: any bytes give items or an error; a request is found however it arrives. */
#include "node/wireguard/uapi_wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	size_t at_once = 0, bit_by_bit = 0, len = 0, n;
	enum uapi_command command;

	size_t whole = uapi_request_len(text, size, &at_once);
	for (size_t i = 0; i <= size && len == 0; i++)
		len = uapi_request_len(text, i, &bit_by_bit);
	if (len != whole || whole > size)
		abort();

	size_t room = uapi_count_lines(text, size) + 1;
	struct uapi_item *items = malloc(room * sizeof(*items));
	if (!items)
		abort();
	int r = uapi_parse(text, whole ? whole : size, &command, items, room, &n);
	if (r < 0 || r == UAPI_E_TOO_MANY || n > room || (r == 0 && command == UAPI_GET && n > 0))
		abort();
	free(items);
	return 0;
}
