/*
 * Relays over UDP, as the data plane has them: relay_udp_fsm with the node's UDP sockets around it, and who
 * is who at a relay. Packets of a sender whose slot is not known wait while the relay is asked for it; they
 * are few, and do not wait long.
 */
#include "node/data_plane_internal.h"

#include "actors/session_manager/session_wire.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/relay_udp_wire.h"
#include "node/wireguard/udp.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define STRANGER_WAIT_NS 2000000000ull
#define SEARCH_NS	 100000000ull

static_assert(RELAY_PROBE_MAGIC == SESSION_MAGIC && RELAY_PROBE_MIN_LEN == SESSION_MAX_LEN + 1,
	      "relays know what nodes ask");

static uint64_t now_us(void)
{
	return clock_now_ns() / 1000;
}

/* ---- slots ---- */

static struct plane_slot *slot_place(struct plane_relay *relay, uint32_t slot)
{
	return &relay->slots[slot % MAX_SLOTS];
}

static struct plane_peer *peer_of_slot(struct plane_relay *relay, uint32_t slot)
{
	const struct plane_slot *known = slot_place(relay, slot);

	return known->slot == slot && slot != 0 ? plane_find_by_id(relay->plane, known->peer_id) : NULL;
}

static void drop_stranger(struct plane_relay *relay, uint32_t i)
{
	buffer_free(relay->strangers[i].bytes);
	relay->n_strangers--;
	memmove(&relay->strangers[i], &relay->strangers[i + 1],
		(relay->n_strangers - i) * sizeof(*relay->strangers));
}

static void wait_for_name(struct plane_relay *relay, uint32_t slot, const uint8_t *bytes, size_t len)
{
	const uint64_t now = clock_now_ns();

	while (relay->n_strangers > 0 && (relay->n_strangers == MAX_STRANGERS ||
					  now - relay->strangers[0].since_ns >= STRANGER_WAIT_NS)) {
		relay->plane->n_unknown_senders++;
		drop_stranger(relay, 0);
	}
	relay->strangers[relay->n_strangers++] =
		(struct stranger){ .slot = slot, .since_ns = now, .bytes = buffer_new(bytes, len) };
	plane_relay_udp_input(relay, &(struct relay_udp_input){ .type = RELAY_UDP_IN_FIND, .slot = slot });
}

/* The relay has said whose slot that is. peer: NULL: of nobody whom we know. */
static void name_strangers(struct plane_relay *relay, uint32_t slot, struct plane_peer *peer)
{
	for (uint32_t i = 0; i < relay->n_strangers;) {
		if (relay->strangers[i].slot != slot) {
			i++;
			continue;
		}
		struct buffer *bytes = relay->strangers[i].bytes;
		relay->strangers[i].bytes = NULL;
		drop_stranger(relay, i);
		if (peer)
			plane_relay_deliver(relay, peer, bytes->bytes, bytes->len);
		else
			relay->plane->n_unknown_senders++;
		buffer_free(bytes);
	}
}

/* ---- events ---- */

static void on_found(struct plane_relay *relay, const struct relay_udp_event *event)
{
	struct plane_peer *peer = plane_find_by_key(relay->plane, &event->key);

	if (event->slot == 0) {
		if (peer)
			plane_peer_is_absent(relay, peer, false);
		return;
	}
	if (peer) {
		*slot_place(relay, event->slot) = (struct plane_slot){ event->slot, peer->id };
		plane_peer_is_here(relay, peer, event->slot);
	}
	name_strangers(relay, event->slot, peer);
}

/* Another's slot may have taken its place in the table. Peers are many: not often. */
static struct plane_peer *search_slot(struct plane_relay *relay, uint32_t slot)
{
	const uint64_t now = clock_now_ns();

	if (now - relay->searched_ns < SEARCH_NS)
		return NULL;
	relay->searched_ns = now;
	for (uint32_t i = 0; i < relay->plane->n_buckets; i++)
		for (struct plane_peer *peer = relay->plane->by_id[i]; peer; peer = peer->next_by_id) {
			const struct plane_place *place = plane_place(peer, relay->relay.id);
			if (place && place->slot == slot)
				return peer;
		}
	return NULL;
}

