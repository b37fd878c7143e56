/* Target: join_link_parse, host_port_parse: what parses prints as a link that parses to the same.
 */
#include "common/join_link.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[1024], host[JOIN_LINK_MAX_HOST + 1];
	struct join_link link, again;
	uint16_t port;

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (host_port_parse(text, 1, host, &port) == 0 && (port == 0 || *host == '\0'))
		abort();
	if (join_link_parse(text, &link, NULL) != 0)
		return 0;
	if (join_link_parse(join_link_text(&link).s, &again, NULL) != 0 ||
	    again.kind != link.kind ||
	    strcmp(join_link_text(&link).s, join_link_text(&again).s) != 0)
		abort();
	return 0;
}
