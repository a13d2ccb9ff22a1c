#include "io/pickle_scan.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>

#include "core/check.h"

namespace vpd::io {
namespace {

// What follows an opcode.
enum class Follows : uint8_t {
  kUnknown,
  kNothing,
  kBytes,  // `width` of them
  kSlot,   // a memo slot, a number of `width` bytes
  kCount,  // a number of `width` bytes, then as many bytes
  kLines,  // `width` of them
  kSlotLine,
};

struct Form {
  Follows follows = Follows::kUnknown;
  uint8_t width = 0;
};

// Opcodes as Python's pickletools describes them.
constexpr std::array<Form, 256> forms() {
  std::array<Form, 256> table{};
  const auto set = [&](std::string_view opcodes, Follows follows, uint8_t width = 0) {
    for (const char opcode : opcodes) table[static_cast<uint8_t>(opcode)] = {follows, width};
  };
  set("(.012NQRabdelost})]u", Follows::kNothing);
  set("\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98", Follows::kNothing);
  set("Kh\x80\x82", Follows::kBytes, 1);
  set("M\x83", Follows::kBytes, 2);
  set("Jj\x84", Follows::kBytes, 4);
  set("G\x95", Follows::kBytes, 8);
  set("q", Follows::kSlot, 1);
  set("r", Follows::kSlot, 4);
  set("UC\x8a\x8c", Follows::kCount, 1);
  set("BTX\x8b", Follows::kCount, 4);
  set("\x8d\x8e\x96", Follows::kCount, 8);
  set("FgILSVP", Follows::kLines, 1);
  set("ci", Follows::kLines, 2);
  set("p", Follows::kSlotLine);
  return table;
}

class Scan {
 public:
  explicit Scan(std::string_view bytes) : bytes_(bytes) {}

  void run() {
    static constexpr std::array<Form, 256> kForms = forms();
    for (char opcode = 0; opcode != '.';) {
      opcode = take(1)[0];
      const Form form = kForms[static_cast<uint8_t>(opcode)];
      switch (form.follows) {
        case Follows::kUnknown:
          fail(static_cast<int>(static_cast<uint8_t>(opcode)), " at offset ", at_ - 1,
               " is no opcode of a pickle; it is damaged");
        case Follows::kNothing:
          break;
        case Follows::kBytes:
          take(form.width);
          break;
        case Follows::kSlot:
          check_slot(number(form.width));
          break;
        case Follows::kCount:
          take(number(form.width));
          break;
        case Follows::kLines:
          for (int i = 0; i < form.width; ++i) line();
          break;
        case Follows::kSlotLine:
          slot_line();
      }
    }
  }

 private:
  std::string_view take(uint64_t count) {
    VPD_CHECK(count <= bytes_.size() - at_, "the pickle needs ", count, " bytes at offset ", at_,
              ", it has ", bytes_.size(), " in all; it is damaged");
    const std::string_view taken = bytes_.substr(at_, static_cast<size_t>(count));
    at_ += taken.size();
    return taken;
  }

  uint64_t number(size_t width) {  // little-endian
    uint64_t value = 0;
    std::memcpy(&value, take(width).data(), width);
    return value;
  }

  std::string_view line() {
    const size_t end = bytes_.find('\n', at_);
    VPD_CHECK(end != std::string_view::npos, "the pickle ends inside a line");
    const std::string_view taken = take(end - at_);
    ++at_;
    return taken;
  }

  void slot_line() {
    const std::string_view digits = line();
    uint64_t slot = 0;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), slot);
    VPD_CHECK(error == std::errc() && end == digits.end(),
              "expected the number of a memo slot in the pickle; it is damaged");
    check_slot(slot);
  }

  void check_slot(uint64_t slot) const {
    VPD_CHECK(slot <= bytes_.size(), "the pickle keeps slot ", slot, " in ", bytes_.size(),
              " bytes; it is damaged");
  }

  std::string_view bytes_;
  size_t at_ = 0;
};

}  // namespace

void check_pickle(std::string_view bytes) { Scan(bytes).run(); }

}  // namespace vpd::io
