#include "buffer_pool.hpp"

#include <algorithm>
#include <new>

#if defined(__unix__) || defined(__APPLE__)
#define KARUI_MMAP 1
#include <pthread.h>
#include <sys/mman.h>
#endif

namespace karui {

namespace {

// Whole pages of the system's, not malloc's: what is released is the system's again at once.
void* map(int64_t bytes) {
#ifdef KARUI_MMAP
    constexpr uintptr_t unit = BufferPool::unit;
    void* const start = mmap(nullptr, bytes + unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return nullptr;
    const uintptr_t from = reinterpret_cast<uintptr_t>(start), first = (from + unit - 1) / unit * unit;
    if (first > from) munmap(start, first - from);
    if (from + unit > first) munmap(reinterpret_cast<void*>(first + bytes), from + unit - first);
    return reinterpret_cast<void*>(first);
#else
    return ::operator new(bytes, std::align_val_t(BufferPool::unit), std::nothrow);
#endif
}

void unmap(Buffer buffer) noexcept {
#ifdef KARUI_MMAP
    munmap(buffer.start, buffer.bytes);
#else
    ::operator delete(buffer.start, std::align_val_t(BufferPool::unit));
#endif
}

}  // namespace

BufferPool& BufferPool::instance() {
    static BufferPool* const pool = [] {
        auto* made = new BufferPool;
#ifdef KARUI_MMAP
        pthread_atfork(before_fork, after_fork, after_fork_in_child);
#endif
        return made;
    }();
    return *pool;
}

Buffer BufferPool::lend(int64_t bytes) {
    if (bytes < 0 || bytes > INT64_MAX / 2) throw std::bad_alloc();
    bytes = std::max(unit, (bytes + unit - 1) / unit * unit);
    Buffer found{};
    if (find(bytes, found)) return found;
    found = {map(bytes), bytes};
    if (!found.start) {
        drop_all();
        found.start = map(bytes);
    }
    if (!found.start) throw std::bad_alloc();
    return found;
}

// The smallest that is large enough; of equal ones the latest, which a cache may still hold.
bool BufferPool::find(int64_t bytes, Buffer& found) {
    const std::lock_guard lock(mutex);
    int best = -1;
    for (int i = 0; i < count; ++i) {
        const bool fits = idle[i].bytes >= bytes && idle[i].bytes <= bytes + bytes / 4;
        if (fits && (best < 0 || idle[i].bytes <= idle[best].bytes)) best = i;
    }
    if (best < 0) return false;
    found = idle[best];
    std::move(idle.begin() + best + 1, idle.begin() + count, idle.begin() + best);
    --count;
    total -= found.bytes;
    return true;
}

void BufferPool::give_back(Buffer buffer) noexcept {
    {
        const std::lock_guard lock(mutex);
        if (buffer.bytes <= limit) {
            drop_to(limit - buffer.bytes, most_idle - 1);
            idle[count++] = buffer;
            total += buffer.bytes;
            return;
        }
    }
    unmap(buffer);
}

void BufferPool::drop_to(int64_t bytes, int most) noexcept {
    int dropped = 0;
    for (; dropped < count && (total > bytes || count - dropped > most); ++dropped) {
        total -= idle[dropped].bytes;
        unmap(idle[dropped]);
    }
    std::move(idle.begin() + dropped, idle.begin() + count, idle.begin());
    count -= dropped;
}

void BufferPool::drop_all() {
    const std::lock_guard lock(mutex);
    drop_to(0, 0);
}

void BufferPool::set_limit(int64_t bytes) {
    const std::lock_guard lock(mutex);
    limit = bytes;
    drop_to(limit, most_idle);
}

int BufferPool::idle_count() {
    const std::lock_guard lock(mutex);
    return count;
}

int64_t BufferPool::idle_bytes() {
    const std::lock_guard lock(mutex);
    return total;
}

// A fork copies the mutex as it is: nobody may hold it, or the child would wait for ever.
void BufferPool::before_fork() { instance().mutex.lock(); }
void BufferPool::after_fork() { instance().mutex.unlock(); }
void BufferPool::after_fork_in_child() {
    instance().drop_to(0, 0);  // each page would be copied when it is written
    instance().mutex.unlock();
}

}  // namespace karui
