// Threads that share out the tasks of one step at a time.
//
// A run needs its threads many times, for microseconds each time. So workers spin for a short while
// after a step before they sleep, the tasks of a step are split evenly beforehand so that a thread
// meets the same rows in step after step (its caches stay warm), and a thread that is done helps
// the others. A worker that wakes up late is not waited for.
//
// Jobs are numbered. The caller opens one by writing its number, and closes it once it finds no more
// tasks. A worker says in a cache line of its own which job it has joined, and joins no closed one: it
// writes, then looks whether the job is closed, while the caller closes, then looks who has joined (as in
// Dekker's algorithm: in one order of all four, at least one sees the other). So no line is written by
// more than one thread, but for the shares of those that are helped.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace kiln {

// The tasks of one call.
struct TaskRange {
  int thread = 0;  // in [0, threads), of one thread during the run; the caller is 0
  int64_t begin = 0, end = 0;
  bool is_first = true;  // of this thread in the run
};

class ThreadPool {
 public:
  ThreadPool() = default;
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Calls body(range) on ranges that together make up [0, tasks), and returns when all calls have. No
  // range but the last ones is shorter than `grain`. Missing workers are started; where the system
  // refuses, the others do the work. One run at a time.
  template <typename Body>
  void run(int64_t tasks, int threads, int64_t grain, Body&& body) {
    using Function = std::remove_reference_t<Body>;
    run_job(
        tasks, threads, grain, const_cast<void*>(static_cast<const void*>(&body)),
        [](void* context, const TaskRange& range) { (*static_cast<Function*>(context))(range); });
  }

 private:
  using Call = void (*)(void* context, const TaskRange& range);

  // The job that a worker has joined.
  struct alignas(64) Worker {
    std::atomic<uint32_t> job{0};
  };
  // The tasks that a thread has not claimed yet of those it began with.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  struct Job {
    Call call = nullptr;
    void* context = nullptr;
    int threads = 0;
    int64_t grain = 1;
  };

  void run_job(int64_t tasks, int threads, int64_t grain, void* context, Call call);
  void start_workers(int count);
  void worker_main(int thread, Worker& worker);
  uint32_t await_job(uint32_t seen) const;
  bool join_job(Worker& worker, uint32_t number) const;
  void work(int thread);

  Job job_;
  std::vector<Share> shares_;
  std::vector<std::thread> threads_;
  std::deque<Worker> workers_;                   // one for each thread; they stay where they are
  alignas(64) std::atomic<uint32_t> opened_{0};  // the newest job: what workers wait for
  std::atomic<int> wanted_{0};                   // how many threads it is for
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<uint32_t> closed_{0};  // the newest job that cannot be joined any more
};

// Pools are lent from a stack shared by the process: engines that run one after another use the
// same threads, those that run side by side have their own. A child of fork() starts with an empty
// stack.
struct ReturnThreadPool {
  void operator()(ThreadPool* pool) const;
};
using ThreadPoolLease = std::unique_ptr<ThreadPool, ReturnThreadPool>;
ThreadPoolLease lend_thread_pool();
// Ends the threads of all pools that are not lent: for libraries that are about to be unloaded.
void stop_idle_thread_pools();

}  // namespace kiln
