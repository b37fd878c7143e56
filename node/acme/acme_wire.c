#include "node/acme/acme_wire.h"

#include "common/endpoint.h"
#include "common/json.h"
#include "common/macros.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROBLEM_PREFIX "urn:ietf:params:acme:error:"
#define MAX_RETRY_S    (7u * 24 * 3600)
#define HTTPS	       "https://"
#define VARIANT	       sodium_base64_VARIANT_URLSAFE_NO_PADDING

const char *acme_challenge_name(enum acme_challenge challenge)
{
	static const char *const names[ACME_N_CHALLENGES] = { "http-01", "tls-alpn-01" };

	return challenge < ACME_N_CHALLENGES ? names[challenge] : NULL;
}

/* ---- URLs ---- */

static bool is_printable(const char *text)
{
	for (; *text; text++)
		if (*text <= ' ' || *text > '~' || *text == '"' || *text == '\\')
			return false;
	return true;
}

static bool is_host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

static int take_port(const char *text, size_t len, uint16_t *ret)
{
	unsigned port = 0;

	*ret = 443;
	if (len == 0)
		return 0;
	if (text[0] != ':' || len < 2 || len > 6)
		return -EINVAL;
	for (size_t i = 1; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		port = port * 10 + (unsigned)(text[i] - '0');
	}
	*ret = (uint16_t)port;
	return port > 0 && port <= UINT16_MAX ? 0 : -EINVAL;
}

/* Name, address, or address in brackets; returns how long it is with these, 0: it is none. */
static size_t take_host(const char *text, size_t len, struct acme_url *ret)
{
	const bool has_brackets = len > 0 && text[0] == '[';
	const char *end = has_brackets ? memchr(text, ']', len) : NULL;
	struct endpoint address;
	size_t n = 0;

	if (has_brackets)
		n = end ? (size_t)(end - text) - 1 : 0;
	else
		while (n < len && is_host_char(text[n]))
			n++;
	if (n == 0 || n > ACME_HOST_LEN)
		return 0;
	memcpy(ret->host, text + has_brackets, n);
	ret->host[n] = '\0';
	ret->is_address = endpoint_parse_ip(ret->host, 0, &address) == 0 && address.scope_id == 0;
	if (has_brackets && (!ret->is_address || endpoint_is_v4(&address)))
		return 0;
	return n + (has_brackets ? 2 : 0);
}

int acme_url_parse(const char *text, struct acme_url *ret)
{
	struct acme_url url = { .port = 0 };

	if (strlen(text) > ACME_URL_LEN || strncmp(text, HTTPS, strlen(HTTPS)) != 0 || !is_printable(text) || strchr(text, '#'))
		return -EINVAL;
	text += strlen(HTTPS);
	const size_t len = strcspn(text, "/?"), host_len = take_host(text, len, &url);
	if (host_len == 0 || len >= sizeof(url.authority) || take_port(text + host_len, len - host_len, &url.port) != 0)
		return -EINVAL;
	memcpy(url.authority, text, len);
	if (snprintf(url.path, sizeof(url.path), "%s%s", text[len] == '/' ? "" : "/", text + len) >= (int)sizeof(url.path))
		return -EINVAL;
	*ret = url;
	return 0;
}

/* ---- what a server says ---- */

static void copy_printable(char *ret, size_t size, const char *text)
{
	size_t n = 0;

	for (; *text && n + 1 < size; text++)
		if (*text >= ' ' && *text <= '~')
			ret[n++] = *text;
	ret[n] = '\0';
}

static int parse_object(const char *body, size_t len, struct json **ret, struct error *reterr)
{
	const struct json_limits limits = { .max_len = ACME_MAX_ANSWER, .max_depth = 16, .max_members = 256 };
	struct json *json;
	const int r = json_parse(body, len, &limits, &json, reterr);

	if (r != 0)
		return error_set(reterr, -EINVAL, "its answer is no JSON that is understood");
	if (!json_is_object(json)) {
		json_free(json);
		return error_set(reterr, -EINVAL, "its answer is no JSON object");
	}
	*ret = json;
	return 0;
}

