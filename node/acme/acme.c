#include "node/acme/acme.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "node/acme/acme_fsm.h"
#include "node/acme/acme_https.h"
#include "node/acme/acme_key.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAIT_MS	   2000	 /* until it is looked again whether visitors are led here */
#define LONGEST_MS 60000 /* the clock of the day may be set, and machines sleep */
#define MAX_PATH   4096
#define LONGEST_WAIT_S (8 * 24 * 3600) /* what a server may say, and some */
#define FIRST_LINE "# "
#define MAX_WAIT (32 + ACME_URL_LEN)

struct site {
	struct exposure exposure;
	bool has_http; /* it is published for HTTP as well, perhaps by another exposure */
	char *pem; /* NULL: none */
	uint64_t pem_number;
	char *challenge_pem; /* NULL: none */
	char token[ACME_TOKEN_LEN + 1], answer[ACME_ANSWER_LEN + 1];
	uint64_t challenge_number;
	int64_t next_s; /* when it is to be ordered; 0: at once */
	int64_t keep_s; /* when it is tried again to write what is shown; 0: it is kept */
	bool is_waiting, is_obstacle_told;
	uint32_t n_failures;
	struct error failure;
};

struct acme {
	struct acme_options options;
	char folder[MAX_PATH];
	EVP_PKEY *account; /* NULL: not read yet */
	struct acme_public_key account_public;
	char thumbprint[ACME_THUMBPRINT + 1];
	uint32_t n;
	struct site *sites[EXPOSURE_MAX];
	uint64_t number; /* of what was shown last */

	struct site *ordering; /* NULL: nothing is ordered */
	struct acme_fsm fsm;
	char *key_pem; /* of the certificate that is ordered */
	struct acme_https *https; /* NULL: nothing is asked */
	bool is_https_closing, is_closing;
	uv_timer_t timer;
	void (*closed)(void *owner);
	void *closed_owner;
};

static uint64_t now_ms(void)
{
	return clock_now_ns() / 1000000;
}

static const char *host_of(const struct site *site)
{
	return site->exposure.host.name.text;
}

static void tell_changed(const struct acme *acme)
{
	if (!acme->is_closing)
		acme->options.changed(acme->options.owner);
}

/* ---- on disk ---- */

struct path {
	char s[MAX_PATH + HOST_NAME_MAX_LEN + 8];
};

static struct path path_of(const struct acme *acme, const char *name, const char *end)
{
	struct path path;

	snprintf(path.s, sizeof(path.s), "%s/%s%s", acme->folder, name, end);
	return path;
}

static void free_secret(char *text)
{
	if (text)
		sodium_memzero(text, strlen(text));
	free(text);
}

static int make_account_key(const struct acme *acme, char **ret_pem, struct error *reterr)
{
	int r = file_make_folder(acme->folder, 0700, reterr);

	if (r == 0)
		r = acme_key_generate(ret_pem, reterr);
	if (r != 0)
		return r;
	r = file_write_atomic(path_of(acme, "account", ".key").s, *ret_pem, strlen(*ret_pem), 0600, reterr);
	if (r != 0)
		acme_key_free_text(*ret_pem);
	return r;
}

static int use_account_key(struct acme *acme, const char *pem, struct error *reterr)
{
	int r = acme_key_parse(pem, &acme->account, reterr);

	if (r != 0) {
		error_prefix(reterr, "%s", path_of(acme, "account", ".key").s);
		return r;
	}
	r = acme_key_public(acme->account, &acme->account_public);
	acme_thumbprint(&acme->account_public, acme->thumbprint);
	return r == 0 ? 0 : error_set(reterr, r, "the account's key is of no use");
}

/* A key that is there and is none is left as it is: an account hangs on it. */
static int load_account_key(struct acme *acme, struct error *reterr)
{
	char *pem;
	size_t len;

	if (acme->account)
		return 0;
	int r = file_read_secret(path_of(acme, "account", ".key").s, TLS_SITE_MAX_PEM, &pem, &len, reterr);
	if (r == -ENOENT)
		r = make_account_key(acme, &pem, reterr);
	if (r != 0)
		return r;
	r = use_account_key(acme, pem, reterr);
	free_secret(pem);
	return r;
}

