/*
 * What WireGuard's configuration protocol says, done to a device; and a device told in its words.
 * Pure: on the thread that owns the device. The device's port and mark are its owner's business.
 */
#pragma once

#include "node/wireguard/device.h"
#include "node/wireguard/uapi_wire.h"

#include <stddef.h>

/*
 * Carries out a checked set request; listen_port and fwmark are skipped. A peer with our own key is
 * ignored, as wireguard tools expect. 0 or -errno (memory); what came before the failure stays done.
 */
P2P_CHECK int uapi_apply(struct wg_device *device, const struct uapi_item *items, size_t n,
			 struct wg_time now);
/*
 * The whole answer to a get request, "errno=0" included. Holds secrets: the caller wipes *ret_len
 * bytes and frees them. Aborts when out of memory.
 */
char *uapi_describe(const struct wg_device *device, uint16_t listen_port, uint32_t fwmark,
		    struct wg_time now, size_t *ret_len);
