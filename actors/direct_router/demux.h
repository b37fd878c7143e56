/*
 * What kind of datagram is this? Decided by its first eight bytes alone, before anything is parsed.
 *
 *   WireGuard  byte 0 is 1 … 4, bytes 1 … 3 are zero
 *   session    magic D2 70 32 70
 *   relay      D2 70 72 and a type: of a relay over UDP (docs/PROTOCOL-relay.md)
 *   STUN       first two bits 00, magic cookie 21 12 A4 42 at byte 4 (RFC 8489, section 5)
 *
 * WireGuard goes first: a STUN message that looks like it would have the reserved method 0.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define DEMUX_SESSION_MAGIC 0xd2703270u
#define DEMUX_STUN_COOKIE   0x2112a442u
#define DEMUX_RELAY_MAGIC   0xd27072u /* and a byte that says which type */

enum demux_kind {
	DEMUX_UNKNOWN, /* counted and dropped */
	DEMUX_WIREGUARD,
	DEMUX_SESSION,
	DEMUX_STUN,
	DEMUX_RELAY,
	DEMUX_N_KINDS,
};

enum demux_kind demux_datagram(const void *bytes, size_t len);
const char *demux_kind_name(enum demux_kind kind);
