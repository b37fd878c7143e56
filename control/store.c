/*
 * The SQLite store.
 *
 * A member is kept as the JSON record the map uses; the columns that must be unique are generated
 * from it, so that there is one truth. Every public function is one transaction.
 */
#include "control/store.h"

#include "common/prefix.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCHEMA_VERSION 4
#define BUSY_MS        2000
#define MAX_RECORD     32768

static const char schema[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
	"CREATE TABLE join_keys ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  hash BLOB NOT NULL UNIQUE,"
	"  reusable INTEGER NOT NULL,"
	"  revoked INTEGER NOT NULL DEFAULT 0,"
	"  created_s INTEGER NOT NULL,"
	"  expires_s INTEGER NOT NULL," /* 0: never */
	"  uses INTEGER NOT NULL DEFAULT 0,"
	"  node_ttl_s INTEGER NOT NULL,"
	"  tags TEXT NOT NULL,"
	"  may_relay INTEGER NOT NULL DEFAULT 0) STRICT;"
	"CREATE TABLE admin_tokens (hash BLOB PRIMARY KEY, created_s INTEGER NOT NULL) STRICT;"
	"CREATE TABLE members ("
	"  id INTEGER PRIMARY KEY,"
	"  record TEXT NOT NULL," /* as in the map */
	"  relay TEXT,"           /* as in the map; of one that ever offered or might */
	"  had_relay INTEGER NOT NULL,"
	"  offers_relay INTEGER NOT NULL DEFAULT 0,"
	"  may_relay INTEGER NOT NULL DEFAULT 0,"
	"  revision INTEGER NOT NULL UNIQUE,"
	"  joined_s INTEGER NOT NULL,"
	"  last_seen_s INTEGER NOT NULL,"
	"  node_ttl_s INTEGER NOT NULL,"
	"  join_key INTEGER NOT NULL REFERENCES join_keys(id),"
	"  tags TEXT NOT NULL,"
	"  exposures TEXT,"       /* as in the map, also those that are not granted; and a bit for those that are */
	"  name TEXT NOT NULL GENERATED ALWAYS AS (json_extract(record, '$.name')) STORED UNIQUE,"
	"  node_key TEXT NOT NULL GENERATED ALWAYS AS (json_extract(record, '$.node_key')) STORED "
	"UNIQUE,"
	"  address4 TEXT NOT NULL GENERATED ALWAYS AS (json_extract(record, '$.address4')) STORED "
	"UNIQUE,"
	"  address6 TEXT NOT NULL GENERATED ALWAYS AS (json_extract(record, '$.address6')) STORED "
	"UNIQUE"
	") STRICT;"
	"CREATE TABLE removed ("
	"  id INTEGER PRIMARY KEY,"
	"  record TEXT NOT NULL,"
	"  had_relay INTEGER NOT NULL,"
	"  revision INTEGER NOT NULL UNIQUE) STRICT;"
	"CREATE TABLE host_grants ("
	"  member INTEGER NOT NULL REFERENCES members(id) ON DELETE CASCADE,"
	"  host TEXT NOT NULL,"
	"  created_s INTEGER NOT NULL,"
	"  PRIMARY KEY (member, host)) STRICT;";

/* From version 1, in which every node that offered to be a relay was one. */
static const char from_version_1[] =
	"ALTER TABLE join_keys ADD COLUMN may_relay INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE members ADD COLUMN offers_relay INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE members ADD COLUMN may_relay INTEGER NOT NULL DEFAULT 0;"
	"UPDATE members SET offers_relay = 1, may_relay = 1 WHERE relay IS NOT NULL;"
	"PRAGMA user_version = 2;";

/* From version 2, in which nobody published anything. */
static const char from_version_2[] =
	"ALTER TABLE members ADD COLUMN exposures TEXT;"
	"CREATE TABLE host_grants ("
	"  member INTEGER NOT NULL REFERENCES members(id) ON DELETE CASCADE,"
	"  host TEXT NOT NULL,"
	"  created_s INTEGER NOT NULL,"
	"  PRIMARY KEY (member, host)) STRICT;"
	"PRAGMA user_version = 3;";

/* From version 3, whose maps did not say what is granted: it is said of who has a grant, once more after all else. */
static const char from_version_3[] =
	"UPDATE members SET revision = (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'sequence') + "
	"  (SELECT count(DISTINCT member) FROM host_grants WHERE member <= members.id) "
	"  WHERE id IN (SELECT member FROM host_grants);"
	"UPDATE meta SET value = CAST(CAST(value AS INTEGER) + (SELECT count(DISTINCT member) FROM host_grants) AS TEXT) "
	"  WHERE key = 'sequence';"
	"PRAGMA user_version = 4;";

struct store {
	sqlite3 *db;
	char *path;
};

static int fail(const struct store *s, struct error *reterr, const char *what)
{
	int code = sqlite3_errcode(s->db);
	int r = code == SQLITE_FULL ? -ENOSPC : code == SQLITE_BUSY ? -EBUSY : -EIO;

	if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
		return error_set(reterr, -EIO,
				 "%s: not a store or damaged (%s); put back a copy of the state "
				 "folder, or move "
				 "it away and run p2pcontrol init for a new network",
				 s->path, sqlite3_errmsg(s->db));
	return error_set(reterr, r, "%s: cannot %s: %s", s->path, what, sqlite3_errmsg(s->db));
}

static int run(struct store *s, const char *sql, struct error *reterr)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK
		       ? 0
		       : fail(s, reterr, "change the store");
}

