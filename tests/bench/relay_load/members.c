#include "tests/bench/relay_load/load.h"

#include "control/store.h"

#include <sodium.h>
#include <stdio.h>
#include <time.h>

uint32_t load_first_client;

void load_keys(uint32_t client, struct secret_key *ret_secret, struct public_key *ret_public)
{
	client += load_first_client;
	crypto_generichash(ret_secret->bytes, KEY_LEN, (const uint8_t *)&client, sizeof(client),
			   (const uint8_t *)"a client of the benchmark", 25);
	secret_key_public(ret_secret, ret_public);
}

static void add_member(struct store *store, struct directory *directory, uint32_t client)
{
	/* as if with the first join key, which p2pcontrol init has made */
	struct member member = { .joined_s = time(NULL), .last_seen_s = time(NULL), .join_key_id = 1 };
	const uint64_t sequence = directory->sequence + 1;
	struct secret_key secret;
	struct error error;
	char name[32];

	load_keys(client, &secret, &member.peer.node_key);
	member.peer.id = directory->last_id + 1;
	snprintf(name, sizeof(name), "client-%u", client);
	directory_free_name(directory, name, member.peer.name);
	if (directory_free_addresses(directory, &member.peer.ip4, &member.peer.ip6) != 0)
		load_fail("no address for %s", name);
	if (store_put_member(store, &member, sequence, &error) != 0)
		load_fail("%s", error.message);
	directory_put(directory, &member, sequence);
}

void load_make_members(const char *control_folder, uint32_t n)
{
	struct store_network network;
	struct directory directory;
	struct store *store;
	struct error error;
	char path[4096];

	snprintf(path, sizeof(path), "%s/control.db", control_folder);
	directory_init(&directory);
	if (store_open(path, &store, &network, &error) != 0 ||
	    store_load(store, &network, &directory, &error) != 0)
		load_fail("%s", error.message);
	for (uint32_t i = 0; i < n; i++)
		add_member(store, &directory, i);
	store_close(store);
	directory_deinit(&directory);
}
