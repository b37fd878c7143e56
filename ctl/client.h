/*
 * One call to the local node, synchronously, with a deadline: connect, one line, one line back.
 *
 * What goes wrong is told on ctl->err, with the remedy, and becomes an exit code.
 */
#pragma once

#include "ctl/ctl.h"

/* CTL_OK: *ret is the answer, an RPC_RESULT; end it with rpc_message_deinit(). */
P2P_CHECK enum ctl_exit client_call(struct ctl *ctl, const char *method, struct json *params_take,
				    uint64_t timeout_ms, struct rpc_message *ret);
/* The same for a method whose result is only worth showing with --json; else says done. */
P2P_CHECK enum ctl_exit client_order(struct ctl *ctl, const char *method, struct json *params_take, uint64_t timeout_ms,
				     const char *done);
/* A method without parameters: print() shows the result to people. */
P2P_CHECK enum ctl_exit client_list(struct ctl *ctl, const char *method, uint64_t timeout_ms,
				    void (*print)(struct ctl *ctl, const struct json *result));
/* As client_call() where a node of an earlier version knows no parameters: it is then asked without. */
P2P_CHECK enum ctl_exit client_call_with_new_params(struct ctl *ctl, const char *method, struct json *params_take,
						    uint64_t timeout_ms, struct rpc_message *ret);
