// What names mean while one graph of a program is imported.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "import/program.h"
#include "ir/builder.h"

namespace kiln::import {

// Sizes that the symbols of the program stand for; shared by all graphs of it.
using Symbols = std::map<std::string, ir::Dim, std::less<>>;
using SymbolRanges = std::map<std::string, Range, std::less<>>;

// A complex tensor is the two tensors that it is computed with.
struct Complex {
  ir::Value* re = nullptr;
  ir::Value* im = nullptr;
};

class Scope {
 public:
  // `ranges` are those of the program; symbols that are found in the data are added to `symbols`.
  Scope(const ProgramGraph& graph, const SymbolRanges& ranges, Symbols& symbols,
        ir::Builder& builder);

  const ProgramGraph& graph() const { return graph_; }
  Symbols& symbols() const { return symbols_; }
  const SymbolRanges& ranges() const { return ranges_; }
  ir::Builder& builder() const { return builder_; }

  void bind(const std::string& name, ir::Value* value) { values_[name] = value; }
  // A name whose value is made when it is first asked for: weights become constants where they are
  // used.
  void bind_lazily(const std::string& name, std::function<ir::Value*()> make);
  // CompileError for a name that has no value, and for a complex tensor.
  ir::Value* tensor(const std::string& name);
  // A tensor as it crosses the boundary of an engine: a complex one has its parts along a last axis of size 2.
  ir::Value* stored(const std::string& name);
  // Whether the program records a complex tensor of that name.
  bool is_complex(const std::string& name) const;
  void bind(const std::string& name, Complex value) { complex_[name] = value; }
  Complex complex(const std::string& name);
  bool has_tensor(const std::string& name) const {
    return values_.contains(name) || lazy_.contains(name) || complex_.contains(name);
  }

  ir::Dim size(const SizeExpression& expression) const;
  ir::Dim size(const SizeArgument& argument) const;
  // 1 or 0, as the condition of that name holds; CompileError for one that the program does not
  // record or that depends on data.
  ir::Dim condition(const std::string& name) const;
  // The same of an expression.
  ir::Dim condition_of(const std::string& expression) const;
  // The type that the program records for a tensor, as `stored` has it; CompileError if there is none
  // or Kiln has no such type.
  ir::Type recorded_type(const std::string& name) const;
  // Whether the program records a tensor's type; a single operator records nothing.
  bool is_recorded(const std::string& name) const { return graph_.tensor_values.contains(name); }
  ir::Dim recorded_size(const std::string& name, size_t dim) const;
  // The symbol that the program records for a dimension of a tensor, from here on a symbol of the graph;
  // nothing if it records another size, or one that is known already.
  std::optional<ir::Dim> define_symbol(const std::string& tensor, size_t dim,
                                       const std::optional<ir::Dim>& bound);
  // The same for a size of the program.
  std::optional<ir::Dim> define_size(const std::string& size);
  // One that the program has no name for.
  ir::Dim new_symbol(const std::string& name, const std::optional<ir::Dim>& bound) const;
  // Whether a later node or the graph's result refers to the name.
  bool is_used(const std::string& name) const { return used_.contains(name); }

 private:
  ir::Dim symbol(std::string_view name) const;
  std::optional<ir::Dim> define(const SizeExpression& size, const std::optional<ir::Dim>& bound);
  ir::Value* find(const std::string& name);

  const ProgramGraph& graph_;
  const SymbolRanges& ranges_;
  Symbols& symbols_;
  ir::Builder& builder_;
  std::map<std::string, ir::Value*, std::less<>> values_;  // as they are stored
  std::map<std::string, Complex, std::less<>> complex_;
  std::map<std::string, std::function<ir::Value*()>, std::less<>> lazy_;
  std::set<std::string, std::less<>> used_;
};

// Both parts of a tensor with a last axis of size 2, and the other way.
Complex split_parts(ir::Builder& builder, ir::Value* pairs);
ir::Value* join_parts(ir::Builder& builder, const Complex& value);

}  // namespace kiln::import
