/*
 * Target: node_badge_check, of an agent before it is let in: DER, and a signature. The first byte is the signature's
 * length, then come the signature and the certificate. The authority was made for this, and its key is gone: only the
 * corpus has badges that are right.
 */
#include "relay/diglett/node_badge.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define NOW_S INT64_C(1900000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char authority[] =
	"-----BEGIN CERTIFICATE-----\n"
	"MIIBhjCCASygAwIBAgIQTG18IuLlCKCww/LVKYdJ2TAKBggqhkjOPQQDAjAPMQ0w\n"
	"CwYDVQQDDARob21lMB4XDTMwMDMxNzE3NDE0MFoXDTQwMDMxNDE3NDY0MFowDzEN\n"
	"MAsGA1UEAwwEaG9tZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABAc5tszZK7Ti\n"
	"oBM3DOerzu/JkstMo93gZ8fZC3Ir4NgbOWWqgmM+GaIy5Kv2lVw2KBzYlAIjmBRm\n"
	"sEl0+0tH5IKjajBoMBIGA1UdEwEB/wQIMAYBAf8CAQAwDgYDVR0PAQH/BAQDAgEG\n"
	"MBgGA1UdEQQRMA+GDXNwaWZmZTovL2hvbWUwHQYDVR0OBBYEFLXP2NTYFh9Wc4x5\n"
	"/ox49bvDhPGOMAkGA1UdIwQCMAAwCgYIKoZIzj0EAwIDSAAwRQIhAOCKRYWT7fTu\n"
	"7vnukTiBUC2PzwuGBbfA0VqyAuLSpgMmAiArTVBOXsQp+Udr+Ylnj7THCY0a4tq1\n"
	"a6ua2fgk+r9VLQ==\n"
	"-----END CERTIFICATE-----\n";

static bool read_badge(const uint8_t *data, size_t size, struct node_badge *ret)
{
	*ret = (struct node_badge){ 0 };
	if (size == 0 || data[0] > NODE_BADGE_MAX_SIGNATURE || size - 1 < data[0] ||
	    size - 1 - data[0] > NODE_BADGE_MAX_CERTIFICATE)
		return false;
	ret->n_signature = data[0];
	ret->n_certificate = (uint16_t)(size - 1 - data[0]);
	memcpy(ret->signature, data + 1, ret->n_signature);
	memcpy(ret->certificate, data + 1 + ret->n_signature, ret->n_certificate);
	return true;
}

static int check(const struct node_badge *badge, uint8_t binding_byte, struct identity *ret)
{
	struct node_badge_binding binding;
	struct error error;

	memset(&binding, binding_byte, sizeof(binding));
	return node_badge_check(badge, &binding, authority, "home", NOW_S, ret, &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct public_key node_key = { { 7 } };
	struct node_badge badge;
	struct identity identity, other;

	if (!read_badge(data, size, &badge))
		return 0;
	const int r = check(&badge, 7, &identity);
	assert(r == 0 || r == -EACCES);
	if (r != 0)
		return 0;
	assert(!identity.is_control && strcmp(identity.name, "alice") == 0 && strcmp(identity.network, "home") == 0);
	assert(public_key_equal(&identity.node_key, &node_key));
	assert(check(&badge, 6, &other) == -EACCES); /* of another connection */
	return 0;
}