static void on_gone(struct plane_relay *relay, uint32_t slot)
{
	struct plane_peer *peer = peer_of_slot(relay, slot);

	if (peer)
		*slot_place(relay, slot) = (struct plane_slot){ 0 };
	else if (slot != 0)
		peer = search_slot(relay, slot);
	struct plane_place *place = peer ? plane_place(peer, relay->relay.id) : NULL;
	if (place && place->slot == slot)
		plane_peer_is_absent(relay, peer, true);
}

static void on_packet(struct plane_relay *relay, const struct relay_udp_event *event)
{
	struct plane_peer *peer = peer_of_slot(relay, event->slot);

	if (peer)
		plane_relay_deliver(relay, peer, event->bytes, event->len);
	else
		wait_for_name(relay, event->slot, event->bytes, event->len);
}

static void forget_slots(struct plane_relay *relay)
{
	memset(relay->slots, 0, sizeof(relay->slots));
	while (relay->n_strangers > 0)
		drop_stranger(relay, 0);
	plane_forget_slots(relay);
}

static void tell_bound(const struct plane_relay *relay)
{
	if (relay->plane->is_attached && relay->plane->ports.relay_bound)
		relay->plane->ports.relay_bound(relay->plane->ports.owner, relay->relay.id);
}

static void handle_event(struct plane_relay *relay, const struct relay_udp_event *event)
{
	switch (event->type) {
	case RELAY_UDP_EV_BOUND:
		if (relay->is_leaving)
			relay->is_up = false; /* the stage is told that it is back */
		relay->is_leaving = false;
		if (event->is_new_epoch)
			forget_slots(relay);
		plane_relay_udp_publish(relay->plane);
		tell_bound(relay);
		break;
	case RELAY_UDP_EV_LOST:
		log_info("relay", "relay %s over UDP: %s", relay->relay.name, event->why);
		if (relay->connection)
			relay_connection_poke(relay->connection); /* is it there at all? */
		plane_forget_deaf(relay);
		plane_relay_udp_publish(relay->plane);
		tell_bound(relay);
		break;
	case RELAY_UDP_EV_LEAVING:
		log_info("relay", "relay %s will stop", relay->relay.name);
		relay->is_leaving = true;
		if (relay->plane->is_attached)
			relay->plane->ports.relay_leaving(relay->plane->ports.owner, relay->relay.id);
		break;
	case RELAY_UDP_EV_FOUND:
		on_found(relay, event);
		return;
	case RELAY_UDP_EV_GONE:
		on_gone(relay, event->slot);
		return;
	case RELAY_UDP_EV_PACKET:
		on_packet(relay, event);
		return;
	}
	plane_relay_reconsider(relay);
}

/* ---- the machine ---- */

static void send_all(struct plane_relay *relay, struct relay_udp_output *out)
{
	for (uint32_t i = 0; i < out->n_sends; i++) {
		const struct wg_path path = { .remote = out->sends[i].to };
		const struct train train = train_of_one(out->sends[i].bytes, out->sends[i].len);
		if (udp_send(relay->plane->udp, 0, &path, &train, NULL) != 0)
			log_debug("relay", "relay=%s: not sent", relay->relay.name); /* asked again in time */
	}
}

void plane_relay_udp_input(struct plane_relay *relay, const struct relay_udp_input *input)
{
	struct relay_udp_input full = *input;
	struct relay_udp_output out;
	const uint64_t deadline_us = relay->udp.deadline_us;

	if (!relay->has_udp)
		return;
	full.now_us = now_us();
	randombytes_buf(&full.random, sizeof(full.random));
	relay_udp_fsm_step(&relay->udp, &full, &out);
	send_all(relay, &out);
	for (uint32_t i = 0; i < out.n_events; i++)
		handle_event(relay, &out.events[i]);
	if (relay->udp.deadline_us != deadline_us && (relay->udp.deadline_us < deadline_us || deadline_us == 0))
		plane_relay_reconsider(relay); /* the timer, too */
}

static void on_trace(void *arg, const char *line)
{
	const struct plane_relay *relay = arg;

	log_debug("relay", "relay=%s UDP %s", relay->relay.name, line);
}

