#include "relay/frontdoor/proxy_header_wire.h"

#include "common/wire.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

enum { COMMAND_LOCAL = 0x20, COMMAND_PROXY = 0x21 };
enum { FAMILY_NONE = 0x00, FAMILY_TCP4 = 0x11, FAMILY_UDP4 = 0x12, FAMILY_TCP6 = 0x21, FAMILY_UDP6 = 0x22 };
enum { VALUE_ALPN = 0x01, VALUE_AUTHORITY = 0x02, VALUE_UNIQUE_ID = 0x05, VALUE_SCHEME = 0xe0, VALUE_DOORS = 0xe1 };

static const uint8_t signature[12] = { 0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a };

const char *proxy_header_error_name(int error)
{
	switch (error) {
	case PROXY_MORE:
		return "more";
	case PROXY_NO_HEADER:
		return "no-header";
	case PROXY_UNSUPPORTED:
		return "unsupported";
	case PROXY_TOO_LONG:
		return "too-long";
	case PROXY_MALFORMED:
		return "malformed";
	default:
		return "none";
	}
}

/* ---- version 2 ---- */

static bool take_value(struct proxy_value *value, const uint8_t *at, size_t len, size_t max)
{
	if (value->at || len == 0 || len > max)
		return false;
	*value = (struct proxy_value){ .at = at, .len = len };
	return true;
}

static bool take_scheme(struct proxy_header *header, const uint8_t *at, size_t len)
{
	if (header->scheme != PROXY_NO_SCHEME || len != 1 || at[0] == PROXY_NO_SCHEME || at[0] >= PROXY_N_SCHEMES)
		return false;
	header->scheme = (enum proxy_scheme)at[0];
	return true;
}

static bool take_doors(struct proxy_header *header, const uint8_t *at, size_t len)
{
	if (header->n_doors != 0 || len != 1 || at[0] == 0)
		return false;
	header->n_doors = at[0];
	return true;
}

static bool take_values(struct wire_reader r, struct proxy_header *header)
{
	bool is_well = true;

	while (wire_left(&r) > 0 && is_well) {
		const uint8_t type = wire_u8(&r);
		const size_t len = wire_u16(&r);
		const uint8_t *at = wire_take(&r, len);
		if (!at)
			return false;
		if (type == VALUE_ALPN)
			is_well = take_value(&header->alpn, at, len, UINT16_MAX);
		else if (type == VALUE_AUTHORITY)
			is_well = take_value(&header->authority, at, len, UINT16_MAX);
		else if (type == VALUE_UNIQUE_ID)
			is_well = take_value(&header->unique_id, at, len, PROXY_MAX_UNIQUE_ID);
		else if (type == VALUE_SCHEME)
			is_well = take_scheme(header, at, len);
		else if (type == VALUE_DOORS)
			is_well = take_doors(header, at, len);
	}
	return is_well && wire_done(&r);
}

static void take_ip(struct wire_reader *r, uint8_t family, struct endpoint *endpoint)
{
	if (family == FAMILY_TCP4 || family == FAMILY_UDP4)
		*endpoint = endpoint_from_v4(wire_u32(r), 0);
	else
		wire_bytes(r, endpoint->ip, sizeof(endpoint->ip));
}

static void take_addresses(struct wire_reader *r, uint8_t family, struct proxy_header *header)
{
	take_ip(r, family, &header->source);
	take_ip(r, family, &header->destination);
	header->source.port = wire_u16(r);
	header->destination.port = wire_u16(r);
}

static bool is_beginning(const uint8_t *bytes, size_t n, const void *of, size_t of_len)
{
	return n == 0 || memcmp(bytes, of, n < of_len ? n : of_len) == 0;
}

static bool is_known(uint8_t command, uint8_t family)
{
	if (command == COMMAND_LOCAL)
		return true;
	return command == COMMAND_PROXY && (family == FAMILY_NONE || family == FAMILY_TCP4 || family == FAMILY_TCP6 ||
					    family == FAMILY_UDP4 || family == FAMILY_UDP6);
}

/* body: what follows the head. */
static bool take_body(struct wire_reader body, uint8_t command, uint8_t family, struct proxy_header *header)
{
	if (command == COMMAND_LOCAL)
		return true; /* nothing of it is to be used */
	header->has_addresses = family != FAMILY_NONE;
	header->is_datagram = family == FAMILY_UDP4 || family == FAMILY_UDP6;
	if (header->has_addresses)
		take_addresses(&body, family, header);
	return !body.failed && take_values(body, header);
}

