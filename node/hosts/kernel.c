/*
 * The kernel's WireGuard, by netlink. Made with embeddable-wg-library (LGPL-2.1 or later), compiled from
 * where Debian's wireguard-tools installs it; a static library of its own, used only here.
 */
#include "node/hosts/control.h"

#include "node/wireguard/link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wireguard.h>

struct wireguard_control {
	char interface[IFNAMSIZ];
};

static const char *remedy(int error)
{
	switch (error) {
	case -EOPNOTSUPP:
	case -EPROTONOSUPPORT:
		return "; it has no WireGuard: load it (modprobe wireguard; it is part of Debian's kernels), or set "
		       "wireguard = in-process in [node]";
	case -EPERM:
		return " (CAP_NET_ADMIN is needed)";
	case -ENODEV:
		return "; somebody has deleted it";
	default:
		return "";
	}
}

static int kernel_error(struct error *reterr, int error, const char *interface, const char *what)
{
	return error_set(reterr, error, "kernel WireGuard: cannot %s interface %s: %s%s", what, interface,
			 strerror(-error), remedy(error));
}

/* One that an earlier run of ours has left. */
static bool is_ours(const wg_device *device, const struct secret_key *key)
{
	return !(device->flags & WGDEVICE_HAS_PRIVATE_KEY) || wg_key_is_zero(device->private_key) ||
	       memcmp(device->private_key, key->bytes, KEY_LEN) == 0;
}

static void free_device(wg_device *device)
{
	explicit_bzero(device->private_key, sizeof(device->private_key));
	wg_free_device(device);
}

/* What a crash has left is removed; an interface of somebody else's is not touched. */
static int remove_stale(const char *interface, const struct secret_key *key, struct error *reterr)
{
	struct link_info link;
	wg_device *device;
	int r = link_find(interface, &link, reterr);

	if (r != 0)
		return r == -ENODEV ? 0 : r;
	r = wg_get_device(&device, interface);
	if (r != 0)
		return error_set(reterr, -EEXIST,
				 "interface %s exists and is not the kernel's WireGuard; end the program it belongs "
				 "to or delete it (ip link del %s), or choose another name: interface = … in [node]",
				 interface, interface);
	bool ours = is_ours(device, key);
	free_device(device);
	if (!ours)
		return error_set(reterr, -EEXIST,
				 "interface %s exists and has another key than this node; choose another name: "
				 "interface = … in [node]",
				 interface);
	r = wg_del_device(interface);
	return r == 0 ? 0 : kernel_error(reterr, r, interface, "delete");
}

static int set_key(const char *interface, const struct secret_key *key)
{
	wg_device device = { .flags = WGDEVICE_HAS_PRIVATE_KEY | WGDEVICE_REPLACE_PEERS };

	snprintf(device.name, sizeof(device.name), "%s", interface);
	memcpy(device.private_key, key->bytes, KEY_LEN);
	int r = wg_set_device(&device);
	explicit_bzero(device.private_key, sizeof(device.private_key));
	return r;
}

static int kernel_open(const char *interface, const struct secret_key *key, struct wireguard_control **ret,
		       int *ret_ifindex, struct error *reterr)
{
	struct link_info link;
	int r = remove_stale(interface, key, reterr);

	if (r != 0)
		return r;
	if ((r = wg_add_device(interface)) != 0)
		return kernel_error(reterr, r, interface, "create");
	r = set_key(interface, key);
	if (r != 0)
		kernel_error(reterr, r, interface, "set up");
	else
		r = link_find(interface, &link, reterr);
	if (r != 0) {
		wg_del_device(interface);
		return r;
	}
	struct wireguard_control *control = calloc(1, sizeof(*control));
	if (!control)
		abort();
	snprintf(control->interface, sizeof(control->interface), "%s", interface);
	*ret_ifindex = link.ifindex;
	*ret = control;
	return 0;
}

/* ---- peers ---- */

