// Archives as a whole: weights, their configuration, and what must be refused.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "import/import.h"
#include "import/sample_program.h"
#include "import/zip_writer.h"
#include "support/error.h"

namespace kiln::import {
namespace {

using test::SampleProgram;
using test::ZipWriter;

// A file that is removed at the end of the test.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& content)
      : path_(testing::TempDir() + "kiln_model_" + std::to_string(getpid()) + ".pt2") {
    std::ofstream(path_, std::ios::binary) << content;
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct SampleArchive {
  std::string sizes = R"([{"as_int":1},{"as_int":4}])", strides = R"([{"as_int":4},{"as_int":1}])";
  std::string offset = "0", pickled = "false", path = "weight_0", byteorder = "little";
  std::string data =
      std::string("\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40", 16);  // 1, 2, 3, 4

  std::string config() const {
    return R"({"config":{"w":{"path_name":")" + path + R"(","is_param":true,"use_pickle":)" +
           pickled + R"(,"tensor_meta":{"dtype":7,"sizes":)" + sizes +
           R"(,"requires_grad":false,"device":{"type":"cpu"},)" + R"("strides":)" + strides +
           R"(,"storage_offset":{"as_int":)" + offset + R"(},"layout":7}}}})";
  }

  std::string program() const {
    SampleProgram sample;
    sample.input_specs +=
        R"(,{"buffer":{"arg":{"name":"b_w"},"buffer_name":"w","persistent":true}})";
    sample.tensor_values += "," + SampleProgram::meta("b_w", R"({"as_int":1})");
    sample.nodes = SampleProgram::node("torch.ops.aten.add.Tensor",
                                       R"({"name":"self","arg":{"as_tensor":{"name":"x"}}},)"
                                       R"({"name":"other","arg":{"as_tensor":{"name":"b_w"}}})");
    return sample.json();
  }

  std::string file() const {
    ZipWriter writer;
    writer.add("m/data/weights/weight_0", data);
    writer.add("m/data/weights/model_weights_config.json", config());
    writer.add("m/models/model.json", program());
    writer.add("m/byteorder", byteorder);
    return writer.finish(true);
  }

  // The weight of the imported graph.
  ir::Literal weight() const {
    const TemporaryFile file(this->file());
    const ir::Graph graph = import_graph(*Model::open_file(file.path()));
    return graph.nodes().front()->attr<ir::Literal>("value");
  }

  std::string error() const {
    try {
      weight();
    } catch (const CompileError& error) {
      return error.what();
    }
    return "no error";
  }
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(ModelTest, ReadsWeights) {
  const ir::Literal weight = SampleArchive().weight();
  EXPECT_EQ(weight.shape, (std::vector<int64_t>{1, 4}));
  EXPECT_EQ(weight.as_double(3), 4.0);
}

TEST(ModelTest, ReadsViewsOfAStorage) {
  SampleArchive archive;
  archive.sizes = R"([{"as_int":1},{"as_int":4}])";
  archive.strides = R"([{"as_int":4},{"as_int":0}])";
  archive.offset = "2";
  const ir::Literal repeated = archive.weight();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(repeated.as_double(i), 3.0);
}

TEST(ModelTest, RefusesWeightsBeyondTheirStorage) {
  SampleArchive archive;
  archive.offset = "1";
  EXPECT_TRUE(contains(archive.error(), "[weight w] got 16 bytes, expected 5 elements"));
  archive.offset = "-1";
  EXPECT_TRUE(contains(archive.error(), "[weight w]"));
  archive.offset = "0";
  archive.sizes = R"([{"as_int":4611686018427387904},{"as_int":4}])";
  EXPECT_TRUE(contains(archive.error(), "[weight w]"));
  archive.sizes = R"([{"as_int":281474976710656},{"as_int":281474976710656}])";
  EXPECT_TRUE(contains(archive.error(), "2^48"));
  archive.strides = R"([{"as_int":0},{"as_int":0}])";
  archive.sizes = R"([{"as_int":1073741824},{"as_int":4}])";
  EXPECT_TRUE(contains(archive.error(), "an expanded tensor"));
  archive.sizes = R"([{"as_int":4}])";
  EXPECT_TRUE(contains(archive.error(), "2 strides"));
}

TEST(ModelTest, RefusesPickles) {
  SampleArchive archive;
  archive.pickled = "true";
  EXPECT_TRUE(contains(archive.error(), "[weight w] got a pickled tensor"));
}

TEST(ModelTest, RefusesArchivesThatLackSomething) {
  SampleArchive archive;
  archive.path = "weight_1";
  EXPECT_TRUE(contains(archive.error(), "no entry data/weights/weight_1"));
  archive.path = "weight_0";
  archive.byteorder = "big";
  EXPECT_TRUE(contains(archive.error(), "byte order big"));

  ZipWriter writer;
  writer.add("m/archive_format", "pt2");
  const TemporaryFile file(writer.finish());
  EXPECT_THROW(Model::open_file(file.path()), CompileError);
  EXPECT_THROW(Model::open_file("/no/such/file.pt2"), CompileError);
  EXPECT_THROW(Model::open_file("/"), CompileError);
}

}  // namespace
}  // namespace kiln::import
