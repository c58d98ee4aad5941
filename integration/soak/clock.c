/*
 * A wall clock that can be set, for one process and its children: preloaded, it adds a number of seconds to what
 * CLOCK_REALTIME shows. The number is the eight bytes of the file that SVIDECAR_SOAK_CLOCK names, mapped once at the
 * start: so a step is seen at once by everybody who shares the file, and needs no descriptor. Other clocks, and who
 * waits for them, are left alone, as a step of the real one leaves them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;

__attribute__((constructor)) static void map_offset(void)
{
	const char *path = getenv("SVIDECAR_SOAK_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (file < 0)
		return;
	void *page = mmap(NULL, sizeof(*offset), PROT_READ, MAP_SHARED, file, 0);
	close(file);
	if (page != MAP_FAILED)
		offset = page;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
	/* Not by dlsym: an allocator asks for the time while it starts, and dlsym allocates. */
	int failed = (int)syscall(SYS_clock_gettime, id, now);

	if (!failed && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		now->tv_sec += *offset;
	return failed;
}
