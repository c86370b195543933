#include "backends/cuda/compile/emit/emitter.h"

#include <algorithm>
#include <limits>

#include "backends/common/dim_terms.h"
#include "backends/cuda/compile/kernel_texts.h"
#include "support/error.h"

namespace kiln::cuda {

using backend::depends_on_loops;
using backend::dim_of_atom;
using ir::AtomKind;
using ir::Dim;

namespace {

// A loop may count up to a stride past its end.
constexpr int64_t kLargestInt = std::numeric_limits<int32_t>::max() - (1 << 16);

int64_t magnitude(const Dim& dim) {
  return std::max({int64_t{1}, std::abs(dim.lower_bound()), std::abs(dim.upper_bound())});
}

// Products of 31-bit numbers, as long as they are looked at one by one, do not overflow 64 bits.
bool fits_int(const ir::Term& term, int64_t& total) {
  int64_t product = std::abs(term.coefficient);
  for (const ir::AtomPtr& factor : term.factors) {
    if (product > kLargestInt) return false;
    const int64_t size = magnitude(dim_of_atom(factor));
    if (size > kLargestInt) return false;
    product *= size;
    if (factor->kind != AtomKind::Symbol &&
        !(cuda::fits_int(factor->a) && cuda::fits_int(factor->b)))
      return false;
  }
  total += product;
  return product <= kLargestInt && total <= kLargestInt;
}

// Numbers of type long long, whatever the text is of.
std::string widened(const std::string& text) { return "(long long)" + text; }

std::string literal(int64_t number, bool narrow) {
  if (narrow) return std::to_string(number);
  if (number == std::numeric_limits<int64_t>::min()) return "(-9223372036854775807ll - 1)";
  return std::to_string(number) + "ll";
}

bool is_name(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  });
}

}  // namespace

const char* memory_type(DType dtype) {
  switch (dtype) {
    case DType::F16:
      return "half_t";
    case DType::BF16:
      return "bfloat_t";
    case DType::F8E4M3:
      return "float8_t";
    case DType::Bool:
      return "bool_t";
    default:
      return register_type(dtype);
  }
}

const char* register_type(DType dtype) {
  switch (dtype) {
    case DType::F32:
    case DType::F16:
    case DType::BF16:
    case DType::F8E4M3:
      return "float";
    case DType::F64:
      return "double";
    case DType::I8:
      return "signed char";
    case DType::U8:
      return "unsigned char";
    case DType::I16:
      return "short";
    case DType::I32:
      return "int";
    case DType::I64:
      return "long long";
    case DType::Bool:
      return "bool";
  }
  throw InternalError("unknown dtype");
}

bool fits_int(const Dim& dim) {
  int64_t total = 0;
  return std::ranges::all_of(dim.terms(),
                             [&](const ir::Term& term) { return fits_int(term, total); });
}

const char* position_type(const Dim& dim) { return fits_int(dim) ? "int" : "long long"; }

Emitter::Emitter(KernelContext& context) : context_(context), scopes_(1) {}

DType Emitter::dtype_of(plan::BufferId buffer) const {
  return program().buffers.at(static_cast<size_t>(buffer)).type.dtype;
}

// --- Text ---------------------------------------------------------------------------------------

void Emitter::line(std::string_view text) {
  scopes_.back().text.append(2 * scopes_.size(), ' ').append(text).append("\n");
}

void Emitter::open(std::string_view header) {
  line(header.empty() ? "{" : std::string(header) + " {");
  scopes_.emplace_back();
}

void Emitter::close(std::string_view suffix) {
  KILN_CHECK(scopes_.size() > 1, "a block is closed that was not opened");
  const std::string inner = std::move(scopes_.back().text);
  scopes_.pop_back();
  scopes_.back().text += inner;
  line("}" + std::string(suffix));
}

std::string Emitter::fresh(std::string_view prefix) {
  return std::string(prefix) + std::to_string(names_++);
}

std::string Emitter::declare(std::string_view type, std::string_view prefix,
                             std::string_view value) {
  std::string name = fresh(prefix);
  line("const " + std::string(type) + " " + name + " = " + std::string(value) + ";");
  return name;
}

// --- Operands -----------------------------------------------------------------------------------

std::string Emitter::buffer(plan::BufferId buffer) {
  return "b" + std::to_string(interface().buffer_index(buffer));
}

std::string Emitter::written_buffer(plan::BufferId buffer) {
  written_.insert(buffer);
  return this->buffer(buffer);
}

// --- Positions ----------------------------------------------------------------------------------

