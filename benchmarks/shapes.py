"""The variables' shapes of the models that are measured, from formulas.

An optimizer's step depends on its variables' shapes and on nothing else of the
model. Dense kernels are `[in, out]`, as Keras has them.
"""

import math
from typing import List, Sequence, Tuple

Shapes = List[Tuple[str, Tuple[int, ...]]]


def bert(
    layers: int = 12, width: int = 768, vocab: int = 30522, ff: int = 3072
) -> Shapes:
    """BERT with pooler, masked-LM transform and bias, next-sentence head.

    The default, BERT-base: 206 variables, 110,106,428 parameters.

    Args:
      layers: encoder layers.
      width: of the hidden state.
      vocab: tokens.
      ff: width of a feed-forward layer.
    """

    def dense(name, inputs, outputs):
        return [
            (f"{name}/kernel", (inputs, outputs)),
            (f"{name}/bias", (outputs,)),
        ]

    def layer_norm(name):
        return [(f"{name}/gamma", (width,)), (f"{name}/beta", (width,))]

    shapes = [
        ("embeddings/word", (vocab, width)),
        ("embeddings/position", (512, width)),
        ("embeddings/type", (2, width)),
        *layer_norm("embeddings/layer_norm"),
    ]
    for i in range(layers):
        for part in ("query", "key", "value", "output"):
            shapes += dense(f"layer_{i}/attention/{part}", width, width)
        shapes += layer_norm(f"layer_{i}/attention/layer_norm")
        shapes += dense(f"layer_{i}/intermediate", width, ff)
        shapes += dense(f"layer_{i}/output", ff, width)
        shapes += layer_norm(f"layer_{i}/layer_norm")
    shapes += dense("pooler", width, width)
    shapes += dense("mlm/transform", width, width)
    shapes += layer_norm("mlm/layer_norm")
    shapes += [("mlm/output_bias", (vocab,))]
    return shapes + dense("next_sentence", width, 2)


def resnet50(classes: int = 1000) -> Shapes:
    """ResNet-50: 161 trainable variables, 25,557,032 parameters.

    Convolutions have no bias; of batch normalisation, gamma and beta.

    Args:
      classes: outputs of the last layer.
    """

    def convolution(name, kernel, inputs, outputs):
        return [
            (f"{name}/kernel", (kernel, kernel, inputs, outputs)),
            (f"{name}/gamma", (outputs,)),
            (f"{name}/beta", (outputs,)),
        ]

    shapes = convolution("stem", 7, 3, 64)
    inputs = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 * 2**stage
        for block in range(blocks):
            name = f"stage_{stage}/block_{block}"
            if block == 0:
                shapes += convolution(f"{name}/skip", 1, inputs, 4 * inner)
            shapes += convolution(f"{name}/conv_1", 1, inputs, inner)
            shapes += convolution(f"{name}/conv_2", 3, inner, inner)
            shapes += convolution(f"{name}/conv_3", 1, inner, 4 * inner)
            inputs = 4 * inner
    return shapes + [
        ("classifier/kernel", (inputs, classes)),
        ("classifier/bias", (classes,)),
    ]


def count(shapes: Sequence[Tuple[str, Tuple[int, ...]]]) -> int:
    """Parameters in all."""
    return sum(math.prod(shape) for _, shape in shapes)
