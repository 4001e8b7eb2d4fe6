//! A unified diff, one file at a time. Long ones open in steps.

import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { number, t } from '../i18n';
import type { FileChange } from '../model/events';
import { countDiff, parseDiff } from '../model/diff';
import { visible } from '../text/visible';
import { Path } from '../ui/path';

/** Lines shown before "show all". */
const FIRST = 80;

/** `+12 −3`. */
export function DiffCount({ changes }: { changes: readonly FileChange[] }) {
  const sum = changes.reduce(
    (total, change) => {
      const { added, removed } = countDiff(change.diff);
      return { added: total.added + added, removed: total.removed + removed };
    },
    { added: 0, removed: 0 },
  );
  return (
    <span class="count">
      {sum.added > 0 && <span class="add">+{number(sum.added)}</span>}
      {sum.removed > 0 && <span class="del">−{number(sum.removed)}</span>}
    </span>
  );
}

type Looks = { limit?: number; whole?: boolean; mark?: ComponentChildren };

function File({ change, named, limit = FIRST, whole = false, mark }: { change: FileChange; named: boolean } & Looks) {
  const [all, setAll] = useState(false);
  const lines = parseDiff(change.diff);
  const shown = all ? lines : lines.slice(0, limit);
  const signs = { add: '+', del: '−', same: ' ', hunk: '' };
  return (
    <div class="diff">
      {named && (
        <div class="diff-head">
          <Path path={change.path} whole={whole} />
          <span class="diff-marks">{mark}<DiffCount changes={[change]} /></span>
        </div>
      )}
      {lines.length > 0 && <div class="diff-body" tabIndex={0} role="group" aria-label={change.path}>
        <div class="diff-lines">
          {shown.map((line, index) => (
            <div key={index} class={`d ${line.kind}`}>
              <span class="no" aria-hidden="true">{line.new ?? line.old ?? ''}</span>
              <span class="sign">{signs[line.kind]}</span>
              <code>{line.kind === 'hunk' ? visible(line.text) || '···' : visible(line.text) || ' '}</code>
            </div>
          ))}
        </div>
      </div>}
      {lines.length > shown.length && (
        <button type="button" class="link" onClick={() => setAll(true)}>
          {t.showMore} ({number(lines.length)} {t.lines})
        </button>
      )}
    </div>
  );
}

/** `limit`: lines shown before "show all"; `whole`: paths over as many lines as they take; `mark`: beside the counts. */
export function Diff({ changes, named = true, ...looks }: { changes: readonly FileChange[]; named?: boolean } & Looks) {
  return (
    <>
      {changes.map((change) => (
        <File key={change.path} change={change} named={named || changes.length > 1} {...looks} />
      ))}
    </>
  );
}
