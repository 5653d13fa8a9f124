"""The mathematics of the papers in NumPy, float64: an independent second opinion on what our networks compute.

Written from the papers' equations, not from PyTorch; nothing here imports torch or the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray


def positions(size: int, window: int, stride: int, padding: int) -> int:
    """floor((n + 2p - f) / s) + 1 (jappinen, section 3.2.1)."""
    return (size + 2 * padding - window) // stride + 1


@dataclass
class Conv:
    """z[i, j, f] = sum over p, q, c of w[f, c, p, q] a[s i + p, s j + q, c] + b[f] (sorensen, equation 2.1; svalheim,
    section 4.5; jappinen, section 3.2.1).
    """

    weight: Array
    bias: Array
    stride: int = 1
    padding: int = 0

    def forward(self, x: Array) -> Array:
        k = self.weight.shape[2]
        p = self.padding
        self.padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        rows, columns = (positions(size, k, self.stride, p) for size in x.shape[2:])
        out = np.zeros((len(x), len(self.weight), rows, columns))
        for i, j in product(range(rows), range(columns)):
            out[:, :, i, j] = np.einsum("ncpq,fcpq->nf", self._window(self.padded, i, j), self.weight) + self.bias
        return out

    def backward(self, gradient: Array) -> Array:
        """dE/dw sums each position's window times its gradient; dE/da spreads w back (svalheim, section 4.5; gonzalez,
        backward pass).
        """
        self.gradients = {"weight": np.zeros_like(self.weight), "bias": gradient.sum(axis=(0, 2, 3))}
        back = np.zeros_like(self.padded)
        for i, j in product(*map(range, gradient.shape[2:])):
            here = gradient[:, :, i, j]
            self.gradients["weight"] += np.einsum("nf,ncpq->fcpq", here, self._window(self.padded, i, j))
            self._window(back, i, j)[...] += np.einsum("nf,fcpq->ncpq", here, self.weight)
        p = self.padding
        return back[:, :, p : back.shape[2] - p, p : back.shape[3] - p]

    def _window(self, maps: Array, i: int, j: int) -> Array:
        k, s = self.weight.shape[2], self.stride
        return maps[:, :, i * s : i * s + k, j * s : j * s + k]


@dataclass
class Pool:
    """Largest or mean value of each window (sorensen, equation 2.3; jappinen, sections 3.2.2 and 3.5.2)."""

    kind: str
    window: int = 2
    stride: int = 2

    def forward(self, x: Array) -> Array:
        self.x = x
        rows, columns = (positions(size, self.window, self.stride, 0) for size in x.shape[2:])
        out = np.zeros((*x.shape[:2], rows, columns))
        for i, j in product(range(rows), range(columns)):
            window = self._window(x, i, j)
            out[:, :, i, j] = window.max(axis=(2, 3)) if self.kind == "max" else window.mean(axis=(2, 3))
        return out

    def backward(self, gradient: Array) -> Array:
        """The whole gradient goes to the largest value (its first place), or an equal share to every one."""
        back = np.zeros_like(self.x)
        for i, j in product(*map(range, gradient.shape[2:])):
            window, part = self._window(self.x, i, j), self._window(back, i, j)
            here = gradient[:, :, i, j]
            if self.kind == "average":
                part += here[:, :, None, None] / self.window**2
                continue
            flat = window.reshape(*window.shape[:2], -1).argmax(axis=2)
            for n, c in np.ndindex(*flat.shape):
                part[n, c, flat[n, c] // self.window, flat[n, c] % self.window] += here[n, c]
        return back

    def _window(self, maps: Array, i: int, j: int) -> Array:
        s = self.stride
        return maps[:, :, i * s : i * s + self.window, j * s : j * s + self.window]


@dataclass
class BatchNorm:
    """y = gamma (x - mu) / sqrt(sigma^2 + eps) + beta over the batch, per channel (sorensen, equation 2.11)."""

    weight: Array
    bias: Array
    eps: float = 1e-5

    def forward(self, x: Array) -> Array:
        self.axes = (0, *range(2, x.ndim))
        self.deviation = np.sqrt(x.var(axis=self.axes, keepdims=True) + self.eps)
        self.normal = (x - x.mean(axis=self.axes, keepdims=True)) / self.deviation
        return self._wide(self.weight, x.ndim) * self.normal + self._wide(self.bias, x.ndim)

    def backward(self, gradient: Array) -> Array:
        """By the chain rule through mu and sigma^2, which depend on every x of the batch."""
        self.gradients = {
            "weight": (gradient * self.normal).sum(axis=self.axes),
            "bias": gradient.sum(axis=self.axes),
        }
        scaled = gradient * self._wide(self.weight, gradient.ndim)
        mean = scaled.mean(axis=self.axes, keepdims=True)
        slope = (scaled * self.normal).mean(axis=self.axes, keepdims=True)
        return (scaled - mean - self.normal * slope) / self.deviation

    def _wide(self, values: Array, dimensions: int) -> Array:
        return values.reshape(1, -1, *[1] * (dimensions - 2))


# name -> (function, derivative): sigmoid and tanh (svalheim, equations 9 and 10), ReLU (svalheim, equation 11;
# sorensen, section 2.4), leaky ReLU x / 100 (eq2425, section 5.3), ELU (svalheim, equation 12; jappinen), none.
FUNCTIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "relu": (lambda x: np.maximum(0, x), lambda x: (x > 0).astype(float)),
    "leaky": (lambda x: np.where(x >= 0, x, x / 100), lambda x: np.where(x > 0, 1, 1 / 100)),
    "elu": (lambda x: np.where(x >= 0, x, np.exp(np.minimum(x, 0)) - 1), lambda x: np.exp(np.minimum(x, 0))),
    "none": (lambda x: x, np.ones_like),
}


@dataclass
class Activation:
    """A function of each value; its derivative multiplies the gradient (jappinen, equation 43)."""

    name: str

    def forward(self, x: Array) -> Array:
        self.x = x
        return FUNCTIONS[self.name][0](x)

    def backward(self, gradient: Array) -> Array:
        return gradient * FUNCTIONS[self.name][1](self.x)


@dataclass
class PReLU:
    """x for x >= 0, a x below, with a learnt slope a (jappinen, section on activations)."""

    weight: Array

    def forward(self, x: Array) -> Array:
        self.x = x
        return np.where(x >= 0, x, self.weight[0] * x)

    def backward(self, gradient: Array) -> Array:
        self.gradients = {"weight": np.array([(gradient * np.minimum(self.x, 0)).sum()])}
        return gradient * np.where(self.x > 0, 1, self.weight[0])


@dataclass
class Flatten:
    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, gradient: Array) -> Array:
        return gradient.reshape(self.shape)


@dataclass
class Dense:
    """z = W a + b (svalheim, section 4.3); dE/dW = delta a^T, dE/da = W^T delta (jappinen, equations 39 to 44)."""

    weight: Array
    bias: Array

    def forward(self, x: Array) -> Array:
        self.x = x
        return x @ self.weight.T + self.bias

    def backward(self, gradient: Array) -> Array:
        self.gradients = {"weight": gradient.T @ self.x, "bias": gradient.sum(axis=0)}
        return gradient @ self.weight


@dataclass
class GlobalAveragePool:
    """The mean of each map (Lin et al. 2014); every place of a map gets an equal share of its gradient."""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x.mean(axis=(2, 3))

    def backward(self, gradient: Array) -> Array:
        return np.ones(self.shape) * gradient[:, :, None, None] / (self.shape[2] * self.shape[3])


@dataclass
class Residual:
    """y = F(x) + P(x), P the identity where there is no shortcut (He et al. 2016, equations 1 and 2); dE/dx is the sum
    of what comes back through both.
    """

    branch: dict[str, Any]
    shortcut: dict[str, Any]

    def forward(self, x: Array) -> Array:
        return forward(self.branch, x) + forward(self.shortcut, x)

    def backward(self, gradient: Array) -> Array:
        return backward(self.branch, gradient) + backward(self.shortcut, gradient)


def forward(layers: dict[str, Any], x: Array) -> Array:
    for layer in layers.values():
        x = layer.forward(x)
    return x


def backward(layers: dict[str, Any], gradient: Array) -> Array:
    for layer in reversed(layers.values()):
        gradient = layer.backward(gradient)
    return gradient


def parameters(layers: dict[str, Any], within: str = "") -> Iterator[tuple[str, Array, Array]]:
    """Name, value (to be changed in place) and gradient."""
    for name, layer in layers.items():
        for kind, gradient in getattr(layer, "gradients", {}).items():
            yield f"{within}{name}.{kind}", getattr(layer, kind), gradient
        for part in ("branch", "shortcut"):
            yield from parameters(getattr(layer, part, {}), f"{within}{name}.{part}.")


def dropout(x: Array, kept: Array, probability: float) -> Array:
    """Kept values are divided by 1 - p, so that their mean stays (eq2425, section 5.4; sorensen, section 2.6)."""
    return x * kept / (1 - probability)


def softmax(x: Array) -> Array:
    """exp(z_i) / sum over j of exp(z_j) (svalheim, equation 16)."""
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _through_softmax(y: Array, slope: Array) -> Array:
    """dE/dz from dE/dy: dy_i/dz_j = y_i (1[i = j] - y_j)."""
    return y * (slope - (slope * y).sum(axis=1, keepdims=True))


def cross_entropy(z: Array, t: Array) -> tuple[Array, Array]:
    """-sum t ln y for each image (sorensen, equation 2.7; jappinen, equation 38) and its gradient y - t."""
    y = softmax(z)
    return -(t * np.log(y)).sum(axis=1), y - t


def mean_squared_error(z: Array, t: Array) -> tuple[Array, Array]:
    """Mean over classes of (y - t)^2."""
    y = softmax(z)
    return ((y - t) ** 2).mean(axis=1), _through_softmax(y, 2 * (y - t) / t.shape[1])


def kullback_leibler(z: Array, t: Array) -> tuple[Array, Array]:
    """-sum [t log y + (1 - t) log(1 - y)] (sorensen, equation 2.8)."""
    y = softmax(z)
    loss = -(t * np.log(y) + (1 - t) * np.log(1 - y)).sum(axis=1)
    return loss, _through_softmax(y, -t / y + (1 - t) / (1 - y))


LOSSES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "cross_entropy": cross_entropy,
    "mean_squared_error": mean_squared_error,
    "kullback_leibler": kullback_leibler,
}


@dataclass
class Network:
    """Layers with their names."""

    layers: dict[str, Any]

    def loss(self, x: Array, t: Array, kind: str) -> float:
        """Mean over the batch; leaves every parameter's gradient in its layer."""
        losses, gradient = LOSSES[kind](forward(self.layers, x), t)
        backward(self.layers, gradient / len(x))
        return float(losses.mean())

    def parameters(self) -> Iterator[tuple[str, Array, Array]]:
        """Name, value (to be changed in place) and gradient."""
        return parameters(self.layers)