/* Key and certificate must belong together, and be for the host. */
static int check_pem(const struct site *site, const char *pem, struct tls_site_dates *ret, struct error *reterr)
{
	SSL_CTX *context;
	const int r = tls_site_context_new(&site->exposure.host, pem, pem, false, &context, ret, reterr);

	if (r == 0)
		SSL_CTX_free(context);
	return r;
}

static void show_pem(struct acme *acme, struct site *site, char *pem_take, const struct tls_site_dates *dates)
{
	free_secret(site->pem);
	site->pem = pem_take;
	site->pem_number = ++acme->number;
	site->next_s = acme_renewal_s(dates->not_before, dates->not_after, randombytes_random());
}

/*
 * What cannot be written is shown all the same, and written later: were it ordered again, the server would have given all
 * that it gives in a week within the hour.
 */
static void keep_pem(const struct acme *acme, struct site *site)
{
	const bool was_kept = site->keep_s == 0;
	struct error error;

	site->keep_s = 0;
	if (file_write_atomic(path_of(acme, host_of(site), ".pem").s, site->pem, strlen(site->pem), 0600, &error) == 0)
		return;
	site->keep_s = (int64_t)time(NULL) + acme->options.settings->retry_s;
	if (was_kept)
		log_warning("acme", "%s: its certificate is shown, but lost with a restart, until this can be written: %s",
			    host_of(site), error.message);
}

static void keep_again(struct acme *acme)
{
	const int64_t now_s = (int64_t)time(NULL);

	for (uint32_t i = 0; i < acme->n; i++) {
		struct site *site = acme->sites[i];
		if (site->keep_s > 0 && (site->keep_s <= now_s || site->keep_s > now_s + LONGEST_WAIT_S))
			keep_pem(acme, site);
	}
}

/* How long until something is to be written again. */
static uint64_t keep_wait_ms(const struct acme *acme)
{
	const int64_t now_s = (int64_t)time(NULL);
	uint64_t wait_ms = LONGEST_MS;

	for (uint32_t i = 0; i < acme->n; i++) {
		const int64_t left_s = acme->sites[i]->keep_s - now_s;
		const uint64_t left_ms = left_s > 0 ? (uint64_t)left_s * 1000 : 1000;
		wait_ms = acme->sites[i]->keep_s > 0 && left_ms < wait_ms ? left_ms : wait_ms;
	}
	return wait_ms;
}

static bool is_from(const char *pem, const char *directory)
{
	const size_t len = strlen(directory);

	return strncmp(pem, FIRST_LINE, strlen(FIRST_LINE)) == 0 && strncmp(pem + strlen(FIRST_LINE), directory, len) == 0 &&
	       pem[strlen(FIRST_LINE) + len] == '\n';
}

static void load_pem(struct acme *acme, struct site *site)
{
	struct tls_site_dates dates;
	struct error error;
	char *pem;
	size_t len;
	int r = file_read_secret(path_of(acme, host_of(site), ".pem").s, TLS_SITE_MAX_PEM, &pem, &len, &error);

	if (r == 0 && (r = check_pem(site, pem, &dates, &error)) != 0)
		free_secret(pem);
	if (r == 0) {
		show_pem(acme, site, pem, &dates);
		if (!is_from(pem, acme->options.settings->directory))
			site->next_s = 0; /* another server is asked now */
	} else if (r != -ENOENT) {
		log_warning("acme", "%s: what is kept is of no use, and another is ordered: %s", host_of(site), error.message);
	}
}

/* ---- "not before": what the server said ---- */

static void keep_wait(const struct acme *acme, const struct site *site)
{
	char text[MAX_WAIT + 1];
	struct error error;

	snprintf(text, sizeof(text), "%lld %s\n", (long long)site->next_s, acme->options.settings->directory);
	if (file_write_atomic(path_of(acme, host_of(site), ".wait").s, text, strlen(text), 0600, &error) != 0)
		log_warning("acme", "%s: after a restart it would be tried at once: %s", host_of(site), error.message);
}

static void forget_wait(const struct acme *acme, const struct site *site)
{
	struct error error;

	if (file_remove(path_of(acme, host_of(site), ".wait").s, &error) != 0)
		log_warning("acme", "%s: %s", host_of(site), error.message);
}

