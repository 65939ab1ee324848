"""# Fine-tune on five clips

Continue training the shipped captioner on your own clips and sentences. Five clips teach it nothing about the world; they
show the whole workflow in seconds. [Fine-tune on your own clips](../finetune.md) does it with hundreds and measures the result.
This needs `earwitness[train]`.
"""

# ## Five clips and a manifest
#
# Pieces of the example sounds, with sentences in a house style. A manifest is a CSV file with the sound and its captions;
# `earwitness prepare csv` writes one from a table and splits it by recording.

import csv
from pathlib import Path

import soundfile

sentences = {"siren": "evacuate the building", "clock": "the clock is running"}
Path("clips").mkdir()
rows = []
for number in range(5):
    kind = ("siren", "clock")[number % 2]
    samples, rate = soundfile.read(f"examples/{kind}.flac")
    clip = samples[number * rate // 2 :][: 4 * rate]
    soundfile.write(f"clips/{number}.flac", clip, rate)
    rows.append([f"clips/{number}.flac", sentences[kind]])

for name, part in (("train", rows), ("validation", rows[:2])):
    with open(f"mine.{name}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["audio", "caption"], *part])

# ## Before

from earwitness import Captioner

before = Captioner.load("pocket-lamb")
print(before.caption("clips/0.flac").text)

# ## Training
#
# The recipe `finetune_pocket` starts from pocket-lamb, reads `mine.train.csv` and `mine.validation.csv`, and keeps the
# encoder as it is. Its keys are changed as on the command line, where this is
# `earwitness train finetune_pocket --run runs/mine --set fit.epochs=24 ...`.

from earwitness.config import recipe_file
from earwitness.training.stages import run_recipe

changes = ["fit.epochs=24", "fit.batch_size=5", "fit.learning_rate=1e-3", "fit.validate_every=24"]
changes += ["validation.metrics=['cider_d']"]
scores = run_recipe(recipe_file("finetune_pocket"), Path("runs/mine"), changes)
print(f"CIDEr-D on the validation clips: {scores['cider_d']:.2f}")

# ## After
#
# The folder of the best weights is a model like any other. It has forgotten nearly everything else: use it for its own sounds.
# After so few updates a word may still come out short.

after = Captioner.load("runs/mine/best")
print(after.caption("clips/0.flac").text)
print(after.caption("clips/1.flac").text)
