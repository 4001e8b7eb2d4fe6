//! What would happen, complete: the command, the plan, the files with their diffs, and every other argument.

import { t } from '../i18n';
import { planOf } from '../model/approval';
import type { Approval, FileChange, FilePreview } from '../model/events';
import { Markdown } from '../text/Markdown';
import { visible } from '../text/visible';
import { Diff } from '../timeline/Diff';
import { commandOf } from '../timeline/rows';
import { Icon } from '../ui/icons';
import { Fields } from './Fields';

/** A look at the files: on its way, made, or not to be had. */
export type Look = FilePreview[] | 'coming' | null;

/** Lines of a diff shown at once where somebody decides about it. */
const LINES = 1_500;
/** Lines of a command from which on their number is said. */
const MANY_LINES = 6;

function File({ file, told }: { file: FilePreview; told: readonly FileChange[] }) {
  const change: FileChange = { path: file.path, diff: file.diff ?? told.find(({ path }) => path === file.path)?.diff ?? '' };
  const words = { create: t.fileCreate, overwrite: t.fileOverwrite, edit: t.fileEdit, delete: t.fileDelete };
  const mark = <span class={file.action === 'overwrite' || file.action === 'delete' ? 'tag attn' : 'tag'}>{words[file.action]}</span>;
  const note = file.problem && t.fileProblems[file.problem];
  return (
    <div class="file">
      <Diff changes={[change]} limit={LINES} whole mark={mark} />
      {file.moved_to && <p class="note"><Icon name="fork" size={16} />{t.fileMoved} <code>{visible(file.moved_to)}</code></p>}
      {note && <p class={file.problem === 'outside_project' || file.problem === 'no_match' || file.problem === 'missing' ? 'note attn' : 'note'}><Icon name="warn" size={16} />{note}</p>}
      {!file.problem && file.diff === '' && <p class="note"><Icon name="check" size={16} />{t.fileSame}</p>}
    </div>
  );
}

function Files({ approval, look }: { approval: Approval; look: Look }) {
  const changes = approval.changes ?? [];
  if (Array.isArray(look) && look.length) return <>{look.map((file) => <File key={file.path} file={file} told={changes} />)}</>;
  return (
    <>
      <Diff changes={changes} limit={LINES} whole />
      {look !== 'coming' && <p class="note"><Icon name="warn" size={16} />{t.notCompared}</p>}
    </>
  );
}

export function Substance({ approval, look }: { approval: Approval; look: Look }) {
  const command = commandOf(approval.input);
  const plan = planOf(approval);
  const lines = command?.split('\n').length ?? 0;
  const edits = Boolean(approval.changes?.length);
  // A title says something of its own only where nothing else says what would be done.
  const titled = plan === null && command === null && !edits && approval.kind !== 'mcp' && !approval.questions?.length && approval.title !== approval.tool_name;
  return (
    <>
      {plan !== null && <Markdown text={visible(plan)} />}
      {command !== null && <pre class="command big" tabIndex={0}>{visible(command)}</pre>}
      {lines >= MANY_LINES && <p class="soft small">{t.linesN(lines)}</p>}
      {edits && <Files approval={approval} look={look} />}
      {titled && <p class="asked">{visible(approval.title)}</p>}
      <Fields approval={approval} />
    </>
  );
}
