#include "relay/stun_server.h"

#include "common/stun_wire.h"

#include <string.h>

#define DEFAULT_RATE  100
#define DEFAULT_BURST 200

/* RFC 5780 */

/* The index of another address of the same family; that of the same one: there is none. */
static uint32_t other_address(const struct stun_server *server, uint32_t address)
{
	const bool is_v4 = endpoint_is_v4(&server->local[address][0]);

	for (uint32_t i = 1; i < server->n_addresses; i++) {
		uint32_t other = (address + i) % server->n_addresses;
		if (endpoint_is_v4(&server->local[other][0]) == is_v4)
			return other;
	}
	return address;
}

static bool is_wildcard(const struct endpoint *endpoint)
{
	static const uint8_t zero[16];

	return memcmp(endpoint->ip, zero, 16) == 0 ||
	       (endpoint_is_v4(endpoint) && memcmp(endpoint->ip + 12, zero, 4) == 0);
}

static bool can_change_port(const struct stun_server *server)
{
	return server->n_ports == 2;
}

static bool can_change_ip(const struct stun_server *server, uint32_t address)
{
	const uint32_t other = other_address(server, address);

	return can_change_port(server) && other != address && !is_wildcard(&server->local[address][0]) &&
	       !is_wildcard(&server->local[other][0]);
}

/* With one address: that which was asked, with the other port. */
static bool find_other(const struct stun_server *server, const struct stun_server_question *question,
		       struct endpoint *ret)
{
	const uint32_t other_port = 1 - question->port;

	if (!can_change_port(server))
		return false;
	if (can_change_ip(server, question->address)) {
		*ret = server->local[other_address(server, question->address)][other_port];
		return true;
	}
	*ret = question->asked;
	ret->port = server->local[question->address][other_port].port;
	return true;
}

/* answering */

static bool is_question(struct stun_server *server, const uint8_t *bytes, size_t len, struct stun_message *ret)
{
	if (len > STUN_MAX_LEN || stun_decode(bytes, len, ret) != 0) {
		server->counters.garbage++;
		return false;
	}
	if (ret->class != STUN_REQUEST || ret->method != STUN_METHOD_BINDING) {
		server->counters.not_a_request++;
		return false;
	}
	return true;
}

static void refuse_attribute(struct stun_message *question, uint16_t type)
{
	if (question->n_unknown < STUN_MAX_UNKNOWN)
		question->unknown[question->n_unknown++] = type;
}

static size_t encode_refusal(struct stun_server *server, const struct stun_message *question, uint8_t *buf,
			     size_t cap)
{
	struct stun_message answer = { .class = STUN_ERROR,
				       .method = STUN_METHOD_BINDING,
				       .tx = question->tx,
				       .has_fingerprint = question->has_fingerprint,
				       .error_code = STUN_CODE_UNKNOWN_ATTRIBUTE,
				       .n_unknown = question->n_unknown };

	memcpy(answer.unknown, question->unknown, sizeof(answer.unknown));
	server->counters.unknown_attribute++;
	return stun_encode(buf, cap, &answer);
}

/* Never more than cap, the size of the question: what is not needed is left out first. */
static size_t encode_answer(const struct stun_message *question, const struct endpoint *mapped,
			    const struct endpoint *origin, const struct endpoint *other, uint8_t *buf, size_t cap)
{
	struct stun_message answer = { .class = STUN_SUCCESS,
				       .method = STUN_METHOD_BINDING,
				       .tx = question->tx,
				       .has_fingerprint = question->has_fingerprint,
				       .mapped = *mapped,
				       .response_origin = *origin };

	if (other)
		answer.other_address = *other;
	size_t n = stun_encode(buf, cap, &answer);
	if (n > 0)
		return n;
	answer.other_address = answer.response_origin = (struct endpoint){ 0 };
	return stun_encode(buf, cap, &answer);
}

/* What is wanted and can be done: from which socket, to which port. */
static size_t grant(const struct stun_server *server, const struct stun_server_question *question,
		    const struct stun_message *message, uint8_t *bytes, size_t len, struct stun_server_answer *ret)
{
	struct endpoint other, origin = question->asked;
	const bool has_other = find_other(server, question, &other);

	if (message->change_ip)
		ret->address = other_address(server, question->address);
	if (message->change_port)
		ret->port = 1 - question->port;
	ret->is_elsewhere = ret->address != question->address || ret->port != question->port;
	if (message->response_port != 0)
		ret->to.port = message->response_port;
	if (message->change_ip)
		origin = server->local[ret->address][ret->port];
	else if (message->change_port)
		origin.port = server->local[ret->address][ret->port].port;
	return encode_answer(message, &question->source, &origin, has_other ? &other : NULL, bytes, len);
}

bool stun_server_answer(struct stun_server *server, const struct stun_server_question *question, uint8_t *bytes,
			size_t len, struct stun_server_answer *ret)
{
	struct stun_message message;

	server->counters.received++;
	if (!source_limit_take(&server->limit, &question->source, question->now_ms)) {
		server->counters.rate_limited++;
		return false;
	}
	if (!is_question(server, bytes, len, &message))
		return false;

	if ((message.change_ip && !can_change_ip(server, question->address)) ||
	    (message.change_port && !can_change_port(server)))
		refuse_attribute(&message, 0x0003);
	*ret = (struct stun_server_answer){ .address = question->address,
					    .port = question->port,
					    .to = question->source };
	ret->len = message.n_unknown > 0 ? encode_refusal(server, &message, bytes, len)
					 : grant(server, question, &message, bytes, len, ret);
	if (ret->len == 0)
		server->counters.too_small++;
	return ret->len > 0;
}

void stun_server_init(struct stun_server *server, uint32_t rate_per_s, uint32_t burst)
{
	memset(server, 0, sizeof(*server));
	source_limit_init(&server->limit, rate_per_s ? rate_per_s : DEFAULT_RATE, burst ? burst : DEFAULT_BURST);
}
