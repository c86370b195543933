// A loop over a graph of the model, as Loop and Scan have it.
#pragma once

#include <string>
#include <vector>

#include "import/onnx/call.h"

namespace kiln::import::onnx {

// Steps that are copies of the body; longer loops repeat it.
inline constexpr int64_t kMaxSteps = 128;

// Each step makes new states, and a row of each result, of the states and a row of each tensor.
struct BodyLoop {
  const Graph& body;
  std::vector<std::string>
      inputs;  // of the body: of states, of rows, and of the step's number if `counts`
  bool counts = false;
  std::string condition;    // the body's input that is true; empty: none
  size_t first_output = 0;  // of the body: a new value for each state, and rows from there on
  std::vector<Value*> states, rows;  // rows are along the first axis
  Dim steps;
};

// What a body uses of the graphs around it. Sizes are made again in the body, so that they are known there.
struct OuterValues {
  struct Each {
    std::string name;
    const Elements* sizes;  // null where the value is handed in
    ir::Type type;
    bool is_packed;
  };
  std::vector<Each> each;
  std::vector<Value*> values;  // null for sizes
};

}  // namespace kiln::import::onnx