/* " DIRECTORY\n": what another server said is not of this one. */
static bool is_of(const char *rest, const char *directory)
{
	const size_t len = strlen(directory);

	return rest[0] == ' ' && strncmp(rest + 1, directory, len) == 0 && strcmp(rest + 1 + len, "\n") == 0;
}

/* One that is longer than a server's may be is of a clock that was wrong. */
static void load_wait(const struct acme *acme, struct site *site)
{
	const int64_t now_s = (int64_t)time(NULL);
	char *text, *end;
	size_t len;

	if (file_read(path_of(acme, host_of(site), ".wait").s, MAX_WAIT, &text, &len, NULL) != 0)
		return;
	const int64_t until_s = strtoll(text, &end, 10);
	if (end != text && is_of(end, acme->options.settings->directory) && until_s > now_s && until_s > site->next_s && until_s <= now_s + LONGEST_WAIT_S) {
		site->next_s = until_s;
		site->n_failures = 1;
		error_set(&site->failure, -EAGAIN, "the server said before the restart that it is not to be asked sooner");
	}
	free(text);
}

/* ---- the challenge ---- */

static void hide_challenge(struct acme *acme, struct site *site)
{
	if (!site->challenge_pem && site->token[0] == '\0')
		return;
	free_secret(site->challenge_pem);
	site->challenge_pem = NULL;
	site->token[0] = site->answer[0] = '\0';
	site->challenge_number = ++acme->number;
	tell_changed(acme);
}

static void show_challenge(struct acme *acme, struct site *site)
{
	const char *token = acme->fsm.authorization.token;
	struct error error;

	if (strcmp(site->token, token) == 0)
		return;
	acme_key_authorization(token, acme->thumbprint, site->answer);
	snprintf(site->token, sizeof(site->token), "%s", token);
	if (acme->fsm.challenge == ACME_TLS_ALPN_01 &&
	    acme_key_challenge(host_of(site), site->answer, &site->challenge_pem, &error) != 0) {
		acme_fsm_fail(&acme->fsm, error.message);
		return;
	}
	site->challenge_number = ++acme->number;
	tell_changed(acme);
}

/* ---- an order ---- */

static void drive(struct acme *acme);

static void end_order(struct acme *acme)
{
	struct site *site = acme->ordering;

	acme->ordering = NULL;
	free_secret(acme->key_pem);
	acme->key_pem = NULL;
	if (site)
		hide_challenge(acme, site);
}

static void order_failed(struct acme *acme, const struct error *why, uint32_t retry_after_s)
{
	struct site *site = acme->ordering;

	site->n_failures++;
	site->failure = *why;
	const uint64_t wait_ms = acme_back_off_ms(site->n_failures, acme->options.settings->retry_s, retry_after_s,
						  randombytes_random());
	site->next_s = (int64_t)time(NULL) + (int64_t)(wait_ms / 1000) + 1;
	log_warning("acme", "%s: no certificate: %s; next try in %llu s%s", host_of(site), why->message,
		    (unsigned long long)wait_ms / 1000, site->pem ? "; the one of before is shown" : "");
	if (retry_after_s > 0)
		keep_wait(acme, site);
	end_order(acme);
}

/* What came, behind the directory and the key. */
static void order_done(struct acme *acme, const char *certificate, size_t len)
{
	struct site *site = acme->ordering;
	struct tls_site_dates dates;
	struct error error;
	char *pem;

	if (asprintf(&pem, FIRST_LINE "%s\n%s%.*s", acme->fsm.url, acme->key_pem, (int)len, certificate) < 0)
		abort();
	const int64_t now_s = (int64_t)time(NULL);
	int r = strlen(pem) <= TLS_SITE_MAX_PEM ? check_pem(site, pem, &dates, &error)
						: error_set(&error, -EFBIG, "the certificate is too long");
	if (r == 0 && dates.not_after <= now_s)
		r = error_set(&error, -EINVAL, "the certificate that came has expired already: is this machine's clock right?");
	if (r != 0) {
		free_secret(pem);
		order_failed(acme, &error, 0);
		return;
	}
	show_pem(acme, site, pem, &dates);
	site->keep_s = 0;
	keep_pem(acme, site);
	/* However short its life, or wrong the clock. */
	const int64_t retry_s = acme->options.settings->retry_s, tenth_s = (dates.not_after - dates.not_before) / 10;
	const int64_t soonest_s = now_s + (retry_s > tenth_s ? retry_s : tenth_s);
	site->next_s = site->next_s > soonest_s ? site->next_s : soonest_s;
	forget_wait(acme, site);
	site->n_failures = 0;
	site->failure = (struct error){ .code = 0 };
	log_info("acme", "%s: has a certificate for %lld s", host_of(site), (long long)(dates.not_after - now_s));
	end_order(acme);
	tell_changed(acme);
}

