#include "common/websocket_number.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Handles come in the order in which they were made. */
static void on_handle(uv_handle_t *handle, void *arg)
{
	struct websocket_number *number = arg;
	uv_os_fd_t fd;

	if (uv_handle_get_type(handle) == UV_POLL && uv_fileno(handle, &fd) == 0)
		number->fd = fd;
}

void websocket_number_find(struct websocket_number *number, uv_loop_t *loop)
{
	*number = (struct websocket_number){ .fd = -1 };
	uv_walk(loop, on_handle, number);
}

/* A file of its own: told from all others by its number. */
void websocket_number_hold(struct websocket_number *number)
{
	struct stat file;
	int fd = number->fd < 0 ? -1 : memfd_create("p2pnode", MFD_CLOEXEC);

	if (fd < 0)
		return;
	int there = fd == number->fd ? fd : fcntl(fd, F_DUPFD_CLOEXEC, number->fd);
	if (fd != there)
		close(fd);
	if (there == number->fd && fstat(there, &file) == 0) {
		number->held = file.st_ino;
		number->held_on = file.st_dev;
	} else if (there >= 0) {
		close(there);
	}
}

void websocket_number_let_go(struct websocket_number *number)
{
	struct stat file;

	if (number->held != 0 && fstat(number->fd, &file) == 0 && file.st_ino == number->held && file.st_dev == number->held_on)
		close(number->fd);
	number->held = 0;
}
