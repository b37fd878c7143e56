#include "udp_client.h"

#include "world.h"

#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

struct arrival arrival;

struct endpoint at(const char *ip, uint16_t port)
{
	struct endpoint endpoint;

	EXPECT(endpoint_parse_ip(ip, port, &endpoint) == 0);
	return endpoint;
}

int open_client(const char *ip)
{
	const struct endpoint any = at(ip, 0);
	const struct timeval patience = { .tv_sec = 10 };
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(&any, &address);
	const int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), one = 1;

	EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0);
	EXPECT(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
	EXPECT(setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one)) == 0);
	return fd;
}

void send_bytes(const struct client *client, const void *bytes, size_t n)
{
	struct sockaddr_storage address;
	const socklen_t len = endpoint_to_sockaddr(&client->relay, &address);

	EXPECT(sendto(client->fd, bytes, n, 0, (struct sockaddr *)&address, len) == (ssize_t)n);
}

void send_datagram(const struct client *client, const struct relay_udp_datagram *datagram)
{
	static uint8_t bytes[65536];

	send_bytes(client, bytes, relay_udp_encode(bytes, sizeof(bytes), datagram));
}

void receive_bytes(const struct client *client)
{
	_Alignas(struct cmsghdr) uint8_t control[64];
	struct sockaddr_storage address = { 0 };
	struct iovec iov = { arrival.bytes, sizeof(arrival.bytes) };
	struct msghdr header = { .msg_name = &address,
				 .msg_namelen = sizeof(address),
				 .msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control) };
	const ssize_t n = recvmsg(client->fd, &header, 0);
	int size;

	EXPECT(n > 0);
	arrival.len = arrival.size = (size_t)n;
	arrival.from = endpoint_from_sockaddr((struct sockaddr *)&address);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
		EXPECT(c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO);
		memcpy(&size, CMSG_DATA(c), sizeof(size));
		arrival.size = (size_t)size;
	}
}

/* The next thing the client gets is this. */
void await(const struct client *client, enum relay_udp_type type)
{
	receive_bytes(client);
	const size_t first = arrival.size < arrival.len ? arrival.size : arrival.len;
	EXPECT(relay_udp_decode(arrival.bytes, first, &arrival.datagram) == 0 && arrival.datagram.type == type);
	EXPECT(endpoint_equal(&arrival.from, &client->relay));
}

void ask(struct client *client)
{
	send_datagram(client, &(struct relay_udp_datagram){ .type = RELAY_UDP_ASK, .ask = { 42 } });
	await(client, RELAY_UDP_COOKIE);
	EXPECT(arrival.datagram.cookie.number == 42);
	memcpy(client->cookie, arrival.datagram.cookie.cookie, sizeof(client->cookie));
}

size_t make_bind(const struct client *client, uint8_t bytes[RELAY_UDP_MAX_LEN])
{
	struct relay_udp_datagram bind = { .type = RELAY_UDP_BIND,
					   .bind = { .version = RELAY_UDP_VERSION,
						     .node_key = client->public,
						     .number = client->number } };

	memcpy(bind.bind.cookie, client->cookie, sizeof(client->cookie));
	const size_t len = relay_udp_encode(bytes, RELAY_UDP_MAX_LEN, &bind);
	relay_udp_prove(&client->proof, bytes, len);
	return len;
}

void send_bind(struct client *client)
{
	uint8_t bytes[RELAY_UDP_MAX_LEN];

	client->number++;
	send_bytes(client, bytes, make_bind(client, bytes));
}

void await_bound(struct client *client)
{
	await(client, RELAY_UDP_BOUND);
	EXPECT(relay_udp_is_proven(&client->proof, arrival.bytes, arrival.len));
	EXPECT(arrival.datagram.bound.number == client->number);
	client->slot = arrival.datagram.bound.slot;
	client->token = arrival.datagram.bound.token;
}

struct relay_udp_header header_to(const struct client *client, enum relay_udp_type type, uint32_t to)
{
	return (struct relay_udp_header){ type, to, client->slot, client->token };
}

void say(const struct client *from, const struct client *to, const char *text)
{
	send_datagram(from, &(struct relay_udp_datagram){ .type = RELAY_UDP_DATA,
							  .header = header_to(from, RELAY_UDP_DATA, to->slot),
							  .packet = { (const uint8_t *)text, strlen(text) } });
}

void await_said(const struct client *client, const struct client *from, const char *text)
{
	await(client, RELAY_UDP_DATA);
	EXPECT(arrival.datagram.header.from == from->slot && arrival.datagram.header.to == client->slot);
	EXPECT(arrival.datagram.header.token == client->token);
	EXPECT(arrival.datagram.packet.len == strlen(text));
	EXPECT(memcmp(arrival.datagram.packet.bytes, text, strlen(text)) == 0);
}

void ping(const struct client *client)
{
	send_datagram(client, &(struct relay_udp_datagram){ .type = RELAY_UDP_PING,
							    .header = header_to(client, RELAY_UDP_PING, 0),
							    .ping = { .number = 7 } });
	await(client, RELAY_UDP_PONG);
	EXPECT(arrival.datagram.ping.number == 7);
}

void make_client(struct client *client, const struct public_key *relay_key)
{
	secret_key_generate(&client->secret);
	secret_key_public(&client->secret, &client->public);
	EXPECT(relay_udp_key(&client->secret, &client->public, relay_key, false, &client->proof) == 0);
	client->fd = -1;
}

void bind_client(struct client *client, const char *ip, struct endpoint relay)
{
	client->fd = open_client(ip);
	client->relay = relay;
	ask(client);
	send_bind(client);
	await_bound(client);
}
