/* One port for relay and hosts: whose a visitor is, for every name, protocol and ALPN; and the queue to the relay. */
#include "relay/frontdoor/door_routes.h"
#include "relay/frontdoor/door_share.h"
#include "relay/frontdoor/hand_over.h"

#include "common/macros.h"
#include "hello.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RELAY  "p2pnode-relay/1"
#define SOCKET "p2p-webgw-ws"
#define DIAL   "p2p-webgw/2"

static struct host_name name_of(const char *text)
{
	struct host_name name;

	assert(host_name_from(text, strlen(text), &name) == 0);
	return name;
}

static const struct door_share alone, relay_too = { .has_relay = true }, all = { .has_relay = true, .has_webgw = true };

static enum door_whose whose(const void *bytes, size_t n, struct door_share share, const char *own)
{
	const struct host_name name = own ? name_of(own) : (struct host_name){ 0 };
	struct sniffer sniffer;

	sniffer_init(&sniffer);
	assert(sniffer_read(&sniffer, bytes, n) != SNIFFER_MORE);
	return door_share_decide(&sniffer, share, &name);
}

static enum door_whose whose_hello(const struct hello_options *options, struct door_share share)
{
	uint8_t message[4096], records[8192];
	const size_t len = hello_build(options, message, sizeof(message));

	return whose(records, hello_in_records(message, len, 1000, records, sizeof(records)), share, "gate");
}

