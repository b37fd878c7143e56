/*
 * WireGuard's configuration protocol, as wg(8) speaks it: what a request means, what is refused,
 * and that an answer of ours parses as a request of the same meaning.
 */
#include "node/wireguard/uapi_wire.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define KEY_A "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33"
#define KEY_B "58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376"
#define ROOM  16

static struct uapi_item items[ROOM];
static size_t n_items;
static enum uapi_command command;

static int parse(const char *text)
{
	return uapi_parse(text, strlen(text), &command, items, ROOM, &n_items);
}

/* A set request of this one line, in the device's section or in a peer's. */
static int parse_device_line(const char *line)
{
	char text[512];

	snprintf(text, sizeof(text), "set=1\n%s\n\n", line);
	return parse(text);
}

static int parse_peer_line(const char *line)
{
	char text[512];

	snprintf(text, sizeof(text), "set=1\npublic_key=" KEY_A "\n%s\n\n", line);
	return parse(text);
}

static void test_a_request_becomes_its_items_in_order(void)
{
	assert(parse("set=1\n"
		     "private_key=" KEY_A "\n"
		     "listen_port=51820\n"
		     "fwmark=4294967295\n"
		     "replace_peers=true\n"
		     "public_key=" KEY_B "\n"
		     "update_only=true\n"
		     "preshared_key=" KEY_A "\n"
		     "endpoint=[2001:db8::1]:4321\n"
		     "persistent_keepalive_interval=25\n"
		     "replace_allowed_ips=true\n"
		     "allowed_ip=10.1.2.3/32\n"
		     "allowed_ip=-fd00::/8\n"
		     "protocol_version=1\n"
		     "\n") == 0);

	static const enum uapi_key order[] = {
		UAPI_PRIVATE_KEY, UAPI_LISTEN_PORT,   UAPI_FWMARK,   UAPI_REPLACE_PEERS,
		UAPI_PUBLIC_KEY,  UAPI_UPDATE_ONLY,   UAPI_PRESHARED_KEY, UAPI_ENDPOINT,
		UAPI_KEEPALIVE,	  UAPI_REPLACE_ALLOWED_IPS, UAPI_ALLOWED_IP, UAPI_ALLOWED_IP,
		UAPI_PROTOCOL_VERSION,
	};
	assert(command == UAPI_SET && n_items == ARRAY_LEN(order));
	for (size_t i = 0; i < n_items; i++)
		assert(items[i].key == order[i]);
	assert(items[0].secret[0] == 0xb8 && items[0].secret[31] == 0x33);
	assert(items[1].number == 51820 && items[2].number == UINT32_MAX && items[8].number == 25);
	assert(strcmp(endpoint_text(&items[7].endpoint).s, "[2001:db8::1]:4321") == 0);
	assert(items[10].allowed_ip.is_v4 && !items[10].allowed_ip.remove);
	assert(items[10].allowed_ip.prefix_len == 32 && items[10].allowed_ip.ip[3] == 3);
	assert(!items[11].allowed_ip.is_v4 && items[11].allowed_ip.remove);
	assert(items[11].allowed_ip.prefix_len == 8 && items[11].allowed_ip.ip[0] == 0xfd);
}

static void test_get_has_no_keys(void)
{
	assert(parse("get=1\n\n") == 0 && command == UAPI_GET && n_items == 0);
	assert(parse("get=1\nlisten_port=1\n\n") == UAPI_E_LINE);
}

static void test_other_commands_are_refused(void)
{
	assert(parse("") == UAPI_E_COMMAND);
	assert(parse("\n") == UAPI_E_COMMAND);
	assert(parse("get=2\n\n") == UAPI_E_COMMAND);
	assert(parse("listen_port=1\n\n") == UAPI_E_COMMAND);
	assert(uapi_error_errno(UAPI_E_COMMAND) == EPROTO);
}

static void test_lines_that_are_none_are_refused(void)
{
	assert(parse_device_line("listen_port") == UAPI_E_LINE);
	assert(parse_device_line("=1") == UAPI_E_KEY);
	assert(parse_device_line("nonsense=1") == UAPI_E_KEY);
	assert(uapi_parse("set=1\na\0=\n\n", 11, &command, items, ROOM, &n_items) == UAPI_E_LINE);
}

static void test_a_key_belongs_into_its_section(void)
{
	assert(parse_device_line("endpoint=192.0.2.1:1") == UAPI_E_KEY);
	assert(parse_device_line("allowed_ip=10.0.0.0/8") == UAPI_E_KEY);
	assert(parse_peer_line("listen_port=1") == UAPI_E_KEY);
	assert(parse_peer_line("private_key=" KEY_B) == UAPI_E_KEY);
	assert(parse_peer_line("public_key=" KEY_B) == 0);
}

