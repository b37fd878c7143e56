#include "relay/frontdoor/sniffer.h"

#include "relay/frontdoor/sniffer_parts.h"

#include <assert.h>
#include <string.h>

#define TLS_HANDSHAKE	     0x16
#define SSL_2_LONG	     0x80 /* the length of an SSL 2 record has this bit … */
#define SSL_2_CLIENT_HELLO   1    /* … and this is its third byte */

static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
static_assert(sizeof(preface) - 1 == SNIFFER_PREFACE_LEN, "the preface of RFC 9113, section 3.4");

const char sniffer_bad_request[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/* What a reason is called, and whether an HTTP/1 request that is refused for it has broken a rule of HTTP. */
static const struct {
	const char *name;
	bool breaks_http;
} reasons[SNIFFER_N_REASONS] = {
	[SNIFFER_NOT_REFUSED] = { "none", false },
	[SNIFFER_NO_PROTOCOL] = { "no-protocol", false },
	[SNIFFER_NO_HOST] = { "no-host", true },
	[SNIFFER_TWO_HOSTS] = { "two-hosts", true },
	[SNIFFER_HOST_INVALID] = { "host-invalid", true },
	[SNIFFER_HOST_ADDRESS] = { "host-address", false },
	[SNIFFER_TOO_LONG] = { "too-long", true },
	[SNIFFER_SSL_2] = { "ssl-2", false },
	[SNIFFER_TLS_RECORD] = { "tls-record", false },
	[SNIFFER_TLS_HELLO] = { "tls-hello", false },
	[SNIFFER_HTTP_LINE] = { "http-line", true },
	[SNIFFER_HTTP_FIELD] = { "http-field", true },
	[SNIFFER_HTTP_CONNECT] = { "http-connect", true },
	[SNIFFER_H2_FRAME] = { "h2-frame", false },
	[SNIFFER_H2_HEADERS] = { "h2-headers", false },
	[SNIFFER_QUIC_PACKET] = { "quic-packet", false },
	[SNIFFER_QUIC_SHORT] = { "quic-short", false },
	[SNIFFER_QUIC_CONFLICT] = { "quic-conflict", false },
};

void sniffer_init(struct sniffer *sniffer)
{
	*sniffer = (struct sniffer){ .outcome = SNIFFER_MORE };
}

enum sniffer_outcome sniffer_refuse(struct sniffer *sniffer, enum sniffer_reason reason)
{
	sniffer->reason = reason;
	return sniffer->outcome = SNIFFER_REFUSED;
}

enum sniffer_outcome sniffer_finish(struct sniffer *sniffer)
{
	assert(sniffer->found.host.len > 0);
	sniffer->found.protocol = sniffer->protocol;
	return sniffer->outcome = SNIFFER_FOUND;
}

enum sniffer_reason sniffer_reason_of_name(int error)
{
	if (error == HOST_NAME_EMPTY)
		return SNIFFER_NO_HOST;
	return error == HOST_NAME_ADDRESS ? SNIFFER_HOST_ADDRESS : SNIFFER_HOST_INVALID;
}

enum sniffer_reason sniffer_reason_of_hello(int error)
{
	switch ((enum client_hello_error)error) {
	case CLIENT_HELLO_NO_NAME:
		return SNIFFER_NO_HOST;
	case CLIENT_HELLO_TWO_NAMES:
		return SNIFFER_TWO_HOSTS;
	case CLIENT_HELLO_NAME:
		return SNIFFER_HOST_INVALID;
	case CLIENT_HELLO_ADDRESS:
		return SNIFFER_HOST_ADDRESS;
	case CLIENT_HELLO_MALFORMED:
		break;
	}
	return SNIFFER_TLS_HELLO;
}

struct sniffed sniffer_of_hello(const struct client_hello *hello, enum sniffer_protocol protocol)
{
	return (struct sniffed){
		.protocol = protocol,
		.host = hello->host,
		.is_acme_tls = hello->is_acme,
		.offers_http_1 = hello->offers_http_1,
		.offers_h2 = hello->offers_h2,
		.offers_h3 = hello->offers_h3,
		.offers_relay = hello->offers_relay,
		.offers_webgw = hello->offers_webgw,
		.offers_dial_back = hello->offers_dial_back,
		.has_ech = hello->has_ech,
	};
}

/* The token of a challenge is of base64url (RFC 8555, section 8.3). */
static bool is_token_of_acme(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '-' &&
		    c != '_')
			return false;
	}
	return len > 0;
}

