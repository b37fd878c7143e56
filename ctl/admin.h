/*
 * One admin method of control, synchronously: the admin link from its file, a connection, the answer.
 *
 * What goes wrong is told on ctl->err, with the remedy, and becomes an exit code.
 */
#pragma once

#include "ctl/ctl.h"

/* CTL_OK: *ret is the result (a copy, freed by the caller). */
P2P_CHECK enum ctl_exit admin_request(struct ctl *ctl, const char *method, struct json *params_take,
				      struct json **ret);
/* The same for a method whose result is only worth showing with --json; else says done. */
P2P_CHECK enum ctl_exit admin_order(struct ctl *ctl, const char *method, struct json *params_take,
				    const char *done);
/* A method without parameters: print() shows the result to people. */
P2P_CHECK enum ctl_exit admin_list(struct ctl *ctl, const char *method,
				   void (*print)(struct ctl *ctl, const struct json *result));

/* Members of results, tolerant: a control of another version may not have them. */
const char *admin_text(const struct json *object, const char *key, const char *fallback);
int64_t admin_integer(const struct json *object, const char *key, int64_t fallback);
bool admin_flag(const struct json *object, const char *key);
/* The texts of an array member, with a separator; the caller frees it. */
char *admin_texts(const struct json *object, const char *key, const char *separator);
