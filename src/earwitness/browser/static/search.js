// Beam search with the results of Python's earwitness.runtime.search, for one clip at a time.

const NEVER = -1e9;

/** Log-probabilities of a row of scores, in place. */
export function logSoftmax(row) {
  let top = -Infinity;
  for (const x of row) if (x > top) top = x;
  let total = 0;
  for (const x of row) total += Math.exp(x - top);
  const shift = top + Math.log(total);
  for (let i = 0; i < row.length; i++) row[i] -= shift;
  return row;
}

/** Scores of the next token after the tokens `said`: penalties, Token Guide, forbidden words. */
export function nextScores(logits, said, bias, content, settings) {
  const row = Float32Array.from(logits);
  const { repetition_penalty: penalty, no_repeat_ngram: n } = settings;
  if (penalty !== 1 || n > 0) {
    logSoftmax(row);
    for (const id of new Set(said)) row[id] = row[id] < 0 ? row[id] * penalty : row[id] / penalty;
    for (let start = 0; n > 0 && start + n <= said.length; start++) {
      const same = said.slice(start, start + n - 1).every((id, i) => id === said[said.length - n + 1 + i]);
      if (same) row[said[start + n - 1]] = -Infinity;
    }
  }
  if (bias) for (let i = 0; i < row.length; i++) row[i] += bias[i] * settings.guide_strength;
  if (bias || (penalty === 1 && n === 0)) logSoftmax(row);
  if (!settings.repeat_content_words) for (const id of said) if (content.has(id)) row[id] = -Infinity;
  return row;
}

/** The `count` best of [value, beam, token], best first; ties by beam, then token. */
function best(candidates, count) {
  const before = (a, b) => b[0] - a[0] || a[1] - b[1] || a[2] - b[2];
  return candidates.sort(before).slice(0, count);
}

/** The best continuations of each beam that can be among the best of all. */
function continuations(beams, rows, count) {
  const found = [];
  beams.forEach((beam, number) => {
    const row = rows[number];
    const order = topIndices(row, count);
    for (const token of order) found.push([beam.score + row[token], number, token]);
  });
  return best(found, count);
}

function topIndices(row, count) {
  const kept = [];
  for (let i = 0; i < row.length; i++) {
    if (kept.length === count && row[i] <= row[kept[count - 1]]) continue;
    let at = kept.length;
    while (at > 0 && row[kept[at - 1]] < row[i]) at--;
    kept.splice(at, 0, i);
    if (kept.length > count) kept.pop();
  }
  return kept;
}

/**
 * The n-best captions of a clip as {tokens, logProbability}, best first.
 *
 * `model.start()` gives the logits of the first word, `model.step(tokens, parents)` those after one
 * more token per beam. The rules are those of transformers' beam search with early_stopping false:
 * of the 2 K best continuations, those among the first K that end are finished, the K best others
 * run on, until the K finished ones cannot be beaten.
 */
export async function beamSearch(model, bias, content, settings, end) {
  const K = Math.max(settings.beam_size, settings.n_best);
  const longest = settings.max_new_tokens;
  const merit = (score, length) => score / length ** settings.length_penalty;
  let beams = [{ said: [], score: 0 }];
  let rows = [await model.start()];
  let finished = [];
  for (let step = 1; step <= longest; step++) {
    const scores = rows.map((row, i) => nextScores(row, beams[i].said, bias, content, settings));
    const found = continuations(beams, scores, 2 * K);
    const running = [];
    found.forEach(([score, parent, token], rank) => {
      const said = [...beams[parent].said, token];
      const ends = token === end || step === longest;
      if (ends && rank < K) finished.push({ said, score, merit: merit(score, step) });
      if (!ends) running.push({ said, score, parent, token });
    });
    finished = finished.sort((a, b) => b.merit - a.merit).slice(0, K);
    beams = running.slice(0, K);
    const worst = finished.length < K ? NEVER : finished[K - 1].merit;
    if (!beams.length || merit(beams[0].score, step) <= worst || step === longest) break;
    rows = await model.step(beams.map((b) => b.token), beams.map((b) => b.parent));
  }
  return finished.slice(0, settings.n_best).map(({ said, score }) => ({
    tokens: said.at(-1) === end ? said.slice(0, -1) : said,
    logProbability: score / said.length,
  }));
}
