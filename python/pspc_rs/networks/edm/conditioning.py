"""Class labels on their way into a network."""

import torch
from torch import Tensor

from pspc_rs.errors import InvalidValueError, ShapeError


def check_even(name: str, number: int) -> None:
    """Refuses an odd number.

    Raises:
        InvalidValueError: it is odd.

    Example:
        >>> check_even("model_channels", 128)
    """
    if number % 2:
        raise InvalidValueError(f"{name} is {number}; it must be even")


def class_embedding_input(class_labels: Tensor | None, label_dim: int, emb: Tensor, dropout: float) -> Tensor:
    """Class labels in the type of ``emb`` [N, ...]: zeros where none are given or where they are dropped.

    Args:
        class_labels: [N, label_dim], [1, label_dim] or None.
        label_dim: number of classes.
        emb: what the labels are added to.
        dropout: share of the samples whose labels are set to zero.

    Raises:
        ShapeError: the labels have another shape.

    Example:
        >>> class_embedding_input(None, 3, torch.zeros(2, 8), 0.0)
        tensor([[0., 0., 0.]])
    """
    if class_labels is None:
        return emb.new_zeros(1, label_dim)
    if class_labels.ndim != 2 or class_labels.shape[1] != label_dim:
        raise ShapeError(
            f"class_labels have shape {list(class_labels.shape)}; allowed is [batch, {label_dim}], one weight a class"
        )
    labels = class_labels.to(emb.dtype)
    if dropout:
        kept = torch.rand(len(labels), 1, device=labels.device) >= dropout
        labels = labels * kept.to(labels.dtype)
    return labels
