/*
 * Where TLS ends at this node: what is known of the certificates, for people.
 *
 *   acceptor: files, counters ──► "certificate" and "tls_…" of an exposure in node.exposures, and why it is not live
 */
#include "node/engine_internal.h"

#include <stdio.h>
#include <time.h>

/* "2026-01-31T12:00:00Z" */
static void put_time(struct json *ret, const char *key, int64_t seconds)
{
	const time_t time = (time_t)seconds;
	struct tm tm;
	char text[32];

	if (gmtime_r(&time, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) > 0)
		json_put_string(ret, key, text);
}

static bool get(const struct p2p_engine *engine, uint32_t i, struct acceptor_tls *ret)
{
	return engine->acceptor && i < acceptor_count(engine->acceptor) && acceptor_get_tls(engine->acceptor, i, ret);
}

static const char *state_of(const struct acceptor_tls *tls)
{
	const int64_t now = (int64_t)time(NULL);

	if (!tls->has_certificate)
		return "none";
	return now >= tls->dates.not_after ? "expired" : now < tls->dates.not_before ? "not valid yet" : "valid";
}

bool engine_lacks_certificate(const struct p2p_engine *engine, uint32_t i)
{
	struct acceptor_tls tls;

	return get(engine, i, &tls) && !tls.has_certificate;
}

void engine_say_certificate(const struct p2p_engine *engine, uint32_t i, char *ret, size_t size)
{
	struct acceptor_tls tls;

	ret[0] = '\0';
	if (!get(engine, i, &tls) || (engine_say_acme(engine, i, ret, size) && ret[0] != '\0'))
		return;
	if (tls.failure[0] != '\0')
		snprintf(ret, size, "%s. It is tried again every 10 s%s", tls.failure,
			 tls.has_certificate ? "; visitors are shown the certificate of before" : "");
	else if (tls.has_certificate && time(NULL) >= tls.dates.not_after)
		snprintf(ret, size, "its certificate has expired: visitors will not take it");
}

void engine_put_tls(const struct p2p_engine *engine, uint32_t i, struct json *ret)
{
	struct acceptor_tls tls;

	if (!get(engine, i, &tls))
		return;
	struct json *certificate = json_object();
	json_put_string(certificate, "state", state_of(&tls));
	if (tls.has_certificate) {
		put_time(certificate, "valid_from", tls.dates.not_before);
		put_time(certificate, "valid_until", tls.dates.not_after);
	}
	engine_put_acme(engine, i, certificate);
	json_put(ret, "certificate", certificate);
	json_put_u64(ret, "tls_handshakes", tls.counters.handshakes);
	json_put_u64(ret, "tls_resumed", tls.counters.resumed);
	json_put_u64(ret, "tls_failed", tls.counters.failed);
	json_put_u64(ret, "tls_no_certificate", tls.counters.no_certificate);
	json_put_u64(ret, "tls_too_slow", tls.counters.too_slow);
	json_put_u64(ret, "tls_over_limit", tls.counters.over_limit);
	json_put_u64(ret, "tls_truncated", tls.counters.truncated);
	json_put_u64(ret, "acme_challenges", tls.counters.challenges);
}
