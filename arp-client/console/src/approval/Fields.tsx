//! Everything that is asked for besides the command or the diff, and the rules that a session's permission grants.

import { span, t } from '../i18n';
import { fieldsOf, otherFields, toolOf } from '../model/approval';
import type { Approval, Grant } from '../model/events';
import { modeWord } from '../model/mode';
import { modeHint, modeName } from '../screens/Pickers';
import { visible } from '../text/visible';
import { pretty } from '../timeline/rows';
import { named } from '../model/named';

/** An argument's name for people; one that nobody named keeps the agent's word. */
export const fieldName = (name: string): string => named(t.fieldNames as Record<string, string>, name) ?? name;

/** Arguments that lift a protection when they are set. */
const RISKY = /^(dangerously|allow|skip|disable|force|grantRoot|additionalPermissions|network)/i;

const plain = (value: unknown): value is string | number | boolean => typeof value === 'number' || typeof value === 'boolean' || (typeof value === 'string' && !value.includes('\n'));
const pairs = (value: unknown, between: string): string | null =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && Object.values(value).every(plain)
    ? Object.entries(value).map(([name, inner]) => `${name}: ${String(inner)}`).join(between)
    : null;

/** A small object or list, a line an entry; anything deeper as JSON. */
function lines(value: unknown): string {
  if (Array.isArray(value) && value.length) {
    const each = value.map((inner) => (plain(inner) ? String(inner) : pairs(inner, ' · ')));
    if (each.every((line) => line !== null)) return each.join('\n');
  }
  return pairs(value, '\n') || pretty(value);
}

function Value({ name, value, tool }: { name: string; value: unknown; tool: string }) {
  if (typeof value === 'boolean') return <>{value ? t.yes : t.no}</>;
  if (typeof value === 'number') return <>{name === 'timeout' && tool === 'Bash' ? `${span(value)} (${value})` : String(value)}</>;
  const text = visible(lines(value));
  return text.includes('\n') ? <pre class="output" tabIndex={0}>{text}</pre> : <code>{text || '""'}</code>;
}

export function Fields({ approval }: { approval: Approval }) {
  const fields = otherFields(approval);
  if (!fields.length) {
    const whole = fieldsOf(approval.input);
    // Arguments that are no object are shown as they are.
    return Object.keys(whole).length || approval.input === null || typeof approval.input === 'object' ? null : <pre class="output" tabIndex={0}>{visible(pretty(approval.input))}</pre>;
  }
  return (
    <dl class="fields">
      {fields.map(([name, value]) => (
        <div key={name} class={RISKY.test(name) && value !== false ? 'attn' : ''}>
          <dt title={name}>{visible(fieldName(name))}</dt>
          <dd><Value name={name} value={value} tool={approval.tool_name} /></dd>
        </div>
      ))}
    </dl>
  );
}

/** A tool by its name, and the server whose tool it is. */
export function Tool({ name }: { name: string }) {
  const tool = toolOf(name);
  return (
    <>
      {tool.name && <code>{visible(tool.name)}</code>}
      {tool.server && <> {t.ofServer} <code>{visible(tool.server)}</code></>}
    </>
  );
}

/** What a permission for the session stands for, in a line each. */
export function Grants({ grants }: { grants: readonly Grant[] }) {
  return (
    <>
      {grants.map((grant, index) => (
        <span key={index} class="grant">{words(grant)}</span>
      ))}
    </>
  );
}

function words(grant: Grant) {
  switch (grant.type) {
    case 'tool':
      return grant.pattern ? <code>{visible(`${grant.tool}(${grant.pattern})`)}</code> : <>{t.grantTool} <Tool name={grant.tool} /></>;
    case 'same_command':
      return t.grantSameCommand;
    case 'same_files':
      return t.grantSameFiles;
    case 'same_access':
      return t.grantSameAccess;
    case 'mode':
      return <>{modeName(modeWord(grant.mode))}: {modeHint(modeWord(grant.mode))}</>;
    case 'named':
      return t.grantNamed(visible(grant.name));
    default:
      return <code>{visible(pretty(grant))}</code>;
  }
}
