/* A certificate that signs itself, for a host: for tests. */
#pragma once

#include <assert.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct made_certificate {
	char *certificate, *key; /* PEM */
};

static inline char *made_text(BIO *bio)
{
	char *data;
	const long n = BIO_get_mem_data(bio, &data);
	char *text = calloc(1, (size_t)n + 1);

	assert(text);
	memcpy(text, data, (size_t)n);
	BIO_free(bio);
	return text;
}

static inline struct made_certificate make_certificate(const char *host, long valid_s)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	char names[300];
	BIO *certificate_bio = BIO_new(BIO_s_mem()), *key_bio = BIO_new(BIO_s_mem());

	snprintf(names, sizeof(names), "DNS:%s", host);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
	assert(key && certificate && extension && X509_set_version(certificate, 2) == 1);
	assert(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) == 1);
	assert(X509_gmtime_adj(X509_getm_notBefore(certificate), 0) && X509_gmtime_adj(X509_getm_notAfter(certificate), valid_s));
	assert(X509_set_pubkey(certificate, key) == 1 && X509_add_ext(certificate, extension, -1) == 1);
	assert(X509_sign(certificate, key, EVP_sha256()) > 0);
	assert(PEM_write_bio_X509(certificate_bio, certificate) == 1);
	assert(PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1);
	X509_EXTENSION_free(extension);
	X509_free(certificate);
	EVP_PKEY_free(key);
	return (struct made_certificate){ .certificate = made_text(certificate_bio), .key = made_text(key_bio) };
}

static inline void free_made_certificate(struct made_certificate *made)
{
	free(made->certificate);
	free(made->key);
}
