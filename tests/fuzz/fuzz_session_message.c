/* Target: session_message_decode, session_header_decode: what decodes, encodes to the same bytes.
 */
#include "actors/session_manager/session_wire.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct session_message message;
	struct session_header header;
	uint8_t again[SESSION_MAX_PROBE_LEN];

	if (session_message_decode(data, size, &message) == 0) {
		assert(session_message_encode(again, sizeof(again), &message) == size);
		assert(memcmp(again, data, size) == 0);
	}
	if (session_header_decode(data, size, &header) == 0) {
		assert(session_header_encode(again, sizeof(again), &header) == SESSION_HEADER_LEN);
		assert(memcmp(again, data, SESSION_HEADER_LEN) == 0);
	}
	return 0;
}
