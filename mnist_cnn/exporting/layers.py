"""Networks as graphs of layers, for programs that compute them without PyTorch."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Node

from mnist_cnn.weights.predictor import Trained

DEFAULTS: list[Any] = [None, [1, 1], [0, 0], [1, 1]]  # arguments of a convolution, from its bias on


class Layer(NamedTuple):
    """A layer as network.js computes it."""

    settings: dict[str, Any]  # its kind, and the settings of this kind
    weights: list[Tensor]
    inputs: list[int]  # 0 is the input of the network, n the output of its n-th layer


def classifier_layers(net: Trained, kind: str = "html") -> list[Layer]:
    """Return the layers of a network of images, see `layers_of`."""
    return layers_of(net.net, torch.zeros(2, *net.shape), kind)


def layers_of(net: nn.Module, example: Tensor, kind: str = "html") -> list[Layer]:
    """Return the layers of a network with one input and one output.

    Args:
        net: the network.
        example: example of its input.
        kind: format to name in error messages.

    Raises:
        ValueError: it has a layer that network.js cannot compute.
    """
    try:
        program = torch.export.export(net, (example,))
    except Exception as error:  # a user's own forward may raise anything
        raise ValueError(f"{kind} export needs a plain network, got {error}") from None
    signature, state = program.graph_signature, {**program.constants, **program.state_dict}
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants
    weights = {name: state[key].detach() for name, key in names.items()}
    outputs = {signature.user_inputs[0]: 0}  # by node
    layers: list[Layer] = []
    for node in program.graph.nodes:
        if node.op == "call_function":
            arguments = [weights.get(str(a), a) for a in node.args]
            inputs = [outputs[a.name] for a in arguments if isinstance(a, Node)]
            name = str(node.target).split(".")[1]  # conv2d of aten.conv2d.default
            if made := as_layer(kind, name, arguments[1:]):
                layers.append(Layer(*made, inputs))
                inputs = [len(layers)]
            outputs[node.name] = inputs[0]
    return layers


def as_layer(
    kind: str, operation: str, arguments: Sequence[Any]
) -> tuple[dict[str, Any], list[Tensor]] | None:
    """Convert an operation of torch.export for network.js; return None if it has no effect."""
    match operation, *arguments:
        case "sub", Tensor() as mean:
            return {"kind": "affine"}, [torch.ones_like(mean), -mean]
        case "div", Tensor() as std:
            return {"kind": "affine"}, [1 / std, torch.zeros_like(std)]
        case "conv2d", weight, *options if len(options) < 5:  # without groups
            bias, *steps = [*options, *DEFAULTS[len(options) :]]
            settings = {"kernel": list(weight.shape[2:])}
            settings |= dict(zip(("stride", "padding", "dilation"), steps, strict=True))
            settings["padding"] = padding_of(kind, **settings)
            return {"kind": "convolution", **settings}, [weight, bias_of(weight, bias)]
        case "linear", weight, *bias:
            return {"kind": "dense"}, [weight, bias_of(weight, *bias)]
        case "batch_norm", Tensor() as gain, offset, Tensor() as mean, variance, _, _, eps, _:
            scale = torch.rsqrt(variance + eps) * gain
            return {"kind": "affine"}, [scale, offset - mean * scale]
        case "max_pool2d", [size, width], *step if size == width and step in ([], [[size, size]]):
            return {"kind": "pool", "size": size}, []
        case "upsample_nearest2d", None, [down, across] if down == across == int(down):
            return {"kind": "upsample", "factor": int(down)}, []
        case (("add" | "add_"), Node()):
            return {"kind": "add"}, []
        case ("relu" | "relu_",):
            return {"kind": "relu"}, []
        case "flatten", 1:
            return {"kind": "flatten"}, []
        case "dropout" | "feature_dropout", *_:
            return None
    raise ValueError(
        f"{kind} export needs convolutions, max-poolings, batch normalisations, ReLUs, dense "
        f"layers, additions and upsampling by whole factors, got {operation}"
    )


def padding_of(
    kind: str, kernel: list[int], stride: list[int], padding: list[int] | str, dilation: list[int]
) -> list[int]:
    """Return the padding of a convolution in pixels; it may be given by name."""
    if not isinstance(padding, str):
        return padding
    if padding == "valid":
        return [0, 0]
    both = [far * (side - 1) for far, side in zip(dilation, kernel, strict=True)]
    if any(pixels % 2 for pixels in both):
        wanted = "convolutions of odd kernels with padding=same"
        raise ValueError(f"{kind} export needs {wanted}, got {kernel}")
    return [pixels // 2 for pixels in both]


def bias_of(weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.zeros(len(weight)) if bias is None else bias


def folded(layers: Sequence[Layer]) -> list[Layer]:
    """Fold each normalisation into the convolution before it."""
    uses = Counter(n for layer in layers for n in layer.inputs)
    made: list[Layer] = []
    places = [0]  # of each output among those of the layers made
    for layer in layers:
        inputs = [places[n] for n in layer.inputs]
        kinds = [made[n - 1].settings["kind"] if n else None for n in inputs]
        kinds.append(layer.settings["kind"])
        follows = kinds == ["convolution", "affine"] and uses[layer.inputs[0]] == 1
        before = made[inputs[0] - 1] if follows else layer
        # one value for all or for each channel, not for each pixel
        if follows and layer.weights[0].numel() in (1, len(before.weights[0])):
            (scale, shift), (weight, bias) = layer.weights, before.weights
            weights = [weight * scale.view(-1, 1, 1, 1), bias * scale + shift]
            made[inputs[0] - 1] = before._replace(weights=weights)
            places.append(inputs[0])
        else:
            made.append(layer._replace(inputs=inputs))
            places.append(len(made))
    return made
