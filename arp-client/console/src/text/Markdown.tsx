//! Draws an agent's markdown. Blocks that did not change keep their place in the page (and a selection in it).

import { useLayoutEffect, useRef } from 'preact/hooks';
import { t } from '../i18n';
import { Memo } from '../ui/memo';
import { closeLines } from './bidi';
import type { SafeHtml } from './markdown';
import { Reader, type Code } from './stream';

export function Html({ html }: { html: SafeHtml }) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    // Only `clean` makes SafeHtml, so this is the one place where HTML enters the page.
    if (box.current) box.current.innerHTML = html as unknown as string;
  }, [html]);
  return <div ref={box} />;
}

/** Chunks of code that are drawn together, or not at all: an update of long code then looks at few things. */
const TOGETHER = 12;

function CodeBlock({ code: { lang, chunks } }: { code: Code }) {
  const groups = Array.from({ length: Math.ceil(chunks.length / TOGETHER) }, (_, at) => chunks.slice(at * TOGETHER, (at + 1) * TOGETHER));
  return (
    <div>
      <div class="code">
        <div class="code-bar"><span>{lang}</span><button type="button" class="copy">{t.copy}</button></div>
        <pre tabIndex={0}><code>{groups.map((group, index) => <Memo key={index} on={group}>{() => group.map((html, at) => <Html key={at} html={html} />)}</Memo>)}</code></pre>
      </div>
    </div>
  );
}

export function Markdown({ text, streaming = false }: { text: string; streaming?: boolean }) {
  const reader = useRef<Reader | null>(null);
  reader.current ??= new Reader();
  return (
    <div class={streaming ? 'md streaming' : 'md'}>
      {reader.current.read(closeLines(text)).map((piece, index) => (piece.kind === 'code' ? <CodeBlock key={index} code={piece} /> : <Html key={index} html={piece.html} />))}
    </div>
  );
}
