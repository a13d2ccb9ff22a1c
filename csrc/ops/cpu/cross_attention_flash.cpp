#include "ops/cpu/cross_attention_flash.h"

#include <algorithm>

#include "core/check.h"
#include "ops/cpu/cpu_level.h"

#if defined(__x86_64__)
#include "ops/cpu/flash_heads.h"
#endif

namespace vpd::ops::cpu {
using at::Tensor;

#if defined(__x86_64__)
namespace {
using namespace flash;

template <typename Words>
class Maps {
  using Number = typename Words::Number;

 public:
  Maps(const Tensor& map, const ActiveTokens& active, int64_t queries)
      : data_(static_cast<Number*>(map.mutable_data_ptr())), active_(active), queries_(queries) {}

  // Columns [row, row + count) of a plane [tokens, queries] from sums [kQueries, kKeys], which
  // become zero.
  void write(int64_t image, int64_t plane, int64_t row, int64_t count, float* sums) const {
    for (int64_t i = 0; i < active_.count[image]; ++i) {
      Number* to = data_ + (plane * active_.stride + active_.of(image)[i]) * queries_ + row;
      for (int64_t r = 0; r < count; ++r) to[r] = Words::number(sums[r * kKeys + i]);
    }
    std::fill_n(sums, kQueries * kKeys, 0.f);
  }

 private:
  Number* data_;  // [B, N, M] or [B, heads, N, M]
  const ActiveTokens& active_;
  int64_t queries_;
};

template <typename Words>
void run(const Tensor& q, const Tensor& k, const Tensor& v, const ActiveTokens& active,
         int64_t heads, double scale, bool per_head, const Tensor& out, const Tensor& map) {
  const auto split = [heads](const Tensor& t) {
    return t.unflatten(2, {heads, t.size(2) / heads}).transpose(1, 2);
  };
  const Heads<Words> packed(split(q), split(k), split(v), active, scale, out);
  const int64_t rows = q.size(1), blocks = (rows + kQueries - 1) / kQueries;
  const Maps<Words> maps(map, active, rows);
  const float share = per_head ? 1.f : 1.f / static_cast<float>(heads);
  at::parallel_for(0, q.size(0) * blocks, 1, [&](int64_t begin, int64_t end) {
    const Memory<Words> memory = packed.memory();
    const Buffer<float> sums(kQueries * kKeys);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task / blocks, row = task % blocks * kQueries;
      const int64_t count = std::min(kQueries, rows - row);
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t head = image * heads + h;
        packed.attend_with_map(head, row, count, share, memory.scratch, sums.get());
        if (per_head) maps.write(image, head, row, count, sums.get());
      }
      if (!per_head) maps.write(image, image, row, count, sums.get());
    }
  });
}

}  // namespace
#endif

bool flash_takes(const Tensor& q, const ActiveTokens& active, double scale) {
#if defined(__x86_64__)
  const bool type = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kFloat;
  return type && scale > 0 && cpu_level() >= Level::kAVX512BF16 &&
         std::all_of(active.count.begin(), active.count.end(),
                     [](int64_t count) { return count >= 1 && count <= flash::kKeys; });
#else
  return false;
#endif
}

void cross_attention_flash(const Tensor& q, const Tensor& k, const Tensor& v,
                           const ActiveTokens& active, int64_t heads, double scale, bool per_head,
                           const Tensor& out, const Tensor& map) {
#if defined(__x86_64__)
  if (q.scalar_type() == at::kFloat) {
    run<FloatWords>(q, k, v, active, heads, scale, per_head, out, map);
  } else {
    run<BFloat16Words>(q, k, v, active, heads, scale, per_head, out, map);
  }
#else
  fail("cross_attention_flash: only for x86-64 processors");
#endif
}

}  // namespace vpd::ops::cpu
