#include "node/wireguard/offload.h"

#include <assert.h>
#include <netinet/in.h>
#include <string.h>

#define IP4_HEADER_LEN 20
#define IP6_HEADER_LEN 40
#define TCP_HEADER_LEN 20
#define UDP_HEADER_LEN 8

/* Offsets of the fields that are read or changed. */
#define IP4_LENGTH   2
#define IP4_ID	     4
#define IP4_FRAGMENT 6
#define IP4_TTL	     8
#define IP4_PROTOCOL 9
#define IP4_CSUM     10
#define IP4_SOURCE   12
#define IP6_LENGTH   4
#define IP6_NEXT     6
#define IP6_SOURCE   8
#define TCP_SEQUENCE 4
#define TCP_ACK	     8
#define TCP_OFFSET   12
#define TCP_FLAGS    13
#define TCP_WINDOW   14
#define TCP_CSUM     16
#define TCP_URGENT   18
#define UDP_LENGTH   4
#define UDP_CSUM     6

#define IP4_FRAGMENT_MASK 0x3fff /* "more fragments" and the offset */
#define IP4_DONT_FRAGMENT 0x4000
#define TCP_FIN		  0x01
#define TCP_PSH		  0x08
#define TCP_ACK_FLAG	  0x10
#define TCP_CWR		  0x80

static_assert(sizeof(struct offload_header) == OFFLOAD_HEADER_LEN, "as the kernel has it");
static_assert(OFFLOAD_MAX_HEADERS >= IP6_HEADER_LEN + 15 * 4, "the longest TCP header");

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put32(uint8_t *p, uint32_t value)
{
	put16(p, value >> 16);
	put16(p + 2, value);
}

/* sums */

uint64_t offload_sum(const void *bytes, size_t len, uint64_t sum)
{
	const uint8_t *p = bytes;
	uint64_t sums[4] = { sum, 0, 0, 0 };

	/* Four 32-bit words a step: compilers make vector code of it. */
	for (; len >= 16; p += 16, len -= 16) {
		uint32_t words[4];
		memcpy(words, p, sizeof(words));
		for (int i = 0; i < 4; i++)
			sums[i] += words[i];
	}
	for (; len >= 2; p += 2, len -= 2) {
		uint16_t word;
		memcpy(&word, p, sizeof(word));
		sums[0] += word;
	}
	if (len == 1) {
		uint16_t word = 0;
		memcpy(&word, p, 1);
		sums[1] += word;
	}
	return sums[0] + sums[1] + sums[2] + sums[3];
}

uint16_t offload_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

uint16_t offload_pseudo_sum(const uint8_t *ip, bool is_v4, uint8_t protocol, uint32_t l4_len)
{
	uint8_t tail[8] = { 0 };

	put32(tail, l4_len);
	tail[7] = protocol;
	uint64_t sum = offload_sum(tail, sizeof(tail), 0);
	if (is_v4)
		return offload_fold(offload_sum(ip + IP4_SOURCE, 8, sum));
	return offload_fold(offload_sum(ip + IP6_SOURCE, 32, sum));
}

static void put_sum(uint8_t *p, uint16_t sum)
{
	memcpy(p, &sum, sizeof(sum)); /* already in memory order */
}

static void set_ip4_checksum(uint8_t *ip, uint32_t header_len)
{
	put16(ip + IP4_CSUM, 0);
	put_sum(ip + IP4_CSUM, (uint16_t)~offload_fold(offload_sum(ip, header_len, 0)));
}

/* cutting */

static int complete_checksum(const struct offload_header *header, uint8_t *packet, size_t len)
{
	uint32_t at = (uint32_t)header->csum_start + header->csum_offset;

	if ((size_t)at + 2 > len || header->csum_start < IP4_HEADER_LEN)
		return OFFLOAD_E_MALFORMED;
	/* The field holds the pseudo-header's sum, so that summing from csum_start includes it. */
	uint64_t sum = offload_sum(packet + header->csum_start, len - header->csum_start, 0);
	uint16_t checksum = (uint16_t)~offload_fold(sum);
	if (checksum == 0 && header->csum_offset == UDP_CSUM)
		checksum = 0xffff; /* zero means "none" in UDP */
	put_sum(packet + at, checksum);
	return 0;
}

