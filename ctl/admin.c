#include "ctl/admin.h"

#include "common/admin_call.h"
#include "common/file.h"
#include "common/websocket.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <uv.h>

#define MAX_FILE 4096

/* the link */

static void warn_when_others_read(struct ctl *ctl)
{
	struct stat st;

	if (stat(ctl->admin_file, &st) == 0 && (st.st_mode & 077) != 0)
		ctl_fail(ctl, CTL_OK,
			 "warning: %s can be read by others than its owner; chmod 600 it",
			 ctl->admin_file);
}

static enum ctl_exit read_link(struct ctl *ctl, struct join_link *ret)
{
	struct error error;
	char *text;
	size_t len;
	int r = file_read(ctl->admin_file, MAX_FILE, &text, &len, &error);

	if (r != 0)
		return ctl_fail(
			ctl, r == -EACCES ? CTL_DENIED : CTL_FAILED,
			"%s; an admin link is needed: copy the one that 'p2pcontrol init' wrote (admin.link), "
			"or name it with --admin-file",
			error.message);
	r = join_link_parse(text, ret, &error);
	sodium_memzero(text, len);
	free(text);
	if (r != 0)
		return ctl_fail(ctl, CTL_FAILED, "%s: %s", ctl->admin_file, error.message);
	if (ret->kind != JOIN_LINK_ADMIN) {
		join_link_wipe(ret);
		return ctl_fail(ctl, CTL_FAILED,
				"%s: this is a join link; an admin link begins with p2p-admin://",
				ctl->admin_file);
	}
	warn_when_others_read(ctl);
	return CTL_OK;
}

/* the call */

struct call {
	struct ctl *ctl;
	const struct join_link *link;
	struct websocket_host *host;
	enum ctl_exit exit; /* of the answer */
	struct json *result;
};

static enum ctl_exit refused(struct call *call, const struct rpc_error *error)
{
	switch (error->code) {
	case RPC_TOKEN_UNKNOWN:
	case RPC_NOT_AUTHENTICATED:
	case RPC_NOT_PERMITTED:
		return ctl_fail_rpc(call->ctl, CTL_DENIED, error);
	case RPC_TIMEOUT:
	case RPC_DISCONNECTED:
		return ctl_fail_rpc(call->ctl, CTL_NO_CONTROL, error);
	default:
		break;
	}
	if (error->code > -1000) /* an errno: the connection, not control's word */
		return ctl_fail(
			call->ctl, CTL_NO_CONTROL,
			"control cannot be reached: %s; is p2pcontrol running there, and may TCP pass to that "
			"port?",
			error->message);
	return ctl_fail_rpc(call->ctl, CTL_FAILED, error);
}

static void on_host_closed(void *owner)
{
	/* The loop ends by itself: nothing is left on it. */
}

static void on_answer(void *owner, const struct json *result, const struct rpc_error *error)
{
	struct call *call = owner;

	if (error) {
		call->exit = refused(call, error);
	} else {
		call->exit = CTL_OK;
		call->result = json_copy(result);
	}
	websocket_host_close(call->host, on_host_closed, call);
}

static enum ctl_exit run_call(struct call *call, const char *method, struct json *params_take)
{
	struct error error;
	uv_loop_t loop;
	int r = uv_loop_init(&loop);

	if (r != 0)
		abort();
	r = websocket_host_new(&loop, &call->host, &error);
	if (r != 0) {
		json_free(params_take);
		uv_loop_close(&loop);
		return ctl_fail(call->ctl, CTL_FAILED, "%s", error.message);
	}
	r = admin_call(call->host, call->link, method, params_take, on_answer, call, &error);
	if (r != 0) {
		call->exit = ctl_fail(call->ctl, CTL_FAILED, "%s", error.message);
		websocket_host_close(call->host, on_host_closed, call);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	return call->exit;
}

enum ctl_exit admin_request(struct ctl *ctl, const char *method, struct json *params_take,
			    struct json **ret)
{
	struct join_link link;
	enum ctl_exit exit = read_link(ctl, &link);

	if (exit != CTL_OK) {
		json_free(params_take);
		return exit;
	}
	struct call call = { .ctl = ctl, .link = &link, .exit = CTL_FAILED };
	exit = run_call(&call, method, params_take);
	join_link_wipe(&link);
	if (exit == CTL_OK)
		*ret = call.result;
	return exit;
}

enum ctl_exit admin_list(struct ctl *ctl, const char *method,
			 void (*print)(struct ctl *ctl, const struct json *result))
{
	struct json *result;
	enum ctl_exit exit = admin_request(ctl, method, NULL, &result);

	if (exit != CTL_OK)
		return exit;
	if (ctl->json)
		ctl_print_json_borrowed(ctl, result);
	else
		print(ctl, result);
	json_free(result);
	return CTL_OK;
}

enum ctl_exit admin_order(struct ctl *ctl, const char *method, struct json *params_take,
			  const char *done)
{
	struct json *result;
	enum ctl_exit exit = admin_request(ctl, method, params_take, &result);

	if (exit != CTL_OK)
		return exit;
	if (ctl->json)
		ctl_print_json_borrowed(ctl, result);
	else
		fprintf(ctl->out, "%s\n", done);
	json_free(result);
	return CTL_OK;
}

/* results */

const char *admin_text(const struct json *object, const char *key, const char *fallback)
{
	const char *text;

	return json_get_string_or(object, key, fallback, &text, NULL) == 0 ? text : fallback;
}

int64_t admin_integer(const struct json *object, const char *key, int64_t fallback)
{
	int64_t value;

	return json_get_integer_or(object, key, INT64_MIN, INT64_MAX, fallback, &value, NULL) == 0
		       ? value
		       : fallback;
}

bool admin_flag(const struct json *object, const char *key)
{
	bool value;

	return json_get_boolean_or(object, key, false, &value, NULL) == 0 && value;
}

char *admin_texts(const struct json *object, const char *key, const char *separator)
{
	const struct json *array = json_member(object, key);
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	for (const struct json *i = array ? json_first(array) : NULL; i; i = json_next(i))
		fprintf(out, "%s%s", i == json_first(array) ? "" : separator,
			json_text(i) ? json_text(i) : "?");
	fclose(out);
	return text;
}
