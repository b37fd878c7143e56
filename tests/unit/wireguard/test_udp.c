/*
 * Trains over real sockets on loopback: whatever the kernel joins or splits on the way, the same
 * datagrams arrive in order, with source, destination and DS field.
 */
#include "node/wireguard/udp.h"

#include <assert.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_LEN 65536

struct pair {
	struct udp *from, *to;
	struct udp_inbox *inbox;
	struct wg_path path; /* to the receiver */
};

static void begin(struct pair *pair, const char *ip, struct udp_options options)
{
	memset(pair, 0, sizeof(*pair));
	assert(udp_open(&options, &pair->from, NULL) == 0);
	assert(udp_open(&options, &pair->to, NULL) == 0);
	assert(endpoint_parse_ip(ip, pair->to->port, &pair->path.remote) == 0);
	pair->inbox = calloc(1, sizeof(*pair->inbox));
	assert(pair->inbox);
}

static void end(struct pair *pair)
{
	udp_free(pair->from);
	udp_free(pair->to);
	free(pair->inbox);
}

static enum udp_family family_of(const struct pair *pair)
{
	return endpoint_is_v4(&pair->path.remote) ? UDP_V4 : UDP_V6;
}

/* Receives until there are n datagrams; checks each against the train's packets, in order. */
static void expect(struct pair *pair, const struct train *sent)
{
	enum udp_family family = family_of(pair);
	struct pollfd readable = { .fd = udp_fd(pair->to, 0, family), .events = POLLIN };
	uint32_t n = 0;

	while (n < sent->n) {
		assert(poll(&readable, 1, 10000) == 1);
		int messages = udp_receive(pair->to, 0, family, pair->inbox);
		assert(messages >= 0);
		for (int m = 0; m < messages; m++) {
			struct train train;
			while (udp_message_next(&pair->inbox->messages[m], &train)) {
				assert(train.ds == sent->ds);
				for (uint32_t i = 0; i < train.n; i++, n++) {
					assert(n < sent->n && train_size(&train, i) == train_size(sent, n));
					assert(memcmp(train_packet(&train, i), train_packet(sent, n),
						      train_size(sent, n)) == 0);
				}
			}
		}
	}
}

static struct train make_train(uint8_t *bytes, uint32_t n, uint32_t size, uint32_t last_size, uint32_t gap)
{
	struct train train = { .base = bytes, .n = n, .stride = size + gap, .size = size, .last_size = last_size };

	for (uint32_t i = 0; i < n; i++)
		memset(train_packet(&train, i), (int)(i + 1), train_size(&train, i));
	return train;
}

static void check(struct pair *pair, const struct train *train)
{
	uint32_t sent = 0;

	assert(udp_send(pair->from, 0, &pair->path, train, &sent) == 0 && sent == train->n);
	expect(pair, train);
}

static void check_all_shapes(const char *ip, struct udp_options options)
{
	static uint8_t bytes[TRAIN_MAX * (9000 + 7)];
	static const uint32_t sizes[] = { 1, 32, 100, 1452, 8972 };
	struct pair pair;
	begin(&pair, ip, options);

	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		for (uint32_t n = 1; n <= TRAIN_MAX; n += 9) {
			struct train full = make_train(bytes, n, sizes[s], sizes[s], 0);
			check(&pair, &full);
			struct train shorter = make_train(bytes, n, sizes[s], (sizes[s] + 1) / 2, 0);
			if (n == 1)
				shorter.size = shorter.last_size;
			check(&pair, &shorter);
			struct train gaps = make_train(bytes, n, sizes[s], sizes[s], 7);
			check(&pair, &gaps);
		}
	}
	end(&pair);
}

static void test_trains_of_all_shapes_arrive(void)
{
	check_all_shapes("127.0.0.1", (struct udp_options){ 0 });
	check_all_shapes("::1", (struct udp_options){ 0 });
}

