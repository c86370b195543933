// Checked access to JSON: a CompileError names the key where a document is not as expected.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kiln::import {

using JsonElement = simdjson::dom::element;

// A parsed document, which owns its text.
class JsonDocument {
 public:
  // `what` names the document in errors.
  JsonDocument(std::string_view text, const std::string& what);
  JsonElement root() const { return root_; }

 private:
  simdjson::dom::parser parser_;
  JsonElement root_;
};

// The value of a key; CompileError if the element is not an object or has no such key.
JsonElement json_member(JsonElement object, std::string_view key);
// The value of a key unless it is missing or null.
std::optional<JsonElement> json_find(JsonElement object, std::string_view key);

// A JSON value as a type; CompileError naming `key` if it is of another type.
simdjson::dom::array json_array(JsonElement element, std::string_view key);
simdjson::dom::object json_object(JsonElement element, std::string_view key);
std::string json_string(JsonElement element, std::string_view key);
int64_t json_integer(JsonElement element, std::string_view key);
double json_number(JsonElement element, std::string_view key);
bool json_boolean(JsonElement element, std::string_view key);

// Members that must be there.
inline std::string json_string_member(JsonElement object, std::string_view key) {
  return json_string(json_member(object, key), key);
}
inline int64_t json_integer_member(JsonElement object, std::string_view key) {
  return json_integer(json_member(object, key), key);
}

// A tagged union as torch.export writes them, {"as_int": 3}: the one key and its value.
struct JsonUnion {
  std::string_view tag;
  JsonElement value;
};
JsonUnion json_union(JsonElement element, std::string_view key);

}  // namespace kiln::import
