/* p2pnode.conf: defaults, a public node, and what is refused although each value by itself is fine. */
#include "node/config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void expect_error(const char *text, const char *expected)
{
	struct node_config config = { .mtu = 7 };
	struct error error = { 0 };

	assert(node_config_parse("p2pnode.conf", text, strlen(text), &config, &error) == -EINVAL);
	if (strcmp(error.message, expected) != 0)
		fprintf(stderr, "expected: %s\ngot:      %s\n", expected, error.message);
	assert(strcmp(error.message, expected) == 0);
	assert(config.mtu == 7); /* the candidate did not become the configuration */
}

static void test_without_a_file_everything_has_its_default(void)
{
	struct node_config config;

	node_config_init(&config);
	assert(config.name[0] == '\0' && strcmp(config.interface, "p2p0") == 0);
	assert(config.listen_port == 0 && config.mtu == 1280 && config.log_level == LOG_LEVEL_INFO);
	assert(!config.is_public && config.n_addresses == 0);
	assert(config.tls_port == 443 && config.stun_port == 3478);
	for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++)
		assert(!config.offloads.off[kind]);
}

static void test_a_public_section_makes_a_public_node(void)
{
	const char *text = "[node]\nname = gate-1\nlisten_port = 51820\nlog_level = debug\n"
			   "[public]\naddress = 198.51.100.1\naddress = 2001:db8::1\ntls_port = 8443\n";
	struct node_config config;

	assert(node_config_parse("f", text, strlen(text), &config, NULL) == 0);
	assert(strcmp(config.name, "gate-1") == 0 && config.listen_port == 51820);
	assert(config.log_level == LOG_LEVEL_DEBUG);
	assert(config.is_public && config.n_addresses == 2 && config.tls_port == 8443);
	assert(strcmp(endpoint_ip_text(&config.addresses[1]).s, "2001:db8::1") == 0);
}

static void test_an_empty_public_section_is_enough(void)
{
	struct node_config config;

	assert(node_config_parse("f", "[public]\n", 9, &config, NULL) == 0);
	assert(config.is_public && config.n_addresses == 0 && config.tls_port == 443 && config.metrics.port == 0);
	assert(config.max_rate_client == 10000000000 && config.max_rate == 0);
}

static void test_rates_are_bits_a_second_with_a_unit_or_none(void)
{
	const char *text = "[public]\nmax_rate_client = 500M\nmax_rate = 64000\nmetrics = [::1]:9100\n";
	struct node_config config;

	assert(node_config_parse("f", text, strlen(text), &config, NULL) == 0);
	assert(config.max_rate_client == 500000000 && config.max_rate == 64000 && config.metrics.port == 9100);
}

static void test_each_offload_can_be_switched_off(void)
{
	const char *text = "[offloads]\ntun_gso_read = no\nudp_gro = off\nudp_gso = yes\n";
	struct node_config config;

	assert(node_config_parse("f", text, strlen(text), &config, NULL) == 0);
	for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++)
		assert(config.offloads.off[kind] ==
		       (kind == OFFLOAD_TUN_GSO_READ || kind == OFFLOAD_UDP_GRO));
}

static void test_mistakes_are_told_with_line_and_remedy(void)
{
	expect_error("[public]\nadress = 198.51.100.1\n",
		     "p2pnode.conf:2: unknown key 'adress' in [public]; did you mean 'address'?");
	expect_error("[public]\nmetrics = 9100\n",
		     "p2pnode.conf:2: metrics = 9100: must be an IP address and a port, such as 127.0.0.1:9100 or "
		     "[::1]:9100");
	expect_error("[public]\nmax_rate = 10Mbit\n",
		     "p2pnode.conf:2: max_rate = 10Mbit: must be bits a second, such as 500M or 10G, or 0 for no limit");
	expect_error("[public]\nmax_rate_client = 1000001G\n",
		     "p2pnode.conf:2: max_rate_client = 1000001G: must be bits a second, such as 500M or 10G, or 0 for "
		     "no limit");
	expect_error("[public]\naddress = example.org\n",
		     "p2pnode.conf:2: address = example.org: must be a numeric IP address without a port, such as "
		     "198.51.100.1 or 2001:db8::1");
	expect_error("[public]\naddress = 0.0.0.0\n",
		     "p2pnode.conf:2: address = 0.0.0.0: must be a numeric IP address without a port, such as "
		     "198.51.100.1 or 2001:db8::1");
	expect_error("[public]\naddress = 192.0.2.1\naddress = 192.0.2.1\n",
		     "p2pnode.conf:3: address 192.0.2.1 stands twice in [public]; keep one");
	expect_error("[public]\naddress=1.0.0.1\naddress=1.0.0.2\naddress=1.0.0.3\naddress=1.0.0.4\n"
		     "address=1.0.0.5\n",
		     "p2pnode.conf:6: more than 4 addresses in [public]; keep those that others reach");
	expect_error("[node]\nmtu = 1279\n", "p2pnode.conf:2: mtu = 1279: must be a whole number from 1280 to 9000");
	expect_error("[node]\nname = Alice\n",
		     "p2pnode.conf:2: name = Alice: must be one to 63 of a-z, 0-9 and '-', with no '-' at either "
		     "end, such as web-1");
	expect_error("[node]\ninterface = a/b\n",
		     "p2pnode.conf:2: interface = a/b: must be the name of a network interface, such as p2p0");
	expect_error("[node]\nlog_level = loud\n",
		     "p2pnode.conf:2: log_level = loud: must be one of error, warning, info, debug, trace");
}

static void test_the_printed_defaults_are_a_valid_file(void)
{
	char *text = node_config_defaults_text();
	struct node_config config = { 0 };

	assert(node_config_parse("f", text, strlen(text), &config, NULL) == 0);
	assert(config.mtu == 1280 && !config.is_public);
	free(text);
}

static void test_a_missing_file_is_told_with_its_remedy(void)
{
	struct node_config config;
	struct error error;

	assert(node_config_load("/nonexistent/p2pnode.conf", &config, &error) == -ENOENT);
	assert(strcmp(error.message,
		      "/nonexistent/p2pnode.conf: no such file; create it (p2pnode --show-defaults prints one) or "
		      "name another with --config") == 0);
}

static void test_a_file_is_read_from_disk(void)
{
	char path[] = "/tmp/p2pnode-test-XXXXXX";
	int fd = mkstemp(path);
	struct node_config config;

	assert(fd >= 0 && write(fd, "[node]\nmtu = 1400\n", 18) == 18);
	close(fd);
	assert(node_config_load(path, &config, NULL) == 0 && config.mtu == 1400);
	unlink(path);
}

int main(void)
{
	test_without_a_file_everything_has_its_default();
	test_a_public_section_makes_a_public_node();
	test_an_empty_public_section_is_enough();
	test_rates_are_bits_a_second_with_a_unit_or_none();
	test_each_offload_can_be_switched_off();
	test_mistakes_are_told_with_line_and_remedy();
	test_the_printed_defaults_are_a_valid_file();
	test_a_missing_file_is_told_with_its_remedy();
	test_a_file_is_read_from_disk();
	return 0;
}
