#include "node/acme/acme_key.h"

#include "common/certificate.h"
#include "common/tls.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACME_IDENTIFIER "1.3.6.1.5.5.7.1.31"
#define DAY_S		86400

int acme_key_generate(char **ret_pem, struct error *reterr)
{
	return identity_key_generate(ret_pem, reterr);
}

void acme_key_free_text(char *pem)
{
	certificate_free_secret(pem);
}

int acme_key_parse(const char *pem, EVP_PKEY **ret, struct error *reterr)
{
	return identity_key_parse(pem, ret, reterr);
}

int acme_key_public(const EVP_PKEY *key, struct acme_public_key *ret)
{
	BIGNUM *x = NULL, *y = NULL;
	const bool is_done = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_X, &x) == 1 &&
			     EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_Y, &y) == 1 &&
			     BN_bn2binpad(x, ret->x, sizeof(ret->x)) == (int)sizeof(ret->x) &&
			     BN_bn2binpad(y, ret->y, sizeof(ret->y)) == (int)sizeof(ret->y);

	BN_free(x);
	BN_free(y);
	return is_done ? 0 : -EINVAL;
}

/* JWS wants R and S alone, where OpenSSL gives them in DER. */
static int split_signature(const uint8_t *der, size_t len, uint8_t ret[64])
{
	ECDSA_SIG *signature = d2i_ECDSA_SIG(NULL, &der, (long)len);
	const bool is_done = signature && BN_bn2binpad(ECDSA_SIG_get0_r(signature), ret, 32) == 32 &&
			     BN_bn2binpad(ECDSA_SIG_get0_s(signature), ret + 32, 32) == 32;

	ECDSA_SIG_free(signature);
	return is_done ? 0 : -EINVAL;
}

int acme_key_sign(EVP_PKEY *key, const char *text, uint8_t ret[64])
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	uint8_t der[128];
	size_t len = sizeof(der);
	const bool is_signed = context && EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
			       EVP_DigestSign(context, der, &len, (const uint8_t *)text, strlen(text)) == 1;

	EVP_MD_CTX_free(context);
	return is_signed ? split_signature(der, len, ret) : -EINVAL;
}

/* subjectAltName: the one name. NULL: no memory. */
static X509_EXTENSION *name_extension(const char *host)
{
	char value[ACME_HOST_LEN + 8];

	snprintf(value, sizeof(value), "DNS:%s", host);
	return X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, value);
}

static bool add_names(X509_REQ *request, const char *host)
{
	STACK_OF(X509_EXTENSION) *extensions = sk_X509_EXTENSION_new_null();
	X509_EXTENSION *names = name_extension(host);
	bool is_done = extensions && names && sk_X509_EXTENSION_push(extensions, names) > 0;

	if (!is_done)
		X509_EXTENSION_free(names);
	is_done = is_done && X509_REQ_add_extensions(request, extensions) == 1;
	sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
	return is_done;
}

int acme_key_request(EVP_PKEY *key, const char *host, uint8_t ret[ACME_CSR_LEN], size_t *ret_len)
{
	X509_REQ *request = X509_REQ_new();
	const bool is_made = request && X509_REQ_set_version(request, 0) == 1 && add_names(request, host) &&
			     X509_REQ_set_pubkey(request, key) == 1 && X509_REQ_sign(request, key, EVP_sha256()) > 0;
	const int len = is_made ? i2d_X509_REQ(request, NULL) : 0;
	uint8_t *at = ret;

	if (len > 0 && len <= ACME_CSR_LEN)
		*ret_len = (size_t)i2d_X509_REQ(request, &at);
	X509_REQ_free(request);
	return len > 0 && len <= ACME_CSR_LEN ? 0 : -EINVAL;
}

/* The hash as an OCTET STRING in the extension's own one. */
static X509_EXTENSION *identifier_extension(const char *key_authorization)
{
	uint8_t value[2 + SHA256_DIGEST_LENGTH] = { V_ASN1_OCTET_STRING, SHA256_DIGEST_LENGTH };
	ASN1_OCTET_STRING *string = ASN1_OCTET_STRING_new();
	ASN1_OBJECT *object = OBJ_txt2obj(ACME_IDENTIFIER, 1);
	X509_EXTENSION *extension = NULL;

	SHA256((const uint8_t *)key_authorization, strlen(key_authorization), value + 2);
	if (string && object && ASN1_OCTET_STRING_set(string, value, (int)sizeof(value)) == 1)
		extension = X509_EXTENSION_create_by_OBJ(NULL, object, 1, string);
	ASN1_OCTET_STRING_free(string);
	ASN1_OBJECT_free(object);
	return extension;
}

static bool add_extension(X509 *certificate, X509_EXTENSION *extension_take)
{
	const bool is_done = extension_take && X509_add_ext(certificate, extension_take, -1) == 1;

	X509_EXTENSION_free(extension_take);
	return is_done;
}

static X509 *make_challenge(EVP_PKEY *key, const char *host, const char *key_authorization)
{
	static const uint8_t common_name[] = "ACME challenge";
	X509 *certificate = X509_new();

	if (certificate && X509_set_version(certificate, 2) == 1 &&
	    ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), UINT64_C(1) + randombytes_random()) == 1 &&
	    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) &&
	    X509_gmtime_adj(X509_getm_notAfter(certificate), DAY_S) &&
	    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC, common_name, -1, -1, 0) == 1 &&
	    X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) == 1 &&
	    X509_set_pubkey(certificate, key) == 1 && add_extension(certificate, name_extension(host)) &&
	    add_extension(certificate, identifier_extension(key_authorization)) &&
	    X509_sign(certificate, key, EVP_sha256()) > 0)
		return certificate;
	X509_free(certificate);
	return NULL;
}

/* key_pem and the certificate behind it. NULL: no memory. */
static char *join(const char *key_pem, X509 *certificate)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *bytes, *text = NULL;

	if (bio && PEM_write_bio_X509(bio, certificate) == 1) {
		const long len = BIO_get_mem_data(bio, &bytes);
		if (asprintf(&text, "%s%.*s", key_pem, (int)len, bytes) < 0)
			text = NULL;
	}
	BIO_free(bio);
	return text;
}

int acme_key_challenge(const char *host, const char *key_authorization, char **ret_pem, struct error *reterr)
{
	char *key_pem;
	EVP_PKEY *key = NULL;
	int r = acme_key_generate(&key_pem, reterr);

	if (r != 0)
		return r;
	r = acme_key_parse(key_pem, &key, reterr);
	X509 *certificate = r == 0 ? make_challenge(key, host, key_authorization) : NULL;
	*ret_pem = certificate ? join(key_pem, certificate) : NULL;
	if (r == 0 && !*ret_pem)
		r = error_set(reterr, -ENOMEM, "no certificate can be made for the challenge: %s", tls_take_error().s);
	X509_free(certificate);
	EVP_PKEY_free(key);
	acme_key_free_text(key_pem);
	return r;
}
