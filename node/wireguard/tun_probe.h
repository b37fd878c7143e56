/*
 * Two tiny packets that may be merged, of which the second is shorter, as kernels have refused that.
 * Written to a TUN they do no harm wherever they come out: from and to the loopback address, which no
 * other interface may receive, and with no hop left. Pure.
 */
#pragma once

#include "node/wireguard/train.h"

#include <stdbool.h>
#include <stdint.h>

#define TUN_PROBE_LEN 144 /* twice: the longest headers (40 + 20) and 8 bytes, rounded up */

/* The packets, made in bytes. */
struct train tun_probe_packets(bool is_v4, bool is_tcp, uint8_t bytes[TUN_PROBE_LEN]);
