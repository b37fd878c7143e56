/* What p2pctl status and netcheck print, to the letter. */
#include "ctl/report.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BOB_OUTSIDE 0xc6336409 /* 198.51.100.9 */

static void expect_text(char *got_take, const char *expected)
{
	if (strcmp(got_take, expected) != 0)
		fprintf(stderr, "expected:\n%sgot:\n%s", expected, got_take);
	assert(strcmp(got_take, expected) == 0);
	free(got_take);
}

static void expect_status(const struct node_status *status, const char *expected)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	report_status(out, status);
	fclose(out);
	expect_text(text, expected);
}

static void expect_netcheck(const struct node_netcheck *netcheck, const char *expected)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	report_netcheck(out, netcheck);
	fclose(out);
	expect_text(text, expected);
}

static void alice(struct node_status *status)
{
	struct endpoint local = endpoint_from_v4(0x0a000002, 51820), outside = endpoint_from_v4(0xc6336407, 40001);

	node_status_init(status);
	status->state = NODE_RUNNING;
	strcpy(status->version, "0.1.0");
	strcpy(status->network, "home");
	strcpy(status->interface, "p2p0");
	status->mtu = 1280;
	status->uptime_ms = 7500000;
	status->self.id = 1;
	strcpy(status->self.name, "alice");
	inet_pton(AF_INET, "100.64.0.1", &status->self.ip4);
	inet_pton(AF_INET6, "fd00::1", &status->self.ip6);
	strcpy(status->control.address, "control.example.org:8443");
	status->control.connected = true;
	status->control.since_ms = 300000;
	status->control.map_age_ms = 1000;
	status->nat = NODE_NAT_EASY;
	node_status_add_endpoint(status, &local, NODE_ENDPOINT_LOCAL);
	node_status_add_endpoint(status, &outside, NODE_ENDPOINT_STUN);
}

static void with_gate(struct node_status *status)
{
	struct node_status_relay *relay = node_status_add_relay(status);

	*relay = (struct node_status_relay){ .id = 9, .name = "gate", .latency_us = 12345, .connected = true,
					     .home = true, .udp_latency_us = 12345, .tls_latency_us = 15000 };
	status->home_relay.id = 9;
	strcpy(status->home_relay.name, "gate");
	strcpy(status->home_relay.transport, "tls");
	status->home_relay.latency_us = 12345;
}

static void with_peers(struct node_status *status)
{
	struct node_status_peer *dave = node_status_add_peer(status);
	struct node_status_peer *peer;

	strcpy(dave->name, "dave");
	strcpy(dave->state, "inactive");
	inet_pton(AF_INET, "100.64.0.4", &dave->ip4);
	peer = node_status_add_peer(status);
	*peer = (struct node_status_peer){ .id = 2, .name = "bob", .state = "established",
					   .path = NODE_PATH_DIRECT, .latency_us = 900, .handshake_ms = 61000,
					   .packet_ms = 200, .rx_bytes = 3 << 20, .tx_bytes = 99, .online = true };
	peer->endpoint = endpoint_from_v4(BOB_OUTSIDE, 51820);
	inet_pton(AF_INET, "100.64.0.2", &peer->ip4);
	inet_pton(AF_INET6, "fd00::2", &peer->ip6);
	peer = node_status_add_peer(status);
	*peer = (struct node_status_peer){ .id = 3, .name = "carol", .state = "trying", .path = NODE_PATH_RELAY,
					   .relay = "gate", .latency_us = 40000, .handshake_ms = 5000,
					   .packet_ms = 3000, .online = true };
	inet_pton(AF_INET, "100.64.0.3", &peer->ip4);
}