static uint32_t transport_header_len(const struct offload_cut *cut, size_t len)
{
	if (!cut->is_tcp)
		return UDP_HEADER_LEN;
	if (len < cut->csum_start + TCP_HEADER_LEN)
		return 0;
	uint32_t header_len = (uint32_t)(cut->packet[cut->csum_start + TCP_OFFSET] >> 4) * 4;
	return header_len < TCP_HEADER_LEN ? 0 : header_len;
}

/* A 16-bit number as it counts in a sum of memory. */
static uint32_t counted16(uint32_t value)
{
	return htons((uint16_t)value);
}

/*
 * Of the IPv4 header all but length and ID is the same in each packet; of the TCP header all but the
 * sequence number and the flags (with the header's length, which is in the same word); of the UDP
 * header all but the length.
 */
static void sum_constants(struct offload_cut *cut)
{
	const uint8_t *ip = cut->packet, *l4 = ip + cut->csum_start;
	uint32_t l4_len = cut->header_len - cut->csum_start;

	if (cut->is_v4) {
		uint64_t sum = offload_sum(ip, IP4_LENGTH, 0);
		sum = offload_sum(ip + IP4_FRAGMENT, IP4_CSUM - IP4_FRAGMENT, sum);
		cut->ip_sum = offload_fold(offload_sum(ip + IP4_SOURCE, cut->csum_start - IP4_SOURCE, sum));
	}
	uint64_t sum = offload_pseudo_sum(ip, cut->is_v4, cut->is_tcp ? IPPROTO_TCP : IPPROTO_UDP, 0);
	sum = offload_sum(l4, 4, sum); /* ports */
	if (cut->is_tcp) {
		sum = offload_sum(l4 + TCP_ACK, TCP_OFFSET - TCP_ACK, sum);
		sum = offload_sum(l4 + TCP_WINDOW, 2, sum);
		sum = offload_sum(l4 + TCP_URGENT, l4_len - TCP_URGENT, sum);
	}
	cut->l4_sum = offload_fold(sum);
}

/* Does the protocol that is to be cut begin where the header says? */
static bool is_transport_at(const struct offload_cut *cut)
{
	const uint8_t *packet = cut->packet, protocol = cut->is_tcp ? IPPROTO_TCP : IPPROTO_UDP;

	if (cut->is_v4)
		return (uint32_t)(packet[0] & 0x0f) * 4 == cut->csum_start && packet[IP4_PROTOCOL] == protocol &&
		       (get16(packet + IP4_FRAGMENT) & IP4_FRAGMENT_MASK) == 0;

	uint32_t at = IP6_HEADER_LEN;
	uint8_t next = packet[IP6_NEXT];
	while (at < cut->csum_start &&
	       (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS)) {
		/* The two bytes are within the packet: a transport header follows csum_start. */
		next = packet[at];
		at += (packet[at + 1] + 1u) * 8;
	}
	return at == cut->csum_start && next == protocol;
}

