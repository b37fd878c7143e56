/* What an ACME server says and is told; keys, requests and challenges, as OpenSSL sees them. */
#include "node/acme/acme_key.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static void a_url_is_https_with_host_and_port(void)
{
	static const char *const bad[] = { "http://ca.example/", "https://", "https:///x", "https://a@ca.example/", "https://ca.example:0/",
					   "https://ca.example:65536/", "https://ca.example:/", "https://ca.example/a b", "https://[::1/",
					   "https://[127.0.0.1]/", "https://ca.example/#x", "https://ca.example/\"", "https://c\xc3\xa4/" };
	struct acme_url url;

	EXPECT(acme_url_parse("https://ca.example/directory?x", &url) == 0 && url.port == 443 && !url.is_address);
	EXPECT(strcmp(url.host, "ca.example") == 0 && strcmp(url.authority, "ca.example") == 0 && strcmp(url.path, "/directory?x") == 0);
	EXPECT(acme_url_parse("https://[2001:db8::1]:14000", &url) == 0 && url.port == 14000 && url.is_address);
	EXPECT(strcmp(url.host, "2001:db8::1") == 0 && strcmp(url.authority, "[2001:db8::1]:14000") == 0 && strcmp(url.path, "/") == 0);
	EXPECT(acme_url_parse("https://192.0.2.1?q", &url) == 0 && url.is_address && strcmp(url.path, "/?q") == 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		EXPECT(acme_url_parse(bad[i], &url) == -EINVAL);
}

static void retry_after_is_seconds_or_a_date(void)
{
	static const char date[] = "Mon, 21 Sep 2026 19:33:20 GMT";

	EXPECT(acme_retry_after("120", 3, 0) == 120 && acme_retry_after("", 0, 0) == 0 && acme_retry_after("12x", 3, 0) == 0);
	EXPECT(acme_retry_after("99999999999999999999", 20, 0) == 7 * 24 * 3600);
	EXPECT(acme_retry_after(date, strlen(date), 1790019200 - 60) == 60 && acme_retry_after(date, strlen(date), 1790019200 + 60) == 0);
}

static void a_problem_is_shown_without_what_a_terminal_obeys(void)
{
	static const char text[] = "{\"type\":\"urn:ietf:params:acme:error:dns\",\"detail\":\"no\\u001b[31m \\nway\"}";
	const struct acme_problem problem = acme_problem_parse(text, strlen(text));

	EXPECT(strcmp(problem.type, "dns") == 0 && strcmp(problem.detail, "no[31m way") == 0);
	EXPECT(acme_problem_parse("no JSON", 7).type[0] == '\0');
}

/* RFC 7638 has an RSA key; this one is of RFC 7517, appendix A.1, and its thumbprint was made with Python. */
static void a_thumbprint_is_of_the_key_in_canonical_form(void)
{
	struct acme_public_key key;
	char text[ACME_THUMBPRINT + 1];

	EXPECT(sodium_base642bin(key.x, 32, "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", 43, NULL, NULL, NULL,
				 sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0);
	EXPECT(sodium_base642bin(key.y, 32, "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM", 43, NULL, NULL, NULL,
				 sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0);
	acme_thumbprint(&key, text);
	EXPECT(strcmp(text, "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s") == 0);
}

static void what_is_signed_verifies_with_the_public_key(void)
{
	struct acme_public_key public_key;
	uint8_t signature[64];
	EVP_PKEY *key = NULL;
	char *pem = NULL;

	EXPECT(acme_key_generate(&pem, NULL) == 0 && acme_key_parse(pem, &key, NULL) == 0 && acme_key_public(key, &public_key) == 0);
	char *input = acme_signing_input(&public_key, "", "bm9uY2U", "https://ca.example/account", "{}");
	EXPECT(acme_key_sign(key, input, signature) == 0);
	char *text = acme_signed(input, signature);
	EXPECT(strstr(text, "\"payload\":\"e30\"") && strstr(text, "{\"protected\":\"") == text);

	/* R and S as DER again, for OpenSSL to verify. */
	ECDSA_SIG *parts = ECDSA_SIG_new();
	uint8_t der[128], *at = der;
	EXPECT(ECDSA_SIG_set0(parts, BN_bin2bn(signature, 32, NULL), BN_bin2bn(signature + 32, 32, NULL)) == 1);
	const int len = i2d_ECDSA_SIG(parts, &at);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	EXPECT(EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1);
	EXPECT(EVP_DigestVerify(context, der, (size_t)len, (const uint8_t *)input, strlen(input)) == 1);
	EVP_MD_CTX_free(context);
	ECDSA_SIG_free(parts);
	free(text);
	free(input);
	EVP_PKEY_free(key);
	acme_key_free_text(pem);
}

static void a_request_is_for_the_host_and_signed_by_its_key(void)
{
	uint8_t csr[ACME_CSR_LEN];
	const uint8_t *at = csr;
	size_t len;
	EVP_PKEY *key = NULL;
	char *pem = NULL;

	EXPECT(acme_key_generate(&pem, NULL) == 0 && acme_key_parse(pem, &key, NULL) == 0);
	EXPECT(acme_key_request(key, "app.example.org", csr, &len) == 0);
	X509_REQ *request = d2i_X509_REQ(NULL, &at, (long)len);
	EXPECT(request && X509_REQ_verify(request, key) == 1);
	STACK_OF(X509_EXTENSION) *extensions = X509_REQ_get_extensions(request);
	GENERAL_NAMES *names = X509V3_get_d2i(extensions, NID_subject_alt_name, NULL, NULL);
	EXPECT(sk_GENERAL_NAME_num(names) == 1);
	const ASN1_STRING *name = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, 0), NULL);
	EXPECT(ASN1_STRING_length(name) == 15 && memcmp(ASN1_STRING_get0_data(name), "app.example.org", 15) == 0);
	GENERAL_NAMES_free(names);
	sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
	X509_REQ_free(request);
	EVP_PKEY_free(key);
	acme_key_free_text(pem);
}

int main(void)
{
	if (sodium_init() < 0)
		return 1;
	a_url_is_https_with_host_and_port();
	retry_after_is_seconds_or_a_date();
	a_problem_is_shown_without_what_a_terminal_obeys();
	a_thumbprint_is_of_the_key_in_canonical_form();
	what_is_signed_verifies_with_the_public_key();
	a_request_is_for_the_host_and_signed_by_its_key();
	return 0;
}
