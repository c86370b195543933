#include "import/zip_writer.h"

namespace kiln::test {
namespace {

template <typename T>
void put(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i)
    out += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xff);
}

}  // namespace

void ZipWriter::add(std::string_view name, std::string_view data, const Entry& entry) {
  const uint64_t offset = data_.size() + static_cast<uint64_t>(entry.offset_error);
  put<uint32_t>(data_, 0x04034b50);
  data_.append(22, '\0');
  put<uint16_t>(data_, static_cast<uint16_t>(name.size()));
  put<uint16_t>(data_, 3);  // an extra field, as torch pads with
  data_ += name;
  data_ += "FB_";
  data_ += data;

  const uint64_t size = data.size() + static_cast<uint64_t>(entry.size_error);
  const uint64_t packed = size + static_cast<uint64_t>(entry.packed_error);
  put<uint32_t>(directory_, 0x02014b50);
  put<uint32_t>(directory_, 0);
  put<uint16_t>(directory_, entry.flags);
  put<uint16_t>(directory_, entry.method);
  directory_.append(8, '\0');
  put<uint32_t>(directory_, static_cast<uint32_t>(entry.zip64 ? 0xffffffff : packed));
  put<uint32_t>(directory_, static_cast<uint32_t>(entry.zip64 ? 0xffffffff : size));
  put<uint16_t>(directory_, static_cast<uint16_t>(name.size()));
  put<uint16_t>(directory_, entry.zip64 ? 28 : 0);
  directory_.append(10, '\0');
  put<uint32_t>(directory_, static_cast<uint32_t>(entry.zip64 ? 0xffffffff : offset));
  directory_ += name;
  if (entry.zip64) {
    put<uint16_t>(directory_, 1);
    put<uint16_t>(directory_, 24);
    put<uint64_t>(directory_, size);
    put<uint64_t>(directory_, packed);
    put<uint64_t>(directory_, offset);
  }
  ++count_;
}

std::string ZipWriter::finish(bool zip64, std::string_view comment) const {
  std::string out = data_ + directory_;
  const size_t directory_at = data_.size(), end_at = out.size();
  if (zip64) {
    put<uint32_t>(out, 0x06064b50);
    put<uint64_t>(out, 44);
    out.append(12, '\0');
    put<uint64_t>(out, count_);
    put<uint64_t>(out, count_);
    put<uint64_t>(out, directory_.size());
    put<uint64_t>(out, directory_at);
    put<uint32_t>(out, 0x07064b50);
    put<uint32_t>(out, 0);
    put<uint64_t>(out, end_at);
    put<uint32_t>(out, 1);
  }
  put<uint32_t>(out, 0x06054b50);
  put<uint32_t>(out, 0);
  put<uint16_t>(out, count_);
  put<uint16_t>(out, count_);
  put<uint32_t>(out, static_cast<uint32_t>(directory_.size()));
  put<uint32_t>(out, static_cast<uint32_t>(directory_at));
  put<uint16_t>(out, static_cast<uint16_t>(comment.size()));
  out += comment;
  return out;
}

}  // namespace kiln::test
