/* p2pnode.conf: defaults, a public node, and what is refused although each value by itself is fine. */
#include "node/config.h"

#include "common/macros.h"

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
	assert(config.listen_port == 0 && config.mtu == 8920 && config.log_level == LOG_LEVEL_INFO);
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
	assert(config.max_rate_client == 10000000000 && config.max_rate == 0 && config.stun_rate == 100);
}

static void test_rates_are_bits_a_second_with_a_unit_or_none(void)
{
	const char *text = "[public]\nstun_rate = 7\nmax_rate_client = 500M\nmax_rate = 64000\nmetrics = [::1]:9100\n";
	struct node_config config;

	assert(node_config_parse("f", text, strlen(text), &config, NULL) == 0);
	assert(config.max_rate_client == 500000000 && config.max_rate == 64000 && config.metrics.port == 9100);
	assert(config.stun_rate == 7);
}

static void test_a_frontdoor_section_opens_the_front_door(void)
{
	const char *beside = "[frontdoor]\nlisten = 198.51.100.1:443\nhost = a.example 127.0.0.1:443\n";
	const char *text = "[frontdoor]\nhost = http://app.example.org 127.0.0.1:8080\n"
			   "host = https://app.example.org alice:8443\nmax_visitors = 100\n";
	struct node_config config;

	assert(node_config_parse("f", "", 0, &config, NULL) == 0 && !config.has_front_door);
	assert(node_config_parse("f", "[frontdoor]\n", 12, &config, NULL) == 0);
	assert(config.has_front_door && config.n_door_hosts == 0 && config.n_door_listen == 2 && config.door_quic);
	assert(config.door_listen[0].port == 80 && config.door_listen[1].port == 443);
	assert(node_config_parse("f", text, strlen(text), &config, NULL) == 0);
	assert(config.n_door_hosts == 2 && config.max_visitors == 100);
	assert(strcmp(config.door_hosts[1], "https://app.example.org alice:8443") == 0);
	assert(node_config_parse("f", beside, strlen(beside), &config, NULL) == 0); /* one port, two addresses */
}

static void test_front_door_and_relay_may_have_one_port(void)
{
	static const char *const texts[] = {
		"[public]\n[frontdoor]\n",
		"[public]\naddress = 198.51.100.1\n[frontdoor]\nlisten = 198.51.100.1:443\n",
		"[public]\naddress = 198.51.100.1\n[frontdoor]\nlisten = 443\n",
		"[public]\naddress = 198.51.100.1\n[frontdoor]\nlisten = 0.0.0.0:443\n",
		"[public]\naddress = 198.51.100.1\naddress = 198.51.100.2\n[frontdoor]\nlisten = 198.51.100.2:443\n",
		"[node]\nname = gate\n[public]\ntls_port = 9443\n[frontdoor]\nhost = gate 127.0.0.1:1\n",
	};
	struct node_config config;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		assert(node_config_parse("f", texts[i], strlen(texts[i]), &config, NULL) == 0 && config.has_front_door &&
		       config.is_public);
}

