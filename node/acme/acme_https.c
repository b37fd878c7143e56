#include "node/acme/acme_https.h"

#include "common/http_answer.h"
#include "common/macros.h"
#include "common/tls.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_ADDRESSES 8
#define TIME_MS	      30000
#define CONNECT_MS    8000
#define MAX_HEAD      2048 /* of the request */
#define MAX_LEN	      (HTTP_ANSWER_MAX_HEAD + ACME_MAX_ANSWER)

/* Outlives the question when that is closed before the answer has come. */
struct look_up {
	uv_getaddrinfo_t request;
	struct acme_https *https; /* NULL: nobody waits any more */
};

struct acme_https {
	struct tls_host *host;
	SSL_CTX *context;
	struct acme_url url;
	bool is_head;
	char *text; /* to be sent */
	size_t n_text, n_sent;
	struct look_up *look_up; /* NULL: it is done */
	struct endpoint addresses[MAX_ADDRESSES];
	uint32_t n_addresses, next_address;
	struct tls_stream stream;
	bool is_open, is_ready, is_ending; /* the stream */
	uv_timer_t timer;
	char *bytes; /* that came, MAX_LEN and a NUL */
	size_t n;
	struct error failure; /* of the last address */

	void (*answered)(void *owner, const struct acme_answer *answer, const struct error *why);
	void *owner;
	bool is_closing;
	uint32_t n_open;
	void (*closed)(void *owner);
	void *closed_owner;
};

/* ---- the end ---- */

static void release(struct acme_https *https)
{
	if (--https->n_open > 0)
		return;
	void (*closed)(void *owner) = https->closed;
	void *owner = https->closed_owner;
	SSL_CTX_free(https->context);
	free(https->text);
	free(https->bytes);
	free(https);
	if (closed)
		closed(owner);
}

static void tell(struct acme_https *https, const struct acme_answer *answer, const struct error *why)
{
	void (*answered)(void *owner, const struct acme_answer *, const struct error *) = https->answered;

	https->answered = NULL;
	uv_timer_stop(&https->timer);
	if (answered)
		answered(https->owner, answer, why);
}

static void P2P_PRINTF(2, 3) fail(struct acme_https *https, const char *format, ...)
{
	struct error why = { .code = -EIO };
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why.message, sizeof(why.message), format, arguments);
	va_end(arguments);
	tell(https, NULL, &why);
}

/* ---- the answer ---- */

/* Empty where there is none, or one too long. */
static void copy_header(const struct acme_https *https, size_t head_len, const char *name, char *ret, size_t size)
{
	size_t len;
	const char *value = http_header_find(https->bytes, head_len, name, &len);

	snprintf(ret, size, "%.*s", value && len < size ? (int)len : 0, value ? value : "");
}

static void tell_answer(struct acme_https *https, const struct http_answer *head, char *body, size_t len)
{
	char nonce[ACME_NONCE_LEN + 1], location[ACME_URL_LEN + 1], retry[48];
	const struct acme_answer answer = { .status = head->status, .nonce = nonce, .location = location, .body = body, .len = len };
	struct acme_answer full = answer;

	copy_header(https, head->head_len, "Replay-Nonce", nonce, sizeof(nonce));
	copy_header(https, head->head_len, "Location", location, sizeof(location));
	copy_header(https, head->head_len, "Retry-After", retry, sizeof(retry));
	full.retry_after_s = acme_retry_after(retry, strlen(retry), (int64_t)time(NULL));
	body[len] = '\0';
	tell(https, &full, NULL);
}

/* Is it whole? */
static void look_at(struct acme_https *https, bool is_over)
{
	struct http_answer head;
	size_t len = 0;
	int r = http_answer_parse(https->bytes, https->n, &head);

	if (r == HTTP_ANSWER_MORE && !is_over && https->n < MAX_LEN)
		return;
	if (r != 0) {
		fail(https, "%s answered with something else than HTTP", https->url.authority);
		return;
	}
	char *body = https->bytes + head.head_len;
	const size_t n_body = https->n - head.head_len;
	if (!https->is_head)
		r = http_answer_body(&head, body, n_body, is_over, NULL, &len);
	if (r == HTTP_ANSWER_MORE && !is_over && https->n < MAX_LEN)
		return;
	if (r == 0 && !https->is_head)
		r = http_answer_body(&head, body, n_body, is_over, body, &len);
	if (r != 0 || len > ACME_MAX_ANSWER)
		fail(https, "the answer of %s is not whole, or too long", https->url.authority);
	else
		tell_answer(https, &head, body, len);
}

