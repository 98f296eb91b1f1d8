/*
 * A disk that loses power, as a library to preload (Linux, glibc, 64 bit).
 *
 * Owns: a second copy of every regular file below $CRASHFS_DIR, kept under the same name below
 * $CRASHFS_SHADOW, which holds what would be on the platter if the power went now.
 * Refuses to know: who writes, and what the bytes mean.
 *
 * What it models
 *   - A write is visible to the process at once and reaches the shadow with the next fsync or
 *     fdatasync of that file, through whatever descriptor. Length and truncation likewise.
 *   - A new file appears in the shadow with its first sync.
 *   - A file renamed before it was ever synced is empty in the shadow under its new name.
 *   - With $CRASHFS_LEAK (a decimal seed) about a quarter of the pages written also reaches the
 *     shadow at once: the kernel may write back early and in any order. So "not synced" means
 *     "may be lost", page by page, and not "is lost".
 *
 * What it simplifies
 *   - Names are durable at once: unlink, rename, mkdir and rmdir apply to the shadow immediately,
 *     so a forgotten sync of a directory is not found.
 *   - O_SYNC, RWF_DSYNC, sync, syncfs and sync_file_range count as no sync: the model loses more
 *     than a disk would, never less.
 *   - A page of 4 KiB is never torn.
 *   - Files ending in -shm are left out: SQLite rebuilds them and never syncs them.
 *   - One process writes to a file at a time. A process that meets an old file takes all of it
 *     as not synced yet.
 *   - Raw system calls, stdio streams, hard links, truncation by name and writes through a shared
 *     mapping are not seen; their bytes reach the shadow only by accident.
 *
 * The real calls are made as raw system calls, so that no order of library constructors matters.
 * Any failure of the shadow itself aborts: a test must not pass because the model was broken.
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
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096
#define NO_CUT INT64_MAX
#define EXPORT __attribute__((visibility("default")))

/* A file that may differ from its shadow. Found by inode, so that descriptors can be duplicated,
 * inherited and closed without anybody telling. */