static int prepare(struct store *s, const char *sql, sqlite3_stmt **ret, struct error *reterr)
{
	return sqlite3_prepare_v2(s->db, sql, -1, ret, NULL) == SQLITE_OK
		       ? 0
		       : fail(s, reterr, "read the store");
}

/* A statement that changes something: runs it to its end and forgets it. */
static int finish(struct store *s, sqlite3_stmt *statement, struct error *reterr)
{
	int r = sqlite3_step(statement) == SQLITE_DONE ? 0 : fail(s, reterr, "change the store");

	sqlite3_finalize(statement);
	return r;
}

static int begin(struct store *s, struct error *reterr)
{
	return run(s, "BEGIN IMMEDIATE", reterr);
}

/* Commits when r is 0, else rolls back; what it returns is final. */
static int end(struct store *s, int r, struct error *reterr)
{
	if (r == 0)
		r = run(s, "COMMIT", reterr);
	if (r != 0)
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

static void bind_text(sqlite3_stmt *statement, int i, const char *text)
{
	if (sqlite3_bind_text(statement, i, text, -1, SQLITE_TRANSIENT) != SQLITE_OK)
		abort();
}

static void bind_integer(sqlite3_stmt *statement, int i, int64_t value)
{
	if (sqlite3_bind_int64(statement, i, value) != SQLITE_OK)
		abort();
}

static void bind_hash(sqlite3_stmt *statement, int i, const char *secret)
{
	uint8_t hash[STORE_HASH_LEN];

	crypto_hash_sha256(hash, (const uint8_t *)secret, strlen(secret));
	if (sqlite3_bind_blob(statement, i, hash, sizeof(hash), SQLITE_TRANSIENT) != SQLITE_OK)
		abort();
}

/* Meta: a few named values */

static int put_meta(struct store *s, const char *key, const char *value, struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(s,
			"INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = "
			"excluded.value",
			&statement, reterr);

	if (r != 0)
		return r;
	bind_text(statement, 1, key);
	bind_text(statement, 2, value);
	return finish(s, statement, reterr);
}

static int put_meta_u64(struct store *s, const char *key, uint64_t value, struct error *reterr)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return put_meta(s, key, text, reterr);
}

static int get_meta(struct store *s, const char *key, char *ret, size_t size, struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(s, "SELECT value FROM meta WHERE key = ?", &statement, reterr);

	if (r != 0)
		return r;
	bind_text(statement, 1, key);
	int step = sqlite3_step(statement);
	const char *text =
		step == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		r = fail(s, reterr, "read the store");
	else if (!text || strlen(text) >= size)
		r = error_set(reterr, -EIO,
			      "%s: damaged: no valid '%s'; put back a copy of the state folder",
			      s->path, key);
	else
		memcpy(ret, text, strlen(text) + 1);
	sqlite3_finalize(statement);
	return r;
}

static int get_meta_u64(struct store *s, const char *key, uint64_t *ret, struct error *reterr)
{
	char text[24], *rest;
	int r = get_meta(s, key, text, sizeof(text), reterr);

	if (r != 0)
		return r;
	*ret = strtoull(text, &rest, 10);
	return *rest == '\0' && *text != '\0'
		       ? 0
		       : error_set(reterr, -EIO, "%s: damaged: '%s'", s->path, key);
}