int proxy_v2_decode(const uint8_t *bytes, size_t n, struct proxy_header *ret, size_t *ret_len)
{
	struct proxy_header header = { .has_addresses = false };

	if (!is_beginning(bytes, n, signature, sizeof(signature)))
		return PROXY_NO_HEADER;
	if (n < PROXY_V2_HEAD_LEN)
		return PROXY_MORE;
	struct wire_reader r = wire_reader(bytes + sizeof(signature), n - sizeof(signature));
	const uint8_t command = wire_u8(&r), family = wire_u8(&r);
	const size_t len = wire_u16(&r);
	if (!is_known(command, family))
		return PROXY_UNSUPPORTED;
	if (PROXY_V2_HEAD_LEN + len > PROXY_V2_MAX_LEN)
		return PROXY_TOO_LONG;
	const uint8_t *body = wire_take(&r, len);
	if (!body)
		return PROXY_MORE;
	if (!take_body(wire_reader(body, len), command, family, &header))
		return PROXY_MALFORMED;
	*ret = header;
	*ret_len = PROXY_V2_HEAD_LEN + len;
	return 0;
}

static void put_ip(struct wire_writer *w, const struct endpoint *endpoint, bool is_v4)
{
	if (is_v4)
		wire_put(w, endpoint->ip + 12, 4);
	else
		wire_put(w, endpoint->ip, sizeof(endpoint->ip));
}

static void put_value(struct wire_writer *w, uint8_t type, const uint8_t *at, size_t len)
{
	if (!at)
		return;
	if (len > UINT16_MAX) {
		w->failed = true;
		return;
	}
	wire_put_u8(w, type);
	wire_put_u16(w, (uint16_t)len);
	wire_put(w, at, len);
}

static void put_body(struct wire_writer *w, const struct proxy_header *header, bool is_v4)
{
	const uint8_t scheme = (uint8_t)header->scheme;

	if (header->has_addresses) {
		put_ip(w, &header->source, is_v4);
		put_ip(w, &header->destination, is_v4);
		wire_put_u16(w, header->source.port);
		wire_put_u16(w, header->destination.port);
	}
	put_value(w, VALUE_ALPN, header->alpn.at, header->alpn.len);
	put_value(w, VALUE_AUTHORITY, header->authority.at, header->authority.len);
	put_value(w, VALUE_UNIQUE_ID, header->unique_id.at, header->unique_id.len);
	put_value(w, VALUE_SCHEME, scheme != PROXY_NO_SCHEME ? &scheme : NULL, 1);
	put_value(w, VALUE_DOORS, header->n_doors != 0 ? &header->n_doors : NULL, 1);
}

static bool is_of_v4(const struct proxy_header *header)
{
	return endpoint_is_v4(&header->source) && endpoint_is_v4(&header->destination);
}

static bool says_nothing(const struct proxy_header *header)
{
	return !header->has_addresses && !header->alpn.at && !header->authority.at && !header->unique_id.at &&
	       header->scheme == PROXY_NO_SCHEME && header->n_doors == 0;
}

static uint8_t family_of(const struct proxy_header *header, bool is_v4)
{
	if (!header->has_addresses)
		return FAMILY_NONE;
	if (header->is_datagram)
		return is_v4 ? FAMILY_UDP4 : FAMILY_UDP6;
	return is_v4 ? FAMILY_TCP4 : FAMILY_TCP6;
}

size_t proxy_v2_encode(const struct proxy_header *header, uint8_t *buf, size_t size)
{
	const size_t most = size < PROXY_V2_MAX_LEN ? size : PROXY_V2_MAX_LEN;
	const bool is_v4 = is_of_v4(header);
	struct wire_writer w = wire_writer(buf, most);

	wire_put(&w, signature, sizeof(signature));
	wire_put_u8(&w, says_nothing(header) ? COMMAND_LOCAL : COMMAND_PROXY);
	wire_put_u8(&w, family_of(header, is_v4));
	uint8_t *length = wire_reserve(&w, 2);
	put_body(&w, header, is_v4);
	const size_t n = wire_written(&w);
	if (n == 0 || !length)
		return 0;
	length[0] = (uint8_t)((n - PROXY_V2_HEAD_LEN) >> 8);
	length[1] = (uint8_t)(n - PROXY_V2_HEAD_LEN);
	return n;
}

/* ---- version 1 ---- */

/* The next word of a line, up to a space or the line's end; false: none, or longer than a word here can be. */
static bool take_word(const char **at, const char *end, char ret[INET6_ADDRSTRLEN])
{
	const char *space = memchr(*at, ' ', (size_t)(end - *at));
	const size_t len = (size_t)((space ? space : end) - *at);

	if (len == 0 || len >= INET6_ADDRSTRLEN || memchr(*at, '\0', len))
		return false;
	memcpy(ret, *at, len);
	ret[len] = '\0';
	*at = space ? space + 1 : end;
	return !space || *at != end; /* behind a space comes a word */
}

