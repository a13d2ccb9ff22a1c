#include "io/pickle_scan.h"

#include <array>
#include <charconv>
#include <cstdint>

#include "core/check.h"
#include "io/pickle_bytes.h"

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

void check_slot(uint64_t slot, const PickleBytes& bytes) {
  VPD_CHECK(slot <= bytes.size(), "the pickle keeps slot ", slot, " in ", bytes.size(),
            " bytes; it is damaged");
}

uint64_t slot_of(std::string_view digits) {
  uint64_t slot = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), slot);
  VPD_CHECK(error == std::errc() && end == digits.end(),
            "expected the number of a memo slot in the pickle; it is damaged");
  return slot;
}

}  // namespace

void check_pickle(std::string_view pickle) {
  static constexpr std::array<Form, 256> kForms = forms();
  PickleBytes bytes(pickle, "");
  for (char opcode = 0; opcode != '.';) {
    opcode = bytes.take(1)[0];
    const Form form = kForms[static_cast<uint8_t>(opcode)];
    switch (form.follows) {
      case Follows::kUnknown:
        fail(static_cast<int>(static_cast<uint8_t>(opcode)), " at offset ", bytes.at() - 1,
             " is no opcode of a pickle; it is damaged");
      case Follows::kNothing:
        break;
      case Follows::kBytes:
        bytes.take(form.width);
        break;
      case Follows::kSlot:
        check_slot(bytes.number(form.width), bytes);
        break;
      case Follows::kCount:
        bytes.take(bytes.number(form.width));
        break;
      case Follows::kLines:
        for (int i = 0; i < form.width; ++i) bytes.line("line");
        break;
      case Follows::kSlotLine:
        check_slot(slot_of(bytes.line("line")), bytes);
    }
  }
}

}  // namespace vpd::io
