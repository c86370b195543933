// MatMuls of one operand with several constant weights become one with the weights side by side:
// query, key and value projections.
//
// Before: MatMuls without batch loops have the same `a`, constant weights, epilogues that are equal
// but for constants along n, and dense results of their own. Where only some add or multiply by a
// constant, such as a bias, the others do so too, with one that changes nothing. After: one MatMul,
// whose result has their columns side by side; their readers read column ranges of it.
#include <algorithm>
#include <cstring>
#include <functional>
#include <map>

#include "plan/form/kernels.h"
#include "plan/form/rewrite.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

// More are several products: a group that cannot be merged is tried again without its first, and each reader's
// expression is looked through for each of its parts.
constexpr size_t kMostParts = 128;

// Row-major with the columns last: what [..., n] is as m rows.
bool is_dense_result(const Program& program, const MatMul& matmul) {
  const Buffer& buffer = program.buffers[matmul.out.buffer];
  return buffer.kind == BufferKind::Temporary && buffer.type.rank() >= 2 &&
         buffer.type.shape.back() == matmul.n.extent() && matmul.out.offset.is_constant(0) &&
         (matmul.m.extent().is_constant(1) || matmul.out.strides[0] == matmul.n.extent()) &&
         matmul.out.strides[1].is_constant(1) &&
         buffer.type.elements() == matmul.m.extent() * matmul.n.extent();
}

// A weight that is a whole constant of rank 2, with rows along n (transposed) or along k.
bool is_whole_weight(const Program& program, const MatMul& matmul) {
  const Buffer& buffer = program.buffers[matmul.b.buffer];
  if (buffer.kind != BufferKind::Constant || buffer.type.rank() != 2) return false;
  if (!matmul.b.offset.is_constant(0) || !matmul.n.extent().is_constant()) return false;
  const ir::Dim &k = matmul.b.strides[0], &n = matmul.b.strides[1];
  const ir::Shape& shape = buffer.type.shape;
  const bool transposed = k.is_constant(1) && n == shape[1] && shape[0] == matmul.n.extent();
  const bool plain = n.is_constant(1) && k == shape[1] && shape[1] == matmul.n.extent();
  return transposed || plain;
}

bool is_transposed(const MatMul& matmul) { return matmul.b.strides[0].is_constant(1); }

// Scales, or zero points, that can be put side by side: rows along n.
bool is_whole(const Program& program, const View& view, const MatMul& matmul) {
  const ir::Shape& shape = program.buffers[view.buffer].type.shape;
  return shape.size() == 2 && shape[0] == matmul.n.extent() && view.offset.is_constant(0) &&
         view.strides[0].is_constant(1) && view.strides[1] == shape[1];
}

bool has_whole_groups(const Program& program, const MatMul& matmul) {
  if (!matmul.groups) return true;
  const Groups& groups = *matmul.groups;
  return is_transposed(matmul) && is_whole(program, groups.scales, matmul) &&
         (!groups.zeros || is_whole(program, *groups.zeros, matmul));
}

bool is_candidate(const Program& program, const Kernel& kernel) {
  const auto* matmul = std::get_if<MatMul>(&kernel.body);
  return matmul && matmul->batch.empty() && !matmul->pair && is_whole_weight(program, *matmul) &&
         has_whole_groups(program, *matmul) && is_dense_result(program, *matmul);
}

bool same_view(const View& a, const View& b) {
  return a.buffer == b.buffer && a.offset == b.offset && a.strides == b.strides;
}

bool same_groups(const Program& program, const MatMul& a, const MatMul& b) {
  if (!a.groups || !b.groups) return a.groups.has_value() == b.groups.has_value();
  const auto dtype = [&](const MatMul& matmul) {
    return program.buffers[matmul.groups->scales.buffer].type.dtype;
  };
  return a.groups->size == b.groups->size && a.groups->bits == b.groups->bits &&
         a.groups->zeros.has_value() == b.groups->zeros.has_value() && dtype(a) == dtype(b);
}

