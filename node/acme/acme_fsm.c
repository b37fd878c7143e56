#include "node/acme/acme_fsm.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FIRST_POLL_MS 1000
#define MAX_POLL_MS   8000

const char *acme_step_name(enum acme_step step)
{
	static const char *const names[ACME_N_STEPS] = {
		[ACME_DIRECTORY] = "asking for the directory",
		[ACME_ACCOUNT] = "asking for the account",
		[ACME_ORDER] = "ordering",
		[ACME_AUTHORIZATION] = "asking for the challenge",
		[ACME_CHALLENGE] = "saying that the challenge is answered",
		[ACME_VALIDATING] = "waiting for the server to check the answer",
		[ACME_FINALIZING] = "sending the request for the certificate",
		[ACME_ISSUING] = "waiting for the certificate",
		[ACME_CERTIFICATE] = "fetching the certificate",
		[ACME_DONE] = "done",
		[ACME_FAILED] = "failed",
	};

	return step < ACME_N_STEPS ? names[step] : NULL;
}

void acme_fsm_init(struct acme_fsm *fsm, const char *directory, enum acme_challenge challenge, uint64_t now_ms)
{
	memset(fsm, 0, sizeof(*fsm));
	fsm->challenge = challenge;
	fsm->deadline_ms = now_ms + ACME_ORDER_MS;
	snprintf(fsm->url, sizeof(fsm->url), "%s", directory);
}

static void fail(struct acme_fsm *fsm, uint32_t retry_after_s)
{
	fsm->step = ACME_FAILED;
	fsm->shows = false;
	fsm->retry_after_s = retry_after_s;
}

void acme_fsm_fail(struct acme_fsm *fsm, const char *why)
{
	if (fsm->step == ACME_FAILED)
		return;
	error_set(&fsm->failure, -EIO, "%s: %s", acme_step_name(fsm->step), why);
	fail(fsm, 0);
}

/* ---- what is asked ---- */

static struct acme_request post(const struct acme_fsm *fsm, const char *url, enum acme_payload payload)
{
	if (fsm->nonce[0] == '\0')
		return (struct acme_request){ .action = ACME_HEAD, .url = fsm->directory.new_nonce };
	return (struct acme_request){ .action = ACME_POST, .url = url, .payload = payload, .account = fsm->account,
				      .nonce = fsm->nonce };
}

struct acme_request acme_fsm_next(struct acme_fsm *fsm, uint64_t now_ms)
{
	const bool is_over = fsm->step == ACME_DONE || fsm->step == ACME_FAILED;

	if (!is_over && now_ms >= fsm->deadline_ms)
		acme_fsm_fail(fsm, "the server has not come to an end in ten minutes");
	else if (!is_over && now_ms < fsm->wait_ms)
		return (struct acme_request){ .action = ACME_WAIT,
					      .wait_ms = fsm->wait_ms < fsm->deadline_ms ? fsm->wait_ms : fsm->deadline_ms };
	switch (fsm->step) {
	case ACME_DIRECTORY:
		return (struct acme_request){ .action = ACME_GET, .url = fsm->url };
	case ACME_ACCOUNT:
		return post(fsm, fsm->directory.new_account, ACME_SAYS_ACCOUNT);
	case ACME_ORDER:
		return post(fsm, fsm->directory.new_order, ACME_SAYS_ORDER);
	case ACME_AUTHORIZATION:
	case ACME_VALIDATING:
		return post(fsm, fsm->order.authorization, ACME_SAYS_NOTHING);
	case ACME_CHALLENGE:
		return post(fsm, fsm->authorization.challenge, ACME_SAYS_READY);
	case ACME_FINALIZING:
		return post(fsm, fsm->order.finalize, ACME_SAYS_REQUEST);
	case ACME_ISSUING:
		return post(fsm, fsm->order_url, ACME_SAYS_NOTHING);
	case ACME_CERTIFICATE:
		return post(fsm, fsm->order.certificate, ACME_SAYS_NOTHING);
	case ACME_DONE:
	case ACME_FAILED:
	case ACME_N_STEPS:
		break;
	}
	return (struct acme_request){ .action = ACME_END };
}