static char *make_request(const struct acme *acme, struct error *reterr)
{
	uint8_t csr[ACME_CSR_LEN];
	size_t len;
	EVP_PKEY *key;
	char *text = NULL;

	if (acme_key_parse(acme->key_pem, &key, reterr) != 0)
		return NULL;
	if (acme_key_request(key, host_of(acme->ordering), csr, &len) == 0)
		text = acme_finalize_payload(csr, len);
	else
		error_set(reterr, -EINVAL, "the request for the certificate cannot be made");
	EVP_PKEY_free(key);
	return text;
}

/* The caller frees it; NULL with what went wrong. */
static char *make_payload(const struct acme *acme, enum acme_payload payload, struct error *reterr)
{
	switch (payload) {
	case ACME_SAYS_ACCOUNT:
		return acme_account_payload(acme->options.settings->contact);
	case ACME_SAYS_ORDER:
		return acme_order_payload(host_of(acme->ordering));
	case ACME_SAYS_READY:
		return strdup("{}");
	case ACME_SAYS_REQUEST:
		return make_request(acme, reterr);
	case ACME_SAYS_NOTHING:
		break;
	}
	return strdup("");
}

static int make_body(const struct acme *acme, const struct acme_request *request, char **ret, struct error *reterr)
{
	uint8_t signature[64];
	char *payload = make_payload(acme, request->payload, reterr);

	if (!payload)
		return -EINVAL;
	char *input = acme_signing_input(&acme->account_public, request->account, request->nonce, request->url, payload);
	int r = acme_key_sign(acme->account, input, signature);
	if (r == 0)
		*ret = acme_signed(input, signature);
	else
		error_set(reterr, r, "the question cannot be signed");
	free(input);
	free(payload);
	return r;
}

static void finish_close(struct acme *acme);

static void on_https_closed(void *owner)
{
	struct acme *acme = owner;

	acme->https = NULL;
	acme->is_https_closing = false;
	if (acme->is_closing)
		finish_close(acme);
	else
		drive(acme);
}

static void close_https(struct acme *acme)
{
	if (!acme->https || acme->is_https_closing)
		return;
	acme->is_https_closing = true;
	acme_https_close(acme->https, on_https_closed, acme);
}

static void on_answered(void *owner, const struct acme_answer *answer, const struct error *why)
{
	struct acme *acme = owner;

	if (acme->ordering && answer)
		acme_fsm_answered(&acme->fsm, now_ms(), answer);
	else if (acme->ordering)
		acme_fsm_fail(&acme->fsm, why->message);
	if (acme->ordering && acme->fsm.step == ACME_DONE)
		order_done(acme, answer->body, answer->len);
	close_https(acme);
}

static void ask(struct acme *acme, const struct acme_request *request)
{
	struct acme_https_question question = { .action = request->action,
						.url = request->url,
						.ca_file = acme->options.settings->ca_file,
						.answered = on_answered,
						.owner = acme };
	struct error error = { .message = "no memory" };
	char *body = NULL;
	int r = request->action == ACME_POST ? make_body(acme, request, &body, &error) : 0;

	question.body = body;
	if (r == 0)
		r = acme_https_ask(acme->options.tls_host, &question, &acme->https, &error);
	free(body);
	if (r != 0)
		acme_fsm_fail(&acme->fsm, error.message);
}

static void begin_order(struct acme *acme, struct site *site)
{
	struct error error;

	acme->ordering = site;
	if (load_account_key(acme, &error) != 0 || acme_key_generate(&acme->key_pem, &error) != 0) {
		acme->key_pem = NULL;
		order_failed(acme, &error, 0);
		return;
	}
	log_info("acme", "%s: a certificate is ordered at %s by %s", host_of(site), acme->options.settings->directory,
		 acme_challenge_name(acme->options.settings->challenge));
	acme_fsm_init(&acme->fsm, acme->options.settings->directory, acme->options.settings->challenge, now_ms());
}

