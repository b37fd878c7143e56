#include "initial.h"

#include "common/wire.h"
#include "relay/frontdoor/quic_initial_wire.h"

#include <assert.h>
#include <openssl/evp.h>
#include <string.h>

static void put_varint(struct wire_writer *w, uint64_t value)
{
	if (value < 64)
		wire_put_u8(w, (uint8_t)value);
	else if (value < 16384)
		wire_put_u16(w, (uint16_t)(value | 0x4000));
	else
		wire_put_u32(w, (uint32_t)(value | 0x80000000));
}

size_t initial_crypto(uint64_t offset, const uint8_t *bytes, size_t len, uint8_t *ret, size_t cap)
{
	struct wire_writer w = wire_writer(ret, cap);

	wire_put_u8(&w, 6);
	put_varint(&w, offset);
	put_varint(&w, len);
	wire_put(&w, bytes, len);
	assert(!w.failed);
	return wire_written(&w);
}

static void seal(const struct quic_keys *keys, uint32_t number, const uint8_t *header, size_t header_len, uint8_t *payload,
		 size_t len)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t nonce[12];
	int n;

	memcpy(nonce, keys->iv, sizeof(nonce));
	for (int i = 0; i < 4; i++)
		nonce[11 - i] ^= (uint8_t)(number >> (8 * i));
	assert(EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), NULL, keys->key, nonce) == 1);
	assert(EVP_EncryptUpdate(context, NULL, &n, header, (int)header_len) == 1);
	assert(EVP_EncryptUpdate(context, payload, &n, payload, (int)len) == 1);
	assert(EVP_EncryptFinal_ex(context, payload + len, &n) == 1);
	assert(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, 16, payload + len) == 1);
	EVP_CIPHER_CTX_free(context);
}

static void protect(const struct quic_keys *keys, uint8_t *packet, uint8_t *number, size_t number_len)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	uint8_t mask[32];
	int n;

	assert(EVP_EncryptInit_ex(context, EVP_aes_128_ecb(), NULL, keys->header, NULL) == 1);
	assert(EVP_EncryptUpdate(context, mask, &n, number + 4, 16) == 1);
	EVP_CIPHER_CTX_free(context);
	packet[0] ^= mask[0] & 0x0f;
	for (size_t i = 0; i < number_len; i++)
		number[i] ^= mask[1 + i];
}

static struct quic_cid destination_of(const struct initial_options *options)
{
	struct quic_cid cid = { .len = 8, .bytes = { 0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08 } };

	if (options->destination) {
		cid.len = options->destination_len;
		memcpy(cid.bytes, options->destination, cid.len);
	}
	return cid;
}

size_t initial_build(const struct initial_options *options, const uint8_t *frames, size_t len, uint8_t *ret, size_t cap)
{
	static const uint8_t zeroes[16 * 1024];
	uint32_t version = options->version ? options->version : QUIC_VERSION_1;
	size_t number_len = options->number_len ? options->number_len : 4;
	size_t pad_to = options->pad_to ? options->pad_to : QUIC_MIN_DATAGRAM;
	struct quic_cid destination = destination_of(options);
	struct wire_writer w = wire_writer(ret, cap);
	struct quic_keys keys;

	assert(quic_initial_keys(version, &destination, &keys) == 0);
	wire_put_u8(&w, (uint8_t)(0xc0 | (version == QUIC_VERSION_2 ? 0x10 : 0) | options->reserved | (number_len - 1)));
	wire_put_u32(&w, version);
	wire_put_u8(&w, destination.len);
	wire_put(&w, destination.bytes, destination.len);
	wire_put_u8(&w, 0);
	put_varint(&w, options->token_len);
	wire_put(&w, zeroes, options->token_len);
	size_t others = wire_written(&w) + 2 + number_len + 16;
	size_t padding = others + len < pad_to ? pad_to - others - len : 0;
	wire_put_u16(&w, (uint16_t)(0x4000 | (number_len + len + padding + 16)));
	uint8_t *number = w.at;
	for (size_t i = number_len; i > 0; i--)
		wire_put_u8(&w, (uint8_t)(options->number >> (8 * (i - 1))));
	uint8_t *payload = w.at;
	wire_put(&w, frames, len);
	wire_put(&w, zeroes, padding);
	assert(wire_reserve(&w, 16));
	seal(&keys, options->number, ret, (size_t)(payload - ret), payload, len + padding);
	protect(&keys, ret, number, number_len);
	return wire_written(&w);
}

size_t initial_with_hello(const uint8_t *message, size_t len, uint8_t *ret, size_t cap)
{
	static uint8_t frames[64 * 1024];
	size_t n = initial_crypto(0, message, len, frames, sizeof(frames));

	return initial_build(&(struct initial_options){ 0 }, frames, n, ret, cap);
}
