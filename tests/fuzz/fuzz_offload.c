/*
 * Target: offload_begin, offload_next, offload_merge. Input: a header of 10 bytes, then a packet.
 * Cutting keeps every byte of payload; merging what was cut stays in bounds.
 */
#include "node/wireguard/offload.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void merge_all(const struct train *train)
{
	struct offload_run run;

	for (uint32_t i = 0; i < train->n;) {
		uint32_t n = offload_merge(train, i, OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, &run);
		size_t len = 0;
		for (int k = 1; k < run.n_pieces; k++)
			len += run.pieces[k].iov_len;
		if (n == 0 || n > train->n - i || len > OFFLOAD_MAX_PACKET)
			abort();
		i += n;
	}
}

static void cut_all(struct offload_cut *cut)
{
	uint32_t stride = offload_packet_len(cut), payload = 0;
	uint8_t *out = malloc((size_t)stride * TRAIN_MAX);
	struct train train;
	if (!out)
		abort();

	while (offload_next(cut, out, stride, TRAIN_MAX, &train)) {
		for (uint32_t i = 0; i < train.n; i++)
			payload += train_size(&train, i) - cut->header_len;
		merge_all(&train);
	}
	if (payload != cut->payload_len)
		abort();
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct offload_header header;
	struct offload_cut cut;
	bool is_super;

	if (size <= sizeof(header) || size > sizeof(header) + OFFLOAD_MAX_PACKET)
		return 0;
	memcpy(&header, data, sizeof(header));
	size -= sizeof(header);
	uint8_t *packet = malloc(size);
	if (!packet)
		abort();
	memcpy(packet, data + sizeof(header), size);

	struct train one = train_of_one(packet, size);
	merge_all(&one);
	if (offload_begin(&header, packet, size, &cut, &is_super) == 0 && is_super)
		cut_all(&cut);
	free(packet);
	return 0;
}
