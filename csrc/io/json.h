#pragma once
// JSON documents: a model's config.json.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace vpd::io {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // in the order of the text
  using Value = std::variant<std::nullptr_t, bool, double, std::string, Array, Object>;

  explicit Json(Value value) : value_(std::move(value)) {}

  template <typename T>
  const T* get_if() const {
    return std::get_if<T>(&value_);
  }
  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  // The member of an object; null if this is no object or has none of that name.
  const Json* find(std::string_view name) const;

 private:
  Value value_;
};

// Throws std::invalid_argument, starting with `path`, for text that is not one JSON value, for a
// name twice in an object, or for more than 64 levels.
Json parse_json(std::string_view text, const std::string& path);

// Throws std::system_error if the file cannot be read, else as parse_json.
Json read_json(const std::string& path);

}  // namespace vpd::io