static void test_by_server_name_and_alpn_on_a_shared_port(void)
{
	static const struct {
		struct hello_options hello;
		enum door_whose shared, apart;
	} rows[] = {
		{ { .names = { "gate" } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_NOBODY },
		{ { .names = { "GATE." } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_NOBODY },
		{ { .names = { "gate" }, .alpn = { RELAY } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_NOBODY },
		{ { .names = { "gate" }, .alpn = { "h2", "http/1.1" } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_NOBODY },
		{ { .names = { "gate" }, .alpn = { "acme-tls/1" } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_NOBODY },
		{ { .names = { NULL } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_REFUSED },
		{ { .names = { NULL }, .alpn = { RELAY } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_REFUSED },
		{ { .is_old = true }, DOOR_WHOSE_RELAY, DOOR_WHOSE_REFUSED },
		{ { .names = { "192.0.2.1" } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_REFUSED },
		{ { .names = { "app.demo" } }, DOOR_WHOSE_ROUTES, DOOR_WHOSE_ROUTES },
		{ { .names = { "x.gate" } }, DOOR_WHOSE_ROUTES, DOOR_WHOSE_ROUTES },
		{ { .names = { "app.demo" }, .alpn = { "h2", "http/1.1" } }, DOOR_WHOSE_ROUTES, DOOR_WHOSE_ROUTES },
		{ { .names = { "old-name" }, .alpn = { RELAY } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_ROUTES },
		{ { .names = { "old-name" }, .alpn = { "h2", RELAY } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_ROUTES },
		{ { .names = { "old-name" }, .alpn = { RELAY "0" } }, DOOR_WHOSE_ROUTES, DOOR_WHOSE_ROUTES },
		{ { .names = { "gate", "app.demo" } }, DOOR_WHOSE_REFUSED, DOOR_WHOSE_REFUSED },
		{ { .names = { "gate" }, .repeats_extension = true }, DOOR_WHOSE_REFUSED, DOOR_WHOSE_REFUSED },
		{ { .names = { "ga te" }, .alpn = { RELAY } }, DOOR_WHOSE_REFUSED, DOOR_WHOSE_REFUSED },
		{ { .names = { "gate" }, .trailing = 1 }, DOOR_WHOSE_REFUSED, DOOR_WHOSE_REFUSED },
		{ { .names = { "gate" }, .is_other = true }, DOOR_WHOSE_REFUSED, DOOR_WHOSE_REFUSED },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const enum door_whose shared = whose_hello(&rows[i].hello, relay_too), apart = whose_hello(&rows[i].hello, alone);
		if (shared != rows[i].shared || apart != rows[i].apart)
			printf("row %zu: %d, %d\n", i, (int)shared, (int)apart);
		assert(shared == rows[i].shared && apart == rows[i].apart);
	}
}

static void test_with_webgw_there_the_nodes_own_are_parted_by_alpn(void)
{
	static const struct {
		struct hello_options hello;
		enum door_whose whose, without; /* webgw */
	} rows[] = {
		{ { .names = { "gate" }, .alpn = { "http/1.1" } }, DOOR_WHOSE_WEBGW, DOOR_WHOSE_RELAY },
		{ { .names = { "gate" }, .alpn = { "h2", "http/1.1" } }, DOOR_WHOSE_WEBGW, DOOR_WHOSE_RELAY },
		{ { .names = { NULL }, .alpn = { "http/1.1" } }, DOOR_WHOSE_WEBGW, DOOR_WHOSE_RELAY },
		{ { .names = { "192.0.2.1" }, .alpn = { "http/1.1" } }, DOOR_WHOSE_WEBGW, DOOR_WHOSE_RELAY },
		{ { .names = { "app.demo" }, .alpn = { "http/1.1" } }, DOOR_WHOSE_ROUTES, DOOR_WHOSE_ROUTES },
		{ { .names = { "gate.example.org" }, .alpn = { SOCKET, "http/1.1" } }, DOOR_WHOSE_WEBGW, DOOR_WHOSE_ROUTES },
		{ { .names = { NULL }, .alpn = { SOCKET, "http/1.1" } }, DOOR_WHOSE_WEBGW, DOOR_WHOSE_RELAY },
		{ { .names = { "gate" }, .alpn = { DIAL } }, DOOR_WHOSE_DIAL_BACK, DOOR_WHOSE_RELAY },
		{ { .names = { NULL }, .alpn = { DIAL } }, DOOR_WHOSE_DIAL_BACK, DOOR_WHOSE_RELAY },
		{ { .names = { "192.0.2.1" }, .alpn = { DIAL } }, DOOR_WHOSE_DIAL_BACK, DOOR_WHOSE_RELAY },
		{ { .names = { "gate.example.org" }, .alpn = { DIAL } }, DOOR_WHOSE_DIAL_BACK, DOOR_WHOSE_ROUTES },
		{ { .names = { "gate" }, .alpn = { "http/1.1", DIAL } }, DOOR_WHOSE_DIAL_BACK, DOOR_WHOSE_RELAY },
		{ { .names = { "gate" }, .alpn = { DIAL "0" } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_RELAY },
		{ { .names = { "gate" }, .alpn = { "http/1.1", DIAL, RELAY } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_RELAY },
		{ { .names = { "gate" }, .alpn = { "h2" } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_RELAY },
		{ { .names = { "gate" } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_RELAY },
		{ { .names = { NULL } }, DOOR_WHOSE_RELAY, DOOR_WHOSE_RELAY },
		{ { .is_old = true }, DOOR_WHOSE_RELAY, DOOR_WHOSE_RELAY },
		{ { .names = { "ga te" }, .alpn = { DIAL } }, DOOR_WHOSE_REFUSED, DOOR_WHOSE_REFUSED },
		{ { .names = { NULL }, .alpn = { DIAL }, .trailing = 1 }, DOOR_WHOSE_REFUSED, DOOR_WHOSE_REFUSED },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const enum door_whose with = whose_hello(&rows[i].hello, all), without = whose_hello(&rows[i].hello, relay_too);
		if (with != rows[i].whose || without != rows[i].without)
			printf("row %zu: %d, %d\n", i, (int)with, (int)without);
		assert(with == rows[i].whose && without == rows[i].without);
	}
}

static void test_what_is_not_tls_is_never_the_relays(void)
{
	static const struct {
		const char *said;
		enum door_whose whose;
	} rows[] = {
		{ "GET / HTTP/1.1\r\nHost: gate\r\n\r\n", DOOR_WHOSE_NOBODY },
		{ "GET / HTTP/1.1\r\nHost: app.demo\r\n\r\n", DOOR_WHOSE_ROUTES },
		{ "GET / HTTP/1.1\r\n\r\n", DOOR_WHOSE_REFUSED },
		{ "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", DOOR_WHOSE_REFUSED },
		{ "\1\2\3\4", DOOR_WHOSE_REFUSED },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert(whose(rows[i].said, strlen(rows[i].said), all, "gate") == rows[i].whose);
}

static void test_without_a_name_of_its_own_names_are_the_routes(void)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: gate\r\n\r\n";

	assert(whose(request, strlen(request), all, NULL) == DOOR_WHOSE_ROUTES);
}

static int add(struct door_routes *routes, const char *text)
{
	struct door_rule rule;

	assert(door_rule_parse(text, &rule, NULL) == 0);
	return door_routes_add(routes, &rule, &rule.address);
}

static void test_the_own_name_is_no_hosts_neither_exactly_nor_by_a_wildcard(void)
{
	struct door_routes *routes = door_routes_new(4);
	const struct host_name own = name_of("gate.example.org"), other = name_of("app.example.org");

	door_routes_set_own_name(routes, &own);
	assert(host_name_equal(door_routes_own_name(routes), &own));
	assert(add(routes, "Gate.Example.org. 127.0.0.1:1") == -EPERM);
	assert(add(routes, "https://gate.example.org 127.0.0.1:1") == -EPERM);
	assert(add(routes, "*.example.org 127.0.0.1:2") == 0);
	assert(add(routes, "*.gate.example.org 127.0.0.1:3") == 0);
	for (int protocol = SNIFFER_TLS; protocol <= SNIFFER_QUIC; protocol++) {
		assert(!door_routes_find(routes, (enum sniffer_protocol)protocol, &own));
		assert(door_routes_find(routes, (enum sniffer_protocol)protocol, &other));
	}
	door_routes_free(routes);
}

/* ---- the table of the document ---- */

#define OWN_REQUEST   "GET / HTTP/1.1\r\nHost: gate\r\n\r\n"
#define OTHER_REQUEST "GET / HTTP/1.1\r\nHost: app.demo\r\n\r\n"

static const struct row {
	const char *what, *happens;
	struct hello_options hello;
	const char *request; /* instead of the hello */
} document_rows[] = {
	{ "TLS, ALPN offers `p2pnode-relay/1`, whatever the server name", "to the relay", .hello = { .names = { "app.demo" }, .alpn = { "h2", RELAY } } },
	{ "TLS, ALPN offers `p2p-webgw/2`, the same", "to webgw: who dials back", .hello = { .names = { "app.demo" }, .alpn = { DIAL } } },
	{ "TLS, ALPN offers `p2p-webgw-ws`, the same", "to webgw: its WebSocket",
	  .hello = { .names = { "app.demo" }, .alpn = { SOCKET, "http/1.1" } } },
	{ "TLS, server name: the node's own name, and ALPN offers `http/1.1`", "to webgw: its WebSocket",
	  .hello = { .names = { "gate" }, .alpn = { "h2", "http/1.1" } } },
	{ "TLS, the node's own name, without ALPN", "to the relay", .hello = { .names = { "gate" } } },
	{ "TLS, the node's own name, and other ALPN (`h2` alone, `acme-tls/1`)", "to the relay",
	  .hello = { .names = { "gate" }, .alpn = { "h2" } } },
	{ "TLS without a server name, or an IP address as server name, and ALPN offers `http/1.1`", "to webgw: its WebSocket",
	  .hello = { .names = { "192.0.2.1" }, .alpn = { "http/1.1" } } },
	{ "TLS without a server name, or an IP address as server name", "to the relay", .hello = { .names = { NULL } } },
	{ "TLS, any other server name", "to its host, as below", .hello = { .names = { "app.demo" } } },
	{ "HTTP with the node's own name", "`unknown host`, reset", .request = OWN_REQUEST },
	{ "HTTP with any other name", "to its host, as below", .request = OTHER_REQUEST },
	{ "what is refused below, but for a hello without a name", "refused as below",
	  .hello = { .names = { "gate" }, .repeats_extension = true } },
};

static const char *happens_to(const struct row *row)
{
	static const char *const words[] = {
		[DOOR_WHOSE_ROUTES] = "to its host, as below",
		[DOOR_WHOSE_RELAY] = "to the relay",
		[DOOR_WHOSE_WEBGW] = "to webgw: its WebSocket",
		[DOOR_WHOSE_DIAL_BACK] = "to webgw: who dials back",
		[DOOR_WHOSE_NOBODY] = "`unknown host`, reset",
		[DOOR_WHOSE_REFUSED] = "refused as below",
	};

	return words[row->request ? whose(row->request, strlen(row->request), all, "gate") : whose_hello(&row->hello, all)];
}

static void test_the_document_has_what_happens(const char *path)
{
	static char document[100000];
	FILE *file = fopen(path, "r");
	char line[256];

	assert(file);
	document[fread(document, 1, sizeof(document) - 1, file)] = '\0';
	fclose(file);
	const char *at = strstr(document, "| what comes to the shared port | what happens |\n|---|---|\n");
	assert(at);
	at = strstr(at, "|---|---|\n") + strlen("|---|---|\n");
	for (size_t i = 0; i < ARRAY_LEN(document_rows); i++) {
		snprintf(line, sizeof(line), "| %s | %s |\n", document_rows[i].what, document_rows[i].happens);
		if (strncmp(at, line, strlen(line)) != 0)
			printf("expected in the document: %s", line);
		assert(strncmp(at, line, strlen(line)) == 0);
		assert(strcmp(happens_to(&document_rows[i]), document_rows[i].happens) == 0);
		at += strlen(line);
	}
	assert(*at != '|'); /* no row that is not here */
}

/* ---- the queue ---- */

static int any_fd(void)
{
	const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert(fd >= 0);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void test_who_is_handed_over_comes_with_address_and_bytes_in_order(void)
{
	const struct endpoint remote[] = { endpoint_from_v4(0xc0000201, 1000), endpoint_from_v4(0xc0000202, 2000) };
	const struct handed_over *handed;
	struct hand_over queue;

	hand_over_init(&queue, HAND_OVER_MAX_SOURCE);
	assert(!hand_over_peek(&queue));
	assert(hand_over_put(&queue, DOOR_WHOSE_RELAY, 7, &remote[0], 1, (const uint8_t *)"first", 5));
	assert(hand_over_put(&queue, DOOR_WHOSE_RELAY, 8, &remote[1], 2, (const uint8_t *)"", 0));
	handed = hand_over_peek(&queue);
	assert(handed->fd == 7 && endpoint_equal(&handed->remote, &remote[0]) && handed->n == 5 &&
	       memcmp(handed->bytes, "first", 5) == 0);
	hand_over_done(&queue);
	handed = hand_over_peek(&queue);
	assert(handed->fd == 8 && endpoint_equal(&handed->remote, &remote[1]) && handed->n == 0);
	hand_over_done(&queue);
	assert(!hand_over_peek(&queue));
	hand_over_deinit(&queue);
}

static void test_the_queue_is_bounded_by_visitors_and_by_bytes(void)
{
	static const uint8_t bytes[HAND_OVER_MAX_HELLO + 1];
	const struct endpoint remote = endpoint_from_v4(0xc0000201, 1000);
	struct hand_over queue;
	uint32_t n = 0;

	hand_over_init(&queue, HAND_OVER_MAX_SOURCE);
	while (hand_over_put(&queue, DOOR_WHOSE_RELAY, -1, &remote, (uint16_t)(n / 8), bytes, 100))
		n++;
	assert(n == HAND_OVER_MAX);
	hand_over_peek(&queue);
	hand_over_done(&queue);
	assert(hand_over_put(&queue, DOOR_WHOSE_RELAY, -1, &remote, 0, bytes, 100)); /* room again */
	hand_over_deinit(&queue);

	hand_over_init(&queue, HAND_OVER_MAX_SOURCE);
	assert(!hand_over_put(&queue, DOOR_WHOSE_RELAY, -1, &remote, 0, bytes, HAND_OVER_MAX_HELLO + 1));
	for (n = 0; hand_over_put(&queue, DOOR_WHOSE_RELAY, -1, &remote, (uint16_t)n, bytes, HAND_OVER_MAX_HELLO); n++)
		;
	assert(n > 100 && n <= HAND_OVER_BYTES / HAND_OVER_MAX_HELLO);
	hand_over_deinit(&queue);
}

static void test_one_source_has_a_part_of_the_queue_until_it_is_taken(void)
{
	static const uint8_t bytes[HAND_OVER_MAX_HELLO];
	const struct endpoint remote = endpoint_from_v4(0xc0000201, 1000);
	struct hand_over queue;
	uint32_t n = 0;

	hand_over_init(&queue, HAND_OVER_MAX_SOURCE);
	while (hand_over_put(&queue, DOOR_WHOSE_RELAY, -1, &remote, 65535, bytes, sizeof(bytes)))
		n++;
	assert(n == HAND_OVER_MAX_SOURCE);
	assert(hand_over_put(&queue, DOOR_WHOSE_RELAY, -1, &remote, 0, bytes, sizeof(bytes))); /* another */
	while (hand_over_peek(&queue))
		hand_over_done(&queue);
	for (n = 0; hand_over_put(&queue, DOOR_WHOSE_RELAY, -1, &remote, 65535, bytes, 1); n++)
		;
	assert(n == HAND_OVER_MAX_SOURCE);
	hand_over_deinit(&queue);
}

static void test_who_is_left_in_the_queue_is_closed_with_it(void)
{
	const struct endpoint remote = endpoint_from_v4(0xc0000201, 1000);
	const int first = any_fd(), second = any_fd(), full = any_fd();
	struct hand_over queue;

	hand_over_init(&queue, HAND_OVER_MAX_SOURCE);
	assert(hand_over_put(&queue, DOOR_WHOSE_RELAY, first, &remote, 0, (const uint8_t *)"a", 1));
	assert(hand_over_put(&queue, DOOR_WHOSE_RELAY, second, &remote, 0, (const uint8_t *)"b", 1));
	while (hand_over_put(&queue, DOOR_WHOSE_RELAY, -1, &remote, 0, (const uint8_t *)"c", 1))
		;
	assert(!hand_over_put(&queue, DOOR_WHOSE_RELAY, full, &remote, 0, (const uint8_t *)"d", 1));
	hand_over_deinit(&queue);
	assert(!is_open(first) && !is_open(second) && is_open(full)); /* who has no room stays the caller's */
	close(full);
}

int main(int argc, char **argv)
{
	assert(sodium_init() >= 0 && argc == 2);
	test_the_document_has_what_happens(argv[1]);
	test_by_server_name_and_alpn_on_a_shared_port();
	test_with_webgw_there_the_nodes_own_are_parted_by_alpn();
	test_what_is_not_tls_is_never_the_relays();
	test_without_a_name_of_its_own_names_are_the_routes();
	test_the_own_name_is_no_hosts_neither_exactly_nor_by_a_wildcard();
	test_who_is_handed_over_comes_with_address_and_bytes_in_order();
	test_the_queue_is_bounded_by_visitors_and_by_bytes();
	test_one_source_has_a_part_of_the_queue_until_it_is_taken();
	test_who_is_left_in_the_queue_is_closed_with_it();
	printf("ok\n");
	return 0;
}
