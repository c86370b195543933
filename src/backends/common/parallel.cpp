#include "backends/common/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "support/cpu_count.h"

namespace kiln::backend {

size_t worker_count(size_t count, int threads) {
  const auto wanted = static_cast<size_t>(threads > 0 ? threads : available_cpus());
  return std::clamp<size_t>(wanted, 1, std::max<size_t>(count, 1));
}

void run_parallel(size_t count, int threads, const std::function<void(size_t, size_t)>& work) {
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> failures(count);
  auto run = [&](size_t worker) {
    for (size_t i = next++; i < count; i = next++) {
      try {
        work(worker, i);
      } catch (...) {
        failures[i] = std::current_exception();
        next = count;  // what comes before this was claimed before, and says what is wrong first
      }
    }
  };
  const size_t workers = worker_count(count, threads);
  std::vector<std::thread> others;
  others.reserve(workers);
  try {
    for (size_t worker = 1; worker < workers; ++worker) others.emplace_back(run, worker);
  } catch (const std::exception&) {
    // The system gives no more threads, or no memory for one: those that are there do the work.
  }
  run(0);
  for (std::thread& thread : others) thread.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

void run_workers(size_t count, int threads, const std::function<Worker()>& make_worker,
                 const std::function<void(size_t)>& report) {
  std::vector<Worker> workers(worker_count(count, threads));
  std::atomic<size_t> done{0};
  run_parallel(count, threads, [&](size_t worker, size_t i) {
    if (!workers[worker]) workers[worker] = make_worker();
    workers[worker](i);
    const size_t finished = ++done;
    if (worker == 0) report(finished);  // worker 0 is the calling thread
  });
}

}  // namespace kiln::backend
