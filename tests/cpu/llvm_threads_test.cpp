// Threads on which LLVM runs: what one that gets no memory leaves the others.
#include "backends/cpu/compile/image/llvm_threads.h"

#include <gtest/gtest.h>
#include <llvm/Support/ErrorHandling.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "backends/cpu/compile/image/machine.h"
#include "helpers/exhaust_memory.h"
#include "support/error.h"

namespace kiln::cpu {
namespace {

const auto kNoReport = [](size_t) {};

class LlvmThreads : public ::testing::Test {
 protected:
  // The first use of LLVM in the process goes well.
  static void SetUpTestSuite() {
    const auto make = []() -> LlvmWorker {
      const auto machine = std::make_shared<Machine>(all_targets().front());
      return [machine](size_t) {};
    };
    run_on_llvm_threads(1, 1, make, kNoReport);
  }

  // Runs work(i) for 20 indices on `threads` threads.
  static void run(int threads, const LlvmWorker& work,
                  const std::function<void(size_t)>& report = kNoReport) {
    run_on_llvm_threads(20, threads, [&] { return work; }, report);
  }

  static void expect_that_it_works() {
    std::atomic<size_t> sum{0};
    run(3, [&](size_t i) { sum += i; });
    EXPECT_EQ(sum, 190u);
  }
};

TEST_F(LlvmThreads, EachIndexIsWorkedOnOnceAndReportedToTheCaller) {
  for (const int threads : {0, 1, 2, 7, 64}) {
    std::vector<std::atomic<int>> counts(20);
    std::set<std::thread::id> workers, reporters;
    std::mutex mutex;
    size_t last = 0;
    run(
        threads,
        [&](size_t i) {
          ++counts[i];
          const std::lock_guard lock(mutex);
          workers.insert(std::this_thread::get_id());
        },
        [&](size_t done) {
          EXPECT_GT(done, last);
          last = done;
          reporters.insert(std::this_thread::get_id());
        });
    for (const auto& count : counts) EXPECT_EQ(count, 1);
    EXPECT_EQ(last, 20u);
    EXPECT_EQ(reporters, std::set{std::this_thread::get_id()});
    EXPECT_FALSE(workers.contains(std::this_thread::get_id()));
  }
}

TEST_F(LlvmThreads, TheFirstExceptionInOrderIsThrown) {
  for (const int threads : {1, 4}) {
    try {
      run(threads, [](size_t i) {
        if (i >= 3) throw std::runtime_error(std::to_string(i));
      });
      FAIL();
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(std::string(error.what()), "3");
    }
  }
  expect_that_it_works();
}

TEST_F(LlvmThreads, WhatTheReportThrowsEndsTheWork) {
  std::atomic<size_t> worked{0};
  const auto stop = [](size_t) { throw std::runtime_error("stop"); };
  EXPECT_THROW(run(
                   1,
                   [&](size_t) {
                     ++worked;
                     std::this_thread::sleep_for(std::chrono::milliseconds(20));
                   },
                   stop),
               std::runtime_error);
  EXPECT_LT(worked, 20u);
  expect_that_it_works();
}

// Destroyed only by a thread that goes on.
struct Held {
  std::atomic<int>& destroyed;
  ~Held() { ++destroyed; }
};

TEST_F(LlvmThreads, AThreadWithoutMemoryStaysAndTheCallerGoesOn) {
  for (const int threads : {1, 3}) {
    static std::atomic<int> destroyed{0};
    destroyed = 0;
    EXPECT_THROW(run(threads,
                     [](size_t i) {
                       const Held held{destroyed};
                       if (i == 5) llvm::report_bad_alloc_error("no memory");
                     }),
                 std::bad_alloc);
    EXPECT_GE(destroyed, 5);
    EXPECT_LT(destroyed, 20);
    expect_that_it_works();
  }
}

TEST_F(LlvmThreads, NewWithoutMemoryIsTheSame) {
#if defined(KILN_SANITIZES_ADDRESSES) || defined(KILN_SANITIZES_THREADS)
  GTEST_SKIP() << "sanitizers end the process for such sizes";
#else
  EXPECT_THROW(run(2,
                   [](size_t i) {
                     if (i == 5) ::operator delete(::operator new(size_t{1} << 60));
                   }),
               std::bad_alloc);
  // Other threads see what they always saw.
  EXPECT_THROW(::operator delete(::operator new(size_t{1} << 60)), std::bad_alloc);
  expect_that_it_works();
#endif
}

#ifdef KILN_CAN_EXHAUST_MEMORY
using test::exhaust_memory;
using test::kept;

struct Table {
  std::vector<int> entries;
  explicit Table(size_t size) : entries(size, 1) {}
};

// One thread makes a table that all use, when memory ends; the other waits for it.
void make_a_table_without_memory() {
  std::atomic<bool> begun{false};
  const auto table = [&]() -> const Table& {
    static const Table kMade = [&] {
      begun = true;
      begun.notify_all();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the other is here by then
      kept = std::calloc(100, 1);
      kept = std::realloc(kept, 2000);
      if (kept == nullptr) std::quick_exit(4);
      kept = ::operator new(100, std::align_val_t{64});
      return Table(50'000);
    }();
    return kMade;
  };
  const auto work = [&](size_t i) {
    if (i == 1) begun.wait(false);
    exhaust_memory();
    if (table().entries.size() != 50'000) std::quick_exit(1);
    kept = ::operator new(4'000'000);
    std::quick_exit(2);
  };
  try {
    run_on_llvm_threads(2, 2, [&] { return work; }, kNoReport);
  } catch (const std::bad_alloc&) {
    std::quick_exit(0);
  }
  std::quick_exit(3);
}

TEST_F(LlvmThreads, AThreadWithoutMemoryDoesNotKeepALock) {
  EXPECT_EXIT(make_a_table_without_memory(), ::testing::ExitedWithCode(0), "");
}
#endif

TEST_F(LlvmThreads, WhereLlvmGivesUpTheCallerIsTold) {
  try {
    run(2, [](size_t i) {
      if (i == 7) llvm::report_fatal_error("cannot select", false);
    });
    FAIL();
  } catch (const InternalError& error) {
    EXPECT_EQ(std::string(error.what()), "LLVM: cannot select");
  }
  expect_that_it_works();
}

}  // namespace
}  // namespace kiln::cpu
