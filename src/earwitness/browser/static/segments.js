// Long sounds as windows, and their captions as segments: the rules of earwitness.captioning.

export const NOTHING = "no distinct sound";
const SILENCE_DB = -60;

/** [first sample, last sample + 1] of each window: a sound up to `whole` seconds is one. */
export function windows(length, rate, { window = 10, whole = 15 } = {}) {
  const size = Math.round(window * rate);
  if (length <= Math.round(whole * rate)) return [[0, length]];
  const found = [];
  for (let start = 0; start + size <= length; start += size) found.push([start, start + size]);
  if (found.at(-1)[1] < length) found.push([length - size, length]);
  return found;
}

/** Level (RMS) of the loudest 0.1 s, in dBFS. */
export function levelDb(samples, rate) {
  const step = Math.max(1, Math.min(samples.length, Math.round(0.1 * rate)));
  let loudest = 0;
  for (let start = 0; start < samples.length; start += step) {
    let energy = 0;
    for (let i = start; i < Math.min(samples.length, start + step); i++) energy += samples[i] ** 2;
    loudest = Math.max(loudest, energy / step);
  }
  return loudest > 0 ? 10 * Math.log10(loudest) : -Infinity;
}

export const isSilent = (samples, rate) => levelDb(samples, rate) < SILENCE_DB;

/** The part from the first to the last 0.1 s that is no silence; all if none is. Models hear the silence
 *  around a sound as a part of it. */
export function sounding(samples, rate) {
  const step = Math.round(0.1 * rate);
  const loud = [];
  for (let start = 0; start < samples.length; start += step) {
    const energy = samples.subarray(start, start + step).reduce((sum, x) => sum + x * x, 0);
    if (energy >= step * 10 ** (SILENCE_DB / 10)) loud.push(start);
  }
  return loud.length ? samples.subarray(loud[0], loud.at(-1) + step) : samples;
}

/** Overlapping neighbors set side by side, and those with the same caption joined. */
export function settled(segments) {
  const placed = segments.map((segment) => ({ ...segment }));
  for (let i = 1; i < placed.length; i++) {
    const border = (placed[i - 1].end + placed[i].start) / 2;
    placed[i - 1].end = placed[i].start = border;
  }
  const joined = [];
  for (const segment of placed) {
    const last = joined.at(-1);
    if (last && last.caption === segment.caption) {
      const [a, b] = [last.end - last.start, segment.end - segment.start];
      if (last.score !== null) last.score = (last.score * a + segment.score * b) / (a + b);
      last.end = segment.end;
    } else {
      joined.push(segment);
    }
  }
  return joined;
}

const two = (n) => String(n).padStart(2, "0");

/** Seconds as 00:00:00,000. */
export function stamp(seconds, comma = ",") {
  const ms = Math.round(seconds * 1000);
  const [h, m, s] = [Math.floor(ms / 3600000), Math.floor(ms / 60000) % 60, Math.floor(ms / 1000) % 60];
  return `${two(h)}:${two(m)}:${two(s)}${comma}${String(ms % 1000).padStart(3, "0")}`;
}

/** SubRip subtitles of the segments with a sound, in square brackets. */
export function toSrt(segments) {
  const text = (caption) => `[${caption.replace(/^(an?|the|some)\s+/i, "")}]`;
  return segments
    .filter((segment) => segment.caption !== NOTHING)
    .map((s, i) => `${i + 1}\n${stamp(s.start)} --> ${stamp(s.end)}\n${text(s.caption)}\n`)
    .join("\n");
}
