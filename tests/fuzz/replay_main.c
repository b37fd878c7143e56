/*
 * Stand-in for libFuzzer: feeds a target the files of a corpus folder (or single files), so that a
 * corpus is a test with any compiler. Every input is a heap block of exactly its size, and every
 * prefix of a small input is tried too: the address sanitizer sees each read past an end.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Inputs up to this size are also cut short at every length. */
#define PREFIX_MAX 2048

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned inputs;

static int feed(const uint8_t *data, size_t size)
{
	uint8_t *exact = calloc(1, size ? size : 1); /* gcc -O3 would have it that a target may read the byte of an empty one */

	if (!exact)
		return 1;
	if (size)
		memcpy(exact, data, size);
	LLVMFuzzerTestOneInput(exact, size);
	free(exact);
	return 0;
}

static int feed_with_prefixes(const uint8_t *data, size_t size)
{
	int failed = feed(data, size);

	for (size_t n = 0; size <= PREFIX_MAX && n < size; n++)
		failed |= feed(data, n);
	return failed;
}

static int replay_file(const char *name)
{
	FILE *f = fopen(name, "rb");
	struct stat st;

	if (!f || fstat(fileno(f), &st) != 0) {
		perror(name);
		if (f)
			fclose(f);
		return 1;
	}

	size_t size = (size_t)st.st_size;
	uint8_t *data = malloc(size ? size : 1);
	int failed = !data || fread(data, 1, size, f) != size;

	fclose(f);
	if (failed)
		fprintf(stderr, "%s: cannot read\n", name);
	else
		failed = feed_with_prefixes(data, size);
	free(data);
	inputs++;
	return failed;
}

static int replay_folder(const char *name)
{
	DIR *dir = opendir(name);
	struct dirent *entry;
	int failed = 0;

	if (!dir && errno == ENOTDIR)
		return replay_file(name);
	if (!dir) {
		perror(name);
		return 1;
	}
	while ((entry = readdir(dir))) {
		char path[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", name, entry->d_name);
		/* Named before it runs: when the target crashes, the last line tells the input. */
		fprintf(stderr, "%s\n", path);
		failed |= replay_file(path);
	}
	closedir(dir);
	return failed;
}

int main(int argc, char *argv[])
{
	int failed = feed(NULL, 0);

	for (int i = 1; i < argc; i++)
		failed |= replay_folder(argv[i]);
	if (inputs == 0) {
		fprintf(stderr, "no input: the corpus is empty\n");
		return 1;
	}
	printf("%u inputs\n", inputs);
	return failed;
}
