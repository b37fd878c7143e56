#include "node/turn/turn_client.h"

#include "common/clock.h"
#include "common/log.h"
#include "node/turn/turn_fsm.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <stun/stunagent.h>
#include <stun/usages/turn.h>
#include <sys/socket.h>
#include <unistd.h>

#define LIFETIME_S	600
#define MAX_REQUEST	1024
#define MAX_ANSWER	1500
#define MAX_DATAGRAM	65535
#define CHANNEL_HEADER	4
#define MAX_FRAGMENTED	1320 /* what 1280 bytes inside need always passes, in fragments if need be; more must fit */
#define MAX_WAIT_MS	30000 /* the timer stands still while the machine sleeps */
#define N_SLOTS		(1 + TURN_MAX_PERMISSIONS + TURN_MAX_CHANNELS)
#define COMPATIBILITY	STUN_USAGE_TURN_COMPATIBILITY_RFC5766

/* One request under way, kept to be repeated. */
struct slot {
	size_t len; /* 0: none */
	StunTransactionId id;
	uint8_t bytes[MAX_REQUEST];
};

/* A peer's address, as the node sees it. */
struct peer_socket {
	uv_udp_t udp;
	struct turn_client *client;
	uint32_t index; /* of its channel */
};

struct turn_client {
	struct turn_client_options options;
	char *user, *password;
	struct turn_fsm fsm;
	StunAgent agent;
	uv_udp_t *server;	/* NULL: no way there when an address was last asked for */
	struct endpoint source; /* of it: ours */
	uv_timer_t timer;
	struct slot slots[N_SLOTS]; /* allocation, permissions, channels */
	struct peer_socket *peers[TURN_MAX_CHANNELS];
	/* The last answer that told realm and nonce. */
	uint8_t challenge_bytes[MAX_ANSWER];
	StunMessage challenge;
	bool has_challenge, is_whole;
	bool is_closing;
	int n_open;
	void (*closed)(void *owner);
	void *closed_owner;
	uint8_t in[MAX_DATAGRAM], out[MAX_DATAGRAM];
};

/* What we understand; anything else that must be understood makes an answer none. */
static const uint16_t known_attributes[] = {
	STUN_ATTRIBUTE_MAPPED_ADDRESS,	     STUN_ATTRIBUTE_USERNAME,	      STUN_ATTRIBUTE_MESSAGE_INTEGRITY,
	STUN_ATTRIBUTE_ERROR_CODE,	     STUN_ATTRIBUTE_UNKNOWN_ATTRIBUTES, STUN_ATTRIBUTE_CHANNEL_NUMBER,
	STUN_ATTRIBUTE_LIFETIME,	     STUN_ATTRIBUTE_XOR_PEER_ADDRESS, STUN_ATTRIBUTE_DATA,
	STUN_ATTRIBUTE_REALM,		     STUN_ATTRIBUTE_NONCE,	      STUN_ATTRIBUTE_XOR_RELAYED_ADDRESS,
	STUN_ATTRIBUTE_REQUESTED_TRANSPORT,  STUN_ATTRIBUTE_XOR_MAPPED_ADDRESS, 0
};

static void feed(struct turn_client *client, struct turn_input input);

/* ---- the end ---- */

static void on_part_closed(struct turn_client *client)
{
	if (--client->n_open > 0 || !client->is_closing)
		return;
	client->closed(client->closed_owner);
	sodium_memzero(client->password, strlen(client->password));
	free(client->password);
	free(client->user);
	sodium_memzero(client, sizeof(*client));
	free(client);
}

static void on_handle_closed(uv_handle_t *handle)
{
	on_part_closed(handle->data);
}

static void on_peer_closed(uv_handle_t *handle)
{
	struct peer_socket *peer = handle->data;

	on_part_closed(peer->client);
	free(peer);
}

static void close_peer(struct turn_client *client, uint32_t index)
{
	if (client->peers[index])
		uv_close((uv_handle_t *)&client->peers[index]->udp, on_peer_closed);
	client->peers[index] = NULL;
}

static void on_server_closed(uv_handle_t *handle)
{
	on_part_closed(handle->data);
	free(handle);
}

static void close_server(struct turn_client *client)
{
	if (client->server)
		uv_close((uv_handle_t *)client->server, on_server_closed);
	client->server = NULL;
	client->source = (struct endpoint){ 0 };
	client->is_whole = false;
}

