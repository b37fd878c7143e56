/*
 * Target: the names of ports, as headers, grants and people have them: what is read is printed as it was, no host has such a name, and
 * ranges of ports have what they say.
 *
 * Input: the text.
 */
#include "relay/frontdoor/port_name.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static void read_name(const char *text, size_t len)
{
	struct port_name port, again;
	struct host_name host;
	char printed[PORT_NAME_TEXT];

	if (port_name_from(text, len, &port) != 0)
		return;
	expect(port.number > 0);
	port_name_print(&port, printed);
	expect(strlen(printed) == len && memcmp(printed, text, len) == 0);
	expect(port_name_from(printed, len, &again) == 0 && port_name_equal(&port, &again));
	expect(host_name_from(text, len, &host) != 0);
	expect((port_or_host_from(text, len, &host) == 0) == (port.door_id == 0));
}

static void read_word(const char *text)
{
	struct port_name port;
	bool is_wrong;
	const size_t len = port_name_word(text, &port, &is_wrong);

	expect(len <= strlen(text) && (len == 0 || (!is_wrong && port.number > 0 && port.door_id == 0)));
}

static void read_ranges(const char *text)
{
	struct port_ranges ranges;
	struct error error;

	if (port_ranges_parse(text, &ranges, &error) != 0)
		return;
	expect(ranges.n <= PORT_RANGES_MAX && !port_ranges_have(&ranges, 0));
	for (uint32_t i = 0; i < ranges.n; i++)
		expect(ranges.items[i].first <= ranges.items[i].last && port_ranges_have(&ranges, ranges.items[i].first) &&
		       port_ranges_have(&ranges, ranges.items[i].last));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *exact = malloc(size + 1); /* so that a reader that goes too far is seen */

	if (!exact)
		abort();
	memcpy(exact, data, size);
	exact[size] = '\0';
	read_word(exact);
	read_ranges(exact);
	char *bare = malloc(size > 0 ? size : 1);
	if (!bare)
		abort();
	memcpy(bare, data, size);
	read_name(bare, size);
	free(bare);
	free(exact);
	return 0;
}
