/* What the parts of the sniffer share. Each part reads one protocol and remembers in the sniffer how far it got. Pure. */
#pragma once

#include "relay/frontdoor/client_hello_wire.h"
#include "relay/frontdoor/sniffer.h"

/* n: at most SNIFFER_MAX; the protocol is known. */
enum sniffer_outcome sniffer_read_tls(struct sniffer *sniffer, const uint8_t *bytes, uint32_t n);
enum sniffer_outcome sniffer_read_http_1(struct sniffer *sniffer, const uint8_t *bytes, uint32_t n);
enum sniffer_outcome sniffer_read_http_2(struct sniffer *sniffer, const uint8_t *bytes, uint32_t n);

#define SNIFFER_PREFACE_LEN 24 /* of HTTP/2 */

enum sniffer_outcome sniffer_refuse(struct sniffer *sniffer, enum sniffer_reason reason);
/* sniffer->found.host is set. */
enum sniffer_outcome sniffer_finish(struct sniffer *sniffer);

/* Why a visitor with such a name is refused; error: an enum host_name_error. */
enum sniffer_reason sniffer_reason_of_name(int error);
/* The same of a hello that was not understood (enum client_hello_error), and what one says that was. */
enum sniffer_reason sniffer_reason_of_hello(int error);
struct sniffed sniffer_of_hello(const struct client_hello *hello, enum sniffer_protocol protocol);
/* Is that the path (with its query) of an ACME challenge, and nothing that only starts like one? */
bool sniffer_is_acme_path(const char *path, size_t len);
