/*
 * The relay over TLS, with real connections on loopback (docs/PROTOCOL-relay.md): members exchange
 * packets through it; whoever is none gets nowhere; and what one does, no other feels.
 */
#include "world.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Most tests are about these. */
struct pair {
	struct world w;
	struct member alice, bob;
};

static void begin(struct pair *p)
{
	world_begin(&p->w);
	make_member(&p->alice, &p->w, "alice", 1);
	make_member(&p->bob, &p->w, "bob", 2);
}

static void begin_connected(struct pair *p)
{
	begin(p);
	start_server(&p->w);
	connect_and_await(&p->alice);
	connect_and_await(&p->bob);
}

static void finish(struct pair *p)
{
	close_member(&p->alice);
	close_member(&p->bob);
	world_end(&p->w);
}

static struct relay_server_counters counters(const struct pair *p)
{
	return relay_server_counters(p->w.server);
}

static void expect_they_still_talk(struct pair *p)
{
	uint32_t n = p->bob.n_packets;

	EXPECT(send_text(&p->alice, &p->bob, "still there?") == 0);
	AWAIT(&p->w, p->bob.n_packets == n + 1 && got_text(&p->bob, "still there?"));
	EXPECT(p->alice.n_lost == 0 && p->bob.n_lost == 0);
}

static void test_two_members_exchange_packets_in_order(void)
{
	struct pair p;
	begin_connected(&p);

	EXPECT(send_text(&p.alice, &p.bob, "hello bob") == 0);
	AWAIT(&p.w, p.bob.n_packets == 1);
	EXPECT(got_text(&p.bob, "hello bob"));
	EXPECT(public_key_equal(&p.bob.last_from, &p.alice.key));
	EXPECT(send_text(&p.bob, &p.alice, "hello alice") == 0);
	AWAIT(&p.w, p.alice.n_packets == 1);
	EXPECT(got_text(&p.alice, "hello alice"));

	p.bob.last_number = 0;
	for (uint64_t i = 1; i <= 200; i++)
		send_number(&p.alice, &p.bob, i, 8 + i * 6);
	AWAIT(&p.w, p.bob.last_number == 200);
	EXPECT(p.bob.n_packets == 201 && p.bob.n_misordered == 0);
	EXPECT(counters(&p).clients == 2 && counters(&p).packets == 202 && counters(&p).packets_out == 202);
	EXPECT(counters(&p).bytes_out > counters(&p).bytes + 202 * sizeof(struct public_key));
	finish(&p);
}

static void test_the_largest_packet_passes(void)
{
	struct pair p;
	begin_connected(&p);

	send_number(&p.alice, &p.bob, 1, RELAY_MAX_PACKET);
	AWAIT(&p.w, p.bob.n_packets == 1);
	EXPECT(relay_connection_counters(p.bob.connection).bytes_in == RELAY_MAX_PACKET);
	finish(&p);
}

static void test_who_sends_to_nobody_is_told_but_not_too_often(void)
{
	struct pair p;
	struct member carol;
	begin_connected(&p);
	make_member(&carol, &p.w, "carol", 3);

	EXPECT(send_text(&p.alice, &carol, "anybody?") == 0);
	AWAIT(&p.w, p.alice.n_gone == 1);
	EXPECT(public_key_equal(&p.alice.last_gone, &carol.key));
	for (int i = 0; i < 100; i++)
		EXPECT(send_text(&p.alice, &carol, "anybody?") == 0);
	AWAIT(&p.w, counters(&p).dropped_unknown == 101);
	expect_they_still_talk(&p);
	EXPECT(p.alice.n_gone <= 12);

	close_member(&carol);
	finish(&p);
}

