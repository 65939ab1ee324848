"""Summary of a preparation for the terminal."""

from collections import Counter

from earwitness.data.prepare.build import Prepared

_NOTES = 12


def summary(done: Prepared) -> str:
    """Rows, clips, captions, what was left out, the published counts, and the files written."""
    reading, clips = done.reading, done.clips
    captions = sum(len(clip.entry.captions) for clip in clips)
    hours = sum(clip.seconds for clip in clips) / 3600
    lines = [
        f"rows read      {reading.rows:,}",
        f"clips named    {len(reading.entries):,}, found {done.found:,}",
        f"clips written  {len(clips):,} ({hours:,.2f} h, {captions:,} captions)",
    ]
    if reading.duplicates:
        lines.append(f"duplicates     {reading.duplicates:,} repeated captions of a clip")
    kinds = Counter(problem.kind for problem in done.problems)
    for kind, number in kinds.items():
        lines.append(f"{kind:<14} {number:,}")
    for path, number in done.excluded.items():
        lines.append(f"excluded by    {path}: {number:,}")
    for count in done.counts:
        lines.append(
            f"published      {count.what} {count.found:,}; {count.source} {count.published:,}; "
            f"difference {count.difference:+,}"
        )
    lines += [f"note           {note}" for note in reading.notes[:_NOTES]]
    if len(reading.notes) > _NOTES:
        lines.append(f"note           {len(reading.notes) - _NOTES} more in the report")
    splits = Counter(clip.entry.split for clip in clips)
    for split, path in done.manifests.items():
        lines.append(f"wrote          {path} ({split}, {splits[split]:,} clips)")
    lines += [f"wrote          {path}/ ({split}, shards)" for split, path in done.shards.items()]
    if done.problems:
        lines.append(f"wrote          {done.problem_file}")
    return "\n".join([*lines, f"wrote          {done.report_file}"])
