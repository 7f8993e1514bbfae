// When preloaded, this moves a process's wall clock by the number of nanoseconds in the file CHAOS_CLOCK. The
// monotonic clock does not change, as in a real clock jump.
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>

static int64_t offset() {
    static const volatile int64_t *shared = [] {
        const char *path = getenv("CHAOS_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *memory = file < 0 ? MAP_FAILED : mmap(nullptr, 8, PROT_READ, MAP_SHARED, file, 0);
        return memory == MAP_FAILED ? nullptr : static_cast<const volatile int64_t *>(memory);
    }();
    return shared ? *shared : 0;
}

extern "C" int clock_gettime(clockid_t clock, struct timespec *now) noexcept {
    using Real = int (*)(clockid_t, struct timespec *);
    static const Real real = reinterpret_cast<Real>(dlsym(RTLD_NEXT, "clock_gettime"));
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t total = int64_t(now->tv_sec) * 1000000000 + now->tv_nsec + offset();
        now->tv_sec = total / 1000000000;
        now->tv_nsec = total % 1000000000;
    }
    return result;
}

extern "C" int gettimeofday(struct timeval *__restrict now, void *__restrict) noexcept {
    struct timespec precise;
    int result = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return result;
}

extern "C" time_t time(time_t *where) noexcept {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}
