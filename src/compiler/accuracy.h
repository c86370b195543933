// How far results of an engine are from those of the model in floats, and which layers are to blame.
#pragma once

#include <string>
#include <vector>

#include "compiler/driver.h"

namespace kiln {

// Of numbers from what was expected of them, over all sets of inputs.
class Difference {
 public:
  // Where neither is finite and both are the same, they do not differ.
  void add(double got, double expected);

  double relative() const;  // the norm of the differences by that of what was expected
  double cosine() const;    // of the angle between the two
  double worst() const { return worst_; }  // the largest absolute difference
  bool has_not_finite() const { return not_finite_; }

 private:
  double squares_ = 0, expected_squares_ = 0, got_squares_ = 0, products_ = 0, worst_ = 0;
  bool not_finite_ = false;
};

struct AccuracyReport {
  struct Row {
    std::string name;
    std::string location;  // of layers: in the user's model
    Difference difference;
  };
  size_t sets = 0;
  std::vector<Row> outputs;
  std::vector<Row> layers;  // of all outputs, if that layer alone is quantised
};

// Runs the model in floats and `engine` on CPUs, on the same inputs; of an empty engine, the one that the options
// make. `layers`: runs the model once more for each layer that the options quantise. CompileError for inputs that are
// not the model's, an engine with other outputs, and layers of options that quantise none.
AccuracyReport accuracy(const import::Model& model, const CompileOptions& options,
                        std::span<const std::byte> engine, const Samples& samples, bool layers);

}  // namespace kiln
