#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <regex>

#include "ir/builder.h"
#include "passes/pass.h"
#include "passes/quantisation.h"
#include "passes/rewrite.h"
#include "support/error.h"

namespace kiln::passes {
namespace {

using ir::Builder;
using ir::Literal;
using ir::Node;
using ir::Op;
using ir::Value;
using Scheme = Quantisation::Scheme;

// Sums of more products of u8 and i8 than this may leave i32: such layers are computed in f32.
constexpr int64_t kMostProducts = std::numeric_limits<int32_t>::max() / (int64_t{255} * 128);
// Convolutions with fewer channels in a group have no kernels of integers.
constexpr int64_t kFewestGroupChannels = 4;
constexpr int64_t kMostByte = 255;

// A weight by output channels and the steps of each along k.
struct WeightForm {
  int64_t channels = 0, steps = 0;
  int64_t channel_stride = 0, step_stride = 0;
  bool channels_first = true;

  // Where the scale of a channel's group is among the scales.
  int64_t scale_at(int64_t channel, int64_t group, int64_t groups) const {
    return channels_first ? channel * groups + group : group * channels + channel;
  }
};

bool is_quantisable_dtype(DType dtype) { return dtype == DType::F32 || is_16_bit_float(dtype); }

std::optional<WeightForm> product_form(const Node& node, const Literal& weight) {
  if (weight.shape.size() != 2) return std::nullopt;
  const int64_t rows = weight.shape[0], columns = weight.shape[1];
  const bool rows_are_channels = node.op == Op::linear || node.attr<bool>("transpose_b");
  if (rows_are_channels) return WeightForm{rows, columns, columns, 1, true};
  return WeightForm{columns, rows, 1, columns, false};
}

std::optional<WeightForm> convolution_form(const Node& node, const Literal& weight) {
  const int64_t groups = node.attr<int64_t>("groups");
  const bool has_kernel = groups == 1 || weight.shape[1] >= kFewestGroupChannels;
  const size_t spatial_axes = weight.shape.size() - 2;
  if (!has_kernel || spatial_axes > 2 || node.attr<std::string>("layout") != "nchw")
    return std::nullopt;
  const int64_t channels = weight.shape[0];
  const int64_t steps = channels == 0 ? 0 : weight.elements() / channels;
  return WeightForm{channels, steps, steps, 1, true};
}

// How the weight of a layer is read; nothing for other nodes.
std::optional<WeightForm> weight_form(const Node& node, Scheme scheme) {
  const bool is_product = node.op == Op::linear || node.op == Op::matmul;
  if (!is_product && !(node.op == Op::convolution && scheme == Scheme::Int8)) return std::nullopt;
  const Literal* weight = literal_of(node.input(1));
  if (weight == nullptr || weight->replaceable || weight->elements() == 0 ||
      !is_quantisable_dtype(weight->dtype) || literal_of(node.input(0)) != nullptr)
    return std::nullopt;
  const auto form = is_product ? product_form(node, *weight) : convolution_form(node, *weight);
  if (scheme == Scheme::Int8 && form && form->steps > kMostProducts) return std::nullopt;
  return form;
}

bool has_groups(const WeightForm& form, const Quantisation& quantisation) {
  return quantisation.group_size == 0 || form.steps % quantisation.group_size == 0;
}

std::regex excluded_names(const std::string& expression) {
  try {
    return std::regex(expression);
  } catch (const std::regex_error&) {
    throw CompileError("[quantize] got the names to exclude \"" + expression +
                       "\", expected a regular expression");
  }
}

std::string joined(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < std::min(kShown, names.size()); ++i)
    text += (i == 0 ? "" : ", ") + names[i];
  return names.size() > kShown ? text + ", ... (" + std::to_string(names.size()) + ")" : text;
}

std::string names_of(const std::vector<QuantisableLayer>& layers) {
  std::vector<std::string> names;
  for (const QuantisableLayer& layer : layers) names.push_back(layer.name());
  return joined(names);
}

// Layers that stay floating because the group size does not divide their k.
std::vector<std::string> layers_without_groups(const ir::Graph& graph,
                                               const Quantisation& quantisation) {
  std::vector<std::string> names;
  for (const auto& node : graph.nodes()) {
    const auto form = weight_form(*node, quantisation.scheme);
    if (form && !has_groups(*form, quantisation)) names.push_back(node->output()->name);
  }
  return names;
}

// --- Weights ---

struct QuantisedWeight {
  Literal values, scales;
};

float usable(double scale) {
  const auto rounded = static_cast<float>(scale);
  return std::isnormal(rounded) ? rounded : 1.0F;
}

double squared_error(std::span<const double> elements, float scale, double low, double high) {
  double error = 0;
  for (const double element : elements) {
    const double level = std::clamp(std::nearbyint(element / scale), low, high);
    error += (element - level * scale) * (element - level * scale);
  }
  return error;
}

// In 8 bits, the largest element becomes 127. In 4 bits it becomes -8, so that all sixteen numbers are used, or it
// is cut off, if the squares of the errors are less then.
float scale_of(std::span<const double> elements, bool four_bits) {
  double extreme = 0;
  for (const double element : elements)
    if (std::abs(element) > std::abs(extreme)) extreme = element;
  if (!four_bits) return usable(std::abs(extreme) / 127);
  float best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (const double part : {1.0, 0.95, 0.9, 0.85, 0.8, 0.75}) {
    const float scale = usable(extreme * part / -8);
    const double error = squared_error(elements, scale, -8, 7);
    if (error < least) best = scale;
    least = std::min(least, error);
  }
  return best;
}

// The shape of the scales beside the weight's: `groups` along k.
std::vector<int64_t> scale_shape(const Literal& weight, const WeightForm& form, int64_t groups) {
  std::vector<int64_t> shape(weight.shape.size(), 1);
  shape[form.channels_first ? 0 : 1] = form.channels;
  if (groups > 1) shape[form.channels_first ? 1 : 0] = groups;
  return shape;
}

QuantisedWeight quantise_weight(const Literal& weight, const WeightForm& form,
                                const Quantisation& quantisation, const std::string& layer) {
  const bool four_bits = quantisation.scheme == Scheme::Int4Weights;
  const int64_t size = quantisation.group_size == 0 ? form.steps : quantisation.group_size;
  const int64_t groups = form.steps / size;
  const double low = four_bits ? -8 : -127, high = four_bits ? 7 : 127;
  std::byte *values = nullptr, *scales = nullptr;
  QuantisedWeight result{Literal::allocate(DType::I8, weight.shape, &values),
                         Literal::allocate(DType::F32, scale_shape(weight, form, groups), &scales)};
  std::vector<double> elements(static_cast<size_t>(size));
  for (int64_t channel = 0; channel < form.channels; ++channel) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t base = channel * form.channel_stride + group * size * form.step_stride;
      for (int64_t i = 0; i < size; ++i)
        elements[static_cast<size_t>(i)] = weight.as_double(base + i * form.step_stride);
      if (!std::ranges::all_of(elements, [](double element) { return std::isfinite(element); }))
        throw CompileError("[quantize] got infinite or NaN elements in the weight of " + layer +
                           ", expected finite ones; exclude the layer");
      const float scale = scale_of(elements, four_bits);
      reinterpret_cast<float*>(scales)[form.scale_at(channel, group, groups)] = scale;
      for (int64_t i = 0; i < size; ++i) {
        const double level = std::nearbyint(elements[static_cast<size_t>(i)] / scale);
        reinterpret_cast<int8_t*>(values)[base + i * form.step_stride] =
            static_cast<int8_t>(std::clamp(level, low, high));
      }
    }
  }
  return result;
}

