/* A wall clock that is wrong: CLOCK_REALTIME and its coarse twin, CLOCKSHIFT_S seconds off. Every other
 * clock is left as it is, since two machines that disagree on the time of day agree on its passing.
 *
 * For LD_PRELOAD. Owns: the two functions of libc that tell wall time. Refuses to know: who asks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long shift(void)
{
    const char *text = getenv("CLOCKSHIFT_S");
    return text ? atol(text) : 0;
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t id, struct timespec *at)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(id, at);
    if (outcome == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        at->tv_sec += shift();
    return outcome;
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict at,
                                                        void *restrict zone)
{
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
