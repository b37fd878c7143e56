/*
 * p2pctl: one command line for the local node and, with an admin link, for control.
 *
 * A file a subcommand; ctl.c has their table, finds the one that was meant, parses its options,
 * prints its help. A command says everything through ctl->out and ctl->err and returns an exit code.
 */
#pragma once

#include "common/cli.h"
#include "common/error.h"
#include "common/json.h"
#include "common/rpc.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* For scripts; described in p2pctl(1). */
enum ctl_exit {
	CTL_OK = 0,
	CTL_FAILED = 1,	    /* it was tried and did not work; for ping: nobody answered */
	CTL_USAGE = 2,	    /* the command line makes no sense */
	CTL_NO_NODE = 3,    /* the local node is not running */
	CTL_NOT_JOINED = 4, /* the local node is no member of a network */
	CTL_NO_CONTROL = 5, /* admin: control cannot be reached */
	CTL_DENIED = 6,	    /* no permission: the socket, or the admin token */
};

struct ctl {
	const char *socket;
	const char *admin_file;
	bool json;
	FILE *in, *out, *err;
};

#define CTL_MAX_OPTIONS 9

/* What a command got. Options by their index in the command's table. */
struct ctl_args {
	int n;
	char **argv;
	const char *values[CTL_MAX_OPTIONS]; /* NULL: not given */
	bool flags[CTL_MAX_OPTIONS];
};

struct ctl_command {
	const char *name;      /* "admin key create" */
	const char *arguments; /* for the usage line: "NAME"; "" */
	int min_arguments, max_arguments;
	const char *summary; /* one line */
	const char *text;    /* help: what it does; examples, each line indented by four */
	const struct cli_option *options; /* without the ret_ members: ctl.c fills ctl_args */
	size_t n_options;
	enum ctl_exit (*run)(struct ctl *ctl, const struct ctl_args *args);
};

extern const struct ctl_command ctl_join, ctl_leave, ctl_status, ctl_ping, ctl_netcheck, ctl_relay_status,
	ctl_relay_drain, ctl_relay_undrain, ctl_expose, ctl_unexpose, ctl_exposures, ctl_diglett,
	ctl_diglett_end, ctl_diglett_token_create, ctl_diglett_token_list, ctl_diglett_token_revoke, ctl_admin_host_add,
	ctl_admin_host_list, ctl_admin_host_remove, ctl_admin_port_add, ctl_admin_port_list, ctl_admin_port_remove,
	ctl_log_level, ctl_version, ctl_admin_status, ctl_admin_key_create, ctl_admin_key_list, ctl_admin_key_revoke,
	ctl_admin_node_list, ctl_admin_node_remove, ctl_admin_node_rename, ctl_admin_relay_add,
	ctl_admin_relay_list, ctl_admin_relay_remove;

/* The whole program. argv is changed: options are moved, secrets wiped. */
int ctl_main(int argc, char *argv[], FILE *in, FILE *out, FILE *err);

/* "p2pctl: …" on ctl->err; returns code. */
enum ctl_exit ctl_fail(struct ctl *ctl, enum ctl_exit code, const char *format, ...) P2P_PRINTF(3, 4);
/* The other side's error, with the remedy for its code. */
enum ctl_exit ctl_fail_rpc(struct ctl *ctl, enum ctl_exit code, const struct rpc_error *error);
/* One line of JSON on ctl->out. Takes the tree. */
void ctl_print_json(struct ctl *ctl, struct json *json_take);
void ctl_print_json_borrowed(struct ctl *ctl, const struct json *json);
