/* One question to an ACME server: what servers do wrong is told, and none is believed without the right certificate. */
#include "made_certificate.h"
#include "node/acme/acme_https.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define CA_FILE "test_acme_https.pem"

/* A server that takes one connection, reads a request, and says this. */
struct server {
	const char *certificate_for, *answer;
	size_t n_more; /* bytes of 'x' behind it */
	bool is_cut;   /* no close_notify, a reset */
	int fd;
	uint16_t port;
	char request[4096];
	pthread_t thread;
	SSL_CTX *context;
};

static uv_loop_t loop;
static struct tls_host *host;
static struct acme_https *https;
static struct error told_why;
static char told_body[256], told_nonce[ACME_NONCE_LEN + 1];
static unsigned told_status, n_told;
static uint32_t told_retry_s;

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s (%u, %s)\n", line, what, told_status, told_why.message);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static void *serve(void *arg)
{
	struct server *server = arg;
	char x[1024];
	const int fd = accept(server->fd, NULL, NULL);
	SSL *ssl = SSL_new(server->context);
	size_t n = 0;

	memset(x, 'x', sizeof(x));
	if (SSL_set_fd(ssl, fd) == 1 && SSL_accept(ssl) == 1) {
		int got = 1;
		while (got > 0 && !strstr(server->request, "\r\n\r\n") && n < sizeof(server->request) - 1) {
			got = SSL_read(ssl, server->request + n, (int)(sizeof(server->request) - 1 - n));
			n += got > 0 ? (size_t)got : 0;
		}
		(void)SSL_write(ssl, server->answer, (int)strlen(server->answer));
		for (size_t i = 0; i < server->n_more && SSL_write(ssl, x, sizeof(x)) > 0; i += sizeof(x))
			;
		if (!server->is_cut)
			SSL_shutdown(ssl);
	}
	SSL_free(ssl);
	close(fd);
	return NULL;
}

static void start(struct server *server)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(address);
	struct made_certificate made = make_certificate(server->certificate_for, 3600);
	BIO *certificate_bio = BIO_new_mem_buf(made.certificate, -1), *key_bio = BIO_new_mem_buf(made.key, -1);
	X509 *certificate = PEM_read_bio_X509(certificate_bio, NULL, NULL, NULL);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(key_bio, NULL, NULL, NULL);
	FILE *file = fopen(CA_FILE, "w");

	EXPECT(file && fputs(made.certificate, file) >= 0 && fclose(file) == 0);
	server->context = SSL_CTX_new(TLS_server_method());
	EXPECT(SSL_CTX_use_certificate(server->context, certificate) == 1 && SSL_CTX_use_PrivateKey(server->context, key) == 1);
	server->fd = socket(AF_INET, SOCK_STREAM, 0);
	EXPECT(bind(server->fd, (struct sockaddr *)&address, len) == 0 && listen(server->fd, 1) == 0);
	EXPECT(getsockname(server->fd, (struct sockaddr *)&address, &len) == 0);
	server->port = ntohs(address.sin_port);
	EXPECT(pthread_create(&server->thread, NULL, serve, server) == 0);
	X509_free(certificate);
	EVP_PKEY_free(key);
	BIO_free(certificate_bio);
	BIO_free(key_bio);
	free_made_certificate(&made);
}

static void stop(struct server *server)
{
	pthread_join(server->thread, NULL);
	close(server->fd);
	SSL_CTX_free(server->context);
}

static void on_answered(void *owner, const struct acme_answer *answer, const struct error *why)
{
	(void)owner;
	n_told++;
	told_status = answer ? answer->status : 0;
	if (answer) {
		snprintf(told_body, sizeof(told_body), "%s", answer->body);
		snprintf(told_nonce, sizeof(told_nonce), "%s", answer->nonce);
		told_retry_s = answer->retry_after_s;
	} else {
		told_why = *why;
	}
	acme_https_close(https, NULL, NULL);
}

static void ask(enum acme_action action, const char *name, uint16_t port, const char *ca_file)
{
	char url[256];
	struct acme_https_question question = { .action = action, .url = url, .body = "{}", .ca_file = ca_file, .answered = on_answered };
	struct error error;

	n_told = told_status = 0;
	told_why.message[0] = told_body[0] = '\0';
	snprintf(url, sizeof(url), "https://%s:%u/a?b", name, port);
	EXPECT(acme_https_ask(host, &question, &https, &error) == 0 && n_told == 0);
	while (n_told == 0)
		uv_run(&loop, UV_RUN_ONCE);
	EXPECT(n_told == 1);
}

static void ask_one(struct server *server)
{
	start(server);
	ask(ACME_GET, "localhost", server->port, CA_FILE);
	stop(server);
}

