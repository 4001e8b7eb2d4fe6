//! The question an agent waits with, where the thumb is: all of what would happen, then the ways to answer.

import type { ComponentChildren } from 'preact';
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { second, span, t } from '../i18n';
import { conceals } from '../model/approval';
import type { WaitingApproval } from '../net/types';
import { decide, lookAtFiles, type Decision } from '../state/approve';
import type { Room } from '../state/machines';
import { visible } from '../text/visible';
import { Icon } from '../ui/icons';
import { DECIDE_KEY } from '../ui/keyname';
import { attempt } from '../ui/kit';
import { EnterHint, Prompt } from '../ui/prompt';
import { useArmed, type Armed } from './armed';
import { EditForm } from './EditForm';
import { Grants, Tool } from './Fields';
import { Questions } from './Questions';
import { Substance, type Look } from './Substance';
import { named } from '../model/named';

const AGENTS: Record<string, string> = { claude: 'Claude', codex: 'Codex', gemini: 'Gemini' };

type Mode = 'ask' | 'deny' | 'edit';
type Answer = (decision: Decision, at: number) => void;
interface Ways { approval: WaitingApproval; busy: boolean; armed: Armed; answer: Answer; show(mode: Mode): void }

/** What a plan leads to: a button a mode; the one that asks is what the key gives. */
function PlanWays({ approval, busy, armed, answer }: Ways) {
  const modes = approval.modes ?? [];
  const button = (mode: string | null, primary: boolean): ComponentChildren => (
    <button
      type="button" key={mode ?? ''} class={primary ? 'button primary' : 'button'} disabled={busy} aria-disabled={!armed.ready}
      onClick={(event) => answer(mode === null ? { decision: 'allow' } : { decision: 'allow', permission_mode: mode }, event.timeStamp)}
    >
      {mode === 'acceptEdits' ? t.approveAccept : mode === 'default' ? t.approveAsk : t.approvePlan}
      {primary && <kbd>{DECIDE_KEY}</kbd>}
    </button>
  );
  return (
    <div class="decide plan-ways">
      <button type="button" class="button" disabled={busy} aria-disabled={!armed.ready} onClick={(event) => answer({ decision: 'deny' }, event.timeStamp)}>{t.keepPlanning}</button>
      {modes.length ? modes.map((mode) => button(mode, mode === 'default')) : button(null, true)}
    </div>
  );
}

function AskWays(ways: Ways) {
  const { approval, busy, armed, answer, show } = ways;
  const isPlan = approval.kind === 'plan';
  const grants = approval.session_grants ?? [];
  return (
    <>
      {approval.can_allow_session && (
        <button type="button" class="rule" disabled={busy} aria-disabled={!armed.ready} onClick={(event) => answer({ decision: 'allow', for_session: true }, event.timeStamp)}>
          <b>{t.allowSession}</b>
          <span class="soft">{grants.length ? <Grants grants={grants} /> : t.grantUnknown}</span>
        </button>
      )}
      <div class="ways">
        {isPlan ? <PlanWays {...ways} /> : (
          <div class="decide">
            <button type="button" class="button" disabled={busy} aria-disabled={!armed.ready} onClick={(event) => answer({ decision: 'deny' }, event.timeStamp)}>{t.deny}</button>
            <button type="button" class="button primary" disabled={busy} aria-disabled={!armed.ready} onClick={(event) => answer({ decision: 'allow' }, event.timeStamp)}>
              {t.allowOnce}<kbd>{DECIDE_KEY}</kbd>
            </button>
          </div>
        )}
        <div class="decide-more">
          <button type="button" class="link quiet" disabled={busy} onClick={() => show('deny')}>{isPlan ? t.keepPlanningWhy : t.denyWhy}<kbd>d</kbd></button>
          {approval.can_edit && !isPlan && <button type="button" class="link quiet" disabled={busy} onClick={() => show('edit')}>{t.editFirst}</button>}
        </div>
      </div>
    </>
  );
}

function DenyForm({ busy, armed, answer, show, isPlan }: Pick<Ways, 'busy' | 'armed' | 'answer' | 'show'> & { isPlan: boolean }) {
  const [reason, setReason] = useState('');
  const form = useRef<HTMLFormElement>(null);
  const area = useRef<HTMLTextAreaElement>(null);
  useLayoutEffect(() => area.current?.focus(), []);
  const message = reason.trim() ? { message: reason.trim() } : {};
  return (
    <form
      class="decide-form"
      ref={form}
      onSubmit={(event) => {
        event.preventDefault();
        answer({ decision: 'deny', ...message }, event.timeStamp);
      }}
    >
      <Prompt
        id="deny-reason" class="field" area={area} rows={2} label={t.reasonHint} placeholder={t.reasonHint} value={reason}
        onText={setReason} onSend={() => form.current?.requestSubmit()} onEscape={() => show('ask')}
      />
      <EnterHint of="deny-reason" />
      <div class="decide">
        <button type="button" class="button" onClick={() => show('ask')}>{t.back}</button>
        <button type="submit" class="button danger" disabled={busy} aria-disabled={!armed.ready}>{isPlan ? t.keepPlanning : t.deny}</button>
      </div>
      <button type="button" class="link quiet" disabled={busy} onClick={(event) => answer({ decision: 'deny', ...message, interrupt: true }, event.timeStamp)}>{t.denyStop}</button>
    </form>
  );
}

