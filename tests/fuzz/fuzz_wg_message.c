/* Target: wg_*_decode, wg_*_encode: what decodes, encodes to the same bytes. */
#include "node/wireguard/message_wire.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wg_initiation initiation;
	struct wg_response response;
	struct wg_cookie_reply reply;
	struct wg_data_header header;
	uint8_t again[WG_INITIATION_LEN];
	enum wg_message_type type = (enum wg_message_type)0;
	size_t n = 0;

	if (wg_initiation_decode(data, size, &initiation) == 0) {
		wg_initiation_encode(again, &initiation);
		type = WG_MESSAGE_INITIATION;
		n = size;
	} else if (wg_response_decode(data, size, &response) == 0) {
		wg_response_encode(again, &response);
		type = WG_MESSAGE_RESPONSE;
		n = size;
	} else if (wg_cookie_reply_decode(data, size, &reply) == 0) {
		wg_cookie_reply_encode(again, &reply);
		type = WG_MESSAGE_COOKIE_REPLY;
		n = size;
	} else if (wg_data_header_decode(data, size, &header) == 0) {
		wg_data_header_encode(again, &header);
		type = WG_MESSAGE_DATA;
		n = WG_DATA_HEADER_LEN;
	}
	assert(memcmp(again, data, n) == 0);
	assert(size > UINT16_MAX || wg_message_type(data, size) == type);
	return 0;
}