static int take_url(const char *text, char ret[ACME_URL_LEN + 1])
{
	struct acme_url url;

	if (acme_url_parse(text, &url) != 0)
		return -EINVAL;
	strcpy(ret, text); /* acme_url_parse() has seen how long it is */
	return 0;
}

static int get_url(const struct json *object, const char *key, char ret[ACME_URL_LEN + 1], struct error *reterr)
{
	const char *text;

	if (json_get_string(object, key, &text, NULL) != 0 || take_url(text, ret) != 0)
		return error_set(reterr, -EINVAL, "its answer has no https URL as '%s'", key);
	return 0;
}

static void take_meta(const struct json *meta, struct acme_directory *ret)
{
	const char *terms;

	if (!meta || !json_is_object(meta))
		return;
	if (json_get_string(meta, "termsOfService", &terms, NULL) == 0)
		copy_printable(ret->terms, sizeof(ret->terms), terms);
	if (json_get_boolean_or(meta, "externalAccountRequired", false, &ret->wants_external_account, NULL) != 0)
		ret->wants_external_account = false;
}

int acme_directory_parse(const char *body, size_t len, struct acme_directory *ret, struct error *reterr)
{
	struct acme_directory directory = { .terms = "" };
	struct json *json P2P_CLEANUP(json_freep) = NULL;
	int r = parse_object(body, len, &json, reterr);

	if (r != 0 || (r = get_url(json, "newNonce", directory.new_nonce, reterr)) != 0 ||
	    (r = get_url(json, "newAccount", directory.new_account, reterr)) != 0 ||
	    (r = get_url(json, "newOrder", directory.new_order, reterr)) != 0)
		return r;
	take_meta(json_member(json, "meta"), &directory);
	*ret = directory;
	return 0;
}

static int get_status(const struct json *object, enum acme_status *ret, struct error *reterr)
{
	static const struct {
		const char *name;
		enum acme_status status;
	} names[] = {
		{ "pending", ACME_PENDING }, { "processing", ACME_PROCESSING }, { "ready", ACME_READY },
		{ "valid", ACME_VALID },     { "invalid", ACME_INVALID },	 { "deactivated", ACME_OVER },
		{ "expired", ACME_OVER },    { "revoked", ACME_OVER },
	};
	const char *text;

	if (json_get_string(object, "status", &text, reterr) != 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(names[i].name, text) == 0) {
			*ret = names[i].status;
			return 0;
		}
	return error_set(reterr, -EINVAL, "its answer has a 'status' that is not known");
}

static struct acme_problem take_problem(const struct json *json)
{
	struct acme_problem problem = { .type = "" };
	const char *text;

	if (!json || !json_is_object(json))
		return problem;
	if (json_get_string(json, "type", &text, NULL) == 0) {
		const size_t prefix = strlen(PROBLEM_PREFIX);
		copy_printable(problem.type, sizeof(problem.type), strncmp(text, PROBLEM_PREFIX, prefix) == 0 ? text + prefix : text);
	}
	if (json_get_string(json, "detail", &text, NULL) == 0)
		copy_printable(problem.detail, sizeof(problem.detail), text);
	return problem;
}

struct acme_problem acme_problem_parse(const char *body, size_t len)
{
	struct acme_problem problem = { .type = "" };
	struct json *json = NULL;

	if (parse_object(body, len, &json, NULL) != 0)
		return problem;
	problem = take_problem(json);
	json_free(json);
	return problem;
}

/* An order of one host has one. */
static int get_authorization(const struct json *json, char ret[ACME_URL_LEN + 1], struct error *reterr)
{
	const struct json *list;

	if (json_get_array(json, "authorizations", &list, NULL) != 0 || json_length(list) != 1 ||
	    !json_is_string(json_first(list)) || take_url(json_text(json_first(list)), ret) != 0)
		return error_set(reterr, -EINVAL, "its order has not one authorization, with an https URL");
	return 0;
}

