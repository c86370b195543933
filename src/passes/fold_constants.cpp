#include <algorithm>

#include "ir/op_table.h"
#include "passes/pass.h"
#include "passes/rewrite.h"
#include "support/error.h"

namespace kiln::passes {
namespace {

using ir::Literal;
using ir::Node;
using ir::Value;

// Results up to this size are always worth storing.
constexpr int64_t kSmallBytes = 64 * 1024;

bool has_symbolic_attribute(const Node& node) {
  for (const auto& [name, value] : node.attrs) {
    if (const auto* dim = std::get_if<ir::Dim>(&value); dim && !dim->is_constant()) return true;
    const auto* dims = std::get_if<std::vector<ir::Dim>>(&value);
    if (dims && std::any_of(dims->begin(), dims->end(),
                            [](const ir::Dim& dim) { return !dim.is_constant(); })) {
      return true;
    }
  }
  return false;
}

int64_t size_in_bytes(const ir::Type& type) {
  return type.elements().constant() * static_cast<int64_t>(dtype_size(type.dtype));
}

bool has_constant_type(const Value* value) { return value->type.elements().is_constant(); }

class Folder {
 public:
  explicit Folder(PassContext& context) : context_(context) {}

  Value* fold(Rewriter& rewriter, Node& node) {
    if (is_quantised_weight(node))
      return rewriter.before(node).constant(evaluate_expression(node.output()));
    if (!is_foldable(node)) return nullptr;
    if (is_small_as_integers(node) && feeds_contraction(rewriter, node.output())) return nullptr;
    if (is_byte_as_float(node) && feeds_product(rewriter, node.output())) return nullptr;
    std::vector<Literal> storage(node.inputs.size());
    std::vector<const Literal*> operands;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      operands.push_back(node.inputs[i] ? operand(node.inputs[i], storage[i]) : nullptr);
    }
    std::vector<Literal> results = context_.evaluate(node, operands);
    KILN_CHECK(results.size() == 1, "one result");
    for (const Literal* operand : operands)
      if (operand != nullptr) operand->forget();
    return rewriter.before(node).constant(std::move(results[0]));
  }

 private:
  static constexpr int kMostSteps = 8;

  // The size of the constants that an expression of pointwise operators is made of, if it is made of them alone.
  static std::optional<int64_t> constant_bytes(const Value* value, int steps = kMostSteps) {
    if (const Literal* literal = literal_of(value)) return size_in_bytes(literal->type());
    if (is_known(value)) return 0;
    const Node* node = value->producer;
    if (node == nullptr || steps == 0 || !has_constant_type(value)) return std::nullopt;
    const ir::OpKind kind = ir::op_info(node->op).kind;
    const bool is_pointwise = kind == ir::OpKind::Unary || kind == ir::OpKind::Binary ||
                              kind == ir::OpKind::Ternary || kind == ir::OpKind::Quantise;
    if (!is_pointwise || node->outputs.size() != 1) return std::nullopt;
    int64_t bytes = 0;
    for (const Value* input : node->inputs) {
      if (input == nullptr) continue;
      const auto own = constant_bytes(input, steps - 1);
      if (!own) return std::nullopt;
      bytes += *own;
    }
    return bytes;
  }

  // Whether the numbers of 8 bits are made of constants that are larger, whatever they are cast to in between.
  static bool is_quantised_weight(const Node& node) {
    if (node.op != ir::Op::cast && node.op != ir::Op::quantize) return false;
    const ir::Type& type = node.output()->type;
    if (dtype_size(type.dtype) != 1 || type.dtype == DType::Bool ||
        !has_constant_type(node.output()))
      return false;
    const auto bytes = constant_bytes(node.output());
    return bytes && *bytes > size_in_bytes(type);
  }

  // A dequantize of integers that take less than the floats: not of a bias of i32.
  static bool is_small_as_integers(const Node& node) {
    return node.op == ir::Op::dequantize &&
           dtype_size(node.input(0)->type.dtype) < dtype_size(node.output()->type.dtype);
  }

