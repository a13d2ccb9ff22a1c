"""Types of the compiled core. Written by tools/stubs.py; do not edit."""

import collections.abc
import typing

import torch

__all__: list[str] = [
    "FPN",
    "AttentionControl",
    "AutoencoderKL",
    "CLIPImageEncoder",
    "CLIPImageOutput",
    "CLIPTextEncoder",
    "CLIPTextOutput",
    "DepthHead",
    "DepthMetrics",
    "DiagonalGaussian",
    "FCNHead",
    "FreedMemory",
    "Guidance",
    "ImplicitCaptioner",
    "KMeans",
    "MapFusion",
    "Mask2FormerHead",
    "NoiseSchedule",
    "OdiseBackbone",
    "OdiseHead",
    "OdiseTextHead",
    "PanopticMetrics",
    "PanopticQuality",
    "PanopticScores",
    "PickScore",
    "PrecisionRecall",
    "Recompute",
    "ReconstructionLoss",
    "ReferDecoder",
    "ReferMetrics",
    "Sampler",
    "SamplerStep",
    "SemanticFPNHead",
    "SemanticMetrics",
    "SemanticScores",
    "TagMetrics",
    "TagScores",
    "TaggingAdapter",
    "TextAdapter",
    "Tokenizer",
    "UNet",
    "UNetOutput",
    "UNetTaps",
    "UperNetHead",
    "VQModel",
    "ViT",
    "WeightMatch",
    "category_logits",
    "check_pickle",
    "clean_text",
    "contrastive_loss",
    "cpu_level",
    "daam",
    "daam_expanded",
    "daam_normalized",
    "detect_layout",
    "dice_loss",
    "epsilon_loss",
    "geometric_mean",
    "id_rows",
    "instance_inference",
    "join_windows",
    "kmeans",
    "kmeans_from",
    "kmeans_seeds",
    "loop_threads",
    "mask2former_cost",
    "mask2former_from_transformers",
    "mask2former_loss",
    "mask_grounding_loss",
    "mask_losses",
    "mask_pooled",
    "mask_pooling",
    "mask_tokens",
    "match",
    "match_weights",
    "openai_clip_to_transformers",
    "panoptic_inference",
    "pixel_classes",
    "plan_conversion",
    "principal_components",
    "read_weights",
    "reconstruction_loss",
    "sample",
    "segmentation_cross_entropy",
    "segmentation_sums",
    "semantic_inference",
    "semantic_scores",
    "set_freed_memory",
    "silog_loss",
    "silog_of",
    "silog_sums",
    "timestep_embedding",
    "weighted_cross_entropy",
    "with_moving_average",
    "with_no_object",
    "write_safetensors",
]