static void test_mistakes_about_the_front_door_are_told_with_remedy(void)
{
	expect_error("[public]\n[frontdoor]\nudp_ports = 3479\n",
		     "p2pnode.conf:3: port 3479 is the STUN server's second; leave it out");
	expect_error("[public]\nmetrics = 127.0.0.1:1\n[webgw-agent]\nmetrics = 127.0.0.1:2\n",
		     "p2pnode.conf:4: [public] has metrics as well, and serves the same; keep one");
	expect_error("[frontdoor]\nlisten = http\n",
		     "p2pnode.conf:2: listen = http: must be ports, or addresses with a port, such as '80, 443' or "
		     "'198.51.100.1:80'");
	expect_error("[frontdoor]\nhost = app.example.org\n",
		     "p2pnode.conf:2: host = app.example.org: must be a host and where it is, such as 'app.example.org "
		     "127.0.0.1:8443'");
	expect_error("[frontdoor]\nhost = a.example alice:1\nhost = https://A.example bob:1\n",
		     "p2pnode.conf:3: 'https://A.example bob:1': this host has a target already; keep one for http and "
		     "one for https, or one for both");
	expect_error("[frontdoor]\nhost = a.example 127.0.0.1:443\n",
		     "p2pnode.conf:2: 127.0.0.1:443 is the front door itself; name the port of the server behind it");
	expect_error("[frontdoor]\nlisten = 198.51.100.1:443\nhost = a.example 198.51.100.1:443\n",
		     "p2pnode.conf:3: 198.51.100.1:443 is the front door itself; name the port of the server behind it");
	expect_error("[frontdoor]\nhost = a.example 127.0.0.1:443\nhost = b.example 127.0.0.1:8443\n",
		     "p2pnode.conf:2: 127.0.0.1:443 is the front door itself; name the port of the server behind it");
	expect_error("[frontdoor]\n[expose]\nservice = a.example 443\nservice = b.example 8443\n",
		     "p2pnode.conf:3: 'a.example 443': 127.0.0.1:443 is the front door itself; name the port of the server "
		     "behind it");
	expect_error("[frontdoor]\ntcp_ports = 2222\n[expose]\nservice = tcp:2222 [::1]:2222\n",
		     "p2pnode.conf:4: 'tcp:2222 [::1]:2222': [::1]:2222 is the front door itself; name the port of the server "
		     "behind it");
	expect_error("[frontdoor]\ntcp_ports = 2222-2224\n[expose]\nservice = tcp:2223 2224\nservice = tcp:2222 2223\nservice = "
		     "tcp:2224 2222\n",
		     "p2pnode.conf:6: 'tcp:2224 2222': 127.0.0.1:2222 is the front door itself; name the port of the server "
		     "behind it");
	expect_error("[expose]\nservice = a.example 1\nservice = a.example 2\nservice = b.example 3\n",
		     "p2pnode.conf:3: 'a.example 2': a.example stands at p2pnode.conf:2 already; a host has one target");
	expect_error("[public]\n[frontdoor]\nlisten = 80,198.51.100.1:443\n",
		     "p2pnode.conf:3: the relay has TCP port 443 at all addresses, and the front door at one of them; write the "
		     "port alone in listen, or name the relay's addresses in [public]");
	expect_error("[public]\n[frontdoor]\nlisten = 0.0.0.0:443\n",
		     "p2pnode.conf:3: the relay has TCP port 443 at all addresses, and the front door at one of them; write the "
		     "port alone in listen, or name the relay's addresses in [public]");
	expect_error("[node]\nname = gate\n[public]\n[frontdoor]\nhost = *.gate 127.0.0.1:1\nhost = https://Gate 127.0.0.1:2\n",
		     "p2pnode.conf:6: gate is this node's own name, by which its relay is asked for on TCP port 443; name the "
		     "host otherwise, or put another port into tls_port in [public]");
	expect_error("[node]\nname = gate\n[public]\n[frontdoor]\n[expose]\nservice = gate 8443\n",
		     "p2pnode.conf:6: 'gate 8443': gate is this node's own name, by which its relay is asked for on TCP port 443; "
		     "name the host otherwise, or put another port into tls_port in [public]");
	expect_error("[public]\nstun_port = 8443\n[frontdoor]\nlisten = 80, 8443\nquic = yes\n",
		     "p2pnode.conf:5: UDP port 8443 is the STUN server's; put another into stun_port in [public], or say "
		     "quic = no");
	expect_error("[public]\nstun_port = 8442\n[frontdoor]\nlisten = 80, 8443\nquic = yes\n",
		     "p2pnode.conf:5: UDP port 8443 is the STUN server's second; put another into stun_port in [public], or say "
		     "quic = no");
}

#define WEBGW_HASH "84e0c0eafaa95a34c293f278ac52e45ce537bab5e752a00e6959a13ae103b65a"

/* All of this are the machine's own, say. */
static bool leads_to_own(const struct endpoint *places, uint32_t n, const struct endpoint *target)
{
	return door_listens_at(places, n, target, true);
}

static void test_an_exposure_that_leads_to_the_door_by_another_address_is_told_where_the_machine_is_known(void)
{
	static const char text[] = "[frontdoor]\ntcp_ports = 2222\n[expose]\nservice = tcp:2222 198.51.100.1:2223\n"
				   "service = a.example 198.51.100.1:443\n";
	struct node_config config;
	struct error error;

	assert(node_config_parse("p2pnode.conf", text, strlen(text), &config, &error) == 0);
	struct exposure_rings rings = node_config_rings(&config, exposure_rings_by_text);
	assert(node_config_check_rings(&config, &rings, &error) == 0);
	rings.leads_to = leads_to_own;
	assert(node_config_check_rings(&config, &rings, &error) == -EINVAL);
	assert(strcmp(error.message, "p2pnode.conf:5: 'a.example 198.51.100.1:443': 198.51.100.1:443 is the front door itself; "
				     "name the port of the server behind it") == 0);
	rings.n_listen = 0; /* no door, no ring */
	assert(node_config_check_rings(&config, &rings, &error) == 0);
}

