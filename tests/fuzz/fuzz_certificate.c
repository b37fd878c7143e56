/*
 * What strangers send control to be signed, and what is read from certificates: each is refused, or
 * becomes a certificate that says what we wanted it to say.
 */
#include "common/certificate.h"

#include <assert.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW_S INT64_C(1900000000)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static struct certificate_authority *authority(void)
{
	static struct certificate_authority ca;
	char *key, *certificate;

	if (ca.key)
		return &ca;
	if (certificate_authority_generate("home", NOW_S, &key, &certificate, NULL) != 0 ||
	    certificate_authority_init(&ca, key, certificate, NULL) != 0)
		abort();
	certificate_free_secret(key);
	free(certificate);
	return &ca;
}

static void sign(const char *request)
{
	const struct public_key node_key = { { 7 } };
	struct identity identity;
	char *pem = NULL;
	X509 *certificate;

	if (certificate_issue_node(authority(), request, "alice", &node_key, NOW_S, 3600, &pem,
				   NULL) != 0)
		return;
	assert(certificate_identity_pem(pem, &identity, NULL) == 0);
	assert(strcmp(identity.name, "alice") == 0 && strcmp(identity.network, "home") == 0);
	assert(public_key_equal(&identity.node_key, &node_key) && !identity.is_control);
	assert(certificate_parse(pem, &certificate, NULL) == 0);
	assert(certificate_check(certificate, authority()->certificate, CERTIFICATE_FOR_CLIENT,
				 NOW_S, NULL) == 0);
	X509_free(certificate);
	free(pem);
}

static void read_text(const char *text)
{
	struct identity identity;

	sign(text);
	(void)!certificate_identity_pem(text, &identity, NULL);
}

/* DER in PEM's clothes: mutations of text seldom get past base64. */
static void read_der(const char *label, const uint8_t *der, size_t len)
{
	size_t size = sodium_base64_ENCODED_LEN(len, sodium_base64_VARIANT_ORIGINAL);
	char *base64 = malloc(size), *pem = malloc(2 * size + 200), *end = pem;

	if (!base64 || !pem)
		abort();
	sodium_bin2base64(base64, size, der, len, sodium_base64_VARIANT_ORIGINAL);
	end += sprintf(end, "-----BEGIN %s-----\n", label);
	for (const char *line = base64; *line; line += strnlen(line, 64))
		end += sprintf(end, "%.64s\n", line);
	sprintf(end, "-----END %s-----\n", label);
	read_text(pem);
	free(base64);
	free(pem);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	char *text = malloc(len + 1);

	if (!text)
		abort();
	if (len > 0)
		memcpy(text, bytes, len);
	text[len] = '\0';
	if (*text == '-') {
		read_text(text);
	} else if (len < 8192) {
		read_der("CERTIFICATE REQUEST", bytes, len);
		read_der("CERTIFICATE", bytes, len);
	}
	free(text);
	return 0;
}
