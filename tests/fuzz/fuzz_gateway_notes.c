/* Target: gateway_notes_next. What is read is a name, and is read again from what print_notes() makes of it. */
#include "relay/diglett/gateway_notes.h"
#include "relay/diglett/request_wire.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_again(const struct host_name *name)
{
	char line[HOST_NAME_MAX_LEN + 2];
	const size_t n = strlen(name->text);
	struct gateway_notes notes = { line, n + 1 };
	struct host_name again;

	assert(n > 0 && n <= HOST_NAME_MAX_LEN);
	memcpy(line, name->text, n);
	line[n] = '\n';
	assert(gateway_notes_next(&notes, &again) && host_name_equal(name, &again));
	assert(notes.left == 0 && !gateway_notes_next(&notes, &again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gateway_notes notes = { (const char *)data, size };
	const size_t n = gateway_notes_count(notes);
	struct host_name name;
	size_t n_read = 0, left = size;

	assert(n <= (size + 1) / 2);
	for (; gateway_notes_next(&notes, &name); n_read++) {
		assert(notes.left < left);
		left = notes.left;
		read_again(&name);
	}
	assert(n_read == n && notes.left == 0);
	return 0;
}