static void test_without_offloads_the_same_arrives(void)
{
	static const char *const ips[] = { "127.0.0.1", "::1" };
	struct offloads no_gso = { .switches.off[OFFLOAD_UDP_GSO] = true };
	struct offloads no_gro = { .switches.off[OFFLOAD_UDP_GRO] = true };
	struct offloads neither = { .switches.off = { true, true, true, true } };

	for (int i = 0; i < 2; i++) {
		check_all_shapes(ips[i], (struct udp_options){ .offloads = &no_gso });
		check_all_shapes(ips[i], (struct udp_options){ .offloads = &no_gro });
		check_all_shapes(ips[i], (struct udp_options){ .offloads = &neither });
	}
	assert(no_gso.gauges[OFFLOAD_UDP_GSO].n_used == 0 && no_gso.gauges[OFFLOAD_UDP_GSO].n_fell_back > 0);
	assert(no_gso.gauges[OFFLOAD_UDP_GRO].n_used == 0); /* what left singly arrives singly on loopback */
	assert(no_gro.gauges[OFFLOAD_UDP_GSO].n_used > 0 && no_gro.gauges[OFFLOAD_UDP_GSO].n_fell_back == 0);
	assert(no_gro.gauges[OFFLOAD_UDP_GRO].n_used == 0);
	assert(neither.gauges[OFFLOAD_UDP_GSO].n_used == 0 && neither.gauges[OFFLOAD_UDP_GRO].n_used == 0);
}

/* through a relay */

static const uint8_t relay_header[WG_RELAY_HEADER_LEN] = { 0xd2, 0x70, 0x72, 11, 0, 0, 0, 5, 0, 0, 0, 6, 1, 2, 3, 4 };

static void relay(struct pair *pair)
{
	pair->path.relay_id = 7;
	memcpy(pair->path.relay_header, relay_header, sizeof(relay_header));
}

/* The datagrams as they are on the wire. */
static struct train with_headers(uint8_t *bytes, const struct train *train)
{
	struct train wire = { .base = bytes,
			      .n = train->n,
			      .stride = train->size + WG_RELAY_HEADER_LEN,
			      .size = train->size + WG_RELAY_HEADER_LEN,
			      .last_size = train->last_size + WG_RELAY_HEADER_LEN };

	for (uint32_t i = 0; i < train->n; i++) {
		memcpy(train_packet(&wire, i), relay_header, WG_RELAY_HEADER_LEN);
		memcpy(train_packet(&wire, i) + WG_RELAY_HEADER_LEN, train_packet(train, i), train_size(train, i));
	}
	return wire;
}

static void check_relayed(struct pair *pair, const struct train *train)
{
	static uint8_t wire_bytes[TRAIN_MAX * 9000];
	const struct train wire = with_headers(wire_bytes, train);
	uint32_t sent = 0;

	assert(udp_send(pair->from, 0, &pair->path, train, &sent) == 0 && sent == train->n);
	expect(pair, &wire);
}

static void check_relayed_shapes(const char *ip, struct udp_options options)
{
	static uint8_t bytes[TRAIN_MAX * (8900 + 7)];
	static const uint32_t sizes[] = { 1, 32, 1024, 1452, 8900 };
	struct pair pair;
	begin(&pair, ip, options);

	relay(&pair);
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		for (uint32_t n = 1; n <= TRAIN_MAX; n += 9) {
			const struct train full = make_train(bytes, n, sizes[s], sizes[s], 0);
			check_relayed(&pair, &full);
			const uint32_t last = n == 1 ? sizes[s] : (sizes[s] + 1) / 2;
			const struct train gaps = make_train(bytes, n, sizes[s], last, 7);
			check_relayed(&pair, &gaps);
		}
	}
	end(&pair);
}

static void test_through_a_relay_each_datagram_begins_with_the_header(void)
{
	struct offloads none = { .switches.off = { true, true, true, true } };

	check_relayed_shapes("127.0.0.1", (struct udp_options){ 0 });
	check_relayed_shapes("::1", (struct udp_options){ 0 });
	check_relayed_shapes("127.0.0.1", (struct udp_options){ .offloads = &none });
}

