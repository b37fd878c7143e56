/* A node's badge is good for its one connection, and for the names that are granted to the node now. */
#include "relay/diglett/diglett_members.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW 1800000000LL

static struct {
	struct certificate_authority ca;
	char *ca_key, *ca_pem, *key, *certificate;
	struct public_key node_key;
	struct node_badge_binding binding;
} world;

static char *issue(const char *key_pem, const char *name)
{
	char *request, *pem;

	assert(certificate_request(key_pem, &request, NULL) == 0);
	assert(certificate_issue_node(&world.ca, request, name, &world.node_key, NOW, CERTIFICATE_LIFE_S, &pem, NULL) == 0);
	free(request);
	return pem;
}

static void begin(void)
{
	world.node_key = (struct public_key){ { 1, 2, 3 } };
	memset(&world.binding, 7, sizeof(world.binding));
	assert(certificate_authority_generate("home", NOW, &world.ca_key, &world.ca_pem, NULL) == 0);
	assert(certificate_authority_init(&world.ca, world.ca_key, world.ca_pem, NULL) == 0);
	assert(identity_key_generate(&world.key, NULL) == 0);
	world.certificate = issue(world.key, "alice");
}

static void end(void)
{
	certificate_authority_deinit(&world.ca);
	certificate_free_secret(world.ca_key);
	certificate_free_secret(world.key);
	free(world.ca_pem);
	free(world.certificate);
}

static struct node_badge badge_of(const char *certificate)
{
	struct node_badge badge;

	assert(node_badge_make(world.key, certificate, &world.binding, &badge, NULL) == 0);
	return badge;
}

static int check(const struct node_badge *badge, const char *network, int64_t now_s)
{
	struct identity identity;
	struct error error;

	const int r = node_badge_check(badge, &world.binding, world.ca_pem, network, now_s, &identity, &error);
	assert(r != 0 || (strcmp(identity.name, "alice") == 0 && public_key_equal(&identity.node_key, &world.node_key)));
	return r;
}

static void test_a_badge_says_which_node_it_is(void)
{
	const struct node_badge badge = badge_of(world.certificate);

	assert(check(&badge, "home", NOW) == 0);
	printf("certificate %u bytes, signature %u\n", badge.n_certificate, badge.n_signature);
}

static void test_a_badge_is_worth_nothing_in_another_connection_nor_with_another_key(void)
{
	const struct node_badge badge = badge_of(world.certificate);

	world.binding.hash[31] ^= 1;
	assert(check(&badge, "home", NOW) == -EACCES);
	world.binding.hash[31] ^= 1;
	world.binding.agent[0] ^= 1;
	assert(check(&badge, "home", NOW) == -EACCES);
	world.binding.agent[0] ^= 1;
	assert(check(&badge, "home", NOW) == 0);
}

static void test_a_badge_of_another_network_or_time_or_authority_is_refused(void)
{
	const struct node_badge badge = badge_of(world.certificate);
	char *other_key, *other_ca, *const own_ca = world.ca_pem;

	assert(check(&badge, "office", NOW) == -EACCES);
	assert(check(&badge, "home", NOW + CERTIFICATE_LIFE_S + 1) == -EACCES);
	assert(check(&badge, "home", NOW - CERTIFICATE_BACKDATE_S - 1) == -EACCES);
	assert(certificate_authority_generate("home", NOW, &other_key, &other_ca, NULL) == 0);
	world.ca_pem = other_ca;
	assert(check(&badge, "home", NOW) == -EACCES);
	world.ca_pem = own_ca;
	certificate_free_secret(other_key);
	free(other_ca);
}

static void test_controls_certificate_is_no_nodes(void)
{
	char *control;
	struct node_badge badge;

	assert(certificate_issue_control(&world.ca, world.key, "control.demo", NOW, CERTIFICATE_LIFE_S, &control, NULL) == 0);
	badge = badge_of(control);
	assert(check(&badge, "home", NOW) == -EACCES);
	free(control);
}

static void test_what_was_changed_is_refused(void)
{
	const struct node_badge badge = badge_of(world.certificate);

	for (uint16_t i = 0; i < badge.n_certificate; i++) {
		struct node_badge changed = badge;
		changed.certificate[i] ^= 1;
		assert(check(&changed, "home", NOW) == -EACCES);
		changed = badge;
		changed.n_certificate = i; /* cut off */
		assert(check(&changed, "home", NOW) == -EACCES);
	}
	for (uint8_t i = 0; i < badge.n_signature; i++) {
		struct node_badge changed = badge;
		changed.signature[i] ^= 1;
		assert(check(&changed, "home", NOW) == -EACCES);
		changed = badge;
		changed.n_signature = i;
		assert(check(&changed, "home", NOW) == -EACCES);
	}
}

static void test_somebody_elses_certificate_makes_no_badge(void)
{
	struct node_badge badge;
	char *other;

	assert(identity_key_generate(&other, NULL) == 0);
	assert(node_badge_make(other, world.certificate, &world.binding, &badge, NULL) == -EINVAL);
	certificate_free_secret(other);
}

static void test_a_node_may_have_what_is_granted_to_it(void)
{
	struct map_peer bob = { .id = 2, .node_key = { { 9 } } };
	struct map_grant grants[] = { { 1, "app.demo" }, { 2, "bob.demo" }, { 3, "gone.demo" } };
	const struct map map = { .self = { .id = 1, .node_key = world.node_key }, .n_peers = 1, .peers = &bob, .n_grants = 3,
				 .grants = grants };
	const struct map nothing = { .self = map.self };
	struct diglett_members *members = diglett_members_new(&map, "home", world.ca_pem);
	const struct node_badge badge = badge_of(world.certificate);
	struct identity identity;
	struct host_name app, bobs;

	assert(host_name_from("app.demo", 8, &app) == 0 && host_name_from("bob.demo", 8, &bobs) == 0);
	assert(diglett_members_read(members, &badge, &world.binding, NOW, &identity, NULL) == 0);
	assert(diglett_members_allow(members, &identity.node_key, &app) && !diglett_members_allow(members, &identity.node_key, &bobs));
	assert(diglett_members_allow(members, &bob.node_key, &bobs));
	diglett_members_free(members);
	assert(!diglett_members_new(&nothing, "home", world.ca_pem));
	assert(diglett_members_read(NULL, &badge, &world.binding, NOW, &identity, NULL) == -EACCES);
	assert(!diglett_members_allow(NULL, &identity.node_key, &app));
}

int main(void)
{
	assert(sodium_init() >= 0);
	begin();
	test_a_badge_says_which_node_it_is();
	test_a_badge_is_worth_nothing_in_another_connection_nor_with_another_key();
	test_a_badge_of_another_network_or_time_or_authority_is_refused();
	test_controls_certificate_is_no_nodes();
	test_what_was_changed_is_refused();
	test_somebody_elses_certificate_makes_no_badge();
	test_a_node_may_have_what_is_granted_to_it();
	end();
	return 0;
}
