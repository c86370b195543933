// Threads on which LLVM runs.
#pragma once

#include <cstddef>
#include <functional>

namespace kiln::cpu {

// Work on LLVM, in a process that has to live when memory ends.
//
// LLVM is built without exceptions. Where it gets no memory it calls a handler that must not return,
// and an exception that passes its frames undoes nothing of what they had begun: destructors then
// meet objects that are half made. So LLVM has threads of its own here, and one that gets no memory
// stays where it is for the rest of the process, with all that it holds, while whoever waits for it
// goes on with std::bad_alloc. What it leaves behind is memory; nothing is run or freed twice.
//
// Each thread makes itself a worker, which may hold objects of LLVM's, and calls worker(i) with the
// indices below `count` that it gets; each index is called once. report(done) is called on the
// caller's thread, with the number of calls that came back. If calls fail, the first exception in the
// order of the indices is thrown; what report throws ends the work early.
using LlvmWorker = std::function<void(size_t i)>;
void run_on_llvm_threads(size_t count, int threads, const std::function<LlvmWorker()>& make_worker,
                         const std::function<void(size_t done)>& report);

// Tells LLVM what to do where it gets no memory, or gives up for another reason. Once, before
// anything else of LLVM is called.
void install_llvm_handlers();

}  // namespace kiln::cpu
