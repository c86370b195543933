#include "backends/cpu/compile/image/llvm_threads.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <llvm/Support/ErrorHandling.h>

#include "backends/cpu/compile/common.h"
#include "backends/cpu/compile/image/locked_memory.h"
#include "support/error.h"

namespace kiln::cpu {
namespace {

// What the threads of one call share. A thread that is stuck keeps it for ever.
struct Shared {
  explicit Shared(size_t count) : failures(count), reserve(new std::byte[kReserve]) {}

  // Given back when a thread gets no memory, so that there is some to say so with.
  static constexpr size_t kReserve = size_t{1} << 20;

  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by the mutex; nothing is allocated while it is held.
  size_t done = 0;
  size_t active = 0;  // threads that will still say something
  bool out_of_memory = false;
  std::string problem;  // of LLVM's, that is no lack of memory
  std::vector<std::exception_ptr> failures;
  std::unique_ptr<std::byte[]> reserve;
  LockedReserve locked_reserve;
};

// Of a thread that runs LLVM. Initial-exec: other threads look at it when they have no memory left,
// which must not take any.
[[gnu::tls_model("initial-exec")]] thread_local Shared* current = nullptr;

// When LLVM is first used, it registers much under locks, more than the reserve may have, and a thread
// that is stuck keeps its locks. So one thread alone is the first.
enum class Llvm : uint8_t { New, Used, Stuck };
std::atomic<Llvm> llvm_state{Llvm::New};
std::mutex first_use;  // of callers while LLVM is new

[[noreturn]] void stay_here() {
  while (true) pause();
}

[[noreturn]] void stop_for_memory() {
  use_locked_reserve(nullptr);
  Shared& shared = *std::exchange(current, nullptr);
  {
    const std::lock_guard lock(shared.mutex);
    shared.reserve.reset();
    shared.out_of_memory = true;
    shared.next = shared.failures.size();
    --shared.active;
  }
  shared.changed.notify_all();
  stay_here();
}

void llvm_out_of_memory(void*, const char*, bool) {
  if (current != nullptr) stop_for_memory();
  throw std::bad_alloc();
}

// LLVM gives up: it would end the process.
void llvm_gave_up(void*, const char* reason, bool) {
  if (current == nullptr) return;
  std::string problem = *reason == '\0' ? "it gives up" : reason;
  Shared& shared = *std::exchange(current, nullptr);
  {
    const std::lock_guard lock(shared.mutex);
    shared.problem.swap(problem);
    shared.next = shared.failures.size();
    --shared.active;
  }
  shared.changed.notify_all();
  stay_here();
}

// What is called where operator new gets no memory, for as long as this library is loaded.
class NewHandler {
 public:
  NewHandler() { before = std::set_new_handler(handle); }
  ~NewHandler() {
    if (std::get_new_handler() == handle) std::set_new_handler(before);
  }

