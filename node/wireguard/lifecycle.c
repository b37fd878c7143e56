/*
 * What timers ask for, and what a session's coming and going means for a peer.
 */
#include "node/wireguard/device_internal.h"

#include <string.h>

#define ARRIVAL_TOLD_NS WG_SECOND_NS
#define SENT_TOLD_NS	WG_SECOND_NS
#define LOST_SESSION_NS (WG_SECOND_NS / 10)

/* Questions a second about the way back, each some ten microseconds. */
#define MAX_PEER_QUESTIONS   10
#define MAX_COOKIE_QUESTIONS 100 /* of strangers, all together */

/* ---- packets that leave ---- */

void wg_peer_tell_sent(struct wg_peer *peer, struct wg_time now)
{
	if (wg_is_recent(peer->sent_told_ns, SENT_TOLD_NS, now.ns))
		return;
	peer->sent_told_ns = now.ns;
	wg_peer_tell(peer, WG_EVENT_SENT, NULL);
}

/* ---- authenticated packets ---- */

static void note_arrival(struct wg_peer *peer, const struct wg_path *from, uint64_t now_ns)
{
	bool is_relayed = from->relay_id != 0;
	struct wg_arrival *arrival = is_relayed ? &peer->stats.relayed : &peer->stats.direct;
	uint64_t *told_ns = &peer->arrival_told_ns[is_relayed];
	bool is_news = !wg_is_recent(*told_ns, ARRIVAL_TOLD_NS, now_ns) ||
		       !wg_path_equal(&arrival->path, from);

	*arrival = (struct wg_arrival){ .ns = now_ns, .path = *from };
	if (!is_news)
		return;
	*told_ns = now_ns;
	wg_peer_tell(peer, WG_EVENT_ARRIVAL, from);
}

static bool has_source(const struct wg_path *path, const struct wg_path *from)
{
	return path->ifindex == from->ifindex && path->socket == from->socket &&
	       memcmp(path->local_ip, from->local_ip, sizeof(path->local_ip)) == 0;
}

static struct wg_path without_source(const struct wg_path *path)
{
	struct wg_path bare = *path;

	memset(bare.local_ip, 0, sizeof(bare.local_ip));
	bare.ifindex = 0;
	return bare;
}

static bool may_ask(struct wg_questions *questions, uint32_t max, struct wg_time now)
{
	if (!wg_is_recent(questions->second_ns, WG_SECOND_NS, now.ns))
		*questions = (struct wg_questions){ .second_ns = now.ns };
	return questions->n++ < max;
}

/* A question is a system call or four: a peer could cause one with each packet, by coming from elsewhere each time. */
struct wg_path wg_peer_way_back(struct wg_peer *peer, const struct wg_path *from, struct wg_time now)
{
	const struct wg_ports *ports = &peer->device->ports;

	if (!ports->fit_source || !wg_path_has_source(from))
		return *from;
	if (wg_is_recent(peer->asked_way_ns, WG_SECOND_NS, now.ns) && wg_path_equal(&peer->asked_way, from) &&
	    has_source(&peer->asked_way, from))
		return peer->told_way;
	if (!may_ask(&peer->way_questions, MAX_PEER_QUESTIONS, now))
		return without_source(from);
	peer->asked_way = peer->told_way = *from;
	peer->asked_way_ns = now.ns;
	ports->fit_source(ports->owner, &peer->told_way);
	return peer->told_way;
}

/* Beyond what may be asked for strangers routing has the interface, and the address is the one that was asked. */
struct wg_path wg_device_way_of_cookie(struct wg_device *device, const struct wg_path *from, struct wg_time now)
{
	const struct wg_ports *ports = &device->ports;
	struct wg_path back = *from;

	if (!ports->fit_source || !wg_path_has_source(from))
		return back;
	if (may_ask(&device->cookie_questions, MAX_COOKIE_QUESTIONS, now))
		ports->fit_source(ports->owner, &back);
	else
		back.ifindex = 0;
	return back;
}

