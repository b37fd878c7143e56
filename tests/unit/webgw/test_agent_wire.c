#include "relay/webgw/agent_wire.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEX "abababababababababababababababababababababababababababababababab"

static struct webgw_word word;

static int hear(const char *text)
{
	return webgw_word_read(text, strlen(text), &word);
}

static void test_what_a_node_says_is_understood(void)
{
	assert(hear("{\"jsonrpc\":\"2.0\",\"result\":7,\"id\":1}") == 0);
	assert(word.kind == WEBGW_WORD_SUBSCRIBED && word.id == 1 && word.subscription == 7);
	assert(hear("{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-20001,\"message\":\"Wrong secret\"},\"id\":2}") == 0);
	assert(word.kind == WEBGW_WORD_REFUSED && word.id == 2 && word.code == -20001 && strcmp(word.text, "Wrong secret") == 0);
	assert(hear("{\"jsonrpc\":\"2.0\",\"result\":{\"secrets\":[\"" HEX "\"],\"serverListeningPort\":4659},\"id\":1000}") == 0);
	assert(word.kind == WEBGW_WORD_SECRETS && word.n == 1 && word.listening_port == 4659 && word.secrets[0][31] == 0xab);
	assert(hear("{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"subscription\":7,\"result\":"
		    "{\"secret\":\"" HEX "\",\"port\":443,\"serverListeningPort\":4659,\"host\":\"a.example\"}}}") == 0);
	assert(word.kind == WEBGW_WORD_VISIT && word.subscription == 7 && word.secret[0] == 0xab && word.port == 443);
	assert(hear("{\"jsonrpc\":\"2.0\",\"result\":true,\"id\":1}") == 0 && word.kind == WEBGW_WORD_OTHER);
}

static void test_secrets_are_heard_as_they_are_told(void)
{
	uint8_t secrets[WEBGW_PREPARE_MAX][WEBGW_EPHEMERAL_LEN];
	const struct rpc_id id = { .kind = RPC_ID_NUMBER, .number = 1001 };

	randombytes_buf(secrets, sizeof(secrets));
	char *text = webgw_print_prepared(&id, WEBGW_PREPARE_MAX, secrets, 4659);
	assert(hear(text) == 0 && word.kind == WEBGW_WORD_SECRETS && word.id == 1001 && word.n == WEBGW_PREPARE_MAX);
	assert(memcmp(word.secrets, secrets, sizeof(secrets)) == 0);
	free(text);
}

static void test_what_no_node_says_is_refused(void)
{
	static const char *const none[] = {
		"", "[]", "7",
		"{\"jsonrpc\":\"2.0\",\"result\":{\"secrets\":[\"ab\"],\"serverListeningPort\":4659},\"id\":1000}",
		"{\"jsonrpc\":\"2.0\",\"result\":{\"secrets\":[],\"serverListeningPort\":0},\"id\":1000}",
		"{\"jsonrpc\":\"2.0\",\"result\":{\"secrets\":[1,2,3,4,5,6,7,8,9],\"serverListeningPort\":1},\"id\":1000}",
		"{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"subscription\":0,\"result\":{}}}",
	};

	for (size_t i = 0; i < ARRAY_LEN(none); i++)
		assert(hear(none[i]) == -EINVAL);
}

static void test_a_start_is_whole_at_its_last_byte(void)
{
	struct webgw_start start = { .port = 443 }, heard;
	uint8_t bytes[WEBGW_START_MAX];

	memset(start.secret, 0x55, sizeof(start.secret));
	assert(host_name_from("a.example", 9, &start.host) == 0);
	const size_t n = webgw_start_write(&start, bytes);
	for (size_t i = 0; i < n; i++)
		assert(webgw_start_read(bytes, i, &heard) == 0);
	assert(webgw_start_read(bytes, n, &heard) == (int)n && heard.port == 443);
	assert(host_name_equal(&heard.host, &start.host) && memcmp(heard.secret, start.secret, 32) == 0);
	bytes[0] = WEBGW_ALIVE;
	assert(webgw_start_read(bytes, n, &heard) == -EINVAL);
	bytes[0] = WEBGW_START;
	bytes[n - 1] = ' ';
	assert(webgw_start_read(bytes, n, &heard) == -EINVAL);
}

