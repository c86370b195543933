#include "cubin.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

namespace tools {
namespace {

// Attributes of a section .nv.info: a format, a name, the bytes of the value, and the value.
constexpr uint8_t kSizedValue = 0x04, kRegisters = 0x2f, kFrameSize = 0x11;
struct Attribute {
  uint8_t format, name;
  uint16_t bytes;
};

// The ELF file that some bytes begin with. Nothing outside of the bytes is read, whatever they say.
class ElfFile {
 public:
  explicit ElfFile(std::span<const std::byte> bytes) : bytes_(bytes) {
    Elf64_Ehdr header;
    if (!read(0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_shentsize != sizeof(Elf64_Shdr))
      return;
    sections_.resize(header.e_shnum);
    for (size_t i = 0; i < sections_.size(); ++i) {
      uint64_t at = 0;
      if (__builtin_add_overflow(header.e_shoff, i * sizeof(Elf64_Shdr), &at) ||
          !read(at, sections_[i])) {
        sections_.clear();
        return;
      }
      end_ = std::max({end_, at + sizeof(Elf64_Shdr), end_of(sections_[i])});
    }
    if (header.e_shstrndx < sections_.size()) names_ = content(sections_[header.e_shstrndx]);
  }

  // Null if there is none of that name.
  const Elf64_Shdr* find(std::string_view name) const {
    const auto found = std::ranges::find_if(
        sections_, [&](const Elf64_Shdr& section) { return name_of(section) == name; });
    return found == sections_.end() ? nullptr : &*found;
  }
  std::span<const std::byte> content(const Elf64_Shdr& section) const {
    const bool is_inside = section.sh_type != SHT_NOBITS && section.sh_offset <= bytes_.size() &&
                           section.sh_size <= bytes_.size() - section.sh_offset;
    return is_inside ? bytes_.subspan(section.sh_offset, section.sh_size)
                     : std::span<const std::byte>();
  }
  // The name of a symbol.
  std::string_view symbol(uint64_t index) const {
    const Elf64_Shdr *symbols = find(".symtab"), *names = find(".strtab");
    Elf64_Sym symbol;
    if (symbols == nullptr || names == nullptr ||
        index >= content(*symbols).size() / sizeof(Elf64_Sym))
      return "";
    std::memcpy(&symbol, content(*symbols).data() + index * sizeof(Elf64_Sym), sizeof(symbol));
    return text_at(content(*names), symbol.st_name);
  }
  uint64_t end() const { return end_; }

 private:
  template <typename Struct>
  bool read(uint64_t offset, Struct& result) const {
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof(Struct)) return false;
    std::memcpy(&result, bytes_.data() + offset, sizeof(Struct));
    return true;
  }
  uint64_t end_of(const Elf64_Shdr& section) const {
    const std::span<const std::byte> bytes = content(section);
    return bytes.empty() ? 0 : section.sh_offset + bytes.size();
  }
  std::string_view name_of(const Elf64_Shdr& section) const {
    return text_at(names_, section.sh_name);
  }
  static std::string_view text_at(std::span<const std::byte> texts, uint64_t offset) {
    if (offset >= texts.size()) return "";
    const std::string_view rest(reinterpret_cast<const char*>(texts.data()) + offset,
                                texts.size() - offset);
    return rest.substr(0, rest.find('\0'));
  }

  std::span<const std::byte> bytes_, names_;
  std::vector<Elf64_Shdr> sections_;
  uint64_t end_ = 0;
};

}  // namespace

std::optional<KernelResources> resources_of(std::span<const std::byte> code,
                                            const std::string& function) {
  const ElfFile elf(code);
  const Elf64_Shdr* info = elf.find(".nv.info");
  if (info == nullptr) return std::nullopt;
  KernelResources result;
  std::span<const std::byte> rest = elf.content(*info);
  while (rest.size() >= sizeof(Attribute)) {
    Attribute attribute;
    std::memcpy(&attribute, rest.data(), sizeof(attribute));
    rest = rest.subspan(sizeof(attribute));
    if (attribute.format != kSizedValue) continue;  // its value is in `bytes`
    if (attribute.bytes > rest.size()) break;
    uint32_t value[2] = {};  // a symbol, and what is said of it
    if (attribute.bytes >= sizeof(value)) std::memcpy(value, rest.data(), sizeof(value));
    rest = rest.subspan(attribute.bytes);
    if (elf.symbol(value[0]) != function) continue;
    if (attribute.name == kRegisters) result.registers = value[1];
    if (attribute.name == kFrameSize) result.stack_bytes = value[1];
  }
  if (result.registers == 0) return std::nullopt;
  if (const Elf64_Shdr* shared = elf.find(".nv.shared." + function); shared != nullptr)
    result.shared_bytes = shared->sh_size;
  return result;
}

std::span<const std::byte> cubin_in(std::span<const std::byte> code) {
  return code.first(ElfFile(code).end());
}

// NVRTC begins with a comment, and no machine code does.
std::span<const std::byte> ptx_in(std::span<const std::byte> code) {
  const std::string_view text(reinterpret_cast<const char*>(code.data()), code.size());
  const size_t end = text.find('\0');
  const bool is_ptx = text.starts_with("//") && end != text.npos;
  return code.first(is_ptx ? end : 0);
}

}  // namespace tools
