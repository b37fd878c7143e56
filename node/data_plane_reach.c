/*
 * At which relay is a peer, and how does a packet get there?
 *
 *   the peer's home relay ── ready ──► there
 *        │ down, silent, leaving, or the peer is not there
 *        ▼
 *   another at which it was found or heard from ── ready ──► there
 *        │ none
 *        ▼
 *   wait, and ask: its home and the nearest relays, by find over UDP, by the packet itself over TLS
 *
 * Ready means: connected, and over UDP the peer's slot is known. What is left stays in use until what is better is
 * ready. While the ready one is not the peer's home, or is silent, or will stop, or packets wait, relays are asked again
 * and again; else nobody is asked for a peer that is not in use. A relay that is silent is dead half a second later, as
 * a rule: what goes to the peer goes at once to another at which it was found meanwhile.
 */
#include "node/data_plane_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WAIT_NS	 2000000000ull
#define SEEK_MS		 100  /* between two rounds of questions for what waits … */
#define ASK_NS		 90000000ull /* a little less, so that each round asks */
#define ASK_HEARD_NS	 40000000ull /* who was heard there meanwhile is there: the answer is a slot now */
#define SEEK_CALM_NS	 1000000000ull /* … and for a peer that is reached elsewhere meanwhile */
#define IN_USE_NS	 5000000000ull
#define MAX_SOUGHT	 4 /* relays that are opened for a peer whose home does not have it */
#define MAX_SEEKERS	 64 /* peers of one round */

/* ---- places ---- */

struct plane_place *plane_place(const struct plane_peer *peer, uint32_t relay_id)
{
	return plane_places_find(peer->places, relay_id);
}

static struct plane_place *take_place(struct plane_peer *peer, uint32_t relay_id)
{
	return plane_places_take(peer->places, peer->home_relay, relay_id);
}

/* ---- which relay ---- */

static bool can_udp(const struct plane_relay *relay, const struct plane_place *place)
{
	return relay->sends_udp && place && place->slot != 0;
}

/* A packet sent there now has a good chance. */
static bool is_ready(const struct plane_relay *relay, const struct plane_peer *peer)
{
	const struct plane_place *place = plane_place(peer, relay->relay.id);

	if (!relay->is_up || plane_place_is_absent(place) || plane_place_is_tried(place, clock_now_ns()))
		return false;
	return can_udp(relay, place) || (relay->is_tls_up && !relay->is_tls_silent);
}

/* Not ready, but better than nothing: TLS that was silent just now. */
static bool is_possible(const struct plane_relay *relay, const struct plane_peer *peer)
{
	return relay->is_tls_up && !plane_place_is_absent(plane_place(peer, relay->relay.id));
}

/* Ready, and nothing speaks against it. */
static bool is_good(const struct plane_relay *relay, const struct plane_peer *peer)
{
	return !relay->is_leaving && !plane_relay_is_silent(relay) && is_ready(relay, peer) &&
	       !plane_place_is_deaf(plane_place(peer, relay->relay.id), clock_now_ns());
}

/* Where it was found or heard from last. */
static struct plane_relay *last_seen_at(const struct data_plane *plane, const struct plane_peer *peer)
{
	struct plane_relay *last = NULL;
	uint64_t last_ns = 0;

	for (uint32_t i = 0; i < PLANE_PLACES; i++) {
		const struct plane_place *place = &peer->places[i];
		struct plane_relay *relay = place->relay_id ? plane_find_relay(plane, place->relay_id) : NULL;
		if (!relay || !plane_place_is_here(place) || !is_good(relay, peer) || place->here_ns <= last_ns)
			continue;
		last = relay;
		last_ns = place->here_ns;
	}
	return last;
}

/* Over TLS a relay can be tried that we know nothing of. As long as a peer's home is not known, ours is the best guess. */
static struct plane_relay *any_ready(const struct data_plane *plane, const struct plane_peer *peer)
{
	struct plane_relay *leaving = NULL;

	for (uint32_t i = 0; i < plane->n_ranked; i++) {
		struct plane_relay *relay = plane_find_relay(plane, plane->ranked[i]);
		if (!relay || !is_ready(relay, peer))
			continue;
		if (!relay->is_leaving)
			return relay;
		leaving = relay;
	}
	for (struct plane_relay *relay = plane->relays; relay; relay = relay->next)
		if (is_ready(relay, peer) && !leaving)
			leaving = relay;
	return leaving;
}