// --- Biases ---

// What the products of a layer lose in the mean, by output channel: the weight times the mean input, less the same
// of what they become.
Literal lost_means(const Node& node, const WeightForm& form, const QuantisedWeight& quantised,
                   const CalibratedInput& input) {
  const Literal& weight = *literal_of(node.input(1));
  const bool convolves = node.op == Op::convolution;
  const int64_t groups = convolves ? node.attr<int64_t>("groups") : 1;
  const auto channels_in = static_cast<int64_t>(input.means.size());
  const int64_t window = form.steps / (channels_in / groups);  // steps of one input channel
  const int64_t scale_groups = quantised.scales.elements() / form.channels;
  const int64_t group_steps = form.steps / scale_groups;
  std::byte* data = nullptr;
  Literal lost = Literal::allocate(node.input(0)->type.dtype, {form.channels}, &data);
  for (int64_t channel = 0; channel < form.channels; ++channel) {
    const int64_t first = channel / (form.channels / groups) * (channels_in / groups);
    double sum = 0;
    for (int64_t step = 0; step < form.steps; ++step) {
      const int64_t at = channel * form.channel_stride + step * form.step_stride;
      const int64_t scale_at = form.scale_at(channel, step / group_steps, scale_groups);
      const double rounded = static_cast<double>(quantised.values.data<int8_t>()[at]) *
                             static_cast<double>(quantised.scales.data<float>()[scale_at]);
      const auto in = static_cast<size_t>(first + step / window);
      sum += weight.as_double(at) * input.means[in] - rounded * input.rounded_means[in];
    }
    Literal::set(data, lost.dtype, channel, sum);
  }
  return lost;
}

