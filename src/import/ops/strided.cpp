// Views by strides. An operator that names places in memory is read as one that names elements: the program records how
// PyTorch's tensor lies there, and what it reads has to be elements of that tensor.
#include <algorithm>
#include <optional>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

int64_t known(Call& call, const ir::Dim& dim, const char* what) {
  call.expect(dim.is_constant(), std::string(what) + " " + dim.str(), "a constant");
  return dim.constant();
}

std::vector<int64_t> known(Call& call, const std::vector<ir::Dim>& dims, const char* what) {
  std::vector<int64_t> result;
  for (const ir::Dim& dim : dims) result.push_back(known(call, dim, what));
  return result;
}

// A tensor whose elements fill a range of its memory.
struct Memory {
  std::vector<int64_t> order;  // its axes, the outermost in memory first
  int64_t begin = 0, size = 1;

  explicit Memory(Call& call) {
    const TensorMeta& meta = recorded(call);
    std::vector<int64_t> sizes, strides;
    for (size_t i = 0; i < meta.sizes.size(); ++i) {
      sizes.push_back(known(call, call.scope().size(meta.sizes[i]), "the size"));
      strides.push_back(known(call, call.scope().size(meta.strides[i]), "the stride"));
      size *= sizes.back();
    }
    begin = known(call, call.scope().size(meta.storage_offset), "the offset");
    order = range(0, static_cast<int64_t>(sizes.size()));
    std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
      return std::pair(strides[a], sizes[a]) > std::pair(strides[b], sizes[b]);
    });
    int64_t step = 1;
    for (size_t i = order.size(); i-- > 0;) {
      const int64_t axis = order[i];
      call.expect(sizes[axis] == 1 || strides[axis] == step || size == 0,
                  "a tensor with gaps or overlaps in memory", "a dense one");
      step *= sizes[axis];
    }
  }

  Value* flat(Call& call, Value* x) const {
    return call.builder().reshape(call.builder().permute(x, order), {ir::Dim(size)});
  }
  // The other way.
  Value* restored(Call& call, Value* elements, const ir::Shape& shape) const {
    ir::Shape permuted;
    std::vector<int64_t> inverse(order.size());
    for (size_t i = 0; i < order.size(); ++i) {
      permuted.push_back(shape[order[i]]);
      inverse[order[i]] = static_cast<int64_t>(i);
    }
    return call.builder().permute(call.builder().reshape(elements, permuted), inverse);
  }

 private:
  static const TensorMeta& recorded(Call& call) {
    const auto& inputs = call.node().inputs;
    const auto argument =
        std::ranges::find_if(inputs, [](const auto& each) { return each.first == "self"; });
    const auto* name =
        argument == inputs.end() ? nullptr : std::get_if<TensorName>(&argument->second);
    call.expect(name != nullptr && call.scope().is_recorded(name->name),
                "a tensor of which no strides are recorded", "one of an exported program");
    return call.scope().graph().tensor_values.find(name->name)->second;
  }
};

// Of every element of the view the place in the memory of the tensor: i64 of the view's shape.
Value* places(Call& call, const Memory& memory) {
  const std::vector<int64_t> sizes = known(call, call.dims("size"), "the size"),
                             strides = known(call, call.dims("stride"), "the stride");
  call.expect(sizes.size() == strides.size(), std::to_string(strides.size()) + " strides",
              std::to_string(sizes.size()));
  const int64_t first = call.has("storage_offset")
                            ? known(call, call.dim("storage_offset"), "the offset")
                            : memory.begin;
  int64_t last = first - memory.begin;
  Expr place(call, call.builder().scalar(DType::I64, static_cast<double>(last)));
  ir::Shape shape;
  for (size_t i = 0; i < sizes.size(); ++i) {
    last += (sizes[i] - 1) * strides[i];
    ir::Shape along(sizes.size(), ir::Dim(1));
    along[i] = ir::Dim(sizes[i]);
    shape.push_back(along[i]);
    const Expr steps = Expr(call, iota(call, along[i])) * static_cast<double>(strides[i]);
    place = place + Expr(call, call.builder().reshape(steps, along));
  }
  const bool is_empty = std::ranges::find(sizes, 0) != sizes.end();
  call.expect(is_empty || (first >= memory.begin && last < memory.size),
              "places in memory outside of the tensor", "elements of it");
  return call.builder().expand(place, shape);
}

Value* import_as_strided(Call& call) {
  const Memory memory(call);
  Value* at = places(call, memory);
  return call.make(Op::gather, {memory.flat(call, call.tensor("self")), at},
                   {{"axis", int64_t{0}}});
}

// Which one of several sources is written to a place that the view has more than once is not defined.
Value* import_as_strided_scatter(Call& call) {
  const Memory memory(call);
  Value *at = places(call, memory), *self = call.tensor("self");
  Value* source = call.builder().cast(call.tensor("src"), self->type.dtype);
  const ir::Shape flat{at->type.elements()};
  Value* written =
      call.make(Op::scatter,
                {memory.flat(call, self), call.builder().reshape(at, flat),
                 call.builder().reshape(call.builder().expand(source, at->type.shape), flat)},
                {{"axis", int64_t{0}}, {"combine", std::string("replace")}});
  return memory.restored(call, written, self->type.shape);
}

constexpr Row kRows[] = {
    {"aten.as_strided.default", import_as_strided},
    {"aten.as_strided_copy.default", import_as_strided},
    {"aten.as_strided_scatter.default", import_as_strided_scatter},
};

}  // namespace

Rows strided_rows() { return kRows; }

}  // namespace kiln::import
