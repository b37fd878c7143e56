#include "node/expose/tls_site.h"

#include "common/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ACME_ALPN      "\x0a" "acme-tls/1"
#define ACME_ALPN_LEN  11
#define ACME_PATH      "/.well-known/acme-challenge/"
#define MAX_CHAIN      16
#define N_TICKETS      1

/* The site of a connection, for its hello: it hangs on the SSL, as the host does. */
static int site_index = -1, host_index = -1;
static pthread_once_t indices_once = PTHREAD_ONCE_INIT;

static void make_indices(void)
{
	site_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	host_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

void tls_site_init(struct tls_site *site)
{
	(void)pthread_once(&indices_once, make_indices);
	*site = (struct tls_site){ .context = NULL };
	pthread_mutex_init(&site->lock, NULL);
}

void tls_site_deinit(struct tls_site *site)
{
	SSL_CTX_free(site->context);
	SSL_CTX_free(site->challenge);
	pthread_mutex_destroy(&site->lock);
}

/* ---- the hello ---- */

/* "acme-tls/1", and no other: RFC 8737, section 3. */
static bool asks_for_challenge(SSL *ssl)
{
	const unsigned char *alpn;
	size_t len;

	/* A list with a length of two bytes before it. */
	return SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &alpn, &len) == 1 &&
	       len == 2 + ACME_ALPN_LEN && alpn[0] == 0 && alpn[1] == ACME_ALPN_LEN &&
	       memcmp(alpn + 2, ACME_ALPN, ACME_ALPN_LEN) == 0;
}

/* The challenge as it is now; the caller frees it. */
static SSL_CTX *hold_challenge(struct tls_site *site)
{
	pthread_mutex_lock(&site->lock);
	SSL_CTX *challenge = site->challenge;
	if (challenge)
		SSL_CTX_up_ref(challenge);
	pthread_mutex_unlock(&site->lock);
	return challenge;
}

static bool is_challenge(const SSL_CTX *context)
{
	return SSL_CTX_get_app_data(context) != NULL;
}

