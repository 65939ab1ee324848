"""# Evaluate a captioner

Captions against references: scores with intervals, and whether one captioner is better than another. The scores here need
nothing but `pip install earwitness`; `earwitness doctor evaluate` says what METEOR, SPICE and FENSE need.
"""

# ## Captions and references
#
# Several references per clip are usual: people describe the same sound in different words. Four clips are far too few for
# a conclusion, and the intervals below say so.

from earwitness import Captioner, evaluate

references = {
    "storm": ["heavy rain falls and thunder rumbles", "a thunderstorm with rain on a roof"],
    "siren": ["a siren wails", "an emergency siren is sounding"],
    "clock": ["a clock is ticking", "the steady ticking of a clock"],
    "alarm": ["an alarm beeps again and again", "a repeated electronic beep"],
}
files = [f"examples/{name}.flac" for name in references]
first = [one.text for one in Captioner.load("pocket-lamb").caption_batch(files)]
for name, text in zip(references, first, strict=True):
    print(f"{name}: {text}")

# ## Scores
#
# Each corpus score has a bootstrap 95 % interval over clips.

metrics = ["cider_d", "rouge_l", "bleu"]
scores = evaluate(first, list(references.values()), metrics=metrics)
for name, score in scores.corpus.items():
    print(f"{name:8} {score.value:.3f} [{score.interval[0]:.3f}, {score.interval[1]:.3f}]")

# ## Which clips are bad
#
# `per_clip` holds the scores of each clip.

for name, clip in zip(references, scores.per_clip, strict=True):
    print(f"{name}: rouge_l {clip['rouge_l']:.2f}")

# ## Is another captioner better?
#
# `compare` pairs the two over the same clips. A difference whose interval contains 0 is not one that these clips can show.

from earwitness.evaluation import compare

second = [one.text for one in Captioner.load("pocket-link").caption_batch(files)]
other = evaluate(second, list(references.values()), metrics=metrics)
found = compare([scores], [other])
for name in ("cider_d", "rouge_l"):
    d = found[name]
    print(f"{name}: {d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p = {d.p:.2f}")

# On the command line, with tables on disk and a page to listen to:
# `earwitness evaluate captions.csv references.csv --against other.csv --html report.html --audio clips/`.
