/*
 * Contexts for TLS 1.3. One verify callback decides for all of them, by the trust that is kept
 * beside the context: OpenSSL's own chain building is not asked, because our chains are one
 * certificate long.
 */
#include "common/tls.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_ALPN 32
#define TICKET_S 3600

/* Hangs on its SSL_CTX as ex_data and is freed with it. */
struct trust {
	enum tls_trust kind;
	bool is_server;
	struct pin pin;
	bool resumes;
	SSL_SESSION *session; /* a client's, the last ticket's; NULL: none yet */
	X509 *ca; /* NULL for a pin */
	uint8_t alpn[MAX_ALPN + 1];
	unsigned alpn_len;
};

static void free_trust(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl,
		       void *argp)
{
	struct trust *trust = ptr;

	if (!trust)
		return;
	X509_free(trust->ca);
	SSL_SESSION_free(trust->session);
	free(trust);
}

static int trust_index(void)
{
	static int index = -1; /* the library's registry is process-wide, so this is too */

	if (index < 0)
		index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_trust);
	return index;
}

static int fail(struct error *reterr, int code, const char *what)
{
	struct tls_error_text text = tls_take_error();

	return error_set(reterr, code, "%s%s%s", what, *text.s ? ": " : "", text.s);
}

struct tls_error_text tls_take_error(void)
{
	struct tls_error_text text = { "" };
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;

	if (code)
		snprintf(text.s, sizeof(text.s), "%s", reason ? reason : "TLS error");
	ERR_clear_error();
	return text;
}

static bool is_trusted(const struct trust *trust, X509 *certificate)
{
	struct pin pin;

	if (trust->kind == TLS_TRUST_PIN)
		return certificate_pin(certificate, &pin) == 0 && pin_equal(&pin, &trust->pin);
	return certificate_check(certificate, trust->ca,
				 trust->is_server ? CERTIFICATE_FOR_CLIENT : CERTIFICATE_FOR_SERVER,
				 (int64_t)time(NULL), NULL) == 0;
}

/* OpenSSL calls this in place of its own verification. */
static int verify(X509_STORE_CTX *store, void *arg)
{
	const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	const struct trust *trust = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), trust_index());
	X509 *certificate = X509_STORE_CTX_get0_cert(store);
	bool trusted = trust && certificate && is_trusted(trust, certificate);

	X509_STORE_CTX_set_error(store, trusted ? X509_V_OK : X509_V_ERR_CERT_UNTRUSTED);
	return trusted;
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
		       const unsigned char *in, unsigned int in_len, void *arg)
{
	const struct trust *trust = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), trust_index());
	unsigned char *chosen = NULL;

	if (SSL_select_next_proto(&chosen, out_len, trust->alpn, trust->alpn_len, in, in_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static int set_alpn(SSL_CTX *context, struct trust *trust, const struct tls_options *options,
		    struct error *reterr)
{
	size_t n = options->alpn ? strlen(options->alpn) : 0;

	if (n == 0)
		return 0;
	if (n > MAX_ALPN)
		return error_set(reterr, -EINVAL, "ALPN name too long");
	trust->alpn[0] = (uint8_t)n;
	memcpy(trust->alpn + 1, options->alpn, n);
	trust->alpn_len = (unsigned)n + 1;
	if (options->is_server)
		SSL_CTX_set_alpn_select_cb(context, select_alpn, NULL);
	else if (SSL_CTX_set_alpn_protos(context, trust->alpn, trust->alpn_len) != 0)
		return fail(reterr, -ENOMEM, "cannot set ALPN");
	return 0;
}

/* Hands trust to the context at once, so that one free frees both. */
static int attach_trust(SSL_CTX *context, const struct tls_options *options, struct trust **ret,
			struct error *reterr)
{
	struct trust *trust = calloc(1, sizeof(*trust));

	if (!trust)
		abort();
	trust->kind = options->trust;
	trust->is_server = options->is_server;
	trust->pin = options->pin;
	trust->resumes = options->resumes;
	struct trust *old = SSL_CTX_get_ex_data(context, trust_index());
	free_trust(NULL, old, NULL, 0, 0, NULL);
	if (SSL_CTX_set_ex_data(context, trust_index(), trust) != 1) {
		free(trust);
		return fail(reterr, -ENOMEM, "cannot set up TLS");
	}
	*ret = trust;
	if (options->trust == TLS_TRUST_PIN || options->trust == TLS_TRUST_NOBODY)
		return 0;
	if (!options->ca_pem)
		return error_set(reterr, -EINVAL, "TLS without a CA");
	int r = certificate_parse(options->ca_pem, &trust->ca, reterr);
	if (r != 0)
		error_prefix(reterr, "CA");
	return r;
}

/* resuming */

static int on_ticket(SSL *ssl, SSL_SESSION *session_take)
{
	struct trust *trust = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), trust_index());

	SSL_SESSION_free(trust->session);
	trust->session = session_take;
	return 1;
}

