"""What a user can set about image classification: one dataclass per config group.

The YAML files under conf/ choose among these classes and override single values; they repeat no default.
Standard library only (and the table of activation names), so that checks run before anything heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from cnn_ablation.config import (
    CONDUCT,
    FILES,
    LARGEST_SEED,
    TEST_SET,
    WHAT_IS_TRAINED,
    Section,
    StudyConfig,
    TaskConfig,
    free_keys,
    group_name,
    setting,
)
from cnn_ablation.study.papers import paper_names
from cnn_ablation.tasks.image_classification.activations import ACTIVATIONS

LOSS_NAMES = ["cross_entropy", "mean_squared_error", "kullback_leibler"]
"""What `train.loss` may be; extensions add to it."""
SCHEDULE_NAMES = ["constant", "step", "cosine", "one_cycle"]
"""What `train.schedule` may be, likewise."""
SOURCES_OF_CHANCE = ("init", "order", "dropout", "split")
"""What `vary` may name."""
CONV_NETWORKS = ("three_conv", "sorensen", "svalheim_cnn", "jappinen_cnn", "lenet5", "alexnet")
MLP_NETWORKS = ("svalheim_mlp", "jappinen_mlp")

# Beyond these a number is a slip of the pen: it would be trained, drawn or planned for years.
_MOST_EPOCHS, _MOST_UPDATES = 10**6, 10**9
_MOST_PIXELS, _MOST_IMAGES, _MOST_UNITS = 4096, 10**7, 10**6


@dataclass
class DataConfig(Section):
    """What every data source shares. `image_size` None keeps the source's own size.

    `val_images` sets the validation images by their number instead of their share. A knob must leave the test pictures
    what they are: training and validation part, size, grey levels and scale of the same pictures may vary, where the
    source does not draw other ones for it.
    """

    is_option = False
    has_test_set = True
    """Whether the source says which images are for testing; else a split makes them, and `vary=[split]` others."""

    name: str = field(metadata={"role": TEST_SET})
    val_fraction: float = setting(0.2, above=0, below=1)
    val_images: int | None = setting(None, at_least=1)
    image_size: int | None = setting(None, at_least=1, at_most=_MOST_PIXELS)
    scale: str = setting("half", choices=("half", "unit", "standard"))
    split_seed: int = setting(0, at_least=0, at_most=LARGEST_SEED)


@dataclass
class DigitsConfig(DataConfig):
    """scikit-learn's bundled 8x8 digits, upscaled; they come without a test set, so `test_fraction` makes one."""

    has_test_set = False

    name: str = group_name("digits", role=TEST_SET)
    image_size: int | None = setting(32, at_least=8, at_most=_MOST_PIXELS)
    split_seed: int = setting(0, at_least=0, at_most=LARGEST_SEED, role=TEST_SET)  # draws the test part too
    test_fraction: float = setting(0.3, above=0, below=1, role=TEST_SET)


@dataclass
class ShapesConfig(DataConfig):
    """Generated images. `difficulty` 0 is clean and centred, 1 is hard; CIFAR-10's size is 50000 + 10000.

    Test pictures are drawn for their size and difficulty; how many there are for training does not move them.
    """

    name: str = group_name("shapes", role=TEST_SET)
    image_size: int | None = setting(32, at_least=8, at_most=_MOST_PIXELS, role=TEST_SET)
    train_images: int = setting(5000, at_least=20, at_most=_MOST_IMAGES)
    test_images: int = setting(2000, at_least=10, at_most=_MOST_IMAGES, role=TEST_SET)
    difficulty: float = setting(0.5, at_least=0, at_most=1, role=TEST_SET)
    generator_seed: int = setting(0, at_least=0, at_most=LARGEST_SEED, role=TEST_SET)


@dataclass
class TorchvisionConfig(DataConfig):
    """A data set that torchvision reads from `root`, downloaded there on first use."""

    name: str = setting("cifar10", choices=("cifar10", "mnist", "fashion_mnist", "svhn"), role=TEST_SET)
    root: str = setting("data", role=CONDUCT, is_folder=True)  # wherever its files lie, they are the same


@dataclass
class ImageFolderConfig(DataConfig):
    """`root` holding train/<class>/* and test/<class>/*; decoded once into `cache`."""

    name: str = group_name("image_folder", role=TEST_SET)
    root: str = setting("images", role=FILES, is_folder=True)
    cache: str = setting("~/.cache/cnn_ablation", role=CONDUCT, is_folder=True)
    channels: int = setting(3, choices=(1, 3))


@dataclass
class ArraysConfig(DataConfig):
    """Images of your own: `target` names a function that, called with `kwargs`, gives `train` and `test`.

    Each is a pair of arrays, images and labels, or a map-style dataset.
    """

    name: str = group_name("arrays", role=TEST_SET)
    target: str = setting("", role=FILES)
    kwargs: dict[str, Any] = free_keys(role=FILES)