bool same_shape(const Program& program, const MatMul& a, const MatMul& b) {
  const ir::Shape& x = program.buffers[a.out.buffer].type.shape;
  const ir::Shape& y = program.buffers[b.out.buffer].type.shape;
  const Buffer &weight_a = program.buffers[a.b.buffer], &weight_b = program.buffers[b.b.buffer];
  return same_view(a.a, b.a) && a.formats == b.formats && same_groups(program, a, b) &&
         a.m.extent() == b.m.extent() && a.k.extent() == b.k.extent() &&
         is_transposed(a) == is_transposed(b) && weight_a.type.dtype == weight_b.type.dtype &&
         program.buffers[a.out.buffer].type.dtype == program.buffers[b.out.buffer].type.dtype &&
         std::equal(x.begin(), x.end() - 1, y.begin(), y.end() - 1);
}

// --- Constants side by side ---

// Joins literals along the first axis or, for rank 2, the last.
ir::Literal join(const std::vector<const ir::Literal*>& parts, bool along_first) {
  const int64_t rows = along_first ? 1 : parts[0]->shape[0];
  std::vector<int64_t> shape = parts[0]->shape;
  int64_t& joined = along_first ? shape.front() : shape.back();
  joined = 0;
  for (const ir::Literal* part : parts)
    joined += along_first ? part->shape.front() : part->shape.back();
  std::byte* data = nullptr;
  ir::Literal result = ir::Literal::allocate(parts[0]->dtype, shape, &data);
  for (int64_t row = 0; row < rows; ++row) {
    for (const ir::Literal* part : parts) {
      const size_t bytes = part->bytes.size() / static_cast<size_t>(rows);
      std::memcpy(data, part->bytes.data() + static_cast<size_t>(row) * bytes, bytes);
      data += bytes;
    }
  }
  result.replaceable =
      std::ranges::any_of(parts, [](const ir::Literal* part) { return part->replaceable; });
  return result;
}

class Merger {
 public:
  Merger(Program& program, Uses& uses, std::vector<size_t> group)
      : program_(program), uses_(uses), group_(std::move(group)) {
    for (size_t i = 0; i < group_.size(); ++i) parts_.emplace(matmul(i).out.buffer, i);
  }

  bool run() {
    const MatMul& first = matmul(0);
    for (size_t i = 0; i < group_.size(); ++i) {
      offsets_.push_back(columns_);
      columns_ += matmul(i).n.extent();
    }
    merged_ = first;
    merged_.n = make_loop("n", columns_);
    std::vector<Expr> epilogues;
    for (size_t i = 0; i < group_.size(); ++i) epilogues.push_back(over_common_rows(matmul(i)));
    const auto before = static_cast<std::ptrdiff_t>(program_.buffers.size());
    merged_.epilogue = zip(epilogues);
    std::map<size_t, Kernel> readers = copies_of_readers();
    if (merged_.epilogue) add_result();
    if (!merged_.epilogue || !redirect_readers(readers)) {
      program_.buffers.erase(program_.buffers.begin() + before, program_.buffers.end());
      return false;
    }
    for (auto& [reader, kernel] : readers) program_.kernels[reader] = std::move(kernel);
    commit();
    for (const auto& [reader, kernel] : readers) uses_.update(program_, reader);
    for (const size_t part : group_) uses_.update(program_, part);
    return true;
  }

 private:
  const MatMul& matmul(size_t i) const {
    return std::get<MatMul>(program_.kernels[group_[i]].body);
  }

  Expr over_common_rows(const MatMul& part) const {
    return substitute(part.epilogue, replace_loops({part.m}, {Index(merged_.m.index)}));
  }

  // One expression for all parts: equal nodes stay, constants that run along n are joined. Null if
  // they differ otherwise.
  Expr zip(const std::vector<Expr>& parts) {
    const ExprNode& first = *parts[0];
    const bool alike = std::ranges::all_of(parts, [&](const Expr& part) {
      return part->kind == first.kind && part->op == first.op && part->dtype == first.dtype &&
             part->args.size() == first.args.size();
    });
    if (is_constant_along_n(parts)) return zip_constants(parts);
    if (!alike) return zip_padded(parts);
    switch (first.kind) {
      case ExprKind::Accumulator:
        return parts[0];
      case ExprKind::Apply:
        return zip_apply(parts);
      default:
        return nullptr;
    }
  }