/* A peer as the library wants it, with its two addresses. */
struct peer_record {
	wg_peer peer;
	wg_allowedip ips[2];
};

static void set_allowed_ips(struct peer_record *record, const struct wireguard_setting *setting)
{
	record->ips[0] = (wg_allowedip){ .family = AF_INET, .ip4 = setting->ip4, .cidr = 32 };
	record->ips[1] = (wg_allowedip){ .family = AF_INET6, .ip6 = setting->ip6, .cidr = 128 };
	record->ips[0].next_allowedip = &record->ips[1];
	record->peer.first_allowedip = &record->ips[0];
	record->peer.last_allowedip = &record->ips[1];
}

static void fill_record(struct peer_record *record, const struct wireguard_setting *setting)
{
	wg_peer *peer = &record->peer;
	unsigned flags = WGPEER_HAS_PUBLIC_KEY;

	memcpy(peer->public_key, setting->key.bytes, KEY_LEN);
	if (setting->remove) {
		flags |= WGPEER_REMOVE_ME;
	} else {
		if (setting->is_new) {
			flags |= WGPEER_REPLACE_ALLOWEDIPS;
			set_allowed_ips(record, setting);
		}
		if (!endpoint_is_none(&setting->endpoint)) {
			struct sockaddr_storage name;
			socklen_t len = endpoint_to_sockaddr(&setting->endpoint, &name);
			memcpy(&peer->endpoint, &name, len);
		}
		if (setting->keepalive_s >= 0) {
			flags |= WGPEER_HAS_PERSISTENT_KEEPALIVE_INTERVAL;
			peer->persistent_keepalive_interval = (uint16_t)setting->keepalive_s;
		}
	}
	peer->flags = (enum wg_peer_flags)flags;
}

static int kernel_configure(struct wireguard_control *control, const struct wireguard_setting *settings, size_t n,
			    struct error *reterr)
{
	wg_device device = { 0 };

	if (n == 0)
		return 0;
	struct peer_record *records = calloc(n, sizeof(*records));
	if (!records)
		abort();
	snprintf(device.name, sizeof(device.name), "%s", control->interface);
	for (size_t i = 0; i < n; i++) {
		fill_record(&records[i], &settings[i]);
		if (i > 0)
			records[i - 1].peer.next_peer = &records[i].peer;
	}
	device.first_peer = &records[0].peer;
	device.last_peer = &records[n - 1].peer;
	int r = wg_set_device(&device);
	free(records);
	return r == 0 ? 0 : kernel_error(reterr, r, control->interface, "set peers of");
}

static int kernel_read(struct wireguard_control *control, struct wireguard_readings *ret, struct error *reterr)
{
	wg_device *device;
	wg_peer *peer;
	int r = wg_get_device(&device, control->interface);

	if (r != 0)
		return kernel_error(reterr, r, control->interface, "read");
	ret->port = device->listen_port;
	wg_for_each_peer(device, peer)
	{
		struct wireguard_reading *reading = wireguard_readings_add(ret);
		memcpy(reading->key.bytes, peer->public_key, KEY_LEN);
		if (peer->endpoint.addr.sa_family != 0)
			reading->endpoint = endpoint_from_sockaddr(&peer->endpoint.addr);
		reading->last_handshake_real_ns = (uint64_t)peer->last_handshake_time.tv_sec * 1000000000 +
						  (uint64_t)peer->last_handshake_time.tv_nsec;
		reading->rx_bytes = peer->rx_bytes;
		reading->tx_bytes = peer->tx_bytes;
	}
	free_device(device);
	return 0;
}

static void kernel_close(struct wireguard_control *control)
{
	(void)wg_del_device(control->interface); /* that it is gone already is as good */
	free(control);
}

const struct wireguard_control_class wireguard_kernel_control = {
	.open = kernel_open,
	.configure = kernel_configure,
	.read = kernel_read,
	.close = kernel_close,
};
