#pragma once
// Everything in the core that reads what others wrote.
#include <functional>
#include <string>
#include <vector>

namespace vpd::fuzz {

struct Reader {
  std::string name;
  // input, and the path of a file that holds it.
  std::function<void(const std::string&, const std::string&)> read;
  std::vector<std::string> words;  // for the mutator
};

const std::vector<Reader>& readers();

}  // namespace vpd::fuzz
