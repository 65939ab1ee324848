// Which captions fit the sounds that the class head finds: the rules of earwitness.captioning.heard.

import { NOTHING } from "./segments.js";
import { table } from "./weights.js";

const EDGE = 1e-3;

/** The class head of `facts` with the weights in the safetensors `file`. */
export function openClasses(facts, file) {
  const weight = table(file, "linear.weight");
  const rows = Array.from({ length: weight.count }, (_, k) => weight.rows([k]));
  const bias = table(file, "linear.bias").rows(rows.map((_, k) => k));
  const words = facts.words.map((names) => new Set(names));
  return { ...facts, words, rows, bias };
}

/** Probabilities of the classes over `count` frames of `data` from frame `first` on. */
function probabilities(classes, data, first, count) {
  const width = classes.dim;
  const pooled = new Float64Array(2 * width).fill(0).fill(-Infinity, width);
  for (let frame = first; frame < first + count; frame++) {
    for (let i = 0; i < width; i++) {
      const x = data[frame * width + i];
      pooled[i] += x / count;
      if (x > pooled[width + i]) pooled[width + i] = x;
    }
  }
  const logits = classes.rows.map(
    (row, k) => (row.reduce((sum, w, i) => sum + w * pooled[i], 0) + classes.bias[k]) / classes.temperature,
  );
  const top = Math.max(...logits);
  const grown = logits.map((x) => Math.exp(x - top));
  const total = grown.reduce((sum, x) => sum + x, 0);
  return grown.map((x) => x / total);
}

/** Probabilities of the classes over all frames, and the highest over all and in a part. */
function heard(classes, { data, dims }) {
  const count = dims[1];
  const size = Math.max(1, Math.round(classes.part_s * classes.frame_rate));
  const whole = probabilities(classes, data, 0, count);
  const anywhere = [...whole];
  for (let first = 0; count > size && first + size <= count; first += size >> 1) {
    probabilities(classes, data, first, size).forEach((p, k) => (anywhere[k] = Math.max(anywhere[k], p)));
  }
  return { whole, anywhere };
}

const wordsOf = (text) =>
  text.normalize("NFKD").toLowerCase().replaceAll("'", "").replace(/[^\w\s]|_/g, " ").split(/\s+/).filter(Boolean);

/** Words and pairs of neighboring words, with their counts. */
function grams(text) {
  const words = wordsOf(text);
  const found = new Map();
  const add = (gram) => found.set(gram, (found.get(gram) ?? 0) + 1);
  words.forEach(add);
  words.slice(1).forEach((word, i) => add(`${words[i]} ${word}`));
  return found;
}

function overlap(left, right) {
  const total = (map) => [...map.values()].reduce((sum, n) => sum + n, 0);
  const size = total(left) + total(right);
  let shared = 0;
  for (const [gram, n] of left) shared += Math.min(n, right.get(gram) ?? 0);
  return size ? (2 * shared) / size : 1;
}

/** How far each caption agrees with the others, weighted by their scores. */
function agreements(captions) {
  const counts = captions.map((one) => grams(one.caption));
  return captions.map((_, i) => {
    let [total, gained] = [0, 0];
    captions.forEach(({ score }, j) => {
      if (j === i || !counts[j].size) return;
      total += score;
      gained += score * overlap(counts[i], counts[j]);
    });
    return counts[i].size && total ? gained / total : 0;
  });
}

/** The probability of the classes that a caption names, at most 1. */
function support(classes, text, probability) {
  const words = wordsOf(text);
  const named = classes.words.map((names) => words.some((word) => names.has(word)));
  return Math.min(1, probability.reduce((sum, p, k) => sum + (named[k] ? p : 0), 0));
}

/** Whether the best candidate does not name what is clearly heard. */
function misses(classes, best, likeliest, sure) {
  if (best.score < classes.least_support && sure >= classes.least_probability) return true;
  const named = wordsOf(best.caption).some((word) => classes.words[likeliest].has(word));
  return sure >= classes.sure_probability && !named;
}

/** The captions, as {caption, score}, best first; if none names what is heard, before them the
 * sentence of its class. `frames` are the encoder's. */
export function ordered(classes, captions, frames) {
  const { whole, anywhere } = heard(classes, frames);
  const agreed = agreements(captions);
  const rows = captions.map((one, i) => {
    const score = support(classes, one.caption, anywhere);
    return { ...one, score, merit: agreed[i] + classes.weight * score };
  });
  rows.sort((a, b) => b.merit - a.merit);
  const likeliest = whole.indexOf(Math.max(...whole));
  const sure = whole[likeliest];
  if (rows.length && misses(classes, rows[0], likeliest, sure)) {
    const [caption] = classes.sentences[likeliest];
    rows.unshift({ caption, score: Math.max(sure, support(classes, caption, anywhere)) });
  }
  const scored = rows.map(({ caption, score }) => ({ caption, score: chance(classes, score) }));
  if (scored.length && scored[0].score < classes.least_score) scored[0].caption = NOTHING;
  return scored;
}

/** The chance that a caption with this support is right. */
function chance({ calibration: [slope, shift] }, support) {
  const inside = Math.min(Math.max(support, EDGE), 1 - EDGE);
  return 1 / (1 + Math.exp(-slope * Math.log(inside / (1 - inside)) - shift));
}
