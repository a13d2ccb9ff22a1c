// Cross-attention on tensor cores with its map as a by-product. A warp takes 16 queries of one
// image and walks over the heads. Keys, then values of a head pass through shared memory a stretch
// of tokens at a time; a sentence is one stretch, whose scores stay in registers; of more tokens
// the scores are found twice, first for the sums of the softmax. The mean over heads is added up by
// whoever holds the probabilities: each place of the map belongs to one thread, so nothing is added
// by two, and results repeat to the last bit.
#include <cstring>

#include "cross_attention.h"
#include "tensor_core.cuh"

namespace vpd::ops::cuda {
namespace {

constexpr int kRows = 16;    // queries of a warp
constexpr int kColumns = 8;  // tokens, or columns of a head, of a tile
constexpr int kTiles = 10;   // of tokens in a stretch: 80, a sentence has 77
constexpr int kStretch = kTiles * kColumns;
constexpr int kDeep = 16;  // of a product
constexpr int kPad = 8;    // columns besides, which spread rows over the banks of shared memory
constexpr int kBlockThreads = 128;
constexpr int kBlockRows = kBlockThreads / kWarp * kRows;

template <typename T>
struct Operands {
  int64_t queries, tokens, heads, width;
  const T *q, *k, *v;
  const bool* mask;
  float scale;
  bool per_head;
  T *out, *map;
  float* sums;  // like the mean map, where there is more than one stretch
};

template <int kDepth, typename T>
struct Shared {
  static constexpr int kStride = kDepth * kDeep + kPad;
  alignas(16) T tokens[kStretch * kStride];
  float outside[kStretch];  // 0, or -infinity for tokens that do not count
  float mean[kTiles * 4 * kBlockThreads];
};

// kDepth: products along a head.
template <int kDepth, typename T>
struct CrossAttention {
  static constexpr int kWide = 2 * kDepth;  // tiles of a head's columns
  static constexpr int kPacked = pack_size<T>();
  static constexpr int kStride = Shared<kDepth, T>::kStride;
  using Scores = float[kTiles][4];

  const Operands<T>& in;
  Shared<kDepth, T>& shared;
  int64_t image, row;  // the lane's first query; the other one is 8 further
  int group, pair;     // of the lane: the row in its tile, and its pair of columns

  // Tokens from `begin` on of one head, zeros beyond what there is.
  __device__ void load_tokens(const T* from, int64_t begin, int64_t head) {
    using P = Pack<T, kPacked>;
    constexpr int kPacks = kDepth * kDeep / kPacked;
    const int64_t row_size = in.heads * in.width;
    __syncthreads();  // somebody may still be reading what was there
    for (int i = threadIdx.x; i < kStretch * kPacks; i += kBlockThreads) {
      const int64_t token = begin + i / kPacks, column = i % kPacks * kPacked;
      P pack = {};
      if (token < in.tokens && column < in.width) {
        pack = *reinterpret_cast<const P*>(from + (image * in.tokens + token) * row_size +
                                           head * in.width + column);
      }
      *reinterpret_cast<P*>(shared.tokens + i / kPacks * kStride + column) = pack;
    }
    for (int i = threadIdx.x; i < kStretch; i += kBlockThreads) {
      const int64_t token = begin + i;
      const bool counts = token < in.tokens && (!in.mask || in.mask[image * in.tokens + token]);
      shared.outside[i] = counts ? 0.f : -INFINITY;
    }
    __syncthreads();
  }

  // Two neighbours of a row, zeros beyond the columns of the head or the queries.
  __device__ uint32_t query_pair(int64_t query, int64_t head, int column) const {
    uint32_t word = 0;
    if (query < in.queries && column < in.width) {
      memcpy(&word, in.q + ((image * in.queries + query) * in.heads + head) * in.width + column,
             sizeof word);
    }
    return word;
  }
  __device__ uint32_t key_pair(int token, int column) const {
    uint32_t word;
    memcpy(&word, shared.tokens + token * kStride + column, sizeof word);
    return word;
  }
  __device__ uint32_t value_pair(int token, int column) const {
    const T pair[2] = {shared.tokens[token * kStride + column],
                       shared.tokens[(token + 1) * kStride + column]};
    uint32_t word;
    memcpy(&word, pair, sizeof word);
    return word;
  }