/* ---- what has come ---- */

static void go(struct acme_fsm *fsm, enum acme_step step)
{
	fsm->step = step;
	fsm->n_polls = 0;
	fsm->wait_ms = 0;
}

/* The same again, later. */
static void poll_again(struct acme_fsm *fsm, uint64_t now_ms, const struct acme_answer *answer)
{
	const uint64_t own_ms = fsm->n_polls < 3 ? (uint64_t)FIRST_POLL_MS << fsm->n_polls : MAX_POLL_MS;

	fsm->n_polls++;
	fsm->wait_ms = now_ms + (answer->retry_after_s > 0 ? answer->retry_after_s * UINT64_C(1000) : own_ms);
}

static void fail_with(struct acme_fsm *fsm, const struct acme_problem *problem, const char *what, uint32_t retry_after_s)
{
	error_set(&fsm->failure, -EIO, "%s%s%s%s%s", what, problem->type[0] ? ": " : "", problem->type,
		  problem->detail[0] ? ": " : "", problem->detail);
	fail(fsm, retry_after_s);
}

static void refused(struct acme_fsm *fsm, const struct acme_answer *answer)
{
	const struct acme_problem problem = acme_problem_parse(answer->body, answer->len);
	char what[96];

	if (strcmp(problem.type, "badNonce") == 0 && fsm->nonce[0] != '\0' && ++fsm->n_bad_nonces <= ACME_MAX_BAD_NONCES)
		return; /* the same again, with the nonce that came */
	snprintf(what, sizeof(what), "%s: the server refused it, with HTTP status %u", acme_step_name(fsm->step), answer->status);
	fail_with(fsm, &problem, what, answer->retry_after_s);
}

static void no_url(struct acme_fsm *fsm)
{
	acme_fsm_fail(fsm, "its answer has no https URL as Location");
}

/* From Location. */
static bool take_location(const struct acme_answer *answer, char ret[ACME_URL_LEN + 1])
{
	struct acme_url url;

	if (acme_url_parse(answer->location, &url) != 0)
		return false;
	snprintf(ret, ACME_URL_LEN + 1, "%s", answer->location);
	return true;
}

static void took_directory(struct acme_fsm *fsm, const struct acme_answer *answer)
{
	struct error error;

	if (acme_directory_parse(answer->body, answer->len, &fsm->directory, &error) != 0)
		acme_fsm_fail(fsm, error.message);
	else if (fsm->directory.wants_external_account)
		acme_fsm_fail(fsm, "the server wants accounts that were made elsewhere (external account binding), which is not supported");
	else
		go(fsm, ACME_ACCOUNT);
}

static void step_by_order(struct acme_fsm *fsm, uint64_t now_ms, const struct acme_answer *answer)
{
	switch (fsm->order.status) {
	case ACME_PENDING:
		go(fsm, ACME_AUTHORIZATION);
		break;
	case ACME_READY:
		go(fsm, ACME_FINALIZING);
		break;
	case ACME_VALID:
		go(fsm, ACME_CERTIFICATE);
		break;
	case ACME_PROCESSING:
		fsm->step = ACME_ISSUING;
		poll_again(fsm, now_ms, answer);
		break;
	case ACME_INVALID:
	case ACME_OVER:
		fail_with(fsm, &fsm->order.problem, "the server will not issue the certificate", answer->retry_after_s);
		break;
	}
}

static void took_order(struct acme_fsm *fsm, uint64_t now_ms, const struct acme_answer *answer)
{
	const bool was_asked_for = fsm->step == ACME_FINALIZING || fsm->step == ACME_ISSUING;
	struct error error;

	if (acme_order_parse(answer->body, answer->len, &fsm->order, &error) != 0)
		acme_fsm_fail(fsm, error.message);
	else if (was_asked_for && (fsm->order.status == ACME_PENDING || fsm->order.status == ACME_READY)) {
		/* Some tell so until they have taken the request up; it is not sent twice. */
		fsm->step = ACME_ISSUING;
		poll_again(fsm, now_ms, answer);
	} else
		step_by_order(fsm, now_ms, answer);
}

