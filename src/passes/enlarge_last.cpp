#include <algorithm>
#include <cstring>
#include <map>

#include "passes/pass.h"
#include "passes/rewrite.h"

namespace kiln::passes {
namespace {

using ir::Builder;
using ir::Literal;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;

constexpr int64_t kChannelAxis = 1;

// Whether multiplying by it is the same for all channels and cancels nothing.
bool is_spatial_weight(const Value* weight, size_t rank) {
  const Literal* literal = literal_of(weight);
  if (literal == nullptr || literal->replaceable || literal->shape.size() > rank) return false;
  const int64_t channel_axis =
      kChannelAxis - static_cast<int64_t>(rank) + static_cast<int64_t>(literal->shape.size());
  if (channel_axis >= 0 && literal->shape[channel_axis] != 1) return false;
  for (int64_t i = 0; i < literal->elements(); ++i) {
    const double number = literal->as_double(i);
    if (!(number >= 0 && number <= 1)) return false;
  }
  return true;
}

// x of cast(x) between f32 and 16 bits; the value itself if it is no such cast.
Value* without_cast(Value* value, DType from, DType to) {
  const Node* cast = producer(value, Op::cast);
  const bool is_between =
      cast != nullptr && cast->input(0)->type.dtype == from && value->type.dtype == to;
  return is_between ? cast->input(0) : value;
}

// A value as a sum of pixels of another with weights that are the same for all channels: gathers along other axes,
// products with constants and sums, of 16 bits maybe in f32.
class Resampling {
 public:
  explicit Resampling(Value* value) : dtype_(value->type.dtype), result_(value) {
    if (is_16_bit_float(dtype_)) result_ = without_cast(value, DType::F32, dtype_);
    source_ = source_of(result_);
  }

  // What is resampled, of the type of the result; null if it is of another.
  Value* image() const {
    Value* image = source_;
    if (result_->type.dtype != dtype_) image = without_cast(source_, dtype_, DType::F32);
    return image->type.dtype == dtype_ ? image : nullptr;
  }

  // The same of another image of as many pixels.
  Value* of(Builder& builder, Value* image) {
    rebuilt_ = {{source_, image}};
    return rebuilt(builder, result_);
  }

 private:
  Value* source_of(Value* value) {
    const auto known = sources_.find(value);
    if (known != sources_.end()) return known->second;
    Value* source = value;
    if (const Node* gather = producer(value, Op::gather)) {
      if (moves_pixels(*gather)) source = source_of(gather->input(0));
    } else if (const Node* mul = producer(value, Op::mul)) {
      if (scales_pixels(*mul)) source = source_of(mul->input(0));
    } else if (const Node* add = producer(value, Op::add)) {
      if (add->input(0)->type == value->type && add->input(1)->type == value->type) {
        Value* first = source_of(add->input(0));
        if (first == source_of(add->input(1))) source = first;
      }
    }
    return sources_[value] = source;
  }

  static bool moves_pixels(const Node& gather) {
    return gather.attr<int64_t>("axis") != kChannelAxis && gather.input(1)->type.rank() == 1;
  }
  static bool scales_pixels(const Node& mul) {
    return mul.input(0)->type == mul.output()->type &&
           is_spatial_weight(mul.input(1), mul.output()->type.rank());
  }

  Value* rebuilt(Builder& builder, Value* value) {
    const auto known = rebuilt_.find(value);
    if (known != rebuilt_.end()) return known->second;
    const Node& node = *value->producer;
    Value* first = rebuilt(builder, node.input(0));
    Value* second = node.input(1);
    if (node.op == Op::add) second = rebuilt(builder, second);
    if (node.op == Op::mul) second = builder.cast(second, first->type.dtype);
    return rebuilt_[value] = builder.value(node.op, {first, second}, node.attrs);
  }

  DType dtype_;
  Value* result_;
  Value* source_ = nullptr;
  std::map<const Value*, Value*> sources_, rebuilt_;  // looked up, never walked
};

int64_t pixels(const Value* image) {
  Shape shape = image->type.shape;
  shape.erase(shape.begin() + kChannelAxis);
  return ir::product(shape).at_opt();
}

bool all_are(const std::vector<int64_t>& values, int64_t expected) {
  return std::ranges::all_of(values, [&](int64_t value) { return value == expected; });
}

bool is_pointwise_convolution(const Node& node) {
  if (node.op != Op::convolution || node.attr<std::string>("layout") != "nchw") return false;
  const Literal* weight = literal_of(node.input(1));
  const auto are = [&](const char* name, int64_t expected) {
    return all_are(node.attr<std::vector<int64_t>>(name), expected);
  };
  return weight != nullptr && node.attr<int64_t>("groups") == 1 &&
         all_are({weight->shape.begin() + 2, weight->shape.end()}, 1) && are("stride", 1) &&
         are("padding_before", 0) && are("padding_after", 0);
}

// Some of the channels of a convolution's input.
struct Part {
  Value* image = nullptr;
  int64_t begin = 0, channels = 0;
};

// The filters' columns for the channels of the parts, one behind another.
Literal columns_of(const Literal& weight, const std::vector<Part>& parts) {
  std::vector<int64_t> shape = weight.shape;
  shape[1] = 0;
  for (const Part& part : parts) shape[1] += part.channels;
  std::byte* data = nullptr;
  Literal result = Literal::allocate(weight.dtype, std::move(shape), &data);
  result.replaceable = weight.replaceable;
  const auto size = static_cast<int64_t>(dtype_size(weight.dtype));
  for (int64_t filter = 0; filter < weight.shape[0]; ++filter) {
    for (const Part& part : parts) {
      const int64_t from = (filter * weight.shape[1] + part.begin) * size;
      std::memcpy(data, weight.bytes.data() + from, part.channels * size);
      data += part.channels * size;
    }
  }
  return result;
}

class EnlargementSinker {
 public:
  EnlargementSinker(Rewriter& rewriter, Node& convolution)
      : rewriter_(rewriter), node_(convolution), builder_(rewriter.before(convolution)) {}

