//! A small highlighter for code: comments, strings, numbers, words of the language. One pass, no back-tracking
//! over the text, the same rules for all languages but for how comments begin. Output is HTML of our own spans
//! with everything else escaped.

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

/** Longer texts are only escaped: colour is not worth a pause. */
const LONGEST = 120_000;

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

/** Makes text harmless in HTML. */
export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (char) => ENTITIES[char] as string);

/** Comments over several lines: how they begin and end. */
const COMMENTS: Record<string, string> = { '/*': '*/', '<!--': '-->' };

/** Code as HTML with `<span class="h-…">` for what stands out. `lang`: a fence's word or a file's extension. */
export const highlight = (code: string, lang: string): string => colour(code, lang).html;

/** The same for a part of a longer code. `carry`: the comment that an earlier part began; `open`: that of the next. */
export function highlightFrom(code: string, lang: string, carry: string): { html: string; open: string } {
  const ending = COMMENTS[carry];
  if (!ending) return colour(code, lang);
  const end = code.indexOf(ending);
  if (end < 0) return { html: `<span class="h-com">${escapeHtml(code)}</span>`, open: carry };
  const from = end + ending.length;
  const rest = colour(code.slice(from), lang);
  return { html: `<span class="h-com">${escapeHtml(code.slice(0, from))}</span>${rest.html}`, open: rest.open };
}

function colour(code: string, lang: string): { html: string; open: string } {
  const name = lang.toLowerCase();
  if (NONE.has(name) || code.length > LONGEST) return { html: escapeHtml(code), open: '' };
  if (name === 'diff' || name === 'patch') {
    const html = code
      .split('\n')
      .map((line) => {
        const kind = line.startsWith('+') ? 'add' : line.startsWith('-') ? 'del' : line.startsWith('@@') ? 'com' : '';
        return kind ? `<span class="h-${kind}">${escapeHtml(line)}</span>` : escapeHtml(line);
      })
      .join('\n');
    return { html, open: '' };
  }
  const comment = HASH.has(name) ? '#[^\\n]*' : DASH.has(name) ? '--[^\\n]*' : '\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)|<!--[\\s\\S]*?(?:-->|$)';
  const single = CHARS.has(name) ? "'(?:[^'\\\\\\n]|\\\\.)'" : "'(?:[^'\\\\\\n]|\\\\.)*'";
  const pattern = new RegExp(
    `(${comment})|("(?:[^"\\\\\\n]|\\\\.)*"?|${single}|\`(?:[^\`\\\\]|\\\\.)*\`)|(\\b(?:0x[\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?)\\b)|([A-Za-z_][\\w]*)(?=(\\s*\\()?)`,
    'g',
  );
  let html = '';
  let open = '';
  let at = 0;
  for (const match of code.matchAll(pattern)) {
    const [whole, com, str, num, word, call] = match;
    const kind = com ? 'com' : str ? 'str' : num ? 'num' : word && WORDS.has(word) ? 'key' : word && call ? 'fun' : '';
    if (!kind) continue;
    if (com && match.index + whole.length === code.length) {
      const begin = Object.keys(COMMENTS).find((mark) => com.startsWith(mark)) ?? '';
      if (begin && (com.length < 4 || !com.endsWith(COMMENTS[begin] ?? ''))) open = begin;
    }
    html += escapeHtml(code.slice(at, match.index)) + `<span class="h-${kind}">${escapeHtml(whole)}</span>`;
    at = match.index + whole.length;
  }
  return { html: html + escapeHtml(code.slice(at)), open };
}
