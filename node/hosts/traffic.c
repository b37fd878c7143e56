#include "node/hosts/traffic.h"

#define SESSION_NS	180000000000ull
#define HANDSHAKE_NS	6000000000ull /* the next initiation comes within that, or WireGuard has given up */

/* Since the last look. */
struct change {
	uint64_t rx, tx; /* bytes, as WireGuard counts */
	uint64_t rx_direct, rx_relay, tx_carried;
};

/* A WireGuard that was told to forget the peer counts from zero again. */
static void notice_reset(struct traffic *traffic, const struct traffic_look *look)
{
	if (look->rx_bytes >= traffic->rx_bytes && look->tx_bytes >= traffic->tx_bytes)
		return;
	traffic->rx_lost += traffic->rx_bytes;
	traffic->tx_lost += traffic->tx_bytes;
	traffic->rx_bytes = traffic->tx_bytes = 0;
}

static struct change change_since(const struct traffic *traffic, const struct traffic_look *look)
{
	const struct loopback_carried *before = &traffic->carried, *now = &look->carried;

	return (struct change){ .rx = look->rx_bytes - traffic->rx_bytes,
				.tx = look->tx_bytes - traffic->tx_bytes,
				.rx_direct = now->rx_direct_bytes - before->rx_direct_bytes,
				.rx_relay = now->rx_relay_bytes - before->rx_relay_bytes,
				.tx_carried = now->tx_bytes - before->tx_bytes };
}

/*
 * Bytes of at least one data packet, not of a keepalive or two, or a handshake: data is a multiple of
 * 16, but for packets as long as the MTU.
 */
static bool is_data(uint64_t bytes)
{
	return bytes > 2 * WG_OVERHEAD && (bytes % 16 == 0 || bytes >= 512);
}

static void take_arrivals(struct traffic *traffic, const struct traffic_look *look, const struct change *change)
{
	const struct loopback_carried *carried = &look->carried;
	struct wg_stats *stats = &traffic->stats;
	uint64_t direct = change->rx_direct + traffic->direct_before;
	uint64_t relay = change->rx_relay + traffic->relay_before;

	traffic->rx_bypassed = change->rx > direct + relay ? change->rx - direct - relay : 0;
	if (direct > 0 && change->rx > relay) {
		stats->direct.ns = carried->rx_direct_ns;
		stats->direct.path.remote = carried->rx_endpoint;
	}
	if (traffic->rx_bypassed > 0 && !endpoint_is_none(&look->path)) {
		stats->direct.ns = look->now.ns;
		stats->direct.path.remote = look->path;
		if (is_data(traffic->rx_bypassed))
			stats->last_receive_data_ns = look->now.ns;
	}
	if (relay > 0 && change->rx > direct)
		stats->relayed.ns = carried->rx_relay_ns;
	if (change->rx > 0 && carried->rx_data_ns > stats->last_receive_data_ns)
		stats->last_receive_data_ns = carried->rx_data_ns;
}

/* Packets wait for a session as long as WireGuard asks for one. */
static bool asks_for_session(const struct wg_stats *stats, const struct traffic_look *look)
{
	uint64_t asked_ns = look->carried.tx_initiation_ns;

	return asked_ns > stats->last_handshake_ns && look->now.ns < asked_ns + HANDSHAKE_NS;
}

static void take_handshake(struct wg_stats *stats, const struct traffic_look *look)
{
	uint64_t real_ns = look->last_handshake_real_ns;
	uint64_t age_ns = look->now.real_ns > real_ns ? look->now.real_ns - real_ns : 0;

	if (real_ns != stats->last_handshake_real_ns) {
		stats->last_handshake_real_ns = real_ns;
		stats->last_handshake_ns = real_ns == 0 ? 0 : look->now.ns > age_ns ? look->now.ns - age_ns : 1;
	}
	stats->has_session = real_ns != 0 && look->now.ns - stats->last_handshake_ns < SESSION_NS;
}

/* Since the last handshake that was answered; WireGuard does not count them. */
static void take_initiation(struct traffic *traffic, const struct traffic_look *look)
{
	struct wg_stats *stats = &traffic->stats;
	const uint64_t asked_ns = look->carried.tx_initiation_ns;

	if (asked_ns <= stats->last_handshake_ns)
		stats->handshake_attempts = 0;
	else if (asked_ns != traffic->carried.tx_initiation_ns)
		stats->handshake_attempts++;
	if (asked_ns > stats->last_send_ns)
		stats->last_send_ns = asked_ns;
}

void traffic_take(struct traffic *traffic, const struct traffic_look *look)
{
	struct wg_stats *stats = &traffic->stats;

	notice_reset(traffic, look);
	const struct change change = change_since(traffic, look);
	take_handshake(stats, look);
	take_initiation(traffic, look);
	take_arrivals(traffic, look, &change);
	if (look->carried.tx_data_ns > stats->last_send_data_ns)
		stats->last_send_data_ns = look->carried.tx_data_ns;
	traffic->has_sent = change.tx > 0;
	if (change.tx > change.tx_carried && is_data(change.tx - change.tx_carried))
		stats->last_send_data_ns = look->now.ns;
	stats->n_staged = asks_for_session(stats, look) ? 1 : 0;
	stats->rx_bytes = traffic->rx_lost + look->rx_bytes;
	stats->tx_bytes = traffic->tx_lost + look->tx_bytes;

	traffic->ns = look->now.ns;
	traffic->rx_bytes = look->rx_bytes;
	traffic->tx_bytes = look->tx_bytes;
	traffic->direct_before = change.rx_direct;
	traffic->relay_before = change.rx_relay;
	traffic->carried = look->carried;
}