struct plane_relay *plane_reach(const struct data_plane *plane, const struct plane_peer *peer, uint32_t wanted)
{
	struct plane_relay *relay = NULL, *found;

	if (wanted != 0 && wanted != WIREGUARD_RELAY_ANY)
		relay = plane_find_relay(plane, wanted);
	if (relay && is_ready(relay, peer))
		return relay;
	relay = peer->home_relay ? plane_find_relay(plane, peer->home_relay) : NULL;
	if (relay && is_good(relay, peer))
		return relay;
	if ((found = last_seen_at(plane, peer)) != NULL)
		return found;
	if (relay && is_ready(relay, peer))
		return relay;
	/* A home that is only on its way, and has not failed, is waited for. */
	if (peer->home_relay != 0 && (!relay || !relay->is_down) &&
	    !plane_place_is_absent(plane_place(peer, peer->home_relay)))
		return NULL;
	if ((found = any_ready(plane, peer)) != NULL)
		return found;
	return relay && is_possible(relay, peer) ? relay : NULL;
}

uint32_t plane_reach_id(const struct data_plane *plane, const struct plane_peer *peer)
{
	const struct plane_relay *relay = plane_reach(plane, peer, WIREGUARD_RELAY_ANY);

	if (relay)
		return relay->relay.id;
	if (peer->home_relay != 0)
		return peer->home_relay;
	return plane->relays ? plane->relays->relay.id : 0;
}

/* ---- ways: what WireGuard's host sends by itself ---- */

static void update_way(struct data_plane *plane, struct plane_peer *peer)
{
	struct wireguard_relay_way way = { 0 };
	struct plane_relay *relay = plane_reach(plane, peer, WIREGUARD_RELAY_ANY);
	const struct plane_place *place = relay ? plane_place(peer, relay->relay.id) : NULL;

	if (relay && can_udp(relay, place)) {
		way.relay_id = relay->relay.id;
		way.remote = relay_udp_fsm_remote(&relay->udp);
		relay_udp_fsm_header(&relay->udp, place->slot, way.header);
	}
	if (way.relay_id == peer->way.relay_id && endpoint_equal(&way.remote, &peer->way.remote) &&
	    memcmp(way.header, peer->way.header, sizeof(way.header)) == 0)
		return;
	if (way.relay_id != peer->way.relay_id)
		peer_silence_moved(&peer->silence, clock_now_ns());
	peer->way = way;
	peer->is_dirty = true;
	plane_publish(plane);
}

/* ---- asking ---- */

static bool is_in_use(const struct plane_peer *peer, uint64_t now)
{
	return peer->used_ns != 0 && now - peer->used_ns < IN_USE_NS;
}

static void ask(struct plane_relay *relay, struct plane_peer *peer, uint64_t now)
{
	if (!relay->has_udp || !relay_udp_fsm_is_bound(&relay->udp))
		return;
	struct plane_place *place = take_place(peer, relay->relay.id);
	const uint64_t pause = place->here_ns > place->asked_ns ? ASK_HEARD_NS : ASK_NS;
	if (place->slot != 0 || now - place->asked_ns < pause)
		return;
	place->asked_ns = now;
	plane_relay_udp_find(relay, peer);
}

/* Its home alone does as long as that works. */
static bool is_home_good(const struct data_plane *plane, const struct plane_peer *peer)
{
	const struct plane_relay *home = peer->home_relay ? plane_find_relay(plane, peer->home_relay) : NULL;
	const struct plane_place *place = plane_place(peer, peer->home_relay);
	const uint64_t now = clock_now_ns();

	return home && !home->is_leaving && !home->is_down && !plane_relay_is_silent(home) &&
	       !plane_place_is_absent(place) && !plane_place_is_deaf(place, now) && !peer_silence_is_strange(&peer->silence, now);
}

