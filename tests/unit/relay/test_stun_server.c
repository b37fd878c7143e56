/*
 * The STUN server on loopback: tells who asks from where, from the address that was asked, and never
 * with more bytes than the question had.
 */
#include "common/stun_wire.h"
#include "relay/udp_server.h"
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct bench {
	struct world w; /* for its loop */
	struct udp_server *server;
	uint16_t port;
	bool stopped;
};

static void begin(struct bench *b, const struct udp_server_options *options)
{
	struct error err = { 0 };

	*b = (struct bench){ 0 };
	world_begin(&b->w);
	if (udp_server_start(&b->w.loop, options, &b->server, &err) != 0)
		fprintf(stderr, "%s\n", err.message);
	EXPECT(b->server != NULL);
	b->port = udp_server_port(b->server);
}

static void on_stopped(void *owner)
{
	((struct bench *)owner)->stopped = true;
}

static void finish(struct bench *b)
{
	udp_server_stop(b->server, on_stopped, b);
	AWAIT(&b->w, b->stopped);
	world_end(&b->w);
}

static struct stun_server_counters stun_counters(const struct bench *b)
{
	return udp_server_counters(b->server).stun;
}

static struct endpoint at(const char *ip, uint16_t port)
{
	struct endpoint endpoint;

	EXPECT(endpoint_parse_ip(ip, port, &endpoint) == 0);
	return endpoint;
}

/* A client's socket, with its own address. */
static int client_at(const char *ip, struct endpoint *ret)
{
	struct endpoint any = at(ip, 0);
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(&any, &address);
	int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0);
	len = sizeof(address);
	EXPECT(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*ret = endpoint_from_sockaddr((struct sockaddr *)&address);
	return fd;
}

static void ask_bytes(int fd, const struct endpoint *server, const void *bytes, size_t n)
{
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(server, &address);

	EXPECT(sendto(fd, bytes, n, 0, (struct sockaddr *)&address, len) == (ssize_t)n);
}

static void ask(int fd, const struct endpoint *server, const struct stun_message *question)
{
	uint8_t buf[STUN_MAX_LEN];

	ask_bytes(fd, server, buf, stun_encode(buf, sizeof(buf), question));
}

/* The answer, its length and where it came from. */
static size_t answer(struct bench *b, int fd, struct stun_message *ret, struct endpoint *ret_from)
{
	uint8_t buf[STUN_MAX_LEN];
	struct sockaddr_storage address = { 0 };
	socklen_t len = sizeof(address);
	ssize_t n = -1;

	for (int i = 0; i < 1000 && n < 0; i++) {
		n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&address, &len);
		if (n < 0)
			run_for(&b->w, 1);
	}
	EXPECT(n > 0 && stun_decode(buf, (size_t)n, ret) == 0);
	*ret_from = endpoint_from_sockaddr((struct sockaddr *)&address);
	return (size_t)n;
}

static void test_who_asks_is_told_from_where(const char *listen, const char *server_ip, const char *client_ip)
{
	struct bench b;
	struct udp_server_options options = { .n_listen = 1, .listen = { at(listen, 0) } };
	struct stun_message question, seen;
	struct endpoint mine, from;
	begin(&b, &options);
	struct endpoint server = at(server_ip, b.port);
	int fd = client_at(client_ip, &mine);

	stun_make_request(&question, &(struct stun_tx){ { 1, 2, 3 } });
	ask(fd, &server, &question);
	EXPECT(answer(&b, fd, &seen, &from) <= STUN_REQUEST_LEN);
	EXPECT(seen.class == STUN_SUCCESS && seen.has_fingerprint && stun_tx_equal(&seen.tx, &question.tx));
	EXPECT(endpoint_equal(&seen.mapped, &mine));
	EXPECT(endpoint_equal(&from, &server) && endpoint_equal(&seen.response_origin, &server));
	AWAIT_OTHERS(&b.w, stun_counters(&b).answered == 1);

	close(fd);
	finish(&b);
}

static void test_an_answer_is_never_larger_than_the_question(void)
{
	struct bench b;
	struct udp_server_options options = { .n_listen = 1, .listen = { at("127.0.0.1", 0) } };
	struct stun_message question = { .class = STUN_REQUEST, .method = STUN_METHOD_BINDING }, seen;
	struct endpoint mine, from;
	begin(&b, &options);
	struct endpoint server = at("127.0.0.1", b.port);
	int fd = client_at("127.0.0.1", &mine);

	/* 20 bytes leave no room for an address: no answer. */
	ask(fd, &server, &question);
	AWAIT_OTHERS(&b.w, stun_counters(&b).too_small == 1);
	/* From 32 on there is room for it, and for nothing else. */
	for (size_t n_software = 1; n_software <= 60; n_software++) {
		uint8_t buf[STUN_MAX_LEN];
		memset(question.software, 'x', n_software);
		size_t asked = stun_encode(buf, sizeof(buf), &question);
		ask(fd, &server, &question);
		if (asked < 32) {
			AWAIT_OTHERS(&b.w, stun_counters(&b).too_small == 1 + n_software);
			continue;
		}
		EXPECT(answer(&b, fd, &seen, &from) <= asked);
		EXPECT(endpoint_equal(&seen.mapped, &mine));
	}
	close(fd);
	finish(&b);
}