@dataclass
class Rule:
    """An update rule with what it remembers of each parameter."""

    lr: float
    memory: dict[str, Any] = field(default_factory=dict)
    step: int = 0

    def update(self, network: Network) -> None:
        self.step += 1
        for name, value, gradient in network.parameters():
            np.subtract(value, self.change(name, gradient), out=value)

    def change(self, name: str, g: Array) -> Array:
        raise NotImplementedError


@dataclass
class GradientDescent(Rule):
    """w <- w - eta g (jappinen, equation 46); with momentum v <- m v + g, w <- w - eta v.

    Nesterov's look-ahead (Sutskever et al. 2013, equations 3 and 4, written for the point that is looked at):
    w <- w - eta (g + m v).
    """

    momentum: float = 0.0
    nesterov: bool = False

    def change(self, name: str, g: Array) -> Array:
        v = self.memory[name] = self.momentum * self.memory.get(name, 0.0) + g
        return self.lr * (g + self.momentum * v if self.nesterov else v)


@dataclass
class AdaGrad(Rule):
    """G <- G + g^2 (jappinen, equation 47); w <- w - eta g / (sqrt(G) + eps) (equations 48 and 49, which have eps under
    the root: the same to 1e-8 for the eps of 1e-10 used).
    """

    eps: float = 1e-10

    def change(self, name: str, g: Array) -> Array:
        self.memory[name] = self.memory.get(name, 0.0) + g**2
        return self.lr * g / (np.sqrt(self.memory[name]) + self.eps)


