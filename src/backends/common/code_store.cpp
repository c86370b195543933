#include "backends/common/code_store.h"

#include <utility>

namespace kiln::backend {

std::vector<std::byte> compile_once(CodeStore* store, const Hash128& key,
                                    const std::function<std::vector<std::byte>()>& compile) {
  if (store == nullptr) return compile();
  if (auto found = store->find(key)) return std::move(*found);
  std::vector<std::byte> code = compile();
  store->add(key, code);
  return code;
}

}  // namespace kiln::backend
