#include "node/exposure.h"

#include "common/prefix.h"
#include "common/suggest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHITE	" \t"
#define V4_BITS 96 /* of a mapped address, before those of IPv4 */

/* ---- from text ---- */

static int parse_number(const char *text, size_t len, uint32_t max, uint32_t *ret)
{
	uint32_t number = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		number = number * 10 + (uint32_t)(text[i] - '0');
		if (number > max)
			return -EINVAL;
	}
	*ret = number;
	return len > 0 && number > 0 ? 0 : -EINVAL;
}

static int take_target(const char *text, size_t len, struct exposure *exposure, struct error *reterr)
{
	const struct endpoint any4 = endpoint_from_v4(0, 0);
	const struct endpoint any6 = { 0 };
	char place[80] = { 0 };
	uint32_t port;

	if (parse_number(text, len, UINT16_MAX, &port) == 0) {
		exposure->target = endpoint_from_v4(INADDR_LOOPBACK, (uint16_t)port);
		return 0;
	}
	if (len < sizeof(place)) {
		memcpy(place, text, len);
		if (endpoint_parse(place, &exposure->target) == 0 && exposure->target.port != 0 &&
		    memcmp(exposure->target.ip, any4.ip, sizeof(any4.ip)) != 0 &&
		    memcmp(exposure->target.ip, any6.ip, sizeof(any6.ip)) != 0)
			return 0;
	}
	return error_set(reterr, -EINVAL,
			 "behind the host the port of the server on this machine, such as 8443, or an address with a "
			 "port, such as 192.168.1.7:8443; '%.*s' is neither", (int)(len < 80 ? len : 80), text);
}

static int take_proxy(const char *value, size_t len, struct exposure *exposure, struct error *reterr)
{
	for (int i = 0; i < EXPOSURE_N_PROXY; i++) {
		const char *name = exposure_proxy_name((enum exposure_proxy)i);
		exposure->proxy = (enum exposure_proxy)i;
		if (strlen(name) == len && memcmp(name, value, len) == 0)
			return 0;
	}
	return error_set(reterr, -EINVAL, "proxy: one of none, v1, v2");
}

static int take_tls(const char *value, size_t len, struct exposure *exposure, struct error *reterr)
{
	for (int i = 0; i < EXPOSURE_N_TLS; i++) {
		const char *name = exposure_tls_name((enum exposure_tls)i);
		exposure->tls = (enum exposure_tls)i;
		if (strlen(name) == len && memcmp(name, value, len) == 0)
			return 0;
	}
	return error_set(reterr, -EINVAL, "tls: one of pass, terminate, acme");
}

static int take_h2(const char *value, size_t len, struct exposure *exposure, struct error *reterr)
{
	exposure->has_h2 = len == 3 && memcmp(value, "yes", 3) == 0;
	if (exposure->has_h2 || (len == 2 && memcmp(value, "no", 2) == 0))
		return 0;
	return error_set(reterr, -EINVAL, "h2: yes or no");
}

static int take_quic(const char *value, size_t len, struct exposure *exposure, struct error *reterr)
{
	exposure->is_without_quic = len == 2 && memcmp(value, "no", 2) == 0;
	if (exposure->is_without_quic || (len == 3 && memcmp(value, "yes", 3) == 0))
		return 0;
	return error_set(reterr, -EINVAL, "quic: yes or no");
}

/* Words are separated by white space, so none is in them. */
static int take_path(char ret[EXPOSURE_PATH_LEN + 1], const char *name, const char *value, size_t len, struct error *reterr)
{
	if (len == 0 || len > EXPOSURE_PATH_LEN || value[0] != '/')
		return error_set(reterr, -EINVAL, "%s: a path from the root on, of %d bytes at most, such as /etc/ssl/app.pem",
				 name, EXPOSURE_PATH_LEN);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)value[i] < ' ' || value[i] == 0x7f)
			return error_set(reterr, -EINVAL, "%s: a path without control characters", name);
	memcpy(ret, value, len);
	return 0;
}

