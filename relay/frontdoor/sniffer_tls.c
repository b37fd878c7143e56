/*
 * TLS by server name. The ClientHello may come in any number of records (RFC 8446, section 5.1):
 *
 *   ┌─────┬──────┬────────┐┌─────┬──────┬──────────┐
 *   │ 22  │ 3.x  │ length ││ a piece of the hello  │ …
 *   └─────┴──────┴────────┘└───────────────────────┘
 *      1      2       2        1 … 16384
 *
 * Records are only counted while they come in; when the hello is whole, it is put together once.
 */
#include "common/wire.h"
#include "relay/frontdoor/sniffer_parts.h"

#include <string.h>

#define RECORD_HEADER_LEN 5
#define RECORD_MAX_LEN	  (1 << 14)
#define RECORD_HANDSHAKE  22
#define VERSION_MAJOR	  3

/* The length of the record that begins there, or 0: none that a hello can stand in. */
static uint32_t record_length(const uint8_t *header)
{
	struct wire_reader r = wire_reader(header, RECORD_HEADER_LEN);
	uint8_t type = wire_u8(&r), major = wire_u8(&r);

	wire_u8(&r); /* the minor version says nothing: 0, 1 and 3 are in use */
	uint32_t len = wire_u16(&r);
	return type == RECORD_HANDSHAKE && major == VERSION_MAJOR && len <= RECORD_MAX_LEN ? len : 0;
}

/* The first n bytes of what is in the records; they have come. */
static void join(const uint8_t *records, uint8_t *ret, uint32_t n)
{
	while (n > 0) {
		uint32_t len = record_length(records), taken = len < n ? len : n;

		memcpy(ret, records + RECORD_HEADER_LEN, taken);
		records += RECORD_HEADER_LEN + len;
		ret += taken;
		n -= taken;
	}
}

static enum sniffer_outcome read_hello(struct sniffer *sniffer, const uint8_t *records, uint32_t len)
{
	uint8_t joined[CLIENT_HELLO_HEADER_LEN + SNIFFER_MAX_HELLO];
	const uint8_t *message = records + RECORD_HEADER_LEN;
	struct client_hello hello = { 0 };

	if (record_length(records) < len) {
		join(records, joined, len);
		message = joined;
	}
	int r = client_hello_decode(message, len, &hello);
	sniffer->found = sniffer_of_hello(&hello, SNIFFER_TLS);
	return r != 0 ? sniffer_refuse(sniffer, sniffer_reason_of_hello(r)) : sniffer_finish(sniffer);
}

/* One record more is there: is the hello whole? What follows it is not for us to read. */
static enum sniffer_outcome after_record(struct sniffer *sniffer, const uint8_t *records)
{
	uint8_t header[CLIENT_HELLO_HEADER_LEN];

	if (sniffer->length < sizeof(header))
		return SNIFFER_MORE;
	join(records, header, sizeof(header));
	size_t len = client_hello_length(header);
	if (len == 0)
		return sniffer_refuse(sniffer, SNIFFER_TLS_HELLO);
	if (len > CLIENT_HELLO_HEADER_LEN + SNIFFER_MAX_HELLO)
		return sniffer_refuse(sniffer, SNIFFER_TOO_LONG);
	return sniffer->length < len ? SNIFFER_MORE : read_hello(sniffer, records, (uint32_t)len);
}

enum sniffer_outcome sniffer_read_tls(struct sniffer *sniffer, const uint8_t *bytes, uint32_t n)
{
	while (sniffer->outcome == SNIFFER_MORE && n - sniffer->at >= RECORD_HEADER_LEN) {
		uint32_t len = record_length(bytes + sniffer->at);

		if (len == 0)
			return sniffer_refuse(sniffer, SNIFFER_TLS_RECORD);
		if (n - sniffer->at < RECORD_HEADER_LEN + len)
			break;
		sniffer->at += RECORD_HEADER_LEN + len;
		sniffer->length += len;
		after_record(sniffer, bytes);
	}
	return sniffer->outcome;
}
