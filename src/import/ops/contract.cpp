// Matrix products.
#include <algorithm>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

// Integers: a sum of products like any other, in one kernel; targets have no better one.
Value* integer_matmul(Call& call, Value* a, Value* b) {
  call.expect(a->type.dtype != DType::Bool, "operands of bool", "numbers");
  const int64_t rank_a = static_cast<int64_t>(a->type.rank());
  std::vector<int64_t> transposed = range(0, static_cast<int64_t>(b->type.rank()));
  std::swap(transposed.back(), transposed[transposed.size() - 2]);
  b = call.builder().permute(b, transposed);
  const Expr row(call, unsqueeze(call, a, rank_a - 1));
  const Expr column(call, unsqueeze(call, b, static_cast<int64_t>(b->type.rank()) - 2));
  const Expr products = row * column;
  return reduce(call, Op::reduce_sum, products,
                {static_cast<int64_t>(products.value()->type.rank()) - 1}, false);
}

// torch.matmul: vectors become matrices, and lose the axis again.
Value* general_matmul(Call& call, Value* a, Value* b) {
  const size_t rank_a = a->type.rank(), rank_b = b->type.rank();
  call.expect(rank_a > 0 && rank_b > 0, "a scalar", "rank 1 or more");
  if (rank_a == 1) a = unsqueeze(call, a, 0);
  if (rank_b == 1) b = unsqueeze(call, b, 1);
  Value* product = matmul(call, a, b);
  ir::Shape shape = product->type.shape;
  if (rank_b == 1) shape.pop_back();
  if (rank_a == 1) shape.erase(shape.end() - (rank_b == 1 ? 1 : 2));
  return call.builder().reshape(product, shape);
}

Value* import_matmul(Call& call) {
  return general_matmul(call, call.tensor("self"), call.tensor("other"));
}
Value* import_mm(Call& call) { return matmul(call, call.tensor("self"), call.tensor("mat2")); }
// Products of bytes are exact in f64 for any K that there is memory for, as PyTorch's sums of i32 are
// unless they overflow.
Value* import_int_mm(Call& call) {
  const auto number = [&](const char* name) {
    Value* x = call.tensor(name);
    const bool is_byte = x->type.dtype == DType::I8 || x->type.dtype == DType::U8;
    call.expect(is_byte, std::string(name) + " of " + std::string(dtype_name(x->type.dtype)),
                "i8 or u8");
    return call.builder().cast(x, DType::F64);
  };
  return call.builder().cast(matmul(call, number("self"), number("mat2")), DType::I32);
}
Value* import_mv(Call& call) {
  return general_matmul(call, call.tensor("self"), call.tensor("vec"));
}
Value* import_dot(Call& call) {
  return general_matmul(call, call.tensor("self"), call.tensor("tensor"));
}

Value* import_linear(Call& call) {
  Value *x = call.tensor("input"), *weight = call.tensor("weight");
  if (weight->type.rank() == 1) return general_matmul(call, x, weight);
  if (!is_floating(x->type.dtype)) {
    const Expr product(call, general_matmul(call, x, call.builder().permute(weight, {1, 0})));
    Value* bias = call.optional_tensor("bias");
    return bias == nullptr ? product : product + Expr(call, bias);
  }
  std::vector<Value*> operands{x, weight};
  if (Value* bias = call.optional_tensor("bias")) {
    if (bias->type.rank() != 1) {
      return Expr(call, call.make(Op::linear, operands)) + Expr(call, bias);
    }
    operands.push_back(bias);
  }
  return call.make(Op::linear, operands);
}

// beta * self + alpha * product
Value* add_product(Call& call, Value* product) {
  const double alpha = call.real_or("alpha", 1), beta = call.real_or("beta", 1);
  Expr result(call, product);
  if (alpha != 1) result = result * alpha;
  if (beta == 0) return result;
  Expr self(call, call.tensor("self"));
  if (beta != 1) self = self * beta;
  return result + self;
}

// A row added to a product of 16 bits is a bias, which needs no f32 copies of the operands.
bool adds_bias(Call& call) {
  const ir::Type& type = call.tensor("self")->type;
  return is_16_bit_float(type.dtype) && type.rank() == 1 && !type.shape[0].is_constant(1) &&
         call.real_or("alpha", 1) == 1 && call.real_or("beta", 1) == 1;
}

