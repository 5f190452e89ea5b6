// Large buffers that are lent again and again. Fresh memory costs a page fault per 4 KiB or, with huge pages where memory
// is in pieces, the kernel's search for them: up to a third of a layer's time.
#pragma once
#include <array>
#include <cstdint>
#include <mutex>

namespace karui {

struct Buffer {
    void* start;
    int64_t bytes;
};

// Any thread may call anything. A child process starts with no idle buffers; what its parent had lent stays valid in it.
class BufferPool {
public:
    static constexpr int most_idle = 16;
    static constexpr int64_t unit = int64_t(1) << 21;  // sizes are whole huge pages, and buffers begin at one

    static BufferPool& instance();  // never destroyed: what was lent may come back while the process ends
    Buffer lend(int64_t bytes);     // at least that many, at most a quarter more (and a unit); throws std::bad_alloc
    void give_back(Buffer buffer) noexcept;
    void set_limit(int64_t bytes);  // of all idle buffers together; drops those that have waited longest
    int idle_count();
    int64_t idle_bytes();

private:
    BufferPool() = default;
    bool find(int64_t bytes, Buffer& found);
    void drop_to(int64_t bytes, int count) noexcept;
    void drop_all();
    static void before_fork();
    static void after_fork();
    static void after_fork_in_child();

    std::mutex mutex;
    std::array<Buffer, most_idle> idle{};  // the one that has waited longest first
    int count = 0;
    int64_t total = 0, limit = 0;
};

}  // namespace karui
