/*
 * A witness of the order in which TCP segments pass a network interface.
 *
 *   order record INTERFACE FILE    writes down each segment with data; prints "recording"; on SIGTERM how many,
 *                                  and how many it has missed
 *   order compare SENT RECEIVED    what left where SENT was recorded, and came where RECEIVED was: how many
 *                                  segments were compared, and how many came after one that was sent later
 *
 * A segment is known by its flow, sequence number, length, acknowledgement and time stamps: one that is sent
 * again has others. Those that are not the only ones of their kind say nothing. Superpackets are taken apart.
 * (What TCP itself counts as reordered is no witness: who misses an acknowledgement hears late of what was in
 * time.)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SLOT_SIZE   256u /* of the ring: the kernel's headers, ours, and TCP's */
#define N_SLOTS	    (1u << 17)
#define BLOCK_SIZE  (1u << 17)
#define IP6_LEN	    40u
#define TCP_MIN_LEN 20u
#define MAX_FLOWS   4096u

struct record {
	uint64_t key;
	uint32_t flow;
	uint32_t is_outgoing;
};

static volatile sig_atomic_t is_over;

static void on_term(int number)
{
	is_over = 1;
}

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "order: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15;
	return hash ^ hash >> 29;
}

static uint64_t mix_bytes(uint64_t hash, const uint8_t *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hash = mix(hash, bytes[i]);
	return hash;
}

static uint32_t get16(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] << 8 | bytes[1];
}

static uint32_t get32(const uint8_t *bytes)
{
	return get16(bytes) << 16 | get16(bytes + 2);
}

/* ---- a packet as it was seen ---- */

struct segment {
	uint32_t flow, seq, ack, len; /* of data */
	uint64_t times;		      /* TCP's two time stamps; 0: none */
};

static uint64_t find_times(const uint8_t *tcp, size_t len)
{
	for (size_t at = TCP_MIN_LEN; at < len && tcp[at] != 0;) {
		if (tcp[at] == 1) {
			at++;
			continue;
		}
		if (at + 1 >= len || tcp[at + 1] < 2 || at + tcp[at + 1] > len)
			break;
		if (tcp[at] == 8 && tcp[at + 1] == 10)
			return (uint64_t)get32(tcp + at + 2) << 32 | get32(tcp + at + 6);
		at += tcp[at + 1];
	}
	return 0;
}

/* The first n bytes of an IP packet. False: not TCP, a fragment, or nothing but headers. */
static bool parse(const uint8_t *ip, size_t n, struct segment *ret)
{
	const bool is_v6 = n >= IP6_LEN && ip[0] >> 4 == 6;
	const bool is_v4 = n >= 20 && ip[0] >> 4 == 4;

	if (!is_v6 && !is_v4)
		return false;
	const size_t ip_len = is_v6 ? IP6_LEN : (ip[0] & 15u) * 4u;
	const size_t total = is_v6 ? IP6_LEN + get16(ip + 4) : get16(ip + 2);
	const uint8_t *tcp = ip + ip_len;
	if ((is_v6 ? ip[6] : ip[9]) != IPPROTO_TCP || (is_v4 && get16(ip + 6) & 0x3fff) || n < ip_len + TCP_MIN_LEN)
		return false;
	const size_t tcp_len = (tcp[12] >> 4) * 4u;
	if (n < ip_len + tcp_len || total <= ip_len + tcp_len)
		return false;
	const uint64_t addresses = is_v6 ? mix_bytes(1, ip + 8, 32) : mix_bytes(1, ip + 12, 8);
	*ret = (struct segment){ .flow = (uint32_t)mix_bytes(addresses, tcp, 4),
				 .seq = get32(tcp + 4),
				 .ack = get32(tcp + 8),
				 .len = (uint32_t)(total - ip_len - tcp_len),
				 .times = find_times(tcp, tcp_len) };
	return true;
}

static struct record record_of(const struct segment *segment, uint32_t from, uint32_t len, bool is_outgoing)
{
	uint64_t key = mix(mix(segment->times, segment->ack), segment->flow);

	return (struct record){ .key = mix(mix(key, segment->seq + from), len),
				.flow = segment->flow,
				.is_outgoing = is_outgoing };
}

/* ---- record ---- */

struct tap {
	int fd;
	uint8_t *ring;
	FILE *file;
	uint64_t n;
};

static void write_down(struct tap *tap, const struct segment *segment, uint32_t mss, bool is_outgoing)
{
	const uint32_t step = mss ? mss : segment->len;

	for (uint32_t from = 0; from < segment->len; from += step) {
		const uint32_t left = segment->len - from;
		const struct record record = record_of(segment, from, left < step ? left : step, is_outgoing);
		if (fwrite(&record, sizeof(record), 1, tap->file) != 1)
			fail("cannot write");
		tap->n++;
	}
}

static void take(struct tap *tap, const uint8_t *slot)
{
	const struct tpacket2_hdr *header = (const void *)slot;
	const struct sockaddr_ll *address = (const void *)(slot + TPACKET_ALIGN((int)sizeof(*header)));
	struct virtio_net_hdr super;
	struct segment segment;

	memcpy(&super, slot + header->tp_mac - sizeof(super), sizeof(super));
	if (parse(slot + header->tp_net, header->tp_snaplen - (header->tp_net - header->tp_mac), &segment))
		write_down(tap, &segment, super.gso_type == VIRTIO_NET_HDR_GSO_NONE ? 0 : super.gso_size,
			   address->sll_pkttype == PACKET_OUTGOING);
}

