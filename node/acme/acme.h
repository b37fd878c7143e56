/*
 * Certificates by ACME for hosts that this node publishes: ordered, kept on disk, renewed.
 *
 *   exposures with tls=acme ──► a site each:  disk ──► is it there, and good for long enough? ──yes──► shown, until it is to be renewed
 *                                                             │no                                         ▲
 *                                                             ▼                                           │
 *        one order at a time:  acme_fsm ══ acme_https ══► ACME server                                     │
 *                                │  └── challenge: shown by the acceptor, to whom front doors lead ◄── asked by the server
 *                                ├── certificate ──► checked against its key and the host ──► disk ───────┘
 *                                └── failed ──► later: acme_back_off_ms(); a certificate of before stays
 *
 * Nothing is asked of a server before its terms are agreed to (agree_terms = yes), nor for a host whose visitors are not led here yet:
 * the server would find nobody.
 *
 * On disk, in folder: account.key; HOST.pem, key and certificate in one file, so that one is never there without the other, with the
 * directory that it is from in its first line; HOST.wait, until when the server wants to be left alone. All 0600, and replaced whole.
 *
 * Loop only.
 */
#pragma once

#include "common/tls_stream.h"
#include "node/acme/acme_wire.h"
#include "node/expose/tls_site.h"
#include "node/exposure.h"

#define ACME_PATH_LEN	       255
#define ACME_DEFAULT_DIRECTORY "https://acme-v02.api.letsencrypt.org/directory"

struct acme;

struct acme_settings {
	char directory[ACME_URL_LEN + 1];
	char contact[ACME_CONTACT_LEN + 1]; /* "": none */
	char ca_file[ACME_PATH_LEN + 1];    /* "": the system's CAs */
	enum acme_challenge challenge;
	bool agrees; /* to the server's terms */
	uint32_t retry_s;
};

struct acme_options {
	struct tls_host *tls_host;
	const struct acme_settings *settings; /* borrowed, as long as it lives */
	const char *folder;		      /* copied */
	/* Are the visitors of this exposure led here? */
	bool (*is_led_here)(void *owner, const struct exposure *exposure);
	/* Something else is to be shown: acme_find() says what. */
	void (*changed)(void *owner);
	void *owner;
};

/* What is known of a host. Texts are borrowed until the loop turns. */
struct acme_site {
	const char *pem;	       /* key and certificate; NULL: none */
	uint64_t pem_number;	       /* another with each */
	const char *challenge_pem;     /* of tls-alpn-01, the same; NULL: none is open */
	const char *token, *answer;    /* of http-01; NULL: none is open */
	uint64_t challenge_number;     /* another with each, also with none */
	bool is_ordering, is_waiting;  /* now; for its visitors to be led here */
	enum acme_challenge challenge;
	const char *step;	       /* of the order, for people */
	const char *failure;	       /* of the last try; "": none, or it went well since */
	uint32_t n_failures;	       /* in a row */
	int64_t next_s;		       /* when it is tried again, or renewed, in seconds since 1970; 0: not yet, or when it can */
	const char *obstacle;	       /* why nothing is tried at all; "": none */
};

struct acme *acme_new(const struct acme_options *options);
/* All that this node publishes; those that are there already go on. */
void acme_set_exposures(struct acme *acme, const struct exposure *exposures, uint32_t n);
/* False: it has none by that name. */
bool acme_find(const struct acme *acme, const struct host_name *host, struct acme_site *ret);
/* Frees itself from the loop, then calls closed (may be NULL). Nothing else is called any more. */
void acme_close(struct acme *acme, void (*closed)(void *owner), void *owner);
