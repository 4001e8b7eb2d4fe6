//! A text of an agent as blocks, kept up as it grows: what is finished is neither read nor made anew. A fenced block of
//! code comes in lines, so that only the last of them is.

import { closeLines } from './bidi';
import { colourLine, type Carry, type Run } from './highlight';
import { LONGEST_TEXT, noLinks, plain, readBlocks, refers, type Block, type Links, type SafeHtml } from './markdown';

/** How a fenced block begins. */
const OPENING = /^( {0,3})(`{3,}|~{3,})([^\n`]*)\n/;
/** An open line that is longer has no colour before it is whole, in UTF-16 units: it would be read anew each time. */
const LONGEST_OPEN = 1_000;

/** A line of code as it is drawn, without its newline. Never changed: a line that grew is another one. */
export type Line = readonly Run[];
/** A block of code. While it grows `lines` is the same list: lines are added, and only the last is ever replaced. */
export interface Code { kind: 'code'; lang: string; lines: readonly Line[] }
export interface Html { kind: 'html'; source: string; html: SafeHtml }
export type Piece = Code | Html;

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
      const tail = this.#text.slice(this.#at);
      if (this.#at >= LONGEST_TEXT) return [...this.#done, { kind: 'html', source: tail, html: plain(tail) }];
      const opening = OPENING.exec(tail);
      if (opening) {
        this.#begin(opening);
        continue;
      }
      const blocks = this.#blocks(tail);
      // The last block may still grow; all before it stay as they are. A fence ends what is before it.
      const fence = fenceIn(tail, blocks);
      // Nor is it known to be one before its first line is whole: `2` may become the second item of a list.
      const last = blocks[blocks.length - 1]?.from ?? 0;
      const stable = fence ?? (tail.indexOf('\n', last) >= 0 ? last : 0);
      if (!stable) return [...this.#done, ...blocks.map(piece)];
      this.#done = [...this.#done, ...blocks.filter((block) => block.from < stable).map(piece)];
      this.#at += stable;
      if (!equal(this.#links, this.#used)) readBlocks(tail.slice(0, stable), this.#links);
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
}

const copy = (links: Links): Links => Object.assign(noLinks(), links);

function equal(one: Links, other: Links): boolean {
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => one[name]?.href === other[name]?.href && one[name]?.title === other[name]?.title);
}

const piece = ({ source, html }: Block): Html => ({ kind: 'html', source, html });

/** Where the first fenced block of a text begins, if one follows something else. */
function fenceIn(text: string, blocks: readonly Block[]): number | null {
  for (const block of blocks) if (block.from > 0 && OPENING.test(text.slice(block.from, block.from + 400))) return block.from;
  return null;
}
