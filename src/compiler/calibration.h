// What the quantiser has to know of a model: the ranges of the tensors that it quantises, found by running the
// model in floats on calibration inputs.
#pragma once

#include "compiler/driver.h"
#include "passes/quantisation.h"

namespace kiln {

// How often values of a tensor occurred: bins of equal width over [-limit, limit], which doubles where a value
// needs it. Infinite and NaN values are counted apart.
class Histogram {
 public:
  void add(const ir::Literal& values);

  // Whether values were not finite.
  bool has_not_finite() const { return not_finite_; }
  // Of the values; of none and of zeros alone: empty.
  passes::Range extremes() const { return {low_, high_}; }
  // The shortest range without `share` of the values at each end.
  passes::Range percentile(double share) const;
  // The range with the least mean squared error of values that are rounded to one of 256 steps of it.
  passes::Range least_error() const;

 private:
  static constexpr int kBins = 8192;

  void add(double value);
  void widen(double value);
  double centre(int bin) const { return (bin + 0.5 - kBins / 2) * limit_ / (kBins / 2); }
  double error_of(const passes::Range& range) const;

  std::vector<uint64_t> counts_;
  uint64_t total_ = 0;
  double limit_ = 0;
  double low_ = 0, high_ = 0;
  bool not_finite_ = false;
};

// What the pass is to do, as the options say: calibrates where the scheme asks for it. CompileError for options
// that do not go together, for calibration inputs that are not the model's, and for values that are not finite.
// The ranges are those that the model is imported with.
passes::Quantisation prepare_quantisation(const import::Model& model,
                                          const CompileOptions& options);

}  // namespace kiln
