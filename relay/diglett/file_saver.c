#include "relay/diglett/file_saver.h"

#include "common/file.h"

#include <assert.h>
#include <stdlib.h>

void file_saver_init(struct file_saver *saver, uv_loop_t *loop, const char *path,
		     void (*saved)(void *owner, int r, const struct error *error), void *owner)
{
	*saver = (struct file_saver){ .loop = loop, .path = path, .saved = saved, .owner = owner };
	saver->work.data = saver;
}

/* In another thread: nobody else touches the saver now. */
static void write_it(uv_work_t *work)
{
	struct file_saver *saver = work->data;

	saver->r = file_write_atomic(saver->path, saver->text, saver->len, 0600, &saver->error);
}

static void on_written(uv_work_t *work, int status)
{
	struct file_saver *saver = work->data;
	const int r = status != 0 ? status : saver->r;
	const struct error error = saver->error;

	free(saver->text);
	saver->text = NULL;
	saver->is_busy = false;
	saver->saved(saver->owner, r, &error);
}

void file_saver_save(struct file_saver *saver, char *text_take, size_t len)
{
	assert(!saver->is_busy);
	saver->is_busy = true;
	saver->text = text_take;
	saver->len = len;
	saver->error = (struct error){ 0 };
	if (uv_queue_work(saver->loop, &saver->work, write_it, on_written) != 0)
		abort(); /* it only fails without a function */
}
