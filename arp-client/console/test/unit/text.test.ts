import { Lexer } from 'marked';
import { describe, expect, test, vi } from 'vitest';
import { HOSTILE } from '../../dev/mock/scripts';
import { countDiff, parseDiff } from '../../src/model/diff';
import { CodeView } from '../../src/text/code';
import { highlight } from '../../src/text/highlight';
import { closeLines } from '../../src/text/bidi';
import { readBlocks, safeLink } from '../../src/text/markdown';
import { Reader, type Code, type Line, type Piece } from '../../src/text/stream';
import { terminal } from '../../src/text/terminal';
import { hides, visible } from '../../src/text/visible';

type Views = Map<readonly Line[], { element: HTMLElement; view: CodeView }>;
/** Brings what grows by lines to where it stands, and gives its element. */
function linesOf({ kind, lines }: Exclude<Piece, { kind: 'html' }>, views: Views): HTMLElement {
  const code = kind === 'code';
  let known = views.get(lines);
  if (!known) {
    const element = document.createElement(code ? 'code' : 'p');
    views.set(lines, (known = { element, view: new CodeView(element, code) }));
  }
  known.view.show(lines);
  return known.element;
}
/** Pieces as they stand in the page. */
function put(pieces: readonly Piece[], views: Views = new Map()): HTMLElement {
  const box = document.createElement('div');
  for (const piece of pieces) {
    const place = document.createElement('div');
    box.append(place);
    if (piece.kind === 'html') {
      place.innerHTML = String(piece.html);
      continue;
    }
    if (piece.kind === 'code') place.innerHTML = '<div class="code"><pre tabindex="0"></pre></div>';
    (place.querySelector('pre') ?? place).append(linesOf(piece, views));
  }
  return box;
}
/** Reads a text as it grows, with one page that is kept up. */
function grown(ends: readonly string[]): HTMLElement {
  const reader = new Reader();
  const views: Views = new Map();
  let pieces: readonly Piece[] = [];
  for (const text of ends) {
    pieces = reader.read(text);
    for (const piece of pieces) if (piece.kind !== 'html') linesOf(piece, views);
  }
  return put(pieces, views);
}
const page = (text: string): HTMLElement => put(new Reader().read(text));
const html = (box: Element): string => {
  // Neighbouring runs of text without colour are one or several: nobody can tell.
  box.normalize();
  return box.innerHTML;
};

