/*
 * Reads questions in batches, answers each in place, sends the answers in batches. Up to two sockets an
 * address: the STUN port and, for RFC 5780, the other port.
 */
#include "relay/stun_server.h"

#include "common/macros.h"
#include "common/stun_wire.h"
#include "common/source_limit.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH		32
#define BATCHES_A_TURN	8
#define DEFAULT_RATE	100
#define DEFAULT_BURST	200
#define RECEIVE_BUFFER	(1024 * 1024)
#define CONTROL_LEN	(CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)))
#define N_PORTS		2

struct stun_socket {
	struct stun_server *server;
	uv_poll_t poll;
	int fd; /* -1: not open */
	uint32_t address_index, port_index;
	struct endpoint local;
	bool is_v6;
	bool tells_address; /* of many: with each question comes which of them was asked */
};

/* One question, and the answer to it in the same places. */
struct exchange {
	uint8_t bytes[STUN_MAX_LEN];
	_Alignas(struct cmsghdr) uint8_t control[CONTROL_LEN];
	struct sockaddr_storage remote;
	struct iovec iov;
};

struct stun_server {
	uint32_t n_addresses, n_ports, n_open;
	struct stun_socket sockets[STUN_SERVER_MAX_ADDRESSES][N_PORTS];
	struct stun_server_counters counters;
	struct source_limit limit;
	struct exchange exchanges[BATCH];
	struct mmsghdr in[BATCH], out[BATCH];
	void (*stopped)(void *owner);
	void *owner;
};

/* which address was asked, and answering from it */

static struct endpoint asked_address(const struct stun_socket *sock, struct msghdr *message)
{
	struct endpoint asked = sock->local;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;
			memcpy(&info, CMSG_DATA(c), sizeof(info));
			asked = endpoint_from_v4(ntohl(info.ipi_addr.s_addr), sock->local.port);
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;
			memcpy(&info, CMSG_DATA(c), sizeof(info));
			memcpy(asked.ip, &info.ipi6_addr, sizeof(asked.ip));
			if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
				asked.scope_id = info.ipi6_ifindex;
		}
	}
	return asked;
}

/* Turns the control message of the question, if any, into that of the answer: from here, by any interface. */
static void answer_from(const struct stun_socket *sock, struct msghdr *message, const struct endpoint *asked)
{
	if (!sock->tells_address)
		return;
	bool is_v6 = sock->is_v6;
	struct in6_pktinfo info6 = { 0 };
	struct in_pktinfo info4 = { 0 };

	memcpy(&info6.ipi6_addr, asked->ip, sizeof(asked->ip));
	info6.ipi6_ifindex = asked->scope_id;
	memcpy(&info4.ipi_spec_dst, asked->ip + 12, 4);
	message->msg_controllen = is_v6 ? CMSG_SPACE(sizeof(info6)) : CMSG_SPACE(sizeof(info4));
	struct cmsghdr *c = CMSG_FIRSTHDR(message);
	c->cmsg_level = is_v6 ? IPPROTO_IPV6 : IPPROTO_IP;
	c->cmsg_type = is_v6 ? IPV6_PKTINFO : IP_PKTINFO;
	c->cmsg_len = is_v6 ? CMSG_LEN(sizeof(info6)) : CMSG_LEN(sizeof(info4));
	if (is_v6)
		memcpy(CMSG_DATA(c), &info6, sizeof(info6));
	else
		memcpy(CMSG_DATA(c), &info4, sizeof(info4));
}

/* RFC 5780 */

/* The socket on another address of the same family; NULL: there is none. */
static struct stun_socket *other_address(struct stun_server *server, const struct stun_socket *sock)
{
	for (uint32_t i = 1; i < server->n_addresses; i++) {
		uint32_t index = (sock->address_index + i) % server->n_addresses;
		struct stun_socket *other = &server->sockets[index][sock->port_index];
		if (endpoint_is_v4(&other->local) == endpoint_is_v4(&sock->local))
			return other;
	}
	return NULL;
}

static bool is_wildcard(const struct endpoint *endpoint)
{
	static const uint8_t zero[16];

	return memcmp(endpoint->ip, zero, 16) == 0 ||
	       (endpoint_is_v4(endpoint) && memcmp(endpoint->ip + 12, zero, 4) == 0);
}

