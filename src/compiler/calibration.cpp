#include "compiler/calibration.h"

#include <algorithm>
#include <cmath>

#include "compiler/stages.h"
#include "passes/pass.h"
#include "support/error.h"

namespace kiln {
namespace {

using passes::QuantisableLayer;
using passes::Quantisation;
using passes::Range;
using Scheme = Quantisation::Scheme;
using Sample = std::vector<ir::Literal>;

constexpr double kPercentile = 1e-5;  // at each end

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

std::string type_text(const ir::Literal& literal) {
  return std::string(dtype_name(literal.dtype)) + shape_text(literal.shape);
}

bool fits(const ir::Literal& literal, const ir::Type& type) {
  if (literal.dtype != type.dtype || literal.shape.size() != type.rank()) return false;
  for (size_t i = 0; i < type.rank(); ++i) {
    const ir::Dim& size = type.shape[i];
    if (literal.shape[i] < size.lower_bound()) return false;
    if (size.is_constant() && literal.shape[i] != size.constant()) return false;
  }
  return true;
}

bool is_finite(const ir::Literal& literal) {
  if (!is_floating(literal.dtype)) return true;
  for (int64_t i = 0; i < literal.elements(); ++i)
    if (!std::isfinite(literal.as_double(i))) return false;
  return true;
}

std::string input_names(const ir::Graph& graph) {
  std::string text;
  for (const ir::Value* input : graph.inputs()) text += (text.empty() ? "" : ", ") + input->name;
  return text;
}

Sample in_order(const ir::Graph& graph, const std::vector<std::string>& names, const Sample& sample,
                const std::string& where) {
  const std::vector<ir::Value*>& inputs = graph.inputs();
  if (sample.size() != inputs.size())
    throw CompileError(where + "got " + std::to_string(sample.size()) + " inputs, expected " +
                       std::to_string(inputs.size()) + ": " + input_names(graph));
  if (names.empty()) return sample;
  Sample ordered(sample.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const auto input = std::ranges::find(inputs, names[i], &ir::Value::name);
    if (input == inputs.end() || std::ranges::count(names, names[i]) > 1)
      throw CompileError(where + "got an input \"" + names[i] + "\", expected each of " +
                         input_names(graph) + " once");
    ordered[static_cast<size_t>(input - inputs.begin())] = sample[i];
  }
  return ordered;
}

// Whether all arrays have an axis more than the inputs, of the same size.
bool has_leading_axis(const ir::Graph& graph, const Sample& sample) {
  for (size_t i = 0; i < sample.size(); ++i)
    if (sample[i].shape.size() != graph.inputs()[i]->type.rank() + 1 ||
        sample[i].shape.front() != sample.front().shape.front())
      return false;
  return !sample.empty();
}

ir::Literal part_of(const ir::Literal& literal, int64_t index) {
  ir::Literal part = literal;
  part.shape.erase(part.shape.begin());
  const size_t bytes = literal.bytes.size() / static_cast<size_t>(literal.shape.front());
  part.bytes = literal.bytes.subspan(bytes * static_cast<size_t>(index), bytes);
  return part;
}

void check_sample(const ir::Graph& graph, const Sample& sample, const std::string& where) {
  for (size_t i = 0; i < sample.size(); ++i) {
    const ir::Value& input = *graph.inputs()[i];
    const std::string named = where + "input " + input.name + ": ";
    if (!fits(sample[i], input.type))
      throw CompileError(named + "got " + type_text(sample[i]) + ", expected " + input.type.str());
    if (!is_finite(sample[i]))
      throw CompileError(named + "got infinite or NaN elements, expected finite ones");
  }
}

// A tensor that layers read, and what is counted of it. Outlives the graph.
struct Observed {
  const ir::Value* value = nullptr;  // for comparison
  size_t channel_axis = 0;
  std::vector<std::string> layers;
  Histogram histogram;
  passes::CalibratedInput result;
  double rows = 0;  // how many numbers of each channel the means are of
};

// In the order of the graph.
std::vector<Observed> inputs_of(const std::vector<QuantisableLayer>& layers) {
  std::vector<Observed> observed;
  for (const QuantisableLayer& layer : layers) {
    const size_t axis = layer.channel_axis();
    auto found = std::ranges::find_if(observed, [&](const Observed& each) {
      return each.value == layer.input() && each.channel_axis == axis;
    });
    if (found == observed.end()) {
      Observed made;
      made.value = layer.input();
      made.channel_axis = axis;
      found = observed.insert(found, std::move(made));
    }
    found->layers.push_back(layer.name());
  }
  return observed;
}

std::vector<double> to_doubles(const ir::Literal& literal) {
  std::vector<double> values(static_cast<size_t>(literal.elements()));
  if (literal.dtype == DType::F32) {
    std::copy_n(literal.data<float>(), values.size(), values.begin());
  } else {
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = literal.as_double(static_cast<int64_t>(i));
  }
  return values;
}

// Adds up the channels of a tensor, as they are and as they are in u8.
void add_sums(Observed& observed, const ir::Literal& literal) {
  const std::vector<double> values = to_doubles(literal);
  const std::vector<int64_t>& shape = literal.shape;
  const auto channels = static_cast<size_t>(shape[observed.channel_axis]);
  size_t inner = 1;
  for (size_t axis = observed.channel_axis + 1; axis < shape.size(); ++axis)
    inner *= static_cast<size_t>(shape[axis]);
  passes::CalibratedInput& sums = observed.result;
  sums.means.resize(channels);
  sums.rounded_means.resize(channels);
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t channel = i / inner % channels;
    sums.means[channel] += values[i];
    sums.rounded_means[channel] += sums.scale.round_trip(values[i]);
  }
  if (channels > 0) observed.rows += static_cast<double>(values.size() / channels);
}

void divide_sums(Observed& observed) {
  const double rows = std::max(observed.rows, 1.0);
  for (double& mean : observed.result.means) mean /= rows;
  for (double& mean : observed.result.rounded_means) mean /= rows;
}

// An engine that computes the values, for any CPU.
std::vector<std::byte> observing_engine(ir::Graph graph, std::vector<ir::Value*> values,
                                        const CompileOptions& options) {
  std::vector<std::string> names;
  for (size_t i = 0; i < values.size(); ++i) names.push_back("observed_" + std::to_string(i));
  graph.set_outputs(std::move(values), std::move(names));
  graph.updates.clear();
  CompileOptions own;
  own.targets = {{"cpu", {"x86-64-v3"}}};
  own.compile_threads = options.compile_threads;
  own.disabled_passes = options.disabled_passes;
  own.check_bounds = options.check_bounds;
  own.emulate_precision_casts = options.emulate_precision_casts;
  return compile(std::move(graph), own);
}

Range range_of(const Histogram& histogram, CalibrationMethod method) {
  switch (method) {
    case CalibrationMethod::Extremes:
      return histogram.extremes();
    case CalibrationMethod::Percentile:
      return histogram.percentile(kPercentile);
    case CalibrationMethod::LeastError:
      return histogram.least_error();
  }
  throw InternalError("a calibration method");
}

// Runs the model twice: ranges need all values, and means of what is rounded need the ranges.
class Calibration {
 public:
  Calibration(const import::Model& model, const CompileOptions& options,
              const Quantisation& quantisation)
      : options_(options), asked_(options.quantisation) {
    ir::Graph graph = import::import_graph(model, options.ranges);
    samples_ = arrange_samples(graph, asked_.calibration, "calibration");
    prepare_graph(graph, options);
    const std::vector<QuantisableLayer> layers = passes::quantisable_layers(graph, quantisation);
    observed_ = inputs_of(layers);
    std::vector<ir::Value*> values;
    for (const Observed& observed : observed_)
      for (const QuantisableLayer& layer : layers)
        if (layer.name() == observed.layers.front()) values.push_back(layer.input());
    report(options, kStage, 0.0);
    engine_ = observing_engine(std::move(graph), std::move(values), options);
  }