static void seek(struct data_plane *plane, struct plane_peer *peer, bool opens)
{
	const uint64_t now = clock_now_ns();

	peer->sought_ns = now;
	struct plane_relay *home = peer->home_relay ? plane_relay_on_demand(plane, peer->home_relay) : NULL;
	if (home) {
		plane_relay_used(home);
		ask(home, peer, now);
	}
	if (is_home_good(plane, peer))
		return;
	for (uint32_t i = 0, n = 0; i < plane->n_ranked && n < MAX_SOUGHT; i++) {
		struct plane_relay *relay = opens ? plane_relay_on_demand(plane, plane->ranked[i]) :
						    plane_find_relay(plane, plane->ranked[i]);
		if (!relay || relay == home)
			continue;
		n++;
		plane_relay_used(relay);
		ask(relay, peer, now);
	}
	for (uint32_t i = 0; i < PLANE_PLACES; i++) {
		const struct plane_place *place = &peer->places[i];
		struct plane_relay *relay =
			plane_place_is_here(place) ? plane_find_relay(plane, place->relay_id) : NULL;
		if (relay)
			ask(relay, peer, now);
	}
}

void plane_reach_seek(struct data_plane *plane, struct plane_peer *peer, bool opens)
{
	if (plane_rounds_take(&plane->rounds, peer->sought_ns, clock_now_ns()))
		seek(plane, peer, opens);
}

/* Nothing but a nearer one would be better. */
static bool is_lasting(const struct plane_relay *relay)
{
	return relay && relay->is_up && !relay->is_leaving && !plane_relay_is_silent(relay);
}

static bool is_settled(const struct data_plane *plane, const struct plane_peer *peer)
{
	const struct plane_relay *relay = plane_reach(plane, peer, WIREGUARD_RELAY_ANY);

	if (!is_lasting(relay) || (peer->home_relay != 0 && relay->relay.id != peer->home_relay))
		return false;
	/* Over TLS alone there is no slot to be found. */
	return can_udp(relay, plane_place(peer, relay->relay.id)) || !relay->sends_udp;
}

static void rearm(struct data_plane *plane, bool any);

static bool seek_again(struct data_plane *plane, struct plane_peer *peer, uint64_t now)
{
	const struct plane_relay *relay = plane_reach(plane, peer, WIREGUARD_RELAY_ANY);

	if (!is_in_use(peer, now))
		return false;
	update_way(plane, peer); /* a relay may not be deaf any more */
	if (is_settled(plane, peer))
		return false;
	if (!is_lasting(relay) || now - peer->sought_ns >= SEEK_CALM_NS)
		seek(plane, peer, true);
	return true;
}

static void flush_waiting(struct data_plane *plane);

static void on_seek_due(uv_timer_t *timer)
{
	struct data_plane *plane = container_of(timer, struct data_plane, seek_timer);
	const uint64_t now = clock_now_ns();
	uint32_t n = 0;

	for (uint32_t i = 0; i < plane->n_waiting; i++) {
		struct plane_peer *peer = plane_find_by_id(plane, plane->waiting[i].peer_id);
		if (peer)
			seek(plane, peer, true);
	}
	for (uint32_t i = 0; i < plane->n_buckets && n < MAX_SEEKERS; i++) {
		plane->seek_bucket = (plane->seek_bucket + 1) % plane->n_buckets; /* who is left begins the next round */
		for (struct plane_peer *peer = plane->by_id[plane->seek_bucket]; peer; peer = peer->next_by_id)
			n += seek_again(plane, peer, now);
	}
	flush_waiting(plane);
	rearm(plane, n > 0);
}

static void rearm(struct data_plane *plane, bool any)
{
	if (plane->closed || (!any && plane->n_waiting == 0) || uv_is_active((uv_handle_t *)&plane->seek_timer))
		return;
	uv_timer_start(&plane->seek_timer, on_seek_due, SEEK_MS, 0);
}

/* ---- sending ---- */

static int send_by_tls(struct plane_relay *relay, const struct plane_peer *peer, const struct train *train)
{
	int r = 0;

	for (uint32_t i = 0; i < train->n; i++) {
		int one = relay_connection_send(relay->connection, &peer->key, train_packet(train, i),
						train_size(train, i));
		r = r ? r : one;
	}
	return r;
}

static int send_by(struct plane_relay *relay, struct plane_peer *peer, const struct train *train)
{
	const struct plane_place *place = plane_place(peer, relay->relay.id);

	plane_relay_used(relay);
	if (can_udp(relay, place))
		return plane_relay_udp_send(relay, place->slot, train);
	const int r = send_by_tls(relay, peer, train);
	if (relay->sends_udp) /* afterwards: the answer to anything may be that TLS is closed */
		ask(relay, peer, clock_now_ns());
	return r;
}