static void test_the_status_of_a_member(void)
{
	struct node_status status;

	alice(&status);
	with_gate(&status);
	with_peers(&status);
	expect_status(&status,
		"node        alice  100.64.0.1  fd00::1\n"
		"network     home, running for 2 h 5 min (interface p2p0, mtu 1280, p2pnode 0.1.0)\n"
		"control     control.example.org:8443, connected for 5 min\n"
		"relay       gate, 12.3 ms over tls\n"
		"nat         easy: one outside port for all destinations, so most peers can be reached directly\n"
		"endpoints   10.0.0.2:51820 (local)\n"
		"            198.51.100.7:40001 (stun)\n"
		"\n"
		"PEER   ADDRESS     PATH                       LATENCY  HANDSHAKE  PACKET  RECEIVED  SENT  STATE        IPV6\n"
		"bob    100.64.0.2  direct 198.51.100.9:51820   900 us       61 s     now   3.0 MiB  99 B  established  fd00::2\n"
		"carol  100.64.0.3  relay gate                 40.0 ms        5 s     3 s       0 B   0 B  trying       -\n"
		"dave   100.64.0.4  offline                          -          -       -       0 B   0 B  inactive     -\n");
	node_status_deinit(&status);
}

static void test_a_direct_path_by_a_turn_server_is_called_so(void)
{
	struct node_status status;

	alice(&status);
	with_gate(&status);
	struct node_status_peer *bob = node_status_add_peer(&status);
	*bob = (struct node_status_peer){ .id = 2, .name = "bob", .state = "established", .path = NODE_PATH_DIRECT,
					  .endpoint = endpoint_from_v4(BOB_OUTSIDE, 3478), .by_turn = true,
					  .latency_us = 900, .handshake_ms = 5000, .packet_ms = 3000, .online = true };
	expect_status(&status,
		"node        alice  100.64.0.1  fd00::1\n"
		"network     home, running for 2 h 5 min (interface p2p0, mtu 1280, p2pnode 0.1.0)\n"
		"control     control.example.org:8443, connected for 5 min\n"
		"relay       gate, 12.3 ms over tls\n"
		"nat         easy: one outside port for all destinations, so most peers can be reached directly\n"
		"endpoints   10.0.0.2:51820 (local)\n"
		"            198.51.100.7:40001 (stun)\n"
		"\n"
		"PEER  ADDRESS  PATH                              LATENCY  HANDSHAKE  PACKET  RECEIVED  SENT  STATE        IPV6\n"
		"bob   -        direct 198.51.100.9:3478 by TURN   900 us        5 s     3 s       0 B   0 B  established  -\n");
	node_status_deinit(&status);
}

static void test_a_public_node_is_told_whether_it_is_a_relay(void)
{
	static const char text[] =
		"node        alice  100.64.0.1  fd00::1\n"
		"network     home, running for 2 h 5 min (interface p2p0, mtu 1280, p2pnode 0.1.0)\n"
		"control     control.example.org:8443, connected for 5 min\n"
		"relay       gate, 12.3 ms over tls\n"
		"public      %s\n"
		"nat         easy: one outside port for all destinations, so most peers can be reached directly\n"
		"endpoints   10.0.0.2:51820 (local)\n"
		"            198.51.100.7:40001 (stun)\n"
		"\n"
		"No peers yet: let another machine join, with a link from 'p2pctl admin key create'.\n";
	char expected[2048];
	struct node_status status;

	alice(&status);
	with_gate(&status);
	status.self.is_public = true;
	snprintf(expected, sizeof(expected), text,
		 "NOT a relay yet: an admin adds it with 'p2pctl admin relay add alice'");
	expect_status(&status, expected);
	node_status_add_relay(&status)->id = status.self.id;
	snprintf(expected, sizeof(expected), text, "a relay of the network: 'p2pctl relay status'");
	expect_status(&status, expected);
	node_status_deinit(&status);
}