void Emitter::bind(const ir::SymbolPtr& index, const std::string& name) {
  bindings_[index.get()] = name;
  for (Scope& scope : scopes_) {
    std::erase_if(scope.names, [&](const auto& entry) { return entry.first.mentions(index); });
  }
}

std::string Emitter::parameter(const Dim& dim) {
  return "n" + std::to_string(interface().param_index(dim));
}

std::string Emitter::position(const Dim& dim) {
  const bool narrow = fits_int(dim);
  if (dim.is_constant()) return literal(dim.constant(), narrow);
  if (!depends_on_loops(dim)) return parameter(dim);
  const std::string text = sum(dim, narrow);
  return is_name(text) ? text : "(" + text + ")";
}

// What is known outside of all loops is one parameter.
std::string Emitter::sum(const Dim& dim, bool narrow) {
  Dim fixed;
  std::string result;
  const auto add = [&](const std::string& text) { result += (result.empty() ? "" : " + ") + text; };
  for (const ir::Term& term : dim.terms()) {
    const Dim whole = backend::dim_of_term(term);
    if (depends_on_loops(whole)) {
      add(this->term(term, narrow));
    } else {
      fixed += whole;
    }
  }
  if (!fixed.is_constant(0))
    add(fixed.is_constant() ? literal(fixed.constant(), narrow) : parameter(fixed));
  return result;
}

std::string Emitter::term(const ir::Term& term, bool narrow) {
  Dim fixed = term.coefficient;
  std::string result;
  for (const ir::AtomPtr& factor : term.factors) {
    const Dim dim = dim_of_atom(factor);
    if (!depends_on_loops(dim)) {
      fixed *= dim;
      continue;
    }
    const std::string text = atom(factor, narrow);
    result += (result.empty() ? (narrow ? text : widened(text)) : " * " + text);
  }
  if (fixed.is_constant(1)) return result;
  if (fixed.is_constant(-1)) return "-" + (narrow ? result : "(" + result + ")");
  return result + " * " +
         (fixed.is_constant() ? literal(fixed.constant(), narrow) : parameter(fixed));
}

std::string Emitter::atom(const ir::AtomPtr& factor, bool /*narrow*/) {
  const ir::Atom& atom = *factor;
  if (atom.kind == AtomKind::Symbol) {
    const auto found = bindings_.find(atom.symbol.get());
    KILN_CHECK(found != bindings_.end(), "the loop " + atom.symbol->name + " is not bound");
    return found->second;
  }
  const Dim dim = dim_of_atom(factor);
  for (const Scope& scope : scopes_) {
    if (const auto it = scope.names.find(dim); it != scope.names.end()) return it->second;
  }
  const bool divides = atom.kind == AtomKind::FloorDiv || atom.kind == AtomKind::Mod;
  std::string text;
  if (divides) {
    text = division(atom);
  } else {
    const std::string type = position_type(dim);
    text = (atom.kind == AtomKind::Min ? "index_min<" : "index_max<") + type + ">(" +
           position(atom.a) + ", " + position(atom.b) + ")";
  }
  const std::string name = declare(position_type(dim), "d", text);
  return scopes_.back().names[dim] = name;
}

// What is hoisted runs even if the loops that would give a zero divisor are empty: zero counts as
// one. Numbers without sign divide faster.
std::string Emitter::division(const ir::Atom& atom) {
  const bool quotient = atom.kind == AtomKind::FloorDiv;
  const bool narrow = fits_int(atom.a) && fits_int(atom.b);
  const std::string type = narrow ? "int" : "long long";
  const std::string a = position(atom.a);
  std::string b = position(atom.b);
  if (atom.b.lower_bound() < 1) b = "(" + b + " == 0 ? 1 : " + b + ")";
  if (atom.a.lower_bound() >= 0 && atom.b.lower_bound() >= 0) {
    const std::string unsigned_type = narrow ? "(unsigned)" : "(unsigned long long)";
    return "(" + type + ")(" + unsigned_type + a + (quotient ? " / " : " % ") + unsigned_type + b +
           ")";
  }
  return (quotient ? "index_div<" : "index_mod<") + type + ">(" + a + ", " + b + ")";
}

// --- The whole ----------------------------------------------------------------------------------

void Emitter::note_failure(int32_t check, const std::string& condition) {
  line("if (" + condition +
       ") wrong |= " + std::to_string(uint64_t{1} << interface().check_bit(check)) + "ull;");
}

bool Emitter::is_programmatic() const { return context_.target.sm >= 90 || context_.target.is_ptx; }

