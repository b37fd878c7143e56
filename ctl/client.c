#include "ctl/client.h"

#include "common/lines.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_ANSWER (64 * 1024 * 1024)
#define CALL_ID    1

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Until the descriptor is ready; false when the deadline has passed. */
static bool await(int fd, short events, uint64_t deadline_ms)
{
	struct pollfd pollfd = { .fd = fd, .events = events };

	for (;;) {
		uint64_t now = now_ms();
		if (now >= deadline_ms)
			return false;
		int r = poll(&pollfd, 1, (int)(deadline_ms - now));
		if (r > 0)
			return true;
		if (r == 0 || errno != EINTR)
			return false;
	}
}

static enum ctl_exit no_node(struct ctl *ctl, int code)
{
	if (code == EACCES || code == EPERM)
		return ctl_fail(
			ctl, CTL_DENIED,
			"%s: permission denied; only root and the node's own user may speak to the node "
			"(try sudo)",
			ctl->socket);
	return ctl_fail(
		ctl, CTL_NO_NODE,
		"no node answers at %s: %s; start it (systemctl start p2pnode) or name its socket with "
		"--socket",
		ctl->socket, strerror(code));
}

static enum ctl_exit dial(struct ctl *ctl, int *ret)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(ctl->socket) >= sizeof(address.sun_path))
		return ctl_fail(ctl, CTL_USAGE,
				"--socket: longer than the %zu bytes a socket's path may have",
				sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, ctl->socket, strlen(ctl->socket));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return ctl_fail(ctl, CTL_FAILED, "cannot open a socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
		int code = errno;
		close(fd);
		return no_node(ctl, code);
	}
	*ret = fd;
	return CTL_OK;
}

static enum ctl_exit broken(struct ctl *ctl)
{
	return ctl_fail(
		ctl, CTL_NO_NODE,
		"the node ended the connection without an answer; look at its log (journalctl -u p2pnode)");
}

static enum ctl_exit too_late(struct ctl *ctl)
{
	return ctl_fail(ctl, CTL_FAILED,
			"the node gave no answer in time; look at its log (journalctl -u p2pnode)");
}

static enum ctl_exit send_request(struct ctl *ctl, int fd, const char *text, uint64_t deadline_ms)
{
	size_t len = strlen(text), sent = 0;

	while (sent <= len) { /* one byte more: the newline */
		const char *from = sent < len ? text + sent : "\n";
		size_t n = sent < len ? len - sent : 1;
		if (!await(fd, POLLOUT, deadline_ms))
			return too_late(ctl);
		ssize_t r = send(fd, from, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0 && errno != EAGAIN && errno != EINTR)
			return broken(ctl);
		sent += r > 0 ? (size_t)r : 0;
	}
	return CTL_OK;
}

