#include "actors/session_manager/session_wire.h"

#include "common/macros.h"
#include "common/wire.h"

#include <string.h>

int session_header_decode(const void *datagram, size_t len, struct session_header *ret)
{
	struct wire_reader r =
		wire_reader(datagram, len < SESSION_HEADER_LEN ? len : SESSION_HEADER_LEN);
	struct session_header header;

	uint32_t magic = wire_u32(&r);
	wire_bytes(&r, header.key_id, sizeof(header.key_id));
	header.counter = wire_u64(&r);

	if (!wire_done(&r) || magic != SESSION_MAGIC)
		return SESSION_E_MALFORMED;
	*ret = header;
	return 0;
}

size_t session_header_encode(void *buf, size_t cap, const struct session_header *header)
{
	struct wire_writer w = wire_writer(buf, cap);

	wire_put_u32(&w, SESSION_MAGIC);
	wire_put(&w, header->key_id, sizeof(header->key_id));
	wire_put_u64(&w, header->counter);
	return wire_written(&w);
}

static void decode_ping(struct wire_reader *r, struct session_message *message)
{
	wire_bytes(r, message->tx_id, sizeof(message->tx_id));
	message->n_padding = (uint16_t)wire_left(r);
	while (wire_left(r) > 0)
		if (wire_u8(r) != 0)
			r->failed = true;
}

static void decode_pong(struct wire_reader *r, struct session_message *message)
{
	wire_bytes(r, message->tx_id, sizeof(message->tx_id));
	message->observed = wire_endpoint(r);
}

static void decode_passed(struct wire_reader *r, struct session_message *message)
{
	wire_bytes(r, message->tx_id, sizeof(message->tx_id));
}

static void decode_rendezvous(struct wire_reader *r, struct session_message *message)
{
	message->n_endpoints = wire_u8(r);
	if (message->n_endpoints > SESSION_MAX_ENDPOINTS) {
		r->failed = true;
		return;
	}
	for (uint32_t i = 0; i < message->n_endpoints; i++)
		message->endpoints[i] = wire_endpoint(r);
}

static void decode_wireguard(struct wire_reader *r, struct session_message *message)
{
	message->port = wire_u16(r);
	r->failed |= message->port == 0;
}

static void decode_receipt(struct wire_reader *r, struct session_message *message)
{
	message->age_ms = wire_u32(r);
}

/* None, or all lie between the lowest and the highest. */
static bool nat_ports_agree(const struct session_nat *nat)
{
	if (nat->n_ports == 0)
		return nat->low_port == 0 && nat->high_port == 0 && nat->last_port == 0;
	return nat->low_port != 0 && nat->low_port <= nat->last_port && nat->last_port <= nat->high_port;
}

static void decode_nat(struct wire_reader *r, struct session_message *message)
{
	struct session_nat *nat = &message->nat;

	nat->mapping = wire_u8(r);
	nat->filtering = wire_u8(r);
	nat->ports = wire_u8(r);
	nat->step = (int16_t)wire_u16(r);
	nat->low_port = wire_u16(r);
	nat->high_port = wire_u16(r);
	nat->last_port = wire_u16(r);
	nat->n_ports = wire_u8(r);
	nat->outside = wire_endpoint(r);
	r->failed |= nat->mapping > SESSION_NAT_MAX_DEPENDENCE || nat->filtering > SESSION_NAT_MAX_DEPENDENCE ||
		     nat->ports > SESSION_NAT_MAX_PORTS || !nat_ports_agree(nat);
}

static void encode_nat(struct wire_writer *w, const struct session_message *message)
{
	const struct session_nat *nat = &message->nat;

	wire_put_u8(w, nat->mapping);
	wire_put_u8(w, nat->filtering);
	wire_put_u8(w, nat->ports);
	wire_put_u16(w, (uint16_t)nat->step);
	wire_put_u16(w, nat->low_port);
	wire_put_u16(w, nat->high_port);
	wire_put_u16(w, nat->last_port);
	wire_put_u8(w, nat->n_ports);
	wire_put_endpoint(w, &nat->outside);
}

static void encode_ping(struct wire_writer *w, const struct session_message *message)
{
	uint8_t *padding;

	wire_put(w, message->tx_id, sizeof(message->tx_id));
	padding = wire_reserve(w, message->n_padding);
	if (padding)
		memset(padding, 0, message->n_padding);
}

