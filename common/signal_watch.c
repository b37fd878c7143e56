#include "common/signal_watch.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct signal_watch *watch = poll->data;
	struct signalfd_siginfo info;

	(void)status, (void)events;
	/* One a turn: whoever is told may stop the watch, and the others wait for who follows. */
	if (read(watch->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		watch->on_signal(watch->owner, (int)info.ssi_signo);
}

int signal_watch_start(struct signal_watch *watch, uv_loop_t *loop, const int *numbers, size_t n,
		       void (*on_signal)(void *owner, int number), void *owner, struct error *reterr)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < n; i++)
		sigaddset(&set, numbers[i]);
	int r = -pthread_sigmask(SIG_BLOCK, &set, NULL);
	watch->fd = r == 0 ? signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC) : -1;
	if (watch->fd < 0)
		return error_set(reterr, r == 0 ? -errno : r, "cannot watch signals: %s", strerror(r == 0 ? errno : -r));
	watch->on_signal = on_signal;
	watch->owner = owner;
	watch->poll.data = watch;
	r = uv_poll_init(loop, &watch->poll, watch->fd);
	if (r != 0) {
		close(watch->fd);
		return error_set(reterr, r, "cannot watch signals: %s", uv_strerror(r));
	}
	(void)uv_poll_start(&watch->poll, UV_READABLE, on_readable); /* fails only for a handle that is closed */
	return 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct signal_watch *watch = handle->data;

	close(watch->fd);
	if (watch->on_stopped)
		watch->on_stopped(watch->owner);
}

void signal_watch_stop(struct signal_watch *watch, void (*on_stopped)(void *owner))
{
	watch->on_stopped = on_stopped;
	uv_close((uv_handle_t *)&watch->poll, on_closed);
}