class Quantiser {
 public:
  Quantiser(ir::Graph& graph, const Quantisation& quantisation)
      : graph_(graph), quantisation_(quantisation) {}

  void run() {
    const std::vector<QuantisableLayer> layers = quantisable_layers(graph_, quantisation_);
    if (quantisation_.one_at_a_time)
      chosen_ = graph_.add_input("kiln_quantised_layer", {DType::I64, {}});
    for (size_t i = 0; i < layers.size(); ++i) quantise(*layers[i].node, static_cast<int64_t>(i));
    erase_replaced(graph_, replaced_);
  }

 private:
  void quantise(Node& node, int64_t number) {
    const std::string name = node.output()->name;
    const WeightForm form = *weight_form(node, quantisation_.scheme);
    QuantisedWeight weight = quantise_weight(*literal_of(node.input(1)), form, quantisation_, name);
    const auto calibrated = quantisation_.inputs.find(name);
    const CalibratedInput* input =
        calibrated == quantisation_.inputs.end() ? nullptr : &calibrated->second;
    if (input == nullptr && quantisation_.scheme == Scheme::Int8)
      throw CompileError("[quantize] the layer " + name + " was not calibrated");
    Builder builder(graph_, &node);
    builder.set_location(node.location);
    std::vector<Value*> operands = node.inputs;
    Value* lost = nullptr;
    if (input != nullptr) lost = builder.constant(lost_means(node, form, weight, *input));
    if (quantisation_.scheme == Scheme::Int8)
      operands[0] = quantised_input(builder, node, input->scale);
    operands[1] = builder.value(Op::dequantize,
                                {builder.constant(std::move(weight.values)),
                                 builder.constant(std::move(weight.scales)), nullptr},
                                {{"dtype", node.input(0)->type.dtype}});
    const bool has_bias = node.op != Op::matmul;
    if (lost != nullptr && has_bias) {
      operands.resize(3);
      operands[2] = operands[2] == nullptr ? lost : builder.value(Op::add, {operands[2], lost});
    }
    Value* result = builder.value(node.op, std::move(operands), node.attrs);
    if (lost != nullptr && !has_bias) result = builder.value(Op::add, {result, lost});
    if (chosen_ != nullptr) {
      choose(node, result, number);
    } else {
      replace(graph_, node.output(), result);
      replaced_.push_back(&node);
    }
  }

  static Value* quantised_input(Builder& builder, const Node& node, const InputScale& input) {
    Value* scale = builder.scalar(DType::F32, static_cast<double>(input.scale));
    Value* zero_point = builder.scalar(DType::I32, static_cast<double>(input.zero_point));
    Value* integers =
        builder.value(Op::quantize, {node.input(0), scale, zero_point},
                      {{"dtype", DType::U8}, {"quant_min", int64_t{0}}, {"quant_max", kMostByte}});
    return builder.value(Op::dequantize, {integers, scale, zero_point},
                         {{"dtype", node.input(0)->type.dtype}});
  }