static void encode_pong(struct wire_writer *w, const struct session_message *message)
{
	wire_put(w, message->tx_id, sizeof(message->tx_id));
	wire_put_endpoint(w, &message->observed);
}

static void encode_passed(struct wire_writer *w, const struct session_message *message)
{
	wire_put(w, message->tx_id, sizeof(message->tx_id));
}

static void encode_rendezvous(struct wire_writer *w, const struct session_message *message)
{
	if (message->n_endpoints > SESSION_MAX_ENDPOINTS) {
		w->failed = true;
		return;
	}
	wire_put_u8(w, (uint8_t)message->n_endpoints);
	for (uint32_t i = 0; i < message->n_endpoints; i++)
		wire_put_endpoint(w, &message->endpoints[i]);
}

static void encode_wireguard(struct wire_writer *w, const struct session_message *message)
{
	wire_put_u16(w, message->port);
}

static void encode_receipt(struct wire_writer *w, const struct session_message *message)
{
	wire_put_u32(w, message->age_ms);
}

static const struct kind {
	enum session_message_type type;
	const char *name;
	void (*decode)(struct wire_reader *r, struct session_message *message);
	void (*encode)(struct wire_writer *w, const struct session_message *message);
} kinds[] = {
	{ SESSION_PING, "ping", decode_ping, encode_ping },
	{ SESSION_PONG, "pong", decode_pong, encode_pong },
	{ SESSION_RENDEZVOUS, "rendezvous", decode_rendezvous, encode_rendezvous },
	{ SESSION_WIREGUARD, "wireguard", decode_wireguard, encode_wireguard },
	{ SESSION_PROBE, "probe", decode_ping, encode_ping },
	{ SESSION_PASSED, "passed", decode_passed, encode_passed },
	{ SESSION_RECEIPT, "receipt", decode_receipt, encode_receipt },
	{ SESSION_NAT, "nat", decode_nat, encode_nat },
	{ SESSION_SEARCH, "search", decode_nat, encode_nat },
};

/* Of the plain text. */
static size_t max_len(unsigned int type)
{
	return type == SESSION_PROBE ? SESSION_MAX_PROBE_LEN - SESSION_HEADER_LEN - SESSION_TAG_LEN :
				       SESSION_MAX_PLAIN;
}

static const struct kind *find_kind(unsigned int type)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (kinds[i].type == type)
			return &kinds[i];
	return NULL;
}

int session_message_decode(const void *plain, size_t len, struct session_message *ret)
{
	struct wire_reader r = wire_reader(plain, len);
	struct session_message message;
	const struct kind *kind;

	if (len == 0 || len > max_len(*(const uint8_t *)plain))
		return SESSION_E_MALFORMED;
	kind = find_kind(wire_u8(&r));
	if (!kind)
		return SESSION_E_TYPE;
	memset(&message, 0, sizeof(message));
	message.type = kind->type;
	kind->decode(&r, &message);
	if (!wire_done(&r))
		return SESSION_E_MALFORMED;
	*ret = message;
	return 0;
}

size_t session_message_encode(void *buf, size_t cap, const struct session_message *message)
{
	const size_t max = max_len(message->type);
	struct wire_writer w = wire_writer(buf, cap < max ? cap : max);
	const struct kind *kind = find_kind(message->type);

	if (!kind)
		return 0;
	wire_put_u8(&w, (uint8_t)message->type);
	kind->encode(&w, message);
	return wire_written(&w);
}

const char *session_error_name(enum session_error error)
{
	static const char *const names[SESSION_N_ERRORS] = {
		[0] = "none",
		[SESSION_E_MALFORMED] = "malformed",
		[SESSION_E_TYPE] = "unknown type",
		[SESSION_E_UNKNOWN_KEY] = "unknown key",
		[SESSION_E_REFLECTED] = "reflected",
		[SESSION_E_FORGED] = "forged",
		[SESSION_E_REPLAYED] = "replayed",
	};

	return (unsigned int)error < SESSION_N_ERRORS ? names[error] : "?";
}

const char *session_message_name(enum session_message_type type)
{
	const struct kind *kind = find_kind(type);

	return kind ? kind->name : "?";
}
