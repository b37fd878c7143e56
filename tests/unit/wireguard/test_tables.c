/*
 * The small tables behind the device: indices, the schedule, packets that wait, slots of keys.
 */
#include "node/wireguard/device.h"
#include "node/wireguard/index_table.h"
#include "node/wireguard/ip_packet.h"
#include "node/wireguard/keypair.h"
#include "node/wireguard/schedule.h"
#include "node/wireguard/staged.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- indices ---- */

static void test_an_index_is_given_once_and_found_until_removed(void)
{
	struct wg_index_table table = { 0 };
	struct wg_peer *peer = (struct wg_peer *)&table; /* any address */

	assert(!wg_index_table_find(&table, 5));
	assert(wg_index_table_reserve(&table, 1) == 0);
	assert(wg_index_table_add(&table, &(struct wg_index_entry){ .index = 5, .peer = peer }));
	assert(!wg_index_table_add(&table, &(struct wg_index_entry){ .index = 5, .peer = peer }));
	assert(wg_index_table_find(&table, 5)->peer == peer);
	wg_index_table_remove(&table, 6);
	wg_index_table_remove(&table, 5);
	wg_index_table_remove(&table, 5);
	assert(!wg_index_table_find(&table, 5) && table.n == 0);
	wg_index_table_deinit(&table);
}

static void test_random_indices_as_a_naive_set_says(void)
{
	enum { RANGE = 600, PEERS = 100 };
	static bool there[RANGE];
	struct wg_index_table table = { 0 };
	struct wg_peer *peer = (struct wg_peer *)&table;
	uint32_t n = 0;

	srand(5);
	assert(wg_index_table_reserve(&table, PEERS) == 0);
	for (int i = 0; i < 100000; i++) {
		uint32_t slot = (uint32_t)rand() % RANGE;
		uint32_t index = slot * 0x10001; /* many of them have the same place */
		assert(!wg_index_table_find(&table, index) == !there[slot]);
		if (there[slot]) {
			wg_index_table_remove(&table, index);
			n--;
		} else if (n < PEERS * 4) {
			assert(wg_index_table_add(&table,
						  &(struct wg_index_entry){ .index = index, .peer = peer }));
			n++;
		} else {
			continue;
		}
		there[slot] = !there[slot];
		assert(table.n == n);
		if (i == 50000)
			assert(wg_index_table_reserve(&table, PEERS * 4) == 0); /* grows with all in it */
	}
	wg_index_table_deinit(&table);
}

/* ---- schedule ---- */

static void test_the_first_of_the_schedule_is_the_earliest(void)
{
	enum { N = 64 };
	static struct wg_schedule_entry entries[N];
	struct wg_schedule schedule = { 0 };
	bool there[N] = { false };

	srand(6);
	for (int i = 0; i < 20000; i++) {
		int k = rand() % N;
		uint64_t at = (uint64_t)(rand() % 1000);
		if (!there[k])
			assert(wg_schedule_add(&schedule, &entries[k]) == 0);
		else if (rand() % 8 == 0)
			wg_schedule_remove(&schedule, &entries[k]);
		else if (rand() % 2)
			wg_schedule_earlier(&schedule, &entries[k], at);
		else
			wg_schedule_set(&schedule, &entries[k], at);
		uint32_t place = entries[k].place;
		there[k] = place < schedule.n && schedule.heap[place] == &entries[k];
		uint64_t earliest = UINT64_MAX;
		for (int j = 0; j < N; j++)
			if (there[j] && entries[j].at_ns < earliest)
				earliest = entries[j].at_ns;
		assert(schedule.n == 0 || wg_schedule_first(&schedule)->at_ns == earliest);
	}
	wg_schedule_deinit(&schedule);
}

/* ---- packets that wait ---- */

static void push(struct wg_staged_pool *pool, struct wg_staged_queue *queue, uint8_t mark, unsigned n_dropped)
{
	unsigned n = wg_staged_push(pool, queue, &mark, 1);

	assert(n == n_dropped);
}

