//! Puts code, and text that is shown as it is, into the page, line by line, and keeps it up as it grows: finished lines are never touched again. All of it
//! goes in as text nodes; there is no HTML to make harmless.
//!
//! Lines lie in small runs, so that one more line lays out only its own run, and these in chunks, which the browser
//! leaves out while they are out of sight.

import type { Run } from './highlight';
import type { Line } from './stream';

/** What is laid out anew when a line is added: so many lines at most, or a longer text in UTF-16 units. */
const RUN = 8;
const RUN_TEXT = 2_000;
/** Lines of a chunk. `.lines.whole` in the style sheet has its height. */
export const CHUNK = 48;

export class CodeView {
  #box: Element;
  #lines: readonly Line[] | null = null;
  /** How many lines are in the page, and the nodes of the last: one for each of its runs. */
  #count = 0;
  #last: Line = [];
  #nodes: Node[] = [];
  /** Lines of the chunk that grows; lines and text of its run that grows. */
  #chunkLines = 0;
  #runLines = 0;
  #runText = 0;

  /** `joined`: the lines have no newlines, and get them. */
  constructor(box: Element, private readonly joined = true) {
    this.#box = box;
  }

  /** Brings the page to these lines. Of those that it has already, only the last may be another one. */
  show(lines: readonly Line[]): void {
    if (lines !== this.#lines || lines.length < this.#count - 1) this.#clear();
    this.#lines = lines;
    if (lines.length < this.#count) this.#dropLast();
    else if (this.#count) this.#changeLast(lines[this.#count - 1] ?? []);
    while (this.#count < lines.length) this.#add(lines[this.#count] ?? []);
  }

  #clear(): void {
    this.#box.replaceChildren();
    this.#count = 0;
    this.#last = [];
    this.#nodes = [];
    this.#chunkLines = 0;
  }

  #add(line: Line): void {
    if (this.#count && this.joined) this.#run().append('\n');
    const full = this.#runLines >= RUN || this.#runText + lengthOf(this.#last) >= RUN_TEXT;
    if (!this.#chunkLines || (full && this.#chunkLines >= CHUNK)) {
      // A chunk is left to the browser when it is whole: the one that grows is laid out in any case.
      this.#box.lastElementChild?.classList.add('whole');
      this.#box.append(block('lines'));
      this.#chunkLines = 0;
    }
    if (!this.#chunkLines || full) {
      this.#box.lastElementChild?.append(block('run'));
      this.#runLines = 0;
      this.#runText = 0;
    } else this.#runText += lengthOf(this.#last);
    this.#chunkLines++;
    this.#runLines++;
    this.#count++;
    this.#last = line;
    this.#nodes = line.map(node);
    this.#run().append(...this.#nodes);
  }

  #changeLast(line: Line): void {
    if (line === this.#last) return;
    const before = this.#last;
    let same = 0;
    while (same < before.length && before[same]?.kind === line[same]?.kind && before[same]?.text === line[same]?.text) same++;
    const [old, now, last] = [before[same], line[same], this.#nodes[same]];
    // What grew by a few letters stays the node that it is.
    if (old && now && last && same === before.length - 1 && old.kind === now.kind && now.text.startsWith(old.text)) {
      const text = last.nodeType === Node.TEXT_NODE ? last : last.firstChild;
      (text as Text).appendData(now.text.slice(old.text.length));
      same++;
    }
    for (const gone of this.#nodes.splice(same)) (gone as ChildNode).remove();
    const added = line.slice(same).map(node);
    this.#run().append(...added);
    this.#nodes.push(...added);
    this.#last = line;
  }

  /** Takes the last line away, for it was no line but the beginning of the end. What is left does not change any more. */
  #dropLast(): void {
    for (const gone of this.#nodes) (gone as ChildNode).remove();
    this.#count--;
    if (!--this.#runLines) this.#run().remove();
    if (!--this.#chunkLines) {
      this.#box.lastElementChild?.remove();
      this.#box.lastElementChild?.classList.remove('whole');
    }
    // The newline that led to it.
    if (this.#count && this.joined) this.#run().lastChild?.remove();
    this.#last = this.#lines?.[this.#count - 1] ?? [];
    this.#nodes = this.#count ? [...this.#run().childNodes].slice(-this.#last.length || Infinity) : [];
  }

  #run(): Element {
    return this.#box.lastElementChild?.lastElementChild ?? this.#box;
  }
}

const lengthOf = (line: Line): number => line.reduce((sum, { text }) => sum + text.length, 0);

function block(name: string): Element {
  const made = document.createElement('span');
  made.className = name;
  return made;
}

function node({ kind, text }: Run): Node {
  if (!kind) return document.createTextNode(text);
  const made = block(`h-${kind}`);
  made.textContent = text;
  return made;
}
