/*
 * Frames of the relay protocol (docs/PROTOCOL-relay.md#frames): what is written is what is read, in
 * pieces of any size; and the queue in front of a connection, which drops the oldest packet.
 */
#include "common/relay_queue.h"
#include "common/relay_wire.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static const struct public_key key = { { 1, 2, 3, [31] = 9 } };

static void test_each_frame_is_byte_for_byte_as_documented(void)
{
	static const struct {
		struct relay_frame frame;
		uint8_t bytes[48];
		size_t len;
	} cases[] = {
		{ { .type = RELAY_HELLO, .hello = { 1, 20 } }, { 1, 0, 0, 2, 1, 20 }, 6 },
		{ { .type = RELAY_SEND, .packet = { { { 7 } }, (const uint8_t *)"abc", 3 } },
		  { 2, 0, 0, 35, 7, [36] = 'a', 'b', 'c' }, 39 },
		{ { .type = RELAY_RECV, .packet = { { { 7 } }, (const uint8_t *)"a", 1 } },
		  { 3, 0, 0, 33, 7, [36] = 'a' }, 37 },
		{ { .type = RELAY_PEER_GONE, .peer_gone = { { { 7 } }, RELAY_GONE_LEFT } },
		  { 4, 0, 0, 33, 7, [36] = 2 }, 37 },
		{ { .type = RELAY_PING, .ping = 0x0102030405060708 }, { 5, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8 }, 12 },
		{ { .type = RELAY_PONG, .ping = 9 }, { 6, 0, 0, 8, [11] = 9 }, 12 },
		{ { .type = RELAY_CLOSING, .closing = { RELAY_CLOSING_RESTART, 500 } },
		  { 7, 0, 0, 5, 1, 0, 0, 1, 0xf4 }, 9 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint8_t buf[64];
		EXPECT(relay_encode(buf, sizeof(buf), &cases[i].frame) == cases[i].len);
		EXPECT(memcmp(buf, cases[i].bytes, cases[i].len) == 0);
		EXPECT(relay_encode(buf, cases[i].len - 1, &cases[i].frame) == 0);
	}
}

static size_t put(uint8_t *buf, size_t cap, enum relay_frame_type type, const uint8_t *bytes, size_t len)
{
	return relay_encode(buf, cap, &(struct relay_frame){ .type = type, .packet = { key, bytes, len } });
}

/* A stream of pings, packets of many lengths and unknown frames, cut into pieces of n bytes. */
static void read_in_pieces_of(const uint8_t *stream, size_t len, size_t n)
{
	struct relay_decoder decoder = { 0 };
	struct relay_frame frame;
	uint64_t n_pings = 0, n_packets = 0, n_unknown = 0;

	for (size_t at = 0; at < len; at += n) {
		relay_decoder_feed(&decoder, stream + at, len - at < n ? len - at : n);
		for (;;) {
			int r = relay_decoder_next(&decoder, &frame);
			if (r == RELAY_WIRE_MORE)
				break;
			n_unknown += r == RELAY_WIRE_UNKNOWN;
			if (r != 0)
				continue;
			if (frame.type == RELAY_PING) {
				EXPECT(frame.ping == n_pings);
				n_pings++;
				continue;
			}
			EXPECT(frame.type == RELAY_RECV && public_key_equal(&frame.packet.key, &key));
			EXPECT(frame.packet.len == 1 + n_packets * 97 && frame.packet.bytes[0] == n_packets);
			n_packets++;
		}
	}
	EXPECT(n_pings == 40 && n_packets == 40 && n_unknown == 40);
	EXPECT(!decoder.partial); /* at rest it holds nothing */
	relay_decoder_deinit(&decoder);
}

static void test_frames_are_found_however_the_stream_is_cut(void)
{
	static uint8_t stream[200000], packet[8192];
	size_t len = 0;

	for (unsigned i = 0; i < 40; i++) {
		packet[0] = (uint8_t)i;
		len += relay_encode(stream + len, sizeof(stream) - len,
				    &(struct relay_frame){ .type = RELAY_PING, .ping = i });
		len += put(stream + len, sizeof(stream) - len, RELAY_RECV, packet, 1 + i * 97);
		memcpy(stream + len, (uint8_t[]){ 99, 0, 0, 3, 'x', 'y', 'z' }, 7);
		len += 7;
	}
	for (size_t n = 1; n < 300; n++)
		read_in_pieces_of(stream, len, n);
	read_in_pieces_of(stream, len, 4096);
	read_in_pieces_of(stream, len, len);
}

static int decode_one(const void *bytes, size_t len, struct relay_frame *ret)
{
	struct relay_decoder decoder = { 0 };

	relay_decoder_feed(&decoder, bytes, len);
	int r = relay_decoder_next(&decoder, ret);
	relay_decoder_deinit(&decoder);
	return r;
}

static void test_the_largest_packet_fits_and_one_more_byte_does_not(void)
{
	static uint8_t packet[RELAY_MAX_PACKET + 1], buf[RELAY_MAX_FRAME + 1];
	struct relay_frame frame;

	EXPECT(put(buf, sizeof(buf), RELAY_SEND, packet, RELAY_MAX_PACKET) == RELAY_MAX_FRAME);
	EXPECT(decode_one(buf, RELAY_MAX_FRAME, &frame) == 0 && frame.packet.len == RELAY_MAX_PACKET);
	EXPECT(put(buf, sizeof(buf), RELAY_SEND, packet, RELAY_MAX_PACKET + 1) == 0);
	EXPECT(put(buf, sizeof(buf), RELAY_SEND, packet, 0) == 0);
}

static void test_a_frame_that_is_too_long_ends_the_stream(void)
{
	struct relay_decoder decoder = { 0 };
	struct relay_frame frame;
	const uint8_t too_long[] = { 2, 1, 0, 0 }, ping[] = { 5, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8 };

	relay_decoder_feed(&decoder, too_long, sizeof(too_long));
	EXPECT(relay_decoder_next(&decoder, &frame) == RELAY_WIRE_TOO_LONG);
	relay_decoder_feed(&decoder, ping, sizeof(ping));
	EXPECT(relay_decoder_next(&decoder, &frame) == RELAY_WIRE_TOO_LONG);
	relay_decoder_deinit(&decoder);
}

static void test_malformed_and_unknown_frames_are_skipped(void)
{
	const uint8_t stream[] = { 5, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, /* ping of 7 bytes */
				   0, 0, 0, 0,			    /* type 0 */
				   200, 0, 0, 1, 'x',		    /* of a later version */
				   2, 0, 0, 3, 1, 2, 3,		    /* send, too short for a key */
				   1, 0, 0, 3, 1, 20, 77 };	    /* hello with a later version's byte */
	struct relay_decoder decoder = { 0 };
	struct relay_frame frame;

	relay_decoder_feed(&decoder, stream, sizeof(stream));
	EXPECT(relay_decoder_next(&decoder, &frame) == RELAY_WIRE_MALFORMED);
	EXPECT(relay_decoder_next(&decoder, &frame) == RELAY_WIRE_UNKNOWN);
	EXPECT(relay_decoder_next(&decoder, &frame) == RELAY_WIRE_UNKNOWN);
	EXPECT(relay_decoder_next(&decoder, &frame) == RELAY_WIRE_MALFORMED);
	EXPECT(relay_decoder_next(&decoder, &frame) == 0 && frame.hello.keep_alive_s == 20);
	EXPECT(relay_decoder_next(&decoder, &frame) == RELAY_WIRE_MORE);
	relay_decoder_deinit(&decoder);
}

/* the queue */

#define ROOM_OF_100 (RELAY_QUEUE_ITEM + RELAY_PACKET_HEAD + 100) /* what a packet of 100 bytes takes */

static void queue_packet_from(struct relay_queue *queue, uint8_t sender, uint8_t number, size_t len)
{
	struct public_key from = { { sender } };
	uint8_t bytes[2000] = { number };

	relay_queue_packet(queue, RELAY_RECV, &(struct relay_packet){ from, bytes, len });
}

static void queue_packet(struct relay_queue *queue, uint8_t number, size_t len)
{
	queue_packet_from(queue, 0, number, len);
}

/* Takes everything in pieces of n bytes and writes down the frames: "p7" a packet, "i" a ping. */
static void drain(struct relay_queue *queue, size_t n, char *ret)
{
	struct relay_decoder decoder = { 0 };
	struct relay_frame frame;
	uint8_t buf[4096];

	*ret = '\0';
	for (size_t got; (got = relay_queue_take(queue, buf, n)) > 0;) {
		relay_decoder_feed(&decoder, buf, got);
		while (relay_decoder_next(&decoder, &frame) == 0)
			ret += frame.type == RELAY_RECV ? sprintf(ret, "p%u ", frame.packet.bytes[0])
							: sprintf(ret, "i ");
	}
	EXPECT(relay_queue_is_empty(queue) && queue->n_bytes == 0 && queue->n_packets == 0);
	relay_decoder_deinit(&decoder);
}

static void test_a_full_queue_drops_its_oldest_packets(void)
{
	struct relay_queue queue;
	char seen[256];
	relay_queue_init(&queue, 3 * ROOM_OF_100);

	for (uint8_t i = 1; i <= 5; i++)
		queue_packet(&queue, i, 100);
	EXPECT(queue.n_dropped == 2 && queue.n_packets == 3);
	queue_packet(&queue, 6, 200); /* needs the room of two */
	drain(&queue, 4096, seen);
	EXPECT(strcmp(seen, "p5 p6 ") == 0);
	queue_packet(&queue, 7, 1000); /* larger than all */
	EXPECT(relay_queue_is_empty(&queue) && queue.n_dropped == 5);
	relay_queue_deinit(&queue);
}

static void test_a_queue_takes_no_more_memory_than_it_may(void)
{
	enum { MAX = 60000 };
	struct relay_queue_pool pool = { 0 };
	struct relay_queue queue;
	char seen[8192];
	relay_queue_init(&queue, MAX);
	queue.pool = &pool;

	for (unsigned i = 0; i < 2000; i++) /* the shortest of the pool, all of whose items are as long */
		queue_packet(&queue, 1, 1240);
	const size_t n_long = queue.n_packets;
	drain(&queue, 4096, seen);
	EXPECT(pool.n_items == n_long && n_long * malloc_usable_size(pool.items) <= MAX);
	EXPECT((n_long + 2) * malloc_usable_size(pool.items) > MAX); /* nor much less */

	for (unsigned i = 0; i < 2000; i++)
		queue_packet(&queue, 1, 1);
	EXPECT(queue.n_packets * (RELAY_QUEUE_ITEM + RELAY_PACKET_HEAD + 1) <= MAX);
	drain(&queue, 4096, seen);
	relay_queue_pool_deinit(&pool);
}

static void test_the_longest_packet_has_room_in_a_queue_of_its_own_length(void)
{
	struct relay_queue queue;
	char seen[8192];
	relay_queue_init(&queue, RELAY_PACKET_HEAD + 1900);

	queue_packet(&queue, 1, 100);
	queue_packet(&queue, 2, 1900);
	EXPECT(queue.n_dropped == 1);
	drain(&queue, 4096, seen);
	EXPECT(strcmp(seen, "p2 ") == 0);
}

static void test_a_pool_keeps_what_its_queues_free_and_no_more_than_it_may(void)
{
	struct relay_queue_pool pool = { 0 };
	struct relay_queue queues[100];
	char seen[8192];

	for (unsigned i = 0; i < ARRAY_LEN(queues); i++) {
		relay_queue_init(&queues[i], 1 << 20);
		queues[i].pool = &pool;
	}
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < ARRAY_LEN(queues); i++) {
			for (uint8_t k = 0; k < 12; k++)
				queue_packet(&queues[i], k, 1400);
			queue_packet(&queues[i], 12, 100); /* small ones and large ones are not of the pool */
			queue_packet(&queues[i], 13, 1900);
		}
		EXPECT(pool.n_items == 0 && pool.n_flows == 0);
		for (unsigned i = 0; i < ARRAY_LEN(queues) - 1; i++) {
			drain(&queues[i], 4096, seen);
			EXPECT(strlen(seen) > 0);
		}
		relay_queue_deinit(&queues[ARRAY_LEN(queues) - 1]);
		EXPECT(pool.n_items == 1024 && pool.n_flows == 64);
	}
	queue_packet(&queues[0], 1, 1400);
	EXPECT(pool.n_items == 1023 && pool.n_flows == 63);
	drain(&queues[0], 50, seen); /* in parts */
	EXPECT(strcmp(seen, "p1 ") == 0 && pool.n_items == 1024 && pool.n_flows == 64);
	relay_queue_pool_deinit(&pool);
	EXPECT(!pool.items && !pool.flows);
}