static bool can_change(struct stun_server *server, const struct stun_socket *sock)
{
	const struct stun_socket *other = other_address(server, sock);

	return server->n_ports == 2 && other && !is_wildcard(&sock->local) && !is_wildcard(&other->local);
}

static struct stun_socket *answering_socket(struct stun_server *server, struct stun_socket *sock,
					    const struct stun_message *question)
{
	if (question->change_ip)
		sock = other_address(server, sock);
	return question->change_port ? &server->sockets[sock->address_index][1 - sock->port_index] : sock;
}

/* answering */

static bool is_question(struct stun_server *server, const uint8_t *bytes, size_t len, struct stun_message *ret)
{
	if (stun_decode(bytes, len, ret) != 0) {
		server->counters.garbage++;
		return false;
	}
	if (ret->class != STUN_REQUEST || ret->method != STUN_METHOD_BINDING) {
		server->counters.not_a_request++;
		return false;
	}
	return true;
}

static void refuse_attribute(struct stun_message *question, uint16_t type)
{
	if (question->n_unknown < STUN_MAX_UNKNOWN)
		question->unknown[question->n_unknown++] = type;
}

static size_t encode_refusal(struct stun_server *server, const struct stun_message *question, uint8_t *buf,
			     size_t cap)
{
	struct stun_message answer = { .class = STUN_ERROR,
				       .method = STUN_METHOD_BINDING,
				       .tx = question->tx,
				       .has_fingerprint = question->has_fingerprint,
				       .error_code = STUN_CODE_UNKNOWN_ATTRIBUTE,
				       .n_unknown = question->n_unknown };

	memcpy(answer.unknown, question->unknown, sizeof(answer.unknown));
	server->counters.unknown_attribute++;
	return stun_encode(buf, cap, &answer);
}

/* Never more than cap, the size of the question: what is not needed is left out first. */
static size_t encode_answer(const struct stun_message *question, const struct endpoint *mapped,
			    const struct endpoint *origin, const struct endpoint *other, uint8_t *buf, size_t cap)
{
	struct stun_message answer = { .class = STUN_SUCCESS,
				       .method = STUN_METHOD_BINDING,
				       .tx = question->tx,
				       .has_fingerprint = question->has_fingerprint,
				       .mapped = *mapped,
				       .response_origin = *origin };

	if (other)
		answer.other_address = *other;
	size_t n = stun_encode(buf, cap, &answer);
	if (n > 0)
		return n;
	answer.other_address = answer.response_origin = (struct endpoint){ 0 };
	return stun_encode(buf, cap, &answer);
}

/* From another socket than the question came to: one by one, such are rare. */
static void send_from(struct stun_server *server, struct stun_socket *sock, const struct endpoint *to,
		      const uint8_t *bytes, size_t len)
{
	struct sockaddr_storage address;
	socklen_t address_len = endpoint_to_sockaddr(to, &address);

	if (sendto(sock->fd, bytes, len, MSG_DONTWAIT, (struct sockaddr *)&address, address_len) < 0)
		server->counters.send_failed++;
	else
		server->counters.answered++;
}

/* The answer to a question in the same exchange. True when it is to be sent with the batch. */
static bool answer(struct stun_server *server, struct stun_socket *sock, struct exchange *exchange, size_t len,
		   struct msghdr *message)
{
	struct endpoint source = endpoint_from_sockaddr((struct sockaddr *)&exchange->remote);
	struct stun_message question;
	struct stun_socket *from = sock;
	size_t n;

	if (!source_limit_take(&server->limit, &source, uv_now(sock->poll.loop))) {
		server->counters.rate_limited++;
		return false;
	}
	if (!is_question(server, exchange->bytes, len, &question))
		return false;

