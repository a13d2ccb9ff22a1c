#pragma once
// The members of a JSON object as the fields of a config struct.
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "io/json.h"

namespace vpd::io {

// Each call reads one member into a field; a member that is missing leaves the field as it is. A
// value of another type is a std::invalid_argument that names the member.
class JsonFields {
 public:
  // place: what the object is called in errors, "config.json: config.unet".
  JsonFields(const Json& object, std::string place);

  JsonFields& operator()(const char* name, bool& field);
  JsonFields& operator()(const char* name, int64_t& field);
  JsonFields& operator()(const char* name, double& field);
  JsonFields& operator()(const char* name, std::string& field);
  JsonFields& operator()(const char* name, std::vector<int64_t>& field);  // null: empty

  // The member as it is, null if missing.
  const Json* take(const char* name);
  // The object called `name`. Throws if there is none.
  JsonFields object(const char* name);
  // Throws for a member that nothing above asked for: it might change what is computed.
  void finish() const;

  std::string place(const char* name) const { return place_ + "." + name; }

 private:
  const Json* object_;
  std::string place_;
  std::set<std::string> known_;
};

}  // namespace vpd::io
