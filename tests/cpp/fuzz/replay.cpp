// Gives every file of a corpus to a reader, as it is:
//   vpd_replay TARGET FILE CORPUS
// FILE is written for readers that open one, and removed.
// Files whose names begin with "good" must be accepted, all others refused.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>

#include "readers.h"

namespace {

int replay(const std::string& target, const std::string& path,
           const std::filesystem::path& corpus) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(corpus)) {
    const std::string name = entry.path().filename().string();
    std::ifstream in(entry.path(), std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(in), {});
    const bool accepted = vpd::fuzz::accepts(target, bytes, path);
    if (accepted != name.starts_with("good")) {
      throw std::runtime_error(name + (accepted ? " was read" : " was refused"));
    }
    ++count;
  }
  std::filesystem::remove(path);
  if (count == 0) throw std::runtime_error("no files in " + corpus.string());
  std::printf("%d inputs\n", count);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: vpd_replay TARGET FILE CORPUS\n");
    return 2;
  }
  try {
    return replay(argv[1], argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vpd_replay %s: %s\n", argv[1], error.what());
    return 1;
  }
}