class FreedMemory:
    """
    Members:

      kept

      returned
    """

    __members__: typing.ClassVar[dict[str, FreedMemory]]
    kept: typing.ClassVar[FreedMemory]
    returned: typing.ClassVar[FreedMemory]
    def __eq__(self, other: typing.Any) -> bool: ...
    def __getstate__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __ne__(self, other: typing.Any) -> bool: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, state: int) -> None: ...
    def __str__(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class TextAdapter:
    def __init__(self, dim: int) -> None: ...
    def forward(
        self, params: collections.abc.Sequence[torch.Tensor], states: torch.Tensor
    ) -> torch.Tensor: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class ImplicitCaptioner:
    def __init__(
        self,
        *,
        dim: int,
        image_dim: int,
        tokens: int,
        time_dim: int | None,
        gated: bool,
        time_steps: int,
    ) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        image: torch.Tensor,
        empty: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        (context, time_bias or None)
        """
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class DiagonalGaussian:
    def kl(self) -> torch.Tensor: ...
    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor: ...
    @property
    def logvar(self) -> torch.Tensor: ...
    @property
    def mean(self) -> torch.Tensor: ...
    @property
    def std(self) -> torch.Tensor: ...

class AutoencoderKL:
    def __init__(
        self,
        *,
        ch: int,
        ch_mult: collections.abc.Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        embed_dim: int,
        in_channels: int,
        out_ch: int,
        norm_groups: int,
        mid_attention: bool,
        encode_only: bool,
    ) -> None: ...
    def block_names(self) -> list[str]: ...
    def decode(
        self, params: collections.abc.Sequence[torch.Tensor], z: torch.Tensor
    ) -> torch.Tensor: ...
    def decode_taps(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        z: torch.Tensor,
        taps: collections.abc.Sequence[str],
    ) -> dict[str, torch.Tensor]: ...
    def encode(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        image: torch.Tensor,
        taps: collections.abc.Sequence[str],
    ) -> tuple[DiagonalGaussian, dict[str, torch.Tensor]]: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class VQModel:
    def __init__(
        self,
        *,
        ch: int,
        ch_mult: collections.abc.Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        embed_dim: int,
        n_embed: int,
        beta: float,
        in_channels: int,
        out_ch: int,
        norm_groups: int,
        mid_attention: bool,
    ) -> None: ...
    def decode(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        h: torch.Tensor,
        force_not_quantize: bool,
    ) -> torch.Tensor: ...
    def encode(
        self, params: collections.abc.Sequence[torch.Tensor], image: torch.Tensor
    ) -> torch.Tensor: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def quantise(
        self, params: collections.abc.Sequence[torch.Tensor], h: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class CLIPImageOutput:
    @property
    def hidden(self) -> torch.Tensor: ...
    @property
    def last(self) -> torch.Tensor: ...
    @property
    def penultimate(self) -> torch.Tensor: ...
    @property
    def pooled(self) -> torch.Tensor: ...
    @property
    def projected(self) -> torch.Tensor | None: ...

class CLIPImageEncoder:
    def __init__(
        self,
        *,
        hidden_size: int,
        intermediate_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        image_size: int,
        patch_size: int,
        num_channels: int,
        projection_dim: int,
        hidden_act: str,
        layer_norm_eps: float,
    ) -> None: ...
    def forward(
        self, params: collections.abc.Sequence[torch.Tensor], pixels: torch.Tensor
    ) -> CLIPImageOutput: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class CLIPTextOutput:
    @property
    def hidden(self) -> torch.Tensor: ...
    @property
    def penultimate(self) -> torch.Tensor: ...
    @property
    def pooled(self) -> torch.Tensor: ...
    @property
    def projected(self) -> torch.Tensor | None: ...

class CLIPTextEncoder:
    def __init__(
        self,
        *,
        vocab_size: int,
        hidden_size: int,
        intermediate_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        max_position_embeddings: int,
        hidden_act: str,
        layer_norm_eps: float,
        eos_token_id: int,
        projection_dim: int,
        vocab_subset: collections.abc.Sequence[int],
    ) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        ids: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> CLIPTextOutput: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class KMeans:
    @property
    def centroids(self) -> torch.Tensor: ...
    @property
    def inertia(self) -> float: ...
    @property
    def iterations(self) -> int: ...
    @property
    def labels(self) -> torch.Tensor: ...

class NoiseSchedule:
    def __getstate__(self) -> tuple[int, float, float]: ...
    def __init__(self, *, num_train_timesteps: int, beta_start: float, beta_end: float) -> None: ...
    def __setstate__(self, arg0: tuple[int, float, float]) -> None: ...
    def add_noise(self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor: ...
    def alpha_bar(self, t: torch.Tensor) -> torch.Tensor: ...
    def alphas_cumprod(self) -> list[float]: ...
    def betas(self) -> list[float]: ...
    def ddim(
        self, x: torch.Tensor, epsilon: torch.Tensor, t: torch.Tensor, to: torch.Tensor
    ) -> torch.Tensor: ...
    def sigma(self, t: float) -> float: ...
    def snr(self, t: torch.Tensor) -> torch.Tensor: ...
    def timestep(self, sigma: float) -> float: ...
    def velocity(self, x0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor: ...

class SamplerStep:
    @property
    def clean(self) -> float: ...
    @property
    def correction(self) -> float: ...
    @property
    def direction(self) -> float: ...
    @property
    def input_scale(self) -> float: ...
    @property
    def noise(self) -> float: ...
    @property
    def signal(self) -> float: ...
    @property
    def spread(self) -> float: ...
    @property
    def timestep(self) -> float: ...

class Sampler:
    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        method: str,
        steps: int,
        spacing: str | None,
        offset: int,
        prediction: str,
        eta: float,
        interpolation: str,
    ) -> None: ...
    def diffuse(self, clean: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor: ...
    def initial_scale(self) -> float: ...
    def step(
        self,
        index: int,
        x: torch.Tensor,
        output: torch.Tensor,
        noise: torch.Tensor | None,
        previous: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...
    def steps(self) -> list[SamplerStep]: ...

class Guidance:
    def __init__(
        self,
        *,
        text: torch.Tensor,
        empty: torch.Tensor | None,
        image: torch.Tensor | None,
        text_guidance: collections.abc.Sequence[float],
        image_guidance: float,
    ) -> None: ...
    def combine(self, predictions: torch.Tensor) -> torch.Tensor: ...
    def context(self) -> torch.Tensor: ...
    def has_text(self) -> bool: ...
    def image_index(self) -> torch.Tensor | None: ...
    def latents(self, x: torch.Tensor) -> torch.Tensor: ...
    def samples(self) -> int: ...

class FPN:
    def __init__(
        self, *, in_channels: collections.abc.Sequence[int], out_channels: int
    ) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        features: collections.abc.Sequence[torch.Tensor],
    ) -> list[torch.Tensor]: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class SemanticFPNHead:
    def __init__(
        self,
        *,
        in_channels: collections.abc.Sequence[int],
        num_classes: int,
        channels: int,
        dropout: float,
    ) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        features: collections.abc.Sequence[torch.Tensor],
        training: bool,
        group: tuple[str, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class UperNetHead:
    def __init__(
        self,
        *,
        in_channels: collections.abc.Sequence[int],
        num_classes: int,
        channels: int,
        pool_scales: collections.abc.Sequence[int],
        dropout: float,
    ) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        features: collections.abc.Sequence[torch.Tensor],
        training: bool,
        group: tuple[str, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def pool(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        coarsest: torch.Tensor,
        training: bool,
        group: tuple[str, int] | None = None,
    ) -> torch.Tensor: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class FCNHead:
    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        channels: int,
        num_convs: int,
        in_index: int,
        dropout: float,
    ) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        features: collections.abc.Sequence[torch.Tensor],
        training: bool,
        group: tuple[str, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class DepthHead:
    def __init__(
        self,
        *,
        dims: collections.abc.Sequence[int],
        embed_dim: int,
        num_filters: collections.abc.Sequence[int],
        max_depth: float,
        norm_groups: int,
    ) -> None: ...
    def decode(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        encoded: torch.Tensor,
        crop: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
        training: bool,
        group: tuple[str, int] | None = None,
    ) -> torch.Tensor: ...
    def encode(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        features: collections.abc.Sequence[torch.Tensor],
    ) -> torch.Tensor: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        features: collections.abc.Sequence[torch.Tensor],
        crop: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
        training: bool,
        group: tuple[str, int] | None = None,
    ) -> torch.Tensor: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class WeightMatch:
    @property
    def absent(self) -> list[str]: ...
    @property
    def layout(self) -> str: ...
    @property
    def mismatched(self) -> list[tuple[str, list[int], list[int]]]: ...
    @property
    def missing(self) -> list[str]: ...
    @property
    def pairs(self) -> list[tuple[str, str]]: ...
    @property
    def unexpected(self) -> list[str]: ...

class ReconstructionLoss:
    @property
    def edges(self) -> torch.Tensor: ...
    @property
    def kl(self) -> torch.Tensor: ...
    @property
    def pixels(self) -> torch.Tensor: ...
    @property
    def total(self) -> torch.Tensor: ...

class Mask2FormerHead:
    def __init__(
        self,
        *,
        in_channels: collections.abc.Sequence[int],
        num_classes: int | None,
        conv_dim: int,
        mask_dim: int,
        hidden_dim: int,
        num_queries: int,
        nheads: int,
        dim_feedforward: int,
        dec_layers: int,
        transformer_nheads: int,
        transformer_dim_feedforward: int,
        transformer_enc_layers: int,
        transformer_levels: int,
        num_feature_levels: int,
        n_points: int,
        norm_groups: int,
        pre_norm: bool,
        enforce_input_project: bool,
    ) -> None: ...
    def decode(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        mask_features: torch.Tensor,
        levels: collections.abc.Sequence[torch.Tensor],
        last_only: bool,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """
        (logits, masks, queries)
        """
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def pixels(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        features: collections.abc.Sequence[torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """
        (mask_features, levels)
        """
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class ReferMetrics:
    @staticmethod
    def thresholds() -> typing.Annotated[list[float], "FixedSize(5)"]: ...
    def __getstate__(
        self,
    ) -> tuple[int, int, int, float, typing.Annotated[list[int], "FixedSize(5)"]]: ...
    def __init__(self) -> None: ...
    def __setstate__(
        self,
        arg0: tuple[
            int, int, int, float, typing.Annotated[collections.abc.Sequence[int], "FixedSize(5)"]
        ],
    ) -> None: ...
    def mean_iou(self) -> float: ...
    def merge(self, other: ReferMetrics) -> None: ...
    def overall_iou(self) -> float: ...
    def precision(self, threshold: int) -> float: ...
    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None: ...
    @property
    def n(self) -> int: ...

class PickScore:
    def __getstate__(self) -> tuple[int, int]: ...
    def __init__(self) -> None: ...
    def __setstate__(self, arg0: tuple[int, int]) -> None: ...
    def merge(self, other: PickScore) -> None: ...
    def pick(self) -> float: ...
    def update(
        self, logits: torch.Tensor, instances: torch.Tensor, target: int, min_pixels: int
    ) -> None: ...
    @property
    def n(self) -> int: ...

class SemanticScores:
    @property
    def ious(self) -> list[float]: ...
    @property
    def mean_accuracy(self) -> float: ...
    @property
    def mean_dice(self) -> float: ...
    @property
    def mean_iou(self) -> float: ...
    @property
    def pixel_accuracy(self) -> float: ...
    @property
    def weighted_iou(self) -> float: ...

class SemanticMetrics:
    def __getstate__(self) -> tuple[int, int, int, torch.Tensor]: ...
    def __init__(self, classes: int, ignore_index: int) -> None: ...
    def __setstate__(self, arg0: tuple[int, int, int, torch.Tensor]) -> None: ...
    def compute(self, labelled_only: bool) -> SemanticScores: ...
    def merge(self, other: SemanticMetrics) -> None: ...
    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None: ...
    @property
    def confusion(self) -> torch.Tensor: ...
    @property
    def n(self) -> int: ...

class TagScores:
    @property
    def average_precisions(self) -> list[float]: ...
    @property
    def class_f1(self) -> float: ...
    @property
    def class_precision(self) -> float: ...
    @property
    def class_recall(self) -> float: ...
    @property
    def mean_ap(self) -> float: ...
    @property
    def overall_f1(self) -> float: ...
    @property
    def overall_precision(self) -> float: ...
    @property
    def overall_recall(self) -> float: ...

class PrecisionRecall:
    @property
    def precision(self) -> torch.Tensor: ...
    @property
    def recall(self) -> torch.Tensor: ...
    @property
    def thresholds(self) -> torch.Tensor: ...

class TagMetrics:
    def __getstate__(self) -> tuple[int, torch.Tensor, torch.Tensor]: ...
    def __init__(self, classes: int) -> None: ...
    def __setstate__(self, arg0: tuple[int, torch.Tensor, torch.Tensor]) -> None: ...
    def all_scores(self) -> torch.Tensor: ...
    def all_targets(self) -> torch.Tensor: ...
    def compute(self, threshold: float) -> TagScores: ...
    def curve(self, index: int) -> PrecisionRecall: ...
    def merge(self, other: TagMetrics) -> None: ...
    def recall_at(self, k: int) -> float: ...
    def update(self, scores: torch.Tensor, target: torch.Tensor) -> None: ...
    @property
    def n(self) -> int: ...

class DepthMetrics:
    @staticmethod
    def names() -> typing.Annotated[list[str], "FixedSize(9)"]: ...
    def __getstate__(
        self,
    ) -> tuple[float, float, str, int, int, typing.Annotated[list[float], "FixedSize(9)"]]: ...
    def __init__(self, min_depth: float, max_depth: float, crop: str) -> None: ...
    def __setstate__(
        self,
        arg0: tuple[
            float,
            float,
            str,
            int,
            int,
            typing.Annotated[collections.abc.Sequence[float], "FixedSize(9)"],
        ],
    ) -> None: ...
    def mean(self, which: int) -> float: ...
    def merge(self, other: DepthMetrics) -> None: ...
    def update(self, prediction: torch.Tensor, target: torch.Tensor) -> None: ...
    @property
    def n(self) -> int: ...
    @property
    def skipped(self) -> int: ...

class OdiseBackbone:
    def __init__(
        self,
        *,
        in_channels: collections.abc.Sequence[int],
        in_strides: collections.abc.Sequence[int],
        projection_dim: int,
        num_res_blocks: int,
        min_stride: int,
        max_stride: int,
        norm_groups: int,
    ) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        features: collections.abc.Sequence[torch.Tensor],
        height: int,
        width: int,
        recompute: bool,
    ) -> list[torch.Tensor]: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def strides(self) -> list[int]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class OdiseHead(Mask2FormerHead):
    def __init__(self, like: Mask2FormerHead, projection_dim: int) -> None: ...
    def decode_with_embeddings(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        mask_features: torch.Tensor,
        levels: collections.abc.Sequence[torch.Tensor],
        last_only: bool,
    ) -> tuple[
        list[torch.Tensor], list[torch.Tensor], list[torch.Tensor], list[torch.Tensor], torch.Tensor
    ]:
        """
        (logits, masks, queries, embeddings, scale)
        """

class OdiseTextHead:
    def __init__(self, *, text_dim: int, projection_dim: int | None, null: bool) -> None: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def logits(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        embeddings: collections.abc.Sequence[torch.Tensor],
        texts: torch.Tensor,
        categories: collections.abc.Sequence[int],
        scale: torch.Tensor,
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def project(
        self, params: collections.abc.Sequence[torch.Tensor], texts: torch.Tensor
    ) -> torch.Tensor: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class PanopticQuality:
    @property
    def classes(self) -> int: ...
    @property
    def pq(self) -> float: ...
    @property
    def rq(self) -> float: ...
    @property
    def sq(self) -> float: ...

class PanopticScores:
    @property
    def all(self) -> PanopticQuality: ...
    @property
    def by_class(self) -> list[PanopticQuality]: ...
    @property
    def stuff(self) -> PanopticQuality: ...
    @property
    def things(self) -> PanopticQuality: ...

class PanopticMetrics:
    def __getstate__(
        self,
    ) -> tuple[list[bool], int, list[int], list[int], list[int], list[float]]: ...
    def __init__(self, things: collections.abc.Sequence[bool]) -> None: ...
    def __setstate__(
        self,
        arg0: tuple[
            collections.abc.Sequence[bool],
            int,
            collections.abc.Sequence[int],
            collections.abc.Sequence[int],
            collections.abc.Sequence[int],
            collections.abc.Sequence[float],
        ],
    ) -> None: ...
    def compute(self) -> PanopticScores: ...
    def merge(self, other: PanopticMetrics) -> None: ...
    def update(
        self,
        prediction: tuple[
            torch.Tensor,
            collections.abc.Sequence[int],
            collections.abc.Sequence[int],
            collections.abc.Sequence[bool],
        ],
        target: tuple[
            torch.Tensor,
            collections.abc.Sequence[int],
            collections.abc.Sequence[int],
            collections.abc.Sequence[bool],
        ],
    ) -> None: ...
    @property
    def false_alarms(self) -> list[int]: ...
    @property
    def iou(self) -> list[float]: ...
    @property
    def matches(self) -> list[int]: ...
    @property
    def misses(self) -> list[int]: ...
    @property
    def n(self) -> int: ...

class ReferDecoder:
    def __init__(self, *, dims: collections.abc.Sequence[int], hidden: int) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        features: collections.abc.Sequence[torch.Tensor],
        training: bool,
        group: tuple[str, int] | None = None,
    ) -> torch.Tensor: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class TaggingAdapter:
    def __init__(
        self,
        *,
        dim: int,
        text_dim: int | None,
        image_dim: int | None,
        queries: int,
        blocks: int,
        heads: int,
        hidden: int,
        single_cross: bool,
        head_norm: str,
    ) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        text: torch.Tensor | None,
        text_mask: torch.Tensor | None,
        image: torch.Tensor | None,
        classes: torch.Tensor | None,
        attention: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """
        (context, logits or None, attention over text and over image or None)
        """
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class Tokenizer:
    def __call__(
        self, texts: collections.abc.Sequence[str], length: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        (ids [B, length], truncated [B])
        """
    def __init__(self, merges: str) -> None: ...
    def encode(self, text: str) -> list[int]:
        """
        ids of a text alone, without start and end
        """

class MapFusion:
    """
    Members:

      mean

      daam
    """

    __members__: typing.ClassVar[dict[str, MapFusion]]
    daam: typing.ClassVar[MapFusion]
    mean: typing.ClassVar[MapFusion]
    def __eq__(self, other: typing.Any) -> bool: ...
    def __getstate__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __ne__(self, other: typing.Any) -> bool: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, state: int) -> None: ...
    def __str__(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class UNetTaps:
    def __init__(
        self,
        *,
        noise: bool,
        features: bool,
        attention: collections.abc.Sequence[int],
        selector: str,
        map_grad: bool,
        fusion: MapFusion,
        per_head: bool,
        layers: collections.abc.Sequence[str],
        tokens: collections.abc.Sequence[int],
        rows: int | None,
        block_inputs: collections.abc.Sequence[str],
        block_outputs: collections.abc.Sequence[str],
    ) -> None: ...

class AttentionControl:
    def __init__(
        self,
        *,
        self_source: torch.Tensor | None,
        self_positions: int | None,
        kept: torch.Tensor | None,
        rows: torch.Tensor | None,
        sources: torch.Tensor | None,
        transfer: torch.Tensor | None,
    ) -> None: ...

class UNetOutput:
    @property
    def attention(self) -> dict[int, torch.Tensor]: ...
    @property
    def blocks(self) -> dict[str, torch.Tensor]: ...
    @property
    def features(self) -> list[torch.Tensor]: ...
    @property
    def noise(self) -> torch.Tensor | None: ...
    @property
    def stem_rows(self) -> int: ...

class Recompute:
    """
    Members:

      none

      feed_forward

      attention

      all
    """

    __members__: typing.ClassVar[dict[str, Recompute]]
    all: typing.ClassVar[Recompute]
    attention: typing.ClassVar[Recompute]
    feed_forward: typing.ClassVar[Recompute]
    none: typing.ClassVar[Recompute]
    def __eq__(self, other: typing.Any) -> bool: ...
    def __getstate__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __index__(self) -> int: ...
    def __init__(self, value: int) -> None: ...
    def __int__(self) -> int: ...
    def __ne__(self, other: typing.Any) -> bool: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, state: int) -> None: ...
    def __str__(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...

class UNet:
    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        channel_mult: collections.abc.Sequence[int],
        num_res_blocks: int,
        attention_resolutions: collections.abc.Sequence[int],
        num_heads: int,
        transformer_depth: int,
        context_dim: int,
        norm_groups: int,
    ) -> None: ...
    def attention_layers(self) -> list[tuple[str, str, int]]: ...
    def feature_channels(self) -> list[int]: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        image_index: torch.Tensor | None,
        context_mask: torch.Tensor | None,
        time_bias: torch.Tensor | None,
        control: AttentionControl,
        taps: UNetTaps,
        recompute: Recompute,
    ) -> UNetOutput: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

