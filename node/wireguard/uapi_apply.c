#include "node/wireguard/uapi_apply.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* set */

static bool section_has(const struct uapi_item *items, size_t n, enum uapi_key key)
{
	for (size_t i = 0; i < n; i++)
		if (items[i].key == key)
			return true;
	return false;
}

static struct wg_prefix to_prefix(const struct uapi_allowed_ip *allowed_ip)
{
	struct wg_prefix prefix = {
		.family = allowed_ip->is_v4 ? AF_INET : AF_INET6,
		.len = allowed_ip->prefix_len,
	};

	memcpy(prefix.ip, allowed_ip->ip, sizeof(prefix.ip));
	return prefix;
}

static int set_allowed_ip(struct wg_peer *peer, const struct uapi_allowed_ip *allowed_ip)
{
	struct wg_prefix prefix = to_prefix(allowed_ip);

	if (!allowed_ip->remove)
		return wg_peer_allow(peer, &prefix);
	wg_peer_disallow(peer, &prefix);
	return 0;
}

static int set_peer_item(struct wg_peer *peer, const struct uapi_item *item, struct wg_time now)
{
	struct wg_route route = { .n = 1 };

	switch (item->key) {
	case UAPI_PRESHARED_KEY:
		wg_peer_set_psk(peer, item->secret);
		return 0;
	case UAPI_ENDPOINT:
		route.paths[0].remote = item->endpoint;
		wg_peer_set_route(peer, &route, now);
		return 0;
	case UAPI_KEEPALIVE:
		wg_peer_set_keepalive(peer, (uint16_t)item->number, now);
		return 0;
	case UAPI_REPLACE_ALLOWED_IPS:
		wg_peer_disallow_all(peer);
		return 0;
	case UAPI_ALLOWED_IP:
		return set_allowed_ip(peer, &item->allowed_ip);
	case UAPI_PRIVATE_KEY:
	case UAPI_LISTEN_PORT:
	case UAPI_FWMARK:
	case UAPI_REPLACE_PEERS:
	case UAPI_PUBLIC_KEY:
	case UAPI_REMOVE:
	case UAPI_UPDATE_ONLY:
	case UAPI_PROTOCOL_VERSION:
	case UAPI_N_KEYS:
		return 0;
	}
	return 0;
}

/* The peer of a section; *ret is NULL when there is nothing to do. */
static int find_or_add_peer(struct wg_device *device, const struct uapi_item *items, size_t n,
			    struct wg_peer **ret)
{
	struct public_key key;

	memcpy(key.bytes, items[0].secret, sizeof(key.bytes));
	*ret = wg_device_find_peer(device, &key);
	if (section_has(items, n, UAPI_REMOVE)) {
		if (*ret)
			wg_device_remove_peer(device, *ret);
		*ret = NULL;
		return 0;
	}
	if (*ret || section_has(items, n, UAPI_UPDATE_ONLY))
		return 0;

	int r = wg_device_add_peer(device, &key, ret);
	if (r > 0) { /* our own key */
		*ret = NULL;
		return 0;
	}
	return r;
}

/* items[0] is the public key. The keepalive goes last: turning it on sends by what the others say. */
static int apply_peer(struct wg_device *device, const struct uapi_item *items, size_t n, struct wg_time now)
{
	struct wg_peer *peer = NULL;
	int r = find_or_add_peer(device, items, n, &peer);

	for (size_t i = 1; r == 0 && peer && i < n; i++)
		if (items[i].key != UAPI_KEEPALIVE)
			r = set_peer_item(peer, &items[i], now);
	for (size_t i = 1; r == 0 && peer && i < n; i++)
		if (items[i].key == UAPI_KEEPALIVE)
			r = set_peer_item(peer, &items[i], now);
	return r;
}

static void apply_device_item(struct wg_device *device, const struct uapi_item *item)
{
	struct secret_key key;
	struct wg_peer *peer;

	if (item->key == UAPI_PRIVATE_KEY) {
		memcpy(key.bytes, item->secret, sizeof(key.bytes));
		wg_device_set_private_key(device, &key);
		secret_key_wipe(&key);
	} else if (item->key == UAPI_REPLACE_PEERS) {
		while ((peer = wg_device_first_peer(device)))
			wg_device_remove_peer(device, peer);
	}
}

int uapi_apply(struct wg_device *device, const struct uapi_item *items, size_t n, struct wg_time now)
{
	size_t at = 0;
	int r = 0;

	for (; at < n && items[at].key != UAPI_PUBLIC_KEY; at++)
		apply_device_item(device, &items[at]);
	while (r == 0 && at < n) {
		size_t end = at + 1;
		while (end < n && items[end].key != UAPI_PUBLIC_KEY)
			end++;
		r = apply_peer(device, items + at, end - at, now);
		at = end;
	}
	return r;
}

/* get */

static size_t room_for(const struct wg_device *device)
{
	size_t size = UAPI_DEVICE_TEXT_LEN + UAPI_RESULT_TEXT_LEN;
	struct wg_prefix prefix;

	for (struct wg_peer *p = wg_device_first_peer(device); p; p = wg_peer_next(p)) {
		struct wg_prefix_cursor cursor = { 0 };
		size += UAPI_PEER_TEXT_LEN;
		while (wg_peer_next_prefix(p, &cursor, &prefix))
			size += UAPI_ALLOWED_IP_TEXT_LEN;
	}
	return size;
}

static void describe_peer(struct wire_writer *w, const struct wg_peer *peer, struct wg_time now)
{
	const struct wg_route *route = wg_peer_route(peer);
	struct wg_prefix_cursor cursor = { 0 };
	struct wg_prefix prefix;
	struct wg_stats stats;

	wg_peer_get_stats(peer, now, &stats);
	struct uapi_peer text = {
		.public_key = *wg_peer_key(peer),
		.last_handshake_s = stats.last_handshake_real_ns / 1000000000,
		.last_handshake_ns = (uint32_t)(stats.last_handshake_real_ns % 1000000000),
		.tx_bytes = stats.tx_bytes,
		.rx_bytes = stats.rx_bytes,
		.keepalive_s = wg_peer_keepalive(peer),
	};
	wg_peer_get_psk(peer, text.preshared_key);
	if (route->n > 0 && route->paths[0].relay_id == 0)
		text.endpoint = route->paths[0].remote;
	uapi_put_peer(w, &text);
	sodium_memzero(&text, sizeof(text));

	while (wg_peer_next_prefix(peer, &cursor, &prefix)) {
		struct uapi_allowed_ip allowed_ip = {
			.is_v4 = prefix.family == AF_INET,
			.prefix_len = prefix.len,
		};
		memcpy(allowed_ip.ip, prefix.ip, sizeof(allowed_ip.ip));
		uapi_put_allowed_ip(w, &allowed_ip);
	}
}

char *uapi_describe(const struct wg_device *device, uint16_t listen_port, uint32_t fwmark,
		    struct wg_time now, size_t *ret_len)
{
	struct uapi_device text = { .listen_port = listen_port, .fwmark = fwmark };
	size_t room = room_for(device);
	char *answer = malloc(room);
	if (!answer)
		abort();

	struct wire_writer w = wire_writer(answer, room);
	wg_device_get_private_key(device, &text.private_key);
	uapi_put_device(&w, &text);
	secret_key_wipe(&text.private_key);
	for (struct wg_peer *p = wg_device_first_peer(device); p; p = wg_peer_next(p))
		describe_peer(&w, p, now);
	uapi_put_result(&w, 0);
	*ret_len = wire_written(&w);
	assert(*ret_len > 0);
	return answer;
}
