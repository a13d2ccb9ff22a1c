"""The vector-quantised autoencoder against the original's recorded outputs and closed forms."""

from __future__ import annotations

import pytest
import torch
from helpers import assert_close, load_golden

import vpd


@pytest.fixture(scope="module")
def vq() -> vpd.VQModel:
    model = vpd.VQModel(vpd.VQConfig(ch=32, ch_mult=(1, 2, 1), num_res_blocks=1, n_embed=64))
    model.load_state_dict(load_golden("vq_f4").weights)
    return model


def test_vq_matches_original(vq):
    case = load_golden("vq_f4")
    with torch.no_grad():
        h = vq.encode(case.inputs["image"])
        quantised = vq.quantise(h)
        decoded, raw = vq.decode(h), vq.decode(h, force_not_quantize=True)
    assert_close(h, case.outputs["prequant"])
    assert torch.equal(quantised.indices, case.outputs["indices"])
    assert_close(quantised.latent, case.outputs["quantized"])
    torch.testing.assert_close(quantised.loss, case.outputs["codebook_loss"], rtol=1e-5, atol=0)
    assert_close(decoded, case.outputs["decoded"])
    assert_close(raw, case.outputs["decoded_without_quantization"])


def test_vq_gradients():
    """Straight through to what was quantised; the codebook learns from the loss alone."""
    model = vpd.VQModel(
        vpd.VQConfig(ch=4, ch_mult=(1, 2), num_res_blocks=1, n_embed=7, norm_groups=2, beta=0.3)
    ).double()
    h = torch.randn(2, 3, 3, 5, dtype=torch.double, requires_grad=True)
    upstream = torch.randn(2, 3, 3, 5, dtype=torch.double)
    quantised = model.quantise(h)
    codebook = model.quantize.embedding.weight
    (through,) = torch.autograd.grad((quantised.latent * upstream).sum(), h)
    torch.testing.assert_close(through, upstream)

    distances = torch.cdist(h.detach().permute(0, 2, 3, 1).reshape(-1, 3), codebook.detach())
    assert torch.equal(quantised.indices.flatten(), distances.argmin(1))

    to_h, to_codes = torch.autograd.grad(quantised.loss, (h, codebook))
    gap = h.detach() - quantised.latent.detach()
    torch.testing.assert_close(to_h, 2 * gap / gap.numel())
    want = torch.zeros_like(codebook)
    rows = (-2 * 0.3 * gap / gap.numel()).permute(0, 2, 3, 1).reshape(-1, 3)
    want.index_add_(0, quantised.indices.flatten(), rows)
    torch.testing.assert_close(to_codes, want)


def test_vq_searches_in_pieces():
    """More positions than one piece of the distance matrix holds."""
    config = vpd.VQConfig(ch=2, ch_mult=(1,), num_res_blocks=1, n_embed=5, norm_groups=1)
    model = vpd.VQModel(config).double()
    h = torch.randn(1, 3, 65, 65, dtype=torch.double)
    rows = h.permute(0, 2, 3, 1).reshape(-1, 3)
    want = torch.cdist(rows, model.quantize.embedding.weight.detach()).argmin(1)
    assert torch.equal(model.quantise(h).indices.flatten(), want)


def test_vq_bad_input():
    model = vpd.VQModel(vpd.VQConfig(ch=4, ch_mult=(1, 2), num_res_blocks=1, norm_groups=2))
    with pytest.raises(ValueError, match="multiples of 2, got 7 x 8"):
        model.encode(torch.zeros(1, 3, 7, 8))
    with pytest.raises(ValueError, match=r"latent must be \[B, 3, h, w\]"):
        model.decode(torch.zeros(1, 2, 4, 4))
