/*
 * Certificates by ACME for what this node publishes (acme/acme.h): who gets them, and what is said of them.
 *
 *   exposures ──► acme ──► acceptor: certificate, challenge
 *                  │
 *                  └──► "why" and "certificate" of an exposure in node.exposures
 */
#include "node/engine_internal.h"

#include "common/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define RETRY_S 60

static int copy(char *ret, size_t size, const char *text, const char *what, struct error *reterr)
{
	if (text && strlen(text) >= size)
		return error_set(reterr, -EINVAL, "acme: %s: at most %zu bytes", what, size - 1);
	snprintf(ret, size, "%s", text ? text : "");
	return 0;
}

int engine_take_acme(struct p2p_engine *engine, const struct p2p_engine_options *options, struct error *reterr)
{
	struct acme_settings *settings = &engine->acme_settings;
	struct acme_url url;
	int r;

	if ((r = copy(settings->directory, sizeof(settings->directory),
		      options->acme_directory ? options->acme_directory : ACME_DEFAULT_DIRECTORY, "directory", reterr)) != 0 ||
	    (r = copy(settings->contact, sizeof(settings->contact), options->acme_contact, "contact", reterr)) != 0 ||
	    (r = copy(settings->ca_file, sizeof(settings->ca_file), options->acme_ca_file, "ca_file", reterr)) != 0)
		return r;
	if (acme_url_parse(settings->directory, &url) != 0)
		return error_set(reterr, -EINVAL, "acme: %s is no https URL", settings->directory);
	settings->challenge = options->acme_http_01 ? ACME_HTTP_01 : ACME_TLS_ALPN_01;
	settings->agrees = options->acme_agrees;
	settings->retry_s = options->acme_retry_s ? options->acme_retry_s : RETRY_S;
	return 0;
}

static bool is_led_here(void *owner, const struct exposure *exposure)
{
	const struct p2p_engine *engine = owner;

	for (uint32_t i = 0; i < engine->exposures->n; i++)
		if (memcmp(&engine->exposures->items[i].exposure, exposure, sizeof(*exposure)) == 0)
			return engine_is_led_here(engine, i);
	return false;
}

static void on_changed(void *owner)
{
	struct p2p_engine *engine = owner;

	if (engine->acceptor)
		acceptor_look_at_acme(engine->acceptor);
}

void engine_start_acme(struct p2p_engine *engine)
{
	char folder[STATE_DIR_PATH_MAX + 8];
	const struct acme_options options = { .tls_host = engine->tls_host,
					      .settings = &engine->acme_settings,
					      .folder = folder,
					      .is_led_here = is_led_here,
					      .changed = on_changed,
					      .owner = engine };

	snprintf(folder, sizeof(folder), "%s/acme", engine->dir.path);
	engine->acme = acme_new(&options);
}

void engine_tell_acme(struct p2p_engine *engine)
{
	struct exposure exposures[EXPOSURE_MAX];

	for (uint32_t i = 0; i < engine->exposures->n; i++)
		memcpy(&exposures[i], &engine->exposures->items[i].exposure, sizeof(exposures[i])); /* they compare as bytes */
	acme_set_exposures(engine->acme, exposures, engine->exposures->n);
}

/* ---- for people ---- */

static bool find(const struct p2p_engine *engine, uint32_t i, struct acme_site *ret)
{
	const struct exposure *exposure = &engine->exposures->items[i].exposure;

	return engine->acme && exposure->tls == EXPOSURE_TLS_ACME && acme_find(engine->acme, &exposure->host.name, ret);
}

static const char *time_text(int64_t seconds, char ret[32])
{
	const time_t at = (time_t)seconds;
	struct tm tm;

	if (!gmtime_r(&at, &tm) || strftime(ret, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		ret[0] = '\0';
	return ret;
}

bool engine_say_acme(const struct p2p_engine *engine, uint32_t i, char *ret, size_t size)
{
	struct acme_site site;
	char at[32];

	if (!find(engine, i, &site))
		return false;
	const char *before = site.pem ? "; visitors are shown the certificate of before" : "";
	if (site.obstacle[0] != '\0')
		snprintf(ret, size, "%s", site.obstacle);
	else if (site.failure[0] != '\0' && site.is_ordering)
		snprintf(ret, size, "it is tried again, after: %s%s", site.failure, before);
	else if (site.failure[0] != '\0')
		snprintf(ret, size, "%s; next try at %s%s", site.failure, time_text(site.next_s, at), before);
	else if (site.is_ordering && !site.pem)
		snprintf(ret, size, "a certificate is ordered: %s", site.step);
	return true;
}

void engine_put_acme(const struct p2p_engine *engine, uint32_t i, struct json *ret)
{
	struct acme_site site;
	char at[32];

	if (!find(engine, i, &site))
		return;
	struct json *json = json_object();
	json_put_string(json, "directory", engine->acme_settings.directory);
	json_put_string(json, "challenge", acme_challenge_name(site.challenge));
	json_put_string(json, "state",
			site.obstacle[0] ? "not asked" : site.is_ordering ? "ordering" : site.is_waiting ? "waiting until visitors are led here"
						     : site.failure[0] ? "failed" : site.pem ? "done" : "next");
	if (site.is_ordering)
		json_put_string(json, "step", site.step);
	if (site.failure[0] != '\0')
		json_put_string(json, "last_error", site.failure);
	json_put_integer(json, "failures", site.n_failures);
	if (site.next_s != 0 && !site.is_ordering && site.obstacle[0] == '\0')
		json_put_string(json, site.pem && site.failure[0] == '\0' ? "renewal" : "next_try", time_text(site.next_s, at));
	json_put(ret, "acme", json);
}
