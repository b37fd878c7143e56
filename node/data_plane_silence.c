/*
 * Peers that we send to by relay and hear nothing of (peer_silence.h): is it they who have lost their relay?
 *
 *   they only receive ── knock ──► they are asked, and answer
 *   they do not know it ── wake ──► control ──► they look whether their relay answers, and come by TLS
 *   they are at another by now ── seek, ask ──► the nearest relays ── turn ──► what goes to them goes there
 *   they answer by another relay meanwhile (over TLS all are tried), which is not just our home ──► what goes to them
 *   goes there
 *   what should have begun a session was lost ── again ──► WireGuard asks for one once more
 *
 * As long as our own relay has not proven that it hears us, it is not they. A relay of which a peer did not answer
 * is deaf to us: another at which it is is preferred, until something of the peer comes by the deaf one, it turns
 * out that the peer only took its time, or a while has passed.
 */
#include "node/data_plane_internal.h"

#include "common/clock.h"
#include "common/log.h"

#define MAX_GONE_RETRIES 20

/* ---- deaf relays ---- */

void plane_forget_deaf(struct plane_relay *relay)
{
	struct data_plane *plane = relay->plane;

	for (uint32_t i = 0; i < plane->n_buckets; i++)
		for (struct plane_peer *peer = plane->by_id[i]; peer; peer = peer->next_by_id) {
			struct plane_place *place = plane_place(peer, relay->relay.id);
			if (place)
				place->deaf_ns = 0;
		}
}

/* It was in vain everywhere: from the beginning. */
static void forget_deaf(struct plane_peer *peer)
{
	for (uint32_t i = 0; i < PLANE_PLACES; i++)
		peer->places[i].deaf_ns = 0;
}

/* What goes to the peer goes elsewhere from now on. False: there is nowhere else, yet. */
static bool leave(struct data_plane *plane, struct plane_peer *peer, uint64_t now)
{
	struct plane_relay *from = plane_reach(plane, peer, WIREGUARD_RELAY_ANY);
	struct plane_place *place = from ? plane_place(peer, from->relay.id) : NULL;

	if (!place)
		return false;
	place->deaf_ns = now;
	struct plane_relay *to = plane_reach(plane, peer, WIREGUARD_RELAY_ANY);
	if (!to || to == from || plane_relay_is_silent(to)) {
		/* Asked again as soon as it may have been found. But who was tried elsewhere is tried at home. */
		forget_deaf(peer);
		to = plane_reach(plane, peer, WIREGUARD_RELAY_ANY);
		if (to == from)
			return false;
	}
	log_debug("relay", "peer=%u does not answer at relay=%s", peer->id, from->relay.name);
	return true;
}

static void turn(struct data_plane *plane, struct plane_peer *peer, uint64_t now)
{
	if (!leave(plane, peer, now))
		return;
	peer_silence_turned(&peer->silence, now);
	plane_reach_peer_changed(plane, peer);
}

/* Has it the peer, that another relay than what goes to the peer brought an answer? */
static bool tells_elsewhere(const struct data_plane *plane, const struct plane_peer *peer, uint32_t relay_id)
{
	const struct plane_relay *relay = plane_reach(plane, peer, WIREGUARD_RELAY_ANY);

	return relay && plane_is_answer_elsewhere(relay->relay.id, relay_id, plane->own_home, peer->home_relay);
}

/* Silent for longer than it usually is where we send, and now it is heard at another relay, where it may have been tried. */
static bool is_answer_elsewhere(const struct data_plane *plane, const struct plane_peer *peer, uint64_t now)
{
	const struct wg_stats *stats = &peer->stats;

	if (stats->relayed.ns <= stats->direct.ns || stats->relayed.ns <= peer->silence.heard_ns ||
	    !peer_silence_is_strange(&peer->silence, now))
		return false;
	return tells_elsewhere(plane, peer, stats->relayed.path.relay_id);
}

/* ---- deeds ---- */