static void test_a_slow_receiver_loses_its_oldest_packets_and_harms_nobody(void)
{
	enum { ROUNDS = 150, BURST = 50, LEN = 1200 };
	struct pair p;
	struct member slow;
	struct raw raw;
	uint64_t number = 0;
	begin_connected(&p);
	make_member(&slow, &p.w, "slow", 3);
	raw_connect(&raw, &p.w, slow.context);
	AWAIT(&p.w, raw.n_hello == 1);

	tls_stream_pause(&raw.stream, true);
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < BURST; i++)
			send_number(&p.alice, &slow, ++number, LEN);
		send_number(&p.alice, &p.bob, number, LEN);
		AWAIT(&p.w, p.bob.last_number == number); /* bob waits for nobody */
	}
	EXPECT(p.bob.n_packets == ROUNDS && p.bob.n_misordered == 0);
	EXPECT(counters(&p).dropped_queue > 0);

	tls_stream_pause(&raw.stream, false);
	AWAIT(&p.w, raw.last_number == number); /* the newest got through */
	EXPECT(raw.n_misordered == 0);
	EXPECT(raw.n_packets + counters(&p).dropped_queue == number);

	raw_close(&raw);
	close_member(&slow);
	finish(&p);
}

static void test_a_stranger_with_a_certificate_of_another_network_is_refused(void)
{
	struct pair p;
	struct member stranger;
	struct certificate_authority other;
	char *key = NULL, *pem = NULL;
	begin_connected(&p);
	EXPECT(certificate_authority_generate("test", (int64_t)time(NULL), &key, &pem, NULL) == 0);
	EXPECT(certificate_authority_init(&other, key, pem, NULL) == 0);
	make_member(&stranger, &p.w, "stranger", 3);
	SSL_CTX_free(stranger.context);
	stranger.context = make_context(&p.w, &other, "stranger", &stranger.key, false, 3600);

	connect_member(&stranger);
	AWAIT(&p.w, stranger.n_lost == 1);
	EXPECT(stranger.n_ready == 0);
	EXPECT(counters(&p).refused_tls == 1 && counters(&p).clients == 2);
	expect_they_still_talk(&p);

	certificate_authority_deinit(&other);
	certificate_free_secret(key);
	free(pem);
	close_member(&stranger);
	finish(&p);
}

/* Also on a port that one day serves more: nothing is guessed. */
static void test_another_alpn_or_none_is_closed(void)
{
	static const unsigned char http[] = "\x08http/1.1";
	struct pair p;
	struct raw raw;
	begin(&p);
	start_server(&p.w);

	EXPECT(SSL_CTX_set_alpn_protos(p.alice.context, http, sizeof(http) - 1) == 0);
	raw_connect(&raw, &p.w, p.alice.context);
	AWAIT(&p.w, raw.is_ended);
	EXPECT(counters(&p).refused_tls == 1 && !raw.is_ready);
	raw_close(&raw);

	EXPECT(SSL_CTX_set_alpn_protos(p.alice.context, NULL, 0) == 0);
	raw_connect(&raw, &p.w, p.alice.context);
	AWAIT(&p.w, raw.is_ended);
	EXPECT(counters(&p).refused_tls == 2 && raw.n_hello == 0 && counters(&p).clients == 0);
	raw_close(&raw);
	finish(&p);
}

static void test_who_is_no_member_is_not_admitted(void)
{
	struct pair p;
	begin(&p);
	p.w.removed = p.bob.key;
	start_server(&p.w);

	connect_member(&p.bob);
	AWAIT(&p.w, p.bob.n_lost == 1);
	EXPECT(strcmp(p.bob.why, relay_closing_reason_text(RELAY_CLOSING_NOT_ADMITTED)) == 0);
	EXPECT(p.bob.n_ready == 0 && counters(&p).refused_not_member == 1);
	finish(&p);
}

/* Control tells a new member of the relay before it has told the relay of the member. */
static void test_who_becomes_a_member_in_a_moment_is_admitted_then(void)
{
	struct pair p;
	begin(&p);
	p.w.removed = p.bob.key;
	start_server(&p.w);

	connect_member(&p.bob);
	AWAIT(&p.w, counters(&p).handshakes == 0 && counters(&p).accepted == 1);
	memset(&p.w.removed, 0, sizeof(p.w.removed));
	relay_server_recheck_members(p.w.server);
	AWAIT(&p.w, p.bob.n_ready == 1);
	EXPECT(p.bob.n_lost == 0 && counters(&p).refused_not_member == 0 && counters(&p).clients == 1);
	finish(&p);
}

