"""How well audio tokens are aligned with captions: what LAMB's Table 2 prints, and what it cannot
show.

Two clouds can come close without any clip coming closer to its own caption: all caption means share
a large common part, so that the mean of all captions is already near to each. Hence the margin over
other clips and the cosine without the common parts, and two controls beside them: the mean caption
in the audio's place (no clip could score less while it looks like a caption), and another human
caption of the same clip (hardly any model could score more).
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize, pairwise_distance


def alignment(
    audio: Float[Tensor, "B E"], text: Float[Tensor, "B E"]
) -> dict[str, Float[Tensor, ""]]:
    """How near mean audio tokens are to the mean token of their own captions.

    `l2` and `cosine`: LAMB's Table 2. `margin`: the cosine to the own caption minus the mean cosine
    to the captions of the other clips. `centered`: the cosine after each side's mean over the
    clips is subtracted. The last two need at least two clips and are otherwise absent.
    """
    found = {
        "l2": pairwise_distance(audio, text, eps=0.0).mean(),
        "cosine": cosine_similarity(audio, text).mean(),
    }
    count = len(audio)
    if count < 2:
        return found
    similarity = normalize(audio, dim=1) @ normalize(text, dim=1).T
    own = similarity.diagonal()
    found["margin"] = (own - (similarity.sum(1) - own) / (count - 1)).mean()
    found["centered"] = cosine_similarity(audio - audio.mean(0), text - text.mean(0)).mean()
    return found


def mean_caption_cosine(text: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """The lower control: mean cosine of the captions to their own mean."""
    return cosine_similarity(text.mean(0, keepdim=True), text).mean()
