#include "io/pickle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "core/check.h"
#include "io/mapped_file.h"

namespace vpd::io {
namespace {

// About 0.3 GB of values at most; a Stable Diffusion checkpoint needs 0.03 million.
constexpr uint32_t kMaxValues = 2'000'000;
constexpr size_t kMaxItems = 32'000'000;
constexpr size_t kMaxDims = 64;
// Of names that are copied each time they are used: a short pickle can use a long one over and
// over.
constexpr size_t kMaxName = 255;

// Opcodes as Python's pickletools names them.
// clang-format off
enum Op : uint8_t {
  kMarkOp = '(', kStop = '.', kPop = '0', kPopMark = '1', kDup = '2', kBinFloat = 'G',
  kBinInt = 'J', kBinInt1 = 'K', kBinInt2 = 'M', kNoneOp = 'N', kBinPersId = 'Q', kReduce = 'R',
  kBinString = 'T', kShortBinString = 'U', kBinUnicode = 'X', kAppend = 'a', kBuild = 'b',
  kGlobalOp = 'c', kDictOp = 'd', kAppends = 'e', kBinGet = 'h', kLongBinGet = 'j', kListOp = 'l',
  kObj = 'o', kBinPut = 'q', kLongBinPut = 'r', kSetItem = 's', kTupleOp = 't', kSetItems = 'u',
  kEmptyDict = '}', kEmptyList = ']', kEmptyTuple = ')', kBinBytes = 'B', kShortBinBytes = 'C',
  kProto = 0x80, kNewObj = 0x81, kTuple1 = 0x85, kTuple2 = 0x86, kTuple3 = 0x87, kNewTrue = 0x88,
  kNewFalse = 0x89, kLong1 = 0x8a, kLong4 = 0x8b, kShortBinUnicode = 0x8c, kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e, kEmptySet = 0x8f, kAddItems = 0x90, kFrozenSet = 0x91, kNewObjEx = 0x92,
  kStackGlobal = 0x93, kMemoize = 0x94, kFrame = 0x95, kByteArray8 = 0x96,
};
// clang-format on

constexpr std::array<std::pair<std::string_view, at::ScalarType>, 10> kStorages = {{
    {"torch.DoubleStorage", at::kDouble},
    {"torch.FloatStorage", at::kFloat},
    {"torch.HalfStorage", at::kHalf},
    {"torch.BFloat16Storage", at::kBFloat16},
    {"torch.LongStorage", at::kLong},
    {"torch.IntStorage", at::kInt},
    {"torch.ShortStorage", at::kShort},
    {"torch.CharStorage", at::kChar},
    {"torch.ByteStorage", at::kByte},
    {"torch.BoolStorage", at::kBool},
}};

// Whether a strided view stays inside `numel` elements and has no more of them (no expanded views).
bool fits(int64_t numel, int64_t offset, const std::vector<int64_t>& sizes,
          const std::vector<int64_t>& strides) {
  const auto count = element_count(sizes);
  if (!count || *count > numel || offset < 0 || offset > numel) return false;
  if (std::any_of(strides.begin(), strides.end(), [](int64_t stride) { return stride < 0; })) {
    return false;
  }
  if (*count == 0) return true;
  int64_t last = offset;
  for (size_t i = 0; i < sizes.size(); ++i) {
    int64_t reach = 0;
    if (__builtin_mul_overflow(sizes[i] - 1, strides[i], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return false;
    }
  }
  return last < numel;
}

}  // namespace

Pickle::Pickle(std::string_view bytes, const std::string& path, StorageReader storages)
    : bytes_(bytes, path + ": "), path_(path), storages_(std::move(storages)) {
  run();
}

void Pickle::run() {
  while (step(static_cast<uint8_t>(bytes_.take(1)[0]))) {
  }
  root_ = pop();
  memo_.clear();
}

// clang-format off: one opcode a line
bool Pickle::step(uint8_t opcode) {
  switch (opcode) {
    case kStop: return false;
    case kProto: check_protocol(bytes_.number(1)); break;
    case kFrame: bytes_.take(8); break;
    // Scalars.
    case kNoneOp: push({}); break;
    case kNewTrue: push_number(Kind::kBool, 1); break;
    case kNewFalse: push_number(Kind::kBool, 0); break;
    case kBinInt: push_number(Kind::kInt, static_cast<int32_t>(bytes_.number(4))); break;
    case kBinInt1: push_number(Kind::kInt, static_cast<int64_t>(bytes_.number(1))); break;
    case kBinInt2: push_number(Kind::kInt, static_cast<int64_t>(bytes_.number(2))); break;
    case kLong1: push_number(Kind::kInt, take_long(bytes_.number(1))); break;
    case kLong4: push_number(Kind::kInt, take_long(bytes_.number(4))); break;
    case kBinFloat: push({.kind = Kind::kFloat, .real = take_double()}); break;
    // Text and bytes.
    case kShortBinUnicode: push_text(Kind::kString, take_text(bytes_.number(1))); break;
    case kBinUnicode: push_text(Kind::kString, take_text(bytes_.number(4))); break;
    case kBinUnicode8: push_text(Kind::kString, take_text(bytes_.number(8))); break;
    case kShortBinString: case kShortBinBytes:
      push_text(Kind::kBytes, std::string(bytes_.take(bytes_.number(1)))); break;
    case kBinString: case kBinBytes:
      push_text(Kind::kBytes, std::string(bytes_.take(bytes_.number(4)))); break;
    case kByteArray8: case kBinBytes8:
      push_text(Kind::kBytes, std::string(bytes_.take(bytes_.number(8)))); break;
    // Containers. Sets come as lists: nothing here needs more.
    case kEmptyTuple: push_items(Kind::kTuple, {}); break;
    case kTuple1: push_items(Kind::kTuple, pop_last(1)); break;
    case kTuple2: push_items(Kind::kTuple, pop_last(2)); break;
    case kTuple3: push_items(Kind::kTuple, pop_last(3)); break;
    case kTupleOp: push_items(Kind::kTuple, pop_to_mark()); break;
    case kEmptySet: case kEmptyList: push_items(Kind::kList, {}); break;
    case kFrozenSet: case kListOp: push_items(Kind::kList, pop_to_mark()); break;
    case kEmptyDict: push_items(Kind::kDict, {}); break;
    case kDictOp: {
      const std::vector<Index> items = pop_to_mark();
      push_items(Kind::kDict, {});
      extend(Kind::kDict, items);
      break;
    }
    case kAppend: extend(Kind::kList, pop_last(1)); break;
    case kAddItems: case kAppends: extend(Kind::kList, pop_to_mark()); break;
    case kSetItem: extend(Kind::kDict, pop_last(2)); break;
    case kSetItems: extend(Kind::kDict, pop_to_mark()); break;
    // The stack and the memo.
    case kMarkOp: push({.kind = Kind::kMark}); break;
    case kPop: pop(); break;
    case kPopMark: pop_to_mark(); break;
    case kDup: stack_.push_back(top()); break;
    case kBinGet: recall(bytes_.number(1)); break;
    case kLongBinGet: recall(bytes_.number(4)); break;
    case kBinPut: memo_[bytes_.number(1)] = top(); break;
    case kLongBinPut: memo_[bytes_.number(4)] = top(); break;
    case kMemoize: memo_.emplace(memo_.size(), top()); break;
    // Classes, functions and their objects.
    case kGlobalOp: {
      const std::string module = take_line();
      push_name(Kind::kGlobal, module + "." + take_line());
      break;
    }
    case kStackGlobal: {
      const std::vector<Index> names = pop_last(2);
      const PickleValue& module = values_[names[0]];
      const PickleValue& name = values_[names[1]];
      VPD_CHECK(module.kind == Kind::kString && name.kind == Kind::kString, path_,
                ": the pickle names a class by something else than text; it is damaged");
      check_name(module.text);
      push_name(Kind::kGlobal, module.text + "." + name.text);
      break;
    }
    case kBinPersId: persistent_id(); break;
    case kReduce: case kNewObj: call(); break;
    case kNewObjEx: pop(); call(); break;  // without its keyword arguments
    case kObj: {
      const std::vector<Index> items = pop_to_mark();
      skip(items.empty() ? "object" : class_of(items[0]));
      break;
    }
    case kBuild: pop(); top(); break;  // attributes of the object below, which stays as it is
    default:
      fail(path_, ": pickle opcode ", static_cast<int>(opcode), " at offset ", bytes_.at() - 1,
           " is not one of a PyTorch checkpoint; save the weights as safetensors instead");
  }
  return true;
}
// clang-format on

std::string Pickle::take_line() { return text_of(bytes_.line("name")); }

std::string Pickle::take_text(uint64_t count) { return text_of(bytes_.take(count)); }

std::string Pickle::text_of(std::string_view bytes) const {
  VPD_CHECK(is_utf8(bytes), path_, ": the pickle holds text that is not UTF-8; it is damaged");
  return std::string(bytes);
}

double Pickle::take_double() {
  const uint64_t bits = __builtin_bswap64(bytes_.number(8));  // big-endian, unlike the rest
  return std::bit_cast<double>(bits);
}

int64_t Pickle::take_long(uint64_t bytes) {
  const std::string_view digits = bytes_.take(bytes);
  if (digits.empty()) return 0;
  const bool negative = (static_cast<uint8_t>(digits.back()) & 0x80) != 0;
  std::string wide(8, negative ? '\xFF' : '\0');
  // Longer ones (PyTorch's magic number) keep their low half: no size or offset needs them.
  std::memcpy(wide.data(), digits.data(), std::min<size_t>(digits.size(), 8));
  return static_cast<int64_t>(read_u64(wide, 0));
}

void Pickle::check_protocol(uint64_t protocol) const {
  VPD_CHECK(protocol >= 2 && protocol <= 5, path_, ": pickle protocol must be 2 to 5, got ",
            protocol);
}

void Pickle::push(PickleValue value) {
  VPD_CHECK(values_.size() < kMaxValues, path_, ": the pickle must hold at most ", kMaxValues,
            " objects; a checkpoint of weights needs far fewer");
  stack_.push_back(static_cast<Index>(values_.size()));
  values_.push_back(std::move(value));
}

Pickle::Index Pickle::pop() {
  VPD_CHECK(!stack_.empty(), path_, ": the pickle takes from an empty stack; it is damaged");
  const Index index = stack_.back();
  stack_.pop_back();
  return index;
}

Pickle::Index Pickle::top() const {
  VPD_CHECK(!stack_.empty(), path_, ": the pickle takes from an empty stack; it is damaged");
  return stack_.back();
}

std::vector<Pickle::Index> Pickle::pop_to_mark() {
  size_t begin = stack_.size();
  while (begin > 0 && values_[stack_[begin - 1]].kind != Kind::kMark) --begin;
  VPD_CHECK(begin > 0, path_, ": the pickle misses a mark; it is damaged");
  std::vector<Index> items(stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end());
  stack_.resize(begin - 1);
  return items;
}

std::vector<Pickle::Index> Pickle::pop_last(size_t count) {
  std::vector<Index> items(count);
  for (size_t i = count; i-- > 0;) items[i] = pop();
  return items;
}

void Pickle::recall(uint64_t slot) {
  const auto found = memo_.find(slot);
  VPD_CHECK(found != memo_.end(), path_, ": the pickle recalls slot ", slot,
            ", which was never set");
  stack_.push_back(found->second);
}

void Pickle::push_items(Kind kind, const std::vector<Index>& items) {
  push({.kind = kind});
  append(values_[top()], items);
}

void Pickle::extend(Kind kind, const std::vector<Index>& items) {
  PickleValue& target = values_[top()];
  if (target.kind == Kind::kSkipped) return;
  VPD_CHECK(target.kind == kind && (kind == Kind::kList || items.size() % 2 == 0), path_,
            ": the pickle adds items to something else than a list or dict; it is damaged");
  append(target, items);
}

void Pickle::append(PickleValue& target, const std::vector<Index>& items) {
  // A short pickle can name one long list over and over.
  item_count_ += items.size();
  VPD_CHECK(item_count_ <= kMaxItems, path_, ": the pickle must hold at most ", kMaxItems,
            " items; a checkpoint of weights needs far fewer");
  target.items.insert(target.items.end(), items.begin(), items.end());
}

void Pickle::check_name(const std::string& name) const {
  VPD_CHECK(name.size() <= kMaxName, path_,
            ": the pickle must name classes and storages in at most ", kMaxName, " bytes, got ",
            name.size());
}

void Pickle::push_name(Kind kind, std::string name) {
  check_name(name);
  push_text(kind, std::move(name));
}

void Pickle::skip(const std::string& what) {
  skipped_.insert(what);
  push_text(Kind::kSkipped, what);
}

std::string Pickle::class_of(Index index) const {
  return values_[index].kind == Kind::kGlobal ? values_[index].text : "object";
}

// ('storage', torch.FloatStorage, key, device, elements)
void Pickle::persistent_id() {
  const PickleValue& id = values_[pop()];
  const auto item = [&](size_t i) -> const PickleValue& { return values_[id.items[i]]; };
  VPD_CHECK(id.kind == Kind::kTuple && id.items.size() >= 5 && item(0).text == "storage" &&
                item(1).kind == Kind::kGlobal && item(2).kind == Kind::kString &&
                item(4).kind == Kind::kInt,
            path_, ": persistent id must be ('storage', type, key, device, elements)");
  check_name(item(2).text);
  for (const auto& [name, dtype] : kStorages) {
    if (item(1).text == name) {
      push(
          {.kind = Kind::kStorage, .dtype = dtype, .number = item(4).number, .text = item(2).text});
      return;
    }
  }
  skip(item(1).text);  // complex, quantised and 8-bit floats: no weights vpd reads
}

void Pickle::call() {
  const std::vector<Index> pair = pop_last(2);
  const PickleValue& function = values_[pair[0]];
  const PickleValue& arguments = values_[pair[1]];
  if (function.kind != Kind::kGlobal || arguments.kind != Kind::kTuple) {
    skip(class_of(pair[0]));
    return;
  }
  call(function.text, arguments.items);
}

void Pickle::call(const std::string& function, const std::vector<Index>& arguments) {
  const auto argument = [&](size_t i) -> const PickleValue& { return values_[arguments[i]]; };
  if (function == "torch._utils._rebuild_tensor_v2" && rebuild_tensor(arguments)) return;
  if (function.starts_with("torch._utils._rebuild_parameter") && !arguments.empty() &&
      argument(0).kind == Kind::kTensor) {
    stack_.push_back(arguments[0]);
    return;
  }
  // A tensor with Python attributes: (function, class, arguments, attributes).
  if (function == "torch._tensor._rebuild_from_type_v2" && arguments.size() == 4 &&
      argument(0).text == "torch._utils._rebuild_tensor_v2" && argument(2).kind == Kind::kTuple &&
      rebuild_tensor(argument(2).items)) {
    return;
  }
  if (function == "torch.Size" && arguments.size() == 1) {
    push_items(Kind::kTuple, argument(0).items);
    return;
  }
  if (function == "collections.OrderedDict") {
    push_items(Kind::kDict, {});
    if (arguments.empty()) return;
    for (const Index pair : argument(0).items) {
      if (values_[pair].items.size() == 2) extend(Kind::kDict, values_[pair].items);
    }
    return;
  }
  skip(function);
}

// (storage, offset, size, stride, requires_grad, backward_hooks[, metadata]); false if the storage
// was left out.
bool Pickle::rebuild_tensor(const std::vector<Index>& arguments) {
  VPD_CHECK(arguments.size() >= 4, path_,
            ": a tensor must have a storage, offset, size and stride");
  const PickleValue& storage = values_[arguments[0]];
  if (storage.kind != Kind::kStorage) return false;
  const PickleValue& offset = values_[arguments[1]];
  const std::vector<int64_t> sizes = integers(arguments[2], "size");
  const std::vector<int64_t> strides = integers(arguments[3], "stride");
  VPD_CHECK(offset.kind == Kind::kInt && sizes.size() == strides.size() &&
                sizes.size() <= kMaxDims && fits(storage.number, offset.number, sizes, strides),
            path_, ": a tensor of size ", at::IntArrayRef(sizes), ", stride ",
            at::IntArrayRef(strides), " and offset ", offset.number,
            " must lie inside its storage '", storage.text, "' of ", storage.number,
            " elements; the file is damaged");
  PickleValue value{.kind = Kind::kTensor};
  value.tensor =
      storages_(storage.text, storage.dtype, storage.number, offset.number, sizes, strides);
  push(std::move(value));
  return true;
}

std::vector<int64_t> Pickle::integers(Index tuple, const char* what) const {
  std::vector<int64_t> numbers;
  VPD_CHECK(values_[tuple].kind == Kind::kTuple, path_, ": a tensor's ", what, " must be a tuple");
  for (const Index item : values_[tuple].items) {
    VPD_CHECK(values_[item].kind == Kind::kInt, path_, ": a tensor's ", what,
              " must hold integers");
    numbers.push_back(values_[item].number);
  }
  return numbers;
}

}  // namespace vpd::io