static void close_all(struct turn_client *client)
{
	if (client->is_closing)
		return;
	client->is_closing = true;
	for (uint32_t i = 0; i < TURN_MAX_CHANNELS; i++)
		close_peer(client, i);
	close_server(client);
	uv_close((uv_handle_t *)&client->timer, on_handle_closed);
}

/* ---- requests ---- */

static struct slot *slot_of(struct turn_client *client, enum turn_request request, uint32_t index)
{
	if (request == TURN_PERMIT)
		return &client->slots[1 + index];
	return request == TURN_BIND ? &client->slots[1 + TURN_MAX_PERMISSIONS + index] : &client->slots[0];
}

static void send_to_server(struct turn_client *client, const uint8_t *bytes, size_t len)
{
	uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)len);

	if (client->server && uv_udp_try_send(client->server, &buffer, 1, NULL) == UV_ECONNREFUSED)
		(void)uv_udp_try_send(client->server, &buffer, 1, NULL); /* that was an earlier one's error */
}

static void forget(struct turn_client *client, struct slot *slot)
{
	if (slot->len > 0)
		stun_agent_forget_transaction(&client->agent, slot->id);
	slot->len = 0;
}

static bool put_peer(StunMessage *message, const struct endpoint *peer)
{
	struct sockaddr_storage address;
	const socklen_t len = endpoint_to_sockaddr(peer, &address);

	return stun_message_append_xor_addr(message, STUN_ATTRIBUTE_XOR_PEER_ADDRESS, &address, len) ==
	       STUN_MESSAGE_RETURN_SUCCESS;
}

static bool copy_attribute(StunMessage *to, const StunMessage *from, StunAttribute type)
{
	uint16_t len;
	const void *value = stun_message_find(from, type, &len);

	return value && stun_message_append_bytes(to, type, value, len) == STUN_MESSAGE_RETURN_SUCCESS;
}

/* libnice's header has a function for the first of the two, but the library does not. */
static size_t make_by_hand(struct turn_client *client, StunMessage *message, struct slot *slot,
			   enum turn_request request, uint32_t index)
{
	const bool binds = request == TURN_BIND;
	const struct turn_channel *channel = &client->fsm.channels[binds ? index : 0];
	const struct endpoint *peer = binds ? &channel->peer : &client->fsm.permissions[index].ip;

	if (!client->has_challenge ||
	    !stun_agent_init_request(&client->agent, message, slot->bytes, sizeof(slot->bytes),
				     binds ? STUN_CHANNELBIND : STUN_CREATEPERMISSION))
		return 0;
	if (binds && stun_message_append32(message, STUN_ATTRIBUTE_CHANNEL_NUMBER,
					   (uint32_t)channel->number << 16) != STUN_MESSAGE_RETURN_SUCCESS)
		return 0;
	if (!put_peer(message, peer) || !copy_attribute(message, &client->challenge, STUN_ATTRIBUTE_REALM) ||
	    !copy_attribute(message, &client->challenge, STUN_ATTRIBUTE_NONCE) ||
	    stun_message_append_string(message, STUN_ATTRIBUTE_USERNAME, client->user) != STUN_MESSAGE_RETURN_SUCCESS)
		return 0;
	return stun_agent_finish_message(&client->agent, message, (const uint8_t *)client->password,
					 strlen(client->password));
}

static size_t make_allocation(struct turn_client *client, StunMessage *message, struct slot *slot, int32_t lifetime_s,
			      bool refreshes)
{
	StunMessage *previous = client->has_challenge ? &client->challenge : NULL;
	uint8_t *user = previous ? (uint8_t *)client->user : NULL;
	uint8_t *password = previous ? (uint8_t *)client->password : NULL;
	const size_t user_len = user ? strlen(client->user) : 0, password_len = user ? strlen(client->password) : 0;

	if (refreshes)
		return stun_usage_turn_create_refresh(&client->agent, message, slot->bytes, sizeof(slot->bytes),
						      previous, lifetime_s, user, user_len, password, password_len,
						      COMPATIBILITY);
	return stun_usage_turn_create(&client->agent, message, slot->bytes, sizeof(slot->bytes), previous,
				      STUN_USAGE_TURN_REQUEST_PORT_NORMAL, -1, lifetime_s, user, user_len, password,
				      password_len, COMPATIBILITY);
}