bool sniffer_is_acme_path(const char *path, size_t len)
{
	static const char folder[] = "/.well-known/acme-challenge/";
	const char *query = memchr(path, '?', len);
	size_t path_len = query ? (size_t)(query - path) : len, folder_len = sizeof(folder) - 1;

	return path_len > folder_len && memcmp(path, folder, folder_len) == 0 &&
	       is_token_of_acme(path + folder_len, path_len - folder_len);
}

/* Every method begins with a letter in practice, though the grammar has more. */
static bool is_letter(uint8_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* By its first bytes; n > 0. */
static enum sniffer_outcome recognise(struct sniffer *sniffer, const uint8_t *bytes, uint32_t n)
{
	uint32_t compared = n < SNIFFER_PREFACE_LEN ? n : SNIFFER_PREFACE_LEN;

	if (bytes[0] == TLS_HANDSHAKE)
		sniffer->protocol = SNIFFER_TLS;
	else if (memcmp(bytes, preface, compared) == 0)
		sniffer->protocol = compared == SNIFFER_PREFACE_LEN ? SNIFFER_HTTP_2 : SNIFFER_UNKNOWN;
	else if (is_letter(bytes[0]))
		sniffer->protocol = SNIFFER_HTTP_1;
	else if (!(bytes[0] & SSL_2_LONG))
		return sniffer_refuse(sniffer, SNIFFER_NO_PROTOCOL);
	else if (n >= 3)
		return sniffer_refuse(sniffer, bytes[2] == SSL_2_CLIENT_HELLO ? SNIFFER_SSL_2 : SNIFFER_NO_PROTOCOL);
	return SNIFFER_MORE;
}

static enum sniffer_outcome read_protocol(struct sniffer *sniffer, const uint8_t *bytes, uint32_t n)
{
	switch (sniffer->protocol) {
	case SNIFFER_TLS:
		return sniffer_read_tls(sniffer, bytes, n);
	case SNIFFER_HTTP_1:
		return sniffer_read_http_1(sniffer, bytes, n);
	case SNIFFER_HTTP_2:
		return sniffer_read_http_2(sniffer, bytes, n);
	case SNIFFER_QUIC:
	case SNIFFER_TCP:
	case SNIFFER_UDP:
	case SNIFFER_UNKNOWN:
	case SNIFFER_N_PROTOCOLS:
		break;
	}
	return SNIFFER_MORE;
}

enum sniffer_outcome sniffer_read(struct sniffer *sniffer, const uint8_t *bytes, size_t n)
{
	/* What is beyond the limit is not looked at: so it does not matter whether it came in the same read. */
	uint32_t n_read = n < SNIFFER_MAX ? (uint32_t)n : SNIFFER_MAX;

	if (sniffer->outcome == SNIFFER_MORE && sniffer->protocol == SNIFFER_UNKNOWN && n_read > 0)
		recognise(sniffer, bytes, n_read);
	if (sniffer->outcome == SNIFFER_MORE)
		read_protocol(sniffer, bytes, n_read);
	if (sniffer->outcome == SNIFFER_MORE && n_read == SNIFFER_MAX)
		sniffer_refuse(sniffer, SNIFFER_TOO_LONG);
	sniffer->found.is_all = sniffer->outcome == SNIFFER_FOUND && sniffer->at == n;
	return sniffer->outcome;
}

enum sniffer_answer sniffer_answer(const struct sniffer *sniffer)
{
	assert(sniffer->outcome == SNIFFER_REFUSED);
	/* HTTP/1.0 need not name a host; it is only that nobody knows whose it is. */
	if (sniffer->reason == SNIFFER_NO_HOST && sniffer->is_old)
		return SNIFFER_RESET;
	return sniffer->protocol == SNIFFER_HTTP_1 && reasons[sniffer->reason].breaks_http ? SNIFFER_HTTP_400 :
											      SNIFFER_RESET;
}

const char *sniffer_reason_name(enum sniffer_reason reason)
{
	return (unsigned)reason < SNIFFER_N_REASONS ? reasons[reason].name : "unknown";
}

const char *sniffer_protocol_name(enum sniffer_protocol protocol)
{
	static const char *const names[SNIFFER_N_PROTOCOLS] = {
		[SNIFFER_UNKNOWN] = "unknown",
		[SNIFFER_TLS] = "tls",
		[SNIFFER_HTTP_1] = "http/1",
		[SNIFFER_HTTP_2] = "http/2",
		[SNIFFER_QUIC] = "quic",
		[SNIFFER_TCP] = "tcp",
		[SNIFFER_UDP] = "udp",
	};

	return (unsigned)protocol < SNIFFER_N_PROTOCOLS ? names[protocol] : "unknown";
}