static int on_hello(SSL *ssl, int *alert, void *arg)
{
	(void)arg;
	if (!asks_for_challenge(ssl)) {
		*alert = SSL_AD_UNRECOGNIZED_NAME;
		return is_challenge(SSL_get_SSL_CTX(ssl)) ? SSL_CLIENT_HELLO_ERROR : SSL_CLIENT_HELLO_SUCCESS;
	}
	SSL_CTX *challenge = hold_challenge(SSL_get_ex_data(ssl, site_index));
	if (!challenge) {
		*alert = SSL_AD_NO_APPLICATION_PROTOCOL;
		return SSL_CLIENT_HELLO_ERROR;
	}
	(void)SSL_set_SSL_CTX(ssl, challenge);
	SSL_CTX_free(challenge);
	return SSL_CLIENT_HELLO_SUCCESS;
}

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	const struct host_name *host = SSL_get_ex_data(ssl, host_index);
	struct host_name asked;

	(void)arg;
	if (name && host && host_name_from(name, strlen(name), &asked) == 0 && host_name_equal(&asked, host))
		return SSL_TLSEXT_ERR_OK;
	*alert = SSL_AD_UNRECOGNIZED_NAME;
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* The first of ours that the visitor speaks. arg: ours. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in, unsigned int in_len,
		   void *arg)
{
	const char *ours = arg;
	unsigned char *chosen = NULL;

	(void)ssl;
	if (SSL_select_next_proto(&chosen, out_len, (const unsigned char *)ours, (unsigned)strlen(ours), in, in_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_ALERT_FATAL;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

/* ---- contexts ---- */

static int fail(struct error *reterr, int code, const char *what)
{
	const struct tls_error_text text = tls_take_error();

	return error_set(reterr, code, "%s%s%s", what, *text.s ? ": " : "", text.s);
}

/* A key file with a passphrase is not asked for one at the terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf, (void)size, (void)rwflag, (void)arg;
	return -1;
}

static X509 *read_certificate(BIO *bio)
{
	return PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
}

static int64_t seconds_of(const ASN1_TIME *time)
{
	struct tm tm = { 0 };

	return time && ASN1_TIME_to_tm(time, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

/* Of a wildcard a certificate must be good for any name: it is asked for one that nobody has. */
static bool is_for(X509 *certificate, const struct host_pattern *host)
{
	char name[HOST_NAME_MAX_LEN + 8];

	snprintf(name, sizeof(name), "%s%s", host->is_wildcard ? "any-w." : "", host->name.text);
	return X509_check_host(certificate, name, 0, 0, NULL) == 1;
}

static int check_certificate(X509 *certificate, const struct host_pattern *host, struct tls_site_dates *ret,
			     struct error *reterr)
{
	ret->not_before = seconds_of(X509_get0_notBefore(certificate));
	ret->not_after = seconds_of(X509_get0_notAfter(certificate));
	if (ret->not_after <= ret->not_before)
		return error_set(reterr, -EINVAL, "the certificate's dates cannot be read");
	if (!is_for(certificate, host))
		return error_set(reterr, -EINVAL, "the certificate is not for %s%s", host->is_wildcard ? "*." : "",
				 host->name.text);
	return 0;
}

int tls_site_check_certificate(const struct host_pattern *host, const char *certificate_pem, struct tls_site_dates *ret,
			       struct error *reterr)
{
	BIO *bio = BIO_new_mem_buf(certificate_pem, -1);
	X509 *certificate = bio ? read_certificate(bio) : NULL;
	const int r = certificate ? check_certificate(certificate, host, ret, reterr)
				  : fail(reterr, -EINVAL, "no certificate in PEM");

	X509_free(certificate);
	BIO_free(bio);
	ERR_clear_error();
	return r;
}

static int use_certificates(SSL_CTX *context, const struct host_pattern *host, const char *pem,
			    struct tls_site_dates *ret_dates, struct error *reterr)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *certificate = bio ? read_certificate(bio) : NULL;
	int r = certificate ? check_certificate(certificate, host, ret_dates, reterr)
			    : fail(reterr, -EINVAL, "no certificate in PEM");

	if (r == 0 && SSL_CTX_use_certificate(context, certificate) != 1)
		r = fail(reterr, -EINVAL, "the certificate cannot be used");
	X509_free(certificate);
	for (int i = 0; r == 0 && i < MAX_CHAIN && (certificate = read_certificate(bio)); i++)
		if (SSL_CTX_add0_chain_cert(context, certificate) != 1) {
			X509_free(certificate);
			r = fail(reterr, -EINVAL, "a certificate of the chain cannot be used");
		}
	BIO_free(bio);
	ERR_clear_error(); /* that no more came */
	return r;
}

static int use_key(SSL_CTX *context, const char *pem, struct error *reterr)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
	int r = key ? 0 : fail(reterr, -EINVAL, "no private key in PEM without a passphrase");

	if (r == 0 && (SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_check_private_key(context) != 1))
		r = fail(reterr, -EINVAL, "the key is not the certificate's");
	EVP_PKEY_free(key);
	BIO_free(bio);
	return r;
}

static void set_up(SSL_CTX *context, const struct host_pattern *host, bool has_h2)
{
	uint8_t id[SHA256_DIGEST_LENGTH];

	SHA256((const uint8_t *)host, sizeof(*host), id);
	SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
					     SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					  SSL_MODE_RELEASE_BUFFERS);
	(void)SSL_CTX_set_session_id_context(context, id, sizeof(id));
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_num_tickets(context, N_TICKETS);
	SSL_CTX_set_client_hello_cb(context, on_hello, NULL);
	SSL_CTX_set_tlsext_servername_callback(context, on_server_name);
	SSL_CTX_set_alpn_select_cb(context, on_alpn, has_h2 ? "\x02h2\x08http/1.1" : "\x08http/1.1");
}

static SSL_CTX *new_context(const struct host_pattern *host, bool has_h2)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());

	if (!context || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
		SSL_CTX_free(context);
		return NULL;
	}
	set_up(context, host, has_h2);
	return context;
}

