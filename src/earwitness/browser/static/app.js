// The page: takes a sound, shows what the captioner hears in it.

import { NOTHING, stamp, toSrt } from "./segments.js";

const $ = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
let sampleRate = 16000;
let job = 0;
let recorder = null;
let name = "sound";

document.body.classList.add("loading");
worker.postMessage({ kind: "open" });
worker.onmessage = ({ data }) => handlers[data.kind](data);
worker.onerror = () => fail("This browser cannot run the model; a current Firefox, Chrome or Safari can.");

const handlers = {
  loading({ loaded, total }) {
    say(`Loading the model: ${megabytes(loaded)} of ${megabytes(total)}`, loaded / total);
  },
  ready(data) {
    sampleRate = data.sampleRate;
    document.body.classList.remove("loading");
    $("record").disabled = !navigator.mediaDevices?.getUserMedia;
    $("file").disabled = false;
    say("Ready");
  },
  segments(data) {
    if (data.job !== job) return;
    show(data.segments);
    say("Listening", data.done);
  },
  finished(data) {
    if (data.job === job) say("Done");
  },
  error(data) {
    if (data.job === undefined || data.job === job) fail(data.message);
  },
};

function say(text, done) {
  $("status").textContent = text;
  $("progress").classList.toggle("idle", done === undefined);
  if (done !== undefined) $("progress").value = done;
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = false;
  say("");
}

async function hear(blob, label) {
  job += 1;
  name = label;
  $("error").hidden = true;
  $("result").hidden = true;
  say("Reading the sound", 0);
  let sound;
  try {
    const context = new OfflineAudioContext(1, 1, sampleRate);
    sound = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    fail(`${label}: this browser cannot read it as sound; WAV, FLAC, MP3 and Opus work everywhere.`);
    return;
  }
  const samples = mono(sound);
  URL.revokeObjectURL($("player").src);
  $("player").src = URL.createObjectURL(blob);
  worker.postMessage({ kind: "caption", job, samples }, [samples.buffer]);
}

/** The mean of the channels. */
function mono(sound) {
  const channels = Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i));
  const samples = Float32Array.from(channels[0]);
  for (const channel of channels.slice(1)) for (let i = 0; i < samples.length; i++) samples[i] += channel[i];
  if (channels.length > 1) for (let i = 0; i < samples.length; i++) samples[i] /= channels.length;
  return samples;
}

function show(segments) {
  const different = [...new Set(segments.map((s) => s.caption).filter((caption) => caption !== NOTHING))];
  $("headline").textContent = different.join("; ") || NOTHING;
  $("segments").replaceChildren(...segments.map(row));
  $("result").hidden = false;
  link("srt", toSrt(segments), "application/x-subrip", "srt");
  link("json", JSON.stringify({ file: name, segments }, null, 2), "application/json", "json");
}

function row({ start, end, caption, score }) {
  const button = document.createElement("button");
  button.type = "button";
  const part = (kind, text) => {
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = text;
    button.append(span);
  };
  const short = (seconds) => stamp(seconds, ".").replace(/^00:/, "").slice(0, -4);
  part("time", `${short(start)} - ${short(end)}`);
  part(caption === NOTHING ? "text nothing" : "text", caption);
  part("score", score === null || caption === NOTHING ? "" : score.toFixed(2));
  button.addEventListener("click", () => {
    $("player").currentTime = start;
    $("player").play();
  });
  const item = document.createElement("li");
  item.append(button);
  return item;
}

function link(id, text, type, ending) {
  URL.revokeObjectURL($(id).href);
  $(id).href = URL.createObjectURL(new Blob([text], { type }));
  $(id).download = `${name.replace(/\.[^.]*$/, "")}.${ending}`;
}

async function record() {
  if (recorder) {
    recorder.stop();
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
  } catch {
    fail("The microphone cannot be used; allow it in the browser's settings, or choose a file.");
    return;
  }
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onstop = () => {
    stream.getTracks().forEach((track) => track.stop());
    pressed(false);
    hear(new Blob(parts, { type: recorder.mimeType }), "recording");
    recorder = null;
  };
  recorder.start();
  pressed(true);
  say("Recording; press again to stop");
}

function pressed(on) {
  $("record").setAttribute("aria-pressed", String(on));
  $("record").textContent = on ? "Stop" : "Record";
}

$("record").addEventListener("click", record);
$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) hear(file, file.name);
  target.value = "";
});
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.querySelector(".input").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" && event.dataTransfer.files[0];
    if (file && !$("file").disabled) hear(file, file.name);
  });
}

if ("serviceWorker" in navigator) navigator.serviceWorker.register("sw.js");
