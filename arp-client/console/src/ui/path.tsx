//! A path on one line: what does not fit is cut in the middle, never at the file's name.

import { splitPath } from '../model/approval';
import { visible } from '../text/visible';

/** `whole`: over as many lines as it takes. */
export function Path({ path, whole = false }: { path: string; whole?: boolean }) {
  const [directory, name] = splitPath(path);
  return (
    <span class={whole ? 'path whole' : 'path'} title={path}>
      {directory && <span class="path-dir">{visible(directory)}</span>}
      <span class="path-name">{visible(name)}</span>
    </span>
  );
}
