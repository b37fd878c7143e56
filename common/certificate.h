/*
 * X.509 as this network uses it: P-256 keys, the network's CA, certificates of at most 24 h.
 *
 * A node's certificate: CN = node name, serialNumber attribute = node key as 64 hex digits,
 * URI SAN spiffe://<network>/node/<name>, usable as TLS client and server. Control's certificate:
 * CN = "control", URI SAN spiffe://<network>/control. Everything travels as PEM text. Pure: time is
 * passed in as Unix seconds. Error texts never contain key material.
 */
#pragma once

#include "common/error.h"
#include "common/join_link.h"
#include "common/key.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#define CERTIFICATE_LIFE_S           (24 * 3600)
#define CERTIFICATE_BACKDATE_S       300
#define CERTIFICATE_AUTHORITY_LIFE_S (10LL * 365 * 24 * 3600)
#define CERTIFICATE_NAME_LEN         63

/* Who a certificate says its holder is. */
struct identity {
	char network[CERTIFICATE_NAME_LEN + 1];
	char name[CERTIFICATE_NAME_LEN + 1]; /* of the node; "" when it is not a node's */
	struct public_key node_key;
	bool is_control;
	int64_t not_before_s, not_after_s;
};

struct certificate_authority {
	EVP_PKEY *key;
	X509 *certificate;
	char network[CERTIFICATE_NAME_LEN + 1];
};

/*
 * Private keys as PEM text (PKCS #8): NUL-terminated, on the heap; end with
 * certificate_free_secret().
 */
P2P_CHECK int identity_key_generate(char **ret_pem, struct error *reterr);
void certificate_free_secret(char *pem);
P2P_CHECK int identity_key_parse(const char *pem, EVP_PKEY **ret, struct error *reterr);
/* A certificate request of that key; who it is for is control's decision, not the request's. */
P2P_CHECK int certificate_request(const char *key_pem, char **ret_pem, struct error *reterr);

P2P_CHECK int certificate_authority_generate(const char *network, int64_t now_s, char **ret_key_pem,
					     char **ret_certificate_pem, struct error *reterr);
P2P_CHECK int certificate_authority_init(struct certificate_authority *ca, const char *key_pem,
					 const char *certificate_pem, struct error *reterr);
void certificate_authority_deinit(struct certificate_authority *ca); /* accepts all zero */
/* Signs a request for a node. -EINVAL when the request is not a P-256 one with its own signature.
 */
P2P_CHECK int certificate_issue_node(const struct certificate_authority *ca,
				     const char *request_pem, const char *name,
				     const struct public_key *node_key, int64_t now_s,
				     int64_t life_s, char **ret_pem, struct error *reterr);
/* Control's own server certificate. host: what clients connect to, a name or an address. */
P2P_CHECK int certificate_issue_control(const struct certificate_authority *ca, const char *key_pem,
					const char *host, int64_t now_s, int64_t life_s,
					char **ret_pem, struct error *reterr);

P2P_CHECK int certificate_parse(const char *pem, X509 **ret, struct error *reterr);
/* 0; -EINVAL when it has not the form of a certificate of ours. Says nothing about who signed it.
 */
P2P_CHECK int certificate_identity(X509 *certificate, struct identity *ret);
P2P_CHECK int certificate_identity_pem(const char *pem, struct identity *ret, struct error *reterr);
P2P_CHECK int certificate_pin(X509 *certificate, struct pin *ret);
/* The pin of a key of ours, before it has a certificate. */
P2P_CHECK int identity_key_pin(const char *key_pem, struct pin *ret, struct error *reterr);

enum certificate_purpose { CERTIFICATE_FOR_CLIENT, CERTIFICATE_FOR_SERVER };
/* Signed by that CA, valid at now_s, meant for the purpose. 0, or -EACCES with the reason. */
P2P_CHECK int certificate_check(X509 *certificate, X509 *ca, enum certificate_purpose purpose,
				int64_t now_s, struct error *reterr);
