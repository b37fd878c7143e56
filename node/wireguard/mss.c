#include "node/wireguard/mss.h"

#define TCP_LEN	    20
#define OPTION_END  0
#define OPTION_NOP  1
#define OPTION_MSS  2
#define MSS_LEN	    4
#define TCP_OFFSET  12
#define TCP_SUM	    16

static uint32_t read_u16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static void write_u16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* RFC 1624. A value that begins at an odd byte counts with its halves exchanged. */
static void replace(uint8_t *sum_at, uint8_t *at, bool is_odd, uint32_t value)
{
	uint32_t before = read_u16(at), after = value;

	if (is_odd) {
		before = (before & 0xff) << 8 | before >> 8;
		after = (after & 0xff) << 8 | after >> 8;
	}
	uint32_t sum = (~read_u16(sum_at) & 0xffff) + (~before & 0xffff) + after;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	write_u16(at, value);
	write_u16(sum_at, ~sum & 0xffff);
}

/* Where its value is, counted from the TCP header; 0: there is none. */
static size_t find_mss(const uint8_t *tcp, size_t len)
{
	size_t end = (size_t)(tcp[TCP_OFFSET] >> 4) * 4, at = TCP_LEN;

	if (end > len)
		end = len;
	while (at + 1 < end && tcp[at] != OPTION_END) {
		if (tcp[at] == OPTION_NOP) {
			at++;
			continue;
		}
		if (tcp[at] == OPTION_MSS)
			return tcp[at + 1] == MSS_LEN && at + MSS_LEN <= end ? at + 2 : 0;
		if (tcp[at + 1] < 2)
			return 0;
		at += tcp[at + 1];
	}
	return 0;
}

void mss_clamp(uint8_t *packet, size_t len, uint32_t mtu)
{
	const size_t ip_len = packet[0] >> 4 == 4 ? (size_t)(packet[0] & 0x0f) * 4 : 40;
	const uint32_t most = mtu - (packet[0] >> 4 == 4 ? 20 : 40) - TCP_LEN;
	uint8_t *tcp = packet + ip_len;
	const size_t at = find_mss(tcp, len - ip_len);

	if (at != 0 && read_u16(tcp + at) > most)
		replace(tcp + TCP_SUM, tcp + at, at % 2 != 0, most);
}
