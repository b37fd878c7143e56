/* The one part of the configuration that touches a disk. */
#include "node/config.h"

#include "common/file.h"

#include <errno.h>
#include <stdlib.h>

int node_config_load(const char *path, struct node_config *ret, struct error *reterr)
{
	char *text;
	size_t len;
	int r = file_read(path, CONFIG_FILE_MAX_LEN, &text, &len, reterr);

	if (r == -ENOENT)
		return error_set(
			reterr, r,
			"%s: no such file; create it (p2pnode --show-defaults prints one) or name "
			"another with --config",
			path);
	if (r != 0)
		return r;
	r = node_config_parse(path, text, len, ret, reterr);
	free(text);
	return r;
}
