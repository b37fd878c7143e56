#include "relay/frontdoor/quic_initial_wire.h"

#include "common/wire.h"
#include "relay/frontdoor/client_hello_wire.h"
#include "relay/frontdoor/sniffer_parts.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#define FORM_LONG	0x80
#define FIXED_BIT	0x40
#define RESERVED_BITS	0x0c
#define TAG_LEN		16
#define SAMPLE_LEN	16
#define NUMBER_MAX_LEN	4
#define MAX_PLAIN	65536 /* of a packet: no datagram is longer */

/* A variable-length integer (RFC 9000, section 16). */
static uint64_t wire_varint(struct wire_reader *r)
{
	uint8_t first = wire_u8(r);
	uint64_t value = first & 0x3f;

	for (int more = (1 << (first >> 6)) - 1; more > 0; more--)
		value = value << 8 | wire_u8(r);
	return value;
}

/* A length, and so many bytes; NULL past the end. */
static const uint8_t *wire_take_varint(struct wire_reader *r, uint64_t n)
{
	if (n > wire_left(r))
		r->failed = true;
	return wire_take(r, (size_t)n);
}

/* ---- headers --------------------------------------------------------------------------------- */

static void read_cid(struct wire_reader *r, size_t max, struct quic_cid *ret)
{
	ret->len = wire_u8(r);
	if (ret->len > max)
		r->failed = true;
	else
		wire_bytes(r, ret->bytes, ret->len);
}

static enum quic_packet_type type_of(uint8_t first, uint32_t version)
{
	static const enum quic_packet_type of_version_1[] = { QUIC_INITIAL, QUIC_ZERO_RTT, QUIC_HANDSHAKE, QUIC_RETRY };
	static const enum quic_packet_type of_version_2[] = { QUIC_RETRY, QUIC_INITIAL, QUIC_ZERO_RTT, QUIC_HANDSHAKE };

	if (version == QUIC_VERSION_1)
		return of_version_1[first >> 4 & 3];
	if (version == QUIC_VERSION_2)
		return of_version_2[first >> 4 & 3];
	return version == 0 ? QUIC_NEGOTIATION : QUIC_OTHER_VERSION;
}

/* Leaves the reader behind the IDs. */
static bool read_header(struct wire_reader *r, struct quic_header *ret)
{
	uint8_t first = wire_u8(r);

	*ret = (struct quic_header){ .type = QUIC_SHORT };
	if (!(first & FORM_LONG))
		return !r->failed;
	ret->version = wire_u32(r);
	ret->type = type_of(first, ret->version);
	const bool is_known = ret->version == QUIC_VERSION_1 || ret->version == QUIC_VERSION_2;
	const size_t max = is_known ? QUIC_MAX_CID : QUIC_MAX_OTHER_CID;
	read_cid(r, max, &ret->destination);
	read_cid(r, max, &ret->source);
	return !r->failed;
}

int quic_header_decode(const uint8_t *datagram, size_t len, struct quic_header *ret)
{
	struct wire_reader r = wire_reader(datagram, len);
	struct quic_header header;

	if (!read_header(&r, &header))
		return QUIC_E_MALFORMED;
	*ret = header;
	return 0;
}

size_t quic_encode_negotiation(const struct quic_header *header, uint8_t *ret, size_t cap)
{
	struct wire_writer w = wire_writer(ret, cap);

	wire_put_u8(&w, FORM_LONG | FIXED_BIT);
	wire_put_u32(&w, 0);
	wire_put_u8(&w, header->source.len);
	wire_put(&w, header->source.bytes, header->source.len);
	wire_put_u8(&w, header->destination.len);
	wire_put(&w, header->destination.bytes, header->destination.len);
	wire_put_u32(&w, QUIC_VERSION_1);
	wire_put_u32(&w, QUIC_VERSION_2);
	return wire_written(&w);
}

/* ---- keys (RFC 9001, section 5.2; RFC 9369, section 3.3) -------------------------------------- */