/* Opening */

static int open_file(const char *path, int flags, struct store **ret, struct error *reterr)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s || !(s->path = strdup(path)))
		abort();
	if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK) {
		int r = error_set(reterr, -EIO, "%s: cannot open: %s", path, sqlite3_errmsg(s->db));
		store_close(s);
		return r;
	}
	sqlite3_busy_timeout(s->db, BUSY_MS);
	sqlite3_extended_result_codes(s->db, 0);
	int r = run(
		s,
		"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
		"PRAGMA cell_size_check = ON",
		reterr);
	if (r != 0) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct store *store_close(struct store *s)
{
	if (!s)
		return NULL;
	sqlite3_close(s->db);
	free(s->path);
	free(s);
	return NULL;
}

static int put_network(struct store *s, const struct store_network *n, struct error *reterr)
{
	char prefix[64];
	int r = put_meta(s, "network", n->network, reterr);

	if (r == 0)
		r = put_meta(s, "host", n->host, reterr);
	if (r == 0)
		r = put_meta_u64(s, "port", n->port, reterr);
	if (r == 0)
		r = put_meta_u64(s, "epoch", n->epoch, reterr);
	snprintf(prefix, sizeof(prefix), "%s", prefix4_text(n->prefix4, n->prefix4_len).s);
	if (r == 0)
		r = put_meta(s, "prefix4", prefix, reterr);
	snprintf(prefix, sizeof(prefix), "%s", prefix6_text(&n->prefix6, n->prefix6_len).s);
	if (r == 0)
		r = put_meta(s, "prefix6", prefix, reterr);
	if (r == 0)
		r = put_meta_u64(s, "sequence", 1, reterr);
	if (r == 0)
		r = put_meta_u64(s, "last_id", 0, reterr);
	if (r == 0)
		r = put_meta_u64(s, "oldest_resumable", 0, reterr);
	return r;
}

static int insert_join_key(struct store *s, const char *join_key, struct store_join_key *key,
			   struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(
		s,
		"INSERT INTO join_keys (hash, reusable, created_s, expires_s, node_ttl_s, tags, may_relay) "
		"VALUES (?, ?, ?, ?, ?, ?, ?)",
		&statement, reterr);

	if (r != 0)
		return r;
	bind_hash(statement, 1, join_key);
	bind_integer(statement, 2, key->is_reusable);
	bind_integer(statement, 3, key->created_s);
	bind_integer(statement, 4, key->expires_s);
	bind_integer(statement, 5, key->node_ttl_s);
	bind_text(statement, 6, key->tags);
	bind_integer(statement, 7, key->may_relay);
	r = finish(s, statement, reterr);
	if (r == 0)
		key->id = sqlite3_last_insert_rowid(s->db);
	return r;
}

static int insert_admin_token(struct store *s, const char *token, int64_t now_s,
			      struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(s, "INSERT INTO admin_tokens VALUES (?, ?)", &statement, reterr);

	if (r != 0)
		return r;
	bind_hash(statement, 1, token);
	bind_integer(statement, 2, now_s);
	return finish(s, statement, reterr);
}

static int user_version(struct store *s, int *ret, struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(s, "PRAGMA user_version", &statement, reterr);

	if (r != 0)
		return r;
	if (sqlite3_step(statement) == SQLITE_ROW)
		*ret = sqlite3_column_int(statement, 0);
	else
		r = fail(s, reterr, "read the store");
	sqlite3_finalize(statement);
	return r;
}

static int create_all(struct store *s, const struct store_network *network, const char *admin_token,
		      const char *first_join_key, const struct store_join_key *first,
		      struct error *reterr)
{
	struct store_join_key key = *first;
	int version = 0;
	int r = user_version(s, &version, reterr);

	if (r == 0 && version != 0)
		r = error_set(reterr, -EEXIST, "%s: there is a network already", s->path);
	if (r == 0)
		r = run(s, schema, reterr);
	if (r == 0)
		r = put_network(s, network, reterr);
	if (r == 0)
		r = insert_admin_token(s, admin_token, first->created_s, reterr);
	if (r == 0)
		r = insert_join_key(s, first_join_key, &key, reterr);
	if (r == 0)
		r = run(s, "PRAGMA user_version = 4", reterr);
	return r;
}

