/* Target: config_file_parse by p2pnode's schema: total, and nothing is filled in on failure. */
#include "node/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct node_config config = { .mtu = 7 };
	struct error error = { 0 };

	if (node_config_parse("f", (const char *)data, size, &config, &error) != 0) {
		if (config.mtu != 7 || strncmp(error.message, "f:", 2) != 0)
			abort();
		return 0;
	}
	if (config.mtu < 1280 || config.interface[0] == '\0' || (!config.is_public && config.n_addresses > 0))
		abort();
	return 0;
}