/* What cannot be made is not answered, which is what the machine is prepared for. */
static void make_request(struct turn_client *client, enum turn_request request, uint32_t index)
{
	struct slot *slot = slot_of(client, request, index);
	const bool releases = client->fsm.state == TURN_RELEASING;
	StunMessage message;

	forget(client, slot);
	if (request == TURN_ALLOCATE || request == TURN_REFRESH)
		slot->len = make_allocation(client, &message, slot, releases ? 0 : LIFETIME_S,
					    request == TURN_REFRESH);
	else
		slot->len = make_by_hand(client, &message, slot, request, index);
	if (slot->len == 0)
		return;
	stun_message_id(&message, slot->id);
	send_to_server(client, slot->bytes, slot->len);
}

/* ---- answers ---- */

static bool is_of(const StunMessage *message, const struct slot *slot)
{
	StunTransactionId id;

	stun_message_id(message, id);
	return slot->len > 0 && memcmp(id, slot->id, sizeof(id)) == 0;
}

static void read_allocation(StunMessage *message, struct turn_input *input)
{
	struct sockaddr_storage relayed = { 0 }, mapped, alternate;
	socklen_t relayed_len = sizeof(relayed), mapped_len = sizeof(mapped), alternate_len = sizeof(alternate);
	uint32_t bandwidth = 0;
	const StunUsageTurnReturn r =
		stun_usage_turn_process(message, &relayed, &relayed_len, &mapped, &mapped_len, &alternate,
					&alternate_len, &bandwidth, &input->lifetime_s, COMPATIBILITY);

	if (r == STUN_USAGE_TURN_RETURN_RELAY_SUCCESS || r == STUN_USAGE_TURN_RETURN_MAPPED_SUCCESS)
		input->endpoint = endpoint_from_sockaddr((const struct sockaddr *)&relayed);
}

static void keep_challenge(struct turn_client *client, const StunMessage *message, size_t len)
{
	uint16_t ignored;

	if (len > sizeof(client->challenge_bytes) || !stun_message_find(message, STUN_ATTRIBUTE_REALM, &ignored) ||
	    !stun_message_find(message, STUN_ATTRIBUTE_NONCE, &ignored))
		return;
	memcpy(client->challenge_bytes, message->buffer, len);
	client->challenge = *message;
	client->challenge.buffer = client->challenge_bytes;
	client->challenge.buffer_len = len;
	client->has_challenge = true;
}

static void take_answer(struct turn_client *client, StunMessage *message, struct slot *slot, size_t len)
{
	const uint32_t at = (uint32_t)(slot - client->slots);
	struct turn_input input = { .type = TURN_IN_ANSWER };
	int code = 0;

	if (at == 0)
		input.request = stun_message_get_method(message) == STUN_ALLOCATE ? TURN_ALLOCATE : TURN_REFRESH;
	else
		input.request = at <= TURN_MAX_PERMISSIONS ? TURN_PERMIT : TURN_BIND;
	input.index = at == 0 ? 0 : at <= TURN_MAX_PERMISSIONS ? at - 1 : at - 1 - TURN_MAX_PERMISSIONS;
	if (stun_message_get_class(message) == STUN_ERROR) {
		if (stun_message_find_error(message, &code) != STUN_MESSAGE_RETURN_SUCCESS)
			return;
		keep_challenge(client, message, len);
		log_debug("turn", "request %d: error %d", (int)input.request, code);
	} else if (!client->has_challenge) {
		return; /* it was asked without a password: anybody can answer that */
	} else if (input.request == TURN_ALLOCATE) {
		read_allocation(message, &input);
	} else if (input.request == TURN_REFRESH) {
		(void)stun_usage_turn_refresh_process(message, &input.lifetime_s, COMPATIBILITY);
	}
	input.code = (uint16_t)code;
	forget(client, slot);
	feed(client, input);
}

static void pass_to_node(struct turn_client *client, int index, const uint8_t *bytes, size_t len)
{
	uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)bytes, (unsigned)len);
	struct peer_socket *peer = client->peers[index];

	if (peer && uv_udp_try_send(&peer->udp, &buffer, 1, NULL) == UV_ECONNREFUSED)
		(void)uv_udp_try_send(&peer->udp, &buffer, 1, NULL);
}

