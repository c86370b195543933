// Matrix products.
#include <algorithm>

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

Value* import_matmul(NodeCall& call) {
  return call.aten("aten.matmul.default", {{"self", call.input(0)}, {"other", call.input(1)}});
}

Value* transposed(NodeCall& call, Value* matrix, bool transposes) {
  return transposes ? call.builder().permute(matrix, {1, 0}) : matrix;
}

bool is_constant(const Value* value) {
  return value->producer != nullptr && value->producer->op == Op::constant;
}

// alpha * A * B + beta * C: a linear layer, where it is one.
Value* import_gemm(NodeCall& call) {
  Value *a = call.input(0), *b = call.input(1), *c = call.optional_input(2);
  call.expect(a->type.rank() == 2 && b->type.rank() == 2,
              "operands of ranks " + std::to_string(a->type.rank()) + " and " +
                  std::to_string(b->type.rank()),
              "matrices");
  if (call.version() < 7) call.ignore("broadcast");
  const double alpha = call.real_or("alpha", 1), beta = call.real_or("beta", 1);
  const bool turned = call.flag_or("transB", false);
  a = transposed(call, a, call.flag_or("transA", false));
  const bool adds = c != nullptr && beta != 0;
  if (!is_floating(a->type.dtype)) {
    const Expr product = call.expr(
        call.aten("aten.matmul.default", {{"self", a}, {"other", transposed(call, b, turned)}}));
    const Expr scaled = alpha == 1 ? product : product * alpha;
    return adds ? scaled + (beta == 1 ? call.expr(c) : call.expr(c) * beta) : scaled;
  }
  const Dim columns = b->type.shape[turned ? 0 : 1];
  const bool is_bias = adds && c->type.rank() == 1 && ir::provably_equal(c->type.shape[0], columns);
  if (alpha == 1 && (!adds || (is_bias && beta == 1)) && (turned || is_constant(b))) {
    std::vector<Value*> operands{a, transposed(call, b, !turned)};
    if (adds) operands.push_back(c);
    return call.make(Op::linear, operands);
  }
  Value* product = call.make(Op::matmul, {a, b}, {{"transpose_b", turned}});
  return composed(call, product, [&](const Expr& x) {
    const Expr result = alpha == 1 ? x : x * alpha;
    if (!adds) return result;
    const Expr added = call.expr(call.builder().cast(c, x.value()->type.dtype));
    return result + (beta == 1 ? added : added * beta);
  });
}

struct Equation {
  std::vector<std::string> operands;
  std::string result;
};

Equation parse_equation(NodeCall& call) {
  std::string text = call.text_or("equation", "");
  std::erase(text, ' ');
  const size_t arrow = text.find("->");
  Equation equation{{}, arrow == std::string::npos ? "" : text.substr(arrow + 2)};
  const std::string left = text.substr(0, arrow);
  for (size_t start = 0; start <= left.size();) {
    const size_t comma = std::min(left.find(',', start), left.size());
    equation.operands.push_back(left.substr(start, comma - start));
    start = comma + 1;
  }
  if (arrow != std::string::npos) return equation;
  // Without an arrow: the axes of the ellipsis, then the letters that occur once.
  if (left.find("...") != std::string::npos) equation.result = "...";
  for (int letter = 'A'; letter <= 'z'; ++letter)
    if (std::ranges::count(left, static_cast<char>(letter)) == 1)
      equation.result += static_cast<char>(letter);
  return equation;
}

constexpr std::string_view kEllipsis = "...";

// The axes of an ellipsis get digits as letters, from the last one on.
std::string spell_ellipsis(std::string letters, size_t axes) {
  const size_t at = letters.find(kEllipsis);
  if (at == std::string::npos) return letters;
  std::string digits;
  for (size_t i = axes; i-- > 0;) digits += static_cast<char>('0' + i);
  return letters.replace(at, kEllipsis.size(), digits);
}

// PyTorch's, in which letters mean one size and are spelled out: axes of size 1 that broadcast go.
Value* import_einsum(NodeCall& call) {
  Equation equation = parse_equation(call);
  std::vector<Value*> operands = call.inputs();
  call.expect(equation.operands.size() == operands.size(),
              std::to_string(operands.size()) + " operands",
              std::to_string(equation.operands.size()));
  size_t most = 0;
  for (size_t i = 0; i < operands.size(); ++i) {
    std::string& letters = equation.operands[i];
    if (letters.find(kEllipsis) == std::string::npos) continue;
    const size_t named = letters.size() - kEllipsis.size(), rank = operands[i]->type.rank();
    call.expect(named <= rank && rank - named < 10,
                "\"" + letters + "\" for rank " + std::to_string(rank),
                "no more letters than axes");
    letters = spell_ellipsis(letters, rank - named);
    most = std::max(most, rank - named);
  }
  equation.result = spell_ellipsis(equation.result, most);
  std::string text;
  for (size_t i = 0; i < operands.size(); ++i) {
    const std::string& letters = equation.operands[i];
    call.expect(letters.size() == operands[i]->type.rank(), "\"" + letters + "\"",
                "one letter per axis");
    Shape shape;
    std::string kept;
    for (size_t k = 0; k < letters.size(); ++k) {
      const Dim& size = operands[i]->type.shape[k];
      bool larger = false;
      for (size_t other = 0; other < operands.size(); ++other) {
        const size_t at = equation.operands[other].find(letters[k]);
        larger =
            larger || (other != i && at != std::string::npos && at < operands[other]->type.rank() &&
                       !operands[other]->type.shape[at].is_constant(1));
      }
      if (size.is_constant(1) && larger) continue;
      shape.push_back(size);
      kept += letters[k];
    }
    operands[i] = call.builder().reshape(operands[i], shape);
    text += (i == 0 ? "" : ",") + kept;
  }
  return call.aten("aten.einsum.default",
                   {{"equation", text + "->" + equation.result}, {"tensors", operands}});
}

constexpr OperatorRow kRows[] = {
    {"Einsum", import_einsum},
    {"Gemm", import_gemm},
    {"MatMul", import_matmul},
};

}  // namespace

OperatorRows contract_operators() { return kRows; }

}  // namespace kiln::import::onnx