  std::map<std::string, passes::CalibratedInput, std::less<>> run() {
    const bool rounds = asked_.scheme == Scheme::Int8;
    for_each_value(0.0, [](Observed& observed, const ir::Literal& values, size_t sample) {
      observed.histogram.add(values);
      if (observed.histogram.has_not_finite())
        throw CompileError("[quantize] got infinite or NaN values in front of the layer " +
                           observed.layers.front() + " with calibration set " +
                           std::to_string(sample) + ", expected finite ones; exclude the layer");
    });
    for (Observed& observed : observed_)
      observed.result.scale = passes::InputScale(range_of(observed.histogram, asked_.method));
    for_each_value(0.5, [](Observed& observed, const ir::Literal& values, size_t) {
      add_sums(observed, values);
    });
    std::map<std::string, passes::CalibratedInput, std::less<>> inputs;
    for (Observed& observed : observed_) {
      divide_sums(observed);
      if (!rounds) observed.result.rounded_means = observed.result.means;
      for (const std::string& layer : observed.layers) inputs[layer] = observed.result;
    }
    return inputs;
  }

 private:
  static constexpr std::string_view kStage = "calibrate";

  template <typename Take>
  void for_each_value(double begin, const Take& take) {
    options_.run_engine(engine_, samples_, [&](size_t sample, const Sample& outputs) {
      for (size_t i = 0; i < outputs.size(); ++i) take(observed_[i], outputs[i], sample);
      const auto count = static_cast<double>(samples_.size());
      report(options_, kStage, begin + static_cast<double>(sample + 1) / count / 2);
    });
  }

  const CompileOptions& options_;
  const QuantisationOptions& asked_;
  std::vector<Sample> samples_;
  std::vector<Observed> observed_;
  std::vector<std::byte> engine_;
};

void check_group_size(const QuantisationOptions& asked) {
  if (asked.group_size == 0) return;
  const std::string got = "[quantize] got the group size " + std::to_string(asked.group_size);
  if (asked.scheme == Scheme::Int8)
    throw CompileError(got + " for int8, expected none: groups are of weights alone");
  if (asked.group_size < 0 || asked.group_size % 8 != 0)
    throw CompileError(got +
                       ", expected a multiple of 8, or 0 for one scale for each output channel");
}

void check_options(const CompileOptions& options) {
  const QuantisationOptions& asked = options.quantisation;
  check_group_size(asked);
  if (options.refittable || options.strip_weights)
    throw CompileError(std::string("[quantize] got ") +
                       (options.refittable ? "refittable" : "strip_weights") +
                       " beside it, expected neither: what is quantised cannot be refitted");
  if (asked.scheme == Scheme::Int8 && asked.calibration.sets.empty())
    throw CompileError(
        "[quantize] got int8 without calibration inputs, expected at least one set; "
        "int8-weights and int4-weights need none");
}

}  // namespace

