/*
 * X.509 with OpenSSL 3, and the only place that builds or reads certificates.
 *
 * OpenSSL's errors are translated here: what a user can act on gets a sentence, the rest a code,
 * and the library's error queue is always left empty.
 */
#include "common/certificate.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_PEM       16384
#define SPIFFE_PREFIX "spiffe://"

static void free_key(EVP_PKEY **key)
{
	EVP_PKEY_free(*key);
}

static void free_x509(X509 **certificate)
{
	X509_free(*certificate);
}

static void free_request(X509_REQ **request)
{
	X509_REQ_free(*request);
}

static void free_bio(BIO **bio)
{
	BIO_free(*bio);
}

static int fail(struct error *reterr, int code, const char *what)
{
	ERR_clear_error();
	return error_set(reterr, code, "%s", what);
}

/* The bytes of a memory BIO as a text on the heap. */
static char *bio_text(BIO *bio)
{
	char *data = NULL;
	long len = BIO_get_mem_data(bio, &data);
	char *text = len >= 0 ? malloc((size_t)len + 1) : NULL;

	if (!text)
		abort();
	memcpy(text, data, (size_t)len);
	text[len] = '\0';
	return text;
}

static BIO *bio_of(const char *pem)
{
	size_t len = strlen(pem);

	return len <= MAX_PEM ? BIO_new_mem_buf(pem, (int)len) : NULL;
}

/* Never asks a terminal for a passphrase. */
static int no_passphrase(char *buf, int size, int rwflag, void *userdata)
{
	return -1;
}

/* Keys */

static bool is_p256(const EVP_PKEY *key)
{
	char group[32] = "";
	size_t len = 0;

	return key && EVP_PKEY_is_a(key, "EC") &&
	       EVP_PKEY_get_group_name(key, group, sizeof(group), &len) == 1 &&
	       strcmp(group, "prime256v1") == 0;
}

int identity_key_generate(char **ret_pem, struct error *reterr)
{
	P2P_CLEANUP(free_key) EVP_PKEY *key = EVP_EC_gen("P-256");
	/* Secure-memory BIO: wiped when it is freed. */
	P2P_CLEANUP(free_bio) BIO *bio = BIO_new(BIO_s_secmem());

	if (!key || !bio || PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
		return fail(reterr, -ENOMEM, "cannot make a key");
	*ret_pem = bio_text(bio);
	return 0;
}

void certificate_free_secret(char *pem)
{
	if (pem)
		sodium_memzero(pem, strlen(pem));
	free(pem);
}

int identity_key_parse(const char *pem, EVP_PKEY **ret, struct error *reterr)
{
	P2P_CLEANUP(free_bio) BIO *bio = bio_of(pem);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;

	if (!is_p256(key)) {
		EVP_PKEY_free(key);
		return fail(reterr, -EINVAL, "not a P-256 private key in PEM form");
	}
	*ret = key;
	return 0;
}

static int pin_of_public_der(unsigned char *der_take, int len, struct pin *ret)
{
	unsigned int n = 0;
	int ok = len > 0 &&
		 EVP_Digest(der_take, (size_t)len, ret->bytes, &n, EVP_sha256(), NULL) == 1;

	OPENSSL_free(der_take);
	return ok && n == sizeof(ret->bytes) ? 0 : -EINVAL;
}

int identity_key_pin(const char *key_pem, struct pin *ret, struct error *reterr)
{
	P2P_CLEANUP(free_key) EVP_PKEY *key = NULL;
	unsigned char *der = NULL;
	int r = identity_key_parse(key_pem, &key, reterr);

	if (r != 0)
		return r;
	int len = i2d_PUBKEY(key, &der);
	return pin_of_public_der(der, len, ret) == 0 ? 0
						     : fail(reterr, -EINVAL, "not a usable key");
}

int certificate_pin(X509 *certificate, struct pin *ret)
{
	unsigned char *der = NULL;
	int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);

	return pin_of_public_der(der, len, ret);
}

int certificate_request(const char *key_pem, char **ret_pem, struct error *reterr)
{
	P2P_CLEANUP(free_key) EVP_PKEY *key = NULL;
	P2P_CLEANUP(free_request) X509_REQ *request = X509_REQ_new();
	P2P_CLEANUP(free_bio) BIO *bio = BIO_new(BIO_s_mem());
	int r = identity_key_parse(key_pem, &key, reterr);

	if (r != 0)
		return r;
	if (!request || !bio || X509_REQ_set_version(request, X509_REQ_VERSION_1) != 1 ||
	    X509_REQ_set_pubkey(request, key) != 1 ||
	    X509_REQ_sign(request, key, EVP_sha256()) <= 0 ||
	    PEM_write_bio_X509_REQ(bio, request) != 1)
		return fail(reterr, -ENOMEM, "cannot make a certificate request");
	*ret_pem = bio_text(bio);
	return 0;
}