static enum ctl_exit receive_line(struct ctl *ctl, int fd, struct lines *lines,
				  uint64_t deadline_ms, char **ret_line, size_t *ret_len)
{
	while (!lines_take(lines, ret_line, ret_len)) {
		size_t size;
		char *room = lines_room(lines, &size);
		if (!await(fd, POLLIN, deadline_ms))
			return too_late(ctl);
		ssize_t n = recv(fd, room, size, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return broken(ctl);
		if (lines_put(lines, (size_t)n) != 0)
			return ctl_fail(ctl, CTL_FAILED, "the node's answer is too long");
	}
	return CTL_OK;
}

static enum ctl_exit exit_of(int code)
{
	switch (code) {
	case RPC_UNAVAILABLE:
	case RPC_NOT_A_MEMBER:
		return CTL_NOT_JOINED;
	case RPC_NOT_PERMITTED:
		return CTL_DENIED;
	default:
		return CTL_FAILED;
	}
}

/* ret_refuses_params: then that is told so, and not said; NULL: it is said as any other error. */
static enum ctl_exit take_answer(struct ctl *ctl, const char *line, size_t len, bool *ret_refuses_params,
				 struct rpc_message *ret)
{
	struct json_limits limits = { .max_len = MAX_ANSWER };
	struct error error = { 0 };
	enum rpc_code code;

	if (rpc_parse(line, len, &limits, ret, &code, &error) != 0)
		return ctl_fail(ctl, CTL_FAILED,
				"the answer at %s makes no sense (%s); is it p2pnode's socket?",
				ctl->socket, error.message);
	if (ret->kind == RPC_RESULT && ret->id.kind == RPC_ID_NUMBER && ret->id.number == CALL_ID)
		return CTL_OK;

	enum ctl_exit exit = CTL_FAILED;
	if (ret->kind == RPC_ERROR && ret->error.code == RPC_INVALID_PARAMS && ret_refuses_params)
		*ret_refuses_params = true;
	else if (ret->kind == RPC_ERROR)
		exit = ctl_fail_rpc(ctl, exit_of(ret->error.code), &ret->error);
	else
		ctl_fail(ctl, CTL_FAILED,
			 "the answer at %s is to something else; is it p2pnode's socket?",
			 ctl->socket);
	rpc_message_deinit(ret);
	return exit;
}

static enum ctl_exit exchange(struct ctl *ctl, const char *request, uint64_t deadline_ms, bool *ret_refuses_params,
			      struct rpc_message *ret)
{
	struct lines lines;
	char *line;
	size_t len;
	int fd = -1;
	enum ctl_exit exit = dial(ctl, &fd);

	if (exit != CTL_OK)
		return exit;
	lines_init(&lines, MAX_ANSWER);
	exit = send_request(ctl, fd, request, deadline_ms);
	if (exit == CTL_OK)
		exit = receive_line(ctl, fd, &lines, deadline_ms, &line, &len);
	if (exit == CTL_OK)
		exit = take_answer(ctl, line, len, ret_refuses_params, ret);
	lines_deinit(&lines);
	close(fd);
	return exit;
}

static enum ctl_exit call(struct ctl *ctl, const char *method, struct json *params_take, uint64_t timeout_ms,
			  bool *ret_refuses_params, struct rpc_message *ret)
{
	char *request = rpc_print_request(CALL_ID, method, params_take);
	enum ctl_exit exit = exchange(ctl, request, now_ms() + timeout_ms, ret_refuses_params, ret);

	sodium_memzero(request, strlen(request)); /* it may hold a join key */
	free(request);
	return exit;
}

enum ctl_exit client_call(struct ctl *ctl, const char *method, struct json *params_take,
			  uint64_t timeout_ms, struct rpc_message *ret)
{
	return call(ctl, method, params_take, timeout_ms, NULL, ret);
}

enum ctl_exit client_order(struct ctl *ctl, const char *method, struct json *params_take, uint64_t timeout_ms,
			   const char *done)
{
	struct rpc_message answer;
	enum ctl_exit exit = client_call(ctl, method, params_take, timeout_ms, &answer);

	if (exit != CTL_OK)
		return exit;
	if (ctl->json)
		ctl_print_json_borrowed(ctl, answer.result);
	else
		fprintf(ctl->out, "%s\n", done);
	rpc_message_deinit(&answer);
	return CTL_OK;
}

enum ctl_exit client_list(struct ctl *ctl, const char *method, uint64_t timeout_ms,
			  void (*print)(struct ctl *ctl, const struct json *result))
{
	struct rpc_message answer;
	enum ctl_exit exit = client_call(ctl, method, NULL, timeout_ms, &answer);

	if (exit != CTL_OK)
		return exit;
	if (ctl->json)
		ctl_print_json_borrowed(ctl, answer.result);
	else
		print(ctl, answer.result);
	rpc_message_deinit(&answer);
	return CTL_OK;
}

enum ctl_exit client_call_with_new_params(struct ctl *ctl, const char *method, struct json *params_take,
					  uint64_t timeout_ms, struct rpc_message *ret)
{
	bool refuses_params = false;
	enum ctl_exit exit = call(ctl, method, params_take, timeout_ms, &refuses_params, ret);

	return refuses_params ? call(ctl, method, NULL, timeout_ms, NULL, ret) : exit;
}
