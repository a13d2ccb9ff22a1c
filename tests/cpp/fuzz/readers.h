#pragma once
// The readers of the core, each as a target that is given a file's bytes.
#include <string>

namespace vpd::fuzz {

// Whether the reader of a target accepts a file of these bytes; they are also written to path, for
// readers that open files. A reader may succeed or throw std::invalid_argument or
// std::system_error; whatever else it throws passes through, as what ends the program does.
// Targets: safetensors, torch-zip, zip, pickle, json, merges, text.
bool accepts(const std::string& target, const std::string& input, const std::string& path);

}  // namespace vpd::fuzz
