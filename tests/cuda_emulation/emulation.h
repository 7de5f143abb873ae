// The part of CUDA that the kernels use, in C++: a C++ compiler builds the kernels after this header, and they run on the
// CPU, one block after the other. A CUDA thread is
// - a std::thread of its own by default: slow, but a sanitizer sees every race and every access out of bounds;
// - a fiber where EMULATE_FIBERS is defined: fast, as fibers switch only where they wait for each other.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <memory>
#include <vector>

#ifdef EMULATE_FIBERS
#include <csetjmp>
#include <ucontext.h>
#else
#include <atomic>
#include <pthread.h>
#include <thread>
#endif

namespace emulation {

constexpr unsigned lanes_of_warp = 32;

struct Index {
    unsigned x = 0, y = 0, z = 0;
};

#ifdef EMULATE_FIBERS
void yield();

// Lets a fixed number of fibers wait for each other.
class Meeting {
  public:
    explicit Meeting(unsigned size) : size_(size) {}
    void arrive_and_wait() {
        unsigned round = round_;
        if (++arrived_ == size_) {
            arrived_ = 0;
            round_++;
            return;
        }
        while (round_ == round) {
            yield();
        }
    }

  private:
    unsigned size_, arrived_ = 0, round_ = 0;
};
#else
class Meeting {
  public:
    explicit Meeting(unsigned size) { pthread_barrier_init(&barrier_, nullptr, size); }
    Meeting(const Meeting&) = delete;
    ~Meeting() { pthread_barrier_destroy(&barrier_); }
    // Unlike std::barrier, this sleeps at once: there are many more threads than CPUs.
    void arrive_and_wait() { pthread_barrier_wait(&barrier_); }

  private:
    pthread_barrier_t barrier_;
};
#endif

// Where threads of a group exchange values.
struct Group {
    explicit Group(unsigned size) : meeting(size), slots(size) {}
    Meeting meeting;
    std::vector<uint64_t> slots;
};

struct Block {
    Index index, size, grid;
    Group all;
    std::vector<std::unique_ptr<Group>> warps;
    // Allocated anew and to the byte for every block, so that a sanitizer sees accesses beyond it.
    std::unique_ptr<std::byte[]> shared;

    Block(Index index, Index size, Index grid, size_t bytes) : index(index), size(size), grid(grid), all(size.x) {
        for (unsigned first = 0; first < size.x; first += lanes_of_warp) {
            warps.push_back(std::make_unique<Group>(std::min(lanes_of_warp, size.x - first)));
        }
        shared = std::make_unique<std::byte[]>(bytes);
    }
};

struct Thread {
    Index index;
    Block* block;
    Group& warp() const { return *block->warps[index.x / lanes_of_warp]; }
    unsigned lane() const { return index.x % lanes_of_warp; }
};

#ifdef EMULATE_FIBERS
inline Thread* current = nullptr;
#else
inline thread_local Thread* current = nullptr;
#endif

inline Thread& self() {
    return *current;
}

// Stores `mine` for the group, waits for the others, and returns the value of thread `from`.
template <typename T>
T exchange(Group& group, unsigned at, T mine, unsigned from) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    std::memcpy(&group.slots[at], &mine, sizeof mine);
    group.meeting.arrive_and_wait();
    T theirs;
    std::memcpy(&theirs, &group.slots[from < group.slots.size() ? from : at], sizeof theirs);
    group.meeting.arrive_and_wait();
    return theirs;
}

inline int any(Group& group, unsigned at, int mine) {
    group.slots[at] = mine != 0;
    group.meeting.arrive_and_wait();
    int some = 0;
    for (uint64_t slot : group.slots) {
        some |= slot != 0;
    }
    group.meeting.arrive_and_wait();
    return some;
}

#ifdef EMULATE_FIBERS
struct Fiber {
    Thread thread;
    jmp_buf position;
    std::vector<char> stack = std::vector<char>(256 << 10);
    bool started = false, done = false;
};

inline std::vector<std::unique_ptr<Fiber>> fibers;
inline unsigned running = 0, living = 0, fiber_count = 0;
inline ucontext_t scheduler;
inline void (*body)(void*) = nullptr;
inline void* argument = nullptr;

inline void enter();

// Continues with the next fiber that is not done.
inline void switch_to_next() {
    do {
        running = (running + 1) % fiber_count;
    } while (fibers[running]->done);
    Fiber& next = *fibers[running];
    current = &next.thread;
    if (next.started) {
        _longjmp(next.position, 1);
    }
    next.started = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = next.stack.data();
    context.uc_stack.ss_size = next.stack.size();
    context.uc_link = nullptr;
    makecontext(&context, enter, 0);
    setcontext(&context);
}

