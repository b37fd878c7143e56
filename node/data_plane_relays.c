/*
 * The data plane's relays: held as RelayManager says, and opened on demand when a packet needs one. Each is
 * tried over UDP first; TLS is beside it while that does not work, or not well (relay_choice.h).
 */
#include "node/data_plane_internal.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/macros.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RELAY_TELL_NS	 1000000000ull
#define USED_NS		 3000000000ull
#define DOWN_GRACE_MS	 150 /* a lost slot: TLS has so long to come up before the relay counts as down */

struct plane_relay *plane_find_relay(const struct data_plane *plane, uint32_t id)
{
	struct plane_relay *relay = plane->relays;

	while (relay && relay->relay.id != id)
		relay = relay->next;
	return relay;
}

void plane_relay_used(struct plane_relay *relay)
{
	uint64_t now = clock_now_ns();

	if (now - relay->told_ns < RELAY_TELL_NS || !relay->plane->is_attached)
		return;
	relay->told_ns = now;
	relay->plane->ports.relay_used(relay->plane->ports.owner, relay->relay.id);
}

/* ---- up and down ---- */

static void tell_state(const struct plane_relay *relay, bool up)
{
	if (relay->plane->is_attached)
		relay->plane->ports.relay_state(relay->plane->ports.owner, relay->relay.id, up);
}

static void come_up(struct plane_relay *relay)
{
	relay->is_up = true;
	relay->is_down = false;
	relay->down_ms = 0;
	log_info("relay", "connected to relay %s over %s", relay->relay.name, relay->sends_udp ? "UDP" : "TLS");
	tell_state(relay, true);
}

static void go_down(struct plane_relay *relay)
{
	if (relay->is_up)
		log_warning("relay", "lost relay %s", relay->relay.name);
	relay->is_up = false;
	relay->is_down = true;
	relay->down_ms = 0;
	tell_state(relay, false);
}

/* ---- choosing between UDP and TLS ---- */

static void open_tls(struct plane_relay *relay);

static bool is_bound(const struct plane_relay *relay)
{
	return relay->has_udp && relay_udp_fsm_is_bound(&relay->udp);
}

/* Is this a network without UDP? Then nobody waits for it at the next relay. Remembered while none is connected. */
static bool is_udp_blocked(struct data_plane *plane)
{
	for (const struct plane_relay *relay = plane->relays; relay; relay = relay->next) {
		if (is_bound(relay)) {
			plane->is_udp_blocked = false;
			break;
		}
		if (relay->is_tls_up)
			plane->is_udp_blocked = true;
	}
	return plane->is_udp_blocked;
}

static void on_timer(uv_timer_t *timer);

static void rearm(struct plane_relay *relay)
{
	const uint64_t now_us = clock_now_ns() / 1000;
	uint64_t at_us = relay->has_udp ? relay->udp.deadline_us : 0;
	const uint64_t others_ms[] = { relay->choice.deadline_ms, relay->down_ms };

	for (size_t i = 0; i < ARRAY_LEN(others_ms); i++)
		if (others_ms[i] != 0 && (at_us == 0 || others_ms[i] * 1000 < at_us))
			at_us = others_ms[i] * 1000;
	if (at_us == 0)
		uv_timer_stop(&relay->timer);
	else
		uv_timer_start(&relay->timer, on_timer, at_us > now_us ? (at_us - now_us + 999) / 1000 : 0, 0);
}

static void on_tls_finished(void *owner)
{
	struct plane_relay *relay = owner;
	struct data_plane *plane = relay->plane;

	relay->n_open--;
	if (!relay->is_closing || relay->n_open > 0)
		return;
	free(relay);
	plane_part_closed(plane);
}

static void on_tls_drained(void *owner)
{
	((struct plane_relay *)owner)->finishing = NULL;
	on_tls_finished(owner);
}

