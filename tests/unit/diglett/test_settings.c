/* [diglett] and [diglett-agent] of p2pnode.conf: what they set, and which mistakes are told. */
#include "node/config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY "028d7500dd4c12685d1f568b4c2b5048e8534b873319f3a8daa612b469132ec7f7"

static struct diglett_settings settings_of(const char *text)
{
	static struct node_config config;
	struct error error;

	if (node_config_parse("f", text, strlen(text), &config, &error) != 0) {
		printf("%s\n", error.message);
		abort();
	}
	return config.diglett;
}

static void expect_error(const char *text, const char *expected)
{
	static struct node_config config;
	struct error error = { 0 };

	assert(node_config_parse("f", text, strlen(text), &config, &error) == -EINVAL);
	if (!strstr(error.message, expected))
		printf("expected: %s\ngot:      %s\n", expected, error.message);
	assert(strstr(error.message, expected));
}

static void test_without_the_sections_there_is_neither(void)
{
	const struct diglett_settings none = settings_of("");

	assert(!none.is_server && !none.is_agent);
}

static void test_a_server_needs_its_section_only(void)
{
	const struct diglett_settings server = settings_of("[diglett]\n");

	assert(server.is_server && !server.allow_v1 && settings_of("[diglett]\nallow_v1 = yes\n").allow_v1);
	assert(!server.is_agent && server.listen.port == 20000 && endpoint_is_none(&server.info));
	assert(strcmp(settings_of("[diglett]\ntokens = /etc/tokens\n").tokens, "/etc/tokens") == 0);
	expect_error("[diglett]\ntokens = tokens\n", "a path that begins with '/'");
	expect_error("[diglett]\ntokens = /t\nlisten = 70000\n", "a TCP port, or an IP address and a port");
	expect_error("[diglett]\ntokens = /t\ndomain = a_b\n", "a domain, such as");
}

static void test_an_agent_has_a_server_its_key_a_token_and_names(void)
{
	const struct diglett_settings agent =
		settings_of("[diglett-agent]\nserver = [2001:db8::1]:20000\nserver_key = " KEY "\ntoken_file = /t\n"
			    "expose = app 127.0.0.1:8080\nexpose = B.example.org [::1]:22\n");

	assert(agent.is_agent && strcmp(agent.host, "2001:db8::1") == 0 && agent.port == 20000 && agent.n_ports == 2);
	assert(strcmp(agent.names[1].text, "b.example.org") == 0 && agent.targets[1].port == 22);
	assert(agent.server_key.bytes[0] == 2 && agent.server_key.bytes[32] == 0xf7);
}

static void test_mistakes_about_an_agent_are_told(void)
{
#define AGENT "[diglett-agent]\nserver = gate:20000\nserver_key = " KEY "\ntoken_file = /t\n"
	expect_error("[diglett-agent]\nexpose = app 127.0.0.1:80\n", "needs server and server_key");
	expect_error(AGENT, "1 to 8 lines of expose");
	expect_error(AGENT "expose = app 127.0.0.1:80\nexpose = APP 127.0.0.1:81\n", "app stands twice");
	expect_error(AGENT "expose = app 8080\n", "a name and where it is");
	expect_error(AGENT "expose = a_b 127.0.0.1:80\n", "a name and where it is");
	expect_error("[diglett-agent]\nserver = gate\n", "a host and a port");
	expect_error("[diglett-agent]\nserver = 2001:db8::1:20000\n", "a host and a port");
	expect_error("[diglett-agent]\nserver_key = 04ab\n", "66 hex digits");
}

int main(void)
{
	test_without_the_sections_there_is_neither();
	test_a_server_needs_its_section_only();
	test_an_agent_has_a_server_its_key_a_token_and_names();
	test_mistakes_about_an_agent_are_told();
	return 0;
}