static void test_a_packet_that_has_begun_to_leave_is_not_dropped(void)
{
	struct relay_queue queue;
	struct relay_decoder decoder = { 0 };
	struct relay_frame frame;
	uint8_t buf[4096];
	relay_queue_init(&queue, 2 * ROOM_OF_100);

	queue_packet(&queue, 1, 100);
	queue_packet(&queue, 2, 100);
	size_t n = relay_queue_take(&queue, buf, 50);
	EXPECT(n == 50);
	queue_packet(&queue, 3, 100);
	queue_packet(&queue, 4, 100);
	n += relay_queue_take(&queue, buf + n, sizeof(buf) - n);

	relay_decoder_feed(&decoder, buf, n);
	EXPECT(relay_decoder_next(&decoder, &frame) == 0 && frame.packet.bytes[0] == 1);
	EXPECT(relay_decoder_next(&decoder, &frame) == 0 && frame.packet.bytes[0] == 3);
	EXPECT(relay_decoder_next(&decoder, &frame) == 0 && frame.packet.bytes[0] == 4);
	EXPECT(relay_decoder_next(&decoder, &frame) == RELAY_WIRE_MORE);
	EXPECT(queue.n_dropped == 1);
	relay_decoder_deinit(&decoder);
	relay_queue_deinit(&queue);
}

