// While it lives the importer makes values of another graph.
//
// What is known of values goes by their addresses, so each graph has its own: it goes before the values do.
#pragma once

#include <utility>

#include "import/onnx/call.h"

namespace kiln::import::onnx {

class Within {
 public:
  Within(Context& context, ir::Graph& inner) : context_(context), inner_(inner) { swap(); }
  ~Within() { swap(); }
  Within(const Within&) = delete;
  Within& operator=(const Within&) = delete;

 private:
  void swap() {
    std::swap(context_.graph, inner_);
    std::swap(context_.known, known_);
    std::swap(context_.packed, packed_);
  }

  Context& context_;
  ir::Graph& inner_;
  KnownElements known_;
  std::set<const Value*> packed_;
};

}  // namespace kiln::import::onnx
