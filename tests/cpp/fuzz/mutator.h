#pragma once
// Damaged copies of a corpus, the same for the same seed.
#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace vpd::fuzz {

class Mutator {
 public:
  // corpus: at least one file. words: pieces that mean something to the reader.
  Mutator(std::vector<std::string> corpus, std::vector<std::string> words, uint64_t seed);

  // A file of the corpus with one to eight changes.
  std::string next();

 private:
  size_t below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  void change(std::string& data);
  std::string number();

  std::vector<std::string> corpus_;
  std::vector<std::string> words_;
  std::mt19937_64 random_;
};

}  // namespace vpd::fuzz
