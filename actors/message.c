#include "actors/message.h"

#include "common/macros.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct buffer *buffer_new(const void *data, size_t len)
{
	struct buffer *buffer = malloc(sizeof(*buffer) + len);

	if (!buffer)
		abort();
	buffer->len = len;
	if (data)
		memcpy(buffer->bytes, data, len);
	return buffer;
}

void buffer_free(struct buffer *buffer)
{
	free(buffer);
}

struct map_ref {
	uint32_t n_refs;
	struct map map;
};

struct map_ref *map_ref_new(const struct map *map)
{
	struct map_ref *ref = calloc(1, sizeof(*ref));

	if (!ref || map_copy(map, &ref->map) != 0)
		abort();
	ref->n_refs = 1;
	return ref;
}

struct map_ref *map_ref(struct map_ref *ref)
{
	ref->n_refs++;
	return ref;
}

void map_unref(struct map_ref *ref)
{
	if (!ref || --ref->n_refs > 0)
		return;
	map_deinit(&ref->map);
	free(ref);
}

const struct map *map_ref_get(const struct map_ref *ref)
{
	return &ref->map;
}

const char *actor_kind_name(enum actor_kind kind)
{
	static const char *const names[] = {
		[ACTOR_NONE] = "Session",
		[ACTOR_DIRECT_MANAGER] = "DirectManager",
		[ACTOR_DIRECT_ROUTER] = "DirectRouter",
		[ACTOR_RELAY_MANAGER] = "RelayManager",
		[ACTOR_RELAY_ROUTER] = "RelayRouter",
		[ACTOR_IN_CONN] = "InConn",
		[ACTOR_OUT_CONN] = "OutConn",
		[ACTOR_TRAFFIC_MANAGER] = "TrafficManager",
		[ACTOR_ENDPOINT_MANAGER] = "EndpointManager",
		[ACTOR_SESSION_MANAGER] = "SessionManager",
	};
	static_assert(ARRAY_LEN(names) == ACTOR_N_KINDS, "a name for every actor");

	return names[kind];
}

const char *message_type_name(enum message_type type)
{
	static const char *const names[] = {
		[MESSAGE_DATAGRAM] = "datagram",
		[MESSAGE_WRITE_DATAGRAM] = "write datagram",
		[MESSAGE_FRAME] = "frame",
		[MESSAGE_WRITE_FRAME] = "write frame",
		[MESSAGE_STUN] = "stun",
		[MESSAGE_SEALED] = "sealed",
		[MESSAGE_OPENED] = "opened",
		[MESSAGE_SEAL] = "seal",
		[MESSAGE_ACTIVITY] = "activity",
		[MESSAGE_CARRIED] = "carried",
		[MESSAGE_SET_PATH] = "set path",
		[MESSAGE_SET_AKA] = "set aka",
		[MESSAGE_MAP] = "map",
		[MESSAGE_LINK_CHANGED] = "link changed",
		[MESSAGE_FORWARDED] = "forwarded",
		[MESSAGE_NAT] = "NAT",
		[MESSAGE_MEASURE_NAT] = "measure NAT",
		[MESSAGE_KEEPER_CHANGED] = "keeper changed",
		[MESSAGE_TURNED] = "turned",
		[MESSAGE_OUR_ENDPOINTS] = "our endpoints",
		[MESSAGE_RELAY_STATE] = "relay state",
		[MESSAGE_RELAY_LEAVING] = "relay leaving",
		[MESSAGE_RELAY_USED] = "relay used",
		[MESSAGE_LATENCY] = "latency",
		[MESSAGE_SEND_FAILED] = "send failed",
	};
	static_assert(ARRAY_LEN(names) == MESSAGE_N_TYPES, "a name for every message");

	return names[type];
}

