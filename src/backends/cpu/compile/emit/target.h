// The levels of x86-64 that code is generated for, and what their machines can do.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include <llvm/IR/IRBuilder.h>

namespace kiln::cpu {

// Instructions that code asks for by name. A row of the table in target.cpp each: what LLVM calls
// it, and which feature of docs/engine_format.md a machine must have.
enum class Feature : uint8_t {
  Avx2,
  Fma,
  F16c,
  Avx512F,
  Avx512Bw,
  Avx512Dq,
  Avx512Vl,
  Avx512Bf16,
  Avx512Vnni,
  AvxVnni,
  AmxTile,
  AmxBf16,
  AmxInt8,
};

class FeatureSet {
 public:
  FeatureSet(std::initializer_list<Feature> features) {
    for (Feature feature : features) bits_ |= bit(feature);
  }
  bool has(Feature feature) const { return (bits_ & bit(feature)) != 0; }
  // As LLVM's function attribute "target-features" wants them.
  std::string llvm_str() const;
  // What a machine must have to run code that uses all of them, by the names in engine files.
  std::vector<std::string> required() const;

 private:
  static uint32_t bit(Feature feature) { return uint32_t{1} << static_cast<uint8_t>(feature); }
  uint32_t bits_ = 0;
};

// One level: LLVM's CPU `cpu`, with at least these features.
struct Target {
  std::string name;
  std::string cpu;
  FeatureSet features;
  int vector_bits = 256;
  int registers = 16;  // vector registers

  bool has(Feature feature) const { return features.has(feature); }
  // Elements of every vector in the code, whatever their type: f32 elements of a register. A vector
  // of f64 takes two registers.
  int lanes() const { return vector_bits / 32; }
};

// The same question where only a function under construction is at hand: the features of its
// target.
bool has_feature(const llvm::IRBuilder<>& ir, Feature feature);

}  // namespace kiln::cpu