static void test_control_away_is_told_with_the_age_of_the_map(void)
{
	struct node_status status;

	alice(&status);
	status.control.connected = false;
	status.control.since_ms = 240000;
	strcpy(status.control.last_error, "connection refused");
	status.n_endpoints = 0;
	expect_status(&status,
		"node        alice  100.64.0.1  fd00::1\n"
		"network     home, running for 2 h 5 min (interface p2p0, mtu 1280, p2pnode 0.1.0)\n"
		"control     control.example.org:8443, away for 4 min: connection refused\n"
		"            known peers keep working; the map is 1 s old\n"
		"relay       none chosen; the network has no public node yet\n"
		"nat         easy: one outside port for all destinations, so most peers can be reached directly\n"
		"endpoints   none known yet\n"
		"\n"
		"No peers yet: let another machine join, with a link from 'p2pctl admin key create'.\n");
	node_status_deinit(&status);
}

static void test_the_status_of_a_stranger_says_how_to_join(void)
{
	struct node_status status;

	node_status_init(&status);
	strcpy(status.version, "0.1.0");
	status.uptime_ms = 5000;
	expect_status(&status, "This node has not joined a network (running for 5 s, p2pnode 0.1.0).\n"
			       "Join one with a link from whoever runs it: p2pctl join LINK\n");
	status.state = NODE_REMOVED;
	expect_status(&status, "This node was removed from its network, or its membership has expired.\n"
			       "Join again with a new link: p2pctl leave && p2pctl join LINK\n");
}

static void test_an_agent_of_webgw_is_told_of_also_of_a_stranger(void)
{
	struct node_status status;

	node_status_init(&status);
	strcpy(status.version, "0.1.0");
	status.uptime_ms = 5000;
	status.webgw_agent = (struct node_status_webgw_agent){
		.is_there = true, .is_connected = true, .server = "gate:9081", .n_hosts = 3,
		.hosts = { { .host = "a.org", .target = "127.0.0.1:80", .state = "subscribed", .warm = 4, .visitors_now = 1 },
			   { .host = "*.b.org", .target = "[::1]:81", .state = "refused", .why = "Unknown host" },
			   { .host = "c.org", .target = "127.0.0.1:82", .state = "asking" } },
	};
	expect_status(&status, "This node has not joined a network (running for 5 s, p2pnode 0.1.0).\n"
			       "Join one with a link from whoever runs it: p2pctl join LINK\n"
			       "webgw agent gate:9081, connected\n"
			       "            a.org to 127.0.0.1:80: subscribed, 4 warm, 1 visitor now\n"
			       "            *.b.org to [::1]:81: refused: Unknown host\n"
			       "            c.org to 127.0.0.1:82: asking\n");
	status.webgw_agent.is_connected = false;
	strcpy(status.webgw_agent.why, "no answer in time");
	status.webgw_agent.n_hosts = 0;
	status.state = NODE_REMOVED;
	expect_status(&status, "This node was removed from its network, or its membership has expired.\n"
			       "Join again with a new link: p2pctl leave && p2pctl join LINK\n"
			       "webgw agent gate:9081, NOT connected: no answer in time\n");
}

static void test_a_netcheck_without_findings(void)
{
	struct node_netcheck netcheck = { .udp_works = true, .control_reachable = true };
	struct node_status_relay *far;

	alice(&netcheck.status);
	netcheck.status.nat_behaviour.findings = (struct nat_findings){ .mapping = NAT_DEPENDS_NOT,
									.filtering = NAT_DEPENDS_PORT,
									.hairpin = true,
									.ports = NAT_PORTS_SAME };
	far = node_status_add_relay(&netcheck.status); /* unknown latency: last */
	strcpy(far->name, "far");
	with_gate(&netcheck.status);
	assert(report_netcheck_is_good(&netcheck));
	expect_netcheck(&netcheck,
		"control     control.example.org:8443, reachable\n"
		"udp         works\n"
		"nat         easy: one outside port for all destinations, so most peers can be reached directly\n"
		"mapping     endpoint-independent: one outside port for all destinations\n"
		"filtering   address-and-port-dependent: who was sent something is let in, from that port only\n"
		"hairpin     yes: machines behind this NAT reach each other by its outside address\n"
		"ports       preserved: outside as inside\n"
		"path mtu    not known: no path was measured\n"
		"relay       gate, 12.3 ms over tls\n"
		"relays      gate: 12.3 ms, home, connected, UDP 12.3 ms, TLS 15.0 ms\n"
		"            far: no answer\n"
		"endpoints   10.0.0.2:51820 (local)\n"
		"            198.51.100.7:40001 (stun)\n"
		"\n"
		"Every peer can be reached directly, one behind a hard and strict NAT after a search of some seconds, which may fail.\n"
		"\n"
		"All is well.\n");
	node_netcheck_deinit(&netcheck);
}

