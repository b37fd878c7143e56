#include "actors/direct_router/demux.h"

#include <assert.h>

#include "common/macros.h"
#include "common/wire.h"

static const char *const kind_names[] = {
	[DEMUX_UNKNOWN] = "unknown",
	[DEMUX_WIREGUARD] = "wireguard",
	[DEMUX_SESSION] = "session",
	[DEMUX_STUN] = "stun",
	[DEMUX_RELAY] = "relay",
};
static_assert(ARRAY_LEN(kind_names) == DEMUX_N_KINDS, "a name for every kind");

enum demux_kind demux_datagram(const void *bytes, size_t len)
{
	struct wire_reader r = wire_reader(bytes, len);
	uint32_t first = wire_u32(&r);
	uint32_t second = wire_u32(&r);

	if (r.failed)
		return DEMUX_UNKNOWN;
	if ((first & 0x00ffffff) == 0 && first >> 24 >= 1 && first >> 24 <= 4)
		return DEMUX_WIREGUARD;
	if (first == DEMUX_SESSION_MAGIC)
		return DEMUX_SESSION;
	if (first >> 8 == DEMUX_RELAY_MAGIC)
		return DEMUX_RELAY;
	if (first >> 30 == 0 && second == DEMUX_STUN_COOKIE)
		return DEMUX_STUN;
	return DEMUX_UNKNOWN;
}

const char *demux_kind_name(enum demux_kind kind)
{
	return kind_names[kind];
}
