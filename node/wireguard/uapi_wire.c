#include "node/wireguard/uapi_wire.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum value_type { VALUE_SECRET, VALUE_NUMBER, VALUE_TRUE, VALUE_ENDPOINT, VALUE_ALLOWED_IP };

/* clang-format off */
static const struct rule {
	const char *name;
	bool of_peer;
	enum value_type type;
	uint32_t min, max;
} rules[] = {
	/*                             name                             peer   value            min max */
	[UAPI_PRIVATE_KEY]         = { "private_key",                   false, VALUE_SECRET,     0, 0 },
	[UAPI_LISTEN_PORT]         = { "listen_port",                   false, VALUE_NUMBER,     0, UINT16_MAX },
	[UAPI_FWMARK]              = { "fwmark",                        false, VALUE_NUMBER,     0, UINT32_MAX },
	[UAPI_REPLACE_PEERS]       = { "replace_peers",                 false, VALUE_TRUE,       0, 0 },
	[UAPI_PUBLIC_KEY]          = { "public_key",                    true,  VALUE_SECRET,     0, 0 },
	[UAPI_REMOVE]              = { "remove",                        true,  VALUE_TRUE,       0, 0 },
	[UAPI_UPDATE_ONLY]         = { "update_only",                   true,  VALUE_TRUE,       0, 0 },
	[UAPI_PRESHARED_KEY]       = { "preshared_key",                 true,  VALUE_SECRET,     0, 0 },
	[UAPI_ENDPOINT]            = { "endpoint",                      true,  VALUE_ENDPOINT,   0, 0 },
	[UAPI_KEEPALIVE]           = { "persistent_keepalive_interval", true,  VALUE_NUMBER,     0, UINT16_MAX },
	[UAPI_REPLACE_ALLOWED_IPS] = { "replace_allowed_ips",           true,  VALUE_TRUE,       0, 0 },
	[UAPI_ALLOWED_IP]          = { "allowed_ip",                    true,  VALUE_ALLOWED_IP, 0, 0 },
	[UAPI_PROTOCOL_VERSION]    = { "protocol_version",              true,  VALUE_NUMBER,     1, 1 },
};
/* clang-format on */
static_assert(ARRAY_LEN(rules) == UAPI_N_KEYS, "a rule for every key");

/* The longest value that a rule can accept; longer ones are refused before they are copied. */
#define MAX_VALUE_LEN 127

/* values */

static int parse_number(const char *text, uint32_t min, uint32_t max, uint32_t *ret)
{
	uint64_t number = 0;

	if (!*text)
		return UAPI_E_VALUE;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return UAPI_E_VALUE;
		number = number * 10 + (uint64_t)(*text - '0');
		if (number > max)
			return UAPI_E_VALUE;
	}
	if (number < min)
		return UAPI_E_VALUE;
	*ret = (uint32_t)number;
	return 0;
}

static int parse_allowed_ip(char *text, struct uapi_allowed_ip *ret)
{
	char *slash = strchr(text, '/');
	uint32_t prefix_len;

	*ret = (struct uapi_allowed_ip){ .remove = *text == '-' };
	if (!slash)
		return UAPI_E_VALUE;
	*slash = '\0';
	text += ret->remove;

	ret->is_v4 = inet_pton(AF_INET, text, ret->ip) == 1;
	if (!ret->is_v4 && inet_pton(AF_INET6, text, ret->ip) != 1)
		return UAPI_E_VALUE;
	int r = parse_number(slash + 1, 0, ret->is_v4 ? 32 : 128, &prefix_len);
	if (r == 0)
		ret->prefix_len = (uint8_t)prefix_len;
	return r;
}

/* "[fe80::1%eth0]:1" as wg(8) writes it; a numeric scope is endpoint_parse()'s. */
static int parse_endpoint(char *text, struct uapi_item *ret)
{
	char *percent = strchr(text, '%');
	size_t len = percent ? strcspn(percent + 1, "]") : 0;

	if (percent && (percent[1] < '0' || percent[1] > '9')) {
		if (len == 0 || len > UAPI_SCOPE_NAME_LEN)
			return UAPI_E_VALUE;
		memcpy(ret->scope_name, percent + 1, len);
		memmove(percent, percent + 1 + len, strlen(percent + 1 + len) + 1);
	}
	return endpoint_parse(text, &ret->endpoint) == 0 ? 0 : UAPI_E_VALUE;
}

