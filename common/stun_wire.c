#include "common/stun_wire.h"

#include "common/wire.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC		 0x2112A442u
#define FINGERPRINT_XOR	 0x5354554Eu
#define FINGERPRINT_LEN	 8 /* with its head */
#define FAMILY_V4	 1
#define FAMILY_V6	 2
#define CHANGE_IP	 4u
#define CHANGE_PORT	 2u
#define FIRST_OPTIONAL	 0x8000 /* below: comprehension-required */
#define SOFTWARE_NAME	 "p2pnode"

enum attribute {
	MAPPED_ADDRESS = 0x0001,
	CHANGE_REQUEST = 0x0003,
	USERNAME = 0x0006,
	MESSAGE_INTEGRITY = 0x0008,
	ERROR_CODE = 0x0009,
	UNKNOWN_ATTRIBUTES = 0x000A,
	REALM = 0x0014,
	NONCE = 0x0015,
	MESSAGE_INTEGRITY_SHA256 = 0x001C,
	PASSWORD_ALGORITHM = 0x001D,
	USERHASH = 0x001E,
	XOR_MAPPED_ADDRESS = 0x0020,
	RESPONSE_PORT = 0x0027,
	SOFTWARE = 0x8022,
	FINGERPRINT = 0x8028,
	RESPONSE_ORIGIN = 0x802B,
	OTHER_ADDRESS = 0x802C,
};

/* The CRC-32 of ITU V.42. [n]: what a byte does to it when n more follow. */
static uint32_t crc_tables[8][256];

__attribute__((constructor)) static void make_crc_tables(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t crc = i;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
		crc_tables[0][i] = crc;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int n = 1; n < 8; n++)
			crc_tables[n][i] = crc_tables[n - 1][i] >> 8 ^ crc_tables[0][crc_tables[n - 1][i] & 0xff];
}