#define SECRET_LEN 32

static const struct version {
	uint32_t version;
	uint8_t salt[20];
	const char *key, *iv, *header;
} versions[] = {
	{ QUIC_VERSION_1,
	  { 0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
	    0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a },
	  "tls13 quic key", "tls13 quic iv", "tls13 quic hp" },
	{ QUIC_VERSION_2,
	  { 0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93,
	    0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9 },
	  "tls13 quicv2 key", "tls13 quicv2 iv", "tls13 quicv2 hp" },
};

static bool hmac(const uint8_t *key, size_t key_len, const uint8_t *data, size_t len, uint8_t ret[SECRET_LEN])
{
	unsigned n = SECRET_LEN;

	return HMAC(EVP_sha256(), key, (int)key_len, data, len, ret, &n) != NULL;
}

/* HKDF-Expand-Label (RFC 8446, section 7.1) without a context; one round of the hash is enough for len ≤ 32. */
static bool expand(const uint8_t secret[SECRET_LEN], const char *label, uint8_t *ret, size_t len)
{
	uint8_t info[64], block[SECRET_LEN];
	struct wire_writer w = wire_writer(info, sizeof(info));

	wire_put_u16(&w, (uint16_t)len);
	wire_put_u8(&w, (uint8_t)strlen(label));
	wire_put(&w, label, strlen(label));
	wire_put_u8(&w, 0); /* no context */
	wire_put_u8(&w, 1); /* the first round */
	if (!hmac(secret, SECRET_LEN, info, wire_written(&w), block))
		return false;
	memcpy(ret, block, len);
	return true;
}

static bool derive(const struct version *version, const struct quic_cid *destination, struct quic_keys *ret)
{
	uint8_t initial[SECRET_LEN], client[SECRET_LEN];

	return hmac(version->salt, sizeof(version->salt), destination->bytes, destination->len, initial) &&
	       expand(initial, "tls13 client in", client, sizeof(client)) &&
	       expand(client, version->key, ret->key, sizeof(ret->key)) &&
	       expand(client, version->iv, ret->iv, sizeof(ret->iv)) &&
	       expand(client, version->header, ret->header, sizeof(ret->header));
}

int quic_initial_keys(uint32_t version, const struct quic_cid *destination, struct quic_keys *ret)
{
	for (size_t i = 0; i < ARRAY_LEN(versions); i++)
		if (versions[i].version == version)
			return derive(&versions[i], destination, ret) ? 0 : -EIO;
	return -EPROTONOSUPPORT;
}

/* ---- protection (RFC 9001, sections 5.3 and 5.4) --------------------------------------------- */

/* An Initial packet as it came: first … number are its header, then what is sealed. */
struct packet {
	const uint8_t *first, *number, *end;
};

static void free_context(EVP_CIPHER_CTX **context)
{
	EVP_CIPHER_CTX_free(*context);
}

static bool make_mask(const struct quic_keys *keys, const uint8_t *sample, uint8_t ret[SAMPLE_LEN])
{
	P2P_CLEANUP(free_context) EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	int n;

	return context && EVP_EncryptInit_ex(context, EVP_aes_128_ecb(), NULL, keys->header, NULL) == 1 &&
	       EVP_CIPHER_CTX_set_padding(context, 0) == 1 && EVP_EncryptUpdate(context, ret, &n, sample, SAMPLE_LEN) == 1 &&
	       n == SAMPLE_LEN;
}

/* The header as it was sealed: its first byte, and the packet number with its length. */
struct bare_header {
	uint8_t first, number[NUMBER_MAX_LEN];
	size_t number_len;
};