static void test_a_datagram_to_a_relay_is_not_marked_as_one_that_may_be_marked(void)
{
	static uint8_t bytes[2 * 100], wire_bytes[2 * 200];
	struct pair pair;
	begin(&pair, "127.0.0.1", (struct udp_options){ 0 });

	relay(&pair);
	struct train train = make_train(bytes, 2, 100, 100, 0);
	struct train wire = with_headers(wire_bytes, &train);
	train.ds = WG_DS_HANDSHAKE | 2; /* ECT(0) */
	wire.ds = WG_DS_HANDSHAKE;
	uint32_t sent = 0;
	assert(udp_send(pair.from, 0, &pair.path, &train, &sent) == 0 && sent == 2);
	expect(&pair, &wire);
	end(&pair);
}

/* 63 of 1024 bytes fit into one UDP_SEGMENT; with headers they do not, and leave as two trains. */
static void test_the_header_counts_for_how_long_a_train_may_be(void)
{
	static uint8_t bytes[UDP_TRAIN_MAX * 1024];
	struct offloads offloads = { 0 };
	struct pair pair;
	begin(&pair, "127.0.0.1", (struct udp_options){ .offloads = &offloads });

	relay(&pair);
	const struct train train = make_train(bytes, UDP_TRAIN_MAX, 1024, 1024, 0);
	check_relayed(&pair, &train);
	assert(offloads.gauges[OFFLOAD_UDP_GSO].n_refused == 0 && offloads.gauges[OFFLOAD_UDP_GSO].n_used > 0);
	assert(pair.from->counters.n_lost == 0);
	end(&pair);
}

static void test_the_ds_field_travels_and_the_source_is_told(void)
{
	static const char *const ips[] = { "127.0.0.1", "::1" };
	uint8_t bytes[300];

	for (int i = 0; i < 2; i++) {
		struct pair pair;
		begin(&pair, ips[i], (struct udp_options){ 0 });
		struct train train = make_train(bytes, 3, 100, 100, 0);
		train.ds = WG_DS_HANDSHAKE | 2;
		check(&pair, &train);

		struct endpoint expected;
		const struct wg_path *from = &pair.inbox->messages[0].from;
		assert(endpoint_parse_ip(ips[i], pair.from->port, &expected) == 0);
		assert(endpoint_equal(&from->remote, &expected));
		assert(memcmp(from->local_ip, pair.path.remote.ip, 16) == 0);
		end(&pair);
	}
}

static void test_a_source_is_kept_and_given_up_when_it_is_gone(void)
{
	uint8_t bytes[100];
	struct endpoint source;
	struct pair pair;
	begin(&pair, "127.0.0.1", (struct udp_options){ 0 });
	struct train train = make_train(bytes, 1, 100, 100, 0);

	assert(endpoint_parse_ip("127.0.0.77", 0, &source) == 0);
	memcpy(pair.path.local_ip, source.ip, 16);
	check(&pair, &train);
	assert(pair.inbox->messages[0].from.remote.ip[15] == 77);
	assert(pair.from->counters.n_source_gone == 0);

	assert(endpoint_parse_ip("192.0.2.77", 0, &source) == 0);
	memcpy(pair.path.local_ip, source.ip, 16);
	check(&pair, &train);
	assert(pair.inbox->messages[0].from.remote.ip[15] == 1);
	assert(pair.from->counters.n_source_gone == 1);
	end(&pair);
}

#define NO_INTERFACE 0x7ffffff0

static void test_a_source_is_given_up_when_its_interface_is_gone(void)
{
	static const char *const ips[] = { "127.0.0.1", "::1" };
	uint8_t bytes[100];

	for (int i = 0; i < 2; i++) {
		struct pair pair;
		begin(&pair, ips[i], (struct udp_options){ 0 });
		struct train train = make_train(bytes, 1, 100, 100, 0);

		memcpy(pair.path.local_ip, pair.path.remote.ip, 16);
		pair.path.ifindex = NO_INTERFACE;
		check(&pair, &train);
		assert(pair.from->counters.n_source_gone == 1);
		pair.path.ifindex = if_nametoindex("lo");
		check(&pair, &train);
		assert(pair.from->counters.n_source_gone == 1);
		end(&pair);
	}
}