@dataclass
class RMSProp(Rule):
    """A <- gamma A + (1 - gamma) g^2 (jappinen, equation 50); w <- w - eta g / (sqrt(A) + eps) (equation 51)."""

    gamma: float = 0.9
    eps: float = 1e-8

    def change(self, name: str, g: Array) -> Array:
        self.memory[name] = self.gamma * self.memory.get(name, 0.0) + (1 - self.gamma) * g**2
        return self.lr * g / (np.sqrt(self.memory[name]) + self.eps)


@dataclass
class Adam(Rule):
    """Both moments (svalheim, equation 34; jappinen, equation 52), corrected for their start at 0 (35; 55),
    w <- w - eta m / (sqrt(v) + eps) (36; 56).
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def change(self, name: str, g: Array) -> Array:
        m, v = self.memory.get(name, (0.0, 0.0))
        m = self.beta1 * m + (1 - self.beta1) * g
        v = self.beta2 * v + (1 - self.beta2) * g**2
        self.memory[name] = m, v
        first, second = m / (1 - self.beta1**self.step), v / (1 - self.beta2**self.step)
        return self.lr * first / (np.sqrt(second) + self.eps)


@dataclass
class AdamW(Adam):
    """Adam after w <- w - eta lambda w (Loshchilov & Hutter 2019, algorithm 2, line 12, at a constant rate)."""

    decay: float = 0.01

    def update(self, network: Network) -> None:
        for _, value, _ in network.parameters():
            np.multiply(value, 1 - self.lr * self.decay, out=value)
        super().update(network)
