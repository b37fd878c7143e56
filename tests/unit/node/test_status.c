/* The status as JSON: what is written is read back, and a stranger's text is no danger. */
#include "common/json.h"
#include "node/status.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fill_head(struct node_status *status)
{
	status->state = NODE_RUNNING;
	strcpy(status->network, "home");
	strcpy(status->interface, "p2p0");
	status->mtu = 1280;
	status->uptime_ms = 123456;
	status->self.id = 7;
	strcpy(status->self.name, "alice");
	inet_pton(AF_INET, "100.64.0.7", &status->self.ip4);
	inet_pton(AF_INET6, "fd00::7", &status->self.ip6);
	status->self.node_key.bytes[3] = 9;
	status->self.is_public = true;
	status->control.connected = true;
	strcpy(status->control.address, "control.example.org:8443");
	status->control.since_ms = 5000;
	status->control.map_sequence = 1ULL << 60;
	status->control.map_age_ms = 10;
	status->home_relay.id = 3;
	strcpy(status->home_relay.name, "gate");
	status->home_relay.latency_us = 12345;
	strcpy(status->home_relay.transport, "tls");
	status->nat = NODE_NAT_EASY;
	strcpy(status->port_mapping.state, "mapped");
	strcpy(status->port_mapping.way, "UPnP");
	status->port_mapping.router = endpoint_from_v4(0xc0a80101, 5351);
	status->port_mapping.external = endpoint_from_v4(0xcb007107, 40001);
	status->port_mapping.pcp = NODE_KNOWN_NO;
	status->port_mapping.upnp = NODE_KNOWN_YES;
}

static void fill_lists(struct node_status *status)
{
	struct endpoint endpoint = endpoint_from_v4(0xc6336401, 51820);
	struct node_status_peer *peer = node_status_add_peer(status);
	struct node_status_relay *relay = node_status_add_relay(status);

	node_status_add_endpoint(status, &endpoint, NODE_ENDPOINT_STUN);
	node_status_add_drop(status, "mac1", UINT64_MAX);
	*node_status_add_offload(status) = (struct node_status_offload){
		.name = "udp-gso", .state = "refused", .error = "EIO", .used = 1, .refused = 2, .fell_back = UINT64_MAX
	};
	struct node_status_lane *lane = node_status_add_lane(status);
	*lane = (struct node_status_lane){ .role = "opens", .udp_datagrams = 7, .udp_bytes = UINT64_MAX, .udp_relayed = 3 };
	node_status_add_lane_drop(lane, "replay", 3);
	node_status_add_lane_drop(lane, "forged", 0); /* not told */
	*peer = (struct node_status_peer){ .id = 8, .name = "bob", .state = "established",
					   .path = NODE_PATH_BOTH, .endpoint = endpoint, .by_turn = true, .relay = "gate",
					   .latency_us = 900, .handshake_ms = 61000, .packet_ms = 2,
					   .rx_bytes = UINT64_MAX, .tx_bytes = 1, .online = true };
	peer->node_key.bytes[31] = 1;
	*relay = (struct node_status_relay){ .id = 3, .name = "gate", .latency_us = 12345, .transport = "udp",
					     .udp_latency_us = 12000, .tls_latency_us = NODE_STATUS_UNKNOWN,
					     .connected = true, .home = true };
	node_status_add_peer(status)->id = 9; /* one of whom nothing is known */
	status->webgw_agent = (struct node_status_webgw_agent){
		.is_there = true, .server = "gate:9081", .why = "no answer in time", .n_hosts = 2,
		.hosts = { { .host = "*.a.org", .target = "[::1]:80", .state = "refused", .why = "Unknown host" },
			   { .host = "b.org", .target = "127.0.0.1:80", .state = "subscribed", .warm = 4, .visitors_now = 7 } },
	};
}

static void test_what_is_written_is_read_back(void)
{
	struct node_status status, again;
	struct error error = { 0 };

	node_status_init(&status);
	fill_head(&status);
	fill_lists(&status);
	struct json *json = node_status_to_json(&status);
	char *text = json_print(json);
	assert(node_status_from_json(json, &again, &error) == 0);
	struct json *json_again = node_status_to_json(&again);
	char *text_again = json_print(json_again);
	assert(strcmp(text, text_again) == 0);
	assert(again.n_peers == 2 && again.peers[0].rx_bytes == UINT64_MAX);
	assert(again.peers[0].path == NODE_PATH_BOTH && strcmp(again.peers[0].relay, "gate") == 0);
	assert(again.peers[1].latency_us == NODE_STATUS_UNKNOWN && again.drops[0].n == UINT64_MAX);
	assert(again.control.map_sequence == 1ULL << 60);
	assert(again.n_lanes == 1 && strcmp(again.lanes[0].role, "opens") == 0);
	assert(again.lanes[0].udp_bytes == UINT64_MAX && again.lanes[0].tun_packets == 0);
	assert(again.lanes[0].n_drops == 1 && again.lanes[0].drops[0].n == 3);
	assert(again.n_offloads == 1 && again.offloads[0].fell_back == UINT64_MAX);
	assert(again.webgw_agent.is_there && again.webgw_agent.n_hosts == 2 && again.webgw_agent.hosts[1].visitors_now == 7);
	assert(strcmp(again.webgw_agent.hosts[0].why, "Unknown host") == 0);
	assert(strcmp(again.offloads[0].state, "refused") == 0 && strcmp(again.offloads[0].error, "EIO") == 0);
	free(text);
	free(text_again);
	json_free(json);
	json_free(json_again);
	node_status_deinit(&status);
	node_status_deinit(&again);
}