int offload_begin(const struct offload_header *header, uint8_t *packet, size_t len, struct offload_cut *ret,
		  bool *ret_is_super)
{
	uint8_t type = header->gso_type & (uint8_t)~OFFLOAD_GSO_ECN;

	*ret_is_super = type != OFFLOAD_GSO_NONE;
	if (len > OFFLOAD_MAX_PACKET)
		return OFFLOAD_E_MALFORMED;
	if (type == OFFLOAD_GSO_NONE)
		return header->flags & OFFLOAD_NEEDS_CSUM ? complete_checksum(header, packet, len) : 0;
	if (type != OFFLOAD_GSO_TCP4 && type != OFFLOAD_GSO_TCP6 && type != OFFLOAD_GSO_UDP)
		return OFFLOAD_E_UNSUPPORTED;
	if (len < IP4_HEADER_LEN || header->gso_size == 0)
		return OFFLOAD_E_MALFORMED;

	struct offload_cut cut = {
		.packet = packet,
		.csum_start = header->csum_start,
		.segment_len = header->gso_size,
		.is_v4 = packet[0] >> 4 == 4,
		.is_tcp = type != OFFLOAD_GSO_UDP,
		.copy_sum = copy_sum_best(),
	};
	if (cut.is_v4 ? type == OFFLOAD_GSO_TCP6 : type == OFFLOAD_GSO_TCP4 || packet[0] >> 4 != 6)
		return OFFLOAD_E_MALFORMED;
	if (cut.csum_start < (cut.is_v4 ? IP4_HEADER_LEN : IP6_HEADER_LEN) || cut.csum_start >= len)
		return OFFLOAD_E_MALFORMED;
	/* hdr_len is only a hint of the kernel; the headers themselves say where the payload begins. */
	uint32_t l4_len = transport_header_len(&cut, len);
	cut.header_len = cut.csum_start + l4_len;
	if (l4_len == 0 || cut.header_len >= len)
		return OFFLOAD_E_MALFORMED;
	if (!is_transport_at(&cut) || header->csum_offset != (cut.is_tcp ? TCP_CSUM : UDP_CSUM))
		return OFFLOAD_E_MALFORMED;
	cut.payload_len = (uint32_t)len - cut.header_len;
	sum_constants(&cut);
	*ret = cut;
	return 0;
}

uint32_t offload_packet_len(const struct offload_cut *cut)
{
	uint32_t payload = cut->payload_len < cut->segment_len ? cut->payload_len : cut->segment_len;

	return cut->header_len + payload;
}

static void adapt_ip(const struct offload_cut *cut, uint8_t *packet, uint32_t len)
{
	if (!cut->is_v4) {
		put16(packet + IP6_LENGTH, len - IP6_HEADER_LEN);
		return;
	}
	uint32_t id = get16(cut->packet + IP4_ID) + cut->n_cut;
	put16(packet + IP4_LENGTH, len);
	put16(packet + IP4_ID, id);
	put_sum(packet + IP4_CSUM, (uint16_t)~offload_fold(cut->ip_sum + counted16(len) + counted16(id)));
}

