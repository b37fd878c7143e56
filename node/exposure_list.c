#include "node/exposure_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_same_host(const struct exposure *a, const struct exposure *b)
{
	return a->host.is_wildcard == b->host.is_wildcard && host_name_equal(&a->host.name, &b->host.name);
}

static bool is_added(const struct exposure_item *item)
{
	return item->place[0] == '\0';
}

static void remove_at(struct exposure_list *list, uint32_t i)
{
	list->n--;
	memmove(&list->items[i], &list->items[i + 1], (list->n - i) * sizeof(*list->items));
}

static int refuse_overlap(const struct exposure_item *there, const char *place, struct error *reterr)
{
	char host[EXPOSURE_HOST_TEXT];

	exposure_print_host(&there->exposure, host);
	if (place[0] != '\0')
		return error_set(reterr, -EEXIST, "%s stands at %s already; a host has one target", host, there->place);
	if (!is_added(there))
		return error_set(reterr, -EEXIST, "%s stands in the configuration, at %s; change it there, and restart p2pnode",
				 host, there->place);
	return error_set(reterr, -EEXIST, "%s is exposed already, to %s; 'p2pctl unexpose %s' first", host,
			 endpoint_text(&there->exposure.target).s, host);
}

/* Of one host, or of what stands in its way: what p2pctl says now goes before. Was there any? */
static bool drop_left_out(struct exposure_list *list, const struct exposure *host)
{
	bool was_there = false;
	char *to = list->left_out;

	for (const char *at = list->left_out; *at != '\0';) {
		const size_t len = strcspn(at, "\n") + 1, host_len = strcspn(at, " \t\n");
		char text[EXPOSURE_TEXT] = "";
		struct exposure there;
		if (host_len < sizeof(text))
			memcpy(text, at, host_len);
		const bool drops = exposure_parse_host(text, &there, NULL) == 0 && exposure_overlaps(&there, host);
		was_there = was_there || drops;
		if (!drops) {
			memmove(to, at, len);
			to += len;
		}
		at += len;
	}
	*to = '\0';
	return was_there;
}

/* May it be added, and in place of which? *ret NULL: of none. */
static int find_place(const struct exposure_list *list, const struct exposure *exposure, const char *place,
		      const struct exposure_item **ret, struct error *reterr)
{
	*ret = NULL;
	for (uint32_t i = 0; i < list->n; i++) {
		const struct exposure_item *there = &list->items[i];
		const bool same = memcmp(there->exposure.takes, exposure->takes, sizeof(exposure->takes)) == 0;
		if (!exposure_overlaps(&there->exposure, exposure))
			continue;
		if (!same || !is_added(there) || place[0] != '\0')
			return refuse_overlap(there, place, reterr);
		*ret = there;
	}
	if (!*ret && list->n == EXPOSURE_MAX)
		return error_set(reterr, -ENOSPC,
				 "a node exposes %d hosts at most; a wildcard, such as *.example.org, may stand for many",
				 EXPOSURE_MAX);
	return 0;
}

int exposure_list_add(struct exposure_list *list, const struct exposure *exposure, const char *place,
		      struct error *reterr)
{
	const struct exposure_item *there;
	const int r = find_place(list, exposure, place, &there, reterr);

	if (r != 0)
		return r;
	struct exposure_item *at = there ? &list->items[there - list->items] : &list->items[list->n++];
	memset(at, 0, sizeof(*at));
	at->exposure = *exposure;
	snprintf(at->place, sizeof(at->place), "%s", place);
	if (is_added(at))
		(void)drop_left_out(list, exposure);
	return 0;
}

/* What is said of HTTPS alone goes with it: the line that is kept would be refused at the next start. */
static void forget_https(struct exposure *exposure)
{
	exposure->tls = EXPOSURE_TLS_PASS;
	exposure->has_h2 = exposure->is_without_quic = false;
	exposure->certificate[0] = exposure->key[0] = '\0';
}

/* What is left of it in other schemes stays. */
static void take_schemes(struct exposure_list *list, uint32_t i, const bool takes[DOOR_N_SCHEMES])
{
	bool is_left = false;

	for (int scheme = 0; scheme < DOOR_N_SCHEMES; scheme++) {
		list->items[i].exposure.takes[scheme] &= !takes[scheme];
		is_left = is_left || list->items[i].exposure.takes[scheme];
	}
	if (!is_left)
		remove_at(list, i);
	else if (!list->items[i].exposure.takes[DOOR_HTTPS])
		forget_https(&list->items[i].exposure);
}

