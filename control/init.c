/* Making a network, and adding join keys without the running service. */
#include "common/file.h"
#include "common/prefix.h"
#include "control/control.h"
#include "control/service.h"

#include <errno.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_PREFIX4 "10.77.0.0/16"
#define MAX_PEM         8192

static int write_in(const char *folder, const char *name, const char *text, mode_t mode,
		    struct error *reterr)
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s/%s", folder, name);

	if (n >= (int)sizeof(path))
		return error_set(reterr, -ENAMETOOLONG, "%s: path too long", folder);
	return file_write_atomic(path, text, strlen(text), mode, reterr);
}

/* fd, 40 random bits, subnet 0. */
static void random_prefix6(struct store_network *network)
{
	network->prefix6 = (struct in6_addr){ .s6_addr = { 0xfd } };
	randombytes_buf(&network->prefix6.s6_addr[1], 5);
	network->prefix6_len = 64;
}

static int decide_network(const struct control_init_options *o, struct store_network *n,
			  struct error *reterr)
{
	const char *prefix4 = o->prefix4 ? o->prefix4 : DEFAULT_PREFIX4;

	*n = (struct store_network){ .port = o->port };
	if (!map_name_is_valid(o->network))
		return error_set(reterr, -EINVAL,
				 "the network's name must be 1 to %d of a-z, 0-9 and -, no - at "
				 "either end",
				 MAP_NAME_LEN);
	if (strlen(o->host) > JOIN_LINK_MAX_HOST || o->port == 0)
		return error_set(reterr, -EINVAL, "the address must be HOST:PORT");
	if (prefix4_parse(prefix4, &n->prefix4, &n->prefix4_len) != 0 || n->prefix4_len < 8 ||
	    n->prefix4_len > 29)
		return error_set(reterr, -EINVAL,
				 "the IPv4 prefix must be like 10.77.0.0/16, from /8 to /29");
	if (!o->prefix6)
		random_prefix6(n);
	else if (prefix6_parse(o->prefix6, &n->prefix6, &n->prefix6_len) != 0 ||
		 n->prefix6_len > 96)
		return error_set(reterr, -EINVAL,
				 "the IPv6 prefix must be like fd12:3456:789a::/64, at most /96");
	memcpy(n->network, o->network, strlen(o->network) + 1);
	memcpy(n->host, o->host, strlen(o->host) + 1);
	randombytes_buf(&n->epoch, sizeof(n->epoch));
	n->epoch |= 1; /* never 0: a node without a map says 0 */
	return 0;
}

static int write_authority(const char *folder, const char *network, struct error *reterr)
{
	char *key = NULL, *certificate = NULL;
	int r = certificate_authority_generate(network, control_now_s(), &key, &certificate,
					       reterr);

	if (r == 0)
		r = write_in(folder, "ca.key", key, 0600, reterr);
	if (r == 0)
		r = write_in(folder, "ca.crt", certificate, 0644, reterr);
	certificate_free_secret(key);
	free(certificate);
	return r;
}

static int write_server_key(const char *folder, struct pin *ret_pin, struct error *reterr)
{
	char *key = NULL;
	int r = identity_key_generate(&key, reterr);

	if (r == 0)
		r = identity_key_pin(key, ret_pin, reterr);
	if (r == 0)
		r = write_in(folder, "server.key", key, 0600, reterr);
	certificate_free_secret(key);
	return r;
}

static int write_admin_link(const char *folder, const struct join_link *link, struct error *reterr)
{
	struct join_link_text text = join_link_text(link);
	char line[sizeof(text.s) + 1];

	snprintf(line, sizeof(line), "%s\n", text.s);
	int r = write_in(folder, "admin.link", line, 0600, reterr);
	sodium_memzero(&text, sizeof(text));
	sodium_memzero(line, sizeof(line));
	return r;
}