static void test_a_netcheck_tells_what_the_router_forwards_and_which_ways_it_speaks(void)
{
	struct node_netcheck netcheck = { .udp_works = true, .control_reachable = true };

	alice(&netcheck.status);
	with_gate(&netcheck.status);
	strcpy(netcheck.status.port_mapping.state, "mapped");
	strcpy(netcheck.status.port_mapping.way, "NAT-PMP");
	netcheck.status.port_mapping.router = endpoint_from_v4(0x0a000001, 5351);
	netcheck.status.port_mapping.external = endpoint_from_v4(0xc6336407, 41641);
	netcheck.status.port_mapping.pcp = NODE_KNOWN_NO;
	netcheck.status.port_mapping.natpmp = NODE_KNOWN_YES;
	expect_netcheck(&netcheck,
		"control     control.example.org:8443, reachable\n"
		"udp         works\n"
		"nat         easy: one outside port for all destinations, so most peers can be reached directly\n"
		"mapping     not known: being measured\n"
		"filtering   not known: being measured\n"
		"hairpin     not known: being measured\n"
		"ports       not known: being measured\n"
		"port map    198.51.100.7:41641, by NAT-PMP\n"
		"router      PCP no, NAT-PMP yes, UPnP not asked\n"
		"path mtu    not known: no path was measured\n"
		"relay       gate, 12.3 ms over tls\n"
		"relays      gate: 12.3 ms, home, connected, UDP 12.3 ms, TLS 15.0 ms\n"
		"endpoints   10.0.0.2:51820 (local)\n"
		"            198.51.100.7:40001 (stun)\n"
		"\n"
		"Every peer whose UDP gets out can be reached directly.\n"
		"\n"
		"All is well.\n");
	node_netcheck_deinit(&netcheck);
}

static void expect_line(const struct node_netcheck *netcheck, const char *line)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	report_netcheck(out, netcheck);
	fclose(out);
	if (!strstr(text, line))
		fprintf(stderr, "expected:\n%sin:\n%s", line, text);
	assert(strstr(text, line));
	free(text);
}

