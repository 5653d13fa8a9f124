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
    """What every data source shares.

    A knob must leave the test pictures what they are: training and validation part, size, grey levels and scale of the
    same pictures may vary, where the source does not draw other ones for it.
    """

    is_option = False
    has_test_set = True
    """Whether the source says which images are for testing; else a split makes them, and `vary=[split]` others."""

    name: str = field(metadata={"role": TEST_SET, "doc": "set by the option of its group"})
    val_fraction: float = setting(0.2, doc="share of the training images that is kept for validation", above=0, below=1)
    val_images: int | None = setting(None, doc="their number, in place of val_fraction", at_least=1)
    image_size: int | None = setting(
        None, doc="side in pixels; null keeps the source's own size", at_least=1, at_most=_MOST_PIXELS
    )
    scale: str = setting(
        "half",
        doc="range of pixels: half is -0.5..0.5, unit 0..1, standard mean 0 and deviation 1 of each channel",
        choices=("half", "unit", "standard"),
    )
    split_seed: int = setting(
        0,
        doc="draws the split into training and validation part, of the digits the test part too",
        at_least=0,
        at_most=LARGEST_SEED,
    )


@dataclass
class DigitsConfig(DataConfig):
    """scikit-learn's bundled 8x8 digits, upscaled; they come without a test set, so `test_fraction` makes one."""

    has_test_set = False

    name: str = group_name("digits", role=TEST_SET)
    image_size: int | None = setting(
        32, doc="side in pixels, to which the digits are scaled", at_least=8, at_most=_MOST_PIXELS
    )
    split_seed: int = setting(
        0,
        doc="draws the split into training and validation part, of the digits the test part too",
        at_least=0,
        at_most=LARGEST_SEED,
        role=TEST_SET,
    )
    test_fraction: float = setting(
        0.3, doc="share of all digits that is kept for testing", above=0, below=1, role=TEST_SET
    )


@dataclass
class ShapesConfig(DataConfig):
    """Generated images; CIFAR-10's size is 50000 + 10000.

    Test pictures are drawn for their size and difficulty; how many there are for training does not move them.
    """

    name: str = group_name("shapes", role=TEST_SET)
    image_size: int | None = setting(
        32, doc="side in pixels, in which they are drawn", at_least=8, at_most=_MOST_PIXELS, role=TEST_SET
    )
    train_images: int = setting(
        5000, doc="number of images for training and validation", at_least=20, at_most=_MOST_IMAGES
    )
    test_images: int = setting(
        2000, doc="number of images for testing", at_least=10, at_most=_MOST_IMAGES, role=TEST_SET
    )
    difficulty: float = setting(0.5, doc="0 is clean and centred, 1 is hard", at_least=0, at_most=1, role=TEST_SET)
    generator_seed: int = setting(0, doc="draws the pictures", at_least=0, at_most=LARGEST_SEED, role=TEST_SET)


@dataclass
class TorchvisionConfig(DataConfig):
    """A data set that torchvision reads from `root`, downloaded there on first use."""

    name: str = setting(
        "cifar10",
        doc="set by the option of its group",
        choices=("cifar10", "mnist", "fashion_mnist", "svhn"),
        role=TEST_SET,
    )
    root: str = setting(
        "data", doc="folder of the data set's files, downloaded there on first use", role=CONDUCT, is_folder=True
    )  # wherever its files lie, they are the same


@dataclass
class ImageFolderConfig(DataConfig):
    """`root` holding train/<class>/* and test/<class>/*; decoded once into `cache`."""

    name: str = group_name("image_folder", role=TEST_SET)
    root: str = setting("images", doc="folder that holds train/CLASS/* and test/CLASS/*", role=FILES, is_folder=True)
    cache: str = setting("~/.cache/cnn_ablation", doc="where decoded pictures are kept", role=CONDUCT, is_folder=True)
    channels: int = setting(3, doc="3 is colour, 1 grey", choices=(1, 3))


