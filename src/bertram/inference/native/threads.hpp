// A few threads that share loops of independent tasks.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#include <unistd.h>

namespace bertram {

// Between the products of one layer lie microseconds, so a worker that ran out of tasks spins for a while before it
// sleeps. Who calls `run` works too, and waits for tasks, not for workers: after a fork, which leaves the workers
// behind, it does everything alone.
class Threads {
  public:
    explicit Threads(int count) {
        for (int i = 1; i < count; ++i) workers_.emplace_back([this, i] { work(i); });
    }

    ~Threads() {
        if (getpid() != owner_) {
            for (auto& worker : workers_) worker.detach();
            return;
        }
        stopping_ = true;
        ticket_.fetch_add(uint64_t{1} << 32);
        ticket_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    int count() const { return static_cast<int>(workers_.size()) + 1; }

    // Call f(task, thread) for every task in [0, tasks), in any order, and return when all are done.
    template <class F>
    void run(int tasks, F&& f) {
        if (workers_.empty() || tasks <= 1) {
            for (int task = 0; task < tasks; ++task) f(task, 0);
            return;
        }
        context_ = &f;
        call_ = [](void* context, int task, int thread) {
            (*static_cast<std::remove_reference_t<F>*>(context))(task, thread);
        };
        tasks_.store(tasks, std::memory_order_relaxed);
        left_.store(tasks, std::memory_order_relaxed);
        const uint64_t round = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
        ticket_.store(round << 32, std::memory_order_release);
        if (sleeping_.load() > 0) ticket_.notify_all();
        take(round, 0);
        while (left_.load(std::memory_order_acquire) > 0) pause();
    }

  private:
    // The ticket is the round and the next task in one number, so that a late worker cannot take a task of a later
    // round for one of its own.
    void take(uint64_t round, int thread) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        while (ticket >> 32 == round &&
               static_cast<int>(ticket & 0xffffffff) < tasks_.load(std::memory_order_relaxed)) {
            if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
            call_(context_, static_cast<int>(ticket & 0xffffffff), thread);
            left_.fetch_sub(1, std::memory_order_release);
            ticket = ticket_.load(std::memory_order_acquire);
        }
    }

    void work(int thread) {
        uint64_t round = 0;
        while (true) {
            uint64_t ticket = ticket_.load(std::memory_order_acquire);
            for (int spins = 0; ticket >> 32 == round; ticket = ticket_.load(std::memory_order_acquire)) {
                if (++spins < kSpins) {
                    pause();
                    continue;
                }
                sleeping_.fetch_add(1);
                ticket_.wait(ticket);
                sleeping_.fetch_sub(1);
                spins = 0;
            }
            if (stopping_) return;
            round = ticket >> 32;
            take(round, thread);
        }
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    static constexpr int kSpins = 20000;

    const pid_t owner_ = getpid();
    std::vector<std::thread> workers_;
    std::atomic<uint64_t> ticket_{0};
    std::atomic<int> tasks_{0}, left_{0}, sleeping_{0};
    std::atomic<bool> stopping_{false};
    void* context_ = nullptr;
    void (*call_)(void*, int, int) = nullptr;
};

}  // namespace bertram
