/* What original agents send is understood, and what they hear is what the original server said, byte by byte. */
#include "relay/webgw/webgw_wire.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZEROS_8 "3030303030303030"
#define ZEROS	ZEROS_8 ZEROS_8 ZEROS_8 ZEROS_8 /* 32 bytes '0' in hex */

static int read_text(const char *text, struct webgw_request *ret)
{
	struct error error;

	return webgw_request_read(text, strlen(text), ret, &error);
}

static void says(char *text, const char *expected)
{
	if (strcmp(text, expected) != 0)
		fprintf(stderr, "%s\nis not\n%s\n", text, expected);
	assert(strcmp(text, expected) == 0);
	free(text);
}

static void test_an_original_agent_is_understood(void)
{
	struct webgw_request request;
	uint8_t hash[WEBGW_HASH_LEN];

	assert(read_text("{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"host\":\"www.example.com\","
			 "\"hex_secret\":\"" ZEROS "\"},\"id\":1}", &request) == 0);
	assert(request.method == WEBGW_REGISTER && request.id.kind == RPC_ID_NUMBER && request.id.number == 1);
	assert(!request.host.is_wildcard && strcmp(request.host.name.text, "www.example.com") == 0);
	const char *known = "84e0c0eafaa95a34c293f278ac52e45ce537bab5e752a00e6959a13ae103b65a";
	assert(webgw_hash_read(known, strlen(known), hash) == 0 && memcmp(hash, request.secret_hash, sizeof(hash)) == 0);

	assert(read_text("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"webgw_unregisterClient\",\"params\":[652441213985085]}",
			 &request) == 0);
	assert(request.method == WEBGW_UNREGISTER && request.subscription == 652441213985085);
	assert(read_text("{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"webgw_unregisterClient\","
			 "\"params\":{\"subscription\":5}}", &request) == 0);
	assert(request.subscription == 5 && request.id.kind == RPC_ID_TEXT && strcmp(request.id.text, "a") == 0);
}

static void test_an_agent_hears_what_the_original_server_says(void)
{
	const struct rpc_id one = { .kind = RPC_ID_NUMBER, .number = 1 }, none = { 0 };
	const struct rpc_id text = { .kind = RPC_ID_TEXT, .text = "x\"y" };
	struct webgw_visit visit = { .port = 443, .listening_port = 4658 };

	says(webgw_print_subscription(&one, 652441213985085), "{\"jsonrpc\":\"2.0\",\"result\":652441213985085,\"id\":1}");
	says(webgw_print_unsubscribed(&text, true), "{\"jsonrpc\":\"2.0\",\"result\":true,\"id\":\"x\\\"y\"}");
	says(webgw_print_error(&one, WEBGW_UNKNOWN_HOST, "Unknown host"),
	     "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-20000,\"message\":\"Unknown host\"},\"id\":1}");
	says(webgw_print_error(&none, WEBGW_WRONG_SECRET, "Wrong secret"),
	     "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-20001,\"message\":\"Wrong secret\"},\"id\":null}");
	memset(visit.secret, 0xab, sizeof(visit.secret));
	assert(host_name_from("www.example.com", 15, &visit.host) == 0);
	says(webgw_print_visit(652441213985085, &visit),
	     "{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"subscription\":652441213985085,"
	     "\"result\":{\"secret\":\"abababababababababababababababababababababababababababababababab\","
	     "\"port\":443,\"serverListeningPort\":4658,\"host\":\"www.example.com\"}}}");
}

static void test_who_asks_for_it_hears_who_a_visitor_is(void)
{
	const struct rpc_id one = { .kind = RPC_ID_NUMBER, .number = 1 };
	struct webgw_visit visit = { .port = 80, .listening_port = 4659 };
	struct webgw_request request;

	assert(read_text("{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"host\":\"a.example\","
			 "\"visitor\":true},\"id\":1}", &request) == 0 && request.wants_visitors);
	assert(read_text("{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"host\":\"a.example\","
			 "\"visitor\":false},\"id\":1}", &request) == 0 && !request.wants_visitors);
	assert(read_text("{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"host\":\"a.example\","
			 "\"visitor\":1},\"id\":1}", &request) == RPC_INVALID_PARAMS);
	says(webgw_print_telling_subscription(&one, 7),
	     "{\"jsonrpc\":\"2.0\",\"result\":{\"subscription\":7,\"visitor\":true},\"id\":1}");
	memset(visit.secret, 0xab, sizeof(visit.secret));
	assert(host_name_from("a.example", 9, &visit.host) == 0);
	assert(endpoint_parse("[fe80::1%3]:40000", &visit.visitor.from) == 0 && endpoint_parse("[fe80::2]:80", &visit.visitor.to) == 0);
	says(webgw_print_visit(7, &visit),
	     "{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"subscription\":7,"
	     "\"result\":{\"secret\":\"abababababababababababababababababababababababababababababababab\","
	     "\"port\":80,\"serverListeningPort\":4659,\"host\":\"a.example\",\"visitor\":\"[fe80::1]:40000\","
	     "\"visited\":\"[fe80::2]:80\"}}}");
}