/* What is on its way still comes: the relay is told that we end, and ends as well. */
static void close_tls(struct plane_relay *relay)
{
	log_debug("relay", "relay=%s: UDP is good, TLS is closed", relay->relay.name);
	relay->is_tls_up = relay->is_tls_silent = false;
	relay->n_open++;
	if (relay->finishing) {
		relay_connection_close(relay->connection, on_tls_finished, relay);
	} else {
		relay->finishing = relay->connection;
		relay_connection_finish(relay->finishing, on_tls_drained, relay);
	}
	relay->connection = NULL;
}

static void choose_way(struct plane_relay *relay)
{
	const bool bound = is_bound(relay);
	const struct relay_choice_view view = {
		.now_ms = clock_now_ns() / 1000000,
		.is_bound = bound,
		.is_proven = bound && relay_udp_fsm_is_proven(&relay->udp),
		.missing = bound ? relay_udp_fsm_missing(&relay->udp) : 0,
		.loss = bound ? relay_udp_fsm_loss(&relay->udp) : 0,
		.knows_loss = bound && relay_udp_fsm_knows_loss(&relay->udp),
		.n_silent = bound ? relay->udp.n_silent : 0,
		.is_blocked = !relay->has_udp || is_udp_blocked(relay->plane),
	};

	const bool is_used = clock_now_ns() - relay->told_ns < USED_NS;

	relay_choice_step(&relay->choice, &view);
	if (relay->choice.wants_tls && !relay->connection)
		open_tls(relay);
	else if (!relay->choice.wants_tls && relay->connection)
		close_tls(relay);
	if (relay->has_udp)
		relay_udp_fsm_watch(&relay->udp, bound && relay_choice_is_watching(&relay->choice, is_used),
				    view.now_ms * 1000);
}

bool plane_relay_is_silent(const struct plane_relay *relay)
{
	if (!relay->is_up || (relay->is_tls_up && !relay->is_tls_silent))
		return false;
	return !relay->sends_udp || relay->udp.n_silent >= RELAY_CHOICE_SILENT;
}

/* Peers are many: they are looked at only when something is other than it was. */
static void tell_peers(struct plane_relay *relay)
{
	static const struct endpoint nowhere;
	const bool bound = is_bound(relay);
	const struct plane_relay_view view = {
		.is_up = relay->is_up,
		.sends_udp = relay->sends_udp,
		.is_tls_up = relay->is_tls_up,
		.is_tls_silent = relay->is_tls_silent,
		.is_silent = plane_relay_is_silent(relay),
		.is_leaving = relay->is_leaving,
		.slot = bound ? relay->udp.slot : 0,
		.token = bound ? relay->udp.token : 0,
		.remote = bound ? relay_udp_fsm_remote(&relay->udp) : nowhere,
	};
	const struct plane_relay_view *seen = &relay->seen;

	if (view.is_up == seen->is_up && view.sends_udp == seen->sends_udp && view.is_tls_up == seen->is_tls_up &&
	    view.is_tls_silent == seen->is_tls_silent && view.is_silent == seen->is_silent &&
	    view.is_leaving == seen->is_leaving && view.slot == seen->slot && view.token == seen->token && endpoint_equal(&view.remote, &seen->remote))
		return;
	relay->seen = view;
	plane_reach_changed(relay->plane);
}

static void judge(struct plane_relay *relay)
{
	const uint64_t now_ms = clock_now_ns() / 1000000;

	choose_way(relay);
	const bool bound = is_bound(relay);
	const bool sends_udp = bound && !(relay->choice.doubts_udp && relay->is_tls_up && !relay->is_tls_silent);
	const bool is_changed = sends_udp != relay->sends_udp;
	relay->sends_udp = sends_udp;
	if (bound || (relay->is_tls_up && !relay->is_tls_silent)) {
		relay->down_ms = 0;
		if (!relay->is_up)
			come_up(relay);
		else if (is_changed)
			log_info("relay", "relay %s is used over %s", relay->relay.name, sends_udp ? "UDP" : "TLS");
	} else if (relay->is_up && relay->down_ms == 0) {
		relay->down_ms = now_ms + (relay->is_tls_silent ? 0 : DOWN_GRACE_MS);
	}
	if (relay->down_ms != 0 && now_ms >= relay->down_ms)
		go_down(relay);
}

