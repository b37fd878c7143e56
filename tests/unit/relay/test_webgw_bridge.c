/*
 * A bridge between TLS and a plain socket shares its loop with all others:
 *
 *   a thread that writes ──► plain ──► bridge: this loop ══ TLS ══► a thread that reads whatever comes
 */
#include "world.h"

#include "common/macros.h"
#include "relay/webgw/tls_bridge.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MUCH	   ((uint64_t)48 << 20)
#define TURN_BYTES (2 * (256 * 1024 + 16384)) /* before it polls, and behind that; each with the record that was begun */

struct house {
	struct world w;
	struct member member;
	struct tls_bridge bridge;
	int plain, far; /* of the threads: the other end of the plain socket, and of the hand's */
	bool is_ready, is_over, is_closed;
};

static void pair_up(int ret[2])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	EXPECT(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 1) == 0);
	EXPECT(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
	ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	EXPECT(connect(ret[0], (struct sockaddr *)&address, sizeof(address)) == 0);
	ret[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	EXPECT(ret[1] >= 0);
	close(listener);
}

/* ---- the threads ---- */

static void *write_much(void *owner)
{
	static const uint8_t zeros[65536];
	const struct house *house = owner;

	for (uint64_t n = 0; n < MUCH;) {
		const ssize_t sent = send(house->plain, zeros, sizeof(zeros), MSG_NOSIGNAL);
		EXPECT(sent > 0);
		n += (uint64_t)sent;
	}
	return NULL;
}

static void *read_all(void *owner)
{
	static uint8_t bytes[1 << 20];
	const struct house *house = owner;

	while (recv(house->far, bytes, sizeof(bytes), 0) > 0)
		continue;
	return NULL;
}

/* ---- the bridge ---- */

static void on_ready(void *owner)
{
	((struct house *)owner)->is_ready = true;
}

static void on_nothing(void *owner)
{
	(void)owner;
}

static void on_over(void *owner, const struct error *why)
{
	(void)why;
	((struct house *)owner)->is_over = true;
}

static void on_closed(void *owner)
{
	((struct house *)owner)->is_closed = true;
}

static bool has_shaken_hands(const struct house *house, SSL *hand)
{
	uint8_t bytes[4096];
	ssize_t got;
	int n;

	while ((got = recv(house->far, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		EXPECT(BIO_write(SSL_get_rbio(hand), bytes, (int)got) == (int)got);
	const bool is_done = SSL_do_handshake(hand) == 1;
	while ((n = BIO_read(SSL_get_wbio(hand), bytes, sizeof(bytes))) > 0)
		EXPECT(send(house->far, bytes, (size_t)n, MSG_NOSIGNAL) == n);
	return is_done;
}

static void begin(struct house *house)
{
	const struct tls_bridge_ports ports = { .owner = house, .ready = on_ready, .came = on_nothing, .parted = on_nothing, .over = on_over };
	int tls[2], plain[2];

	*house = (struct house){ 0 };
	world_begin(&house->w);
	make_member(&house->member, &house->w, "hand", 1);
	pair_up(tls);
	pair_up(plain);
	house->far = tls[0];
	house->plain = plain[0];
	EXPECT(tls_bridge_open_server(&house->bridge, house->w.host, house->w.server_options.context, tls[1], &ports) == 0);
	SSL *hand = SSL_new(house->member.context);
	EXPECT(hand != NULL);
	SSL_set_bio(hand, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(hand);
	AWAIT_OTHERS(&house->w, has_shaken_hands(house, hand) && house->is_ready);
	SSL_free(hand); /* what comes from here on is not looked at */
	EXPECT(tls_bridge_join(&house->bridge, plain[1]) == 0);
	tls_bridge_pass(&house->bridge);
}

static void finish(struct house *house)
{
	tls_bridge_close(&house->bridge, on_closed);
	AWAIT(&house->w, house->is_closed);
	close(house->plain);
	close_member(&house->member);
	world_end(&house->w);
}

/* What is read in a turn of the loop has a bound, however much there is and however fast it is taken. */
static void test_a_visitor_in_bulk_lets_others_have_their_turn(void)
{
	const uint64_t until_ms = uv_hrtime() / 1000000 + AWAIT_MS;
	pthread_t writer, reader;
	struct house house;
	uint64_t most = 0;

	begin(&house);
	EXPECT(send(house.plain, "odd", 3, MSG_NOSIGNAL) == 3); /* records and what goes out at once do not end together */
	AWAIT_OTHERS(&house.w, tls_bridge_moved(&house.bridge) == 3);
	EXPECT(pthread_create(&writer, NULL, write_much, &house) == 0);
	EXPECT(pthread_create(&reader, NULL, read_all, &house) == 0);
	while (tls_bridge_moved(&house.bridge) < MUCH) {
		const uint64_t before = tls_bridge_moved(&house.bridge);
		turn(&house.w, until_ms, "all is carried", __FILE__, __LINE__);
		const uint64_t n = tls_bridge_moved(&house.bridge) - before;
		most = n > most ? n : most;
	}
	EXPECT(!house.is_over && most > 0);
	if (most > TURN_BYTES)
		fprintf(stderr, "%lu bytes in one turn\n", (unsigned long)most);
	EXPECT(most <= TURN_BYTES);
	EXPECT(pthread_join(writer, NULL) == 0);
	finish(&house);
	EXPECT(pthread_join(reader, NULL) == 0);
	close(house.far);
}

int main(void)
{
	test_a_visitor_in_bulk_lets_others_have_their_turn();
	return 0;
}
