#include "relay/diglett/node_badge.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string.h>

#define LABEL	   "diglett/2 node badge" /* with its NUL */
#define SIGNED_LEN (sizeof(LABEL) + sizeof(struct node_badge_binding))

static void write_signed(const struct node_badge_binding *binding, uint8_t ret[SIGNED_LEN])
{
	memcpy(ret, LABEL, sizeof(LABEL));
	memcpy(ret + sizeof(LABEL), binding->hash, sizeof(binding->hash));
	memcpy(ret + sizeof(LABEL) + sizeof(binding->hash), binding->agent, sizeof(binding->agent));
}

static bool sign(EVP_PKEY *key, const struct node_badge_binding *binding, struct node_badge *ret)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t text[SIGNED_LEN];
	size_t n = sizeof(ret->signature);

	write_signed(binding, text);
	const bool done = context && EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
			  EVP_DigestSign(context, ret->signature, &n, text, sizeof(text)) == 1;
	ret->n_signature = done ? (uint8_t)n : 0;
	EVP_MD_CTX_free(context);
	return done;
}

static bool is_signed(EVP_PKEY *key, const struct node_badge_binding *binding, const struct node_badge *badge)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t text[SIGNED_LEN];

	write_signed(binding, text);
	const bool right = context && EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
			   EVP_DigestVerify(context, badge->signature, badge->n_signature, text, sizeof(text)) == 1;
	EVP_MD_CTX_free(context);
	return right;
}

static int fill(X509 *certificate, EVP_PKEY *key, const struct node_badge_binding *binding, struct node_badge *ret,
		struct error *reterr)
{
	uint8_t *at = ret->certificate;
	const int n = i2d_X509(certificate, NULL);

	if (n <= 0 || n > NODE_BADGE_MAX_CERTIFICATE || i2d_X509(certificate, &at) != n)
		return error_set(reterr, -EINVAL, "the node's certificate is longer than %d bytes", NODE_BADGE_MAX_CERTIFICATE);
	ret->n_certificate = (uint16_t)n;
	if (X509_check_private_key(certificate, key) != 1 || EVP_PKEY_get_size(key) > NODE_BADGE_MAX_SIGNATURE ||
	    !sign(key, binding, ret))
		return error_set(reterr, -EINVAL, "the node's key is not its certificate's");
	return 0;
}

int node_badge_make(const char *key_pem, const char *certificate_pem, const struct node_badge_binding *binding,
		    struct node_badge *ret, struct error *reterr)
{
	struct node_badge badge = { 0 };
	X509 *certificate = NULL;
	EVP_PKEY *key = NULL;

	int r = identity_key_parse(key_pem, &key, reterr);
	if (r == 0)
		r = certificate_parse(certificate_pem, &certificate, reterr);
	if (r == 0)
		r = fill(certificate, key, binding, &badge, reterr);
	if (r == 0)
		*ret = badge;
	X509_free(certificate);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return r;
}

static int check(X509 *certificate, X509 *ca, const struct node_badge *badge, const struct node_badge_binding *binding,
		 const char *network, int64_t now_s, struct identity *ret, struct error *reterr)
{
	int r = certificate_check(certificate, ca, CERTIFICATE_FOR_CLIENT, now_s, reterr);

	if (r != 0)
		return r;
	if (certificate_identity(certificate, ret) != 0 || ret->is_control || strcmp(ret->network, network) != 0)
		return error_set(reterr, -EACCES, "the certificate is no node's of this network");
	EVP_PKEY *key = X509_get0_pubkey(certificate);
	if (!key || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || !is_signed(key, binding, badge))
		return error_set(reterr, -EACCES, "the certificate's key has not signed this connection");
	return 0;
}

int node_badge_check(const struct node_badge *badge, const struct node_badge_binding *binding, const char *ca_pem,
		     const char *network, int64_t now_s, struct identity *ret, struct error *reterr)
{
	const unsigned char *at = badge->certificate;
	X509 *certificate = d2i_X509(NULL, &at, badge->n_certificate), *ca = NULL;
	struct identity identity;
	int r = 0;

	if (!certificate || at != badge->certificate + badge->n_certificate)
		r = error_set(reterr, -EACCES, "the certificate is none");
	else if (certificate_parse(ca_pem, &ca, reterr) != 0)
		r = -EACCES;
	else
		r = check(certificate, ca, badge, binding, network, now_s, &identity, reterr);
	if (r == 0)
		*ret = identity;
	X509_free(certificate);
	X509_free(ca);
	ERR_clear_error();
	return r;
}