static void test_a_start_without_tls_is_for_tls_alone_and_says_how_much_comes_with_it(void)
{
	struct webgw_start start = { .port = 443, .is_raw = true, .n_first = WEBGW_FIRST_MAX }, heard;
	uint8_t bytes[WEBGW_START_MAX];

	memset(start.secret, 0x55, sizeof(start.secret));
	assert(host_name_from("a.example", 9, &start.host) == 0);
	size_t n = webgw_start_write(&start, bytes);
	for (size_t i = 0; i < n; i++)
		assert(webgw_start_read(bytes, i, &heard) == 0);
	assert(webgw_start_read(bytes, n, &heard) == (int)n && heard.is_raw && heard.n_first == WEBGW_FIRST_MAX);
	start.n_first++;
	n = webgw_start_write(&start, bytes);
	assert(webgw_start_read(bytes, n, &heard) == -EINVAL);
	start.n_first = 0;
	start.port = 80;
	n = webgw_start_write(&start, bytes);
	assert(webgw_start_read(bytes, n, &heard) == -EINVAL);
}

static struct webgw_start start_from(const char *from, const char *to, bool is_raw)
{
	struct webgw_start start = { .port = 443, .is_raw = is_raw, .n_first = is_raw ? 5 : 0 };

	memset(start.secret, 0x55, sizeof(start.secret));
	assert(host_name_from("a.example", 9, &start.host) == 0);
	assert(endpoint_parse(from, &start.visitor.from) == 0 && endpoint_parse(to, &start.visitor.to) == 0);
	return start;
}

static void test_a_start_may_say_who_the_visitor_is(void)
{
	uint8_t bytes[WEBGW_START_MAX];
	struct webgw_start heard;

	for (int is_raw = 0; is_raw < 2; is_raw++) {
		const struct webgw_start start = start_from("192.0.2.7:40000", "198.51.100.1:443", is_raw);
		const size_t n = webgw_start_write(&start, bytes);
		assert(bytes[0] == (is_raw ? WEBGW_START_RAW_FROM : WEBGW_START_FROM));
		for (size_t i = 0; i < n; i++)
			assert(webgw_start_read(bytes, i, &heard) == 0);
		assert(webgw_start_read(bytes, n, &heard) == (int)n && heard.is_raw == is_raw && heard.n_first == start.n_first);
		assert(endpoint_equal(&heard.visitor.from, &start.visitor.from) && endpoint_equal(&heard.visitor.to, &start.visitor.to));
		bytes[0] = is_raw ? WEBGW_START_RAW : WEBGW_START; /* who does not say it is nobody, whoever came before */
		(void)webgw_start_read(bytes, n, &heard);
		assert(heard.visitor.from.port == 0);
	}
}

/* Nor is it said. */
static void test_who_comes_from_nowhere_or_to_nowhere_is_refused(void)
{
	static const char *const addresses[][2] = { { "[::]:1", "[::1]:443" }, { "[2001:db8::1]:1", "[::]:443" },
						    { "[2001:db8::1]:1", "[::1]:0" }, { "[2001:db8::1]:0", "[::1]:443" } };
	const struct webgw_start whole = start_from("[2001:db8::1]:1", "[::1]:443", false);
	uint8_t bytes[WEBGW_START_MAX];
	struct webgw_start heard;
	char text[512];

	for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
		const struct webgw_start start = start_from(addresses[i][0], addresses[i][1], false);
		size_t n = webgw_start_write(&start, bytes);
		assert(bytes[0] == WEBGW_START && webgw_start_read(bytes, n, &heard) == (int)n);
		n = webgw_start_write(&whole, bytes);
		struct wire_writer w = wire_writer(bytes + n - 2 * ENDPOINT_WIRE_LEN, 2 * ENDPOINT_WIRE_LEN);
		wire_put_endpoint(&w, &start.visitor.from);
		wire_put_endpoint(&w, &start.visitor.to);
		assert(webgw_start_read(bytes, n, &heard) == -EINVAL);
		snprintf(text, sizeof(text), "{\"method\":\"x\",\"params\":{\"subscription\":7,\"result\":{\"secret\":\"" HEX "\","
			 "\"serverListeningPort\":4659,\"visitor\":\"%s\",\"visited\":\"%s\"}}}", addresses[i][0], addresses[i][1]);
		assert(hear(text) == -EINVAL);
	}
}

#define VISIT "{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"subscription\":7,\"result\":{\"secret\":\"" HEX "\",\"serverListeningPort\":1"

