/*
 * One order of ACME (RFC 8555), from the directory to the certificate; when it is tried again, and when renewed.
 *
 *   DIRECTORY ─► ACCOUNT ─► ORDER ─► AUTHORIZATION ─► CHALLENGE ─► VALIDATING ─► FINALIZING ─► ISSUING ─► CERTIFICATE ─► DONE
 *                             │           │valid already                           ▲    ▲           │
 *                             │           └────────────────────────────────────────┘    │ ready     │ processing: asked again
 *                             └─────────────────────────────────────────────────────────┘ (Retry-After, else 1, 2, 4, 8 s)
 *
 *   any ── no answer, a refusal, "invalid", too late ──► FAILED: after which time the next may begin
 *
 * What is signed needs a nonce: each answer brings one, else newNonce is asked. badNonce: the same again with the nonce that came
 * with the refusal, ACME_MAX_BAD_NONCES times in a row. Who has to wait by Retry-After waits, also when refused (rateLimited).
 * The answer of the challenge is shown from CHALLENGE on until the order's end.
 *
 * The account is asked for each time: to a key that it knows the server says its URL (RFC 8555, section 7.3), so nothing is kept.
 *
 * Time in milliseconds of a clock that does not go back. No I/O, no clock.
 */
#pragma once

#include "node/acme/acme_wire.h"

#define ACME_ORDER_MS	    (10u * 60 * 1000) /* an order takes no longer */
#define ACME_MAX_BAD_NONCES 10
#define ACME_MAX_BACK_OFF_S (6u * 3600)

enum acme_step {
	ACME_DIRECTORY, ACME_ACCOUNT, ACME_ORDER, ACME_AUTHORIZATION, ACME_CHALLENGE, ACME_VALIDATING, ACME_FINALIZING, ACME_ISSUING,
	ACME_CERTIFICATE, ACME_DONE, ACME_FAILED, ACME_N_STEPS
};

/* For people: "asking for the directory". */
const char *acme_step_name(enum acme_step step);

/* What is to be said in a POST. */
enum acme_payload { ACME_SAYS_ACCOUNT, ACME_SAYS_ORDER, ACME_SAYS_NOTHING, ACME_SAYS_READY, ACME_SAYS_REQUEST };

enum acme_action { ACME_WAIT, ACME_GET, ACME_HEAD, ACME_POST, ACME_END };

struct acme_request {
	enum acme_action action;
	uint64_t wait_ms;	   /* ACME_WAIT: until then */
	const char *url;	   /* borrowed until the next answer; as all here */
	enum acme_payload payload; /* ACME_POST … */
	const char *account, *nonce;
};

/* What has come; texts are borrowed, and end with NUL. "": it was not there. */
struct acme_answer {
	unsigned status;
	const char *nonce, *location;
	uint32_t retry_after_s; /* 0: none */
	const char *body;
	size_t len;
};

struct acme_fsm {
	enum acme_step step;
	enum acme_challenge challenge;
	char url[ACME_URL_LEN + 1]; /* of the directory */
	struct acme_directory directory;
	char nonce[ACME_NONCE_LEN + 1]; /* "": none is left */
	char account[ACME_URL_LEN + 1], order_url[ACME_URL_LEN + 1];
	struct acme_order order;
	struct acme_authorization authorization;
	uint64_t deadline_ms, wait_ms;
	unsigned n_polls, n_bad_nonces;
	bool shows; /* the answer to authorization.token */
	struct error failure; /* ACME_FAILED … */
	uint32_t retry_after_s;
};

void acme_fsm_init(struct acme_fsm *fsm, const char *directory, enum acme_challenge challenge, uint64_t now_ms);
struct acme_request acme_fsm_next(struct acme_fsm *fsm, uint64_t now_ms);
/* To what acme_fsm_next() asked. ACME_DONE: the body is the certificate, with those that signed it. */
void acme_fsm_answered(struct acme_fsm *fsm, uint64_t now_ms, const struct acme_answer *answer);
/* There is none, or it is of no use. */
void acme_fsm_fail(struct acme_fsm *fsm, const char *why);

/*
 * How long nothing is asked after n > 0 failures in a row: first_s, twice as long each time, six hours at most, and up to a quarter
 * longer by chance; not less than the server said.
 */
uint64_t acme_back_off_ms(unsigned n, uint32_t first_s, uint32_t retry_after_s, uint32_t random);
/* When a certificate is to be renewed: a third of its life before its end, and up to a thirtieth earlier by chance. */
int64_t acme_renewal_s(int64_t not_before, int64_t not_after, uint32_t random);
