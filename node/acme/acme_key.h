/*
 * Keys of ACME, all P-256: the account's, which signs what is asked; a certificate's, with its request (CSR); and the certificate that
 * answers tls-alpn-01 (RFC 8737): the host's name, and the hash of the answer in a critical extension.
 *
 * Texts are PEM on the heap. Those with keys end with acme_key_free_text().
 */
#pragma once

#include "node/acme/acme_wire.h"

#include <openssl/types.h>

P2P_CHECK int acme_key_generate(char **ret_pem, struct error *reterr);
void acme_key_free_text(char *pem);
/* *ret ends with EVP_PKEY_free(). -EINVAL: no P-256 key. */
P2P_CHECK int acme_key_parse(const char *pem, EVP_PKEY **ret, struct error *reterr);
P2P_CHECK int acme_key_public(const EVP_PKEY *key, struct acme_public_key *ret);
P2P_CHECK int acme_key_sign(EVP_PKEY *key, const char *text, uint8_t ret[64]);
/* DER: a request of this key for host. */
P2P_CHECK int acme_key_request(EVP_PKEY *key, const char *host, uint8_t ret[ACME_CSR_LEN], size_t *ret_len);
/* Key and certificate in one text, good for a day. */
P2P_CHECK int acme_key_challenge(const char *host, const char *key_authorization, char **ret_pem, struct error *reterr);
