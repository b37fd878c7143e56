/* One order of ACME: the server is played by the test, and time is its own. */
#include "node/acme/acme_fsm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIRECTORY \
	"{\"newNonce\":\"https://ca/nonce\",\"newAccount\":\"https://ca/account\",\"newOrder\":\"https://ca/order\"}"
#define AUTHORIZATION(status)                                                                                                       \
	"{\"status\":\"" status "\",\"challenges\":[{\"type\":\"http-01\",\"url\":\"https://ca/c1\",\"token\":\"dG9rZW4\"},"             \
	"{\"type\":\"tls-alpn-01\",\"url\":\"https://ca/c2\",\"token\":\"b3RoZXI\"}]}"
#define ORDER_WITH(status, more)                                                                                                   \
	"{\"status\":\"" status "\",\"authorizations\":[\"https://ca/authz\"],\"finalize\":\"https://ca/finalize\"" more "}"
#define ORDER(status) ORDER_WITH(status, "")
#define VALID	      ORDER_WITH("valid", ",\"certificate\":\"https://ca/certificate\"")
#define PROBLEM(type) "{\"type\":\"urn:ietf:params:acme:error:" type "\",\"detail\":\"said so\"}"

static struct acme_fsm fsm;
static uint64_t now_ms;
static unsigned n_nonces; /* asked for */

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s (%s: %s)\n", line, what, acme_step_name(fsm.step), fsm.failure.message);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static void begin(enum acme_challenge challenge)
{
	now_ms = 1000000;
	n_nonces = 0;
	acme_fsm_init(&fsm, "https://ca/directory", challenge, now_ms);
}

static void answer_full(unsigned status, const char *body, uint32_t retry_after_s, const char *nonce)
{
	const struct acme_answer answer = { .status = status,
					    .nonce = nonce,
					    .location = "https://ca/at",
					    .retry_after_s = retry_after_s,
					    .body = body,
					    .len = strlen(body) };

	acme_fsm_answered(&fsm, now_ms, &answer);
}

/* The next question is this one; nonces are given in between. */
static void is_asked(const char *url, enum acme_payload payload, int line)
{
	struct acme_request request = acme_fsm_next(&fsm, now_ms);

	while (request.action == ACME_WAIT) {
		now_ms = request.wait_ms;
		request = acme_fsm_next(&fsm, now_ms);
	}
	if (request.action == ACME_HEAD) {
		n_nonces++;
		answer_full(200, "", 0, "bm9uY2U");
		request = acme_fsm_next(&fsm, now_ms);
	}
	expect(request.action == ACME_POST && strcmp(request.url, url) == 0 && request.payload == payload, url, line);
}
#define ASKED(url, payload) is_asked(url, payload, __LINE__)

static void answer(const char *body)
{
	answer_full(200, body, 0, "YW5vdGhlcg");
}

static void until_ordered(enum acme_challenge challenge)
{
	begin(challenge);
	EXPECT(acme_fsm_next(&fsm, now_ms).action == ACME_GET);
	answer_full(200, DIRECTORY, 0, "");
	ASKED("https://ca/account", ACME_SAYS_ACCOUNT);
	EXPECT(acme_fsm_next(&fsm, now_ms).account[0] == '\0'); /* the key says who it is */
	answer("{\"status\":\"valid\"}");
	ASKED("https://ca/order", ACME_SAYS_ORDER);
	EXPECT(strcmp(acme_fsm_next(&fsm, now_ms).account, "https://ca/at") == 0);
}

static void until_challenged(enum acme_challenge challenge)
{
	until_ordered(challenge);
	answer(ORDER("pending"));
	ASKED("https://ca/authz", ACME_SAYS_NOTHING);
	EXPECT(!fsm.shows);
	answer(AUTHORIZATION("pending"));
}

static void an_order_goes_from_the_directory_to_the_certificate(void)
{
	until_challenged(ACME_HTTP_01);
	EXPECT(fsm.shows && strcmp(fsm.authorization.token, "dG9rZW4") == 0);
	ASKED("https://ca/c1", ACME_SAYS_READY);
	answer("{}");
	ASKED("https://ca/authz", ACME_SAYS_NOTHING);
	answer(AUTHORIZATION("pending"));
	ASKED("https://ca/authz", ACME_SAYS_NOTHING);
	answer(AUTHORIZATION("valid"));
	ASKED("https://ca/finalize", ACME_SAYS_REQUEST);
	answer(ORDER("processing"));
	ASKED("https://ca/at", ACME_SAYS_NOTHING);
	answer(VALID);
	ASKED("https://ca/certificate", ACME_SAYS_NOTHING);
	answer("PEM");
	EXPECT(fsm.step == ACME_DONE && !fsm.shows && n_nonces == 1 && acme_fsm_next(&fsm, now_ms).action == ACME_END);
}

static void the_challenge_is_the_one_that_is_wanted(void)
{
	until_challenged(ACME_TLS_ALPN_01);
	EXPECT(strcmp(fsm.authorization.token, "b3RoZXI") == 0);
	ASKED("https://ca/c2", ACME_SAYS_READY);
}