static void take_data(struct turn_client *client, const StunMessage *message)
{
	struct sockaddr_storage address = { 0 };
	socklen_t address_len = sizeof(address);
	uint16_t len;
	const uint8_t *data = stun_message_find(message, STUN_ATTRIBUTE_DATA, &len);

	if (!data || stun_message_find_xor_addr(message, STUN_ATTRIBUTE_XOR_PEER_ADDRESS, &address, &address_len) !=
			     STUN_MESSAGE_RETURN_SUCCESS)
		return;
	const struct endpoint peer = endpoint_from_sockaddr((const struct sockaddr *)&address);
	feed(client, (struct turn_input){ .type = TURN_IN_DATA, .endpoint = peer });
	const int index = turn_fsm_find_channel(&client->fsm, &peer);
	if (index >= 0)
		pass_to_node(client, index, data, len);
}

static void take_channel_data(struct turn_client *client, const uint8_t *bytes, size_t len)
{
	const uint16_t number = (uint16_t)(bytes[0] << 8 | bytes[1]), data_len = (uint16_t)(bytes[2] << 8 | bytes[3]);

	if (data_len > len - CHANNEL_HEADER)
		return;
	for (int i = 0; i < TURN_MAX_CHANNELS; i++) {
		if (client->fsm.channels[i].number != number || endpoint_is_none(&client->fsm.channels[i].peer))
			continue;
		if (!client->fsm.channels[i].open) {
			const struct endpoint peer = client->fsm.channels[i].peer;
			feed(client, (struct turn_input){ .type = TURN_IN_DATA, .endpoint = peer });
		}
		pass_to_node(client, i, bytes + CHANNEL_HEADER, data_len);
		return;
	}
}

/* What has no integrity is believed only to ask for (other) credentials, which are of no use to who hears them. */
static bool is_challenge(const StunMessage *message, StunValidationStatus status)
{
	int code;

	return status == STUN_VALIDATION_UNAUTHORIZED && stun_message_get_class(message) == STUN_ERROR &&
	       stun_message_find_error(message, &code) == STUN_MESSAGE_RETURN_SUCCESS && code == TURN_STALE_NONCE;
}

static void take_stun(struct turn_client *client, const uint8_t *bytes, size_t len)
{
	StunMessage message;
	const StunValidationStatus status = stun_agent_validate(&client->agent, &message, bytes, len, NULL, NULL);

	if (status != STUN_VALIDATION_SUCCESS && status != STUN_VALIDATION_UNAUTHORIZED)
		return;
	if (status != STUN_VALIDATION_SUCCESS && !is_challenge(&message, status))
		return;
	if (stun_message_get_class(&message) == STUN_INDICATION) {
		if (stun_message_get_method(&message) == STUN_IND_DATA)
			take_data(client, &message);
		return;
	}
	for (uint32_t i = 0; i < N_SLOTS; i++)
		if (is_of(&message, &client->slots[i])) {
			take_answer(client, &message, &client->slots[i], len);
			return;
		}
}

/* ---- the sockets ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct turn_client *client = handle->data;

	*ret = uv_buf_init((char *)client->in, sizeof(client->in));
}

static void on_from_server(uv_udp_t *udp, ssize_t n, const uv_buf_t *buffer, const struct sockaddr *from,
			   unsigned flags)
{
	struct turn_client *client = udp->data;

	if (n < CHANNEL_HEADER || !from || client->is_closing || udp != client->server)
		return;
	if (client->in[0] >> 6 == 1)
		take_channel_data(client, client->in, (size_t)n);
	else if (client->in[0] >> 6 == 0)
		take_stun(client, client->in, (size_t)n);
}

static void on_peer_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct peer_socket *peer = handle->data;

	*ret = uv_buf_init((char *)peer->client->in + CHANNEL_HEADER, sizeof(peer->client->in) - CHANNEL_HEADER);
}

/* What the node probes the path's MTU with shall not arrive in pieces. */
static void forbid_fragments(struct turn_client *client, bool is_whole)
{
	const int mode = is_whole ? IP_PMTUDISC_PROBE : IP_PMTUDISC_DONT;
	uv_os_fd_t fd;

	if (!client->server || client->is_whole == is_whole ||
	    uv_fileno((const uv_handle_t *)client->server, &fd) != 0)
		return;
	client->is_whole = is_whole;
	(void)setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &mode, sizeof(mode));
}

