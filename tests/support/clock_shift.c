// SPDX-License-Identifier: Apache-2.0
// To be preloaded: moves the clock of the day of one process by the seconds that the file
// MESH_TEST_CLOCK_SHIFT has at its beginning (int64_t, in the machine's order), at once whenever
// they change. The monotonic clock and all timers stay as they are, as on a machine whose clock is
// set. libfaketime would also take timers and epoll_wait into its hands.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *shift;

__attribute__((constructor)) static void find_shift(void) {
  const char *path = getenv("MESH_TEST_CLOCK_SHIFT");
  const int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*shift), PROT_READ, MAP_SHARED, fd, 0);

  // Without it a test would say that a jump changes nothing.
  if (at == MAP_FAILED) abort();
  close(fd);
  shift = at;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  const long result = syscall(SYS_clock_gettime, clock, now);

  if (result == 0 && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    now->tv_sec += *shift;
  return (int)result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec fine;

  (void)zone;
  clock_gettime(CLOCK_REALTIME, &fine);
  now->tv_sec = fine.tv_sec;
  now->tv_usec = fine.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;

  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}
