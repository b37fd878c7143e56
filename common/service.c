#include "common/service.h"

#include "common/macros.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_FIRST_FD 3
#define LISTEN_MAX_FDS	1024
#define KEEP_AT_ONCE	16
#define KEPT_NAME	"relay" /* by which systemd has the sockets */
#define KEPT_MAX	64	/* by ourselves; as FileDescriptorStoreMax= of the unit */
#define BARRIER_MS	1000

/* Of a process that follows itself. */
static bool is_restarting;
static int copies[KEPT_MAX];
static size_t n_copies;
static bool was_ambient[64]; /* capabilities that were given to whatever this process runs */

/* With n sockets (at most KEEP_AT_ONCE), of which the other side gets copies. */
static void notify_with(const char *state, const int *fds, size_t n)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (!path || strlen(path) >= sizeof(address.sun_path))
		return;
	memcpy(address.sun_path, path, strlen(path));
	if (address.sun_path[0] == '@')
		address.sun_path[0] = '\0'; /* the abstract name space */
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(KEEP_AT_ONCE * sizeof(int))];
	} control = { 0 };
	struct iovec text = { (void *)(uintptr_t)state, strlen(state) };
	struct msghdr message = { .msg_name = &address,
				  .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)),
				  .msg_iov = &text,
				  .msg_iovlen = 1 };
	if (n > 0) {
		control.header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
						   .cmsg_type = SCM_RIGHTS,
						   .cmsg_len = CMSG_LEN(n * sizeof(int)) };
		memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n * sizeof(int));
	}
	ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
	(void)sent; /* nobody to tell */
	close(fd);
}

void service_notify(const char *state)
{
	notify_with(state, NULL, 0);
}

bool service_is_followed(void)
{
	return is_restarting || getenv("NOTIFY_SOCKET") != NULL;
}

static void forget_copies(void)
{
	while (n_copies > 0)
		close(copies[--n_copies]);
}

static void keep_copies(const int *fds, size_t n)
{
	for (size_t i = 0; i < n && n_copies < KEPT_MAX; i++) {
		int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, LISTEN_FIRST_FD);
		if (fd >= 0)
			copies[n_copies++] = fd;
	}
}

static void let_systemd_keep(const int *fds, size_t n)
{
	/* Not polled: an error that waits in a socket (an ICMP) would be a cause to forget it. */
	for (size_t at = 0; at < n; at += KEEP_AT_ONCE)
		notify_with("FDSTORE=1\nFDNAME=" KEPT_NAME "\nFDPOLL=0", fds + at, n - at < KEEP_AT_ONCE ? n - at : KEEP_AT_ONCE);
}

void service_keep_sockets(const int *fds, size_t n)
{
	if (is_restarting && n == 0)
		forget_copies();
	else if (is_restarting)
		keep_copies(fds, n);
	else if (n == 0)
		service_notify("FDSTOREREMOVE=1\nFDNAME=" KEPT_NAME);
	else
		let_systemd_keep(fds, n);
}

/* The other side closes what comes with it when it has done all that was sent before. */
void service_await_forgotten(void)
{
	int fds[2];

	if (is_restarting || !service_is_followed() || pipe2(fds, O_CLOEXEC) < 0)
		return;
	notify_with("BARRIER=1", &fds[1], 1);
	close(fds[1]);
	struct pollfd wait = { .fd = fds[0] };
	(void)poll(&wait, 1, BARRIER_MS);
	close(fds[0]);
}

size_t service_take_sockets(int *ret, size_t max)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	bool for_us = pid && count && strtol(pid, NULL, 10) == (long)getpid();
	long n = for_us ? strtol(count, NULL, 10) : 0;
	size_t n_taken = 0;

	for (int i = 0; i < n && i < LISTEN_MAX_FDS; i++) {
		int fd = LISTEN_FIRST_FD + i;
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			continue; /* not open: whoever set the variables was wrong */
		if (n_taken < max)
			ret[n_taken++] = fd;
		else
			close(fd);
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return n_taken;
}

