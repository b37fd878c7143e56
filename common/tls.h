/*
 * TLS 1.3 contexts for everything that speaks TLS here, and who the other side is.
 *
 * Trust is either the network's CA or the pin of one key; never the system's list of CAs. Renegotiation
 * is off, and so are tickets, but where both sides are told to resume. The caller checks after the handshake that tls_peer_identity() is whom
 * it wanted: a CA-signed certificate only says "a member of the network".
 *
 * Resuming: after a whole handshake the server gives one ticket, and the client takes it for all its connections until
 * the server refuses it (after an hour; or it has another context), by which the handshake is a whole one again. Each has a key exchange of its own
 * (psk_dhe_ke): who learns a ticket's key later reads nothing. That two connections are of one client is seen, as by its address. No early data.
 */
#pragma once

#include "common/certificate.h"
#include "common/error.h"

#include <openssl/types.h>
#include <stdbool.h>

enum tls_trust {
	TLS_TRUST_OPTIONAL, /* server: a client may have no certificate; if it has one, the CA
			       signed it */
	TLS_TRUST_NOBODY,   /* server: no certificate is asked for; something else says who it is */
	TLS_TRUST_CA,       /* the other side must have a certificate signed by the CA */
	TLS_TRUST_PIN, /* client: the server's key must have the pin; dates and names do not matter
			*/
};

struct tls_options {
	bool is_server;
	enum tls_trust trust;
	const char *ca_pem;          /* for OPTIONAL and CA */
	struct pin pin;              /* for PIN */
	const char *certificate_pem; /* ours; NULL for a client that has none yet */
	const char *key_pem;
	const char
		*alpn; /* one protocol, refused when the other side does not offer it; NULL: none */
	bool resumes; /* with NOBODY and PIN alone: whose certificate counts would not be looked at again */
};

/* *ret is freed with SSL_CTX_free(). Borrowed texts are copied. 0, -EINVAL, -ENOMEM. */
P2P_CHECK int tls_context_new(const struct tls_options *options, SSL_CTX **ret,
			      struct error *reterr);
/* The same for a context somebody else made (libwebsockets); leaves ALPN alone. */
P2P_CHECK int tls_context_configure(SSL_CTX *context, const struct tls_options *options,
				    struct error *reterr);
/* A renewed certificate, for connections from now on. */
P2P_CHECK int tls_context_set_certificate(SSL_CTX *context, const char *certificate_pem,
					  const char *key_pem, struct error *reterr);
/*
 * The verified identity of the other side. 0; -ENOENT when it showed no certificate; -EINVAL: not
 * ours.
 */
P2P_CHECK int tls_peer_identity(const SSL *ssl, struct identity *ret);
/* A server's part of resuming, once the handshake is over; it goes out with the next of its bytes. Nothing where nothing is resumed. */
void tls_give_ticket(SSL *ssl);
/* A client's, before the handshake. */
void tls_take_ticket(SSL *ssl);
/* Empties OpenSSL's error queue of this thread into one short line; "" when it is empty. */
struct tls_error_text {
	char s[160];
} tls_take_error(void);
