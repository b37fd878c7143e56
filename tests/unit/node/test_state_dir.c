/*
 * The state folder: keys are made once and found again; a corrupt file is named with a remedy and left
 * alone; two nodes cannot share a folder; leaving keeps the node key.
 */
#include "node/state_dir.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[256];
static struct state_dir dir;

static void begin(void)
{
	snprintf(folder, sizeof(folder), "/tmp/p2p-state-XXXXXX");
	assert(mkdtemp(folder));
	assert(state_dir_open(&dir, folder, NULL) == 0);
}

static void end(void)
{
	char command[300];

	state_dir_close(&dir);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	assert(system(command) == 0);
}

static void put(const char *file, const char *text)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	FILE *f = fopen(path, "w");
	assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static bool still_has(const char *file, const char *text)
{
	char path[300], content[4096] = { 0 };

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	FILE *f = fopen(path, "r");
	assert(f);
	size_t n = fread(content, 1, sizeof(content) - 1, f);
	fclose(f);
	return n == strlen(text) && memcmp(content, text, n) == 0;
}

static void test_the_node_key_is_made_once_private_and_found_again(void)
{
	struct secret_key first, again;
	struct stat st;
	char path[300];

	begin();
	assert(state_dir_node_key(&dir, &first, NULL) == 0);
	assert(state_dir_node_key(&dir, &again, NULL) == 0);
	assert(memcmp(&first, &again, sizeof(first)) == 0);
	snprintf(path, sizeof(path), "%s/node.key", folder);
	assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	end();
}

static void test_a_corrupt_node_key_is_named_and_left_alone(void)
{
	struct secret_key key;
	struct error error;

	begin();
	put("node.key", "rubbish\n");
	assert(state_dir_node_key(&dir, &key, &error) == -EINVAL);
	assert(strstr(error.message, "node.key:1") && strstr(error.message, "restore it"));
	assert(still_has("node.key", "rubbish\n"));
	end();
}

static void test_corrupt_membership_names_file_and_remedy_and_is_left_alone(void)
{
	static const char *const texts[] = { "", "{", "[]", "{\"format\": 1}", "{\"format\": 99}",
					     "{\"format\": 1, \"host\": \"a\", \"port\": 70000}" };
	struct state_membership membership;
	struct error error;

	begin();
	assert(state_dir_load_membership(&dir, &membership, NULL) == -ENOENT);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		put("membership.json", texts[i]);
		assert(state_dir_load_membership(&dir, &membership, &error) == -EINVAL);
		assert(strstr(error.message, "membership.json") && strstr(error.message, "join again"));
		assert(still_has("membership.json", texts[i]));
	}
	end();
}

static struct state_membership example(void)
{
	struct state_membership membership = { .host = "control.example", .port = 8443 };

	membership.member.node_id = 7;
	strcpy(membership.member.name, "alice");
	strcpy(membership.member.network, "home");
	membership.member.ip4.s_addr = htonl(0x0a4d0007);
	membership.member.prefix4.s_addr = htonl(0x0a4d0000);
	membership.member.prefix4_len = 16;
	membership.member.ip6.s6_addr[0] = 0xfd;
	membership.member.ip6.s6_addr[15] = 7;
	membership.member.prefix6.s6_addr[0] = 0xfd;
	membership.member.prefix6_len = 64;
	strcpy(membership.member.ca_pem, "-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n");
	strcpy(membership.member.certificate_pem,
	       "-----BEGIN CERTIFICATE-----\nnode\n-----END CERTIFICATE-----\n");
	memset(membership.pin.bytes, 5, sizeof(membership.pin.bytes));
	return membership;
}

static void test_membership_comes_back_as_it_was_saved(void)
{
	struct state_membership saved = example(), loaded;

	begin();
	assert(state_dir_save_membership(&dir, &saved, NULL) == 0);
	assert(state_dir_load_membership(&dir, &loaded, NULL) == 0);
	assert(strcmp(loaded.host, saved.host) == 0 && loaded.port == saved.port);
	assert(pin_equal(&loaded.pin, &saved.pin));
	assert(loaded.member.node_id == 7 && strcmp(loaded.member.name, "alice") == 0);
	assert(strcmp(loaded.member.ca_pem, saved.member.ca_pem) == 0);
	end();
}

static void test_leaving_forgets_everything_but_the_node_key(void)
{
	struct state_membership membership = example();
	struct secret_key key, again;

	begin();
	assert(state_dir_node_key(&dir, &key, NULL) == 0);
	assert(state_dir_save_membership(&dir, &membership, NULL) == 0);
	assert(state_dir_save_identity_key(&dir, "pem", NULL) == 0);
	assert(state_dir_forget(&dir, NULL) == 0);
	assert(state_dir_forget(&dir, NULL) == 0); /* twice is fine */
	char *pem;
	assert(state_dir_load_identity_key(&dir, &pem, NULL) == -ENOENT);
	assert(state_dir_load_membership(&dir, &membership, NULL) == -ENOENT);
	assert(state_dir_node_key(&dir, &again, NULL) == 0);
	assert(memcmp(&key, &again, sizeof(key)) == 0);
	end();
}