inline void enter() {
    body(argument);
    fibers[running]->done = true;
    if (--living == 0) {
        setcontext(&scheduler);
    }
    switch_to_next();
}

inline void yield() {
    if (_setjmp(fibers[running]->position) == 0) {
        switch_to_next();
    }
}

inline void run_block(Block& block, void (*function)(void*), void* arguments) {
    body = function;
    argument = arguments;
    fiber_count = living = block.size.x;
    while (fibers.size() < fiber_count) {
        fibers.push_back(std::make_unique<Fiber>());
    }
    for (unsigned i = 0; i < fiber_count; i++) {
        fibers[i]->thread = Thread{{i, 0, 0}, &block};
        fibers[i]->started = fibers[i]->done = false;
    }
    running = fiber_count - 1;
    volatile bool finished = false;
    getcontext(&scheduler);
    if (!finished) {
        finished = true;
        switch_to_next();
    }
}
#else
inline void run_block(Block& block, void (*function)(void*), void* arguments) {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < block.size.x; i++) {
        threads.emplace_back([&block, function, arguments, i] {
            Thread thread{{i, 0, 0}, &block};
            current = &thread;
            function(arguments);
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
}
#endif

// Runs `function(arguments)` in every thread of a grid of blocks.
inline void run(Index grid, Index block, size_t shared, void (*function)(void*), void* arguments) {
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++) {
                Block one({x, y, z}, block, grid, shared);
                run_block(one, function, arguments);
            }
        }
    }
}

}  // namespace emulation

#define __global__
#define __device__
#define __shared__ static
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulation::self().block->shared.get())
#define threadIdx (emulation::self().index)
#define blockIdx (emulation::self().block->index)
#define blockDim (emulation::self().block->size)
#define gridDim (emulation::self().block->grid)

inline void __syncthreads() {
    emulation::self().block->all.meeting.arrive_and_wait();
}

inline int __syncthreads_or(int mine) {
    return emulation::any(emulation::self().block->all, threadIdx.x, mine);
}

inline void __syncwarp() {
    emulation::self().warp().meeting.arrive_and_wait();
}

inline int __any_sync(unsigned, int mine) {
    return emulation::any(emulation::self().warp(), emulation::self().lane(), mine);
}

template <typename T>
T __shfl_down_sync(unsigned, T mine, unsigned by) {
    unsigned lane = emulation::self().lane();
    return emulation::exchange(emulation::self().warp(), lane, mine, lane + by);
}

template <typename T>
T __shfl_up_sync(unsigned, T mine, unsigned by) {
    unsigned lane = emulation::self().lane();
    return emulation::exchange(emulation::self().warp(), lane, mine, lane >= by ? lane - by : lane);
}

template <typename T>
T __shfl_xor_sync(unsigned, T mine, unsigned mask) {
    unsigned lane = emulation::self().lane();
    return emulation::exchange(emulation::self().warp(), lane, mine, lane ^ mask);
}

#ifdef EMULATE_FIBERS
template <typename T>
T atomicAdd(T* at, T value) {
    T before = *at;
    *at = before + value;
    return before;
}

template <typename T>
T atomicMin(T* at, T value) {
    T before = *at;
    *at = before < value ? before : value;
    return before;
}

template <typename T>
T atomicOr(T* at, T value) {
    T before = *at;
    *at = before | value;
    return before;
}
#else
template <typename T>
T atomicAdd(T* at, T value) {
    return std::atomic_ref<T>(*at).fetch_add(value, std::memory_order_relaxed);
}

template <typename T>
T atomicMin(T* at, T value) {
    std::atomic_ref<T> shared(*at);
    T before = shared.load(std::memory_order_relaxed);
    while (value < before && !shared.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
    }
    return before;
}

template <typename T>
T atomicOr(T* at, T value) {
    return std::atomic_ref<T>(*at).fetch_or(value, std::memory_order_relaxed);
}
#endif

#ifdef EMULATE_FIBERS
template <typename T>
T __ldcg(const T* at) {
    return *at;
}
#else
template <typename T>
T __ldcg(T* at) {
    return std::atomic_ref<T>(*at).load(std::memory_order_relaxed);
}
#endif

template <typename To, typename From>
To bits_of(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To out;
    std::memcpy(&out, &value, sizeof out);
    return out;
}

inline float __uint_as_float(unsigned bits) { return bits_of<float>(bits); }
inline long long __double_as_longlong(double value) { return bits_of<long long>(value); }
inline double __longlong_as_double(long long bits) { return bits_of<double>(bits); }
inline long long __double2ll_rn(double value) { return llrint(value); }

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    uint64_t bytes = (uint64_t)high << 32 | low;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) {
        unsigned which = selector >> (4 * i) & 7;
        out |= (unsigned)(bytes >> (8 * which) & 255) << (8 * i);
    }
    return out;
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
