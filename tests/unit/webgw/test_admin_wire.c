/* What is asked of webgw's HTTP interface is understood or refused by its status, and answered as the original did. */
#include "relay/webgw/admin_wire.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH "84e0c0eafaa95a34c293f278ac52e45ce537bab5e752a00e6959a13ae103b65a"

static struct webgw_admin_request request;
static const char *allow;
static struct error error;

static int ask(enum http_method method, const char *path, const char *body)
{
	struct http_request http = { .method = method };

	snprintf(http.path, sizeof(http.path), "%s", path);
	return webgw_admin_read(&http, body, strlen(body), &request, &allow, &error);
}

static int add(const char *body)
{
	return ask(HTTP_POST, "/api/v1/proxy", body);
}

static bool is_host(const char *name, bool is_wildcard)
{
	return request.host.is_wildcard == is_wildcard && strcmp(request.host.name.text, name) == 0;
}

static void test_what_the_original_has_is_understood(void)
{
	assert(ask(HTTP_GET, "/api/v1/proxy", "") == 0 && request.what == WEBGW_ADMIN_HOSTS);
	assert(add("{\"host\": \"WWW.Example.com.\", \"hexSecretHash\": \"" HASH "\", \"more\": 1}") == 0);
	assert(request.what == WEBGW_ADMIN_ADD && is_host("www.example.com", false) && request.hash[0] == 0x84);
	assert(ask(HTTP_DELETE, "/api/v1/proxy/www.example.com", "") == 0);
	assert(request.what == WEBGW_ADMIN_REMOVE && is_host("www.example.com", false));
}

static void test_one_host_and_clients_can_be_asked_for(void)
{
	assert(ask(HTTP_GET, "/api/v1/proxy/*.Example.com", "") == 0);
	assert(request.what == WEBGW_ADMIN_HOST && is_host("example.com", true));
	assert(ask(HTTP_HEAD, "/api/v1/proxy/%2a.example.com", "") == 0 && is_host("example.com", true));
	assert(ask(HTTP_GET, "/api/v1/clients", "") == 0 && request.what == WEBGW_ADMIN_CLIENTS);
}

static void test_what_is_not_there_is_not_found(void)
{
	static const char *const paths[] = { "/", "/api/v1", "/api/v1/proxy/", "/api/v1/proxyx", "/api/v1/proxy/a/b",
					     "/api/v1/proxy/10.0.0.1", "/api/v1/proxy/%", "/api/v1/proxy/%2", "/api/v1/proxy/%zz.a",
					     "/api/v1/proxy/a%00.example", "/api/v1/clients/", "*" };

	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		assert(ask(HTTP_GET, paths[i], "") == 404);
}

/* Else the host that is removed is another than was asked for. */
static void test_a_path_that_was_cut_names_nobody(void)
{
	char path[400] = "/api/v1/proxy/";

	for (int i = 0; i < 120; i++)
		strcat(path, "%61");
	assert(ask(HTTP_DELETE, path, "") == 404);
	path[strlen("/api/v1/proxy/") + 3 * 60] = '\0';
	assert(ask(HTTP_DELETE, path, "") == 0 && request.host.name.len == 60);
}

static void test_other_methods_are_told_which_there_are(void)
{
	assert(ask(HTTP_DELETE, "/api/v1/proxy", "") == 405 && strcmp(allow, "GET, HEAD, POST") == 0);
	assert(ask(HTTP_OTHER, "/api/v1/proxy", "") == 405);
	assert(ask(HTTP_POST, "/api/v1/proxy/a.example", "{}") == 405 && strcmp(allow, "GET, HEAD, DELETE") == 0);
	assert(ask(HTTP_POST, "/api/v1/clients", "{}") == 405 && strcmp(allow, "GET, HEAD") == 0);
}

static void test_a_body_that_says_no_host_is_refused_with_what_is_wrong(void)
{
	static const struct {
		const char *body, *why;
	} bad[] = {
		{ "", "no JSON" },
		{ "host=a.example", "no JSON" },
		{ "[]", "the body is to be" },
		{ "{\"host\":\"a.example\"}", "the body is to be" },
		{ "{\"host\":1,\"hexSecretHash\":\"" HASH "\"}", "the body is to be" },
		{ "{\"host\":\"10.0.0.1\",\"hexSecretHash\":\"" HASH "\"}", "no name such as" },
		{ "{\"host\":\"\",\"hexSecretHash\":\"" HASH "\"}", "no name such as" },
		{ "{\"host\":\"a.example\",\"hexSecretHash\":\"84e0\"}", "64 hex digits" },
		{ "{\"host\":\"a.example\",\"hexSecretHash\":\"" HASH "00\"}", "64 hex digits" },
		{ "{\"host\":\"a.example\",\"host\":\"b.example\",\"hexSecretHash\":\"" HASH "\"}", "no JSON" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert(add(bad[i].body) == 400 && strstr(error.message, bad[i].why));
}

static void says(struct json *json, const char *expected)
{
	char *text = json_print(json);

	if (strcmp(text, expected) != 0)
		fprintf(stderr, "%s\nis not\n%s\n", text, expected);
	assert(strcmp(text, expected) == 0);
	free(text);
	json_free(json);
}

static void test_a_host_and_a_client_are_told_in_this_form(void)
{
	struct webgw_admin_host host = { .read = 7, .written = UINT64_MAX, .visitors = 3, .visitors_now = 1, .n_clients = 2,
					 .balance = WEBGW_ROUND_ROBIN };
	const struct subscription_facts facts = { .host = &host.host, .id = 5, .n_waiting = 1, .n_open = 4, .n_dialled = 2, .n_unanswered = 1, .is_resting = true };
	const struct endpoint remote = endpoint_from_v4(0xc6336404, 40000);

	assert(host_pattern_from("*.example.com", 13, &host.host) == 0);
	assert(webgw_hash_read(HASH, strlen(HASH), host.hash) == 0);
	says(webgw_admin_host_json(&host), "{\"host\":\"*.example.com\",\"hexSecretHash\":\"" HASH "\",\"read\":7,"
					   "\"written\":999999999999999,\"visitors\":3,\"visitorsNow\":1,\"clients\":2,"
					   "\"balance\":\"round-robin\"}");
	says(webgw_admin_client_json(&facts, &remote, 61),
	     "{\"host\":\"*.example.com\",\"address\":\"198.51.100.4:40000\",\"subscription\":5,\"connectedSeconds\":61,"
	     "\"waiting\":1,\"open\":4,\"dialled\":2,\"unanswered\":1,\"resting\":true}");
	char *text = webgw_admin_print_error("no \"such\" host");
	assert(strcmp(text, "{\"error\":\"no \\\"such\\\" host\"}") == 0);
	free(text);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_what_the_original_has_is_understood();
	test_one_host_and_clients_can_be_asked_for();
	test_what_is_not_there_is_not_found();
	test_a_path_that_was_cut_names_nobody();
	test_other_methods_are_told_which_there_are();
	test_a_body_that_says_no_host_is_refused_with_what_is_wrong();
	test_a_host_and_a_client_are_told_in_this_form();
	return 0;
}
