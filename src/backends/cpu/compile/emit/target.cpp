#include "backends/cpu/compile/emit/target.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "support/error.h"

namespace kiln::cpu {

namespace {

struct FeatureRow {
  Feature feature;
  std::string_view llvm_name;
  std::string_view required;  // in engine files
};

constexpr std::array<FeatureRow, 13> kFeatures = {{
    {Feature::Avx2, "+avx2", "avx2"},
    {Feature::Fma, "+fma", "avx2"},
    {Feature::F16c, "+f16c", "avx2"},
    {Feature::Avx512F, "+avx512f", "avx512"},
    {Feature::Avx512Bw, "+avx512bw", "avx512"},
    {Feature::Avx512Dq, "+avx512dq", "avx512"},
    {Feature::Avx512Vl, "+avx512vl", "avx512"},
    {Feature::Avx512Bf16, "+avx512bf16", "avx512bf16"},
    {Feature::Avx512Vnni, "+avx512vnni", "avx512vnni"},
    {Feature::AvxVnni, "+avxvnni", "avxvnni"},
    {Feature::AmxTile, "+amx-tile", "amxtile"},
    {Feature::AmxBf16, "+amx-bf16", "amxbf16"},
    {Feature::AmxInt8, "+amx-int8", "amxint8"},
}};

std::string_view llvm_name(Feature feature) {
  for (const FeatureRow& row : kFeatures) {
    if (row.feature == feature) return row.llvm_name;
  }
  throw InternalError("a feature without a name");
}

}  // namespace

std::string FeatureSet::llvm_str() const {
  std::string text;
  for (const FeatureRow& row : kFeatures) {
    if (!has(row.feature)) continue;
    if (!text.empty()) text += ",";
    text += row.llvm_name;
  }
  return text;
}

std::vector<std::string> FeatureSet::required() const {
  std::vector<std::string> names;
  for (const FeatureRow& row : kFeatures) {
    if (has(row.feature) && std::ranges::find(names, row.required) == names.end())
      names.emplace_back(row.required);
  }
  return names;
}

bool has_feature(const llvm::IRBuilder<>& ir, Feature feature) {
  const llvm::Function& function = *ir.GetInsertBlock()->getParent();
  llvm::StringRef rest = function.getFnAttribute("target-features").getValueAsString();
  while (!rest.empty()) {
    const auto [first, others] = rest.split(',');
    if (first == llvm::StringRef(llvm_name(feature))) return true;
    rest = others;
  }
  return false;
}

}  // namespace kiln::cpu