int exposure_list_remove(struct exposure_list *list, const struct exposure *host, struct error *reterr)
{
	char text[EXPOSURE_HOST_TEXT];
	bool is_there = false;

	exposure_print_host(host, text);
	for (uint32_t i = 0; i < list->n; i++) {
		if (!exposure_overlaps(&list->items[i].exposure, host))
			continue;
		if (!is_added(&list->items[i]))
			return error_set(reterr, -EPERM,
					 "%s stands in the configuration, at %s; take it out there, and restart p2pnode",
					 text, list->items[i].place);
		is_there = true;
	}
	if (drop_left_out(list, host))
		is_there = true;
	if (!is_there)
		return error_set(reterr, -ENOENT, "%s is not exposed here; 'p2pctl exposures' lists what is", text);
	for (uint32_t i = list->n; i-- > 0;)
		if (exposure_overlaps(&list->items[i].exposure, host))
			take_schemes(list, i, host->takes);
	return 0;
}

void exposure_list_forget_added(struct exposure_list *list)
{
	for (uint32_t i = list->n; i-- > 0;)
		if (is_added(&list->items[i]))
			remove_at(list, i);
	list->left_out[0] = '\0';
}

const struct exposure_item *exposure_list_find(const struct exposure_list *list, enum door_scheme scheme,
					       const struct host_name *host)
{
	const struct exposure_item *found = NULL;
	const struct exposure exact = { .host.name = *host };

	for (uint32_t i = 0; i < list->n; i++) {
		const struct exposure *exposure = &list->items[i].exposure;
		if (is_same_host(exposure, &exact) && exposure->takes[scheme])
			return &list->items[i];
		if (exposure_is_for(exposure, scheme, host))
			found = &list->items[i];
	}
	return found;
}

char *exposure_list_print_added(const struct exposure_list *list)
{
	char line[EXPOSURE_TEXT], *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	fputs(list->left_out, out);
	for (uint32_t i = 0; i < list->n; i++) {
		if (!is_added(&list->items[i]))
			continue;
		exposure_print(&list->items[i].exposure, line);
		fprintf(out, "%s\n", line);
	}
	fclose(out);
	return text;
}

static bool take_line(struct exposure_list *list, const char *at, size_t len)
{
	char line[EXPOSURE_TEXT];
	struct exposure exposure;

	if (len >= sizeof(line))
		return false;
	memcpy(line, at, len);
	line[len] = '\0';
	return exposure_parse(line, &exposure, NULL) == 0 && exposure_list_add(list, &exposure, "", NULL) == 0;
}

int exposure_list_read_added(struct exposure_list *list, const char *text)
{
	int n_left_out = 0;

	for (const char *at = text; *at != '\0';) {
		const size_t len = strcspn(at, "\n"), before = strlen(list->left_out);
		if (len > 0 && !take_line(list, at, len)) {
			if (before + len + 2 > sizeof(list->left_out))
				return -ENOSPC;
			memcpy(list->left_out + before, at, len);
			memcpy(list->left_out + before + len, "\n", 2);
			n_left_out++;
		}
		at += len + (at[len] == '\n');
	}
	return n_left_out;
}

static void explain(const struct exposure_list *list, const char *line, size_t len, struct error *ret_why)
{
	char text[EXPOSURE_TEXT];
	const struct exposure_item *there;
	struct exposure exposure;

	if (len >= sizeof(text)) {
		error_set(ret_why, -EINVAL, "longer than %d characters", EXPOSURE_TEXT - 1);
		return;
	}
	memcpy(text, line, len);
	text[len] = '\0';
	if (exposure_parse(text, &exposure, ret_why) == 0 && find_place(list, &exposure, "", &there, ret_why) == 0)
		error_set(ret_why, 0, "nothing stands in its way any more: expose it again, or restart p2pnode");
}

bool exposure_list_left_out(const struct exposure_list *list, uint32_t i, char ret_line[EXPOSURE_TEXT],
			    struct error *ret_why)
{
	const char *at = list->left_out;

	for (; i > 0 && *at != '\0'; i--)
		at += strcspn(at, "\n") + 1;
	if (*at == '\0')
		return false;
	const size_t len = strcspn(at, "\n");
	snprintf(ret_line, EXPOSURE_TEXT, "%.*s", (int)(len < EXPOSURE_TEXT ? len : EXPOSURE_TEXT - 1), at);
	explain(list, at, len, ret_why);
	return true;
}