static void remove_waiting(struct data_plane *plane, uint32_t i)
{
	buffer_free(plane->waiting[i].bytes);
	plane->n_waiting--;
	memmove(&plane->waiting[i], &plane->waiting[i + 1], (plane->n_waiting - i) * sizeof(*plane->waiting));
}

static void wait_for_relay(struct data_plane *plane, const struct plane_peer *peer, uint32_t wanted,
			   const struct train *train)
{
	for (uint32_t i = 0; i < train->n; i++) {
		if (plane->n_waiting == MAX_WAITING) {
			remove_waiting(plane, 0); /* fresh packets are worth more */
			plane->n_not_reached++;
		}
		plane->waiting[plane->n_waiting++] = (struct waiting){
			.peer_id = peer->id,
			.relay_id = wanted,
			.since_ns = clock_now_ns(),
			.bytes = buffer_new(train_packet(train, i), train_size(train, i)),
		};
	}
	rearm(plane, true);
}

static void flush_waiting(struct data_plane *plane)
{
	const uint64_t now = clock_now_ns();

	if (plane->is_flushing) /* sending may bring news, and these us */
		return;
	plane->is_flushing = true;
	for (uint32_t i = 0; i < plane->n_waiting;) {
		struct waiting *waiting = &plane->waiting[i];
		struct plane_peer *peer = plane_find_by_id(plane, waiting->peer_id);
		const bool is_old = !peer || now - waiting->since_ns >= MAX_WAIT_NS;
		struct plane_relay *relay = is_old ? NULL : plane_reach(plane, peer, waiting->relay_id);
		if (relay) {
			const struct train train = train_of_one(waiting->bytes->bytes, waiting->bytes->len);
			if (send_by(relay, peer, &train) != 0)
				plane->n_relay_dropped++;
		}
		plane->n_not_reached += is_old;
		if (relay || is_old)
			remove_waiting(plane, i);
		else
			i++;
	}
	plane->is_flushing = false;
}

/* It, or who would have to give way for it: that one would be forgotten, and tried again at once. */
static bool was_tried(const struct plane_peer *peer, uint32_t relay_id, uint64_t now, bool is_sought)
{
	return plane_place_was_tried(plane_places_room(peer->places, peer->home_relay, relay_id), now, is_sought);
}

/*
 * Nobody knows where the peer is, or it does not answer where it should be: over TLS a relay tells when it is not there. Few, and not often; one that does not
 * say so is taken for ready then, as those are of which nothing is known. Of more relays than are remembered those that are not
 * come first, in the room of one whose time has come: no relay is tried more often for having been forgotten, none never.
 */
static void send_to_all(struct data_plane *plane, struct plane_peer *peer, const struct plane_relay *but,
			const struct train *train)
{
	const struct train first = train_slice(train, 0, 1);
	const uint64_t now = clock_now_ns();
	const bool is_sought = peer_silence_is_sought(&peer->silence, now);
	uint32_t n = 0;

	for (uint32_t pass = 0; pass < 2; pass++)
		for (struct plane_relay *relay = plane->relays; relay && n < MAX_SOUGHT; relay = relay->next) {
			const uint32_t id = relay->relay.id;
			if (relay == but || !relay->is_tls_up || relay->is_tls_silent)
				continue;
			if ((plane_place(peer, id) != NULL) != (pass == 1) || was_tried(peer, id, now, is_sought))
				continue;
			plane_place_try(take_place(peer, id), now, data_plane_relay_rtt_us(plane, id), is_sought);
			n += send_by_tls(relay, peer, &first) == 0;
		}
}

int plane_send_relayed(struct data_plane *plane, struct plane_peer *peer, uint32_t wanted, const struct train *train)
{
	struct plane_relay *relay = plane_reach(plane, peer, wanted);

	peer->used_ns = clock_now_ns();
	update_way(plane, peer); /* who was not in use was left out when the relay changed */
	if (!relay || !is_settled(plane, peer)) {
		seek(plane, peer, true);
		relay = plane_reach(plane, peer, wanted);
		rearm(plane, true);
	}
	if (!relay || !relay->is_up || peer_silence_is_sought(&peer->silence, peer->used_ns))
		send_to_all(plane, peer, relay, train);
	if (relay)
		return send_by(relay, peer, train);
	if (!plane->relays)
		return -ENOTCONN;
	wait_for_relay(plane, peer, wanted, train);
	return 0;
}

