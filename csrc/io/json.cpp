#include "io/json.h"

#include <set>

#include "io/json_scanner.h"
#include "io/mapped_file.h"

namespace vpd::io {
namespace {

constexpr int kMaxDepth = 64;

Json value(JsonScanner& in, int depth) {
  in.check(depth <= kMaxDepth, "at most 64 levels", "more");
  switch (in.peek()) {
    case '{': {
      Json::Object object;
      std::set<std::string> names;
      in.members([&](std::string name) {
        in.check(names.insert(name).second, "each name once", "'" + name + "' twice");
        Json member = value(in, depth + 1);
        object.emplace_back(std::move(name), std::move(member));
      });
      return Json(std::move(object));
    }
    case '[': {
      Json::Array array;
      in.items([&] { array.push_back(value(in, depth + 1)); });
      return Json(std::move(array));
    }
    case '"':
      return Json(in.string());
    default:
      if (in.accept("null")) return Json(nullptr);
      if (in.accept("true")) return Json(true);
      if (in.accept("false")) return Json(false);
      return Json(in.number());
  }
}

}  // namespace

const Json* Json::find(std::string_view name) const {
  const auto* object = get_if<Object>();
  if (object == nullptr) return nullptr;
  for (const auto& [key, value] : *object) {
    if (key == name) return &value;
  }
  return nullptr;
}

Json parse_json(std::string_view text, const std::string& path) {
  JsonScanner in(text, path, "JSON", "text");
  Json out = value(in, 1);
  in.finish();
  return out;
}

Json read_json(const std::string& path) {
  const auto file = MappedFile::open(path);
  return parse_json(file->bytes(), path);
}

}  // namespace vpd::io