static void what_is_authorized_already_is_not_challenged(void)
{
	until_ordered(ACME_HTTP_01);
	answer(ORDER("pending"));
	answer(AUTHORIZATION("valid"));
	ASKED("https://ca/finalize", ACME_SAYS_REQUEST);
	until_ordered(ACME_HTTP_01);
	answer(ORDER("ready"));
	ASKED("https://ca/finalize", ACME_SAYS_REQUEST);
	EXPECT(!fsm.shows);
}

static void a_bad_nonce_is_tried_again_with_the_new_one_and_not_for_ever(void)
{
	until_ordered(ACME_HTTP_01);
	for (int i = 0; i < ACME_MAX_BAD_NONCES; i++) {
		answer_full(400, PROBLEM("badNonce"), 0, "bmV4dA");
		ASKED("https://ca/order", ACME_SAYS_ORDER);
		EXPECT(strcmp(acme_fsm_next(&fsm, now_ms).nonce, "bmV4dA") == 0);
	}
	EXPECT(n_nonces == 1);
	answer_full(400, PROBLEM("badNonce"), 0, "bmV4dA");
	EXPECT(fsm.step == ACME_FAILED && strstr(fsm.failure.message, "badNonce"));
}

static void a_refusal_ends_the_order_and_says_when_to_come_again(void)
{
	until_ordered(ACME_HTTP_01);
	answer_full(429, PROBLEM("rateLimited"), 3600, "bmV4dA");
	EXPECT(fsm.step == ACME_FAILED && fsm.retry_after_s == 3600 && strstr(fsm.failure.message, "rateLimited: said so"));
}

static void a_failed_challenge_ends_the_order_and_is_not_shown_any_more(void)
{
	until_challenged(ACME_HTTP_01);
	answer("{}");
	now_ms += 1000;
	answer("{\"status\":\"invalid\",\"challenges\":[{\"type\":\"http-01\",\"url\":\"https://ca/c1\",\"token\":\"dG9rZW4\",\"error\":"
	       PROBLEM("connection") "}]}");
	EXPECT(fsm.step == ACME_FAILED && !fsm.shows && strstr(fsm.failure.message, "connection: said so"));
}

static void retry_after_is_kept_to_when_polling(void)
{
	until_challenged(ACME_HTTP_01);
	answer_full(200, "{}", 7, "bmV4dA");
	const struct acme_request request = acme_fsm_next(&fsm, now_ms);
	EXPECT(request.action == ACME_WAIT && request.wait_ms == now_ms + 7000);
}

static void an_order_without_end_ends(void)
{
	const uint64_t began_ms = 1000000;
	unsigned n = 0;

	until_challenged(ACME_HTTP_01);
	answer("{}");
	while (fsm.step == ACME_VALIDATING && n < 1000) {
		const struct acme_request request = acme_fsm_next(&fsm, now_ms);
		if (request.action == ACME_WAIT)
			now_ms = request.wait_ms;
		else if (request.action == ACME_POST && ++n)
			answer(AUTHORIZATION("pending"));
	}
	EXPECT(fsm.step == ACME_FAILED && now_ms <= began_ms + ACME_ORDER_MS && n < 100);
}

static void tries_are_ever_rarer_up_to_a_bound(void)
{
	EXPECT(acme_back_off_ms(1, 60, 0, 0) == 60000 && acme_back_off_ms(2, 60, 0, 0) == 120000);
	EXPECT(acme_back_off_ms(100, 60, 0, 0) == ACME_MAX_BACK_OFF_S * 1000);
	EXPECT(acme_back_off_ms(1, 60, 0, UINT32_MAX) <= 75000 && acme_back_off_ms(1, 60, 7200, 0) == 7200000);
}

static void a_certificate_is_renewed_when_a_third_of_its_life_is_left(void)
{
	const int64_t day = 86400;

	EXPECT(acme_renewal_s(0, 90 * day, 0) == 60 * day);
	EXPECT(acme_renewal_s(0, 90 * day, UINT32_MAX) >= 57 * day && acme_renewal_s(0, 90 * day, UINT32_MAX) <= 60 * day);
	EXPECT(acme_renewal_s(1000, 1030, 0) == 1020);
}

int main(void)
{
	an_order_goes_from_the_directory_to_the_certificate();
	the_challenge_is_the_one_that_is_wanted();
	what_is_authorized_already_is_not_challenged();
	a_bad_nonce_is_tried_again_with_the_new_one_and_not_for_ever();
	a_refusal_ends_the_order_and_says_when_to_come_again();
	a_failed_challenge_ends_the_order_and_is_not_shown_any_more();
	retry_after_is_kept_to_when_polling();
	an_order_without_end_ends();
	tries_are_ever_rarer_up_to_a_bound();
	a_certificate_is_renewed_when_a_third_of_its_life_is_left();
	return 0;
}
