#pragma once
// Networks are pure functions of a parameter table. A layer declares its parameters when it is
// built, through a Scope, and keeps the Slots; it receives the tensors when it is called, as
// Params, and holds none itself.
#include <ATen/TensorOperators.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vpd {

using at::Tensor;

// How a parameter starts.
struct Init {
  enum class Kind { kConstant, kUniform, kNormal };
  Kind kind = Kind::kConstant;
  double value =
      0;  // kConstant: the value; kUniform: U(-value, value); kNormal: the standard deviation
  static Init zeros() { return {Kind::kConstant, 0}; }
  static Init ones() { return {Kind::kConstant, 1}; }
  static Init constant(double v) { return {Kind::kConstant, v}; }
  static Init uniform(double bound) { return {Kind::kUniform, bound}; }
  static Init normal(double std) { return {Kind::kNormal, std}; }
  // PyTorch's default for linear and convolution weights and biases: kaiming_uniform(a = sqrt 5) =
  // U(-1/sqrt(fan_in), ..).
  static Init fan_in(int64_t fan_in);
};

// What a weight is used for, if it can be packed for that (core/packing.h).
enum class Use { kOther, kLinear, kConvolution };

struct WeightUse {
  Use use = Use::kOther;
  int64_t stride = 1;   // of a convolution
  int64_t padding = 0;  // of a convolution
  static WeightUse linear() { return {Use::kLinear}; }
  static WeightUse convolution(int64_t stride, int64_t padding) {
    return {Use::kConvolution, stride, padding};
  }
};

// One entry of a table: a parameter, or a buffer (batch-norm statistics) that no optimiser sees.
struct ParamSpec {
  std::string name;  // the key in the original checkpoint
  std::vector<int64_t> shape;
  Init init;
  bool is_buffer = false;
  at::ScalarType dtype = at::kFloat;
  WeightUse use = {};
};

// Where a layer finds its tensor in Params.
class Slot {
 public:
  Slot() = default;
  explicit Slot(size_t index) : index_(index) {}
  size_t index() const { return index_; }

 private:
  size_t index_ = static_cast<size_t>(-1);
};

// The slots that a block declared: those from `begin` up to, not including, `end`.
struct SlotRange {
  size_t begin = 0;
  size_t end = 0;
  size_t size() const { return end - begin; }
};

// The ordered list of everything a network owns; the order is the order of declaration and never
// changes.
class ParamTable {
 public:
  Slot add(ParamSpec spec);
  const std::vector<ParamSpec>& specs() const { return specs_; }
  size_t size() const { return specs_.size(); }
  // The slots below "scope.": those of one block.
  SlotRange range(std::string_view scope) const;
  // Fresh tensors in table order. On the meta device nothing is computed.
  std::vector<Tensor> initialise(
      const at::Device& device, at::ScalarType dtype,
      const std::optional<at::Generator>& generator = std::nullopt) const;

 private:
  std::vector<ParamSpec> specs_;
};

// A dotted place in a table: scope / "input_blocks" / 3 declares "input_blocks.3.<name>".
class Scope {
 public:
  explicit Scope(ParamTable& table) : table_(&table) {}
  Scope operator/(std::string_view child) const;
  Scope operator/(int64_t child) const;
  Slot declare(std::string_view name, std::vector<int64_t> shape, Init init) const;
  Slot weight(std::vector<int64_t> shape, Init init, WeightUse use) const;
  Slot buffer(std::string_view name, std::vector<int64_t> shape, Init init,
              at::ScalarType dtype = at::kFloat) const;
  // What has been declared below so far.
  SlotRange range() const { return table_->range(prefix_); }

 private:
  Scope(ParamTable* table, std::string prefix) : table_(table), prefix_(std::move(prefix)) {}
  std::string join(std::string_view name) const;

  ParamTable* table_;
  std::string prefix_;
};

// The tensors of one call, in table order; behind them, of a frozen network that gives gradients,
// what each weight's backward pass reads (core/packing.h). A view: the caller keeps them alive
// during the call.
class Params {
 public:
  Params(const ParamTable& table, at::TensorList tensors);
  Params(at::TensorList tensors, size_t count) : tensors_(tensors), count_(count) {}
  size_t size() const { return count_; }
  bool has_backward() const { return tensors_.size() > count_; }
  const Tensor& operator[](Slot slot) const { return tensors_[slot.index()]; }
  Tensor backward(Slot slot) const {
    return has_backward() ? tensors_[count_ + slot.index()] : Tensor();
  }

 private:
  at::TensorList tensors_;
  size_t count_;
};

}  // namespace vpd