static void test_the_map_alone_can_be_forgotten(void)
{
	struct state_membership membership = example();
	struct map map;

	begin();
	map_init(&map);
	assert(state_dir_save_membership(&dir, &membership, NULL) == 0);
	assert(state_dir_save_map(&dir, &map, NULL) == 0);
	assert(state_dir_forget_map(&dir, NULL) == 0);
	assert(state_dir_forget_map(&dir, NULL) == 0);
	assert(state_dir_load_map(&dir, &map, NULL) == -ENOENT);
	assert(state_dir_load_membership(&dir, &membership, NULL) == 0);
	end();
}

static void test_what_was_published_is_forgotten_first(void)
{
	char *text, path[300];

	begin();
	assert(state_dir_save_exposures(&dir, "a.org 192.0.2.1:80\n", NULL) == 0);
	snprintf(path, sizeof(path), "%s/membership.json", folder);
	assert(mkdir(path, 0700) == 0); /* cannot be removed as a file */
	assert(state_dir_forget(&dir, NULL) != 0);
	assert(state_dir_load_exposures(&dir, &text, NULL) == -ENOENT);
	assert(rmdir(path) == 0);
	end();
}

#define MAP_TEXT                                                                                                       \
	"{\"sequence\":\"7\",\"epoch\":\"3\",\"network\":\"home\",\"prefix4\":\"100.64.0.0/10\",\"prefix6\":\"fd00::/64\"," \
	"\"self\":{\"id\":1,\"name\":\"me\",\"node_key\":\"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\","        \
	"\"address4\":\"100.64.0.1\",\"address6\":\"fd00::1\"},\"peers\":[],\"relays\":[]"

/* It left out what it did not know, but kept the sequence. */
static void test_from_the_map_of_an_earlier_version_nothing_goes_on(void)
{
	struct map map;

	begin();
	put("map.json", MAP_TEXT "}");
	assert(state_dir_load_map(&dir, &map, NULL) == 0);
	assert(map.sequence == 0);
	assert(state_dir_save_map(&dir, &map, NULL) == 0); /* saved by this version, it stays unknown where it was */
	map_deinit(&map);
	assert(state_dir_load_map(&dir, &map, NULL) == 0 && map.sequence == 0);
	map_deinit(&map);
	put("map.json", MAP_TEXT ",\"format\":2,\"exposures\":[],\"grants\":[]}");
	assert(state_dir_load_map(&dir, &map, NULL) == 0);
	assert(map.sequence == 7);
	assert(state_dir_save_map(&dir, &map, NULL) == 0);
	map_deinit(&map);
	assert(state_dir_load_map(&dir, &map, NULL) == 0 && map.sequence == 7 && map.epoch == 3);
	map_deinit(&map);
	end();
}

#define PUBLISHED ",\"exposures\":[{\"id\":1,\"port\":7,\"hosts\":[\"*.a.org\"]}],\"grants\":[{\"id\":1,\"hosts\":[\"b.org\"]}]"

/* Without grants, or with those of another day, a wildcard could lead to somebody whose name it is not. */
static void test_what_is_published_is_taken_from_a_map_of_the_same_format_alone(void)
{
	static const char *const others[] = { "", ",\"format\":1", ",\"format\":3", ",\"format\":\"2\"", ",\"format\":null" };
	char text[1024];
	struct map map;

	begin();
	for (size_t i = 0; i < ARRAY_LEN(others); i++) {
		snprintf(text, sizeof(text), MAP_TEXT PUBLISHED "%s}", others[i]);
		put("map.json", text);
		assert(state_dir_load_map(&dir, &map, NULL) == 0);
		assert(map.sequence == 0 && map.n_exposures == 0 && map.n_grants == 0 && map.self.id == 1);
		map_deinit(&map);
	}
	put("map.json", MAP_TEXT PUBLISHED ",\"format\":2}");
	for (int again = 0; again < 2; again++) {
		assert(state_dir_load_map(&dir, &map, NULL) == 0);
		assert(map.sequence == 7 && map.n_exposures == 1 && map_has_grant(&map, 1, "b.org"));
		assert(state_dir_save_map(&dir, &map, NULL) == 0);
		map_deinit(&map);
	}
	end();
}

static void test_two_nodes_cannot_share_a_folder(void)
{
	struct state_dir second;
	struct error error;

	begin();
	assert(state_dir_open(&second, folder, &error) == -EBUSY);
	assert(strstr(error.message, folder) && strstr(error.message, "--state-dir"));
	end();
}

static void test_the_port_is_remembered_and_rubbish_in_it_does_no_harm(void)
{
	begin();
	assert(state_dir_load_port(&dir) == 0);
	state_dir_save_port(&dir, 51820);
	assert(state_dir_load_port(&dir) == 51820);
	put("port", "99999");
	assert(state_dir_load_port(&dir) == 0);
	put("port", "x");
	assert(state_dir_load_port(&dir) == 0);
	end();
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_the_node_key_is_made_once_private_and_found_again();
	test_a_corrupt_node_key_is_named_and_left_alone();
	test_corrupt_membership_names_file_and_remedy_and_is_left_alone();
	test_membership_comes_back_as_it_was_saved();
	test_leaving_forgets_everything_but_the_node_key();
	test_the_map_alone_can_be_forgotten();
	test_what_was_published_is_forgotten_first();
	test_from_the_map_of_an_earlier_version_nothing_goes_on();
	test_what_is_published_is_taken_from_a_map_of_the_same_format_alone();
	test_two_nodes_cannot_share_a_folder();
	test_the_port_is_remembered_and_rubbish_in_it_does_no_harm();
	puts("ok");
}
