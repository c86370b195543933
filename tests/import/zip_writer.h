// Makes small zip archives for tests, right or wrong on purpose.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace kiln::test {

class ZipWriter {
 public:
  struct Entry {
    uint16_t method = 0;
    uint16_t flags = 0;
    int64_t size_error = 0;    // added to both sizes in the directory
    int64_t packed_error = 0;  // added to the packed size only
    int64_t offset_error = 0;
    bool zip64 = false;
  };

  void add(std::string_view name, std::string_view data, const Entry& entry);
  void add(std::string_view name, std::string_view data) { add(name, data, Entry{}); }
  // The whole archive; `zip64`: with a 64-bit end record. `comment` follows the end record.
  std::string finish(bool zip64 = false, std::string_view comment = "") const;

 private:
  std::string data_, directory_;
  uint16_t count_ = 0;
};

}  // namespace kiln::test