static void send_indication(struct turn_client *client, const struct endpoint *to, const uint8_t *bytes, size_t len)
{
	StunMessage message;

	if (!stun_agent_init_indication(&client->agent, &message, client->out, sizeof(client->out), STUN_IND_SEND) ||
	    !put_peer(&message, to) ||
	    stun_message_append_bytes(&message, STUN_ATTRIBUTE_DATA, bytes, len) != STUN_MESSAGE_RETURN_SUCCESS)
		return;
	const size_t n = stun_agent_finish_message(&client->agent, &message, NULL, 0);
	if (n > 0)
		send_to_server(client, client->out, n);
}

static void on_from_node(uv_udp_t *udp, ssize_t n, const uv_buf_t *buffer, const struct sockaddr *from, unsigned flags)
{
	struct peer_socket *peer = udp->data;
	struct turn_client *client = peer->client;
	const struct turn_channel *channel = &client->fsm.channels[peer->index];
	uint8_t *header = client->in;

	if (n <= 0 || !from || client->is_closing || client->peers[peer->index] != peer)
		return;
	feed(client, (struct turn_input){ .type = TURN_IN_USED, .index = peer->index });
	forbid_fragments(client, n > MAX_FRAGMENTED);
	if (client->peers[peer->index] != peer)
		return; /* that it was used was told too late */
	if (!channel->bound) {
		send_indication(client, &channel->peer, header + CHANNEL_HEADER, (size_t)n);
		return;
	}
	header[0] = (uint8_t)(channel->number >> 8);
	header[1] = (uint8_t)channel->number;
	header[2] = (uint8_t)(n >> 8);
	header[3] = (uint8_t)n;
	send_to_server(client, header, (size_t)n + CHANNEL_HEADER);
}

static void open_peer(struct turn_client *client, uint32_t index)
{
	const struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in node = any;
	struct peer_socket *peer = calloc(1, sizeof(*peer));

	if (!peer || uv_udp_init(client->options.loop, &peer->udp) != 0)
		abort();
	client->n_open++;
	peer->client = client;
	peer->index = index;
	peer->udp.data = peer;
	client->peers[index] = peer;
	node.sin_port = htons(client->options.node_port);
	if (uv_udp_bind(&peer->udp, (const struct sockaddr *)&any, 0) != 0 ||
	    uv_udp_connect(&peer->udp, (const struct sockaddr *)&node) != 0 ||
	    uv_udp_recv_start(&peer->udp, on_peer_alloc, on_from_node) != 0) {
		log_warning("turn", "no socket for %s", endpoint_text(&client->fsm.channels[index].peer).s);
		close_peer(client, index);
	}
}

/* Its source address is what it is for good; who fails has none, and waits for the network to change. */
static void connect_to_server(struct turn_client *client)
{
	uv_udp_t *udp = calloc(1, sizeof(*udp));
	struct sockaddr_storage address;
	int len = sizeof(address);

	close_server(client);
	if (!udp || uv_udp_init(client->options.loop, udp) != 0)
		abort();
	client->n_open++;
	udp->data = client;
	client->server = udp;
	(void)endpoint_to_sockaddr(&client->options.server, &address);
	int r = uv_udp_connect(udp, (const struct sockaddr *)&address);
	if (r == 0)
		r = uv_udp_recv_start(udp, on_alloc, on_from_server);
	if (r == 0)
		r = uv_udp_getsockname(udp, (struct sockaddr *)&address, &len);
	if (r == 0) {
		client->source = endpoint_from_sockaddr((const struct sockaddr *)&address);
		return;
	}
	log_info("turn", "TURN server %s: %s", endpoint_text(&client->options.server).s, uv_strerror(r));
	close_server(client);
}

/* By which address of ours a new socket would send; none: there is no way. */
static struct endpoint find_source(const struct turn_client *client)
{
	struct endpoint source = { 0 };
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(&client->options.server, &address);
	const int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, len) == 0) {
		len = sizeof(address);
		if (getsockname(fd, (struct sockaddr *)&address, &len) == 0)
			source = endpoint_from_sockaddr((const struct sockaddr *)&address);
		source.port = client->source.port; /* the address is what counts */
	}
	if (fd >= 0)
		close(fd);
	return source;
}

