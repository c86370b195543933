#include "compiler/accuracy.h"

#include <algorithm>
#include <cmath>

#include "compiler/calibration.h"
#include "compiler/stages.h"
#include "support/error.h"

namespace kiln {
namespace {

using passes::Quantisation;
using Sets = std::vector<std::vector<ir::Literal>>;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

void compare(const ir::Literal& got, const ir::Literal& expected, const std::string& name,
             Difference& difference) {
  if (got.shape != expected.shape)
    throw CompileError("[accuracy] output " + name + ": got the shape " + shape_text(got.shape) +
                       ", expected " + shape_text(expected.shape));
  for (int64_t i = 0; i < got.elements(); ++i)
    difference.add(got.as_double(i), expected.as_double(i));
}

// The model in floats, and what is compared with it.
class Comparison {
 public:
  Comparison(const import::Model& model, const CompileOptions& options, const Samples& samples)
      : model_(model), options_(options) {
    plain_ = options;
    plain_.quantisation = {};
    plain_.cache.directory.clear();
    plain_.strip_weights = false;
    ir::Graph graph = import::import_graph(model, options.ranges);
    sets_ = arrange_samples(graph, samples, "accuracy");
    if (sets_.empty())
      throw CompileError("[accuracy] got no inputs to run the model on, expected at least one set");
    prepare_graph(graph, plain_);
    names_ = graph.output_names();
    options.run_engine(engine_of({}), sets_, [&](size_t, const std::vector<ir::Literal>& outputs) {
      expected_.push_back(outputs);
    });
    const auto scheme = options.quantisation.scheme;
    if (scheme == Quantisation::Scheme::None) return;
    quantisation_ = prepare_quantisation(model, options);
    for (const passes::QuantisableLayer& layer : passes::quantisable_layers(graph, quantisation_))
      layers_.push_back({layer.name(), layer.node->location, {}});
  }

  std::vector<AccuracyReport::Row> outputs(std::span<const std::byte> given) const {
    const std::vector<std::byte> made =
        given.empty() ? engine_of(quantisation_) : std::vector<std::byte>();
    std::vector<AccuracyReport::Row> rows;
    for (const std::string& name : names_) rows.push_back({name, "", {}});
    options_.run_engine(
        given.empty() ? made : given, sets_, [&](size_t set, const std::vector<ir::Literal>& got) {
          if (got.size() != rows.size())
            throw CompileError("[accuracy] got an engine with " + std::to_string(got.size()) +
                               " outputs, expected " + std::to_string(rows.size()));
          for (size_t i = 0; i < rows.size(); ++i)
            compare(got[i], expected_[set][i], names_[i], rows[i].difference);
        });
    return rows;
  }

  std::vector<AccuracyReport::Row> layers() const {
    if (layers_.empty())
      throw CompileError(
          "[accuracy] got no scheme of quantisation, expected one: layers are "
          "quantised one at a time");
    Quantisation one = quantisation_;
    one.one_at_a_time = true;
    const std::vector<std::byte> engine = engine_of(one);
    std::vector<AccuracyReport::Row> rows = layers_;
    for (size_t layer = 0; layer < rows.size(); ++layer) {
      Sets sets = sets_;
      for (auto& set : sets)
        set.push_back(ir::Literal::scalar_int(DType::I64, static_cast<int64_t>(layer)));
      options_.run_engine(engine, sets, [&](size_t set, const std::vector<ir::Literal>& got) {
        for (size_t i = 0; i < got.size(); ++i)
          compare(got[i], expected_[set][i], names_[i], rows[layer].difference);
      });
      report(options_, "compare layers",
             static_cast<double>(layer + 1) / static_cast<double>(rows.size()));
    }
    return rows;
  }

  size_t sets() const { return sets_.size(); }

 private:
  std::vector<std::byte> engine_of(const Quantisation& quantisation) const {
    const CompiledProgram compiled =
        compile_plans(plan_model(model_, plain_, quantisation), plain_);
    return write_engine(compiled.spec, compiled.constants, engine::Weights::Included);
  }

  const import::Model& model_;
  const CompileOptions& options_;
  CompileOptions plain_;
  Quantisation quantisation_;
  Sets sets_, expected_;
  std::vector<std::string> names_;
  std::vector<AccuracyReport::Row> layers_;
};

}  // namespace

void Difference::add(double got, double expected) {
  const bool is_same = got == expected || (std::isnan(got) && std::isnan(expected));
  if (!std::isfinite(got) || !std::isfinite(expected)) {
    not_finite_ |= !is_same;
    return;
  }
  const double difference = got - expected;
  squares_ += difference * difference;
  expected_squares_ += expected * expected;
  got_squares_ += got * got;
  products_ += got * expected;
  worst_ = std::max(worst_, std::abs(difference));
}

double Difference::relative() const {
  if (squares_ == 0) return 0;
  return std::sqrt(squares_ / expected_squares_);  // infinite where zeros were expected
}

double Difference::cosine() const {
  if (squares_ == 0) return 1;
  const double norms = std::sqrt(expected_squares_) * std::sqrt(got_squares_);
  return norms == 0 ? 0 : products_ / norms;
}

AccuracyReport accuracy(const import::Model& model, const CompileOptions& options,
                        std::span<const std::byte> engine, const Samples& samples, bool layers) {
  const Comparison comparison(model, options, samples);
  AccuracyReport report;
  report.sets = comparison.sets();
  report.outputs = comparison.outputs(engine);
  if (layers) report.layers = comparison.layers();
  return report;
}

}  // namespace kiln
