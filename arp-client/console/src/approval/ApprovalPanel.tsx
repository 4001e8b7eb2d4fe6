//! The question an agent waits with, where the thumb is: all of what would happen, then the ways to answer.

import { useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { second, span, t } from '../i18n';
import type { WaitingApproval } from '../net/types';
import { decide, type Decision } from '../state/approve';
import type { Room } from '../state/machines';
import { Markdown } from '../text/Markdown';
import { hides, visible } from '../text/visible';
import { Diff } from '../timeline/Diff';
import { commandOf, pretty } from '../timeline/rows';
import { Icon } from '../ui/icons';
import { attempt } from '../ui/kit';

const AGENTS: Record<string, string> = { claude: 'Claude', codex: 'Codex', gemini: 'Gemini' };

/** The text of a plan that waits for approval. */
function planOf(approval: WaitingApproval): string | null {
  const plan = (approval.input as { plan?: unknown } | null)?.plan;
  return approval.kind === 'plan' && typeof plan === 'string' ? plan : null;
}

/** What is asked, complete. */
function Substance({ approval }: { approval: WaitingApproval }) {
  const command = commandOf(approval.input);
  const plan = planOf(approval);
  if (plan !== null) return <Markdown text={plan} />;
  return (
    <>
      {command !== null && <pre class="command big" tabIndex={0}>{visible(command)}</pre>}
      {approval.changes?.length ? <Diff changes={approval.changes} /> : null}
      {command === null && !approval.changes?.length && (
        <>
          {approval.title && <p class="asked">{visible(approval.title)}</p>}
          <pre class="output" tabIndex={0}>{visible(pretty(approval.input))}</pre>
        </>
      )}
    </>
  );
}

/** Questions with choices. */
function Questions({ approval, busy, onAnswer, onDeny }: { approval: WaitingApproval; busy: boolean; onAnswer(answers: Record<string, string>): void; onDeny(): void }) {
  const [chosen, setChosen] = useState<Record<string, string[]>>({});
  const [other, setOther] = useState<Record<string, string>>({});
  const questions = approval.questions ?? [];
  const answers = Object.fromEntries(
    questions.map(({ text }) => [text, [...(chosen[text] ?? []), ...(other[text]?.trim() ? [other[text].trim()] : [])].join(', ')]),
  );
  const complete = questions.every(({ text }) => answers[text]);
  return (
    <form
      class="questions"
      onSubmit={(event) => {
        event.preventDefault();
        if (complete) onAnswer(answers);
      }}
    >
      {questions.map(({ text, header, options, multiple }) => (
        <fieldset key={text}>
          <legend>{header && <span class="soft">{header} · </span>}{text}</legend>
          {options.map((option) => {
            const on = chosen[text]?.includes(option) ?? false;
            return (
              <label key={option} class={on ? 'choice on' : 'choice'}>
                <input
                  type={multiple ? 'checkbox' : 'radio'}
                  name={text}
                  checked={on}
                  onChange={() => {
                    const list = chosen[text] ?? [];
                    const next = multiple ? (on ? list.filter((one) => one !== option) : [...list, option]) : [option];
                    setChosen({ ...chosen, [text]: next });
                    if (!multiple) setOther({ ...other, [text]: '' });
                  }}
                />
                <span>{option}</span>
              </label>
            );
          })}
          <input
            type="text"
            class="field"
            placeholder={t.otherAnswer}
            aria-label={`${text} ${t.otherAnswer}`}
            value={other[text] ?? ''}
            onInput={(event) => {
              setOther({ ...other, [text]: event.currentTarget.value });
              if (!multiple && event.currentTarget.value) setChosen({ ...chosen, [text]: [] });
            }}
          />
        </fieldset>
      ))}
      <div class="decide">
        <button type="button" class="button" disabled={busy} onClick={onDeny}>{t.deny}</button>
        <button type="submit" class="button primary" disabled={busy || !complete}>{t.answer}</button>
      </div>
    </form>
  );
}

type Mode = 'ask' | 'deny' | 'edit';

/** One approval. */
function Ask({ room, approval, onDone }: { room: Room; approval: WaitingApproval; onDone(): void }) {
  const command = commandOf(approval.input);
  const simple = command !== null && typeof (approval.input as { command?: unknown }).command === 'string';
  const [mode, setMode] = useState<Mode>('ask');
  const [busy, setBusy] = useState(false);
  const [reason, setReason] = useState('');
  const [edited, setEdited] = useState(() => (simple ? (command ?? '') : pretty(approval.input)));
  const area = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => {
    if (mode !== 'ask') area.current?.focus();
  }, [mode]);

  const answer = async (decision: Decision): Promise<void> => {
    if (busy) return;
    setBusy(true);
    if (await attempt(() => decide(room, approval.id, decision))) onDone();
    setBusy(false);
  };
  const editedInput = (): unknown => {
    if (simple) return { ...(approval.input as object), command: edited };
    try {
      return JSON.parse(edited);
    } catch {
      return undefined;
    }
  };

  // In place with the panel itself: a key that comes right after it is an answer.
  useLayoutEffect(() => {
    const hear = (event: Event): void => {
      const key = (event as CustomEvent<string>).detail;
      if (mode !== 'ask' || approval.questions?.length) return;
      if (key === 'a') void answer({ decision: 'allow' });
      else if (key === 'd') setMode('deny');
    };
    addEventListener('arp-decide', hear);
    return () => removeEventListener('arp-decide', hear);
  });

  const left = approval.expires_at ? Date.parse(approval.expires_at) - second.value : null;
  const isPlan = approval.kind === 'plan';
  const conceals = useMemo(() => hides([command ?? pretty(approval.input), ...(approval.changes ?? []).flatMap(({ path, diff }) => [path, diff])].join('\n')), [approval]);
  const bad = mode === 'edit' && editedInput() === undefined;

  return (
    <div class="ask">
      <div class="ask-body scroll">
        {approval.reason && <p class="reason">{approval.reason}</p>}
        {conceals && <p class="notice" role="alert"><Icon name="warn" size={18} />{t.hiddenText}</p>}
        {approval.questions?.length ? null : mode === 'edit' ? (
          <>
            <label class="hide" for="edit-input">{t.edit}</label>
            <textarea id="edit-input" class="field mono" ref={area} rows={Math.min(12, edited.split('\n').length + 1)} value={edited} spellcheck={false} autocapitalize="off" onInput={(event) => setEdited(event.currentTarget.value)} />
            {bad && <p class="bad small" role="alert">{t.editBad}</p>}
          </>
        ) : (
          <Substance approval={approval} />
        )}
        {left !== null && left < 300_000 && <p class="soft small">{t.expiresIn(span(Math.max(0, left)))}</p>}
      </div>

      {approval.questions?.length ? (
        <Questions approval={approval} busy={busy} onAnswer={(answers) => void answer({ decision: 'allow', answers })} onDeny={() => void answer({ decision: 'deny' })} />
      ) : mode === 'deny' ? (
        <form
          class="decide-form"
          onSubmit={(event) => {
            event.preventDefault();
            void answer(reason.trim() ? { decision: 'deny', message: reason.trim() } : { decision: 'deny' });
          }}
        >
          <label class="hide" for="deny-reason">{t.reasonHint}</label>
          <textarea
            id="deny-reason"
            class="field"
            ref={area}
            rows={2}
            placeholder={t.reasonHint}
            value={reason}
            onInput={(event) => setReason(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === 'Escape') setMode('ask');
              if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
                event.preventDefault();
                event.currentTarget.form?.requestSubmit();
              }
            }}
          />
          <div class="decide">
            <button type="button" class="button" onClick={() => setMode('ask')}>{t.back}</button>
            <button type="submit" class="button danger" disabled={busy}>{t.deny}</button>
          </div>
          <button type="button" class="link quiet" disabled={busy} onClick={() => void answer({ decision: 'deny', message: reason.trim(), interrupt: true })}>{t.denyStop}</button>
        </form>
      ) : mode === 'edit' ? (
        <div class="decide">
          <button type="button" class="button" onClick={() => setMode('ask')}>{t.back}</button>
          <button type="button" class="button primary" disabled={busy || bad} onClick={() => void answer({ decision: 'allow', updated_input: editedInput() })}>{t.allowEdited}</button>
        </div>
      ) : (
        <>
          <div class="decide">
            <button type="button" class="button" disabled={busy} onClick={() => setMode('deny')}>
              {isPlan ? t.keepPlanning : t.deny}<kbd>d</kbd>
            </button>
            <button type="button" class="button primary" disabled={busy} onClick={() => void answer({ decision: 'allow' })}>
              {isPlan ? t.approvePlan : t.allowOnce}<kbd>a</kbd>
            </button>
          </div>
          {(approval.can_allow_session || approval.can_edit) && (
            <div class="decide-more">
              {approval.can_allow_session && <button type="button" class="link quiet" disabled={busy} onClick={() => void answer({ decision: 'allow', for_session: true })}>{t.allowSession}</button>}
              {approval.can_edit && !isPlan && <button type="button" class="link quiet" disabled={busy} onClick={() => setMode('edit')}>{t.edit}</button>}
            </div>
          )}
        </>
      )}
    </div>
  );
}

