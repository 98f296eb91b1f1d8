/*
 * A record of what a process asks of its disk, as a library to preload (Linux, glibc, 64 bit).
 *
 * Owns: one log, $DISKTRACE_LOG, of every write, cut, sync and change of names in the folder
 * $DISKTRACE_DIR, in the order in which the kernel saw them; and the failure of one sync, the one
 * that $DISKTRACE_FAIL_SYNC counts from 1.
 * Refuses to know: what of it survives a loss of power. Who reads the log decides that, as often
 * as it likes, so that one run gives as many crashes as it has steps.
 *
 * Each call is made and logged under one lock: of two calls of two threads the log never tells the
 * other order. The tested program may append entries of its own (kind 9) to the same file: what it
 * was told before it wrote one, it was told before whatever the log holds behind it.
 *
 * What it simplifies
 *   - One folder: what lies in folders in it is not seen.
 *   - Files ending in -shm are left out: SQLite rebuilds them and never syncs them.
 *   - Raw system calls, stdio streams, hard links, truncation by name, copies inside the kernel and
 *     writes through a shared mapping are not seen.
 *
 * An entry is: kind, length of the name, inode, position, length of the data, name, data; integers
 * are little endian. The real calls are made as raw system calls, so that no order of library
 * constructors matters. Any failure of the log itself aborts: a test must not pass because of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define FILES_MAX 4096

enum kind { OPENED = 1, WROTE, CUT, SYNCED, SYNC_FAILED, NAMES_SYNCED, UNLINKED, RENAMED };

struct head {
    uint32_t kind;
    uint32_t name;
    uint64_t inode;
    int64_t at;
    uint64_t data;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char dir[PATH_MAX];
static struct stat dir_stat;
static int log_fd = -1;
static long fail_sync;
static long syncs;
/* Inodes of files in the folder that were opened. */
static ino_t ours[FILES_MAX];
static int ours_count;

static void die(const char *what) {
    dprintf(STDERR_FILENO, "disktrace: %s: %s\n", what, strerror(errno));
    abort();
}

static void set_up(void) {
    const char *folder = getenv("DISKTRACE_DIR");
    const char *log = getenv("DISKTRACE_LOG");
    const char *fail = getenv("DISKTRACE_FAIL_SYNC");
    if (folder == NULL || log == NULL) {
        return;
    }
    fail_sync = fail != NULL ? strtol(fail, NULL, 10) : 0;
    int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0 || realpath(folder, dir) == NULL || stat(dir, &dir_stat) != 0) {
        die("DISKTRACE_DIR and DISKTRACE_LOG must be usable");
    }
    log_fd = fd;
}

static int on(void) {
    int saved = errno;
    pthread_once(&once, set_up);
    errno = saved;
    return log_fd >= 0;
}

static void note(enum kind kind, uint64_t inode, int64_t at, const char *name, const void *data,
                 size_t length) {
    struct head head = {kind, strlen(name), inode, at, length};
    size_t total = sizeof head + head.name + length;
    char *entry = malloc(total);
    if (entry == NULL) {
        die("memory");
    }
    memcpy(entry, &head, sizeof head);
    memcpy(entry + sizeof head, name, head.name);
    memcpy(entry + sizeof head + head.name, data, length);
    /* One call, so that an entry of the tested program never stands inside another. */
    if (syscall(SYS_write, log_fd, entry, total) != (long)total) {
        die("log");
    }
    free(entry);
}

