/*
 * What visitors of one host are shown when TLS ends here: a certificate, and for the time of an ACME order its challenge.
 *
 *   hello ──► only acme-tls/1? ──yes──► the challenge's certificate ──► handshake, and no more (RFC 8737)
 *                 │no
 *                 ▼
 *             server name = the host that the front door said? ──no──► alert: unrecognized_name
 *                 │yes
 *                 ▼
 *             certificate, http/1.1 (h2 if its server speaks it) ──► visitors' bytes
 *
 * TLS 1.2 and 1.3. Each site has keys of its own for tickets, new ones with each certificate: a session of one host is no
 * other's. No early data, no renegotiation, no compression.
 *
 * tls_site_set…(): the loop. All else: any thread.
 */
#pragma once

#include "common/error.h"
#include "relay/frontdoor/host_name.h"

#include <openssl/types.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_SITE_MAX_PEM    (64 << 10)
#define TLS_SITE_TOKEN_LEN  128 /* of http-01 */
#define TLS_SITE_ANSWER_LEN 256

struct tls_site {
	pthread_mutex_t lock;
	SSL_CTX *context;   /* NULL: it has no certificate yet */
	SSL_CTX *challenge; /* NULL: there is no order */
	char token[TLS_SITE_TOKEN_LEN + 1], answer[TLS_SITE_ANSWER_LEN + 1]; /* of http-01; "": none */
};

/* What a certificate says of itself. */
struct tls_site_dates {
	int64_t not_before, not_after; /* seconds since 1970 */
};

void tls_site_init(struct tls_site *site);
void tls_site_deinit(struct tls_site *site);

/*
 * A context with this certificate (and those that signed it, behind) and key. The key must be the certificate's, and the
 * certificate for host, or for a name below it if that is a wildcard. *ret: freed with SSL_CTX_free(). 0 or -EINVAL with what
 * is wrong, -ENOMEM.
 */
P2P_CHECK int tls_site_context_new(const struct host_pattern *host, const char *certificate_pem, const char *key_pem,
				   bool has_h2, SSL_CTX **ret, struct tls_site_dates *ret_dates, struct error *reterr);
/* The certificate alone: is it one for host, and from when until when? The same. */
P2P_CHECK int tls_site_check_certificate(const struct host_pattern *host, const char *certificate_pem,
					 struct tls_site_dates *ret, struct error *reterr);

/* For who comes from now on. Taken over; NULL: none. */
void tls_site_set_context_take(struct tls_site *site, SSL_CTX *context);
void tls_site_set_challenge_take(struct tls_site *site, SSL_CTX *challenge);
/* Of http-01: who asks for this token gets this answer. NULL: none. */
void tls_site_set_answer(struct tls_site *site, const char *token, const char *answer);

/* A server's connection for a visitor of host, borrowed for its life. NULL: there is nothing to show. */
SSL *tls_site_accept(struct tls_site *site, const struct host_name *host);
/* Once its handshake is done: is that all that it came for? */
bool tls_site_was_challenge(const SSL *ssl);
/* The answer to who asks for this path by HTTP. False: it is the server's to answer. */
bool tls_site_answers(struct tls_site *site, const char *path, size_t len, char ret[TLS_SITE_ANSWER_LEN + 1]);
/* Is there a challenge of whatever kind? */
bool tls_site_has_challenge(struct tls_site *site);
/* Is an answer to http-01 there? */
bool tls_site_has_answer(struct tls_site *site);