@dataclass
class ArraysConfig(DataConfig):
    """Images of your own: `target` names a function that, called with `kwargs`, gives `train` and `test`.

    Each is a pair of arrays, images and labels, or a map-style dataset.
    """

    name: str = group_name("arrays", role=TEST_SET)
    target: str = setting(
        "", doc="MODULE.FUNCTION that returns train and test, each a pair of arrays or a map-style dataset", role=FILES
    )
    kwargs: dict[str, Any] = free_keys(role=FILES, doc="its keyword arguments")


@dataclass
class AnyNetworkConfig(Section):
    """What networks of every make share."""

    is_option = False
    name: str = field(metadata={"doc": "set by the option of its group"})
    output: str = setting(
        "logits",
        doc="logits, or probabilities, of which cross-entropy then takes a softmax once more",
        choices=("logits", "softmax"),
    )


@dataclass
class NetworkConfig(AnyNetworkConfig):
    """What every network that is a list of layers shares: its fully connected part, activations and initial weights.

    `leaky_slope` is what `activation=leaky` multiplies negative inputs with; eq2425 (section 5.3) divides by 100.
    `init=he_normal` is svalheim's (equations 37 to 39); it and `glorot` start with biases of 0.
    """

    is_option = False

    hidden: list[int] = setting(
        [512], doc="widths of the fully connected layers before the classifier", at_least=1, at_most=_MOST_UNITS
    )
    activation: str = setting("relu", doc="after convolutions and hidden layers", choices=lambda: tuple(ACTIVATIONS))
    leaky_slope: float = setting(0.01, doc="what activation=leaky multiplies negative inputs with", at_least=0)
    dropout: float = setting(0.0, doc="probability, after every hidden layer", at_least=0, below=1)
    batch_norm: bool = setting(
        False, doc="after every convolution; in fully connected networks after every hidden layer"
    )
    batch_norm_place: str = setting("before", doc="before or after the activation", choices=("before", "after"))
    init: str = setting(
        "pytorch",
        doc="initial weights: pytorch's own uniform ones, he_normal, or glorot (uniform, as in Keras)",
        choices=("pytorch", "he_normal", "glorot"),
    )
    output_bias: bool = setting(True, doc="whether the classifier has biases")


@dataclass
class ModelConfig(NetworkConfig):
    """A convolutional network; the defaults are eq2425's (section 4 of the paper).

    The paper lists the last convolution without an activation. `residual` is He et al.'s block (2016): activated after
    the sum, around fewer convolutions where pooling follows. The first convolution stays outside, and so do those that
    change the size of their maps by more than a stride (`padding=valid`). Where a block changes the number of filters,
    or has a stride, a 1x1 convolution is its shortcut. `global_pool` gives the mean of each last map to the
    fully connected layers instead of all its pixels (Lin et al. 2014).
    """

    name: str = setting("three_conv", doc="set by the option of its group", choices=CONV_NETWORKS)
    filters: list[int] = setting(
        [24, 48, 96], doc="number of filters of each convolution", at_least=1, at_most=_MOST_UNITS, min_length=1
    )
    kernel_sizes: Any = setting([5, 3, 3], doc="side of the kernels", at_least=1, min_length=1, per_layer=int)
    strides: Any = setting(1, doc="step of the convolutions", at_least=1, per_layer=int)
    padding: Any = setting(
        "valid", doc="valid pads nothing, same keeps the size of the maps", choices=("valid", "same"), per_layer=str
    )
    groups: Any = setting(1, doc="groups of channels that a convolution keeps apart", at_least=1, per_layer=int)
    last_activation: bool = setting(False, doc="whether the last convolution has an activation")
    pool: str = setting("max", doc="how maps are made smaller", choices=("max", "average"))
    pool_size: int = setting(2, doc="side of the windows of pooling", at_least=1)
    pool_stride: int = setting(2, doc="step of the windows; smaller than pool_size they overlap", at_least=1)
    pool_after: Any = setting(True, doc="which convolutions are followed by pooling", per_layer=bool)
    conv_dropout: float = setting(0.0, doc="probability, after every pooling", at_least=0, below=1)
    residual: int = setting(
        0, doc="a skip connection around every so many convolutions, 2 is He et al.'s block; 0 is none", at_least=0
    )
    global_pool: bool = setting(
        False, doc="the mean of each last map goes to the fully connected layers, not all its pixels"
    )