int data_plane_send_frame(struct data_plane *plane, uint32_t relay_id, uint32_t peer_id, const uint8_t *bytes,
			  size_t len)
{
	struct plane_peer *peer = plane_find_by_id(plane, peer_id);
	/* Only read: what seals in place does not come here. */
	const struct train train = train_of_one((uint8_t *)(uintptr_t)bytes, len);

	return peer ? plane_send_relayed(plane, peer, relay_id, &train) : -ENOENT;
}

/* Asked of the way that data takes: what is on another would say nothing. */
int data_plane_send_frame_whole(struct data_plane *plane, uint32_t peer_id, const uint8_t *bytes, size_t len)
{
	struct plane_peer *peer = plane_find_by_id(plane, peer_id);
	struct plane_relay *relay = peer ? plane_reach(plane, peer, WIREGUARD_RELAY_ANY) : NULL;
	const struct plane_place *place = relay ? plane_place(peer, relay->relay.id) : NULL;
	const struct train train = train_of_one((uint8_t *)(uintptr_t)bytes, len); /* only read */

	if (!relay)
		return -ENOTCONN;
	if (can_udp(relay, place))
		return plane_relay_udp_send_whole(relay, place->slot, bytes, len);
	return send_by_tls(relay, peer, &train);
}

bool data_plane_relay_way(const struct data_plane *plane, uint32_t peer_id, struct relay_way *ret)
{
	const struct plane_peer *peer = plane_find_by_id(plane, peer_id);
	const struct plane_relay *relay = peer ? plane_reach(plane, peer, WIREGUARD_RELAY_ANY) : NULL;

	if (!relay)
		return false;
	*ret = (struct relay_way){ .relay_id = relay->relay.id };
	if (can_udp(relay, plane_place(peer, relay->relay.id)))
		ret->remote = relay_udp_fsm_remote(&relay->udp);
	return true;
}

/* ---- news ---- */

static bool has_waiting(const struct data_plane *plane, const struct plane_peer *peer)
{
	for (uint32_t i = 0; i < plane->n_waiting; i++)
		if (plane->waiting[i].peer_id == peer->id)
			return true;
	return false;
}

static bool is_reached(const struct data_plane *plane, const struct plane_peer *peer)
{
	return plane_reach(plane, peer, WIREGUARD_RELAY_ANY) != NULL;
}

/* Said with every packet that the loop takes in. */
static bool is_no_news(const struct plane_place *place, uint32_t slot)
{
	return plane_place_is_here(place) && (slot == 0 || place->slot == slot);
}

/*
 * By another relay than the one we send by a peer says that it is there, not that it hears us here: what it sends unasked
 * would end every silence. What WireGuard opens is an answer whichever way it came, and counted with the next sample.
 */
static void is_heard(struct plane_relay *relay, struct plane_peer *peer, struct plane_place *place)
{
	struct data_plane *plane = relay->plane;

	if (place && place->deaf_ns != 0) {
		place->deaf_ns = 0;
		update_way(plane, peer);
	}
	if (plane_reach(plane, peer, WIREGUARD_RELAY_ANY) == relay)
		plane_silence_heard(plane, peer, clock_now_ns());
}

void plane_peer_is_here(struct plane_relay *relay, struct plane_peer *peer, uint32_t slot)
{
	struct data_plane *plane = relay->plane;
	struct plane_place *known = plane_place(peer, relay->relay.id);

	if (slot == 0) {
		is_heard(relay, peer, known);
		known = plane_place(peer, relay->relay.id); /* looking elsewhere may have taken its room */
	}
	if (is_no_news(known, slot)) {
		known->here_ns = clock_now_ns();
		peer->used_ns = slot == 0 ? known->here_ns : peer->used_ns;
		return;
	}
	/* What waits will be sent; else a handshake may have been lost meanwhile. */
	const bool was_cut_off = !is_reached(plane, peer) && !has_waiting(plane, peer);
	struct plane_place *place = take_place(peer, relay->relay.id);
	const bool is_news = plane_place_is_absent(place) || (slot != 0 && place->slot != slot);

	place->here_ns = clock_now_ns();
	if (slot != 0)
		place->slot = slot;
	else
		peer->used_ns = place->here_ns;
	if (!is_news)
		return;
	update_way(plane, peer);
	flush_waiting(plane);
	if (was_cut_off && is_reached(plane, peer) && is_in_use(peer, place->here_ns)) {
		peer->is_gone = true;
		plane_publish(plane);
	}
}

