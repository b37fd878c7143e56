/*
 * The data plane's relay connections: held as RelayManager says, and opened on demand when a packet needs
 * one. What waits for a connection to come up is bounded and does not wait long.
 */
#include "node/data_plane_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RELAY_MAX_WAIT_NS 2000000000ull
#define RELAY_TELL_NS	  1000000000ull
#define MAX_GONE_RETRIES  20

struct plane_relay *plane_find_relay(const struct data_plane *plane, uint32_t id)
{
	struct plane_relay *relay = plane->relays;

	while (relay && relay->relay.id != id)
		relay = relay->next;
	return relay;
}

static void tell_used(struct plane_relay *relay)
{
	uint64_t now = clock_now_ns();

	if (now - relay->told_ns < RELAY_TELL_NS || !relay->plane->is_attached)
		return;
	relay->told_ns = now;
	relay->plane->ports.relay_used(relay->plane->ports.owner, relay->relay.id);
}

static void on_relay_ready(void *owner, uint32_t relay_id)
{
	struct plane_relay *relay = owner;
	uint64_t now = clock_now_ns();

	relay->is_up = true;
	log_info("relay", "connected to relay %s", relay->relay.name);
	if (relay->plane->is_attached)
		relay->plane->ports.relay_state(relay->plane->ports.owner, relay_id, true);
	/* It may be lost again while we send. */
	for (uint32_t i = 0; i < relay->n_waiting; i++) {
		struct waiting *waiting = &relay->waiting[i];
		if (now - waiting->since_ns >= RELAY_MAX_WAIT_NS ||
		    relay_connection_send(relay->connection, &waiting->to, waiting->bytes->bytes,
					  waiting->bytes->len) != 0)
			relay->plane->n_relay_dropped++;
		buffer_free(waiting->bytes);
	}
	relay->n_waiting = 0;
}

static void on_relay_lost(void *owner, uint32_t relay_id, const char *why)
{
	struct plane_relay *relay = owner;

	if (relay->is_up)
		log_warning("relay", "lost relay %s: %s", relay->relay.name, why);
	else
		log_info("relay", "cannot reach relay %s: %s", relay->relay.name, why);
	relay->is_up = false;
	if (relay->plane->is_attached)
		relay->plane->ports.relay_state(relay->plane->ports.owner, relay_id, false);
}

static void on_relay_packet(void *owner, uint32_t relay_id, const struct public_key *from,
			    const uint8_t *bytes, size_t len)
{
	struct plane_relay *relay = owner;
	struct data_plane *plane = relay->plane;
	const struct plane_peer *peer = plane_find_by_key(plane, from);

	tell_used(relay);
	if (!peer) {
		plane->n_unknown_senders++;
		return;
	}
	if (demux_datagram(bytes, len) == DEMUX_WIREGUARD) {
		if (plane->host->class->put_relayed(plane->host, relay_id, peer->id, bytes, len) != 0)
			plane->n_relay_dropped++;
		plane_wake(plane);
	} else if (plane->is_attached) {
		plane->ports.frame(plane->ports.owner, relay_id, peer->id, bytes, len);
	} else {
		plane->n_unattached++;
	}
}

static void on_peer_gone(void *owner, uint32_t relay_id, const struct public_key *key)
{
	struct plane_relay *relay = owner;
	struct plane_peer *peer = plane_find_by_key(relay->plane, key);

	/* It may be about to connect: what waits for a session is asked again soon, but not for ever. */
	if (peer && peer->n_gone < MAX_GONE_RETRIES) {
		peer->n_gone++;
		peer->is_gone = true;
		plane_wake(relay->plane);
	}
	if (peer && relay->plane->is_attached)
		relay->plane->ports.peer_gone(relay->plane->ports.owner, relay_id, peer->id);
}

static void on_relay_closed(void *owner)
{
	struct plane_relay *relay = owner;
	struct data_plane *plane = relay->plane;

	free(relay);
	plane_part_closed(plane);
}

void plane_close_relay(struct plane_relay *relay)
{
	struct plane_relay **at = &relay->plane->relays;

	while (*at != relay)
		at = &(*at)->next;
	*at = relay->next;
	for (uint32_t i = 0; i < relay->n_waiting; i++)
		buffer_free(relay->waiting[i].bytes);
	relay->plane->n_open++;
	relay_connection_close(relay->connection, on_relay_closed, relay);
}

