/* Small files that must be whole: read with a bound, written so that a crash leaves the old or the new one. */
#pragma once

#include "common/error.h"

#include <stddef.h>
#include <sys/types.h>

/*
 * The whole file, NUL-terminated behind *ret_len bytes; the caller frees it. -ENOENT, -EFBIG when it
 * is longer than max, another -errno; reterr names the path.
 */
P2P_CHECK int file_read(const char *path, size_t max, char **ret, size_t *ret_len, struct error *reterr);
/*
 * The same for what nobody else may know: -EPERM, with what to do in reterr, when others could read or write it. The group
 * may read a file that belongs to somebody else, as root's do that are given to a service.
 */
P2P_CHECK int file_read_secret(const char *path, size_t max, char **ret, size_t *ret_len, struct error *reterr);
/* Writes a neighbour, syncs it, renames it over path, syncs the folder. mode as in open(2). */
P2P_CHECK int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode,
				struct error *reterr);
/* Gone for good when it returns 0, also when there was none. */
P2P_CHECK int file_remove(const char *path, struct error *reterr);
/* mkdir -p; only the last folder gets the mode. */
P2P_CHECK int file_make_folder(const char *path, mode_t mode, struct error *reterr);