static bool unprotect(const struct quic_keys *keys, const struct packet *packet, struct bare_header *ret)
{
	uint8_t mask[SAMPLE_LEN];

	if ((size_t)(packet->end - packet->number) < NUMBER_MAX_LEN + SAMPLE_LEN ||
	    !make_mask(keys, packet->number + NUMBER_MAX_LEN, mask))
		return false;
	ret->first = packet->first[0] ^ (mask[0] & 0x0f);
	ret->number_len = (ret->first & 3) + 1;
	for (size_t i = 0; i < ret->number_len; i++)
		ret->number[i] = packet->number[i] ^ mask[1 + i];
	return true;
}

/* The number whose end is there and which is nearest to the next one expected (RFC 9000, appendix A.3). */
static uint64_t whole_number(const struct quic_initial *initial, const struct bare_header *header)
{
	uint64_t expected = initial->has_number ? initial->largest + 1 : 0;
	uint64_t window = 1ULL << (8 * header->number_len), number = 0;

	for (size_t i = 0; i < header->number_len; i++)
		number = number << 8 | header->number[i];
	number |= expected & ~(window - 1);
	if (number + window / 2 <= expected && number < (1ULL << 62) - window)
		return number + window;
	if (number > expected + window / 2 && number >= window)
		return number - window;
	return number;
}

/* AES-128-GCM; true: what is in ret, len bytes, is what was sealed. */
static bool open_sealed(const struct quic_keys *keys, uint64_t number, const struct packet *packet,
			const struct bare_header *header, uint8_t *ret, size_t *ret_len)
{
	P2P_CLEANUP(free_context) EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
	const uint8_t *sealed = packet->number + header->number_len;
	size_t len = (size_t)(packet->end - sealed) - TAG_LEN;
	uint8_t nonce[sizeof(keys->iv)], tag[TAG_LEN];
	int n;

	memcpy(nonce, keys->iv, sizeof(nonce));
	for (size_t i = 0; i < 8; i++)
		nonce[sizeof(nonce) - 1 - i] ^= (uint8_t)(number >> (8 * i));
	memcpy(tag, sealed + len, sizeof(tag));
	*ret_len = len;
	return context && EVP_DecryptInit_ex(context, EVP_aes_128_gcm(), NULL, keys->key, nonce) == 1 &&
	       EVP_DecryptUpdate(context, NULL, &n, &header->first, 1) == 1 &&
	       EVP_DecryptUpdate(context, NULL, &n, packet->first + 1, (int)(packet->number - packet->first - 1)) == 1 &&
	       EVP_DecryptUpdate(context, NULL, &n, header->number, (int)header->number_len) == 1 &&
	       EVP_DecryptUpdate(context, ret, &n, sealed, (int)len) == 1 &&
	       EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG_LEN, tag) == 1 &&
	       EVP_DecryptFinal_ex(context, ret + n, &n) == 1;
}

/* ---- the hello ------------------------------------------------------------------------------- */

void quic_initial_init(struct quic_initial *initial)
{
	memset(initial, 0, sizeof(*initial));
}

static enum quic_outcome refuse(struct quic_initial *initial, enum sniffer_reason reason)
{
	initial->reason = reason;
	return initial->outcome = QUIC_REFUSED;
}

static bool is_there(const struct quic_initial *initial, size_t at)
{
	return initial->is_there[at / 8] >> (at % 8) & 1;
}

/* A piece of the hello. What is there already must be the same. */
static enum quic_outcome add_piece(struct quic_initial *initial, uint64_t offset, const uint8_t *bytes, size_t len)
{
	if (len > QUIC_MAX_HELLO || offset > QUIC_MAX_HELLO - len)
		return refuse(initial, SNIFFER_TOO_LONG);
	for (size_t i = 0; i < len; i++) {
		size_t at = (size_t)offset + i;
		if (is_there(initial, at) && initial->hello[at] != bytes[i])
			return refuse(initial, SNIFFER_QUIC_CONFLICT);
		initial->hello[at] = bytes[i];
		initial->is_there[at / 8] |= (uint8_t)(1 << (at % 8));
	}
	while (initial->n_whole < QUIC_MAX_HELLO && is_there(initial, initial->n_whole))
		initial->n_whole++;
	return QUIC_MORE;
}

