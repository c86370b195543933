#include "capi/running_calls.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace kiln {
namespace {

// Never destroyed: the process may be ending.
struct Calls {
  std::mutex mutex;
  std::condition_variable none_left;
  int running = 0;
  std::atomic<bool> ending{false};

  static Calls& instance() {
    static Calls* calls = [] {
      auto* made = new Calls;
      pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
      return made;
    }();
    return *calls;
  }
  static void before_fork() { instance().mutex.lock(); }
  static void after_fork_in_parent() { instance().mutex.unlock(); }
  // The threads that were calling exist in the parent only.
  static void after_fork_in_child() {
    instance().running = 0;
    instance().mutex.unlock();
  }
};

}  // namespace

RunningCall::RunningCall() {
  Calls& calls = Calls::instance();
  const std::lock_guard lock(calls.mutex);
  may_run_ = !calls.ending;
  if (may_run_) ++calls.running;
}

RunningCall::~RunningCall() {
  if (!may_run_) return;
  Calls& calls = Calls::instance();
  const std::lock_guard lock(calls.mutex);
  if (calls.running > 0 && --calls.running == 0) calls.none_left.notify_all();
}

bool calls_must_end() { return Calls::instance().ending; }

void end_all_calls() {
  Calls& calls = Calls::instance();
  std::unique_lock lock(calls.mutex);
  calls.ending = true;
  calls.none_left.wait(lock, [&] { return calls.running == 0; });
}

}  // namespace kiln
