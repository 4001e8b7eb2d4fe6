import { describe, expect, test } from 'vitest';
import { HOSTILE } from '../../dev/mock/scripts';
import { countDiff, parseDiff } from '../../src/model/diff';
import { highlight } from '../../src/text/highlight';
import { blocks, safeLink } from '../../src/text/markdown';
import { hides, visible } from '../../src/text/visible';

const html = (text: string): string => blocks(text).map((block) => String(block.html)).join('');
const page = (text: string): HTMLElement => {
  const box = document.createElement('div');
  box.innerHTML = html(text);
  return box;
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
    const before = blocks('# One\n\nTwo is not');
    const later = blocks('# One\n\nTwo is not ready\n\nThree');
    expect(later[0]?.html).toBe(before[0]?.html);
    expect(later).toHaveLength(3);
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
    const start = performance.now();
    const made = blocks(text);
    expect(performance.now() - start).toBeLessThan(3_000);
    expect(made.map(({ raw }) => raw.replace(/\s/g, '')).join('').length).toBeGreaterThan(text.replace(/\s/g, '').length * 0.99);
  });
  test('what_stands_around_a_run_that_is_too_long_is_still_markdown', () => {
    const made = blocks(`# Title\n\n${'*a'.repeat(5_000)}\n\n- **one**\n\n\`\`\`ts\n${'let x = 1;\n'.repeat(2_000)}\`\`\`\n\nThe end.`);
    expect(made.map(({ raw }) => raw.slice(0, 7))).toEqual(['# Title', '*a*a*a*', '- **one', '```ts\nl', 'The end']);
    expect(made.map(({ html: block }) => /code-bar/.test(String(block)))).toEqual([false, false, false, true, false]);
  });
});
