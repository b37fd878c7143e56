/* Target: lan_announcement_decode: what decodes, encodes to the same bytes; and what the machine makes of it is bounded. */
#include "actors/lan_discovery/lan_announcement_wire.h"
#include "actors/lan_discovery/lan_discovery_fsm.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void feed(const struct lan_announcement *announcement)
{
	static struct lan_discovery_fsm fsm;
	static uint64_t now_ns;
	struct lan_input input = { .type = announcement->kind == LAN_CALL ? LAN_IN_CALL : LAN_IN_ANSWER,
				   .now_ns = now_ns += 1000000,
				   .peer_id = 1 + announcement->tags[0][0],
				   .session = announcement->session_key,
				   .sequence = announcement->sequence,
				   .answered = announcement->answered,
				   .from = endpoint_from_v4(announcement->tags[0][1], announcement->port) };
	struct lan_output output;

	fsm.calls[0] = (struct lan_call){ .first = 1, .last = 255, .at_ns = now_ns };
	lan_discovery_fsm_step(&fsm, &input, &output);
	assert(!output.call && !(announcement->kind == LAN_CALL && output.found));
	input.now_ns = now_ns += 1000000;
	lan_discovery_fsm_step(&fsm, &input, &output);
	assert(!output.answer && !output.found); /* the same again */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lan_announcement announcement;
	uint8_t again[LAN_MAX_LEN];

	if (lan_announcement_decode(data, size, &announcement) != 0)
		return 0;
	assert(lan_announcement_encode(&announcement, again, sizeof(again)) == size);
	assert(memcmp(again, data, size) == 0);
	feed(&announcement);
	return 0;
}