int store_create(const char *path, const struct store_network *network, const char *admin_token,
		 const char *first_join_key, const struct store_join_key *first,
		 struct error *reterr)
{
	struct store *s = NULL;
	mode_t mask = umask(0077);
	int r = open_file(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &s, reterr);

	if (r == 0)
		r = begin(s, reterr);
	if (r == 0)
		r = end(s, create_all(s, network, admin_token, first_join_key, first, reterr),
			reterr);
	store_close(s);
	umask(mask);
	return r;
}

static int get_network(struct store *s, struct store_network *n, struct error *reterr)
{
	char prefix4[64], prefix6[64];
	uint64_t port = 0;
	int r = get_meta(s, "network", n->network, sizeof(n->network), reterr);

	if (r == 0)
		r = get_meta(s, "host", n->host, sizeof(n->host), reterr);
	if (r == 0)
		r = get_meta_u64(s, "port", &port, reterr);
	if (r == 0)
		r = get_meta_u64(s, "epoch", &n->epoch, reterr);
	if (r == 0)
		r = get_meta(s, "prefix4", prefix4, sizeof(prefix4), reterr);
	if (r == 0)
		r = get_meta(s, "prefix6", prefix6, sizeof(prefix6), reterr);
	if (r != 0)
		return r;
	n->port = (uint16_t)port;
	if (prefix4_parse(prefix4, &n->prefix4, &n->prefix4_len) != 0 ||
	    prefix6_parse(prefix6, &n->prefix6, &n->prefix6_len) != 0 ||
	    !map_name_is_valid(n->network))
		return error_set(reterr, -EIO, "%s: damaged: prefixes or name", s->path);
	return 0;
}

static int check_version(struct store *s, struct error *reterr)
{
	int version = 0;
	int r = user_version(s, &version, reterr);

	if (r == 0 && version == 0)
		r = error_set(reterr, -ENOENT,
			      "%s: no network has been made here yet; run p2pcontrol init",
			      s->path);
	if (r == 0 && version >= 1 && version < SCHEMA_VERSION)
		return error_set(reterr, -EIO,
				 "%s: of an earlier version; p2pcontrol run brings it up to date when it starts",
				 s->path);
	if (r == 0 && version != SCHEMA_VERSION)
		r = error_set(reterr, -EIO,
			      "%s: of another version (%d, this program knows %d); use the "
			      "p2pcontrol that made it, or a newer one",
			      s->path, version, SCHEMA_VERSION);
	return r;
}

static int upgrade(struct store *s, struct error *reterr)
{
	int version = 0;
	int r = user_version(s, &version, reterr);

	if (r == 0 && version == 1)
		r = run(s, from_version_1, reterr);
	if (r == 0 && (version == 1 || version == 2))
		r = run(s, from_version_2, reterr);
	if (r == 0 && version >= 1 && version <= 3)
		r = run(s, from_version_3, reterr);
	return r;
}

int store_upgrade(const char *path, struct error *reterr)
{
	struct store *s = NULL;
	int r = open_file(path, SQLITE_OPEN_READWRITE, &s, reterr);

	if (r == 0)
		r = begin(s, reterr);
	if (r == 0)
		r = end(s, upgrade(s, reterr), reterr);
	store_close(s);
	return r;
}

int store_open(const char *path, struct store **ret, struct store_network *ret_network,
	       struct error *reterr)
{
	struct store *s = NULL;

	if (access(path, F_OK) != 0 && errno == ENOENT)
		return error_set(reterr, -ENOENT,
				 "%s: not there; run p2pcontrol init first, or name the "
				 "state folder with --state-dir",
				 path);
	int r = open_file(path, SQLITE_OPEN_READWRITE, &s, reterr);
	if (r == 0)
		r = check_version(s, reterr);
	if (r == 0)
		r = get_network(s, ret_network, reterr);
	if (r != 0) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* Members */

static int parse_record(sqlite3_stmt *statement, int column, struct json **ret,
			struct error *reterr)
{
	const struct json_limits limits = { .max_len = MAX_RECORD };
	const char *text = (const char *)sqlite3_column_text(statement, column);

	return text ? json_parse(text, strlen(text), &limits, ret, reterr)
		    : error_set(reterr, -EINVAL, "no record");
}

static int read_peer(sqlite3_stmt *statement, int column, struct map_peer *ret,
		     struct error *reterr)
{
	P2P_CLEANUP(json_freep) struct json *json = NULL;
	int r = parse_record(statement, column, &json, reterr);