/* text is the caller's copy and may be changed. */
static int parse_value(const struct rule *rule, char *text, struct uapi_item *ret)
{
	switch (rule->type) {
	case VALUE_SECRET:
		return key_from_hex(text, ret->secret) == 0 ? 0 : UAPI_E_VALUE;
	case VALUE_NUMBER:
		return parse_number(text, rule->min, rule->max, &ret->number);
	case VALUE_TRUE:
		return strcmp(text, "true") == 0 ? 0 : UAPI_E_VALUE;
	case VALUE_ENDPOINT:
		return parse_endpoint(text, ret);
	case VALUE_ALLOWED_IP:
		return parse_allowed_ip(text, &ret->allowed_ip);
	}
	return UAPI_E_VALUE;
}

/* lines */

static const struct rule *find_rule(const char *name, size_t len)
{
	for (const struct rule *rule = rules; rule < rules + ARRAY_LEN(rules); rule++)
		if (strlen(rule->name) == len && memcmp(rule->name, name, len) == 0)
			return rule;
	return NULL;
}

static int parse_line(const char *line, size_t len, bool in_peer, struct uapi_item *ret)
{
	const char *equals = memchr(line, '=', len);
	char value[MAX_VALUE_LEN + 1];

	if (!equals || memchr(line, '\0', len))
		return UAPI_E_LINE;
	const struct rule *rule = find_rule(line, (size_t)(equals - line));
	if (!rule)
		return UAPI_E_KEY;

	memset(ret, 0, sizeof(*ret));
	ret->key = (enum uapi_key)(rule - rules);
	/* A peer's keys need a peer; public_key brings it. The device's come before any peer. */
	if (rule->of_peer != in_peer && ret->key != UAPI_PUBLIC_KEY)
		return UAPI_E_KEY;

	size_t value_len = len - (size_t)(equals + 1 - line);
	if (value_len > MAX_VALUE_LEN)
		return UAPI_E_VALUE;
	memcpy(value, equals + 1, value_len);
	value[value_len] = '\0';
	int r = parse_value(rule, value, ret);
	sodium_memzero(value, sizeof(value));
	return r;
}

struct line {
	const char *at;
	size_t len;
};

/* The line at the cursor without its line feed; false at the end. */
static bool next_line(const char **at, const char *end, struct line *ret)
{
	if (*at == end)
		return false;
	const char *feed = memchr(*at, '\n', (size_t)(end - *at));
	const char *stop = feed ? feed : end;

	*ret = (struct line){ .at = *at, .len = (size_t)(stop - *at) };
	*at = feed ? feed + 1 : end;
	return true;
}

static bool line_is(const struct line *line, const char *text)
{
	return line->len == strlen(text) && memcmp(line->at, text, line->len) == 0;
}

static int parse_set(const char *at, const char *end, struct uapi_item *ret_items, size_t max_items,
		     size_t *ret_n)
{
	struct line line;
	bool in_peer = false;
	size_t n = 0;

	while (next_line(&at, end, &line) && line.len > 0) {
		if (n == max_items)
			return UAPI_E_TOO_MANY;
		int r = parse_line(line.at, line.len, in_peer, &ret_items[n]);
		if (r != 0)
			return r;
		in_peer |= ret_items[n].key == UAPI_PUBLIC_KEY;
		n++;
	}
	*ret_n = n;
	return 0;
}

/* public: requests */

size_t uapi_request_len(const char *text, size_t len, size_t *scanned)
{
	/* An empty line is a feed at the very start or two in a row. */
	if (len > 0 && text[0] == '\n')
		return 1;
	for (size_t at = *scanned; at + 1 < len; at++) {
		if (text[at] == '\n' && text[at + 1] == '\n')
			return at + 2;
		*scanned = at + 1;
	}
	return 0;
}

