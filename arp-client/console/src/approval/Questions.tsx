//! Questions with choices; each choice with what it means.

import { useState } from 'preact/hooks';
import { t } from '../i18n';
import type { WaitingApproval } from '../net/types';
import { named } from '../model/named';
import { visible } from '../text/visible';

type Props = { approval: WaitingApproval; busy: boolean; ready: boolean; onAnswer(answers: Record<string, string>, at: number): void; onDeny(at: number): void };

export function Questions({ approval, busy, ready, onAnswer, onDeny }: Props) {
  // By the question's text, which is the agent's to choose.
  const [chosen, setChosen] = useState<ReadonlyMap<string, string[]>>(new Map());
  const [other, setOther] = useState<ReadonlyMap<string, string>>(new Map());
  const questions = approval.questions ?? [];
  const answers = Object.fromEntries(
    questions.map(({ text }) => [text, [...(chosen.get(text) ?? []), other.get(text)?.trim() ?? ''].filter(Boolean).join(', ')]),
  );
  const complete = questions.every(({ text }) => named(answers, text));
  return (
    <form
      class="questions"
      onSubmit={(event) => {
        event.preventDefault();
        if (complete) onAnswer(answers, event.timeStamp);
      }}
    >
      <div class="questions-list scroll">
        {questions.map(({ text, header, options, descriptions, multiple }) => (
          <fieldset key={text}>
            <legend>{header && <span class="soft">{visible(header)} · </span>}{visible(text)}</legend>
            {options.map((option, index) => {
              const on = chosen.get(text)?.includes(option) ?? false;
              const means = descriptions?.[index];
              return (
                <label key={option} class={on ? 'choice on' : 'choice'}>
                  <input
                    type={multiple ? 'checkbox' : 'radio'}
                    name={text}
                    checked={on}
                    onChange={() => {
                      const list = chosen.get(text) ?? [];
                      const next = multiple ? (on ? list.filter((one) => one !== option) : [...list, option]) : [option];
                      setChosen(new Map(chosen).set(text, next));
                      if (!multiple) setOther(new Map(other).set(text, ''));
                    }}
                  />
                  <span class="two"><span>{visible(option)}</span>{means && <span class="soft">{visible(means)}</span>}</span>
                </label>
              );
            })}
            <input
              type="text"
              class="field"
              placeholder={t.otherAnswer}
              aria-label={`${text} ${t.otherAnswer}`}
              value={other.get(text) ?? ''}
              onInput={(event) => {
                setOther(new Map(other).set(text, event.currentTarget.value));
                if (!multiple && event.currentTarget.value) setChosen(new Map(chosen).set(text, []));
              }}
            />
          </fieldset>
        ))}
      </div>
      <div class="decide">
        <button type="button" class="button" disabled={busy} aria-disabled={!ready} onClick={(event) => onDeny(event.timeStamp)}>{t.deny}</button>
        <button type="submit" class="button primary" disabled={busy || !complete} aria-disabled={!ready}>{t.answer}</button>
      </div>
    </form>
  );
}