@dataclass
class MLPConfig(NetworkConfig):
    """A fully connected network on the pixels of an image."""

    name: str = setting("svalheim_mlp", doc="set by the option of its group", choices=MLP_NETWORKS)


@dataclass
class ModuleConfig(AnyNetworkConfig):
    """A network of your own: `target` names a class of `torch.nn.Module`, or a function that returns one.

    It is called with `kwargs`, and with those of `num_classes` and `input_shape` (channels, height, width) that it
    takes.
    """

    name: str = group_name("module")
    target: str = setting("", doc="a class of torch.nn.Module, or a function that returns one, as MODULE.NAME")
    kwargs: dict[str, Any] = free_keys(doc="its keyword arguments")


@dataclass
class OptimizerConfig(Section):
    """What every optimiser shares. Penalties of biases and of the last layer's weights: sorensen, equation 2.10."""

    is_option = False

    name: str = field(metadata={"doc": "set by the option of its group"})
    lr: float = setting(1e-3, doc="learning rate", above=0)
    weight_decay: float = setting(
        0.0, doc="L2 penalty: half of it times the sum of squares is added to the loss", at_least=0
    )
    weight_decay_biases: float | None = setting(None, doc="of the biases; null is weight_decay", at_least=0)
    weight_decay_output: float | None = setting(
        None, doc="of the classifier's weights; null is weight_decay", at_least=0
    )


@dataclass
class SGDConfig(OptimizerConfig):
    """`nesterov` looks ahead along the momentum (Sutskever et al. 2013, in PyTorch's form)."""

    name: str = group_name("sgd")
    momentum: float = setting(0.0, doc="share of the last step that is taken again", at_least=0, below=1)
    nesterov: bool = setting(False, doc="looks ahead along the momentum")


@dataclass
class AdamConfig(OptimizerConfig):
    """Adam (Kingma & Ba 2015, algorithm 1)."""

    name: str = group_name("adam")
    beta1: float = setting(0.9, doc="decay of the mean of the gradients", at_least=0, below=1)
    beta2: float = setting(0.999, doc="decay of the mean of their squares", at_least=0, below=1)
    eps: float = setting(1e-8, doc="added to the root of the mean square", above=0)


@dataclass
class AdamWConfig(AdamConfig):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2); the decay is PyTorch's default."""

    name: str = group_name("adamw")
    weight_decay: float = setting(0.01, doc="decoupled from the gradient: weights shrink by lr times it", at_least=0)


@dataclass
class AdaGradConfig(OptimizerConfig):
    """AdaGrad with a step for each weight (Duchi, Hazan & Singer 2011)."""

    name: str = group_name("adagrad")
    eps: float = setting(1e-10, doc="added to the root of the sum of squares", above=0)


@dataclass
class RMSPropConfig(OptimizerConfig):
    """RMSProp (Tieleman & Hinton 2012), with momentum as PyTorch has it."""

    name: str = group_name("rmsprop")
    alpha: float = setting(0.99, doc="decay of the mean of squared gradients", at_least=0, below=1)
    momentum: float = setting(0.0, doc="share of the last step that is taken again", at_least=0, below=1)
    eps: float = setting(1e-8, doc="added to the root of the mean square", above=0)