@dataclass
class AnyNetworkConfig(Section):
    """What networks of every make share.

    `output` says what a network gives: logits, or probabilities, of which cross-entropy takes a softmax once more.
    """

    is_option = False
    name: str
    output: str = setting("logits", choices=("logits", "softmax"))


@dataclass
class NetworkConfig(AnyNetworkConfig):
    """What every network that is a list of layers shares: its fully connected part, activations and initial weights.

    `leaky_slope` is what `activation=leaky` multiplies negative inputs with; eq2425 (section 5.3) divides by 100.
    `init`: `pytorch` (its own uniform weights and biases), `he_normal` (svalheim, equations 37 to 39) or `glorot`
    (uniform, as in Keras); the last two start with biases of 0.
    """

    is_option = False

    hidden: list[int] = setting([512], at_least=1, at_most=_MOST_UNITS)
    activation: str = setting("relu", choices=lambda: tuple(ACTIVATIONS))
    leaky_slope: float = setting(0.01, at_least=0)
    dropout: float = setting(0.0, at_least=0, below=1)
    batch_norm: bool = setting(False)
    batch_norm_place: str = setting("before", choices=("before", "after"))
    init: str = setting("pytorch", choices=("pytorch", "he_normal", "glorot"))
    output_bias: bool = setting(True)


@dataclass
class ModelConfig(NetworkConfig):
    """A convolutional network; the defaults are eq2425's (section 4 of the paper).

    Convolutions, `pool_after` (which of them are followed by pooling) and the fully connected layers of `hidden`.
    `dropout` acts after every hidden layer, `conv_dropout` after every pooling. `last_activation` false leaves the last
    convolution without one, as the paper lists it.
    `residual` n adds a skip connection around every n convolutions (He et al. 2016; 2 is their building block), or
    around fewer where pooling follows, and activates after the sum. The first convolution stays outside, and so do
    those that change the size of their maps by more than a stride (`padding=valid`). Where a block changes the number
    of filters, or has a stride, a 1x1 convolution is its shortcut. `global_pool` gives the mean of each last map to the
    fully connected layers instead of all its pixels (Lin et al. 2014).
    """

    name: str = setting("three_conv", choices=CONV_NETWORKS)
    filters: list[int] = setting([24, 48, 96], at_least=1, at_most=_MOST_UNITS, min_length=1)
    kernel_sizes: Any = setting([5, 3, 3], at_least=1, min_length=1, per_layer=int)
    strides: Any = setting(1, at_least=1, per_layer=int)
    padding: Any = setting("valid", choices=("valid", "same"), per_layer=str)
    groups: Any = setting(1, at_least=1, per_layer=int)
    last_activation: bool = setting(False)
    pool: str = setting("max", choices=("max", "average"))
    pool_size: int = setting(2, at_least=1)
    pool_stride: int = setting(2, at_least=1)
    pool_after: Any = setting(True, per_layer=bool)
    conv_dropout: float = setting(0.0, at_least=0, below=1)
    residual: int = setting(0, at_least=0)
    global_pool: bool = setting(False)


@dataclass
class MLPConfig(NetworkConfig):
    """A fully connected network on the pixels of an image."""

    name: str = setting("svalheim_mlp", choices=MLP_NETWORKS)


@dataclass
class ModuleConfig(AnyNetworkConfig):
    """A network of your own: `target` names a class of `torch.nn.Module`, or a function that returns one.

    It is called with `kwargs`, and with those of `num_classes` and `input_shape` (channels, height, width) that it
    takes.
    """

    name: str = group_name("module")
    target: str = setting("")
    kwargs: dict[str, Any] = free_keys()


@dataclass
class OptimizerConfig(Section):
    """What every optimiser shares.

    `weight_decay` w adds w / 2 times the sum of squares to the loss (an L2 penalty). Biases and the last layer's
    weights may have penalties of their own (sorensen, equation 2.10); null is that of all others. `adamw` shrinks the
    weights by `lr` times w instead.
    """

    is_option = False

    name: str
    lr: float = setting(1e-3, above=0)
    weight_decay: float = setting(0.0, at_least=0)
    weight_decay_biases: float | None = setting(None, at_least=0)
    weight_decay_output: float | None = setting(None, at_least=0)


@dataclass
class SGDConfig(OptimizerConfig):
    """`nesterov` looks ahead along the momentum (Sutskever et al. 2013, in PyTorch's form)."""

    name: str = group_name("sgd")
    momentum: float = setting(0.0, at_least=0, below=1)
    nesterov: bool = setting(False)


@dataclass
class AdamConfig(OptimizerConfig):
    name: str = group_name("adam")
    beta1: float = setting(0.9, at_least=0, below=1)
    beta2: float = setting(0.999, at_least=0, below=1)
    eps: float = setting(1e-8, above=0)


@dataclass
class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2); the decay is PyTorch's default."""

    name: str = group_name("adamw")
    weight_decay: float = setting(0.01, at_least=0)


@dataclass
class AdaGradConfig(OptimizerConfig):
    name: str = group_name("adagrad")
    eps: float = setting(1e-10, above=0)


