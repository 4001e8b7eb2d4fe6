//! A text of an agent as blocks, kept up as it grows: what is finished is neither read nor made anew. A long fenced
//! block of code comes in chunks of lines, so that only the last of them is.

import { chunk, LONGEST_TEXT, plain, readBlocks, type Block, type SafeHtml } from './markdown';

/** Lines of one chunk of code. */
const LINES = 12;
/** How a fenced block begins. */
const OPENING = /^( {0,3})(`{3,}|~{3,})([^\n`]*)\n/;

/** The definition of a link of reference style. */
const DEFINITION = /^ {0,3}\[[^\]\n]+\]:[ \t]*\S/m;

/** A block of code: its chunks, each a run of whole lines. */
export interface Code { kind: 'code'; lang: string; chunks: SafeHtml[] }
export interface Html { kind: 'html'; html: SafeHtml }
export type Piece = Code | Html;

/** Code that is being read. */
interface OpenCode {
  piece: Code;
  mark: string;
  indent: number;
  /** Where the chunk begins that is not complete; is it among the chunks already? */
  at: number;
  shown: boolean;
  /** The comment that an earlier chunk began and did not end. */
  carry: string;
}

export class Reader {
  #text = '';
  /** Pieces of what lies before `#at`; what follows is made anew each time. */
  #done: Piece[] = [];
  #at = 0;
  #code: OpenCode | null = null;
  #defines = false;

  /** The pieces of `text`. Cheap when it begins with the text of the last call. */
  read(text: string): Piece[] {
    if (!text.startsWith(this.#text)) {
      this.#done = [];
      this.#at = 0;
      this.#code = null;
      this.#text = '';
      this.#defines = false;
    }
    // A definition of a link counts for the whole text, which then is read whole.
    if (!this.#defines) this.#defines = DEFINITION.test(text.slice(Math.max(0, this.#text.length - 300)));
    this.#text = text;
    if (this.#defines) return readBlocks(text).map(({ html }) => ({ kind: 'html', html }));
    for (;;) {
      if (this.#code && !this.#readCode(this.#code)) return [...this.#done, { ...this.#code.piece }];
      const tail = text.slice(this.#at);
      if (this.#at >= LONGEST_TEXT) return [...this.#done, { kind: 'html', html: plain(tail) }];
      const opening = OPENING.exec(tail);
      if (opening) {
        this.#begin(opening);
        continue;
      }
      const blocks = readBlocks(tail);
      // The last block may still grow; all before it stay as they are. A fence ends what is before it.
      const fence = fenceIn(tail, blocks);
      // Nor is it known to be one before its first line is whole: `2` may become the second item of a list.
      const last = blocks[blocks.length - 1]?.from ?? 0;
      const stable = fence ?? (tail.indexOf('\n', last) >= 0 ? last : 0);
      const html = (some: readonly Block[]): Html[] => some.map((block) => ({ kind: 'html', html: block.html }));
      if (!stable) return [...this.#done, ...html(blocks)];
      this.#done = [...this.#done, ...html(blocks.filter((block) => block.from < stable))];
      this.#at += stable;
    }
  }

  #begin(opening: RegExpExecArray): void {
    const [whole, indent = '', mark = '', about = ''] = opening;
    this.#at += whole.length;
    this.#code = { piece: { kind: 'code', lang: about.trim().split(/\s/)[0] ?? '', chunks: [] }, mark, indent: indent.length, at: this.#at, shown: false, carry: '' };
  }

  /** Reads on in open code. True when it came to its end. */
  #readCode(code: OpenCode): boolean {
    const text = this.#text;
    const { piece } = code;
    const mark = code.mark[0] === '~' ? '~' : '`';
    const closing = new RegExp(`^ {0,3}${mark}{${code.mark.length},}[ \\t]*$`);
    if (code.shown) piece.chunks.pop();
    code.shown = false;
    let line = code.at;
    let count = 0;
    const make = (end: number): { html: SafeHtml; carry: string } => chunk(dedent(text.slice(code.at, end), code.indent), piece.lang, code.carry);
    for (;;) {
      const newline = text.indexOf('\n', line);
      const end = newline < 0 ? text.length : newline;
      if (closing.test(text.slice(line, Math.min(end, line + 200))) && end - line < 200 && newline >= 0) {
        if (line > code.at) piece.chunks.push(make(line - 1).html);
        this.#at = newline + 1;
        this.#done = [...this.#done, { ...piece, chunks: [...piece.chunks] }];
        this.#code = null;
        return true;
      }
      if (newline < 0) {
        // The last line, not complete: it may yet become the end.
        const ends = closing.test(text.slice(line));
        const until = ends ? line - 1 : text.length;
        if (until > code.at) {
          piece.chunks = [...piece.chunks, make(until).html];
          code.shown = true;
        } else piece.chunks = [...piece.chunks];
        return false;
      }
      line = newline + 1;
      if (++count === LINES) {
        const made = make(line);
        piece.chunks.push(made.html);
        code.carry = made.carry;
        code.at = line;
        count = 0;
      }
    }
  }
}

/** Takes up to so many spaces off each line: those by which the fence itself stands in. */
function dedent(text: string, indent: number): string {
  return indent ? text.replace(new RegExp(`^ {1,${indent}}`, 'gm'), '') : text;
}

/** Where the first fenced block of a text begins, if one follows something else. */
function fenceIn(text: string, blocks: readonly Block[]): number | null {
  for (const block of blocks) if (block.from > 0 && OPENING.test(text.slice(block.from, block.from + 400))) return block.from;
  return null;
}
