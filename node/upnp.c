#include "node/upnp.h"

#include "common/clock.h"
#include "common/http_answer.h"
#include "common/upnp_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <poll.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NS_PER_MS	  1000000ull
#define N_PORTS		  4    /* tried: the wanted one and three others */
#define FIRST_RANDOM_PORT 1024 /* those below many routers do not give away */
#define SEARCH_REPEAT_MS  700

/* One call of upnp_map() or upnp_remove(). */
struct run {
	const struct upnp_request *request;
	struct error *error;
	uint64_t deadline_ns;
	struct http_url location;
	struct upnp_services services;
	struct upnp_service asked; /* to forward; of no address: none was */
	struct http_answer answer; /* the last one, … */
	char *body;		   /* … in bytes */
	size_t body_len;
	char bytes[UPNP_MAX_DESCRIPTION];
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t deadline_in_ms(const struct run *run, uint64_t ms)
{
	return earlier(clock_now_ns() + ms * NS_PER_MS, run->deadline_ns);
}

/* 0, -ETIMEDOUT, or -ECANCELED when the caller has lost patience. */
static int wait_for(const struct run *run, int fd, short events, uint64_t deadline_ns)
{
	const int stop_fd = run->request->stop_fd > 0 ? run->request->stop_fd : -1;
	struct pollfd fds[] = { { .fd = fd, .events = events }, { .fd = stop_fd, .events = POLLIN } };

	for (;;) {
		uint64_t now = clock_now_ns();
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		/* Rounded up, so that what is left is never waited for in turns of 0. */
		int n = poll(fds, 2, (int)((deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS));
		if (n > 0)
			return fds[1].revents ? -ECANCELED : 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

/* From our address, so that the router sees whose port it is. */
static int open_socket(const struct run *run, int type)
{
	struct endpoint from = run->request->ours;
	struct sockaddr_storage address;
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	from.port = 0;
	socklen_t len = endpoint_to_sockaddr(&from, &address);
	if (bind(fd, (struct sockaddr *)&address, len) != 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

/* ---- the search ------------------------------------------------------------------------------ */

/* Some routers hear the one, some the other. What cannot be sent has no answer. */
static void send_searches(const struct run *run, int fd)
{
	uint16_t port = run->request->search_port ? run->request->search_port : UPNP_SEARCH_PORT;
	struct endpoint group = endpoint_from_v4(UPNP_SEARCH_GROUP, port), router = run->request->router;
	char text[UPNP_SEARCH_MAX_LEN];
	struct sockaddr_storage address;

	router.port = port;
	for (unsigned version = 1; version <= UPNP_N_IGD_VERSIONS; version++) {
		const struct endpoint *to[] = { &router, &group };
		for (size_t i = 0; i < ARRAY_LEN(to); i++) {
			size_t n = upnp_encode_search(text, to[i], version);
			socklen_t len = endpoint_to_sockaddr(to[i], &address);
			(void)!sendto(fd, text, n, 0, (struct sockaddr *)&address, len);
		}
	}
}

static int open_search(const struct run *run)
{
	struct sockaddr_storage ours;
	const int ttl = 2;
	int fd = open_socket(run, SOCK_DGRAM);

	if (fd < 0)
		return fd;
	endpoint_to_sockaddr(&run->request->ours, &ours);
	const struct in_addr *interface = &((struct sockaddr_in *)&ours)->sin_addr;
	if (setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, interface, sizeof(*interface)) != 0 ||
	    setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof(ttl)) != 0) {
		int r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

/* 0: run->location; -EAGAIN: nothing there; -EXDEV, -EPROTO: not this one. */
static int take_found(struct run *run, int fd)
{
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	ssize_t n = recvfrom(fd, run->bytes, UPNP_MAX_ANSWER, 0, (struct sockaddr *)&address, &len);

	if (n < 0)
		return errno == EAGAIN ? -EAGAIN : -EPROTO;
	struct endpoint from = endpoint_from_sockaddr((struct sockaddr *)&address);
	if (memcmp(from.ip, run->request->router.ip, sizeof(from.ip)) != 0)
		return -EPROTO;
	return upnp_decode_found(run->bytes, (size_t)n, &run->request->router, &run->location);
}

/* Until one is found or deadline_ns; remembers in *is_elsewhere that one named another host. */
static int receive_found(struct run *run, int fd, uint64_t deadline_ns, bool *is_elsewhere)
{
	for (;;) {
		int r = wait_for(run, fd, POLLIN, deadline_ns);
		if (r == 0)
			r = take_found(run, fd);
		if (r == -EXDEV)
			*is_elsewhere = true;
		if (r != -EAGAIN && r != -EPROTO && r != -EXDEV)
			return r;
	}
}

static int search(struct run *run)
{
	uint64_t end_ns = deadline_in_ms(run, UPNP_SEARCH_MS);
	P2P_CLEANUP(close_fd) int fd = open_search(run);
	bool is_elsewhere = false;
	int r = -ETIMEDOUT;

	if (fd < 0)
		return error_set(run->error, fd, "searching for UPnP from %s: %s",
				 endpoint_ip_text(&run->request->ours).s, strerror(-fd));
	while (r == -ETIMEDOUT && clock_now_ns() < end_ns) {
		send_searches(run, fd);
		r = receive_found(run, fd, earlier(deadline_in_ms(run, SEARCH_REPEAT_MS), end_ns), &is_elsewhere);
	}
	if (r == 0)
		return 0;
	const struct endpoint_text router = endpoint_ip_text(&run->request->router);
	if (is_elsewhere)
		return error_set(run->error, -EXDEV, "%s: its UPnP description is on another host", router.s);
	return error_set(run->error, r, "%s does not answer over UPnP", router.s);
}

/* ---- one request over HTTP ------------------------------------------------------------------- */

static int connect_to(const struct run *run, const struct endpoint *host, uint64_t deadline_ns)
{
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(host, &address), size = sizeof(int);
	int fd = open_socket(run, SOCK_STREAM), error = 0, r = 0;

	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&address, len) != 0)
		r = errno == EINPROGRESS ? wait_for(run, fd, POLLOUT, deadline_ns) : -errno;
	if (r == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
		r = -errno;
	if (r == 0)
		r = -error;
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static int send_all(const struct run *run, int fd, const char *bytes, size_t len, uint64_t deadline_ns)
{
	while (len > 0) {
		ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n < 0) {
			int r = wait_for(run, fd, POLLOUT, deadline_ns);
			if (r != 0)
				return r;
			continue;
		}
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

/* 0: run->answer and body; an enum http_answer_error; -EMSGSIZE: what it announces is longer than `max` bytes. */
static int judge(struct run *run, size_t len, size_t max, bool is_over)
{
	int r = http_answer_parse(run->bytes, len, &run->answer);

	if (r == HTTP_ANSWER_MORE && is_over)
		return HTTP_ANSWER_BAD;
	if (r != 0)
		return r;
	if (run->answer.body == HTTP_BODY_LENGTH && run->answer.body_len > max - run->answer.head_len)
		return -EMSGSIZE;
	char *body = run->bytes + run->answer.head_len;
	len -= run->answer.head_len;
	r = http_answer_body(&run->answer, body, len, is_over, NULL, &run->body_len);
	if (r != 0)
		return r;
	run->body = body;
	return http_answer_body(&run->answer, body, len, is_over, body, &run->body_len);
}

/* Reads until the answer is whole. */
static int receive_answer(struct run *run, int fd, size_t max, uint64_t deadline_ns)
{
	size_t len = 0;

	for (;;) {
		int r = wait_for(run, fd, POLLIN, deadline_ns);
		if (r != 0)
			return r;
		ssize_t n = recv(fd, run->bytes + len, max - len, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			return -errno;
		len += (size_t)n;
		r = judge(run, len, max, n == 0);
		if (r == 0 || r < 0)
			return r;
		if (r == HTTP_ANSWER_TOO_LONG || (r == HTTP_ANSWER_MORE && len == max))
			return -EMSGSIZE;
		if (r == HTTP_ANSWER_BAD)
			return -EPROTO;
	}
}

/* 0: run->answer, whatever its status. */
static int exchange(struct run *run, const struct endpoint *host, const char *request, size_t len, size_t max)
{
	uint64_t deadline_ns = deadline_in_ms(run, UPNP_EXCHANGE_MS);
	P2P_CLEANUP(close_fd) int fd = connect_to(run, host, deadline_ns);

	if (fd < 0)
		return error_set(run->error, fd, "connecting to %s: %s", endpoint_text(host).s, strerror(-fd));
	int r = send_all(run, fd, request, len, deadline_ns);
	if (r == 0)
		r = receive_answer(run, fd, max, deadline_ns);
	const char *what = r == -EPROTO	  ? "that is no answer of HTTP" :
			   r == -EMSGSIZE ? "its answer is too long" :
					    strerror(-r);
	return r == 0 ? 0 : error_set(run->error, r, "%s: %s", endpoint_text(host).s, what);
}

/* ---- what the router is asked ---------------------------------------------------------------- */

static int describe(struct run *run)
{
	const struct endpoint *host = &run->location.host;
	char request[UPNP_CALL_MAX_LEN];
	size_t len = upnp_encode_get(request, &run->location);
	int r = exchange(run, host, request, len, UPNP_MAX_DESCRIPTION);

	if (r != 0)
		return r;
	if (run->answer.status != 200)
		return error_set(run->error, -EPROTO, "%s: status %u instead of its UPnP description",
				 endpoint_text(host).s, run->answer.status);
	r = upnp_decode_description(run->body, run->body_len, &run->location, &run->services);
	if (r == -EXDEV)
		return error_set(run->error, r, "%s: its UPnP service is on another host", endpoint_text(host).s);
	if (r != 0)
		return error_set(run->error, r, "%s: no UPnP service that forwards ports", endpoint_text(host).s);
	return 0;
}

/* 0; > 0: the UPnP error with which it was refused, *run->error tells of it; < 0. */
static int call(struct run *run, const struct upnp_service *service, const char *what, const char *request, size_t len)
{
	const struct endpoint *host = &service->control.host;
	int r = exchange(run, host, request, len, UPNP_MAX_ANSWER);

	if (r != 0 || run->answer.status == 200)
		return r;
	unsigned code = upnp_decode_error(run->body, run->body_len);
	if (code == 0)
		return error_set(run->error, -EPROTO, "%s: %s: status %u", endpoint_text(host).s, what,
				 run->answer.status);
	error_set(run->error, -EACCES, "%s: %s: refused with UPnP error %u, %s", endpoint_text(host).s, what, code,
		  upnp_error_name(code));
	return (int)code;
}

/* What is not otherwise dealt with. */
static int as_errno(int r)
{
	return r > 0 ? -EACCES : r;
}

static int ask_external(struct run *run, const struct upnp_service *service, struct endpoint *ret)
{
	char request[UPNP_CALL_MAX_LEN];
	size_t len = upnp_encode_external(request, service);
	int r = as_errno(call(run, service, "external address", request, len));

	if (r != 0)
		return r;
	r = upnp_decode_external(run->body, run->body_len, ret);
	return r == 0 ? 0 :
			error_set(run->error, r, "%s: has no external address",
				  endpoint_text(&service->control.host).s);
}

/* One port; a router that knows no lifetimes is asked again without one. Results as of call(). */
static int add_port(struct run *run, const struct upnp_service *service, struct upnp_mapping *mapping)
{
	char request[UPNP_CALL_MAX_LEN];
	size_t len = upnp_encode_add(request, service, mapping);
	int r = call(run, service, "forwarding a port", request, len);

	if (r != UPNP_E_PERMANENT_ONLY || mapping->lifetime_s == 0)
		return r;
	mapping->lifetime_s = 0;
	len = upnp_encode_add(request, service, mapping);
	return call(run, service, "forwarding a port", request, len);
}

static uint16_t random_port(void)
{
	return (uint16_t)(FIRST_RANDOM_PORT + randombytes_uniform(UINT16_MAX + 1 - FIRST_RANDOM_PORT));
}

static int add(struct run *run, const struct upnp_service *service, struct endpoint *external, uint32_t *ret_lifetime_s)
{
	const struct upnp_request *request = run->request;
	struct upnp_mapping mapping = { .ours = request->ours,
					.external_port = request->external_port ? request->external_port :
										  request->ours.port,
					.lifetime_s = request->lifetime_s };

	run->asked = *service;
	int r = add_port(run, service, &mapping);

	for (int i = 1; i < N_PORTS && (r == UPNP_E_CONFLICT || r == UPNP_E_MECHANISM); i++) {
		mapping.external_port = random_port();
		r = add_port(run, service, &mapping);
	}
	if (r == UPNP_E_CONFLICT || r == UPNP_E_MECHANISM)
		return -EADDRINUSE;
	if (r != 0)
		return as_errno(r);
	external->port = mapping.external_port;
	*ret_lifetime_s = mapping.lifetime_s;
	return 0;
}

/* ---- the two calls --------------------------------------------------------------------------- */

static int check(const struct upnp_request *request, struct error *error)
{
	if (!endpoint_is_v4(&request->router) || !endpoint_is_v4(&request->ours))
		return error_set(error, -EINVAL, "UPnP is for IPv4 only");
	return 0;
}

static struct run *begin(const struct upnp_request *request, struct error *error)
{
	struct run *run = malloc(sizeof(*run));

	if (!run)
		return NULL;
	run->request = request;
	run->error = error;
	run->deadline_ns = clock_now_ns() + UPNP_MAX_MS * NS_PER_MS;
	if (request->max_ms != 0)
		run->deadline_ns = deadline_in_ms(run, request->max_ms);
	run->services = (struct upnp_services){ 0 };
	run->asked = (struct upnp_service){ 0 };
	return run;
}

static int find(struct run *run)
{
	int r = search(run);

	return r == 0 ? describe(run) : r;
}

/* The last failure counts: services that are not in use stand first or last, as it comes. */
static int map(struct run *run, struct endpoint *external, uint32_t *ret_lifetime_s)
{
	int r = find(run);

	for (unsigned i = 0; i < run->services.n; i++) {
		const struct upnp_service *service = &run->services.all[i];
		r = ask_external(run, service, external);
		if (r == 0)
			return add(run, service, external, ret_lifetime_s);
	}
	return r;
}

int upnp_map(const struct upnp_request *request, struct endpoint *ret_external, uint32_t *ret_lifetime_s,
	     struct upnp_service *ret_service, struct error *reterr)
{
	struct endpoint external = { 0 };

	if (ret_service)
		*ret_service = (struct upnp_service){ 0 };
	int r = check(request, reterr);

	if (r == 0 && request->ours.port == 0)
		r = error_set(reterr, -EINVAL, "UPnP: no port to forward to");
	if (r != 0)
		return r;
	struct run *run = begin(request, reterr);
	if (!run)
		return error_set(reterr, -ENOMEM, "UPnP: out of memory");
	r = map(run, &external, ret_lifetime_s);
	if (r == 0)
		*ret_external = external;
	if (ret_service)
		*ret_service = run->asked;
	if (reterr && r != 0)
		reterr->code = r;
	free(run);
	return r;
}

int upnp_find(const struct upnp_request *request, struct error *reterr)
{
	int r = check(request, reterr);

	if (r != 0)
		return r;
	struct run *run = begin(request, reterr);
	if (!run)
		return error_set(reterr, -ENOMEM, "UPnP: out of memory");
	r = find(run);
	free(run);
	return r;
}

/* All are asked. A refusal counts only if none had it. */
static int remove_from_services(struct run *run)
{
	char request[UPNP_CALL_MAX_LEN];
	int refused = 0;

	for (unsigned i = 0; i < run->services.n; i++) {
		const struct upnp_service *service = &run->services.all[i];
		size_t len = upnp_encode_delete(request, service, run->request->external_port);
		int r = call(run, service, "ending the forwarding of a port", request, len);
		if (r == 0)
			return 0;
		if (r != UPNP_E_NO_SUCH_ENTRY)
			refused = as_errno(r);
	}
	return refused;
}

/* Routers that were started anew often have another port: then the service that is known has gone. */
static int remove_from(struct run *run)
{
	int r;

	if (run->request->service) {
		run->services = (struct upnp_services){ .n = 1, .all = { *run->request->service } };
		r = remove_from_services(run);
		if (r == 0 || r == -EACCES || r == -ECANCELED)
			return r;
	}
	r = find(run);
	return r == 0 ? remove_from_services(run) : r;
}

int upnp_remove(const struct upnp_request *request, struct error *reterr)
{
	int r = check(request, reterr);

	if (r == 0 && request->external_port == 0)
		r = error_set(reterr, -EINVAL, "UPnP: no port to remove");
	if (r != 0)
		return r;
	struct run *run = begin(request, reterr);
	if (!run)
		return error_set(reterr, -ENOMEM, "UPnP: out of memory");
	r = remove_from(run);
	free(run);
	return r;
}
