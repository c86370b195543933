// Size symbols of a program and their ranges.
#include <algorithm>
#include <set>

#include "import/expression.h"
#include "import/importer.h"
#include "support/error.h"

namespace kiln::import {
namespace {

// An input dimension and what the program says of its size.
struct InputDim {
  const std::string& input;
  size_t dim;
  const SizeExpression& size;
  std::optional<LinearSize> linear;  // if one symbol follows from it

  std::string str() const { return "input " + input + " dimension " + std::to_string(dim); }
};

const TensorMeta* find_meta(const Program& program, const InputSpec& spec) {
  if (spec.kind != InputKind::User || !std::holds_alternative<TensorName>(spec.argument))
    return nullptr;
  const auto found = program.graph.tensor_values.find(spec.name);
  return found == program.graph.tensor_values.end() ? nullptr : &found->second;
}

std::vector<InputDim> input_dims(const Program& program) {
  std::vector<InputDim> result;
  for (const InputSpec& spec : program.inputs) {
    const TensorMeta* meta = find_meta(program, spec);
    if (meta == nullptr) continue;
    for (size_t i = 0; i < meta->sizes.size(); ++i) {
      const std::string& text = meta->sizes[i].expression;
      result.push_back(
          {spec.name, i, meta->sizes[i], text.empty() ? std::nullopt : as_linear_size(text)});
    }
  }
  return result;
}

struct Limits {
  int64_t min = 0, opt = 0, max = ir::kDimInfinity;
};

std::string range_text(int64_t min, int64_t max) {
  const std::string high = max >= ir::kDimInfinity ? "unbounded" : std::to_string(max);
  return std::to_string(min) + ".." + high;
}

// What the symbol of a dimension may be so that its size is within the limits, and the other way
// round. Unbounded stays unbounded.
int64_t symbol_for(const LinearSize& linear, int64_t size, bool round_up) {
  if (size >= ir::kDimInfinity) return ir::kDimInfinity;
  const int64_t rest = size - linear.offset + (round_up ? linear.factor - 1 : 0);
  return rest < 0 ? 0 : rest / linear.factor;
}

int64_t size_for(const LinearSize& linear, int64_t symbol) {
  if (symbol >= (ir::kDimInfinity - linear.offset) / linear.factor) return ir::kDimInfinity;
  return symbol * linear.factor + linear.offset;
}

Limits symbol_limits(const LinearSize& linear, const DimRange& range) {
  return {symbol_for(linear, range.min, true), symbol_for(linear, range.opt, false),
          symbol_for(linear, range.max, false)};
}

Limits program_limits(const Program& program, const LinearSize& linear,
                      std::optional<int64_t> hint) {
  Limits limits;
  if (const auto found = program.ranges.find(linear.symbol); found != program.ranges.end()) {
    limits.min = std::clamp<int64_t>(found->second.min.value_or(0), 0, ir::kDimInfinity);
    limits.max = std::clamp<int64_t>(found->second.max.value_or(ir::kDimInfinity), limits.min,
                                     ir::kDimInfinity);
  }
  const int64_t opt = hint ? symbol_for(linear, *hint, false) : limits.min;
  limits.opt = std::clamp(opt, limits.min, limits.max);
  return limits;
}

void check_order(const DimRange& range) {
  if (0 <= range.min && range.min <= range.opt && range.opt <= range.max) return;
  throw CompileError("[range] got min " + std::to_string(range.min) + ", opt " +
                     std::to_string(range.opt) + ", max " + std::to_string(range.max) +
                     " for input " + range.input + " dimension " + std::to_string(range.dim) +
                     ", expected 0 <= min <= opt <= max");
}

// The caller's range for a dimension of the program: the last one given for it.
const DimRange* find_range(std::span<const DimRange> ranges, const InputDim& dim) {
  const DimRange* result = nullptr;
  for (const DimRange& range : ranges) {
    if (range.input == dim.input && range.dim == static_cast<int32_t>(dim.dim)) result = &range;
  }
  return result;
}

void check_known(const std::vector<InputDim>& dims, std::span<const DimRange> ranges) {
  for (const DimRange& range : ranges) {
    check_order(range);
    const bool known = std::ranges::any_of(dims, [&](const InputDim& dim) {
      return dim.input == range.input && static_cast<int32_t>(dim.dim) == range.dim;
    });
    if (!known) {
      throw CompileError("[range] got input " + range.input + " dimension " +
                         std::to_string(range.dim) +
                         ", expected an input of the model and one of its dimensions");
    }
  }
}

void check_static(const InputDim& dim, const DimRange& range) {
  const int64_t size = dim.size.constant;
  if (range.min == size && range.max == size) return;
  throw CompileError("[range] got " + range_text(range.min, range.max) + " for " + dim.str() +
                     ", expected " + std::to_string(size) +
                     ": the model was exported with that size");
}

// By torch.export's own rule, a lower bound of 2 does not mean that the model cannot do with 1 or
// 0: its tracer takes those for constants, and writes what is left.
constexpr int64_t kTracersLeast = 2;

Limits narrow(const InputDim& dim, const Limits& limits, const DimRange& range) {
  const Limits given = symbol_limits(*dim.linear, range);
  const int64_t least = limits.min == kTracersLeast ? 0 : limits.min;
  if (given.min >= least && given.max <= limits.max && given.min <= given.max)
    return {given.min, std::clamp(given.opt, given.min, given.max), given.max};
  throw CompileError("[range] got " + range_text(range.min, range.max) + " for " + dim.str() +
                     ", expected a range within " +
                     range_text(size_for(*dim.linear, least), size_for(*dim.linear, limits.max)) +
                     ", with which the model was exported");
}

// One symbol and what is known of it from all the dimensions that it follows from.
Limits limits_of(const Program& program, const std::vector<InputDim>& dims,
                 const std::string& symbol, std::span<const DimRange> ranges) {
  const InputDim* chosen = nullptr;
  std::optional<Limits> limits;
  for (const InputDim& dim : dims) {
    if (!dim.linear || dim.linear->symbol != symbol) continue;
    const Limits known = program_limits(program, *dim.linear, dim.size.hint);
    if (!limits) limits = known;
    const DimRange* range = find_range(ranges, dim);
    if (range == nullptr) continue;
    const Limits narrowed = narrow(dim, known, *range);
    if (chosen != nullptr && (limits->min != narrowed.min || limits->max != narrowed.max)) {
      throw CompileError(
          "[range] got " + range_text(range->min, range->max) + " for " + dim.str() +
          ", expected " +
          range_text(size_for(*dim.linear, limits->min), size_for(*dim.linear, limits->max)) +
          " as for input " + chosen->input + ": the model says that " +
          (dim.linear->is_plain() && chosen->linear->is_plain() ? "both sizes are equal"
                                                                : "each follows from the other"));
    }
    if (chosen == nullptr) limits = narrowed;
    if (chosen == nullptr) chosen = &dim;
  }
  return *limits;
}

// A size that is computed from others must not mention a symbol that no input dimension shows.
void check_computed(const InputDim& dim, const Symbols& symbols, std::span<const DimRange> ranges) {
  parse_expression(dim.size.expression, [&](std::string_view name) -> ir::Dim {
    if (const auto found = symbols.find(name); found != symbols.end()) return found->second;
    throw CompileError("[model] got the size " + dim.size.expression + " for " + dim.str() +
                       ", expected that " + std::string(name) +
                       " is the size of an input dimension");
  });
  if (const DimRange* range = find_range(ranges, dim)) {
    throw CompileError("[range] got " + range_text(range->min, range->max) + " for " + dim.str() +
                       ", expected none: the size is computed from other dimensions");
  }
}

bool is_given(const std::vector<InputDim>& dims, const std::string& symbol,
              std::span<const DimRange> ranges) {
  return std::ranges::any_of(dims, [&](const InputDim& dim) {
    return dim.linear && dim.linear->symbol == symbol && find_range(ranges, dim) != nullptr;
  });
}

// The first dimension of each symbol, from which the symbol follows.
std::vector<const InputDim*> symbol_dims(const std::vector<InputDim>& dims) {
  std::vector<const InputDim*> result;
  std::set<std::string> seen;
  for (const InputDim& dim : dims)
    if (dim.linear && seen.insert(dim.linear->symbol).second) result.push_back(&dim);
  return result;
}

DimRange range_of(const InputDim& dim, const Limits& limits) {
  return {dim.input, static_cast<int32_t>(dim.dim), size_for(*dim.linear, limits.min),
          size_for(*dim.linear, limits.opt), size_for(*dim.linear, limits.max)};
}

// Whether every shape is what was recorded when all symbols have values. An importer that looks at
// a size of 1 does what PyTorch does, and then its result has not the type of a larger one. Sizes for
// which an operator has no result are errors of the run: `declared` ones stay.
bool holds(const LoadedModel& model, const std::vector<InputDim>& dims,
           const std::map<std::string, int64_t>& values, bool declared) {
  std::vector<DimRange> fixed;
  for (const InputDim* dim : symbol_dims(dims)) {
    const int64_t value = values.at(dim->linear->symbol);
    fixed.push_back(range_of(*dim, {value, value, value}));
  }
  try {
    Importer(model, fixed).import_graph();
    return true;
  } catch (const ir::UnmetRequirement&) {
    return declared;
  } catch (const CompileError&) {
    return false;
  }
}

// The smallest value of a symbol from which on the traced graph is the model's, if that is not what
// the program says.
std::optional<int64_t> least_value(const LoadedModel& model, const std::vector<InputDim>& dims,
                                   const Limits& limits, const std::string& symbol,
                                   std::map<std::string, int64_t> values) {
  const bool is_declared = limits.min != kTracersLeast;
  const int64_t declared = is_declared ? limits.min : 0;
  const std::map<std::string, int64_t> traced = values;
  int64_t least = std::min(limits.max, kTracersLeast);
  for (; least > declared; --least) {
    values[symbol] = least - 1;
    if (!holds(model, dims, values, is_declared)) break;
  }
  // Of a program that cannot be imported at all, the importer says why.
  if (least == limits.min || (least > limits.min && !holds(model, dims, traced, is_declared)))
    return {};
  return least;
}

}  // namespace

bool LoadedModel::is_dynamic(const std::string& input, int32_t dim) const {
  const auto meta = program.graph.tensor_values.find(input);
  const auto index = static_cast<size_t>(dim);
  return meta != program.graph.tensor_values.end() && index < meta->second.sizes.size() &&
         !meta->second.sizes[index].expression.empty() &&
         as_linear_size(meta->second.sizes[index].expression).has_value();
}

std::vector<DimRange> LoadedModel::with_small_sizes(std::span<const DimRange> ranges) const {
  const LoadedModel& from = *this;
  const std::vector<InputDim> dims = input_dims(from.program);
  std::vector<DimRange> result(ranges.begin(), ranges.end());
  std::map<std::string, int64_t> traced;
  std::map<std::string, Limits> known;
  for (const InputDim* dim : symbol_dims(dims)) {
    const Limits limits = limits_of(from.program, dims, dim->linear->symbol, ranges);
    known[dim->linear->symbol] = limits;
    traced[dim->linear->symbol] = limits.opt;
  }
  for (const InputDim* dim : symbol_dims(dims)) {
    const std::string& symbol = dim->linear->symbol;
    Limits limits = known[symbol];
    if (limits.min > kTracersLeast || is_given(dims, symbol, ranges)) continue;
    if (const auto least = least_value(from, dims, limits, symbol, traced)) {
      limits.min = *least;
      limits.opt = std::max(limits.opt, *least);
      result.push_back(range_of(*dim, limits));
    }
  }
  return result;
}

Symbols make_symbols(const Program& program, std::span<const DimRange> ranges) {
  const std::vector<InputDim> dims = input_dims(program);
  check_known(dims, ranges);
  Symbols symbols;
  for (const InputDim& dim : dims) {
    if (dim.size.expression.empty()) {
      if (const DimRange* range = find_range(ranges, dim)) check_static(dim, *range);
      continue;
    }
    if (!dim.linear || symbols.contains(dim.linear->symbol)) continue;
    const std::string& symbol = dim.linear->symbol;
    const Limits limits = limits_of(program, dims, symbol, ranges);
    const bool fixed = limits.min == limits.max;
    symbols.emplace(
        symbol, fixed ? ir::Dim(limits.min)
                      : ir::Dim(ir::make_size_symbol(symbol, limits.min, limits.max, limits.opt)));
  }
  for (const InputDim& dim : dims) {
    if (!dim.size.expression.empty() && !dim.linear) check_computed(dim, symbols, ranges);
  }
  return symbols;
}

}  // namespace kiln::import