static void test_agents_are_listened_to_without_encryption_at_home_alone(void)
{
	const char *home = "[frontdoor]\n[webgw]\nhost = www.example.com " WEBGW_HASH "\n";
	const char *overlay = "[frontdoor]\n[webgw]\nlisten = 100.64.0.1:9080\n";
	const char *anywhere = "[frontdoor]\n[webgw]\nlisten = 9080\nallow_plaintext = yes\n";
	const char *why = "p2pnode.conf:3: what agents are told there is not encrypted: who sees it can take their visitors. "
			  "Listen at an address of the overlay, of loopback or a private one, or write allow_plaintext = yes";
	struct node_config config;

	assert(node_config_parse("f", "[frontdoor]\n", 12, &config, NULL) == 0 && !config.has_webgw);
	assert(node_config_parse("f", home, strlen(home), &config, NULL) == 0 && config.has_webgw);
	assert(config.n_webgw_hosts == 1 && config.webgw_listen.port == 9080 && endpoint_is_loopback(&config.webgw_listen));
	assert(config.webgw_dial_back.port == 4658 && strcmp(config.webgw_admin, "webgw.sock") == 0);
	assert(node_config_parse("f", overlay, strlen(overlay), &config, NULL) == 0);
	assert(node_config_parse("f", anywhere, strlen(anywhere), &config, NULL) == 0);
	expect_error("[frontdoor]\n[webgw]\nlisten = 9080\n", why);
	expect_error("[frontdoor]\n[webgw]\nlisten = 198.51.100.1:9080\n", why);
	expect_error("[webgw]\nhost = www.example.com " WEBGW_HASH "\n",
		     "p2pnode.conf:2: [webgw] is for visitors of the front door: write a section [frontdoor] as well");
	expect_error("[frontdoor]\n[webgw]\nadmin = run/webgw.sock\n",
		     "p2pnode.conf:3: admin = run/webgw.sock: must be a path that begins with '/', or a name beside the node's own socket");
	expect_error("[frontdoor]\n[webgw]\nhost = www.example.com secret\n",
		     "p2pnode.conf:3: host = www.example.com secret: must be behind the host the SHA-256 of its secret, 64 "
		     "hex digits; the secret itself does not belong here");
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
	expect_error("[node]\nmtu = 1279\n", "p2pnode.conf:2: mtu = 1279: must be 0, or a whole number from 1280 to 9000");
	expect_error("[node]\nmtu = 9001\n", "p2pnode.conf:2: mtu = 9001: must be a whole number from 0 to 9000");
	expect_error("[node]\nname = Alice\n",
		     "p2pnode.conf:2: name = Alice: must be one to 63 of a-z, 0-9 and '-', with no '-' at either "
		     "end, such as web-1");
	expect_error("[node]\ninterface = a/b\n",
		     "p2pnode.conf:2: interface = a/b: must be the name of a network interface, such as p2p0");
	expect_error("[turn]\nserver = 198.51.100.5:3478\nuser = alice\n",
		     "p2pnode.conf:2: a TURN server needs user and password_file");
	expect_error("[turn]\nserver = 198.51.100.5:3478\npassword_file = /etc/p2pnode/turn\n",
		     "p2pnode.conf:2: a TURN server needs user and password_file");
	expect_error("[node]\nlog_level = loud\n",
		     "p2pnode.conf:2: log_level = loud: must be one of error, warning, info, debug, trace");
}

static void test_the_printed_defaults_are_a_valid_file(void)
{
	char *text = node_config_defaults_text();
	struct node_config config = { 0 };

	assert(node_config_parse("f", text, strlen(text), &config, NULL) == 0);
	assert(config.mtu == 8920 && !config.is_public);
	free(text);
}

static void test_an_acme_server_is_asked_when_its_terms_are_agreed_to(void)
{
	const char *text = "[acme]\ndirectory = https://ca.lan:9000/acme/acme/directory\ncontact = me@example.org\n"
			   "challenge = http-01\nca_file = /etc/ca.pem\nagree_terms = yes\nretry = 5\n";
	struct node_config config;

	node_config_init(&config);
	assert(!config.acme.agrees && config.acme.challenge == ACME_TLS_ALPN_01 && config.acme.retry_s == 60);
	assert(strcmp(config.acme.directory, ACME_DEFAULT_DIRECTORY) == 0);
	assert(node_config_parse("p2pnode.conf", text, strlen(text), &config, NULL) == 0);
	assert(config.acme.agrees && config.acme.challenge == ACME_HTTP_01 && config.acme.retry_s == 5);
	assert(strcmp(config.acme.directory, "https://ca.lan:9000/acme/acme/directory") == 0);
	assert(strcmp(config.acme.contact, "me@example.org") == 0 && strcmp(config.acme.ca_file, "/etc/ca.pem") == 0);
	expect_error("[acme]\ndirectory = http://ca.lan/\n",
		     "p2pnode.conf:2: directory = http://ca.lan/: must be a URL such as https://acme-v02.api.letsencrypt.org/directory; it begins with https://");
	expect_error("[acme]\ncontact = me\n", "p2pnode.conf:2: contact = me: must be one mail address, such as admin@example.org");
	expect_error("[acme]\nchallenge = dns-01\n", "p2pnode.conf:2: challenge = dns-01: must be one of http-01, tls-alpn-01");
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
	test_a_frontdoor_section_opens_the_front_door();
	test_front_door_and_relay_may_have_one_port();
	test_mistakes_about_the_front_door_are_told_with_remedy();
	test_rates_are_bits_a_second_with_a_unit_or_none();
	test_an_exposure_that_leads_to_the_door_by_another_address_is_told_where_the_machine_is_known();
	test_agents_are_listened_to_without_encryption_at_home_alone();
	test_each_offload_can_be_switched_off();
	test_mistakes_are_told_with_line_and_remedy();
	test_the_printed_defaults_are_a_valid_file();
	test_an_acme_server_is_asked_when_its_terms_are_agreed_to();
	test_a_missing_file_is_told_with_its_remedy();
	test_a_file_is_read_from_disk();
	return 0;
}