static void test_a_visit_may_say_who_the_visitor_is(void)
{
	static const char *const none[] = { ",\"visitor\":\"192.0.2.7:1\"", ",\"visited\":\"192.0.2.7:1\"", ",\"visitor\":7,\"visited\":8",
					    ",\"visitor\":\"bob:1\",\"visited\":\"192.0.2.7:1\"", ",\"visitor\":\"192.0.2.7\",\"visited\":\"192.0.2.7:1\"",
					    ",\"visitor\":null,\"visited\":null" };
	char text[512];

	assert(hear(VISIT ",\"visitor\":\"192.0.2.7:40000\",\"visited\":\"198.51.100.1:443\",\"host\":\"a.example\"}}}") == 0);
	assert(strcmp(endpoint_text(&word.visitor.from).s, "192.0.2.7:40000") == 0 && strcmp(word.host.text, "a.example") == 0);
	assert(strcmp(endpoint_text(&word.visitor.to).s, "198.51.100.1:443") == 0);
	assert(hear(VISIT ",\"host\":\" \"}}}") == 0 && word.visitor.from.port == 0 && word.host.len == 0);
	for (size_t i = 0; i < ARRAY_LEN(none); i++) {
		snprintf(text, sizeof(text), VISIT "%s}}}", none[i]);
		assert(hear(text) == -EINVAL);
	}
}

static void test_whether_visitors_are_told_is_said_with_the_subscription(void)
{
	assert(hear("{\"jsonrpc\":\"2.0\",\"result\":{\"subscription\":7,\"visitor\":true},\"id\":1}") == 0);
	assert(word.kind == WEBGW_WORD_SUBSCRIBED && word.subscription == 7 && word.tells_visitors);
	assert(hear("{\"jsonrpc\":\"2.0\",\"result\":7,\"id\":1}") == 0 && !word.tells_visitors);
	assert(hear("{\"jsonrpc\":\"2.0\",\"result\":{\"subscription\":0,\"visitor\":true},\"id\":1}") == -EINVAL);
	assert(hear("{\"jsonrpc\":\"2.0\",\"result\":{\"subscription\":7,\"visitor\":1},\"id\":1}") == -EINVAL);
}

static void test_what_an_agent_says_is_understood(void)
{
	struct webgw_request request;
	struct host_pattern host;
	struct error error;

	assert(host_pattern_from("*.a.example", 11, &host) == 0);
	char *text = webgw_print_register(3, &host, HEX, false);
	assert(webgw_request_read(text, strlen(text), &request, &error) == 0 && request.has_secret && request.id.number == 3);
	assert(request.host.is_wildcard && host_name_equal(&request.host.name, &host.name));
	free(text);
	text = webgw_print_register(3, &host, NULL, false);
	assert(webgw_request_read(text, strlen(text), &request, &error) == 0 && !request.has_secret);
	assert(!request.wants_visitors);
	free(text);
	text = webgw_print_register(3, &host, NULL, true);
	assert(webgw_request_read(text, strlen(text), &request, &error) == 0 && request.wants_visitors);
	free(text);
	text = webgw_print_prepare(1000, 7, 8);
	assert(webgw_request_read(text, strlen(text), &request, &error) == 0 && request.method == WEBGW_PREPARE);
	assert(request.subscription == 7 && request.count == 8);
	free(text);
	text = webgw_print_unregister(2000, 7);
	assert(webgw_request_read(text, strlen(text), &request, &error) == 0 && request.method == WEBGW_UNREGISTER);
	assert(request.subscription == 7);
	free(text);
	text = webgw_print_prepare(1000, 7, 9);
	assert(webgw_request_read(text, strlen(text), &request, &error) == RPC_INVALID_PARAMS);
	free(text);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_what_a_node_says_is_understood();
	test_secrets_are_heard_as_they_are_told();
	test_what_no_node_says_is_refused();
	test_a_start_is_whole_at_its_last_byte();
	test_a_start_without_tls_is_for_tls_alone_and_says_how_much_comes_with_it();
	test_a_start_may_say_who_the_visitor_is();
	test_who_comes_from_nowhere_or_to_nowhere_is_refused();
	test_a_visit_may_say_who_the_visitor_is();
	test_whether_visitors_are_told_is_said_with_the_subscription();
	test_what_an_agent_says_is_understood();
	return 0;
}
