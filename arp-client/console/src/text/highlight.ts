//! A small highlighter for code: comments, strings, numbers, words of the language. One pass, no back-tracking
//! over the text, the same rules for all languages but for how comments begin. It goes line by line: what a line looks
//! like depends on it and on what the lines before left open, so a text that grows is never coloured twice.

const HASH = new Set(['sh', 'bash', 'zsh', 'shell', 'console', 'py', 'python', 'rb', 'ruby', 'toml', 'yaml', 'yml', 'dockerfile', 'make', 'makefile', 'pl', 'perl', 'r', 'ini', 'conf', 'ex', 'exs', 'nix', 'tf', 'gitignore']);
const DASH = new Set(['sql', 'lua', 'hs', 'haskell', 'elm', 'ada']);
const NONE = new Set(['', 'text', 'txt', 'plain', 'md', 'markdown', 'log', 'csv', 'output']);

const WORDS = new Set(
  ('abstract and as async await begin bool break case catch char class const constructor continue crate def default defer del delete do done dyn ' +
    'elif else elsif end enum esac except export extends extern false fi final finally float fn for from func function get global go goto if impl implements import in ' +
    'include inout instanceof int interface internal is lambda let local long loop map match mod module move mut namespace new nil none None not null ' +
    'of operator or override package pass private protected protocol pub public raise readonly record ref require return self Self set short signed ' +
    'sizeof static str string String struct super switch template then this throw throws trait true True False try type typedef typename typeof undefined union unless ' +
    'unsafe unsigned until use using val var virtual void volatile where while with yield ' +
    'SELECT FROM WHERE INSERT INTO UPDATE DELETE CREATE TABLE JOIN LEFT RIGHT INNER ON GROUP BY ORDER LIMIT VALUES AND OR NOT NULL PRIMARY KEY').split(' '),
);

/** Languages where `'` begins a character (or a lifetime), never a longer string. */
const CHARS = new Set(['rs', 'rust', 'c', 'h', 'cpp', 'cc', 'hpp', 'c++', 'go', 'java', 'kt', 'kotlin', 'swift', 'cs', 'csharp', 'zig', 'hs']);

/** Languages where a string between backticks may go on over lines. */
const TEMPLATES = new Set(['js', 'jsx', 'ts', 'tsx', 'mjs', 'cjs', 'mts', 'cts', 'javascript', 'typescript', 'vue', 'svelte', 'go']);

/** Longer lines, and longer texts, have no colour: it is not worth a pause. In UTF-16 units. */
const LONGEST_LINE = 5_000;
const LONGEST = 120_000;

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Makes text harmless in HTML. */
export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (char) => ENTITIES[char] as string);

/** What a run of code is; drawn as the class `h-…`. Empty: nothing that stands out. */
export type Kind = '' | 'com' | 'str' | 'num' | 'key' | 'fun' | 'add' | 'del';
export interface Run { kind: Kind; text: string }
/** What lines before left open, by how it ends: a comment or a string. */
export type Carry = '' | '*/' | '-->' | '`';

/** How the lines of a language are read. Null: they have no colour. */
type Rules = { lines: 'diff' } | { lines: 'code'; pattern: RegExp; templates: boolean } | null;

/** By what the rules differ in, not by the language's name: that is the agent's to choose. */
const patterns = new Map<string, RegExp>();

function rulesOf(lang: string): Rules {
  const name = lang.toLowerCase();
  if (NONE.has(name)) return null;
  if (name === 'diff' || name === 'patch') return { lines: 'diff' };
  const templates = TEMPLATES.has(name);
  const comment = HASH.has(name) ? '#.*' : DASH.has(name) ? '--.*' : '\\/\\/.*|\\/\\*.*?(?:\\*\\/|$)|<!--.*?(?:-->|$)';
  const single = CHARS.has(name) ? "'(?:[^'\\\\]|\\\\.)'" : "'(?:[^'\\\\]|\\\\.)*'";
  const source = `(${comment})|("(?:[^"\\\\]|\\\\.)*"?|${single}|\`(?:[^\`\\\\]|\\\\.)*${templates ? '(?:`|\\\\?$)' : '`'})|(\\b(?:0x[\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?)\\b)|([A-Za-z_][\\w]*)(?=(\\s*\\()?)`;
  let pattern = patterns.get(source);
  if (!pattern) patterns.set(source, (pattern = new RegExp(source, 'gs')));
  return { lines: 'code', pattern, templates };
}

/** Where what is open ends in a line, or -1. */
function endOf(carry: Carry, line: string): number {
  if (carry !== '`') {
    const at = line.indexOf(carry);
    return at < 0 ? -1 : at + carry.length;
  }
  return /^(?:[^`\\]|\\.)*`/s.exec(line)?.[0].length ?? -1;
}

/** What a comment or string that ends with its line leaves open for the next. */
function leaves(found: string, templates: boolean): Carry {
  if (found.startsWith('/*')) return found.length >= 4 && found.endsWith('*/') ? '' : '*/';
  if (found.startsWith('<!--')) return found.length >= 7 && found.endsWith('-->') ? '' : '-->';
  if (templates && found.startsWith('`')) return endOf('`', found.slice(1)) < 0 ? '`' : '';
  return '';
}

/** One line (without its end) as runs. `carry`: what the lines before left open; the answer has that for the next. */
export function colourLine(line: string, lang: string, carry: Carry): { runs: Run[]; carry: Carry } {
  const rules = rulesOf(lang);
  if (!rules || line.length > LONGEST_LINE) return { runs: line ? [{ kind: '', text: line }] : [], carry };
  if (rules.lines === 'diff') {
    const kind = line.startsWith('+') ? 'add' : line.startsWith('-') ? 'del' : line.startsWith('@@') ? 'com' : '';
    return { runs: line ? [{ kind, text: line }] : [], carry: '' };
  }
  const runs: Run[] = [];
  let at = 0;
  const add = (kind: Kind, to: number): void => {
    if (to > at) runs.push({ kind, text: line.slice(at, to) });
    at = to;
  };
  if (carry) {
    const end = endOf(carry, line);
    add(carry === '`' ? 'str' : 'com', end < 0 ? line.length : end);
    if (end < 0) return { runs, carry };
  }
  let open: Carry = '';
  rules.pattern.lastIndex = at;
  for (let match = rules.pattern.exec(line); match; match = rules.pattern.exec(line)) {
    const [whole, com, str, num, word, call] = match;
    const kind = com ? 'com' : str ? 'str' : num ? 'num' : word && WORDS.has(word) ? 'key' : word && call ? 'fun' : '';
    if (!kind) continue;
    const end = match.index + whole.length;
    if (end === line.length && (com || str)) open = leaves(whole, rules.templates);
    add('', match.index);
    add(kind, end);
  }
  add('', line.length);
  return { runs, carry: open };
}

/** Code as HTML with `<span class="h-…">` for what stands out. `lang`: a fence's word or a file's extension. */
export function highlight(code: string, lang: string): string {
  if (code.length > LONGEST) return escapeHtml(code);
  let carry: Carry = '';
  return code
    .split('\n')
    .map((line) => {
      const made = colourLine(line, lang, carry);
      carry = made.carry;
      return made.runs.map(({ kind, text }) => (kind ? `<span class="h-${kind}">${escapeHtml(text)}</span>` : escapeHtml(text))).join('');
    })
    .join('\n');
}
