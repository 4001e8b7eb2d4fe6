//! Draws an agent's markdown. Blocks that did not change keep their place in the page (and a selection in it).

import { useLayoutEffect, useRef } from 'preact/hooks';
import { blocks, type SafeHtml } from './markdown';

export function Html({ html }: { html: SafeHtml }) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    // Only `clean` makes SafeHtml, so this is the one place where HTML enters the page.
    if (box.current) box.current.innerHTML = html as unknown as string;
  }, [html]);
  return <div ref={box} />;
}

export function Markdown({ text, streaming = false }: { text: string; streaming?: boolean }) {
  return (
    <div class={streaming ? 'md streaming' : 'md'}>
      {blocks(text).map((block, index) => (
        <Html key={index} html={block.html} />
      ))}
    </div>
  );
}
