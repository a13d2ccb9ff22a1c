// Damages the files of a corpus and gives them to a reader, over and over:
//   vpd_fuzz TARGET CORPUS SECONDS SEED FOLDER
// A reader may succeed or throw std::invalid_argument or std::system_error. Anything else ends the
// program; what it read then lies in FOLDER. First the corpus is read as it is: files whose names
// begin with "good" must be accepted, all others refused.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "mutator.h"
#include "readers.h"

namespace {

using vpd::fuzz::Reader;

struct File {
  std::string name, bytes;
};

std::vector<File> read_corpus(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<File> files;
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    files.push_back(
        {path.filename().string(), std::string(std::istreambuf_iterator<char>(in), {})});
  }
  return files;
}

// Whether the reader accepted the input; what it may not throw passes through.
bool accepts(const Reader& reader, const std::string& input, const std::string& path) {
  std::ofstream(path, std::ios::binary) << input;
  try {
    reader.read(input, path);
    return true;
  } catch (const std::invalid_argument&) {
  } catch (const std::system_error&) {
  }
  return false;
}

int run(const Reader& reader, const std::filesystem::path& corpus, double seconds, uint64_t seed,
        const std::filesystem::path& folder) {
  const std::vector<File> files = read_corpus(corpus);
  if (files.empty()) throw std::runtime_error("no files in " + corpus.string());
  std::filesystem::create_directories(folder);
  const std::string path = (folder / (reader.name + "-" + std::to_string(seed))).string();
  uint64_t count = 0, accepted = 0;
  std::vector<std::string> inputs;
  for (const File& file : files) {
    const bool good = accepts(reader, file.bytes, path);
    if (good != file.name.starts_with("good")) {
      throw std::runtime_error(file.name + (good ? " was read" : " was refused"));
    }
    accepted += good;
    ++count;
    inputs.push_back(file.bytes);
  }
  vpd::fuzz::Mutator mutator(inputs, reader.words, seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 64; ++i) {
      accepted += accepts(reader, mutator.next(), path);
      ++count;
    }
  }
  std::filesystem::remove(path);
  std::printf("%llu inputs, %llu accepted\n", static_cast<unsigned long long>(count),
              static_cast<unsigned long long>(accepted));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: vpd_fuzz TARGET CORPUS SECONDS SEED FOLDER\ntargets:");
    for (const Reader& reader : vpd::fuzz::readers()) {
      std::fprintf(stderr, " %s", reader.name.c_str());
    }
    std::fprintf(stderr, "\n");
    return 2;
  }
  try {
    for (const Reader& reader : vpd::fuzz::readers()) {
      if (reader.name == argv[1]) {
        return run(reader, argv[2], std::atof(argv[3]), std::strtoull(argv[4], nullptr, 10),
                   argv[5]);
      }
    }
    throw std::runtime_error("no target " + std::string(argv[1]));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "vpd_fuzz %s: %s\n", argv[1], error.what());
    return 1;
  }
}