describe('markdown', () => {
  test('hostile_output_becomes_harmless_text', () => {
    const box = page(HOSTILE);
    expect(box.querySelectorAll('script, img, iframe, svg, style, form, input, object, embed, base, meta, link')).toHaveLength(0);
    for (const element of box.querySelectorAll('*')) {
      for (const { name } of element.attributes) expect(name).not.toMatch(/^on|^style$|^srcdoc$|^id$|^name$/);
    }
    for (const link of box.querySelectorAll('a')) expect(link.getAttribute('href')).toMatch(/^https?:/);
    expect(box.textContent).toContain('<script>window.pwned=1</script>');
  });

  test('links_open_elsewhere_and_tell_nothing', () => {
    const link = page('[x](https://good.example "t")').querySelector('a');
    expect(link?.getAttribute('target')).toBe('_blank');
    expect(link?.getAttribute('rel')).toBe('noopener noreferrer');
    expect(link?.getAttribute('href')).toBe('https://good.example');
  });

  test.each(['javascript:x', 'JaVaScRiPt:x', ' javascript:x', 'java\nscript:x', 'data:text/html,x', 'vbscript:x', 'file:///etc/passwd', '//evil.example', 'blob:x', 'https:\n//x'])('%j is no link', (href) => {
    expect(safeLink(href)).toBe(false);
  });

  test('pictures_are_not_loaded', () => {
    const box = page('![alt](https://evil.example/x.png)');
    expect(box.querySelector('img')).toBeNull();
    expect(box.querySelector('a')?.textContent).toBe('alt');
  });

  test('code_can_be_reached_by_keyboard_and_is_escaped', () => {
    const box = page('```ts\nconst a = "<b>";\n```');
    expect(box.querySelector('pre')?.getAttribute('tabindex')).toBe('0');
    expect(box.querySelector('code')?.textContent).toBe('const a = "<b>";');
    expect(box.querySelector('b')).toBeNull();
  });

  test('a_streaming_text_keeps_its_finished_blocks', () => {
    const reader = new Reader();
    const before = reader.read('# One\n\nTwo is not');
    const later = reader.read('# One\n\nTwo is not ready\n\nThree');
    expect((later[0] as { html: unknown }).html).toBe((before[0] as { html: unknown }).html);
    expect(later).toHaveLength(3);
  });

  const growing = [
    '# Title\n\nSome *text*\nthat goes on.\n\n```ts\nlet a = 1;\n/* open\nstill open\n*/ let b = `x`;\n```\n\n- one\n- two\n\n    code\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted\n\nThe end.',
    `Before\n~~~~\n\`\`\`\n~~~\n${'line of code(1);\n'.repeat(90)}~~~~\nafter\n\n1. a\n   \`\`\`sh\n   x\n   \`\`\`\n2. b`,
    '  ```py\n  a = 1\n    b = 2\n  ```',
    '```never\nclosed\n\n# not a title\n',
    'a\n```\nb\n```',
    'see [x] and\n\n```\ncode\n```\n\n[x]: https://good.example',
    'see [x], [y]\n\n- of [x]\n\n[x]: https://good.example/1 "one"\n\nand [y]\n\n[y]: https://good.example/2\n[x]: https://good.example/3\n\nThe end of [x].',
    'code with what looks like a definition:\n\n```js\nconst a = {\n  [key]: https,\n};\n```\n\n[key] is none.',
    `\`\`\`ts\nconst a = \`open\nif for \\\` ${'{}'}\n\`; return /* x */ 1; <!-- y\n--> let b = "c\\"d" + 'e';\n// f \`\n\n\n\`\`\`\n`,
    `\`\`\`rs\n${Array.from({ length: 48 }, (_, n) => `let x${n} = 1;`).join('\n')}\n\`\`\`\nright at the end of a chunk`,
    'turned \u202e around\nand \u2067 back\n\n```\nx \u202d y\n```\n\n- \u202ba\n- b',
    'lines\r\nof\r\n\r\n```ts\r\nlet a = 1;\r\n```\r\n\r\nanother\rkind\n\n1. one\r\n2. two\r\n',
  ];
  test.each(growing)('a_text_that_comes_letter_by_letter_ends_as_one_that_came_at_once (%#)', (text) => {
    const ends: string[] = [];
    for (let end = 1; end <= text.length; end += text.length > 500 ? 7 : 1 + (end % 3)) ends.push(text.slice(0, end));
    const box = grown([...ends, text]);
    expect(html(box)).toBe(html(page(text)));
    // And reads as marked does by itself, but for the chunks.
    const whole = document.createElement('div');
    whole.innerHTML = readBlocks(closeLines(text.replace(/\r\n?/g, '\n'))).map((block) => `<div>${block.html}</div>`).join('');
    const codes = (of: Element): (string | null)[] => [...of.querySelectorAll('pre')].map((code) => code.textContent?.trimEnd() ?? null);
    expect(codes(box)).toEqual(codes(whole));
    const tags = (of: Element): string[] => [...of.querySelectorAll('h1, li, td, blockquote, a, em')].map((one) => `${one.tagName} ${one.textContent}`);
    expect(tags(box)).toEqual(tags(whole));
  }, 120_000);

  test('a_growing_block_of_code_touches_only_its_last_line', async () => {
    const reader = new Reader();
    const views: Views = new Map();
    const line = (n: number): string => `const value${n} = compute(${n}, "text ${n}"); // line ${n}\n`;
    let text = `Here:\n\n\`\`\`ts\n${Array.from({ length: 400 }, (_, n) => line(n)).join('')}`;
    const box = put(reader.read(text), views);
    const code = box.querySelector('code') as Element;
    let records: MutationRecord[] = [];
    const observer = new MutationObserver((some) => records.push(...some));
    observer.observe(code, { subtree: true, childList: true, characterData: true, attributes: true });
    for (const piece of Array.from({ length: 60 }, (_, n) => [line(n).slice(0, 15), line(n).slice(15, 30), line(n).slice(30)]).flat()) {
      text += piece;
      records = [];
      put(reader.read(text), views);
      await Promise.resolve();
      records.push(...observer.takeRecords());
      const touched = records.flatMap(({ addedNodes, removedNodes }) => [...addedNodes, ...removedNodes]);
      expect(touched.length).toBeLessThan(30);
      expect(touched.reduce((sum, node) => sum + (node.textContent?.length ?? 0), 0)).toBeLessThan(3 * line(1000).length);
      expect(code.textContent).toBe(text.slice(text.indexOf('const')));
    }
    observer.disconnect();
    expect(html(code)).toBe(html(page(text).querySelector('code') as Element));
  });

  test('lines_of_code_are_coloured_once', () => {
    const reader = new Reader();
    let text = '```ts\n';
    for (let n = 0; n < 400; n++) text += `const value${n} = ${n};\n`;
    const lines = (): readonly Line[] => (reader.read(text)[0] as Code).lines;
    const before = [...lines()];
    text += 'one more\n';
    const after = lines();
    expect(after).toHaveLength(402);
    for (let n = 0; n < 400; n++) expect(after[n]).toBe(before[n]);
  });

  test('a_text_that_does_not_go_on_is_read_anew', () => {
    const reader = new Reader();
    reader.read('# One\n\n```ts\nlet a = 1;\n');
    expect(html(put(reader.read('# Two\n\n```ts\nlet b')))).toBe(html(page('# Two\n\n```ts\nlet b')));
    expect(html(put(reader.read('')))).toBe('');
    reader.read('a [b] c\n\n[b]: https://good.example\n\nd');
    expect(html(put(reader.read('a [b] c\n\nno')))).toBe(html(page('a [b] c\n\nno')));
  });

  test('a_comment_over_many_lines_stays_one_across_chunks', () => {
    const code = `\`\`\`ts\n/*\n${'words if for\n'.repeat(100)}*/ const a = 1;\n\`\`\``;
    const box = page(code);
    expect([...box.querySelectorAll('.h-key')].map((one) => one.textContent)).toEqual(['const']);
  });

  test.each(['sh', 'ts', 'rs', 'py', 'sql', 'html', 'unknown'])('the_highlighter_loses_nothing (%s)', (lang) => {
    const code = '/* a */ # b\nlet x = "q\\"<" + \'c\' + 12; // <script>\n`t` -- d\n<!-- e';
    const box = document.createElement('div');
    box.innerHTML = highlight(code, lang);
    expect(box.textContent).toBe(code);
  });
});