static int take_certificate(const char *value, size_t len, struct exposure *exposure, struct error *reterr)
{
	return take_path(exposure->certificate, "certificate", value, len, reterr);
}

static int take_key(const char *value, size_t len, struct exposure *exposure, struct error *reterr)
{
	return take_path(exposure->key, "key", value, len, reterr);
}

static int parse_prefix(const char *text, size_t len, struct exposure_prefix *ret)
{
	char copy[72] = { 0 };
	struct in_addr prefix4;
	struct in6_addr prefix6;
	struct endpoint address;
	uint8_t bits;

	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, len);
	if (prefix4_parse(copy, &prefix4, &bits) == 0) {
		address = endpoint_from_v4(ntohl(prefix4.s_addr), 0);
		*ret = (struct exposure_prefix){ .len = (uint8_t)(V4_BITS + bits) };
		memcpy(ret->ip, address.ip, sizeof(ret->ip));
		return 0;
	}
	if (prefix6_parse(copy, &prefix6, &bits) == 0) {
		*ret = (struct exposure_prefix){ .len = bits };
		memcpy(ret->ip, &prefix6, sizeof(ret->ip));
		return 0;
	}
	if (endpoint_parse_ip(copy, 0, &address) != 0 || address.scope_id != 0)
		return -EINVAL;
	*ret = (struct exposure_prefix){ .len = 128 };
	memcpy(ret->ip, address.ip, sizeof(ret->ip));
	return 0;
}

static int take_allow(const char *value, size_t len, struct exposure *exposure, struct error *reterr)
{
	for (const char *at = value, *end = value + len; at <= end;) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		const size_t item = (size_t)((comma ? comma : end) - at);

		if (exposure->n_allow == EXPOSURE_MAX_ALLOW)
			return error_set(reterr, -EINVAL, "allow: %d prefixes at most", EXPOSURE_MAX_ALLOW);
		if (parse_prefix(at, item, &exposure->allow[exposure->n_allow]) != 0)
			return error_set(reterr, -EINVAL,
					 "allow: addresses and prefixes with a comma between, such as "
					 "192.0.2.7,10.0.0.0/8,2001:db8::/32, with no bits behind the length; '%.*s' "
					 "is none", (int)(item < 72 ? item : 72), at);
		exposure->n_allow++;
		at += item + 1;
	}
	return 0;
}

static int take_rate_into(uint32_t *ret, const char *name, const char *value, size_t len, struct error *reterr)
{
	if (parse_number(value, len, EXPOSURE_MAX_RATE, ret) == 0)
		return 0;
	return error_set(reterr, -EINVAL, "%s: visitors a second, 1 to %d", name, EXPOSURE_MAX_RATE);
}

static int take_rate(const char *value, size_t len, struct exposure *exposure, struct error *reterr)
{
	return take_rate_into(&exposure->rate, "rate", value, len, reterr);
}

static int take_rate_source(const char *value, size_t len, struct exposure *exposure, struct error *reterr)
{
	return take_rate_into(&exposure->rate_source, "rate_source", value, len, reterr);
}

static const struct {
	const char *name;
	int (*take)(const char *value, size_t len, struct exposure *exposure, struct error *reterr);
} keys[] = {
	{ "proxy", take_proxy },
	{ "allow", take_allow },
	{ "rate", take_rate },
	{ "rate_source", take_rate_source },
	{ "tls", take_tls },
	{ "certificate", take_certificate },
	{ "key", take_key },
	{ "h2", take_h2 },
	{ "quic", take_quic },
};

static int unknown_key(const char *word, size_t len, struct error *reterr)
{
	struct suggest suggest = suggest_for(word, len);

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		suggest_offer(&suggest, keys[i].name);
	return error_set(reterr, -EINVAL, "'%.*s': %s%s; proxy=, allow=, rate=, rate_source=, tls=, certificate=, key=, h2= or quic= may follow",
			 (int)(len < 80 ? len : 80), word, suggest.near ? "did you mean " : "not known",
			 suggest.near ? suggest.near : "");
}

