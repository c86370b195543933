#include "runtime/size_program.h"

#include <algorithm>
#include <array>
#include <limits>

namespace kiln::runtime {
namespace {

using engine::SizeInstruction;
using engine::SizeOp;
using engine::Slot;
using engine::Spec;

constexpr int64_t kLowest = std::numeric_limits<int64_t>::min();
constexpr int64_t kHighest = std::numeric_limits<int64_t>::max();

SizeValue apply(SizeOp op, int64_t a, int64_t b) {
  return apply_size_function(function_of(op), a, b);
}

// The slots of an interface, and those of one of its programs behind them.
struct Slots {
  const Spec& spec;
  const engine::ProgramSpec* program = nullptr;

  size_t symbols() const { return spec.symbols.size() + spec.data_sizes.size(); }
  size_t size() const { return spec.sizes.size() + (program ? program->sizes.size() : 0); }
  const SizeInstruction& operator[](size_t slot) const {
    const size_t shared = spec.sizes.size();
    return slot < shared ? spec.sizes[slot] : program->sizes[slot - shared];
  }
};

// Where the result does not fit: the end of the number line that it lies beyond.
int64_t saturated(SizeOp op, int64_t a, int64_t b) {
  const bool negative = op == SizeOp::Mul ? (a < 0) != (b < 0) : a < 0;
  return apply(op, a, b).value_or(negative ? kLowest : kHighest);
}

// Every operation but Mod takes its extremes at the corners, FloorDiv so long as the divisor keeps
// its sign.
SizeRange apply_range(SizeOp op, SizeRange a, SizeRange b) {
  if (op == SizeOp::FloorDiv && b.min <= 0 && b.max >= 0) return {kLowest, kHighest};
  if (op == SizeOp::Mod) {
    if (b.min <= 0) return {std::min(b.min, int64_t{0}), std::max(b.max, int64_t{0})};
    if (a.min >= 0 && a.max < b.min) return a;
    return {0, b.max - 1};
  }
  const std::array corners = {saturated(op, a.min, b.min), saturated(op, a.min, b.max),
                              saturated(op, a.max, b.min), saturated(op, a.max, b.max)};
  const auto [low, high] = std::ranges::minmax(corners);
  return {low, high};
}

const std::string& name_of_symbol(const Spec& spec, size_t symbol) {
  const size_t inputs = spec.symbols.size();
  return symbol < inputs ? spec.symbols[symbol].name : spec.data_sizes[symbol - inputs].name;
}

// Writes formulas; stops when the text is long enough.
class FormulaWriter {
 public:
  explicit FormulaWriter(const Slots& slots) : slots_(slots) {}

  // `outermost`: without parentheses around the whole.
  void write(Slot slot, int depth, bool outermost) {
    constexpr int kDeepest = 6;
    if (text_.size() > kLongestFormula) return;
    const SizeInstruction& size = slots_[static_cast<size_t>(slot)];
    if (size.op == SizeOp::Constant) {
      text_ += std::to_string(size.immediate);
    } else if (size.op == SizeOp::Symbol) {
      text_ += short_name(name_of_symbol(slots_.spec, static_cast<size_t>(size.immediate)));
    } else if (depth == kDeepest) {
      text_ += "...";
    } else {
      write_operation(size, depth, outermost);
    }
  }

  std::string take() {
    if (text_.size() > kLongestFormula)
      text_.replace(kLongestFormula - 3, std::string::npos, "...");
    return std::move(text_);
  }

 private:
  static std::string short_name(const std::string& name) {
    constexpr size_t kLongestName = 64;
    return name.size() <= kLongestName ? name : name.substr(0, kLongestName) + "...";
  }

  void write_operation(const SizeInstruction& size, int depth, bool outermost) {
    const bool is_call = size.op == SizeOp::Min || size.op == SizeOp::Max;
    if (is_call) text_ += size.op == SizeOp::Min ? "min" : "max";
    const bool parentheses = is_call || !outermost;
    if (parentheses) text_ += "(";
    write(size.a, depth + 1, false);
    text_ += separator(size.op);
    write(size.b, depth + 1, false);
    if (parentheses) text_ += ")";
  }

  static const char* separator(SizeOp op) {
    switch (op) {
      case SizeOp::Add:
        return " + ";
      case SizeOp::Sub:
        return " - ";
      case SizeOp::Mul:
        return "*";
      case SizeOp::FloorDiv:
        return "//";
      case SizeOp::Mod:
        return "%";
      default:
        return ", ";
    }
  }

