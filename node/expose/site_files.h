/*
 * A certificate and its key from files, shown to visitors of one host; taken anew when the files are others.
 *
 *   every 10 s: are they the files of before, and is the context not a day old? ──yes──► nothing
 *                     │no
 *                     ▼
 *               read, the key as a secret ──► fit for each other and for the host? ──yes──► tls_site, from now on
 *                                                │no
 *                                                └─► why, and what was shown stays
 *
 * Once a day also for the keys of tickets: they are the context's.
 *
 * The loop's thread.
 */
#pragma once

#include "node/expose/tls_site.h"
#include "node/exposure.h"

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* Which file it is, as far as can be told without reading it. */
struct site_file {
	uint64_t device, inode, size;
	struct timespec modified, changed;
};

/* All zero at first. */
struct site_files {
	struct site_file certificate, key;
	uint64_t taken_ms;
	bool is_shown;		     /* something is */
	struct tls_site_dates dates; /* of that */
	struct error failure;	     /* of the files as they are now; no message: none */
};

/* Of an exposure with files. now_ms: of a clock that does not go back. */
void site_files_look(struct site_files *files, const struct exposure *exposure, struct tls_site *site, uint64_t now_ms);