static void test_answers_leave_where_the_route_of_their_source_leads(void)
{
	static const char *const ips[] = { "127.0.0.1", "::1" };

	for (int i = 0; i < 2; i++) {
		struct endpoint other;
		struct pair pair;
		begin(&pair, ips[i], (struct udp_options){ 0 });
		const uint32_t lo = if_nametoindex("lo");

		memcpy(pair.path.local_ip, pair.path.remote.ip, 16);
		pair.path.ifindex = lo;
		udp_fit_source(pair.from, &pair.path);
		assert(pair.path.ifindex == lo && memcmp(pair.path.local_ip, pair.path.remote.ip, 16) == 0);
		pair.path.ifindex = NO_INTERFACE; /* from here to here: by no interface, but from that address */
		udp_fit_source(pair.from, &pair.path);
		assert(pair.path.ifindex == 0 && memcmp(pair.path.local_ip, pair.path.remote.ip, 16) == 0);
		pair.path.ifindex = lo;
		assert(endpoint_parse_ip("192.0.2.77", 0, &other) == 0); /* not ours; IPv6 says so only when sending */
		memcpy(pair.path.local_ip, other.ip, 16);
		udp_fit_source(pair.from, &pair.path);
		assert(wg_path_has_source(&pair.path) == (i == 1));
		end(&pair);
	}
}

static void test_both_families_share_a_port_and_a_taken_port_is_told(void)
{
	struct udp *first, *second;
	struct error error;

	assert(udp_open(&(struct udp_options){ 0 }, &first, &error) == 0);
	assert(first->port != 0 && udp_fd(first, 0, UDP_V4) >= 0 && udp_fd(first, 0, UDP_V6) >= 0);
	const struct udp_options same = { .port = first->port };
	assert(udp_open(&same, &second, &error) == -EADDRINUSE && strstr(error.message, "UDP port"));
	const struct udp_options another = { .port = first->port, .any_port_if_taken = true };
	assert(udp_open(&another, &second, &error) == 0 && second->port != first->port);
	udp_free(first);
	udp_free(second);
}

static void test_what_cannot_be_sent_is_counted(void)
{
	static uint8_t bytes[MAX_LEN];
	struct pair pair;
	begin(&pair, "127.0.0.1", (struct udp_options){ 0 });
	struct train huge = make_train(bytes, 1, 65530, 65530, 0);
	uint32_t sent = 9;

	assert(udp_send(pair.from, 0, &pair.path, &huge, &sent) == -EMSGSIZE && sent == 0);
	assert(pair.from->counters.n_lost == 1);
	end(&pair);
}

static void test_a_message_of_many_datagrams_is_several_trains(void)
{
	static uint8_t bytes[200 * 10 + 3];
	struct udp_message message = { .at = bytes, .left = sizeof(bytes), .datagram_len = 10 };
	uint32_t n = 0, n_bytes = 0;
	struct train train;

	while (udp_message_next(&message, &train)) {
		assert(train.n <= TRAIN_MAX && train.base == bytes + n_bytes);
		n += train.n;
		n_bytes += (uint32_t)train_bytes(&train);
	}
	assert(n == 201 && n_bytes == sizeof(bytes) && train_size(&train, 0) == 10);

	struct udp_message empty = { .at = bytes };
	assert(!udp_message_next(&empty, &train));
}

/* shards */

#define N_SHARDS 3 /* no power of two: all four bytes of the index count */

static void begin_sharded(struct pair *pair, const char *ip)
{
	memset(pair, 0, sizeof(*pair));
	assert(udp_open(&(struct udp_options){ 0 }, &pair->from, NULL) == 0);
	assert(udp_open(&(struct udp_options){ .n_shards = N_SHARDS }, &pair->to, NULL) == 0);
	assert(endpoint_parse_ip(ip, pair->to->port, &pair->path.remote) == 0);
	pair->inbox = calloc(1, sizeof(*pair->inbox));
	assert(pair->inbox);
}