	return r == 0 ? map_peer_from_json(json, ret, reterr) : r;
}

static int read_relay(sqlite3_stmt *statement, int column, struct member *m, struct error *reterr)
{
	P2P_CLEANUP(json_freep) struct json *json = NULL;

	if (sqlite3_column_type(statement, column) == SQLITE_NULL)
		return 0;
	int r = parse_record(statement, column, &json, reterr);
	return r == 0 ? map_relay_from_json(json, &m->relay, reterr) : r;
}

/* *m owns what is read, also when something of it is wrong. */
static int read_exposures(sqlite3_stmt *statement, int column, struct member *m, struct error *reterr)
{
	P2P_CLEANUP(json_freep) struct json *json = NULL;

	if (sqlite3_column_type(statement, column) == SQLITE_NULL)
		return 0;
	int r = parse_record(statement, column, &json, reterr);
	if (r != 0)
		return r;
	m->exposures = malloc(sizeof(*m->exposures));
	if (!m->exposures)
		abort();
	r = map_exposures_from_json(json, m->exposures, reterr);
	return r == 0 ? json_get_u64(json, "granted", &m->granted, reterr) : r;
}

static int read_member(sqlite3_stmt *statement, struct member *m, struct error *reterr)
{
	int r = read_peer(statement, 0, &m->peer, reterr);

	if (r == 0)
		r = read_relay(statement, 1, m, reterr);
	if (r == 0)
		r = read_exposures(statement, 12, m, reterr);
	m->had_relay = sqlite3_column_int(statement, 2) != 0;
	m->revision = (uint64_t)sqlite3_column_int64(statement, 3);
	m->joined_s = sqlite3_column_int64(statement, 4);
	m->last_seen_s = sqlite3_column_int64(statement, 5);
	m->node_ttl_s = sqlite3_column_int64(statement, 6);
	m->join_key_id = sqlite3_column_int64(statement, 7);
	const char *tags = (const char *)sqlite3_column_text(statement, 8);
	snprintf(m->tags, sizeof(m->tags), "%s", tags ? tags : "");
	m->removed = sqlite3_column_int(statement, 9) != 0;
	m->offers_relay = sqlite3_column_int(statement, 10) != 0 && m->relay.id != 0;
	m->may_relay = sqlite3_column_int(statement, 11) != 0;
	return r;
}

static int load_members(struct store *s, struct directory *d, struct error *reterr)
{
	sqlite3_stmt *statement;
	int step,
		r = prepare(
			s,
			"SELECT record, relay, had_relay, revision, joined_s, last_seen_s, "
			"node_ttl_s, "
			"join_key, tags, 0, offers_relay, may_relay, exposures FROM members UNION ALL "
			"SELECT record, NULL, had_relay, revision, 0, 0, 0, 0, '', 1, 0, 0, NULL FROM removed "
			"ORDER BY 4",
			&statement, reterr);

	if (r != 0)
		return r;
	while (r == 0 && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct member m = { 0 };
		r = read_member(statement, &m, reterr);
		if (r == 0 && m.revision > d->sequence)
			r = error_set(reterr, -EINVAL, "a revision from the future");
		if (r == 0)
			directory_load(d, &m);
		else
			free(m.exposures);
		if (r != 0)
			error_prefix(reterr,
				     "%s: damaged: a member's record; put back a copy of the state "
				     "folder",
				     s->path);
	}
	if (r == 0 && step != SQLITE_DONE)
		r = fail(s, reterr, "read the members");
	sqlite3_finalize(statement);
	return r;
}

static int read_grant(sqlite3_stmt *statement, struct host_grant *ret)
{
	const char *host = (const char *)sqlite3_column_text(statement, 1);

	*ret = (struct host_grant){ .member_id = (uint32_t)sqlite3_column_int64(statement, 0),
				    .created_s = sqlite3_column_int64(statement, 2) };
	return host && host_grant_name_from(host, &ret->host) == 0 ? 0 : -EINVAL;
}

static int load_grants(struct store *s, struct directory *d, struct error *reterr)
{
	sqlite3_stmt *statement;
	int step, r = prepare(s, "SELECT member, host, created_s FROM host_grants ORDER BY rowid", &statement, reterr);

	if (r != 0)
		return r;
	while (r == 0 && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct host_grant grant;
		r = read_grant(statement, &grant);
		if (r == 0)
			r = host_grants_add(&d->grants, &grant);
		if (r != 0)
			error_set(reterr, r, "%s: damaged: a grant of a host; put back a copy of the state folder",
				  s->path);
	}
	if (r == 0 && step != SQLITE_DONE)
		r = fail(s, reterr, "read the grants of hosts");
	sqlite3_finalize(statement);
	return r;
}

int store_load(struct store *s, const struct store_network *network, struct directory *d,
	       struct error *reterr)
{
	uint64_t last_id = 0;
	int r = get_meta_u64(s, "sequence", &d->sequence, reterr);

