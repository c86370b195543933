// Random graphs: whatever the passes do to them, the result stays what the reference computes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "ir/builder.h"
#include "ir/text.h"
#include "plan/compare.h"

namespace kiln::plan {
namespace {

using ir::Attrs;
using ir::Dim;
using ir::Op;
using ir::Shape;
using ir::Value;

// Grows a graph over values of shape [s, 2, 6], [s, 12] and relatives, one random op at a time.
class GraphMaker {
 public:
  explicit GraphMaker(uint32_t seed) : random_(seed), builder_(graph_) {
    const ir::SymbolPtr s = ir::make_size_symbol("s", 1, 8, 3);
    add(graph_.add_input("x", {DType::F32, {s, 2, 6}}));
    add(graph_.add_input("y", {DType::F32, {s, 12}}));
    add(graph_.add_input("z", {DType::F32, {6}}));
  }

  ir::Graph make(int operations) {
    while (made_ < operations) step();
    std::vector<Value*> outputs = {values_.back()};
    if (pick(2) == 0) outputs.push_back(any());
    if (pick(4) == 0) outputs.push_back(any());
    graph_.set_outputs(outputs);
    return std::move(graph_);
  }

 private:
  size_t pick(size_t count) { return std::uniform_int_distribution<size_t>(0, count - 1)(random_); }
  // Recent values more often, so that chains grow.
  Value* any() {
    const size_t window = std::min<size_t>(values_.size(), pick(3) == 0 ? values_.size() : 4);
    return values_[values_.size() - 1 - pick(window)];
  }
  void add(Value* value) { values_.push_back(value); }
  void make(Op op, std::vector<Value*> inputs, Attrs attrs = {}) {
    add(builder_.value(op, std::move(inputs), std::move(attrs)));
    ++made_;
  }

  void step() {
    switch (pick(14)) {
      case 0:
      case 1:
        return unary();
      case 2:
      case 3:
      case 4:
        return binary();
      case 5:
      case 6:
        return reshape();
      case 7:
        return permute();
      case 8:
        return slice();
      case 9:
        return reduce();
      case 10:
        return normalise();
      case 11:
        return concat();
      case 12:
        return linear();
      default:
        return attention_or_pad();
    }
  }

  void unary() {
    static constexpr Op kOps[] = {Op::neg, Op::tanh, Op::relu, Op::sigmoid, Op::abs, Op::sin};
    make(kOps[pick(std::size(kOps))], {any()});
  }

  // With a value that broadcasts to it, if one is found.
  void binary() {
    static constexpr Op kOps[] = {Op::add, Op::mul, Op::sub, Op::maximum};
    Value* a = any();
    for (int attempt = 0; attempt < 6; ++attempt) {
      Value* b = any();
      try {
        if (ir::broadcast_shapes(a->type.shape, b->type.shape).size() > 5) continue;
      } catch (const std::exception&) {
        continue;
      }
      return make(kOps[pick(std::size(kOps))], {a, b});
    }
  }

  // Merges two neighbouring axes or splits one in two.
  void reshape() {
    Value* x = any();
    Shape shape = x->type.shape;
    if (shape.empty()) return;
    const size_t axis = pick(shape.size());
    if (pick(2) == 0 && axis + 1 < shape.size()) {
      shape[axis] = shape[axis] * shape[axis + 1];
      shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(axis) + 1);
    } else {
      const int64_t factor = pick(2) == 0 ? 2 : 3;
      if (!ir::provably_divisible(shape[axis], factor) || shape.size() > 4) return;
      shape[axis] = ir::floordiv(shape[axis], factor);
      shape.insert(
          shape.begin() + static_cast<std::ptrdiff_t>(axis) + static_cast<std::ptrdiff_t>(pick(2)),
          Dim(factor));
    }
    make(Op::reshape, {x}, {{"shape", shape}});
  }

  void permute() {
    Value* x = any();
    std::vector<int64_t> axes(x->type.rank());
    for (size_t i = 0; i < axes.size(); ++i) axes[i] = static_cast<int64_t>(i);
    std::shuffle(axes.begin(), axes.end(), random_);
    make(Op::permute, {x}, {{"axes", axes}});
  }

