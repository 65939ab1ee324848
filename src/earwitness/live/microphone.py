"""Microphones, through PortAudio (the package sounddevice)."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from earwitness.audio.sound import Block
from earwitness.errors import AudioError, ConfigError, MissingDependencyError, pip_install

_BLOCK_S = 0.1


@dataclass
class Microphone:
    """The input device with this number or (partial) name; None is the default one."""

    device: str | None
    reconnects: bool = True

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return "the microphone" if self.device is None else f"the microphone {self.device!r}"

    def blocks(self) -> Iterator[Block]:
        """The sound from now on at the device's own rate. Raises AudioError: it is not there."""
        portaudio = _portaudio()
        try:
            rate = int(portaudio.query_devices(_asked(self.device), "input")["default_samplerate"])
            size = max(1, round(_BLOCK_S * rate))
            with portaudio.InputStream(
                rate, size, _asked(self.device), channels=1, dtype="float32"
            ) as stream:
                while True:
                    # What is not read in time is lost in PortAudio, not kept.
                    yield Block(stream.read(size)[0].copy(), rate)
        except (portaudio.PortAudioError, ValueError) as error:
            reason = " ".join(str(error.args[0] if error.args else error).split())
            raise AudioError(f"{self.name} cannot be read ({reason})") from None


def devices() -> list[str]:
    """Number, name, channels and rate of each microphone, a line each. Raises ConfigError: none."""
    found = [
        f"{number}\t{one['name']}\t{one['max_input_channels']} channels\t"
        f"{one['default_samplerate']:g} Hz"
        for number, one in enumerate(_portaudio().query_devices())
        if one["max_input_channels"] > 0
    ]
    if not found:
        raise ConfigError("this machine has no microphone that PortAudio can find; see --input")
    return found


def check_installed() -> None:
    """Raises MissingDependencyError if microphones cannot be read."""
    _portaudio()


def _asked(device: str | None) -> int | str | None:
    return int(device) if device is not None and device.isdigit() else device


def _portaudio() -> ModuleType:
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise MissingDependencyError(
            f"a microphone needs the package sounddevice: {pip_install('live')}"
        ) from None
    except OSError:
        raise MissingDependencyError(
            "a microphone needs the library PortAudio; on Debian: apt install libportaudio2"
        ) from None
    return sounddevice
