#include "import/json.h"

#include <limits>
#include <new>

#include "support/error.h"

namespace kiln::import {
namespace {

// torch.export nests about ten levels, and six more for each graph inside a graph.
constexpr size_t kMaxDepth = 256;

[[noreturn]] void wrong_type(std::string_view key, std::string_view expected) {
  throw CompileError("[model] got another type for \"" + std::string(key) + "\", expected " +
                     std::string(expected));
}

template <typename T>
T get(JsonElement element, std::string_view key, std::string_view expected) {
  T value;
  if (element.get(value) != simdjson::SUCCESS) wrong_type(key, expected);
  return value;
}

}  // namespace

JsonDocument::JsonDocument(std::string_view text, const std::string& what) {
  simdjson::error_code error = parser_.allocate(text.size(), kMaxDepth);
  if (!error) error = parser_.parse(text.data(), text.size()).get(root_);
  if (error == simdjson::MEMALLOC) throw std::bad_alloc();
  if (error) {
    throw CompileError("[model] got an unreadable " + what + " (" + simdjson::error_message(error) +
                       "), expected JSON");
  }
}

std::optional<JsonElement> json_find(JsonElement object, std::string_view key) {
  JsonElement value;
  if (json_object(object, key).at_key(key).get(value) != simdjson::SUCCESS) return std::nullopt;
  if (value.is_null()) return std::nullopt;
  return value;
}

JsonElement json_member(JsonElement object, std::string_view key) {
  if (const auto value = json_find(object, key)) return *value;
  throw CompileError("[model] got no \"" + std::string(key) +
                     "\", expected a program of torch.export");
}

simdjson::dom::array json_array(JsonElement element, std::string_view key) {
  return get<simdjson::dom::array>(element, key, "a list");
}

simdjson::dom::object json_object(JsonElement element, std::string_view key) {
  simdjson::dom::object object;
  if (element.get(object) != simdjson::SUCCESS) wrong_type(key, "an object");
  return object;
}

std::string json_string(JsonElement element, std::string_view key) {
  return std::string(get<std::string_view>(element, key, "a string"));
}

int64_t json_integer(JsonElement element, std::string_view key) {
  return get<int64_t>(element, key, "an integer");
}

double json_number(JsonElement element, std::string_view key) {
  // JSON has no infinities: torch.export writes them as strings.
  if (element.is_string()) {
    const std::string text = json_string(element, key);
    if (text == "Infinity") return std::numeric_limits<double>::infinity();
    if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
    if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  }
  return get<double>(element, key, "a number");
}

bool json_boolean(JsonElement element, std::string_view key) {
  return get<bool>(element, key, "true or false");
}

JsonUnion json_union(JsonElement element, std::string_view key) {
  const simdjson::dom::object object = json_object(element, key);
  for (const simdjson::dom::key_value_pair field : object) return {field.key, field.value};
  throw CompileError("[model] got an empty \"" + std::string(key) + "\", expected one value");
}

}  // namespace kiln::import