/* "key=value"; *seen has a bit a key. */
static int take_word(const char *word, size_t len, struct exposure *exposure, unsigned *seen, struct error *reterr)
{
	const char *equals = memchr(word, '=', len);
	const size_t name_len = equals ? (size_t)(equals - word) : len;

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (!equals || strlen(keys[i].name) != name_len || memcmp(keys[i].name, word, name_len) != 0)
			continue;
		if (*seen & 1U << i)
			return error_set(reterr, -EINVAL, "%s: stands twice", keys[i].name);
		*seen |= 1U << i;
		return keys[i].take(equals + 1, len - name_len - 1, exposure, reterr);
	}
	return unknown_key(word, name_len, reterr);
}

static int take_host(const char *text, size_t len, struct exposure *exposure, struct error *reterr)
{
	struct door_rule rule = { 0 };
	const int r = door_rule_parse_host(text, len, &rule, reterr);

	memcpy(exposure->takes, rule.takes, sizeof(exposure->takes));
	exposure->host = rule.host;
	return r;
}

/* The next word; 0: none. */
static size_t next_word(const char **at)
{
	*at += strspn(*at, WHITE);
	return strcspn(*at, WHITE);
}

/* A host, or a port, which may be two words: how long it is. 0: there is none. */
static size_t first_words(const char **at, struct exposure *exposure, int *ret_error, struct error *reterr)
{
	const size_t len = next_word(at);
	struct port_name port;
	bool is_wrong;
	const size_t port_len = port_name_word(*at, &port, &is_wrong);

	*ret_error = 0;
	if (len == 0)
		return 0;
	if (is_wrong)
		*ret_error = error_set(reterr, -EINVAL, "a port of the front door such as 'tcp :2222' or 'udp :5353'; '%.80s' is none",
				       *at);
	if (port_len == 0) {
		*ret_error = *ret_error != 0 ? *ret_error : take_host(*at, len, exposure, reterr);
		return len;
	}
	exposure->takes[port.kind == PORT_TCP ? DOOR_TCP : DOOR_UDP] = true;
	port_name_to_host(&port, &exposure->host.name);
	return port_len;
}

int exposure_parse_host(const char *text, struct exposure *ret, struct error *reterr)
{
	struct exposure exposure;
	const char *at = text;
	int r;

	memset(&exposure, 0, sizeof(exposure)); /* padding, too */
	const size_t len = first_words(&at, &exposure, &r, reterr);
	if (len > 0 && r != 0)
		return r;
	if (len == 0 || at[len] != '\0')
		return error_set(reterr, -EINVAL, "a host such as https://app.example.org, or a port such as tcp:2222");
	memcpy(ret, &exposure, sizeof(*ret));
	return 0;
}

/* What belongs together. */
static int check_tls(const struct exposure *exposure, struct error *reterr)
{
	const bool has_certificate = exposure->certificate[0] != '\0', has_key = exposure->key[0] != '\0';

	if (exposure->tls == EXPOSURE_TLS_PASS)
		return !has_certificate && !has_key && !exposure->has_h2
			       ? 0
			       : error_set(reterr, -EINVAL, "certificate=, key= and h2= go with tls=terminate, and h2= with tls=acme: else "
								"HTTPS is the server's, as it comes");
	if (!exposure->takes[DOOR_HTTPS])
		return error_set(reterr, -EINVAL, "tls=%s: %s is not HTTPS; https://%s or %s is", exposure_tls_name(exposure->tls),
				 exposure->host.name.text, exposure->host.name.text, exposure->host.name.text);
	if (exposure->tls == EXPOSURE_TLS_ACME && (has_certificate || has_key))
		return error_set(reterr, -EINVAL, "certificate= and key= go with tls=terminate: with tls=acme the node gets them itself");
	if (exposure->tls == EXPOSURE_TLS_ACME && exposure->host.is_wildcard)
		return error_set(reterr, -EINVAL, "tls=acme: a certificate for *.%s is given for a record in DNS alone, which is not "
				 "supported; name each host, or use tls=terminate with one", exposure->host.name.text);
	if (exposure->tls == EXPOSURE_TLS_TERMINATE && !has_certificate && !has_key)
		return error_set(reterr, -EINVAL, "tls=terminate: certificate= and key= are missing; with tls=acme the node gets them "
				 "itself");
	if (has_certificate != has_key)
		return error_set(reterr, -EINVAL, "%s= is missing: a certificate goes with its key",
				 has_key ? "certificate" : "key");
	return 0;
}