static void test_a_removed_member_is_closed_at_once(void)
{
	struct pair p;
	begin_connected(&p);

	p.w.removed = p.bob.key;
	relay_server_recheck_members(p.w.server);
	EXPECT(counters(&p).clients == 1 && counters(&p).closed_removed == 1);
	EXPECT(send_text(&p.alice, &p.bob, "too late") == 0);
	AWAIT(&p.w, p.bob.n_lost == 1 && p.alice.n_gone == 1);
	EXPECT(p.bob.n_packets == 0 && p.alice.n_lost == 0);
	finish(&p);
}

static void test_garbage_instead_of_tls_is_counted(void)
{
	struct pair p;
	char rest;
	begin_connected(&p);

	for (unsigned i = 1; i <= 20; i++) {
		int fd = plain_connect(&p.w);
		const char garbage[] = "GET / HTTP/1.1\r\nHost: relay\r\n\r\n";
		EXPECT(send(fd, garbage, sizeof(garbage) - i, 0) > 0);
		if (i % 2)
			shutdown(fd, SHUT_WR);
		AWAIT(&p.w, counters(&p).refused_tls == i);
		while (recv(fd, &rest, 1, 0) > 0)
			; /* an alert, then the end */
		close(fd);
	}
	EXPECT(counters(&p).handshakes == 0);
	expect_they_still_talk(&p);
	finish(&p);
}

static void test_garbage_inside_tls_ends_only_who_sent_it(void)
{
	struct pair p;
	struct member carol;
	struct raw raw;
	begin_connected(&p);
	make_member(&carol, &p.w, "carol", 3);
	raw_connect(&raw, &p.w, carol.context);
	AWAIT(&p.w, raw.n_hello == 1);

	/* What can be skipped is skipped: unknown, malformed, sent the wrong way. */
	raw_say(&raw, (uint8_t[]){ 77, 0, 0, 1, 'x', 5, 0, 0, 1, 'x', 1, 0, 0, 2, 1, 20 }, 16);
	raw_say_frame(&raw, &(struct relay_frame){ .type = RELAY_PING, .ping = 1 });
	AWAIT(&p.w, raw.n_pongs == 1);
	EXPECT(counters(&p).malformed == 2);
	/* A length nobody may send is the end. */
	raw_say(&raw, (uint8_t[]){ 2, 255, 255, 255 }, 4);
	AWAIT(&p.w, raw.is_ended);
	EXPECT(raw.closing == RELAY_CLOSING_PROTOCOL && counters(&p).closed_protocol == 1);
	expect_they_still_talk(&p);

	raw_close(&raw);
	close_member(&carol);
	finish(&p);
}

static void test_half_open_handshakes_time_out(void)
{
	struct pair p;
	int fds[20];
	begin(&p);
	p.w.server_options.handshake_ms = 150;
	start_server(&p.w);

	for (int i = 0; i < 20; i++)
		fds[i] = plain_connect(&p.w);
	AWAIT(&p.w, counters(&p).accepted == 20);
	AWAIT(&p.w, counters(&p).refused_timeout == 20);
	EXPECT(counters(&p).handshakes == 0);
	for (int i = 0; i < 20; i++)
		close(fds[i]);
	finish(&p);
}

static void test_a_flood_of_handshakes_does_not_lock_members_out(void)
{
	struct pair p;
	int fds[50];
	begin(&p);
	p.w.server_options.max_handshakes = 10;
	start_server(&p.w);

	for (int i = 0; i < 50; i++)
		fds[i] = plain_connect(&p.w);
	AWAIT(&p.w, counters(&p).accepted == 50);
	EXPECT(counters(&p).handshakes == 10 && counters(&p).refused_handshakes == 40);
	connect_and_await(&p.alice);
	for (int i = 0; i < 50; i++)
		close(fds[i]);
	finish(&p);
}

static void test_one_source_has_its_share_of_handshakes(void)
{
	struct pair p;
	int fds[10];
	begin(&p);
	p.w.server_options.max_handshakes_source = 4;
	start_server(&p.w);

	for (int i = 0; i < 10; i++)
		fds[i] = plain_connect(&p.w);
	AWAIT(&p.w, counters(&p).accepted == 10);
	EXPECT(counters(&p).handshakes == 4 && counters(&p).refused_handshakes == 6);
	for (int i = 0; i < 10; i++)
		close(fds[i]);
	finish(&p);
}