static void an_answer_comes_with_what_matters_of_its_head(void)
{
	struct server server = { .certificate_for = "localhost",
				 .answer = "HTTP/1.1 429 Slow\r\nReplay-Nonce: bm9uY2U\r\nRetry-After: 9\r\nContent-Length: 2\r\n\r\n{}" };

	start(&server);
	ask(ACME_POST, "localhost", server.port, CA_FILE);
	stop(&server);
	EXPECT(told_status == 429 && strcmp(told_body, "{}") == 0 && strcmp(told_nonce, "bm9uY2U") == 0 && told_retry_s == 9);
	EXPECT(strncmp(server.request, "POST /a?b HTTP/1.1\r\nHost: localhost:", 36) == 0);
	EXPECT(strstr(server.request, "Content-Type: application/jose+json\r\nContent-Length: 2\r\n"));
}

static void a_body_may_be_in_chunks_or_end_with_the_connection(void)
{
	struct server chunks = { .certificate_for = "localhost",
				 .answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n" };
	struct server ending = { .certificate_for = "localhost", .answer = "HTTP/1.0 200 OK\r\n\r\nabc" };

	ask_one(&chunks);
	EXPECT(told_status == 200 && strcmp(told_body, "abc") == 0);
	ask_one(&ending);
	EXPECT(told_status == 200 && strcmp(told_body, "abc") == 0);
}

static void who_has_another_certificate_is_told_nothing(void)
{
	struct server other_name = { .certificate_for = "ca.example", .answer = "HTTP/1.1 200 OK\r\n\r\n" };
	struct server other_ca = { .certificate_for = "localhost", .answer = "HTTP/1.1 200 OK\r\n\r\n" };
	struct server as_address = { .certificate_for = "localhost", .answer = "HTTP/1.1 200 OK\r\n\r\n" };

	ask_one(&other_name);
	EXPECT(strstr(told_why.message, "certificate refused") && other_name.request[0] == '\0');
	start(&other_ca);
	ask(ACME_GET, "localhost", other_ca.port, ""); /* the system's */
	stop(&other_ca);
	EXPECT(strstr(told_why.message, "certificate refused") && other_ca.request[0] == '\0');
	start(&as_address);
	ask(ACME_GET, "127.0.0.1", as_address.port, CA_FILE);
	stop(&as_address);
	EXPECT(strstr(told_why.message, "certificate refused") && as_address.request[0] == '\0');
}

static void what_is_no_answer_or_not_whole_or_too_long_is_told(void)
{
	struct server rubbish = { .certificate_for = "localhost", .answer = "SSH-2.0-x\r\n" };
	struct server half = { .certificate_for = "localhost", .answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab" };
	struct server cut = { .certificate_for = "localhost", .answer = "HTTP/1.0 200 OK\r\n\r\nab", .is_cut = true };
	struct server much = { .certificate_for = "localhost", .answer = "HTTP/1.0 200 OK\r\n\r\n", .n_more = 200000 };
	struct server head = { .certificate_for = "localhost", .answer = "HTTP/1.1 200 OK\r\nX: ", .n_more = 20000 };

	ask_one(&rubbish);
	EXPECT(strstr(told_why.message, "something else than HTTP"));
	ask_one(&half);
	EXPECT(strstr(told_why.message, "not whole"));
	ask_one(&cut);
	EXPECT(told_status == 0 && told_why.message[0] != '\0');
	ask_one(&much);
	EXPECT(strstr(told_why.message, "too long"));
	ask_one(&head);
	EXPECT(told_status == 0 && told_why.message[0] != '\0');
}

static void who_is_not_there_is_told(void)
{
	ask(ACME_GET, "localhost", 1, CA_FILE);
	EXPECT(strstr(told_why.message, "is not reached"));
	ask(ACME_GET, "nobody.invalid", 1, CA_FILE);
	EXPECT(strstr(told_why.message, "has no address"));
}

static void on_closed(void *owner)
{
	*(bool *)owner = true;
}

static void a_question_may_be_given_up_at_any_time(void)
{
	struct acme_https_question question = { .action = ACME_GET, .url = "https://localhost:1/", .ca_file = CA_FILE,
						.answered = on_answered };
	n_told = 0;
	for (int turns = 0; turns < 4; turns++) {
		bool is_closed = false;
		EXPECT(acme_https_ask(host, &question, &https, NULL) == 0);
		for (int i = 0; i < turns && n_told == 0; i++)
			uv_run(&loop, UV_RUN_NOWAIT);
		if (n_told != 0)
			return; /* it was faster */
		acme_https_close(https, on_closed, &is_closed);
		while (!is_closed)
			uv_run(&loop, UV_RUN_ONCE);
	}
	EXPECT(n_told == 0);
}

int main(void)
{
	signal(SIGPIPE, SIG_IGN);
	if (uv_loop_init(&loop) != 0 || tls_host_new(&loop, &host) != 0)
		return 1;
	an_answer_comes_with_what_matters_of_its_head();
	a_body_may_be_in_chunks_or_end_with_the_connection();
	who_has_another_certificate_is_told_nothing();
	what_is_no_answer_or_not_whole_or_too_long_is_told();
	who_is_not_there_is_told();
	a_question_may_be_given_up_at_any_time();
	tls_host_close(host, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	EXPECT(uv_loop_close(&loop) == 0);
	unlink(CA_FILE);
	return 0;
}