/* Building certificates */

/* What is to stand in a certificate. Texts that are NULL are left out. */
struct form {
	EVP_PKEY *public_key;
	const char *common_name, *serial_attribute;
	const char *alternative_names; /* in OpenSSL's configuration syntax; only of what we made
					  ourselves */
	const char *basic_constraints, *key_usage, *extended_key_usage;
	int64_t not_before_s, not_after_s;
};

static bool set_serial(X509 *certificate)
{
	uint8_t bytes[16];

	randombytes_buf(bytes, sizeof(bytes));
	bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40); /* positive, always 16 bytes */
	BIGNUM *number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	bool ok = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
	BN_free(number);
	return ok;
}

static bool add_name(X509_NAME *name, const char *field, const char *value)
{
	return !value || X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
						    (const unsigned char *)value, -1, -1, 0) == 1;
}

static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;

	if (!value)
		return true;
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	bool ok = extension && X509_add_ext(certificate, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return ok;
}

static bool add_extensions(X509 *certificate, X509 *issuer, const struct form *form)
{
	return add_extension(certificate, issuer, NID_basic_constraints, form->basic_constraints) &&
	       add_extension(certificate, issuer, NID_key_usage, form->key_usage) &&
	       add_extension(certificate, issuer, NID_ext_key_usage, form->extended_key_usage) &&
	       add_extension(certificate, issuer, NID_subject_alt_name, form->alternative_names) &&
	       add_extension(certificate, issuer, NID_subject_key_identifier, "hash") &&
	       add_extension(certificate, issuer, NID_authority_key_identifier, "keyid");
}

/* issuer NULL: self-signed. NULL on failure. */
static X509 *build(const struct form *form, X509 *issuer, EVP_PKEY *issuer_key)
{
	X509 *certificate = X509_new();
	X509_NAME *name = certificate ? X509_get_subject_name(certificate) : NULL;

	if (certificate && X509_set_version(certificate, X509_VERSION_3) == 1 &&
	    set_serial(certificate) && add_name(name, "CN", form->common_name) &&
	    add_name(name, "serialNumber", form->serial_attribute) &&
	    X509_set_issuer_name(certificate, issuer ? X509_get_subject_name(issuer) : name) == 1 &&
	    ASN1_TIME_adj(X509_getm_notBefore(certificate), form->not_before_s, 0, 0) &&
	    ASN1_TIME_adj(X509_getm_notAfter(certificate), form->not_after_s, 0, 0) &&
	    X509_set_pubkey(certificate, form->public_key) == 1 &&
	    add_extensions(certificate, issuer ? issuer : certificate, form) &&
	    X509_sign(certificate, issuer_key, EVP_sha256()) > 0)
		return certificate;
	X509_free(certificate);
	return NULL;
}

static int build_pem(const struct form *form, X509 *issuer, EVP_PKEY *issuer_key, char **ret_pem,
		     struct error *reterr)
{
	P2P_CLEANUP(free_x509) X509 *certificate = build(form, issuer, issuer_key);
	P2P_CLEANUP(free_bio) BIO *bio = BIO_new(BIO_s_mem());

	if (!certificate || !bio || PEM_write_bio_X509(bio, certificate) != 1)
		return fail(reterr, -EINVAL, "cannot make a certificate");
	*ret_pem = bio_text(bio);
	return 0;
}

int certificate_authority_generate(const char *network, int64_t now_s, char **ret_key_pem,
				   char **ret_certificate_pem, struct error *reterr)
{
	P2P_CLEANUP(free_key) EVP_PKEY *key = NULL;
	char *key_pem = NULL, uri[128];
	int r = identity_key_generate(&key_pem, reterr);

	if (r == 0)
		r = identity_key_parse(key_pem, &key, reterr);
	snprintf(uri, sizeof(uri), "URI:" SPIFFE_PREFIX "%s", network);
	const struct form form = {
		.public_key = key,
		.common_name = network,
		.alternative_names = uri,
		.basic_constraints = "critical,CA:TRUE,pathlen:0",
		.key_usage = "critical,keyCertSign,cRLSign",
		.not_before_s = now_s - CERTIFICATE_BACKDATE_S,
		.not_after_s = now_s + CERTIFICATE_AUTHORITY_LIFE_S,
	};
	if (r == 0)
		r = build_pem(&form, NULL, key, ret_certificate_pem, reterr);
	if (r != 0) {
		certificate_free_secret(key_pem);
		return r;
	}
	*ret_key_pem = key_pem;
	return 0;
}