static void test_one_source_connects_only_so_often(void)
{
	struct pair p;
	int fds[10];
	begin(&p);
	p.w.server_options.max_rate_source = 3;
	start_server(&p.w);

	for (int i = 0; i < 10; i++)
		fds[i] = plain_connect(&p.w);
	AWAIT(&p.w, counters(&p).accepted == 10);
	EXPECT(counters(&p).refused_rate >= 3 && counters(&p).handshakes <= 7);
	for (int i = 0; i < 10; i++)
		close(fds[i]);
	finish(&p);
}

static void test_out_of_descriptors_turns_new_ones_away_and_goes_on(void)
{
	struct pair p;
	struct rlimit old, low;
	int fds[3], fillers[256];
	begin_connected(&p);

	for (int i = 0; i < 3; i++)
		fds[i] = plain_connect(&p.w);
	for (int i = 0; i < 256; i++)
		fillers[i] = dup(0); /* no number below the last is free any more … */
	EXPECT(getrlimit(RLIMIT_NOFILE, &old) == 0);
	low = old;
	low.rlim_cur = (rlim_t)fillers[255] + 1;
	EXPECT(setrlimit(RLIMIT_NOFILE, &low) == 0);
	close(fillers[0]); /* … but this one: room for one of the three */
	AWAIT(&p.w, counters(&p).refused_descriptors == 2);
	expect_they_still_talk(&p);
	EXPECT(setrlimit(RLIMIT_NOFILE, &old) == 0);

	struct member carol;
	make_member(&carol, &p.w, "carol", 3);
	connect_and_await(&carol);
	close_member(&carol);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	for (int i = 1; i < 256; i++)
		close(fillers[i]);
	finish(&p);
}

static void test_a_newer_connection_replaces_the_older(void)
{
	struct pair p;
	struct raw newer;
	begin_connected(&p);

	raw_connect(&newer, &p.w, p.bob.context);
	AWAIT(&p.w, newer.n_hello == 1);
	AWAIT(&p.w, p.bob.n_lost == 1);
	EXPECT(strcmp(p.bob.why, relay_closing_reason_text(RELAY_CLOSING_REPLACED)) == 0);
	EXPECT(counters(&p).clients == 2 && counters(&p).closed_replaced == 1);
	/* The end of the older one does not take the newer one's place in the table. */
	send_number(&p.alice, &p.bob, 5, 100);
	AWAIT(&p.w, newer.last_number == 5);
	EXPECT(p.alice.n_gone == 0);

	raw_close(&newer);
	finish(&p);
}

static void test_a_full_relay_says_so_but_takes_back_whom_it_has(void)
{
	struct pair p;
	struct raw again;
	begin(&p);
	p.w.server_options.max_clients = 1;
	start_server(&p.w);
	connect_and_await(&p.alice);

	connect_member(&p.bob);
	AWAIT(&p.w, p.bob.n_lost == 1);
	EXPECT(strcmp(p.bob.why, relay_closing_reason_text(RELAY_CLOSING_FULL)) == 0);
	EXPECT(counters(&p).refused_full == 1);
	raw_connect(&again, &p.w, p.alice.context);
	AWAIT(&p.w, again.n_hello == 1);

	raw_close(&again);
	finish(&p);
}