/* NATs forget who is silent. An indication has no answer. */
static void send_keep_alive(struct turn_client *client)
{
	StunMessage message;
	uint8_t bytes[MAX_REQUEST];

	if (!stun_agent_init_indication(&client->agent, &message, bytes, sizeof(bytes), STUN_BINDING))
		return;
	const size_t n = stun_agent_finish_message(&client->agent, &message, NULL, 0);
	if (n > 0)
		send_to_server(client, bytes, n);
}

/* ---- what the machine wants ---- */

static void carry_out(struct turn_client *client, const struct turn_action *action)
{
	struct slot *slot = slot_of(client, action->request, action->index);

	switch (action->type) {
	case TURN_DO_CONNECT:
		connect_to_server(client);
		return;
	case TURN_DO_KEEP:
		send_keep_alive(client);
		return;
	case TURN_DO_ASK:
		make_request(client, action->request, action->index);
		return;
	case TURN_DO_REPEAT:
		if (slot->len > 0)
			send_to_server(client, slot->bytes, slot->len);
		return;
	case TURN_DO_GIVE_UP:
		forget(client, slot);
		return;
	case TURN_DO_OPEN:
		open_peer(client, action->index);
		return;
	case TURN_DO_CLOSE:
		forget(client, slot);
		close_peer(client, action->index);
		return;
	case TURN_DO_RELAYED:
		if (!client->closed)
			client->options.relayed(client->options.owner, &client->fsm.relayed);
		return;
	case TURN_DO_ENDED:
		close_all(client);
		return;
	}
}

static void on_timer(uv_timer_t *timer)
{
	feed(timer->data, (struct turn_input){ .type = TURN_IN_DEADLINE });
}

static void set_timer(struct turn_client *client)
{
	const uint64_t deadline_ns = client->fsm.deadline_ns, now_ns = clock_now_ns();
	uint64_t wait_ms = deadline_ns > now_ns ? (deadline_ns - now_ns) / 1000000 + 1 : 0;

	if (client->is_closing)
		return;
	if (wait_ms > MAX_WAIT_MS)
		wait_ms = MAX_WAIT_MS;
	uv_update_time(client->options.loop);
	if (deadline_ns == 0)
		uv_timer_stop(&client->timer);
	else
		uv_timer_start(&client->timer, on_timer, wait_ms, 0);
}

static void feed(struct turn_client *client, struct turn_input input)
{
	struct turn_actions actions;

	if (client->is_closing)
		return;
	input.now_ns = clock_now_ns();
	turn_fsm_step(&client->fsm, &input, &actions);
	for (uint32_t i = 0; i < actions.n; i++)
		carry_out(client, &actions.all[i]);
	set_timer(client);
}

/* ---- life ---- */

void turn_client_permit(struct turn_client *client, const struct endpoint *peer)
{
	if (endpoint_is_v4(peer) && !endpoint_is_loopback(peer))
		feed(client, (struct turn_input){ .type = TURN_IN_WANTED, .endpoint = *peer });
}

void turn_client_network_changed(struct turn_client *client)
{
	const struct endpoint source = find_source(client);

	if (endpoint_is_none(&source))
		return; /* another change will come */
	const bool is_same = client->server && endpoint_equal(&source, &client->source);
	feed(client, (struct turn_input){ .type = is_same ? TURN_IN_CHECK : TURN_IN_MOVED });
}

struct turn_client *turn_client_new(const struct turn_client_options *options)
{
	struct turn_client *client = calloc(1, sizeof(*client));

	if (!client)
		abort();
	client->options = *options;
	client->user = strdup(options->user);
	client->password = strdup(options->password);
	if (!client->user || !client->password)
		abort();
	stun_agent_init(&client->agent, known_attributes, STUN_COMPATIBILITY_RFC5389,
			STUN_AGENT_USAGE_LONG_TERM_CREDENTIALS | STUN_AGENT_USAGE_NO_INDICATION_AUTH);
	turn_fsm_init(&client->fsm);
	uv_timer_init(options->loop, &client->timer);
	client->n_open = 1;
	client->timer.data = client;
	feed(client, (struct turn_input){ .type = TURN_IN_START });
	return client;
}

void turn_client_close(struct turn_client *client, void (*closed)(void *owner), void *owner)
{
	assert(!client->closed);
	client->closed = closed;
	client->closed_owner = owner;
	feed(client, (struct turn_input){ .type = TURN_IN_STOP });
}
