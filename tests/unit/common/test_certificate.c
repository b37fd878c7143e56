/* The network's certificates: who is in them, who signed them, until when. */
#include "common/certificate.h"

#include <assert.h>
#include <errno.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW 1800000000LL

struct world {
	struct certificate_authority ca;
	char *ca_key, *ca_pem, *key, *request;
	struct public_key node_key;
};

static void begin(struct world *w)
{
	*w = (struct world){ .node_key = { { 1, 2, 3 } } };
	assert(certificate_authority_generate("home", NOW, &w->ca_key, &w->ca_pem, NULL) == 0);
	assert(certificate_authority_init(&w->ca, w->ca_key, w->ca_pem, NULL) == 0);
	assert(identity_key_generate(&w->key, NULL) == 0);
	assert(certificate_request(w->key, &w->request, NULL) == 0);
}

static void end(struct world *w)
{
	certificate_authority_deinit(&w->ca);
	certificate_free_secret(w->ca_key);
	certificate_free_secret(w->key);
	free(w->ca_pem);
	free(w->request);
}

static X509 *issued(struct world *w, const char *name, int64_t life_s)
{
	char *pem = NULL;
	X509 *certificate = NULL;

	assert(certificate_issue_node(&w->ca, w->request, name, &w->node_key, NOW, life_s, &pem,
				      NULL) == 0);
	assert(certificate_parse(pem, &certificate, NULL) == 0);
	free(pem);
	return certificate;
}

static void test_a_node_certificate_says_who_its_holder_is(void)
{
	struct world w;
	struct identity identity;

	begin(&w);
	X509 *certificate = issued(&w, "alice", 3600);
	assert(certificate_identity(certificate, &identity) == 0);
	assert(strcmp(identity.network, "home") == 0 && strcmp(identity.name, "alice") == 0);
	assert(public_key_equal(&identity.node_key, &w.node_key) && !identity.is_control);
	assert(identity.not_before_s == NOW - 300 && identity.not_after_s == NOW + 3600);
	X509_free(certificate);
	end(&w);
}

static void test_a_node_certificate_lives_a_day_at_most(void)
{
	struct world w;
	struct identity identity;

	begin(&w);
	X509 *certificate = issued(&w, "alice", 1000000);
	assert(certificate_identity(certificate, &identity) == 0);
	assert(identity.not_after_s == NOW + 24 * 3600);
	X509_free(certificate);
	end(&w);
}

static void test_it_is_good_while_it_lives_and_for_its_ca_only(void)
{
	struct world w, other;

	begin(&w);
	begin(&other);
	X509 *c = issued(&w, "alice", 3600);
	assert(certificate_check(c, w.ca.certificate, CERTIFICATE_FOR_CLIENT, NOW, NULL) == 0);
	assert(certificate_check(c, w.ca.certificate, CERTIFICATE_FOR_SERVER, NOW - 299, NULL) ==
	       0);
	assert(certificate_check(c, w.ca.certificate, CERTIFICATE_FOR_CLIENT, NOW - 301, NULL) ==
	       -EACCES);
	assert(certificate_check(c, w.ca.certificate, CERTIFICATE_FOR_CLIENT, NOW + 3601, NULL) ==
	       -EACCES);
	/* The other CA has the same name. */
	assert(certificate_check(c, other.ca.certificate, CERTIFICATE_FOR_CLIENT, NOW, NULL) ==
	       -EACCES);
	X509_free(c);
	end(&w);
	end(&other);
}

static void test_controls_certificate_is_a_server_only(void)
{
	struct world w;
	struct identity identity;
	struct pin of_key, of_certificate;
	char *pem = NULL;
	X509 *c = NULL;

	begin(&w);
	assert(certificate_issue_control(&w.ca, w.key, "2001:db8::1", NOW, 3600, &pem, NULL) == 0);
	assert(certificate_parse(pem, &c, NULL) == 0);
	assert(certificate_identity(c, &identity) == 0 && identity.is_control &&
	       *identity.name == '\0');
	assert(certificate_check(c, w.ca.certificate, CERTIFICATE_FOR_SERVER, NOW, NULL) == 0);
	assert(certificate_check(c, w.ca.certificate, CERTIFICATE_FOR_CLIENT, NOW, NULL) ==
	       -EACCES);
	assert(identity_key_pin(w.key, &of_key, NULL) == 0 &&
	       certificate_pin(c, &of_certificate) == 0);
	assert(pin_equal(&of_key, &of_certificate));
	X509_free(c);
	free(pem);
	end(&w);
}

static void test_a_request_that_is_not_one_is_refused(void)
{
	struct world w;
	struct error err;
	char *pem = NULL;

	begin(&w);
	assert(certificate_issue_node(&w.ca, "x", "a", &w.node_key, NOW, 60, &pem, &err) ==
	       -EINVAL);
	char *body =
		strstr(w.request, "\n") + 60; /* inside the base64 text: breaks key or signature */
	*body = *body == 'A' ? 'B' : 'A';
	assert(certificate_issue_node(&w.ca, w.request, "a", &w.node_key, NOW, 60, &pem, &err) ==
	       -EINVAL);
	assert(!pem);
	end(&w);
}

static void test_the_ca_needs_its_own_key(void)
{
	struct world w;
	struct certificate_authority ca;
	struct error err;

	begin(&w);
	assert(certificate_authority_init(&ca, w.key, w.ca_pem, &err) == -EINVAL);
	assert(strcmp(err.message, "the key does not belong to the certificate") == 0);
	assert(certificate_authority_init(&ca, "", w.ca_pem, &err) == -EINVAL);
	end(&w);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_a_node_certificate_says_who_its_holder_is();
	test_a_node_certificate_lives_a_day_at_most();
	test_it_is_good_while_it_lives_and_for_its_ca_only();
	test_controls_certificate_is_a_server_only();
	test_a_request_that_is_not_one_is_refused();
	test_the_ca_needs_its_own_key();
	puts("ok");
}