void plane_relay_reconsider(struct plane_relay *relay)
{
	if (relay->is_closing)
		return;
	judge(relay);
	rearm(relay);
	tell_peers(relay);
}

static void on_timer(uv_timer_t *timer)
{
	struct plane_relay *relay = container_of(timer, struct plane_relay, timer);
	const uint64_t now_us = clock_now_ns() / 1000;

	if (relay->has_udp && relay->udp.deadline_us != 0 && relay->udp.deadline_us <= now_us)
		plane_relay_udp_input(relay, &(struct relay_udp_input){ .type = RELAY_UDP_IN_DEADLINE });
	plane_relay_reconsider(relay);
}

/* ---- from the TLS connection ---- */

static void on_tls_ready(void *owner, uint32_t relay_id)
{
	struct plane_relay *relay = owner;

	relay->is_tls_up = true;
	relay->is_tls_silent = false;
	relay->is_leaving = relay->is_leaving && is_bound(relay);
	plane_forget_deaf(relay);
	/* Perhaps it has just come back. */
	if (relay->has_udp && !is_bound(relay))
		plane_relay_udp_input(relay, &(struct relay_udp_input){ .type = RELAY_UDP_IN_POKE });
	plane_relay_reconsider(relay);
}

static void on_tls_lost(void *owner, uint32_t relay_id, const char *why)
{
	struct plane_relay *relay = owner;

	if (relay->is_tls_up || !relay->is_up)
		log_info("relay", "relay %s over TLS: %s", relay->relay.name, why);
	relay->is_tls_up = relay->is_tls_silent = false;
	if (!is_bound(relay))
		go_down(relay);
	plane_relay_reconsider(relay);
}

static void on_tls_silent(void *owner, uint32_t relay_id, bool is_silent)
{
	struct plane_relay *relay = owner;

	relay->is_tls_silent = is_silent;
	plane_relay_reconsider(relay);
}

static void on_tls_packet(void *owner, uint32_t relay_id, const struct public_key *from, const uint8_t *bytes,
			  size_t len)
{
	struct plane_relay *relay = owner;
	struct plane_peer *peer = plane_find_by_key(relay->plane, from);

	if (peer)
		plane_relay_deliver(relay, peer, bytes, len);
	else
		relay->plane->n_unknown_senders++;
}

void plane_relay_deliver(struct plane_relay *relay, struct plane_peer *peer, const uint8_t *bytes, size_t len)
{
	struct data_plane *plane = relay->plane;

	plane_relay_used(relay);
	plane_peer_is_here(relay, peer, 0);
	if (demux_datagram(bytes, len) == DEMUX_WIREGUARD) {
		if (plane->host->class->put_relayed(plane->host, relay->relay.id, peer->id, bytes, len) != 0)
			plane->n_relay_dropped++;
		plane_wake(plane);
	} else if (plane->is_attached) {
		plane->ports.frame(plane->ports.owner, relay->relay.id, peer->id, bytes, len);
	} else {
		plane->n_unattached++;
	}
}

static void on_tls_peer_gone(void *owner, uint32_t relay_id, const struct public_key *key)
{
	struct plane_relay *relay = owner;
	struct plane_peer *peer = plane_find_by_key(relay->plane, key);

	if (peer)
		plane_peer_is_absent(relay, peer, true);
}

/* ---- life ---- */

static void open_tls(struct plane_relay *relay)
{
	const struct relay_connection_options options = {
		.host = relay->plane->options.tls_host,
		.context = relay->plane->options.relay_context,
		.relay = relay->relay,
		.ports = { .owner = relay,
			   .ready = on_tls_ready,
			   .lost = on_tls_lost,
			   .silent = on_tls_silent,
			   .packet = on_tls_packet,
			   .peer_gone = on_tls_peer_gone },
	};
	int r = relay_connection_new(&options, &relay->connection);

	if (r != 0)
		log_error("relay", "relay %s: %s", relay->relay.name, strerror(-r));
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_tls_finished(container_of((uv_timer_t *)handle, struct plane_relay, timer));
}

