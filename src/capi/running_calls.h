// The calls of the compiler that are in progress, so that a process can end while threads compile:
// the compiler's libraries undo themselves at exit, under the hands of whoever still uses them.
#pragma once

namespace kiln {

// One call, for as long as it lives.
class RunningCall {
 public:
  RunningCall();
  ~RunningCall();
  RunningCall(const RunningCall&) = delete;
  RunningCall& operator=(const RunningCall&) = delete;

  // False: the process is ending, and the call must do nothing.
  bool may_run() const { return may_run_; }

 private:
  bool may_run_ = false;
};

// Whether calls should give up.
bool calls_must_end();
// From here on no call runs; returns when those that did have ended.
void end_all_calls();

}  // namespace kiln
