#pragma once
// A pickle machine that knows data only: nothing is imported, nothing is run.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/pickle_bytes.h"

namespace vpd::io {

// A value. Containers refer to other values by index, so shared and cyclic structures cost nothing
// and nothing recurses.
struct PickleValue {
  enum class Kind {
    kNone,
    kBool,     // number
    kInt,      // number
    kFloat,    // real
    kString,   // text
    kBytes,    // text
    kList,     // items
    kTuple,    // items
    kDict,     // items: key, value, key, value, ...
    kGlobal,   // text: "module.name" of a class or function, inert
    kStorage,  // text: key of the bytes; number: elements; dtype
    kTensor,   // tensor
    kSkipped,  // text: class of an object that was left out
    kMark,
  };
  Kind kind = Kind::kNone;
  at::ScalarType dtype = at::ScalarType::Undefined;
  int64_t number = 0;
  double real = 0;
  std::string text = {};
  std::vector<uint32_t> items = {};
  at::Tensor tensor = {};
};

// Makes a tensor of the storage `key` with `numel` elements; everything else is already checked:
// sizes, strides and offset (in elements) lie inside those elements.
using StorageReader = std::function<at::Tensor(
    const std::string& key, at::ScalarType dtype, int64_t numel, int64_t offset,
    const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides)>;

class Pickle {
 public:
  // Runs the machine over `bytes` (protocol 2 to 5). path: for errors, which are
  // std::invalid_argument.
  Pickle(std::string_view bytes, const std::string& path, StorageReader storages);

  const PickleValue& root() const { return values_[root_]; }
  const PickleValue& operator[](uint32_t index) const { return values_[index]; }
  // Classes and functions whose objects were left out.
  const std::set<std::string>& skipped() const { return skipped_; }

 private:
  using Index = uint32_t;
  using Kind = PickleValue::Kind;

  void run();
  bool step(uint8_t opcode);  // false at STOP

  // Reading the pickle.
  std::string take_line();
  std::string take_text(uint64_t count);
  std::string text_of(std::string_view bytes) const;  // UTF-8
  int64_t take_long(uint64_t bytes);
  double take_double();
  void check_protocol(uint64_t protocol) const;

  // The stack and the memo.
  void push(PickleValue value);
  void push_number(Kind kind, int64_t number) { push({.kind = kind, .number = number}); }
  void push_text(Kind kind, std::string text) { push({.kind = kind, .text = std::move(text)}); }
  void push_name(Kind kind, std::string name);
  void check_name(const std::string& name) const;
  void push_items(Kind kind, const std::vector<Index>& items);
  Index pop();
  Index top() const;
  std::vector<Index> pop_to_mark();
  std::vector<Index> pop_last(size_t count);
  void recall(uint64_t slot);
  void extend(Kind kind, const std::vector<Index>& items);
  void append(PickleValue& target, const std::vector<Index>& items);

  // Building objects.
  void skip(const std::string& what);
  std::string class_of(Index index) const;
  void persistent_id();
  void call();
  void call(const std::string& function, const std::vector<Index>& arguments);
  bool rebuild_tensor(const std::vector<Index>& arguments);
  std::vector<int64_t> integers(Index tuple, const char* what) const;

  PickleBytes bytes_;
  const std::string& path_;
  StorageReader storages_;
  size_t item_count_ = 0;
  std::deque<PickleValue> values_;
  std::vector<Index> stack_;
  std::unordered_map<uint64_t, Index> memo_;
  std::set<std::string> skipped_;
  Index root_ = 0;
};

}  // namespace vpd::io
