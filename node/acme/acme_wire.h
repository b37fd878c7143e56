/*
 * The words of ACME (RFC 8555): what an ACME server says in JSON, what it is told in JWS (RFC 7515), and the forms of its challenges.
 *
 *   directory ─► newNonce, newAccount, newOrder, terms        protected . payload . signature, each base64url, as JSON
 *   order     ─► state, authorization, finalize, certificate       │         │
 *   authorization ─► state, challenge: token, URL                  │         └── "", {}, contact, identifier, CSR
 *   problem   ─► what is wrong                                     └── alg, nonce, url, jwk or kid
 *
 * Total and bounded: whatever a server says is an outcome. Its texts are shown to people with what is not printable left out.
 * Pure, but for the key's signature (acme_key.h).
 */
#pragma once

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACME_URL_LEN	   511
#define ACME_HOST_LEN	   253
#define ACME_NONCE_LEN	   255
#define ACME_TOKEN_LEN	   128
#define ACME_THUMBPRINT	   43 /* SHA-256 in base64url */
#define ACME_ANSWER_LEN (ACME_TOKEN_LEN + 1 + ACME_THUMBPRINT)
#define ACME_CONTACT_LEN   254
#define ACME_TEXT_LEN	   255
#define ACME_MAX_ANSWER	   (64 << 10)
#define ACME_CSR_LEN	   4096 /* DER */

enum acme_challenge { ACME_HTTP_01, ACME_TLS_ALPN_01, ACME_N_CHALLENGES };

/* "http-01", "tls-alpn-01"; NULL: there is no such. */
const char *acme_challenge_name(enum acme_challenge challenge);

/* An https URL, taken apart. */
struct acme_url {
	char host[ACME_HOST_LEN + 1]; /* a name, or an address without brackets */
	bool is_address;
	uint16_t port;
	char authority[ACME_HOST_LEN + 10]; /* for Host: */
	char path[ACME_URL_LEN + 1];	    /* with the query; begins with '/' */
};

/* "https://HOST[:PORT][/PATH]", printable, without user and fragment. 0 or -EINVAL. */
P2P_CHECK int acme_url_parse(const char *text, struct acme_url *ret);

struct acme_directory {
	char new_nonce[ACME_URL_LEN + 1], new_account[ACME_URL_LEN + 1], new_order[ACME_URL_LEN + 1];
	char terms[ACME_URL_LEN + 1]; /* "": it has none */
	bool wants_external_account;
};

enum acme_status { ACME_PENDING, ACME_PROCESSING, ACME_READY, ACME_VALID, ACME_INVALID, ACME_OVER };

struct acme_problem {
	char type[64]; /* "badNonce": what is behind urn:ietf:params:acme:error:; "": none */
	char detail[ACME_TEXT_LEN + 1];
};

struct acme_order {
	enum acme_status status;
	char authorization[ACME_URL_LEN + 1], finalize[ACME_URL_LEN + 1];
	char certificate[ACME_URL_LEN + 1]; /* "": not yet */
	struct acme_problem problem;
};

struct acme_authorization {
	enum acme_status status;
	char challenge[ACME_URL_LEN + 1], token[ACME_TOKEN_LEN + 1]; /* of the kind that was asked for; "": it is not offered */
	struct acme_problem problem;				      /* of that challenge */
};

/* Bodies of answers. 0, or -EINVAL with what is wrong. *ret only on success. */
P2P_CHECK int acme_directory_parse(const char *body, size_t len, struct acme_directory *ret, struct error *reterr);
P2P_CHECK int acme_order_parse(const char *body, size_t len, struct acme_order *ret, struct error *reterr);
P2P_CHECK int acme_authorization_parse(const char *body, size_t len, enum acme_challenge challenge,
				       struct acme_authorization *ret, struct error *reterr);
/* Of whatever is no such document nothing is known. */
struct acme_problem acme_problem_parse(const char *body, size_t len);
/* Letters, digits, '-' and '_', and not none. */
bool acme_is_base64url(const char *text, size_t len);
/* Retry-After: seconds from now, of a number or an HTTP date; 0: none, or in the past. A week at most. */
uint32_t acme_retry_after(const char *value, size_t len, int64_t now_s);

/* Texts to be signed; the caller frees them. */
char *acme_account_payload(const char *contact); /* "": none. The terms are agreed to */
char *acme_order_payload(const char *host);
char *acme_finalize_payload(const uint8_t *csr, size_t len);

/* x and y of a P-256 key. */
struct acme_public_key {
	uint8_t x[32], y[32];
};
/* RFC 7638, in base64url. */
void acme_thumbprint(const struct acme_public_key *key, char ret[ACME_THUMBPRINT + 1]);
/* token.thumbprint: what a challenge is answered with. */
void acme_key_authorization(const char *token, const char *thumbprint, char ret[ACME_ANSWER_LEN + 1]);
/*
 * "protected.payload", of which a signature is made. account: the account's URL; "": there is none yet, and the key says who it
 * is. payload "": a POST that is a GET. The caller frees it.
 */
char *acme_signing_input(const struct acme_public_key *key, const char *account, const char *nonce, const char *url,
			 const char *payload);
/* With the signature, R and S of 32 bytes, the JSON to be sent; the caller frees it. */
char *acme_signed(const char *signing_input, const uint8_t signature[64]);