void plane_close_relay(struct plane_relay *relay)
{
	struct plane_relay **at = &relay->plane->relays;

	while (*at != relay)
		at = &(*at)->next;
	*at = relay->next;
	relay->is_closing = true;
	relay->is_up = relay->sends_udp = relay->is_tls_up = false;
	plane_relay_udp_close(relay);
	plane_reach_lost(relay->plane);
	relay->plane->n_open++;
	relay->n_open++;
	uv_close((uv_handle_t *)&relay->timer, on_timer_closed);
	if (relay->finishing)
		relay_connection_close(relay->finishing, on_tls_drained, relay);
	if (!relay->connection)
		return;
	relay->n_open++;
	relay_connection_close(relay->connection, on_tls_finished, relay);
	relay->connection = NULL;
}

static struct plane_relay *open_relay(struct data_plane *plane, const struct map_relay *record)
{
	struct plane_relay *relay = calloc(1, sizeof(*relay));

	if (!relay)
		abort();
	relay->plane = plane;
	relay->relay = *record;
	relay->next = plane->relays;
	plane->relays = relay;
	uv_timer_init(plane->options.loop, &relay->timer);
	relay_choice_init(&relay->choice, clock_now_ns() / 1000000);
	plane_relay_udp_open(relay);
	/* Not from inside the call of whoever wants it. */
	uv_timer_start(&relay->timer, on_timer, 0, 0);
	return relay;
}

static bool same_relay(const struct map_relay *a, const struct map_relay *b)
{
	if (a->tls_port != b->tls_port || a->stun_port != b->stun_port || a->n_addresses != b->n_addresses ||
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

struct plane_relay *plane_relay_on_demand(struct data_plane *plane, uint32_t relay_id)
{
	struct plane_relay *relay = plane_find_relay(plane, relay_id);

	for (uint32_t i = 0; !relay && i < plane->n_known_relays; i++)
		if (plane->known_relays[i].id == relay_id)
			relay = open_relay(plane, &plane->known_relays[i]);
	return relay;
}

/* ---- what the stage asks ---- */

bool data_plane_relay_is_up(const struct data_plane *plane, uint32_t relay_id)
{
	const struct plane_relay *relay = plane_find_relay(plane, relay_id);

	return relay && relay->is_up;
}

uint32_t data_plane_relay_rtt_us(const struct data_plane *plane, uint32_t relay_id)
{
	const struct plane_relay *relay = plane_find_relay(plane, relay_id);

	if (!relay)
		return 0;
	if (is_bound(relay) && relay->udp.rtt_us != 0)
		return relay->udp.rtt_us;
	return relay->connection ? relay_connection_rtt_us(relay->connection) : 0;
}

void data_plane_fill_relay(const struct data_plane *plane, struct node_status_relay *status)
{
	const struct plane_relay *relay = plane_find_relay(plane, status->id);

	if (!relay)
		return;
	if (relay->is_up)
		snprintf(status->transport, sizeof(status->transport), "%s", relay->sends_udp ? "udp" : "tls");
	if (is_bound(relay) && relay->udp.rtt_us != 0)
		status->udp_latency_us = relay->udp.rtt_us;
	if (relay->is_tls_up && relay_connection_rtt_us(relay->connection) != 0)
		status->tls_latency_us = relay_connection_rtt_us(relay->connection);
}

struct endpoint data_plane_relay_remote(const struct data_plane *plane, uint32_t relay_id)
{
	const struct plane_relay *relay = plane_find_relay(plane, relay_id);

	return relay && is_bound(relay) ? relay_udp_fsm_remote(&relay->udp) : (struct endpoint){ 0 };
}

void data_plane_rank_relays(struct data_plane *plane, uint32_t home, const uint32_t *ids, uint32_t n)
{
	plane->own_home = home;
	plane->n_ranked = n < MAP_MAX_RELAYS ? n : MAP_MAX_RELAYS;
	if (n > 0)
		memcpy(plane->ranked, ids, plane->n_ranked * sizeof(*ids));
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

	snprintf(ret, ret_len, "%s", peer ? plane_relay_name(plane, plane_reach_id(plane, peer)) : "");
}
