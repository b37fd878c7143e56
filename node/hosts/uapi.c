/*
 * The WireGuard of a daemon that was started by the user (wireguard-go, p2pwg …), by its socket. One
 * connection for each question: the daemon may end at any time.
 */
#include "node/hosts/control.h"

#include "common/wire.h"
#include "node/wireguard/link.h"
#include "node/wireguard/uapi.h"
#include "node/wireguard/uapi_wire.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_S     5
#define ITEM_TEXT_LEN  128
#define ITEMS_PER_PEER 6
#define MAX_ANSWER     (64u << 20)

struct wireguard_control {
	char interface[IFNAMSIZ];
};

/* ---- asking ---- */

/* The daemon is given our private key: whoever else has put a socket there does not get it. */
static bool is_trusted(int fd)
{
	struct ucred daemon;
	socklen_t len = sizeof(daemon);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &daemon, &len) == 0 &&
	       (daemon.uid == 0 || daemon.uid == geteuid());
}

static int connect_to(const char *interface, int *ret_fd, struct error *reterr)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return error_set(reterr, -errno, "cannot make a socket: %s", strerror(errno));
	snprintf(name.sun_path, sizeof(name.sun_path), UAPI_FOLDER "/%s.sock", interface);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (const struct sockaddr *)&name, sizeof(name)) != 0) {
		int r = -errno;
		close(fd);
		return error_set(reterr, r,
				 "%s: %s; no WireGuard daemon serves interface %s: start one (such as wireguard-go "
				 "%s), or set wireguard = in-process in [node]",
				 name.sun_path, strerror(-r), interface, interface);
	}
	if (!is_trusted(fd)) {
		close(fd);
		return error_set(reterr, -EPERM, "%s belongs to a program of another user, which is not told the key",
				 name.sun_path);
	}
	*ret_fd = fd;
	return 0;
}