static void test_what_is_not_known_is_null(void)
{
	struct node_status status;

	node_status_init(&status);
	struct json *json = node_status_to_json(&status);
	char *text = json_print(json);
	assert(strstr(text, "\"state\":\"not joined\""));
	assert(strstr(text, "\"self\":{\"id\":null,\"name\":null,\"ip4\":null,\"ip6\":null,\"node_key\":null,\"public\":false}"));
	assert(strstr(text, "\"home_relay\":null"));
	assert(strstr(text, "\"since_ms\":null"));
	free(text);
	json_free(json);
	node_status_deinit(&status);
}

static void expect_refused(const char *text, const char *why)
{
	struct json_limits limits = { .max_len = 4096 };
	struct error error = { 0 };
	struct node_status status;
	struct json *json;

	assert(json_parse(text, strlen(text), &limits, &json, NULL) == 0);
	assert(node_status_from_json(json, &status, &error) == -EINVAL);
	if (!strstr(error.message, why))
		fprintf(stderr, "expected: %s\ngot:      %s\n", why, error.message);
	assert(strstr(error.message, why));
	json_free(json);
}

static void test_a_bad_status_is_refused_with_the_member(void)
{
	expect_refused("{\"state\":\"not joined\",\"webgw_agent\":{\"hosts\":[1]}}", "must be an object");
	expect_refused("{\"state\":\"not joined\",\"webgw_agent\":{\"hosts\":[{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]}}",
		       "more than 16 items");
	expect_refused("[]", "must be an object");
	expect_refused("{\"network\": 7}", "network");
	expect_refused("{\"self\": 7}", "self");
	expect_refused("{\"self\": {\"ip4\": \"x\"}}", "self: member 'ip4': must be an IP address");
	expect_refused("{\"peers\": {}}", "peers");
	expect_refused("{\"peers\": [7]}", "member 'peers': item 0 must be an object");
	expect_refused("{\"peers\": [{}, {\"endpoint\": \"1.2.3.4\"}]}", "peers[1]: member 'endpoint'");
	expect_refused("{\"interface\": \"aaaaaaaaaaaaaaaa\"}", "member 'interface': longer than 15 bytes");
	expect_refused("{\"drops\": {\"x\": 1}}", "drops: ");
}

static void test_a_newer_node_may_say_more(void)
{
	const char *text = "{\"state\":\"dreaming\",\"mood\":1,\"peers\":[{\"path\":\"tcp\",\"x\":{}}]}";
	struct json_limits limits = { .max_len = 4096 };
	struct node_status status;
	struct json *json;

	assert(json_parse(text, strlen(text), &limits, &json, NULL) == 0);
	assert(node_status_from_json(json, &status, NULL) == 0);
	assert(status.state == NODE_NOT_JOINED && status.peers[0].path == NODE_PATH_NONE);
	json_free(json);
	node_status_deinit(&status);
}

static void test_lists_grow_and_have_bounds(void)
{
	struct endpoint endpoint = endpoint_from_v4(1, 1);
	struct node_status status;

	node_status_init(&status);
	for (uint32_t i = 0; i < 1000; i++)
		node_status_add_peer(&status)->id = i;
	for (uint32_t i = 0; i < 1000; i++) {
		assert(status.peers[i].id == i);
		node_status_add_endpoint(&status, &endpoint, NODE_ENDPOINT_LOCAL);
		node_status_add_drop(&status, "x", 1);
	}
	assert(status.n_endpoints == NODE_STATUS_MAX_ENDPOINTS && status.n_drops == NODE_STATUS_MAX_DROPS);
	node_status_deinit(&status);
}

static void test_ping_and_netcheck_are_read_back(void)
{
	struct node_ping_result ping = { .answered = true, .peer = "bob", .path = NODE_PATH_RELAY,
					 .relay = "gate", .latency_us = 4321 }, ping_again;
	struct node_netcheck check, check_again;

	ping.ip = endpoint_from_v4(0x64400002, 0);
	struct json *json = node_ping_result_to_json(&ping);
	assert(node_ping_result_from_json(json, &ping_again, NULL) == 0);
	assert(memcmp(&ping.ip, &ping_again.ip, sizeof(ping.ip)) == 0 && ping_again.latency_us == 4321);
	assert(ping_again.answered && ping_again.path == NODE_PATH_RELAY && !strcmp(ping_again.relay, "gate"));
	json_free(json);

	node_netcheck_init(&check);
	check.udp_works = true;
	fill_head(&check.status);
	json = node_netcheck_to_json(&check);
	assert(node_netcheck_from_json(json, &check_again, NULL) == 0);
	assert(check_again.udp_works && !check_again.control_reachable && check_again.status.self.id == 7);
	json_free(json);
	node_netcheck_deinit(&check);
	node_netcheck_deinit(&check_again);
}

int main(void)
{
	test_what_is_written_is_read_back();
	test_what_is_not_known_is_null();
	test_a_bad_status_is_refused_with_the_member();
	test_a_newer_node_may_say_more();
	test_lists_grow_and_have_bounds();
	test_ping_and_netcheck_are_read_back();
	return 0;
}
