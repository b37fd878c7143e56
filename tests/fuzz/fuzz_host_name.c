/*
 * Target: host_name_from, host_name_from_authority, host_pattern_from: a name that was read is one, and the same when
 * it is read again; it has no character that a shell, a file or a log could take for another thing.
 */
#include "relay/frontdoor/host_name.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
	if (!condition)
		abort();
}

static void check(const struct host_name *name)
{
	struct host_name again;

	expect(name->len > 0 && name->len <= HOST_NAME_MAX_LEN && strlen(name->text) == name->len);
	expect(strspn(name->text, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == name->len && name->text[0] != '-');
	expect(host_name_from(name->text, name->len, &again) == 0 && memcmp(&again, name, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct host_pattern pattern;
	struct host_name name;

	if (host_name_from(text, size, &name) == 0) {
		check(&name);
		expect(host_pattern_from(text, size, &pattern) == 0 && host_pattern_matches(&pattern, &name));
	}
	if (host_name_from_authority(text, size, &name) == 0)
		check(&name);
	if (host_pattern_from(text, size, &pattern) == 0)
		check(&pattern.name);
	return 0;
}
