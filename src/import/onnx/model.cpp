#include "import/onnx/model.h"

#include <filesystem>

#include "import/onnx/importer.h"
#include "support/hash.h"

namespace kiln::import::onnx {
namespace {

class OnnxModel final : public Model {
 public:
  OnnxModel(std::shared_ptr<const FileMap> file, const std::string& path)
      : file_(std::move(file)),
        folder_(std::filesystem::path(path).parent_path().string()),
        proto_(parse_model(file_->bytes())) {}

  ir::Graph import_graph(std::span<const DimRange> ranges, bool replaceable) const override {
    return with_equal_sizes([&](const EqualSizes& equal) {
      return Importer(proto_, files(), ranges, replaceable, equal).import_graph();
    });
  }
  std::vector<NodeSupport> check_support() const override {
    return with_equal_sizes([&](const EqualSizes& equal) {
      return Importer(proto_, files(), {}, false, equal).check_support();
    });
  }
  // Nothing was traced: no size was taken for a constant.
  std::vector<DimRange> with_small_sizes(std::span<const DimRange> ranges) const override {
    return {ranges.begin(), ranges.end()};
  }
  bool is_dynamic(const std::string& input, int32_t dim) const override {
    return size_is_open(proto_, input, dim);
  }
  void add_fingerprint(Hasher& hasher) const override {
    hasher.update(file_->bytes());
    TensorFiles external = files();
    for (const Tensor& tensor : proto_.graph.initializers)
      if (tensor.is_external) hasher.update(external.external_bytes(tensor));
  }

 private:
  TensorFiles files() const { return {file_, folder_}; }

  std::shared_ptr<const FileMap> file_;
  std::string folder_;
  ModelProto proto_;
};

}  // namespace

bool looks_like_onnx(const std::string& path, std::span<const std::byte> bytes) {
  constexpr std::byte kIrVersion{0x08};  // field 1, a number: what libraries write first
  return path.ends_with(".onnx") || (!bytes.empty() && bytes[0] == kIrVersion);
}

std::shared_ptr<Model> open_model(std::shared_ptr<const FileMap> file, const std::string& path) {
  return std::make_shared<OnnxModel>(std::move(file), path);
}

}  // namespace kiln::import::onnx