bool Emitter::is_constant(plan::BufferId id) const {
  // Derived constants have numbers of their own.
  return static_cast<size_t>(id) >= program().buffers.size() ||
         program().buffers[static_cast<size_t>(id)].kind == plan::BufferKind::Constant;
}

std::vector<Emitter::Parameter> Emitter::parameters(const Launch& launch) const {
  const backend::KernelInterface& interface = context_.result.interface;
  std::vector<Parameter> result;
  for (size_t i = 0; i < interface.buffers.size(); ++i) {
    const plan::BufferId id = interface.buffers[i];
    // What derived constants hold is up to who derives them.
    const bool known = static_cast<size_t>(id) < program().buffers.size();
    const std::string type = known ? memory_type(dtype_of(id)) : "unsigned char";
    const bool waits = launch.waits && is_programmatic() && !is_constant(id);
    result.push_back({written_.contains(id) ? type + "*"
                      : waits               ? "const " + type + "*"
                                            : "const " + type + "* __restrict__",
                      "b" + std::to_string(i), !is_constant(id)});
  }
  for (size_t i = 0; i < interface.params.size(); ++i)
    result.push_back({"long long", "p" + std::to_string(i)});
  if (!interface.scratch_bytes.is_constant(0))
    result.push_back({"unsigned char*", "scratch", true});
  if (!interface.checks.empty()) result.push_back({"unsigned long long*", "failed"});
  for (const std::string& map : launch.tensor_maps)
    result.push_back({"const __grid_constant__ TensorMap", map});
  return result;
}

std::string Emitter::signature(const Launch& launch) const {
  std::string text = "extern \"C\" __global__ void __launch_bounds__(" +
                     std::to_string(launch.threads) +
                     (launch.min_blocks > 0 ? ", " + std::to_string(launch.min_blocks) : "") + ") ";
  if (launch.cluster > 1) text += "__cluster_dims__(" + std::to_string(launch.cluster) + ", 1, 1) ";
  text += "kernel(";
  std::string separator;
  for (const Parameter& parameter : parameters(launch)) {
    text += separator + parameter.type + " " + parameter.name;
    separator = ", ";
  }
  return text + ") {\n";
}

void Emitter::declare_wait() {
  if (!is_programmatic()) return line("const auto wait = [] {};");
  open("const auto wait = [&]");
  line("wait_for_earlier();");
  for (size_t i = 0; i < interface().buffers.size(); ++i) {
    const std::string name = "b" + std::to_string(i);
    if (!is_constant(interface().buffers[i])) line(name + " = behind_wait(" + name + ");");
  }
  close(";");
}

// The kernel proper lets the next one begin and waits; its body is a function of its own, which is told
// that operands do not overlap.
std::string Emitter::programmatic(const Launch& launch, const std::string& body) const {
  std::string text = "\nDEVICE void body(", call, separator;
  for (const Parameter& parameter : parameters(launch)) {
    const bool is_map = parameter.type.ends_with("TensorMap");
    text += separator + (is_map ? "const TensorMap&" : parameter.type) + " " + parameter.name;
    const bool behind = parameter.changes && !launch.waits;
    call += separator + (behind ? "behind_wait(" + parameter.name + ")" : parameter.name);
    separator = ", ";
  }
  text += ") {\n" + body + "}\n\n" + signature(launch) + "  let_next_begin();\n";
  if (!launch.waits) text += "  wait_for_earlier();\n";
  return text + "  body(" + call + ");\n}\n";
}

std::string Emitter::finish(const Launch& launch) {
  KILN_CHECK(scopes_.size() == 1, "a block is still open");
  backend::KernelInterface& interface = this->interface();
  interface.block = {Dim(launch.threads)};
  interface.programmatic = is_programmatic();
  std::string body;
  for (size_t i = 0; i < interface.params.size(); ++i) {
    const std::string number = std::to_string(i);
    const std::string type = position_type(interface.params[i]);
    body += "  const " + type + " n" + number + " = (" + type + ")p" + number + ";\n";
  }
  const bool checks = !interface.checks.empty();
  if (checks) body += "  unsigned long long wrong = 0;\n";
  body += scopes_.front().text;
  if (checks) body += "  if (wrong != 0) atomicOr(failed, wrong);\n";
  std::string text;
  text += kernel_text("types.cuh");
  text += kernel_text("math.cuh");
  text += kernel_text("reduce.cuh");
  if (is_programmatic()) text += kernel_text("programmatic.cuh");
  text += launch.before;
  if (is_programmatic()) return text + programmatic(launch, body);
  return text + "\n" + signature(launch) + body + "}\n";
}

}  // namespace kiln::cuda
