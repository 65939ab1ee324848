// The captioner beside the page, so that the page stays responsive.

import { openCaptioner } from "./captioner.js";
import { NOTHING, isSilent, settled, sounding, windows } from "./segments.js";

let captioner = null;

async function open() {
  captioner ??= await openCaptioner(new URL("./model/", self.location.href), (loaded, total) =>
    postMessage({ kind: "loading", loaded, total }),
  );
  postMessage({ kind: "ready", sampleRate: captioner.sampleRate, name: captioner.facts.name });
}

async function caption(job, samples) {
  const rate = captioner.sampleRate;
  const parts = windows(samples.length, rate);
  const segments = [];
  for (const [index, [first, last]] of parts.entries()) {
    const part = samples.subarray(first, last);
    const [best] = isSilent(part, rate) ? [{ caption: NOTHING, score: null }] : await captioner.caption(sounding(part, rate));
    segments.push({ start: first / rate, end: last / rate, caption: best.caption || NOTHING, score: best.score });
    postMessage({ kind: "segments", job, segments: settled(segments), done: (index + 1) / parts.length });
  }
  postMessage({ kind: "finished", job });
}

let queue = Promise.resolve();
self.onmessage = ({ data }) => {
  const work = data.kind === "open" ? open : () => caption(data.job, data.samples);
  queue = queue.then(work).catch((error) => postMessage({ kind: "error", job: data.job, message: error.message }));
};
