/* [webgw-agent] of p2pnode.conf: what it sets, and which mistakes are told. */
#include "node/config.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define PIN   "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define BEGIN "[webgw-agent]\nserver = gate.example.org:9081\nserver_pin = " PIN "\n"

static struct node_config config;

static void expect_error(const char *text, const char *what)
{
	struct error error = { 0 };

	assert(node_config_parse("test", text, strlen(text), &config, &error) != 0);
	if (!strstr(error.message, what)) {
		fprintf(stderr, "%s: %s\n", what, error.message);
		assert(false && "the mistake is told");
	}
}

static void test_an_agent_has_a_server_its_pin_and_hosts(void)
{
	const char *text = BEGIN "secret_file = /s\nexpose = WWW.example.com 127.0.0.1:8080\nexpose = *.example.com [::1]:22\n";
	struct error error;

	assert(node_config_parse("test", text, strlen(text), &config, &error) == 0);
	const struct webgw_agent_settings *agent = &config.webgw_agent;
	assert(agent->is_agent && strcmp(agent->server, "gate.example.org") == 0 && agent->port == 9081 && agent->n_warm == 4);
	assert(agent->n_hosts == 2 && strcmp(agent->hosts[0].name.text, "www.example.com") == 0);
	assert(agent->hosts[1].is_wildcard && agent->targets[1].http.port == 22 && strcmp(agent->secret_file, "/s") == 0);
}

static void test_http_and_https_of_a_host_may_have_targets_of_their_own(void)
{
	const char *text = BEGIN "expose = https://a.example 127.0.0.1:8443\nexpose = b.example 127.0.0.1:1\n"
				 "expose = http://A.example [::1]:8080\nexpose = http://c.example 127.0.0.1:2\n";
	struct error error;
	char told[WEBGW_AGENT_TARGETS_LEN + 1];

	assert(node_config_parse("test", text, strlen(text), &config, &error) == 0);
	const struct webgw_agent_settings *agent = &config.webgw_agent;
	assert(agent->n_hosts == 3 && agent->targets[0].https.port == 8443 && agent->targets[0].http.port == 8080);
	webgw_agent_targets_text(&agent->targets[0], told);
	assert(strcmp(told, "http://[::1]:8080 https://127.0.0.1:8443") == 0);
	assert(agent->targets[1].https.port == 1 && agent->targets[1].http.port == 1);
	webgw_agent_targets_text(&agent->targets[1], told);
	assert(strcmp(told, "127.0.0.1:1") == 0);
	assert(agent->targets[2].https.port == 0 && agent->targets[2].http.port == 2);
	webgw_agent_targets_text(&agent->targets[2], told);
	assert(strcmp(told, "http://127.0.0.1:2") == 0);
}

static void test_a_target_may_be_told_who_its_visitors_are(void)
{
	const char *text = BEGIN "expose = https://a.example 127.0.0.1:8443  proxy=v2\nexpose = http://a.example 127.0.0.1:8080 proxy=v1\n"
				 "expose = b.example 127.0.0.1:1 proxy=v2\nexpose = c.example [::1]:2 proxy=none\n"
				 "expose = https://d.example [::1]:3 proxy=v1\nexpose = http://d.example [::1]:3\n";
	struct error error;
	char told[WEBGW_AGENT_TARGETS_LEN + 1];

	assert(node_config_parse("test", text, strlen(text), &config, &error) == 0);
	const struct webgw_agent_targets *targets = config.webgw_agent.targets;
	assert(config.webgw_agent.n_hosts == 4 && targets[0].https_header == DOOR_HEADER_V2 && targets[0].http_header == DOOR_HEADER_V1);
	assert(targets[1].https_header == DOOR_HEADER_V2 && targets[1].http_header == DOOR_HEADER_V2);
	assert(!webgw_agent_targets_want_visitors(&targets[2]) && webgw_agent_targets_want_visitors(&targets[3]));
	webgw_agent_targets_text(&targets[0], told);
	assert(strcmp(told, "http://127.0.0.1:8080 proxy=v1 https://127.0.0.1:8443 proxy=v2") == 0);
	webgw_agent_targets_text(&targets[1], told);
	assert(strcmp(told, "127.0.0.1:1 proxy=v2") == 0);
	webgw_agent_targets_text(&targets[3], told);
	assert(strcmp(told, "http://[::1]:3 https://[::1]:3 proxy=v1") == 0);
}

static void test_there_is_none_without_the_section(void)
{
	node_config_init(&config);
	assert(!config.webgw_agent.is_agent);
}

static void test_mistakes_are_told(void)
{
	expect_error("[webgw-agent]\nexpose = a.example 127.0.0.1:80\n", "needs server and server_pin");
	expect_error(BEGIN, "1 to 16 hosts with expose");
	expect_error(BEGIN "expose = a.example 127.0.0.1:80\nexpose = A.example 127.0.0.1:81\n", "stands twice");
	expect_error(BEGIN "expose = a.example 127.0.0.1:80\nexpose = https://a.example 127.0.0.1:81\n", "stands twice");
	expect_error(BEGIN "expose = https://a.example 127.0.0.1:80\nexpose = https://a.example 127.0.0.1:81\n", "stands twice");
	expect_error(BEGIN "expose = tcp:22 127.0.0.1:22\n", "a host and where it is");
	expect_error(BEGIN "expose = a.example\n", "a host and where it is");
	expect_error(BEGIN "expose = a.example 127.0.0.1:80 proxy=v3\n", "behind the target proxy=v1, proxy=v2 or nothing; not 'proxy=v3'");
	expect_error(BEGIN "expose = a.example 127.0.0.1:80 proxy=v1 proxy=v2\n", "behind the target proxy=v1");
	expect_error(BEGIN "expose = a.example proxy=v1\n", "a host and where it is");
	expect_error("[webgw-agent]\nserver = gate\n", "a host and a port");
	expect_error("[webgw-agent]\nserver_pin = AA\n", "the pin of the public node");
	expect_error(BEGIN "warm = 17\nexpose = a.example 127.0.0.1:80\n", "16");
	expect_error(BEGIN "secret_file = s\nexpose = a.example 127.0.0.1:80\n", "a path that begins with '/'");
}

int main(void)
{
	test_there_is_none_without_the_section();
	test_an_agent_has_a_server_its_pin_and_hosts();
	test_http_and_https_of_a_host_may_have_targets_of_their_own();
	test_a_target_may_be_told_who_its_visitors_are();
	test_mistakes_are_told();
	return 0;
}