	memcpy(d->network, network->network, sizeof(d->network));
	d->epoch = network->epoch;
	d->prefix4 = network->prefix4;
	d->prefix4_len = network->prefix4_len;
	d->prefix6 = network->prefix6;
	d->prefix6_len = network->prefix6_len;
	if (r == 0)
		r = get_meta_u64(s, "last_id", &last_id, reterr);
	if (r == 0)
		r = get_meta_u64(s, "oldest_resumable", &d->oldest_resumable, reterr);
	if (r == 0)
		r = load_members(s, d, reterr);
	if (r == 0)
		r = load_grants(s, d, reterr);
	if (last_id > d->last_id)
		d->last_id = (uint32_t)last_id;
	return r;
}

static void bind_record(sqlite3_stmt *statement, int i, struct json *json_take)
{
	char *text = json_print(json_take);

	bind_text(statement, i, text);
	free(text);
	json_free(json_take);
}

static struct json *exposures_json(const struct member *m)
{
	struct json *json = map_exposures_to_json(m->exposures);

	json_put_u64(json, "granted", m->granted);
	return json;
}

static int write_member(struct store *s, const struct member *m, uint64_t sequence,
			struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(
		s,
		"INSERT INTO members (id, record, relay, had_relay, revision, joined_s, "
		"last_seen_s, "
		"node_ttl_s, join_key, tags, offers_relay, may_relay, exposures) "
		"VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
		"ON CONFLICT (id) DO UPDATE SET record = excluded.record, relay = excluded.relay, "
		"had_relay = excluded.had_relay, revision = excluded.revision, "
		"last_seen_s = excluded.last_seen_s, tags = excluded.tags, "
		"offers_relay = excluded.offers_relay, may_relay = excluded.may_relay, "
		"exposures = excluded.exposures",
		&statement, reterr);

	if (r != 0)
		return r;
	bind_integer(statement, 1, m->peer.id);
	bind_record(statement, 2, map_peer_to_json(&m->peer));
	if (m->relay.id != 0)
		bind_record(statement, 3, map_relay_to_json(&m->relay));
	bind_integer(statement, 4, m->had_relay || member_is_relay(m));
	bind_integer(statement, 5, (int64_t)sequence);
	bind_integer(statement, 6, m->joined_s);
	bind_integer(statement, 7, m->last_seen_s);
	bind_integer(statement, 8, m->node_ttl_s);
	bind_integer(statement, 9, m->join_key_id);
	bind_text(statement, 10, m->tags);
	bind_integer(statement, 11, m->offers_relay);
	bind_integer(statement, 12, m->may_relay);
	if (m->exposures)
		bind_record(statement, 13, exposures_json(m));
	r = finish(s, statement, reterr);
	return r == 0 ? put_meta_u64(s, "sequence", sequence, reterr) : r;
}

int store_put_member(struct store *s, const struct member *m, uint64_t sequence,
		     struct error *reterr)
{
	int r = begin(s, reterr);