void plane_relay_udp_open(struct plane_relay *relay)
{
	const struct data_plane *plane = relay->plane;
	struct relay_udp_config config = { .node_key = plane->node_key_public,
					   .n_addresses = relay->relay.n_addresses };

	if (relay->relay.stun_port == 0 || relay->relay.n_addresses == 0 ||
	    relay_udp_key(&plane->node_key, &plane->node_key_public, &relay->relay.node_key, false, &config.key) != 0)
		return;
	for (uint32_t i = 0; i < config.n_addresses; i++) {
		config.addresses[i] = relay->relay.addresses[i];
		config.addresses[i].port = relay->relay.stun_port;
	}
	relay_udp_fsm_init(&relay->udp, &config);
	sodium_memzero(&config, sizeof(config));
	relay->udp.trace = on_trace;
	relay->udp.trace_arg = relay;
	relay->has_udp = true;
	plane_relay_udp_input(relay, &(struct relay_udp_input){ .type = RELAY_UDP_IN_START });
}

void plane_relay_udp_close(struct plane_relay *relay)
{
	const bool was_bound = relay->has_udp && relay_udp_fsm_is_bound(&relay->udp);

	if (relay->has_udp)
		relay_udp_fsm_deinit(&relay->udp);
	relay->has_udp = false;
	forget_slots(relay);
	if (was_bound)
		plane_relay_udp_publish(relay->plane);
}

/* ---- packets ---- */

void plane_relay_udp_find(struct plane_relay *relay, struct plane_peer *peer)
{
	plane_relay_udp_input(relay, &(struct relay_udp_input){ .type = RELAY_UDP_IN_FIND, .key = peer->key });
}

int plane_relay_udp_send(struct plane_relay *relay, uint32_t slot, const struct train *train)
{
	struct wg_path path = { .relay_id = relay->relay.id, .remote = relay_udp_fsm_remote(&relay->udp) };

	relay_udp_fsm_header(&relay->udp, slot, path.relay_header);
	if (relay_udp_fsm_sent(&relay->udp, now_us()))
		plane_relay_reconsider(relay);
	return udp_send(relay->plane->udp, 0, &path, train, NULL);
}

int plane_relay_udp_send_whole(struct plane_relay *relay, uint32_t slot, const uint8_t *bytes, size_t len)
{
	const struct endpoint remote = relay_udp_fsm_remote(&relay->udp);
	uint8_t datagram[RELAY_UDP_HEADER_LEN + SESSION_MAX_PROBE_LEN];

	if (len > SESSION_MAX_PROBE_LEN)
		return -EINVAL;
	relay_udp_fsm_header(&relay->udp, slot, datagram);
	memcpy(datagram + RELAY_UDP_HEADER_LEN, bytes, len);
	if (relay_udp_fsm_sent(&relay->udp, now_us()))
		plane_relay_reconsider(relay);
	return udp_send_whole(relay->plane->udp, &remote, datagram, RELAY_UDP_HEADER_LEN + len);
}

void plane_relay_udp_take(struct data_plane *plane, const struct endpoint *from, const uint8_t *bytes, size_t len)
{
	const struct relay_udp_input input = {
		.type = RELAY_UDP_IN_DATAGRAM, .from = from, .bytes = bytes, .len = len
	};
	bool is_known = false;

	for (struct plane_relay *relay = plane->relays, *next; relay; relay = next) {
		next = relay->next;
		if (!relay->has_udp || !relay_udp_fsm_owns(&relay->udp, from))
			continue;
		is_known = true;
		plane_relay_udp_input(relay, &input);
	}
	if (!is_known)
		plane->n_unknown_datagrams++;
}

void plane_relay_udp_publish(struct data_plane *plane)
{
	struct wireguard_udp_relay relays[UDP_RELAYS_MAX];
	uint32_t n = 0;

	if (!plane->host->class->set_relays || plane->closed)
		return;
	for (const struct plane_relay *relay = plane->relays; relay && n < UDP_RELAYS_MAX; relay = relay->next) {
		if (!relay->has_udp || !relay_udp_fsm_is_bound(&relay->udp))
			continue;
		relays[n++] = (struct wireguard_udp_relay){ .relay_id = relay->relay.id,
							    .remote = relay_udp_fsm_remote(&relay->udp),
							    .slot = relay->udp.slot,
							    .token = relay->udp.token };
	}
	plane->host->class->set_relays(plane->host, n, relays);
}
