#include "common/unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int fail(struct error *reterr, const char *path, const char *what)
{
	int code = -errno;

	return error_set(reterr, code, "%s: cannot %s: %s", path, what, strerror(-code));
}

/* A node that died leaves its socket behind; a living one answers on it. */
static int remove_stale(const struct sockaddr_un *address, const char *choose, struct error *reterr)
{
	const char *path = address->sun_path;
	struct stat file;

	if (lstat(path, &file) != 0)
		return errno == ENOENT ? 0 : fail(reterr, path, "look");
	if (!S_ISSOCK(file.st_mode))
		return error_set(
			reterr, -EEXIST,
			"%s: exists and is no socket; remove it or %s", path, choose);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(reterr, path, "open a socket");
	int r = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	int why = errno;
	close(fd);
	if (r == 0)
		return error_set(
			reterr, -EADDRINUSE,
			"%s: another node answers here; stop it or %s", path, choose);
	errno = why;
	if (why != ECONNREFUSED)
		return fail(reterr, path, "look who listens");
	return unlink(path) == 0 || errno == ENOENT ? 0
						    : fail(reterr, path, "remove the old socket");
}

static int bind_socket(int fd, const struct sockaddr_un *address)
{
	mode_t mask = umask(0177);
	int r = bind(fd, (const struct sockaddr *)address, sizeof(*address));

	umask(mask);
	return r;
}

int unix_socket_listen(const char *path, const char *choose, int backlog, int *ret, struct stat *ret_file,
		       struct error *reterr)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int r;

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(reterr, -ENAMETOOLONG,
				 "%s: longer than the %zu bytes a socket's path may have", path,
				 sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path));
	r = remove_stale(&address, choose, reterr);
	if (r != 0)
		return r;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return fail(reterr, path, "open a socket");
	if (bind_socket(fd, &address) != 0 || listen(fd, backlog) != 0 || lstat(path, ret_file) != 0) {
		r = fail(reterr, path, "listen");
		close(fd);
		return r;
	}
	*ret = fd;
	return 0;
}

void unix_socket_remove(const char *path, const struct stat *file)
{
	struct stat now;

	if (lstat(path, &now) == 0 && now.st_dev == file->st_dev && now.st_ino == file->st_ino)
		unlink(path);
}
