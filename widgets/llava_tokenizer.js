// Byte-level byte-pair encoding, as `tokenizer.json` of Hugging Face describes it and GPT-2 introduced it.

// GPT-2's words; \s and \S are spelled out because JavaScript's differ from Unicode's white space
const WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

class Tokenizer {
  constructor(json) {
    refuseUnknownTokenizer(json);
    this.ids = new Map(Object.entries(json.model.vocab));
    this.pieces = new Map([...this.ids].map(([piece, id]) => [id, piece]));
    const pairs = json.model.merges.map((merge) => (Array.isArray(merge) ? merge.join(" ") : merge));
    this.ranks = new Map(pairs.map((pair, rank) => [pair, rank]));
    this.added = new Map(json.added_tokens.map(({ content, id }) => [content, id]));
    this.special = new Set(json.added_tokens.filter(({ special }) => special).map(({ id }) => id));
    for (const [content, id] of this.added) this.pieces.set(id, content);
    const longestFirst = [...this.added.keys()].sort((a, b) => b.length - a.length);
    this.splitter = new RegExp(`(${longestFirst.map(escapeForRegExp).join("|")})`, "u");
    const template = json.post_processor?.single ?? [{ Sequence: {} }];
    this.template = template.map((part) => ("Sequence" in part ? undefined : this.added.get(part.SpecialToken.id)));
    [this.byteToCharacter, this.characterToByte] = byteAlphabet();
    this.known = new Map();
  }

  /** Ids of a text, with what the template puts around it (`<s>` before it). */
  encode(text) {
    const own = text.split(this.splitter).flatMap((part) => (this.added.has(part) ? this.added.get(part) : this.plain(part)));
    return this.template.flatMap((id) => id ?? own);
  }

  plain(text) {
    return (text.match(WORDS) ?? []).flatMap((word) => this.word(word));
  }

  word(word) {
    if (!this.known.has(word)) {
      const characters = Array.from(new TextEncoder().encode(word), (byte) => this.byteToCharacter[byte]);
      this.known.set(word, this.merged(characters).map((piece) => this.ids.get(piece)));
    }
    return this.known.get(word);
  }

  /** Pieces of a word: the pair that was learned first is merged everywhere, until no known pair is left. */
  merged(pieces) {
    for (;;) {
      let best = Infinity;
      for (let i = 0; i + 1 < pieces.length; i += 1) {
        best = Math.min(best, this.ranks.get(`${pieces[i]} ${pieces[i + 1]}`) ?? Infinity);
      }
      if (best === Infinity) return pieces;
      const next = [];
      for (let i = 0; i < pieces.length; i += 1) {
        const pair = this.ranks.get(`${pieces[i]} ${pieces[i + 1]}`) === best;
        next.push(pair ? pieces[i] + pieces[i + 1] : pieces[i]);
        i += pair;
      }
      pieces = next;
    }
  }

  /** A function that turns ids, one after the other, into pieces of text; `undefined` flushes. Specials are silent. */
  streamDecoder() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return (id) => {
      if (id === undefined) return decoder.decode();
      if (this.special.has(id)) return "";
      return decoder.decode(this.bytesOf(id), { stream: true });
    };
  }

  bytesOf(id) {
    const piece = this.pieces.get(id) ?? "";
    if (this.added.has(piece)) return new TextEncoder().encode(piece);
    return Uint8Array.from(piece, (character) => this.characterToByte.get(character));
  }

  decode(ids) {
    const next = this.streamDecoder();
    return ids.map(next).join("") + next(undefined);
  }
}

function refuseUnknownTokenizer({ model, normalizer, pre_tokenizer: words, post_processor: around, added_tokens: added }) {
  const reasons = {
    "a model other than byte-level BPE": model?.type !== "BPE" || model.byte_fallback || model.ignore_merges,
    "a normalizer": Boolean(normalizer),
    "another split into words than GPT-2's": words?.type !== "ByteLevel" || words.add_prefix_space || words.use_regex === false,
    "added tokens that ask for more than their text": added.some((token) => token.lstrip || token.rstrip || token.single_word),
    "an unknown post-processor": around && around.type !== "TemplateProcessing",
  };
  const reason = Object.keys(reasons).find((name) => reasons[name]);
  if (reason) throw new Error(`tokenizer.json has ${reason}, which the engine does not support.`);
}

const escapeForRegExp = (text) => text.replace(/[.*+?^${}()|[\]\\\/]/g, "\\$&");

/** GPT-2's one printable character for each byte: itself where it is visible, else the next one from 256 on. */
function byteAlphabet() {
  const visible = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  const characters = Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(visible(byte) ? byte : next++));
  return [characters, new Map(characters.map((character, byte) => [character, byte]))];
}
