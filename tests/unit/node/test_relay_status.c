/* The relay's status: written, read back the same, and refused when it is not that. */
#include "node/relay_status.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char empty[] = "{\"tls_port\":0,\"stun_port\":0,\"uptime_ms\":0,\"cpu_ms\":0,\"handshakes\":0,"
			    "\"draining\":false,\"drain_left_ms\":0,\"tls_clients\":0,\"udp_clients\":0,\"queue_mean_us\":0,\"queue_longest_ms\":0,"
			    "\"totals\":{\"accepted\":\"0\",\"admitted\":\"0\",\"packets_in\":\"0\",\"bytes_in\":\"0\","
			    "\"packets_out\":\"0\",\"bytes_out\":\"0\"},"
			    "\"drops\":{},\"refused\":{},\"closed\":{},\"stun\":{},\"clients\":[]}";

static char *print(const struct relay_status *status)
{
	struct json *json = relay_status_to_json(status);
	char *text = json_print(json);

	json_free(json);
	return text;
}

static int read_text(const char *text, struct relay_status *ret, struct error *reterr)
{
	struct json_limits limits = { .max_len = 1 << 20 };
	struct json *json;

	assert(json_parse(text, strlen(text), &limits, &json, NULL) == 0);
	int r = relay_status_from_json(json, ret, reterr);
	json_free(json);
	return r;
}

/* The text of a status with one thing put in place of another. */
static void expect_refused(const char *text, const char *part, const char *instead, const char *why)
{
	char changed[4096];
	struct error error = { 0 };
	struct relay_status status;
	const char *at = strstr(text, part);

	assert(at);
	snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text, instead, at + strlen(part));
	assert(read_text(changed, &status, &error) == -EINVAL);
	if (!strstr(error.message, why))
		fprintf(stderr, "expected: %s\ngot:      %s\n", why, error.message);
	assert(strstr(error.message, why));
}

static void fill(struct relay_status *status)
{
	relay_status_init(status);
	*status = (struct relay_status){ .tls_port = 443, .stun_port = 3478, .uptime_ms = 7000, .cpu_ms = 12,
					 .handshakes = 3, .draining = true, .drain_left_ms = 1500, .queue_mean_us = 21,
					 .queue_longest_ms = 22 };
	status->totals = (struct relay_status_totals){ 1, 2, 3, 4, 5, UINT64_MAX };
	relay_status_add_count(&status->drops, "destination unknown", UINT64_MAX);
	relay_status_add_count(&status->refused, "not a member", 0);
	status->tls_clients = 16;
	status->udp_clients = 100000;
	relay_status_add_count(&status->closed, "silent", 9);
	relay_status_add_count(&status->stun, "answered", 10);
	struct relay_status_client *client = relay_status_add_client(status);
	*client = (struct relay_status_client){ .name = "alice", .transport = "tls", .connected_ms = 99,
						.packets_in = 11, .bytes_in = UINT64_MAX, .packets_out = 13,
						.bytes_out = 14, .dropped = 15 };
	client->remote = endpoint_from_v4(0xc6336409, 40000);
	memset(&client->node_key, 7, sizeof(client->node_key));
}

static void test_what_is_written_is_read_back(void)
{
	struct relay_status status, again;

	fill(&status);
	char *text = print(&status);
	assert(read_text(text, &again, NULL) == 0);
	char *text_again = print(&again);
	assert(strcmp(text, text_again) == 0);
	assert(again.tls_port == 443 && again.stun_port == 3478 && again.handshakes == 3);
	assert(again.draining && again.drain_left_ms == 1500);
	assert(again.queue_mean_us == 21 && again.queue_longest_ms == 22);
	assert(again.tls_clients == 16 && again.udp_clients == 100000);
	assert(again.uptime_ms == 7000 && again.cpu_ms == 12 && again.totals.bytes_out == UINT64_MAX);
	assert(again.drops.n == 1 && again.drops.items[0].n == UINT64_MAX);
	assert(again.refused.n == 1 && strcmp(again.refused.items[0].name, "not a member") == 0);
	assert(again.closed.items[0].n == 9 && again.stun.items[0].n == 10 && again.n_clients == 1);
	assert(memcmp(&again.clients[0], &status.clients[0], sizeof(again.clients[0])) == 0);
	free(text);
	free(text_again);
	relay_status_deinit(&status);
	relay_status_deinit(&again);
}