static uint8_t pop(struct wg_staged_pool *pool, struct wg_staged_queue *queue)
{
	struct wg_staged *staged = wg_staged_pop(pool, queue);
	uint8_t mark = staged ? staged->packet[0] : 0;

	if (staged)
		wg_staged_release(pool, staged);
	return mark;
}

static void test_a_queue_keeps_the_last_128(void)
{
	struct wg_staged_pool pool;
	struct wg_staged_queue queue = { 0 };

	assert(wg_staged_pool_init(&pool, 200, 100) == 0);
	for (unsigned i = 0; i < 150; i++)
		push(&pool, &queue, (uint8_t)(i + 1), i >= 128);
	assert(queue.n == 128);
	assert(pop(&pool, &queue) == 23); /* 150 - 128 are gone */
	assert(wg_staged_purge(&pool, &queue) == 127);
	assert(pop(&pool, &queue) == 0);
	wg_staged_pool_deinit(&pool);
}

static void test_an_empty_pool_takes_from_the_oldest_of_all(void)
{
	struct wg_staged_pool pool;
	struct wg_staged_queue a = { 0 }, b = { 0 };

	assert(wg_staged_pool_init(&pool, 3, 100) == 0);
	push(&pool, &a, 1, 0);
	push(&pool, &b, 2, 0);
	push(&pool, &a, 3, 0);
	push(&pool, &b, 4, 1); /* 1 goes */
	push(&pool, &b, 5, 1); /* 2 goes */
	assert(pop(&pool, &a) == 3 && pop(&pool, &a) == 0);
	assert(pop(&pool, &b) == 4 && pop(&pool, &b) == 5 && pop(&pool, &b) == 0);
	wg_staged_pool_deinit(&pool);
}

/* ---- keypairs ---- */

static void free_dropped(const struct wg_dropped *dropped, uint32_t n_expected)
{
	assert(dropped->n == n_expected);
	for (uint32_t i = 0; i < dropped->n; i++) {
		assert(!wg_keypair_may_send(dropped->keypairs[i], 1));
		wg_keypair_free(dropped->keypairs[i]);
	}
}

static struct wg_keypair *install(struct wg_keypairs *keypairs, bool is_initiator, uint32_t index,
				  uint32_t n_dropped)
{
	const struct wg_session_keys keys = { { 1 }, { 2 } };
	struct wg_keypair *keypair = wg_keypair_new(NULL, &keys, is_initiator, index, 0, 1);
	struct wg_dropped dropped;

	assert(keypair);
	wg_keypairs_install(keypairs, keypair, &dropped);
	free_dropped(&dropped, n_dropped);
	return keypair;
}

/* "current previous next" as indices. */
static bool are(const struct wg_keypairs *keypairs, uint32_t current, uint32_t previous, uint32_t next)
{
	return (keypairs->current ? keypairs->current->local_index : 0) == current &&
	       (keypairs->previous ? keypairs->previous->local_index : 0) == previous &&
	       (keypairs->next ? keypairs->next->local_index : 0) == next;
}

static void test_keypairs_move_through_their_slots(void)
{
	struct wg_keypairs keypairs = { 0 };
	struct wg_dropped dropped;

	install(&keypairs, true, 1, 0);
	assert(are(&keypairs, 1, 0, 0));
	install(&keypairs, true, 2, 0);
	assert(are(&keypairs, 2, 1, 0));
	install(&keypairs, true, 3, 1); /* 1 is dropped */
	assert(are(&keypairs, 3, 2, 0));
	install(&keypairs, false, 4, 1); /* previous is dropped */
	assert(are(&keypairs, 3, 0, 4));
	install(&keypairs, false, 5, 1); /* next is replaced */
	assert(are(&keypairs, 3, 0, 5));
	wg_keypairs_confirm_next(&keypairs, &dropped);
	assert(are(&keypairs, 5, 3, 0) && dropped.n == 0);
	install(&keypairs, false, 6, 1);
	install(&keypairs, true, 7, 1); /* next becomes previous, current is dropped */
	assert(are(&keypairs, 7, 6, 0));
	wg_keypairs_wipe(&keypairs, &dropped);
	assert(are(&keypairs, 0, 0, 0));
	free_dropped(&dropped, 2);
}

