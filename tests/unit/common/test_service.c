/*
 * What a program gives up that reads what strangers send, as the kernel tells it of a child that did; and the sockets that one
 * which begins anew in its own process finds again.
 */
#include "common/service.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* A line of /proc/self/status, as a number of that base. */
static unsigned long long status_of(const char *name, int base)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long ret = ~0ull;
	char line[256];

	assert(file);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
			ret = strtoull(line + strlen(name) + 1, NULL, base);
	fclose(file);
	return ret;
}

static void test_who_gives_up_all_has_nothing_and_gets_nothing(void)
{
	struct error error;
	int status;
	const pid_t child = fork();

	assert(child >= 0);
	if (child == 0) {
		assert(service_give_up_all(&error) == 0);
		assert(status_of("CapEff", 16) == 0 && status_of("CapPrm", 16) == 0 && status_of("CapInh", 16) == 0);
		assert(status_of("NoNewPrivs", 10) == 1);
#ifndef __SANITIZE_ADDRESS__
		assert(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
#endif
		_exit(0);
	}
	assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define N_KEPT 3
#define FOLLOWS "follows"

static int open_socket(uint16_t port)
{
	const struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = port };
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in address;
	socklen_t len = sizeof(address);

	assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	return address.sin_port;
}

/* argv: the program, FOLLOWS, and the ports in order. */
static int follow(char *argv[])
{
	int fds[N_KEPT + 1];

	assert(!service_is_followed());
	assert(service_take_sockets(fds, N_KEPT + 1) == N_KEPT);
	for (int i = 0; i < N_KEPT; i++)
		assert(port_of(fds[i]) == atoi(argv[2 + i]) && fcntl(fds[i], F_GETFD) == FD_CLOEXEC);
	assert(!getenv("LISTEN_FDS") && !getenv("LISTEN_PID"));
	for (int fd = STDERR_FILENO + 1; fd < 64; fd++) {
		bool is_kept = false;
		for (int i = 0; i < N_KEPT; i++)
			is_kept |= fd == fds[i];
		assert(is_kept == (fcntl(fd, F_GETFD) >= 0)); /* and no other is left over */
	}
	return 0;
}

static void begin_anew(void)
{
	char ports[N_KEPT][8], *argv[N_KEPT + 3] = { (char *)(uintptr_t)"/proc/self/exe", (char *)(uintptr_t)FOLLOWS };
	struct error error;

	/* As in a process that has run for long, numbers are as they come; the first to be put down is open, and is another's. */
	const int before = open_socket(0), other = open_socket(0);
	for (int fd = STDERR_FILENO + 1; fd < 64; fd++)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC); /* whoever runs the test has left some open */
	service_begin_restart();
	assert(service_is_restarting() && service_is_followed());
	service_keep_sockets(&before, 1);
	service_keep_sockets(NULL, 0); /* forgotten, at once */
	service_await_forgotten();
	const uint16_t port = port_of(before);
	close(before);
	int fds[N_KEPT] = { open_socket(port), open_socket(0), open_socket(0) };
	service_keep_sockets(fds, 2);
	service_keep_sockets(fds + 2, 1);
	for (int i = 0; i < N_KEPT; i++) {
		snprintf(ports[i], sizeof(ports[i]), "%u", port_of(fds[i]));
		argv[2 + i] = ports[i];
		close(fds[i]);
	}
	(void)other;
	fprintf(stderr, "%d %s\n", service_restart(argv, &error), error.message);
	abort();
}

static void test_who_begins_anew_in_its_process_finds_the_sockets_it_kept_and_no_other(void)
{
	int status;
	const pid_t child = fork();

	assert(child >= 0);
	if (child == 0)
		begin_anew();
	assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_who_does_not_begin_anew_after_all_keeps_nothing(void)
{
	const int fd = open_socket(0);
	const uint16_t port = port_of(fd);

	service_begin_restart();
	service_keep_sockets(&fd, 1);
	close(fd);
	service_cancel_restart();
	assert(!service_is_restarting() && !service_is_followed());
	close(open_socket(port));
}

static void test_a_program_that_is_not_there_is_named(void)
{
	char *argv[] = { (char *)(uintptr_t)"/nowhere/p2pnode", NULL };
	struct error error;

	assert(service_restart(argv, &error) == -ENOENT);
	assert(strstr(error.message, "/nowhere/p2pnode") && strstr(error.message, "No such file"));
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_PID");
}

int main(int argc, char *argv[])
{
	unsetenv("NOTIFY_SOCKET");
	if (argc == 2 + N_KEPT && strcmp(argv[1], FOLLOWS) == 0)
		return follow(argv);
	test_who_begins_anew_in_its_process_finds_the_sockets_it_kept_and_no_other();
	test_who_does_not_begin_anew_after_all_keeps_nothing();
	test_a_program_that_is_not_there_is_named();
	test_who_gives_up_all_has_nothing_and_gets_nothing();
	puts("ok");
	return 0;
}