/* Headers of packet number cut->n_cut are a copy of the superpacket's: make them its own. sum: of the payload. */
static void adapt_headers(const struct offload_cut *cut, uint8_t *packet, uint32_t payload_len, uint64_t sum)
{
	uint8_t *l4 = packet + cut->csum_start;
	uint32_t l4_len = cut->header_len - cut->csum_start + payload_len;

	adapt_ip(cut, packet, cut->header_len + payload_len);
	sum += cut->l4_sum + counted16(l4_len);
	if (cut->is_tcp) {
		put32(l4 + TCP_SEQUENCE, get32(l4 + TCP_SEQUENCE) + cut->done);
		if (cut->done + payload_len < cut->payload_len)
			l4[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
		if (cut->n_cut > 0)
			l4[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
		sum = offload_sum(l4 + TCP_SEQUENCE, 4, offload_sum(l4 + TCP_OFFSET, 2, sum));
		put_sum(l4 + TCP_CSUM, (uint16_t)~offload_fold(sum));
		return;
	}
	put16(l4 + UDP_LENGTH, l4_len);
	uint16_t checksum = (uint16_t)~offload_fold(sum + counted16(l4_len));
	put_sum(l4 + UDP_CSUM, checksum ? checksum : 0xffff); /* zero means "none" */
}

bool offload_next(struct offload_cut *cut, uint8_t *out, uint32_t stride, uint32_t max_n, struct train *ret)
{
	struct train train = { .base = out, .stride = stride, .size = offload_packet_len(cut) };

	assert(stride >= train.size && max_n <= TRAIN_MAX);
	while (train.n < max_n && cut->done < cut->payload_len) {
		uint8_t *packet = out + (size_t)train.n * stride;
		uint32_t left = cut->payload_len - cut->done;
		uint32_t payload_len = left < cut->segment_len ? left : cut->segment_len;

		memcpy(packet, cut->packet, cut->header_len);
		uint64_t sum = cut->copy_sum(packet + cut->header_len,
					     cut->packet + cut->header_len + cut->done, payload_len);
		adapt_headers(cut, packet, payload_len, sum);
		train.last_size = cut->header_len + payload_len;
		cut->done += payload_len;
		cut->n_cut++;
		train.n++;
	}
	if (train.n == 1)
		train.size = train.last_size;
	*ret = train;
	return train.n > 0;
}

/* merging */

/* A packet that may be merged with others, taken apart. */
struct piece {
	uint8_t *packet;
	uint32_t size, l4_at, header_len, payload_len;
	bool is_v4, is_tcp;
};

static bool parse_ip(struct piece *piece)
{
	const uint8_t *p = piece->packet;
	uint8_t protocol;

	if (piece->size < IP4_HEADER_LEN)
		return false;
	piece->is_v4 = p[0] >> 4 == 4;
	if (piece->is_v4) {
		if (p[0] != 0x45 || get16(p + IP4_LENGTH) != piece->size ||
		    (get16(p + IP4_FRAGMENT) & IP4_FRAGMENT_MASK))
			return false;
		protocol = p[IP4_PROTOCOL];
		piece->l4_at = IP4_HEADER_LEN;
	} else {
		if (p[0] >> 4 != 6 || piece->size < IP6_HEADER_LEN ||
		    get16(p + IP6_LENGTH) + IP6_HEADER_LEN != (int)piece->size)
			return false;
		protocol = p[IP6_NEXT];
		piece->l4_at = IP6_HEADER_LEN;
	}
	piece->is_tcp = protocol == IPPROTO_TCP;
	return piece->is_tcp || protocol == IPPROTO_UDP;
}

static bool parse_transport(struct piece *piece)
{
	const uint8_t *l4 = piece->packet + piece->l4_at;
	uint32_t left = piece->size - piece->l4_at;
	uint32_t l4_header_len = UDP_HEADER_LEN;

	if (left < UDP_HEADER_LEN)
		return false;
	if (piece->is_tcp) {
		if (left < TCP_HEADER_LEN)
			return false;
		l4_header_len = (uint32_t)(l4[TCP_OFFSET] >> 4) * 4;
		if (l4_header_len < TCP_HEADER_LEN || (l4[TCP_FLAGS] & ~TCP_PSH) != TCP_ACK_FLAG)
			return false;
	} else if (get16(l4 + UDP_LENGTH) != left || get16(l4 + UDP_CSUM) == 0) {
		return false;
	}
	if (left <= l4_header_len)
		return false; /* nothing in it */
	piece->header_len = piece->l4_at + l4_header_len;
	piece->payload_len = left - l4_header_len;
	return true;
}

static bool parse_piece(const struct train *packets, uint32_t i, unsigned kinds, struct piece *ret)
{
	*ret = (struct piece){ .packet = train_packet(packets, i), .size = train_size(packets, i) };
	return parse_ip(ret) && parse_transport(ret) &&
	       (kinds & (ret->is_tcp ? OFFLOAD_MERGE_TCP : OFFLOAD_MERGE_UDP));
}

static bool same(const struct piece *a, const struct piece *b, uint32_t at, uint32_t len)
{
	return memcmp(a->packet + at, b->packet + at, len) == 0;
}

static bool same_ip(const struct piece *first, const struct piece *next, uint32_t n)
{
	if (!first->is_v4) /* class and flow label, next header and hop limit, addresses */
		return same(first, next, 0, 4) && same(first, next, IP6_NEXT, 2 + 32);

	uint16_t id = (uint16_t)(get16(first->packet + IP4_ID) + n);
	bool is_whole = get16(first->packet + IP4_FRAGMENT) & IP4_DONT_FRAGMENT;
	return same(first, next, 0, 2) && same(first, next, IP4_FRAGMENT, 4) &&
	       same(first, next, IP4_SOURCE, 8) && (is_whole || get16(next->packet + IP4_ID) == id);
}

/* May next follow n packets that begin with first and hold payload bytes? */
static bool continues(const struct piece *first, const struct piece *next, uint32_t n, uint32_t payload)
{
	if (first->is_v4 != next->is_v4 || first->is_tcp != next->is_tcp ||
	    first->header_len != next->header_len || next->payload_len > first->payload_len ||
	    first->header_len + payload + next->payload_len > OFFLOAD_MAX_PACKET)
		return false;
	if (!same_ip(first, next, n) || !same(first, next, first->l4_at, 4)) /* ports */
		return false;
	if (!first->is_tcp)
		return true;

	const uint8_t *a = first->packet + first->l4_at, *b = next->packet + first->l4_at;
	uint32_t urgent_at = first->l4_at + TCP_URGENT;
	/* Length of the header and reserved bits are one byte; flags were looked at; options follow "urgent". */
	return get32(b + TCP_SEQUENCE) == get32(a + TCP_SEQUENCE) + payload &&
	       same(first, next, first->l4_at + TCP_ACK, TCP_FLAGS - TCP_ACK) &&
	       same(first, next, first->l4_at + TCP_WINDOW, 2) &&
	       same(first, next, urgent_at, first->header_len - urgent_at);
}

/* Nothing may come behind a shorter packet, and nothing behind a push. */
static bool ends_run(const struct piece *first, const struct piece *next)
{
	return next->payload_len < first->payload_len ||
	       (next->is_tcp && next->packet[next->l4_at + TCP_FLAGS] & TCP_PSH);
}

/* The first packet's headers become those of all payload bytes; the checksum only the pseudo sum. */
static void widen_headers(const struct piece *first, const struct piece *last, uint32_t payload)
{
	uint8_t *ip = first->packet, *l4 = ip + first->l4_at;
	uint32_t total = first->header_len + payload;
	uint32_t l4_len = total - first->l4_at;

	if (first->is_v4) {
		put16(ip + IP4_LENGTH, total);
		set_ip4_checksum(ip, IP4_HEADER_LEN);
	} else {
		put16(ip + IP6_LENGTH, total - IP6_HEADER_LEN);
	}
	if (first->is_tcp)
		l4[TCP_FLAGS] |= last->packet[first->l4_at + TCP_FLAGS] & TCP_PSH;
	else
		put16(l4 + UDP_LENGTH, l4_len);

	uint8_t protocol = first->is_tcp ? IPPROTO_TCP : IPPROTO_UDP;
	put_sum(l4 + (first->is_tcp ? TCP_CSUM : UDP_CSUM),
		offload_pseudo_sum(ip, first->is_v4, protocol, l4_len));
}

static struct offload_header merged_header(const struct piece *first)
{
	uint8_t tcp = first->is_v4 ? OFFLOAD_GSO_TCP4 : OFFLOAD_GSO_TCP6;

	return (struct offload_header){
		.flags = OFFLOAD_NEEDS_CSUM,
		.gso_type = first->is_tcp ? tcp : OFFLOAD_GSO_UDP,
		.hdr_len = (uint16_t)first->header_len,
		.gso_size = (uint16_t)first->payload_len,
		.csum_start = (uint16_t)first->l4_at,
		.csum_offset = first->is_tcp ? TCP_CSUM : UDP_CSUM,
	};
}

uint32_t offload_merge(const struct train *packets, uint32_t first_at, unsigned kinds,
		       struct offload_run *ret)
{
	struct piece first, last, next;
	uint32_t n = 1;

	memset(&ret->header, 0, sizeof(ret->header));
	ret->pieces[0] = (struct iovec){ &ret->header, sizeof(ret->header) };
	ret->pieces[1] = (struct iovec){ train_packet(packets, first_at), train_size(packets, first_at) };
	ret->n_pieces = 2;
	if (!parse_piece(packets, first_at, kinds, &first))
		return 1;

	uint32_t payload = first.payload_len;
	last = first;
	while (first_at + n < packets->n && !ends_run(&first, &last) &&
	       parse_piece(packets, first_at + n, kinds, &next) && continues(&first, &next, n, payload)) {
		ret->pieces[ret->n_pieces++] =
			(struct iovec){ next.packet + next.header_len, next.payload_len };
		payload += next.payload_len;
		last = next;
		n++;
	}
	if (n > 1) {
		memcpy(ret->headers_before, first.packet, first.header_len);
		widen_headers(&first, &last, payload);
		ret->header = merged_header(&first);
	}
	return n;
}

void offload_undo_merge(const struct offload_run *run)
{
	if (run->header.gso_type != OFFLOAD_GSO_NONE)
		memcpy(run->pieces[1].iov_base, run->headers_before, run->header.hdr_len);
}
