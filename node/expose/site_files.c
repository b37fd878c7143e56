#include "node/expose/site_files.h"

#include "common/file.h"
#include "common/log.h"

#include <errno.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TICKET_KEYS_MS (24ull * 3600 * 1000)

static struct site_file look_at(const char *path)
{
	struct site_file file;
	struct stat stat_;

	memset(&file, 0, sizeof(file));
	if (stat(path, &stat_) == 0) {
		file.device = stat_.st_dev;
		file.inode = stat_.st_ino;
		file.size = (uint64_t)stat_.st_size;
		file.modified = stat_.st_mtim;
		file.changed = stat_.st_ctim;
	}
	return file;
}

static bool is_same(const struct site_file *a, const struct site_file *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* A pipe would keep the whole loop until somebody writes into it. What is not there is told of by who opens it. */
static int check_is_file(const char *path, struct error *reterr)
{
	struct stat stat_;

	return stat(path, &stat_) < 0 || S_ISREG(stat_.st_mode) ? 0 : error_set(reterr, -EINVAL, "%s: is no plain file", path);
}

static int read_context(const struct exposure *exposure, SSL_CTX **ret, struct tls_site_dates *ret_dates,
			struct error *reterr)
{
	char *certificate, *key;
	size_t len, key_len;
	int r = check_is_file(exposure->certificate, reterr);

	if (r == 0)
		r = check_is_file(exposure->key, reterr);
	if (r == 0)
		r = file_read(exposure->certificate, TLS_SITE_MAX_PEM, &certificate, &len, reterr);
	if (r != 0)
		return r;
	r = file_read_secret(exposure->key, TLS_SITE_MAX_PEM, &key, &key_len, reterr);
	if (r == 0) {
		r = tls_site_context_new(&exposure->host, certificate, key, exposure->has_h2, ret, ret_dates, reterr);
		if (r != 0)
			error_prefix(reterr, "%s, %s", exposure->certificate, exposure->key);
		sodium_memzero(key, key_len);
		free(key);
	}
	free(certificate);
	return r;
}

static void fail(struct site_files *files, const struct exposure *exposure, const struct error *error)
{
	if (strcmp(files->failure.message, error->message) != 0)
		log_warning("expose", "%s: %s%s", exposure->host.name.text, error->message,
			    files->is_shown ? "; the certificate of before is shown" : "");
	files->failure = *error;
}

void site_files_look(struct site_files *files, const struct exposure *exposure, struct tls_site *site, uint64_t now_ms)
{
	const struct site_file certificate = look_at(exposure->certificate), key = look_at(exposure->key);
	struct tls_site_dates dates;
	struct error error;
	SSL_CTX *context;

	if (files->is_shown && files->failure.message[0] == '\0' && is_same(&certificate, &files->certificate) &&
	    is_same(&key, &files->key) && now_ms < files->taken_ms + TICKET_KEYS_MS)
		return;
	if (read_context(exposure, &context, &dates, &error) != 0) {
		fail(files, exposure, &error);
		return;
	}
	tls_site_set_context_take(site, context);
	*files = (struct site_files){ .certificate = certificate, .key = key, .taken_ms = now_ms, .is_shown = true, .dates = dates };
	log_info("expose", "%s: its certificate is shown to visitors", exposure->host.name.text);
}