  __device__ void find_scores(int64_t begin, int64_t head, Scores& scores) {
    load_tokens(in.k, begin, head);
    for (auto& tile : scores) tile[0] = tile[1] = tile[2] = tile[3] = 0;
#pragma unroll
    for (int step = 0; step < kDepth; ++step) {
      const int column = step * kDeep + 2 * pair;
      const uint32_t a[4] = {query_pair(row, head, column), query_pair(row + 8, head, column),
                             query_pair(row, head, column + 8),
                             query_pair(row + 8, head, column + 8)};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const int token = tile * kColumns + group;
        multiply_add(static_cast<T*>(nullptr), a, key_pair(token, column),
                     key_pair(token, column + 8), scores[tile]);
      }
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        scores[tile][c] =
            scores[tile][c] * in.scale + shared.outside[tile * kColumns + 2 * pair + c % 2];
      }
    }
  }

  // The higher one; not a number stays so.
  static __device__ float higher(float a, float b) { return a > b || a != a ? a : b; }

  // Takes a stretch into the highest score of each row and the lane's part of the sum of
  // exponentials.
  __device__ void add_to_softmax(const Scores& scores, float (&top)[2], float (&sum)[2]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = top[half];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        highest = higher(scores[tile][2 * half], highest);
        highest = higher(scores[tile][2 * half + 1], highest);
      }
      for (int lane = 1; lane <= 2; lane *= 2) {  // four lanes share a row
        highest = higher(__shfl_xor_sync(0xFFFFFFFFu, highest, lane), highest);
      }
      if (highest == -INFINITY) continue;  // no token counts so far
      float added = 0;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        added += expf(scores[tile][2 * half] - highest);
        added += expf(scores[tile][2 * half + 1] - highest);
      }
      sum[half] = sum[half] * expf(top[half] - highest) + added;
      top[half] = highest;
    }
  }

  __device__ void write_map(int64_t plane, int64_t token, int64_t query, float value) const {
    store(in.map[(plane * in.tokens + token) * in.queries + query], value);
  }

  __device__ void keep_map(int64_t begin, int64_t head, const Scores& shares) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int64_t token = begin + tile * kColumns + 2 * pair + c % 2;
        const int64_t query = row + c / 2 * 8;
        if (token >= in.tokens || query >= in.queries) continue;
        if (in.per_head) {
          write_map(image * in.heads + head, token, query, shares[tile][c]);
          continue;
        }
        float& mean = in.sums ? in.sums[(image * in.tokens + token) * in.queries + query]
                              : shared.mean[(tile * 4 + c) * kBlockThreads + threadIdx.x];
        const float found = head == 0 ? shares[tile][c] : mean + shares[tile][c];
        mean = found;
        if (head + 1 == in.heads) {
          write_map(image, token, query, found / static_cast<float>(in.heads));
        }
      }
    }
  }

  // Probabilities lie as a product leaves them; two tiles of them side by side are what the next
  // one takes.
  __device__ void add_values(int64_t begin, int64_t head, const Scores& shares,
                             float (&sums)[kWide][4]) {
    T* const type = nullptr;
    load_tokens(in.v, begin, head);
#pragma unroll
    for (int tile = 0; tile < kTiles; tile += 2) {
      const float (&left)[4] = shares[tile];
      const float (&right)[4] = shares[tile + 1];
      const uint32_t a[4] = {pair_of(type, left[0], left[1]), pair_of(type, left[2], left[3]),
                             pair_of(type, right[0], right[1]), pair_of(type, right[2], right[3])};
      const int token = tile * kColumns + 2 * pair;
#pragma unroll
      for (int wide = 0; wide < kWide; ++wide) {
        const int column = wide * kColumns + group;
        multiply_add(type, a, value_pair(token, column), value_pair(token + 8, column), sums[wide]);
      }
    }
  }

  __device__ void write_out(int64_t head, const float (&sums)[kWide][4]) const {
#pragma unroll
    for (int wide = 0; wide < kWide; ++wide) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t query = row + half * 8;
        const int column = wide * kColumns + 2 * pair;
        if (query >= in.queries || column >= in.width) continue;
        const uint32_t word =
            pair_of(static_cast<T*>(nullptr), sums[wide][2 * half], sums[wide][2 * half + 1]);
        memcpy(in.out + ((image * in.queries + query) * in.heads + head) * in.width + column, &word,
               sizeof word);
      }
    }
  }

  __device__ void attend(int64_t head) {
    Scores scores;
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    for (int64_t begin = 0; begin < in.tokens; begin += kStretch) {
      find_scores(begin, head, scores);
      add_to_softmax(scores, top, sum);
    }
    for (float& part : sum) {
      part += __shfl_xor_sync(0xFFFFFFFFu, part, 1);
      part += __shfl_xor_sync(0xFFFFFFFFu, part, 2);
    }
    float out[kWide][4] = {};
    for (int64_t begin = 0; begin < in.tokens; begin += kStretch) {
      if (in.tokens > kStretch) find_scores(begin, head, scores);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          scores[tile][c] = expf(scores[tile][c] - top[c / 2]) / sum[c / 2];
        }
      }
      keep_map(begin, head, scores);
      add_values(begin, head, scores, out);
    }
    write_out(head, out);
  }
};