/* ---- which is next ---- */

/* What of the settings or exposures stands in the way; "": nothing. */
static const char *obstacle_of(const struct acme *acme, const struct site *site)
{
	if (!acme->options.settings->agrees)
		return "nothing is asked of an ACME server before its terms are agreed to: read them, and write agree_terms = yes into "
		       "[acme] of p2pnode.conf";
	if (acme->options.settings->challenge == ACME_HTTP_01 && !site->has_http)
		return "the challenge http-01 is asked for by HTTP, and the host is published for HTTPS alone: publish it without "
		       "https://, or write challenge = tls-alpn-01 into [acme] of p2pnode.conf";
	return "";
}

/* The first that is due and may be; *wait_ms: how long until the next is. */
static struct site *next_due(struct acme *acme, uint64_t *wait_ms)
{
	const int64_t now_s = (int64_t)time(NULL);

	*wait_ms = LONGEST_MS;
	for (uint32_t i = 0; i < acme->n; i++) {
		struct site *site = acme->sites[i];
		uint64_t wait = LONGEST_MS;
		site->is_waiting = false;
		/* A clock that was wrong may have said when. */
		const bool is_mistaken = site->n_failures > 0 && site->next_s > now_s + LONGEST_WAIT_S;
		if (site->next_s > now_s && !is_mistaken)
			wait = (uint64_t)(site->next_s - now_s) * 1000;
		else if (obstacle_of(acme, site)[0] != '\0')
			continue;
		else if (acme->options.is_led_here(acme->options.owner, &site->exposure))
			return site;
		else {
			site->is_waiting = true;
			wait = WAIT_MS;
		}
		*wait_ms = wait < *wait_ms ? wait : *wait_ms;
	}
	return NULL;
}

static void on_timer(uv_timer_t *timer)
{
	drive(container_of(timer, struct acme, timer));
}

static void plan(struct acme *acme)
{
	uint64_t wait_ms;
	struct site *site;

	keep_again(acme);
	while (!acme->ordering && (site = next_due(acme, &wait_ms)))
		begin_order(acme, site);
	if (acme->ordering)
		return;
	const uint64_t keep_ms = keep_wait_ms(acme);
	uv_timer_start(&acme->timer, on_timer, keep_ms < wait_ms ? keep_ms : wait_ms, 0);
}

/* As far as it goes without waiting. */
static void drive(struct acme *acme)
{
	if (acme->https || acme->is_closing)
		return; /* it comes again */
	for (;;) {
		plan(acme);
		if (!acme->ordering)
			return;
		if (acme->fsm.shows)
			show_challenge(acme, acme->ordering);
		const struct acme_request request = acme_fsm_next(&acme->fsm, now_ms());
		if (request.action == ACME_END) {
			const struct error why = acme->fsm.failure;
			order_failed(acme, &why, acme->fsm.retry_after_s);
		} else if (request.action == ACME_WAIT) {
			const uint64_t now = now_ms();
			uv_timer_start(&acme->timer, on_timer, request.wait_ms > now ? request.wait_ms - now : 0, 0);
			return;
		} else {
			ask(acme, &request);
			if (acme->https)
				return;
		}
	}
}

/* ---- from outside ---- */

struct acme *acme_new(const struct acme_options *options)
{
	struct acme *acme = calloc(1, sizeof(*acme));

	if (!acme)
		abort();
	acme->options = *options;
	acme->options.folder = NULL;
	snprintf(acme->folder, sizeof(acme->folder), "%s", options->folder);
	uv_timer_init(tls_host_loop(options->tls_host), &acme->timer);
	return acme;
}

static void free_site(struct site *site)
{
	free_secret(site->pem);
	free_secret(site->challenge_pem);
	free(site);
}

static struct site *find_site(const struct acme *acme, const struct host_name *host)
{
	for (uint32_t i = 0; i < acme->n; i++)
		if (host_name_equal(&acme->sites[i]->exposure.host.name, host))
			return acme->sites[i];
	return NULL;
}

static struct site *make_site(struct acme *acme, const struct exposure *exposure)
{
	struct site *site = calloc(1, sizeof(*site));

	if (!site)
		abort();
	memcpy(&site->exposure, exposure, sizeof(*exposure)); /* they are compared as bytes */
	load_pem(acme, site);
	load_wait(acme, site);
	return site;
}