/* Is the hello whole? What follows it is not for us to read. */
static enum quic_outcome read_hello(struct quic_initial *initial)
{
	struct client_hello hello;

	if (initial->n_whole < CLIENT_HELLO_HEADER_LEN)
		return QUIC_MORE;
	size_t len = client_hello_length(initial->hello);
	if (len == 0)
		return refuse(initial, SNIFFER_TLS_HELLO);
	if (len > QUIC_MAX_HELLO)
		return refuse(initial, SNIFFER_TOO_LONG);
	if (initial->n_whole < len)
		return QUIC_MORE;
	int r = client_hello_decode(initial->hello, len, &hello);
	if (r != 0)
		return refuse(initial, sniffer_reason_of_hello(r));
	initial->found = sniffer_of_hello(&hello, SNIFFER_QUIC);
	return initial->outcome = QUIC_FOUND;
}

/* ---- frames (RFC 9000, section 19; which ones may be in an Initial: section 12.4) ------------- */

enum frame { FRAME_PADDING = 0, FRAME_PING = 1, FRAME_ACK = 2, FRAME_ACK_ECN = 3, FRAME_CRYPTO = 6, FRAME_CLOSE = 0x1c };

static void skip_ack(struct wire_reader *r, bool has_ecn)
{
	wire_varint(r); /* largest */
	wire_varint(r); /* delay */
	uint64_t n_ranges = wire_varint(r);
	wire_varint(r); /* the first range */
	for (; n_ranges > 0 && !r->failed; n_ranges--) {
		wire_varint(r);
		wire_varint(r);
	}
	for (int i = 0; has_ecn && i < 3; i++)
		wire_varint(r);
}

static enum quic_outcome read_crypto(struct quic_initial *initial, struct wire_reader *r)
{
	uint64_t offset = wire_varint(r), len = wire_varint(r);
	const uint8_t *bytes = wire_take_varint(r, len);

	return bytes ? add_piece(initial, offset, bytes, (size_t)len) : QUIC_MORE;
}

/* A client that closes the connection it has just begun wants nothing: as malformed as a frame that cannot be there. */
static enum quic_outcome read_frame(struct quic_initial *initial, struct wire_reader *r)
{
	uint64_t type = wire_varint(r);

	switch (type) {
	case FRAME_PADDING:
	case FRAME_PING:
		return QUIC_MORE;
	case FRAME_ACK:
	case FRAME_ACK_ECN:
		skip_ack(r, type == FRAME_ACK_ECN);
		return QUIC_MORE;
	case FRAME_CRYPTO:
		return read_crypto(initial, r);
	case FRAME_CLOSE:
	default:
		return refuse(initial, SNIFFER_QUIC_PACKET);
	}
}

static enum quic_outcome read_frames(struct quic_initial *initial, const uint8_t *plain, size_t len)
{
	struct wire_reader r = wire_reader(plain, len);

	while (initial->outcome == QUIC_MORE && wire_left(&r) > 0)
		read_frame(initial, &r);
	if (initial->outcome == QUIC_MORE && r.failed)
		return refuse(initial, SNIFFER_QUIC_PACKET);
	return initial->outcome == QUIC_MORE ? read_hello(initial) : initial->outcome;
}

/* ---- packets --------------------------------------------------------------------------------- */

/* False: not one of this client's, or not whole. */
static bool read_packet(struct quic_initial *initial, const struct packet *packet)
{
	uint8_t plain[MAX_PLAIN];
	struct bare_header header;
	size_t len;

	if ((size_t)(packet->end - packet->first) > sizeof(plain) || !unprotect(&initial->keys, packet, &header))
		return false;
	uint64_t number = whole_number(initial, &header);
	if (!open_sealed(&initial->keys, number, packet, &header, plain, &len))
		return false;
	if (!initial->has_number || number > initial->largest)
		initial->largest = number;
	initial->has_number = true;
	if (header.first & RESERVED_BITS || len == 0)
		refuse(initial, SNIFFER_QUIC_PACKET);
	else
		read_frames(initial, plain, len);
	return true;
}