/* The server keeps nothing: what a ticket stands for is in it, under keys of the context's alone. */
static int set_resuming(SSL_CTX *context, const struct tls_options *options, struct error *reterr)
{
	static const unsigned char who[] = "p2pnode";

	assert(options->trust == TLS_TRUST_NOBODY || options->trust == TLS_TRUST_PIN);
	SSL_CTX_clear_options(context, SSL_OP_NO_TICKET);
	if (options->is_server) {
		SSL_CTX_set_timeout(context, TICKET_S);
		return SSL_CTX_set_session_id_context(context, who, sizeof(who)) == 1 ? 0 : fail(reterr, -ENOMEM, "cannot set up TLS");
	}
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(context, on_ticket);
	return 0;
}

void tls_give_ticket(SSL *ssl)
{
	const struct trust *trust = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), trust_index());

	if (!trust || !trust->resumes || SSL_session_reused(ssl))
		return;
	if (SSL_new_session_ticket(ssl) != 1 || SSL_do_handshake(ssl) != 1)
		ERR_clear_error(); /* then the next handshake is a whole one, too */
}

/* A copy: by its first use a session of TLS 1.3 is made one that cannot be resumed. */
void tls_take_ticket(SSL *ssl)
{
	const struct trust *trust = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), trust_index());

	if (!trust || !trust->session)
		return;
	SSL_SESSION *session = SSL_SESSION_dup(trust->session);
	if (!session || SSL_set_session(ssl, session) != 1)
		ERR_clear_error();
	SSL_SESSION_free(session);
}

/* contexts */

static int configure(SSL_CTX *context, const struct tls_options *options, struct trust **ret,
		     struct error *reterr)
{
	int mode = options->trust == TLS_TRUST_NOBODY ? SSL_VERIFY_NONE : SSL_VERIFY_PEER;

	assert(options->is_server ? options->trust != TLS_TRUST_PIN
				  : options->trust == TLS_TRUST_PIN || options->trust == TLS_TRUST_CA);
	int r = attach_trust(context, options, ret, reterr);
	if (r != 0)
		return r;
	if (options->is_server && options->trust == TLS_TRUST_CA)
		mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
	SSL_CTX_set_verify(context, mode, NULL);
	SSL_CTX_set_cert_verify_callback(context, verify, NULL);
	SSL_CTX_set_options(context,
			    SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
					  SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_RELEASE_BUFFERS);
	/* The first that both sides know is taken: the cheapest, where a processor has AES. */
	if (SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
					      "TLS_CHACHA20_POLY1305_SHA256") != 1)
		return fail(reterr, -EINVAL, "the ciphers of TLS 1.3 are not available");
	if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1)
		return fail(reterr, -EINVAL, "TLS 1.3 is not available");
	if (options->resumes && (r = set_resuming(context, options, reterr)) != 0)
		return r;
	if (options->certificate_pem)
		return tls_context_set_certificate(context, options->certificate_pem,
						   options->key_pem, reterr);
	return 0;
}

int tls_context_configure(SSL_CTX *context, const struct tls_options *options, struct error *reterr)
{
	struct trust *trust;

	return configure(context, options, &trust, reterr);
}

int tls_context_new(const struct tls_options *options, SSL_CTX **ret, struct error *reterr)
{
	SSL_CTX *context =
		SSL_CTX_new(options->is_server ? TLS_server_method() : TLS_client_method());
	struct trust *trust = NULL;

	if (!context)
		return fail(reterr, -ENOMEM, "cannot set up TLS");
	int r = configure(context, options, &trust, reterr);
	if (r == 0)
		r = set_alpn(context, trust, options, reterr);
	if (r != 0) {
		SSL_CTX_free(context);
		return r;
	}
	*ret = context;
	return 0;
}

int tls_context_set_certificate(SSL_CTX *context, const char *certificate_pem, const char *key_pem,
				struct error *reterr)
{
	X509 *certificate = NULL;
	EVP_PKEY *key = NULL;
	int r = certificate_parse(certificate_pem, &certificate, reterr);

	if (r == 0)
		r = identity_key_parse(key_pem, &key, reterr);
	if (r == 0 &&
	    (SSL_CTX_use_certificate(context, certificate) != 1 ||
	     SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1))
		r = fail(reterr, -EINVAL, "certificate and key do not fit");
	X509_free(certificate);
	EVP_PKEY_free(key);
	return r;
}

int tls_peer_identity(const SSL *ssl, struct identity *ret)
{
	X509 *certificate = SSL_get0_peer_certificate(ssl);

	if (!certificate)
		return -ENOENT;
	return certificate_identity(certificate, ret);
}
