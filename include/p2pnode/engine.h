/*
 * libp2pnode: a p2pnode inside your program.
 *
 * The Engine lives as long as the program that embeds it. It owns the WireGuard interface, starts
 * a Session when the node is a member of a network, restarts it with back-off when anything in it
 * fails, and tells the embedder what happens. The p2pnode daemon is its first user.
 *
 *   p2p_engine_new() ──► p2p_engine_start() ──► … join, leave, status … ──► p2p_engine_stop()
 *
 * Threads: everything is called from the thread that runs the loop, callbacks come from there.
 * Packets move on a thread of the library's own.
 * Errors: 0, or a negative errno; where a person must act, the text says what, where and how.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct uv_loop_s p2p_loop;
struct p2p_engine;

enum p2p_engine_state {
	P2P_ENGINE_STOPPED,
	P2P_ENGINE_NOT_JOINED, /* waiting for p2p_engine_join() */
	P2P_ENGINE_JOINING,
	P2P_ENGINE_OFFLINE, /* a member; control is not connected, peers are reached by the cached map */
	P2P_ENGINE_ONLINE,  /* a member; control is connected */
};

const char *p2p_engine_state_name(enum p2p_engine_state state);

/* Strings are copied. */
struct p2p_engine_options {
	const char *state_dir;	  /* keys, membership, cached map; made when missing */
	const char *interface;	  /* at most 15 characters */
	const char *wireguard;	  /* "in-process", "kernel" or "uapi"; NULL: in-process */
	const char *name;	  /* wanted node name when joining; NULL: the host name */
	uint16_t listen_port;	  /* UDP; 0: the one last used, else any */
	uint16_t mtu;		  /* of the interface, 1280 … 9000 */
	const char *offloads;	  /* those used: "all", "none", or names as in `status --json`; NULL: all */
	unsigned lanes;		  /* threads that move packets, up to 16; 0: as many as suit the machine */
	bool no_port_mapping;	  /* the router is not asked to forward the port (PCP, NAT-PMP, UPnP) */
	bool no_lan_discovery;	  /* peers on the same link are neither called, when control is away, nor answered */
	/* A TURN server (IPv4 address and port) that passes on to us, who we are there, and the file whose first line is
	 * the password; NULL: none. */
	const char *turn_server, *turn_user, *turn_password_file;
	/* Numeric IPs, NULL-terminated; none: those of the machine; NULL: not a public node. */
	const char *const *public_addresses;
	uint16_t public_tls_port;
	uint16_t public_stun_port;
	/* Sockets that listen on these ports already (see .listening, .streams_left); the Engine's from here on. */
	const int *public_sockets;
	size_t n_public_sockets;
	uint32_t public_stun_rate; /* questions a second of one network (/24, /56); 0: 100 */
	uint64_t public_max_rate_client, public_max_rate; /* relayed bits a second; 0: no limit */
	/* The front door: hosts and where they are, as in p2pnode.conf(5), NULL-terminated; NULL: there is none. */
	const char *const *front_door_hosts;
	const char *front_door_listen;				/* as there: "80, 443"; needed where there are hosts */
	/*
	 * What is published, as in p2pnode.conf(5): "https://app.example.org 8443", NULL-terminated; NULL: nothing. And
	 * where each of these stands, for whoever wants to change it ("p2pnode.conf:12"); NULL: it is not said.
	 */
	const char *const *exposures, *const *exposure_places;
	const char *front_door_tcp_ports, *front_door_udp_ports; /* that may lead to members: "2222, 30000-30100"; NULL: none */
	/*
	 * Certificates by ACME for those with tls=acme. The directory's URL, NULL: Let's Encrypt's; an address to be written to, NULL:
	 * none; a file with the CAs that the server's own certificate is signed by, NULL: the system's. Nothing is asked before
	 * acme_agrees, to the server's terms.
	 */
	const char *acme_directory, *acme_contact, *acme_ca_file;
	bool acme_http_01;     /* else tls-alpn-01 */
	bool acme_agrees;
	uint32_t acme_retry_s; /* after a first failure; 0: 60 */
	bool front_door_no_quic; /* else UDP at the same ports as well, but 80 */
	uint32_t front_door_max_visitors, front_door_max_visitors_source; /* 0: as suits the machine */
	/*
	 * webgw, with a front door alone: hosts and the SHA-256 of their secrets, as in p2pnode.conf(5), NULL-terminated; NULL:
	 * there is none.
	 */
	const char *const *webgw_hosts;
	const char *webgw_admin; /* path of the Unix socket of its HTTP interface; NULL: none */
	const char *webgw_tls_listen, *webgw_tls_dial_back; /* the same within TLS; NULL: not */
	const char *webgw_listen, *webgw_dial_back; /* a port, or an address with a port; needed where there are hosts */
};

struct p2p_engine_callbacks {
	void *owner;
	/* The state changed. */
	void (*changed)(void *owner, enum p2p_engine_state state);
	/*
	 * The public node listens on these sockets: whoever keeps copies of them and hands them to the next
	 * program loses no connection in between. n 0: on none any more. May be NULL.
	 */
	void (*listening)(void *owner, const int *sockets, size_t n);
	/* The Engine stops: does a next program go on with the streams of its front door's visitors? NULL: none, they end. */
	bool (*is_followed)(void *owner);
	/*
	 * The Engine has stopped its front door, and these two descriptors hold the streams of its visitors: handed to the next
	 * program as sockets that listen are, it goes on with them; closed, they end. May be NULL: they end.
	 */
	void (*streams_left)(void *owner, const int *descriptors, size_t n);
	/* A Session ended and will be restarted after delay_ms. May be NULL. */
	void (*session_failed)(void *owner, const char *reason, uint32_t delay_ms);
};

/* message: 0-terminated text for a person, at least 512 bytes, filled on failure. */
int p2p_engine_new(p2p_loop *loop, const struct p2p_engine_options *options,
		   const struct p2p_engine_callbacks *callbacks, struct p2p_engine **ret, char *message,
		   size_t message_len);
/* Makes the interface and, for a member, starts the Session. Needs CAP_NET_ADMIN. */
int p2p_engine_start(struct p2p_engine *engine, char *message, size_t message_len);
/* Ends everything; closed(owner) is the last call. The engine is freed then. */
void p2p_engine_stop(struct p2p_engine *engine, void (*closed)(void *owner), void *owner);

enum p2p_engine_state p2p_engine_get_state(const struct p2p_engine *engine);

/*
 * Joins the network of the link. done() is called once, code 0 or -errno with a text. -EALREADY at
 * once when the node is a member. name: wanted node name, or NULL.
 */
typedef void (*p2p_engine_done)(void *owner, int code, const char *message);
void p2p_engine_join(struct p2p_engine *engine, const char *link, const char *name, p2p_engine_done done,
		     void *owner);
/* Leaves: tells control if it can be reached, forgets the membership, keeps the node key. */
void p2p_engine_leave(struct p2p_engine *engine, p2p_engine_done done, void *owner);

/* The whole status as JSON (see p2pctl(1) `status --json`); the caller frees it. NULL: out of memory. */
char *p2p_engine_status_json(struct p2p_engine *engine);

/*
 * Ends the running Session as if one of its actors had failed; a new one starts after the back-off.
 * Packets go on by the paths in force.
 */
void p2p_engine_restart_session(struct p2p_engine *engine);

#ifdef __cplusplus
}
#endif