static void test_each_sender_has_its_turn(void)
{
	struct relay_queue queue;
	char seen[256];
	relay_queue_init(&queue, 100000);

	for (uint8_t i = 1; i <= 4; i++)
		queue_packet_from(&queue, 'a', i, 1500);
	for (uint8_t i = 11; i <= 14; i++)
		queue_packet_from(&queue, 'b', i, 400);
	queue_packet_from(&queue, 'c', 21, 1500);
	drain(&queue, 4096, seen);
	EXPECT(strcmp(seen, "p1 p11 p12 p13 p14 p21 p2 p3 p4 ") == 0);
}

static void test_who_sends_too_fast_pushes_out_its_own_packets_only(void)
{
	struct relay_queue queue;
	char seen[256];
	relay_queue_init(&queue, 10 * ROOM_OF_100);

	queue_packet_from(&queue, 'a', 1, 100);
	for (uint8_t i = 11; i <= 110; i++)
		queue_packet_from(&queue, 'b', i, 100);
	for (uint8_t i = 2; i <= 3; i++)
		queue_packet_from(&queue, 'a', i, 100);
	EXPECT(queue.n_packets == 10 && queue.n_dropped == 93);
	drain(&queue, RELAY_PACKET_HEAD + 100, seen);
	EXPECT(strstr(seen, "p1 ") && strstr(seen, "p2 ") && strstr(seen, "p3 ") && strstr(seen, "p110 "));
}

