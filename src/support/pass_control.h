// What the runners of passes share, whatever their passes work on: the list of disabled passes, the
// dumps and the verifier.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
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

// CompileError, with the nearest name, for a disabled pass that is not among the existing ones.
void check_disabled(const std::vector<std::string>& disabled,
                    const std::vector<std::string_view>& existing);
// Makes the folder for dumps and those above it; CompileError if that cannot be. Nothing for "".
void make_dump_directory(const std::string& path);

// The rows of a passes.def: structs with a `name` and a function `run`.
template <typename Info>
class PassTable {
 public:
  explicit PassTable(std::span<const Info> rows) : rows_(rows) {}

  std::span<const Info> rows() const { return rows_; }
  // Null if there is no pass of that name.
  const Info* find(std::string_view name) const {
    return at(std::ranges::find(rows_, name, &Info::name));
  }
  // Null for a function that is not a pass of the table.
  template <typename Pass>
  const Info* find_function(Pass pass) const {
    return at(std::ranges::find(rows_, pass, &Info::run));
  }
  std::vector<std::string_view> names() const {
    std::vector<std::string_view> result;
    for (const Info& row : rows_) result.push_back(row.name);
    return result;
  }

 private:
  const Info* at(auto found) const { return found == rows_.end() ? nullptr : &*found; }
  std::span<const Info> rows_;
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