static void test_what_is_not_a_question_is_counted_and_not_answered(void)
{
	struct bench b;
	struct udp_server_options options = { .n_listen = 1, .listen = { at("127.0.0.1", 0) } };
	struct stun_message m;
	struct endpoint mine, from;
	begin(&b, &options);
	struct endpoint server = at("127.0.0.1", b.port);
	int fd = client_at("127.0.0.1", &mine);
	uint8_t noise[2000] = { 1, 2, 3 };

	ask_bytes(fd, &server, noise, 100);
	ask_bytes(fd, &server, noise, 0);
	ask_bytes(fd, &server, noise, sizeof(noise));
	stun_make_request(&m, &(struct stun_tx){ { 7 } });
	m.class = STUN_SUCCESS; /* an answer of a mirror: two servers must not talk to each other */
	ask(fd, &server, &m);
	m.class = STUN_REQUEST;
	m.method = 3;
	ask(fd, &server, &m);
	stun_make_request(&m, &(struct stun_tx){ { 8 } });
	ask(fd, &server, &m);
	answer(&b, fd, &m, &from);

	AWAIT_OTHERS(&b.w, stun_counters(&b).answered == 1);
	struct stun_server_counters counters = stun_counters(&b);
	EXPECT(counters.received == 6 && counters.garbage == 3 && counters.not_a_request == 2 &&
	       counters.answered == 1);
	close(fd);
	finish(&b);
}

static void test_an_attribute_not_understood_is_refused_by_name(void)
{
	struct bench b;
	struct udp_server_options options = { .n_listen = 1, .listen = { at("127.0.0.1", 0) } };
	struct stun_message question, seen;
	struct endpoint mine, from;
	begin(&b, &options);
	struct endpoint server = at("127.0.0.1", b.port);
	int fd = client_at("127.0.0.1", &mine);

	/* One address only: it cannot answer from another. */
	stun_make_request(&question, &(struct stun_tx){ { 9 } });
	question.has_change_request = question.change_ip = true;
	ask(fd, &server, &question);
	answer(&b, fd, &seen, &from);
	EXPECT(seen.class == STUN_ERROR && seen.error_code == 420);
	EXPECT(seen.n_unknown == 1 && seen.unknown[0] == 0x0003);
	EXPECT(endpoint_is_none(&seen.mapped));
	close(fd);
	finish(&b);
}

static uint16_t free_port(void)
{
	struct endpoint mine;

	close(client_at("127.0.0.1", &mine));
	return mine.port;
}

static void test_with_one_address_it_answers_from_the_other_port(const char *listen, const char *server_ip)
{
	struct bench b;
	struct udp_server_options options = { .n_listen = 1, .listen = { at(listen, 0) }, .other_port = free_port() };
	struct stun_message question, seen;
	struct endpoint mine, from;
	begin(&b, &options);
	const struct endpoint server = at(server_ip, b.port), other = at(server_ip, options.other_port);
	int fd = client_at("127.0.0.1", &mine);

	for (int way = 0; way < 3; way++) { /* asked at either port; with a change of the port */
		const struct endpoint *asked = way == 1 ? &other : &server, *expected = way == 0 ? &server : &other;
		stun_make_request(&question, &(struct stun_tx){ { (uint8_t)way } });
		question.has_change_request = question.change_port = way == 2;
		ask(fd, asked, &question);
		EXPECT(answer(&b, fd, &seen, &from) <= STUN_REQUEST_LEN);
		EXPECT(seen.class == STUN_SUCCESS && endpoint_equal(&seen.mapped, &mine));
		EXPECT(endpoint_equal(&from, expected) && endpoint_equal(&seen.response_origin, expected));
		EXPECT(endpoint_equal(&seen.other_address, way == 1 ? &server : &other));
	}
	close(fd);
	finish(&b);
}

static void test_an_answer_goes_to_another_port_of_the_asker_and_is_no_larger(void)
{
	struct bench b;
	struct udp_server_options options = { .n_listen = 1, .listen = { at("127.0.0.1", 0) } };
	struct stun_message question, seen;
	struct endpoint mine, others, from;
	uint8_t buf[STUN_MAX_LEN];
	begin(&b, &options);
	const struct endpoint server = at("127.0.0.1", b.port);
	int fd = client_at("127.0.0.1", &mine), other = client_at("127.0.0.1", &others);

	stun_make_request(&question, &(struct stun_tx){ { 5 } });
	question.response_port = others.port;
	const size_t asked = stun_encode(buf, sizeof(buf), &question);
	ask_bytes(fd, &server, buf, asked);
	EXPECT(answer(&b, other, &seen, &from) <= asked);
	EXPECT(seen.class == STUN_SUCCESS && endpoint_equal(&seen.mapped, &mine) && endpoint_equal(&from, &server));
	close(fd);
	close(other);
	finish(&b);
}

