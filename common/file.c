#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(struct error *reterr, const char *path, const char *what)
{
	int code = -errno;

	return error_set(reterr, code, "%s: cannot %s: %s", path, what, strerror(-code));
}

/* fd is closed. */
static int read_all(int fd, const char *path, size_t max, char **ret, size_t *ret_len, struct error *reterr)
{
	char *data = malloc(max + 2);
	size_t used = 0;
	int r = data ? 0 : error_set(reterr, -ENOMEM, "%s: out of memory", path);
	while (r == 0) {
		ssize_t n = read(fd, data + used, max + 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = fail(reterr, path, "read");
		if (n <= 0)
			break;
		used += (size_t)n;
		if (used > max)
			r = error_set(reterr, -EFBIG, "%s: longer than %zu bytes", path, max);
	}
	close(fd);
	if (r != 0) {
		free(data);
		return r;
	}
	data[used] = '\0';
	*ret = data;
	*ret_len = used;
	return 0;
}

int file_read(const char *path, size_t max, char **ret, size_t *ret_len, struct error *reterr)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? fail(reterr, path, "open") : read_all(fd, path, max, ret, ret_len, reterr);
}

static int check_is_secret(int fd, const char *path, struct error *reterr)
{
	struct stat file;

	if (fstat(fd, &file) != 0)
		return fail(reterr, path, "look at");
	const mode_t others = file.st_uid == geteuid() ? 077 : 037;
	return (file.st_mode & others) == 0
		       ? 0
		       : error_set(reterr, -EPERM, "%s: its mode is %04o, so that others can read or change it; chmod 600 it", path,
				   (unsigned)file.st_mode & 07777);
}

int file_read_secret(const char *path, size_t max, char **ret, size_t *ret_len, struct error *reterr)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(reterr, path, "open");

	int r = check_is_secret(fd, path, reterr);
	if (r == 0)
		return read_all(fd, path, max, ret, ret_len, reterr);
	close(fd);
	return r;
}

static int write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

static int sync_folder_of(const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	int n = slash ? snprintf(folder, sizeof(folder), "%.*s", slash == path ? 1 : (int)(slash - path), path)
		      : snprintf(folder, sizeof(folder), ".");
	if (n < 0 || (size_t)n >= sizeof(folder))
		return -ENAMETOOLONG;

	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int r = fsync(fd) == 0 ? 0 : -errno;
	close(fd);
	return r;
}

int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode, struct error *reterr)
{
	char temporary[PATH_MAX];
	int n = snprintf(temporary, sizeof(temporary), "%s.%d.tmp", path, (int)getpid());
	if (n < 0 || (size_t)n >= sizeof(temporary))
		return error_set(reterr, -ENAMETOOLONG, "%s: path too long", path);

	/* Always a new file: one that lies there, or a link, would bring its own mode, owner and place. */
	unlink(temporary);
	int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return fail(reterr, temporary, "create");
	int r = write_all(fd, data, len);
	if (r == 0 && fsync(fd) != 0)
		r = -errno;
	close(fd);
	if (r == 0 && rename(temporary, path) != 0)
		r = -errno;
	if (r == 0)
		r = sync_folder_of(path);
	if (r != 0) {
		unlink(temporary);
		return error_set(reterr, r, "%s: cannot write: %s", path, strerror(-r));
	}
	return 0;
}

int file_remove(const char *path, struct error *reterr)
{
	if (unlink(path) != 0)
		return errno == ENOENT ? 0 : fail(reterr, path, "remove");
	int r = sync_folder_of(path);
	return r == 0 ? 0 : error_set(reterr, r, "%s: cannot remove: %s", path, strerror(-r));
}

int file_make_folder(const char *path, mode_t mode, struct error *reterr)
{
	char part[PATH_MAX];
	size_t n = strlen(path);

	if (n == 0 || n >= sizeof(part))
		return error_set(reterr, -ENAMETOOLONG, "%s: path empty or too long", path);
	memcpy(part, path, n + 1);
	for (char *at = part + 1; *at != '\0'; at++) {
		if (*at != '/')
			continue;
		*at = '\0';
		if (mkdir(part, 0755) != 0 && errno != EEXIST)
			return fail(reterr, part, "create folder");
		*at = '/';
	}
	if (mkdir(path, mode) != 0 && errno != EEXIST)
		return fail(reterr, path, "create folder");
	return 0;
}