static void test_values_outside_their_range_are_refused(void)
{
	assert(parse_device_line("listen_port=65535") == 0);
	assert(parse_device_line("listen_port=65536") == UAPI_E_VALUE);
	assert(parse_device_line("listen_port=-1") == UAPI_E_VALUE);
	assert(parse_device_line("listen_port=") == UAPI_E_VALUE);
	assert(parse_device_line("listen_port=1 ") == UAPI_E_VALUE);
	assert(parse_device_line("fwmark=4294967296") == UAPI_E_VALUE);
	assert(parse_device_line("fwmark=99999999999999999999999999") == UAPI_E_VALUE);
	assert(parse_device_line("replace_peers=false") == UAPI_E_VALUE);
	assert(parse_device_line("private_key=00") == UAPI_E_VALUE);
	assert(parse_device_line("private_key=" KEY_A "00") == UAPI_E_VALUE);
	assert(parse_device_line("private_key=x85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33") ==
	       UAPI_E_VALUE);
	assert(parse_peer_line("protocol_version=2") == UAPI_E_VALUE);
	assert(parse_peer_line("endpoint=example.org:1") == UAPI_E_VALUE);
	assert(parse_peer_line("endpoint=192.0.2.1") == UAPI_E_VALUE);
	assert(parse_peer_line("persistent_keepalive_interval=65536") == UAPI_E_VALUE);
	assert(uapi_error_errno(UAPI_E_VALUE) == EINVAL);
}

static void test_a_link_local_endpoint_may_name_its_interface(void)
{
	assert(parse_peer_line("endpoint=[fe80::1%eth0]:7") == 0);
	assert(strcmp(items[1].scope_name, "eth0") == 0 && items[1].endpoint.port == 7);
	assert(parse_peer_line("endpoint=[fe80::1%3]:7") == 0);
	assert(items[1].scope_name[0] == '\0' && items[1].endpoint.scope_id == 3);
	assert(parse_peer_line("endpoint=[fe80::1%]:7") == UAPI_E_VALUE);
	assert(parse_peer_line("endpoint=[fe80::1%a-name-of-16-char]:7") == UAPI_E_VALUE);
	assert(parse_peer_line("endpoint=[fe80::1%eth0") == UAPI_E_VALUE);
}

static void test_allowed_ips_need_an_address_and_a_prefix(void)
{
	assert(parse_peer_line("allowed_ip=0.0.0.0/0") == 0);
	assert(parse_peer_line("allowed_ip=::/0") == 0);
	assert(parse_peer_line("allowed_ip=10.0.0.0/33") == UAPI_E_VALUE);
	assert(parse_peer_line("allowed_ip=::/129") == UAPI_E_VALUE);
	assert(parse_peer_line("allowed_ip=10.0.0.0") == UAPI_E_VALUE);
	assert(parse_peer_line("allowed_ip=10.0.0/8") == UAPI_E_VALUE);
	assert(parse_peer_line("allowed_ip=/8") == UAPI_E_VALUE);
	assert(parse_peer_line("allowed_ip=--10.0.0.0/8") == UAPI_E_VALUE);
}

static void test_more_lines_than_room_is_an_error_not_an_overflow(void)
{
	char text[64 * ROOM] = "set=1\n";

	for (int i = 0; i <= ROOM; i++)
		strcat(text, "listen_port=1\n");
	strcat(text, "\n");
	assert(parse(text) == UAPI_E_TOO_MANY);
	assert(uapi_count_lines(text, strlen(text)) >= ROOM + 1);
}

static void test_a_request_ends_at_its_empty_line_however_it_arrives(void)
{
	static const char text[] = "set=1\nlisten_port=1\n\nget=1\n\n";
	const size_t first = strlen("set=1\nlisten_port=1\n\n");
	size_t scanned = 0;

	for (size_t len = 0; len < first; len++)
		assert(uapi_request_len(text, len, &scanned) == 0);
	assert(uapi_request_len(text, first, &scanned) == first);
	scanned = 0;
	assert(uapi_request_len(text, strlen(text), &scanned) == first);
	scanned = 0;
	assert(uapi_request_len("\n", 1, &scanned) == 1);
}

static void test_an_answer_says_what_was_set(void)
{
	struct uapi_device device = { .listen_port = 51820, .fwmark = 7 };
	struct uapi_peer peer = { .last_handshake_s = 12, .last_handshake_ns = 34, .tx_bytes = 5, .rx_bytes = 6 };
	struct uapi_allowed_ip allowed_ip = { .is_v4 = true, .ip = { 10, 0, 0, 0 }, .prefix_len = 8 };
	char text[2048];
	struct wire_writer w = wire_writer(text, sizeof(text));

	memset(device.private_key.bytes, 0x11, KEY_LEN);
	memset(peer.public_key.bytes, 0x22, KEY_LEN);
	assert(endpoint_parse("192.0.2.1:99", &peer.endpoint) == 0);
	uapi_put_device(&w, &device);
	uapi_put_peer(&w, &peer);
	uapi_put_allowed_ip(&w, &allowed_ip);
	uapi_put_result(&w, 0);
	text[wire_written(&w)] = '\0';

	assert(strcmp(text, "private_key=1111111111111111111111111111111111111111111111111111111111111111\n"
			    "listen_port=51820\n"
			    "fwmark=7\n"
			    "public_key=2222222222222222222222222222222222222222222222222222222222222222\n"
			    "preshared_key=0000000000000000000000000000000000000000000000000000000000000000\n"
			    "protocol_version=1\n"
			    "endpoint=192.0.2.1:99\n"
			    "last_handshake_time_sec=12\n"
			    "last_handshake_time_nsec=34\n"
			    "tx_bytes=5\n"
			    "rx_bytes=6\n"
			    "persistent_keepalive_interval=0\n"
			    "allowed_ip=10.0.0.0/8\n"
			    "errno=0\n\n") == 0);
}

