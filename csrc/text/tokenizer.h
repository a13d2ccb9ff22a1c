#pragma once
// CLIP's byte-pair encoding (Radford et al. 2021, section 2.4), from the merges that Stable
// Diffusion's tokenizer folder holds.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace vpd::text {

struct Tokens {
  at::Tensor ids;        // int64 [B, length]: start, the text, end; padded with end
  at::Tensor truncated;  // bool [B]: true where the text lost its end
};

// What happens to a text before it is split: curly quotes become straight, runs of white space one
// space with none at the ends, letters small. Unlike vpd.tokens, HTML entities, composed characters
// and wrongly decoded bytes stay as they are.
std::string clean_text(std::string_view text);

class Tokenizer {
 public:
  // merges: a file of "left right" lines in order of rank, as merges.txt of CLIP and Stable
  // Diffusion; the ids follow from the order. Throws std::system_error if it cannot be read,
  // std::invalid_argument, naming the line, if it is something else.
  explicit Tokenizer(const std::string& merges);

  // Ids of a text alone, without start and end. The literal words <start_of_text> and <end_of_text>
  // are the markers. Throws std::invalid_argument for text that is not UTF-8.
  std::vector<int64_t> encode(std::string_view text) const;
  // length >= 2; a text of more than length - 2 tokens keeps its beginning.
  Tokens operator()(const std::vector<std::string>& texts, int64_t length) const;

  int64_t start() const { return start_; }
  int64_t end() const { return start_ + 1; }

 private:
  void append_word(std::string_view bytes, std::vector<int64_t>& ids) const;
  // The token that two neighbours become, or -1.
  int32_t merged(int32_t left, int32_t right) const;

  std::unordered_map<uint64_t, int32_t> merges_;  // left and right -> what they become
  int64_t start_ = 0;
};

// The first merges.txt among `places`: files, or folders of models or tokenizers. Throws
// std::invalid_argument that says where it was looked for.
std::string find_merges(const std::vector<std::string>& places);

}  // namespace vpd::text
