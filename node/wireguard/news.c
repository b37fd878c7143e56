/*
 * What lanes tell the device: news, which are taken at once, and marks, which are collected when the
 * device comes by.
 *
 *   marks of a peer since the last time    reported to the timers, in the order of their times
 *   ─────────────────────────────────────  ────────────────────────────────────────────────────
 *   data sent                              anything sent, data sent; rekey if the session is old
 *   anything received                      anything received; last chance to rekey
 *   data received                          data received
 *
 * Several packets between two visits are one: the timers' shortest time is 5 s, that between visits a
 * fiftieth of it.
 */
#include "node/wireguard/device_internal.h"

/* ---- marks: the lane's side ---- */

void wg_lane_note(struct wg_lane *lane, struct wg_peer *peer)
{
	struct wg_device *device = lane->device;

	/* The device clears this before it reads the marks. */
	if (atomic_exchange(&peer->marks.is_noted, true))
		return;
	struct wg_peer *first = atomic_load(&device->noted);
	do
		peer->marks.next_noted = first;
	while (!atomic_compare_exchange_weak(&device->noted, &first, peer));
	if (!first && lane->ports.noted)
		lane->ports.noted(lane->ports.owner);
}

/* ---- marks: the device's side ---- */

/* By how much the count has grown. */
static uint64_t take_growth(const _Atomic uint64_t *count, uint64_t *seen)
{
	const uint64_t now = atomic_load_explicit(count, memory_order_acquire);
	const uint64_t growth = now - *seen;

	*seen = now;
	return growth;
}

static uint64_t time_of(const _Atomic uint64_t *mark)
{
	return atomic_load_explicit(mark, memory_order_relaxed);
}

static void report_sent(struct wg_peer *peer, uint64_t at_ns)
{
	wg_timers_on_any_sent(&peer->timers, at_ns);
	wg_timers_on_data_sent(&peer->timers, at_ns);
}

static void report_received(struct wg_peer *peer, uint64_t n_arrivals, uint64_t n_data)
{
	if (n_arrivals > 0)
		wg_timers_on_any_received(&peer->timers, time_of(&peer->marks.any_received_ns));
	/* More than one: another keepalive after the first. */
	for (uint64_t i = 0; i < n_data && i < 2; i++)
		wg_timers_on_data_received(&peer->timers, time_of(&peer->marks.data_received_ns));
}

/* For an initiator that only receives: sending rekeys by itself. */
static void use_last_minute(struct wg_peer *peer, struct wg_time now)
{
	const struct wg_keypair *current = peer->keypairs.current;

	if (current && current->is_initiator &&
	    wg_timers_take_last_minute(&peer->timers, current->birth_ns, now.ns))
		wg_peer_initiate(peer, false, now);
}

void wg_peer_collect(struct wg_peer *peer, struct wg_time now)
{
	const uint64_t n_sent = take_growth(&peer->marks.tx_packets, &peer->seen_tx_packets);
	const uint64_t n_arrivals = take_growth(&peer->marks.n_arrivals, &peer->seen_arrivals);
	const uint64_t n_data = take_growth(&peer->marks.n_data, &peer->seen_data);
	const uint64_t sent_ns = time_of(&peer->marks.data_sent_ns);
	const bool sent_first = sent_ns < time_of(&peer->marks.any_received_ns);

	if (n_sent == 0 && n_arrivals == 0 && n_data == 0)
		return;
	if (n_sent > 0 && sent_first)
		report_sent(peer, sent_ns);
	report_received(peer, n_arrivals, n_data);
	if (n_sent > 0 && !sent_first)
		report_sent(peer, sent_ns);
	if (n_sent > 0) {
		wg_peer_keep_fresh(peer, now);
		wg_peer_tell_sent(peer, now);
	}
	if (n_arrivals > 0 || n_data > 0)
		use_last_minute(peer, now);
	wg_peer_reschedule(peer);
}

bool wg_device_has_notes(const struct wg_device *device)
{
	return atomic_load(&device->noted);
}

void wg_device_collect(struct wg_device *device, struct wg_time now)
{
	struct wg_peer *peer = atomic_exchange(&device->noted, NULL);

	while (peer) {
		struct wg_peer *next = peer->marks.next_noted; /* a lane may note it anew */
		/* Not a mere store: who was here before us and did not note it has its marks seen. */
		(void)atomic_exchange(&peer->marks.is_noted, false);
		if (!peer->is_removed)
			wg_peer_collect(peer, now);
		peer = next;
	}
}

/* ---- news ---- */

static void take_confirmed(struct wg_peer *peer, const struct wg_keypair *keypair, struct wg_time now)
{
	if (keypair != peer->keypairs.next)
		return; /* replaced meanwhile */
	wg_peer_confirm_next(peer, now);
	wg_peer_reschedule(peer);
}

void wg_device_take(struct wg_device *device, const struct wg_news *news, struct wg_time now)
{
	const uint8_t *bytes = news->train.base;

	if (news->peer && news->peer->is_removed)
		return;
	switch (news->type) {
	case WG_NEWS_PLAIN:
		wg_peer_take_plain(news->peer, &news->train, now);
		return;
	case WG_NEWS_HANDSHAKE:
		wg_device_receive_handshake(device, wg_message_type(bytes, news->train.size), bytes,
					    news->train.size, &news->from, now);
		return;
	case WG_NEWS_AUTHENTICATED:
		(void)wg_peer_on_authenticated(news->peer, &news->from, false, now);
		atomic_fetch_add(&news->peer->published.n_told, 1);
		wg_peer_reschedule(news->peer);
		return;
	case WG_NEWS_CONFIRMED:
		take_confirmed(news->peer, news->keypair, now);
		atomic_fetch_add(&news->peer->published.n_told, 1);
		return;
	case WG_NEWS_LOST_SESSION:
		wg_device_on_lost_session(device, &news->from, now);
		return;
	}
}