  Literal evaluate_expression(const Value* value) const {
    if (const Literal* literal = literal_of(value)) return *literal;
    std::vector<Literal> storage;
    std::vector<const Literal*> operands;
    storage.reserve(value->producer->inputs.size());
    for (const Value* input : value->producer->inputs) {
      if (input != nullptr) storage.push_back(evaluate_expression(input));
      operands.push_back(input == nullptr ? nullptr : &storage.back());
    }
    return std::move(context_.evaluate(*value->producer, operands)[0]);
  }

  // Weights of 8 bits that are scaled behind the product.
  static bool is_byte_as_float(const Node& node) {
    if (node.op != ir::Op::cast || !is_floating(node.output()->type.dtype)) return false;
    const DType dtype = node.input(0)->type.dtype;
    return dtype == DType::I8 || dtype == DType::U8;
  }

  // Whether a matmul or linear has the value, or a view of it, as its right operand.
  static bool feeds_product(const Rewriter& rewriter, const Value* value) {
    return std::ranges::any_of(rewriter.users(value), [&](const Node* user) {
      if (user->op == ir::Op::matmul || user->op == ir::Op::linear) return user->input(1) == value;
      return ir::op_info(user->op).view && feeds_product(rewriter, user->output());
    });
  }

  // Whether a contraction reads the value, or a view or cast of it.
  static bool feeds_contraction(const Rewriter& rewriter, const Value* value) {
    return std::ranges::any_of(rewriter.users(value), [&](const Node* user) {
      const ir::OpInfo& info = ir::op_info(user->op);
      if (info.kind == ir::OpKind::Contract) return true;
      const bool passes_on = info.view || user->op == ir::Op::cast;
      return passes_on && feeds_contraction(rewriter, user->output());
    });
  }

  bool is_foldable(const Node& node) const {
    if (ir::op_info(node.op).kind == ir::OpKind::Source || node.inputs.empty()) return false;
    if (node.op == ir::Op::custom) return false;
    if (has_symbolic_attribute(node) || !has_constant_type(node.output())) return false;
    int64_t operand_bytes = 0;
    for (const Value* input : node.inputs) {
      if (input == nullptr) continue;
      const bool is_reduced = ir::op_info(node.op).kind == ir::OpKind::Reduce;
      if (!is_known(input) && !(is_reduced && is_cast_constant(input))) return false;
      operand_bytes += size_in_bytes(input->type);
    }
    return size_in_bytes(node.output()->type) <= std::max(kSmallBytes, operand_bytes);
  }

  // Constants, and sources that are cheap to make: these stay what they are unless a node that uses
  // them folds.
  static bool is_known(const Value* value) {
    if (literal_of(value) != nullptr) return true;
    if (producer(value, ir::Op::full) == nullptr && producer(value, ir::Op::iota) == nullptr) {
      return false;
    }
    return !has_symbolic_attribute(*value->producer) && size_in_bytes(value->type) <= kSmallBytes;
  }

  // Weights as another dtype, of which a reduction is small: sums of their columns.
  static bool is_cast_constant(const Value* value) {
    const Node* cast = producer(value, ir::Op::cast);
    return cast != nullptr && literal_of(cast->input(0)) != nullptr;
  }

  const Literal* operand(const Value* value, Literal& storage) const {
    if (const Literal* literal = literal_of(value)) return literal;
    std::vector<const Literal*> operands;
    if (is_cast_constant(value)) operands.push_back(literal_of(value->producer->input(0)));
    storage = context_.evaluate(*value->producer, operands)[0];
    return &storage;
  }

  PassContext& context_;
};

}  // namespace

// op(constants) -> constant. Not folded: nodes with symbolic sizes, and results that are large and
// larger than the operands together (an expand, a cast of bytes), which would only make the engine bigger; a
// reduction of such a cast is small and folds. Weights
// are thus never multiplied, but may be permuted; but what a quantiser makes of them is made now. A dequantize that a contraction reads stays,
// however small it is: assign_precision decides about it. So does a cast of bytes that are a weight.
bool fold_constants(ir::Graph& graph, PassContext& context) {
  if (!context.evaluate) return false;
  Folder folder(context);
  return rewrite(graph,
                 [&](Rewriter& rewriter, Node& node) { return folder.fold(rewriter, node); });
}

}  // namespace kiln::passes