static void not_offered(struct acme_fsm *fsm)
{
	char why[96];

	snprintf(why, sizeof(why), "the server does not offer the challenge %s", acme_challenge_name(fsm->challenge));
	acme_fsm_fail(fsm, why);
}

static void took_authorization(struct acme_fsm *fsm, uint64_t now_ms, const struct acme_answer *answer)
{
	struct acme_authorization now;
	struct error error;

	if (acme_authorization_parse(answer->body, answer->len, fsm->challenge, &now, &error) != 0) {
		acme_fsm_fail(fsm, error.message);
		return;
	}
	if (now.status == ACME_VALID)
		go(fsm, ACME_FINALIZING);
	else if (now.status == ACME_INVALID || now.status == ACME_OVER)
		fail_with(fsm, &now.problem, "the challenge has failed", answer->retry_after_s);
	else if (fsm->step == ACME_VALIDATING)
		poll_again(fsm, now_ms, answer); /* what is shown stays, whatever it names now */
	else if (now.token[0] == '\0')
		not_offered(fsm);
	else {
		fsm->authorization = now;
		go(fsm, ACME_CHALLENGE);
		fsm->shows = true;
	}
}

static void took(struct acme_fsm *fsm, uint64_t now_ms, const struct acme_answer *answer)
{
	switch (fsm->step) {
	case ACME_DIRECTORY:
		took_directory(fsm, answer);
		break;
	case ACME_ACCOUNT:
		if (take_location(answer, fsm->account))
			go(fsm, ACME_ORDER);
		else
			no_url(fsm);
		break;
	case ACME_ORDER:
		if (take_location(answer, fsm->order_url))
			took_order(fsm, now_ms, answer);
		else
			no_url(fsm);
		break;
	case ACME_AUTHORIZATION:
	case ACME_VALIDATING:
		took_authorization(fsm, now_ms, answer);
		break;
	case ACME_CHALLENGE:
		go(fsm, ACME_VALIDATING);
		poll_again(fsm, now_ms, answer);
		break;
	case ACME_FINALIZING:
	case ACME_ISSUING:
		took_order(fsm, now_ms, answer);
		break;
	case ACME_CERTIFICATE:
		go(fsm, ACME_DONE);
		fsm->shows = false;
		break;
	case ACME_DONE:
	case ACME_FAILED:
	case ACME_N_STEPS:
		break;
	}
}

void acme_fsm_answered(struct acme_fsm *fsm, uint64_t now_ms, const struct acme_answer *answer)
{
	const bool asked_nonce = fsm->step != ACME_DIRECTORY && fsm->nonce[0] == '\0'; /* post() */
	const size_t len = strlen(answer->nonce);

	fsm->nonce[0] = '\0'; /* each is good once */
	if (len <= ACME_NONCE_LEN && acme_is_base64url(answer->nonce, len))
		memcpy(fsm->nonce, answer->nonce, len + 1);
	if (answer->status < 200 || answer->status > 299)
		refused(fsm, answer);
	else if (asked_nonce && fsm->nonce[0] == '\0')
		acme_fsm_fail(fsm, "the server gives no nonce");
	else if (!asked_nonce) {
		fsm->n_bad_nonces = 0;
		took(fsm, now_ms, answer);
	}
}

/* ---- when ---- */

uint64_t acme_back_off_ms(unsigned n, uint32_t first_s, uint32_t retry_after_s, uint32_t random)
{
	uint64_t ms = first_s * UINT64_C(1000);

	for (unsigned i = 1; i < n && ms < ACME_MAX_BACK_OFF_S * UINT64_C(1000); i++)
		ms *= 2;
	if (ms > ACME_MAX_BACK_OFF_S * UINT64_C(1000))
		ms = ACME_MAX_BACK_OFF_S * UINT64_C(1000);
	ms += random % (ms / 4 + 1);
	return ms > retry_after_s * UINT64_C(1000) ? ms : retry_after_s * UINT64_C(1000);
}

int64_t acme_renewal_s(int64_t not_before, int64_t not_after, uint32_t random)
{
	const int64_t life = not_after - not_before;

	return not_after - life / 3 - (int64_t)(random % ((uint64_t)(life > 0 ? life : 0) / 30 + 1));
}
