#include "support/thread_pool.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>

namespace kiln {
namespace {

// Longer than the gap between two steps of a run, and between two runs of a loop, shorter than a time slice
// anyone would miss. Behind the first part other threads that are ready go first.
constexpr std::chrono::microseconds kSpinTime{40};
constexpr std::chrono::microseconds kYieldTime{300};
constexpr int kPausesPerCheck = 16;
constexpr int kPausesBeforeYield = 2000;

// Workers leave signals to the threads of the application.
class SignalBlock {
 public:
  SignalBlock() {
    sigset_t every;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &previous_);
  }
  ~SignalBlock() { pthread_sigmask(SIG_SETMASK, &previous_, nullptr); }

 private:
  sigset_t previous_;
};

}  // namespace

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  opened_.fetch_add(1, std::memory_order_release);
  opened_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run_job(int64_t tasks, int threads, int64_t grain, void* context, Call call) {
  threads = static_cast<int>(std::clamp<int64_t>(tasks, 1, std::max(threads, 1)));
  if (threads == 1) {
    if (tasks > 0) call(context, {.end = tasks});
    return;
  }
  start_workers(threads - 1);
  if (shares_.size() < static_cast<size_t>(threads))
    shares_ = std::vector<Share>(static_cast<size_t>(threads));
  const int64_t each = tasks / threads, rest = tasks % threads;
  int64_t begin = 0;
  for (int i = 0; i < threads; ++i) {
    Share& share = shares_[static_cast<size_t>(i)];
    share.next.store(begin, std::memory_order_relaxed);
    begin += each + (i < rest ? 1 : 0);
    share.end = begin;
  }
  job_ = {call, context, threads, std::max<int64_t>(grain, 1)};
  wanted_.store(threads, std::memory_order_relaxed);
  uint32_t number = opened_.load(std::memory_order_relaxed) + 1;
  if (number == 0) ++number;  // what a worker without a job has
  opened_.store(number, std::memory_order_release);
  opened_.notify_all();

  work(0);
  closed_.store(number, std::memory_order_seq_cst);
  const size_t count = std::min(workers_.size(), static_cast<size_t>(threads) - 1);
  for (size_t i = 0; i < count; ++i) {
    const std::atomic<uint32_t>& joined = workers_[i].job;
    for (int pauses = 0; joined.load(std::memory_order_seq_cst) == number; ++pauses) {
      if (pauses < kPausesBeforeYield)
        _mm_pause();
      else
        std::this_thread::yield();
    }
  }
}

// Workers that cannot be started are left out: the others claim their shares.
void ThreadPool::start_workers(int count) {
  if (threads_.size() >= static_cast<size_t>(count)) return;
  const SignalBlock block;
  try {
    threads_.reserve(static_cast<size_t>(count));
    while (threads_.size() < static_cast<size_t>(count)) {
      if (workers_.size() == threads_.size()) workers_.emplace_back();
      Worker& worker = workers_.back();
      const int thread = static_cast<int>(workers_.size());
      threads_.emplace_back([this, thread, &worker] { worker_main(thread, worker); });
    }
  } catch (const std::exception&) {  // no more threads, or no memory for one
  }
}

void ThreadPool::worker_main(int thread, Worker& worker) {
  pthread_setname_np(pthread_self(), "kiln");
  uint32_t seen = 0;
  while (true) {
    seen = await_job(seen);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (thread >= wanted_.load(std::memory_order_relaxed)) continue;
    if (join_job(worker, seen)) work(thread);
    worker.job.store(0, std::memory_order_release);
  }
}

uint32_t ThreadPool::await_job(uint32_t seen) const {
  const auto start = std::chrono::steady_clock::now();
  std::chrono::steady_clock::duration waited{};
  do {
    for (int i = 0; i < kPausesPerCheck; ++i) {
      const uint32_t opened = opened_.load(std::memory_order_acquire);
      if (opened != seen) return opened;
      _mm_pause();
    }
    if (waited > kSpinTime) std::this_thread::yield();
    waited = std::chrono::steady_clock::now() - start;
  } while (waited < kYieldTime);
  opened_.wait(seen, std::memory_order_acquire);
  return opened_.load(std::memory_order_acquire);
}

// Fails when the caller has finished the job alone. While a worker has joined a job, the job stays as it is.
bool ThreadPool::join_job(Worker& worker, uint32_t number) const {
  worker.job.store(number, std::memory_order_seq_cst);
  const uint32_t closed = closed_.load(std::memory_order_seq_cst);
  return static_cast<int32_t>(number - closed) > 0;
}

// Claims a quarter of what is left of a share at a time: few claims, and an even end.
void ThreadPool::work(int thread) {
  bool is_first = true;
  for (int i = 0; i < job_.threads; ++i) {
    Share& share = shares_[static_cast<size_t>((thread + i) % job_.threads)];
    int64_t begin = share.next.load(std::memory_order_relaxed);
    while (begin < share.end) {
      const int64_t end =
          std::min(share.end, begin + std::max(job_.grain, (share.end - begin) / 4));
      if (!share.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      job_.call(job_.context, {thread, begin, end, is_first});
      is_first = false;
      begin = share.next.load(std::memory_order_relaxed);
    }
  }
}

namespace {

// Never destroyed: workers may outlive main().
struct PoolStack {
  std::mutex mutex;
  std::vector<ThreadPool*> idle;
  size_t made = 0;  // there is place for all in `idle`: giving one back never fails

  PoolStack() { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

  static PoolStack& instance() {
    static PoolStack* stack = new PoolStack;
    return *stack;
  }
  static void before_fork() { instance().mutex.lock(); }
  static void after_fork_in_parent() { instance().mutex.unlock(); }
  // The pools' threads exist in the parent only.
  static void after_fork_in_child() {
    instance().idle.clear();
    instance().mutex.unlock();
  }
};

}  // namespace

void ReturnThreadPool::operator()(ThreadPool* pool) const {
  PoolStack& stack = PoolStack::instance();
  const std::lock_guard lock(stack.mutex);
  stack.idle.push_back(pool);
}

ThreadPoolLease lend_thread_pool() {
  PoolStack& stack = PoolStack::instance();
  {
    const std::lock_guard lock(stack.mutex);
    if (!stack.idle.empty()) {
      ThreadPool* pool = stack.idle.back();
      stack.idle.pop_back();
      return ThreadPoolLease(pool);
    }
    stack.idle.reserve(stack.made + 1);
    ++stack.made;
  }
  return ThreadPoolLease(new ThreadPool);
}

void stop_idle_thread_pools() {
  PoolStack& stack = PoolStack::instance();
  std::vector<ThreadPool*> idle;
  {
    const std::lock_guard lock(stack.mutex);
    idle = stack.idle;
    stack.idle.clear();  // keeps its capacity
    stack.made -= idle.size();
  }
  for (const ThreadPool* pool : idle) delete pool;
}

}  // namespace kiln
