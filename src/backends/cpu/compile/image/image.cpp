#include "backends/cpu/compile/image/image.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include <llvm/BinaryFormat/ELF.h>
#include <llvm/Object/ELFObjectFile.h>

#include "support/error.h"

namespace kiln::cpu {

namespace {

using Elf = llvm::object::ELFObjectFile<llvm::object::ELF64LE>;

constexpr uint64_t kAlignment = 64;
constexpr auto kTrap = std::byte{0xCC};  // int3, between sections

template <typename T>
T unwrap(llvm::Expected<T> value) {
  if (value) return std::move(*value);
  throw InternalError("object file: " + llvm::toString(value.takeError()));
}

void align(std::vector<std::byte>& bytes) {
  bytes.resize((bytes.size() + kAlignment - 1) / kAlignment * kAlignment, kTrap);
}

class Flattener {
 public:
  explicit Flattener(const Elf& elf) : elf_(elf) {}

  FlatObject run() {
    check_sections();
    place(true);
    place(false);
    for (const llvm::object::SectionRef& section : elf_.sections()) relocate(section);
    collect_functions();
    read_stack_sizes();
    if (!problems_.empty())
      throw InternalError("generated code is not self-contained:" + problems_);
    return std::move(result_);
  }

 private:
  static uint64_t flags(const llvm::object::SectionRef& section) {
    return llvm::object::ELFSectionRef(section).getFlags();
  }

  void problem(const std::string& text) { problems_ += "\n  " + text; }

  std::string name_of(const llvm::object::SectionRef& section) const {
    return unwrap(section.getName()).str();
  }

  void check_sections() {
    for (const llvm::object::SectionRef& section : elf_.sections()) {
      if ((flags(section) & llvm::ELF::SHF_ALLOC) == 0) continue;
      if ((flags(section) & (llvm::ELF::SHF_WRITE | llvm::ELF::SHF_TLS)) != 0) {
        problem("writable section " + name_of(section));
      }
      if (section.getAlignment().value() > kAlignment) {
        problem("alignment of section " + name_of(section));
      }
    }
  }

  void place(bool text) {
    for (const llvm::object::SectionRef& section : elf_.sections()) {
      const bool placed = (flags(section) & llvm::ELF::SHF_ALLOC) != 0 && section.getSize() != 0;
      if (!placed || section.isText() != text) continue;
      align(result_.bytes);
      places_[section.getIndex()] = result_.bytes.size();
      const llvm::StringRef contents = unwrap(section.getContents());
      const auto* bytes = reinterpret_cast<const std::byte*>(contents.data());
      result_.bytes.insert(result_.bytes.end(), bytes, bytes + contents.size());
    }
  }

  // Offset of a symbol in the flat bytes.
  std::optional<uint64_t> place_of(const llvm::object::SymbolRef& symbol) const {
    const auto section = unwrap(symbol.getSection());
    if (section == elf_.section_end()) return std::nullopt;
    const auto place = places_.find(section->getIndex());
    if (place == places_.end()) return std::nullopt;
    return place->second + unwrap(symbol.getValue());
  }

  void relocate(const llvm::object::SectionRef& relocations) {
    const auto target = unwrap(relocations.getRelocatedSection());
    if (target == elf_.section_end()) return;
    const auto place = places_.find(target->getIndex());
    if (place == places_.end()) return;
    for (const llvm::object::ELFRelocationRef relocation : relocations.relocations()) {
      apply(relocation, place->second + relocation.getOffset());
    }
  }

  void apply(const llvm::object::ELFRelocationRef& relocation, uint64_t at) {
    const uint64_t type = relocation.getType();
    const auto symbol = relocation.getSymbol();
    const std::string name = symbol == elf_.symbol_end() ? "" : unwrap(symbol->getName()).str();
    if (type != llvm::ELF::R_X86_64_PC32 && type != llvm::ELF::R_X86_64_PLT32) {
      return problem("relocation of type " + std::to_string(type) + " for " + name);
    }
    const auto place = symbol == elf_.symbol_end() ? std::nullopt : place_of(*symbol);
    if (!place) return problem("undefined " + name);
    const int64_t value =
        static_cast<int64_t>(*place) + unwrap(relocation.getAddend()) - static_cast<int64_t>(at);
    const auto narrow = static_cast<int32_t>(value);
    if (narrow != value) return problem("distance to " + name);
    std::memcpy(result_.bytes.data() + at, &narrow, sizeof narrow);
  }

  void collect_functions() {
    for (const llvm::object::ELFSymbolRef symbol : elf_.symbols()) {
      if (symbol.getELFType() != llvm::ELF::STT_FUNC) continue;
      const auto place = place_of(symbol);
      if (place) result_.functions.push_back({unwrap(symbol.getName()).str(), *place, 0});
    }
    std::ranges::sort(result_.functions, {}, &Function::name);
  }

  // .stack_sizes: for each function its address (a relocation), then the size as a ULEB128 number.
  void read_stack_sizes() {
    for (const llvm::object::SectionRef& relocations : elf_.sections()) {
      const auto target = unwrap(relocations.getRelocatedSection());
      if (target == elf_.section_end() || name_of(*target) != ".stack_sizes") continue;
      const llvm::StringRef contents = unwrap(target->getContents());
      for (const llvm::object::ELFRelocationRef relocation : relocations.relocations()) {
        const auto place = place_of(*relocation.getSymbol());
        if (!place) continue;
        const uint64_t offset = *place + static_cast<uint64_t>(unwrap(relocation.getAddend()));
        set_stack_size(offset, read_uleb(contents, relocation.getOffset() + 8));
      }
    }
  }

  static uint64_t read_uleb(llvm::StringRef bytes, uint64_t at) {
    uint64_t value = 0;
    for (unsigned shift = 0; at < bytes.size(); shift += 7) {
      const auto byte = static_cast<uint8_t>(bytes[at++]);
      value |= uint64_t{byte & 0x7fU} << shift;
      if ((byte & 0x80) == 0) break;
    }
    return value;
  }

  void set_stack_size(uint64_t offset, uint64_t size) {
    for (Function& function : result_.functions) {
      if (function.offset == offset) function.stack_bytes = size;
    }
  }

  const Elf& elf_;
  FlatObject result_;
  std::map<uint64_t, uint64_t> places_;  // section index -> offset in the flat bytes
  std::string problems_;
};

}  // namespace

FlatObject flatten(std::span<const std::byte> object) {
  const llvm::StringRef bytes(reinterpret_cast<const char*>(object.data()), object.size());
  const Elf elf = unwrap(Elf::create(llvm::MemoryBufferRef(bytes, "kernel")));
  return Flattener(elf).run();
}

}  // namespace kiln::cpu
