#include "shape_argument.h"

#include <charconv>
#include <string_view>

#include "failure.h"

namespace tools {
namespace {

std::vector<std::string_view> split(std::string_view text, std::string_view separator) {
  std::vector<std::string_view> parts;
  for (size_t end = text.find(separator); end != std::string_view::npos;
       end = text.find(separator)) {
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end + separator.size());
  }
  parts.push_back(text);
  return parts;
}

int64_t parse_size(std::string_view text, const std::string& argument) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    throw UsageError("--shape " + argument + ": got '" + std::string(text) +
                     "', expected a size, min..max or min..opt..max");
  return value;
}

kiln_dim parse_dim(std::string_view text, const std::string& argument) {
  std::vector<int64_t> sizes;
  for (const std::string_view part : split(text, "..")) sizes.push_back(parse_size(part, argument));
  if (sizes.size() > 3)
    throw UsageError("--shape " + argument + ": got more than min..opt..max in '" +
                     std::string(text) + "'");
  const kiln_dim dim{sizes.front(), sizes.size() == 3 ? sizes[1] : sizes.back(), sizes.back()};
  if (dim.min > dim.opt || dim.opt > dim.max)
    throw UsageError("--shape " + argument + ": got '" + std::string(text) +
                     "', expected min <= opt <= max");
  return dim;
}

}  // namespace

ShapeArgument parse_shape(const std::string& text) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError("--shape " + text + ": expected input=sizes, as in x=1..32,128");
  ShapeArgument argument{.input = text.substr(0, equals), .dims = {}};
  const std::string_view sizes = std::string_view(text).substr(equals + 1);
  for (const std::string_view part : split(sizes, ","))
    argument.dims.push_back(parse_dim(part, text));
  return argument;
}

}  // namespace tools