/* The only shard where something has arrived; *ret_n datagrams of it. */
static uint32_t shard_reached(struct pair *pair, uint32_t *ret_n)
{
	struct pollfd fds[N_SHARDS];
	uint32_t reached = N_SHARDS;
	struct train train;

	for (uint32_t i = 0; i < N_SHARDS; i++)
		fds[i] = (struct pollfd){ .fd = udp_fd(pair->to, i, family_of(pair)), .events = POLLIN };
	assert(poll(fds, N_SHARDS, 10000) == 1);
	for (uint32_t i = 0; i < N_SHARDS; i++)
		if (fds[i].revents)
			reached = i;
	*ret_n = 0;
	int n = udp_receive(pair->to, reached, family_of(pair), pair->inbox);
	for (int m = 0; m < n; m++)
		while (udp_message_next(&pair->inbox->messages[m], &train))
			*ret_n += train.n;
	return reached;
}

static void expect_in_shard(struct pair *pair, const struct train *train, uint32_t shard)
{
	uint32_t sent, n;

	assert(udp_send(pair->from, 0, &pair->path, train, &sent) == 0 && sent == train->n);
	assert(shard_reached(pair, &n) == shard);
	if (n < train->n) /* not joined: the rest is behind it, in the same shard */
		assert(udp_receive(pair->to, shard, family_of(pair), pair->inbox) > 0);
}

/* n equal messages of this type that name this index where the type has it. */
static struct train messages_of(uint8_t *bytes, uint32_t n, uint32_t size, uint8_t type, uint32_t index)
{
	struct train train = make_train(bytes, n, size, size, 0);
	uint32_t at = type == 2 ? 8 : 4;

	for (uint32_t i = 0; i < n; i++) {
		uint8_t *message = train_packet(&train, i);
		memset(message, 0xee, size);
		memcpy(message, (uint8_t[4]){ type }, 4);
		for (uint32_t k = 0; k < 4 && at + k < size; k++)
			message[at + k] = (uint8_t)(index >> 8 * k);
	}
	return train;
}

static const uint32_t indices[] = { 0, 1, 2, 3, 255, 256, 0x01000000, 0x12345678, 0x80000000, 0xfffffffe, UINT32_MAX };

static void test_what_names_a_session_arrives_in_its_shard(void)
{
	static const char *const ips[] = { "127.0.0.1", "::1" };
	static uint8_t bytes[TRAIN_MAX * 1452];
	static const struct {
		uint8_t type;
		uint32_t n, size;
	} kinds[] = { { 4, 1, 32 }, { 4, 1, 1452 }, { 4, 45, 1452 }, { 4, 60, 32 }, { 3, 1, 64 }, { 2, 1, 92 } };

	for (int v = 0; v < 2; v++) {
		struct pair pair;
		begin_sharded(&pair, ips[v]);
		for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
			for (size_t i = 0; i < ARRAY_LEN(indices); i++) {
				struct train train = messages_of(bytes, kinds[k].n, kinds[k].size,
								 kinds[k].type, indices[i]);
				expect_in_shard(&pair, &train, indices[i] % N_SHARDS);
			}
		}
		end(&pair);
	}
}

static void test_relayed_data_arrives_in_its_sessions_shard(void)
{
	static const char *const ips[] = { "127.0.0.1", "::1" };
	static uint8_t bytes[TRAIN_MAX * 1452];

	for (int v = 0; v < 2; v++) {
		struct pair pair;
		begin_sharded(&pair, ips[v]);
		relay(&pair);
		for (size_t i = 0; i < ARRAY_LEN(indices); i++) {
			for (uint32_t n = 1; n < 44; n += 42) {
				const struct train data = messages_of(bytes, n, 1452, 4, indices[i]);
				expect_in_shard(&pair, &data, indices[i] % N_SHARDS);
			}
			/* all else is for the loop to look at */
			const struct train response = messages_of(bytes, 1, 92, 2, indices[i]);
			expect_in_shard(&pair, &response, 0);
			for (uint32_t size = 1; size < 8; size++) {
				const struct train tiny = messages_of(bytes, 1, size, 4, 1);
				expect_in_shard(&pair, &tiny, 0);
			}
			pair.path.relay_header[3] = 10; /* a pong */
			const struct train no_data = messages_of(bytes, 1, 32, 4, indices[i]);
			expect_in_shard(&pair, &no_data, 0);
			pair.path.relay_header[3] = 11;
		}
		end(&pair);
	}
}