	bool changes = can_change(server, sock);
	if (question.has_change_request && !changes)
		refuse_attribute(&question, 0x0003);
	if (question.response_port != 0 && !changes)
		refuse_attribute(&question, 0x0027);
	struct endpoint asked = asked_address(sock, message);
	if (question.n_unknown > 0) {
		n = encode_refusal(server, &question, exchange->bytes, len);
	} else {
		from = changes ? answering_socket(server, sock, &question) : sock;
		struct stun_socket *other = changes ? other_address(server, sock) : NULL;
		if (other)
			other = &server->sockets[other->address_index][1 - sock->port_index];
		n = encode_answer(&question, &source, from == sock ? &asked : &from->local,
				  other ? &other->local : NULL, exchange->bytes, len);
	}
	if (n == 0) {
		server->counters.too_small++;
		return false;
	}
	exchange->iov.iov_len = n;
	if (from == sock && question.response_port == 0) {
		answer_from(sock, message, &asked);
		return true;
	}
	if (question.response_port != 0)
		source.port = question.response_port;
	send_from(server, from, &source, exchange->bytes, n);
	return false;
}

/* batches */

static void prepare_batch(struct stun_server *server, const struct stun_socket *sock)
{
	const size_t control_len = sock->tells_address ? CONTROL_LEN : 0;

	for (int i = 0; i < BATCH; i++) {
		struct exchange *exchange = &server->exchanges[i];
		exchange->iov = (struct iovec){ exchange->bytes, sizeof(exchange->bytes) };
		server->in[i].msg_hdr = (struct msghdr){ .msg_name = &exchange->remote,
							 .msg_namelen = sizeof(exchange->remote),
							 .msg_iov = &exchange->iov,
							 .msg_iovlen = 1,
							 .msg_control = exchange->control,
							 .msg_controllen = control_len };
	}
}

/* One that cannot be sent does not take the others with it. */
static void send_batch(struct stun_server *server, int fd, unsigned n)
{
	for (unsigned done = 0; done < n;) {
		int sent = sendmmsg(fd, server->out + done, n - done, MSG_DONTWAIT);
		if (sent <= 0) {
			server->counters.send_failed++;
			done++;
			continue;
		}
		server->counters.answered += (unsigned)sent;
		done += (unsigned)sent;
	}
}

/* False when there was not a full batch. */
static bool serve_batch(struct stun_server *server, struct stun_socket *sock)
{
	unsigned n_out = 0;

	prepare_batch(server, sock);
	int n = recvmmsg(sock->fd, server->in, BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < n; i++) {
		struct mmsghdr *in = &server->in[i];
		server->counters.received++;
		if (in->msg_hdr.msg_flags & MSG_TRUNC)
			server->counters.garbage++;
		else if (answer(server, sock, &server->exchanges[i], in->msg_len, &in->msg_hdr))
			server->out[n_out++] = *in;
	}
	send_batch(server, sock->fd, n_out);
	return n == BATCH;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct stun_socket *sock = container_of(poll, struct stun_socket, poll);

	(void)status;
	(void)events;
	for (int i = 0; i < BATCHES_A_TURN; i++)
		if (!serve_batch(sock->server, sock))
			return;
}

/* opening and closing */

/*
 * An answer fits into any packet: DF costs nothing, and spares the kernel looking for a number that no fragment
 * needs. The address that was asked is had from the kernel only where the socket does not say it.
 */
static int set_options(struct stun_socket *sock)
{
	int one = 1, whole = IP_PMTUDISC_PROBE, buffer = RECEIVE_BUFFER;

	(void)setsockopt(sock->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer)); /* as much as there is */
	(void)setsockopt(sock->fd, IPPROTO_IP, IP_MTU_DISCOVER, &whole, sizeof(whole)); /* IPv4, mapped as well */
	if (!sock->tells_address)
		return 0;
	return sock->is_v6 ? setsockopt(sock->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one))
			   : setsockopt(sock->fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one));
}