Value* import_addmm(Call& call) {
  if (adds_bias(call)) {
    Value* weight = call.builder().permute(call.tensor("mat2"), {1, 0});
    return call.make(Op::linear, {call.tensor("mat1"), weight, call.tensor("self")});
  }
  call.compute_in_f32();
  return add_product(call, matmul(call, call.tensor("mat1"), call.tensor("mat2")));
}
Value* import_baddbmm(Call& call) {
  return add_product(call, matmul(call, call.tensor("batch1"), call.tensor("batch2")));
}
Value* import_addmv(Call& call) {
  return add_product(call, general_matmul(call, call.tensor("mat"), call.tensor("vec")));
}
Value* import_addbmm(Call& call) {
  Value* products = matmul(call, call.tensor("batch1"), call.tensor("batch2"));
  return add_product(call, reduce(call, Op::reduce_sum, products, {0}, false));
}

Value* import_outer(Call& call) {
  const std::vector<Value*> vectors =
      promote(call.builder(), {call.operand("self"), call.operand("vec2")});
  return Expr(call, unsqueeze(call, vectors[0], 1)) * Expr(call, unsqueeze(call, vectors[1], 0));
}

// sum over i and j of x[i] * weight[o, i, j] * y[j]: a linear layer of x that gives [o, j], then of y.
Value* import_bilinear(Call& call) {
  Value *x = call.tensor("input1"), *y = call.tensor("input2"), *weight = call.tensor("weight");
  const ir::Shape sizes = weight->type.shape;
  call.expect(sizes.size() == 3, "weights of shape " + shape_text(sizes),
              "[outputs, size of input1, size of input2]");
  ir::Builder& builder = call.builder();
  Value* matrix =
      builder.reshape(builder.permute(weight, {0, 2, 1}), {sizes[0] * sizes[2], sizes[1]});
  Value* products = is_floating(x->type.dtype)
                        ? call.make(Op::linear, {x, matrix})
                        : general_matmul(call, x, builder.permute(matrix, {1, 0}));
  ir::Shape shape = products->type.shape;
  shape.back() = sizes[0];
  shape.push_back(sizes[2]);
  const auto axis = static_cast<int64_t>(shape.size()) - 1;
  const Expr by(call, unsqueeze(call, y, axis - 1));
  const Expr terms = Expr(call, builder.reshape(products, shape)) * by;
  const Expr sum(call, reduce(call, Op::reduce_sum, terms, {axis}, false));
  Value* bias = call.optional_tensor("bias");
  return bias == nullptr ? sum : sum + Expr(call, bias);
}

// One operand of an einsum: its letters and its value.
struct Factor {
  std::string letters;
  Value* value;
};

// Sums over letters that occur nowhere else.
Factor drop_letters(Call& call, Factor factor, const std::string& needed) {
  std::vector<int64_t> axes;
  std::string kept;
  for (size_t i = 0; i < factor.letters.size(); ++i) {
    if (needed.find(factor.letters[i]) == std::string::npos) {
      axes.push_back(static_cast<int64_t>(i));
    } else {
      kept += factor.letters[i];
    }
  }
  return {kept, reduce(call, Op::reduce_sum, factor.value, axes, false)};
}

// The axes of a factor in the order of `letters`.
Factor order_letters(Call& call, const Factor& factor, const std::string& letters) {
  std::vector<int64_t> axes;
  for (char letter : letters) axes.push_back(static_cast<int64_t>(factor.letters.find(letter)));
  return {letters, call.builder().permute(factor.value, axes)};
}

ir::Shape sizes_of(const Factor& factor, const std::string& letters) {
  ir::Shape shape;
  for (char letter : letters)
    shape.push_back(factor.value->type.shape[factor.letters.find(letter)]);
  return shape;
}