int acme_order_parse(const char *body, size_t len, struct acme_order *ret, struct error *reterr)
{
	struct acme_order order = { .certificate = "" };
	struct json *json P2P_CLEANUP(json_freep) = NULL;
	int r = parse_object(body, len, &json, reterr);

	if (r != 0 || (r = get_status(json, &order.status, reterr)) != 0 ||
	    (r = get_authorization(json, order.authorization, reterr)) != 0 ||
	    (r = get_url(json, "finalize", order.finalize, reterr)) != 0)
		return r;
	if (order.status == ACME_VALID && (r = get_url(json, "certificate", order.certificate, reterr)) != 0)
		return r;
	order.problem = take_problem(json_member(json, "error"));
	*ret = order;
	return 0;
}

static bool is_of_type(const struct json *item, const char *type)
{
	const char *text;

	return json_is_object(item) && json_get_string(item, "type", &text, NULL) == 0 && strcmp(text, type) == 0;
}

static int take_challenge(const struct json *item, struct acme_authorization *ret, struct error *reterr)
{
	const char *token;

	if (get_url(item, "url", ret->challenge, reterr) != 0)
		return -EINVAL;
	if (json_get_string(item, "token", &token, reterr) != 0)
		return -EINVAL;
	if (strlen(token) > ACME_TOKEN_LEN || !acme_is_base64url(token, strlen(token)))
		return error_set(reterr, -EINVAL, "the token of its challenge is none");
	strcpy(ret->token, token);
	ret->problem = take_problem(json_member(item, "error"));
	return 0;
}

int acme_authorization_parse(const char *body, size_t len, enum acme_challenge challenge, struct acme_authorization *ret,
			     struct error *reterr)
{
	struct acme_authorization authorization = { .challenge = "" };
	struct json *json P2P_CLEANUP(json_freep) = NULL;
	const struct json *list;
	int r = parse_object(body, len, &json, reterr);

	if (r != 0 || (r = get_status(json, &authorization.status, reterr)) != 0 ||
	    (r = json_get_array(json, "challenges", &list, reterr)) != 0)
		return r;
	for (const struct json *i = json_first(list); i && authorization.token[0] == '\0'; i = json_next(i))
		if (is_of_type(i, acme_challenge_name(challenge)) && (r = take_challenge(i, &authorization, reterr)) != 0)
			return r;
	*ret = authorization;
	return 0;
}

bool acme_is_base64url(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		const char c = text[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_'))
			return false;
	}
	return len > 0;
}

static uint32_t seconds_of_date(const char *text, int64_t now_s)
{
	struct tm tm = { 0 };
	const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
	const int64_t wait = end && *end == '\0' ? (int64_t)timegm(&tm) - now_s : 0;

	return wait <= 0 ? 0 : wait > MAX_RETRY_S ? MAX_RETRY_S : (uint32_t)wait;
}

uint32_t acme_retry_after(const char *value, size_t len, int64_t now_s)
{
	char text[40] = "";
	uint32_t seconds = 0;

	if (len == 0 || len >= sizeof(text))
		return 0;
	memcpy(text, value, len);
	if (text[0] < '0' || text[0] > '9')
		return seconds_of_date(text, now_s);
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return 0;
		seconds = seconds >= MAX_RETRY_S ? MAX_RETRY_S : seconds * 10 + (uint32_t)(text[i] - '0');
	}
	return seconds > MAX_RETRY_S ? MAX_RETRY_S : seconds;
}

/* ---- what it is told ---- */

static char *print_and_free(struct json *json)
{
	char *text = json_print(json);

	json_free(json);
	return text;
}

static char *to_base64url(const void *bytes, size_t len)
{
	const size_t size = sodium_base64_encoded_len(len, VARIANT);
	char *text = malloc(size);

	if (!text)
		abort();
	return sodium_bin2base64(text, size, bytes, len, VARIANT);
}