 private:
  // Threads that are not ours see what they saw before.
  static void handle() {
    if (may_use_locked_reserve()) throw std::bad_alloc();  // to locked_memory.cpp
    if (current != nullptr) stop_for_memory();
    if (before == nullptr) throw std::bad_alloc();
    before();
  }
  static inline std::new_handler before = nullptr;
};

void mark_used() {
  Llvm fresh = Llvm::New;
  llvm_state.compare_exchange_strong(fresh, Llvm::Used);
}

void work_off(const std::shared_ptr<Shared>& shared,
              const std::function<LlvmWorker()>& make_worker) {
  const size_t count = shared->failures.size();
  LlvmWorker worker;
  for (size_t i = shared->next++; i < count; i = shared->next++) {
    std::exception_ptr failure;
    try {
      if (!worker) worker = make_worker();
      worker(i);
      mark_used();
    } catch (...) {
      failure = std::current_exception();
      shared->next = count;  // what comes before this was claimed before, and may fail first
    }
    const std::lock_guard lock(shared->mutex);
    shared->failures[i] = std::move(failure);
    ++shared->done;
    shared->changed.notify_all();
  }
}

void run_thread(const std::shared_ptr<Shared>& shared,
                const std::function<LlvmWorker()>& make_worker, bool is_first) {
  if (!is_first) {
    std::unique_lock lock(shared->mutex);
    shared->changed.wait(
        lock, [&] { return llvm_state != Llvm::New || shared->next >= shared->failures.size(); });
  }
  current = shared.get();
  use_locked_reserve(&shared->locked_reserve);
  work_off(shared, make_worker);
  use_locked_reserve(nullptr);
  current = nullptr;
  const std::lock_guard lock(shared->mutex);
  --shared->active;
  shared->changed.notify_all();
}

// Starts as many threads as there can be.
std::vector<std::thread> start(size_t wanted, const std::shared_ptr<Shared>& shared,
                               const std::function<LlvmWorker()>& make_worker) {
  std::vector<std::thread> threads;
  threads.reserve(wanted);
  const auto count_one = [&](int change) {
    const std::lock_guard lock(shared->mutex);
    shared->active += static_cast<size_t>(change);
  };
  while (threads.size() < wanted) {
    count_one(1);
    try {
      threads.emplace_back([shared, &make_worker, is_first = threads.empty()] {
        run_thread(shared, make_worker, is_first);
      });
    } catch (const std::exception&) {
      count_one(-1);
      break;
    }
  }
  return threads;
}

// Reports until no thread has anything to say any more; what the report throws.
std::exception_ptr wait(Shared& shared, const std::function<void(size_t)>& report) {
  std::exception_ptr failure;
  size_t reported = 0;
  std::unique_lock lock(shared.mutex);
  const auto has_news = [&] { return !failure && shared.done > reported; };
  while (shared.active > 0 || has_news()) {
    shared.changed.wait(lock, [&] { return shared.active == 0 || has_news(); });
    if (!has_news()) continue;
    reported = shared.done;
    lock.unlock();
    try {
      report(reported);
    } catch (...) {
      failure = std::current_exception();
      shared.next = shared.failures.size();
    }
    lock.lock();
  }
  return failure;
}

}  // namespace

void run_on_llvm_threads(size_t count, int threads, const std::function<LlvmWorker()>& make_worker,
                         const std::function<void(size_t)>& report) {
  if (count == 0) return;
  std::unique_lock alone(first_use, std::defer_lock);
  if (llvm_state == Llvm::New) alone.lock();
  if (llvm_state == Llvm::Stuck)
    throw CompileError(
        "out of memory: there was none when this process began to generate code, and it cannot do "
        "so "
        "any more: start another process");
  const auto shared = std::make_shared<Shared>(count);
  std::vector<std::thread> workers = start(worker_count(count, threads), shared, make_worker);
  if (workers.empty()) throw std::bad_alloc();  // or no more threads: much the same
  const std::exception_ptr interruption = wait(*shared, [&](size_t done) {
    if (alone.owns_lock()) alone.unlock();
    report(done);
  });
  const bool stuck = shared->out_of_memory || !shared->problem.empty();
  // Which of them are stuck is not known, and none has anything left to do.
  for (std::thread& worker : workers) stuck ? worker.detach() : worker.join();
  Llvm fresh = Llvm::New;
  if (stuck) llvm_state.compare_exchange_strong(fresh, Llvm::Stuck);
  for (const std::exception_ptr& failure : shared->failures)
    if (failure) std::rethrow_exception(failure);
  if (interruption) std::rethrow_exception(interruption);
  if (!shared->problem.empty()) throw InternalError("LLVM: " + shared->problem);
  if (shared->out_of_memory) throw std::bad_alloc();
}

void install_llvm_handlers() {
  llvm::install_bad_alloc_error_handler(llvm_out_of_memory);
  llvm::install_fatal_error_handler(llvm_gave_up);
  static const NewHandler kHandler;
}

}  // namespace kiln::cpu