static void test_an_empty_status_has_every_member(void)
{
	struct relay_status status;

	relay_status_init(&status);
	char *text = print(&status);
	if (strcmp(text, empty) != 0)
		fprintf(stderr, "expected: %s\ngot:      %s\n", empty, text);
	assert(strcmp(text, empty) == 0);
	assert(read_text(text, &status, NULL) == 0 && status.n_clients == 0);
	free(text);
	relay_status_deinit(&status);
}

static void test_members_that_are_unknown_or_missing_are_refused(void)
{
	struct relay_status status;

	fill(&status);
	char *text = print(&status);
	expect_refused(text, "{\"tls_port\"", "{\"mood\":1,\"tls_port\"", "mood");
	expect_refused(text, "{\"accepted\"", "{\"mood\":1,\"accepted\"", "totals: ");
	expect_refused(text, "{\"name\"", "{\"mood\":1,\"name\"", "clients[0]: ");
	expect_refused(text, "\"tls_port\":443,", "", "member 'tls_port'");
	expect_refused(text, "\"packets_out\":\"5\",", "", "totals: member 'packets_out'");
	expect_refused(text, ",\"dropped\":\"15\"", "", "clients[0]: member 'dropped'");
	expect_refused(text, "\"drops\"", "\"dorps\"", "dorps");
	free(text);
	relay_status_deinit(&status);
}

static void test_values_of_a_wrong_form_are_refused_with_their_place(void)
{
	struct relay_status status;

	fill(&status);
	char *text = print(&status);
	expect_refused(text, "443", "65536", "member 'tls_port'");
	expect_refused(text, "7000", "-1", "member 'uptime_ms'");
	expect_refused(text, "true", "1", "member 'draining'");
	expect_refused(text, "\"9\"", "9", "closed: member 'silent'");
	expect_refused(text, "\"silent\"", "\"01234567890123456789012345678901\"", "closed: ");
	expect_refused(text, "198.51.100.9:40000", "198.51.100.9", "clients[0]: member 'remote': must be ip:port");
	expect_refused(text, "\"tls\"", "\"12345678\"", "clients[0]: member 'transport': longer than 7 bytes");
	expect_refused(text, "[{", "[7,{", "member 'clients': item 0 must be an object");
	expect_refused("[]", "[]", "[]", "must be an object");
	free(text);
	relay_status_deinit(&status);
}

static void test_lists_grow_and_counts_have_a_bound(void)
{
	struct relay_status status;

	relay_status_init(&status);
	for (uint32_t i = 0; i < 1000; i++) {
		relay_status_add_client(&status)->dropped = i;
		relay_status_add_count(&status.drops, "x", i);
	}
	for (uint32_t i = 0; i < 1000; i++)
		assert(status.clients[i].dropped == i);
	assert(status.n_clients == 1000 && status.drops.n == RELAY_STATUS_MAX_COUNTS);
	relay_status_deinit(&status);
	expect_refused(empty, "\"drops\":{}",
		       "\"drops\":{\"a\":\"0\",\"b\":\"0\",\"c\":\"0\",\"d\":\"0\",\"e\":\"0\",\"f\":\"0\",\"g\":\"0\","
		       "\"h\":\"0\",\"i\":\"0\",\"j\":\"0\",\"k\":\"0\",\"l\":\"0\",\"m\":\"0\",\"n\":\"0\",\"o\":\"0\","
		       "\"p\":\"0\",\"q\":\"0\"}",
		       "drops: more than 16 members");
}

int main(void)
{
	test_what_is_written_is_read_back();
	test_an_empty_status_has_every_member();
	test_members_that_are_unknown_or_missing_are_refused();
	test_values_of_a_wrong_form_are_refused_with_their_place();
	test_lists_grow_and_counts_have_a_bound();
	return 0;
}