static void test_a_netcheck_tells_in_one_sentence_what_the_nat_means(void)
{
	static const struct {
		enum nat_dependence mapping, filtering;
		const char *meaning;
	} cases[] = {
		{ NAT_DEPENDS_PORT, NAT_DEPENDS_NOT, "\nEvery peer whose UDP gets out can be reached directly.\n" },
		{ NAT_DEPENDS_NOT, NAT_DEPENDS_ADDRESS, "\nEvery peer whose UDP gets out can be reached directly.\n" },
		{ NAT_DEPENDS_NO_NAT, NAT_DEPENDS_PORT, "\nEvery peer can be reached directly, one behind a hard and strict NAT after" },
		{ NAT_DEPENDS_ADDRESS, NAT_DEPENDS_ADDRESS, "\nPeers behind an easy NAT can be reached directly, if it is strict after" },
		{ NAT_DEPENDS_UNKNOWN, NAT_DEPENDS_PORT, "\nMost peers can be reached directly; which cannot" },
	};
	struct node_netcheck netcheck = { .udp_works = true, .control_reachable = true };
	struct nat_findings *findings = &netcheck.status.nat_behaviour.findings;

	alice(&netcheck.status);
	*findings = (struct nat_findings){ .ports = NAT_PORTS_ANY };
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		findings->mapping = cases[i].mapping;
		findings->filtering = cases[i].filtering;
		expect_line(&netcheck, cases[i].meaning);
	}
	expect_line(&netcheck, "\nports       random\n");
	findings->preserves_port = true;
	expect_line(&netcheck, "\nports       preserved where free, else random\n");
	findings->ports = NAT_PORTS_IN_STEPS;
	findings->step = 2;
	expect_line(&netcheck, "\nports       preserved where free, else the last one plus 2\n");
	node_status_add_peer(&netcheck.status)->mtu = 1420;
	expect_line(&netcheck, "\npath mtu    1420 inside\n");
	node_status_add_peer(&netcheck.status)->mtu = 8920;
	expect_line(&netcheck, "\npath mtu    1420 to 8920 inside\n");
	findings->mapping_unknown = NAT_UNKNOWN_ONE_ADDRESS;
	expect_line(&netcheck, "\nmapping     not known: needs a second public node\n");
	node_netcheck_deinit(&netcheck);
}

static void test_a_netcheck_says_what_to_do(void)
{
	struct node_netcheck netcheck = { .udp_works = false, .control_reachable = false };
	struct node_status_relay *gate;

	alice(&netcheck.status);
	gate = node_status_add_relay(&netcheck.status);
	strcpy(gate->name, "gate");
	gate->id = 9;
	strcpy(netcheck.status.home_relay.name, "gate");
	netcheck.status.home_relay.id = 9; /* chosen, and lost */
	netcheck.status.control.connected = false;
	netcheck.status.nat = NODE_NAT_UDP_BLOCKED;
	strcpy(netcheck.status.control.last_error, "no route to host");
	netcheck.status.n_endpoints = 1;
	assert(!report_netcheck_is_good(&netcheck));
	expect_netcheck(&netcheck,
		"control     control.example.org:8443, NOT reachable: no route to host\n"
		"udp         NO answer from any STUN server\n"
		"nat         UDP does not get out: all traffic goes by relay over TLS\n"
		"mapping     not known: being measured\n"
		"filtering   not known: being measured\n"
		"hairpin     not known: being measured\n"
		"ports       not known: being measured\n"
		"path mtu    not known: no path was measured\n"
		"relay       gate, NOT connected (latency -)\n"
		"relays      gate: no answer\n"
		"endpoints   10.0.0.2:51820 (local)\n"
		"\n"
		"No peer can be reached directly by UDP from here; all traffic goes by relay.\n"
		"\n"
		"What to do:\n"
		"  - Control does not answer. Is p2pcontrol running there, and does this machine's network\n"
		"    let TCP out to its port? Known peers keep working meanwhile.\n"
		"  - No relay is connected. Is p2pnode running on the public node, and does this machine's\n"
		"    network let TCP out to its TLS port (443)?\n"
		"  - UDP gets no answer: peers are reached by relay only, which is slower. Let UDP out on\n"
		"    this network's firewall, at least to the relay's STUN port (3478).\n");
	node_netcheck_deinit(&netcheck);
}

int main(void)
{
	test_the_status_of_a_member();
	test_a_direct_path_by_a_turn_server_is_called_so();
	test_a_public_node_is_told_whether_it_is_a_relay();
	test_control_away_is_told_with_the_age_of_the_map();
	test_the_status_of_a_stranger_says_how_to_join();
	test_an_agent_of_webgw_is_told_of_also_of_a_stranger();
	test_a_netcheck_without_findings();
	test_a_netcheck_tells_what_the_router_forwards_and_which_ways_it_speaks();
	test_a_netcheck_tells_in_one_sentence_what_the_nat_means();
	test_a_netcheck_says_what_to_do();
	return 0;
}