	return r == 0 ? end(s, write_member(s, m, sequence, reterr), reterr) : r;
}

static int run_with_id(struct store *s, const char *sql, int64_t id, int64_t second,
		       struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(s, sql, &statement, reterr);

	if (r != 0)
		return r;
	bind_integer(statement, 1, id);
	if (sqlite3_bind_parameter_count(statement) > 1)
		bind_integer(statement, 2, second);
	return finish(s, statement, reterr);
}

/* Keeps the newest tombstones, and remembers from where on that is enough. */
static int prune_removed(struct store *s, struct error *reterr)
{
	char sql[512];

	snprintf(sql, sizeof(sql),
		 "UPDATE meta SET value = (SELECT revision FROM removed ORDER BY revision DESC "
		 "LIMIT 1 OFFSET %d) "
		 "WHERE key = 'oldest_resumable' AND (SELECT count(*) FROM removed) > %d;"
		 "DELETE FROM removed WHERE revision <= "
		 "(SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'oldest_resumable')",
		 DIRECTORY_MAX_REMOVED, DIRECTORY_MAX_REMOVED);
	return run(s, sql, reterr);
}

static int move_to_removed(struct store *s, uint32_t id, uint64_t sequence, struct error *reterr)
{
	int r = run_with_id(s,
			    "INSERT INTO removed (id, record, had_relay, revision) "
			    "SELECT id, record, had_relay, ?2 FROM members WHERE id = ?1",
			    id, (int64_t)sequence, reterr);

	if (r == 0)
		r = run_with_id(s, "DELETE FROM members WHERE id = ?", id, 0, reterr);
	if (r == 0)
		r = put_meta_u64(s, "sequence", sequence, reterr);
	return r == 0 ? prune_removed(s, reterr) : r;
}

int store_remove_member(struct store *s, uint32_t id, uint64_t sequence, struct error *reterr)
{
	int r = begin(s, reterr);

	return r == 0 ? end(s, move_to_removed(s, id, sequence, reterr), reterr) : r;
}

static void bind_pattern(sqlite3_stmt *statement, int i, const struct host_pattern *host)
{
	char text[HOST_NAME_MAX_LEN + 3];

	snprintf(text, sizeof(text), "%s%s", host->is_wildcard ? "*." : "", host->name.text);
	bind_text(statement, i, text);
}

static int insert_grant(struct store *s, const struct host_grant *grant, struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(s, "INSERT INTO host_grants (member, host, created_s) VALUES (?, ?, ?)", &statement, reterr);

	if (r != 0)
		return r;
	bind_integer(statement, 1, grant->member_id);
	bind_pattern(statement, 2, &grant->host);
	bind_integer(statement, 3, grant->created_s);
	return finish(s, statement, reterr);
}

static int delete_grant(struct store *s, uint32_t member_id, const struct host_pattern *host, struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(s, "DELETE FROM host_grants WHERE member = ? AND host = ?", &statement, reterr);

	if (r != 0)
		return r;
	bind_integer(statement, 1, member_id);
	bind_pattern(statement, 2, host);
	return finish(s, statement, reterr);
}

int store_add_host_grant(struct store *s, const struct host_grant *grant, const struct member *m, uint64_t sequence,
			 struct error *reterr)
{
	int r = begin(s, reterr);

	if (r != 0)
		return r;
	r = insert_grant(s, grant, reterr);
	return end(s, r == 0 ? write_member(s, m, sequence, reterr) : r, reterr);
}

int store_remove_host_grant(struct store *s, const struct host_pattern *host, const struct member *m,
			    uint64_t sequence, struct error *reterr)
{
	int r = begin(s, reterr);

	if (r != 0)
		return r;
	r = delete_grant(s, m->peer.id, host, reterr);
	return end(s, r == 0 ? write_member(s, m, sequence, reterr) : r, reterr);
}

int store_touch_member(struct store *s, uint32_t id, int64_t last_seen_s, struct error *reterr)
{
	return run_with_id(s, "UPDATE members SET last_seen_s = ?2 WHERE id = ?1", id, last_seen_s,
			   reterr);
}

/* Joining */

static const char key_columns[] = "SELECT id, reusable, revoked, created_s, expires_s, uses, "
				  "node_ttl_s, tags, may_relay FROM join_keys ";

static void read_key(sqlite3_stmt *statement, struct store_join_key *key)
{
	const char *tags = (const char *)sqlite3_column_text(statement, 7);

	*key = (struct store_join_key){
		.id = sqlite3_column_int64(statement, 0),
		.is_reusable = sqlite3_column_int(statement, 1) != 0,
		.is_revoked = sqlite3_column_int(statement, 2) != 0,
		.created_s = sqlite3_column_int64(statement, 3),
		.expires_s = sqlite3_column_int64(statement, 4),
		.n_uses = sqlite3_column_int64(statement, 5),
		.node_ttl_s = sqlite3_column_int64(statement, 6),
		.may_relay = sqlite3_column_int(statement, 8) != 0,
	};
	snprintf(key->tags, sizeof(key->tags), "%s", tags ? tags : "");
}

/* 0 or STORE_KEY_UNKNOWN or negative. */
static int find_key(struct store *s, const char *join_key, struct store_join_key *ret,
		    struct error *reterr)
{
	char sql[256];
	sqlite3_stmt *statement;