  static bool same_text(const std::vector<Expr>& parts) {
    return std::ranges::all_of(parts,
                               [&](const Expr& p) { return to_string(p) == to_string(parts[0]); });
  }

  // Whether part i is a number, or a constant of which it loads element n.
  bool is_constant_along_n(size_t i, const Expr& part) const {
    if (part->kind == ExprKind::Constant) return true;
    if (part->kind != ExprKind::Load || part->predicate) return false;
    const Buffer& buffer = program_.buffers[part->buffer];
    const auto at = load_indices(*part);
    return buffer.kind == BufferKind::Constant && buffer.type.rank() == 1 && at &&
           (*at)[0].as_symbol() == matmul(i).n.index &&
           buffer.type.shape[0] == matmul(i).n.extent();
  }
  bool is_constant_along_n(const std::vector<Expr>& parts) const {
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i]->dtype != parts[0]->dtype || !is_constant_along_n(i, parts[i])) return false;
    }
    return true;
  }

  Expr zip_constants(const std::vector<Expr>& parts) {
    const bool numbers = std::ranges::all_of(
        parts, [](const Expr& part) { return part->kind == ExprKind::Constant; });
    if (numbers && same_text(parts)) return parts[0];
    const DType dtype = parts[0]->dtype;
    if (!is_floating(dtype)) return nullptr;
    std::vector<ir::Literal> filled(parts.size());
    std::vector<const ir::Literal*> literals;
    std::string name;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (parts[i]->kind == ExprKind::Constant) {
        filled[i] = fill(dtype, matmul(i).n.extent().constant(), parts[i]->number);
        literals.push_back(&filled[i]);
      } else {
        literals.push_back(&program_.buffers[parts[i]->buffer].literal);
        if (name.empty()) name = program_.buffers[parts[i]->buffer].name;
      }
    }
    ir::Literal joined = join(literals, true);
    ir::Type type = joined.type();
    const BufferId buffer =
        program_.add_buffer({BufferKind::Constant, (name.empty() ? "columns" : name) + "_merged",
                             std::move(type), std::move(joined), -1});
    return load_at(buffer, dtype, {Index(merged_.n.index)});
  }

  static ir::Literal fill(DType dtype, int64_t count, double value) {
    std::byte* data = nullptr;
    ir::Literal literal = ir::Literal::allocate(dtype, {count}, &data);
    for (int64_t i = 0; i < count; ++i) ir::Literal::set(data, dtype, i, value);
    return literal;
  }

  // --- Parts that lack a step ---

  static bool uses_sum(const Expr& expr) {
    bool result = false;
    visit(expr, [&](const ExprNode& node) { result |= node.kind == ExprKind::Accumulator; });
    return result;
  }

  // The operand of a sum or product that holds the finished sum, where the other does not.
  static std::optional<size_t> main_operand(const ExprNode& node) {
    const bool step = node.kind == ExprKind::Apply && is_floating(node.dtype) &&
                      (node.op == ir::Op::add || node.op == ir::Op::mul);
    if (!step || uses_sum(node.args[0]) == uses_sum(node.args[1])) return std::nullopt;
    return uses_sum(node.args[0]) ? 0 : 1;
  }

  // An operand like another, of a value that changes nothing: null where it is no constant.
  static Expr neutral_like(const Expr& operand, double value) {
    if (operand->kind == ExprKind::Apply && operand->op == ir::Op::cast) {
      const Expr inner = neutral_like(operand->args[0], value);
      return inner ? cast(inner, operand->dtype) : nullptr;
    }
    const bool known = operand->kind == ExprKind::Constant || operand->kind == ExprKind::Load;
    return known && is_floating(operand->dtype) ? constant(operand->dtype, value) : nullptr;
  }

  // The step that some parts have and others lack, in all of them.
  Expr zip_padded(const std::vector<Expr>& parts) {
    for (const Expr& model : parts) {
      const auto main = main_operand(*model);
      if (!main) continue;
      // x + -0 is x, whatever x is.
      const Expr neutral =
          neutral_like(model->args[1 - *main], model->op == ir::Op::add ? -0.0 : 1.0);
      if (!neutral) continue;
      std::vector<Expr> sums, others;
      for (const Expr& part : parts) {
        const bool has_step =
            part->kind == ExprKind::Apply && part->op == model->op && main_operand(*part) == main;
        sums.push_back(has_step ? part->args[*main] : part);
        others.push_back(has_step ? part->args[1 - *main] : neutral);
        if (part->dtype != model->dtype) return nullptr;
      }
      std::vector<Expr> args(2);
      args[*main] = zip(sums);
      args[1 - *main] = zip_with_casts(others);
      if (!args[0] || !args[1]) continue;
      return apply(model->op, std::move(args));
    }
    return nullptr;
  }

  // Operands of a step; cast() has folded those that are numbers.
  Expr zip_with_casts(const std::vector<Expr>& parts) {
    if (Expr result = zip(parts)) return result;
    const auto is_cast = [](const Expr& part) {
      return part->kind == ExprKind::Apply && part->op == ir::Op::cast;
    };
    const auto model = std::ranges::find_if(parts, is_cast);
    if (model == parts.end()) return nullptr;
    std::vector<Expr> inner;
    for (const Expr& part : parts) {
      if (is_cast(part)) {
        inner.push_back(part->args[0]);
      } else if (part->kind == ExprKind::Constant) {
        inner.push_back(constant((*model)->args[0]->dtype, part->number));
      } else {
        return nullptr;
      }
    }
    const Expr zipped = zip(inner);
    return zipped ? cast(zipped, (*model)->dtype) : nullptr;
  }

  Expr zip_apply(const std::vector<Expr>& parts) {
    const ExprNode& first = *parts[0];
    const bool same = std::ranges::all_of(parts, [&](const Expr& part) {
      return part->op == first.op && part->gelu_tanh == first.gelu_tanh;
    });
    if (!same) return nullptr;
    std::vector<Expr> args;
    for (size_t k = 0; k < first.args.size(); ++k) {
      std::vector<Expr> operands;
      for (const Expr& part : parts) operands.push_back(part->args[k]);
      args.push_back(zip(operands));
      if (!args.back()) return nullptr;
    }
    if (first.op == ir::Op::cast) return cast(args[0], first.dtype);
    if (first.op == ir::Op::gelu) return apply_gelu(args[0], first.gelu_tanh);
    return apply(first.op, std::move(args));
  }

  void add_result() {
    ir::Type type = program_.buffers[matmul(0).out.buffer].type;
    type.shape.back() = columns_;
    const std::string name = program_.buffers[matmul(0).out.buffer].name + "_merged";
    result_ = program_.add_buffer({BufferKind::Temporary, name, std::move(type), {}, -1});
    merged_.out = {result_, 0, {columns_, 1}};
  }

  // --- Readers ---

  std::optional<size_t> part_of(BufferId buffer) const {
    const auto found = parts_.find(buffer);
    return found == parts_.end() ? std::nullopt : std::optional(found->second);
  }

  std::map<size_t, Kernel> copies_of_readers() const {
    std::map<size_t, Kernel> copies;
    for (const auto& [buffer, part] : parts_)
      for (const size_t reader : uses_.readers[buffer])
        copies.try_emplace(reader, program_.kernels[reader]);
    return copies;
  }

  bool redirect_readers(std::map<size_t, Kernel>& readers) {
    return std::ranges::all_of(readers, [&](auto& reader) { return redirect(reader.second); });
  }

  bool redirect(Kernel& kernel) {
    transform_exprs(kernel, [&](const Expr& expr) {
      return rewrite(expr, [&](const ExprNode& node) -> Expr {
        const auto part = node.kind == ExprKind::Load ? part_of(node.buffer) : std::nullopt;
        if (!part) return nullptr;
        std::vector<Expr> at = node.args;
        at.back() = apply(ir::Op::add, {at.back(), position(offsets_[*part])});
        return load(result_, node.dtype, std::move(at), node.predicate);
      });
    });
    if (const auto* c = std::get_if<Convolution>(&kernel.body)) return !part_of(c->input);
    if (auto* m = std::get_if<MatMul>(&kernel.body)) {
      return redirect(m->a, with_loops(m->batch, {m->m, m->k})) &&
             redirect(m->b, with_loops(m->batch, {m->k, m->n}));
    }
    auto* a = std::get_if<Attention>(&kernel.body);
    if (!a) return true;
    const Loop d = make_loop("d", a->head_dim), e = make_loop("e", a->value_dim);
    return redirect(a->q, with_loops(a->batch, {a->i, d})) &&
           redirect(a->k, with_loops(a->batch, {a->j, d})) &&
           redirect(a->v, with_loops(a->batch, {a->j, e}));
  }

  // offset = row * n + column of the part is row * columns + column + first column of the merged
  // result.
  bool redirect(View& view, const std::vector<Loop>& loops) {
    const auto part = part_of(view.buffer);
    if (!part) return true;
    Index offset = view.offset;
    for (size_t i = 0; i < loops.size(); ++i) offset += view.strides[i] * Index(loops[i].index);
    const ir::Dim& columns = matmul(*part).n.extent();
    const Index moved =
        ir::floordiv(offset, columns) * columns_ + ir::mod(offset, columns) + offsets_[*part];
    auto affine = as_affine(moved, loops);
    if (!affine) return false;
    view = {result_, std::move(affine->base), std::move(affine->strides)};
    return true;
  }

  // --- The result ---

  // A constant that holds those of all parts, side by side.
  BufferId joined(bool along_first, const std::function<const View&(const MatMul&)>& view) {
    std::vector<const ir::Literal*> parts;
    for (size_t i = 0; i < group_.size(); ++i)
      parts.push_back(&program_.buffers[view(matmul(i)).buffer].literal);
    ir::Literal literal = join(parts, along_first);
    ir::Type type = literal.type();
    const std::string name = program_.buffers[view(matmul(0)).buffer].name + "_merged";
    return program_.add_buffer(
        {BufferKind::Constant, name, std::move(type), std::move(literal), -1});
  }

  void commit() {
    const bool transposed = is_transposed(merged_);
    merged_.b.buffer = joined(transposed, [](const MatMul& part) -> const View& { return part.b; });
    if (!transposed) merged_.b.strides[0] = columns_;
    if (merged_.groups) {
      Groups& groups = *merged_.groups;
      groups.scales.buffer =
          joined(true, [](const MatMul& part) -> const View& { return part.groups->scales; });
      if (groups.zeros)
        groups.zeros->buffer =
            joined(true, [](const MatMul& part) -> const View& { return *part.groups->zeros; });
    }
    Kernel& first = program_.kernels[group_[0]];
    first.body = merged_;
    for (size_t i = 1; i < group_.size(); ++i) {
      Kernel& other = program_.kernels[group_[i]];
      first.sources.insert(first.sources.end(), other.sources.begin(), other.sources.end());
      make_empty(other);
    }
  }

  Program& program_;
  Uses& uses_;
  const std::vector<size_t> group_;
  std::map<BufferId, size_t> parts_;  // by result
  std::vector<ir::Dim> offsets_;
  ir::Dim columns_;
  MatMul merged_;
  BufferId result_ = -1;
};

std::vector<size_t> group_of(const Program& program, const Uses& uses, size_t first) {
  std::vector<size_t> group = {first};
  const auto& matmul = std::get<MatMul>(program.kernels[first].body);
  const std::vector<size_t>& readers = uses.readers[matmul.a.buffer];
  for (auto i = std::ranges::upper_bound(readers, first); i != readers.end(); ++i) {
    if (group.size() == kMostParts) break;
    if (!is_candidate(program, program.kernels[*i])) continue;
    if (same_shape(program, matmul, std::get<MatMul>(program.kernels[*i].body)))
      group.push_back(*i);
  }
  return group;
}

}  // namespace

bool merge_matmuls(Program& program) {
  bool changed = false;
  Uses uses(program);
  for (size_t i = 0; i < program.kernels.size(); ++i) {
    if (!is_candidate(program, program.kernels[i])) continue;
    std::vector<size_t> group = group_of(program, uses, i);
    if (group.size() > 1) changed |= Merger(program, uses, std::move(group)).run();
  }
  if (changed) remove_empty(program);
  return changed;
}

}  // namespace kiln::plan