/** All approvals of one session (or of none, those that came over MCP), one at a time, oldest first. */
export function ApprovalPanel({ room, approvals, onLater }: { room: Room; approvals: readonly WaitingApproval[]; onLater?: () => void }) {
  const [at, setAt] = useState(0);
  const index = Math.min(at, approvals.length - 1);
  const approval = approvals[index];
  const box = useRef<HTMLElement>(null);
  if (!approval) return null;
  const who = AGENTS[approval.executor ?? ''] ?? approval.executor ?? t.agent;
  return (
    <section class="approval" ref={box} aria-label={`${who} ${t.wants[approval.kind] ?? t.wants.other}`}>
      <header class="approval-head">
        <span class="attn-mark"><Icon name={approval.kind} size={17} /></span>
        <h2 aria-live="assertive">
          {who} {t.wants[approval.kind] ?? t.wants.other}
        </h2>
        {approvals.length > 1 && (
          <span class="pager">
            <button type="button" class="ghost round" aria-label={t.previous} disabled={index === 0} onClick={() => setAt(index - 1)}><Icon name="left" size={16} /></button>
            <span>{t.ofApprovals(index + 1, approvals.length)}</span>
            <button type="button" class="ghost round" aria-label={t.next} disabled={index >= approvals.length - 1} onClick={() => setAt(index + 1)}><Icon name="right" size={16} /></button>
          </span>
        )}
        {onLater && (
          <button type="button" class="ghost round" aria-label={t.decideLater} title={t.decideLater} onClick={onLater}><Icon name="down" size={18} /></button>
        )}
      </header>
      <Ask key={approval.id} room={room} approval={approval} onDone={() => setAt(0)} />
    </section>
  );
}