static void test_what_is_unset_is_left_out_of_an_answer(void)
{
	struct uapi_device device = { 0 };
	char text[64] = "";
	struct wire_writer w = wire_writer(text, sizeof(text));

	uapi_put_device(&w, &device);
	uapi_put_result(&w, -EINVAL);
	assert(strcmp(text, "errno=-22\n\n") == 0);
}

static struct uapi_peer answered[4];
static size_t n_answered;

static void take_answered(void *arg, const struct uapi_peer *peer)
{
	answered[n_answered++] = *peer;
}

static int parse_answer(const char *text, struct uapi_device *ret)
{
	n_answered = 0;
	return uapi_parse_answer(text, strlen(text), ret, take_answered, NULL);
}

static void test_an_answer_is_read_back_by_a_client(void)
{
	struct uapi_device device;

	assert(parse_answer("private_key=" KEY_A "\nlisten_port=51820\nfwmark=7\n"
			    "public_key=" KEY_A "\nendpoint=[2001:db8::1]:4321\nlast_handshake_time_sec=12\n"
			    "last_handshake_time_nsec=34\ntx_bytes=18446744073709551615\nrx_bytes=6\n"
			    "something_new=1\nallowed_ip=10.0.0.0/8\n"
			    "public_key=" KEY_B "\nrx_bytes=9\nerrno=0\n\n",
			    &device) == 0);
	assert(device.listen_port == 51820 && device.fwmark == 7 && n_answered == 2);
	assert(answered[0].endpoint.port == 4321 && answered[0].last_handshake_s == 12);
	assert(answered[0].last_handshake_ns == 34 && answered[0].tx_bytes == UINT64_MAX);
	assert(answered[1].rx_bytes == 9 && endpoint_is_none(&answered[1].endpoint));
	assert(answered[1].public_key.bytes[0] == 0x58);
}

static void test_an_answer_that_says_no_or_nothing_is_an_error(void)
{
	struct uapi_device device;

	assert(parse_answer("errno=22\n\n", &device) == -EINVAL);
	assert(parse_answer("errno=-22\n\n", &device) == -EINVAL);
	assert(parse_answer("errno=99999999999\n\n", &device) == -EPROTO);
	assert(parse_answer("errno=-9223372036854775808\n\n", &device) == -EPROTO);
	assert(parse_answer("errno=-99999999999999999999999\n\n", &device) == -EPROTO);
	assert(parse_answer("", &device) == -EPROTO && parse_answer("\n", &device) == -EPROTO);
	assert(parse_answer("listen_port=1\n\n", &device) == -EPROTO);
	assert(parse_answer("what\nerrno=0\n\n", &device) == -EPROTO);
	assert(parse_answer("public_key=zz\nerrno=0\n\n", &device) == -EPROTO);
}

static void test_items_are_written_as_the_request_that_they_are_parsed_from(void)
{
	static const char request[] = "set=1\nprivate_key=" KEY_A "\nreplace_peers=true\npublic_key=" KEY_B
				      "\nreplace_allowed_ips=true\nallowed_ip=10.1.2.3/32\n"
				      "allowed_ip=fd00::3/128\nendpoint=127.0.0.1:999\n"
				      "persistent_keepalive_interval=1\n\n";
	char text[1024];
	struct wire_writer w = wire_writer(text, sizeof(text));

	assert(parse(request) == 0);
	wire_put(&w, "set=1\n", 6);
	for (size_t i = 0; i < n_items; i++)
		uapi_put_item(&w, &items[i]);
	wire_put(&w, "\n", 2);
	assert(!w.failed && strcmp(text, request) == 0);
}

int main(void)
{
	test_an_answer_is_read_back_by_a_client();
	test_an_answer_that_says_no_or_nothing_is_an_error();
	test_items_are_written_as_the_request_that_they_are_parsed_from();
	test_a_request_becomes_its_items_in_order();
	test_get_has_no_keys();
	test_other_commands_are_refused();
	test_lines_that_are_none_are_refused();
	test_a_key_belongs_into_its_section();
	test_values_outside_their_range_are_refused();
	test_a_link_local_endpoint_may_name_its_interface();
	test_allowed_ips_need_an_address_and_a_prefix();
	test_more_lines_than_room_is_an_error_not_an_overflow();
	test_a_request_ends_at_its_empty_line_however_it_arrives();
	test_an_answer_says_what_was_set();
	test_what_is_unset_is_left_out_of_an_answer();
	puts("ok");
	return 0;
}
