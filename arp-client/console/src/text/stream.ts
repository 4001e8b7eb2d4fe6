//! A text of an agent as blocks, kept up as it grows: what is finished is neither read nor made anew. A fenced block of
//! code comes in lines, so that only the last of them is.

import { closeLines } from './bidi';
import { colourLine, type Carry, type Run } from './highlight';
import { endsRun, LONGEST_TEXT, noLinks, readBlocks, refers, type Block, type Links, type SafeHtml } from './markdown';

/** How a fenced block begins. */
const OPENING = /^( {0,3})(`{3,}|~{3,})([^\n`]*)\n/;
/** An open line that is longer has no colour before it is whole, in UTF-16 units: it would be read anew each time. */
const LONGEST_OPEN = 1_000;

/** A line of code as it is drawn, without its newline. Never changed: a line that grew is another one. */
export type Line = readonly Run[];
/** A block of code. While it grows `lines` is the same list: lines are added, and only the last is ever replaced. */
export interface Code { kind: 'code'; lang: string; lines: readonly Line[] }
/** A text that is shown as it is; its lines have their newlines. Grows as code does. */
export interface Plain { kind: 'plain'; lines: readonly Line[] }
export interface Html { kind: 'html'; source: string; html: SafeHtml }
export type Piece = Code | Plain | Html;

/** A line of plain text that is longer is cut, where there is a space: each part is laid out by itself. In UTF-16 units. */
const LONGEST_PART = 2_000;

/** A line as parts that end where they would however much more is to come. */
function cut(line: string): Line[] {
  const made: Line[] = [];
  let at = 0;
  while (line.length - at > LONGEST_PART) {
    const space = line.lastIndexOf(' ', at + LONGEST_PART - 1) + 1;
    let end = space > at + LONGEST_PART / 2 ? space : at + LONGEST_PART;
    // No character is cut in two.
    if (/[\ud800-\udbff]/.test(line.charAt(end - 1))) end--;
    made.push([{ kind: '', text: line.slice(at, end) }]);
    at = end;
  }
  if (at < line.length) made.push([{ kind: '', text: line.slice(at) }]);
  return made;
}

/** Plain text that is being read. `ends`: the next blank line or fence is no part of it. */
interface OpenPlain {
  lines: Line[];
  ends: boolean;
  /** Where the first line begins that is not whole; how much of it is in `lines` for good, and is the rest, too? */
  at: number;
  shown: number;
}

/** Code that is being read. */
interface OpenCode {
  lang: string;
  lines: Line[];
  /** A line that ends it. */
  closing: RegExp;
  /** Spaces by which the fence itself stands in, which its lines lose. */
  indent: RegExp | null;
  /** Where the first line begins that is not whole; is it among the lines already? */
  at: number;
  shown: boolean;
  /** What the lines so far left open. */
  carry: Carry;
}

export class Reader {
  /** What was given, and what is read: with line ends of one kind, and each line's turns of direction closed. */
  #given = '';
  #text = '';
  /** Where the last line that is not whole begins, in either. */
  #givenLine = 0;
  #textLine = 0;
  /** Pieces of what lies before `#at`; what follows is made anew each time. */
  #done: Piece[] = [];
  #at = 0;
  #code: OpenCode | null = null;
  #plain: OpenPlain | null = null;
  /** Definitions that lie before `#at`, and those that the pieces there were made with: the tail may bring more. */
  #links: Links = noLinks();
  #used: Links = noLinks();

