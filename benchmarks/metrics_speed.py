"""Time of the metrics that need no Java: 1,000 clips with 5 references, then the bootstrap.

Run: python benchmarks/metrics_speed.py [--clips 1000] [--references 5] [--resamples 1000]
The captions are random words with Zipf frequencies, about ten words each, as in Clotho.
"""

import argparse
import json
import time

import numpy as np

METRICS = ["bleu", "rouge_l", "cider_d", "vocabulary", "length"]


def captions(rng: np.random.Generator, count: int, vocabulary: int = 4000) -> list[str]:
    """`count` captions of 6 to 16 words, the n-th word of the vocabulary with weight 1 / n."""
    weights = 1.0 / np.arange(1, vocabulary + 1)
    lengths = rng.integers(6, 17, size=count)
    words = rng.choice(vocabulary, size=int(lengths.sum()), p=weights / weights.sum())
    ends = np.cumsum(lengths)[:-1]
    return [" ".join(f"w{word}" for word in part) for part in np.split(words, ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    start = time.perf_counter()
    from earwitness import evaluate

    seconds = {"import": time.perf_counter() - start}
    rng = np.random.default_rng(0)
    candidates = captions(rng, options.clips)
    references = [captions(rng, options.references) for _ in range(options.clips)]
    for name, draws in (("scores", 0), ("scores and bootstrap", options.resamples)):
        start, cpu = time.perf_counter(), time.process_time()
        evaluate(candidates, references, metrics=METRICS, resamples=draws)
        seconds[name] = time.perf_counter() - start
        seconds[f"{name}, processor"] = time.process_time() - cpu
    report = {**vars(options), "seconds": {name: round(s, 3) for name, s in seconds.items()}}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
