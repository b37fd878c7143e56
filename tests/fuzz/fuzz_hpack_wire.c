/* Target: hpack_next: ends after as many fields as there are bytes at most, and what failed once stays failed. */
#include "relay/frontdoor/hpack_wire.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
	if (!condition)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hpack_field field;
	struct hpack hpack;
	size_t n = 0;
	int r;

	hpack_init(&hpack, data, size);
	while ((r = hpack_next(&hpack, &field)) == 0) {
		expect(++n <= size && (unsigned)field.name < HPACK_N_NAMES);
		expect(hpack.size <= hpack.max_size && hpack.max_size <= HPACK_TABLE_SIZE && hpack.n <= HPACK_MAX_ENTRIES);
		expect((hpack.n == 0) == (hpack.size == 0));
	}
	expect(r == HPACK_END || r == HPACK_BAD);
	expect(hpack_next(&hpack, &field) == r);
	return 0;
}
