#include "io/json_fields.h"

#include <cmath>

#include "core/check.h"

namespace vpd::io {
namespace {

int64_t as_integer(const Json& json, const std::string& place) {
  const auto* number = json.get_if<double>();
  // Up to 2^53 every integer is a double of its own.
  VPD_CHECK(number != nullptr && *number == std::floor(*number) && std::abs(*number) <= 0x1p53,
            place, " must be an integer");
  return static_cast<int64_t>(*number);
}

template <typename T>
void read(const Json* json, T& field, const std::string& place, const char* kind) {
  if (json == nullptr) return;
  const T* value = json->get_if<T>();
  VPD_CHECK(value != nullptr, place, " must be ", kind);
  field = *value;
}

}  // namespace

JsonFields::JsonFields(const Json& object, std::string place)
    : object_(&object), place_(std::move(place)) {
  VPD_CHECK(object.get_if<Json::Object>() != nullptr, place_, " must be an object");
}

JsonFields& JsonFields::operator()(const char* name, bool& field) {
  read(take(name), field, place(name), "true or false");
  return *this;
}

JsonFields& JsonFields::operator()(const char* name, int64_t& field) {
  if (const Json* json = take(name)) field = as_integer(*json, place(name));
  return *this;
}

JsonFields& JsonFields::operator()(const char* name, double& field) {
  read(take(name), field, place(name), "a number");
  return *this;
}

JsonFields& JsonFields::operator()(const char* name, std::string& field) {
  read(take(name), field, place(name), "text");
  return *this;
}

JsonFields& JsonFields::operator()(const char* name, std::vector<int64_t>& field) {
  const Json* json = take(name);
  if (json == nullptr) return *this;
  field.clear();
  if (json->is_null()) return *this;
  const auto* array = json->get_if<Json::Array>();
  VPD_CHECK(array != nullptr, place(name), " must be a list of integers");
  for (const Json& item : *array) field.push_back(as_integer(item, place(name)));
  return *this;
}

const Json* JsonFields::take(const char* name) {
  known_.insert(name);
  return object_->find(name);
}

JsonFields JsonFields::object(const char* name) {
  const Json* json = take(name);
  VPD_CHECK(json != nullptr, place_, " must have a member '", name, "'");
  return JsonFields(*json, place(name));
}

void JsonFields::finish() const {
  for (const auto& [name, value] : *object_->get_if<Json::Object>()) {
    VPD_CHECK(known_.contains(name), place_, ": the core knows no member '", name, "'");
  }
}

}  // namespace vpd::io