/* "spiffe://<network><rest>" of a URI name; the rest, or NULL. */
static const char *split_spiffe(const char *uri, char ret_network[CERTIFICATE_NAME_LEN + 1])
{
	if (strncmp(uri, SPIFFE_PREFIX, strlen(SPIFFE_PREFIX)) != 0)
		return NULL;
	uri += strlen(SPIFFE_PREFIX);
	size_t n = strcspn(uri, "/");
	if (n < 1 || n > CERTIFICATE_NAME_LEN)
		return NULL;
	memcpy(ret_network, uri, n);
	ret_network[n] = '\0';
	return uri + n;
}

/* The one URI among the alternative names. */
static bool uri_of(X509 *certificate, char *ret, size_t size)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	int n_uris = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		if (name->type != GEN_URI)
			continue;
		const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
		size_t len = (size_t)ASN1_STRING_length(uri);
		const unsigned char *data = ASN1_STRING_get0_data(uri);
		if (len >= size || memchr(data, '\0', len))
			n_uris++; /* not of ours: makes two, or an empty one */
		else
			memcpy(ret, data, len);
		ret[len < size ? len : 0] = '\0';
		n_uris++;
	}
	GENERAL_NAMES_free(names);
	return n_uris == 1;
}

int certificate_authority_init(struct certificate_authority *ca, const char *key_pem,
			       const char *certificate_pem, struct error *reterr)
{
	char uri[256] = "";

	*ca = (struct certificate_authority){ 0 };
	int r = identity_key_parse(key_pem, &ca->key, reterr);
	if (r == 0)
		r = certificate_parse(certificate_pem, &ca->certificate, reterr);
	if (r == 0 && X509_check_private_key(ca->certificate, ca->key) != 1)
		r = fail(reterr, -EINVAL, "the key does not belong to the certificate");
	if (r == 0 &&
	    (!uri_of(ca->certificate, uri, sizeof(uri)) || !split_spiffe(uri, ca->network)))
		r = fail(reterr, -EINVAL, "the certificate is not that of a network");
	if (r != 0)
		certificate_authority_deinit(ca);
	return r;
}

void certificate_authority_deinit(struct certificate_authority *ca)
{
	EVP_PKEY_free(ca->key);
	X509_free(ca->certificate);
	*ca = (struct certificate_authority){ 0 };
}

/* The key of a request that signed itself. */
static int key_of_request(const char *request_pem, EVP_PKEY **ret, struct error *reterr)
{
	P2P_CLEANUP(free_bio) BIO *bio = bio_of(request_pem);
	P2P_CLEANUP(free_request)
	X509_REQ *request = bio ? PEM_read_bio_X509_REQ(bio, NULL, no_passphrase, NULL) : NULL;
	EVP_PKEY *key = request ? X509_REQ_get_pubkey(request) : NULL;

	if (!is_p256(key) || X509_REQ_verify(request, key) != 1) {
		EVP_PKEY_free(key);
		return fail(reterr, -EINVAL,
			    "not a certificate request of a P-256 key with its own signature");
	}
	*ret = key;
	return 0;
}

int certificate_issue_node(const struct certificate_authority *ca, const char *request_pem,
			   const char *name, const struct public_key *node_key, int64_t now_s,
			   int64_t life_s, char **ret_pem, struct error *reterr)
{
	P2P_CLEANUP(free_key) EVP_PKEY *key = NULL;
	char hex[KEY_HEX_LEN + 1], uri[256];
	int r = key_of_request(request_pem, &key, reterr);

	if (r != 0)
		return r;
	key_to_hex(node_key->bytes, hex);
	snprintf(uri, sizeof(uri), "URI:" SPIFFE_PREFIX "%s/node/%s", ca->network, name);
	const struct form form = {
		.public_key = key,
		.common_name = name,
		.serial_attribute = hex,
		.alternative_names = uri,
		.basic_constraints = "critical,CA:FALSE",
		.key_usage = "critical,digitalSignature",
		.extended_key_usage = "clientAuth,serverAuth",
		.not_before_s = now_s - CERTIFICATE_BACKDATE_S,
		.not_after_s = now_s + (life_s < CERTIFICATE_LIFE_S ? life_s : CERTIFICATE_LIFE_S),
	};
	return build_pem(&form, ca->certificate, ca->key, ret_pem, reterr);
}

int certificate_issue_control(const struct certificate_authority *ca, const char *key_pem,
			      const char *host, int64_t now_s, int64_t life_s, char **ret_pem,
			      struct error *reterr)
{
	P2P_CLEANUP(free_key) EVP_PKEY *key = NULL;
	struct in6_addr address;
	char names[640];
	int r = identity_key_parse(key_pem, &key, reterr);