  /** The pieces of `text`. Cheap when it begins with the whole lines of the last call. */
  read(given: string): Piece[] {
    if (!given.startsWith(this.#given.slice(0, this.#givenLine))) this.#reset();
    this.#take(given);
    for (;;) {
      if (this.#code) {
        const open = this.#readCode(this.#code);
        if (open) return [...this.#done, open];
      }
      if (this.#plain) {
        const open = this.#readPlain(this.#plain);
        if (open) return open.lines.length ? [...this.#done, open] : this.#done;
      }
      const left = LONGEST_TEXT - this.#at;
      if (left <= 0) {
        this.#beginPlain(false);
        continue;
      }
      const tail = this.#text.slice(this.#at, LONGEST_TEXT);
      const opening = OPENING.exec(tail);
      if (opening) {
        this.#begin(opening);
        continue;
      }
      const blocks = this.#blocks(tail);
      // The last block may still grow; all before it stay as they are. A fence ends what is before it.
      const fence = fenceIn(tail, blocks);
      const last = blocks[blocks.length - 1];
      const from = last?.from ?? 0;
      // Text that is shown as it is grows by lines. Else it is not known to be a block before its first line is whole:
      // `2` may become the second item of a list.
      const plain = fence === null && last?.html === null;
      const full = fence === null && !plain && tail.length >= left;
      const stable = fence ?? (full ? tail.length : plain || tail.indexOf('\n', from) >= 0 ? from : 0);
      if (!stable && !plain) return [...this.#done, ...blocks.map(piece)];
      this.#done = [...this.#done, ...blocks.filter((block) => block.from < stable).map(piece)];
      this.#at += stable;
      if (!equal(this.#links, this.#used)) readBlocks(tail.slice(0, stable), this.#links);
      if (plain) this.#beginPlain(true);
    }
  }

  #reset(): void {
    this.#given = '';
    this.#text = '';
    this.#givenLine = 0;
    this.#textLine = 0;
    this.#done = [];
    this.#at = 0;
    this.#code = null;
    this.#plain = null;
    this.#links = noLinks();
    this.#used = noLinks();
  }

  /** Takes what is new: from the last line that was not whole. */
  #take(given: string): void {
    const fresh = given.slice(this.#givenLine);
    // A last CR may be half of a CRLF: its line is not whole yet.
    const whole = Math.max(fresh.lastIndexOf('\n'), fresh.length > 1 ? fresh.lastIndexOf('\r', fresh.length - 2) : -1) + 1;
    const tidy = (text: string): string => closeLines(text.replace(/\r\n?/g, '\n'));
    this.#text = this.#text.slice(0, this.#textLine) + tidy(fresh.slice(0, whole));
    this.#textLine = this.#text.length;
    this.#text += tidy(fresh.slice(whole));
    this.#given = given;
    this.#givenLine += whole;
  }

  /** The blocks of what is not finished. A definition in it counts for what was read before, too. */
  #blocks(tail: string): Block[] {
    const links = copy(this.#links);
    const blocks = readBlocks(tail, links);
    if (!equal(links, this.#used)) {
      this.#done = this.#done.flatMap((one) => (one.kind === 'html' && refers(one.source) ? readBlocks(one.source, copy(links)).map(piece) : [one]));
      this.#used = links;
    }
    return blocks;
  }

  #begin([whole, indent = '', mark = '', about = '']: RegExpExecArray): void {
    this.#at += whole.length;
    this.#code = {
      lang: about.trim().split(/\s/)[0] ?? '',
      lines: [],
      closing: new RegExp(`^ {0,3}${mark[0] === '~' ? '~' : '`'}{${mark.length},}[ \\t]*$`),
      indent: indent ? new RegExp(`^ {1,${indent.length}}`) : null,
      at: this.#at,
      shown: false,
      carry: '',
    };
  }

  /** Reads on in open code. Gives it back as it stands, or null when it came to its end. */
  #readCode(code: OpenCode): Code | null {
    const { lines } = code;
    if (code.shown) lines.pop();
    code.shown = false;
    for (;;) {
      const newline = this.#text.indexOf('\n', code.at);
      const line = this.#text.slice(code.at, newline < 0 ? undefined : newline);
      const ends = line.length < 200 && code.closing.test(line);
      if (newline >= 0 && !ends) {
        const { runs, carry } = colourLine(code.indent ? line.replace(code.indent, '') : line, code.lang, code.carry);
        lines.push(runs);
        code.carry = carry;
        code.at = newline + 1;
        continue;
      }
      const piece: Code = { kind: 'code', lang: code.lang, lines };
      // The last line, not whole: it may yet become the end.
      if (newline < 0) {
        if (!ends) {
          const open = code.indent ? line.replace(code.indent, '') : line;
          lines.push(open.length > LONGEST_OPEN ? [{ kind: '', text: open }] : colourLine(open, code.lang, code.carry).runs);
          code.shown = true;
        }
        return piece;
      }
      this.#at = newline + 1;
      this.#done = [...this.#done, piece];
      this.#code = null;
      return null;
    }
  }

  #beginPlain(ends: boolean): void {
    this.#plain = { lines: [], ends, at: this.#at, shown: 0 };
  }

  /** Reads on in plain text. Gives it back as it stands, or null when it came to its end. */
  #readPlain(open: OpenPlain): Plain | null {
    const { lines } = open;
    for (;;) {
      const newline = this.#text.indexOf('\n', open.at);
      const line = this.#text.slice(open.at, newline < 0 ? undefined : newline + 1);
      const mark = open.ends ? endsRun(line) : null;
      const piece: Plain = { kind: 'plain', lines };
      // A blank line is one when it is whole: letters may follow.
      if (mark !== null && (mark || newline >= 0)) {
        lines.length -= open.shown;
        this.#at = open.at;
        if (lines.length) this.#done = [...this.#done, piece];
        this.#plain = null;
        return null;
      }
      const parts = cut(line);
      // What was cut off stays as it is; the last part may be another one.
      if (open.shown) lines.length -= 1;
      lines.push(...parts.slice(Math.max(0, open.shown - 1)));
      open.shown = parts.length;
      if (newline < 0) return piece;
      open.at = newline + 1;
      open.shown = 0;
    }
  }
}

/** The lines of a whole text that is shown as it is. */
const linesOf = (text: string): Line[] => text.split(/(?<=\n)/).flatMap(cut);

const copy = (links: Links): Links => Object.assign(noLinks(), links);

function equal(one: Links, other: Links): boolean {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name]?.href === other[name]?.href && one[name]?.title === other[name]?.title);
}

const piece = ({ source, html }: Block): Piece => (html === null ? { kind: 'plain', lines: linesOf(source) } : { kind: 'html', source, html });

/** Where the first fenced block of a text begins, if one follows something else. */
function fenceIn(text: string, blocks: readonly Block[]): number | null {
  for (const block of blocks) if (block.from > 0 && OPENING.test(text.slice(block.from, block.from + 400))) return block.from;
  return null;
}
