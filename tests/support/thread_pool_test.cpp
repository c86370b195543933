#include "support/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace kiln {
namespace {

// How often each task has run.
class Counts {
 public:
  explicit Counts(int64_t tasks) : counts_(static_cast<size_t>(tasks)) {}
  void add(int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ++counts_[static_cast<size_t>(i)];
  }
  bool each_once() const {
    for (const std::atomic<int>& count : counts_)
      if (count != 1) return false;
    return true;
  }

 private:
  std::vector<std::atomic<int>> counts_;
};

bool runs_each_task_once(ThreadPool& pool, int64_t tasks, int threads, int64_t grain) {
  Counts counts(tasks);
  std::atomic<bool> threads_in_range{true}, firsts_are_first{true};
  std::vector<int> calls(static_cast<size_t>(threads));
  pool.run(tasks, threads, grain, [&](const TaskRange& range) {
    const auto [thread, begin, end, is_first] = range;
    if (thread < 0 || thread >= threads || begin >= end) threads_in_range = false;
    // A thread sees its own number alone, so that nobody else looks at its entry.
    if (const auto i = static_cast<size_t>(thread); threads_in_range) {
      if (is_first != (calls[i] == 0)) firsts_are_first = false;
      ++calls[i];
    }
    counts.add(begin, end);
  });
  return counts.each_once() && threads_in_range && firsts_are_first;
}

TEST(ThreadPool, RunsEachTaskOnce) {
  ThreadPool pool;
  for (const int threads : {1, 2, 3, 8})
    for (const int64_t tasks : {0, 1, 2, 7, 100, 1001})
      for (const int64_t grain : {1, 5, 5000})
        EXPECT_TRUE(runs_each_task_once(pool, tasks, threads, grain))
            << threads << " threads, " << tasks << " tasks, grain " << grain;
}

TEST(ThreadPool, RunsManyJobsInARow) {
  ThreadPool pool;
  for (int i = 0; i < 5000; ++i) ASSERT_TRUE(runs_each_task_once(pool, 1 + i % 50, 2 + i % 3, 1));
}

TEST(ThreadPool, WorkersComeBackFromSleep) {
  ThreadPool pool;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(runs_each_task_once(pool, 64, 4, 1));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(ThreadPool, UsesOtherThreads) {
  ThreadPool pool;
  std::mutex mutex;
  std::set<std::thread::id> threads;
  // Two tasks that wait for each other cannot run on one thread.
  std::atomic<int> arrived{0};
  pool.run(2, 2, 1, [&](const TaskRange& range) {
    const auto [thread, begin, end, is_first] = range;
    arrived += static_cast<int>(end - begin);
    while (arrived < 2) std::this_thread::yield();
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), 2u);
}

TEST(ThreadPool, ResultsAreVisibleToTheCaller) {
  ThreadPool pool;
  std::vector<int64_t> squares(1000);
  for (int round = 0; round < 100; ++round) {
    pool.run(1000, 4, 1, [&](const TaskRange& range) {
      const auto [thread, begin, end, is_first] = range;
      for (int64_t i = begin; i < end; ++i) squares[static_cast<size_t>(i)] = i * i + round;
    });
    for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(squares[static_cast<size_t>(i)], i * i + round);
  }
}

TEST(ThreadPoolStack, LendsOnePoolToOneHolder) {
  const ThreadPoolLease first = lend_thread_pool(), second = lend_thread_pool();
  EXPECT_NE(first.get(), second.get());
}

TEST(ThreadPoolStack, LendsTheSamePoolAgain) {
  const ThreadPool* first = nullptr;
  {
    const ThreadPoolLease lease = lend_thread_pool();
    first = lease.get();
  }
  EXPECT_EQ(lend_thread_pool().get(), first);
}

TEST(ThreadPoolStack, ServesManyThreadsAtOnce) {
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 8; ++i)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round)
        if (!runs_each_task_once(*lend_thread_pool(), 40, 3, 1)) ++wrong;
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

#ifdef KILN_SANITIZES_THREADS
constexpr bool kCanForkWithThreads = false;  // not supported by the thread sanitizer
#else
constexpr bool kCanForkWithThreads = true;
#endif

TEST(ThreadPoolStack, StopsThreadsThatAreIdleAndStartsNewOnes) {
  const ThreadPoolLease lent = lend_thread_pool();
  EXPECT_TRUE(runs_each_task_once(*lent, 1000, 3, 1));
  {
    EXPECT_TRUE(runs_each_task_once(*lend_thread_pool(), 1000, 3, 1));
  }
  stop_idle_thread_pools();
  EXPECT_TRUE(runs_each_task_once(*lent, 1000, 3, 1));
  EXPECT_TRUE(runs_each_task_once(*lend_thread_pool(), 1000, 3, 1));
}

TEST(ThreadPoolStack, WorksInAForkedChild) {
  if (!kCanForkWithThreads) GTEST_SKIP() << "fork with threads running";
  ASSERT_TRUE(runs_each_task_once(*lend_thread_pool(), 100, 3, 1));
  const pid_t child = fork();
  if (child == 0) _exit(runs_each_task_once(*lend_thread_pool(), 100, 3, 1) ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace kiln
