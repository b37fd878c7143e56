/*
 * What real clients send, captured from them when they were asked for app.example.org: each is routed there, at once,
 * byte by byte, cut at every byte; hellos split over records of many sizes as well, and QUIC's datagrams in any order.
 * The bytes are in the corpus of the fuzzers, tests/fuzz/corpus/{sniffer,quic_initial_wire}/client_*.
 *
 * argv[1]: tests/fuzz/corpus
 */
#include "common/macros.h"
#include "hello.h"
#include "sniffed.h"

#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAP 65536

static const struct client {
	const char *file;
	bool has_ech; /* real or GREASE */
	size_t more_than; /* bytes: post-quantum hellos do not fit one segment with the least MTU, or a buffer of 1 KiB */
} clients[] = {
	{ .file = "sniffer/client_openssl_3.0" },
	{ .file = "sniffer/client_openssl_3.0_tls_1.2" },
	{ .file = "sniffer/client_gnutls_3.7" },
	{ .file = "sniffer/client_nss_3.87" },
	{ .file = "sniffer/client_curl_7.88" },
	{ .file = "sniffer/client_node_20" },
	{ .file = "sniffer/client_go_1.26", .more_than = 1280 }, /* X25519MLKEM768 */
	{ .file = "sniffer/client_go_1.26_x25519" },
	{ .file = "sniffer/client_rustls_0.23" },
	{ .file = "sniffer/client_chromium_156", .has_ech = true, .more_than = 1280 },
	{ .file = "sniffer/client_firefox_153", .has_ech = true, .more_than = 1280 },
	{ .file = "sniffer/client_curl_7.88_http_1" },
	{ .file = "sniffer/client_curl_7.88_h2c" },
	/* Two or three datagrams; Chromium's in a hundred shuffled pieces. */
	{ .file = "quic_initial_wire/client_quic_go_0.65_v1", .more_than = 2400 },
	{ .file = "quic_initial_wire/client_quic_go_0.65_v2", .more_than = 2400 },
	{ .file = "quic_initial_wire/client_chromium_156", .has_ech = true, .more_than = 2400 },
};

static size_t read_file(const char *corpus, const char *file, uint8_t *ret)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", corpus, file);
	FILE *stream = fopen(path, "r");
	assert(stream);
	size_t n = fread(ret, 1, CAP, stream);
	fclose(stream);
	assert(n > 0 && n < CAP);
	return n;
}

static void expect(const struct client *client, const char *happens)
{
	const char *expected = client->has_ech ? "to `app.example.org`, ECH" : "to `app.example.org`";

	if (strcmp(happens, expected) != 0) {
		printf("%s: %s\n", client->file, happens);
		abort();
	}
}

/* ---- TCP ------------------------------------------------------------------------------------- */

static void in_records_of_many_sizes(const struct client *client, const uint8_t *bytes, size_t n)
{
	static const size_t sizes[] = { 1, 2, 3, 5, 64, 100, 255, 256, 257, 1000, 1400 };
	static uint8_t message[CAP], again[CAP];
	char happens[SNIFFED_MAX_TEXT];

	size_t len = hello_of_records(bytes, n, message, sizeof(message));
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		size_t n_again = hello_in_records(message, len, sizes[i], again, sizeof(again));
		sniffed_text(again, n_again, happens);
		expect(client, happens);
	}
}

/* A record that ends at every byte in turn, and a second with the rest. */
static void in_two_records(const struct client *client, const uint8_t *bytes, size_t n)
{
	static uint8_t message[CAP], again[CAP];
	struct sniffer sniffer;

	size_t len = hello_of_records(bytes, n, message, sizeof(message));
	for (size_t cut = 1; cut < len; cut++) {
		size_t at = hello_in_records(message, cut, cut, again, sizeof(again));
		at += hello_in_records(message + cut, len - cut, len - cut, again + at, sizeof(again) - at);
		sniffer_init(&sniffer);
		assert(sniffer_read(&sniffer, again, at) == SNIFFER_FOUND);
		assert(strcmp(sniffer.found.host.text, "app.example.org") == 0 && sniffer.found.has_ech == client->has_ech);
	}
}

static void test_a_client_over_tcp_is_routed_however_its_bytes_come(const struct client *client, const uint8_t *bytes, size_t n)
{
	char happens[SNIFFED_MAX_TEXT];

	sniffed_text(bytes, n, happens);
	expect(client, happens);
	if (bytes[0] != 22)
		return;
	in_records_of_many_sizes(client, bytes, n);
	in_two_records(client, bytes, n);
}

/* ---- QUIC ------------------------------------------------------------------------------------ */

/* The datagram that begins at *at, with its length, is put behind what is in ret. */
static size_t append(const uint8_t *datagrams, size_t at, uint8_t *ret, size_t n)
{
	size_t len = 2 + ((size_t)datagrams[at] << 8 | datagrams[at + 1]);

	memcpy(ret + n, datagrams + at, len);
	return n + len;
}

static size_t starts_of(const uint8_t *datagrams, size_t n, size_t ret[3])
{
	size_t count = 0;

	for (size_t at = 0; at < n; at += 2 + ((size_t)datagrams[at] << 8 | datagrams[at + 1])) {
		assert(count < 3);
		ret[count++] = at;
	}
	return count;
}

static void test_a_client_over_quic_is_routed_in_whatever_order_its_datagrams_come(const struct client *client,
										     const uint8_t *bytes, size_t n)
{
	static const size_t orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	static uint8_t ordered[2 * CAP];
	char happens[SNIFFED_MAX_TEXT];
	size_t starts[3], count = starts_of(bytes, n, starts);

	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		size_t len = 0;
		for (size_t j = 0; j < 3; j++)
			if (orders[i][j] < count) {
				len = append(bytes, starts[orders[i][j]], ordered, len);
				len = append(bytes, starts[orders[i][j]], ordered, len); /* and once again */
			}
		sniffed_quic_text(ordered, len, happens);
		expect(client, happens);
	}
}

/* ---------------------------------------------------------------------------------------------- */

static unsigned count_captured(const char *corpus, const char *folder)
{
	char path[512];
	unsigned n = 0;

	snprintf(path, sizeof(path), "%s/%s", corpus, folder);
	DIR *dir = opendir(path);
	assert(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		n += strncmp(entry->d_name, "client_", 7) == 0;
	closedir(dir);
	return n;
}

int main(int argc, char **argv)
{
	static uint8_t bytes[CAP];

	assert(argc == 2);
	for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
		size_t n = read_file(argv[1], clients[i].file, bytes);
		assert(n > clients[i].more_than);
		if (strncmp(clients[i].file, "quic", 4) == 0) /* behind the byte that is the fuzzer's */
			test_a_client_over_quic_is_routed_in_whatever_order_its_datagrams_come(&clients[i], bytes + 1, n - 1);
		else
			test_a_client_over_tcp_is_routed_however_its_bytes_come(&clients[i], bytes, n);
	}
	/* None was captured and forgotten. */
	assert(count_captured(argv[1], "sniffer") + count_captured(argv[1], "quic_initial_wire") == ARRAY_LEN(clients));
	puts("ok");
	return 0;
}