static void test_what_waits_for_all_is_bounded_and_each_still_has_a_share(void)
{
	enum { N = 6, LEN = 1400 };
	struct pair p;
	struct raw raws[N];
	SSL_CTX *contexts[N];
	struct member to[N];
	begin(&p);
	p.w.server_options.max_queues = 200000;
	start_server(&p.w);
	connect_and_await(&p.alice);
	for (uint8_t i = 0; i < N; i++) {
		memset(to[i].key.bytes, 10 + i, sizeof(to[i].key.bytes));
		contexts[i] = make_context(&p.w, NULL, "stalled", &to[i].key, false, 3600);
		raw_connect(&raws[i], &p.w, contexts[i]);
		AWAIT(&p.w, raws[i].n_hello == 1);
		tls_stream_pause(&raws[i].stream, true);
	}

	/* Until the kernel takes no more, and then until all queues have dropped. */
	for (uint64_t number = 1; counters(&p).dropped_queue < N * 1000; number++) {
		for (int i = 0; i < N; i++)
			send_number(&p.alice, &to[i], number, LEN);
		if (number % 16 == 0)
			run_for(&p.w, 1);
	}
	uint64_t most = 200000 + N * RELAY_MAX_FRAME;
	EXPECT(counters(&p).queued_bytes > 200000 / 2 && counters(&p).queued_bytes <= most);
	for (int i = 0; i < N; i++)
		tls_stream_pause(&raws[i].stream, false);
	AWAIT(&p.w, counters(&p).queued_bytes == 0);
	for (int i = 0; i < N; i++) {
		EXPECT(raws[i].n_packets > 0 && raws[i].n_misordered == 0);
		raw_close(&raws[i]);
		SSL_CTX_free(contexts[i]);
	}
	finish(&p);
}

static void test_a_client_over_its_rate_loses_packets_and_others_do_not(void)
{
	struct pair p;
	begin(&p);
	p.w.server_options.max_rate_client = 80000; /* and 65,536 bytes at once */
	start_server(&p.w);
	connect_and_await(&p.alice);
	connect_and_await(&p.bob);

	for (uint64_t i = 1; i <= 250; i++)
		send_number(&p.alice, &p.bob, i, 1000);
	AWAIT(&p.w, counters(&p).packets + counters(&p).dropped_rate == 250);
	EXPECT(counters(&p).dropped_rate > 0 && counters(&p).packets >= 65);
	EXPECT(send_text(&p.bob, &p.alice, "mine is another") == 0);
	AWAIT(&p.w, got_text(&p.alice, "mine is another"));
	finish(&p);
}

static void test_who_tries_all_keys_is_stopped_and_still_reaches_who_answers(void)
{
	struct pair p;
	struct member nobody = { 0 };
	begin_connected(&p);

	EXPECT(send_text(&p.bob, &p.alice, "hello") == 0);
	AWAIT(&p.w, got_text(&p.alice, "hello"));
	for (uint16_t i = 1; i <= 600; i++) {
		memcpy(nobody.key.bytes, &i, sizeof(i));
		EXPECT(send_text(&p.alice, &nobody, "anybody?") == 0);
	}
	AWAIT(&p.w, counters(&p).dropped_unanswered == 600 - 512);
	expect_they_still_talk(&p);
	finish(&p);
}

static void test_the_silent_are_pinged_then_dropped(void)
{
	struct pair p;
	struct raw raw;
	begin(&p);
	p.w.server_options.keep_alive_s = 1;
	p.w.server_options.dead_ms = 1500;
	start_server(&p.w);
	connect_and_await(&p.alice); /* answers pings */
	raw_connect(&raw, &p.w, p.bob.context);
	AWAIT(&p.w, raw.n_hello == 1);

	AWAIT(&p.w, raw.n_pings > 0);
	AWAIT(&p.w, raw.is_ended);
	EXPECT(counters(&p).closed_silent == 1 && counters(&p).clients == 1 && p.alice.n_lost == 0);

	raw_close(&raw);
	finish(&p);
}

static void test_an_expired_certificate_ends_its_connection(void)
{
	struct pair p;
	begin(&p);
	p.w.server_options.keep_alive_s = 1; /* looks more often */
	start_server(&p.w);
	SSL_CTX_free(p.bob.context);
	p.bob.context = make_context(&p.w, NULL, "bob", &p.bob.key, false, 2);

	connect_and_await(&p.bob);
	AWAIT(&p.w, p.bob.n_lost == 1);
	EXPECT(strcmp(p.bob.why, relay_closing_reason_text(RELAY_CLOSING_EXPIRED)) == 0);
	EXPECT(counters(&p).closed_expired == 1);
	finish(&p);
}

