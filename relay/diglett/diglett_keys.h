/* Keys of diglett/2 on disk and as text. */
#pragma once

#include "common/error.h"
#include "relay/diglett/noise_xk.h"

#define DIGLETT_PUBLIC_TEXT (2 * NOISE_PUBLIC_LEN)

/* The secret of this file, 64 hex digits, mode 0600; made when it is not there. 0 or -errno; reterr names the file. */
P2P_CHECK int diglett_key_load(const char *path, const struct noise_curve *curve, struct noise_secret *ret,
			       struct error *reterr);
/* One that nobody keeps. */
void diglett_key_draw(const struct noise_curve *curve, struct noise_secret *ret);
/* 66 hex digits. 0 or -EINVAL: no key. */
P2P_CHECK int diglett_public_parse(const char *text, struct noise_public *ret);
void diglett_public_text(const struct noise_public *key, char ret[DIGLETT_PUBLIC_TEXT + 1]);
/* With a seed of its own. 0 or -ENOMEM. */
P2P_CHECK int diglett_curve_init(struct noise_curve *curve);