static struct plane_relay *open_relay(struct data_plane *plane, const struct map_relay *record)
{
	struct plane_relay *relay = calloc(1, sizeof(*relay));
	if (!relay)
		abort();
	const struct relay_connection_options options = {
		.host = plane->options.tls_host,
		.context = plane->options.relay_context,
		.relay = *record,
		.ports = { .owner = relay,
			   .ready = on_relay_ready,
			   .lost = on_relay_lost,
			   .packet = on_relay_packet,
			   .peer_gone = on_peer_gone },
	};
	relay->plane = plane;
	relay->relay = *record;
	int r = relay_connection_new(&options, &relay->connection);
	if (r != 0) {
		log_error("relay", "relay %s: %s", record->name, strerror(-r));
		free(relay);
		return NULL;
	}
	relay->next = plane->relays;
	plane->relays = relay;
	return relay;
}

static bool same_relay(const struct map_relay *a, const struct map_relay *b)
{
	if (a->tls_port != b->tls_port || a->n_addresses != b->n_addresses ||
	    !public_key_equal(&a->node_key, &b->node_key))
		return false;
	for (uint32_t i = 0; i < a->n_addresses; i++)
		if (!endpoint_equal(&a->addresses[i], &b->addresses[i]))
			return false;
	return true;
}

void data_plane_hold_relay(struct data_plane *plane, const struct map_relay *record)
{
	struct plane_relay *relay = plane_find_relay(plane, record->id);

	if (relay && same_relay(&relay->relay, record))
		return;
	if (relay)
		plane_close_relay(relay);
	open_relay(plane, record);
}

void data_plane_drop_relay(struct data_plane *plane, uint32_t relay_id)
{
	struct plane_relay *relay = plane_find_relay(plane, relay_id);

	if (relay)
		plane_close_relay(relay);
}

bool data_plane_relay_is_up(const struct data_plane *plane, uint32_t relay_id)
{
	const struct plane_relay *relay = plane_find_relay(plane, relay_id);

	return relay && relay->is_up;
}

uint32_t data_plane_relay_rtt_us(const struct data_plane *plane, uint32_t relay_id)
{
	const struct plane_relay *relay = plane_find_relay(plane, relay_id);

	return relay ? relay_connection_rtt_us(relay->connection) : 0;
}

static struct plane_relay *relay_on_demand(struct data_plane *plane, uint32_t relay_id)
{
	struct plane_relay *relay = plane_find_relay(plane, relay_id);

	for (uint32_t i = 0; !relay && i < plane->n_known_relays; i++)
		if (plane->known_relays[i].id == relay_id)
			relay = open_relay(plane, &plane->known_relays[i]);
	return relay;
}

static void wait_for_relay(struct plane_relay *relay, const struct public_key *to, const uint8_t *bytes,
			   size_t len)
{
	if (relay->n_waiting == RELAY_MAX_WAITING) {
		buffer_free(relay->waiting[0].bytes); /* fresh packets are worth more */
		memmove(relay->waiting, relay->waiting + 1, sizeof(relay->waiting) - sizeof(*relay->waiting));
		relay->n_waiting--;
		relay->plane->n_relay_dropped++;
	}
	relay->waiting[relay->n_waiting++] =
		(struct waiting){ .to = *to, .since_ns = clock_now_ns(), .bytes = buffer_new(bytes, len) };
}

/* Which relay a peer is reached by: its home; as long as that is not known, ours is the best guess. */
uint32_t plane_resolve_relay(const struct data_plane *plane, const struct plane_peer *peer, uint32_t wanted)
{
	if (wanted != 0 && wanted != WIREGUARD_RELAY_ANY && plane_find_relay(plane, wanted))
		return wanted;
	if (peer->home_relay != 0)
		return peer->home_relay;
	return plane->relays ? plane->relays->relay.id : 0;
}

int data_plane_send_frame(struct data_plane *plane, uint32_t relay_id, uint32_t peer_id, const uint8_t *bytes,
			  size_t len)
{
	const struct plane_peer *peer = plane_find_by_id(plane, peer_id);
	if (!peer)
		return -ENOENT;
	struct plane_relay *relay = relay_on_demand(plane, plane_resolve_relay(plane, peer, relay_id));
	if (!relay)
		return -ENOTCONN;
	tell_used(relay);
	if (relay->is_up)
		return relay_connection_send(relay->connection, &peer->key, bytes, len);
	wait_for_relay(relay, &peer->key, bytes, len);
	return 0;
}

const char *plane_relay_name(const struct data_plane *plane, uint32_t id)
{
	for (uint32_t i = 0; i < plane->n_known_relays; i++)
		if (plane->known_relays[i].id == id)
			return plane->known_relays[i].name;
	return "";
}

void data_plane_relay_name(const struct data_plane *plane, uint32_t peer_id, char *ret, size_t ret_len)
{
	const struct plane_peer *peer = plane_find_by_id(plane, peer_id);

	snprintf(ret, ret_len, "%s", peer ? plane_relay_name(plane, plane_resolve_relay(plane, peer, WIREGUARD_RELAY_ANY)) : "");
}
