#pragma once
// Precompiled for every file of the core: what nearly all of them need and what is slow to parse.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>