class ViT:
    def __init__(
        self,
        *,
        hidden_size: int,
        intermediate_size: int,
        num_hidden_layers: int,
        num_attention_heads: int,
        image_size: int,
        patch_size: int,
        num_register_tokens: int,
        layer_scale: bool,
        layer_norm_eps: float,
    ) -> None: ...
    def forward(
        self,
        params: collections.abc.Sequence[torch.Tensor],
        pixels: torch.Tensor,
        blocks: collections.abc.Sequence[int],
    ) -> list[torch.Tensor]: ...
    def initialise(
        self, device: torch.device, dtype: torch.dtype, generator: torch.Generator | None = None
    ) -> list[torch.Tensor]: ...
    def packed(
        self, tensors: collections.abc.Sequence[torch.Tensor], gradients: bool
    ) -> list[torch.Tensor]: ...
    def table(self) -> list[tuple[str, list[int], bool]]: ...

def category_logits(
    embeddings: torch.Tensor,
    names: torch.Tensor,
    categories: collections.abc.Sequence[int],
    scale: torch.Tensor,
) -> torch.Tensor: ...
def check_pickle(data: bytes) -> None:
    """
    Raises ValueError unless what a pickle's opcodes ask for lies inside of it.
    """

def clean_text(text: str) -> str: ...
def contrastive_loss(
    image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor: ...
def cpu_level() -> str: ...
def daam(layers: collections.abc.Sequence[torch.Tensor], size: tuple[int, ...]) -> torch.Tensor:
    """
    [B, heads, N, h, w] of each layer -> [B, N, *size]
    """

def daam_expanded(maps: torch.Tensor, size: tuple[int, ...], absolute: bool) -> torch.Tensor: ...
def daam_normalized(maps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor: ...
def detect_layout(
    file: collections.abc.Sequence[tuple[str, collections.abc.Sequence[int]]],
) -> str: ...
def dice_loss(logits: torch.Tensor, target: torch.Tensor, reduction: str) -> torch.Tensor: ...
def epsilon_loss(
    prediction: torch.Tensor,
    noise: torch.Tensor,
    alpha_bar: torch.Tensor,
    cap: float,
    reduction: str,
) -> torch.Tensor: ...
def geometric_mean(
    logits: torch.Tensor,
    other: torch.Tensor,
    seen: collections.abc.Sequence[bool],
    alpha: float,
    beta: float,
) -> torch.Tensor: ...
def id_rows(map: torch.Tensor, ids: collections.abc.Sequence[int]) -> torch.Tensor: ...
def instance_inference(
    logits: torch.Tensor,
    masks: torch.Tensor,
    padded: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    used: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    size: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    things: collections.abc.Sequence[bool],
    top: int,
) -> tuple[list[tuple[int, int, float]], list[list[int]]]: ...
def join_windows(windows: torch.Tensor, height: int, width: int) -> torch.Tensor: ...
def kmeans(
    points: torch.Tensor, clusters: int, seed: int, restarts: int, iterations: int
) -> KMeans: ...
def kmeans_from(points: torch.Tensor, centroids: torch.Tensor, iterations: int) -> KMeans: ...
def kmeans_seeds(points: torch.Tensor, clusters: int, seed: int, restart: int) -> torch.Tensor: ...
def loop_threads() -> int: ...
def mask2former_cost(
    logits: torch.Tensor,
    masks: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor,
    points: torch.Tensor,
    weights: typing.Annotated[collections.abc.Sequence[float], "FixedSize(3)"],
) -> torch.Tensor: ...
def mask2former_from_transformers(
    file: collections.abc.Sequence[tuple[str, torch.Tensor]], path: str
) -> list[tuple[str, torch.Tensor]]:
    """
    heads of Mask2Former by transformers' names, by the original's; the rest as it is
    """

def mask2former_loss(
    logits: collections.abc.Sequence[torch.Tensor],
    masks: collections.abc.Sequence[torch.Tensor],
    labels: collections.abc.Sequence[torch.Tensor],
    targets: collections.abc.Sequence[torch.Tensor],
    weights: typing.Annotated[collections.abc.Sequence[float], "FixedSize(3)"],
    no_object: float,
    points: int,
    oversample: float,
    uncertain: float,
    num_masks: float | None,
    generator: torch.Generator | None,
    draws: collections.abc.Sequence[
        typing.Annotated[collections.abc.Sequence[torch.Tensor], "FixedSize(3)"]
    ],
) -> tuple[
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    list[list[tuple[torch.Tensor, torch.Tensor]]],
]:
    """
    (total, cross-entropy, mask, dice, matches)
    """

def mask_grounding_loss(
    embeddings: collections.abc.Sequence[torch.Tensor],
    words: torch.Tensor,
    valid: torch.Tensor,
    scale: torch.Tensor,
    form: str,
    group: tuple[str, int] | None,
) -> torch.Tensor: ...
def mask_losses(
    scores: torch.Tensor, target: torch.Tensor, weight: collections.abc.Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    (cross-entropy, Dice), sums
    """

def mask_pooled(
    encoder: CLIPImageEncoder,
    params: collections.abc.Sequence[torch.Tensor],
    pixels: torch.Tensor,
    masks: torch.Tensor,
) -> torch.Tensor: ...
def mask_pooling(x: torch.Tensor, masks: torch.Tensor, soft: bool) -> torch.Tensor: ...
def mask_tokens(
    encoder: CLIPImageEncoder,
    params: collections.abc.Sequence[torch.Tensor],
    pixels: torch.Tensor,
    masks: torch.Tensor,
    add_one: bool,
) -> torch.Tensor: ...
def match(cost: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    (rows, columns)
    """

def match_weights(
    file: collections.abc.Sequence[tuple[str, collections.abc.Sequence[int]]],
    module: collections.abc.Sequence[tuple[str, collections.abc.Sequence[int]]],
    path: str,
) -> WeightMatch: ...
def openai_clip_to_transformers(
    file: collections.abc.Sequence[tuple[str, torch.Tensor]], path: str
) -> list[tuple[str, torch.Tensor]]:
    """
    CLIP towers by OpenAI's names, by transformers'; the rest as it is
    """

def panoptic_inference(
    logits: torch.Tensor,
    masks: torch.Tensor,
    padded: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    used: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    size: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    things: collections.abc.Sequence[bool],
    min_score: float,
    min_overlap: float,
) -> tuple[torch.Tensor, list[tuple[int, int, float]]]: ...
def pixel_classes(
    scores: collections.abc.Sequence[torch.Tensor],
    flipped: collections.abc.Sequence[bool],
    size: tuple[int, int],
    probability: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]: ...
def plan_conversion(
    file: collections.abc.Sequence[tuple[str, collections.abc.Sequence[int]]], to: str, path: str
) -> list[tuple[str, str, list[int]]]: ...
def principal_components(points: torch.Tensor, dims: int) -> torch.Tensor: ...
def read_weights(
    path: str,
) -> tuple[str, list[tuple[str, torch.Tensor]], list[tuple[str, str]], str, list[str]]:
    """
    (format, tensors, metadata, entry, skipped classes) of a safetensors or PyTorch file
    """

def reconstruction_loss(
    reconstruction: torch.Tensor,
    image: torch.Tensor,
    mean: torch.Tensor,
    logvar: torch.Tensor,
    kl_weight: float,
) -> ReconstructionLoss: ...
def sample(
    sampler: Sampler,
    start: torch.Tensor,
    denoise: collections.abc.Callable[[torch.Tensor, float], torch.Tensor],
    noise: collections.abc.Callable[[int, torch.Tensor], torch.Tensor] | None,
    watch: collections.abc.Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor | None] | None,
    first: int,
) -> torch.Tensor: ...
def segmentation_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    ignore_index: int,
    average: str,
    weight: collections.abc.Sequence[float] | None,
    reduction: str,
) -> torch.Tensor: ...
def segmentation_sums(
    logits: torch.Tensor,
    target: torch.Tensor,
    ignore_index: int,
    weight: collections.abc.Sequence[float] | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    (cross-entropy, correct pixels, valid pixels), sums
    """

def semantic_inference(
    logits: torch.Tensor,
    masks: torch.Tensor,
    padded: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    used: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    size: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
) -> torch.Tensor: ...
def semantic_scores(
    logits: torch.Tensor,
    masks: torch.Tensor,
    padded: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    used: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    size: typing.Annotated[collections.abc.Sequence[int], "FixedSize(2)"],
    first: int,
    last: int,
) -> torch.Tensor: ...
def set_freed_memory(policy: FreedMemory) -> None: ...
def silog_loss(
    prediction: torch.Tensor, target: torch.Tensor, variance_focus: float, min_depth: float
) -> torch.Tensor: ...
def silog_of(
    n: torch.Tensor, sum: torch.Tensor, squares: torch.Tensor, variance_focus: float
) -> torch.Tensor: ...
def silog_sums(
    prediction: torch.Tensor, target: torch.Tensor, min_depth: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    (n, sum d, sum d^2)
    """

def timestep_embedding(timesteps: torch.Tensor, dim: int) -> torch.Tensor:
    """
    [B] -> [B, dim], float32
    """

def weighted_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: collections.abc.Sequence[float],
    reduction: str,
) -> torch.Tensor: ...
def with_moving_average(
    file: collections.abc.Sequence[tuple[str, torch.Tensor]], wanted: bool | None, path: str
) -> list[tuple[str, torch.Tensor]]:
    """
    the averages of a U-Net's weights in their place
    """

def with_no_object(logits: torch.Tensor, nothing: torch.Tensor) -> torch.Tensor: ...
def write_safetensors(
    path: str,
    tensors: collections.abc.Sequence[tuple[str, torch.Tensor]],
    metadata: collections.abc.Sequence[tuple[str, str]],
) -> None: ...