static void test_everything_else_arrives_in_the_first_shard(void)
{
	static const char *const ips[] = { "127.0.0.1", "::1" };
	uint8_t bytes[200];

	for (int v = 0; v < 2; v++) {
		struct pair pair;
		begin_sharded(&pair, ips[v]);
		for (size_t i = 0; i < ARRAY_LEN(indices); i++) {
			struct train initiation = messages_of(bytes, 1, 148, 1, indices[i]);
			expect_in_shard(&pair, &initiation, 0);
			struct train other = messages_of(bytes, 1, 148, 5, indices[i]);
			expect_in_shard(&pair, &other, 0);
			bytes[0] = 4, bytes[3] = 1; /* reserved bytes that are not zero */
			expect_in_shard(&pair, &other, 0);
			for (uint32_t size = 1; size < 8; size++) {
				struct train tiny = messages_of(bytes, 1, size, 4, 1);
				expect_in_shard(&pair, &tiny, 0);
			}
			struct train no_response = messages_of(bytes, 1, 11, 2, 1);
			expect_in_shard(&pair, &no_response, 0);
		}
		end(&pair);
	}
}

static void test_a_sharded_port_is_taken(void)
{
	struct udp *first, *second;
	struct error error;

	assert(udp_open(&(struct udp_options){ .n_shards = UDP_MAX_SHARDS }, &first, &error) == 0);
	for (uint32_t n = 1; n <= 2; n++) {
		const struct udp_options same = { .port = first->port, .n_shards = n };
		assert(udp_open(&same, &second, &error) == -EADDRINUSE);
	}
	uint16_t port = first->port;
	udp_free(first);
	const struct udp_options again = { .port = port, .n_shards = 2 };
	assert(udp_open(&again, &second, &error) == 0 && second->port == port);
	udp_free(second);
}

/* A socket that wants to share the port with whoever has it; -1 when refused. */
static int join(uint16_t port)
{
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	assert(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){ 1 }, sizeof(int)) == 0);
	if (bind(fd, (const void *)&any, sizeof(any)) == 0)
		return fd;
	assert(errno == EADDRINUSE);
	close(fd);
	return -1;
}

static void test_nobody_gets_what_is_ours_by_joining(void)
{
	uint8_t bytes[200];
	struct pair pair;
	begin(&pair, "127.0.0.1", (struct udp_options){ 0 });

	assert(join(pair.to->port) < 0); /* a port that is not sharded */
	end(&pair);
	begin_sharded(&pair, "127.0.0.1");
	if (geteuid() == 0) {
		assert(seteuid(65534) == 0);
		assert(join(pair.to->port) < 0); /* another user */
		assert(seteuid(0) == 0);
	}
	int joined = join(pair.to->port); /* the same user may, and is never chosen */
	for (uint32_t i = 0; i < 50; i++) {
		struct train train = messages_of(bytes, 1, 32, 4, i);
		expect_in_shard(&pair, &train, i % N_SHARDS);
	}
	assert(joined >= 0 && recv(joined, bytes, sizeof(bytes), MSG_DONTWAIT) == -1);
	close(joined);
	end(&pair);
}

int main(void)
{
	test_what_names_a_session_arrives_in_its_shard();
	test_relayed_data_arrives_in_its_sessions_shard();
	test_everything_else_arrives_in_the_first_shard();
	test_a_sharded_port_is_taken();
	test_nobody_gets_what_is_ours_by_joining();
	test_a_message_of_many_datagrams_is_several_trains();
	test_trains_of_all_shapes_arrive();
	test_without_offloads_the_same_arrives();
	test_through_a_relay_each_datagram_begins_with_the_header();
	test_a_datagram_to_a_relay_is_not_marked_as_one_that_may_be_marked();
	test_the_header_counts_for_how_long_a_train_may_be();
	test_the_ds_field_travels_and_the_source_is_told();
	test_a_source_is_kept_and_given_up_when_it_is_gone();
	test_a_source_is_given_up_when_its_interface_is_gone();
	test_answers_leave_where_the_route_of_their_source_leads();
	test_both_families_share_a_port_and_a_taken_port_is_told();
	test_what_cannot_be_sent_is_counted();
	puts("ok");
	return 0;
}
