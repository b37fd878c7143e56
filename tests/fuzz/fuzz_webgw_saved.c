/* Target: saved_hosts_read. What it takes is the same when it is printed and read again. */
#include "relay/webgw/saved_hosts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ROOM 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct webgw_rule rules[ROOM], again[ROOM];
	struct error error;

	const int n = saved_hosts_read((const char *)data, size, rules, ROOM, &error);
	assert(n <= ROOM);
	if (n < 0)
		return 0;
	char *text = saved_hosts_print(rules, (uint32_t)n);
	assert(strlen(text) <= SAVED_HOSTS_MAX_LEN && saved_hosts_read(text, strlen(text), again, ROOM, &error) == n);
	for (int i = 0; i < n; i++) {
		assert(host_name_equal(&rules[i].host.name, &again[i].host.name));
		assert(rules[i].host.is_wildcard == again[i].host.is_wildcard && rules[i].balance == again[i].balance);
		assert(memcmp(rules[i].hash, again[i].hash, sizeof(rules[i].hash)) == 0);
	}
	free(text);
	return 0;
}