static void test_numbers_are_taken_once_and_none_beyond_the_limit(void)
{
	struct wg_keypairs keypairs = { 0 };
	struct wg_dropped dropped;
	struct wg_keypair *keypair = install(&keypairs, true, 1, 0);
	uint64_t first;

	assert(wg_keypair_take_counters(keypair, 64, &first) == 64 && first == 0);
	assert(wg_keypair_take_counters(keypair, 1, &first) == 1 && first == 64);
	keypair->next_counter = WG_REJECT_AFTER_MESSAGES - 3;
	assert(wg_keypair_take_counters(keypair, 64, &first) == 3);
	assert(first == WG_REJECT_AFTER_MESSAGES - 3 && !wg_keypair_may_send(keypair, 1));
	assert(wg_keypair_take_counters(keypair, 64, &first) == 0);
	wg_keypairs_wipe(&keypairs, &dropped);
	free_dropped(&dropped, 1);
}

static void test_a_keypair_may_send_for_180_seconds_and_so_many_messages(void)
{
	struct wg_keypairs keypairs = { 0 };
	struct wg_dropped dropped;
	const uint64_t second = 1000000000;

	assert(!wg_keypairs_usable(&keypairs, 1));
	struct wg_keypair *keypair = install(&keypairs, true, 1, 0);
	assert(wg_keypairs_usable(&keypairs, 180 * second) == keypair);
	assert(!wg_keypair_wants_rekey(keypair, 120 * second));
	assert(wg_keypair_wants_rekey(keypair, 120 * second + 1));
	keypair->next_counter = (UINT64_C(1) << 60) + 1;
	assert(wg_keypair_wants_rekey(keypair, 1));
	keypair->next_counter = WG_REJECT_AFTER_MESSAGES - 1;
	assert(wg_keypairs_usable(&keypairs, 1));
	keypair->next_counter++;
	assert(!wg_keypairs_usable(&keypairs, 1));
	wg_keypairs_wipe(&keypairs, &dropped);
	free_dropped(&dropped, 1);
	install(&keypairs, true, 1, 0);
	assert(!wg_keypairs_usable(&keypairs, 180 * second + 1));
	wg_keypairs_wipe(&keypairs, &dropped);
	free_dropped(&dropped, 1);
}

/* ---- IP packets ---- */

