#pragma once
// Choices by name, as Python, configs and the command line say them.
#include <string>
#include <utility>
#include <vector>

#include "core/check.h"

namespace vpd::diffusion {

template <typename Choice>
Choice choice_named(const char* what, const std::string& name,
                    const std::vector<std::pair<std::string, Choice>>& choices) {
  std::string known;
  for (const auto& [own, choice] : choices) {
    if (own == name) return choice;
    known += (known.empty() ? "" : ", ") + own;
  }
  fail("Sampler: ", what, " must be one of ", known, ", got '", name, "'");
}

}  // namespace vpd::diffusion
