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

constexpr uint32_t kOpen = uint32_t{1} << 31;
// Longer than the gap between two steps of a run, shorter than a time slice anyone would miss.
constexpr std::chrono::microseconds kSpinTime{40};
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

int available_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_job(int64_t tasks, int threads, int64_t grain, void* context, Call call) {
  threads = static_cast<int>(std::clamp<int64_t>(tasks, 1, std::max(threads, 1)));
  if (threads == 1) {
    if (tasks > 0) call(context, 0, 0, tasks);
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
  gate_.store(kOpen, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();

  work(0);
  gate_.fetch_and(~kOpen, std::memory_order_relaxed);
  for (int pauses = 0; gate_.load(std::memory_order_acquire) != 0; ++pauses) {
    if (pauses < kPausesBeforeYield)
      _mm_pause();
    else
      std::this_thread::yield();
  }
}

// Workers that cannot be started are left out: the others claim their shares.
void ThreadPool::start_workers(int count) {
  if (workers_.size() >= static_cast<size_t>(count)) return;
  const SignalBlock block;
  try {
    workers_.reserve(static_cast<size_t>(count));
    while (workers_.size() < static_cast<size_t>(count)) {
      const int thread = static_cast<int>(workers_.size()) + 1;
      workers_.emplace_back([this, thread] { worker_main(thread); });
    }
  } catch (const std::exception&) {  // no more threads, or no memory for one
  }
}

void ThreadPool::worker_main(int thread) {
  pthread_setname_np(pthread_self(), "kiln");
  uint32_t seen = 0;
  while (true) {
    seen = await_job(seen);
    if (stop_.load(std::memory_order_relaxed)) return;
    if (!join_job()) continue;
    if (thread < job_.threads) work(thread);
    gate_.fetch_sub(1, std::memory_order_release);
  }
}

uint32_t ThreadPool::await_job(uint32_t seen) const {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < kPausesPerCheck; ++i) {
      const uint32_t epoch = epoch_.load(std::memory_order_acquire);
      if (epoch != seen) return epoch;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  epoch_.wait(seen, std::memory_order_acquire);
  return epoch_.load(std::memory_order_acquire);
}

// Fails when the caller has finished the job alone. While a worker is counted, the job stays as it
// is.
bool ThreadPool::join_job() {
  uint32_t gate = gate_.load(std::memory_order_relaxed);
  while (gate & kOpen)
    if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire)) return true;
  return false;
}

// Claims a quarter of what is left of a share at a time: few claims, and an even end.
void ThreadPool::work(int thread) {
  for (int i = 0; i < job_.threads; ++i) {
    Share& share = shares_[static_cast<size_t>((thread + i) % job_.threads)];
    int64_t begin = share.next.load(std::memory_order_relaxed);
    while (begin < share.end) {
      const int64_t end =
          std::min(share.end, begin + std::max(job_.grain, (share.end - begin) / 4));
      if (!share.next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) continue;
      job_.call(job_.context, thread, begin, end);
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
