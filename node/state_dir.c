#include "node/state_dir.h"

#include "common/certificate.h"
#include "common/file.h"
#include "common/log.h"
#include "relay/webgw/saved_hosts.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define MAX_TEXT	   (64 * 1024)
#define MAX_RELAY_CLIENTS (32 << 20)
#define MAX_EXPOSURES (256 << 10) /* of the most that are there, and as much that is left out */
#define MAX_MAP		   (64 * 1024 * 1024)
#define MEMBERSHIP_FORMAT  1

struct path {
	char s[STATE_DIR_PATH_MAX + 32];
};

static struct path path_of(const struct state_dir *dir, const char *file)
{
	struct path path;

	snprintf(path.s, sizeof(path.s), "%s/%s", dir->path, file);
	return path;
}

int state_dir_open(struct state_dir *dir, const char *path, struct error *reterr)
{
	int r;

	*dir = (struct state_dir){ .lock_fd = -1 };
	if (strlen(path) >= sizeof(dir->path))
		return error_set(reterr, -ENAMETOOLONG, "%s: path too long", path);
	strcpy(dir->path, path);
	r = file_make_folder(path, 0700, reterr);
	if (r != 0)
		return r;

	struct path lock = path_of(dir, "lock");
	dir->lock_fd = open(lock.s, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (dir->lock_fd < 0) {
		r = -errno;
		return error_set(reterr, r, "%s: cannot open: %s", lock.s, strerror(-r));
	}
	if (flock(dir->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		state_dir_close(dir);
		return error_set(reterr, -EBUSY,
				 "%s: another p2pnode is using this state folder; stop it, or give this one "
				 "its own with --state-dir",
				 path);
	}
	return 0;
}

void state_dir_close(struct state_dir *dir)
{
	if (dir->lock_fd >= 0)
		close(dir->lock_fd);
	dir->lock_fd = -1;
}

/* texts */

static int load_text(const struct state_dir *dir, const char *file, char **ret, struct error *reterr)
{
	size_t len;

	return file_read(path_of(dir, file).s, MAX_TEXT, ret, &len, reterr);
}

static int save_text(const struct state_dir *dir, const char *file, const char *text, struct error *reterr)
{
	return file_write_atomic(path_of(dir, file).s, text, strlen(text), 0600, reterr);
}

int state_dir_node_key(const struct state_dir *dir, struct secret_key *ret, struct error *reterr)
{
	struct path path = path_of(dir, "node.key");
	struct key_text text;
	char *content;
	int r = load_text(dir, "node.key", &content, reterr);

	if (r == -ENOENT) {
		secret_key_generate(ret);
		secret_key_text(ret, &text);
		r = save_text(dir, "node.key", text.s, reterr);
		sodium_memzero(&text, sizeof(text));
		return r;
	}
	if (r != 0)
		return r;
	content[strcspn(content, "\r\n")] = '\0';
	if (secret_key_parse(content, ret) != 0)
		r = error_set(reterr, -EINVAL,
			      "%s:1: not a node key (44 characters of base64 expected); restore it from a backup, "
			      "or remove the folder %s and join again as a new node",
			      path.s, dir->path);
	sodium_memzero(content, strlen(content));
	free(content);
	return r;
}

/* membership */

static int from_json(const struct json *json, struct state_membership *ret, struct error *reterr)
{
	const struct json *member;
	const char *host, *pin;
	int64_t port, format;
	int r;

	if ((r = json_get_integer(json, "format", 1, MEMBERSHIP_FORMAT, &format, reterr)) != 0 ||
	    (r = json_get_string(json, "host", &host, reterr)) != 0 ||
	    (r = json_get_integer(json, "port", 1, UINT16_MAX, &port, reterr)) != 0 ||
	    (r = json_get_string(json, "pin", &pin, reterr)) != 0 ||
	    (r = json_get_object(json, "member", &member, reterr)) != 0 ||
	    (r = membership_from_json(member, &ret->member, reterr)) != 0)
		return r;
	if (strlen(host) >= sizeof(ret->host))
		return error_set(reterr, -EINVAL, "member 'host': longer than %zu characters",
				 sizeof(ret->host) - 1);
	if (pin_parse(pin, &ret->pin) != 0)
		return error_set(reterr, -EINVAL, "member 'pin': not a pin");
	strcpy(ret->host, host);
	ret->port = (uint16_t)port;
	return 0;
}

static int load_json(const struct state_dir *dir, const char *file, size_t max, struct json **ret,
		     struct error *reterr)
{
	struct path path = path_of(dir, file);
	char *text;
	size_t len;
	int r = file_read(path.s, max, &text, &len, reterr);

	if (r != 0)
		return r;
	r = json_parse(text, len, &(struct json_limits){ .max_len = max, .max_members = MAP_MAX_PEERS }, ret,
		       reterr);
	free(text);
	if (r != 0)
		error_prefix(reterr, "%s", path.s);
	return r;
}

int state_dir_load_membership(const struct state_dir *dir, struct state_membership *ret,
			      struct error *reterr)
{
	struct path path = path_of(dir, "membership.json");
	struct json *json;
	int r = load_json(dir, "membership.json", MAX_TEXT, &json, reterr);

	if (r == -ENOENT)
		return r;
	if (r == 0) {
		r = from_json(json, ret, reterr);
		json_free(json);
		if (r != 0)
			error_prefix(reterr, "%s", path.s);
	}
	if (r == -EINVAL && reterr) {
		struct error inner = *reterr;
		error_set(reterr, r,
			  "%.300s; the file is corrupt: restore it, or move it away and join again (the node key "
			  "is kept)",
			  inner.message);
	}
	return r;
}

int state_dir_save_membership(const struct state_dir *dir, const struct state_membership *membership,
			      struct error *reterr)
{
	struct json *json = json_object();

	json_put_integer(json, "format", MEMBERSHIP_FORMAT);
	json_put_string(json, "host", membership->host);
	json_put_integer(json, "port", membership->port);
	json_put_string(json, "pin", pin_text(&membership->pin).s);
	json_put(json, "member", membership_to_json(&membership->member));
	char *text = json_print_pretty(json);
	int r = save_text(dir, "membership.json", text, reterr);
	free(text);
	json_free(json);
	return r;
}

/* identity key */

int state_dir_load_identity_key(const struct state_dir *dir, char **ret_pem, struct error *reterr)
{
	struct error inner;
	struct pin pin;
	int r = load_text(dir, "identity.key", ret_pem, reterr);

	if (r != 0 || identity_key_pin(*ret_pem, &pin, &inner) == 0)
		return r;
	certificate_free_secret(*ret_pem);
	*ret_pem = NULL;
	return error_set(reterr, -EINVAL,
			 "%s: %.200s; restore it from a backup, or move it and membership.json away and join again",
			 path_of(dir, "identity.key").s, inner.message);
}

int state_dir_save_identity_key(const struct state_dir *dir, const char *pem, struct error *reterr)
{
	return save_text(dir, "identity.key", pem, reterr);
}

/* map cache */

/* So says every file of a program that keeps the same things in it. */
static bool is_of_this_format(const struct json *json)
{
	int64_t format;

	return json_get_integer(json, "format", MAP_FORMAT, MAP_FORMAT, &format, NULL) == 0;
}

int state_dir_load_map(const struct state_dir *dir, struct map *ret, struct error *reterr)
{
	struct json *json;
	int r = load_json(dir, "map.json", MAX_MAP, &json, reterr);

	if (r != 0)
		return r;
	r = map_from_json(json, ret, reterr);
	/*
	 * Of a version that left out what it did not know (before 2: what is granted), or knows more: nothing to go on from, and
	 * nobody is led anywhere by half of what was said.
	 */
	if (r == 0 && !is_of_this_format(json))
		ret->sequence = ret->n_exposures = ret->n_grants = 0;
	json_free(json);
	if (r != 0)
		error_prefix(reterr, "%s", path_of(dir, "map.json").s);
	return r;
}

int state_dir_save_map(const struct state_dir *dir, const struct map *map, struct error *reterr)
{
	struct json *json = map_to_json(map);

	json_put_integer(json, "format", MAP_FORMAT);
	char *text = json_print(json);
	int r = file_write_atomic(path_of(dir, "map.json").s, text, strlen(text), 0600, reterr);

	free(text);
	json_free(json);
	return r;
}

/* port */

uint16_t state_dir_load_port(const struct state_dir *dir)
{
	char *text;
	unsigned port = 0;

	if (load_text(dir, "port", &text, NULL) != 0)
		return 0;
	if (sscanf(text, "%5u", &port) != 1 || port > UINT16_MAX)
		port = 0; /* any port will do */
	free(text);
	return (uint16_t)port;
}

void state_dir_save_port(const struct state_dir *dir, uint16_t port)
{
	char text[16];
	struct error error;

	snprintf(text, sizeof(text), "%u\n", port);
	if (save_text(dir, "port", text, &error) != 0)
		log_warning("node", "%s", error.message);
}

static int remove_file(const struct state_dir *dir, const char *file, struct error *reterr)
{
	return file_remove(path_of(dir, file).s, reterr);
}

int state_dir_take_relay_clients(const struct state_dir *dir, char **ret, size_t *ret_len, struct error *reterr)
{
	int r = file_read(path_of(dir, "relay-clients").s, MAX_RELAY_CLIENTS, ret, ret_len, reterr);

	if (r != 0)
		return r;
	r = remove_file(dir, "relay-clients", reterr);
	if (r != 0) { /* one that comes again would be out of date */
		free(*ret);
		*ret = NULL;
	}
	return r;
}

int state_dir_save_relay_clients(const struct state_dir *dir, const void *bytes, size_t len, struct error *reterr)
{
	return file_write_atomic(path_of(dir, "relay-clients").s, bytes, len, 0600, reterr);
}

int state_dir_load_exposures(const struct state_dir *dir, char **ret, struct error *reterr)
{
	size_t len;

	return file_read(path_of(dir, "exposures").s, MAX_EXPOSURES, ret, &len, reterr);
}

int state_dir_save_exposures(const struct state_dir *dir, const char *text, struct error *reterr)
{
	return save_text(dir, "exposures", text, reterr);
}

int state_dir_load_webgw_hosts(const struct state_dir *dir, char **ret, size_t *ret_len, struct error *reterr)
{
	return file_read(path_of(dir, "webgw-hosts").s, SAVED_HOSTS_MAX_LEN, ret, ret_len, reterr);
}

int state_dir_save_webgw_hosts(const struct state_dir *dir, const char *text, struct error *reterr)
{
	return save_text(dir, "webgw-hosts", text, reterr);
}

int state_dir_forget_map(const struct state_dir *dir, struct error *reterr)
{
	return remove_file(dir, "map.json", reterr);
}

int state_dir_forget(const struct state_dir *dir, struct error *reterr)
{
	/* First what the next network must not be told. */
	static const char *const files[] = { "exposures", "membership.json", "map.json", "identity.key",
					     "relay-clients" };
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(files) && r == 0; i++)
		r = remove_file(dir, files[i], reterr);
	return r;
}
