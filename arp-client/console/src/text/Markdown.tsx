//! Draws an agent's markdown. Blocks that did not change keep their place in the page (and a selection in it).

import type { RefObject, VNode } from 'preact';
import { useLayoutEffect, useRef } from 'preact/hooks';
import { t } from '../i18n';
import { CodeView } from './code';
import type { SafeHtml } from './markdown';
import { Reader, type Code, type Line, type Piece } from './stream';

export function Html({ html }: { html: SafeHtml }) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    // Only `clean` makes SafeHtml, so this is the one place where HTML enters the page.
    if (box.current) box.current.innerHTML = html as unknown as string;
  }, [html]);
  return <div ref={box} />;
}

/** Lines that grow, in the element that this gives the reference for. */
function useLines(lines: readonly Line[], joined: boolean): RefObject<HTMLElement | null> {
  const box = useRef<HTMLElement>(null);
  const view = useRef<CodeView | null>(null);
  useLayoutEffect(() => {
    if (box.current) (view.current ??= new CodeView(box.current, joined)).show(lines);
  });
  return box;
}

function CodeBlock({ code: { lang, lines } }: { code: Code }) {
  const box = useLines(lines, true);
  return (
    <div>
      <div class="code">
        <div class="code-bar"><span>{lang}</span><button type="button" class="copy">{t.copy}</button></div>
        <pre tabIndex={0}><code ref={box} /></pre>
      </div>
    </div>
  );
}

function PlainText({ lines }: { lines: readonly Line[] }) {
  const box = useLines(lines, false);
  return <div><p class="plain" ref={box as RefObject<HTMLParagraphElement | null>} /></div>;
}

/** What was drawn of a piece: as long as it is the same one, nothing of it is looked at. */
const drawn = new WeakMap<Piece, VNode>();

function draw(piece: Piece, key: number): VNode {
  let made = drawn.get(piece);
  if (made?.key !== key) drawn.set(piece, (made = piece.kind === 'code' ? <CodeBlock key={key} code={piece} /> : piece.kind === 'plain' ? <PlainText key={key} lines={piece.lines} /> : <Html key={key} html={piece.html} />));
  return made as VNode;
}

export function Markdown({ text, streaming = false }: { text: string; streaming?: boolean }) {
  const reader = useRef<Reader | null>(null);
  reader.current ??= new Reader();
  return <div class={streaming ? 'md streaming' : 'md'}>{reader.current.read(text).map(draw)}</div>;
}
