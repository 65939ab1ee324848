"""What a service accepts, and how much of it at a time."""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from earwitness.config import Strict


class Settings(Strict):
    """Limits and switches of `create_app`; the defaults suit a machine with two cores."""

    max_bytes: PositiveInt = 200_000_000
    """largest upload"""
    max_seconds: PositiveFloat = 3600.0
    """longest sound"""
    max_window_seconds: PositiveFloat = 60.0
    """longest stretch that a request may have captioned as a whole: memory grows with it"""
    max_windows: PositiveInt = 4000
    """most windows that a request may cut a sound into"""
    max_beams: PositiveInt = 16
    """most beams, and most captions of a sound"""
    max_requests: PositiveInt = 64
    """requests that are received, waiting or being captioned; beyond it the answer is 429"""
    max_connections: PositiveInt = 512
    """open connections; fewer where the process may not open that many files"""
    timeout_seconds: PositiveFloat = 300.0
    """time for an upload to arrive, and again for its captions"""
    batch_size: PositiveInt = 8
    """windows, from any requests, that go through the model together"""
    batch_wait_ms: NonNegativeFloat = 5.0
    """how long an idle model waits for more windows to join the first"""
    decoder_threads: PositiveInt = 4
    """sounds that are decoded at the same time"""
    silence_db: float = -60.0
    """level of the loudest 0.1 s, dB of full scale, below which there is no sound"""
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    """names, or `*.example.org`, under which the service may be asked; `*` for any"""
    any_address: bool = False
    """whether it may also be asked by any IP address instead of a name"""
    api_keys: tuple[str, ...] = Field(default=(), repr=False)
    """a request needs one of them as a bearer token; none: no key is asked for"""
    aliases: tuple[str, ...] = ("whisper-1",)
    """further names of the model, for tools with a fixed model name"""
    demo: bool = True
    """whether the web page is served"""
    demo_max_seconds: PositiveFloat = 900.0
    """longest sound on the web page, which draws all of it"""