/* Where the next packet of the datagram begins and ends. False: there is none that could be told apart. */
static bool next_packet(struct wire_reader *r, struct quic_header *header, struct packet *ret)
{
	ret->first = r->at;
	if (wire_left(r) == 0 || !read_header(r, header) || !(ret->first[0] & FIXED_BIT))
		return false;
	if (header->type != QUIC_INITIAL && header->type != QUIC_ZERO_RTT && header->type != QUIC_HANDSHAKE)
		return false;
	if (header->type == QUIC_INITIAL)
		wire_take_varint(r, wire_varint(r)); /* a token */
	uint64_t len = wire_varint(r);
	ret->number = wire_take_varint(r, len);
	ret->end = r->at;
	return ret->number != NULL;
}

static bool cid_equal(const struct quic_cid *a, const struct quic_cid *b)
{
	return a->len == b->len && memcmp(a->bytes, b->bytes, a->len) == 0;
}

/* The first datagram: whose is it, and with which keys? */
static enum quic_outcome begin(struct quic_initial *initial, const uint8_t *datagram, size_t len)
{
	struct quic_header header;

	if (quic_header_decode(datagram, len, &header) != 0)
		return refuse(initial, SNIFFER_QUIC_PACKET);
	if (header.type == QUIC_OTHER_VERSION && len < QUIC_MIN_DATAGRAM)
		return refuse(initial, SNIFFER_QUIC_SHORT); /* the answer could be the larger one */
	if (header.type == QUIC_OTHER_VERSION)
		return initial->outcome = QUIC_UNKNOWN_VERSION;
	if (header.type != QUIC_INITIAL || header.destination.len < QUIC_MIN_FIRST_CID)
		return refuse(initial, SNIFFER_QUIC_PACKET);
	if (len < QUIC_MIN_DATAGRAM)
		return refuse(initial, SNIFFER_QUIC_SHORT);
	if (quic_initial_keys(header.version, &header.destination, &initial->keys) != 0)
		return refuse(initial, SNIFFER_QUIC_PACKET);
	initial->version = header.version;
	initial->destination = header.destination;
	return QUIC_MORE;
}

/* The first Initial packets of the datagram, up to one that does not open; what else is in it is for the server. */
static void read_datagram(struct quic_initial *initial, const uint8_t *datagram, size_t len)
{
	struct wire_reader r = wire_reader(datagram, len);
	struct quic_header header;
	struct packet packet;
	uint32_t n_opened = 0;

	while (initial->outcome == QUIC_MORE && n_opened < QUIC_MAX_OPENED && next_packet(&r, &header, &packet)) {
		if (header.type != QUIC_INITIAL)
			continue;
		const bool is_its = header.version == initial->version && cid_equal(&header.destination, &initial->destination);
		n_opened += is_its;
		if (is_its && read_packet(initial, &packet))
			continue;
		initial->n_ignored++;
		if (is_its) /* each that fails costs as much as one that opens */
			break;
	}
}

enum quic_outcome quic_initial_read(struct quic_initial *initial, const uint8_t *datagram, size_t len)
{
	if (initial->outcome != QUIC_MORE)
		return initial->outcome;
	if (!initial->has_begun && begin(initial, datagram, len) != QUIC_MORE)
		return initial->outcome;
	initial->has_begun = true;
	if (initial->n_datagrams++ == QUIC_MAX_DATAGRAMS)
		return refuse(initial, SNIFFER_TOO_LONG);
	if (len < QUIC_MIN_DATAGRAM)
		initial->n_ignored++;
	else
		read_datagram(initial, datagram, len);
	/* A first datagram of which nothing opens is no client's. */
	if (initial->outcome == QUIC_MORE && !initial->has_number)
		return refuse(initial, SNIFFER_QUIC_PACKET);
	return initial->outcome;
}