  // Behind the layer: where(chosen == number, quantised, the layer's result).
  void choose(Node& node, Value* quantised, int64_t number) {
    const auto& nodes = graph_.nodes();
    auto next = std::ranges::find_if(nodes, [&](const auto& each) { return each.get() == &node; });
    Node* behind = ++next == nodes.end() ? nullptr : next->get();
    Value* result = node.output();
    Builder builder(graph_, behind);
    Value* is_chosen =
        builder.value(Op::eq, {chosen_, builder.scalar(DType::I64, static_cast<double>(number))});
    Node* where = builder.node(Op::where, {is_chosen, quantised, result});
    graph_.replace_all_uses(result, where->output());
    graph_.set_input(where, 2, result);
  }

  ir::Graph& graph_;
  const Quantisation& quantisation_;
  Value* chosen_ = nullptr;
  std::vector<Node*> replaced_;
};

}  // namespace

InputScale::InputScale(const Range& range) {
  const double low = std::min(range.low, 0.0), high = std::max(range.high, 0.0);
  const auto step = static_cast<float>((high - low) / kMostByte);
  if (!std::isnormal(step)) return;
  scale = step;
  zero_point = std::clamp<int64_t>(std::llrint(-low / static_cast<double>(step)), 0, kMostByte);
}

double InputScale::round_trip(double x) const {
  const double level =
      std::nearbyint(x / static_cast<double>(scale)) + static_cast<double>(zero_point);
  const double kept = std::clamp(level, 0.0, static_cast<double>(kMostByte));
  return (kept - static_cast<double>(zero_point)) * static_cast<double>(scale);
}

size_t QuantisableLayer::channel_axis() const {
  return node->op == Op::convolution ? 1 : input()->type.rank() - 1;
}

std::string_view scheme_name(Scheme scheme) {
  constexpr std::string_view kNames[] = {"", "int8", "int8-weights", "int4-weights"};
  return kNames[static_cast<size_t>(scheme)];
}

std::vector<QuantisableLayer> quantisable_layers(const ir::Graph& graph,
                                                 const Quantisation& quantisation) {
  std::vector<QuantisableLayer> all, layers;
  for (const auto& node : graph.nodes()) {
    const auto form = weight_form(*node, quantisation.scheme);
    if (form && has_groups(*form, quantisation)) all.push_back({node.get()});
  }
  if (all.empty())
    throw CompileError(
        "[quantize] got a model without a layer to quantise, expected linear layers, products with "
        "a "
        "constant matrix or convolutions whose weights are floating constants");
  if (quantisation.exclude.empty()) return all;
  const std::regex excluded = excluded_names(quantisation.exclude);
  std::ranges::copy_if(all, std::back_inserter(layers), [&](const QuantisableLayer& layer) {
    return !std::regex_match(layer.name(), excluded);
  });
  if (layers.size() == all.size())
    throw CompileError("[quantize] got names to exclude, \"" + quantisation.exclude +
                       "\", that no layer has, expected some of " + names_of(all));
  if (layers.empty())
    throw CompileError("[quantize] got names to exclude, \"" + quantisation.exclude +
                       "\", that leave no layer to quantise of " + names_of(all));
  return layers;
}

// linear(x, w, b) -> linear(dequantize(quantize(x)), dequantize(q), b), and the same for a matmul by a constant
// and for convolutions: as the context's `quantisation` says, and nothing without one. Expects canonical
// graphs. The results keep their names, and lowering makes kernels of integers of them.
bool quantise_layers(ir::Graph& graph, PassContext& context) {
  if (context.quantisation == nullptr) return false;
  const std::vector<std::string> without = layers_without_groups(graph, *context.quantisation);
  if (!without.empty() && context.warning)
    context.warning("quantize: the group size divides the k of " + std::string("no weight of ") +
                    joined(without) + ", which stay floating");
  Quantiser(graph, *context.quantisation).run();
  return true;
}

}  // namespace kiln::passes
