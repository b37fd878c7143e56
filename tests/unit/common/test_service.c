/*
 * What a program gives up that reads what strangers send, as the kernel tells it of a child that did; and the sockets that one
 * which begins anew in its own process finds again.
 */
#include "common/service.h"

#include <arpa/inet.h>
#include <assert.h>
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
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

#define STRANGER 65534 /* nobody */

/* As a service with User= and AmbientCapabilities= (one, and no right to more), or by capabilities of the file. */
static void begin_anew_as_who_is_not_root(bool is_ambient)
{
	const unsigned kept[] = { CAP_NET_BIND_SERVICE };
	char script[96], *argv[] = { (char *)(uintptr_t)"/bin/sh", (char *)(uintptr_t)"-c", script, NULL };
	struct error error;

	snprintf(script, sizeof(script), "grep -q '^CapEff:.0*%x$' /proc/self/status", is_ambient ? 1u << CAP_NET_BIND_SERVICE : 0);
	assert(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0 && setresuid(STRANGER, STRANGER, STRANGER) == 0);
	capng_get_caps_process();
	capng_update(CAPNG_ADD, CAPNG_INHERITABLE, CAP_NET_BIND_SERVICE);
	assert(capng_apply(CAPNG_SELECT_CAPS) == 0);
	assert(!is_ambient || prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) == 0);
	assert(service_keep_capabilities(kept, 1, &error) == 0);
	assert(status_of("CapAmb", 16) == 0 && status_of("CapPrm", 16) == 1u << CAP_NET_BIND_SERVICE);
	service_begin_restart();
	fprintf(stderr, "%d %s\n", service_restart(argv, &error), error.message);
	abort();
}

static void begins_anew_well_as_who_is_not_root(bool is_ambient)
{
	int status;
	const pid_t child = fork();

	assert(child >= 0);
	if (child == 0)
		begin_anew_as_who_is_not_root(is_ambient);
	assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_who_begins_anew_has_the_capabilities_it_was_given_for_whatever_it_runs_and_no_other(void)
{
	if (geteuid() != 0) {
		puts("not run: needs root, to give it up");
		return;
	}
	begins_anew_well_as_who_is_not_root(true);
	begins_anew_well_as_who_is_not_root(false);
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

/* A datagram to systemd: its text, and how many descriptors came with it, which are closed. */
static size_t read_notice(int fd, char *ret_text, size_t max)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(16 * sizeof(int))];
	} control;
	struct iovec text = { ret_text, max - 1 };
	struct msghdr message = {
		.msg_iov = &text, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	const ssize_t len = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	assert(len >= 0);
	ret_text[len] = '\0';
	const struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	const size_t n = rights ? (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
	for (size_t i = 0; i < n; i++) {
		int copy;
		memcpy(&copy, CMSG_DATA(rights) + i * sizeof(int), sizeof(copy));
		close(copy);
	}
	return n;
}

static void test_who_does_not_begin_anew_after_all_leaves_its_sockets_to_systemd(void)
{
	const int systemd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), kept[2] = { open_socket(0), open_socket(0) };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t len = sizeof(address.sun_family); /* the kernel names it, in the abstract name space */
	char name[sizeof(address.sun_path) + 1] = "@", text[256];

	assert(bind(systemd, (const struct sockaddr *)&address, len) == 0);
	len = sizeof(address);
	assert(getsockname(systemd, (struct sockaddr *)&address, &len) == 0);
	memcpy(name + 1, address.sun_path + 1, len - offsetof(struct sockaddr_un, sun_path) - 1);
	setenv("NOTIFY_SOCKET", name, 1);
	service_begin_restart();
	assert(read_notice(systemd, text, sizeof(text)) == 0 && strstr(text, "RELOADING=1"));
	service_keep_sockets(kept, 2);
	assert(recv(systemd, text, sizeof(text), MSG_DONTWAIT) < 0); /* until then it keeps them itself */
	service_cancel_restart();
	assert(read_notice(systemd, text, sizeof(text)) == 2 && strstr(text, "FDSTORE=1"));
	unsetenv("NOTIFY_SOCKET");
	close(systemd);
	close(kept[0]);
	close(kept[1]);
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
	test_who_begins_anew_has_the_capabilities_it_was_given_for_whatever_it_runs_and_no_other();
	test_who_does_not_begin_anew_after_all_keeps_nothing();
	test_who_does_not_begin_anew_after_all_leaves_its_sockets_to_systemd();
	test_a_program_that_is_not_there_is_named();
	test_who_gives_up_all_has_nothing_and_gets_nothing();
	puts("ok");
	return 0;
}