  const Slots slots_;
  std::string text_;
};

std::string size_text(const Slots& slots, size_t slot) {
  FormulaWriter writer(slots);
  writer.write(static_cast<Slot>(slot), 0, true);
  return writer.take();
}

// The bound of a data size is an earlier slot.
SizeRange range_of_symbol(const Spec& spec, size_t symbol, const std::vector<SizeRange>& ranges) {
  const size_t inputs = spec.symbols.size();
  if (symbol < inputs) return {spec.symbols[symbol].min, spec.symbols[symbol].max};
  const engine::DataSizeSpec& size = spec.data_sizes[symbol - inputs];
  if (size.bound == -1) return {size.min, size.max};
  return {size.min, std::min(size.max, ranges[static_cast<size_t>(size.bound)].max)};
}

Result<std::vector<int64_t>> evaluate(const Slots& slots, std::span<const int64_t> symbols) {
  std::vector<int64_t> values(slots.size());
  std::vector<bool> unknown;  // empty: all are known
  if (symbols.size() < slots.symbols()) unknown.resize(slots.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const SizeInstruction& size = slots[i];
    if (size.op == SizeOp::Constant) {
      values[i] = size.immediate;
    } else if (size.op == SizeOp::Symbol) {
      const auto symbol = static_cast<size_t>(size.immediate);
      if (symbol < symbols.size())
        values[i] = symbols[symbol];
      else
        unknown[i] = true;
    } else if (!unknown.empty() &&
               (unknown[static_cast<size_t>(size.a)] || unknown[static_cast<size_t>(size.b)])) {
      unknown[i] = true;
    } else {
      const auto value =
          apply(size.op, values[static_cast<size_t>(size.a)], values[static_cast<size_t>(size.b)]);
      if (!value)
        return Status(StatusCode::OutOfRange,
                      "the size " + size_text(slots, i) +
                          " overflows or divides by zero for these input shapes");
      values[i] = *value;
    }
  }
  return values;
}

}  // namespace

SizeFunction function_of(SizeOp op) {
  switch (op) {
    case SizeOp::Sub:
      return SizeFunction::Sub;
    case SizeOp::Mul:
      return SizeFunction::Mul;
    case SizeOp::FloorDiv:
      return SizeFunction::FloorDiv;
    case SizeOp::Mod:
      return SizeFunction::Mod;
    case SizeOp::Min:
      return SizeFunction::Min;
    case SizeOp::Max:
      return SizeFunction::Max;
    default:
      return SizeFunction::Add;
  }
}

Result<std::vector<int64_t>> evaluate_sizes(const Spec& spec, std::span<const int64_t> symbols) {
  return evaluate({spec}, symbols);
}

Result<std::vector<int64_t>> evaluate_sizes(const Spec& spec, const engine::ProgramSpec& program,
                                            std::span<const int64_t> symbols) {
  return evaluate({spec, &program}, symbols);
}

std::vector<SizeRange> size_ranges(const Spec& spec, std::span<const int64_t> known) {
  std::vector<SizeRange> ranges;
  ranges.reserve(spec.sizes.size());
  for (const SizeInstruction& size : spec.sizes) {
    if (size.op == SizeOp::Constant) {
      ranges.push_back({size.immediate, size.immediate});
    } else if (size.op == SizeOp::Symbol) {
      const auto symbol = static_cast<size_t>(size.immediate);
      ranges.push_back(symbol < known.size() ? SizeRange{known[symbol], known[symbol]}
                                             : range_of_symbol(spec, symbol, ranges));
    } else {
      ranges.push_back(apply_range(size.op, ranges[static_cast<size_t>(size.a)],
                                   ranges[static_cast<size_t>(size.b)]));
    }
  }
  return ranges;
}

std::string data_sizes_str(const Spec& spec, Slot slot) {
  std::vector<bool> used(static_cast<size_t>(slot) + 1, false);
  std::vector<bool> found(spec.data_sizes.size(), false);
  used.back() = true;
  for (size_t i = used.size(); i-- > 0;) {
    const SizeInstruction& size = spec.sizes[i];
    if (!used[i] || size.op == SizeOp::Constant) continue;
    const auto number = size.immediate - static_cast<int64_t>(spec.symbols.size());
    if (is_function(size.op))
      used[static_cast<size_t>(size.a)] = used[static_cast<size_t>(size.b)] = true;
    else if (number >= 0)
      found[static_cast<size_t>(number)] = true;
  }
  std::string text;
  for (size_t i = 0; i < found.size(); ++i)
    if (found[i]) text += (text.empty() ? "" : ", ") + spec.data_sizes[i].name;
  return text;
}

std::string size_str(const Spec& spec, Slot slot) {
  return size_text({spec}, static_cast<size_t>(slot));
}

}  // namespace kiln::runtime
