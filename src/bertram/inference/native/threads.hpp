// A few threads that share loops of independent tasks, and a lock; both are of use after a fork.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include <unistd.h>

namespace bertram {

// A fork gets a lock of its own: whoever held this one is not there to let it go.
class Lock {
  public:
    ~Lock() { delete held_.load(); }

    void lock() {
        Held* held = held_.load();
        if (held->owner != getpid()) {
            Held* fresh = new Held;
            if (held_.compare_exchange_strong(held, fresh))
                held = fresh;
            else
                delete fresh;  // another thread was first
        }
        held->mutex.lock();
    }

    void unlock() { held_.load()->mutex.unlock(); }

  private:
    struct Held {
        const pid_t owner = getpid();
        std::mutex mutex;
    };
    std::atomic<Held*> held_{new Held};
};

// Between the products of one layer lie microseconds, so a worker that ran out of tasks spins for a while before it
// sleeps. Who calls `run` works too, and waits for tasks, not for workers: after a fork, which leaves the workers
// behind, it does everything alone.
class Threads {
  public:
    explicit Threads(int count) {
        workers_.reserve(count);
        try {
            for (int i = 1; i < count; ++i) workers_.emplace_back([this, i] { work(i); });
        } catch (const std::system_error&) {  // no more threads are to be had: those there are do the work
        }
    }

    ~Threads() {
        if (getpid() != owner_) {
            // A fork has none of them, and what they were called by may be threads of its own by now: neither joined
            // nor detached, the handles are left.
            new std::vector<std::thread>(std::move(workers_));
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
        left_.store(tasks, std::memory_order_relaxed);
        const uint32_t round = round_of(ticket_.load(std::memory_order_relaxed)) + 1;
        ticket_.store(uint64_t{round} << 32 | static_cast<uint32_t>(tasks));  // before sleeping_ is read
        if (sleeping_.load() > 0) ticket_.notify_all();
        take(round, 0);
        while (left_.load(std::memory_order_acquire) > 0) pause();
    }

  private:
    static uint32_t round_of(uint64_t ticket) { return static_cast<uint32_t>(ticket >> 32); }

    // The ticket is the round and how many of its tasks nobody took, in one number: a late worker cannot take a task of
    // a later round for one of its own. Rounds begin again at 0 after 2^32.
    void take(uint32_t round, int thread) {
        uint64_t ticket = ticket_.load(std::memory_order_acquire);
        while (round_of(ticket) == round && static_cast<uint32_t>(ticket) > 0) {
            if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel)) continue;
            call_(context_, static_cast<int>(static_cast<uint32_t>(ticket)) - 1, thread);
            left_.fetch_sub(1, std::memory_order_release);
            ticket = ticket_.load(std::memory_order_acquire);
        }
    }

    void work(int thread) {
        uint32_t round = 0;
        while (true) {
            uint64_t ticket = ticket_.load(std::memory_order_acquire);
            for (int spins = 0; round_of(ticket) == round; ticket = ticket_.load(std::memory_order_acquire)) {
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
            round = round_of(ticket);
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
    std::atomic<int> left_{0}, sleeping_{0};
    std::atomic<bool> stopping_{false};
    void* context_ = nullptr;
    void (*call_)(void*, int, int) = nullptr;
};

}  // namespace bertram