void plane_ask_again(struct plane_peer *peer)
{
	if (peer->n_gone == MAX_GONE_RETRIES)
		return;
	peer->n_gone++;
	peer->is_gone = true;
}

/* When the relay that we send by was last heard; 0: it seems to be lost. A ping of this moment may be under way. */
static uint64_t heard_ns(const struct plane_relay *relay, uint64_t now)
{
	if (!relay || !relay->is_up)
		return 0;
	if (relay->sends_udp)
		return relay->udp.n_silent <= 1 ? relay->udp.heard_us * 1000 : 0;
	return relay->is_tls_up && !relay->is_tls_silent ? now : 0;
}

static void look(struct data_plane *plane, struct plane_peer *peer)
{
	const uint64_t now = clock_now_ns();

	if (!peer_silence_is_doubted(&peer->silence, now))
		return;
	const uint64_t relay_ns = heard_ns(plane_reach(plane, peer, WIREGUARD_RELAY_ANY), now);
	const uint32_t due = peer_silence_due(&peer->silence, now, relay_ns);
	if ((due & PEER_SILENCE_KNOCK) && plane->is_attached)
		plane->ports.peer_doubted(plane->ports.owner, peer->id);
	if ((due & PEER_SILENCE_WAKE) && plane->is_attached)
		plane->ports.peer_silent(plane->ports.owner, peer->id);
	if (due & (PEER_SILENCE_SEEK | PEER_SILENCE_ASK))
		plane_reach_seek(plane, peer, due & PEER_SILENCE_SEEK);
	if (due & PEER_SILENCE_TURN)
		turn(plane, peer, now);
	if (due & PEER_SILENCE_AGAIN)
		plane_ask_again(peer);
}

void plane_silence_heard(struct data_plane *plane, struct plane_peer *peer, uint64_t at_ns)
{
	if (!peer_silence_heard(&peer->silence, at_ns))
		return;
	forget_deaf(peer);
	plane_reach_peer_changed(plane, peer);
}

/*
 * What was asked went where all goes, and perhaps elsewhere, too: when the relay in use was strangely silent, it was the
 * other one that has it.
 */
void data_plane_answered(struct data_plane *plane, uint32_t peer_id, uint32_t relay_id)
{
	struct plane_peer *peer = plane_find_by_id(plane, peer_id);
	const uint64_t now = clock_now_ns();

	if (!peer)
		return;
	const bool was_strange = peer_silence_is_strange(&peer->silence, now);
	const bool is_elsewhere = was_strange && tells_elsewhere(plane, peer, relay_id);
	plane_silence_heard(plane, peer, now);
	if (is_elsewhere && leave(plane, peer, now))
		plane_reach_peer_changed(plane, peer);
}

/* Asks WireGuard for a session that there is none of, again and again? */
static bool asks_for_session(const struct wg_stats *before, const struct wg_stats *now)
{
	return !now->has_session && now->n_staged > 0 && now->handshake_attempts != before->handshake_attempts;
}

void plane_silence_sampled(struct data_plane *plane, struct plane_peer *peer, const struct wg_stats *before)
{
	const struct wg_stats *now = &peer->stats;
	const uint64_t now_ns = clock_now_ns();
	const bool is_elsewhere = is_answer_elsewhere(plane, peer, now_ns);

	plane_silence_heard(plane, peer, now->relayed.ns > now->direct.ns ? now->relayed.ns : now->direct.ns);
	if (is_elsewhere && leave(plane, peer, now_ns))
		plane_reach_peer_changed(plane, peer);
	/* What goes directly is no relay's business, and what WireGuard gave up waits for no answer. */
	if (!peer->path.relay || (!now->has_session && now->n_staged == 0)) {
		peer_silence_forget(&peer->silence);
		return;
	}
	if (asks_for_session(before, now))
		peer_silence_sent(&peer->silence, now->last_send_ns, true);
	if (now->last_send_data_ns != before->last_send_data_ns)
		peer_silence_sent(&peer->silence, now->last_send_data_ns, false);
	look(plane, peer);
}
