/*
 * The MSS option of TCP's SYN, made no larger than fits into a path: both ends of a connection then send segments
 * that need no cutting, whatever they know of the path. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No SYN without data is longer: 60 bytes of IPv4 or 40 of IPv6, and 60 of TCP. */
#define MSS_MAX_SYN 120

/* IPv4 (a first or only fragment) or IPv6 without extension headers, TCP, and SYN set? Total. */
static inline bool mss_is_syn(const uint8_t *packet, size_t len)
{
	size_t tcp = 40;

	if (len >= 40 && packet[0] >> 4 == 4) {
		tcp = (size_t)(packet[0] & 0x0f) * 4;
		if (packet[9] != 6 || (packet[6] & 0x1f) != 0 || packet[7] != 0)
			return false;
	} else if (len < 60 || packet[0] >> 4 != 6 || packet[6] != 6) {
		return false;
	}
	return tcp >= 20 && tcp + 20 <= len && (packet[tcp + 13] & 0x02) != 0;
}

/* Of a packet that mss_is_syn(): if it has the option and names more than fits into mtu, both that and the checksum. */
void mss_clamp(uint8_t *packet, size_t len, uint32_t mtu);
