/*
 * One question to an ACME server over HTTPS, and its answer.
 *
 *   name ── look up ──► addresses, one after the other ──► TLS: certificate of the name? ──► request ──► answer, whole
 *
 * The server must show a certificate for the URL's host, signed by one of the system's CAs, or by those of ca_file alone. Nothing is
 * followed elsewhere. Bounds: 30 s in all, ACME_MAX_ANSWER bytes of body. Loop only, and it never waits there.
 */
#pragma once

#include "common/tls_stream.h"
#include "node/acme/acme_fsm.h"

struct acme_https;

struct acme_https_question {
	enum acme_action action; /* ACME_GET, ACME_HEAD, ACME_POST */
	const char *url, *body;	 /* borrowed; body: of a POST */
	const char *ca_file;	 /* "": the system's CAs */
	/* Once, from the loop: answer, or NULL and why. Both borrowed. The owner then closes it, there or later. */
	void (*answered)(void *owner, const struct acme_answer *answer, const struct error *why);
	void *owner;
};

/* 0, or -EINVAL with what is wrong: then nothing is to be closed. */
P2P_CHECK int acme_https_ask(struct tls_host *host, const struct acme_https_question *question, struct acme_https **ret,
			     struct error *reterr);
/* Frees itself from the loop, then calls closed (may be NULL). */
void acme_https_close(struct acme_https *https, void (*closed)(void *owner), void *owner);