	snprintf(sql, sizeof(sql), "%sWHERE hash = ?", key_columns);
	int r = prepare(s, sql, &statement, reterr);
	if (r != 0)
		return r;
	bind_hash(statement, 1, join_key);
	int step = sqlite3_step(statement);
	if (step == SQLITE_ROW)
		read_key(statement, ret);
	else
		r = step == SQLITE_DONE ? STORE_KEY_UNKNOWN : fail(s, reterr, "read the join keys");
	sqlite3_finalize(statement);
	return r;
}

static int judge_key(const struct store_join_key *key, int64_t now_s)
{
	if (key->is_revoked)
		return STORE_KEY_REVOKED;
	if (key->expires_s != 0 && now_s >= key->expires_s)
		return STORE_KEY_EXPIRED;
	if (!key->is_reusable && key->n_uses > 0)
		return STORE_KEY_USED;
	return 0;
}

static int create_member(struct store *s, const struct store_join_key *key, struct member *m,
			 uint64_t sequence, struct error *reterr)
{
	int r = run_with_id(s, "UPDATE join_keys SET uses = uses + 1 WHERE id = ?", key->id, 0,
			    reterr);

	m->join_key_id = key->id;
	m->node_ttl_s = key->node_ttl_s;
	memcpy(m->tags, key->tags, sizeof(m->tags));
	if (key->may_relay)
		member_let_relay(m);
	if (r == 0)
		r = write_member(s, m, sequence, reterr);
	return r == 0 ? put_meta_u64(s, "last_id", m->peer.id, reterr) : r;
}

static int join(struct store *s, const char *join_key, uint32_t existing, struct member *m,
		uint64_t sequence, int64_t now_s, struct error *reterr)
{
	struct store_join_key key;
	int r = find_key(s, join_key, &key, reterr);

	if (r != 0)
		return r;
	/* Asked again, because the first answer was lost: the key has done its work. */
	if (existing != 0 && key.id == m->join_key_id)
		return 0;
	r = judge_key(&key, now_s);
	if (r != 0 || existing != 0)
		return r;
	return create_member(s, &key, m, sequence, reterr);
}

int store_join(struct store *s, const char *join_key, uint32_t existing, struct member *m,
	       uint64_t sequence, int64_t now_s, struct error *reterr)
{
	int r = begin(s, reterr);

	return r == 0 ? end(s, join(s, join_key, existing, m, sequence, now_s, reterr), reterr) : r;
}

int store_add_join_key(struct store *s, const char *join_key, struct store_join_key *key,
		       struct error *reterr)
{
	return insert_join_key(s, join_key, key, reterr);
}

int store_revoke_join_key(struct store *s, int64_t id, struct error *reterr)
{
	int r = run_with_id(s, "UPDATE join_keys SET revoked = 1 WHERE id = ?", id, 0, reterr);

	if (r == 0 && sqlite3_changes(s->db) == 0)
		r = error_set(reterr, -ENOENT, "there is no join key %lld", (long long)id);
	return r;
}

int store_each_join_key(struct store *s, store_key_cb cb, void *owner, struct error *reterr)
{
	char sql[256];
	sqlite3_stmt *statement;
	int step;

	snprintf(sql, sizeof(sql), "%sORDER BY id", key_columns);
	int r = prepare(s, sql, &statement, reterr);
	if (r != 0)
		return r;
	while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct store_join_key key;
		read_key(statement, &key);
		cb(owner, &key);
	}
	if (step != SQLITE_DONE)
		r = fail(s, reterr, "read the join keys");
	sqlite3_finalize(statement);
	return r;
}

int store_check_admin_token(struct store *s, const char *token, struct error *reterr)
{
	sqlite3_stmt *statement;
	int r = prepare(s, "SELECT 1 FROM admin_tokens WHERE hash = ?", &statement, reterr);

	if (r != 0)
		return r;
	bind_hash(statement, 1, token);
	int step = sqlite3_step(statement);
	if (step == SQLITE_DONE)
		r = -ENOENT;
	else if (step != SQLITE_ROW)
		r = fail(s, reterr, "read the admin tokens");
	sqlite3_finalize(statement);
	return r;
}