/* ---- the connection ---- */

static void connect_next(struct acme_https *https);

static void on_ready(void *owner)
{
	struct acme_https *https = owner;

	https->is_ready = true;
	tls_stream_wake(&https->stream);
}

static void on_received(void *owner, const uint8_t *bytes, size_t len)
{
	struct acme_https *https = owner;
	const size_t room = MAX_LEN - https->n, n = len < room ? len : room;

	if (!https->answered)
		return;
	memcpy(https->bytes + https->n, bytes, n);
	https->n += n;
	look_at(https, false);
}

static size_t on_produce(void *owner, uint8_t *buf, size_t cap)
{
	struct acme_https *https = owner;
	const size_t rest = https->n_text - https->n_sent, n = rest < cap ? rest : cap;

	memcpy(buf, https->text + https->n_sent, n);
	https->n_sent += n;
	return n;
}

static void on_stream_closed(void *owner)
{
	struct acme_https *https = owner;

	https->is_open = https->is_ending = false;
	if (!https->is_closing && https->answered)
		connect_next(https);
	release(https);
}

static void close_stream(struct acme_https *https)
{
	if (!https->is_open || https->is_ending)
		return;
	https->is_ending = true;
	tls_stream_close(&https->stream, on_stream_closed);
}

static void on_ended(void *owner, const struct error *why)
{
	struct acme_https *https = owner;

	if (https->is_ready && https->answered && why->code == 0) {
		look_at(https, true);
	} else if (https->is_ready && https->answered) {
		fail(https, "%s broke off: %s", https->url.authority, why->message);
	} else if (https->answered) {
		https->failure = *why;
	}
	close_stream(https);
}

static void connect_next(struct acme_https *https)
{
	const struct tls_stream_ports ports = { .owner = https,
						.ready = on_ready,
						.received = on_received,
						.produce = on_produce,
						.ended = on_ended };

	if (https->next_address == https->n_addresses) {
		fail(https, "%s is not reached: %s", https->url.authority, https->failure.message);
		return;
	}
	struct endpoint *remote = &https->addresses[https->next_address++];
	remote->port = https->url.port;
	if (tls_stream_open_client(&https->stream, https->host, https->context, remote,
				   https->url.is_address ? NULL : https->url.host, CONNECT_MS, &ports) != 0) {
		fail(https, "no memory for TLS");
		return;
	}
	https->is_open = true;
	https->n_open++;
}

/* ---- its address ---- */

static void on_looked_up(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
	struct look_up *look_up = container_of(request, struct look_up, request);
	struct acme_https *https = look_up->https;

	for (const struct addrinfo *i = found; https && i && https->n_addresses < MAX_ADDRESSES; i = i->ai_next)
		if (i->ai_family == AF_INET || i->ai_family == AF_INET6)
			https->addresses[https->n_addresses++] = endpoint_from_sockaddr(i->ai_addr);
	uv_freeaddrinfo(found);
	free(look_up);
	if (!https)
		return;
	https->look_up = NULL;
	if (!https->answered)
		return;
	if (https->n_addresses == 0)
		fail(https, "%s has no address: %s; is the name right, and does this machine's DNS work?", https->url.host,
		     status != 0 ? uv_strerror(status) : "none is known");
	else
		connect_next(https);
}

static void look_up_name(struct acme_https *https)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
	struct look_up *look_up = calloc(1, sizeof(*look_up));

	if (!look_up)
		abort();
	look_up->https = https;
	const int r = uv_getaddrinfo(tls_host_loop(https->host), &look_up->request, on_looked_up, https->url.host, NULL, &hints);
	if (r == 0) {
		https->look_up = look_up;
		return;
	}
	free(look_up);
	fail(https, "%s cannot be looked up: %s", https->url.host, uv_strerror(r));
}

