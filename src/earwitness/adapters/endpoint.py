"""Models behind an OpenAI-compatible server as captioners: `openai:NAME`, with a base URL.

Each clip is one request to the chat API with a WAV in an `input_audio` part, which OpenAI's audio
models, vLLM and llama.cpp accept; if a server rejects it, the request is repeated with `audio_url`,
which SGLang accepts. The key comes from OPENAI_API_KEY; the base URL comes from OPENAI_BASE_URL
unless it is given.
"""

import base64
import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import repeat
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from earwitness.adapters.settings import AdapterOptions, as_caption
from earwitness.caption import Caption, CaptionCalls, Decoding, Precision
from earwitness.errors import ConfigError, MissingDependencyError, one_line, pip_install

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion
    from openai.types.chat.chat_completion import Choice


_Part = Literal["input_audio", "audio_url"]

_RATE = 16_000
_TOGETHER = 8
_SECONDS = 120.0
_RETRIES = 3


class EndpointCaptioner(CaptionCalls):
    """An `earwitness.Captioner` that sends concurrent requests to a server."""

    classes = None

    def __init__(self, client: "OpenAI", model: str, prompt: str) -> None:
        self.name = f"openai:{model}"
        self._client, self._model, self._prompt = client, model, prompt
        self._part: _Part = "input_audio"

    @classmethod
    def load(cls, model: str, options: AdapterOptions | None = None) -> "EndpointCaptioner":
        """The model that the server calls `model`; no request is made before the first clip.

        Raises:
            MissingDependencyError: the package openai is not installed.
            ConfigError: OpenAI's own server without a key, or a quantization.
        """
        options = options or AdapterOptions()
        try:
            from openai import OpenAI
        except ImportError:
            raise MissingDependencyError(
                f"openai:{model} needs the package openai: {pip_install('endpoint')}"
            ) from None
        if options.quantize != "none":
            raise ConfigError(
                f"--quantize {options.quantize}: the server decides; expected an hf: model"
            )
        base_url = options.base_url or os.environ.get("OPENAI_BASE_URL")
        key = os.environ.get("OPENAI_API_KEY")
        if base_url is None and not key:
            raise ConfigError(
                f"openai:{model} needs --base-url http://HOST:PORT/v1 for your own server, or "
                "OPENAI_API_KEY for OpenAI's"
            )
        # Self-hosted servers accept any key.
        client = OpenAI(
            base_url=base_url, api_key=key or "none", timeout=_SECONDS, max_retries=_RETRIES
        )
        return cls(client, model, options.prompt)

    @property
    def device(self) -> str:
        """The device for local computations, such as a CLAP for reranking."""
        return "cpu"

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz of the waveforms that are sent."""
        return _RATE

    @property
    def max_seconds(self) -> float:
        """The longest clip that is captioned as a whole; audio encoders have windows of 30 s."""
        return 30.0

    @property
    def decoding(self) -> Decoding:
        """The most probable answer of up to 80 tokens."""
        return Decoding(beam_size=1, max_new_tokens=80)

    @property
    def min_score(self) -> float:
        """0: the score is not calibrated."""
        return 0.0

    @property
    def batch_hint(self) -> int:
        """How many requests are open at once."""
        return _TOGETHER

    @property
    def batch_limit(self) -> int:
        """The most clips that are worth gathering for one batch."""
        return _TOGETHER

    def precision(self, kind: Precision) -> AbstractContextManager[None]:
        """Does nothing: the server decides. Raises ConfigError for anything but fp32."""
        if kind != "fp32":
            raise ConfigError(f"precision {kind}: the server decides; expected fp32")
        return nullcontext()

    def caption_together(
        self, waveforms: Sequence[Float[np.ndarray, " _"]], decoding: Decoding
    ) -> list[list[Caption]]:
        """The n-best captions of mono waveforms, best first. Beams are not part of the API.

        Raises:
            ConfigError: the server does not answer, refuses the key, or has no such model.
        """
        with ThreadPoolExecutor(_TOGETHER) as pool:
            return list(pool.map(self._captions, waveforms, repeat(decoding)))

    def _captions(self, waveform: np.ndarray, decoding: Decoding) -> list[Caption]:
        import openai

        try:
            answer = self._answer(waveform, decoding)
        except openai.APIConnectionError as error:
            raise ConfigError(
                f"{self.name}: no answer from {self._client.base_url} ({one_line(error)})"
            ) from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ConfigError(
                f"{self.name}: {self._client.base_url} refuses the key in OPENAI_API_KEY "
                f"({error.status_code})"
            ) from None
        except openai.NotFoundError as error:
            raise ConfigError(
                f"{self.name}: not at {self._client.base_url} ({one_line(error.message)[:200]})"
            ) from None
        seconds = len(waveform) / _RATE
        found = [
            Caption(as_caption(one.message.content or ""), _score(one), 0.0, seconds, self.name)
            for one in answer.choices
        ]
        return sorted(found, key=lambda caption: -caption.score)

    def _answer(self, waveform: np.ndarray, decoding: Decoding) -> "ChatCompletion":
        """The server's answer; asks again with the other audio format if it rejects the first."""
        import openai

        create = self._client.chat.completions.create
        first = self._part
        try:
            return create(**self._request(waveform, decoding, first))
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            if first != "input_audio":
                raise
            try:
                answer = create(**self._request(waveform, decoding, "audio_url"))
            except openai.OpenAIError:
                answer = None
            if answer is None:
                raise
        self._part = "audio_url"
        return answer

    def _request(self, waveform: np.ndarray, decoding: Decoding, part: _Part) -> dict[str, Any]:
        data = _wav(waveform)
        sound = {"data": data, "format": "wav"}
        if part == "audio_url":
            sound = {"url": f"data:audio/wav;base64,{data}"}
        content = [{"type": part, part: sound}, {"type": "text", "text": self._prompt}]
        sampled = decoding.sample or decoding.n_best > 1
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": decoding.max_new_tokens,
            "n": decoding.n_best,
            "temperature": decoding.temperature if sampled else 0.0,
            "top_p": decoding.top_p,
            "seed": decoding.seed,
            "logprobs": True,
        }


def _wav(waveform: np.ndarray) -> str:
    """The samples as 16-bit WAV in base64."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.asarray(waveform, np.float32), _RATE, format="WAV", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


def _score(choice: "Choice") -> float:
    """The geometric mean of the token probabilities; 0 if the server returns none."""
    tokens = (choice.logprobs and choice.logprobs.content) or []
    if not tokens:
        return 0.0
    return math.exp(min(0.0, sum(token.logprob for token in tokens) / len(tokens)))