/** One approval. */
function Ask({ room, approval, onDone }: { room: Room; approval: WaitingApproval; onDone(): void }) {
  const [mode, show] = useState<Mode>('ask');
  const [busy, setBusy] = useState(false);
  const edits = Boolean(approval.changes?.length);
  const [look, setLook] = useState<Look>(edits ? 'coming' : []);
  useEffect(() => {
    if (!edits) return;
    let here = true;
    void lookAtFiles(room, approval.id).then((files) => here && setLook(files));
    return () => { here = false; };
  }, []);

  // All that is shown; when any of it changes, nobody has read it yet.
  const files = Array.isArray(look) ? look : [];
  const armed = useArmed(useMemo(() => (look === 'coming' ? '' : JSON.stringify([
    approval.id, approval.kind, approval.tool_name, approval.title, approval.reason, approval.input, approval.changes ?? [], approval.questions ?? [], approval.modes ?? [],
    approval.can_allow_session, approval.session_grants ?? [], look,
  ])), [approval, look]));
  const hidden = useMemo(() => conceals(approval, files), [approval, look]);

  const answer: Answer = (decision, at) => {
    if (busy || !armed.takes(at)) return;
    setBusy(true);
    void attempt(() => decide(room, approval.id, decision)).then((well) => {
      setBusy(false);
      if (well) onDone();
    });
  };

  // In place with the panel itself: a key that comes right after it is about what stands here.
  useLayoutEffect(() => {
    const hear = (event: Event): void => {
      const { what, at } = (event as CustomEvent<{ what: 'allow' | 'reason'; at: number }>).detail;
      if (mode !== 'ask' || approval.questions?.length) return;
      if (what === 'reason') show('deny');
      else answer({ decision: 'allow', ...(approval.kind === 'plan' && approval.modes?.includes('default') ? { permission_mode: 'default' } : {}) }, at);
    };
    addEventListener('arp-decide', hear);
    return () => removeEventListener('arp-decide', hear);
  });

  const left = approval.expires_at ? Date.parse(approval.expires_at) - second.value : null;
  const ways: Ways = { approval, busy, armed, answer, show };
  const isPlan = approval.kind === 'plan';
  const asksQuestions = Boolean(approval.questions?.length);
  return (
    <div class={armed.ready ? 'ask' : 'ask inert'} onPointerDownCapture={armed.press} onKeyDownCapture={armed.press}>
      <i class="arming" aria-hidden="true" />
      <div class="ask-body scroll">
        {approval.reason && <p class="reason">{visible(approval.reason)}</p>}
        {hidden && <p class="notice attn" role="alert"><Icon name="warn" size={18} />{t.hiddenText}</p>}
        {mode !== 'edit' && <Substance approval={approval} look={look} />}
        {left !== null && left < 300_000 && <p class="soft small">{t.expiresIn(span(Math.max(0, left)))}</p>}
      </div>
      {asksQuestions ? (
        <Questions approval={approval} busy={busy} ready={armed.ready} onAnswer={(answers, at) => answer({ decision: 'allow', answers }, at)} onDeny={(at) => answer({ decision: 'deny' }, at)} />
      ) : mode === 'deny' ? (
        <DenyForm busy={busy} armed={armed} answer={answer} show={show} isPlan={isPlan} />
      ) : mode === 'edit' ? (
        <EditForm input={approval.input} busy={busy} ready={armed.ready} onBack={() => show('ask')} onAllow={(input, at) => answer({ decision: 'allow', updated_input: input }, at)} />
      ) : (
        <AskWays {...ways} />
      )}
    </div>
  );
}

/** All approvals of one session (or of none, those that came over MCP), one at a time, oldest first. */
export function ApprovalPanel({ room, approvals, onLater }: { room: Room; approvals: readonly WaitingApproval[]; onLater?: () => void }) {
  const [at, setAt] = useState(0);
  const index = Math.min(at, approvals.length - 1);
  const approval = approvals[index];
  if (!approval) return null;
  const who = named(AGENTS, approval.executor ?? '') ?? approval.executor ?? t.agent;
  const wants = t.wants[approval.kind] ?? t.wants.other;
  return (
    <section class="approval" aria-label={`${who} ${wants}`}>
      <header class="approval-head" key={approval.id}>
        <span class="attn-mark"><Icon name={approval.kind} size={17} /></span>
        <div class="approval-what">
          <h2 aria-live="assertive">{who} {wants}</h2>
          {approval.tool_name && approval.kind !== 'plan' && approval.kind !== 'question' && <p class="tool-name"><Tool name={approval.tool_name} /></p>}
        </div>
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
