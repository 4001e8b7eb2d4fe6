//! Beside a session on a wide screen: its plan, what waits, and the files it changed.

import { number, t } from '../i18n';
import { changedFiles } from '../model/changed';
import type { Session } from '../net/types';
import type { OpenSession } from '../state/session';
import { visible } from '../text/visible';
import { Checklist } from '../timeline/rows';
import { baseName, tidyPath } from '../ui/kit';
import { Queue } from './Composer';

export function SidePanel({ open, session, onFile }: { open: OpenSession; session: Session; onFile(key: string): void }) {
  open.version.value;
  const { items, plan } = open.timeline.value;
  const files = changedFiles(items);
  const waits = session.queue.length > 0 || open.outgoing.length > 0;
  const done = plan.filter((entry) => entry.status === 'completed').length;
  const root = `${session.project_path.replace(/\/$/, '')}/`;
  const below = (path: string): string => (path.startsWith(root) ? path.slice(root.length) : tidyPath(path, open.room.info.value?.home_dir));
  return (
    <aside class="panel-side scroll" aria-label={t.sidePanel}>
      {plan.length > 0 && (
        <section>
          <h2>{t.plan} <span>{t.planOf(done, plan.length)}</span></h2>
          <Checklist entries={plan} />
        </section>
      )}
      {waits && (
        <section>
          <h2>{t.queue}</h2>
          <Queue open={open} session={session} />
        </section>
      )}
      <section>
        <h2>{t.changedFiles} {files.length > 0 && <span>{number(files.length)}</span>}</h2>
        {files.length ? (
          <ul class="changed">
            {files.map((file) => (
              <li key={file.path}>
                <button type="button" title={file.path} onClick={() => onFile(file.key)}>
                  <span class="two"><b class="clip">{visible(baseName(file.path))}</b><span class="soft clip">{visible(below(file.path).replace(/\/?[^/]*$/, '')) || './'}</span></span>
                  <span class="count">{file.added > 0 && <span class="add">+{number(file.added)}</span>}{file.removed > 0 && <span class="del">−{number(file.removed)}</span>}</span>
                </button>
              </li>
            ))}
          </ul>
        ) : <p class="soft small">{t.noChanges}</p>}
        {open.firstSeq.value > 1 && <p class="soft small">{t.partOnly}</p>}
      </section>
    </aside>
  );
}
