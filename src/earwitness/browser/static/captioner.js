// A model folder's ONNX graphs in the browser: waveform in, captions out.

import * as ort from "./onnxruntime/ort.wasm.min.mjs";
import { openClasses, ordered } from "./heard.js";
import { beamSearch } from "./search.js";
import { openTokenizer } from "./tokenizer.js";
import { table } from "./weights.js";

const NEVER = -1e9;

ort.env.wasm.wasmPaths = new URL("./onnxruntime/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

const floats = (data, shape) => new ort.Tensor("float32", data, shape);
const integers = (data, shape) => new ort.Tensor("int64", BigInt64Array.from(data, BigInt), shape);

/** The files of `model.json` by name; `onBytes(loaded, total)` reports the progress. */
async function fetchFiles(folder, sizes, onBytes) {
  const total = Object.values(sizes).reduce((sum, size) => sum + size, 0);
  let loaded = 0;
  const files = {};
  for (const name of Object.keys(sizes)) {
    const response = await fetch(new URL(name, folder));
    if (!response.ok) throw new Error(`${name} could not be loaded (${response.status})`);
    const parts = new Uint8Array(sizes[name]);
    let at = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.set(value, at);
      at += value.length;
      onBytes((loaded += value.length), total);
    }
    files[name] = parts;
  }
  return files;
}

/** Opens the model in `folder` (a URL that ends with a slash). */
export async function openCaptioner(folder, onBytes = () => {}) {
  const response = await fetch(new URL("model.json", folder));
  if (!response.ok) throw new Error(`the model could not be loaded (${response.status})`);
  const facts = await response.json();
  const files = await fetchFiles(folder, facts.files, onBytes);
  const externalData = Object.keys(files)
    .filter((name) => name.endsWith(".safetensors"))
    .map((path) => ({ path, data: files[path] }));
  const open = (name) =>
    ort.InferenceSession.create(files[`${name}.onnx`], {
      externalData: externalData.filter(({ path }) => facts.weights[name].includes(path)),
      executionProviders: ["wasm"],
    });
  const sessions = { encoder: await open("encoder"), prefix: await open("prefix"), decoder: await open("decoder") };
  const json = JSON.parse(new TextDecoder().decode(files["decoder/tokenizer.json"]));
  const embeddings = table(files["decoder/model.safetensors"], "model.embed_tokens.weight");
  const head = facts.classes && openClasses(facts.classes, files[facts.classes.file]);
  return new Captioner(facts, sessions, openTokenizer(json), embeddings, head);
}

class Captioner {
  constructor(facts, sessions, tokenizer, embeddings, classes) {
    Object.assign(this, { facts, sessions, tokenizer, embeddings, classes });
    this.sampleRate = facts.runtime.sample_rate;
    this.content = new Set(facts.runtime.content);
  }

  /** The n-best captions of mono samples at `sampleRate`, as {caption, score}, best first. */
  async caption(samples) {
    const h = await this.frames(samples);
    const tokens = await this.sessions.prefix.run({ h });
    const model = new LanguageModel(this, tokens.z);
    const bias = tokens.bias?.data;
    const { decoding, runtime } = this.facts;
    const several = Math.max(decoding.n_best, this.classes?.candidates ?? 1);
    const settings = { ...decoding, n_best: several };
    const found = await beamSearch(model, bias, this.content, settings, runtime.end);
    const captions = found.map(({ tokens: ids, logProbability }) => ({
      caption: this.tokenizer.decode(ids),
      score: Math.exp(logProbability),
    }));
    const best = this.classes ? ordered(this.classes, captions, this.classFrames ?? h) : captions;
    return best.slice(0, decoding.n_best);
  }

  /** The encoder's frames, or the mean of its embeddings of the windows. */
  async frames(samples) {
    const { shortest, windows } = this.facts.runtime;
    if (samples.length < shortest) {
      const padded = new Float32Array(shortest);
      padded.set(samples);
      samples = padded;
    }
    if (!windows) return this.encoded(samples);
    const last = Math.max(samples.length - windows.size, 0);
    let sum = null;
    let shape = null;
    for (let start = 0; ; start = Math.min(start + windows.stride, last)) {
      const h = await this.encoded(samples.subarray(start, start + windows.size));
      shape = h.dims;
      sum = sum ? sum.map((x, i) => x + h.data[i]) : Float32Array.from(h.data);
      if (start === last) break;
    }
    const norm = Math.max(Math.hypot(...sum), 1e-12);
    return floats(sum.map((x) => x / norm), shape);
  }

  async encoded(samples) {
    const waveform = floats(Float32Array.from(samples), [1, samples.length]);
    const found = await this.sessions.encoder.run({ waveform });
    this.classFrames = found.frames;
    return found.h;
  }
}

/** Logits of the next token after a clip's audio tokens and the captions so far. */
class LanguageModel {
  constructor({ facts, sessions, embeddings }, z) {
    Object.assign(this, { runtime: facts.runtime, session: sessions.decoder, embeddings, z });
    this.keys = Array.from({ length: this.runtime.layers }, (_, i) => [`key_${i}`, `value_${i}`]).flat();
    this.steps = 0;
  }

  async start() {
    const { before, after, key_heads: heads, head_dim: width } = this.runtime;
    const [, count, dim] = this.z.dims;
    const parts = [this.embeddings.rows(before), this.z.data, this.embeddings.rows(after)];
    this.length = before.length + count + after.length;
    const embeds = new Float32Array(this.length * dim);
    let at = 0;
    for (const part of parts) {
      embeds.set(part, at);
      at += part.length;
    }
    const mask = new Float32Array(this.length ** 2);
    for (let row = 0; row < this.length; row++) mask.fill(NEVER, row * this.length + row + 1, (row + 1) * this.length);
    const feed = {
      embeds: floats(embeds, [1, this.length, dim]),
      positions: integers([...Array(this.length).keys()], [1, this.length]),
      mask: floats(mask, [1, 1, this.length, this.length]),
      parents: integers([0], [1]),
      // Nothing was read before: one key that never counts takes its place.
      prompt_mask: floats(Float32Array.of(NEVER), [1, 1, 1, 1]),
    };
    for (const name of this.keys) {
      feed[`prompt_${name}`] = floats(new Float32Array(heads * width), [1, heads, 1, width]);
      feed[name] = floats(new Float32Array(0), [1, heads, 0, width]);
    }
    const found = await this.session.run(feed);
    this.prompt = Object.fromEntries(this.keys.map((name) => [`prompt_${name}`, found[`new_${name}`]]));
    this.prompt.prompt_mask = floats(new Float32Array(this.length), [1, 1, 1, this.length]);
    this.beams = Object.fromEntries(this.keys.map((name) => [name, floats(new Float32Array(0), [1, heads, 0, width])]));
    return found.logits.data.slice(-this.embeddings.count);
  }

  async step(tokens, parents) {
    const rows = tokens.length;
    const found = await this.session.run({
      embeds: floats(this.embeddings.rows(tokens), [rows, 1, this.embeddings.width]),
      positions: integers(Array(rows).fill(this.length + this.steps), [rows, 1]),
      mask: floats(new Float32Array(1), [1, 1, 1, 1]),
      parents: integers(this.steps ? parents : Array(rows).fill(0), [rows]),
      ...this.prompt,
      ...this.beams,
    });
    this.beams = Object.fromEntries(this.keys.map((name) => [name, found[`new_${name}`]]));
    this.steps += 1;
    const size = this.embeddings.count;
    return tokens.map((_, row) => found.logits.data.subarray(row * size, (row + 1) * size));
  }
}