int tls_site_context_new(const struct host_pattern *host, const char *certificate_pem, const char *key_pem, bool has_h2,
			 SSL_CTX **ret, struct tls_site_dates *ret_dates, struct error *reterr)
{
	SSL_CTX *context = new_context(host, has_h2);
	int r = context ? 0 : fail(reterr, -ENOMEM, "no TLS");

	if (r == 0)
		r = use_certificates(context, host, certificate_pem, ret_dates, reterr);
	if (r == 0)
		r = use_key(context, key_pem, reterr);
	if (r != 0) {
		SSL_CTX_free(context);
		return r;
	}
	*ret = context;
	return 0;
}

/* ---- what is shown ---- */

static void replace(struct tls_site *site, SSL_CTX **place, SSL_CTX *context)
{
	pthread_mutex_lock(&site->lock);
	SSL_CTX *before = *place;
	*place = context;
	pthread_mutex_unlock(&site->lock);
	SSL_CTX_free(before);
}

void tls_site_set_context_take(struct tls_site *site, SSL_CTX *context)
{
	replace(site, &site->context, context);
}

void tls_site_set_challenge_take(struct tls_site *site, SSL_CTX *challenge)
{
	if (challenge) {
		SSL_CTX_set_alpn_select_cb(challenge, on_alpn, ACME_ALPN);
		SSL_CTX_set_app_data(challenge, ACME_ALPN); /* it is one: is_challenge() */
	}
	replace(site, &site->challenge, challenge);
}

void tls_site_set_answer(struct tls_site *site, const char *token, const char *answer)
{
	pthread_mutex_lock(&site->lock);
	snprintf(site->token, sizeof(site->token), "%s", token && answer ? token : "");
	snprintf(site->answer, sizeof(site->answer), "%s", token && answer ? answer : "");
	pthread_mutex_unlock(&site->lock);
}

bool tls_site_has_challenge(struct tls_site *site)
{
	pthread_mutex_lock(&site->lock);
	const bool has = site->token[0] != '\0' || site->challenge;
	pthread_mutex_unlock(&site->lock);
	return has;
}

bool tls_site_has_answer(struct tls_site *site)
{
	pthread_mutex_lock(&site->lock);
	const bool has = site->token[0] != '\0';
	pthread_mutex_unlock(&site->lock);
	return has;
}

bool tls_site_answers(struct tls_site *site, const char *path, size_t len, char ret[TLS_SITE_ANSWER_LEN + 1])
{
	const size_t prefix = strlen(ACME_PATH);

	pthread_mutex_lock(&site->lock);
	const bool is_asked = site->token[0] != '\0' && len == prefix + strlen(site->token) &&
			      memcmp(path, ACME_PATH, prefix) == 0 && memcmp(path + prefix, site->token, len - prefix) == 0;
	if (is_asked)
		memcpy(ret, site->answer, sizeof(site->answer));
	pthread_mutex_unlock(&site->lock);
	return is_asked;
}

/* What a hello is read with: the certificate's, or, before there is one, the challenge's. */
static SSL_CTX *hold_shown(struct tls_site *site)
{
	pthread_mutex_lock(&site->lock);
	SSL_CTX *shown = site->context ? site->context : site->challenge;
	if (shown)
		SSL_CTX_up_ref(shown);
	pthread_mutex_unlock(&site->lock);
	return shown;
}

SSL *tls_site_accept(struct tls_site *site, const struct host_name *host)
{
	SSL_CTX *context = hold_shown(site);
	SSL *ssl = context ? SSL_new(context) : NULL;

	SSL_CTX_free(context); /* the connection has it */
	if (!ssl)
		return NULL;
	if (SSL_set_ex_data(ssl, site_index, site) != 1 || SSL_set_ex_data(ssl, host_index, (void *)host) != 1) {
		SSL_free(ssl);
		return NULL;
	}
	SSL_set_accept_state(ssl);
	return ssl;
}

bool tls_site_was_challenge(const SSL *ssl)
{
	const unsigned char *alpn;
	unsigned len;

	SSL_get0_alpn_selected(ssl, &alpn, &len);
	return len == ACME_ALPN_LEN - 1 && memcmp(alpn, &ACME_ALPN[1], len) == 0;
}
