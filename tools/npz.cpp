#include "npz.h"

#include <cstdint>
#include <cstring>
#include <string_view>

#include "failure.h"

namespace tools {
namespace {

constexpr std::string_view kEndMark = "PK\x05\x06", kEntryMark = "PK\x01\x02",
                           kLocalMark = "PK\x03\x04";
constexpr size_t kEntryBytes = 46, kLocalBytes = 30;
constexpr uint32_t kElsewhere = 0xffffffff;  // in fields of archives of more than 4 GiB

class Archive {
 public:
  Archive(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  std::vector<std::pair<std::string, Array>> arrays() const {
    const size_t end = bytes_.rfind(kEndMark);
    if (end == std::string_view::npos) damaged("no directory");
    std::vector<std::pair<std::string, Array>> result;
    size_t at = number<uint32_t>(end + 16);
    for (size_t left = number<uint16_t>(end + 10); left > 0; --left) {
      if (text(at, 4) != kEntryMark) damaged("a damaged directory");
      const size_t name_size = number<uint16_t>(at + 28);
      std::string name(text(at + kEntryBytes, name_size));
      const std::string_view content = content_of(at, name);
      if (name.ends_with(".npy")) name.resize(name.size() - 4);
      result.emplace_back(name, parse_npy(content, path_ + ", " + name));
      at += kEntryBytes + name_size + number<uint16_t>(at + 30) + number<uint16_t>(at + 32);
    }
    return result;
  }

 private:
  [[noreturn]] void damaged(const std::string& what) const {
    throw Failure(path_ + ": not a .npz file: it has " + what);
  }
  std::string_view text(size_t at, size_t size) const {
    if (at > bytes_.size() || size > bytes_.size() - at) damaged("no end");
    return bytes_.substr(at, size);
  }
  template <typename Number>
  Number number(size_t at) const {
    Number value{};
    std::memcpy(&value, text(at, sizeof(value)).data(), sizeof(value));
    return value;
  }
  std::string_view content_of(size_t at, const std::string& name) const {
    if (number<uint16_t>(at + 10) != 0)
      throw Failure(path_ + ", " + name + ": got a compressed entry, expected numpy.savez's");
    const auto size = number<uint32_t>(at + 24), local = number<uint32_t>(at + 42);
    if (size == kElsewhere || local == kElsewhere)
      throw Failure(path_ + ": got more than 4 GiB, expected several files");
    if (text(local, 4) != kLocalMark) damaged("a damaged entry");
    const size_t header = kLocalBytes + number<uint16_t>(local + 26) + number<uint16_t>(local + 28);
    return text(local + header, size);
  }

  std::string_view bytes_;
  const std::string& path_;
};

}  // namespace

std::vector<std::pair<std::string, Array>> read_npz(const std::string& path) {
  const std::string bytes = read_file(path);
  return Archive(bytes, path).arrays();
}

}  // namespace tools
