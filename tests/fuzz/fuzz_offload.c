/*
 * Target: offload_begin, offload_next, offload_merge. Input: a header of 10 bytes, then a packet.
 * Cutting keeps every byte of payload; merging what was cut stays in bounds and can be undone.
 */
#include "node/wireguard/offload.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Merges, and takes each merge back: the packets are what they were. */
static void merge_all(const struct train *train)
{
	const size_t span = (size_t)(train->n - 1) * train->stride + train->last_size;
	uint8_t *before = malloc(span);
	struct offload_run run;
	if (!before)
		abort();

	for (uint32_t i = 0; i < train->n;) {
		memcpy(before, train->base, span);
		uint32_t n = offload_merge(train, i, OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, &run);
		size_t len = 0;
		offload_undo_merge(&run);
		if (memcmp(before, train->base, span) != 0)
			abort();
		for (int k = 1; k < run.n_pieces; k++)
			len += run.pieces[k].iov_len;
		if (n == 0 || n > train->n - i || len > OFFLOAD_MAX_PACKET)
			abort();
		i += n;
	}
	free(before);
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
