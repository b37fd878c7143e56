/* Join links and admin links: what is printed parses to the same, and nothing else does. */
#include "common/join_link.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define PIN   "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define KEY   "jk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
#define TOKEN "at_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

static void expect_same(const char *text)
{
	struct join_link link;

	assert(join_link_parse(text, &link, NULL) == 0);
	assert(strcmp(join_link_text(&link).s, text) == 0);
}

static void expect_refused(const char *text, const char *why)
{
	struct join_link link = { .port = 7 };
	struct error err;

	assert(join_link_parse(text, &link, &err) == -EINVAL);
	if (strncmp(err.message, why, strlen(why)) != 0)
		fprintf(stderr, "%s\n", err.message);
	assert(strncmp(err.message, why, strlen(why)) == 0);
	assert(link.port == 7); /* untouched */
}

static void test_links_print_as_they_were_read(void)
{
	expect_same("p2p://control.example.org:8443/#" PIN "." KEY);
	expect_same("p2p://198.51.100.1:443/#" PIN "." KEY);
	expect_same("p2p://[2001:db8::1]:8443/#" PIN "." KEY);
	expect_same("p2p-admin://control:65535/#" PIN "." TOKEN);
}

static void test_the_parts_are_found(void)
{
	struct join_link link;

	assert(join_link_parse("  p2p://[::1]:8443/#" PIN "." KEY "\r\n", &link, NULL) == 0);
	assert(link.kind == JOIN_LINK_NODE && link.port == 8443);
	assert(strcmp(link.host, "::1") == 0 && strcmp(link.secret, KEY) == 0);
	for (int i = 0; i < PIN_LEN; i++)
		assert(link.pin.bytes[i] == i);
}

static void test_whatever_is_not_a_whole_link_is_refused(void)
{
	expect_refused("", "not a link");
	expect_refused("https://x:1/#" PIN "." KEY, "not a link");
	expect_refused("p2p://x:1/#" PIN, "the link is not complete");
	expect_refused("p2p://x:1", "the link is not complete");
	expect_refused("p2p://x/#" PIN "." KEY, "the link's HOST:PORT");
	expect_refused("p2p://x:0/#" PIN "." KEY, "the link's HOST:PORT");
	expect_refused("p2p://x:65536/#" PIN "." KEY, "the link's HOST:PORT");
	expect_refused("p2p://:1/#" PIN "." KEY, "the link's HOST:PORT");
	expect_refused("p2p://a b:1/#" PIN "." KEY, "something follows");
	expect_refused("p2p://[x]:1/#" PIN "." KEY, "the link's HOST:PORT");
	expect_refused("p2p://::1:1/#" PIN "." KEY, "the link's HOST:PORT");
	expect_refused("p2p://x:1/#" PIN "A." KEY, "the link's pin");
	expect_refused("p2p://x:1/#" PIN "." KEY "A", "the link's key");
	expect_refused("p2p://x:1/#" PIN ".jk_", "the link's key");
	expect_refused("p2p://x:1/#" PIN "." TOKEN, "the link's key"); /* a token joins no node */
	expect_refused("p2p://x:1/#" PIN "." KEY " more", "something follows");
}

static void test_errors_keep_the_secret(void)
{
	struct join_link link;
	struct error err;

	assert(join_link_parse("p2p://x:0/#" PIN "." KEY, &link, &err) != 0);
	assert(!strstr(err.message, KEY));
}

static void test_made_secrets_are_valid_and_differ(void)
{
	char a[JOIN_LINK_SECRET_LEN + 1], b[JOIN_LINK_SECRET_LEN + 1];

	join_link_make_secret(JOIN_LINK_NODE, a);
	join_link_make_secret(JOIN_LINK_NODE, b);
	assert(join_link_secret_is_valid(JOIN_LINK_NODE, a) && strcmp(a, b) != 0);
	assert(!join_link_secret_is_valid(JOIN_LINK_ADMIN, a));
}

static void test_host_and_port(void)
{
	char host[JOIN_LINK_MAX_HOST + 1];
	uint16_t port;

	assert(host_port_parse("control", 8443, host, &port) == 0 && port == 8443);
	assert(host_port_parse("[::1]", 1, host, &port) == 0 && strcmp(host, "::1") == 0);
	assert(host_port_parse("control", 0, host, &port) == -EINVAL);
	assert(host_port_parse("control:", 1, host, &port) == -EINVAL);
	assert(host_port_parse("[::1]x", 1, host, &port) == -EINVAL);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_links_print_as_they_were_read();
	test_the_parts_are_found();
	test_whatever_is_not_a_whole_link_is_refused();
	test_errors_keep_the_secret();
	test_made_secrets_are_valid_and_differ();
	test_host_and_port();
	puts("ok");
}
