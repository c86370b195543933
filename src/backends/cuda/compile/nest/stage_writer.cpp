#include "backends/cuda/compile/nest/stage_writer.h"

#include <algorithm>

#include "ir/op_table.h"
#include "ir/size_overflow.h"
#include "plan/form/kernels.h"
#include "support/error.h"

namespace kiln::cuda {

using ir::Dim;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;
using plan::ReduceOp;
using plan::Stage;

// More are summed in f64.
constexpr int64_t kTermsOfF32 = 1024;

// --- Reductions ---------------------------------------------------------------------------------

ReducerText::ReducerText(ReduceOp op, DType dtype, int64_t terms) : op_(op), dtype_(dtype) {
  constexpr const char* kNames[] = {"Sum", "Prod", "Max", "Min", "ArgMax", "ArgMin"};
  name_ = kNames[static_cast<size_t>(op)];
  // A product of many numbers, or a long sum, has as many roundings: f32 has not the digits for them.
  const bool is_long = op == ReduceOp::Prod || (op == ReduceOp::Sum && terms > kTermsOfF32);
  is_wide_ = is_long && is_floating(dtype) && dtype != DType::F64;
  state_type_ = register_type(is_wide_ ? DType::F64 : dtype);
  if (gives_position()) state_type_ = "Best<" + state_type_ + ">";
}

const char* ReducerText::result_type() const {
  return gives_position() ? "long long" : register_type(dtype_);
}

std::string ReducerText::neutral() const { return name_ + "::neutral<" + state_type_ + ">()"; }

void ReducerText::accumulate(Emitter& emitter, const std::string& state, const Expr& value,
                             const Dim& position, const Leaves& leaves) const {
  const bool product = op_ == ReduceOp::Sum && is_floating(dtype_) &&
                       value->kind == ExprKind::Apply && value->op == ir::Op::mul;
  if (product) {
    auto factors = emitter.values(value->args, leaves);
    for (std::string& factor : factors) {
      if (is_wide_) factor = "(double)" + factor;
    }
    const std::string function = dtype_ == DType::F64 || is_wide_ ? "fma(" : "fmaf(";
    emitter.line(state + " = " + function + factors[0] + ", " + factors[1] + ", " + state + ");");
    return;
  }
  std::string joined = emitter.value(value, leaves);
  if (is_wide_) joined = "(double)" + joined;
  if (gives_position())
    joined = state_type_ + "{" + joined + ", " + emitter.position(position) + "}";
  emitter.line(state + " = " + name_ + "::join(" + state + ", " + joined + ");");
}

std::string ReducerText::result(const std::string& state) const {
  if (is_wide_) return "(float)" + state;
  if (!gives_position()) return state;
  return state + ".at == 0x7fffffffffffffffll ? 0 : " + state + ".at";
}

int64_t terms_of(const plan::Reduction& reduction, int64_t threads) {
  int64_t points = 1;
  for (const plan::Loop& loop : reduction.loops) {
    const int64_t most = loop.extent().upper_bound();
    points =
        ir::saturating_product({points, most < ir::kDimInfinity ? most : loop.extent().at_opt()});
  }
  return points / threads;
}

Dim position_of(const plan::Reduction& reduction) {
  return reduction.loops.empty() ? Dim(0) : Dim(reduction.loops.back().index);
}

// --- Vector accesses ----------------------------------------------------------------------------

bool mentions(const Expr& expr, const ir::SymbolPtr& index) {
  bool result = false;
  plan::visit(expr, [&](const ExprNode& node) {
    if (node.kind == ExprKind::Position || node.kind == ExprKind::Check)
      result = result || node.index.mentions(index);
  });
  return result;
}

VectorAccess::VectorAccess(const plan::Program& program, const plan::LoopNest& nest)
    : program_(program) {
  for (const Stage& stage : nest.stages) {
    const auto* store = std::get_if<plan::Store>(&stage);
    if (store == nullptr) continue;
    for (const Stage& other : nest.stages) {
      const auto read = plan::loads(plan::value_of(other));
      if (std::ranges::find(read, store->buffer) != read.end()) shared_.push_back(store->buffer);
    }
  }
}

bool VectorAccess::is_shared(plan::BufferId buffer) const {
  return std::ranges::find(shared_, buffer) != shared_.end();
}

void VectorAccess::set_own(plan::BufferId buffer, bool own) {
  if (own)
    std::erase(shared_, buffer);
  else
    shared_.push_back(buffer);
}

bool VectorAccess::is_vector(plan::BufferId buffer, const Dim& offset, const Lanes& lanes) const {
  if (lanes.count == 1 || is_shared(buffer)) return false;
  const auto linear = offset.as_linear_in(lanes.index);
  return linear && linear->first.is_constant(1) &&
         ir::provably_divisible(linear->second, Dim(lanes.count));
}

bool VectorAccess::is_settled(const Expr& expr) const {
  bool result = true;
  plan::visit(expr, [&](const ExprNode& node) {
    if (node.kind == ExprKind::Reduced || node.kind == ExprKind::Accumulator ||
        (node.kind == ExprKind::Load && is_shared(node.buffer)))
      result = false;
  });
  return result;
}

// A gathered row, whose number is computed, counts too: it is the same for all lanes.
bool VectorAccess::is_vector(const ExprNode& load, const Lanes& lanes) const {
  if (load.kind != ExprKind::Load || lanes.count == 1) return false;
  if (load.predicate && mentions(load.predicate, lanes.index)) return false;
  const backend::ElementOffset offset = element_offset(program_, load);
  return std::ranges::all_of(offset.dynamic,
                             [&](const auto& part) {
                               return !mentions(part.first, lanes.index) &&
                                      is_settled(part.first) &&
                                      ir::provably_divisible(part.second, Dim(lanes.count));
                             }) &&
         is_vector(load.buffer, offset.linear, lanes);
}

bool VectorAccess::is_vector(const plan::Store& store, const Lanes& lanes) const {
  return store.indices.size() == 1 && is_vector(store.buffer, store.indices[0], lanes);
}

void StageWriter::plan_access(const Stage& stage, const Lanes& lanes) {
  const auto add = [&](plan::BufferId buffer) {
    has_flag_ = true;
    const auto kind = emitter_.program().buffers.at(static_cast<size_t>(buffer)).kind;
    // The others begin at multiples of 256 bytes.
    const bool is_callers = kind == plan::BufferKind::Input || kind == plan::BufferKind::Output;
    if (is_callers && std::ranges::find(checked_, buffer) == checked_.end())
      checked_.push_back(buffer);
  };
  plan::visit(plan::value_of(stage), [&](const ExprNode& node) {
    if (access_.is_vector(node, lanes)) add(node.buffer);
  });
  const auto* store = std::get_if<plan::Store>(&stage);
  if (store != nullptr && access_.is_vector(*store, lanes)) add(store->buffer);
}

void StageWriter::declare_flag() {
  if (!has_flag_) return;
  std::string text;
  for (plan::BufferId buffer : checked_)
    text +=
        (text.empty() ? "" : " && ") + std::string("is_aligned(") + emitter_.buffer(buffer) + ")";
  emitter_.line("const bool aligned = " + (text.empty() ? "true" : text) + ";");
}

namespace {

// Loads of the same place share their registers.
struct LoadedLanes {
  const ExprNode* node = nullptr;
  std::string name;
};

}  // namespace

bool same_place(const plan::Program& program, const ExprNode& a, const ExprNode& b) {
  const auto same = [](const Expr& x, const Expr& y) {
    return x == y || (x && y && plan::to_string(x) == plan::to_string(y));
  };
  if (a.buffer != b.buffer || !same(a.predicate, b.predicate)) return false;
  const backend::ElementOffset left = element_offset(program, a),
                               right = element_offset(program, b);
  return left.linear == right.linear &&
         std::ranges::equal(left.dynamic, right.dynamic, [&](const auto& x, const auto& y) {
           return x.second == y.second && same(x.first, y.first);
         });
}

std::string StageWriter::load_lanes(const ExprNode& load, const Lanes& lanes) {
  const std::string name = emitter_.fresh("x"), count = std::to_string(lanes.count);
  const std::string condition = load.predicate ? emitter_.value(load.predicate) : "";
  const std::string offset = emitter_.offset(load);
  emitter_.line(std::string(register_type(load.dtype)) + " " + name + "[" + count + "]" +
                (load.predicate ? " = {};" : ";"));
  emitter_.line((load.predicate ? "if (" + condition + ") " : "") + "load_lanes<" + count + ">(" +
                emitter_.buffer(load.buffer) + " + " + offset + ", aligned, " + name + ");");
  return name;
}

void StageWriter::for_each_lane(const std::vector<Expr>& exprs, const Lanes& lanes,
                                const std::vector<std::string>& reduced,
                                const std::function<void(const Leaves&)>& body) {
  Leaves leaves;
  leaves.reduced = reduced;
  leaves.loads = kept_;
  if (lanes.count == 1) return body(leaves);
  const std::string count = std::to_string(lanes.count);
  std::vector<LoadedLanes> loaded;
  emitter_.bind(lanes.index, lanes.first);
  for (const Expr& expr : exprs) {
    plan::visit(expr, [&](const ExprNode& node) {
      if (kept_.contains(&node) || !access_.is_vector(node, lanes)) return;
      auto it = std::ranges::find_if(loaded, [&](const LoadedLanes& other) {
        return same_place(emitter_.program(), *other.node, node);
      });
      if (it == loaded.end()) it = loaded.insert(it, {&node, load_lanes(node, lanes)});
      leaves.loads[&node] = it->name + "[e]";
    });
  }
  emitter_.line("#pragma unroll");
  emitter_.open("for (int e = 0; e < " + count + "; ++e)");
  const std::string lane =
      emitter_.declare(position_type(Dim(lanes.index)), "l", lanes.first + " + e");
  emitter_.bind(lanes.index, lane);
  body(leaves);
  emitter_.close();
  emitter_.bind(lanes.index, lanes.first);
}

void StageWriter::store(const plan::Store& store, const Lanes& lanes,
                        const std::vector<std::string>& reduced,
                        const std::function<std::string(const Leaves&)>& value) {
  const bool vector = access_.is_vector(store, lanes);
  const DType dtype = emitter_.dtype_of(store.buffer);
  std::string result;
  if (vector) {
    result = emitter_.fresh("y");
    emitter_.line(std::string(register_type(dtype)) + " " + result + "[" +
                  std::to_string(lanes.count) + "];");
  }
  for_each_lane({store.value}, lanes, reduced, [&](const Leaves& leaves) {
    const std::string text = value ? value(leaves) : emitter_.value(store.value, leaves);
    if (vector) {
      emitter_.line(result + "[e] = " + text + ";");
    } else {
      emitter_.store(store.buffer, store.indices, text);
    }
  });
  if (!vector) return;
  emitter_.line("store_lanes<" + std::to_string(lanes.count) + ">(" +
                emitter_.written_buffer(store.buffer) + " + " +
                emitter_.position(store.indices[0]) + ", aligned, " + result + ");");
}

// --- How many lanes -----------------------------------------------------------------------------

namespace {

constexpr int kMostLanes = 8;
constexpr int64_t kLaneBytes = 16;
// Of all lanes together.
constexpr int64_t kMostOperations = 256;

}  // namespace

int64_t operations(const Expr& expr) {
  int64_t result = 0;
  plan::visit(expr, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Apply) return;
    const ir::OpEffort effort = ir::op_info(node.op).effort;
    const int64_t cost = effort == ir::OpEffort::Iterated ? 48
                         : effort == ir::OpEffort::Series ? 16
                                                          : 2;
    result += cost * (node.dtype == DType::F64 ? 4 : 1);
  });
  return result;
}

int widest_lanes(const plan::Program& program, const Stage& stage, const plan::Loop& loop,
                 const VectorAccess& access) {
  int64_t smallest = 0;
  const auto look = [&](plan::BufferId buffer, const auto& accessed) {
    // Two lanes are the least that a vector access has.
    if (!access.is_vector(accessed, {loop.index, 2, ""})) return;
    const auto bytes = static_cast<int64_t>(
        dtype_size(program.buffers.at(static_cast<size_t>(buffer)).type.dtype));
    smallest = smallest == 0 ? bytes : std::min(smallest, bytes);
  };
  plan::visit(plan::value_of(stage), [&](const ExprNode& node) {
    if (node.kind == ExprKind::Load) look(node.buffer, node);
  });
  if (const auto* store = std::get_if<plan::Store>(&stage)) look(store->buffer, *store);
  if (smallest == 0) return 1;
  int64_t lanes = std::min<int64_t>(kMostLanes, kLaneBytes / smallest);
  while (lanes > 1 && (operations(plan::value_of(stage)) * lanes > kMostOperations ||
                       !ir::provably_divisible(loop.extent(), Dim(lanes))))
    lanes /= 2;
  return static_cast<int>(lanes);
}

}  // namespace kiln::cuda
