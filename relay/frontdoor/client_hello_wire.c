#include "relay/frontdoor/client_hello_wire.h"

#include "common/relay_wire.h"
#include "common/wire.h"
#include "relay/webgw/agent_wire.h"

#include <string.h>

enum { TYPE_CLIENT_HELLO = 1, NAME_OF_HOST = 0, ECH_OUTER = 0 };
enum extension { EXTENSION_SERVER_NAME = 0x0000, EXTENSION_ALPN = 0x0010, EXTENSION_ECH = 0xfe0d };

/* What a hello says, before it is decided whether that can be. */
struct said {
	struct client_hello hello;
	unsigned n_server_name, n_alpn, n_ech; /* extensions */
	unsigned n_hosts;
	int name_error;
};

static uint32_t wire_u24(struct wire_reader *r)
{
	uint32_t high = wire_u8(r);

	return high << 16 | wire_u16(r);
}

/* The next len bytes, to be read on their own. */
static struct wire_reader wire_part(struct wire_reader *r, size_t len)
{
	const uint8_t *at = wire_take(r, len);

	return at ? wire_reader(at, len) : (struct wire_reader){ .failed = true };
}

size_t client_hello_length(const uint8_t *header)
{
	struct wire_reader r = wire_reader(header, CLIENT_HELLO_HEADER_LEN);

	return wire_u8(&r) == TYPE_CLIENT_HELLO ? CLIENT_HELLO_HEADER_LEN + wire_u24(&r) : 0;
}

/* Names of other types than a host's are skipped: there are none, but the list has room for them. */
static bool read_server_name(struct wire_reader value, struct said *said)
{
	struct wire_reader list = wire_part(&value, wire_u16(&value));

	if (!wire_done(&value) || wire_left(&list) == 0)
		return false;
	while (wire_left(&list) > 0) {
		uint8_t type = wire_u8(&list);
		size_t len = wire_u16(&list);
		const uint8_t *name = wire_take(&list, len);
		if (!name || len == 0)
			return false;
		if (type != NAME_OF_HOST)
			continue;
		said->n_hosts++;
		said->name_error = host_name_from((const char *)name, len, &said->hello.host);
	}
	return wire_done(&list);
}

static bool is_protocol(const uint8_t *at, size_t len, const char *name)
{
	return len == strlen(name) && memcmp(at, name, len) == 0;
}

static bool read_alpn(struct wire_reader value, struct client_hello *hello)
{
	struct wire_reader list = wire_part(&value, wire_u16(&value));
	unsigned n = 0;

	if (!wire_done(&value) || wire_left(&list) == 0)
		return false;
	for (; wire_left(&list) > 0; n++) {
		size_t len = wire_u8(&list);
		const uint8_t *name = wire_take(&list, len);
		if (!name || len == 0)
			return false;
		hello->is_acme |= is_protocol(name, len, "acme-tls/1");
		hello->offers_h2 |= is_protocol(name, len, "h2");
		hello->offers_http_1 |= is_protocol(name, len, "http/1.1");
		hello->offers_h3 |= is_protocol(name, len, "h3");
		hello->offers_relay |= is_protocol(name, len, RELAY_ALPN);
		hello->offers_webgw |= is_protocol(name, len, WEBGW_SOCKET_ALPN);
		hello->offers_dial_back |= is_protocol(name, len, WEBGW_ALPN);
	}
	hello->is_acme = hello->is_acme && n == 1;
	return wire_done(&list);
}

static bool read_extension(uint16_t type, struct wire_reader value, struct said *said)
{
	switch (type) {
	case EXTENSION_SERVER_NAME:
		said->n_server_name++;
		return read_server_name(value, said);
	case EXTENSION_ALPN:
		said->n_alpn++;
		return read_alpn(value, &said->hello);
	case EXTENSION_ECH:
		said->n_ech++;
		said->hello.has_ech = wire_u8(&value) == ECH_OUTER;
		return !value.failed;
	default:
		return true;
	}
}

static bool read_extensions(struct wire_reader all, struct said *said)
{
	while (wire_left(&all) > 0) {
		uint16_t type = wire_u16(&all);
		struct wire_reader value = wire_part(&all, wire_u16(&all));
		if (value.failed || !read_extension(type, value, said))
			return false;
	}
	return wire_done(&all);
}

static bool read_hello(struct wire_reader r, struct said *said)
{
	bool is_hello = wire_u8(&r) == TYPE_CLIENT_HELLO;
	struct wire_reader body = wire_part(&r, wire_u24(&r));

	if (!is_hello || !wire_done(&r))
		return false;
	wire_take(&body, 2 + 32); /* version, random */
	size_t session_len = wire_u8(&body);
	wire_take(&body, session_len);
	size_t suites_len = wire_u16(&body);
	wire_take(&body, suites_len);
	size_t compressions = wire_u8(&body);
	wire_take(&body, compressions);
	if (body.failed || session_len > 32 || suites_len < 2 || suites_len % 2 != 0 || compressions == 0)
		return false;
	if (wire_left(&body) == 0)
		return true; /* TLS 1.2 and before may do without extensions */
	struct wire_reader extensions = wire_part(&body, wire_u16(&body));
	return wire_done(&body) && read_extensions(extensions, said);
}

static int error_of_name(int error)
{
	if (error == 0)
		return 0;
	return error == HOST_NAME_ADDRESS ? CLIENT_HELLO_ADDRESS : CLIENT_HELLO_NAME;
}

int client_hello_decode(const uint8_t *message, size_t len, struct client_hello *ret)
{
	struct said said = { .n_hosts = 0 };

	if (!read_hello(wire_reader(message, len), &said) || said.n_alpn > 1 || said.n_ech > 1)
		return CLIENT_HELLO_MALFORMED;
	if (said.n_server_name > 1 || said.n_hosts > 1)
		return CLIENT_HELLO_TWO_NAMES;
	const int r = said.n_hosts == 0 ? CLIENT_HELLO_NO_NAME : error_of_name(said.name_error);
	if (r == 0 || r == CLIENT_HELLO_NO_NAME || r == CLIENT_HELLO_ADDRESS)
		*ret = said.hello;
	return r;
}
