/* Target: stun_decode, stun_encode. What was read, written and read again is the same. */
#include "common/stun_wire.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Only what an encoder writes: nothing that is not there, no spaces at the end. */
static bool is_same(const struct stun_message *a, const struct stun_message *b)
{
	return a->class == b->class && a->method == b->method && stun_tx_equal(&a->tx, &b->tx) &&
	       endpoint_equal(&a->mapped, &b->mapped) && endpoint_equal(&a->other_address, &b->other_address) &&
	       a->has_change_request == b->has_change_request && a->change_ip == b->change_ip &&
	       a->change_port == b->change_port && a->response_port == b->response_port &&
	       a->error_code == b->error_code && a->has_fingerprint == b->has_fingerprint &&
	       strcmp(a->software, b->software) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stun_message first, second;
	uint8_t buf[STUN_MAX_LEN];

	if (stun_decode(data, size, &first) != 0)
		return 0;
	size_t n = stun_encode(buf, sizeof(buf), &first);
	assert(n > 0);
	int r = stun_decode(buf, n, &second);
	assert(r == 0 && is_same(&first, &second));
	return 0;
}