/* The name of a path that lies in the folder, or NULL. */
static const char *name_of(int dirfd, const char *path, char *full) {
    char start[PATH_MAX], parent[PATH_MAX];
    if (path[0] == '/' || dirfd == AT_FDCWD) {
        snprintf(start, sizeof start, "%s", path);
    } else if (snprintf(start, sizeof start, "/proc/self/fd/%d/%s", dirfd, path) >= PATH_MAX) {
        return NULL;
    }
    char *slash = strrchr(start, '/');
    if (slash == NULL || slash == start) {
        return NULL;
    }
    *slash = '\0';
    size_t n = strlen(slash + 1);
    if (n == 0 || (n >= 4 && strcmp(slash + n - 3, "-shm") == 0)) {
        return NULL;
    }
    if (realpath(start, parent) == NULL || strcmp(parent, dir) != 0) {
        return NULL;
    }
    snprintf(full, PATH_MAX, "%s", slash + 1);
    return full;
}

static int is_ours(ino_t inode) {
    for (int n = 0; n < ours_count; n++) {
        if (ours[n] == inode) {
            return 1;
        }
    }
    return 0;
}

static int file_of_ours(int fd, struct stat *st) {
    return fstat(fd, st) == 0 && S_ISREG(st->st_mode) && st->st_dev == dir_stat.st_dev
        && is_ours(st->st_ino);
}

/* The number may be used again by a file that is not ours. */
static void disown(ino_t inode) {
    for (int n = 0; n < ours_count; n++) {
        if (ours[n] == inode) {
            ours[n] = ours[--ours_count];
            return;
        }
    }
}

/* Opening */

static int open_real(int dirfd, const char *path, int flags, mode_t mode) {
    char name[PATH_MAX];
    struct stat st;
    if (!on()) {
        return syscall(SYS_openat, dirfd, path, flags, mode);
    }
    pthread_mutex_lock(&lock);
    int named = name_of(dirfd, path, name) != NULL;
    int fresh = named && fstatat(dirfd, path, &st, 0) != 0 && errno == ENOENT;
    int fd = syscall(SYS_openat, dirfd, path, flags, mode);
    int saved = errno;
    if (named && fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        if (!is_ours(st.st_ino)) {
            if (ours_count == FILES_MAX) {
                die("too many files");
            }
            ours[ours_count++] = st.st_ino;
        }
        note(OPENED, st.st_ino, fresh, name, "", 0);
        if (!fresh && (flags & O_TRUNC)) {
            note(CUT, st.st_ino, 0, "", "", 0);
        }
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return fd;
}

#define MODE_OF(flags, last)                                                                       \
    mode_t mode = 0;                                                                               \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {                               \
        va_list list;                                                                              \
        va_start(list, last);                                                                      \
        mode = va_arg(list, mode_t);                                                               \
        va_end(list);                                                                              \
    }

EXPORT int open(const char *path, int flags, ...) {
    MODE_OF(flags, flags)
    return open_real(AT_FDCWD, path, flags, mode);
}

EXPORT int openat(int dirfd, const char *path, int flags, ...) {
    MODE_OF(flags, flags)
    return open_real(dirfd, path, flags, mode);
}

/* What the compiler's fortified headers call when no mode is given. */
EXPORT int __open_2(const char *path, int flags) { return open_real(AT_FDCWD, path, flags, 0); }

/* Writing. A negative position stands for the descriptor's own. */

static ssize_t write_real(int fd, const void *buffer, size_t length, int64_t at) {
    struct stat st;
    if (!on()) {
        return at < 0 ? syscall(SYS_write, fd, buffer, length)
                      : syscall(SYS_pwrite64, fd, buffer, length, at);
    }
    /* Looked at before the lock is taken: who writes to a pipe waits for nobody. */
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_dev != dir_stat.st_dev) {
        return at < 0 ? syscall(SYS_write, fd, buffer, length)
                      : syscall(SYS_pwrite64, fd, buffer, length, at);
    }
    pthread_mutex_lock(&lock);
    ssize_t n = at < 0 ? syscall(SYS_write, fd, buffer, length)
                       : syscall(SYS_pwrite64, fd, buffer, length, at);
    int saved = errno;
    if (n > 0 && is_ours(st.st_ino)) {
        int64_t from = at >= 0 ? at : syscall(SYS_lseek, fd, 0, SEEK_CUR) - n;
        note(WROTE, st.st_ino, from, "", buffer, n);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return n;
}

EXPORT ssize_t write(int fd, const void *buffer, size_t length) {
    return write_real(fd, buffer, length, -1);
}

EXPORT ssize_t pwrite(int fd, const void *buffer, size_t length, off_t at) {
    return write_real(fd, buffer, length, at);
}

/* Written part by part: a caller must expect that less than all of it is. */
EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t all = 0;
    for (int part = 0; part < count; part++) {
        ssize_t n = write_real(fd, parts[part].iov_base, parts[part].iov_len, -1);
        if (n < 0) {
            return all > 0 ? all : n;
        }
        all += n;
        if ((size_t)n < parts[part].iov_len) {
            break;
        }
    }
    return all;
}

