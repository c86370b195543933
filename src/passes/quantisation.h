// What is quantised when a model is compiled: the pass quantise_layers and what prepares it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace kiln::passes {

struct Range {
  double low = 0, high = 0;
};

// How the input of a layer becomes u8: round(x / scale) + zero_point. Zero is one of the numbers, so that what
// is padded and what a relu cuts off stay exact.
struct InputScale {
  float scale = 1;  // of an input that is always zero too
  int64_t zero_point = 0;

  InputScale() = default;
  explicit InputScale(const Range& range);
  // What is left of x in u8.
  double round_trip(double x) const;
};

// What is known of the input of a layer from runs in floats.
struct CalibratedInput {
  InputScale scale;
  // The mean of each channel along k (of a convolution: of each input channel), and what it is of numbers that went
  // through u8. What weights and inputs lose in the mean is added to the bias.
  std::vector<double> means, rounded_means;
};

struct Quantisation {
  // "int8", "int8-weights" and "int4-weights" for users.
  // Int8: inputs of layers as u8 with one scale and zero point, weights as i8 with a scale for each output
  // channel. The others: weights alone, in 8 or 4 bits.
  enum class Scheme { None, Int8, Int8Weights, Int4Weights };

  Scheme scheme = Scheme::None;
  int64_t group_size = 0;  // of weights alone: how many steps along k share a scale; 0: all
  std::string exclude;     // layers that stay as they are: a regular expression for whole names
  // By the layer's name. Of Int8 all layers; of the others all or none.
  std::map<std::string, CalibratedInput, std::less<>> inputs;
  // A layer is quantised in those runs alone in which the graph has its number, counted from 0 in graph
  // order, as the last input (i64, a scalar): for finding out which layers cost accuracy.
  bool one_at_a_time = false;
};

// "": None.
std::string_view scheme_name(Quantisation::Scheme scheme);

// A linear, a matmul by a constant or, of Int8, a convolution. It has the name of its result.
struct QuantisableLayer {
  ir::Node* node = nullptr;
  const std::string& name() const { return node->output()->name; }
  ir::Value* input() const { return node->input(0); }
  // The axis of the input that k runs along, or the channels.
  size_t channel_axis() const;
};

// Those of a canonical graph, in its order. CompileError if there are none, and for a regular expression that is
// not one or fits none of them.
std::vector<QuantisableLayer> quantisable_layers(const ir::Graph& graph,
                                                 const Quantisation& quantisation);
}  // namespace kiln::passes