static void test_a_relay_that_stops_says_so_to_all(void)
{
	struct pair p;
	begin_connected(&p);

	stop_server(&p.w);
	AWAIT(&p.w, p.alice.n_lost >= 1 && p.bob.n_lost >= 1);
	finish(&p);
}

static void test_a_relay_that_drains_sends_its_clients_away_one_after_another_and_takes_no_new_ones(void)
{
	struct pair p;
	struct raw raws[8];
	SSL_CTX *contexts[8];
	begin(&p);
	start_server(&p.w);
	for (uint8_t i = 0; i < 8; i++) {
		struct public_key key = { { i, 99 } };
		contexts[i] = make_context(&p.w, NULL, "client", &key, false, 3600);
		raw_connect(&raws[i], &p.w, contexts[i]);
		AWAIT(&p.w, raws[i].n_hello == 1);
	}

	relay_server_drain(p.w.server, 800);
	EXPECT(counters(&p).clients == 8);
	connect_member(&p.alice);
	AWAIT(&p.w, p.alice.n_lost == 1 && counters(&p).refused_draining >= 1);
	EXPECT(p.alice.n_ready == 0);
	AWAIT(&p.w, counters(&p).clients == 0);
	EXPECT(counters(&p).closed_drained == 8);
	for (int i = 0; i < 8; i++) {
		AWAIT(&p.w, raws[i].is_ended);
		EXPECT(raws[i].closing == RELAY_CLOSING_RESTART);
		raw_close(&raws[i]);
		SSL_CTX_free(contexts[i]);
	}

	relay_server_undrain(p.w.server);
	connect_and_await(&p.bob);
	relay_server_drain(p.w.server, 0);
	EXPECT(counters(&p).clients == 0);
	finish(&p);
}

static void count_clients(void *owner, const struct relay_server_client *client)
{
	if (strcmp(client->name, "alice") == 0 && client->packets_in == 3)
		(*(int *)owner)++;
	if (strcmp(client->name, "bob") == 0 && client->packets_out == 3)
		(*(int *)owner)++;
}

static void test_each_client_has_counters_of_its_own(void)
{
	struct pair p;
	int n = 0;
	begin_connected(&p);

	for (uint64_t i = 1; i <= 3; i++)
		send_number(&p.alice, &p.bob, i, 100);
	AWAIT(&p.w, p.bob.n_packets == 3);
	relay_server_each_client(p.w.server, count_clients, &n);
	EXPECT(n == 2);
	finish(&p);
}

int main(void)
{
	test_two_members_exchange_packets_in_order();
	test_the_largest_packet_passes();
	test_who_sends_to_nobody_is_told_but_not_too_often();
	test_a_slow_receiver_loses_its_oldest_packets_and_harms_nobody();
	test_a_stranger_with_a_certificate_of_another_network_is_refused();
	test_another_alpn_or_none_is_closed();
	test_who_is_no_member_is_not_admitted();
	test_who_becomes_a_member_in_a_moment_is_admitted_then();
	test_a_removed_member_is_closed_at_once();
	test_garbage_instead_of_tls_is_counted();
	test_garbage_inside_tls_ends_only_who_sent_it();
	test_half_open_handshakes_time_out();
	test_a_flood_of_handshakes_does_not_lock_members_out();
	test_one_source_has_its_share_of_handshakes();
	test_one_source_connects_only_so_often();
	test_out_of_descriptors_turns_new_ones_away_and_goes_on();
	test_a_newer_connection_replaces_the_older();
	test_a_full_relay_says_so_but_takes_back_whom_it_has();
	test_what_waits_for_all_is_bounded_and_each_still_has_a_share();
	test_a_client_over_its_rate_loses_packets_and_others_do_not();
	test_who_tries_all_keys_is_stopped_and_still_reaches_who_answers();
	test_the_silent_are_pinged_then_dropped();
	test_an_expired_certificate_ends_its_connection();
	test_a_relay_that_stops_says_so_to_all();
	test_a_relay_that_drains_sends_its_clients_away_one_after_another_and_takes_no_new_ones();
	test_each_client_has_counters_of_its_own();
	puts("ok");
	return 0;
}
