// What the runners of passes share, whatever their passes work on: the list of disabled passes, the
// dumps and the verifier.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace kiln {

struct PassOptions {
  // Names of passes; CompileError for one that does not exist, with the nearest.
  std::vector<std::string> disabled;
  bool verify = false;         // after every pass
  std::string dump_directory;  // a numbered file after every pass that changed something
};

class PassControl {
 public:
  // `existing` are the names of all passes. CompileError for a disabled pass that is not among
  // them, and for a folder of dumps that cannot be made. The options outlive the control.
  PassControl(const PassOptions& options, const std::vector<std::string_view>& existing);

  bool is_disabled(std::string_view pass) const;
  // Runs the verifier if that is asked for; what it throws then begins with "after `what`".
  void verify(const std::string& what, const std::function<void()>& verifier) const;
  // Writes `prefix`NNN_`name`, if there is a folder for it.
  void dump(const std::string& prefix, size_t number, const std::string& name,
            const std::function<std::string()>& text) const;

 private:
  const PassOptions& options_;
};

}  // namespace kiln