void plane_peer_is_absent(struct plane_relay *relay, struct plane_peer *peer, bool was_lost)
{
	struct data_plane *plane = relay->plane;
	struct plane_place *place = take_place(peer, relay->relay.id);

	place->absent_ns = clock_now_ns();
	place->slot = 0;
	if (was_lost) { /* it may be about to connect: what waits for a session is asked again soon */
		plane_ask_again(peer);
		plane_wake(plane);
	}
	update_way(plane, peer);
	rearm(plane, is_in_use(peer, place->absent_ns));
	if (plane->is_attached)
		plane->ports.peer_gone(plane->ports.owner, relay->relay.id, peer->id);
}

void plane_forget_slots(struct plane_relay *relay)
{
	for (uint32_t i = 0; i < relay->plane->n_buckets; i++)
		for (struct plane_peer *peer = relay->plane->by_id[i]; peer; peer = peer->next_by_id) {
			struct plane_place *place = plane_place(peer, relay->relay.id);
			if (place)
				*place = (struct plane_place){ .relay_id = relay->relay.id };
		}
}

void plane_reach_peer_changed(struct data_plane *plane, struct plane_peer *peer)
{
	const uint64_t now = clock_now_ns();

	update_way(plane, peer);
	if (!is_in_use(peer, now) || is_settled(plane, peer))
		return;
	seek(plane, peer, true);
	rearm(plane, true);
}

/* Those that are sent to by a relay, or were just now; the others when they are. */
static void each_in_use(struct data_plane *plane, void (*look)(struct data_plane *plane, struct plane_peer *peer))
{
	const uint64_t now = clock_now_ns();

	for (uint32_t i = 0; i < plane->n_buckets; i++)
		for (struct plane_peer *peer = plane->by_id[i]; peer; peer = peer->next_by_id)
			if (peer->way.relay_id != 0 || is_in_use(peer, now))
				look(plane, peer);
}

void plane_reach_changed(struct data_plane *plane)
{
	if (plane->closed)
		return;
	each_in_use(plane, plane_reach_peer_changed);
	flush_waiting(plane);
}

void plane_reach_lost(struct data_plane *plane)
{
	if (plane->closed)
		return;
	each_in_use(plane, update_way);
	rearm(plane, true);
}

static struct plane_relay *relay_of_way(const struct data_plane *plane, const struct plane_peer *peer)
{
	return peer->way.relay_id ? plane_find_relay(plane, peer->way.relay_id) : NULL;
}

void plane_reach_sampled(struct data_plane *plane, struct plane_peer *peer, const struct wg_stats *before)
{
	const struct wg_stats *now = &peer->stats;
	struct plane_relay *relay;

	if (now->relayed.ns != before->relayed.ns && (relay = plane_find_relay(plane, now->relayed.path.relay_id))) {
		peer->used_ns = now->relayed.ns;
		plane_relay_used(relay);
		struct plane_place *place = take_place(peer, relay->relay.id);
		place->here_ns = now->relayed.ns;
		if (place->deaf_ns != 0) {
			place->deaf_ns = 0;
			update_way(plane, peer);
		}
		if (relay->has_udp && relay_udp_fsm_received(&relay->udp, now->relayed.ns / 1000))
			plane_relay_reconsider(relay);
		if (!is_settled(plane, peer))
			ask(relay, peer, clock_now_ns()); /* that it may be answered there */
	}
	if (now->last_send_ns != before->last_send_ns && peer->path.relay && (relay = relay_of_way(plane, peer))) {
		peer->used_ns = now->last_send_ns;
		update_way(plane, peer); /* as is what was deaf until now */
		plane_relay_used(relay);
		if (relay->has_udp && relay_udp_fsm_sent(&relay->udp, now->last_send_ns / 1000))
			plane_relay_reconsider(relay);
		rearm(plane, !is_settled(plane, peer));
	}
	plane_silence_sampled(plane, peer, before);
}

void plane_reach_close(struct data_plane *plane)
{
	while (plane->n_waiting > 0)
		remove_waiting(plane, 0);
}
