"""# Captions and subtitles

One sound, the best captions of a sound, a long recording, and subtitles beside lines of speech. Nothing but
`pip install earwitness` is needed.
"""

# ## One sound
#
# The model is loaded once and captions whatever file, bytes or array it is given.

from earwitness import Captioner

captioner = Captioner.load("pocket-lamb")
print(captioner.caption("examples/siren.flac").text)

# The score is the probability of what the caption names: how confident the model is, not whether it is right.

for caption in captioner.n_best("examples/storm.flac", 3):
    print(f"{caption.score:.2f}  {caption.text}")

# ## A long recording
#
# Here, three sounds with pauses between them. Every second belongs to one segment; a silent segment says so in `gate`.

import numpy as np
import soundfile

from earwitness.captioning.local import caption_segments

parts = []
for name in ("storm", "siren", "clock"):
    samples, rate = soundfile.read(f"examples/{name}.flac")
    parts += [samples, np.zeros(10 * rate)]
soundfile.write("evening.flac", np.concatenate(parts), rate)

segments = caption_segments(captioner, "evening.flac")
for segment in segments:
    print(f"{segment.start:5.1f} to {segment.end:5.1f} s  {segment.caption}")

# ## Subtitles
#
# Sounds go into the gaps between the lines of speech, in brackets, as in subtitles for the deaf and hard of
# hearing.

from earwitness.captioning.subtitles import Cue, add_sounds, parse, to_srt

speech = parse("1\n00:00:01,000 --> 00:00:03,500\nClose the window, will you?\n")
sounds = [Cue(one.start, one.end, one.caption) for one in segments if one.gate is None]
subtitles, left_out = add_sounds(speech, sounds)
print(to_srt(subtitles))

# The command line does the same: `earwitness caption evening.flac --merge speech.srt -o evening.srt`.
