/* Faults in system calls on files below FAULT_PREFIX, for LD_PRELOAD; see shim.py for what the variables mean.

   Libraries written in C, C++ and Rust call the same functions as Python does, so one shim serves all of them. What
   stdio reads inside the C library, and pages of mapped files, are not seen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int ready;
static const char *prefix, *kind, *log_path;
static long at, per_mille, code, left;
static unsigned state;
static long calls;

static long number(const char *name, long otherwise) {
  const char *text = getenv(name);
  return text ? atol(text) : otherwise;
}

static void prepare(void) {
  if (ready) return;
  ready = 1;
  calls = 0;
  prefix = getenv("FAULT_PREFIX");
  kind = getenv("FAULT_KIND");
  log_path = getenv("FAULT_LOG");
  at = number("FAULT_AT", 0);
  per_mille = number("FAULT_PER_MILLE", 0);
  code = number("FAULT_ERRNO", EIO);
  left = number("FAULT_BYTES", -1);
  state = (unsigned)number("FAULT_SEED", 1) * 2654435761u;
}

/* For a process that was forked: read the variables again. */
void fault_configure(void) {
  ready = 0;
  prepare();
}

static int below(const char *path) {
  return prefix && path && !strncmp(path, prefix, strlen(prefix));
}

static int handle_below(int handle) {
  char link[64], path[PATH_MAX];
  prepare();
  if (!prefix) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return below(path);
}

static int name_below(int folder, const char *name) {
  char link[64], path[2 * PATH_MAX];
  prepare();
  if (!prefix || !name) return 0;
  if (name[0] == '/') return below(name);
  if (folder == AT_FDCWD) {
    if (!getcwd(path, PATH_MAX)) return 0;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
  }
  strcat(path, "/");
  strncat(path, name, PATH_MAX - 1);
  return below(path);
}

static void note(void) {
  if (!log_path) return;
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
  ssize_t (*put)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
  int handle = real(log_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (handle < 0) return;
  if (put(handle, ".", 1) != 1) errno = EIO;
  close(handle);
}

/* Whether a read fails now. */
static int fails(int handle) {
  if (!handle_below(handle) || !kind || strcmp(kind, "read")) return 0;
  state = state * 1103515245u + 12345u;
  if ((long)((state >> 16) % 1000) >= per_mille) return 0;
  note();
  errno = (int)code;
  return 1;
}

/* A call that changes the disk: the process gets the signal at the FAULT_AT-th of them. */
static void change(void) {
  if (!kind || strcmp(kind, "signal")) return;
  note();
  if (++calls == at) {
    kill(getpid(), (int)code);
    if (code != SIGKILL) usleep(1000);
  }
}

/* Whether a write of so many bytes finds the disk full. */
static int full(int handle, size_t bytes) {
  if (!handle_below(handle)) return 0;
  change();
  if (!kind || strcmp(kind, "full")) return 0;
  if (left >= (long)bytes) { left -= (long)bytes; return 0; }
  note();
  errno = ENOSPC;
  return 1;
}

#define REAL(name, result, ...) static result (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t read(int h, void *b, size_t n) { REAL(read, ssize_t, int, void *, size_t); return fails(h) ? -1 : real(h, b, n); }
ssize_t pread(int h, void *b, size_t n, off_t o) { REAL(pread, ssize_t, int, void *, size_t, off_t); return fails(h) ? -1 : real(h, b, n, o); }
ssize_t pread64(int h, void *b, size_t n, off_t o) { REAL(pread64, ssize_t, int, void *, size_t, off_t); return fails(h) ? -1 : real(h, b, n, o); }
ssize_t readv(int h, const struct iovec *v, int n) { REAL(readv, ssize_t, int, const struct iovec *, int); return fails(h) ? -1 : real(h, v, n); }
ssize_t preadv(int h, const struct iovec *v, int n, off_t o) { REAL(preadv, ssize_t, int, const struct iovec *, int, off_t); return fails(h) ? -1 : real(h, v, n, o); }
ssize_t preadv64(int h, const struct iovec *v, int n, off_t o) { REAL(preadv64, ssize_t, int, const struct iovec *, int, off_t); return fails(h) ? -1 : real(h, v, n, o); }

ssize_t write(int h, const void *b, size_t n) { REAL(write, ssize_t, int, const void *, size_t); return full(h, n) ? -1 : real(h, b, n); }
ssize_t pwrite(int h, const void *b, size_t n, off_t o) { REAL(pwrite, ssize_t, int, const void *, size_t, off_t); return full(h, n) ? -1 : real(h, b, n, o); }
ssize_t pwrite64(int h, const void *b, size_t n, off_t o) { REAL(pwrite64, ssize_t, int, const void *, size_t, off_t); return full(h, n) ? -1 : real(h, b, n, o); }
ssize_t writev(int h, const struct iovec *v, int n) {
  REAL(writev, ssize_t, int, const struct iovec *, int);
  size_t bytes = 0;
  for (int i = 0; i < n; i++) bytes += v[i].iov_len;
  return full(h, bytes) ? -1 : real(h, v, n);
}

int fsync(int h) { REAL(fsync, int, int); if (handle_below(h)) change(); return real(h); }
int ftruncate(int h, off_t n) { REAL(ftruncate, int, int, off_t); if (handle_below(h)) change(); return real(h, n); }
int ftruncate64(int h, off_t n) { REAL(ftruncate64, int, int, off_t); if (handle_below(h)) change(); return real(h, n); }
int rename(const char *a, const char *b) { REAL(rename, int, const char *, const char *); if (name_below(AT_FDCWD, a) || name_below(AT_FDCWD, b)) change(); return real(a, b); }
int link(const char *a, const char *b) { REAL(link, int, const char *, const char *); if (name_below(AT_FDCWD, b)) change(); return real(a, b); }
int unlink(const char *a) { REAL(unlink, int, const char *); if (name_below(AT_FDCWD, a)) change(); return real(a); }
int unlinkat(int d, const char *a, int f) { REAL(unlinkat, int, int, const char *, int); if (name_below(d, a)) change(); return real(d, a, f); }
int rmdir(const char *a) { REAL(rmdir, int, const char *); if (name_below(AT_FDCWD, a)) change(); return real(a); }
int mkdir(const char *a, mode_t m) { REAL(mkdir, int, const char *, mode_t); if (name_below(AT_FDCWD, a)) change(); return real(a, m); }

/* Opening counts where it makes or empties a file. */
#define OPENING(name) \
  int name(const char *a, int f, ...) { \
    REAL(name, int, const char *, int, ...); \
    mode_t m = 0; \
    if (f & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, f); m = va_arg(v, mode_t); va_end(v); } \
    if ((f & (O_CREAT | O_TRUNC)) && name_below(AT_FDCWD, a)) change(); \
    return real(a, f, m); \
  }
#define OPENING_AT(name) \
  int name(int d, const char *a, int f, ...) { \
    REAL(name, int, int, const char *, int, ...); \
    mode_t m = 0; \
    if (f & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, f); m = va_arg(v, mode_t); va_end(v); } \
    if ((f & (O_CREAT | O_TRUNC)) && name_below(d, a)) change(); \
    return real(d, a, f, m); \
  }
OPENING(open)
OPENING(open64)
OPENING_AT(openat)
OPENING_AT(openat64)
