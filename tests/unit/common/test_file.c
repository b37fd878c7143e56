/* file_write_atomic(): what lies where its temporary file will be neither leaks nor diverts a secret. */
#include "common/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64], path[128], temporary[160], elsewhere[128];

static void begin(void)
{
	snprintf(folder, sizeof(folder), "/tmp/p2p-test-file-XXXXXX");
	assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/key", folder);
	snprintf(temporary, sizeof(temporary), "%s.%d.tmp", path, (int)getpid());
	snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", folder);
}

static void expect_written(void)
{
	struct error error;
	struct stat file;
	char *text;
	size_t len;

	assert(file_write_atomic(path, "secret", 6, 0600, &error) == 0);
	assert(lstat(path, &file) == 0 && S_ISREG(file.st_mode) && (file.st_mode & 0777) == 0600);
	assert(file_read(path, 100, &text, &len, &error) == 0);
	assert(len == 6 && memcmp(text, "secret", 6) == 0);
	free(text);
	assert(access(temporary, F_OK) != 0);
}

static void end(void)
{
	unlink(path);
	unlink(elsewhere);
	assert(rmdir(folder) == 0);
}

static void test_a_link_is_not_followed(void)
{
	begin();
	assert(symlink(elsewhere, temporary) == 0);
	expect_written();
	assert(access(elsewhere, F_OK) != 0);
	end();
}

static void test_a_left_over_file_does_not_lend_its_mode(void)
{
	begin();
	int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL, 0644);
	assert(fd >= 0 && close(fd) == 0);
	expect_written();
	end();
}

static void expect_refused(mode_t mode, const char *text)
{
	struct error error = { 0 };
	char *content;
	size_t len;

	assert(chmod(path, mode) == 0);
	assert(file_read_secret(path, 100, &content, &len, &error) == -EPERM);
	assert(strstr(error.message, path) && strstr(error.message, text) && strstr(error.message, "chmod 600"));
}

static void test_a_secret_that_others_may_read_or_write_is_refused(void)
{
	struct error error;
	char *content;
	size_t len;

	begin();
	assert(file_read_secret(path, 100, &content, &len, &error) == -ENOENT);
	assert(file_write_atomic(path, "secret", 6, 0600, &error) == 0);
	assert(file_read_secret(path, 100, &content, &len, &error) == 0 && len == 6);
	free(content);
	expect_refused(0604, "0604");
	expect_refused(0602, "0602");
	expect_refused(0640, "0640");
	expect_refused(0660, "0660");
	if (geteuid() == 0) { /* root's file for a service: the group may read, and no more */
		assert(chown(path, 1, 1) == 0 && chmod(path, 0640) == 0);
		assert(file_read_secret(path, 100, &content, &len, &error) == 0);
		free(content);
		expect_refused(0660, "0660");
		expect_refused(0644, "0644");
	}
	end();
}

int main(void)
{
	umask(022);
	test_a_link_is_not_followed();
	test_a_left_over_file_does_not_lend_its_mode();
	test_a_secret_that_others_may_read_or_write_is_refused();
	return 0;
}