/* True when there is a whole network, or a file that must not be touched. */
static int refuse_existing(const char *folder, char path[PATH_MAX], struct error *reterr)
{
	struct store_network network;
	struct store *store = NULL;
	struct error err;

	if (snprintf(path, PATH_MAX, "%s/control.db", folder) >= PATH_MAX)
		return error_set(reterr, -ENAMETOOLONG, "%s: path too long", folder);
	int r = store_open(path, &store, &network, &err);
	store_close(store);
	if (r == 0)
		return error_set(reterr, -EEXIST,
				 "%s: the network '%s' is here already, and was left as it is; "
				 "start it with p2pcontrol run, or name another --state-dir",
				 folder, network.network);
	return r == -ENOENT ? 0 : error_set(reterr, r, "%s", err.message);
}

int control_init(const struct control_init_options *o, struct join_link *ret_join,
		 struct join_link *ret_admin, struct error *reterr)
{
	char path[PATH_MAX], join_key[JOIN_LINK_SECRET_LEN + 1], token[JOIN_LINK_SECRET_LEN + 1];
	const int64_t now = control_now_s();
	const struct store_join_key first = {
		.created_s = now,
		.expires_s = o->first_key_life_s ? now + o->first_key_life_s : 0,
		.is_reusable = o->first_key_reusable,
	};
	struct store_network network;
	struct pin pin;
	int r = decide_network(o, &network, reterr);

	if (r == 0)
		r = file_make_folder(o->state_dir, 0700, reterr);
	if (r == 0)
		r = refuse_existing(o->state_dir, path, reterr);
	if (r == 0)
		r = write_authority(o->state_dir, o->network, reterr);
	if (r == 0)
		r = write_server_key(o->state_dir, &pin, reterr);
	if (r != 0)
		return r;
	join_link_make_secret(JOIN_LINK_NODE, join_key);
	join_link_make_secret(JOIN_LINK_ADMIN, token);
	r = control_make_link(&network, &pin, JOIN_LINK_NODE, join_key, ret_join);
	if (r == 0)
		r = control_make_link(&network, &pin, JOIN_LINK_ADMIN, token, ret_admin);
	if (r == 0)
		r = write_admin_link(o->state_dir, ret_admin, reterr);
	if (r == 0)
		r = store_create(path, &network, token, join_key, &first, reterr);
	sodium_memzero(join_key, sizeof(join_key));
	sodium_memzero(token, sizeof(token));
	return r;
}

static int pin_of_folder(const char *folder, struct pin *ret, struct error *reterr)
{
	char path[PATH_MAX], *key = NULL;
	size_t len;

	if (snprintf(path, sizeof(path), "%s/server.key", folder) >= (int)sizeof(path))
		return error_set(reterr, -ENAMETOOLONG, "%s: path too long", folder);
	int r = file_read(path, MAX_PEM, &key, &len, reterr);
	if (r == 0)
		r = identity_key_pin(key, ret, reterr);
	certificate_free_secret(key);
	return r;
}

int control_add_key(const char *state_dir, const struct control_key_options *o,
		    struct join_link *ret_join, struct error *reterr)
{
	char path[PATH_MAX], secret[JOIN_LINK_SECRET_LEN + 1];
	struct store_network network;
	struct store *store = NULL;
	struct pin pin;
	struct store_join_key key = {
		.is_reusable = o->is_reusable,
		.may_relay = o->may_relay,
		.created_s = control_now_s(),
		.expires_s = o->life_s ? control_now_s() + o->life_s : 0,
		.node_ttl_s = o->node_ttl_s,
	};

	if (!control_tags_are_valid(o->tags ? o->tags : ""))
		return error_set(reterr, -EINVAL,
				 "tags must be names of a-z, 0-9 and - with commas between");
	snprintf(key.tags, sizeof(key.tags), "%s", o->tags ? o->tags : "");
	if (snprintf(path, sizeof(path), "%s/control.db", state_dir) >= (int)sizeof(path))
		return error_set(reterr, -ENAMETOOLONG, "%s: path too long", state_dir);
	int r = store_open(path, &store, &network, reterr);
	if (r == 0)
		r = pin_of_folder(state_dir, &pin, reterr);
	join_link_make_secret(JOIN_LINK_NODE, secret);
	if (r == 0)
		r = store_add_join_key(store, secret, &key, reterr);
	if (r == 0)
		r = control_make_link(&network, &pin, JOIN_LINK_NODE, secret, ret_join);
	sodium_memzero(secret, sizeof(secret));
	store_close(store);
	return r;
}