static void test_what_is_taken_at_once_are_whole_frames(void)
{
	struct relay_queue queue;
	struct relay_decoder decoder = { 0 };
	struct relay_frame frame;
	uint8_t buf[4096];
	relay_queue_init(&queue, 100000);

	for (uint8_t i = 1; i <= 30; i++)
		queue_packet_from(&queue, i % 3, i, 1000);
	EXPECT(relay_queue_frame(&queue, &(struct relay_frame){ .type = RELAY_PING }));
	for (size_t n; (n = relay_queue_take(&queue, buf, sizeof(buf))) > 0;) {
		relay_decoder_feed(&decoder, buf, n);
		while (relay_decoder_next(&decoder, &frame) == 0)
			;
		EXPECT(decoder.n_partial == 0 && n > sizeof(buf) - 2 * 1036);
	}
	EXPECT(relay_queue_is_empty(&queue));
	relay_decoder_deinit(&decoder);
}

static void test_how_long_packets_waited_is_counted_by_the_owners_clock(void)
{
	struct relay_queue queue;
	char seen[256];
	relay_queue_init(&queue, 10000);

	queue.now_ms = UINT32_MAX - 5ull; /* also where 32 bits end */
	queue_packet(&queue, 1, 100);
	queue.now_ms += 10;
	queue_packet(&queue, 2, 100);
	queue.now_ms += 20;
	drain(&queue, 4096, seen);
	EXPECT(queue.waited_ms == 50 && queue.longest_ms == 30);
	relay_queue_deinit(&queue);
}