@dataclass
class RMSPropConfig(OptimizerConfig):
    name: str = group_name("rmsprop")
    alpha: float = setting(0.99, at_least=0, below=1)
    momentum: float = setting(0.0, at_least=0, below=1)
    eps: float = setting(1e-8, above=0)


@dataclass
class TrainConfig(Section):
    """`shuffle` false repeats one fixed, class-mixed order in every epoch.

    `updates` ends training after that many optimiser steps, whatever `epochs` says; `scale` shortens either, for a
    small version of a long study. `stop_on` ends it once that quantity has not improved for `patience` epochs, with the
    weights of the last epoch.

    Training images are changed at random in every epoch. `max_translation` shifts by up to so many pixels each way,
    with black around: the random crop of an image padded with so many zeros (4 for CIFAR-10: He et al. 2016).
    `horizontal_flip` mirrors half of them (both: gonzalez, on AlexNet). `color_jitter` s draws brightness, contrast and
    saturation, each from 1 - s to 1 + s. `cutout` is the side in pixels of a square of zeros in the network's input
    (DeVries and Taylor 2017). `mixup` is the alpha of the Beta distribution of mixtures of two images and their losses
    (Zhang et al. 2018). 0 is none.

    `schedule` multiplies `optimizer.lr`: `step` by `step_factor` every `step_epochs`, `cosine` down to
    `final_lr_factor`, `one_cycle` up and down; `warmup_epochs` rise linearly before. `scale` shortens these too.
    `clip_norm` is the largest L2 norm of all gradients together, `label_smoothing` the share of the targets that is
    spread over all classes, `ema_decay` that of the moving average of the weights that are scored and kept.
    """

    epochs: int = setting(6, at_least=1, at_most=_MOST_EPOCHS)
    updates: int | None = setting(None, at_least=1, at_most=_MOST_UPDATES)
    scale: float = setting(1.0, above=0, at_most=1)
    batch_size: int = setting(64, at_least=1)
    shuffle: bool = setting(True)
    loss: str = setting("cross_entropy", choices=lambda: tuple(LOSS_NAMES))
    stop_on: str | None = setting(None, choices=("train_loss", "val_loss", "val_accuracy"))
    patience: int = setting(3, at_least=1)
    max_translation: int = setting(0, at_least=0)
    horizontal_flip: bool = setting(False)
    color_jitter: float = setting(0.0, at_least=0)
    cutout: int = setting(0, at_least=0)
    mixup: float = setting(0.0, at_least=0)
    schedule: str = setting("constant", choices=lambda: tuple(SCHEDULE_NAMES))
    warmup_epochs: float = setting(0.0, at_least=0)
    step_epochs: float = setting(2.0, above=0)
    step_factor: float = setting(0.1, above=0, at_most=1)
    final_lr_factor: float = setting(0.0, at_least=0, at_most=1)
    clip_norm: float | None = setting(None, above=0)
    label_smoothing: float = setting(0.0, at_least=0, below=1)
    ema_decay: float | None = setting(None, above=0, below=1)


@dataclass
class ImageClassification(TaskConfig):
    """Networks that tell pictures apart."""

    name: str = group_name("image_classification", role=WHAT_IS_TRAINED)


@dataclass
class Config(StudyConfig):
    """One configuration of image classification: everything that `python -m cnn_ablation` can be told of it.

    `vary` says what follows a run's seed: `init` the initial weights, `order` the order of images, their augmentation
    and mixtures, `dropout` what the network draws while it is trained, `split` the split of the data. What is not named
    is drawn as seed 0 draws it, the split as `data.split_seed` does.
    """

    groups: ClassVar[dict[str, dict[str, type]]] = {
        "data": {
            "digits": DigitsConfig,
            "shapes": ShapesConfig,
            "torchvision": TorchvisionConfig,
            "image_folder": ImageFolderConfig,
            "arrays": ArraysConfig,
        },
        "model": {"convolutional": ModelConfig, "mlp": MLPConfig, "module": ModuleConfig},
        "optimizer": {
            "sgd": SGDConfig,
            "adam": AdamConfig,
            "adamw": AdamWConfig,
            "adagrad": AdaGradConfig,
            "rmsprop": RMSPropConfig,
        },
    }

    task: TaskConfig = field(default_factory=ImageClassification, kw_only=True)
    data: DataConfig
    model: AnyNetworkConfig
    optimizer: OptimizerConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    vary: list[str] = setting(["init", "order", "dropout"], choices=SOURCES_OF_CHANCE)
    precision: str = setting("auto", choices=("auto", "float32", "tf32", "bfloat16"))
    engine: str = setting("fast", choices=("fast", "reference"))
    checkpoint_seconds: float = setting(60.0, above=0, role=CONDUCT)
    keep_weights: bool = setting(True, role=CONDUCT)
    paper: str | None = setting(None, choices=paper_names, role=CONDUCT)


GROUPS = Config.groups
