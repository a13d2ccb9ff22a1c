// Byte-pair encoding with a vocabulary small enough to work out by hand.
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <system_error>

#include "folder.h"
#include "text/tokenizer.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace vpd::text {
namespace {

using TextTest = test::FolderTest;
using Ids = std::vector<int64_t>;

// Ids of the symbols of CLIP's vocabulary: printing bytes from '!' first, then those that end a
// word, then merges in their order.
constexpr int64_t byte(char c) { return c - '!'; }
constexpr int64_t last(char c) { return 256 + byte(c); }

constexpr const char* kMerges =
    "#version: 0.2\n"
    "l o\n"                 // 512
    "lo w</w>\n"            // 513
    "e r</w>\n"             // 514
    "o w</w>\n"             // 515, too late for "low"
    "a a\n"                 // 516
    "aa aa\n"               // 517
    "\u00c3 \u00a9</w>\n";  // 518: the two bytes of e acute

TEST_F(TextTest, MergesOfLowestRankComeFirst) {
  const Tokenizer tokenizer(write("merges.txt", kMerges));
  EXPECT_EQ(tokenizer.encode("low"), (Ids{513}));
  EXPECT_EQ(tokenizer.encode("lower"), (Ids{512, byte('w'), 514}));
  EXPECT_EQ(tokenizer.encode("bow"), (Ids{byte('b'), 515}));
  EXPECT_EQ(tokenizer.encode("aaaaa"), (Ids{517, last('a')}));
  EXPECT_EQ(tokenizer.encode("\u00c9"), (Ids{518}));  // small before it is encoded
  EXPECT_EQ(tokenizer.start(), 519);
}

TEST_F(TextTest, WordsAreSplitAsClipDoes) {
  const Tokenizer tokenizer(write("merges.txt", kMerges));
  EXPECT_EQ(tokenizer.encode("a1b"), (Ids{last('a'), last('1'), last('b')}));
  EXPECT_EQ(tokenizer.encode("12"), (Ids{last('1'), last('2')}));
  EXPECT_EQ(tokenizer.encode("a's"), (Ids{last('a'), byte('\''), last('s')}));
  EXPECT_EQ(tokenizer.encode("a'x"), (Ids{last('a'), last('\''), last('x')}));
  EXPECT_EQ(tokenizer.encode("?! ."), (Ids{byte('?'), last('!'), last('.')}));
  EXPECT_EQ(tokenizer.encode(" \t\n"), Ids{});
  EXPECT_EQ(tokenizer.encode("<start_of_text>low<END_OF_TEXT>"), (Ids{519, 513, 520}));
}

TEST_F(TextTest, RowsArePaddedAndCut) {
  const Tokenizer tokenizer(write("merges.txt", kMerges));
  const Tokens tokens = tokenizer({"low", "a b c d", ""}, 5);
  const at::Tensor expected = at::tensor(
      {519, 513, 520, 520, 520, 519, 320, 321, 322, 520, 519, 520, 520, 520, 520}, at::kLong);
  EXPECT_TRUE(at::equal(tokens.ids.flatten(), expected)) << tokens.ids;
  EXPECT_TRUE(at::equal(tokens.truncated.to(at::kLong), at::tensor({0, 1, 0}, at::kLong)));
  EXPECT_EQ(tokenizer(std::vector<std::string>{}, 4).ids.sizes(), (Ids{0, 4}));
  EXPECT_THROW(tokenizer({"a"}, 1), std::invalid_argument);
}

TEST_F(TextTest, BadTextAndFilesAreNamed) {
  const Tokenizer tokenizer(write("merges.txt", kMerges));
  EXPECT_THROW(tokenizer.encode("\xff"), std::invalid_argument);
  const auto message = [&](const std::string& merges) {
    return test::message_of([&] { Tokenizer(write("bad", merges)); });
  };
  EXPECT_NE(message("l o\nx lo w\n").find("bad, line 2: expected two tokens"), std::string::npos);
  EXPECT_NE(message("l o\nl o\n").find("line 2: expected a new token"), std::string::npos);
  EXPECT_NE(message("word\n").find("line 1"), std::string::npos);
  EXPECT_NE(message("\xff\xfe").find("UTF-8"), std::string::npos);
  EXPECT_NE(message("\n\n").find("got none"), std::string::npos);
  EXPECT_THROW(Tokenizer(path("none")), std::system_error);
  EXPECT_EQ(find_merges({path("none"), folder_.string()}), path("merges.txt"));
  EXPECT_NE(test::message_of([&] { find_merges({path("none")}); }).find(path("none")),
            std::string::npos);
}

TEST(Text, CleaningAndCases) {
  EXPECT_EQ(clean_text("  A\u00a0\u2019b\u2019 \u201cC\u201d\n"), "a 'b' \"c\"");
  EXPECT_EQ(encode_utf8(lower(decode_utf8("ΟΔΟΣ Σ ΣΑ ÀŸĀ Ⴀ", "test"))), "οδος σ σα àÿā ⴀ");
  EXPECT_EQ(lower(U"\u0130"), U"i\u0307");
  EXPECT_TRUE(is_letter(U'ß') && is_letter(U'中') && !is_letter(U'1') && !is_letter(0x10FFFF));
  EXPECT_TRUE(is_number(U'½') && is_number(U'٣') && !is_number(U'a'));
  EXPECT_TRUE(is_space(0x3000) && !is_space(0x1C) && !is_space(0x200B));
}

TEST_F(TextTest, ALongWordTakesNoLongerThanItsLength) {
  const Tokenizer tokenizer(write("merges.txt", kMerges));
  EXPECT_EQ(tokenizer.encode(std::string(200'000, 'a')).size(), 50'002u);
}

}  // namespace
}  // namespace vpd::text
