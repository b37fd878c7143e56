/*
 * Data links whose TLS ends while the connection goes on, against an agent whose bytes the test cuts where it wants:
 *
 *   hand: OpenSSL between two buffers ──── TCP, as much as the test passes on ──── data links ─► caller: the socket itself
 */
#include "world.h"

#include "common/macros.h"
#include "relay/webgw/agent_wire.h"
#include "relay/webgw/data_links.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALPN_LEN (sizeof(WEBGW_ALPN) - 1)

static const uint8_t secret[WEBGW_EPHEMERAL_LEN] = "a secret, of thirty-two bytes..";
static const uint8_t raw[] = "what is said without TLS, or with somebody else's";

struct house {
	struct world w;
	struct member member;
	struct data_links *links;
	struct dial_caller caller;
	unsigned n_callers, n_not_taken;
	bool is_stopped, is_nobody_there, tells_visitors;
	int fd;
	SSL *hand;
};

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned in_len, void *arg)
{
	static const unsigned char own[] = "\x0b" WEBGW_ALPN;
	unsigned char *chosen = NULL;

	(void)ssl;
	(void)arg;
	if (SSL_select_next_proto(&chosen, out_len, own, sizeof(own) - 1, in, in_len) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

/* So many descriptors of this process are that socket: what is taken out of an epoll with close() is its last one. */
static unsigned n_descriptors_of(int fd)
{
	struct stat there, one;
	unsigned n = 0;

	EXPECT(fstat(fd, &there) == 0);
	for (int i = 0; i < 1024; i++)
		n += fstat(i, &one) == 0 && one.st_dev == there.st_dev && one.st_ino == there.st_ino;
	return n;
}

static bool on_caller(void *owner, const struct dial_caller *caller_take)
{
	struct house *house = owner;

	EXPECT(!caller_take->is_raw || caller_take->fd < 0 || n_descriptors_of(caller_take->fd) == 1);
	house->caller = *caller_take;
	house->n_callers++;
	return true;
}

static bool on_not_taken(void *owner, int64_t subscription, const struct dial_wanted *wanted)
{
	struct house *house = owner;

	(void)subscription;
	(void)wanted;
	house->n_not_taken++;
	return !house->is_nobody_there;
}

static bool on_is_there(void *owner, int64_t subscription)
{
	(void)owner;
	return subscription == 7;
}

static bool on_tells_visitors(void *owner, int64_t subscription)
{
	return subscription == 7 && ((struct house *)owner)->tells_visitors;
}

static void on_stopped(void *owner)
{
	((struct house *)owner)->is_stopped = true;
}

static void begin(struct house *house)
{
	struct error error;

	_Static_assert(ALPN_LEN == 0x0b, "as it is said on the wire");
	*house = (struct house){ .fd = -1 };
	world_begin(&house->w);
	make_member(&house->member, &house->w, "hand", 1);
	SSL_CTX_set_alpn_select_cb(house->w.server_options.context, select_alpn, NULL);
	const struct data_links_options options = { .loop = &house->w.loop,
						    .tls_host = house->w.host,
						    .context = house->w.server_options.context,
						    .listen = endpoint_from_v4(0x7f000001, 0),
						    .ports = { .owner = house, .caller = on_caller, .not_taken = on_not_taken,
							       .is_there = on_is_there, .tells_visitors = on_tells_visitors } };
	EXPECT(data_links_start(&options, &house->links, &error) == 0);
}

static void finish(struct house *house)
{
	data_links_stop(house->links, on_stopped, house);
	AWAIT(&house->w, house->is_stopped);
	close_member(&house->member);
	world_end(&house->w);
}

/* ---- the hand ---- */

static void hang_up(struct house *house)
{
	if (house->fd < 0)
		return;
	SSL_free(house->hand);
	close(house->fd);
	house->fd = -1;
}

static void hear(struct house *house)
{
	uint8_t bytes[4096];
	ssize_t n;

	while ((n = recv(house->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		EXPECT(BIO_write(SSL_get_rbio(house->hand), bytes, (int)n) == (int)n);
}

static void say(struct house *house, const uint8_t *bytes, size_t n)
{
	EXPECT(n == 0 || send(house->fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
}

/* What TLS has to send. */
static size_t sealed(struct house *house, uint8_t *ret, size_t cap)
{
	const int n = BIO_read(SSL_get_wbio(house->hand), ret, (int)cap);

	return n > 0 ? (size_t)n : 0;
}

static bool has_shaken_hands(struct house *house)
{
	uint8_t bytes[4096];

	hear(house);
	const bool is_done = SSL_do_handshake(house->hand) == 1;
	say(house, bytes, sealed(house, bytes, sizeof(bytes)));
	return is_done;
}

static void dial(struct house *house, bool is_new)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const unsigned char alpn[] = "\x0b" WEBGW_ALPN;
	const int one = 1;

	hang_up(house);
	at.sin_port = htons(data_links_port(house->links));
	house->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	EXPECT(house->fd >= 0 && connect(house->fd, (struct sockaddr *)&at, sizeof(at)) == 0);
	(void)setsockopt(house->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	house->hand = SSL_new(house->member.context);
	EXPECT(house->hand != NULL);
	SSL_set_alpn_protos(house->hand, alpn, is_new ? sizeof(alpn) - 1 : 0);
	SSL_set_bio(house->hand, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(house->hand);
	AWAIT_OTHERS(&house->w, has_shaken_hands(house));
}

/* Records with `words`, then TLS's end, then raw. Returns how much. */
static size_t parting_words(struct house *house, const void *words, size_t n_words, uint8_t *ret, size_t cap)
{
	EXPECT(SSL_write(house->hand, words, (int)n_words) == (int)n_words);
	EXPECT(SSL_shutdown(house->hand) >= 0);
	const size_t n = sealed(house, ret, cap);
	EXPECT(n > n_words && n + sizeof(raw) <= cap);
	memcpy(ret + n, raw, sizeof(raw));
	return n + sizeof(raw);
}

static bool has_ended(struct house *house)
{
	uint8_t byte;
	char plain[1];

	const ssize_t n = recv(house->fd, &byte, 1, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return true;
	if (n == 1)
		(void)BIO_write(SSL_get_rbio(house->hand), &byte, 1);
	(void)SSL_read(house->hand, plain, sizeof(plain));
	return false;
}

/* All that TLS says before its end, which is exact: what is behind it stays in the socket's bytes. */
static size_t read_to_end(struct house *house, uint8_t *ret, size_t cap)
{
	size_t n = 0;
	uint8_t byte;

	for (;;) {
		const int r = SSL_read(house->hand, ret + n, (int)(cap - n));
		if (r > 0) {
			n += (size_t)r;
		} else if (SSL_get_error(house->hand, r) == SSL_ERROR_ZERO_RETURN) {
			return n;
		} else {
			while (recv(house->fd, &byte, 1, MSG_DONTWAIT) != 1)
				run_for(&house->w, 1);
			EXPECT(BIO_write(SSL_get_rbio(house->hand), &byte, 1) == 1);
		}
	}
}

/* What came with the caller, and what its socket has. */
static void expect_raw_both_ways(struct house *house)
{
	struct dial_caller *caller = &house->caller;
	uint8_t bytes[256];
	size_t n = caller->n_answer;

	EXPECT(caller->is_raw && n <= sizeof(raw) && (n > 0) == (caller->answer != NULL));
	if (n > 0)
		memcpy(bytes, caller->answer, n);
	free(caller->answer);
	while (n < sizeof(raw)) {
		const ssize_t got = recv(caller->fd, bytes + n, sizeof(bytes) - n, MSG_DONTWAIT);
		EXPECT(got > 0);
		n += (size_t)got;
	}
	EXPECT(n == sizeof(raw) && memcmp(bytes, raw, n) == 0);
	EXPECT(send(caller->fd, raw, sizeof(raw), MSG_NOSIGNAL) == sizeof(raw));
	EXPECT(recv(house->fd, bytes, sizeof(raw), MSG_WAITALL) == sizeof(raw) && memcmp(bytes, raw, sizeof(raw)) == 0);
	close(caller->fd); /* the last of it: its end comes, and no reset */
	AWAIT_OTHERS(&house->w, recv(house->fd, bytes, 1, MSG_DONTWAIT) == 0);
}

/* ---- the rules ---- */

static void test_a_connection_that_dials_back_goes_raw_wherever_its_bytes_are_cut(void)
{
	struct house house;
	uint8_t words[1 + sizeof(secret)] = { WEBGW_DIAL_RAW }, bytes[512], none[8];
	unsigned n_expected = 0;

	begin(&house);
	memcpy(words + 1, secret, sizeof(secret));
	for (size_t at = 0, n = 1; at <= n; at++) {
		dial(&house, true);
		n = parting_words(&house, words, sizeof(words), bytes, sizeof(bytes));
		say(&house, bytes, at);
		run_for(&house.w, 1);
		EXPECT(house.n_callers == n_expected || at + sizeof(raw) >= n);
		say(&house, bytes + at, n - at);
		AWAIT(&house.w, house.n_callers == n_expected + 1);
		n_expected++;
		EXPECT(memcmp(house.caller.secret, secret, sizeof(secret)) == 0);
		EXPECT(read_to_end(&house, none, sizeof(none)) == 0);
		expect_raw_both_ways(&house);
	}
	EXPECT(data_links_counters(house.links).raw == n_expected && data_links_counters(house.links).open <= 1);
	hang_up(&house);
	finish(&house);
}

static void dial_with(struct house *house, bool is_new, const uint8_t prepared[WEBGW_EPHEMERAL_LEN])
{
	uint8_t words[1 + WEBGW_EPHEMERAL_LEN] = { WEBGW_DIAL_WRAPPED }, bytes[512];
	const size_t before = is_new ? 1 : 0;

	memcpy(words + before, prepared, WEBGW_EPHEMERAL_LEN);
	dial(house, is_new);
	EXPECT(SSL_write(house->hand, words, (int)(before + WEBGW_EPHEMERAL_LEN)) > 0);
	say(house, bytes, sealed(house, bytes, sizeof(bytes)));
}

static void make_warm(struct house *house, bool is_new)
{
	uint8_t prepared[1][WEBGW_EPHEMERAL_LEN];

	EXPECT(data_links_prepare(house->links, 7, 1, prepared) == 1);
	dial_with(house, is_new, prepared[0]);
	AWAIT(&house->w, data_links_counters(house->links).warm_now == 1);
}

static bool is_handed(struct house *house, uint16_t port)
{
	struct dial_wanted wanted = { .port = port, .n_first = 5, .first = (uint8_t[]){ 'h', 'e', 'l', 'l', 'o' } };

	wanted.visitor = (struct webgw_visitor){ endpoint_from_v4(0xc0000207, 40000), endpoint_from_v4(0xc6336401, port) };

	memcpy(wanted.secret, secret, sizeof(secret));
	EXPECT(host_name_from("a.example", 9, &wanted.host) == 0);
	return data_links_hand(house->links, 7, &wanted);
}

static void hand_visitor(struct house *house, uint16_t port)
{
	EXPECT(is_handed(house, port));
}

static void test_a_warm_connection_goes_raw_wherever_its_bytes_are_cut(void)
{
	static const uint8_t words[] = { WEBGW_ALIVE, WEBGW_ALIVE, WEBGW_TAKEN };
	struct house house;
	struct webgw_start start;
	uint8_t bytes[512], said[512];
	unsigned n_expected = 0;

	begin(&house);
	for (size_t at = 0, n = 1; at <= n; at++) {
		make_warm(&house, true);
		hand_visitor(&house, 443);
		const size_t n_said = read_to_end(&house, said, sizeof(said));
		const int len = webgw_start_read(said, n_said, &start);
		EXPECT(len > 0 && start.is_raw && start.port == 443 && start.n_first == 5 && n_said == (size_t)len + 5);
		EXPECT(memcmp(said + len, "hello", 5) == 0 && memcmp(start.secret, secret, sizeof(secret)) == 0);
		n = parting_words(&house, words, sizeof(words), bytes, sizeof(bytes));
		say(&house, bytes, at);
		run_for(&house.w, 1);
		say(&house, bytes + at, n - at);
		AWAIT(&house.w, house.n_callers == n_expected + 1);
		n_expected++;
		EXPECT(house.caller.n_sent == 5 && memcmp(house.caller.secret, secret, sizeof(secret)) == 0);
		expect_raw_both_ways(&house);
	}
	EXPECT(house.n_not_taken == 0 && data_links_counters(house.links).warm_used == n_expected);
	hang_up(&house);
	finish(&house);
}

/* It is wrapped to its end. */
static void expect_wrapped_start(struct house *house)
{
	struct webgw_start start;
	uint8_t said[512], bytes[64];
	int n = -1;

	AWAIT_OTHERS(&house->w, (hear(house), n = SSL_read(house->hand, said, sizeof(said))) > 0);
	const int len = webgw_start_read(said, (size_t)n, &start);
	EXPECT(len > 0 && !start.is_raw);
	EXPECT(SSL_write(house->hand, (uint8_t[]){ WEBGW_TAKEN }, 1) == 1);
	say(house, bytes, sealed(house, bytes, sizeof(bytes)));
	const unsigned n_before = house->n_callers;
	AWAIT(&house->w, house->n_callers == n_before + 1);
	EXPECT(!house->caller.is_raw && !house->caller.answer);
	close(house->caller.fd);
}

static void test_who_speaks_no_tls_and_agents_of_before_stay_within_it(void)
{
	struct house house;

	begin(&house);
	make_warm(&house, true);
	hand_visitor(&house, 80);
	expect_wrapped_start(&house);
	make_warm(&house, false);
	hand_visitor(&house, 443);
	expect_wrapped_start(&house);
	EXPECT(data_links_counters(house.links).raw == 0);
	hang_up(&house);
	finish(&house);
}

static void expect_visitor(const struct webgw_start *start, bool is_told)
{
	EXPECT(start->visitor.from.port == (is_told ? 40000 : 0));
	EXPECT(!is_told || strcmp(endpoint_text(&start->visitor.from).s, "192.0.2.7:40000") == 0);
	EXPECT(!is_told || strcmp(endpoint_ip_text(&start->visitor.to).s, "198.51.100.1") == 0);
}

/* Also of those who come raw, and those who waited for a connection that was on its way. */
static void test_only_who_wants_it_is_told_who_the_visitor_is_with_its_start(void)
{
	uint8_t said[512], prepared[1][WEBGW_EPHEMERAL_LEN];
	struct webgw_start start;
	struct house house;

	begin(&house);
	for (int i = 0; i < 2; i++) {
		house.tells_visitors = i == 1;
		make_warm(&house, true);
		hand_visitor(&house, 443);
		const size_t n_said = read_to_end(&house, said, sizeof(said));
		const int len = webgw_start_read(said, n_said, &start);
		EXPECT(len > 0 && start.is_raw && start.n_first == 5 && n_said == (size_t)len + 5);
		expect_visitor(&start, house.tells_visitors);
		EXPECT(data_links_prepare(house.links, 7, 1, prepared) == 1);
		hand_visitor(&house, 80);
		dial_with(&house, true, prepared[0]);
		int n = -1;
		AWAIT_OTHERS(&house.w, (hear(&house), n = SSL_read(house.hand, said, sizeof(said))) > 0);
		EXPECT(webgw_start_read(said, (size_t)n, &start) > 0 && !start.is_raw && start.visitor.to.port == (i == 1 ? 80 : 0));
		expect_visitor(&start, house.tells_visitors);
	}
	hang_up(&house);
	finish(&house);
}

static void test_a_visitor_waits_for_a_warm_connection_that_is_coming(void)
{
	struct house house;
	uint8_t prepared[2][WEBGW_EPHEMERAL_LEN];

	begin(&house);
	EXPECT(!is_handed(&house, 80));
	EXPECT(data_links_prepare(house.links, 7, 1, prepared) == 1);
	EXPECT(is_handed(&house, 80) && !is_handed(&house, 80)); /* one is coming, and somebody waits for it */
	dial_with(&house, true, prepared[0]);
	expect_wrapped_start(&house);
	EXPECT(house.n_not_taken == 0 && data_links_counters(house.links).warm_now == 0);
	EXPECT(data_links_prepare(house.links, 7, 2, prepared) == 2); /* they may come in another order */
	hand_visitor(&house, 443);
	dial_with(&house, false, prepared[1]);
	expect_wrapped_start(&house);
	EXPECT(data_links_counters(house.links).awaited == 2 && data_links_counters(house.links).warm_used == 2);
	hang_up(&house);
	finish(&house);
}

static void test_what_does_not_come_is_told_otherwise_soon(void)
{
	struct house house;
	uint8_t prepared[3][WEBGW_EPHEMERAL_LEN];

	begin(&house);
	EXPECT(data_links_prepare(house.links, 7, 3, prepared) == 3);
	hand_visitor(&house, 443);
	hand_visitor(&house, 443);
	EXPECT(house.n_not_taken == 0);
	AWAIT(&house.w, house.n_not_taken == 2);
	EXPECT(data_links_counters(house.links).awaited_late == 2);
	dial_with(&house, true, prepared[0]); /* late, and there for the next */
	AWAIT(&house.w, data_links_counters(house.links).warm_now == 1);
	hand_visitor(&house, 80);
	expect_wrapped_start(&house);
	hand_visitor(&house, 80); /* and nobody hears of who waits when all ends */
	hang_up(&house);
	finish(&house);
	EXPECT(house.n_not_taken == 2);
}

/* One that waits, and one whose warm connection ends: the door turns them away, and does not wait for who will not come. */
static void test_a_visitor_for_whom_nobody_can_be_told_is_given_up_at_once(void)
{
	struct house house;
	uint8_t prepared[1][WEBGW_EPHEMERAL_LEN];

	begin(&house);
	house.is_nobody_there = true;
	EXPECT(data_links_prepare(house.links, 7, 1, prepared) == 1);
	hand_visitor(&house, 443);
	AWAIT(&house.w, house.n_callers == 1);
	EXPECT(house.caller.fd == -1 && memcmp(house.caller.secret, secret, sizeof(secret)) == 0);
	make_warm(&house, false);
	hand_visitor(&house, 80);
	hang_up(&house);
	AWAIT(&house.w, house.n_callers == 2);
	EXPECT(house.caller.fd == -1 && memcmp(house.caller.secret, secret, sizeof(secret)) == 0);
	EXPECT(house.n_not_taken == 2 && data_links_counters(house.links).no_descriptors == 0);
	finish(&house);
}

enum ending { A_BYTE_MORE, NO_GOODBYE, GARBAGE, ANOTHER_KIND, N_ENDINGS };

static void say_badly(struct house *house, enum ending ending)
{
	uint8_t words[2 + sizeof(secret)] = { ending == ANOTHER_KIND ? 7 : WEBGW_DIAL_RAW }, bytes[512];

	memcpy(words + 1, secret, sizeof(secret));
	EXPECT(SSL_write(house->hand, words, (int)sizeof(words) - (ending != A_BYTE_MORE)) > 0);
	say(house, bytes, sealed(house, bytes, sizeof(bytes)));
	if (ending == GARBAGE)
		say(house, (const uint8_t *)"\x17\x03\x03\x00\x20 this is no record of this TLS..", 37);
	if (ending == NO_GOODBYE)
		EXPECT(shutdown(house->fd, SHUT_WR) == 0);
}

static void test_what_ends_otherwise_than_with_a_goodbye_is_broken(void)
{
	struct house house;

	begin(&house);
	for (enum ending ending = 0; ending < N_ENDINGS; ending++) {
		dial(&house, true);
		say_badly(&house, ending);
		AWAIT_OTHERS(&house.w, has_ended(&house));
	}
	EXPECT(house.n_callers == 0 && data_links_counters(house.links).joined == 0);
	EXPECT(data_links_counters(house.links).broken == N_ENDINGS);
	hang_up(&house);
	finish(&house);
}

static void test_a_start_that_was_not_taken_is_told_otherwise(void)
{
	struct house house;
	uint8_t said[512], bytes[512];

	begin(&house);
	make_warm(&house, true);
	hand_visitor(&house, 443);
	(void)read_to_end(&house, said, sizeof(said));
	const size_t n = parting_words(&house, "", 1, bytes, sizeof(bytes)); /* alive, and the end */
	say(&house, bytes, n);
	AWAIT_OTHERS(&house.w, has_ended(&house));
	EXPECT(house.n_callers == 0 && house.n_not_taken == 1);
	hang_up(&house);
	finish(&house);
}

/* It is in its agent's hands, and the door would wait for what does not come. Who is told otherwise has another to wait for. */
static void test_a_visitor_that_was_taken_when_descriptors_ran_out_is_given_up_at_once(void)
{
	struct house house;
	struct rlimit before, low;
	uint8_t said[512], bytes[64];

	begin(&house);
	EXPECT(getrlimit(RLIMIT_NOFILE, &before) == 0);
	for (unsigned is_late = 0; is_late < 2; is_late++) {
		make_warm(&house, false);
		hand_visitor(&house, 80);
		AWAIT_OTHERS(&house.w, (hear(&house), SSL_read(house.hand, said, sizeof(said))) > 0);
		if (is_late)
			AWAIT(&house.w, house.n_not_taken == 1);
		low = before;
		low.rlim_cur = 3;
		EXPECT(setrlimit(RLIMIT_NOFILE, &low) == 0);
		EXPECT(SSL_write(house.hand, (uint8_t[]){ WEBGW_TAKEN }, 1) == 1);
		say(&house, bytes, sealed(&house, bytes, sizeof(bytes)));
		AWAIT_OTHERS(&house.w, has_ended(&house));
		EXPECT(setrlimit(RLIMIT_NOFILE, &before) == 0);
		EXPECT(house.n_callers == 1 && house.caller.fd == -1 && memcmp(house.caller.secret, secret, sizeof(secret)) == 0);
		EXPECT(house.n_not_taken == is_late && data_links_counters(house.links).no_descriptors == is_late + 1);
	}
	hang_up(&house);
	finish(&house);
}

int main(void)
{
	test_a_connection_that_dials_back_goes_raw_wherever_its_bytes_are_cut();
	test_a_warm_connection_goes_raw_wherever_its_bytes_are_cut();
	test_who_speaks_no_tls_and_agents_of_before_stay_within_it();
	test_only_who_wants_it_is_told_who_the_visitor_is_with_its_start();
	test_a_visitor_waits_for_a_warm_connection_that_is_coming();
	test_what_does_not_come_is_told_otherwise_soon();
	test_a_visitor_for_whom_nobody_can_be_told_is_given_up_at_once();
	test_what_ends_otherwise_than_with_a_goodbye_is_broken();
	test_a_start_that_was_not_taken_is_told_otherwise();
	test_a_visitor_that_was_taken_when_descriptors_ran_out_is_given_up_at_once();
	return 0;
}
