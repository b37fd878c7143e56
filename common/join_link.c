#include "common/join_link.h"

#include "common/endpoint.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define SECRET_BYTES  24
#define SECRET_PREFIX 3 /* "jk_", "at_" */

static_assert(JOIN_LINK_SECRET_LEN == SECRET_PREFIX + SECRET_BYTES / 3 * 4,
	      "24 bytes are 32 characters");

static const struct form {
	const char *scheme, *prefix;
} forms[] = {
	[JOIN_LINK_NODE] = { "p2p://", "jk_" },
	[JOIN_LINK_ADMIN] = { "p2p-admin://", "at_" },
};

bool pin_equal(const struct pin *a, const struct pin *b)
{
	return sodium_memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

struct pin_text pin_text(const struct pin *pin)
{
	struct pin_text text;

	sodium_bin2base64(text.s, sizeof(text.s), pin->bytes, sizeof(pin->bytes),
			  sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return text;
}

/* Exactly n bytes, in exactly their one canonical text. */
static bool decode(const char *text, size_t len, uint8_t *ret, size_t n)
{
	size_t got = 0;

	return sodium_base642bin(ret, n, text, len, NULL, &got, NULL,
				 sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 &&
	       got == n;
}

int pin_parse(const char *text, struct pin *ret)
{
	struct pin pin;

	if (strlen(text) != PIN_TEXT_LEN ||
	    !decode(text, PIN_TEXT_LEN, pin.bytes, sizeof(pin.bytes)))
		return -EINVAL;
	*ret = pin;
	return 0;
}

bool join_link_secret_is_valid(enum join_link_kind kind, const char *secret)
{
	uint8_t bytes[SECRET_BYTES];

	if (strlen(secret) != JOIN_LINK_SECRET_LEN ||
	    strncmp(secret, forms[kind].prefix, SECRET_PREFIX) != 0)
		return false;
	bool valid = decode(secret + SECRET_PREFIX, JOIN_LINK_SECRET_LEN - SECRET_PREFIX, bytes,
			    sizeof(bytes));
	sodium_memzero(bytes, sizeof(bytes));
	return valid;
}

void join_link_make_secret(enum join_link_kind kind, char ret[JOIN_LINK_SECRET_LEN + 1])
{
	uint8_t bytes[SECRET_BYTES];

	randombytes_buf(bytes, sizeof(bytes));
	memcpy(ret, forms[kind].prefix, SECRET_PREFIX);
	sodium_bin2base64(ret + SECRET_PREFIX, JOIN_LINK_SECRET_LEN + 1 - SECRET_PREFIX, bytes,
			  sizeof(bytes), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	sodium_memzero(bytes, sizeof(bytes));
}

/* A name that DNS could know or an IPv4 address, or (bracketed) an IPv6 address. */
static bool host_is_valid(const char *host, bool bracketed)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";
	struct in6_addr address;

	if (bracketed)
		return inet_pton(AF_INET6, host, &address) == 1;
	return *host != '\0' && *host != '-' && *host != '.' &&
	       strspn(host, allowed) == strlen(host);
}

static bool parse_port(const char *text, uint16_t *ret)
{
	unsigned value = 0;

	if (*text == '\0' || *text == '0' || strlen(text) > 5 ||
	    strspn(text, "0123456789") != strlen(text))
		return false;
	for (; *text; text++)
		value = value * 10 + (unsigned)(*text - '0');
	*ret = (uint16_t)value;
	return value <= UINT16_MAX;
}

int host_port_parse(const char *text, uint16_t fallback_port, char ret_host[JOIN_LINK_MAX_HOST + 1],
		    uint16_t *ret_port)
{
	bool bracketed = *text == '[';
	const char *host = text + bracketed;
	const char *host_end = bracketed ? strchr(host, ']') : host + strcspn(host, ":");
	char copy[JOIN_LINK_MAX_HOST + 1];
	uint16_t port = fallback_port;

	if (!host_end || (size_t)(host_end - host) >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, host, (size_t)(host_end - host));
	copy[host_end - host] = '\0';
	const char *rest = host_end + bracketed;
	if (!host_is_valid(copy, bracketed) || (*rest != '\0' && *rest != ':'))
		return -EINVAL;
	if (*rest == ':' ? !parse_port(rest + 1, &port) : port == 0)
		return -EINVAL;
	memcpy(ret_host, copy, strlen(copy) + 1);
	*ret_port = port;
	return 0;
}

static int fail(struct error *reterr, const char *what)
{
	return error_set(reterr, -EINVAL,
			 "%s; a link looks like p2p://HOST:PORT/#PIN.KEY and must be copied whole",
			 what);
}

static int parse_scheme(const char **text, enum join_link_kind *ret)
{
	for (int kind = JOIN_LINK_NODE; kind <= JOIN_LINK_ADMIN; kind++) {
		size_t n = strlen(forms[kind].scheme);
		if (strncmp(*text, forms[kind].scheme, n) != 0)
			continue;
		*text += n;
		*ret = (enum join_link_kind)kind;
		return 0;
	}
	return -EINVAL;
}

/* What stands behind the scheme: "HOST:PORT/#PIN.SECRET", in a buffer that may be cut up. */
static int parse_rest(char *rest, struct join_link *link, struct error *reterr)
{
	char *fragment = strstr(rest, "/#");
	char *dot = fragment ? strchr(fragment, '.') : NULL;

	if (!fragment || !dot)
		return fail(reterr, "the link is not complete");
	*fragment = '\0';
	*dot = '\0';
	if (host_port_parse(rest, 0, link->host, &link->port) != 0)
		return fail(reterr, "the link's HOST:PORT is not valid");
	if (pin_parse(fragment + 2, &link->pin) != 0)
		return fail(reterr, "the link's pin is not valid");
	if (!join_link_secret_is_valid(link->kind, dot + 1))
		return fail(reterr, "the link's key is not valid");
	memcpy(link->secret, dot + 1, sizeof(link->secret));
	return 0;
}

int join_link_parse(const char *text, struct join_link *ret, struct error *reterr)
{
	static const char space[] = " \t\r\n";
	struct join_link link = { 0 };
	char rest[JOIN_LINK_MAX_LEN + 1];

	text += strspn(text, space);
	size_t len = strcspn(text, space);
	if (text[len + strspn(text + len, space)] != '\0')
		return fail(reterr, "something follows behind the link");
	if (parse_scheme(&text, &link.kind) != 0)
		return fail(reterr, "not a link");
	len = strcspn(text, space);
	if (len >= sizeof(rest))
		return fail(reterr, "the link is too long");
	memcpy(rest, text, len);
	rest[len] = '\0';
	int r = parse_rest(rest, &link, reterr);
	if (r == 0)
		*ret = link;
	sodium_memzero(rest, sizeof(rest));
	join_link_wipe(&link);
	return r;
}

struct join_link_text join_link_text(const struct join_link *link)
{
	bool bracketed = strchr(link->host, ':') != NULL;
	struct join_link_text text;

	snprintf(text.s, sizeof(text.s), "%s%s%s%s:%u/#%s.%s", forms[link->kind].scheme,
		 bracketed ? "[" : "", link->host, bracketed ? "]" : "", link->port,
		 pin_text(&link->pin).s, link->secret);
	return text;
}

void join_link_wipe(struct join_link *link)
{
	sodium_memzero(link, sizeof(*link));
}