static void test_a_second_port_that_is_taken_is_done_without(void)
{
	struct bench b;
	struct stun_message question, seen;
	struct endpoint taken, mine, from;
	int in_the_way = client_at("127.0.0.1", &taken), fd = client_at("127.0.0.1", &mine);
	struct udp_server_options options = { .n_listen = 1, .listen = { at("127.0.0.1", 0) }, .other_port = taken.port };
	begin(&b, &options);
	const struct endpoint server = at("127.0.0.1", b.port);

	stun_make_request(&question, &(struct stun_tx){ { 6 } });
	ask(fd, &server, &question);
	answer(&b, fd, &seen, &from);
	EXPECT(endpoint_equal(&seen.mapped, &mine) && endpoint_is_none(&seen.other_address));
	question.has_change_request = question.change_port = true;
	ask(fd, &server, &question);
	answer(&b, fd, &seen, &from);
	EXPECT(seen.class == STUN_ERROR && seen.error_code == 420);
	close(fd);
	close(in_the_way);
	finish(&b);
}

static void test_a_source_that_asks_too_often_waits(void)
{
	struct bench b;
	struct udp_server_options options = {
		.n_listen = 1, .listen = { at("127.0.0.1", 0) }, .stun_rate_per_s = 1, .stun_burst = 10
	};
	struct stun_message question, seen;
	struct endpoint mine, from;
	begin(&b, &options);
	struct endpoint server = at("127.0.0.1", b.port);
	int fd = client_at("127.0.0.1", &mine), other = client_at("127.0.9.1", &mine);

	stun_make_request(&question, &(struct stun_tx){ { 9 } });
	for (int i = 0; i < 100; i++)
		ask(fd, &server, &question);
	AWAIT_OTHERS(&b.w, stun_counters(&b).received == 100);
	EXPECT(stun_counters(&b).answered <= 11);
	ask(other, &server, &question); /* of another prefix */
	answer(&b, other, &seen, &from);
	close(fd);
	close(other);
	finish(&b);
}

static void test_with_two_addresses_and_ports_it_answers_from_another(void)
{
	struct bench b;
	struct stun_message question, seen;
	struct endpoint mine, from;
	struct udp_server_options options = { .n_listen = 2,
					       .listen = { at("127.0.0.1", 0), at("127.0.0.2", 0) } };
	options.other_port = free_port();
	begin(&b, &options);
	struct endpoint server = at("127.0.0.1", b.port), other = at("127.0.0.2", options.other_port);
	int fd = client_at("127.0.0.1", &mine);

	for (int change = 0; change < 4; change++) {
		struct endpoint expected = at(change & 2 ? "127.0.0.2" : "127.0.0.1",
					      change & 1 ? options.other_port : b.port);
		stun_make_request(&question, &(struct stun_tx){ { (uint8_t)change } });
		question.has_change_request = change != 0;
		question.change_ip = change & 2;
		question.change_port = change & 1;
		ask(fd, &server, &question);
		answer(&b, fd, &seen, &from);
		EXPECT(seen.class == STUN_SUCCESS && endpoint_equal(&seen.mapped, &mine));
		EXPECT(endpoint_equal(&from, &expected) && endpoint_equal(&seen.response_origin, &expected));
		EXPECT(endpoint_equal(&seen.other_address, &other));
	}
	close(fd);
	finish(&b);
}

int main(void)
{
	int fd6 = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	test_who_asks_is_told_from_where("127.0.0.1", "127.0.0.1", "127.0.0.1");
	test_who_asks_is_told_from_where("0.0.0.0", "127.0.0.3", "127.0.0.1");
	if (fd6 >= 0) {
		test_who_asks_is_told_from_where("::", "127.0.0.5", "127.0.0.1");
		test_who_asks_is_told_from_where("::1", "::1", "::1");
		test_who_asks_is_told_from_where("::", "::1", "::1");
		close(fd6);
	}
	test_an_answer_is_never_larger_than_the_question();
	test_what_is_not_a_question_is_counted_and_not_answered();
	test_an_attribute_not_understood_is_refused_by_name();
	test_a_source_that_asks_too_often_waits();
	test_with_two_addresses_and_ports_it_answers_from_another();
	test_with_one_address_it_answers_from_the_other_port("127.0.0.1", "127.0.0.1");
	test_with_one_address_it_answers_from_the_other_port("0.0.0.0", "127.0.0.3");
	test_an_answer_goes_to_another_port_of_the_asker_and_is_no_larger();
	test_a_second_port_that_is_taken_is_done_without();
	puts("ok");
	return 0;
}
