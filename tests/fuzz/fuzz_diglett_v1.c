/* Target: v1_hello_read, v1_head_read, v1_fsm_receive: a hello, then frames, as they come out of the cipher. */
#include "relay/diglett/v1_fsm.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_hello(const uint8_t *data)
{
	static const uint8_t seed[32] = { 1 };
	static struct noise_curve curve;
	struct noise_public key;
	uint8_t again[V1_HELLO_LEN];

	if (!curve.context && noise_curve_init(&curve, seed) < 0)
		return;
	if (v1_hello_read(&curve, data, &key) != 0)
		return;
	v1_hello_write(&key, again);
	assert(memcmp(data, again, sizeof(again)) == 0);
}

static void check_request(const struct diglett_request *request)
{
	static struct diglett_request again;
	uint8_t bytes[DIGLETT_MAX_REQUEST];
	const size_t n = diglett_request_write(request, bytes);

	assert(diglett_request_read(bytes, n, &again)); /* it is what one of diglett/2 could be */
	assert(strcmp(again.token, request->token) == 0 && host_name_equal(&again.names[0], &request->names[0]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct v1_fsm fsm;
	struct v1_head head;
	uint8_t again[V1_HEAD_LEN];

	if (size < V1_HELLO_LEN)
		return 0;
	read_hello(data);
	v1_fsm_init(&fsm);
	for (size_t at = V1_HELLO_LEN; size - at >= V1_HEAD_LEN;) {
		if (!v1_head_read(data + at, &head))
			break;
		v1_head_write(&head, again);
		assert(memcmp(data + at, again, sizeof(again)) == 0);
		at += V1_HEAD_LEN;
		if (head.size > v1_fsm_max_payload(&fsm) || head.size > size - at)
			break;
		const enum v1_event event = v1_fsm_receive(&fsm, &head, data + at);
		at += head.size;
		if (event == V1_EV_VIOLATION || event == V1_EV_LEAVES)
			break;
		if (event == V1_EV_ASKS) {
			check_request(&fsm.request);
			v1_fsm_answer(&fsm);
		}
	}
	return 0;
}