static void open_tap(struct tap *tap, const char *interface)
{
	const int version = TPACKET_V2, one = 1;
	const struct tpacket_req ring = { .tp_block_size = BLOCK_SIZE,
					  .tp_block_nr = N_SLOTS / (BLOCK_SIZE / SLOT_SIZE),
					  .tp_frame_size = SLOT_SIZE,
					  .tp_frame_nr = N_SLOTS };
	const struct sockaddr_ll address = { .sll_family = AF_PACKET,
					     .sll_protocol = htons(ETH_P_ALL),
					     .sll_ifindex = (int)if_nametoindex(interface) };

	tap->fd = socket(AF_PACKET, SOCK_RAW, 0);
	if (tap->fd < 0 || setsockopt(tap->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) != 0 ||
	    setsockopt(tap->fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)) != 0 ||
	    setsockopt(tap->fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)) != 0)
		fail("cannot make a ring");
	tap->ring = mmap(NULL, (size_t)SLOT_SIZE * N_SLOTS, PROT_READ | PROT_WRITE, MAP_SHARED, tap->fd, 0);
	if (tap->ring == MAP_FAILED || bind(tap->fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
		fail(interface);
}

/* What is there; false: nothing was. */
static bool drain(struct tap *tap, uint32_t *next)
{
	bool had_any = false;

	for (;;) {
		uint8_t *slot = tap->ring + (size_t)SLOT_SIZE * *next;
		struct tpacket2_hdr *header = (void *)slot;
		if (!(__atomic_load_n(&header->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
			return had_any;
		take(tap, slot);
		__atomic_store_n(&header->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		*next = (*next + 1) % N_SLOTS;
		had_any = true;
	}
}

static int record(const char *interface, const char *path)
{
	struct tap tap = { .file = fopen(path, "wb") };
	struct tpacket_stats stats = { 0 };
	socklen_t len = sizeof(stats);
	uint32_t next = 0;

	if (!tap.file)
		fail(path);
	open_tap(&tap, interface);
	puts("recording");
	fflush(stdout);
	struct pollfd readable = { .fd = tap.fd, .events = POLLIN };
	while (!is_over) {
		if (!drain(&tap, &next))
			poll(&readable, 1, 100);
	}
	drain(&tap, &next);
	if (getsockopt(tap.fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len) != 0 || fclose(tap.file) != 0)
		fail(path);
	printf("{\"segments\": %llu, \"missed\": %u}\n", (unsigned long long)tap.n, stats.tp_drops);
	return 0;
}

/* ---- compare ---- */

struct recording {
	const struct record *records;
	size_t n;
};

static struct recording load(const char *path)
{
	FILE *file = fopen(path, "rb");
	struct stat status;

	if (!file || fstat(fileno(file), &status) != 0)
		fail(path);
	const size_t n = (size_t)status.st_size / sizeof(struct record);
	struct record *records = malloc(n * sizeof(*records) + 1);
	if (!records || fread(records, sizeof(*records), n, file) != n)
		fail(path);
	fclose(file);
	return (struct recording){ records, n };
}

/* Where a segment was among those sent; UINT32_MAX: in more than one place. */
struct place {
	uint64_t key; /* 0: free */
	uint32_t number;
};

struct table {
	struct place *places;
	size_t mask;
};

/* Its place, or the free one where it belongs. */
static struct place *find(const struct table *table, uint64_t key)
{
	size_t at = key & table->mask;

	while (table->places[at].key != 0 && table->places[at].key != key)
		at = (at + 1) & table->mask;
	return &table->places[at];
}

static struct table new_table(size_t n)
{
	size_t size = 1024;

	while (size < 2 * n)
		size *= 2;
	const struct table table = { .places = calloc(size, sizeof(struct place)), .mask = size - 1 };
	if (!table.places)
		fail("no memory");
	return table;
}

static int compare(const char *sent_path, const char *received_path)
{
	const struct recording sent = load(sent_path), received = load(received_path);
	const struct table numbers = new_table(sent.n), newest = new_table(MAX_FLOWS);
	uint64_t n_compared = 0, n_late = 0;

	for (size_t i = 0; i < sent.n; i++) {
		if (!sent.records[i].is_outgoing)
			continue;
		struct place *place = find(&numbers, sent.records[i].key);
		place->number = place->key == 0 ? (uint32_t)i : UINT32_MAX;
		place->key = sent.records[i].key;
	}
	for (size_t i = 0; i < received.n; i++) {
		const struct record *record = &received.records[i];
		const struct place *place = find(&numbers, record->key);
		if (record->is_outgoing || place->key == 0 || place->number == UINT32_MAX)
			continue;
		struct place *before = find(&newest, record->flow + 1ull);
		before->key = record->flow + 1ull;
		n_compared++;
		if (place->number < before->number)
			n_late++;
		else
			before->number = place->number;
	}
	printf("{\"compared\": %llu, \"late\": %llu}\n", (unsigned long long)n_compared,
	       (unsigned long long)n_late);
	return 0;
}

int main(int argc, char *argv[])
{
	signal(SIGTERM, on_term);
	if (argc == 4 && strcmp(argv[1], "record") == 0)
		return record(argv[2], argv[3]);
	if (argc == 4 && strcmp(argv[1], "compare") == 0)
		return compare(argv[2], argv[3]);
	fputs("usage: order record INTERFACE FILE | order compare SENT RECEIVED\n", stderr);
	return 2;
}