/* True when something changed. */
static bool learn_source(struct wg_path *path, const struct wg_path *from)
{
	if (has_source(path, from))
		return false;
	memcpy(path->local_ip, from->local_ip, sizeof(path->local_ip));
	path->ifindex = from->ifindex;
	path->socket = from->socket;
	return true;
}

/* True when it goes another way from now on. */
static bool follow(struct wg_peer *peer, const struct wg_path *from, struct wg_time now)
{
	if (peer->route.n == 1 && wg_path_equal(&peer->route.paths[0], from))
		return false;
	peer->route.n = 1;
	peer->route.paths[0] = wg_peer_way_back(peer, from, now);
	return true;
}

bool wg_peer_on_authenticated(struct wg_peer *peer, const struct wg_path *from, bool asks_again, struct wg_time now)
{
	bool has_roamed = peer->mode == WG_ROAMING && follow(peer, from, now);
	bool has_learned = false;

	wg_peer_collect(peer, now);
	for (uint32_t i = 0; i < peer->route.n; i++)
		if (wg_path_equal(&peer->route.paths[i], from) &&
		    (asks_again || !has_source(&peer->route.paths[i], from))) {
			const struct wg_path back = wg_peer_way_back(peer, from, now);
			has_learned |= learn_source(&peer->route.paths[i], &back);
		}
	if (has_roamed || has_learned)
		wg_peer_publish_route(peer);
	note_arrival(peer, from, now.ns);
	if (has_roamed)
		wg_peer_tell(peer, WG_EVENT_ROAMED, from);
	wg_timers_on_any_received(&peer->timers, now.ns);
	return has_roamed;
}

void wg_peer_forget_source(struct wg_peer *peer)
{
	for (uint32_t i = 0; i < peer->route.n; i++) {
		const struct wg_path nowhere = { .socket = peer->route.paths[i].socket };
		(void)learn_source(&peer->route.paths[i], &nowhere);
	}
	peer->asked_way_ns = 0;
	/* The next packet teaches it anew. */
	atomic_fetch_add(&peer->published.route_version, 1);
	wg_peer_publish_route(peer);
}

/* ---- sessions ---- */

void wg_peer_on_session(struct wg_peer *peer, struct wg_time now)
{
	wg_timers_on_handshake_complete(&peer->timers);
	peer->n_initiations = 0;
	peer->stats.last_handshake_ns = now.ns;
	peer->stats.last_handshake_real_ns = now.real_ns;
	wg_peer_tell(peer, WG_EVENT_SESSION, NULL);
}

void wg_peer_publish_session(struct wg_peer *peer)
{
	struct wg_keypair *current = peer->keypairs.current;

	wg_peer_settle(peer); /* what waited may have been pushed out by what waits for others */
	atomic_store(&peer->published.sending, current && current->may_send ? current : NULL);
}

void wg_device_drop_keypairs(struct wg_device *device, const struct wg_dropped *dropped)
{
	for (uint32_t i = 0; i < dropped->n; i++) {
		struct wg_keypair *keypair = dropped->keypairs[i];
		wg_index_table_remove(&device->indices, keypair->local_index);
		wg_session_table_remove(&device->sessions, keypair->local_index);
		/* Nobody seals with it any more once it is retired. */
		struct wg_keypair *expected = keypair;
		atomic_compare_exchange_strong(&keypair->peer->published.sending, &expected, NULL);
		wg_readers_retire(&device->readers, &keypair->retired, keypair, wg_keypair_free);
	}
}

void wg_peer_confirm_next(struct wg_peer *peer, struct wg_time now)
{
	struct wg_dropped dropped;

	wg_keypairs_confirm_next(&peer->keypairs, &dropped);
	wg_device_drop_keypairs(peer->device, &dropped);
	wg_peer_publish_session(peer);
	wg_peer_on_session(peer, now);
	wg_peer_flush_staged(peer, now);
}

void wg_peer_keep_fresh(struct wg_peer *peer, struct wg_time now)
{
	if (peer->keypairs.current && wg_keypair_wants_rekey(peer->keypairs.current, now.ns))
		wg_peer_initiate(peer, false, now);
}

