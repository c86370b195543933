// Constants that code generation makes out of others, such as packed weights.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/spec.h"
#include "plan/form/program.h"

namespace kiln::backend {

// Where a kernel's code asks for them: shared by programs and kernels that ask for the same thing.
class ConstantPool {
 public:
  virtual ~ConstantPool() = default;
  // The buffer that holds make(original literal); `key` names the transformation: "pack_b:48".
  // `make` runs later, on another thread, and once for every kernel that shares this one's code: it
  // must own what it captures and be a pure function of the literal.
  virtual plan::BufferId derived(plan::BufferId original, const std::string& key,
                                 const std::function<ir::Literal(const ir::Literal&)>& make) = 0;
  // The buffer that holds what a load makes, as `winograd` says, of its `filters`, which derived() gave.
  virtual plan::BufferId made_at_load(const engine::WinogradSpec& winograd) = 0;
};

// The constants that one kernel derives: numbered after the program's buffers, computed later.
class DerivedConstants : public ConstantPool {
 public:
  struct Entry {
    plan::BufferId original = -1;
    std::string key;
    std::function<ir::Literal(const ir::Literal&)> make;
    engine::WinogradSpec winograd;  // made when the program is loaded, of `original`

    bool is_made_at_load() const { return winograd.filters != -1; }
  };

  explicit DerivedConstants(const plan::Program& program)
      : first_(static_cast<plan::BufferId>(program.buffers.size())) {}

  plan::BufferId derived(plan::BufferId original, const std::string& key,
                         const std::function<ir::Literal(const ir::Literal&)>& make) override;
  plan::BufferId made_at_load(const engine::WinogradSpec& winograd) override;
  // Null for a buffer of the program.
  const Entry* find(plan::BufferId buffer) const;

 private:
  plan::BufferId first_;
  std::vector<Entry> entries_;
};

// Those of all kernels and programs of an engine. What two of them ask for is made once.
class SharedConstants {
 public:
  // A number for make(contents of `original`).
  size_t add(const DerivedConstants::Entry& entry, plan::BufferId original);
  const DerivedConstants::Entry& entry(size_t number) const { return entries_[number]; }
  // All of them, by number.
  std::vector<ir::Literal> make(const plan::Program& program, int threads) const;

 private:
  std::vector<DerivedConstants::Entry> entries_;
  std::map<std::pair<plan::BufferId, std::string>, size_t> numbers_;
};

}  // namespace kiln::backend
