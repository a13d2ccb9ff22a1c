// Flash attention for processors with AVX-512 and its bfloat16 products: every thread takes blocks
// of queries.
#include "ops/flash_attention.h"

#include <ATen/ops/empty.h>

#include "core/check.h"
#include "ops/cpu/cpu_level.h"

#if defined(__x86_64__)
#include "ops/cpu/flash_heads.h"
#endif

namespace vpd::ops::cpu {
namespace {
using at::Tensor;

#if defined(__x86_64__)
using namespace flash;

constexpr int64_t kBlock = 8 * kQueries;  // queries of a task

template <typename Words>
void run(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const Tensor& out,
         const Tensor& logsumexp) {
  const ActiveTokens all(std::nullopt, k.size(0), k.size(2));
  const Heads<Words> heads(q, k, v, all, scale, out, logsumexp.mutable_data_ptr<float>());
  const int64_t rows = q.size(2), blocks = (rows + kBlock - 1) / kBlock;
  at::parallel_for(0, heads.count() * blocks, 1, [&](int64_t begin, int64_t end) {
    const Memory<Words> memory = heads.memory();
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * kBlock, last = std::min(first + kBlock, rows);
      for (int64_t row = first; row < last; row += kQueries) {
        heads.attend_to(task / blocks, row, std::min(kQueries, last - row), memory.scratch);
      }
    }
  });
}

#endif

std::tuple<Tensor, Tensor> flash_attention_cpu(const Tensor& q_, const Tensor& k_, const Tensor& v_,
                                               double scale) {
  check_flash_attention(q_, k_, v_, scale);
#if defined(__x86_64__)
  VPD_CHECK(cpu_level() >= Level::kAVX512BF16,
            "flash_attention: this processor has no AVX-512 with bfloat16 products");
  const Tensor q = with_dense_rows(q_), k = with_dense_rows(k_), v = with_dense_rows(v_);
  Tensor out = at::empty({q.size(0), q.size(2), q.size(1), q.size(3)}, q.options());
  Tensor logsumexp = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
  if (q.scalar_type() == at::kFloat) {
    run<FloatWords>(q, k, v, scale, out, logsumexp);
  } else {
    run<BFloat16Words>(q, k, v, scale, out, logsumexp);
  }
  return {out.transpose(1, 2), logsumexp};
#else
  fail("flash_attention: only for x86-64 processors");
#endif
}

}  // namespace

TORCH_LIBRARY_IMPL(vpd, CPU, m) { m.impl("flash_attention", flash_attention_cpu); }

}  // namespace vpd::ops::cpu
