"""Published sizes of the data sets, compared with what was read."""

from earwitness.data.prepare.entries import Count, Reading

# Captions and clips by part, split and release. AudioCaps: the releases' own README files;
# Clotho: Zenodo record 4783391 and its CSV files; WavCaps: arXiv 2303.17395, Table 1; MACS: Zenodo
# record 5114771 and Martin and Mesaros 2021.
PUBLISHED: dict[tuple[str, str], dict[str, tuple[int, int]]] = {
    ("audiocaps", "train"): {
        "AudioCaps 1.0": (49_838, 49_838),
        "AudioCaps 2.0": (91_256, 91_256),
    },
    ("audiocaps", "validation"): {"AudioCaps 1.0 and 2.0": (2_475, 495)},
    ("audiocaps", "test"): {"AudioCaps 1.0 and 2.0": (4_875, 975)},
    ("clotho", "train"): {"Clotho 1": (14_465, 2_893), "Clotho 2.1": (19_195, 3_839)},
    ("clotho", "validation"): {"Clotho 2.1": (5_225, 1_045)},
    ("clotho", "test"): {"Clotho 2.1": (5_225, 1_045)},
    ("wavcaps/AudioSet_SL", "train"): {"WavCaps": (108_317, 108_317)},
    ("wavcaps/BBC_Sound_Effects", "train"): {"WavCaps": (31_201, 31_201)},
    ("wavcaps/FreeSound", "train"): {"WavCaps": (262_300, 262_300)},
    ("wavcaps/SoundBible", "train"): {"WavCaps": (1_232, 1_232)},
    ("macs", "train"): {"MACS": (17_275, 3_930)},
}
WAVCAPS_CLIPS = 403_050
LAMB_AUDIOCAPS_CLIPS = 48_595


def compare(reading: Reading, read: dict[str, int], found: dict[str, int]) -> list[Count]:
    """Captions read and clips found, compared with the published numbers.

    `read` counts captions, `found` clips, both by "part split". Of several releases, the one with
    the closest number of captions is used. LAMB's number of AudioCaps clips is reported, but not
    binding.
    """
    counts = []
    for part, split in dict.fromkeys(reading.releases):
        if (part, split) not in PUBLISHED:
            continue
        key = f"{part} {split}"
        captions = read.get(key, 0)
        releases = PUBLISHED[part, split]
        name = min(releases, key=lambda release: abs(releases[release][0] - captions))
        counts += [
            Count(f"{key}: captions in the files", captions, releases[name][0], name),
            Count(f"{key}: clips found", found.get(key, 0), releases[name][1], name),
        ]
        if key == "audiocaps train":
            paper = "LAMB, arXiv 2601.04658"
            counts.append(
                Count(f"{key}: clips found", found.get(key, 0), LAMB_AUDIOCAPS_CLIPS, paper, False)
            )
    return counts + _whole_wavcaps(reading, found)


def _whole_wavcaps(reading: Reading, found: dict[str, int]) -> list[Count]:
    if len({part for part, _ in reading.releases if part.startswith("wavcaps/")}) < 4:
        return []
    clips = sum(number for key, number in found.items() if key.startswith("wavcaps/"))
    return [Count("wavcaps: clips found", clips, WAVCAPS_CLIPS, "WavCaps")]
