/*
 * A Unix stream socket at a path, for its owner alone (mode 0600).
 */
#pragma once

#include "common/error.h"

#include <sys/stat.h>

/*
 * Binds and listens, non-blocking; the folder must be there. A socket left by a process that died is replaced. 0 with
 * the descriptor, and with the file in *ret_file; or -EADDRINUSE when another process answers on it; -EEXIST when it is
 * something else than a socket; -ENAMETOOLONG, -EACCES …: reterr names the path and the remedy, of which choose says the
 * last: "choose another --socket".
 */
P2P_CHECK int unix_socket_listen(const char *path, const char *choose, int backlog, int *ret, struct stat *ret_file,
				 struct error *reterr);
/* Removes it, if it is still that file. */
void unix_socket_remove(const char *path, const struct stat *file);