std::vector<Sample> arrange_samples(const ir::Graph& graph, const Samples& samples,
                                    const char* what) {
  std::vector<Sample> arranged;
  for (size_t s = 0; s < samples.sets.size(); ++s) {
    const std::string where = std::string("[") + what + "] set " + std::to_string(s) + ": ";
    const Sample ordered = in_order(graph, samples.names, samples.sets[s], where);
    if (!has_leading_axis(graph, ordered)) {
      check_sample(graph, ordered, where);
      arranged.push_back(ordered);
      continue;
    }
    for (int64_t i = 0; i < ordered.front().shape.front(); ++i) {
      Sample part;
      for (const ir::Literal& literal : ordered) part.push_back(part_of(literal, i));
      check_sample(graph, part, where + "part " + std::to_string(i) + ": ");
      arranged.push_back(std::move(part));
    }
  }
  return arranged;
}

// --- Histograms ---

void Histogram::widen(double value) {
  if (limit_ == 0) {
    limit_ = std::exp2(std::ceil(std::log2(value)));
    counts_.assign(kBins, 0);
  }
  while (value > limit_) {  // pairs of bins become one, around the middle
    std::vector<uint64_t> merged(kBins, 0);
    for (int bin = 0; bin < kBins; ++bin)
      merged[static_cast<size_t>(kBins / 4 + bin / 2)] += counts_[static_cast<size_t>(bin)];
    counts_ = std::move(merged);
    limit_ *= 2;
  }
}

void Histogram::add(double value) {
  ++total_;
  if (!std::isfinite(value)) {
    not_finite_ = true;
    return;
  }
  if (value == 0) return;  // exact in every range
  if (std::abs(value) > limit_) widen(std::abs(value));
  low_ = std::min(low_, value);
  high_ = std::max(high_, value);
  const double place = (value / limit_ + 1) * (kBins / 2);
  ++counts_[static_cast<size_t>(std::clamp(place, 0.0, kBins - 1.0))];
}

void Histogram::add(const ir::Literal& values) {
  for (const double value : to_doubles(values)) add(value);
}

Range Histogram::percentile(double share) const {
  if (limit_ == 0) return {};
  const double cut = share * static_cast<double>(total_);
  const auto end = [&](int from, int step) {
    double passed = 0;
    int bin = from;
    while (true) {
      passed += static_cast<double>(counts_[static_cast<size_t>(bin)]);
      if (passed > cut || bin == kBins - 1 - from) return centre(bin);
      bin += step;
    }
  };
  return {std::clamp(end(0, 1), low_, 0.0), std::clamp(end(kBins - 1, -1), 0.0, high_)};
}

// Values within the range are off by at most half a step, and by its square over 12 in the mean; others by what
// lies beyond its end.
double Histogram::error_of(const Range& range) const {
  const double step = (range.high - range.low) / 255, inside = step * step / 12;
  double error = 0;
  for (int bin = 0; bin < kBins; ++bin) {
    const auto count = static_cast<double>(counts_[static_cast<size_t>(bin)]);
    if (count == 0) continue;
    const double value = centre(bin);
    const double beyond = std::max({range.low - value, value - range.high, 0.0});
    error += count * (beyond > 0 ? beyond * beyond : inside);
  }
  return error;
}

Range Histogram::least_error() const {
  Range best = extremes();
  if (limit_ == 0) return best;
  double least = error_of(best);
  const auto consider = [&](const Range& range) {
    const double error = error_of(range);
    if (error >= least) return;
    least = error;
    best = range;
  };
  // Both ends together, then one after the other.
  constexpr int kSteps = 100;
  const Range whole = best;
  for (int i = 1; i < kSteps; ++i) consider({whole.low * i / kSteps, whole.high * i / kSteps});
  for (int round = 0; round < 2; ++round) {
    for (int i = 1; i <= kSteps; ++i) consider({whole.low * i / kSteps, best.high});
    for (int i = 1; i <= kSteps; ++i) consider({best.low, whole.high * i / kSteps});
  }
  return best;
}

// --- The whole ---

Quantisation prepare_quantisation(const import::Model& model, const CompileOptions& options) {
  const QuantisationOptions& asked = options.quantisation;
  Quantisation result;
  result.scheme = asked.scheme;
  if (asked.scheme == Scheme::None) return result;
  check_options(options);
  result.group_size = asked.group_size;
  result.exclude = asked.exclude;
  if (!asked.calibration.sets.empty()) result.inputs = Calibration(model, options, result).run();
  return result;
}

}  // namespace kiln