__host__ __device__ inline int64_t blocks_of(int64_t queries) {
  return (queries + kBlockRows - 1) / kBlockRows;
}

template <int kDepth, typename T>
__global__ void __launch_bounds__(kBlockThreads) cross_attention(Operands<T> in) {
  __shared__ Shared<kDepth, T> shared;
  const int64_t blocks = blocks_of(in.queries);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t first = blockIdx.x % blocks * kBlockRows + warp * kRows;
  CrossAttention<kDepth, T> block{in,       shared,  blockIdx.x / blocks, first + lane / 4,
                                  lane / 4, lane % 4};
  for (int64_t head = 0; head < in.heads; ++head) block.attend(head);
}

template <int kDepth, typename T>
void launch_as(const CrossAttentionCall& call, cudaStream_t stream) {
  static_assert(sizeof(Shared<kDepth, T>) <= 48 * 1024, "what every GPU has");
  const Operands<T> in{call.queries,
                       call.tokens,
                       call.heads,
                       call.width,
                       static_cast<const T*>(call.q),
                       static_cast<const T*>(call.k),
                       static_cast<const T*>(call.v),
                       call.mask,
                       call.scale,
                       call.per_head,
                       static_cast<T*>(call.out),
                       static_cast<T*>(call.map),
                       call.sums};
  const unsigned grid = static_cast<unsigned>(call.batch * blocks_of(call.queries));
  cross_attention<kDepth, T><<<grid, kBlockThreads, 0, stream>>>(in);
}

template <typename T>
void launch_type(const CrossAttentionCall& call, cudaStream_t stream) {
  if (call.width <= 2 * kDeep) {
    launch_as<2, T>(call, stream);
  } else if (call.width <= 3 * kDeep) {
    launch_as<3, T>(call, stream);
  } else if (call.width <= 5 * kDeep) {
    launch_as<5, T>(call, stream);
  } else {
    launch_as<10, T>(call, stream);
  }
}

}  // namespace

bool cross_attention_takes(const CrossAttentionCall& call) {
  const bool half = call.type == Type::kHalf;
  if ((!half && call.type != Type::kBFloat16) || call.width % 8 != 0 || call.width > 10 * kDeep ||
      call.batch * blocks_of(call.queries) > 0x7FFFFFFF) {
    return false;
  }
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return 10 * major + minor >= (half ? 75 : 80);
}

bool cross_attention_sums(const CrossAttentionCall& call) {
  return !call.per_head && call.tokens > kStretch;
}

cudaError_t launch_cross_attention(const CrossAttentionCall& call, cudaStream_t stream) {
  if (call.type == Type::kHalf) {
    launch_type<__half>(call, stream);
  } else {
    launch_type<__nv_bfloat16>(call, stream);
  }
  return cudaGetLastError();
}

}  // namespace vpd::ops::cuda