static uint16_t checksum4(const uint8_t *header)
{
	uint32_t sum = 0;

	for (int i = 0; i < 20; i += 2)
		sum += (uint32_t)header[i] << 8 | header[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void make4(uint8_t packet[20], uint8_t ds, uint16_t id)
{
	const uint8_t header[20] = { 0x45, ds, 0, 20, (uint8_t)(id >> 8), (uint8_t)id, 0, 0, 64, 17,
				     0, 0, 10, 0, 0, 1, 10, 0, 0, 2 };

	memcpy(packet, header, 20);
	uint16_t sum = checksum4(packet);
	packet[10] = (uint8_t)(sum >> 8);
	packet[11] = (uint8_t)sum;
}

static void test_ecn_is_carried_inside_as_rfc6040_says(void)
{
	enum { DROPPED = 9 };
	static const uint8_t expected[4][4] = {
		/* outer:       none, ECT1, ECT0, CE */
		[IP_ECN_NONE] = { 0, 0, 0, DROPPED },
		[IP_ECN_ECT1] = { 1, 1, 1, 3 },
		[IP_ECN_ECT0] = { 2, 1, 2, 3 },
		[IP_ECN_CE] = { 3, 3, 3, 3 },
	};
	uint8_t packet[40] = { 0 };
	struct ip_packet ip;

	for (uint8_t inner = 0; inner < 4; inner++) {
		for (uint8_t outer = 0; outer < 4; outer++) {
			for (uint16_t id = 0; id < 2000; id++) {
				make4(packet, (uint8_t)(0x88 | inner), (uint16_t)(id * 33));
				assert(ip_packet_parse(packet, 20, &ip) && (ip.ds & 3) == inner);
				bool good = ip_packet_decapsulate_ecn(packet, &ip, outer);
				assert(good == (expected[inner][outer] != DROPPED));
				assert(!good || packet[1] == (0x88 | expected[inner][outer]));
				assert(checksum4(packet) == 0);
			}
			memset(packet, 0, sizeof(packet));
			packet[0] = 0x60 | 0x8;
			packet[1] = (uint8_t)((0x8 | inner) << 4 | 0x5); /* ds 0x88, flow label 5… */
			assert(ip_packet_parse(packet, 40, &ip) && ip.ds == (0x88 | inner));
			if (!ip_packet_decapsulate_ecn(packet, &ip, outer))
				continue;
			assert(packet[0] == 0x68 && packet[1] == ((0x8 | expected[inner][outer]) << 4 | 0x5));
		}
	}
}

static void test_only_whole_packets_are_ip(void)
{
	uint8_t packet[64] = { 0 };
	struct ip_packet ip;

	make4(packet, 0, 0);
	assert(ip_packet_parse(packet, 20, &ip) && ip.size == 20);
	assert(ip_packet_parse(packet, 32, &ip) && ip.size == 20); /* the rest is padding */
	assert(!ip_packet_parse(packet, 19, &ip));
	packet[3] = 33;
	assert(!ip_packet_parse(packet, 32, &ip));
	packet[3] = 19;
	assert(!ip_packet_parse(packet, 32, &ip));
	memset(packet, 0, sizeof(packet));
	packet[0] = 0x60;
	packet[5] = 8;
	assert(ip_packet_parse(packet, 48, &ip) && ip.size == 48 && ip.is_v6);
	assert(!ip_packet_parse(packet, 47, &ip));
	assert(!ip_packet_parse(packet, 39, &ip));
	packet[0] = 0x50;
	assert(!ip_packet_parse(packet, 64, &ip));
	assert(!ip_packet_parse(packet, 0, &ip));
}

static void test_tcp_is_told_from_all_else(void)
{
	uint8_t packet[40] = { 0x45 };

	for (unsigned protocol = 0; protocol < 256; protocol++) {
		packet[9] = (uint8_t)protocol;
		assert(ip_packet_is_tcp(packet) == (protocol == 6));
	}
	memset(packet, 0, sizeof(packet));
	packet[0] = 0x60;
	for (unsigned next = 0; next < 256; next++) {
		packet[6] = (uint8_t)next;
		assert(ip_packet_is_tcp(packet) == (next == 6));
	}
}

/* ---- padding ---- */

static void test_padding_is_to_16_but_not_beyond_the_mtu(void)
{
	static const uint32_t cases[][3] = { /* size, mtu, padded */
					     { 0, 1420, 0 },	    { 1, 1420, 16 },
					     { 16, 1420, 16 },	    { 17, 1420, 32 },
					     { 1408, 1420, 1408 },  { 1409, 1420, 1420 },
					     { 1420, 1420, 1420 },  { 1421, 1420, 1436 },
					     { 2840, 1420, 2840 },  { 100, 0, 112 } };

	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert(wg_padded_size(cases[i][0], cases[i][1]) == cases[i][2]);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	test_an_index_is_given_once_and_found_until_removed();
	test_random_indices_as_a_naive_set_says();
	test_the_first_of_the_schedule_is_the_earliest();
	test_a_queue_keeps_the_last_128();
	test_an_empty_pool_takes_from_the_oldest_of_all();
	test_keypairs_move_through_their_slots();
	test_numbers_are_taken_once_and_none_beyond_the_limit();
	test_a_keypair_may_send_for_180_seconds_and_so_many_messages();
	test_ecn_is_carried_inside_as_rfc6040_says();
	test_only_whole_packets_are_ip();
	test_tcp_is_told_from_all_else();
	test_padding_is_to_16_but_not_beyond_the_mtu();
	puts("ok");
}
