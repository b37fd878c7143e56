#include "tests/lib/nat/nat_packet.h"

#include <netinet/in.h>
#include <string.h>

#define IP_LEN	  20u
#define UDP_LEN	  8u
#define TCP_LEN	  20u
#define ICMP_LEN  8u
#define MORE	  0x2000u
#define OFFSET	  0x1fffu
#define INNER_LEN 8u /* as much of what an error is about is always there */

enum { ECHO_REPLY = 0, UNREACHABLE = 3, ECHO_REQUEST = 8, TIME_EXCEEDED = 11, BAD_PARAMETER = 12 };

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* One 16-bit word of what is summed has changed (RFC 1624). */
static void correct(uint8_t *checksum, uint16_t was, uint16_t is)
{
	const uint32_t sum = (uint16_t)~get16(checksum) + (uint32_t)(uint16_t)~was + is;

	put16(checksum, (uint16_t)~fold(sum));
}

static bool is_error_type(uint8_t type)
{
	return type == UNREACHABLE || type == TIME_EXCEEDED || type == BAD_PARAMETER;
}

static bool read_protocol(struct nat_header *h, uint8_t number, size_t enough_udp, size_t enough_tcp)
{
	switch (number) {
	case IPPROTO_UDP:
		h->protocol = NAT_UDP;
		return h->transport_len >= enough_udp;
	case IPPROTO_TCP:
		h->protocol = NAT_TCP;
		return h->transport_len >= enough_tcp;
	case IPPROTO_ICMP:
		h->protocol = NAT_ICMP;
		return h->transport_len >= ICMP_LEN;
	default:
		return false;
	}
}

static void read_endpoints(struct nat_header *h)
{
	uint16_t source = 0, destination = 0;

	if (h->protocol != NAT_ICMP) {
		source = get16(h->transport);
		destination = get16(h->transport + 2);
	} else if (h->transport[0] == ECHO_REQUEST) {
		source = get16(h->transport + 4);
	} else if (h->transport[0] == ECHO_REPLY) {
		destination = get16(h->transport + 4);
	}
	h->source = endpoint_from_v4(get32(h->ip + 12), source);
	h->destination = endpoint_from_v4(get32(h->ip + 16), destination);
}

/* is_inner: only its beginning is there. */
static bool read_header(uint8_t *bytes, size_t len, bool is_inner, struct nat_header *ret)
{
	size_t header_len, total_len;

	if (len < IP_LEN || bytes[0] >> 4 != 4)
		return false;
	header_len = (bytes[0] & 15u) * 4u;
	total_len = is_inner ? len : get16(bytes + 2);
	if (header_len < IP_LEN || total_len < header_len || total_len > len)
		return false;
	if ((get16(bytes + 6) & OFFSET) != 0)
		return false;
	*ret = (struct nat_header){ .ip = bytes,
				    .transport = bytes + header_len,
				    .transport_len = total_len - header_len };
	if (!read_protocol(ret, bytes[9], is_inner ? INNER_LEN : UDP_LEN, is_inner ? INNER_LEN : TCP_LEN))
		return false;
	read_endpoints(ret);
	return true;
}

bool nat_packet_read(uint8_t *bytes, size_t len, struct nat_packet *ret)
{
	const uint8_t *type;

	memset(ret, 0, sizeof(*ret));
	if (!read_header(bytes, len, false, &ret->outer))
		return false;
	ret->len = (size_t)(ret->outer.transport - bytes) + ret->outer.transport_len;
	if (ret->outer.protocol != NAT_ICMP)
		return true;
	type = ret->outer.transport;
	ret->is_error = is_error_type(*type);
	if (!ret->is_error)
		return *type == ECHO_REQUEST || *type == ECHO_REPLY;
	return read_header(ret->outer.transport + ICMP_LEN, ret->outer.transport_len - ICMP_LEN, true,
			   &ret->inner);
}

/* ---- changes ---- */

static uint8_t *checksum_of(const struct nat_header *h)
{
	uint8_t *udp = h->transport + 6, *tcp = h->transport + 16;

	switch (h->protocol) {
	case NAT_UDP: /* 0: it has none */
		return get16(udp) == 0 ? NULL : udp;
	case NAT_TCP: /* not there, when it is only a beginning */
		return h->transport_len < TCP_LEN ? NULL : tcp;
	default:
		return h->transport + 2;
	}
}

