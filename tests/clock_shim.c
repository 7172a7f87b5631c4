/* The clock of a machine as a test wants it, for one process: LD_PRELOAD=clock_shim.so.
 *
 * The file that POSTERN_CLOCK names is mapped: nanoseconds to be added to CLOCK_REALTIME, then nanoseconds to
 * be added to CLOCK_BOOTTIME, both as native 64-bit integers. A new number counts from the next call on.
 * CLOCK_MONOTONIC is never touched: timers and sleeps go on as ever.
 *
 * Paths in the folder that POSTERN_MACHINE names take the place of those of the machine: its boot id, the
 * sign that its clock is synchronised, its battery-backed clock. One that is not there is not there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t NS = 1000000000;
static volatile const int64_t *added;

__attribute__((constructor)) static void map(void)
{
    const char *name = getenv("POSTERN_CLOCK");
    int file = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *at = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (at != MAP_FAILED)
        added = at;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    if (syscall(SYS_clock_gettime, clock, at))
        return -1;
    if (!added || (clock != CLOCK_REALTIME && clock != CLOCK_BOOTTIME))
        return 0;
    int64_t ns = at->tv_sec * NS + at->tv_nsec + added[clock == CLOCK_BOOTTIME];
    at->tv_sec = ns / NS;
    at->tv_nsec = ns % NS;
    return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now))
        return -1;
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

static const char *played(const char *path, char *room)
{
    const char *machine = getenv("POSTERN_MACHINE");
    const char *name = NULL;
    if (path && machine) {
        if (!strcmp(path, "/proc/sys/kernel/random/boot_id"))
            name = "boot_id";
        else if (!strcmp(path, "/run/systemd/timesync/synchronized"))
            name = "synchronized";
        else if (!strcmp(path, "/dev/rtc0"))
            name = "rtc0";
    }
    if (!name)
        return path;
    snprintf(room, PATH_MAX, "%s/%s", machine, name);
    return room;
}

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...)                            \
    {                                                                     \
        char room[PATH_MAX];                                              \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);    \
        int file = real(played(path, room), flags, va_arg(rest, mode_t)); \
        va_end(rest);                                                     \
        return file;                                                      \
    }
OPEN(open)
OPEN(open64)

#define STAT(name, kind)                                                \
    int name(const char *path, kind *found)                             \
    {                                                                   \
        char room[PATH_MAX];                                            \
        int (*real)(const char *, kind *) = dlsym(RTLD_NEXT, #name);    \
        return real(played(path, room), found);                        \
    }
STAT(stat, struct stat)
STAT(stat64, struct stat64)
