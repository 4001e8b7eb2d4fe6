import { describe, expect, test, vi } from 'vitest';
import type { AgentEvent, Entry } from '../../src/model/events';
import { lastLine, Timeline, type Item, type ToolItem } from '../../src/model/timeline';

const log = (...events: AgentEvent[]): Entry[] => events.map((event, index) => ({ seq: index + 1, time: (index + 1) * 1000, event }));
const after = (...events: AgentEvent[]): Timeline => {
  const timeline = new Timeline();
  timeline.apply(log(...events));
  return timeline;
};
const kinds = (items: readonly Item[]): string[] => items.map((item) => item.kind);
const call = (id: string, more: Partial<Extract<AgentEvent, { type: 'tool_call' }>> = {}): AgentEvent =>
  ({ type: 'tool_call', id, name: 'Bash', kind: 'command', title: `run ${id}`, input: { command: `run ${id}` }, ...more });

describe('timeline', () => {
  test('fragments_join_and_the_whole_text_replaces_them', () => {
    const timeline = after(
      { type: 'user_message', id: 'm', text: 'hi' },
      { type: 'text', id: 'a', text: 'Hel', delta: true },
      { type: 'text', id: 'a', text: 'lo', delta: true },
    );
    expect(timeline.items[1]).toMatchObject({ kind: 'text', text: 'Hello', streaming: true });
    timeline.apply([{ seq: 4, time: 0, event: { type: 'text', id: 'a', text: 'Hello!', delta: false } }]);
    expect(timeline.items[1]).toMatchObject({ text: 'Hello!', streaming: false });
    expect(timeline.items).toHaveLength(2);
  });

  test('an_event_that_comes_twice_counts_once', () => {
    const entries = log({ type: 'user_message', id: 'm', text: 'hi' }, { type: 'text', id: 'a', text: 'x', delta: true }, { type: 'text', id: 'a', text: 'y', delta: true });
    const timeline = new Timeline();
    timeline.apply(entries);
    expect(timeline.apply(entries.slice(1))).toBe(false);
    expect(timeline.items[1]).toMatchObject({ text: 'xy' });
  });

  test('the_same_log_in_any_cuts_gives_the_same_rows', () => {
    const entries = log(
      { type: 'user_message', id: 'm', text: 'hi' }, call('1'), call('2', { kind: 'task' }), call('3', { parent: '2' }),
      { type: 'tool_result', id: '3', output: 'deep', delta: false, is_error: false, parent: '2' }, { type: 'tool_result', id: '1', output: 'a', delta: true, is_error: false },
      { type: 'tool_result', id: '1', output: 'b', delta: true, is_error: false }, { type: 'tool_result', id: '2', output: 'done', delta: false, is_error: false },
      { type: 'plan', entries: [] }, { type: 'error', message: 'again', retrying: true }, { type: 'error', message: 'again 2', retrying: true }, { type: 'turn_end', status: 'completed' },
    );
    const whole = new Timeline();
    whole.apply(entries);
    for (let cut = 1; cut < entries.length; cut++) {
      const parts = new Timeline();
      parts.apply(entries.slice(0, cut));
      parts.apply(entries.slice(cut));
      expect(parts.items).toEqual(whole.items);
    }
  });

  test('a_call_gets_its_result_its_exit_code_and_its_end', () => {
    const timeline = after(call('1'), { type: 'tool_result', id: '1', output: 'no', delta: false, is_error: false, exit_code: 2 });
    expect(timeline.items[0]).toMatchObject({ state: 'failed', output: 'no', exitCode: 2, time: 1000, endTime: 2000 });
  });

  test('calls_of_a_sub_agent_lie_inside_its_call', () => {
    const timeline = after(call('t', { kind: 'task' }), call('a', { parent: 't' }), { type: 'text', id: 'x', text: 'found', delta: false, parent: 't' });
    expect(timeline.items).toHaveLength(1);
    expect(kinds((timeline.items[0] as ToolItem).children)).toEqual(['tool', 'text']);
  });

  test('rows_that_did_not_change_stay_the_same_objects', () => {
    const timeline = after(call('1'), call('2'));
    const [first, second] = timeline.items;
    timeline.apply([{ seq: 3, time: 0, event: { type: 'tool_result', id: '2', output: 'x', delta: true, is_error: false } }]);
    expect(timeline.items[0]).toBe(first);
    expect(timeline.items[1]).not.toBe(second);
  });

  const approval: AgentEvent = { type: 'approval', id: 'ap', tool_call_id: '1', tool_name: 'Bash', kind: 'command', title: 'run 1', reason: null, input: {}, can_allow_session: true, can_edit: true };

  test('an_approval_waits_at_its_call_and_goes_when_it_is_decided', () => {
    const timeline = after(call('1'), approval);
    expect(timeline.pending).toHaveLength(1);
    expect(timeline.items[0]).toMatchObject({ state: 'waiting' });
    timeline.apply([{ seq: 3, time: 0, event: { type: 'approval_resolved', id: 'ap', outcome: 'denied', message: 'no' } }]);
    expect(timeline.pending).toHaveLength(0);
    expect(timeline.items[0]).toMatchObject({ state: 'denied', output: 'no' });
    timeline.apply([{ seq: 4, time: 0, event: { type: 'tool_result', id: '1', output: 'refused', delta: false, is_error: true } }]);
    expect(timeline.items[0]).toMatchObject({ state: 'denied' });
  });

  test('a_void_approval_disappears_from_what_waits', () => {
    const timeline = after({ ...approval, tool_call_id: null } as AgentEvent, { type: 'approval_resolved', id: 'ap', outcome: 'void' });
    expect(timeline.pending).toEqual([]);
    expect(timeline.items[0]).toMatchObject({ kind: 'decision', outcome: 'void' });
  });

  test('an_interrupted_turn_leaves_nothing_that_seems_to_run', () => {
    const timeline = after(call('1'), { type: 'text', id: 'a', text: 'x', delta: true }, { type: 'turn_end', status: 'interrupted' });
    expect(timeline.items[0]).toMatchObject({ state: 'stopped' });
    expect(timeline.items[1]).toMatchObject({ streaming: false });
    expect(timeline.running).toBe(false);
  });

  test('a_type_that_is_not_known_is_kept_as_it_came', () => {
    const timeline = after({ type: 'from_the_future', x: 1 } as unknown as AgentEvent);
    expect(timeline.items[0]).toMatchObject({ kind: 'raw', data: { x: 1 } });
  });

  test('a_result_whose_call_lies_on_an_older_page_joins_it_when_that_page_comes', () => {
    const entries = log(call('1'), { type: 'tool_result', id: '1', output: 'x', delta: false, is_error: false });
    const page = new Timeline();
    page.apply(entries.slice(1));
    const key = page.items[0]?.key;
    const both = new Timeline();
    both.apply(entries);
    expect(both.items).toHaveLength(1);
    expect(both.items[0]?.key).toBe(key);
    expect(both.items[0]).toMatchObject({ title: 'run 1', output: 'x', state: 'done' });
  });

  test('retries_are_one_row', () => {
    const timeline = after({ type: 'error', message: '1', retrying: true }, { type: 'error', message: '2', retrying: true }, { type: 'error', message: '3', retrying: false });
    expect(kinds(timeline.items)).toEqual(['error']);
    expect(timeline.items[0]).toMatchObject({ message: '3', retrying: false });
  });

  test('twenty_thousand_events_are_read_without_copying_what_was_read', () => {
    const events: AgentEvent[] = [call('t', { kind: 'task' })];
    for (let n = 0; n < 10_000; n++) events.push(call(`c${n}`, n % 2 ? { parent: 't' } : {}), { type: 'tool_result', id: `c${n}`, output: 'ok', delta: false, is_error: false });
    const entries = log(...events);
    // What costs is copying lists: it is done once for all of them, not once an event.
    let copied = 0;
    const spies = (['slice', 'filter', 'map', 'concat'] as const).map((name) => {
      const real = Array.prototype[name] as (...given: unknown[]) => unknown;
      return vi.spyOn(Array.prototype, name).mockImplementation(function count(this: unknown[], ...given: unknown[]) {
        copied += this.length;
        return real.apply(this, given) as never;
      });
    });
    const timeline = new Timeline();
    timeline.apply(entries);
    for (const spy of spies) spy.mockRestore();
    expect(copied).toBeLessThan(entries.length);
    expect(timeline.items).toHaveLength(5_001);
  });

  test('the_last_line_is_plain', () => {
    expect(lastLine('# Title\n\n- **one** `two`\n')).toBe('one two');
  });
});
