//! Markdown of an agent to safe HTML. Everything an agent prints is hostile until it went through here.
//!
//! Two walls: marked is told to show raw HTML as text and to drop links that are not http(s) or mailto; then
//! DOMPurify lets only a short list of tags and attributes through. Images are not loaded (they would tell a
//! third party who reads when): they become links.

import DOMPurify from 'dompurify';
import { Lexer, Marked, type Token, type TokensList } from 'marked';
import { t } from '../i18n';
import { highlight } from './highlight';

declare const safe: unique symbol;
/** HTML that may be put into the page (a TrustedHTML where the browser has them). Only `clean` makes it. */
export interface SafeHtml { readonly [safe]: true; toString(): string }

const escape = (text: string): string =>
  text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

/** Is this an address that may be followed? */
export function safeLink(href: string): boolean {
  // Control characters and spaces would let `java\nscript:` pass a browser's parser.
  return /^(https?:\/\/|mailto:)/i.test(href) && !/[\u0000-\u001f\u007f]/.test(href);
}

const link = (href: string, inner: string, title?: string | null): string =>
  safeLink(href)
    ? `<a href="${escape(href)}" target="_blank" rel="noopener noreferrer"${title ? ` title="${escape(title)}"` : ''}>${inner}</a>`
    : inner;

const marked = new Marked({
  gfm: true,
  breaks: false,
  async: false,
  renderer: {
    html: ({ text }) => escape(text),
    link({ href, title, tokens }) {
      return link(href, this.parser.parseInline(tokens), title);
    },
    image: ({ href, title, text }) => link(href, escape(text || href), title),
    code: ({ text, lang }) => {
      const name = (lang ?? '').split(/\s/)[0] ?? '';
      return (
        `<div class="code"><div class="code-bar"><span>${escape(name)}</span>` +
        `<button type="button" class="copy">${escape(t.copy)}</button></div>` +
        `<pre tabindex="0"><code>${highlight(text, name)}</code></pre></div>`
      );
    },
    table(token) {
      const cell = (cells: typeof token.header, tag: string): string =>
        cells.map(({ tokens, align }) => `<${tag}${align ? ` align="${align}"` : ''}>${this.parser.parseInline(tokens)}</${tag}>`).join('');
      const rows = token.rows.map((row) => `<tr>${cell(row, 'td')}</tr>`).join('');
      return `<div class="table" tabindex="0"><table><thead><tr>${cell(token.header, 'th')}</tr></thead><tbody>${rows}</tbody></table></div>`;
    },
    checkbox: ({ checked }) => `<span class="box${checked ? ' on' : ''}"></span> `,
  },
});

const RULES = {
  ALLOWED_TAGS: [
    'p', 'br', 'hr', 'h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'ul', 'ol', 'li', 'blockquote', 'pre', 'code', 'em', 'strong', 'del', 'a',
    'table', 'thead', 'tbody', 'tr', 'th', 'td', 'div', 'span', 'button',
  ],
  ALLOWED_ATTR: ['href', 'target', 'rel', 'title', 'class', 'align', 'start', 'type', 'tabindex'],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  // The values of other attributes are checked as if they were addresses.
  ADD_URI_SAFE_ATTR: ['target', 'rel', 'align', 'start', 'type', 'tabindex'],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/** Cleans HTML that the console itself put together from an agent's text. */
export function clean(html: string): SafeHtml {
  return DOMPurify.sanitize(html, { ...RULES, RETURN_TRUSTED_TYPE: true }) as unknown as SafeHtml;
}

/**
 * Longest run of lines without a blank one, and longest text, that are read as markdown, in UTF-16 units. Some texts
 * (a row of ten thousand asterisks) take the time of their length squared; what is longer is shown as it is.
 */
const LONGEST_RUN = 6_000;
export const LONGEST_TEXT = 100_000;

interface Part { text: string; plain: boolean }

/** Does a line end a run: is it blank, or does it open or close a fence? Its mark, or empty. Null: it goes on. */
export function endsRun(line: string): string | null {
  const start = line.slice(0, 80).trim();
  const mark = /^(`{3,}|~{3,})/.exec(start)?.[1];
  return mark ?? (start ? null : '');
}

/** Cuts a text where runs begin and end that are too long. Fenced code is no such run: it is read in one pass. */
function parts(text: string): Part[] {
  if (text.length <= LONGEST_RUN) return [{ text, plain: false }];
  const found: Part[] = [];
  let from = 0;
  let run = 0;
  let fence = '';
  const end = (at: number): void => {
    if (at - run > LONGEST_RUN) {
      if (run > from) found.push({ text: text.slice(from, run), plain: false });
      found.push({ text: text.slice(run, at), plain: true });
      from = at;
    }
  };
  let at = 0;
  while (at < text.length) {
    const newline = text.indexOf('\n', at);
    const next = newline < 0 ? text.length : newline + 1;
    const line = text.slice(at, Math.min(next, at + 80));
    const mark = endsRun(line);
    if (fence) {
      if (mark?.startsWith(fence) && line.trim() === mark) fence = '';
      run = next;
    } else if (mark !== null) {
      end(at);
      fence = mark;
      run = next;
    }
    at = next;
  }
  if (!fence) end(at);
  if (from < at) found.push({ text: text.slice(from, at), plain: false });
  return found;
}

/** One block of a text: where it begins in it, its own source, and its safe HTML; null if it is shown as it is. */
export interface Block { from: number; source: string; html: SafeHtml | null }

/** Definitions of links of reference style (`[x]: https://…`), by their name. They count for the whole text. */
export type Links = TokensList['links'];
export const noLinks = (): Links => Object.create(null) as Links;

/** Blocks that were drawn before, by their source; the oldest go first. */
const known = new Map<string, SafeHtml>();
const KEEP = 3000;

/** Does a block's HTML depend on definitions elsewhere? */
export const refers = (source: string): boolean => /\[[^\]]*\]/.test(source);

/** Cuts a text (of `LONGEST_TEXT` at most) into blocks. `links`: the definitions known so far; those of this text are added to them. */
export function readBlocks(text: string, links: Links = noLinks()): Block[] {
  const lexed: { part: Part; from: number; tokens: TokensList | null }[] = [];
  let from = 0;
  for (const part of parts(text)) {
    lexed.push({ part, from, tokens: part.plain ? null : lex(part.text, links) });
    from += part.text.length;
  }
  return lexed.flatMap(({ part, from: start, tokens }) => (tokens ? tokenBlocks(tokens, start) : [{ from: start, source: part.text, html: null }]));
}

function lex(text: string, links: Links): TokensList | null {
  try {
    const lexer = new Lexer(marked.defaults);
    lexer.tokens.links = links;
    return lexer.lex(text);
  } catch {
    return null;
  }
}

function tokenBlocks(tokens: TokensList, start: number): Block[] {
  const made: Block[] = [];
  let from = start;
  for (const token of tokens) {
    if (token.type !== 'space' && token.type !== 'def') made.push({ from, source: token.raw, html: blockHtml(token) });
    from += token.raw.length;
  }
  return made;
}

function blockHtml(token: Token): SafeHtml {
  // Links of reference style depend on the rest of the text: these are not remembered.
  const alone = !refers(token.raw);
  const old = alone ? known.get(token.raw) : undefined;
  if (old) return old;
  let html: SafeHtml;
  try {
    html = clean(marked.parser([token]));
  } catch {
    html = clean(`<p>${escape(token.raw)}</p>`);
  }
  if (alone && token.raw.length < 20_000) {
    if (known.size >= KEEP) known.delete(known.keys().next().value as string);
    known.set(token.raw, html);
  }
  return html;
}