static int send_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Until the empty line. *ret is malloc'd, and holds keys. */
static int receive_all(int fd, char **ret, size_t *ret_len)
{
	size_t len = 0, size = 4096, scanned = 0;
	char *text = malloc(size);
	int r = 0;

	while (text && r == 0 && uapi_request_len(text, len, &scanned) == 0) {
		if (len == size) {
			char *bigger = size < MAX_ANSWER ? malloc(size * 2) : NULL;
			if (bigger)
				memcpy(bigger, text, len);
			sodium_memzero(text, len);
			free(text);
			text = bigger;
			size *= 2;
			continue;
		}
		ssize_t n = recv(fd, text + len, size - len, 0);
		if (n > 0)
			len += (size_t)n;
		else if (n == 0)
			r = -EPROTO;
		else if (errno != EINTR)
			r = errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	*ret = text;
	*ret_len = len;
	return text ? r : -ENOMEM;
}

static void ignore_peer(void *arg, const struct uapi_peer *peer)
{
}

static int ask(const char *interface, const char *request, size_t len, struct uapi_device *ret,
	       void (*each)(void *arg, const struct uapi_peer *peer), void *arg, struct error *reterr)
{
	char *answer = NULL;
	size_t answer_len = 0;
	int fd = -1, r = connect_to(interface, &fd, reterr);

	if (r != 0)
		return r;
	r = send_all(fd, request, len);
	if (r == 0)
		r = receive_all(fd, &answer, &answer_len);
	if (r == 0)
		r = uapi_parse_answer(answer, answer_len, ret, each, arg);
	if (answer)
		sodium_memzero(answer, answer_len);
	free(answer);
	close(fd);
	if (r != 0)
		return error_set(reterr, r, "the WireGuard daemon of interface %s refuses or is silent: %s", interface,
				 strerror(-r));
	return 0;
}

/* ---- telling ---- */

static void put_items(struct wire_writer *w, const struct uapi_item *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		uapi_put_item(w, &items[i]);
}

static struct uapi_item allowed(bool is_v4, const void *ip)
{
	struct uapi_item item = { .key = UAPI_ALLOWED_IP,
				  .allowed_ip = { .is_v4 = is_v4, .prefix_len = is_v4 ? 32 : 128 } };

	memcpy(item.allowed_ip.ip, ip, is_v4 ? 4 : 16);
	return item;
}

static void put_setting(struct wire_writer *w, const struct wireguard_setting *setting)
{
	struct uapi_item items[ITEMS_PER_PEER] = { { .key = UAPI_PUBLIC_KEY } };
	size_t n = 1;

	memcpy(items[0].secret, setting->key.bytes, KEY_LEN);
	if (setting->remove) {
		items[n++].key = UAPI_REMOVE;
		put_items(w, items, n);
		return;
	}
	if (setting->is_new) {
		items[n++].key = UAPI_REPLACE_ALLOWED_IPS;
		items[n++] = allowed(true, &setting->ip4);
		items[n++] = allowed(false, &setting->ip6);
	}
	if (!endpoint_is_none(&setting->endpoint))
		items[n++] = (struct uapi_item){ .key = UAPI_ENDPOINT, .endpoint = setting->endpoint };
	if (setting->keepalive_s >= 0)
		items[n++] =
			(struct uapi_item){ .key = UAPI_KEEPALIVE, .number = (uint32_t)setting->keepalive_s };
	put_items(w, items, n);
}

static int uapi_configure(struct wireguard_control *control, const struct wireguard_setting *settings, size_t n,
			  struct error *reterr)
{
	size_t size = 16 + n * ITEMS_PER_PEER * ITEM_TEXT_LEN;
	struct uapi_device ignored;

	if (n == 0)
		return 0;
	char *text = malloc(size);
	if (!text)
		abort();
	struct wire_writer w = wire_writer(text, size);
	wire_put(&w, "set=1\n", 6);
	for (size_t i = 0; i < n; i++)
		put_setting(&w, &settings[i]);
	wire_put(&w, "\n", 1);
	int r = ask(control->interface, text, wire_written(&w), &ignored, ignore_peer, NULL, reterr);
	free(text);
	return r;
}

/* The key, and no peers. */
static int set_key(const char *interface, const struct secret_key *key, struct error *reterr)
{
	struct uapi_item items[2] = { { .key = UAPI_PRIVATE_KEY }, { .key = UAPI_REPLACE_PEERS } };
	struct uapi_device ignored;
	char text[512];

	memcpy(items[0].secret, key->bytes, KEY_LEN);
	struct wire_writer w = wire_writer(text, sizeof(text));
	wire_put(&w, "set=1\n", 6);
	put_items(&w, items, 2);
	wire_put(&w, "\n", 1);
	int r = ask(interface, text, wire_written(&w), &ignored, ignore_peer, NULL, reterr);
	sodium_memzero(text, sizeof(text));
	sodium_memzero(items, sizeof(items));
	return r;
}

static void forget_key(const char *interface)
{
	static const struct secret_key none;
	struct error ignored; /* the daemon may have ended */

	(void)!set_key(interface, &none, &ignored);
}

/* ---- the rest ---- */

static void add_reading(void *arg, const struct uapi_peer *peer)
{
	struct wireguard_reading *reading = wireguard_readings_add(arg);

	reading->key = peer->public_key;
	reading->endpoint = peer->endpoint;
	reading->last_handshake_real_ns = peer->last_handshake_s * 1000000000 + peer->last_handshake_ns;
	reading->rx_bytes = peer->rx_bytes;
	reading->tx_bytes = peer->tx_bytes;
}

static int uapi_read(struct wireguard_control *control, struct wireguard_readings *ret, struct error *reterr)
{
	struct uapi_device device = { 0 };
	int r = ask(control->interface, "get=1\n\n", 7, &device, add_reading, ret, reterr);

	ret->port = device.listen_port;
	return r;
}

static int uapi_open(const char *interface, const struct secret_key *key, struct wireguard_control **ret,
		     int *ret_ifindex, struct error *reterr)
{
	struct link_info link;
	int r = set_key(interface, key, reterr);

	if (r == 0)
		r = link_find(interface, &link, reterr);
	if (r != 0) {
		forget_key(interface); /* it may have taken it before it failed */
		return r;
	}
	struct wireguard_control *control = calloc(1, sizeof(*control));
	if (!control)
		abort();
	snprintf(control->interface, sizeof(control->interface), "%s", interface);
	*ret_ifindex = link.ifindex;
	*ret = control;
	return 0;
}

static void uapi_control_close(struct wireguard_control *control)
{
	forget_key(control->interface);
	free(control);
}

const struct wireguard_control_class wireguard_uapi_control = {
	.open = uapi_open,
	.configure = uapi_configure,
	.read = uapi_read,
	.close = uapi_control_close,
	.keeps_interface = true,
};