size_t uapi_count_lines(const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++)
		n += text[i] == '\n';
	return n;
}

int uapi_parse(const char *text, size_t len, enum uapi_command *ret, struct uapi_item *ret_items,
	       size_t max_items, size_t *ret_n)
{
	const char *at = text;
	struct line line;

	*ret_n = 0;
	if (!next_line(&at, text + len, &line))
		return UAPI_E_COMMAND;
	if (line_is(&line, "set=1")) {
		*ret = UAPI_SET;
		return parse_set(at, text + len, ret_items, max_items, ret_n);
	}
	if (!line_is(&line, "get=1"))
		return UAPI_E_COMMAND;
	*ret = UAPI_GET;
	return next_line(&at, text + len, &line) && line.len > 0 ? UAPI_E_LINE : 0;
}

int uapi_error_errno(int error)
{
	return error == UAPI_E_COMMAND || error == UAPI_E_LINE ? EPROTO : EINVAL;
}

/* public: answers */

static void put_text(struct wire_writer *w, const char *format, ...) P2P_PRINTF(2, 3);

static void put_text(struct wire_writer *w, const char *format, ...)
{
	char text[160];
	va_list args;

	va_start(args, format);
	int len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	assert(len >= 0 && (size_t)len < sizeof(text));
	wire_put(w, text, (size_t)len);
	sodium_memzero(text, sizeof(text));
}

static void put_key(struct wire_writer *w, enum uapi_key key, const uint8_t bytes[KEY_LEN])
{
	char hex[KEY_HEX_LEN + 1];

	key_to_hex(bytes, hex);
	put_text(w, "%s=%s\n", rules[key].name, hex);
	sodium_memzero(hex, sizeof(hex));
}

void uapi_put_device(struct wire_writer *w, const struct uapi_device *device)
{
	if (!secret_key_is_zero(&device->private_key))
		put_key(w, UAPI_PRIVATE_KEY, device->private_key.bytes);
	if (device->listen_port)
		put_text(w, "listen_port=%u\n", device->listen_port);
	if (device->fwmark)
		put_text(w, "fwmark=%" PRIu32 "\n", device->fwmark);
}

void uapi_put_peer(struct wire_writer *w, const struct uapi_peer *peer)
{
	put_key(w, UAPI_PUBLIC_KEY, peer->public_key.bytes);
	put_key(w, UAPI_PRESHARED_KEY, peer->preshared_key);
	put_text(w, "protocol_version=1\n");
	if (!endpoint_is_none(&peer->endpoint))
		put_text(w, "endpoint=%s\n", endpoint_text(&peer->endpoint).s);
	put_text(w, "last_handshake_time_sec=%" PRIu64 "\n", peer->last_handshake_s);
	put_text(w, "last_handshake_time_nsec=%" PRIu32 "\n", peer->last_handshake_ns);
	put_text(w, "tx_bytes=%" PRIu64 "\n", peer->tx_bytes);
	put_text(w, "rx_bytes=%" PRIu64 "\n", peer->rx_bytes);
	put_text(w, "persistent_keepalive_interval=%u\n", peer->keepalive_s);
}

void uapi_put_allowed_ip(struct wire_writer *w, const struct uapi_allowed_ip *allowed_ip)
{
	char ip[INET6_ADDRSTRLEN];

	inet_ntop(allowed_ip->is_v4 ? AF_INET : AF_INET6, allowed_ip->ip, ip, sizeof(ip));
	put_text(w, "allowed_ip=%s%s/%u\n", allowed_ip->remove ? "-" : "", ip, allowed_ip->prefix_len);
}

void uapi_put_result(struct wire_writer *w, int result)
{
	put_text(w, "errno=%d\n\n", result);
}

/* public: the client's side */

void uapi_put_item(struct wire_writer *w, const struct uapi_item *item)
{
	const struct rule *rule = &rules[item->key];

	switch (rule->type) {
	case VALUE_SECRET:
		put_key(w, item->key, item->secret);
		break;
	case VALUE_NUMBER:
		put_text(w, "%s=%" PRIu32 "\n", rule->name, item->number);
		break;
	case VALUE_TRUE:
		put_text(w, "%s=true\n", rule->name);
		break;
	case VALUE_ENDPOINT:
		put_text(w, "%s=%s\n", rule->name, endpoint_text(&item->endpoint).s);
		break;
	case VALUE_ALLOWED_IP:
		uapi_put_allowed_ip(w, &item->allowed_ip);
		break;
	}
}