void wg_peer_wipe_keys(struct wg_peer *peer)
{
	struct wg_dropped dropped;

	wg_peer_abandon_handshake(peer);
	wg_keypairs_wipe(&peer->keypairs, &dropped);
	wg_device_drop_keypairs(peer->device, &dropped);
}

static bool may_be_from(const struct wg_peer *peer, const struct wg_path *from)
{
	if (peer->mode != WG_PINNED)
		return false;
	if (from->relay_id != 0)
		return peer->id != 0 && peer->id == from->peer_id;
	for (uint32_t i = 0; i < peer->route.n; i++)
		if (wg_path_equal(&peer->route.paths[i], from))
			return true;
	return false;
}

/*
 * We have restarted, and somebody still uses a session from before. The walk over all peers is made
 * ten times a second at most, and asking is limited like all initiations.
 */
void wg_device_on_lost_session(struct wg_device *device, const struct wg_path *from,
			       struct wg_time now)
{
	struct wg_peer *peer = device->first;

	if (wg_is_recent(device->last_lost_session_ns, LOST_SESSION_NS, now.ns))
		return;
	device->last_lost_session_ns = now.ns;
	while (peer && !may_be_from(peer, from))
		peer = peer->next;
	if (!peer || wg_keypairs_usable(&peer->keypairs, now.ns) || peer->keypairs.next)
		return;
	if (wg_is_recent(peer->timers.last_handshake_sent_ns, WG_REKEY_TIMEOUT_NS, now.ns))
		return; /* a forger must not make us ask more often */
	wg_peer_send_keepalive(peer, now); /* without a key: a handshake, or "no path" is told */
}

/* ---- timers ---- */

static void give_up(struct wg_peer *peer)
{
	unsigned n = wg_staged_purge(&peer->device->staged, &peer->staged);

	peer->device->drops[WG_DROP_OUT_STAGED] += n;
	wg_peer_settle(peer);
	wg_peer_abandon_handshake(peer);
	peer->reached_nobody = false; /* a route that appears now finds nothing to do */
	wg_peer_tell(peer, WG_EVENT_GAVE_UP, NULL);
}

/* A source address that brought no answer is not kept. */
static void try_again(struct wg_peer *peer, bool is_retry, struct wg_time now)
{
	wg_peer_forget_source(peer);
	wg_peer_initiate(peer, is_retry, now);
}

static void run(struct wg_peer *peer, struct wg_time now)
{
	/* What lanes marked may have stopped the timer that brought us here. */
	wg_peer_collect(peer, now);
	unsigned todo = wg_timers_expire(&peer->timers, now.ns);

	if (todo & WG_TODO_GIVE_UP)
		give_up(peer);
	if (todo & WG_TODO_RETRY)
		try_again(peer, true, now);
	if (todo & WG_TODO_INITIATE)
		try_again(peer, false, now);
	if (todo & (WG_TODO_ANSWER_KEEPALIVE | WG_TODO_KEEPALIVE))
		wg_peer_send_keepalive(peer, now);
	if (todo & WG_TODO_ANSWER_KEEPALIVE)
		wg_timers_on_answer_keepalive_sent(&peer->timers, now.ns);
	if (todo & WG_TODO_WIPE_KEYS) {
		wg_peer_wipe_keys(peer);
		wg_peer_tell(peer, WG_EVENT_EXPIRED, NULL);
	}
}

void wg_device_tick(struct wg_device *device, struct wg_time now)
{
	for (;;) {
		struct wg_schedule_entry *entry = wg_schedule_first(&device->schedule);
		if (!entry || entry->at_ns > now.ns)
			return;
		struct wg_peer *peer = container_of(entry, struct wg_peer, schedule);
		if (wg_timers_next(&peer->timers) <= now.ns)
			run(peer, now);
		wg_schedule_set(&device->schedule, entry, wg_timers_next(&peer->timers));
	}
}

uint64_t wg_device_next_deadline(const struct wg_device *device)
{
	const struct wg_schedule_entry *entry = wg_schedule_first(&device->schedule);

	return entry ? entry->at_ns : UINT64_MAX;
}
