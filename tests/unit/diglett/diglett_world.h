/* A server and agents of it, on one loop and the loopback, with files of their own. */
#pragma once

#include "relay/diglett/diglett_agent.h"
#include "relay/diglett/diglett_server.h"

#include <stdbool.h>
#include <sys/types.h>

struct world {
	char folder[64], script[96], notes[96], tokens[96], key[96], token[96], others_token[96];
	uv_loop_t loop;
	uv_timer_t poke; /* so that what is awaited is looked at */
	struct diglett_server_options options;
	struct diglett_server *server;
	uint32_t n_stopping;
};

extern struct world world;

#define AWAIT(condition) \
	do \
		uv_run(&world.loop, UV_RUN_ONCE); \
	while (!(condition)) /* the test's own time limit ends one that never comes */

/* A script that notes the port, and forgets a name only when the file GO is there. */
#define SLOW_TO_FORGET \
	"if test $1 = add; then echo \"$1 $2 $3 $4\" >$0.new; mv $0.new $0.told; else while ! test -e $0.go; do sleep 0.01; done; fi"

void write_file(const char *path, const char *text, mode_t mode);
/* The names of the one token and of the other. */
void allow(const char *names, const char *others_names);
/* body: of the gateway's script; NULL: there is none. */
void new_world(const char *body);
void start_server(void);
void stop_agent(struct diglett_agent *agent);
void end_world(void);
struct diglett_agent *start_agent(const char *name, const char *token_file, uint16_t target_port);
struct diglett_server_counters counters(void);
/* To the server, from 127.NETWORK.HOST.1: each network and host is a source of its own. */
int connect_from(uint32_t network, uint32_t host);
bool is_closed(int fd);
/* Which the script was told last; 0: none yet. */
uint16_t told_port(void);
/* -1: nobody listens there. */
int visit(uint16_t port);
bool is_listening(uint16_t port);
/* Ends a script that is SLOW_TO_FORGET. */
void let_forget(void);
