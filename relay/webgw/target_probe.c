#include "relay/webgw/target_probe.h"

#include "common/macros.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

struct target_probe {
	uv_tcp_t tcp;
	uv_connect_t request;
	int status;
	void (*done)(void *owner, int status);
	void *owner;
};

static void on_closed(uv_handle_t *handle)
{
	struct target_probe *probe = container_of((uv_tcp_t *)handle, struct target_probe, tcp);
	void (*done)(void *owner, int status) = probe->done;
	void *const owner = probe->owner;
	const int status = probe->status;

	free(probe);
	done(owner, status);
}

static void close_with(struct target_probe *probe, int status)
{
	if (uv_is_closing((uv_handle_t *)&probe->tcp))
		return;
	probe->status = status;
	uv_close((uv_handle_t *)&probe->tcp, on_closed);
}

static void on_connected(uv_connect_t *request, int status)
{
	close_with(container_of(request, struct target_probe, request), status);
}

struct target_probe *target_probe_begin(uv_loop_t *loop, const struct endpoint *target, void (*done)(void *owner, int status),
					void *owner)
{
	struct target_probe *probe = calloc(1, sizeof(*probe));
	struct sockaddr_storage address;

	if (!probe)
		abort();
	probe->done = done;
	probe->owner = owner;
	(void)endpoint_to_sockaddr(target, &address);
	(void)uv_tcp_init(loop, &probe->tcp);
	const int r = uv_tcp_connect(&probe->request, &probe->tcp, (const struct sockaddr *)&address, on_connected);
	if (r < 0)
		close_with(probe, r);
	return probe;
}

void target_probe_end(struct target_probe *probe)
{
	close_with(probe, -ETIMEDOUT);
}