describe('diff', () => {
  test('lines_are_told_apart_and_numbered', () => {
    const lines = parseDiff('--- a/x\n+++ b/x\n@@ -3,2 +3,3 @@ fn\n same\n-old\n+new\n+more\n\\ No newline at end of file');
    expect(lines.map(({ kind, old, new: now, text }) => [kind, old, now, text])).toEqual([
      ['hunk', null, null, 'fn'], ['same', 3, 3, 'same'], ['del', 4, null, 'old'], ['add', null, 4, 'new'], ['add', null, 5, 'more'],
    ]);
  });
  test('lines_that_look_like_headers_inside_a_hunk_are_lines', () => {
    expect(countDiff('@@ -1,1 +1,1 @@\n--- x\n+++ y')).toEqual({ added: 1, removed: 1 });
  });
});

describe('what hides', () => {
  test('characters_that_reorder_or_cannot_be_seen_are_shown', () => {
    expect(visible('rm -rf \u202e/cod\u2066e \u200bx\u0008\u001b[8m')).toBe('rm -rf ‹U+202E›/cod‹U+2066›e ‹U+200B›x‹U+0008›‹U+001B›[8m');
    expect(hides('echo \u{e0041}')).toBe(true);
  });
  test('ordinary_text_of_any_language_stays_as_it_is', () => {
    for (const text of ['ls\t-la\r\necho "done"\n', '给设置页加上深色模式', 'عربى', 'naïve café — “ok” 🎉', 'שלום']) {
      expect(hides(text)).toBe(false);
      expect(visible(text)).toBe(text.replace('\r\n', '\n'));
    }
  });
});

