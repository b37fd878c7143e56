#include "node/wireguard/keypair.h"

#include "node/wireguard/timers.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

static void drop(struct wg_keypair **slot, struct wg_dropped *dropped)
{
	struct wg_keypair *keypair = *slot;

	*slot = NULL;
	if (!keypair)
		return;
	assert(dropped->n < sizeof(dropped->indices) / sizeof(*dropped->indices));
	dropped->indices[dropped->n++] = keypair->local_index;
	sodium_memzero(keypair, sizeof(*keypair));
}

static struct wg_keypair *find_free(struct wg_keypairs *keypairs)
{
	for (size_t i = 0; i < ARRAY_LEN(keypairs->slots); i++)
		if (!keypairs->slots[i].is_used)
			return &keypairs->slots[i];
	return NULL;
}

static void make_room(struct wg_keypairs *keypairs, bool is_initiator, struct wg_dropped *dropped)
{
	drop(&keypairs->previous, dropped);
	if (!is_initiator) {
		drop(&keypairs->next, dropped);
		return;
	}
	if (keypairs->next)
		drop(&keypairs->current, dropped);
	keypairs->previous = keypairs->next ? keypairs->next : keypairs->current;
	keypairs->current = keypairs->next = NULL;
}

struct wg_keypair *wg_keypairs_install(struct wg_keypairs *keypairs,
				       const struct wg_session_keys *keys, bool is_initiator,
				       uint32_t local_index, uint32_t remote_index, uint64_t now_ns,
				       struct wg_dropped *ret_dropped)
{
	*ret_dropped = (struct wg_dropped){ 0 };
	make_room(keypairs, is_initiator, ret_dropped);
	struct wg_keypair *keypair = find_free(keypairs);
	assert(keypair); /* at most one other is kept */
	*keypair = (struct wg_keypair){ .local_index = local_index,
					.remote_index = remote_index,
					.birth_ns = now_ns,
					.is_used = true,
					.is_initiator = is_initiator,
					.may_send = true };
	memcpy(keypair->seal_key, keys->send, KEY_LEN);
	memcpy(keypair->open_key, keys->receive, KEY_LEN);
	if (is_initiator)
		keypairs->current = keypair;
	else
		keypairs->next = keypair;
	return keypair;
}

void wg_keypairs_confirm_next(struct wg_keypairs *keypairs, struct wg_dropped *ret_dropped)
{
	assert(keypairs->next);
	*ret_dropped = (struct wg_dropped){ 0 };
	drop(&keypairs->previous, ret_dropped);
	keypairs->previous = keypairs->current;
	keypairs->current = keypairs->next;
	keypairs->next = NULL;
}

void wg_keypairs_wipe(struct wg_keypairs *keypairs, struct wg_dropped *ret_dropped)
{
	*ret_dropped = (struct wg_dropped){ 0 };
	drop(&keypairs->current, ret_dropped);
	drop(&keypairs->previous, ret_dropped);
	drop(&keypairs->next, ret_dropped);
}

void wg_keypairs_stop_sending(struct wg_keypairs *keypairs)
{
	if (keypairs->current)
		keypairs->current->may_send = false;
	if (keypairs->next)
		keypairs->next->may_send = false;
}

struct wg_keypair *wg_keypairs_usable(const struct wg_keypairs *keypairs, uint64_t now_ns)
{
	struct wg_keypair *keypair = keypairs->current;

	if (!keypair || !keypair->may_send)
		return NULL;
	if (keypair->next_counter >= WG_REJECT_AFTER_MESSAGES ||
	    !wg_is_recent(keypair->birth_ns, WG_REJECT_AFTER_TIME_NS, now_ns)) {
		keypair->may_send = false;
		return NULL;
	}
	return keypair;
}

bool wg_keypair_wants_rekey(const struct wg_keypair *keypair, uint64_t now_ns)
{
	if (keypair->next_counter > WG_REKEY_AFTER_MESSAGES)
		return true;
	return keypair->is_initiator &&
	       !wg_is_recent(keypair->birth_ns, WG_REKEY_AFTER_TIME_NS, now_ns);
}