struct file {
    struct file *next;
    dev_t device;
    ino_t inode;
    char name[PATH_MAX]; /* relative to both directories */
    uint8_t *dirty;      /* one bit a page */
    size_t pages;        /* that `dirty` has room for */
    int64_t cut;         /* shortest length since the last sync, or NO_CUT */
    int all;             /* every page counts as dirty */
    int reader;          /* own descriptor, for files opened write-only; or -1 */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files;
static char real_dir[PATH_MAX];
static char shadow_dir[PATH_MAX];
static int active;
static int leaking;
static uint64_t leak_state;

static void die(const char *what) {
    dprintf(STDERR_FILENO, "crashfs: %s: %s\n", what, strerror(errno));
    abort();
}

static void set_up(void) {
    const char *dir = getenv("CRASHFS_DIR");
    const char *shadow = getenv("CRASHFS_SHADOW");
    const char *leak = getenv("CRASHFS_LEAK");
    if (dir == NULL || shadow == NULL) {
        return;
    }
    if (realpath(dir, real_dir) == NULL || realpath(shadow, shadow_dir) == NULL) {
        die("CRASHFS_DIR and CRASHFS_SHADOW must exist");
    }
    leaking = leak != NULL;
    leak_state = leaking ? strtoull(leak, NULL, 10) : 0;
    active = 1;
}

static int on(void) {
    int saved = errno;
    pthread_once(&once, set_up);
    errno = saved;
    return active;
}

/* splitmix64: the share that leaks depends on the seed and the order of writes alone. */
static int leak_this(void) {
    uint64_t z = (leak_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return ((z ^ (z >> 31)) & 3) == 0;
}

static int ends_with(const char *text, const char *tail) {
    size_t n = strlen(text), m = strlen(tail);
    return n >= m && strcmp(text + n - m, tail) == 0;
}

/* The part of an absolute path below the real directory, or NULL. */
static const char *below(const char *path) {
    size_t n = strlen(real_dir);
    if (strncmp(path, real_dir, n) != 0 || path[n] != '/' || ends_with(path, "-shm")) {
        return NULL;
    }
    return path + n + 1;
}

static void join(char *out, const char *dir, const char *name) {
    if (snprintf(out, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        die("shadow path");
    }
}

/* Absolute path with every link in its parent resolved. The last part is kept as it is, since
 * unlink and rename act on the name and not on what it points to. */
static int resolve(int dirfd, const char *path, char *out) {
    char full[PATH_MAX], parent[PATH_MAX];
    int written;
    if (path[0] == '/') {
        written = snprintf(full, sizeof full, "%s", path);
    } else if (dirfd == AT_FDCWD) {
        written = snprintf(full, sizeof full, "./%s", path);
    } else {
        written = snprintf(full, sizeof full, "/proc/self/fd/%d/%s", dirfd, path);
    }
    if (written < 0 || written >= (int)sizeof full) {
        return 0;
    }
    for (size_t n = strlen(full); n > 1 && full[n - 1] == '/'; n--) {
        full[n - 1] = '\0';
    }
    char *slash = strrchr(full, '/');
    char *last = slash + 1;
    if (slash == full) {
        return snprintf(out, PATH_MAX, "/%s", last) < PATH_MAX;
    }
    *slash = '\0';
    return realpath(full, parent) != NULL
        && snprintf(out, PATH_MAX, "%s/%s", parent, last) < PATH_MAX;
}

static void make_parents(const char *path) {
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", path);
    for (char *p = part + strlen(shadow_dir) + 1; *p != '\0'; p++) {
        if (*p == '/') {
            *p = '\0';
            if (syscall(SYS_mkdirat, AT_FDCWD, part, 0755) != 0 && errno != EEXIST) {
                die("shadow mkdir");
            }
            *p = '/';
        }
    }
}

static int open_shadow(const char *name) {
    char path[PATH_MAX];
    join(path, shadow_dir, name);
    make_parents(path);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        die("shadow open");
    }
    return fd;
}

/* Takes from the caller's descriptor where it can. A descriptor of our own is opened for
 * write-only files alone and never closed while the file lives: closing any descriptor of a file
 * drops the POSIX locks that the process holds on it, SQLite's among them. */
static ssize_t read_real(struct file *file, int fd, void *buffer, int64_t at) {
    ssize_t n = syscall(SYS_pread64, file->reader >= 0 ? file->reader : fd, buffer, PAGE, at);
    if (n < 0 && errno == EBADF && file->reader < 0) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        file->reader = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
        if (file->reader >= 0) {
            n = syscall(SYS_pread64, file->reader, buffer, PAGE, at);
        }
    }
    if (n < 0) {
        die("read of a page");
    }
    return n;
}

static void copy_page(struct file *file, int fd, int shadow, size_t page) {
    char buffer[PAGE];
    int64_t at = (int64_t)page * PAGE;
    ssize_t n = read_real(file, fd, buffer, at);
    for (ssize_t done = 0; done < n;) {
        ssize_t m = syscall(SYS_pwrite64, shadow, buffer + done, n - done, at + done);
        if (m <= 0) {
            die("shadow write");
        }
        done += m;
    }
}

static struct file *by_inode(const struct stat *st) {
    for (struct file *file = files; file != NULL; file = file->next) {
        if (file->inode == st->st_ino && file->device == st->st_dev) {
            return file;
        }
    }
    return NULL;
}

static void forget(struct file *gone) {
    for (struct file **link = &files; *link != NULL; link = &(*link)->next) {
        if (*link == gone) {
            *link = gone->next;
            if (gone->reader >= 0) {
                syscall(SYS_close, gone->reader);
            }
            free(gone->dirty);
            free(gone);
            return;
        }
    }
}

static struct file *by_name(const char *name) {
    for (struct file *file = files; file != NULL; file = file->next) {
        if (strcmp(file->name, name) == 0) {
            return file;
        }
    }
    return NULL;
}

/* The record of an open file, made if the file lies below the directory and has none. */
static struct file *find(int fd, const struct stat *st) {
    char link[64], path[PATH_MAX];
    struct file *file = by_inode(st);
    if (file != NULL) {
        return file;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0 || st->st_nlink == 0) {
        return NULL;
    }
    path[n] = '\0';
    const char *name = below(path);
    if (name == NULL) {
        return NULL;
    }
    file = calloc(1, sizeof *file);
    if (file == NULL) {
        die("memory");
    }
    file->device = st->st_dev;
    file->inode = st->st_ino;
    snprintf(file->name, sizeof file->name, "%s", name);
    file->cut = NO_CUT;
    file->all = 1;
    file->reader = -1;
    file->next = files;
    files = file;
    return file;
}

/* Regular files only, and checked before the lock is taken: a signal handler that writes to a pipe
 * must not wait for the thread that it interrupts. */
static int regular(int fd, struct stat *st) {
    return on() && fstat(fd, st) == 0 && S_ISREG(st->st_mode);
}

static void mark(struct file *file, size_t page) {
    if (page >= file->pages) {
        size_t pages = (page + 1) * 2 + 64;
        pages -= pages % 8;
        uint8_t *dirty = realloc(file->dirty, pages / 8);
        if (dirty == NULL) {
            die("memory");
        }
        memset(dirty + file->pages / 8, 0, (pages - file->pages) / 8);
        file->dirty = dirty;
        file->pages = pages;
    }
    file->dirty[page / 8] |= 1u << (page % 8);
}

/* After a write of `length` bytes at `at`; a negative `at` is before the descriptor's position. */
static void wrote(int fd, int64_t at, ssize_t length) {
    struct stat st;
    int saved = errno;
    if (length > 0 && regular(fd, &st)) {
        pthread_mutex_lock(&lock);
        struct file *file = find(fd, &st);
        if (file != NULL) {
            int shadow = -1;
            int64_t from = at >= 0 ? at : syscall(SYS_lseek, fd, 0, SEEK_CUR) - length;
            for (int64_t page = from / PAGE; page <= (from + length - 1) / PAGE; page++) {
                mark(file, page);
                if (leaking && leak_this()) {
                    shadow = shadow >= 0 ? shadow : open_shadow(file->name);
                    copy_page(file, fd, shadow, page);
                }
            }
            if (shadow >= 0) {
                syscall(SYS_close, shadow);
            }
        }
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
}

static void truncated(int fd, int64_t length) {
    struct stat st;
    int saved = errno;
    if (regular(fd, &st)) {
        pthread_mutex_lock(&lock);
        struct file *file = find(fd, &st);
        if (file != NULL && length < file->cut) {
            file->cut = length;
        }
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
}

static void synced(int fd) {
    struct stat st;
    int saved = errno;
    if (regular(fd, &st)) {
        pthread_mutex_lock(&lock);
        struct file *file = find(fd, &st);
        /* Again under the lock: the length must be that of the pages copied below. */
        if (file != NULL && fstat(fd, &st) == 0) {
            int shadow = open_shadow(file->name);
            struct stat before;
            if (fstat(shadow, &before) != 0
                || (file->cut < before.st_size
                    && syscall(SYS_ftruncate, shadow, file->cut) != 0)) {
                die("shadow cut");
            }
            size_t pages = (st.st_size + PAGE - 1) / PAGE;
            for (size_t page = 0; page < pages; page++) {
                if (file->all
                    || (page < file->pages && file->dirty[page / 8] >> (page % 8) & 1)) {
                    copy_page(file, fd, shadow, page);
                }
            }
            if (syscall(SYS_ftruncate, shadow, st.st_size) != 0) {
                die("shadow length");
            }
            syscall(SYS_close, shadow);
            if (file->dirty != NULL) {
                memset(file->dirty, 0, file->pages / 8);
            }
            file->cut = NO_CUT;
            file->all = 0;
        }
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
}

/* Opening */

static int open_real(int dirfd, const char *path, int flags, mode_t mode) {
    struct stat st;
    /* An inode number is used again, so a file that is made must not inherit a record. */
    int fresh = on() && (flags & O_CREAT) && fstatat(dirfd, path, &st, 0) != 0 && errno == ENOENT;
    int fd = syscall(SYS_openat, dirfd, path, flags, mode);
    int saved = errno;
    if (fd >= 0 && !(flags & O_PATH) && regular(fd, &st)) {
        pthread_mutex_lock(&lock);
        if (fresh) {
            struct file *stale = by_inode(&st);
            if (stale != NULL) {
                forget(stale);
            }
        }
        struct file *file = find(fd, &st);
        if (file != NULL && (fresh || (flags & O_TRUNC))) {
            file->cut = 0;
            file->all = file->all && !fresh;
        }
        pthread_mutex_unlock(&lock);
    }
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
EXPORT int __openat_2(int dirfd, const char *path, int flags) {
    return open_real(dirfd, path, flags, 0);
}

EXPORT int creat(const char *path, mode_t mode) {
    return open_real(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}

/* Writing */

EXPORT ssize_t write(int fd, const void *buffer, size_t length) {
    ssize_t n = syscall(SYS_write, fd, buffer, length);
    wrote(fd, -1, n);
    return n;
}

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t n = syscall(SYS_writev, fd, parts, count);
    wrote(fd, -1, n);
    return n;
}

EXPORT ssize_t pwrite(int fd, const void *buffer, size_t length, off_t at) {
    ssize_t n = syscall(SYS_pwrite64, fd, buffer, length, at);
    wrote(fd, at, n);
    return n;
}

/* An offset of -1 stands for the descriptor's position, here and in the kernel. */
EXPORT ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    /* The kernel takes the offset in two halves; on 64 bit the second is ignored. */
    ssize_t n = syscall(SYS_pwritev2, fd, parts, count, at, 0, flags);
    wrote(fd, at, n);
    return n;
}

EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    ssize_t n = syscall(SYS_pwritev, fd, parts, count, at, 0);
    wrote(fd, at, n);
    return n;
}

EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t length,
                               unsigned flags) {
    int64_t at = out_at != NULL ? *out_at : -1;
    ssize_t n = syscall(SYS_copy_file_range, in, in_at, out, out_at, length, flags);
    wrote(out, at, n);
    return n;
}

EXPORT ssize_t sendfile(int out, int in, off_t *at, size_t length) {
    ssize_t n = syscall(SYS_sendfile, out, in, at, length);
    wrote(out, -1, n);
    return n;
}

EXPORT int ftruncate(int fd, off_t length) {
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0) {
        truncated(fd, length);
    }
    return result;
}

EXPORT int fsync(int fd) {
    int result = syscall(SYS_fsync, fd);
    if (result == 0) {
        synced(fd);
    }
    return result;
}

EXPORT int fdatasync(int fd) {
    int result = syscall(SYS_fdatasync, fd);
    if (result == 0) {
        synced(fd);
    }
    return result;
}

/* One type of offset on 64 bit, but two names of each call. */
#define ALSO(name, other)                                                                          \
    extern __typeof__(name) other __attribute__((alias(#name), visibility("default")))
ALSO(open, open64);
ALSO(openat, openat64);
ALSO(__open_2, __open64_2);
ALSO(__openat_2, __openat64_2);
ALSO(creat, creat64);
ALSO(pwrite, pwrite64);
ALSO(pwritev, pwritev64);
ALSO(pwritev2, pwritev64v2);
ALSO(sendfile, sendfile64);
ALSO(ftruncate, ftruncate64);

/* Names */

static int unlink_real(int dirfd, const char *path, int flags) {
    char full[PATH_MAX], shadow[PATH_MAX];
    const char *name = on() && resolve(dirfd, path, full) ? below(full) : NULL;
    int result = syscall(SYS_unlinkat, dirfd, path, flags);
    int saved = errno;
    if (result == 0 && name != NULL) {
        pthread_mutex_lock(&lock);
        struct file *file = by_name(name);
        if (file != NULL) {
            forget(file);
        }
        join(shadow, shadow_dir, name);
        if (syscall(SYS_unlinkat, AT_FDCWD, shadow, flags) != 0 && errno != ENOENT) {
            die("shadow unlink");
        }
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
    return result;
}

/* What lay under the old name lies under the new one, with whatever was synced of it. */
static void move_shadow(const char *from, const char *to, const struct stat *moved) {
    char old[PATH_MAX], new[PATH_MAX], rest[PATH_MAX];
    join(new, shadow_dir, to);
    make_parents(new);
    struct file *replaced = by_name(to);
    if (replaced != NULL) {
        forget(replaced);
    }
    int found = 0;
    if (from != NULL) {
        join(old, shadow_dir, from);
        found = syscall(SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0) == 0;
        if (!found && errno != ENOENT) {
            die("shadow rename");
        }
        size_t n = strlen(from);
        for (struct file *file = files; file != NULL; file = file->next) {
            if (strncmp(file->name, from, n) == 0
                && (file->name[n] == '\0' || file->name[n] == '/')) {
                snprintf(rest, sizeof rest, "%s", file->name + n);
                if (snprintf(file->name, PATH_MAX, "%s%s", to, rest) >= PATH_MAX) {
                    die("renamed path");
                }
            }
        }
    }
    if (!found && S_ISREG(moved->st_mode)) {
        int shadow = open_shadow(to);
        if (syscall(SYS_ftruncate, shadow, 0) != 0) {
            die("shadow length");
        }
        syscall(SYS_close, shadow);
    }
}

static int rename_real(int from_dir, const char *from, int to_dir, const char *to,
                       unsigned flags) {
    char full_from[PATH_MAX], full_to[PATH_MAX], shadow[PATH_MAX];
    const char *old = on() && resolve(from_dir, from, full_from) ? below(full_from) : NULL;
    const char *new = on() && resolve(to_dir, to, full_to) ? below(full_to) : NULL;
    struct stat before, moved;
    int same = (old != NULL || new != NULL) && fstatat(from_dir, from, &before, 0) == 0
        && fstatat(to_dir, to, &moved, 0) == 0 && before.st_ino == moved.st_ino
        && before.st_dev == moved.st_dev;
    int result = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    int saved = errno;
    /* Two names of one file: the kernel does nothing and says yes. */
    if (result == 0 && !same && (old != NULL || new != NULL)) {
        if (flags & ~RENAME_NOREPLACE) {
            errno = ENOTSUP;
            die("rename with flags");
        }
        pthread_mutex_lock(&lock);
        if (new != NULL && fstatat(AT_FDCWD, full_to, &moved, AT_SYMLINK_NOFOLLOW) == 0) {
            move_shadow(old, new, &moved);
        } else if (old != NULL) {
            struct file *file = by_name(old);
            if (file != NULL) {
                forget(file);
            }
            join(shadow, shadow_dir, old);
            if (syscall(SYS_unlinkat, AT_FDCWD, shadow, 0) != 0 && errno != ENOENT) {
                die("shadow move out");
            }
        }
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
    return result;
}

static int mkdir_real(int dirfd, const char *path, mode_t mode) {
    char full[PATH_MAX], shadow[PATH_MAX];
    int result = syscall(SYS_mkdirat, dirfd, path, mode);
    int saved = errno;
    const char *name =
        result == 0 && on() && resolve(dirfd, path, full) ? below(full) : NULL;
    if (name != NULL) {
        join(shadow, shadow_dir, name);
        make_parents(shadow);
        if (syscall(SYS_mkdirat, AT_FDCWD, shadow, mode) != 0 && errno != EEXIST) {
            die("shadow mkdir");
        }
    }
    errno = saved;
    return result;
}

EXPORT int unlink(const char *path) { return unlink_real(AT_FDCWD, path, 0); }
EXPORT int unlinkat(int dirfd, const char *path, int flags) {
    return unlink_real(dirfd, path, flags);
}
EXPORT int rmdir(const char *path) { return unlink_real(AT_FDCWD, path, AT_REMOVEDIR); }
EXPORT int mkdir(const char *path, mode_t mode) { return mkdir_real(AT_FDCWD, path, mode); }
EXPORT int mkdirat(int dirfd, const char *path, mode_t mode) {
    return mkdir_real(dirfd, path, mode);
}
EXPORT int rename(const char *from, const char *to) {
    return rename_real(AT_FDCWD, from, AT_FDCWD, to, 0);
}
EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    return rename_real(from_dir, from, to_dir, to, 0);
}
EXPORT int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    return rename_real(from_dir, from, to_dir, to, flags);
}