// Two factors to one, by a batched matrix product: batch letters are in both and needed later,
// contracted ones in both and not needed.
Factor multiply(Call& call, const Factor& a, const Factor& b, const std::string& needed) {
  std::string batch, contracted, rows, columns;
  for (char letter : a.letters) {
    const bool shared = b.letters.find(letter) != std::string::npos;
    const bool later = needed.find(letter) != std::string::npos;
    (shared ? (later ? batch : contracted) : rows) += letter;
  }
  for (char letter : b.letters) {
    if (a.letters.find(letter) == std::string::npos) columns += letter;
  }
  const ir::Shape batch_sizes = sizes_of(a, batch), row_sizes = sizes_of(a, rows),
                  column_sizes = sizes_of(b, columns);
  const ir::Dim depth = ir::product(sizes_of(a, contracted));
  const auto matrix = [&](const Factor& factor, const std::string& letters, const ir::Dim& m,
                          const ir::Dim& n) {
    ir::Shape shape = batch_sizes;
    shape.insert(shape.end(), {m, n});
    return call.builder().reshape(order_letters(call, factor, letters).value, shape);
  };
  Value* left = matrix(a, batch + rows + contracted, ir::product(row_sizes), depth);
  Value* right = matrix(b, batch + contracted + columns, depth, ir::product(column_sizes));
  ir::Shape shape = batch_sizes;
  shape.insert(shape.end(), row_sizes.begin(), row_sizes.end());
  shape.insert(shape.end(), column_sizes.begin(), column_sizes.end());
  return {batch + rows + columns, call.builder().reshape(matmul(call, left, right), shape)};
}

struct Equation {
  std::vector<std::string> operands;
  std::string result;
  bool has_arrow = false;
};

// Letters for the axes of "...", the last of them first: axes of different operands are aligned at the right.
constexpr std::string_view kEllipsis = "...";
constexpr std::string_view kEllipsisLetters = "!#$%&*+/:;<=?@";

std::string ellipsis_letters(size_t rank) {
  const std::string_view letters = kEllipsisLetters.substr(0, rank);
  return {letters.rbegin(), letters.rend()};
}

// Replaces "..." by letters.
void name_ellipsis(Call& call, Equation& equation, std::vector<Value*>& tensors) {
  std::vector<size_t> ranks(tensors.size(), 0);
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::string& letters = equation.operands[i];
    const size_t at = letters.find(kEllipsis), named = letters.size() - kEllipsis.size();
    if (at == std::string::npos) continue;
    const size_t rank = tensors[i]->type.rank();
    call.expect(rank >= named && rank - named <= kEllipsisLetters.size(),
                "\"" + letters + "\" for rank " + std::to_string(rank), "an axis for each letter");
    ranks[i] = rank - named;
    letters.replace(at, kEllipsis.size(), ellipsis_letters(ranks[i]));
  }
  const size_t most = ranks.empty() ? 0 : *std::ranges::max_element(ranks);
  const size_t at = equation.result.find(kEllipsis);
  if (at != std::string::npos) {
    equation.result.replace(at, kEllipsis.size(), ellipsis_letters(most));
  } else if (!equation.has_arrow) {
    equation.result.insert(0, ellipsis_letters(most));
  }
}

// Axes of size 1 broadcast with others of their letter: they lose the letter, and the operand the axis.
void drop_broadcast_axes(Call& call, Equation& equation, std::vector<Value*>& tensors) {
  std::string letters;
  for (const std::string& operand : equation.operands) letters += operand;
  for (const char letter : letters) {
    std::vector<size_t> ones;
    size_t users = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const size_t axis = equation.operands[i].find(letter);
      if (axis == std::string::npos) continue;
      ++users;
      if (tensors[i]->type.shape[axis].is_constant(1)) ones.push_back(i);
    }
    if (ones.size() == users) continue;
    for (const size_t i : ones) {
      ir::Shape shape = tensors[i]->type.shape;
      const size_t axis = equation.operands[i].find(letter);
      shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis));
      equation.operands[i].erase(axis, 1);
      tensors[i] = call.builder().reshape(tensors[i], shape);
    }
  }
}

Equation parse_equation(std::string text) {
  std::erase(text, ' ');
  Equation equation;
  const size_t arrow = text.find("->");
  const std::string left = text.substr(0, arrow);
  for (size_t start = 0; start <= left.size();) {
    const size_t comma = std::min(left.find(',', start), left.size());
    equation.operands.push_back(left.substr(start, comma - start));
    start = comma + 1;
  }
  if (arrow != std::string::npos) {
    equation.result = text.substr(arrow + 2);
    equation.has_arrow = true;
    return equation;
  }
  // Without an arrow: the letters that occur once, in alphabetical order, capitals first.
  for (int letter = 'A'; letter <= 'z'; ++letter) {
    if (std::count(left.begin(), left.end(), static_cast<char>(letter)) == 1) {
      equation.result += static_cast<char>(letter);
    }
  }
  return equation;
}