EXPORT int ftruncate(int fd, off_t length) {
    struct stat st;
    if (!on()) {
        return syscall(SYS_ftruncate, fd, length);
    }
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length);
    int saved = errno;
    if (result == 0 && file_of_ours(fd, &st)) {
        note(CUT, st.st_ino, length, "", "", 0);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

/* The real disk is not asked: it would be slow, and nobody takes its power away. */
static int sync_real(int fd, int call) {
    struct stat st;
    if (!on()) {
        return syscall(call, fd);
    }
    pthread_mutex_lock(&lock);
    int result = 0, saved = errno;
    int names = fstat(fd, &st) == 0 && st.st_dev == dir_stat.st_dev && st.st_ino == dir_stat.st_ino;
    if (names || file_of_ours(fd, &st)) {
        syncs++;
        if (syncs == fail_sync) {
            note(SYNC_FAILED, names ? 0 : st.st_ino, 0, "", "", 0);
            result = -1;
            saved = EIO;
        } else {
            note(names ? NAMES_SYNCED : SYNCED, names ? 0 : st.st_ino, 0, "", "", 0);
        }
    } else {
        result = syscall(call, fd);
        saved = errno;
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

EXPORT int fsync(int fd) { return sync_real(fd, SYS_fsync); }
EXPORT int fdatasync(int fd) { return sync_real(fd, SYS_fdatasync); }

/* One type of offset on 64 bit, but two names of each call. */
#define ALSO(name, other)                                                                          \
    extern __typeof__(name) other __attribute__((alias(#name), visibility("default")))
ALSO(open, open64);
ALSO(openat, openat64);
ALSO(__open_2, __open64_2);
ALSO(pwrite, pwrite64);
ALSO(ftruncate, ftruncate64);

/* Names */

static int unlink_real(int dirfd, const char *path, int flags) {
    char name[PATH_MAX];
    struct stat st;
    if (!on()) {
        return syscall(SYS_unlinkat, dirfd, path, flags);
    }
    pthread_mutex_lock(&lock);
    int named = name_of(dirfd, path, name) != NULL && fstatat(dirfd, path, &st, 0) == 0;
    int result = syscall(SYS_unlinkat, dirfd, path, flags);
    int saved = errno;
    if (result == 0 && named) {
        disown(st.st_ino);
        note(UNLINKED, 0, 0, name, "", 0);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

EXPORT int unlink(const char *path) { return unlink_real(AT_FDCWD, path, 0); }
EXPORT int unlinkat(int dirfd, const char *path, int flags) {
    return unlink_real(dirfd, path, flags);
}

EXPORT int rename(const char *from, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    if (!on()) {
        return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    }
    pthread_mutex_lock(&lock);
    int was = name_of(AT_FDCWD, from, old) != NULL;
    int is = name_of(AT_FDCWD, to, new) != NULL;
    if (was != is) {
        errno = ENOTSUP;
        die("a rename into the folder or out of it");
    }
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    int saved = errno;
    if (result == 0 && was) {
        note(RENAMED, 0, 0, old, new, strlen(new));
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}
