/* Which handshakes resume one of before, and that each has a key exchange of its own. Client and server in memory. */
#include "common/tls.h"

#include <assert.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct world {
	char *ca_key, *ca_pem, *key, *certificate;
	struct pin pin;
};

static void begin(struct world *w)
{
	const int64_t now_s = (int64_t)time(NULL);
	const struct public_key node_key = { { 1 } };
	struct certificate_authority ca;
	char *request;

	assert(certificate_authority_generate("home", now_s, &w->ca_key, &w->ca_pem, NULL) == 0);
	assert(certificate_authority_init(&ca, w->ca_key, w->ca_pem, NULL) == 0);
	assert(identity_key_generate(&w->key, NULL) == 0);
	assert(certificate_request(w->key, &request, NULL) == 0);
	assert(certificate_issue_node(&ca, request, "gate", &node_key, now_s, 3600, &w->certificate, NULL) == 0);
	assert(identity_key_pin(w->key, &w->pin, NULL) == 0);
	free(request);
	certificate_authority_deinit(&ca);
}

static void end(struct world *w)
{
	certificate_free_secret(w->ca_key);
	certificate_free_secret(w->key);
	free(w->ca_pem);
	free(w->certificate);
}

static SSL_CTX *server_of(const struct world *w, bool resumes)
{
	const struct tls_options options = { .is_server = true, .trust = TLS_TRUST_NOBODY, .certificate_pem = w->certificate,
					     .key_pem = w->key, .alpn = "one", .resumes = resumes };
	struct error error;
	SSL_CTX *context;

	assert(tls_context_new(&options, &context, &error) == 0);
	return context;
}

static SSL_CTX *client_of(const struct world *w, bool resumes)
{
	const struct tls_options options = { .trust = TLS_TRUST_PIN, .pin = w->pin, .alpn = "one", .resumes = resumes };
	struct error error;
	SSL_CTX *context;

	assert(tls_context_new(&options, &context, &error) == 0);
	return context;
}

/* To its end, and a byte each way behind it. -1: it was not made; else whether it resumed one. */
static int shake_hands(SSL_CTX *server_context, SSL_CTX *client_context)
{
	SSL *server = SSL_new(server_context), *client = SSL_new(client_context);
	BIO *one, *other;
	char byte;
	int r = -1;

	assert(server && client && BIO_new_bio_pair(&one, 65536, &other, 65536) == 1);
	SSL_set_bio(server, one, one);
	SSL_set_bio(client, other, other);
	SSL_set_accept_state(server);
	SSL_set_connect_state(client);
	tls_take_ticket(client);
	for (int i = 0; i < 4; i++) {
		(void)SSL_do_handshake(client);
		(void)SSL_do_handshake(server);
	}
	if (SSL_is_init_finished(server) && SSL_is_init_finished(client)) {
		tls_give_ticket(server);
		assert(SSL_write(server, "s", 1) == 1 && SSL_read(client, &byte, 1) == 1 && byte == 's');
		assert(SSL_write(client, "c", 1) == 1 && SSL_read(server, &byte, 1) == 1 && byte == 'c');
		r = SSL_session_reused(client);
		assert(r == SSL_session_reused(server));
		assert(SSL_get_negotiated_group(client) != 0); /* a key exchange, also of who resumes */
		assert(SSL_get_verify_result(client) == X509_V_OK);
		SSL_shutdown(server);
		SSL_shutdown(client);
	}
	SSL_free(server);
	SSL_free(client);
	(void)tls_take_error();
	return r;
}

static void test_every_handshake_after_the_first_resumes_it(const struct world *w)
{
	SSL_CTX *server = server_of(w, true), *client = client_of(w, true), *another = client_of(w, true);

	assert(shake_hands(server, client) == 0);
	for (int i = 0; i < 20; i++)
		assert(shake_hands(server, client) == 1);
	assert(shake_hands(server, another) == 0);
	SSL_CTX_free(another);
	SSL_CTX_free(client);
	SSL_CTX_free(server);
}

static void test_a_server_that_began_anew_is_asked_for_all_again(const struct world *w)
{
	SSL_CTX *server = server_of(w, true), *client = client_of(w, true);

	assert(shake_hands(server, client) == 0 && shake_hands(server, client) == 1);
	SSL_CTX_free(server);
	server = server_of(w, true);
	assert(shake_hands(server, client) == 0 && shake_hands(server, client) == 1);
	SSL_CTX_free(client);
	SSL_CTX_free(server);
}

static void test_who_is_not_told_to_resume_does_not(const struct world *w)
{
	for (int i = 0; i < 3; i++) {
		SSL_CTX *server = server_of(w, i == 1), *client = client_of(w, i == 2);
		for (int n = 0; n < 3; n++)
			assert(shake_hands(server, client) == 0);
		SSL_CTX_free(client);
		SSL_CTX_free(server);
	}
}

static void test_another_key_than_the_pins_is_refused_and_nothing_of_it_is_resumed(const struct world *w)
{
	struct world other;

	begin(&other);
	SSL_CTX *server = server_of(&other, true), *client = client_of(w, true), *own = server_of(w, true);
	for (int n = 0; n < 3; n++)
		assert(shake_hands(server, client) == -1);
	assert(shake_hands(own, client) == 0 && shake_hands(own, client) == 1);
	assert(shake_hands(server, client) == -1); /* the ticket tells it nothing */
	SSL_CTX_free(own);
	SSL_CTX_free(client);
	SSL_CTX_free(server);
	end(&other);
}

int main(void)
{
	struct world w;

	begin(&w);
	test_every_handshake_after_the_first_resumes_it(&w);
	test_a_server_that_began_anew_is_asked_for_all_again(&w);
	test_who_is_not_told_to_resume_does_not(&w);
	test_another_key_than_the_pins_is_refused_and_nothing_of_it_is_resumed(&w);
	end(&w);
	return 0;
}
