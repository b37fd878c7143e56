#include "node/wireguard/message_wire.h"

#include "common/wire.h"

#include <assert.h>

static const struct {
	size_t min_len, max_len;
} lengths[] = {
	[WG_MESSAGE_INITIATION] = { WG_INITIATION_LEN, WG_INITIATION_LEN },
	[WG_MESSAGE_RESPONSE] = { WG_RESPONSE_LEN, WG_RESPONSE_LEN },
	[WG_MESSAGE_COOKIE_REPLY] = { WG_COOKIE_REPLY_LEN, WG_COOKIE_REPLY_LEN },
	[WG_MESSAGE_DATA] = { WG_DATA_MIN_LEN, UINT16_MAX },
};

enum wg_message_type wg_message_type(const void *buf, size_t len)
{
	struct wire_reader r = wire_reader(buf, len);
	uint32_t type = wire_u32_le(&r);

	if (r.failed || type == 0 || type >= ARRAY_LEN(lengths))
		return (enum wg_message_type)0;
	if (len < lengths[type].min_len || len > lengths[type].max_len)
		return (enum wg_message_type)0;
	return (enum wg_message_type)type;
}

int wg_initiation_decode(const void *buf, size_t len, struct wg_initiation *ret)
{
	struct wire_reader r = wire_reader(buf, len);
	struct wg_initiation message;

	uint32_t type = wire_u32_le(&r);
	message.sender = wire_u32_le(&r);
	wire_bytes(&r, message.noise, sizeof(message.noise));
	wire_bytes(&r, message.mac1, sizeof(message.mac1));
	wire_bytes(&r, message.mac2, sizeof(message.mac2));

	if (!wire_done(&r) || type != WG_MESSAGE_INITIATION)
		return WG_MESSAGE_E_MALFORMED;
	*ret = message;
	return 0;
}

void wg_initiation_encode(uint8_t buf[WG_INITIATION_LEN], const struct wg_initiation *message)
{
	struct wire_writer w = wire_writer(buf, WG_INITIATION_LEN);

	wire_put_u32_le(&w, WG_MESSAGE_INITIATION);
	wire_put_u32_le(&w, message->sender);
	wire_put(&w, message->noise, sizeof(message->noise));
	wire_put(&w, message->mac1, sizeof(message->mac1));
	wire_put(&w, message->mac2, sizeof(message->mac2));
	assert(wire_written(&w) == WG_INITIATION_LEN);
}

int wg_response_decode(const void *buf, size_t len, struct wg_response *ret)
{
	struct wire_reader r = wire_reader(buf, len);
	struct wg_response message;

	uint32_t type = wire_u32_le(&r);
	message.sender = wire_u32_le(&r);
	message.receiver = wire_u32_le(&r);
	wire_bytes(&r, message.noise, sizeof(message.noise));
	wire_bytes(&r, message.mac1, sizeof(message.mac1));
	wire_bytes(&r, message.mac2, sizeof(message.mac2));

	if (!wire_done(&r) || type != WG_MESSAGE_RESPONSE)
		return WG_MESSAGE_E_MALFORMED;
	*ret = message;
	return 0;
}

void wg_response_encode(uint8_t buf[WG_RESPONSE_LEN], const struct wg_response *message)
{
	struct wire_writer w = wire_writer(buf, WG_RESPONSE_LEN);

	wire_put_u32_le(&w, WG_MESSAGE_RESPONSE);
	wire_put_u32_le(&w, message->sender);
	wire_put_u32_le(&w, message->receiver);
	wire_put(&w, message->noise, sizeof(message->noise));
	wire_put(&w, message->mac1, sizeof(message->mac1));
	wire_put(&w, message->mac2, sizeof(message->mac2));
	assert(wire_written(&w) == WG_RESPONSE_LEN);
}

int wg_cookie_reply_decode(const void *buf, size_t len, struct wg_cookie_reply *ret)
{
	struct wire_reader r = wire_reader(buf, len);
	struct wg_cookie_reply message;

	uint32_t type = wire_u32_le(&r);
	message.receiver = wire_u32_le(&r);
	wire_bytes(&r, message.nonce, sizeof(message.nonce));
	wire_bytes(&r, message.sealed, sizeof(message.sealed));

	if (!wire_done(&r) || type != WG_MESSAGE_COOKIE_REPLY)
		return WG_MESSAGE_E_MALFORMED;
	*ret = message;
	return 0;
}

void wg_cookie_reply_encode(uint8_t buf[WG_COOKIE_REPLY_LEN], const struct wg_cookie_reply *message)
{
	struct wire_writer w = wire_writer(buf, WG_COOKIE_REPLY_LEN);

	wire_put_u32_le(&w, WG_MESSAGE_COOKIE_REPLY);
	wire_put_u32_le(&w, message->receiver);
	wire_put(&w, message->nonce, sizeof(message->nonce));
	wire_put(&w, message->sealed, sizeof(message->sealed));
	assert(wire_written(&w) == WG_COOKIE_REPLY_LEN);
}

int wg_data_header_decode(const void *buf, size_t len, struct wg_data_header *ret)
{
	struct wire_reader r = wire_reader(buf, len);
	struct wg_data_header header;

	uint32_t type = wire_u32_le(&r);
	header.receiver = wire_u32_le(&r);
	header.counter = wire_u64_le(&r);

	if (r.failed || type != WG_MESSAGE_DATA || len < WG_DATA_MIN_LEN)
		return WG_MESSAGE_E_MALFORMED;
	*ret = header;
	return 0;
}

void wg_data_header_encode(uint8_t buf[WG_DATA_HEADER_LEN], const struct wg_data_header *header)
{
	struct wire_writer w = wire_writer(buf, WG_DATA_HEADER_LEN);

	wire_put_u32_le(&w, WG_MESSAGE_DATA);
	wire_put_u32_le(&w, header->receiver);
	wire_put_u64_le(&w, header->counter);
	assert(wire_written(&w) == WG_DATA_HEADER_LEN);
}