/* Whatever comes and goes: each sender's packets leave in their order, and every packet leaves or is counted. */
static void test_order_and_counts_hold_for_any_senders_and_lengths(void)
{
	struct relay_queue queue;
	struct relay_decoder decoder = { 0 };
	struct relay_frame frame;
	uint32_t last[256] = { 0 }, n_put = 0, n_taken = 0;
	uint8_t buf[3000], bytes[5000] = { 0 };
	relay_queue_init(&queue, 40000);

	srand(2);
	for (int i = 0; i < 100000; i++) {
		struct public_key from = { { (uint8_t)(rand() % (i % 256 + 1)) } };
		size_t len = 4 + (size_t)rand() % (i % 7 == 0 ? 4000 : 300);
		n_put++;
		memcpy(bytes, &n_put, sizeof(n_put));
		relay_queue_packet(&queue, RELAY_RECV, &(struct relay_packet){ from, bytes, len });
		EXPECT(queue.n_bytes <= 40000);
		for (int j = i == 99999 ? 100000 : rand() % 5 == 0; j > 0; j--) {
			size_t n = relay_queue_take(&queue, buf, 1 + (size_t)rand() % sizeof(buf));
			relay_decoder_feed(&decoder, buf, n);
			while (relay_decoder_next(&decoder, &frame) == 0) {
				uint32_t number;
				memcpy(&number, frame.packet.bytes, sizeof(number));
				EXPECT(number > last[frame.packet.key.bytes[0]]);
				last[frame.packet.key.bytes[0]] = number;
				n_taken++;
			}
		}
	}
	EXPECT(relay_queue_is_empty(&queue) && n_taken + queue.n_dropped == n_put && queue.n_dropped > 1000);
	relay_decoder_deinit(&decoder);
}

static void test_frames_without_a_packet_overtake_and_stay_whole(void)
{
	char seen[256];

	for (size_t n = 1; n < 200; n++) {
		struct relay_queue queue;
		relay_queue_init(&queue, 10000);
		queue_packet(&queue, 1, 100);
		queue_packet(&queue, 2, 100);
		EXPECT(relay_queue_frame(&queue, &(struct relay_frame){ .type = RELAY_PING }));
		EXPECT(relay_queue_frame(&queue, &(struct relay_frame){ .type = RELAY_PING }));
		drain(&queue, n, seen);
		EXPECT(strcmp(seen, "i i p1 p2 ") == 0);
		relay_queue_deinit(&queue);
	}
}

static void test_frames_without_a_packet_are_bounded_and_the_last_of_all_has_room(void)
{
	struct relay_queue queue;
	int n = 0;
	relay_queue_init(&queue, 100);

	while (relay_queue_frame(&queue, &(struct relay_frame){ .type = RELAY_PING }))
		n++;
	EXPECT(n == (RELAY_QUEUE_SMALL - RELAY_SMALL_FRAME) / 12);
	EXPECT(relay_queue_frame(&queue, &(struct relay_frame){ .type = RELAY_CLOSING }));
	relay_queue_deinit(&queue);
}

int main(void)
{
	test_each_frame_is_byte_for_byte_as_documented();
	test_frames_are_found_however_the_stream_is_cut();
	test_the_largest_packet_fits_and_one_more_byte_does_not();
	test_a_frame_that_is_too_long_ends_the_stream();
	test_malformed_and_unknown_frames_are_skipped();
	test_a_full_queue_drops_its_oldest_packets();
	test_a_queue_takes_no_more_memory_than_it_may();
	test_the_longest_packet_has_room_in_a_queue_of_its_own_length();
	test_a_pool_keeps_what_its_queues_free_and_no_more_than_it_may();
	test_a_packet_that_has_begun_to_leave_is_not_dropped();
	test_each_sender_has_its_turn();
	test_who_sends_too_fast_pushes_out_its_own_packets_only();
	test_what_is_taken_at_once_are_whole_frames();
	test_how_long_packets_waited_is_counted_by_the_owners_clock();
	test_order_and_counts_hold_for_any_senders_and_lengths();
	test_frames_without_a_packet_overtake_and_stay_whole();
	test_frames_without_a_packet_are_bounded_and_the_last_of_all_has_room();
	puts("ok");
	return 0;
}
