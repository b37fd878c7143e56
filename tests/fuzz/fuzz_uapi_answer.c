/*
 * Target: uapi_parse_answer: any bytes give peers and 0 or an errno; what was understood, written as an
 * answer, is understood the same.
 */
#include "node/wireguard/uapi_wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	const struct uapi_peer *expected; /* NULL: to be kept in `peers` */
	struct uapi_peer *peers;
	size_t n, room;
};

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static void see(void *arg, const struct uapi_peer *peer)
{
	struct seen *seen = arg;

	expect(seen->n < seen->room);
	if (!seen->expected) {
		seen->peers[seen->n++] = *peer;
		return;
	}
	const struct uapi_peer *before = &seen->expected[seen->n++];
	expect(memcmp(&before->public_key, &peer->public_key, sizeof(peer->public_key)) == 0);
	expect(endpoint_equal(&before->endpoint, &peer->endpoint));
	expect(before->last_handshake_s == peer->last_handshake_s &&
	       before->last_handshake_ns == peer->last_handshake_ns);
	expect(before->tx_bytes == peer->tx_bytes && before->rx_bytes == peer->rx_bytes);
	expect(before->keepalive_s == peer->keepalive_s);
}

static void write_and_read_again(const struct uapi_device *device, const struct uapi_peer *peers, size_t n)
{
	const size_t len = UAPI_DEVICE_TEXT_LEN + n * UAPI_PEER_TEXT_LEN + UAPI_RESULT_TEXT_LEN;
	char *text = malloc(len);
	struct wire_writer w = wire_writer(text, len);
	struct seen seen = { .expected = peers, .room = n };
	struct uapi_device again;

	expect(text);
	uapi_put_device(&w, device);
	for (size_t i = 0; i < n; i++)
		uapi_put_peer(&w, &peers[i]);
	uapi_put_result(&w, 0);
	expect(!w.failed);
	expect(uapi_parse_answer(text, wire_written(&w), &again, see, &seen) == 0 && seen.n == n);
	expect(again.listen_port == device->listen_port && again.fwmark == device->fwmark);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct seen seen = { .room = uapi_count_lines(text, size) + 1 };
	struct uapi_device device;

	seen.peers = calloc(seen.room, sizeof(*seen.peers));
	expect(seen.peers);
	int r = uapi_parse_answer(text, size, &device, see, &seen);
	expect(r <= 0 && r > -4096);
	if (r == 0)
		write_and_read_again(&device, seen.peers, seen.n);
	free(seen.peers);
	return 0;
}
