/* Target: demux_datagram: every datagram is of one kind, and only its first eight bytes say which. */
#include "actors/direct_router/demux.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum demux_kind kind = demux_datagram(data, size);

	if (size >= 8 && demux_datagram(data, 8) != kind)
		abort();
	if (size < 8 && kind != DEMUX_UNKNOWN)
		abort();
	return demux_kind_name(kind) ? 0 : -1;
}