  void slice() {
    Value* x = any();
    if (x->type.rank() == 0) return;
    const size_t axis = pick(x->type.rank());
    const Dim& size = x->type.shape[axis];
    if (!size.is_constant() || size.constant() < 2) return;
    const int64_t kept = size.constant() / 2;
    make(Op::slice, {x},
         {{"axis", static_cast<int64_t>(axis)},
          {"start", Dim(static_cast<int64_t>(pick(2)))},
          {"size", Dim(kept)},
          {"step", int64_t{1}}});
  }

  void reduce() {
    static constexpr Op kOps[] = {Op::reduce_sum, Op::reduce_mean, Op::reduce_max};
    Value* x = any();
    if (x->type.rank() < 2) return;
    const std::vector<int64_t> axes = {static_cast<int64_t>(pick(x->type.rank()))};
    make(kOps[pick(std::size(kOps))], {x}, {{"axes", axes}, {"keepdim", pick(3) != 0}});
  }

  void normalise() {
    Value* x = any();
    if (x->type.rank() == 0) return;
    if (pick(2) == 0) {
      const auto axis = static_cast<int64_t>(pick(x->type.rank()));
      return make(Op::softmax, {x}, {{"axis", axis}});
    }
    make(Op::rms_norm, {x, nullptr}, {{"axes", int64_t{1}}, {"eps", 0.1}});
  }

  void concat() {
    Value* x = any();
    if (x->type.rank() == 0) return;
    const size_t axis = pick(x->type.rank());
    for (int attempt = 0; attempt < 6; ++attempt) {
      Value* y = any();
      if (y->type.rank() != x->type.rank()) continue;
      bool fits = true;
      for (size_t i = 0; i < x->type.rank(); ++i) {
        fits &= i == axis || x->type.shape[i] == y->type.shape[i];
      }
      if (fits) return make(Op::concat, {x, y}, {{"axis", static_cast<int64_t>(axis)}});
    }
  }

  Value* random_weight(int64_t n, int64_t k) {
    std::byte* data = nullptr;
    ir::Literal literal = ir::Literal::allocate(DType::F32, {n, k}, &data);
    std::uniform_real_distribution<double> real(-0.5, 0.5);
    for (int64_t i = 0; i < n * k; ++i) ir::Literal::set(data, DType::F32, i, real(random_));
    return builder_.constant(literal);
  }

  // Sometimes several of one operand, as projections are.
  void linear() {
    Value* x = any();
    if (x->type.rank() == 0 || !x->type.shape.back().is_constant()) return;
    const int64_t k = x->type.shape.back().constant();
    const int64_t n = pick(2) == 0 ? 6 : 12;
    for (size_t count = 1 + pick(3); count > 0; --count) make(Op::linear, {x, random_weight(n, k)});
  }

  void attention_or_pad() {
    Value* x = any();
    if (x->type.rank() == 4 && pick(2) == 0) {
      return make(Op::attention, {x, x, x}, {{"scale", 0.5}, {"causal", pick(2) == 0}});
    }
    if (x->type.rank() == 0) return;
    std::vector<Dim> before(x->type.rank()), after(x->type.rank());
    before[pick(before.size())] = 1;
    make(Op::pad, {x},
         {{"before", before}, {"after", after}, {"value", 0.5}, {"mode", std::string("constant")}});
  }

  std::mt19937 random_;
  ir::Graph graph_;
  ir::Builder builder_;
  std::vector<Value*> values_;
  int made_ = 0;
};

// KILN_RANDOM_GRAPHS=N tries more.
uint32_t graph_count() {
  const char* count = std::getenv("KILN_RANDOM_GRAPHS");
  return count ? static_cast<uint32_t>(std::atoi(count)) : 150;
}

TEST(RandomTest, FusedProgramsComputeWhatTheReferenceDoes) {
  for (uint32_t seed = 0; seed < graph_count(); ++seed) {
    const ir::Graph graph = GraphMaker(seed).make(14);
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + ir::to_text(graph));
    ASSERT_NO_THROW(expect_same_as_reference(graph, {.tolerance = 1e-4}));
    ASSERT_NO_THROW(expect_same_as_reference(graph, {.sizes = {{"s", 1}}, .tolerance = 1e-4}));
    const TargetTraits& other = other_traits()[seed % other_traits().size()];
    ASSERT_NO_THROW(expect_same_as_reference(graph, {.tolerance = 1e-4, .traits = other}));
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
}

}  // namespace
}  // namespace kiln::plan