static bool read_ip(const char *word, bool is_v4, struct endpoint *ret)
{
	struct in_addr ip4;

	if (!is_v4)
		return inet_pton(AF_INET6, word, ret->ip) == 1;
	if (inet_pton(AF_INET, word, &ip4) != 1)
		return false;
	*ret = endpoint_from_v4(ntohl(ip4.s_addr), 0);
	return true;
}

static bool read_port(const char *word, uint16_t *ret)
{
	unsigned long port = 0;

	if ((word[0] == '0' && word[1] != '\0') || strlen(word) > 5)
		return false;
	for (; *word != '\0'; word++) {
		if (*word < '0' || *word > '9')
			return false;
		port = port * 10 + (unsigned long)(*word - '0');
	}
	*ret = (uint16_t)port;
	return port <= UINT16_MAX;
}

/* at: behind "TCP4 " or "TCP6 ". */
static bool read_addresses(const char *at, const char *end, bool is_v4, struct proxy_header *header)
{
	char words[4][INET6_ADDRSTRLEN];

	for (int i = 0; i < 4; i++)
		if (!take_word(&at, end, words[i]))
			return false;
	header->has_addresses = true;
	return at == end && read_ip(words[0], is_v4, &header->source) && read_ip(words[1], is_v4, &header->destination) &&
	       read_port(words[2], &header->source.port) && read_port(words[3], &header->destination.port);
}

static bool begins_with(const char *at, const char *end, const char *word)
{
	return (size_t)(end - at) >= strlen(word) && memcmp(at, word, strlen(word)) == 0;
}

/* at: behind "PROXY ", end: before CR LF. */
static int read_line(const char *at, const char *end, struct proxy_header *header)
{
	static const char unknown[] = "UNKNOWN";

	if (begins_with(at, end, unknown)) {
		at += strlen(unknown); /* what follows is to be ignored */
		return at == end || *at == ' ' ? 0 : PROXY_MALFORMED;
	}
	if (begins_with(at, end, "TCP4 "))
		return read_addresses(at + 5, end, true, header) ? 0 : PROXY_MALFORMED;
	if (begins_with(at, end, "TCP6 "))
		return read_addresses(at + 5, end, false, header) ? 0 : PROXY_MALFORMED;
	return PROXY_UNSUPPORTED;
}

int proxy_v1_decode(const uint8_t *bytes, size_t n, struct proxy_header *ret, size_t *ret_len)
{
	static const char first[] = "PROXY ";
	struct proxy_header header = { .has_addresses = false };
	const size_t most = n < PROXY_V1_MAX_LEN ? n : PROXY_V1_MAX_LEN;

	if (!is_beginning(bytes, n, first, strlen(first)))
		return PROXY_NO_HEADER;
	const uint8_t *feed = n > 0 ? memchr(bytes, '\n', most) : NULL;
	if (!feed)
		return n < PROXY_V1_MAX_LEN ? PROXY_MORE : PROXY_TOO_LONG;
	if (feed == bytes || feed[-1] != '\r')
		return PROXY_MALFORMED;
	int r = read_line((const char *)bytes + strlen(first), (const char *)feed - 1, &header);
	if (r != 0)
		return r;
	*ret = header;
	*ret_len = (size_t)(feed + 1 - bytes);
	return 0;
}

static void write_ip(const struct endpoint *endpoint, bool is_v4, char ret[INET6_ADDRSTRLEN])
{
	if (is_v4)
		inet_ntop(AF_INET, endpoint->ip + 12, ret, INET6_ADDRSTRLEN);
	else
		inet_ntop(AF_INET6, endpoint->ip, ret, INET6_ADDRSTRLEN);
}

size_t proxy_v1_encode(const struct proxy_header *header, uint8_t *buf, size_t size)
{
	const bool is_v4 = is_of_v4(header);
	char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN], line[160] = "PROXY UNKNOWN\r\n";

	if (header->has_addresses) {
		write_ip(&header->source, is_v4, source);
		write_ip(&header->destination, is_v4, destination);
		snprintf(line, sizeof(line), "PROXY %s %s %s %u %u\r\n", is_v4 ? "TCP4" : "TCP6", source, destination,
			 header->source.port, header->destination.port);
	}
	const size_t len = strlen(line);
	if (len > size)
		return 0;
	memcpy(buf, line, len);
	return len;
}
