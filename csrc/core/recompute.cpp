#include "core/recompute.h"

#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "core/check.h"

namespace vpd {
namespace {
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Autocast as it was when this was built.
class AutocastState {
 public:
  explicit AutocastState(at::DeviceType device)
      : device_(device),
        known_(at::autocast::is_autocast_available(device)),
        enabled_(known_ && at::autocast::is_autocast_enabled(device)),
        cached_(at::autocast::is_autocast_cache_enabled()),
        dtype_(known_ ? at::autocast::get_autocast_dtype(device) : at::kFloat) {}

  at::DeviceType device() const { return device_; }
  void apply() const {
    if (!known_) return;  // the meta device has none
    at::autocast::set_autocast_enabled(device_, enabled_);
    at::autocast::set_autocast_cache_enabled(cached_);
    at::autocast::set_autocast_dtype(device_, dtype_);
  }

 private:
  at::DeviceType device_;
  bool known_;
  bool enabled_;
  bool cached_;
  at::ScalarType dtype_;
};

// Brings a state back for as long as it lives.
class AutocastGuard {
 public:
  explicit AutocastGuard(const AutocastState& state) : before_(state.device()) {
    state.apply();
    at::autocast::increment_nesting();
  }
  AutocastGuard(const AutocastGuard&) = delete;
  ~AutocastGuard() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    before_.apply();
  }

 private:
  AutocastState before_;
};

struct Call : torch::CustomClassHolder {
  Call(PureFunction f, const Params& p, SlotRange own, AutocastState autocast)
      : f(std::move(f)),
        table_size(p.size()),
        halves(p.has_backward() ? 2 : 1),
        own(own),
        autocast(autocast) {}

  std::vector<Tensor> operator()(at::TensorList inputs_and_own) const {
    const size_t inputs = inputs_and_own.size() - halves * own.size();
    std::vector<Tensor> all(halves * table_size);
    for (size_t i = 0; i < halves * own.size(); ++i) {
      const size_t half = i / own.size(), slot = own.begin + i % own.size();
      all[half * table_size + slot] = inputs_and_own[inputs + i];
    }
    return f(Params(all, table_size), inputs_and_own.slice(0, inputs).vec());
  }

  PureFunction f;
  size_t table_size, halves;
  SlotRange own;
  AutocastState autocast;
};

class Recompute : public torch::autograd::Function<Recompute> {
 public:
  static variable_list forward(AutogradContext* ctx, at::TensorList inputs_and_own,
                               const c10::intrusive_ptr<Call>& call) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward(inputs_and_own.vec());
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    return (*call)(inputs_and_own);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    VPD_CHECK(
        !at::GradMode::is_enabled(),
        "recompute: second derivatives need recompute=\"none\" (create_graph=True was given)");
    const auto call = c10::static_intrusive_pointer_cast<Call>(ctx->saved_data["call"].toCapsule());
    variable_list all = ctx->get_saved_variables();
    variable_list wanted;
    for (size_t i = 0; i < all.size(); ++i) {
      if (!ctx->needs_input_grad(i)) continue;
      all[i] = all[i].detach().requires_grad_();
      wanted.push_back(all[i]);
    }
    variable_list outputs, outputs_grads;
    {
      const at::AutoGradMode grad(true);
      const AutocastGuard guard(call->autocast);
      const auto found = (*call)(all);
      for (size_t i = 0; i < found.size(); ++i) {
        if (!grads[i].defined() || !found[i].requires_grad()) continue;
        outputs.push_back(found[i]);
        outputs_grads.push_back(grads[i]);
      }
    }
    variable_list result(all.size() + 1);  // none for the call itself
    if (outputs.empty()) return result;
    const auto found = torch::autograd::grad(outputs, wanted, outputs_grads,
                                             /*retain_graph=*/false, /*create_graph=*/false,
                                             /*allow_unused=*/true);
    for (size_t i = 0, next = 0; i < all.size(); ++i) {
      if (ctx->needs_input_grad(i)) result[i] = found[next++];
    }
    return result;
  }
};

}  // namespace

std::vector<Tensor> recompute(PureFunction f, const Params& p, SlotRange own,
                              const std::vector<Tensor>& inputs) {
  std::vector<Tensor> all = inputs;
  for (size_t i = own.begin; i < own.end; ++i) all.push_back(p[Slot(i)]);
  if (p.has_backward()) {
    for (size_t i = own.begin; i < own.end; ++i) all.push_back(p.backward(Slot(i)));
  }
  const bool differentiated =
      at::GradMode::is_enabled() &&
      std::any_of(all.begin(), all.end(), [](const Tensor& t) { return t.requires_grad(); });
  if (!differentiated) return f(p, inputs);
  const AutocastState autocast(inputs.front().device().type());
  return Recompute::apply(at::TensorList(all),
                          c10::make_intrusive<Call>(std::move(f), p, own, autocast));
}

}  // namespace vpd