static void set_word(const struct nat_header *h, uint8_t *word, uint16_t value, bool is_address)
{
	uint8_t *checksum = checksum_of(h);
	const uint16_t was = get16(word);

	put16(word, value);
	if (is_address)
		correct(h->ip + 10, was, value);
	if (!checksum || (is_address && h->protocol == NAT_ICMP))
		return;
	correct(checksum, was, value);
	if (h->protocol == NAT_UDP && get16(checksum) == 0)
		put16(checksum, 0xffff);
}

static void set_address(const struct nat_header *h, size_t at, const struct endpoint *endpoint)
{
	set_word(h, h->ip + at, get16(endpoint->ip + 12), true);
	set_word(h, h->ip + at + 2, get16(endpoint->ip + 14), true);
}

static void set_source(const struct nat_header *h, const struct endpoint *source)
{
	set_address(h, 12, source);
	if (h->protocol != NAT_ICMP)
		set_word(h, h->transport, source->port, false);
	else if (h->transport[0] == ECHO_REQUEST)
		set_word(h, h->transport + 4, source->port, false);
}

static void set_destination(const struct nat_header *h, const struct endpoint *destination)
{
	set_address(h, 16, destination);
	if (h->protocol != NAT_ICMP)
		set_word(h, h->transport + 2, destination->port, false);
	else if (h->transport[0] == ECHO_REPLY)
		set_word(h, h->transport + 4, destination->port, false);
}

void nat_packet_set_source(struct nat_packet *packet, const struct endpoint *source)
{
	set_source(&packet->outer, source);
}

void nat_packet_set_destination(struct nat_packet *packet, const struct endpoint *destination)
{
	set_destination(&packet->outer, destination);
}

/* An error's checksum is over all that it carries. */
static void sum_error(struct nat_packet *packet)
{
	const struct nat_header *h = &packet->outer;
	uint32_t sum = 0;

	put16(h->transport + 2, 0);
	for (size_t i = 0; i + 1 < h->transport_len; i += 2)
		sum += get16(h->transport + i);
	if (h->transport_len % 2)
		sum += (uint32_t)h->transport[h->transport_len - 1] << 8;
	put16(h->transport + 2, (uint16_t)~fold(sum));
}

void nat_packet_set_inner_source(struct nat_packet *packet, const struct endpoint *inside)
{
	set_address(&packet->outer, 16, inside);
	set_source(&packet->inner, inside);
	sum_error(packet);
}

void nat_packet_set_inner_destination(struct nat_packet *packet, const struct endpoint *outside)
{
	set_address(&packet->outer, 12, outside);
	set_destination(&packet->inner, outside);
	sum_error(packet);
}

/* ---- fragments ---- */

bool nat_fragment_read(const uint8_t *bytes, size_t len, struct nat_fragment *ret)
{
	uint16_t place;

	if (len < IP_LEN || bytes[0] >> 4 != 4 || get16(bytes + 2) > len || get16(bytes + 2) < IP_LEN)
		return false;
	place = get16(bytes + 6);
	*ret = (struct nat_fragment){ .source = endpoint_from_v4(get32(bytes + 12), 0),
				      .destination = endpoint_from_v4(get32(bytes + 16), 0),
				      .id = get16(bytes + 4),
				      .protocol = bytes[9],
				      .is_first = (place & OFFSET) == 0,
				      .is_last = (place & MORE) == 0 };
	return !ret->is_first || !ret->is_last;
}

bool nat_fragment_is_of(const struct nat_fragment *a, const struct nat_fragment *b)
{
	return a->id == b->id && a->protocol == b->protocol && endpoint_equal(&a->source, &b->source) &&
	       endpoint_equal(&a->destination, &b->destination);
}

void nat_fragment_readdress(uint8_t *bytes, const struct nat_fragment *fragment)
{
	for (size_t i = 0; i < 4; i += 2) {
		const uint16_t source = get16(fragment->source.ip + 12 + i);
		const uint16_t destination = get16(fragment->destination.ip + 12 + i);

		correct(bytes + 10, get16(bytes + 12 + i), source);
		put16(bytes + 12 + i, source);
		correct(bytes + 10, get16(bytes + 16 + i), destination);
		put16(bytes + 16 + i, destination);
	}
}