	if (r != 0)
		return r;
	bool is_address =
		inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
	if (strchr(host, ','))
		return fail(reterr, -EINVAL, "not a host name");
	snprintf(names, sizeof(names), "URI:" SPIFFE_PREFIX "%s/control,%s:%s", ca->network,
		 is_address ? "IP" : "DNS", host);
	const struct form form = {
		.public_key = key,
		.common_name = "control",
		.alternative_names = names,
		.basic_constraints = "critical,CA:FALSE",
		.key_usage = "critical,digitalSignature",
		.extended_key_usage = "serverAuth",
		.not_before_s = now_s - CERTIFICATE_BACKDATE_S,
		.not_after_s = now_s + life_s,
	};
	return build_pem(&form, ca->certificate, ca->key, ret_pem, reterr);
}

/* Reading certificates */

int certificate_parse(const char *pem, X509 **ret, struct error *reterr)
{
	P2P_CLEANUP(free_bio) BIO *bio = bio_of(pem);
	X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;

	if (!certificate)
		return fail(reterr, -EINVAL, "not a certificate in PEM form");
	*ret = certificate;
	return 0;
}

/* The one entry of that kind in the subject, as a text without NUL; false otherwise. */
static bool subject_entry(X509 *certificate, int nid, char *ret, size_t size)
{
	const X509_NAME *subject = X509_get_subject_name(certificate);
	int i = X509_NAME_get_index_by_NID(subject, nid, -1);

	if (i < 0 || X509_NAME_get_index_by_NID(subject, nid, i) >= 0)
		return false;
	const ASN1_STRING *value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, i));
	size_t len = (size_t)ASN1_STRING_length(value);
	if (len == 0 || len >= size || memchr(ASN1_STRING_get0_data(value), '\0', len))
		return false;
	memcpy(ret, ASN1_STRING_get0_data(value), len);
	ret[len] = '\0';
	return true;
}

static bool time_of(const ASN1_TIME *time, int64_t *ret)
{
	struct tm tm;

	if (ASN1_TIME_to_tm(time, &tm) != 1)
		return false;
	*ret = (int64_t)timegm(&tm);
	return true;
}

static bool read_node(X509 *certificate, const char *path, struct identity *identity)
{
	char common_name[CERTIFICATE_NAME_LEN + 1], hex[KEY_HEX_LEN + 1];

	if (strncmp(path, "/node/", 6) != 0 || strlen(path + 6) > CERTIFICATE_NAME_LEN ||
	    path[6] == '\0')
		return false;
	memcpy(identity->name, path + 6, strlen(path + 6) + 1);
	return subject_entry(certificate, NID_commonName, common_name, sizeof(common_name)) &&
	       strcmp(common_name, identity->name) == 0 &&
	       subject_entry(certificate, NID_serialNumber, hex, sizeof(hex)) &&
	       key_from_hex(hex, identity->node_key.bytes) == 0;
}

int certificate_identity(X509 *certificate, struct identity *ret)
{
	struct identity identity = { 0 };
	char uri[256] = "";
	const char *path =
		uri_of(certificate, uri, sizeof(uri)) ? split_spiffe(uri, identity.network) : NULL;

	if (!path || !time_of(X509_get0_notBefore(certificate), &identity.not_before_s) ||
	    !time_of(X509_get0_notAfter(certificate), &identity.not_after_s)) {
		ERR_clear_error();
		return -EINVAL;
	}
	identity.is_control = strcmp(path, "/control") == 0;
	if (!identity.is_control && !read_node(certificate, path, &identity)) {
		ERR_clear_error();
		return -EINVAL;
	}
	*ret = identity;
	return 0;
}

int certificate_identity_pem(const char *pem, struct identity *ret, struct error *reterr)
{
	P2P_CLEANUP(free_x509) X509 *certificate = NULL;
	int r = certificate_parse(pem, &certificate, reterr);

	if (r == 0 && certificate_identity(certificate, ret) != 0)
		r = error_set(reterr, -EINVAL, "not a certificate of this kind of network");
	return r;
}

int certificate_check(X509 *certificate, X509 *ca, enum certificate_purpose purpose, int64_t now_s,
		      struct error *reterr)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *context = X509_STORE_CTX_new();
	int r = -ENOMEM;

	if (store && context && X509_STORE_add_cert(store, ca) == 1 &&
	    X509_STORE_CTX_init(context, store, certificate, NULL) == 1) {
		X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(context);
		X509_VERIFY_PARAM_set_time(param, (time_t)now_s);
		X509_VERIFY_PARAM_set_purpose(param, purpose == CERTIFICATE_FOR_CLIENT
							     ? X509_PURPOSE_SSL_CLIENT
							     : X509_PURPOSE_SSL_SERVER);
		r = X509_verify_cert(context) == 1 ? 0 : -EACCES;
	}
	if (r != 0)
		error_set(reterr, r, "the certificate is not accepted: %s",
			  context ? X509_verify_cert_error_string(X509_STORE_CTX_get_error(context))
				  : "out of memory");
	X509_STORE_CTX_free(context);
	X509_STORE_free(store);
	ERR_clear_error();
	return r;
}