void service_begin_restart(void)
{
	struct timespec now;
	char state[96];

	is_restarting = true;
	clock_gettime(CLOCK_MONOTONIC, &now);
	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
	service_notify(state);
}

void service_cancel_restart(void)
{
	is_restarting = false;
	let_systemd_keep(copies, n_copies);
	forget_copies();
}

bool service_is_restarting(void)
{
	return is_restarting;
}

/* Moves the copies to where sd_listen_fds(3) looks for them; whatever else has these numbers is closed. */
static int place_copies(void)
{
	const int behind = LISTEN_FIRST_FD + (int)n_copies;

	for (size_t i = 0; i < n_copies; i++) {
		int fd = fcntl(copies[i], F_DUPFD_CLOEXEC, behind); /* where none of them is put down */
		if (fd < 0)
			return -errno;
		close(copies[i]);
		copies[i] = fd;
	}
	for (size_t i = 0; i < n_copies; i++)
		if (dup2(copies[i], LISTEN_FIRST_FD + (int)i) < 0) /* which is not close-on-exec */
			return -errno;
	return 0;
}

/* Ambient again what was, if this process still has it. What a file has by itself, it will have by itself. */
static void keep_capabilities_over_exec(void)
{
	capng_get_caps_process();
	for (unsigned i = 0; i < ARRAY_LEN(was_ambient); i++)
		if (was_ambient[i] && capng_have_capability(CAPNG_PERMITTED, i))
			capng_update(CAPNG_ADD, CAPNG_INHERITABLE | CAPNG_AMBIENT, i);
	(void)(capng_apply(CAPNG_SELECT_CAPS) == 0 && capng_apply(CAPNG_SELECT_AMBIENT) == 0); /* who follows says what it lacks */
}

int service_restart(char *const argv[], struct error *reterr)
{
	char number[16];

	int r = place_copies();
	if (r < 0)
		return error_set(reterr, r, "cannot keep sockets for the restart: %s", strerror(-r));
	snprintf(number, sizeof(number), "%zu", n_copies);
	setenv("LISTEN_FDS", number, 1);
	snprintf(number, sizeof(number), "%ld", (long)getpid());
	setenv("LISTEN_PID", number, 1);
	keep_capabilities_over_exec();
	execvp(argv[0], argv);
	return error_set(reterr, -errno, "cannot run %s again: %s", argv[0], strerror(errno));
}

int service_keep_capabilities(const unsigned *capabilities, size_t n, struct error *reterr)
{
	bool has[64] = { false };

	capng_get_caps_process();
	for (size_t i = 0; i < n; i++)
		has[capabilities[i] % 64] = capng_have_capability(CAPNG_PERMITTED, capabilities[i]);
	for (unsigned i = 0; i <= CAP_LAST_CAP; i++)
		was_ambient[i] |= capng_have_capability(CAPNG_AMBIENT, i);
	capng_clear(CAPNG_SELECT_BOTH);
	for (size_t i = 0; i < n; i++)
		if (has[capabilities[i] % 64])
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET,
				     capabilities[i]);
	/* The bounding set can be reduced only with CAP_SETPCAP; without it the rest still goes. */
	if (capng_apply(CAPNG_SELECT_BOTH) != 0 && capng_apply(CAPNG_SELECT_CAPS) != 0)
		return error_set(reterr, -EPERM, "cannot give up capabilities");
	return 0;
}

int service_give_up_all(struct error *reterr)
{
	int r = service_keep_capabilities(NULL, 0, reterr);

	if (r != 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return error_set(reterr, -errno, "cannot give up new privileges: %s", strerror(errno));
#ifndef __SANITIZE_ADDRESS__ /* its search for leaks is a debugger of ours */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return error_set(reterr, -errno, "cannot hide memory: %s", strerror(errno));
#endif
	return 0;
}

void service_raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}
