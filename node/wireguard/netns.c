#include "node/wireguard/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

int netns_enter_that_of(int tun_fd, struct netns_visit *ret, struct error *reterr)
{
	int home_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home_fd < 0)
		return error_set(reterr, -errno, "/proc/thread-self/ns/net: %s", strerror(errno));

	int there_fd = ioctl(tun_fd, TUNGETDEVNETNS);
	int r = there_fd < 0 ? -errno : 0;
	if (r == 0 && setns(there_fd, CLONE_NEWNET) != 0)
		r = -errno;
	if (there_fd >= 0)
		close(there_fd);
	if (r != 0) {
		close(home_fd);
		return error_set(reterr, r, "cannot enter the interface's network namespace: %s",
				 strerror(-r));
	}
	ret->home_fd = home_fd;
	return 0;
}

void netns_leave(struct netns_visit *visit)
{
	if (setns(visit->home_fd, CLONE_NEWNET) != 0)
		abort();
	close(visit->home_fd);
}
