// Running jobs on a few threads of the compiler.
#pragma once

#include <cstddef>
#include <functional>

#include "backends/backend.h"

namespace kiln::backend {

// Runs work(worker, i) for each i in [0, count), on at most `threads` workers (0: one per core).
// `worker` is in [0, number of workers); 0 is the calling thread. If jobs throw, the exception of
// the first of them is thrown.
void run_parallel(size_t count, int threads, const std::function<void(size_t, size_t)>& work);
size_t worker_count(size_t count, int threads);

// The same with workers that hold something: Backend::run_workers for most backends.
void run_workers(size_t count, int threads, const std::function<Worker()>& make_worker,
                 const std::function<void(size_t done)>& report);

}  // namespace kiln::backend