static int bind_socket(struct stun_socket *sock, const struct endpoint *address)
{
	struct sockaddr_storage sockaddr;
	socklen_t len = endpoint_to_sockaddr(address, &sockaddr);
	int only = !is_wildcard(address);

	sock->is_v6 = sockaddr.ss_family == AF_INET6;
	sock->tells_address = is_wildcard(address);
	sock->fd = socket(sockaddr.ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sock->fd < 0)
		return -errno;
	int r = set_options(sock);
	if (r == 0 && sock->is_v6)
		r = setsockopt(sock->fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
	if (r == 0)
		r = bind(sock->fd, (struct sockaddr *)&sockaddr, len);
	len = sizeof(sockaddr);
	if (r == 0)
		r = getsockname(sock->fd, (struct sockaddr *)&sockaddr, &len);
	if (r < 0)
		return -errno;
	sock->local = endpoint_from_sockaddr((struct sockaddr *)&sockaddr);
	return 0;
}

static int open_socket(struct stun_server *server, uv_loop_t *loop, uint32_t address_index, uint32_t port_index,
		       const struct endpoint *address, struct error *reterr)
{
	struct stun_socket *sock = &server->sockets[address_index][port_index];

	sock->server = server;
	sock->address_index = address_index;
	sock->port_index = port_index;
	int r = bind_socket(sock, address);
	if (r == 0)
		r = uv_poll_init(loop, &sock->poll, sock->fd);
	if (r < 0) {
		if (sock->fd >= 0)
			close(sock->fd);
		sock->fd = -1;
		return error_set(reterr, r, "cannot serve STUN on UDP %s: %s", endpoint_text(address).s,
				 strerror(-r));
	}
	sock->poll.data = sock;
	server->n_open++;
	uv_poll_start(&sock->poll, UV_READABLE, on_readable);
	return 0;
}

static int open_all(struct stun_server *server, uv_loop_t *loop, const struct stun_server_options *options,
		    struct error *reterr)
{
	for (uint32_t i = 0; i < options->n_listen; i++) {
		for (uint32_t j = 0; j < server->n_ports; j++) {
			struct endpoint address = options->listen[i];
			if (j == 1)
				address.port = options->other_port;
			else if (address.port == 0)
				address.port = stun_server_port(server);
			int r = open_socket(server, loop, i, j, &address, reterr);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int stun_server_start(uv_loop_t *loop, const struct stun_server_options *options, struct stun_server **ret,
		      struct error *reterr)
{
	if (options->n_listen == 0 || options->n_listen > STUN_SERVER_MAX_ADDRESSES)
		return error_set(reterr, -EINVAL, "a STUN server listens on 1 to %d addresses, not %u",
				 STUN_SERVER_MAX_ADDRESSES, options->n_listen);
	struct stun_server *server = calloc(1, sizeof(*server));
	if (!server)
		return error_set(reterr, -ENOMEM, "out of memory");
	server->n_addresses = options->n_listen;
	server->n_ports = options->other_port != 0 ? 2 : 1;
	for (uint32_t i = 0; i < STUN_SERVER_MAX_ADDRESSES; i++)
		server->sockets[i][0].fd = server->sockets[i][1].fd = -1;
	source_limit_init(&server->limit, options->rate_per_s ? options->rate_per_s : DEFAULT_RATE,
			  options->burst ? options->burst : DEFAULT_BURST);

	int r = open_all(server, loop, options, reterr);
	if (r < 0) {
		stun_server_stop(server, NULL, NULL);
		return r;
	}
	*ret = server;
	return 0;
}

static void finish_stop(struct stun_server *server)
{
	void (*stopped)(void *owner) = server->stopped;
	void *owner = server->owner;

	free(server);
	if (stopped)
		stopped(owner);
}

static void on_closed(uv_handle_t *handle)
{
	struct stun_socket *sock = handle->data;
	struct stun_server *server = sock->server;

	close(sock->fd);
	if (--server->n_open == 0)
		finish_stop(server);
}

void stun_server_stop(struct stun_server *server, void (*cb)(void *owner), void *owner)
{
	server->stopped = cb;
	server->owner = owner;
	if (server->n_open == 0) {
		/* Nothing was opened: only a failed start comes here, and it has no callback. */
		assert(!cb);
		finish_stop(server);
		return;
	}
	for (uint32_t i = 0; i < server->n_addresses; i++)
		for (uint32_t j = 0; j < server->n_ports; j++)
			if (server->sockets[i][j].fd >= 0)
				uv_close((uv_handle_t *)&server->sockets[i][j].poll, on_closed);
}

uint16_t stun_server_port(const struct stun_server *server)
{
	return server->sockets[0][0].local.port;
}

struct stun_server_counters stun_server_counters(const struct stun_server *server)
{
	return server->counters;
}