/* seen: of the words. */
static int check_quic(const struct exposure *exposure, unsigned seen, struct error *reterr)
{
	bool is_said = false;

	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		is_said = is_said || (seen & 1U << i && keys[i].take == take_quic);
	if (is_said && !exposure->takes[DOOR_HTTPS])
		return error_set(reterr, -EINVAL, "quic: of HTTPS alone, and %s is not", exposure->host.name.text);
	if (!is_said || exposure->is_without_quic || exposure_has_quic(exposure))
		return 0;
	return error_set(reterr, -EINVAL, "quic=yes: HTTP/3 goes to the server as it comes, or not at all: %s",
			 exposure->proxy != EXPOSURE_PROXY_NONE ? "no header can stand in front of it, so not with proxy="
								: "it does not end here, so not with tls=");
}

int exposure_parse(const char *text, struct exposure *ret, struct error *reterr)
{
	struct exposure exposure;
	unsigned seen = 0;
	const char *at = text;
	int r;

	memset(&exposure, 0, sizeof(exposure));
	size_t len = strlen(text) < EXPOSURE_TEXT ? first_words(&at, &exposure, &r, reterr) : 0;
	if (len == 0)
		return error_set(reterr, -EINVAL, "a host and the port behind it, such as 'https://app.example.org 8443'");
	if (r != 0)
		return r;
	at += len;
	len = next_word(&at);
	if (len == 0)
		return error_set(reterr, -EINVAL, "the port behind the host is missing, as in 'https://app.example.org 8443'");
	if ((r = take_target(at, len, &exposure, reterr)) != 0)
		return r;
	for (at += len; (len = next_word(&at)) > 0; at += len)
		if ((r = take_word(at, len, &exposure, &seen, reterr)) != 0)
			return r;
	if ((r = check_tls(&exposure, reterr)) != 0)
		return r;
	if ((r = check_quic(&exposure, seen, reterr)) != 0)
		return r;
	if (exposure.takes[DOOR_UDP] && exposure.proxy == EXPOSURE_PROXY_V1)
		return error_set(reterr, -EINVAL, "proxy: of UDP v2 or none, for v1 knows of TCP alone");
	memcpy(ret, &exposure, sizeof(*ret));
	return 0;
}

bool exposure_is_port(const struct exposure *exposure, struct port_name *ret)
{
	const struct host_name *name = &exposure->host.name;

	return (exposure->takes[DOOR_TCP] || exposure->takes[DOOR_UDP]) && port_name_from(name->text, name->len, ret) == 0;
}

/* ---- to text ---- */

const char *exposure_proxy_name(enum exposure_proxy proxy)
{
	static const char *const names[EXPOSURE_N_PROXY] = { "none", "v1", "v2" };

	return proxy < EXPOSURE_N_PROXY ? names[proxy] : NULL;
}

const char *exposure_tls_name(enum exposure_tls tls)
{
	static const char *const names[EXPOSURE_N_TLS] = { "pass", "terminate", "acme" };

	return tls < EXPOSURE_N_TLS ? names[tls] : NULL;
}

void exposure_print_host(const struct exposure *exposure, char ret[EXPOSURE_HOST_TEXT])
{
	const bool http = exposure->takes[DOOR_HTTP], https = exposure->takes[DOOR_HTTPS];

	if (!http && !https) {
		snprintf(ret, EXPOSURE_HOST_TEXT, "%s", exposure->host.name.text);
		return;
	}
	snprintf(ret, EXPOSURE_HOST_TEXT, "%s%s%s", http && https ? "" : http ? "http://" : "https://",
		 exposure->host.is_wildcard ? "*." : "", exposure->host.name.text);
}

