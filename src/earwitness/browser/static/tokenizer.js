// Token ids to text, for byte-level tokenizers in the format of Hugging Face's tokenizer.json.

/** The bytes that byte-level BPE writes as other characters (GPT-2's table), by character. */
function byteOfCharacter() {
  const printable = (b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
  const table = new Map();
  let next = 256;
  for (let b = 0; b < 256; b++) table.set(String.fromCodePoint(printable(b) ? b : next++), b);
  return table;
}

/** `decode(ids)` is the text of tokens; special ones are left out, spaces are single. */
export function openTokenizer(json) {
  if (json.decoder?.type !== "ByteLevel") {
    throw new Error(`tokenizer with a ${json.decoder?.type} decoder; expected ByteLevel`);
  }
  const names = new Map(Object.entries(json.model.vocab).map(([name, id]) => [id, name]));
  const special = new Set(json.added_tokens.filter((t) => t.special).map((t) => t.id));
  const bytes = byteOfCharacter();
  return {
    decode(ids) {
      const written = ids.filter((id) => !special.has(id)).map((id) => names.get(id) ?? "").join("");
      const raw = Uint8Array.from([...written].map((c) => bytes.get(c) ?? 63));
      return new TextDecoder().decode(raw).split(/\s+/).filter(Boolean).join(" ");
    },
  };
}