struct answer {
	struct uapi_device *device;
	struct uapi_peer peer;
	bool in_peer;
	void (*each)(void *arg, const struct uapi_peer *peer);
	void *arg;
};

static void end_peer(struct answer *answer)
{
	if (answer->in_peer)
		answer->each(answer->arg, &answer->peer);
	answer->peer = (struct uapi_peer){ 0 };
}

static void take_peer_value(struct uapi_peer *peer, const char *name, char *value)
{
	struct uapi_item item;

	if (strcmp(name, "endpoint") == 0 && parse_endpoint(value, &item) == 0)
		peer->endpoint = item.endpoint;
	else if (strcmp(name, "last_handshake_time_sec") == 0)
		peer->last_handshake_s = strtoull(value, NULL, 10);
	else if (strcmp(name, "last_handshake_time_nsec") == 0)
		peer->last_handshake_ns = (uint32_t)strtoul(value, NULL, 10);
	else if (strcmp(name, "tx_bytes") == 0)
		peer->tx_bytes = strtoull(value, NULL, 10);
	else if (strcmp(name, "rx_bytes") == 0)
		peer->rx_bytes = strtoull(value, NULL, 10);
	else if (strcmp(name, "persistent_keepalive_interval") == 0)
		peer->keepalive_s = (uint16_t)strtoul(value, NULL, 10);
}

/* Some daemons answer with the number, some with its negative. */
static int answered_errno(const char *value)
{
	const unsigned long number = strtoul(value[0] == '-' ? value + 1 : value, NULL, 10);

	return number < 4096 ? -(int)number : -EPROTO;
}

/* 0, or -EPROTO. value is a copy. */
static int take_answer_line(struct answer *answer, const char *name, char *value)
{
	if (strcmp(name, "public_key") == 0) {
		end_peer(answer);
		answer->in_peer = true;
		return key_from_hex(value, answer->peer.public_key.bytes) == 0 ? 0 : -EPROTO;
	}
	if (answer->in_peer)
		take_peer_value(&answer->peer, name, value);
	else if (strcmp(name, "listen_port") == 0)
		answer->device->listen_port = (uint16_t)strtoul(value, NULL, 10);
	else if (strcmp(name, "fwmark") == 0)
		answer->device->fwmark = (uint32_t)strtoul(value, NULL, 10);
	return 0;
}

/* One line, with its own copy: it may be a private key. */
static int take_answer_text(struct answer *answer, const struct line *line, bool *ret_is_end)
{
	char copy[MAX_VALUE_LEN * 2];
	int r = -EPROTO;

	if (line->len >= sizeof(copy) || memchr(line->at, '\0', line->len))
		return -EPROTO;
	memcpy(copy, line->at, line->len);
	copy[line->len] = '\0';
	char *equals = strchr(copy, '=');
	if (equals) {
		*equals = '\0';
		*ret_is_end = strcmp(copy, "errno") == 0;
		r = *ret_is_end ? answered_errno(equals + 1) : take_answer_line(answer, copy, equals + 1);
	}
	if (*ret_is_end)
		end_peer(answer);
	sodium_memzero(copy, sizeof(copy));
	return r;
}

int uapi_parse_answer(const char *text, size_t len, struct uapi_device *ret,
		      void (*each)(void *arg, const struct uapi_peer *peer), void *arg)
{
	struct answer answer = { .device = ret, .each = each, .arg = arg };
	const char *at = text;
	struct line line;
	bool is_end = false;
	int r = 0;

	*ret = (struct uapi_device){ 0 };
	while (r == 0 && !is_end && next_line(&at, text + len, &line) && line.len > 0)
		r = take_answer_text(&answer, &line, &is_end);
	return is_end || r != 0 ? r : -EPROTO; /* it ends without saying how it went */
}