  Value* run() {
    if (!split()) return nullptr;
    const Literal& weight = *literal_of(node_.input(1));
    attrs_ = node_.attrs;
    const DType dtype = node_.output()->type.dtype;
    const bool is_rounded = is_16_bit_float(weight.dtype);
    if (is_rounded) attrs_["result"] = DType::F32;
    Value* sum = kept_.empty() ? nullptr : convolution_of_kept(weight);
    for (const Part& part : enlarged_) {
      Resampling resampling(part.image);
      Value* small = convolution(resampling.image(), columns_of(weight, {part}), nullptr);
      Value* image = resampling.of(builder_, small);
      sum = sum == nullptr ? image : builder_.value(Op::add, {sum, image});
    }
    weight.forget();
    if (kept_.empty() && node_.input(2) != nullptr) {
      Shape shape(sum->type.rank() - 1, 1);
      shape[0] = weight.shape[0];
      Value* bias = builder_.cast(node_.input(2), sum->type.dtype);
      sum = builder_.value(Op::add, {sum, builder_.reshape(bias, shape)});
    }
    return is_rounded ? builder_.cast(sum, dtype) : sum;
  }

 private:
  // Whether some part is enlarged.
  bool split() {
    Value* input = node_.input(0);
    std::vector<Value*> images = {input};
    const Node* concat = producer(input, Op::concat);
    if (concat != nullptr && concat->attr<int64_t>("axis") == kChannelAxis &&
        rewriter_.used_once(input))
      images = concat->inputs;
    int64_t begin = 0;
    for (Value* image : images) {
      const ir::Dim& channels = image->type.shape[kChannelAxis];
      if (!channels.is_constant()) return false;
      const Part part{image, begin, channels.constant()};
      begin += part.channels;
      (pays(part) ? enlarged_ : kept_).push_back(part);
    }
    return !enlarged_.empty();
  }

  // More channels would be enlarged than before, which costs more than a convolution of few channels.
  bool pays(const Part& part) const {
    const int64_t filters = literal_of(node_.input(1))->shape[0];
    if (!rewriter_.used_once(part.image) || filters > part.channels) return false;
    const Value* image = Resampling(part.image).image();
    return image != nullptr && pixels(image) < pixels(part.image);
  }

  Value* convolution_of_kept(const Literal& weight) {
    std::vector<Value*> images;
    for (const Part& part : kept_) images.push_back(part.image);
    Value* image = images.size() == 1
                       ? images[0]
                       : builder_.value(Op::concat, images, {{"axis", kChannelAxis}});
    return convolution(image, columns_of(weight, kept_), node_.input(2));
  }

  Value* convolution(Value* image, Literal weight, Value* bias) {
    std::vector<Value*> inputs = {image, builder_.constant(std::move(weight))};
    if (bias != nullptr) inputs.push_back(bias);
    return builder_.value(Op::convolution, std::move(inputs), attrs_);
  }

  Rewriter& rewriter_;
  Node& node_;
  Builder builder_;
  ir::Attrs attrs_;
  std::vector<Part> enlarged_, kept_;
};

}  // namespace

// 1x1 convolutions come before the enlargement of their input, and meet the parts of a concatenation one by one:
//
//   conv(concat(x, enlarge(y)), w, b) -> conv(x, w', b) + enlarge(conv(y, w''))
//
// where enlarge computes pixels as sums of pixels with constant weights of 0 to 1, as nearest and linear interpolation
// do, there are no more filters than channels of y, and nothing else reads what is not there afterwards. Both are sums
// of the same products: the bound of their error is the same too. Weights of 16 bits: all is added up in f32, and
// rounded once, what was enlarged is not, so that nothing is done where each result is to be rounded.
bool enlarge_last(ir::Graph& graph, PassContext& context) {
  return rewrite(graph, [&](Rewriter& rewriter, Node& node) -> Value* {
    if (!is_pointwise_convolution(node)) return nullptr;
    if (context.emulate_precision_casts && is_16_bit_float(node.output()->type.dtype))
      return nullptr;
    return EnlargementSinker(rewriter, node).run();
  });
}

}  // namespace kiln::passes