static int register_with(const char *host, size_t n_hex, char digit)
{
	char hex[600] = "", text[1100];
	struct webgw_request request;

	memset(hex, digit, n_hex);
	snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\","
		 "\"params\":{\"host\":\"%s\",\"hex_secret\":\"%s\"},\"id\":2}", host, hex);
	const int r = read_text(text, &request);
	assert(request.id.number == 2); /* who is refused is answered by its id */
	return r;
}

static void test_a_secret_has_32_to_256_bytes_in_hex(void)
{
	assert(register_with("a.example", 64, 'a') == 0 && register_with("a.example", 512, 'F') == 0);
	assert(register_with("a.example", 62, 'a') == RPC_INVALID_PARAMS);
	assert(register_with("a.example", 65, 'a') == RPC_INVALID_PARAMS);
	assert(register_with("a.example", 514, 'a') == RPC_INVALID_PARAMS);
	assert(register_with("a.example", 64, 'g') == RPC_INVALID_PARAMS);
	assert(register_with("a.example", 0, 'a') == RPC_INVALID_PARAMS);
}

/* The original looked for the raw text: "WWW.Example.COM." and what is registered were strangers. */
static void test_one_normaliser_makes_names_of_agents_and_visitors(void)
{
	struct webgw_request request;

	assert(read_text("{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"host\":\"WWW.Example.COM.\","
			 "\"hex_secret\":\"" ZEROS "\"},\"id\":1}", &request) == 0);
	assert(strcmp(request.host.name.text, "www.example.com") == 0);
	/* What cannot be a host is nobody's; it is no error of another kind. */
	assert(read_text("{\"jsonrpc\":\"2.0\",\"method\":\"webgw_registerClient\",\"params\":{\"host\":\"10.0.0.1\","
			 "\"hex_secret\":\"" ZEROS "\"},\"id\":1}", &request) == 0);
	assert(request.host.name.len == 0);
}

static void test_what_is_no_request_is_refused_by_its_code(void)
{
	static const struct {
		const char *text;
		int code;
	} cases[] = {
		{ "", RPC_PARSE_ERROR },
		{ "{", RPC_PARSE_ERROR },
		{ "[]", RPC_INVALID_REQUEST },
		{ "{\"method\":\"webgw_registerClient\",\"id\":1}", RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1}", RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"webgw_registerClient\"}", RPC_INVALID_REQUEST },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"webgw_other\"}", RPC_METHOD_NOT_FOUND },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"webgw_registerClient\"}", RPC_INVALID_PARAMS },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"webgw_registerClient\",\"params\":[\"a\",\"b\"]}",
		  RPC_INVALID_PARAMS },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"webgw_registerClient\",\"params\":{\"host\":1,"
		  "\"hex_secret\":\"\"}}", RPC_INVALID_PARAMS },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"webgw_unregisterClient\",\"params\":[]}", RPC_INVALID_PARAMS },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"webgw_unregisterClient\",\"params\":[1,2]}",
		  RPC_INVALID_PARAMS },
		{ "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"webgw_unregisterClient\",\"params\":[\"1\"]}",
		  RPC_INVALID_PARAMS },
	};
	struct webgw_request request;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert(read_text(cases[i].text, &request) == cases[i].code);
}

static void test_a_request_of_more_than_1024_bytes_is_not_read(void)
{
	char text[1100];
	struct webgw_request request;

	snprintf(text, sizeof(text), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"webgw_unregisterClient\",\"params\":[1]%*s}",
		 1000, "");
	assert(strlen(text) > WEBGW_MAX_REQUEST && read_text(text, &request) == RPC_PARSE_ERROR);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_an_original_agent_is_understood();
	test_an_agent_hears_what_the_original_server_says();
	test_who_asks_for_it_hears_who_a_visitor_is();
	test_a_secret_has_32_to_256_bytes_in_hex();
	test_one_normaliser_makes_names_of_agents_and_visitors();
	test_what_is_no_request_is_refused_by_its_code();
	test_a_request_of_more_than_1024_bytes_is_not_read();
	return 0;
}
