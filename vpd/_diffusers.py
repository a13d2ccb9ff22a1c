"""Networks of vpd from objects of diffusers and transformers, read by their configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from torch import nn


def convert(source: Any) -> nn.Module:
    """Builds the network of vpd that equals ``source``, weights, device and dtype included.

    Raises:
        TypeError: If ``source`` is no U-Net, autoencoder or text encoder.
        ValueError: If its config has something vpd's network does not.
    """
    from vpd.weights import load_weights

    module = build(source)
    load_weights(module, source.state_dict())
    parameter = next(source.parameters())
    return module.to(device=parameter.device, dtype=parameter.dtype)


def build(source: Any) -> nn.Module:
    """The network of vpd of the same shape as ``source``, with fresh weights."""
    builders: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
        "UNet2DConditionModel": _unet,
        "AutoencoderKL": _autoencoder,
        "CLIPTextModel": lambda config: _text({**config, "projection_dim": None}),
        "CLIPTextModelWithProjection": _text,
    }
    known = [cls.__name__ for cls in type(source).__mro__ if cls.__name__ in builders]
    if not known or not isinstance(source, nn.Module):
        raise TypeError(
            f"from_diffusers: expected a pipeline or one of {', '.join(builders)}, "
            f"got {type(source).__name__}"
        )
    config: Any = source.config
    return builders[known[0]](dict(config) if isinstance(config, Mapping) else config.to_dict())


def _unet(config: Mapping[str, Any]) -> nn.Module:
    import vpd

    for option in (
        "class_embed_type",
        "addition_embed_type",
        "encoder_hid_dim",
        "time_cond_proj_dim",
    ):
        _expect(config, option, None)
    _expect(config, "act_fn", "silu")
    widths = tuple(config["block_out_channels"])
    attended = [name == "CrossAttnDownBlock2D" for name in config["down_block_types"]]
    plain = ["DownBlock2D", "CrossAttnDownBlock2D"]
    if any(name not in plain for name in config["down_block_types"]):
        raise ValueError(
            f"from_diffusers: down_block_types must be among {plain}, "
            f"got {list(config['down_block_types'])}"
        )
    # diffusers calls the number of heads attention_head_dim in models of Stable Diffusion v1's age.
    heads = config.get("num_attention_heads") or config["attention_head_dim"]
    return vpd.UNet(
        vpd.UNetConfig(
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            model_channels=widths[0],
            channel_mult=_multiples(widths),
            num_res_blocks=_single(config, "layers_per_block"),
            attention_resolutions=tuple(2**i for i, has in enumerate(attended) if has),
            num_heads=_single({"attention_head_dim": heads}, "attention_head_dim"),
            transformer_depth=_single(config, "transformer_layers_per_block", 1),
            context_dim=_single(config, "cross_attention_dim"),
            norm_groups=config["norm_num_groups"],
        )
    )


def _autoencoder(config: Mapping[str, Any]) -> nn.Module:
    import vpd

    _expect(config, "act_fn", "silu")
    widths = tuple(config["block_out_channels"])
    return vpd.AutoencoderKL(
        vpd.AutoencoderConfig(
            ch=widths[0],
            ch_mult=_multiples(widths),
            num_res_blocks=config["layers_per_block"],
            z_channels=config["latent_channels"],
            embed_dim=config["latent_channels"],
            in_channels=config["in_channels"],
            out_ch=config["out_channels"],
            norm_groups=config["norm_num_groups"],
            mid_attention=config.get("mid_block_add_attention", True),
        )
    )


def _text(config: Mapping[str, Any]) -> nn.Module:
    import vpd

    names = {field.name for field in fields(vpd.CLIPTextConfig)}
    values = {name: value for name, value in config.items() if name in names}
    if values.get("eos_token_id") == 2:
        # A mistake in CLIP's published configs, where transformers takes the largest id instead.
        values["eos_token_id"] = values["vocab_size"] - 1
    return vpd.CLIPTextEncoder(vpd.CLIPTextConfig(**values))


def _multiples(widths: tuple[int, ...]) -> tuple[int, ...]:
    if any(width % widths[0] for width in widths):
        raise ValueError(
            f"from_diffusers: block_out_channels must be multiples of the first, got {list(widths)}"
        )
    return tuple(width // widths[0] for width in widths)


def _single(config: Mapping[str, Any], option: str, default: int | None = None) -> int:
    """An int, also where it is written once per level."""
    value = config.get(option, default)
    values = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(values) != 1 or not isinstance(next(iter(values)), int):
        raise ValueError(f"from_diffusers: {option} must be one int for all levels, got {value}")
    return next(iter(values))


def _expect(config: Mapping[str, Any], option: str, expected: Any) -> None:
    if config.get(option, expected) != expected:
        raise ValueError(f"from_diffusers: {option} must be {expected}, got {config[option]!r}")