@dataclass
class TrainConfig(Section):
    """How long a network is trained, in which steps, and on which images.

    Training images are changed at random in every epoch. A translation of 4 with CIFAR-10 is the random crop of an
    image padded with so many zeros (He et al. 2016); with mirroring it is gonzalez's augmentation of AlexNet.
    `cutout`: DeVries and Taylor 2017. `mixup`: Zhang et al. 2018. The weights that are kept are the last epoch's,
    where `stop_on` ends training too. `scale` shortens warm-up and `step_epochs` as well.
    """

    epochs: int = setting(6, doc="passes over the training images", at_least=1, at_most=_MOST_EPOCHS)
    updates: int | None = setting(
        None, doc="optimiser steps after which training ends, whatever epochs says", at_least=1, at_most=_MOST_UPDATES
    )
    scale: float = setting(
        1.0, doc="shortens epochs, updates and schedules, for a small version of a long study", above=0, at_most=1
    )
    batch_size: int = setting(64, doc="images in a step", at_least=1)
    shuffle: bool = setting(True, doc="a new order in every epoch; false repeats one fixed, class-mixed order")
    loss: str = setting("cross_entropy", doc="what is minimised", choices=lambda: tuple(LOSS_NAMES))
    stop_on: str | None = setting(
        None,
        doc="ends training once it has not improved for patience epochs; null never does",
        choices=("train_loss", "val_loss", "val_accuracy"),
    )
    patience: int = setting(3, doc="epochs without an improvement of stop_on", at_least=1)
    max_translation: int = setting(
        0, doc="shifts images by up to so many pixels each way, with black around", at_least=0
    )
    horizontal_flip: bool = setting(False, doc="mirrors half of the images")
    color_jitter: float = setting(
        0.0, doc="strength s: brightness, contrast and saturation times 1 - s to 1 + s", at_least=0
    )
    cutout: int = setting(0, doc="side in pixels of a square of zeros in the network's input", at_least=0)
    mixup: float = setting(
        0.0,
        doc="alpha of the Beta distribution by which two images, and their losses, are mixed; 0 is none",
        at_least=0,
    )
    schedule: str = setting(
        "constant", doc="of the learning rate over the whole length", choices=lambda: tuple(SCHEDULE_NAMES)
    )
    warmup_epochs: float = setting(0.0, doc="of a linear rise to the learning rate", at_least=0)
    step_epochs: float = setting(2.0, doc="after every so many epochs schedule=step multiplies by step_factor", above=0)
    step_factor: float = setting(0.1, doc="what schedule=step multiplies the learning rate with", above=0, at_most=1)
    final_lr_factor: float = setting(
        0.0, doc="share of the learning rate at which schedule=cosine ends", at_least=0, at_most=1
    )
    clip_norm: float | None = setting(
        None, doc="largest L2 norm of all gradients together; null clips nothing", above=0
    )
    label_smoothing: float = setting(
        0.0, doc="share of the targets that is spread over all classes", at_least=0, below=1
    )
    ema_decay: float | None = setting(
        None,
        doc="of the moving average of the weights that are scored and kept; null averages nothing",
        above=0,
        below=1,
    )


@dataclass
class ImageClassification(TaskConfig):
    """Networks that tell pictures apart."""

    name: str = group_name("image_classification", role=WHAT_IS_TRAINED)


@dataclass
class Config(StudyConfig):
    """One configuration of image classification: everything that `python -m cnn_ablation` can be told of it.

    Of `vary`, `init` is the initial weights, `order` the order of images, their augmentation and mixtures, `dropout`
    what the network draws while it is trained, `split` the split of the data, else drawn by `data.split_seed`.
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
    vary: list[str] = setting(
        ["init", "order", "dropout"],
        doc="what follows a run's seed; what is not named is drawn as seed 0 draws it",
        choices=SOURCES_OF_CHANCE,
    )
    precision: str = setting(
        "auto",
        doc="of the arithmetic; auto follows from the processor or the GPU",
        choices=("auto", "float32", "tf32", "bfloat16"),
    )
    engine: str = setting(
        "fast", doc="fast, or the plain loop that it is tested against", choices=("fast", "reference")
    )
    checkpoint_seconds: float = setting(
        60.0, doc="a longer run keeps a checkpoint, and goes on from it after a crash", above=0, role=CONDUCT
    )
    keep_weights: bool = setting(True, doc="keeps the trained network beside its run", role=CONDUCT)
    paper: str | None = setting(
        None, doc="the paper whose figures the report sets beside ours", choices=paper_names, role=CONDUCT
    )


GROUPS = Config.groups