/* That are not among the next any more. */
static void free_left_out(struct acme *acme, struct site *const *next, uint32_t n)
{
	for (uint32_t i = 0; i < acme->n; i++) {
		bool stays = false;
		for (uint32_t j = 0; j < n; j++)
			stays = stays || next[j] == acme->sites[i];
		if (stays)
			continue;
		if (acme->ordering == acme->sites[i]) {
			acme->ordering = NULL;
			end_order(acme);
			close_https(acme);
		}
		free_site(acme->sites[i]);
	}
}

/* Is it served for HTTP here as well, by this exposure or another? */
static bool has_http(const struct exposure *exposures, uint32_t n, const struct host_name *host)
{
	bool has = false;

	for (uint32_t i = 0; i < n; i++)
		has = has || (exposures[i].takes[DOOR_HTTP] && !exposures[i].host.is_wildcard &&
			      host_name_equal(&exposures[i].host.name, host));
	return has;
}

/* Once each. */
static void log_obstacles(const struct acme *acme)
{
	for (uint32_t i = 0; i < acme->n; i++) {
		struct site *site = acme->sites[i];
		const char *obstacle = obstacle_of(acme, site);
		if (obstacle[0] != '\0' && !site->is_obstacle_told)
			log_warning("acme", "%s: no certificate is ordered: %s", host_of(site), obstacle);
		site->is_obstacle_told = obstacle[0] != '\0';
	}
}

void acme_set_exposures(struct acme *acme, const struct exposure *exposures, uint32_t n)
{
	struct site *next[EXPOSURE_MAX];
	uint32_t n_next = 0;

	assert(n <= EXPOSURE_MAX);
	for (uint32_t i = 0; i < n; i++) {
		if (exposures[i].tls != EXPOSURE_TLS_ACME)
			continue;
		struct site *site = find_site(acme, &exposures[i].host.name);
		if (!site)
			site = make_site(acme, &exposures[i]);
		memcpy(&site->exposure, &exposures[i], sizeof(site->exposure));
		site->has_http = has_http(exposures, n, &exposures[i].host.name);
		next[n_next++] = site;
	}
	free_left_out(acme, next, n_next);
	if (n_next > 0)
		memcpy(acme->sites, next, n_next * sizeof(*next));
	acme->n = n_next;
	log_obstacles(acme);
	uv_timer_start(&acme->timer, on_timer, 0, 0);
}

bool acme_find(const struct acme *acme, const struct host_name *host, struct acme_site *ret)
{
	const struct site *site = find_site(acme, host);

	if (!site)
		return false;
	const bool is_ordering = acme->ordering == site, is_http = site->token[0] != '\0' && !site->challenge_pem;
	*ret = (struct acme_site){ .pem = site->pem,
				   .pem_number = site->pem_number,
				   .challenge_pem = site->challenge_pem,
				   .token = is_http ? site->token : NULL,
				   .answer = is_http ? site->answer : NULL,
				   .challenge_number = site->challenge_number,
				   .is_ordering = is_ordering,
				   .is_waiting = site->is_waiting,
				   .challenge = acme->options.settings->challenge,
				   .step = is_ordering ? acme_step_name(acme->fsm.step) : "",
				   .failure = site->failure.message,
				   .n_failures = site->n_failures,
				   .next_s = site->next_s,
				   .obstacle = obstacle_of(acme, site) };
	return true;
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct acme *acme = container_of((uv_timer_t *)handle, struct acme, timer);
	void (*closed)(void *owner) = acme->closed;
	void *owner = acme->closed_owner;

	for (uint32_t i = 0; i < acme->n; i++)
		free_site(acme->sites[i]);
	EVP_PKEY_free(acme->account);
	free(acme);
	if (closed)
		closed(owner);
}

static void finish_close(struct acme *acme)
{
	uv_close((uv_handle_t *)&acme->timer, on_timer_closed);
}

void acme_close(struct acme *acme, void (*closed)(void *owner), void *owner)
{
	acme->is_closing = true;
	acme->closed = closed;
	acme->closed_owner = owner;
	uv_timer_stop(&acme->timer);
	end_order(acme);
	if (acme->https)
		close_https(acme);
	else
		finish_close(acme);
}
