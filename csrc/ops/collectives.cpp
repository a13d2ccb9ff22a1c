#include "ops/collectives.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/full.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "ops/batch_norm.h"

namespace vpd::ops {
namespace {
using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// An op of torch.distributed and its end. arguments: those behind the tensor.
Tensor collective(const char* name, const Tensor& input, torch::jit::Stack arguments) {
  auto& dispatcher = c10::Dispatcher::singleton();
  torch::jit::Stack stack{input.contiguous()};
  stack.insert(stack.end(), arguments.begin(), arguments.end());
  dispatcher.findSchemaOrThrow(name, "").callBoxed(&stack);
  dispatcher.findSchemaOrThrow("_c10d_functional::wait_tensor", "").callBoxed(&stack);
  return stack.back().toTensor();
}

class Gather : public torch::autograd::Function<Gather> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& own, const ProcessGroup& group) {
    ctx->saved_data["group"] = group.name;
    ctx->saved_data["size"] = group.size;
    return gather(own, group);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor own = collective("_c10d_functional::reduce_scatter_tensor", grads[0].flatten(0, 1),
                                  {"sum", ctx->saved_data["size"], ctx->saved_data["group"]});
    return {own, Tensor()};
  }
};

}  // namespace

Tensor sum_over(const Tensor& own, const std::string& group) {
  return collective("_c10d_functional::all_reduce", own, {"sum", group});
}

Tensor gather(const Tensor& own, const ProcessGroup& group) {
  const char* name = "_c10d_functional::all_gather_into_tensor";
  return collective(name, own, {group.size, group.name}).unflatten(0, {group.size, own.size(0)});
}

Tensor gather_rows(const Tensor& own, const ProcessGroup& group) {
  const int64_t rows = own.size(0);
  const Tensor counts =
      gather(at::full({1}, rows, own.options().dtype(at::kLong)), group).flatten().cpu();
  const int64_t* count = counts.const_data_ptr<int64_t>();
  const int64_t most = *std::max_element(count, count + group.size);
  if (most == 0) return own;
  const Tensor all = Gather::apply(at::constant_pad_nd(own, {0, 0, 0, most - rows}), group);
  std::vector<Tensor> parts;
  for (int64_t rank = 0; rank < group.size; ++rank) {
    parts.push_back(all.select(0, rank).narrow(0, 0, count[rank]));
  }
  return at::cat(parts);
}

}  // namespace vpd::ops