static void on_timeout(uv_timer_t *timer)
{
	struct acme_https *https = container_of(timer, struct acme_https, timer);

	fail(https, "%s has not answered in %d s%s%s", https->url.authority, TIME_MS / 1000, https->failure.message[0] ? ": " : "",
	     https->failure.message);
}

/* From the loop: nothing is told from inside acme_https_ask(). */
static void on_begin(uv_timer_t *timer)
{
	struct acme_https *https = container_of(timer, struct acme_https, timer);

	uv_timer_start(timer, on_timeout, TIME_MS, 0);
	if (endpoint_parse_ip(https->url.host, https->url.port, &https->addresses[0]) == 0) {
		https->n_addresses = 1;
		connect_next(https);
	} else {
		look_up_name(https);
	}
}

/* ---- from outside ---- */

static int make_context(struct acme_https *https, const char *ca_file, struct error *reterr)
{
	SSL_CTX *context = https->context = SSL_CTX_new(TLS_client_method());

	if (!context || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1)
		return error_set(reterr, -EINVAL, "no TLS: %s", tls_take_error().s);
	if ((ca_file[0] != '\0' ? SSL_CTX_load_verify_file(context, ca_file) : SSL_CTX_set_default_verify_paths(context)) != 1)
		return error_set(reterr, -EINVAL, "ca_file: %s: no certificates of a CA in PEM can be read there: %s", ca_file,
				 tls_take_error().s);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	X509_VERIFY_PARAM *param = SSL_CTX_get0_param(context);
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if ((https->url.is_address ? X509_VERIFY_PARAM_set1_ip_asc(param, https->url.host)
				   : X509_VERIFY_PARAM_set1_host(param, https->url.host, 0)) != 1)
		return error_set(reterr, -EINVAL, "no TLS: %s", tls_take_error().s);
	return 0;
}

static void print_request(struct acme_https *https, const struct acme_https_question *question)
{
	static const char *const verbs[] = { [ACME_GET] = "GET", [ACME_HEAD] = "HEAD", [ACME_POST] = "POST" };
	const char *body = question->action == ACME_POST ? question->body : "";
	char content[96] = "";

	if (question->action == ACME_POST)
		snprintf(content, sizeof(content), "Content-Type: application/jose+json\r\nContent-Length: %zu\r\n", strlen(body));
	const int n = asprintf(&https->text,
			       "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: p2pnode/" P2P_VERSION "\r\nAccept-Language: en\r\n"
			       "%sConnection: close\r\n\r\n%s",
			       verbs[question->action], https->url.path, https->url.authority, content, body);
	if (n < 0)
		abort();
	https->n_text = (size_t)n;
}

static void free_unopened(struct acme_https *https)
{
	SSL_CTX_free(https->context);
	free(https);
}

int acme_https_ask(struct tls_host *host, const struct acme_https_question *question, struct acme_https **ret,
		   struct error *reterr)
{
	struct acme_https *https = calloc(1, sizeof(*https));
	int r;

	if (!https)
		abort();
	https->host = host;
	https->is_head = question->action == ACME_HEAD;
	r = acme_url_parse(question->url, &https->url);
	r = r == 0 ? make_context(https, question->ca_file, reterr) : error_set(reterr, r, "no https URL: %s", question->url);
	if (r != 0) {
		free_unopened(https);
		return r;
	}
	https->bytes = malloc(MAX_LEN + 1);
	if (!https->bytes)
		abort();
	https->answered = question->answered;
	https->owner = question->owner;
	print_request(https, question);
	uv_timer_init(tls_host_loop(host), &https->timer);
	https->n_open = 1;
	uv_timer_start(&https->timer, on_begin, 0, 0);
	*ret = https;
	return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	release(container_of((uv_timer_t *)handle, struct acme_https, timer));
}

void acme_https_close(struct acme_https *https, void (*closed)(void *owner), void *owner)
{
	https->answered = NULL;
	https->is_closing = true;
	https->closed = closed;
	https->closed_owner = owner;
	if (https->look_up) {
		https->look_up->https = NULL;
		(void)uv_cancel((uv_req_t *)&https->look_up->request);
		https->look_up = NULL;
	}
	close_stream(https);
	uv_close((uv_handle_t *)&https->timer, on_timer_closed);
}