char *acme_account_payload(const char *contact)
{
	struct json *json = json_object();

	json_put_boolean(json, "termsOfServiceAgreed", true);
	if (contact[0] != '\0') {
		struct json *list = json_array();
		char text[ACME_CONTACT_LEN + 8];
		snprintf(text, sizeof(text), "mailto:%s", contact);
		json_append_string(list, text);
		json_put(json, "contact", list);
	}
	return print_and_free(json);
}

char *acme_order_payload(const char *host)
{
	struct json *json = json_object(), *list = json_array(), *identifier = json_object();

	json_put_string(identifier, "type", "dns");
	json_put_string(identifier, "value", host);
	json_append(list, identifier);
	json_put(json, "identifiers", list);
	return print_and_free(json);
}

char *acme_finalize_payload(const uint8_t *csr, size_t len)
{
	struct json *json = json_object();
	char *text = to_base64url(csr, len);

	json_put_string(json, "csr", text);
	free(text);
	return print_and_free(json);
}

/* In the order of RFC 7638, for its thumbprint is of these bytes. */
static void print_jwk(const struct acme_public_key *key, char ret[192])
{
	char *x = to_base64url(key->x, sizeof(key->x)), *y = to_base64url(key->y, sizeof(key->y));

	snprintf(ret, 192, "{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"%s\",\"y\":\"%s\"}", x, y);
	free(x);
	free(y);
}

void acme_thumbprint(const struct acme_public_key *key, char ret[ACME_THUMBPRINT + 1])
{
	uint8_t hash[crypto_hash_sha256_BYTES];
	char jwk[192];

	print_jwk(key, jwk);
	crypto_hash_sha256(hash, (const uint8_t *)jwk, strlen(jwk));
	sodium_bin2base64(ret, ACME_THUMBPRINT + 1, hash, sizeof(hash), VARIANT);
}

void acme_key_authorization(const char *token, const char *thumbprint, char ret[ACME_ANSWER_LEN + 1])
{
	snprintf(ret, ACME_ANSWER_LEN + 1, "%s.%s", token, thumbprint);
}

static struct json *jwk_json(const struct acme_public_key *key)
{
	struct json *json = json_object();
	char *x = to_base64url(key->x, sizeof(key->x)), *y = to_base64url(key->y, sizeof(key->y));

	json_put_string(json, "crv", "P-256");
	json_put_string(json, "kty", "EC");
	json_put_string(json, "x", x);
	json_put_string(json, "y", y);
	free(x);
	free(y);
	return json;
}

static char *print_protected(const struct acme_public_key *key, const char *account, const char *nonce, const char *url)
{
	struct json *json = json_object();

	json_put_string(json, "alg", "ES256");
	if (account[0] != '\0')
		json_put_string(json, "kid", account);
	else
		json_put(json, "jwk", jwk_json(key));
	json_put_string(json, "nonce", nonce);
	json_put_string(json, "url", url);
	return print_and_free(json);
}

char *acme_signing_input(const struct acme_public_key *key, const char *account, const char *nonce, const char *url,
			 const char *payload)
{
	char *protected_ = print_protected(key, account, nonce, url), *input;
	char *first = to_base64url(protected_, strlen(protected_)), *second = to_base64url(payload, strlen(payload));

	if (asprintf(&input, "%s.%s", first, second) < 0)
		abort();
	free(protected_);
	free(first);
	free(second);
	return input;
}

char *acme_signed(const char *signing_input, const uint8_t signature[64])
{
	const char *dot = strchr(signing_input, '.');
	char *third = to_base64url(signature, 64), *text;

	if (!dot || asprintf(&text, "{\"protected\":\"%.*s\",\"payload\":\"%s\",\"signature\":\"%s\"}", (int)(dot - signing_input),
			     signing_input, dot + 1, third) < 0)
		abort();
	free(third);
	return text;
}
