"""What a run of pixels, music, adding or copy is delivered as: its masked weights, held sparse, in a safetensors file.

Tensors keep their names and shapes, so that the plain model of the recipe takes them as they are. Rows and columns that
are zero throughout cost a byte for 255 numbers (`karui.compact.sparse_tensors`): cutting them out would save no more.
"""

from torch import nn

from karui.compact.sparse_tensors import decode_tensors, encode_tensors
from karui.errors import UserError
from karui.sparse import harden


def encode_masked(model: nn.Module) -> bytes:
    """The file of a model, sparse or plain, as it is deployed."""
    return encode_tensors(harden(model).state_dict())


def masked_bytes(model: nn.Module) -> int:
    """Bytes of that file: what a target size is compared with."""
    return len(encode_masked(model))


def read_masked(content: bytes, model: nn.Module, *, where: str = "the file") -> nn.Module:
    """The plain model that such a file holds, in eval mode; model: of the recipe, sparse or plain, with any weights.

    Raises:
        UserError: the bytes are no such file, or of another model; `where` is named.
    """
    plain = harden(model).eval()
    try:
        plain.load_state_dict(decode_tensors(content, where=where))
    except RuntimeError as error:
        raise UserError(
            f"{where} holds another model than this one: {str(error).splitlines()[-1].strip()}"
        ) from error
    return plain