static uint32_t little_endian(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* What four bytes do when n more follow. */
static uint32_t crc_of_four(uint32_t four, size_t n)
{
	return crc_tables[n + 3][four & 0xff] ^ crc_tables[n + 2][four >> 8 & 0xff] ^
	       crc_tables[n + 1][four >> 16 & 0xff] ^ crc_tables[n][four >> 24];
}

/* Eight bytes at a time, and four at the end: attributes are padded to that. */
static uint32_t crc32(const uint8_t *bytes, size_t len)
{
	uint32_t crc = 0xFFFFFFFFu;

	assert(len % 4 == 0);
	for (; len >= 8; len -= 8, bytes += 8)
		crc = crc_of_four(crc ^ little_endian(bytes), 4) ^ crc_of_four(little_endian(bytes + 4), 0);
	if (len > 0)
		crc = crc_of_four(crc ^ little_endian(bytes), 0);
	return ~crc;
}

/* RFC 8489, section 5: the class is two bits in the middle of the method. */
static enum stun_class class_of(uint16_t type)
{
	return (enum stun_class)((type >> 7 & 2) | (type >> 4 & 1));
}

static uint16_t method_of(uint16_t type)
{
	return (uint16_t)((type & 0x000F) | (type >> 1 & 0x0070) | (type >> 2 & 0x0F80));
}

static uint16_t type_of(uint16_t method, enum stun_class class)
{
	return (uint16_t)((method & 0x000Fu) | (method & 0x0070u) << 1 | (method & 0x0F80u) << 2 |
			  ((unsigned)class & 1u) << 4 | ((unsigned)class & 2u) << 7);
}

/* What an XOR-MAPPED-ADDRESS is mixed with: the cookie, then the transaction id. */
static void mask_address(struct endpoint *endpoint, const struct stun_tx *tx)
{
	uint8_t mask[16] = { MAGIC >> 24, MAGIC >> 16 & 0xff, MAGIC >> 8 & 0xff, MAGIC & 0xff };
	size_t first = endpoint_is_v4(endpoint) ? 12 : 0;

	memcpy(mask + 4, tx->bytes, STUN_TX_LEN);
	for (size_t i = first; i < 16; i++)
		endpoint->ip[i] ^= mask[i - first];
	endpoint->port ^= (uint16_t)(MAGIC >> 16);
}

/* A masked IPv6 address that happens to look v4-mapped could not be unmasked: refused, one in 2^96. */
static struct endpoint read_address(struct wire_reader *value, const struct stun_tx *xor_with)
{
	struct endpoint endpoint = { 0 };

	(void)wire_u8(value);
	uint8_t family = wire_u8(value);
	endpoint.port = wire_u16(value);
	if (family == FAMILY_V4)
		endpoint = endpoint_from_v4(wire_u32(value), endpoint.port);
	else if (family == FAMILY_V6)
		wire_bytes(value, endpoint.ip, sizeof(endpoint.ip));
	else
		value->failed = true;
	if (!wire_done(value) || (xor_with && family == FAMILY_V6 && endpoint_is_v4(&endpoint))) {
		value->failed = true;
		return (struct endpoint){ 0 };
	}
	if (xor_with)
		mask_address(&endpoint, xor_with);
	return endpoint;
}

static void read_change_request(struct wire_reader *value, struct stun_message *message)
{
	uint32_t flags = wire_u32(value);

	message->has_change_request = true;
	message->change_ip = flags & CHANGE_IP;
	message->change_port = flags & CHANGE_PORT;
}

static void read_error_code(struct wire_reader *value, struct stun_message *message)
{
	(void)wire_u16(value);
	uint8_t hundreds = wire_u8(value) & 7, rest = wire_u8(value);

	if (hundreds < 3 || hundreds > 6 || rest > 99)
		value->failed = true;
	message->error_code = (uint16_t)(hundreds * 100 + rest);
}

static void add_unknown(struct stun_message *message, uint16_t type)
{
	if (message->n_unknown < STUN_MAX_UNKNOWN)
		message->unknown[message->n_unknown++] = type;
}

static void read_unknown_attributes(struct wire_reader *value, struct stun_message *message)
{
	while (wire_left(value) >= 2)
		add_unknown(message, wire_u16(value));
}

static void read_software(struct wire_reader *value, struct stun_message *message)
{
	size_t len = wire_left(value);
	const uint8_t *text = wire_take(value, len);
	size_t n = len < STUN_MAX_SOFTWARE ? len : STUN_MAX_SOFTWARE;

	for (size_t i = 0; i < n; i++)
		message->software[i] = (char)(text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?');
	while (n > 0 && message->software[n - 1] == ' ')
		n--;
	message->software[n] = '\0';
}

/* The first of a kind counts, RFC 8489, section 14: "any duplicates … SHOULD be ignored". */
static void read_address_once(struct wire_reader *value, const struct stun_tx *xor_with, struct endpoint *ret)
{
	struct endpoint endpoint = read_address(value, xor_with);

	if (endpoint_is_none(ret))
		*ret = endpoint;
}

struct decoding {
	struct stun_message message;
	struct endpoint plain_mapped;
	bool is_signed; /* after MESSAGE-INTEGRITY only FINGERPRINT counts */
};

static void read_attribute(struct decoding *d, uint16_t type, struct wire_reader *value)
{
	struct stun_message *message = &d->message;

	if (d->is_signed)
		return;
	switch (type) {
	case MAPPED_ADDRESS:
		read_address_once(value, NULL, &d->plain_mapped);
		break;
	case XOR_MAPPED_ADDRESS:
		read_address_once(value, &message->tx, &message->mapped);
		break;
	case RESPONSE_ORIGIN:
		read_address_once(value, NULL, &message->response_origin);
		break;
	case OTHER_ADDRESS:
		read_address_once(value, NULL, &message->other_address);
		break;
	case CHANGE_REQUEST:
		read_change_request(value, message);
		break;
	case RESPONSE_PORT:
		message->response_port = wire_u16(value);
		break;
	case ERROR_CODE:
		read_error_code(value, message);
		break;
	case UNKNOWN_ATTRIBUTES:
		if (message->class == STUN_ERROR)
			read_unknown_attributes(value, message);
		break;
	case SOFTWARE:
		read_software(value, message);
		break;
	case MESSAGE_INTEGRITY:
	case MESSAGE_INTEGRITY_SHA256:
		d->is_signed = true; /* known; without credentials there is nothing to check it with */
		break;
	case USERNAME:
	case REALM:
	case NONCE:
	case PASSWORD_ALGORITHM:
	case USERHASH:
		break;
	default:
		if (type < FIRST_OPTIONAL && message->class != STUN_ERROR)
			add_unknown(message, type);
	}
}

static bool fingerprint_is_right(const uint8_t *message, const struct wire_reader *r, struct wire_reader *value)
{
	size_t before = (size_t)(r->at - message) - FINGERPRINT_LEN;

	return wire_u32(value) == (crc32(message, before) ^ FINGERPRINT_XOR) && !value->failed;
}

/* All attributes, up to the end. 0 or an enum stun_error. */
static int read_attributes(struct decoding *d, const uint8_t *message, struct wire_reader *r)
{
	while (wire_left(r) > 0) {
		uint16_t type = wire_u16(r), len = wire_u16(r);
		const uint8_t *bytes = wire_take(r, len);
		if (!bytes || !wire_take(r, (size_t)(-len & 3)))
			return STUN_E_MALFORMED;

		struct wire_reader value = wire_reader(bytes, len);
		if (type == FINGERPRINT) {
			/* "MUST be the last attribute in the message" */
			if (len != 4 || wire_left(r) > 0)
				return STUN_E_MALFORMED;
			if (!fingerprint_is_right(message, r, &value))
				return STUN_E_FINGERPRINT;
			d->message.has_fingerprint = true;
			continue;
		}
		read_attribute(d, type, &value);
		if (value.failed)
			return STUN_E_MALFORMED;
	}
	return 0;
}

int stun_decode(const void *buf, size_t len, struct stun_message *ret)
{
	struct wire_reader r = wire_reader(buf, len);
	struct decoding d = { 0 };

	uint16_t type = wire_u16(&r), body_len = wire_u16(&r);
	uint32_t magic = wire_u32(&r);
	wire_bytes(&r, d.message.tx.bytes, STUN_TX_LEN);
	if (r.failed || type >> 14 != 0 || magic != MAGIC || body_len != wire_left(&r) || body_len % 4 != 0)
		return STUN_E_NOT_STUN;
	d.message.class = class_of(type);
	d.message.method = method_of(type);

	int result = read_attributes(&d, buf, &r);
	if (result != 0)
		return result;
	if (endpoint_is_none(&d.message.mapped))
		d.message.mapped = d.plain_mapped;
	*ret = d.message;
	return 0;
}

/* writing */

static void put_attribute(struct wire_writer *w, enum attribute type, const void *value, size_t len)
{
	wire_put_u16(w, (uint16_t)type);
	wire_put_u16(w, (uint16_t)len);
	wire_put(w, value, len);
	wire_put(w, (uint8_t[3]){ 0 }, (size_t)(-(ptrdiff_t)len & 3));
}

static void put_address(struct wire_writer *w, enum attribute type, const struct endpoint *address,
			const struct stun_tx *xor_with)
{
	struct endpoint endpoint = *address;
	bool is_v4 = endpoint_is_v4(address);
	uint8_t value[20];
	struct wire_writer v = wire_writer(value, sizeof(value));

	if (endpoint_is_none(address))
		return;
	if (xor_with)
		mask_address(&endpoint, xor_with);
	wire_put_u8(&v, 0);
	wire_put_u8(&v, is_v4 ? FAMILY_V4 : FAMILY_V6);
	wire_put_u16(&v, endpoint.port);
	wire_put(&v, endpoint.ip + (is_v4 ? 12 : 0), is_v4 ? 4 : 16);
	put_attribute(w, type, value, wire_written(&v));
}

static void put_error(struct wire_writer *w, const struct stun_message *message)
{
	uint8_t unknown[2 * STUN_MAX_UNKNOWN];
	struct wire_writer v = wire_writer(unknown, sizeof(unknown));

	if (message->error_code == 0)
		return;
	put_attribute(w, ERROR_CODE,
		      (uint8_t[]){ 0, 0, (uint8_t)(message->error_code / 100),
				   (uint8_t)(message->error_code % 100) },
		      4);
	for (int i = 0; i < message->n_unknown; i++)
		wire_put_u16(&v, message->unknown[i]);
	if (message->n_unknown > 0)
		put_attribute(w, UNKNOWN_ATTRIBUTES, unknown, wire_written(&v));
}

static void put_body(struct wire_writer *w, const struct stun_message *message)
{
	uint8_t flags = (uint8_t)((message->change_ip ? CHANGE_IP : 0) | (message->change_port ? CHANGE_PORT : 0));

	put_error(w, message);
	put_address(w, XOR_MAPPED_ADDRESS, &message->mapped, &message->tx);
	if (message->has_change_request)
		put_attribute(w, CHANGE_REQUEST, (uint8_t[]){ 0, 0, 0, flags }, 4);
	if (message->response_port != 0)
		put_attribute(w, RESPONSE_PORT,
			      (uint8_t[]){ (uint8_t)(message->response_port >> 8),
					   (uint8_t)message->response_port },
			      2);
	put_address(w, RESPONSE_ORIGIN, &message->response_origin, NULL);
	put_address(w, OTHER_ADDRESS, &message->other_address, NULL);
	if (message->software[0] != '\0')
		put_attribute(w, SOFTWARE, message->software, strlen(message->software));
}

static void set_length(uint8_t *message, size_t len)
{
	message[2] = (uint8_t)((len - STUN_HEADER_LEN) >> 8);
	message[3] = (uint8_t)(len - STUN_HEADER_LEN);
}

size_t stun_encode(void *buf, size_t cap, const struct stun_message *message)
{
	struct wire_writer w = wire_writer(buf, cap < STUN_MAX_LEN ? cap : STUN_MAX_LEN);

	wire_put_u16(&w, type_of(message->method, message->class));
	wire_put_u16(&w, 0);
	wire_put_u32(&w, MAGIC);
	wire_put(&w, message->tx.bytes, STUN_TX_LEN);
	put_body(&w, message);
	size_t len = wire_written(&w);
	if (len == 0)
		return 0;
	if (message->has_fingerprint) {
		/* The checksum covers the length as it will be. */
		set_length(buf, len + FINGERPRINT_LEN);
		wire_put_u16(&w, FINGERPRINT);
		wire_put_u16(&w, 4);
		wire_put_u32(&w, crc32(buf, len) ^ FINGERPRINT_XOR);
		return wire_written(&w);
	}
	set_length(buf, len);
	return len;
}

bool stun_tx_equal(const struct stun_tx *a, const struct stun_tx *b)
{
	return memcmp(a->bytes, b->bytes, STUN_TX_LEN) == 0;
}

void stun_make_request(struct stun_message *ret, const struct stun_tx *tx)
{
	size_t n_software = STUN_REQUEST_LEN - STUN_HEADER_LEN - FINGERPRINT_LEN - 4;

	*ret = (struct stun_message){
		.class = STUN_REQUEST, .method = STUN_METHOD_BINDING, .tx = *tx, .has_fingerprint = true
	};
	static_assert(STUN_REQUEST_LEN - STUN_HEADER_LEN - FINGERPRINT_LEN - 4 <= STUN_MAX_SOFTWARE, "fits");
	memset(ret->software, ' ', n_software);
	memcpy(ret->software, SOFTWARE_NAME, strlen(SOFTWARE_NAME));
}