struct endpoint_text exposure_prefix_text(const struct exposure_prefix *prefix)
{
	struct endpoint address = { 0 };

	memcpy(address.ip, prefix->ip, sizeof(address.ip));
	const bool is_v4 = prefix->len >= V4_BITS && endpoint_is_v4(&address);
	struct endpoint_text text = endpoint_ip_text(&address);
	if (prefix->len < 128)
		snprintf(text.s + strlen(text.s), sizeof(text.s) - strlen(text.s), "/%d",
			 prefix->len - (is_v4 ? V4_BITS : 0));
	return text;
}

void exposure_print(const struct exposure *exposure, char ret[EXPOSURE_TEXT])
{
	char host[EXPOSURE_HOST_TEXT];
	int len;

	exposure_print_host(exposure, host);
	len = snprintf(ret, EXPOSURE_TEXT, "%s %s", host, endpoint_text(&exposure->target).s);
	if (exposure->proxy != EXPOSURE_PROXY_NONE)
		len += snprintf(ret + len, EXPOSURE_TEXT - (size_t)len, " proxy=%s", exposure_proxy_name(exposure->proxy));
	for (uint32_t i = 0; i < exposure->n_allow; i++)
		len += snprintf(ret + len, EXPOSURE_TEXT - (size_t)len, "%s%s", i == 0 ? " allow=" : ",",
				exposure_prefix_text(&exposure->allow[i]).s);
	if (exposure->rate != 0)
		len += snprintf(ret + len, EXPOSURE_TEXT - (size_t)len, " rate=%u", exposure->rate);
	if (exposure->rate_source != 0)
		len += snprintf(ret + len, EXPOSURE_TEXT - (size_t)len, " rate_source=%u", exposure->rate_source);
	if (exposure->tls != EXPOSURE_TLS_PASS)
		len += snprintf(ret + len, EXPOSURE_TEXT - (size_t)len, " tls=%s%s", exposure_tls_name(exposure->tls),
				exposure->has_h2 ? " h2=yes" : "");
	if (exposure->is_without_quic)
		len += snprintf(ret + len, EXPOSURE_TEXT - (size_t)len, " quic=no");
	if (exposure->certificate[0] != '\0')
		snprintf(ret + len, EXPOSURE_TEXT - (size_t)len, " certificate=%s key=%s", exposure->certificate, exposure->key);
}

/* ---- asking ---- */

bool exposure_has_quic(const struct exposure *exposure)
{
	return exposure->takes[DOOR_HTTPS] && exposure->tls == EXPOSURE_TLS_PASS && exposure->proxy == EXPOSURE_PROXY_NONE &&
	       !exposure->is_without_quic;
}

bool exposure_is_for(const struct exposure *exposure, enum door_scheme scheme, const struct host_name *host)
{
	return exposure->takes[scheme] && host_pattern_matches(&exposure->host, host);
}

bool exposure_overlaps(const struct exposure *a, const struct exposure *b)
{
	bool meets = false;

	for (int i = 0; i < DOOR_N_SCHEMES; i++)
		meets = meets || (a->takes[i] && b->takes[i]);
	return meets && a->host.is_wildcard == b->host.is_wildcard && host_name_equal(&a->host.name, &b->host.name);
}

static bool is_in(const struct exposure_prefix *prefix, const struct endpoint *address)
{
	const size_t whole = prefix->len / 8;
	const unsigned rest = prefix->len % 8;

	if (memcmp(prefix->ip, address->ip, whole) != 0)
		return false;
	return rest == 0 || ((prefix->ip[whole] ^ address->ip[whole]) >> (8 - rest)) == 0;
}

bool exposure_allows(const struct exposure *exposure, const struct endpoint *visitor)
{
	bool may = exposure->n_allow == 0;

	for (uint32_t i = 0; i < exposure->n_allow && !may; i++)
		may = is_in(&exposure->allow[i], visitor);
	return may;
}