describe('long texts', () => {
  const traps = {
    brackets: '['.repeat(50_000), stars: '*a'.repeat(30_000), pipes: `${'|a'.repeat(20_000)}\n${'|-'.repeat(20_000)}`, items: '1. a\n'.repeat(10_000),
    ticks: '`a'.repeat(20_000), quotes: '>'.repeat(50_000), line: 'x'.repeat(1_000_000), runs: `${'*a'.repeat(2_900)}\n\n`.repeat(100),
  };
  test.each(Object.entries(traps))('%s_cannot_stop_the_page', (_, text) => {
    // What a parser takes the square of the length for never comes to it: short runs only, and twice at most the last ones.
    const lex = vi.spyOn(Lexer.prototype, 'lex');
    const made = new Reader().read(text);
    const given = lex.mock.calls.map(([source]) => source);
    lex.mockRestore();
    for (const source of given) expect(Math.max(...source.split(/\n[ \t]*\n/).map((run) => run.length))).toBeLessThanOrEqual(6_000);
    expect(given.join('').length).toBeLessThanOrEqual(100_000 + 2 * 6_000);
    const box = put(made);
    expect((box.textContent ?? '').length).toBeGreaterThan(0);
  }, 120_000);
  const growing = {
    items: `# Title\n\n${Array.from({ length: 400 }, (_, n) => `- item **${n}** of it\n`).join('')}\n- another\n\n${'| a | b |\n'.repeat(900)}\`\`\`ts\nlet a;\n\`\`\`\nend`,
    prose: `One. ${'A sentence of a paragraph 😀 that goes on. '.repeat(300)}\n\n${'x'.repeat(9_000)} \n \n[end]: https://good.example\n\n[end]`,
    beyond: `${'Words, *some* of them.\n\n'.repeat(4_400)}${'- **a**\n'.repeat(500)}\n\n# no title here\n`,
  };
  test.each(Object.entries(growing))('%s_that_stream_end_as_they_are_when_they_come_at_once', (_, text) => {
    const ends: string[] = [];
    for (let end = text.length > 40_000 ? 99_000 : 1; end < text.length; end += 1 + (end % 197)) ends.push(text.slice(0, end));
    const box = grown([...ends, text]);
    expect(html(box)).toBe(html(page(text)));
    expect(box.querySelector('.plain, p > .lines')).not.toBeNull();
  }, 120_000);
  test('a_long_text_that_is_shown_as_it_is_touches_only_its_end', async () => {
    const reader = new Reader();
    const views: Views = new Map();
    let text = `Here:\n\n${Array.from({ length: 400 }, (_, n) => `- item **${n}** of the list\n`).join('')}- and`;
    put(reader.read(text), views);
    const plain = [...views.values()][0]?.element;
    const touched: Node[] = [];
    const observer = new MutationObserver((some) => touched.push(...some.flatMap(({ addedNodes, removedNodes }) => [...addedNodes, ...removedNodes])));
    observer.observe(plain as Element, { subtree: true, childList: true });
    const lex = vi.spyOn(Lexer.prototype, 'lex');
    for (let n = 0; n < 60; n++) {
      text += n % 3 ? ' more words of it' : `\n- item ${n}`;
      put(reader.read(text), views);
    }
    await Promise.resolve();
    observer.disconnect();
    expect(lex).not.toHaveBeenCalled();
    lex.mockRestore();
    expect(plain?.textContent).toBe(text.slice(text.indexOf('- item')));
    expect(touched.length).toBeLessThan(120);
  });
  test('what_stands_around_a_run_that_is_too_long_is_still_markdown', () => {
    const box = page(`# Title\n\n${'*a'.repeat(5_000)}\n\n- **one**\n\n\`\`\`ts\n${'let x = 1;\n'.repeat(2_000)}\`\`\`\n\nThe end.`);
    expect(box.textContent).toMatch(/^Title\s+(\*a){5000}/);
    expect(box.querySelector('li strong')?.textContent).toBe('one');
    expect(box.textContent).toMatch(/The end\.\s*$/);
    expect(box.querySelector('code')?.textContent?.trimEnd()).toBe('let x = 1;\n'.repeat(2_000).trimEnd());
  }, 120_000);
});

describe('output of programs', () => {
  test.each([
    ['10%\r50%\r100%\ndone', '100%\ndone'], ['abcdef\rxy', 'xycdef'], ['loading\r\u001b[Kok', 'ok'], ['a\r\nb\r\n', 'a\nb\n'],
    ['\u001b[31mred\u001b[0m', 'red'], ['\u001b]0;title\u0007x', 'x'], ['one\r\rtwo', 'two'],
  ])('%j is shown as a terminal would', (text, shown) => expect(terminal(text)).toBe(shown));
  test('a_turn_of_direction_ends_with_its_line', () => {
    expect(closeLines('a\u202eb\nc')).toBe('a\u202eb\u202c\nc');
    expect(closeLines('a\u2067b\u202ec\nd')).toBe('a\u2067b\u202ec\u202c\u2069\nd');
    expect(closeLines('a\u202ab\u202c\nc')).toBe('a\u202ab\u202c\nc');
    expect(closeLines('plain\ntext')).toBe('plain\ntext');
  });
});