// A letter that an operand has twice is for the diagonal of both axes.
void take_diagonals(Call& call, std::string& letters, Value*& x) {
  for (size_t i = 0; i < letters.size(); ++i) {
    for (size_t k; (k = letters.find(letters[i], i + 1)) != std::string::npos;) {
      const ir::Dim size = x->type.shape[i];
      call.expect(size == x->type.shape[k], "a repeated letter for sizes that differ",
                  "equal sizes");
      const auto first = static_cast<int64_t>(i), second = static_cast<int64_t>(k);
      std::vector<int64_t> order = range(0, static_cast<int64_t>(letters.size()));
      order.erase(order.begin() + second);
      order.erase(order.begin() + first);
      order.insert(order.begin(), {first, second});
      Value* index = iota(call, size);
      Value* diagonal = call.make(Op::gather_nd, {call.builder().permute(x, order), index, index},
                                  {{"axis", int64_t{0}}});
      letters.erase(k, 1);
      x = move_axis(call, diagonal, 0, first);
    }
  }
}

DType result_dtype(Call& call) {
  return call.scope().recorded_type(call.node().output_names().at(0)).dtype;
}

Value* import_einsum(Call& call) {
  Equation equation = parse_equation(call.text_or("equation", ""));
  std::vector<Value*> tensors = call.tensors("tensors");
  call.expect(tensors.size() == equation.operands.size(),
              std::to_string(tensors.size()) + " operands",
              std::to_string(equation.operands.size()));
  // Sums of small integers are i64.
  for (Value*& x : tensors)
    if (!is_floating(x->type.dtype)) x = call.builder().cast(x, result_dtype(call));
  name_ellipsis(call, equation, tensors);
  std::string seen;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const std::string letters = equation.operands[i];
    call.expect(letters.size() == tensors[i]->type.rank(),
                "\"" + letters + "\" for rank " + std::to_string(tensors[i]->type.rank()),
                "one letter per axis");
    take_diagonals(call, equation.operands[i], tensors[i]);
    seen += letters;
  }
  drop_broadcast_axes(call, equation, tensors);
  for (char letter : equation.result) {
    const bool once =
        std::ranges::count(equation.result, letter) == 1 && seen.find(letter) != std::string::npos;
    call.expect(once, "the result \"" + equation.result + "\"",
                "letters of the operands, each once");
  }
  Factor product{equation.operands[0], tensors[0]};
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::string needed = equation.result;
    for (size_t k = i + 1; k < tensors.size(); ++k) needed += equation.operands[k];
    if (i == 0) {
      product = drop_letters(call, product, needed);
      continue;
    }
    const Factor next =
        drop_letters(call, {equation.operands[i], tensors[i]}, needed + product.letters);
    product = multiply(call, drop_letters(call, product, needed + next.letters), next, needed);
  }
  return order_letters(call, product, equation.result).value;
}

constexpr Row kRows[] = {
    {"aten._int_mm.default", import_int_mm},
    {"aten.mm.default", import_mm},
    {"aten.bmm.default", import_mm},
    {"aten.matmul.default", import_matmul},
    {"aten.mv.default", import_mv},
    {"aten.dot.default", import_dot},
    {"aten.linear.default", import_linear},
    {"aten.addmm.default", import_addmm},
    {"aten.baddbmm.default", in_f32<import_baddbmm>},
    {"aten.addbmm.default", in_f32<import_addbmm>},
    {"aten.addmv.default", in_f32<import_addmv>},
    {"aten.outer.default", import_outer},
    {"aten.ger.default", import_outer},
    {"aten.bilinear.default", in_f32<import_bilinear>},
    {"aten.einsum.default", import_einsum},
};

}  // namespace

Value* matmul(Call& call, Value* a, Value* b) {
  if (!is_floating(a->type.dtype)) return integer_matmul(call, a, b);
  return call.make(Op::matmul, {a, b}, {{"transpose_b", false}});
}

Rows contract_rows() { return kRows; }

}  // namespace kiln::import
